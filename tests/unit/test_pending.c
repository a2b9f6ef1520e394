// SPDX-License-Identifier: GPL-2.0-or-later
#include "test.h"

#include "log.h"
#include "pending.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

static struct cancel token;
static struct error e;
static struct listener *l;
static struct pending *p;
static int log_fd, stderr_copy;

static const char *log_text(void)
{
	static char buf[8192];
	ssize_t n = pread(log_fd, buf, sizeof(buf) - 1, 0);

	buf[n < 0 ? 0 : n] = '\0';
	return buf;
}

/* What was logged since the last call. */
static const char *logged(void)
{
	const char *text = log_text();

	if (ftruncate(log_fd, 0) || lseek(log_fd, 0, SEEK_SET))
		return "cannot empty the log";
	return text;
}

static unsigned lines(const char *s)
{
	unsigned n = 0;

	for (; (s = strchr(s, '\n')); s++)
		n++;
	return n;
}

static struct transport *connect_and_say(const char *what, size_t len)
{
	struct iovec iov = { (void *)what, len };
	struct transport *t;
	struct uri u;

	if (uri_parse(&u, listener_uri(l), &e))
		return NULL;
	t = transport_dial(&u, true, 5000, &token, &e);
	uri_free(&u);
	if (t && len && transport_writev(t, &iov, 1, &e) != (ssize_t)len) {
		transport_close(t, &e);
		return NULL;
	}
	return t;
}

static int next(int timeout_ms, uint8_t first[8], struct transport **t)
{
	*t = NULL;
	err_clear(&e);
	return pending_next(p, timeout_ms, first, t, &e);
}

/*
 * Nobody speaks until n are pending and so many lines were logged (-1: any number); a slow machine
 * takes its time.
 */
static bool comes_to(int n, int log_lines)
{
	struct transport *t;
	uint8_t first[8];

	for (int i = 0; i < 2000; i++) {
		if (next(10, first, &t) != 0)
			break;
		if (p->n == n && (log_lines < 0 || lines(log_text()) == (unsigned)log_lines))
			return true;
	}
	printf("# %d are pending; logged: %s\n", p->n, log_text());
	return false;
}

static const char channel[64] = "\x11\x22\x33\x44\0\0\0\2";

static void the_first_bytes_are_shown_and_stay(void)
{
	static const struct {
		const char *say;
		size_t len;
	} peers[] = {
		{ "MIGTOOL\n and more", 17 },
		{ "QEVM", 4 },
		{ channel, 64 },
		{ "QEVM\0\0\0\3", 8 },
	};

	for (size_t i = 0; i < sizeof(peers) / sizeof(peers[0]); i++) {
		struct transport *mine = connect_and_say(peers[i].say, peers[i].len), *t;
		size_t show = peers[i].len < 8 ? peers[i].len : 8, got = 0;
		uint8_t first[8] = { 0 }, all[80];

		REQUIRE(mine != NULL);
		REQUIRE(next(5000, first, &t) == 1 && t);
		CHECK(!memcmp(first, peers[i].say, show));
		transport_shutdown_write(mine, &e);
		while (got < sizeof(all)) {
			ssize_t n = transport_read(t, all + got, sizeof(all) - got, &e);

			if (n <= 0)
				break;
			got += (size_t)n;
		}
		CHECK(got == peers[i].len && !memcmp(all, peers[i].say, got));
		transport_close(t, &e);
		transport_close(mine, &e);
	}
	CHECK_STR(logged(), "");
}

static void nobody_is_a_time_out(void)
{
	struct transport *t;
	uint8_t first[8];

	CHECK(next(0, first, &t) == 0 && !t);
	CHECK(next(30, first, &t) == 0 && !t);
}

