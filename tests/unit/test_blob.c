// SPDX-License-Identifier: GPL-2.0-or-later
#include "test.h"

#include "blob.h"
#include "byteorder.h"

#include <stdlib.h>

static struct error err;

static void feed(struct blob *b, const void *bytes, size_t len)
{
	CHECK(!blob_feed(b, bytes, len, &err));
}

#define FEED(b, literal) feed(b, literal, sizeof(literal) - 1)

/* One device's section, as QEMU writes it. */
static void feed_device(struct blob *b)
{
	FEED(b, "\4\0\0\0\x11\x05timer\0\0\0\0\0\0\0\2data\x7e\0\0\0\x11");
}

static void feed_state(struct blob *b, const char *state)
{
	char name[100] = { 0 };

	snprintf(name, sizeof(name), "%s", state);
	FEED(b, "\4\0\0\0\x27\x0bglobalstate\0\0\0\0\0\0\0\1\0\0\0\x0a");
	feed(b, name, sizeof(name));
	FEED(b, "\x7e\0\0\0\x27");
}

static void feed_description(struct blob *b, const char *json)
{
	uint8_t head[6] = { 0x00, 0x06 };

	put_be32(head + 2, (uint32_t)strlen(json));
	feed(b, head, sizeof(head));
	feed(b, json, strlen(json));
}

static void ends_with_a_description(void)
{
	static const char json[] =
		"{\"page_size\": 4096, \"devices\": [{\"name\": \"a}\\\"[\", \"n\": -1}]}";
	struct blob b = { 0 };
	uint8_t len[4];

	CHECK(!blob_complete(&b) && !blob_ends_with_eof(&b));
	feed_device(&b);
	CHECK(!blob_complete(&b) && !blob_ends_with_eof(&b));
	FEED(&b, "\0");
	CHECK(!blob_complete(&b) && blob_ends_with_eof(&b));
	FEED(&b, "\6");
	put_be32(len, sizeof(json) - 1);
	feed(&b, len, sizeof(len));
	for (size_t i = 0; i < sizeof(json) - 1; i++) {
		CHECK(!blob_complete(&b) && !blob_ends_with_eof(&b));
		feed(&b, json + i, 1);
	}
	CHECK(blob_complete(&b));
	FEED(&b, "\n");
	CHECK(!blob_complete(&b));
}

static void empty_description(void)
{
	struct blob b = { 0 };

	feed_device(&b);
	FEED(&b, "\0\6\0\0\0");
	CHECK(!blob_complete(&b));
	FEED(&b, "\0");
	CHECK(blob_complete(&b));
	FEED(&b, "\0");
	CHECK(!blob_complete(&b));
	/* the section's id, 126, begins like another footer */
	b = (struct blob){ 0 };
	FEED(&b, "\x7e\0\0\0\x7e\0\6\0\0\0\0");
	CHECK(blob_complete(&b));
}

/* The same bytes inside a device's data, where no footer stands before them. */
static void zeros_are_no_end(void)
{
	struct blob b = { 0 };

	FEED(&b, "\4\0\0\0\x11\x05timer\0\0\0\0\0\0\0\2\0\6\0\0\0\0");
	CHECK(!blob_complete(&b) && !blob_ends_with_eof(&b));
}

static void wrong_json(void)
{
	static const char *const bad[] = {
		"{",	       "}",	    "[]",  "{[}]", "{]", "{}{}", "{} ", "{\"a\": \"\x01\"}",
		"{\"a\": \"}", "{\"a\\\"}", "{}}",
	};
	char deep[200];

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct blob b = { 0 };

		feed_device(&b);
		feed_description(&b, bad[i]);
		if (blob_complete(&b))
			printf("# %s\n", bad[i]);
		CHECK(!blob_complete(&b));
	}
	for (int depth = 63; depth <= 64; depth++) {
		struct blob b = { 0 };

		snprintf(deep, sizeof(deep), "{%.*s%.*s}", depth,
			 "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[", depth,
			 "]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]");
		feed_description(&b, deep);
		CHECK(blob_complete(&b) == (depth == 63));
	}
}

/* A length that says more or less than the object has. */
static void wrong_length(void)
{
	static const uint8_t lengths[] = { 0, 1, 7, 9, 255 };

	for (size_t i = 0; i < sizeof(lengths); i++) {
		struct blob b = { 0 };
		uint8_t head[6] = { 0, 6, 0, 0, 0, lengths[i] };

		feed_device(&b);
		feed(&b, head, sizeof(head));
		FEED(&b, "{\"a\": 1}");
		CHECK(!blob_complete(&b));
	}
}

