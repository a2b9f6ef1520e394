// SPDX-License-Identifier: GPL-2.0-or-later
#include "test.h"

#include "authz.h"

#include <stdlib.h>

static struct authz a;
static struct error e;

static bool allows(const char *name)
{
	return authz_allows(&a, name, strlen(name));
}

static void no_list_asks_nobody(void)
{
	REQUIRE(!authz_parse(&a, NULL, &e));
	CHECK(!authz_asked(&a));
	authz_free(&a);
	REQUIRE(!authz_parse(&a, "", &e));
	CHECK(!authz_asked(&a));
	authz_free(&a);
}

static void names_are_whole_and_apart_by_semicolons(void)
{
	char shown[64];

	REQUIRE(!authz_parse(&a, "alice; CN=bob,O=Ex ;10.0.0.1", &e));
	CHECK(authz_asked(&a) && a.n == 3);
	CHECK(allows("alice") && allows("CN=bob,O=Ex") && allows("10.0.0.1"));
	CHECK(!allows("alic") && !allows("alice ") && !allows(" alice") && !allows("ALICE"));
	CHECK(!allows("bob") && !allows("") && !allows("alice; CN=bob,O=Ex"));
	CHECK_STR(authz_show(&a, shown, sizeof(shown)), "alice; CN=bob,O=Ex; 10.0.0.1");
	CHECK_STR(authz_show(&a, shown, 10), "alice;...");
	authz_free(&a);
}

static void a_name_that_holds_a_nul_is_none_of_them(void)
{
	REQUIRE(!authz_parse(&a, "good", &e));
	CHECK(!authz_allows(&a, "good\0.evil", 10));
	CHECK(!authz_allows(&a, "good\0", 5));
	CHECK(authz_allows(&a, "good\0", 4));
	authz_free(&a);
}

static void a_backslash_keeps_what_is_behind_it(void)
{
	REQUIRE(!authz_parse(&a, "O=a\\;b;O=c\\\\;d\\ ; x\\", &e));
	CHECK(a.n == 4);
	CHECK(allows("O=a\\;b") && allows("O=c\\\\") && allows("d\\ ") && allows("x\\"));
	authz_free(&a);
}

static void an_empty_name_is_refused(void)
{
	static const char *const lists[] = { ";", "a;", ";a", "a;;b", " ", "a; ;b" };

	for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++) {
		CHECK(authz_parse(&a, lists[i], &e) == -1);
		CHECK(e.status == ST_USAGE);
		CHECK_STR(e.msg, "parameter tls-authz: an empty name");
	}
}

static void there_are_at_most_256_names(void)
{
	char text[2 * 257 + 1];

	for (int i = 0; i < 257; i++)
		memcpy(text + 2 * i, "a;", 2);
	text[2 * 256 - 1] = '\0';
	REQUIRE(!authz_parse(&a, text, &e));
	CHECK(a.n == 256);
	authz_free(&a);
	text[2 * 256 - 1] = ';';
	text[2 * 257 - 1] = '\0';
	CHECK(authz_parse(&a, text, &e) == -1);
	CHECK_STR(e.msg, "parameter tls-authz: more than 256 names");
}

static const struct test_case cases[] = {
	{ "no list asks nobody", no_list_asks_nobody },
	{ "names are whole and apart by semicolons", names_are_whole_and_apart_by_semicolons },
	{ "a name that holds a NUL is none of them", a_name_that_holds_a_nul_is_none_of_them },
	{ "a backslash keeps what is behind it", a_backslash_keeps_what_is_behind_it },
	{ "an empty name is refused", an_empty_name_is_refused },
	{ "there are at most 256 names", there_are_at_most_256_names },
};

TEST_MAIN(cases)
