// SPDX-License-Identifier: GPL-2.0-or-later
/* The vectors were computed with QEMU 7.2's functions; what random pages become is compared with an
 * encoder and a decoder that follow the grammar byte by byte. */
#include "test.h"

#include "xbzrle.h"

#include <stdbool.h>
#include <stdlib.h>

#define PAGE 4096u

/* Odd addresses, so that nothing relies on alignment; a red zone behind the output. */
static uint8_t memory[4][XBZRLE_PAGE_MAX + 64];
static uint8_t *const old = memory[0] + 3, *const now = memory[1] + 5, *const out = memory[2] + 1,
		      *const back = memory[3] + 7;

static size_t from_hex(const char *hex, uint8_t *to)
{
	size_t n = 0;
	unsigned v;

	for (; *hex; hex += *hex == ' ' ? 1 : 2)
		if (*hex != ' ' && sscanf(hex, "%2x", &v) == 1)
			to[n++] = (uint8_t)v;
	return n;
}

/* Encodes, and decodes again onto the old page. */
static int encode(size_t page)
{
	int n;

	memset(out, 0xee, page + 8);
	n = xbzrle_encode(old, now, page, out, page);
	CHECK(out[page] == 0xee && n <= (int)page);
	if (n < 0)
		return n;
	memcpy(back, old, page);
	CHECK(xbzrle_decode(out, (size_t)n, back, page) >= 0);
	CHECK(!memcmp(back, now, page));
	return n;
}

static void check_becomes(const char *hex)
{
	uint8_t want[64];
	size_t n = from_hex(hex, want);

	CHECK(encode(PAGE) == (int)n && !memcmp(out, want, n));
}

static void clear(void)
{
	memset(old, 0, PAGE);
	memset(now, 0, PAGE);
}

static void short_vectors(void)
{
	clear();
	CHECK(encode(PAGE) == 0);
	now[0] = 0xab;
	check_becomes("00 01 ab");
	clear();
	now[4095] = 0x7f;
	check_becomes("ff1f 01 7f");
	clear();
	memcpy(now + 16, "ABCD", 4);
	check_becomes("10 04 41424344");
	clear();
	now[100] = 1;
	now[102] = 2;
	check_becomes("64 01 01 01 01 02");
	clear();
	now[127] = 5;
	check_becomes("7f 01 05");
	clear();
	now[128] = 5;
	check_becomes("8001 01 05");
	memset(old, 0x5a, PAGE);
	memset(now, 0x5a, PAGE);
	now[1000] = 0;
	now[3000] = 0xff;
	check_becomes("e807 01 00 cf0f 01 ff");
	/* seen on the wire */
	clear();
	now[0x10] = 0x11;
	now[0x800] = 0x11;
	now[0x801] = 0x92;
	check_becomes("10 01 11 ef0f 02 1192");
}

static void long_vectors(void)
{
	clear();
	for (int i = 0; i < 128; i++)
		now[i] = (uint8_t)(i + 1);
	CHECK(encode(PAGE) == 131 && !memcmp(out, "\x00\x80\x01", 3));
	CHECK(!memcmp(out + 3, now, 128));
	clear();
	memset(now, 1, 2048);
	CHECK(encode(PAGE) == 2051 && !memcmp(out, "\x00\x80\x10", 3));
	CHECK(!memcmp(out + 3, now, 2048));
	clear();
	for (unsigned i = 0; i < PAGE; i += 4)
		now[i] = 1;
	CHECK(encode(PAGE) == 3072 && !memcmp(out, "\x00\x01\x01", 3));
	for (int i = 3; i < 3072; i += 3)
		CHECK(!memcmp(out + i, "\x03\x01\x01", 3));
}

static void overflow_vectors(void)
{
	static const unsigned steps[] = { 1, 2, 3 };

	for (int s = 0; s < 3; s++) {
		clear();
		for (unsigned i = 0; i < PAGE; i += steps[s])
			now[i] = 1;
		CHECK(encode(PAGE) == -1);
	}
	/* 4092 changed bytes need 4095, but QEMU wants room for a run it will not send. */
	for (unsigned n = 4092; n <= PAGE; n++) {
		clear();
		memset(now, 1, n);
		CHECK(encode(PAGE) == -1);
	}
	clear();
	memset(now, 1, 4091);
	CHECK(encode(PAGE) == 4094);
	/* A delta that runs to the page's end may be as long as the page. */
	clear();
	memset(now, 1, 4089);
	now[4095] = 1;
	CHECK(encode(PAGE) == 3 + 4089 + 3);
	clear();
	memset(now, 1, 4089);
	now[4094] = now[4095] = 1;
	CHECK(encode(PAGE) == 4096);
	now[4093] = 1;
	CHECK(encode(PAGE) == -1);
}

static void decoder_vectors(void)
{
	static const struct {
		const char *hex;
		int result;
	} v[] = {
		{ "", 0 },
		{ "0001aa", 1 },
		{ "0001aa0001bb", -1 },
		{ "80800101aa", -1 },
		{ "ff1f01aa", 4096 },
		{ "ff1f02aabb", -1 },
		{ "0001aa05", -1 },
		{ "0001aa0500", -1 },
		{ "00", -1 },
		{ "0000aa", -1 },
		{ "800001aa", 1 },
		{ "0003aabb", -1 },
		{ "802001aa", -1 },
		{ "812001aa", -1 },
		{ "8020", -1 },
		{ "008080aa", -1 },
		{ "0001aa800001bb", -1 },
		{ "00808001aa", -1 },
		{ "0001aa0102bbcc", 4 },
	};

	for (size_t i = 0; i < sizeof(v) / sizeof(v[0]); i++) {
		uint8_t delta[16];
		/* of exactly its length, for the address sanitizer's sake */
		size_t n = from_hex(v[i].hex, delta);
		uint8_t *tight = malloc(n ? n : 1);

		REQUIRE(tight);
		memcpy(tight, delta, n);
		memset(back, 0, PAGE + 1);
		CHECK(xbzrle_decode(tight, n, back, PAGE) == v[i].result);
		CHECK(back[PAGE] == 0);
		free(tight);
	}
	memset(back, 0, PAGE);
	xbzrle_decode((const uint8_t *)"\xff\x1f\x01\xaa", 4, back, PAGE);
	CHECK(back[4095] == 0xaa && back[4094] == 0);
}

