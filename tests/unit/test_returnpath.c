// SPDX-License-Identifier: GPL-2.0-or-later
#include "test.h"

#include "byteorder.h"
#include "returnpath.h"

#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static struct session ss;
static struct returnpath rp;
static struct error err;
static int peer;

static bool begin(bool migtool)
{
	int fd[2];

	memset(&ss, 0, sizeof(ss));
	pthread_mutex_init(&ss.lock, NULL);
	ss.dialect.migtool = migtool;
	if (cancel_init(&ss.cancel, &err) || socketpair(AF_UNIX, SOCK_STREAM, 0, fd))
		return false;
	peer = fd[1];
	ss.main = transport_from_fd(fd[0], fd[0], "unix:test", &ss.cancel, &err);
	return ss.main && !stream_open(&ss.stream, ss.main, 4096, 4096, &err) &&
	       !returnpath_start(&rp, &ss, NULL, NULL, &err);
}

static void end(void)
{
	struct error ignored;

	if (peer >= 0)
		close(peer);
	transport_abort(ss.main);
	returnpath_stop(&rp);
	stream_close(&ss.stream);
	transport_close(ss.main, &ignored);
	cancel_destroy(&ss.cancel);
	pthread_mutex_destroy(&ss.lock);
}

static void say(const void *bytes, size_t len)
{
	CHECK(write(peer, bytes, len) == (ssize_t)len);
}

static void say_message(uint16_t type, const void *payload, uint32_t len)
{
	uint8_t head[6];

	put_be16(head, type);
	if (type >= 0x4000)
		put_be32(head + 2, len);
	else
		put_be16(head + 2, (uint16_t)len);
	say(head, type >= 0x4000 ? 6 : 4);
	say(payload, len);
}

static void hang_up(void)
{
	close(peer);
	peer = -1;
}

/* What stopped the session. */
static struct error reason(void)
{
	struct error why = { 0 };

	if (cancel_wait(&ss.cancel, -1, 0, 5000, &why) == 0)
		err_set(&why, ST_OK, "nothing happened in 5 s");
	return why;
}

static void the_whole_talk(void)
{
	struct wire_digest d = { { 1, 2 }, { 3, 4 }, 5 };
	uint8_t bytes[WIRE_DIGEST_LEN];

	REQUIRE(begin(true));
	say_message(RP_PONG, "\0\0\0\7", 4);
	CHECK(!returnpath_wait(&rp, RP_WAIT_PONG, &err) && rp.pong_value == 7);
	say_message(RP_KEEPALIVE, "\0\0\0\0\0\0\x10\0", 8);
	wire_digest_pack(&d, bytes);
	ss.stream_over = true;
	say_message(RP_READY, bytes, sizeof(bytes));
	CHECK(!returnpath_wait(&rp, RP_WAIT_READY, &err));
	CHECK(!memcmp(&rp.digest, &d, sizeof(d)));
	CHECK(!rp.done && !rp.shut && !rp.ended);
	ss.committed = true;
	say_message(RP_DONE, "", 0);
	CHECK(!returnpath_wait(&rp, RP_WAIT_DONE, &err));
	hang_up();
	CHECK(!returnpath_wait(&rp, RP_WAIT_END, &err));
	CHECK(!ss.failed);
	end();
}

static void a_qemu_says_shut(void)
{
	REQUIRE(begin(false));
	ss.stream_over = true;
	say_message(RP_SHUT, "\0\0\0\0", 4);
	CHECK(!returnpath_wait(&rp, RP_WAIT_SHUT, &err) && !rp.shut_status);
	hang_up();
	CHECK(!returnpath_wait(&rp, RP_WAIT_END, &err) && !ss.failed);
	end();
	REQUIRE(begin(false));
	say_message(RP_SHUT, "\0\0\0\1", 4);
	CHECK(returnpath_wait(&rp, RP_WAIT_SHUT, &err) == -1);
	CHECK(err.status == ST_REFUSED && strstr(err.msg, "SHUT 1"));
	end();
}

static void failed(void)
{
	static const char text[] = "\0\0\0\x0d"
				   "digests \x1b[31mdiffer\0read it again";

	REQUIRE(begin(true));
	say_message(RP_FAILED, text, sizeof(text) - 1);
	CHECK(returnpath_wait(&rp, RP_WAIT_READY, &err) == -1);
	CHECK(err.status == ST_DIGEST);
	CHECK_STR(err.msg, "the destination failed: digests \\x1b[31mdiffer");
	CHECK_STR(err.hint, "read it again");
	CHECK(ss.failed && ss.why.status == ST_DIGEST);
	end();
	/* a status that is none of ours */
	REQUIRE(begin(true));
	say_message(RP_FAILED, "\0\0\1\0why", 7);
	err = reason();
	CHECK(err.status == ST_REFUSED);
	end();
}

/* Words that come behind a broken connection are better than none. */
static void closed_without_a_word(void)
{
	for (int migtool = 0; migtool < 2; migtool++) {
		REQUIRE(begin(migtool));
		hang_up();
		CHECK(returnpath_wait(&rp, RP_WAIT_READY, &err) == -1);
		CHECK(err.status == ST_SOCKET && strstr(err.msg, "unix:test"));
		end();
	}
}

