// SPDX-License-Identifier: GPL-2.0-or-later
#include "test.h"

#include "suggest.h"

#include <limits.h>

static void edits_are_counted(void)
{
	static const struct {
		const char *a, *b;
		unsigned d;
	} table[] = {
		{ "", "", 0 },
		{ "", "abc", 3 },
		{ "abc", "abc", 0 },
		{ "abc", "abd", 1 },
		{ "abc", "ab", 1 },
		{ "abc", "xabc", 1 },
		{ "multifd", "mulitfd", 1 },
		{ "kitten", "sitting", 3 },
		{ "ab", "ba", 1 },
		{ "abcd", "badc", 2 },
	};

	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		CHECK(suggest_distance(table[i].a, table[i].b) == table[i].d);
		CHECK(suggest_distance(table[i].b, table[i].a) == table[i].d);
	}
}

static void a_word_that_is_too_long_is_far_from_everything(void)
{
	char longest[64], longer[65];

	memset(longest, 'a', 63);
	longest[63] = '\0';
	memset(longer, 'a', 64);
	longer[64] = '\0';
	CHECK(suggest_distance(longest, "a") == 62);
	CHECK(suggest_distance(longer, "a") == UINT_MAX);
	CHECK(suggest_distance("a", longer) == UINT_MAX);
}

static const char *nearest(const char *word)
{
	static const char *const names[] = { "send", "recv", "postcopy-ram", "postcopy-preempt",
					     "multifd" };
	struct suggest s;

	suggest_init(&s, word);
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		suggest_offer(&s, names[i]);
	return s.best ? s.best : "none";
}

static void the_nearest_name_is_found(void)
{
	CHECK_STR(nearest("sned"), "send");
	CHECK_STR(nearest("mulitfd"), "multifd");
	CHECK_STR(nearest("postcopy_ram"), "postcopy-ram");
	CHECK_STR(nearest("receive"), "recv");
}

static void a_name_cut_short_is_completed(void)
{
	CHECK_STR(nearest("postcopy"), "postcopy-ram");
	CHECK_STR(nearest("postcopy-p"), "postcopy-preempt");
}

static void what_resembles_nothing_gets_no_suggestion(void)
{
	CHECK_STR(nearest("xyzzy"), "none");
	CHECK_STR(nearest(""), "none");
	CHECK_STR(
		nearest("a-very-long-word-that-is-far-from-each-of-the-names-that-are-known-here"),
		"none");
}

static const struct test_case cases[] = {
	{ "edits are counted", edits_are_counted },
	{ "a word that is too long is far from everything",
	  a_word_that_is_too_long_is_far_from_everything },
	{ "the nearest name is found", the_nearest_name_is_found },
	{ "a name cut short is completed", a_name_cut_short_is_completed },
	{ "what resembles nothing gets no suggestion", what_resembles_nothing_gets_no_suggestion },
};

TEST_MAIN(cases)