static void a_silent_one_does_not_keep_others_out(void)
{
	struct transport *silent = connect_and_say("", 0), *slow = connect_and_say("MIG", 3);
	struct transport *real, *t;
	struct iovec rest = { (void *)"TOOL!", 5 };
	uint8_t first[8];

	REQUIRE(silent && slow);
	REQUIRE(comes_to(2, 0));
	real = connect_and_say("12345678", 8);
	REQUIRE(real && next(5000, first, &t) == 1);
	CHECK(!memcmp(first, "12345678", 8) && p->n == 2);
	transport_close(t, &e);
	transport_close(real, &e);
	/* What came in two pieces is judged when it is complete. */
	CHECK(transport_writev(slow, &rest, 1, &e) == 5);
	REQUIRE(next(5000, first, &t) == 1);
	CHECK(!memcmp(first, "MIGTOOL!", 8) && p->n == 1);
	transport_close(t, &e);
	transport_close(slow, &e);
	CHECK_STR(logged(), "");
	transport_close(silent, &e);
	CHECK(comes_to(0, 1));
	CHECK(strstr(logged(), "it ended after 0 bytes") != NULL);
}

static void one_that_closes_is_dropped_with_one_warning(void)
{
	static const struct {
		const char *say, *want;
		size_t len;
	} peers[] = {
		{ "", "it ended after 0 bytes", 0 },
		{ "Q", "it ended after 1 byte\n", 1 },
		{ "GET /\r\n", "it ended after 7 bytes", 7 },
		{ channel, "it ended after 63 bytes", 63 },
	};

	for (size_t i = 0; i < sizeof(peers) / sizeof(peers[0]); i++) {
		struct transport *mine = connect_and_say(peers[i].say, peers[i].len);
		const char *log;

		REQUIRE(mine != NULL);
		transport_close(mine, &e);
		CHECK(comes_to(0, 1));
		log = logged();
		CHECK(strstr(log, "tcp:127.0.0.1:") && strstr(log, peers[i].want));
	}
}

static void a_silent_one_is_dropped_in_time(void)
{
	struct transport *silent = connect_and_say("", 0), *slow = connect_and_say("MIG", 3);
	const char *log;
	uint8_t first[8];

	REQUIRE(silent && slow);
	p->silence_ms = 100;
	REQUIRE(comes_to(0, 2));
	log = logged();
	CHECK(strstr(log, "it said nothing in 0.1 s") &&
	      strstr(log, "it said too little in 0.1 s"));
	p->silence_ms = 10000;
	/* They see that they were dropped. */
	CHECK(transport_read(silent, first, 1, &e) <= 0);
	CHECK(transport_read(slow, first, 1, &e) <= 0);
	transport_close(silent, &e);
	transport_close(slow, &e);
}

static void who_may_be_silent_stays_and_leaves_without_a_word(void)
{
	struct transport *silent = connect_and_say("", 0), *t;
	uint8_t first[8];

	REQUIRE(silent != NULL);
	p->silence_ms = 20;
	p->quiet = true;
	CHECK(next(200, first, &t) == 0 && p->n == 1);
	transport_close(silent, &e);
	CHECK(next(100, first, &t) == 0 && p->n == 0);
	CHECK_STR(logged(), "");
	p->quiet = false;
	p->silence_ms = 10000;
}

static void many_that_speak_late_are_all_taken(void)
{
	enum { N = 3 * PENDING_MAX };
	struct transport *many[N], *t;
	struct iovec hello = { (void *)channel, sizeof(channel) };
	uint8_t first[8];

	p->grace_ms = 1000000; /* a slow machine must not make a difference */
	for (int i = 0; i < N; i++)
		REQUIRE((many[i] = connect_and_say("", 0)) != NULL);
	REQUIRE(comes_to(PENDING_MAX, 0));
	for (int i = 0; i < N; i++)
		CHECK(transport_writev(many[i], &hello, 1, &e) == 64);
	for (int i = 0; i < N; i++) {
		CHECK(next(5000, first, &t) == 1 && !memcmp(first, hello.iov_base, 4));
		transport_close(t, &e);
	}
	for (int i = 0; i < N; i++)
		transport_close(many[i], &e);
	CHECK(p->n == 0);
	CHECK_STR(logged(), "");
	p->grace_ms = 1000;
}

