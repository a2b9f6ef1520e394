// SPDX-License-Identifier: GPL-2.0-or-later
#include "test.h"

#include "jsonbound.h"

#include <stdlib.h>
#include <string.h>

static bool within(const char *text, unsigned values, unsigned depth)
{
	return json_within(text, strlen(text), values, depth);
}

static void values_are_counted(void)
{
	CHECK(within("1", 1, 0));
	CHECK(within("[]", 2, 1) && !within("[]", 1, 1));
	CHECK(within("[1,2,3]", 4, 1) && !within("[1,2,3]", 3, 1));
	CHECK(within("{\"a\":1,\"b\":[{}]}", 7, 3) && !within("{\"a\":1,\"b\":[{}]}", 6, 3));
}

static void levels_are_counted(void)
{
	CHECK(within("[[[]]]", 100, 3) && !within("[[[]]]", 100, 2));
	CHECK(within("[[],[],[[]]]", 100, 3));
	CHECK(within("]]]][", 100, 1));
}

static void what_stands_in_strings_is_not(void)
{
	CHECK(within("[\"[[[,,,\"]", 2, 1));
	CHECK(within("[\"\\\"[[,\"]", 2, 1));
	CHECK(within("[\"\\\\\",[]]", 4, 2) && !within("[\"\\\\\",[]]", 4, 1));
}

static void a_text_may_end_anywhere(void)
{
	CHECK(within("", 1, 0));
	CHECK(within("\"", 1, 0) && within("\"\\", 1, 0) && within("\"\\\"", 1, 0));
	CHECK(json_within("[\"a", 2, 2, 1));
}

static void a_mebibyte_of_levels_or_objects_is_refused(void)
{
	size_t len = 1 << 20;
	char *text = malloc(len);

	REQUIRE(text);
	memset(text, '[', len);
	CHECK(!json_within(text, len, 1 << 15, 16));
	for (size_t i = 0; i < len; i++)
		text[i] = "{},"[i % 3];
	text[0] = '[';
	CHECK(!json_within(text, len, 1 << 15, 16));
	free(text);
}

static const struct test_case cases[] = {
	{ "values and keys are counted", values_are_counted },
	{ "levels are counted", levels_are_counted },
	{ "what stands in strings is not", what_stands_in_strings_is_not },
	{ "a text may end anywhere", a_text_may_end_anywhere },
	{ "a mebibyte of levels or of objects is refused",
	  a_mebibyte_of_levels_or_objects_is_refused },
};

TEST_MAIN(cases)