static void one_inside_another(void)
{
	struct blob b = { 0 };

	/* heads that overlap: the inner one is right */
	feed_device(&b);
	FEED(&b, "\0\6\0\6\0\0\0\2{}");
	CHECK(blob_complete(&b));
	memset(&b, 0, sizeof(b));
	/* a description of 0x7b7b7b bytes has begun when the true one comes */
	FEED(&b, "\0\6\0\x7b\x7b\x7b{\"a\": ");
	feed_description(&b, "{\"b\": 2}");
	CHECK(blob_complete(&b));
	/* what looked like the end was data, and the end comes later */
	FEED(&b, "more");
	feed_description(&b, "{\"c\": 3}");
	CHECK(blob_complete(&b));
}

/* What candidates there are, found the slow way. */
static bool plain_json(const uint8_t *p, size_t len)
{
	char stack[64];
	size_t depth = 0;

	for (size_t i = 0; i < len; i++) {
		if (p[i] < 0x20)
			return false;
		if (p[i] == '"') {
			for (i++; i < len && p[i] >= 0x20 && p[i] != '"'; i++)
				if (p[i] == '\\' && (++i == len || p[i] < 0x20))
					return false;
			if (i >= len || p[i] < 0x20)
				return false;
		} else if (p[i] == '{' || p[i] == '[') {
			if (depth == sizeof(stack))
				return false;
			stack[depth++] = p[i] == '{' ? '}' : ']';
		} else if (p[i] == '}' || p[i] == ']') {
			if (stack[--depth] != p[i])
				return false;
		}
		if (!depth)
			return i == len - 1;
	}
	return false;
}

static bool plain_complete(const uint8_t *p, size_t len)
{
	static const uint8_t none[] = { 0, 6, 0, 0, 0, 0 };

	if (len >= 11 && p[len - 11] == 0x7e && !memcmp(p + len - 6, none, 6))
		return true;
	for (size_t i = 0; i + 7 <= len; i++)
		if (!p[i] && p[i + 1] == 6 && get_be32(p + i + 2) == len - i - 6 &&
		    p[i + 6] == '{' && plain_json(p + i + 6, len - i - 6))
			return true;
	return false;
}

/* Random bytes out of those that matter, in pieces of random size. */
static void hostile_bytes(void)
{
	static const uint8_t alphabet[] = { 0,	 0,   0,    0,	 6,   6,    '{', '{', '}',
					    '}', '"', '\\', '[', ']', 0x7e, 2,	 4,   'x' };
	const char *seed = getenv("SEED");
	unsigned ends = 0;
	uint8_t p[48];

	srand(seed ? (unsigned)atoi(seed) : 1);
	for (int turn = 0; turn < 40000; turn++) {
		struct blob b = { 0 };
		size_t len = 1 + (size_t)rand() % sizeof(p), at = (size_t)rand() % len;

		for (size_t i = 0; i < len; i++)
			p[i] = alphabet[(size_t)rand() % sizeof(alphabet)];
		if (turn % 2 && len > at + 8) {
			memcpy(p + at, "\0\6\0\0\0", 5);
			p[at + 5] = (uint8_t)(len - at - 6);
			p[at + 6] = '{';
			p[len - 1] = '}';
		}
		for (size_t i = 0, n; i < len; i += n) {
			n = 1 + (size_t)rand() % (len - i);
			feed(&b, p + i, n);
			CHECK(b.n <= 3);
			CHECK(blob_complete(&b) == plain_complete(p, i + n));
			ends += blob_complete(&b);
		}
	}
	CHECK(ends > 100);
}

/* One candidate behind the other, asked after each byte: a second for each would be noticed. */
static void many_candidates(void)
{
	static const uint8_t head[] = { 0, 6, 1, 0, 0, 0, '{', '"' };
	struct blob b = { 0 };
	bool any = false;

	for (unsigned i = 0; i < 8u << 20; i++) {
		feed(&b, head + i % sizeof(head), 1);
		any = any || blob_complete(&b) || b.n > 3;
	}
	CHECK(!any);
	/* each as long as it may be, all the way to where the last begins */
	for (unsigned i = 0; i < 8u << 20; i++) {
		feed(&b, "x", 1);
		any = any || blob_complete(&b);
	}
	CHECK(!any && b.n == 1);
}