static void of_too_many_the_oldest_is_dropped(void)
{
	struct transport *many[PENDING_MAX + 1], *real, *t;
	const char *log;
	uint8_t first[8];

	p->grace_ms = 300;
	for (int i = 0; i <= PENDING_MAX; i++) {
		many[i] = connect_and_say("", 0);
		REQUIRE(many[i] != NULL);
	}
	REQUIRE(comes_to(PENDING_MAX, 1));
	p->grace_ms = 0;
	log = logged();
	CHECK(strstr(log, "64 others wait"));
	CHECK(transport_read(many[0], first, 1, &e) <= 0);
	real = connect_and_say("MIGTOOL\n", 8);
	REQUIRE(real && next(5000, first, &t) == 1 && !memcmp(first, "MIGTOOL\n", 8));
	transport_close(t, &e);
	transport_close(real, &e);
	for (int i = 0; i <= PENDING_MAX; i++)
		transport_close(many[i], &e);
	CHECK(comes_to(0, -1));
	logged();
	p->grace_ms = 1000;
}

/* Each has a second of its own at first; then they would keep everybody out for minutes. */
static void a_flood_of_silent_ones_is_passed_quickly(void)
{
	enum { N = PENDING_MAX + 40 };
	struct transport *many[N], *real, *t;
	uint8_t first[8];

	p->grace_ms = 1000000;
	p->evicted = PENDING_FLOOD;
	for (int i = 0; i < N; i++)
		REQUIRE((many[i] = connect_and_say("", 0)) != NULL);
	real = connect_and_say("MIGTOOL\n", 8);
	REQUIRE(real && next(5000, first, &t) == 1 && !memcmp(first, "MIGTOOL\n", 8));
	CHECK(p->evicted == 0);
	transport_close(t, &e);
	transport_close(real, &e);
	for (int i = 0; i < N; i++)
		transport_close(many[i], &e);
	CHECK(comes_to(0, -1));
	logged();
	p->grace_ms = 1000;
}

static void a_shortage_of_descriptors_passes(void)
{
	struct transport *real = connect_and_say("MIGTOOL\n", 8), *t;
	struct rlimit before, less;
	uint8_t first[8];
	int free_fd = dup(0);

	REQUIRE(real && free_fd >= 0 && !getrlimit(RLIMIT_NOFILE, &before));
	close(free_fd);
	less = before;
	less.rlim_cur = (rlim_t)free_fd;
	REQUIRE(!setrlimit(RLIMIT_NOFILE, &less));
	CHECK(next(100, first, &t) == 0);
	setrlimit(RLIMIT_NOFILE, &before);
	CHECK(strstr(logged(), "trying again") != NULL);
	REQUIRE(next(5000, first, &t) == 1 && !memcmp(first, "MIGTOOL\n", 8));
	transport_close(t, &e);
	transport_close(real, &e);
	logged();
}

static void *fire_soon(void *arg)
{
	struct error why;

	poll(NULL, 0, 30);
	err_set(&why, ST_CANCELLED, "interrupted");
	cancel_fire(arg, &why);
	return NULL;
}

/* Nine bytes and more, or a 'Q' behind the eighth. */
static bool is_whole(const uint8_t *said, size_t len)
{
	return len >= 9000 || (len > 8 && said[8] == 'Q');
}