/* The grammar, a byte at a time. Returns -1 if QEMU's rules say overflow. */
static int plain_encode(size_t page, uint8_t *to)
{
	size_t i = 0, o = 0;

	while (i < page) {
		size_t run[2] = { 0, 0 };

		if (o + 2 > page)
			return -1;
		while (i < page && old[i] == now[i])
			i++, run[0]++;
		if (i == page)
			return (int)o;
		while (i < page && old[i] != now[i])
			i++, run[1]++;
		for (int r = 0; r < 2; r++) {
			if (o + 2 > page)
				return -1;
			if (run[r] >= 0x80) {
				to[o++] = (uint8_t)((run[r] & 0x7f) | 0x80);
				to[o++] = (uint8_t)(run[r] >> 7);
			} else {
				to[o++] = (uint8_t)run[r];
			}
		}
		if (o + run[1] > page)
			return -1;
		for (size_t k = i - run[1]; k < i; k++)
			to[o++] = now[k];
	}
	return (int)o;
}

static void check_against_plain(size_t page)
{
	static uint8_t want[XBZRLE_PAGE_MAX + 64];
	int n = plain_encode(page, want);

	CHECK(encode(page) == n);
	if (n > 0)
		CHECK(!memcmp(out, want, (size_t)n));
}

static void random_changes(size_t page)
{
	for (int round = 0; round < 400; round++) {
		int edits = rand() % 30;

		for (size_t i = 0; i < page; i++)
			old[i] = (uint8_t)(rand() >> 5);
		memcpy(now, old, page);
		while (edits-- > 0) {
			size_t at = (size_t)rand() % page, room = page - at, n;

			n = (size_t)rand() % (rand() % 4 ? 20 : 2 * page / 3) + 1;
			for (size_t i = 0; i < n && i < room; i++)
				/* some of the new bytes are the old ones */
				now[at + i] = rand() % 16 ? (uint8_t)rand() : old[at + i];
		}
		check_against_plain(page);
	}
}

static void random_pages(void)
{
	const char *seed = getenv("SEED");

	srand(seed ? (unsigned)atoi(seed) : 1);
	random_changes(PAGE);
	random_changes(XBZRLE_PAGE_MAX);
	random_changes(100);
}

/* All patterns of changed and unchanged bytes of pages of up to 12 bytes, and 16 to 19 byte ones.
 */
static void every_pattern(void)
{
	for (size_t page = 1; page <= 19; page += page == 12 ? 4 : 1)
		for (unsigned mask = 0; mask < 1u << page; mask++) {
			for (size_t i = 0; i < page; i++) {
				old[i] = (uint8_t)(i * 37);
				now[i] = (uint8_t)(old[i] ^ (mask >> i & 1 ? 0x80 >> i % 8 : 0));
			}
			check_against_plain(page);
		}
}

static void large_pages(void)
{
	memset(old, 0, XBZRLE_PAGE_MAX);
	memset(now, 0, XBZRLE_PAGE_MAX);
	CHECK(encode(XBZRLE_PAGE_MAX) == 0);
	now[16383] = 9;
	CHECK(encode(XBZRLE_PAGE_MAX) == 4 && !memcmp(out, "\xff\x7f\x01\x09", 4));
	memset(now, 1, XBZRLE_PAGE_MAX);
	CHECK(encode(XBZRLE_PAGE_MAX) == -1);
	/* A caller with more room must not get a run that two bytes cannot say. */
	CHECK(xbzrle_encode(old, now, XBZRLE_PAGE_MAX, memory[2], sizeof(memory[2])) == -1);
	CHECK(xbzrle_encode(old, now, 2 * XBZRLE_PAGE_MAX, out, 64) == -1);
	CHECK(xbzrle_decode((const uint8_t *)"\0\1a", 3, back, 65536) == -1);
}

/* QEMU's rules are about the room there is; it happens to give a page. */
static void small_room(void)
{
	clear();
	now[0] = 1;
	CHECK(xbzrle_encode(old, now, PAGE, out, 5) == 3);
	CHECK(xbzrle_encode(old, now, PAGE, out, 4) == -1);
	now[1] = now[2] = 1;
	for (size_t cap = 0; cap < 5; cap++) {
		memset(out, 0xee, 8);
		CHECK(xbzrle_encode(old, now, PAGE, out, cap) == -1);
		CHECK(out[cap] == 0xee);
	}
}

static const struct test_case cases[] = {
	{ "short deltas are QEMU's, and decode", short_vectors },
	{ "long deltas are QEMU's, and decode", long_vectors },
	{ "the encoder gives up where QEMU's does", overflow_vectors },
	{ "the decoder takes and refuses what QEMU's does", decoder_vectors },
	{ "random pages match the grammar", random_pages },
	{ "every pattern of short pages matches the grammar", every_pattern },
	{ "pages of 16 KiB work, larger ones are refused", large_pages },
	{ "no byte is written beyond the room there is", small_room },
};
TEST_MAIN(cases)
