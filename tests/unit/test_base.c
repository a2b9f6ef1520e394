// SPDX-License-Identifier: GPL-2.0-or-later
/* error, cancel, log_escape: what everything else stands on. */
#include "test.h"

#include "byteorder.h"
#include "cancel.h"
#include "error.h"
#include "log.h"

#include <errno.h>
#include <poll.h>
#include <unistd.h>

static void error_gains_prefixes(void)
{
	struct error e;

	CHECK(err_sys(&e, ST_FILE, ENOENT, "cannot open %s", "x") == -1);
	CHECK_STR(e.msg, "cannot open x: No such file or directory");
	err_hint(&e, "make it");
	CHECK(err_prefix(&e, "stage %d", 3) == -1);
	CHECK_STR(e.msg, "stage 3: cannot open x: No such file or directory");
	CHECK_STR(e.hint, "make it");
	CHECK(e.status == ST_FILE && e.sys == ENOENT);
	err_set(&e, ST_DATA, "other");
	CHECK_STR(e.hint, "");
}

static void long_messages_are_cut(void)
{
	struct error e;
	char big[3000];

	memset(big, 'x', sizeof(big) - 1);
	big[sizeof(big) - 1] = '\0';
	err_set(&e, ST_DATA, "%s", big);
	err_prefix(&e, "%s", big);
	CHECK(strlen(e.msg) == sizeof(e.msg) - 1);
	err_sys(&e, ST_DATA, EIO, "%s", big);
	CHECK(strlen(e.msg) == sizeof(e.msg) - 1);
}

static void every_status_has_a_row(void)
{
	CHECK_STR(status_info(ST_DIGEST)->code, "digest");
	CHECK_STR(status_info(ST_OK)->code, "ok");
	CHECK_STR(status_info(ST_NO_REMOTE)->code, "no-remote");
}

static void first_cancel_wins_and_ends_waits(void)
{
	struct cancel c;
	struct error e, why;
	int p[2];

	REQUIRE(cancel_init(&c, &e) == 0 && pipe(p) == 0);
	CHECK(cancel_wait(&c, p[0], POLLIN, 0, &e) == 0);
	CHECK(cancel_wait(&c, -1, 0, 5, &e) == 0);
	CHECK(write(p[1], "x", 1) == 1);
	CHECK(cancel_wait(&c, p[0], 1, -1, &e) == 1);
	err_set(&why, ST_CANCELLED, "first");
	cancel_fire(&c, &why);
	err_set(&why, ST_SOCKET, "second");
	cancel_fire(&c, &why);
	CHECK(cancel_wait(&c, p[0], 1, -1, &e) == -1);
	CHECK_STR(e.msg, "first");
	cancel_destroy(&c);
	close(p[0]);
	close(p[1]);
}

static void peers_words_are_escaped(void)
{
	char out[600], big[600];

	CHECK_STR(log_escape(out, sizeof(out), "a\x1b[31m\n\xc3\xa9\xff", 10),
		  "a\\x1b[31m\\x0a\xc3\xa9\\xff");
	memset(big, 'y', sizeof(big));
	CHECK(strlen(log_escape(out, sizeof(out), big, sizeof(big))) == 512);
	CHECK_STR(log_escape(out, 4, "abcdef", 6), "abc");
	/* overlong, a surrogate, beyond the last code point */
	CHECK_STR(log_escape(out, sizeof(out), "\xe0\x80\xaf", 3), "\\xe0\\x80\\xaf");
	CHECK_STR(log_escape(out, sizeof(out), "\xed\xa0\x80", 3), "\\xed\\xa0\\x80");
	CHECK_STR(log_escape(out, sizeof(out), "\xf4\x90\x80\x80", 4), "\\xf4\\x90\\x80\\x80");
}

static void messages_do_not_steer_the_terminal(void)
{
	char big[3000], got[4096] = "";
	int fd[2], saved = dup(STDERR_FILENO);
	ssize_t n;

	REQUIRE(saved >= 0 && !pipe(fd));
	memset(big, 'y', sizeof(big) - 1);
	big[sizeof(big) - 1] = '\0';
	dup2(fd[1], STDERR_FILENO);
	log_warn("block '%s'", "a\x1b]0;x\a\r\nb\xc3\xa9\x7f");
	log_warn("%s", big);
	dup2(saved, STDERR_FILENO);
	close(saved);
	close(fd[1]);
	n = read(fd[0], got, sizeof(got) - 1);
	close(fd[0]);
	CHECK(n > 1000 && got[n - 1] == '\n');
	*strchrnul(got, '\n') = '\0';
	CHECK_STR(got, "migtool: warning: block 'a\\x1b]0;x\\x07\\x0d\\x0ab\xc3\xa9\\x7f'");
}

static void integers_are_big_endian(void)
{
	unsigned char b[9] = { 0 };

	put_be64(b + 1, 0x0102030405060708);
	CHECK(b[1] == 1 && b[8] == 8 && get_be64(b + 1) == 0x0102030405060708);
	CHECK(get_be32(b + 1) == 0x01020304 && get_be16(b + 3) == 0x0304);
}

static const struct test_case cases[] = {
	{ "an error gains prefixes", error_gains_prefixes },
	{ "long messages are cut", long_messages_are_cut },
	{ "every status has a row", every_status_has_a_row },
	{ "the first cancel wins and ends waits", first_cancel_wins_and_ends_waits },
	{ "a peer's words are escaped", peers_words_are_escaped },
	{ "a message does not steer the terminal", messages_do_not_steer_the_terminal },
	{ "integers are big-endian at any address", integers_are_big_endian },
};
TEST_MAIN(cases)
