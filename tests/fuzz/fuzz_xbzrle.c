// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * XBZRLE both ways. Input: a byte that chooses the page's size, then a delta; a decoder that goes
 * byte by byte has to agree. The same bytes, cut in two, are also pages to encode.
 */
#include "fuzz.h"

#include "xbzrle.h"

/* The length at *at, -1: malformed or fewer than two bytes left. */
static long plain_uleb(const uint8_t *d, size_t len, size_t *at)
{
	long v;

	if (len - *at < 2)
		return -1;
	v = d[(*at)++];
	if (v < 0x80)
		return v;
	if (d[*at] >= 0x80)
		return -1;
	return (v & 0x7f) | d[(*at)++] << 7;
}

static int plain_decode(const uint8_t *d, size_t len, uint8_t *to, size_t page)
{
	size_t i = 0, at = 0;

	while (i < len) {
		long same = plain_uleb(d, len, &i), fresh;

		if (same < 0 || (same == 0 && at) || at + (size_t)same > page)
			return -1;
		at += (size_t)same;
		fresh = plain_uleb(d, len, &i);
		if (fresh <= 0)
			return -1;
		for (; fresh; fresh--) {
			if (at == page || i == len)
				return -1;
			to[at++] = d[i++];
		}
	}
	return (int)at;
}

static void decode(const uint8_t *delta, size_t len, size_t page)
{
	uint8_t *a = calloc(1, page), *b = calloc(1, page);
	int n, m;

	FUZZ_CHECK(a && b);
	n = xbzrle_decode(delta, len, a, page);
	m = plain_decode(delta, len, b, page);
	FUZZ_CHECK(n == m && n <= (int)page);
	if (n >= 0)
		FUZZ_CHECK(!memcmp(a, b, page));
	free(a);
	free(b);
}

static void encode(const uint8_t *data, size_t page)
{
	uint8_t *old = fuzz_copy(data, page), *now = fuzz_copy(data + page, page);
	uint8_t *out = malloc(page ? page : 1);
	int n;

	FUZZ_CHECK(out);
	n = xbzrle_encode(old, now, page, out, page);
	FUZZ_CHECK(n >= -1 && n <= (int)page);
	if (n >= 0) {
		int covers = xbzrle_decode(out, (size_t)n, old, page);

		FUZZ_CHECK(covers >= 0 && covers <= (int)page);
		FUZZ_CHECK(!memcmp(old, now, page));
	}
	free(old);
	free(now);
	free(out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const uint16_t pages[] = { 4096, 16384, 1, 7, 64, 127, 128, 300 };
	uint8_t *delta;

	if (size < 1)
		return 0;
	delta = fuzz_copy(data + 1, size - 1);
	decode(delta, size - 1, pages[data[0] % 8]);
	free(delta);
	encode(data + 1, (size - 1) / 2 > XBZRLE_PAGE_MAX ? XBZRLE_PAGE_MAX : (size - 1) / 2);
	return 0;
}
