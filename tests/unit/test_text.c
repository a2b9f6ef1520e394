// SPDX-License-Identifier: GPL-2.0-or-later
#include "test.h"

#include "text.h"

#include <stdlib.h>

static char *wrapped(unsigned at, unsigned indent, const char *text)
{
	static char buf[1024];
	FILE *f = fmemopen(buf, sizeof(buf), "w");

	if (!f)
		abort();
	text_wrap(f, at, indent, text);
	fclose(f);
	return buf;
}

static char *row(const char *left, const char *right)
{
	static char buf[1024];
	FILE *f = fmemopen(buf, sizeof(buf), "w");

	if (!f)
		abort();
	text_row(f, 2, 10, left, right);
	fclose(f);
	return buf;
}

static void lines_have_80_columns_at_most(void)
{
	char word40[42], text[200], want[220];

	memset(word40, 'x', 40);
	word40[40] = '\0';
	/* 40 + 1 + 39 fit, 40 + 1 + 40 do not */
	snprintf(text, sizeof(text), "%s %s", word40, word40 + 1);
	snprintf(want, sizeof(want), "%s\n", text);
	CHECK_STR(wrapped(0, 4, text), want);
	snprintf(text, sizeof(text), "%s %s", word40, word40);
	snprintf(want, sizeof(want), "%s\n    %s\n", word40, word40);
	CHECK_STR(wrapped(0, 4, text), want);
}

static void a_word_that_fits_nowhere_is_whole(void)
{
	char word[102], want[220];

	memset(word, 'x', 100);
	word[100] = '\0';
	snprintf(want, sizeof(want), "%s\n", word);
	CHECK_STR(wrapped(0, 0, word), want);
	CHECK_STR(wrapped(0, 0, ""), "\n");
}

static void a_row_has_two_columns(void)
{
	CHECK_STR(row("abc", "text"), "  abc     text\n");
	CHECK_STR(row("abcdef", "text"), "  abcdef  text\n");
	CHECK_STR(row("abcdefg", "text"), "  abcdefg\n          text\n");
}

static const struct test_case cases[] = {
	{ "lines have 80 columns at most", lines_have_80_columns_at_most },
	{ "a word that fits nowhere is printed whole", a_word_that_fits_nowhere_is_whole },
	{ "a row has two columns, a long left one a line of its own", a_row_has_two_columns },
};

TEST_MAIN(cases)
