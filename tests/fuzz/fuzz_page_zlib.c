// SPDX-License-Identifier: GPL-2.0-or-later
/* A page of the compress capability. What is accepted has to be what zlib's own call makes of it.
 */
#include "fuzz.h"

#include "codec.h"

#include <zlib.h>

#define PAGE 4096u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t *page = calloc(1, PAGE), *want = malloc(PAGE + 1);
	uLongf got = PAGE + 1;
	uLong used = size;
	struct page_zlib *z;
	struct error err;
	int ret, plain;

	z = page_zlib_new(false, 0, &err);
	FUZZ_CHECK(z && page && want);
	ret = page_zlib_decode(z, data, size, page, PAGE);
	plain = uncompress2(want, &got, data, &used);
	FUZZ_CHECK((ret == 0) == (plain == Z_OK && got == PAGE && used == size));
	if (ret == 0)
		FUZZ_CHECK(!memcmp(page, want, PAGE));
	page_zlib_free(z);
	free(page);
	free(want);
	return 0;
}
