// SPDX-License-Identifier: GPL-2.0-or-later
/* It stands here with a malloc that fails when it is told to. */
#include <stdlib.h>

static unsigned calls, fails_at;

static void *failing_malloc(size_t n)
{
	return ++calls == fails_at ? NULL : malloc(n);
}

#define malloc failing_malloc
#include "../../src/jsonread.c"
#undef malloc

#include "test.h"

static json_t *read_text(const char *text, json_error_t *why)
{
	calls = 0;
	return json_read(text, strlen(text), why);
}

static void what_was_written_is_read(void)
{
	json_error_t why;
	json_t *o = read_text("{\"n\": 17, \"name\": \"x\"}", &why);

	REQUIRE(o);
	CHECK(json_integer_value(json_object_get(o, "n")) == 17);
	CHECK_STR(json_string_value(json_object_get(o, "name")), "x");
	json_decref(o);
}

static void a_bad_text_is_no_lack_of_memory(void)
{
	static const char *const texts[] = { "", "{", "{\"a\": 1, \"a\": 1}", "[1] [2]" };
	json_error_t why;

	for (unsigned i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		errno = ENOMEM;
		CHECK(!read_text(texts[i], &why) && errno != ENOMEM && why.text[0]);
	}
}

/* The string does not fit into jansson's first buffer, and a number behind it clears errno. */
static void no_character_is_lost_when_memory_is_short(void)
{
	static const char text[] = "{\"session\": \"0123456789abcdef0123456789abcdef\", \"n\": 17,"
				   " \"list\": [\"a\", {\"b\": null}, 1.5]}";
	json_error_t why;
	unsigned all;
	json_t *o;

	o = read_text(text, &why);
	all = calls;
	REQUIRE(o && all > 10);
	json_decref(o);
	for (fails_at = 1; fails_at <= all; fails_at++) {
		o = read_text(text, &why);
		CHECK(!o && errno == ENOMEM);
		json_decref(o);
	}
	fails_at = 0;
}

static const struct test_case cases[] = {
	{ "what was written is read", what_was_written_is_read },
	{ "a bad text is no lack of memory", a_bad_text_is_no_lack_of_memory },
	{ "no character is lost when memory is short", no_character_is_lost_when_memory_is_short },
};
TEST_MAIN(cases)
