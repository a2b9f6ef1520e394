// SPDX-License-Identifier: GPL-2.0-or-later
#include "test.h"

#include "psk.h"

#define KEY  "000102030405060708090a0b0c0d0e0f"
#define KEY2 "F0E0D0C0B0A090807060504030201000ff"

static struct psk_file f;
static struct error e;

static int parse(const char *text)
{
	err_clear(&e);
	return psk_parse(&f, "k", text, strlen(text), &e);
}

static void each_line_is_a_user_and_his_key(void)
{
	REQUIRE(!parse("qemu:" KEY "\n# of somebody else\n\n  \nO. Ther:" KEY2 " \r\nlast:" KEY));
	REQUIRE(f.n == 3);
	CHECK_STR(f.users[0].name, "qemu");
	CHECK(f.users[0].key_len == 16 && f.users[0].key[0] == 0 && f.users[0].key[15] == 15);
	CHECK_STR(f.users[1].name, "O. Ther");
	CHECK(f.users[1].key_len == 17 && f.users[1].key[0] == 0xf0 && f.users[1].key[16] == 0xff);
	CHECK(psk_find(&f, "last") == &f.users[2]);
	CHECK(!psk_find(&f, "las") && !psk_find(&f, "last ") && !psk_find(&f, ""));
	psk_free(&f);
	CHECK(!f.n && !f.users);
}

static void bad(const char *text, const char *says)
{
	CHECK(parse(text) == -1);
	CHECK(e.status == ST_UNSUPPORTED);
	CHECK_STR(e.msg, says);
	CHECK(!f.users && !f.n);
}

static void what_is_no_such_file_is_refused_by_line(void)
{
	bad("", "k, line 1: there is no user");
	bad("# nobody\n", "k, line 1: there is no user");
	bad("qemu", "k, line 1: no colon");
	bad("a:" KEY "\n:" KEY, "k, line 2: no user");
	bad("qemu:", "k, line 1: a key has an even number of hexadecimal digits");
	bad("qemu:" KEY "0", "k, line 1: a key has an even number of hexadecimal digits");
	bad("qemu:0011", "k, line 1: the key is shorter than 16 bytes (32 digits)");
	bad("qemu:" KEY KEY KEY KEY "00",
	    "k, line 1: the key is longer than 64 bytes (128 digits)");
	bad("qemu:" KEY "0g", "k, line 1: the key is not hexadecimal");
	bad("qemu:" KEY "\nqemu:" KEY2, "k, line 2: this user was there before");
}

static void lengths_are_bounded(void)
{
	char text[400];
	static char large[PSK_FILE_MAX + 1];

	memset(text, 'u', sizeof(text));
	snprintf(text + PSK_USER_MAX, sizeof(text) - PSK_USER_MAX, ":%s", KEY);
	REQUIRE(!parse(text));
	CHECK(strlen(f.users[0].name) == PSK_USER_MAX);
	psk_free(&f);
	memset(text, 'u', sizeof(text));
	snprintf(text + PSK_USER_MAX + 1, sizeof(text) - PSK_USER_MAX - 1, ":%s", KEY);
	bad(text, "k, line 1: the user's name is longer than 128 bytes");
	CHECK(psk_parse(&f, "k", large, sizeof(large), &e) == -1);
	CHECK_STR(e.msg, "k is larger than 1 MiB");
	CHECK(psk_parse(&f, "k", "a\0b:" KEY, 4 + 32, &e) == -1);
	CHECK_STR(e.msg, "k, line 1: a NUL in the user's name");
}

static void there_are_at_most_1024_users(void)
{
	static char text[1025 * 48];
	size_t n = 0, before = 0;

	for (unsigned i = 0; i < 1025; i++) {
		before = n;
		n += (size_t)snprintf(text + n, sizeof(text) - n, "user%u:%s\n", i, KEY);
	}
	CHECK(psk_parse(&f, "k", text, n, &e) == -1);
	CHECK_STR(e.msg, "k, line 1025: more than 1024 users");
	REQUIRE(!psk_parse(&f, "k", text, before, &e));
	CHECK(f.n == 1024 && psk_find(&f, "user1023"));
	psk_free(&f);
}

static void a_client_is_qemu_or_the_only_one(void)
{
	REQUIRE(!parse("a:" KEY "\nqemu:" KEY));
	CHECK_STR(psk_client(&f)->name, "qemu");
	psk_free(&f);
	REQUIRE(!parse("a:" KEY));
	CHECK_STR(psk_client(&f)->name, "a");
	psk_free(&f);
	REQUIRE(!parse("a:" KEY "\nb:" KEY));
	CHECK(!psk_client(&f));
	psk_free(&f);
}

static void a_line_that_was_made_is_one_that_is_read(void)
{
	uint8_t key[PSK_KEY_MAX];
	char line[PSK_LINE_MAX];
	size_t n;

	for (size_t i = 0; i < sizeof(key); i++)
		key[i] = (uint8_t)(i * 37 + 200);
	n = psk_line(line, "somebody", key, sizeof(key));
	CHECK(n == strlen(line) && line[n - 1] == '\n');
	REQUIRE(!psk_parse(&f, "k", line, n, &e));
	CHECK_STR(f.users[0].name, "somebody");
	CHECK(f.users[0].key_len == sizeof(key) && !memcmp(f.users[0].key, key, sizeof(key)));
	psk_free(&f);
}

static const struct test_case cases[] = {
	{ "each line is a user and his key", each_line_is_a_user_and_his_key },
	{ "what is no such file is refused by line", what_is_no_such_file_is_refused_by_line },
	{ "lengths are bounded", lengths_are_bounded },
	{ "there are at most 1024 users", there_are_at_most_1024_users },
	{ "a client is qemu or the only one", a_client_is_qemu_or_the_only_one },
	{ "a line that was made is one that is read", a_line_that_was_made_is_one_that_is_read },
};

TEST_MAIN(cases)