static void many_that_stop_half_way_keep_nobody_out(void)
{
	static char long_one[9000];
	struct transport *half[20], *other, *t;
	struct iovec rest = { long_one + 5000, 4000 };
	uint8_t first[8], got[sizeof(long_one)];
	size_t n = 0;

	for (size_t i = 0; i < sizeof(long_one); i++)
		long_one[i] = (char)('a' + i % 13);
	p->whole = is_whole;
	for (int i = 0; i < 20; i++)
		half[i] = connect_and_say(long_one, i ? 12 : 5000);
	/* each has been looked at once when the next call is over */
	REQUIRE(comes_to(20, 0) && next(0, first, &t) == 0);
	other = connect_and_say("01234567Q and", 13);
	REQUIRE(half[0] && half[19] && other);
	REQUIRE(next(5000, first, &t) == 1);
	CHECK(!memcmp(first, "01234567", 8));
	CHECK(transport_peek(t, got, 20, &e) == 13 && transport_poll_in(t, 0, &e) == 1);
	CHECK(transport_read(t, got, 3, &e) == 3 && transport_read(t, got + 3, 20, &e) == 10);
	CHECK(!memcmp(got, "01234567Q and", 13) && transport_peek(t, got, 20, &e) == 0);
	transport_close(t, &e);
	/* one of them goes on, and is there as a whole */
	CHECK(transport_writev(half[0], &rest, 1, &e) == 4000);
	REQUIRE(next(5000, first, &t) == 1);
	CHECK(!memcmp(first, long_one, 8));
	while (n < sizeof(got)) {
		ssize_t r = transport_read(t, got + n, sizeof(got) - n, &e);

		REQUIRE(r > 0);
		n += (size_t)r;
	}
	CHECK(!memcmp(got, long_one, sizeof(got)));
	transport_close(t, &e);
	transport_close(other, &e);
	/* the others go, or are late */
	logged();
	transport_close(half[1], &e);
	p->silence_ms = 100;
	REQUIRE(comes_to(18, 1));
	CHECK(strstr(logged(), "it ended after 12 bytes"));
	other = connect_and_say(long_one, 12);
	REQUIRE(comes_to(18, 1));
	CHECK(strstr(logged(), "it has not said who it is within 0.1 s"));
	transport_close(other, &e);
	for (int i = 0; i < 20; i++)
		if (i != 1)
			transport_close(half[i], &e);
	CHECK(comes_to(0, -1));
	logged();
	p->silence_ms = 10000;
	p->whole = NULL;
}

static void a_cancel_ends_the_wait(void)
{
	struct transport *silent = connect_and_say("", 0), *t;
	uint8_t first[8];
	pthread_t th;

	REQUIRE(silent && comes_to(1, 0));
	REQUIRE(pthread_create(&th, NULL, fire_soon, &token) == 0);
	CHECK(next(-1, first, &t) == -1 && e.status == ST_CANCELLED);
	CHECK_STR(e.msg, "interrupted");
	pthread_join(th, NULL);
	transport_close(silent, &e);
	CHECK_STR(logged(), "");
}

static void setup(void)
{
	struct uri u;

	signal(SIGPIPE, SIG_IGN);
	log_init(LOG_INFO, "test");
	log_fd = memfd_create("log", MFD_CLOEXEC);
	stderr_copy = dup(2);
	REQUIRE(log_fd >= 0 && dup2(log_fd, 2) == 2);
	REQUIRE(cancel_init(&token, &e) == 0);
	REQUIRE(uri_parse(&u, "tcp:127.0.0.1:0", &e) == 0);
	l = listener_open(&u, &token, &e);
	uri_free(&u);
	REQUIRE(l != NULL);
	p = pending_new(l, &token, &e);
	REQUIRE(p && p->silence_ms == 10000 && p->grace_ms == 1000);
}

static void teardown(void)
{
	pending_free(p);
	pending_free(NULL);
	listener_close(l);
	cancel_destroy(&token);
	dup2(stderr_copy, 2);
	close(stderr_copy);
	close(log_fd);
}

static const struct test_case cases[] = {
	{ "a listener is there for the cases", setup },
	{ "the first bytes are shown and stay", the_first_bytes_are_shown_and_stay },
	{ "nobody is a time-out", nobody_is_a_time_out },
	{ "a silent one does not keep others out", a_silent_one_does_not_keep_others_out },
	{ "one that closes is dropped with one warning",
	  one_that_closes_is_dropped_with_one_warning },
	{ "a silent one is dropped in time", a_silent_one_is_dropped_in_time },
	{ "who may be silent stays, and leaves without a word",
	  who_may_be_silent_stays_and_leaves_without_a_word },
	{ "many that stop half-way keep nobody out", many_that_stop_half_way_keep_nobody_out },
	{ "a shortage of descriptors passes", a_shortage_of_descriptors_passes },
	{ "many that speak late are all taken", many_that_speak_late_are_all_taken },
	{ "of too many the oldest is dropped", of_too_many_the_oldest_is_dropped },
	{ "a flood of silent ones is passed quickly", a_flood_of_silent_ones_is_passed_quickly },
	{ "a cancel ends the wait", a_cancel_ends_the_wait },
	{ "the listener is closed with what waited", teardown },
};
TEST_MAIN(cases)
