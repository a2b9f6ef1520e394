// SPDX-License-Identifier: GPL-2.0-or-later
#include "test.h"

#include "zero.h"

#include <stdint.h>

static uint8_t buf[65536 + 64];

/* Every single byte decides, at every length and alignment. */
static void check_lengths(size_t first, size_t last, size_t step)
{
	for (size_t len = first; len <= last; len += step)
		for (size_t shift = 0; shift < 9; shift++) {
			uint8_t *p = buf + 8 + shift;

			/* What lies around must not matter. */
			p[-1] = 1;
			p[len] = 1;
			CHECK(zero_is(p, len));
			for (size_t i = 0; i < len; i++) {
				p[i] = 0x80;
				if (zero_is(p, len)) {
					printf("# len %zu shift %zu byte %zu\n", len, shift, i);
					CHECK(!"a byte was overlooked");
				}
				p[i] = 0;
			}
			p[-1] = 0;
			p[len] = 0;
		}
}

static void short_ones(void)
{
	check_lengths(0, 1100, 7);
	check_lengths(500, 530, 1);
}

static void pages(void)
{
	check_lengths(4096, 4096, 1);
	check_lengths(16384, 16384, 1);
}

static void big_pages(void)
{
	for (size_t i = 0; i < 65536; i += 61) {
		buf[i] = 1;
		CHECK(!zero_is(buf, 65536));
		buf[i] = 0;
	}
	CHECK(zero_is(buf, 65536));
}

static const struct test_case cases[] = {
	{ "no byte of a short buffer is overlooked", short_ones },
	{ "no byte of a page of 4 or 16 KiB is overlooked", pages },
	{ "a page of 64 KiB is tested to its end", big_pages },
};
TEST_MAIN(cases)
