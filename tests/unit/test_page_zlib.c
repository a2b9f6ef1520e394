// SPDX-License-Identifier: GPL-2.0-or-later
#include "test.h"

#include "codec.h"

#include <stdint.h>
#include <zlib.h>

static uint8_t page[65536], back[65536], out[70000];
static struct error err;

static void fill(size_t len, int kind)
{
	unsigned x = 7;

	for (size_t i = 0; i < len; i++) {
		x = x * 1103515245 + 12345;
		page[i] = kind == 0 ? 0 : kind == 1 ? (uint8_t)(i >> 3) : (uint8_t)(x >> 16);
	}
}

static void there_and_back(void)
{
	/* the second byte of a stream tells the level */
	static const struct {
		int level;
		uint8_t second;
	} levels[] = {
		{ 0, 0x01 }, { 1, 0x01 }, { 2, 0x5e }, { 6, 0x9c }, { 7, 0xda }, { 9, 0xda }
	};
	struct page_zlib *d = page_zlib_new(false, 0, &err);

	REQUIRE(d);
	for (size_t i = 0; i < sizeof(levels) / sizeof(levels[0]); i++) {
		struct page_zlib *e = page_zlib_new(true, levels[i].level, &err);

		REQUIRE(e);
		for (size_t len = 4096; len <= 65536; len *= 4)
			for (int kind = 0; kind < 3; kind++) {
				ssize_t n;

				fill(len, kind);
				n = page_zlib_encode(e, page, len, out, page_zlib_bound(len));
				REQUIRE(n > 0);
				CHECK(out[0] == 0x78 && out[1] == levels[i].second);
				memset(back, 0xee, sizeof(back));
				CHECK(page_zlib_decode(d, out, (size_t)n, back, len) == 0);
				CHECK(!memcmp(page, back, len));
			}
		page_zlib_free(e);
	}
	page_zlib_free(d);
	page_zlib_free(NULL);
}

/* By Python's zlib at level 6. */
static void vector_of_another(void)
{
	static const uint8_t of_a[] = { 0x78, 0x9c, 0xed, 0xc1, 0x01, 0x0d, 0x00, 0x00, 0x00, 0xc2,
					0xa0, 0xac, 0xef, 0x5f, 0xc2, 0x1e, 0x0e, 0x28, 0x00, 0x00,
					0x00, 0xe0, 0xdd, 0x00, 0xef, 0xcb, 0x10, 0x5b };
	struct page_zlib *d = page_zlib_new(false, 0, &err);

	REQUIRE(d);
	memset(page, 'a', 4096);
	CHECK(page_zlib_decode(d, of_a, sizeof(of_a), back, 4096) == 0);
	CHECK(!memcmp(page, back, 4096));
	page_zlib_free(d);
}

static void exactly_one_page(void)
{
	struct page_zlib *e = page_zlib_new(true, 1, &err), *d = page_zlib_new(false, 0, &err);

	REQUIRE(e && d);
	for (int kind = 0; kind < 3; kind++) {
		ssize_t n;

		fill(4096, kind);
		n = page_zlib_encode(e, page, 4096, out, page_zlib_bound(4096));
		REQUIRE(n > 0);
		CHECK(page_zlib_decode(d, out, (size_t)n, back, 4095) == -1);
		CHECK(page_zlib_decode(d, out, (size_t)n, back, 4097) == -1);
		CHECK(page_zlib_decode(d, out, (size_t)n + 1, back, 4096) == -1);
		for (size_t cut = 0; cut < (size_t)n; cut++)
			CHECK(page_zlib_decode(d, out, cut, back, 4096) == -1);
		/* and after all these errors the context still works */
		CHECK(page_zlib_decode(d, out, (size_t)n, back, 4096) == 0);
		CHECK(!memcmp(page, back, 4096));
	}
	page_zlib_free(e);
	page_zlib_free(d);
}

static void unfinished_and_dictionary(void)
{
	struct page_zlib *d = page_zlib_new(false, 0, &err);
	z_stream zs = { 0 };

	REQUIRE(d && deflateInit(&zs, 1) == Z_OK);
	fill(4096, 1);
	zs.next_in = page;
	zs.avail_in = 4096;
	zs.next_out = out;
	zs.avail_out = sizeof(out);
	REQUIRE(deflate(&zs, Z_SYNC_FLUSH) == Z_OK);
	CHECK(page_zlib_decode(d, out, zs.total_out, back, 4096) == -1);
	deflateReset(&zs);
	deflateSetDictionary(&zs, page, 64);
	zs.next_in = page;
	zs.avail_in = 4096;
	zs.next_out = out;
	zs.avail_out = sizeof(out);
	REQUIRE(deflate(&zs, Z_FINISH) == Z_STREAM_END);
	CHECK(page_zlib_decode(d, out, zs.total_out, back, 4096) == -1);
	deflateEnd(&zs);
	page_zlib_free(d);
}

static void too_little_room(void)
{
	struct page_zlib *e = page_zlib_new(true, 1, &err);

	REQUIRE(e);
	fill(4096, 2);
	CHECK(page_zlib_encode(e, page, 4096, out, 4096) == -1);
	CHECK(page_zlib_encode(e, page, 4096, out, page_zlib_bound(4096)) > 4096);
	CHECK(page_zlib_bound(4096) == 4110);
	page_zlib_free(e);
	CHECK(page_zlib_new(true, 10, &err) == NULL && err.status == ST_USAGE);
}

static const struct test_case cases[] = {
	{ "pages of every size go there and back at every level", there_and_back },
	{ "a page that Python compressed is read", vector_of_another },
	{ "anything but exactly one page is refused", exactly_one_page },
	{ "an unfinished stream or one with a dictionary is refused", unfinished_and_dictionary },
	{ "too little room is reported", too_little_room },
};
TEST_MAIN(cases)