static void closed_inside_a_message(void)
{
	REQUIRE(begin(true));
	say("\x40\1\0\0\0\x28only a part", 17);
	hang_up();
	err = reason();
	CHECK(err.status == ST_SOCKET);
	end();
}

static void expected_end(void)
{
	REQUIRE(begin(false));
	pthread_mutex_lock(&rp.lock);
	rp.end_expected = true;
	pthread_mutex_unlock(&rp.lock);
	hang_up();
	CHECK(!returnpath_wait(&rp, RP_WAIT_END, &err) && !ss.failed);
	end();
}

static void bad(bool migtool, const void *bytes, size_t len, const char *words)
{
	REQUIRE(begin(migtool));
	say(bytes, len);
	err = reason();
	CHECK(err.status == ST_DATA);
	if (!strstr(err.msg, words))
		printf("# %s\n", err.msg);
	CHECK(strstr(err.msg, words));
	end();
}

#define BAD(migtool, bytes, words) bad(migtool, bytes, sizeof(bytes) - 1, words)

static void hostile(void)
{
	static uint8_t ready[6 + WIRE_DIGEST_LEN] = { 0x40, 0x01, 0, 0, 0, WIRE_DIGEST_LEN };

	BAD(true, "\0\0\0\0", "unknown message type 0x0");
	BAD(true, "\x40\0\0\0\0\0", "unknown message type 0x4000");
	BAD(true, "\xff\xff\xff\xff\xff\xff", "unknown message type 0xffff");
	BAD(true, "\0\1\0\5\0\0\0\0\0", "SHUT has 5 bytes, expected 4 to 4");
	BAD(true, "\x40\1\0\0\0\x29", "READY has 41 bytes");
	BAD(true, "\x40\2\0\0\0\3abc", "FAILED has 3 bytes");
	BAD(true, "\x40\2\xff\xff\xff\xff", "FAILED has 4294967295 bytes");
	BAD(true, "\0\4\0\x0c\0\0\0\0\0\0\0\0\0\0\0\0", "REQ_PAGES is not expected");
	BAD(false, "\x40\3\0\0\0\0", "DONE from a QEMU");
	BAD(false, "\x40\2\0\0\0\5\0\0\0\1x", "FAILED");
	bad(false, ready, sizeof(ready), "READY from a QEMU");
	bad(true, ready, sizeof(ready), "READY before all was sent");
	BAD(true, "\x40\3\0\0\0\0", "DONE before COMMIT");
	BAD(true, "\0\1\0\4\0\0\0\0", "SHUT 0 from a migtool");
	BAD(false, "\0\1\0\4\0\0\0\0", "SHUT 0 before all was sent");
}

static unsigned asked;

static int take_request(void *arg, const struct rp_message *m, struct error *e)
{
	(void)arg;
	(void)e;
	asked += m->type == RP_REQ_PAGES ? 1 : 100;
	return 0;
}

static void requests_are_for_postcopy(void)
{
	static const uint8_t request[12] = { 0 };

	REQUIRE(begin(false));
	returnpath_serve(&rp, take_request, NULL);
	say_message(RP_REQ_PAGES, request, sizeof(request));
	say_message(RP_PONG, "\0\0\0\3", 4);
	CHECK(!returnpath_wait(&rp, RP_WAIT_PONG, &err));
	CHECK(asked == 1 && rp.package && stat_get(&ss.stats.t_resumed));
	end();
	REQUIRE(begin(false));
	say_message(RP_REQ_PAGES, request, sizeof(request));
	CHECK_STR(reason().msg, "return path: REQ_PAGES is not expected now");
	end();
}

static void *fire(void *arg)
{
	struct timespec briefly = { 0, 50000000 };
	struct error why;

	(void)arg;
	nanosleep(&briefly, NULL);
	err_set(&why, ST_CANCELLED, "cancelled by SIGINT");
	cancel_fire(&ss.cancel, &why);
	return NULL;
}

static void cancelled(void)
{
	pthread_t thread;

	REQUIRE(begin(true));
	REQUIRE(!pthread_create(&thread, NULL, fire, NULL));
	CHECK(returnpath_wait(&rp, RP_WAIT_READY, &err) == -1 && err.status == ST_CANCELLED);
	pthread_join(thread, NULL);
	end();
}

static const struct test_case cases[] = {
	{ "PONG, keepalive, READY with its digest, DONE, the end", the_whole_talk },
	{ "SHUT 0 is a QEMU's yes, SHUT 1 its no", a_qemu_says_shut },
	{ "FAILED stops the session with the destination's own words", failed },
	{ "a destination that closes without a word is an error", closed_without_a_word },
	{ "so is one that closes inside a message", closed_inside_a_message },
	{ "an end that is expected is none", expected_end },
	{ "what is unknown, has the wrong length or the wrong sender is refused", hostile },
	{ "requests for pages are for postcopy alone", requests_are_for_postcopy },
	{ "a fired token ends the wait", cancelled },
};

TEST_MAIN(cases)