static void limit(void)
{
	static uint8_t zeros[16 << 20];
	struct blob b = { .len = BLOB_MAX - sizeof(zeros) };

	CHECK(!blob_feed(&b, zeros, sizeof(zeros), &err));
	CHECK(b.len == BLOB_MAX);
	CHECK(blob_feed(&b, zeros, 1, &err) && err.status == ST_DATA && strstr(err.msg, "256 MiB"));
	CHECK(!blob_feed(&b, zeros, 0, &err));
	/* a description that would end behind the limit is none */
	memset(&b, 0, sizeof(b));
	FEED(&b, "\0\6\2\0\0\1{");
	CHECK(b.n == 0);
	FEED(&b, "\0\6\2\0\0\0{");
	CHECK(b.n == 1);
}

static void run_state(void)
{
	char state[104];
	struct blob b = { 0 };

	feed_device(&b);
	blob_run_state(&b, state);
	CHECK_STR(state, "");
	feed_state(&b, "prelaunch");
	feed_device(&b);
	blob_run_state(&b, state);
	CHECK_STR(state, "prelaunch");
	/* the first one counts */
	feed_state(&b, "running");
	blob_run_state(&b, state);
	CHECK_STR(state, "prelaunch");
}

static void run_state_in_pieces(void)
{
	static uint8_t all[9000];
	static const char head[] = "\x0bglobalstate\0\0\0\0\0\0\0\1\0\0\0\7paused";
	char state[104];

	for (size_t at = 0; at < sizeof(all) - 124; at += 613) {
		memset(all, 'g', sizeof(all));
		memcpy(all + at, head, sizeof(head));
		memset(all + at + sizeof(head), 0, 100);
		for (size_t step = 1; step <= sizeof(all); step = step * 2 + 1) {
			struct blob b = { 0 };

			for (size_t i = 0; i < sizeof(all); i += step)
				feed(&b, all + i, step < sizeof(all) - i ? step : sizeof(all) - i);
			blob_run_state(&b, state);
			CHECK_STR(state, "paused");
		}
	}
}

static void hostile_run_state(void)
{
	char state[104], name[100];
	struct blob b = { 0 };

	feed_state(&b, "run\x1b[31mning");
	blob_run_state(&b, state);
	CHECK_STR(state, "");
	memset(&b, 0, sizeof(b));
	FEED(&b, "\x0bglobalstate\0\0\0\0\0\0\0\1\0\0\0\x64");
	memset(name, 'a', sizeof(name));
	feed(&b, name, sizeof(name) - 1);
	blob_run_state(&b, state);
	CHECK_STR(state, "");
	feed(&b, "a", 1);
	blob_run_state(&b, state);
	CHECK(strlen(state) == 100);
}

static void sections_before_the_end(void)
{
	struct blob b = { 0 };
	uint64_t sections;

	feed_device(&b);
	sections = b.len;
	CHECK(blob_sections(&b) == 0);
	FEED(&b, "\0");
	CHECK(blob_sections(&b) == sections);
	FEED(&b, "\6\0\0\0");
	CHECK(blob_sections(&b) == 0);
	FEED(&b, "\0");
	CHECK(blob_sections(&b) == sections);
	memset(&b, 0, sizeof(b));
	feed_device(&b);
	feed_description(&b, "{\"devices\": []}");
	CHECK(blob_sections(&b) == sections);
	FEED(&b, "x");
	CHECK(blob_sections(&b) == 0);
}

static const struct test_case cases[] = {
	{ "a description ends it, at its last byte and no earlier", ends_with_a_description },
	{ "an empty description ends it behind a footer", empty_description },
	{ "zeros inside a device's data do not", zeros_are_no_end },
	{ "what is no JSON object is no end", wrong_json },
	{ "nor is one of another length", wrong_length },
	{ "candidates may overlap and follow each other", one_inside_another },
	{ "a slow search finds the same ends in hostile bytes", hostile_bytes },
	{ "a candidate at every turn costs no more than other bytes", many_candidates },
	{ "no more than 256 MiB are taken", limit },
	{ "its sections end before EOF", sections_before_the_end },
	{ "the run state is found", run_state },
	{ "wherever it is cut", run_state_in_pieces },
	{ "a run state of other bytes than letters is none", hostile_run_state },
};

TEST_MAIN(cases)
