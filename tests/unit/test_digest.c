// SPDX-License-Identifier: GPL-2.0-or-later
#include "test.h"

#include "digest.h"

#include <stdlib.h>
#include <xxhash.h>

static uint8_t page[DIGEST_PAGE];

static void check_term(const char *name, uint64_t offset, size_t len, const char *want)
{
	struct digest_block b;
	char hex[33];

	digest_block_init(&b, name);
	CHECK_STR(digest_hex(digest_page(&b, offset, page, len), hex), want);
}

/* The values were computed with libxxhash's own functions from the formula in digest.h. */
static void known_answers(void)
{
	for (unsigned i = 0; i < sizeof(page); i++)
		page[i] = (uint8_t)(i * 7 + (i >> 8) * 13 + 1);
	check_term("pc.ram", 0, 4096, "b79508af41cc7ae4ff749a6a0af7dd90");
	check_term("pc.ram", 0x1000, 4096, "3d0540b721dce8428e8a2adce36d7d4a");
	check_term("pc.ram", 0x123456789000, 4096, "8ebb2a0b91074046281dc8c98a337190");
	check_term("/rom@etc/acpi/tables", 0, 4096, "0a66f78a29f8e2eed6b17838f20a248b");
	memset(page, 0, sizeof(page));
	page[0] = 1;
	check_term("pc.ram", 0, 4096, "1ef1bf3404b5748c98455fbb9ac20800");
	memset(page, 0xff, sizeof(page));
	check_term("", 0, 4096, "f10e449bc0ed19e1a30333f555054c01");
}

static void ragged_pages(void)
{
	memset(page, 0, sizeof(page));
	memcpy(page, "ragged end", 10);
	check_term("pc.ram", 0x5000, 4096, "59486ea78ea60ceafe79c563d30c8eeb");
	/* What is in memory behind the end must not count. */
	memset(page + 10, 0xee, sizeof(page) - 10);
	check_term("pc.ram", 0x5000, 10, "59486ea78ea60ceafe79c563d30c8eeb");
}

/* The inlined code for this processor and the library have to agree at every length. */
static void library_agrees(void)
{
	uint8_t buf[5000];
	unsigned x = 1;

	for (size_t i = 0; i < sizeof(buf); i++) {
		x = x * 1103515245 + 12345;
		buf[i] = (uint8_t)(x >> 16);
	}
	for (size_t len = 0; len < sizeof(buf); len += len < 300 ? 1 : 97) {
		XXH128_hash_t want = XXH3_128bits_withSeed(buf, len, DIGEST_SEED);
		struct digest_stream *s = digest_stream_new();
		struct digest got;

		REQUIRE(s);
		digest_stream_update(s, buf, len / 3);
		digest_stream_update(s, buf + len / 3, len - len / 3);
		got = digest_stream_get(s);
		CHECK(got.high == want.high64 && got.low == want.low64);
		digest_stream_free(s);
	}
}

static void order_does_not_matter(void)
{
	enum { N = 50 };
	struct digest terms[N], up = { 0 }, down = { 0 }, zero = { 0 };
	struct digest_block b;

	digest_block_init(&b, "pc.ram");
	memset(page, 0, sizeof(page));
	for (unsigned i = 0; i < N; i++) {
		page[i] = 1;
		terms[i] = digest_page(&b, i * UINT64_C(4096), page, sizeof(page));
	}
	for (int i = 0; i < N; i++)
		digest_add(&up, terms[i]);
	for (int i = N; i-- > 0;)
		digest_add(&down, terms[i]);
	CHECK(digest_equal(up, down) && !digest_equal(up, zero));
	/* A page sent again replaces itself. */
	digest_sub(&up, terms[7]);
	CHECK(!digest_equal(up, down));
	digest_add(&up, terms[7]);
	CHECK(digest_equal(up, down));
	for (int i = 0; i < N; i++)
		digest_sub(&up, terms[i * 7 % N]);
	CHECK(digest_equal(up, zero));
}

static void place_matters(void)
{
	struct digest_block a, b;

	digest_block_init(&a, "a");
	digest_block_init(&b, "b");
	memset(page, 3, sizeof(page));
	CHECK(!digest_equal(digest_page(&a, 0, page, 4096), digest_page(&b, 0, page, 4096)));
	CHECK(!digest_equal(digest_page(&a, 0, page, 4096), digest_page(&a, 4096, page, 4096)));
}

static void carries(void)
{
	struct digest d = { .high = 1, .low = UINT64_MAX }, one = { .low = 1 };
	struct digest all = { .high = UINT64_MAX, .low = UINT64_MAX };

	digest_add(&d, one);
	CHECK(d.high == 2 && d.low == 0);
	digest_sub(&d, one);
	CHECK(d.high == 1 && d.low == UINT64_MAX);
	digest_add(&all, one);
	CHECK(all.high == 0 && all.low == 0);
}

static void hex_both_ways(void)
{
	static const char *const bad[] = { "",
					   "0123456789abcdef0123456789abcde",
					   "0123456789abcdef0123456789abcdef0",
					   "0123456789ABCDEF0123456789abcdef",
					   "0x23456789abcdef0123456789abcdef",
					   "0123456789abcdef 123456789abcdef" };
	struct digest d = { .high = 0x0123456789abcdef, .low = 0xf }, e = { 0 };
	char hex[33];

	CHECK_STR(digest_hex(d, hex), "0123456789abcdef000000000000000f");
	CHECK(digest_from_hex(hex, &e) == 0 && digest_equal(d, e));
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		CHECK(digest_from_hex(bad[i], &e) == -1 && digest_equal(d, e));
}

static void streams(void)
{
	struct digest_stream *s = digest_stream_new();
	char hex[33];

	REQUIRE(s);
	CHECK_STR(digest_hex(digest_stream_get(s), hex), "31b5faa3719aeadfbdf9bdad73c6c6f6");
	digest_stream_update(s, NULL, 0);
	digest_stream_update(s, "device", 6);
	digest_stream_get(s);
	digest_stream_update(s, " state", 6);
	CHECK_STR(digest_hex(digest_stream_get(s), hex), "5f007bab89984faaab464002b68754bd");
	digest_stream_free(s);
	digest_stream_free(NULL);
}

static const struct test_case cases[] = {
	{ "terms are the published ones", known_answers },
	{ "a ragged page is padded with zeros", ragged_pages },
	{ "the library's hash is the same at every length", library_agrees },
	{ "order and repetition do not matter", order_does_not_matter },
	{ "block and offset matter", place_matters },
	{ "sums carry and borrow", carries },
	{ "hexadecimal goes both ways, and only its own form", hex_both_ways },
	{ "a byte string is hashed in pieces", streams },
};
TEST_MAIN(cases)
