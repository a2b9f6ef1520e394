// SPDX-License-Identifier: GPL-2.0-or-later
/* events and the JSON lines below them. */
#include "test.h"

#include "events.h"
#include "jsonline.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* Everything that is in the pipe, as a string. */
static char *drain(int fd)
{
	static char buf[4096];
	ssize_t n = read(fd, buf, sizeof(buf) - 1);

	buf[n > 0 ? n : 0] = '\0';
	return buf;
}

/* The first line of `text` as JSON, and the rest in *text. */
static json_t *next_line(char **text)
{
	char *end = strchr(*text, '\n');
	json_t *j;

	if (!end)
		return NULL;
	*end = '\0';
	j = json_loads(*text, 0, NULL);
	*text = end + 1;
	return j;
}

static void each_change_is_one_line(void)
{
	struct events ev;
	json_int_t sec = -1, usec = -1;
	const char *event = "", *status = "";
	char *text;
	json_t *j;
	int p[2];

	REQUIRE(pipe(p) == 0);
	events_init(&ev, true, p[1]);
	events_status(&ev, MIG_SETUP);
	events_status(&ev, MIG_SETUP);
	events_pass(&ev, 1);
	events_status(&ev, MIG_PRE_SWITCHOVER);
	text = drain(p[0]);
	j = next_line(&text);
	CHECK(json_unpack(j, "{s:{s:I,s:I!},s:s,s:{s:s!}!}", "timestamp", "seconds", &sec,
			  "microseconds", &usec, "event", &event, "data", "status", &status) == 0);
	CHECK(sec >= time(NULL) - 60 && sec <= time(NULL) && usec >= 0 && usec < 1000000);
	CHECK_STR(event, "MIGRATION");
	CHECK_STR(status, "setup");
	json_decref(j);
	j = next_line(&text);
	sec = -1;
	CHECK(json_unpack(j, "{s:s,s:{s:I!}}", "event", &event, "data", "pass", &sec) == 0);
	CHECK_STR(event, "MIGRATION_PASS");
	CHECK(sec == 1);
	json_decref(j);
	j = next_line(&text);
	CHECK(json_unpack(j, "{s:{s:s!}}", "data", "status", &status) == 0);
	CHECK_STR(status, "pre-switchover");
	json_decref(j);
	CHECK(*text == '\0');
	events_destroy(&ev);
	close(p[0]);
	close(p[1]);
}

static void off_says_nothing_and_still_knows(void)
{
	struct events ev;
	int p[2];

	REQUIRE(pipe(p) == 0);
	events_init(&ev, false, p[1]);
	CHECK(events_current(&ev) == MIG_NONE);
	events_status(&ev, MIG_ACTIVE);
	events_pass(&ev, 1);
	CHECK(events_current(&ev) == MIG_ACTIVE);
	close(p[1]);
	CHECK_STR(drain(p[0]), "");
	events_destroy(&ev);
	close(p[0]);
}

static void nothing_follows_a_final_status(void)
{
	struct events ev;

	events_init(&ev, false, -1);
	events_status(&ev, MIG_FAILED);
	events_status(&ev, MIG_ACTIVE);
	CHECK(events_current(&ev) == MIG_FAILED);
	CHECK(migration_status_final(MIG_CANCELLED) && !migration_status_final(MIG_CANCELLING));
	events_destroy(&ev);
}

static void a_reader_that_left_turns_it_off(void)
{
	struct events ev;
	int p[2];

	signal(SIGPIPE, SIG_IGN);
	REQUIRE(pipe(p) == 0);
	close(p[0]);
	events_init(&ev, true, p[1]);
	events_status(&ev, MIG_ACTIVE);
	CHECK(!ev.on && events_current(&ev) == MIG_ACTIVE);
	events_destroy(&ev);
	close(p[1]);
}

static void every_status_has_qemus_name(void)
{
	for (int i = 0; i < MIG__MAX; i++)
		CHECK(migration_status_name((enum migration_status)i) != NULL);
	CHECK_STR(migration_status_name(MIG_POSTCOPY_PAUSED), "postcopy-paused");
	CHECK_STR(migration_status_name(MIG_WAIT_UNPLUG), "wait-unplug");
}

static void bytes_that_are_no_utf8_are_escaped(void)
{
	json_t *j = jsonline_string("caf\xc3\xa9 \n");

	CHECK_STR(json_string_value(j), "caf\xc3\xa9 \n");
	json_decref(j);
	j = jsonline_string("a\xff\"b");
	CHECK_STR(json_string_value(j), "a\\xff\"b");
	json_decref(j);
}

static void what_cannot_be_written_is_an_error(void)
{
	int full = open("/dev/full", O_WRONLY);
	struct error e;

	REQUIRE(full >= 0);
	CHECK(jsonline_write(full, json_pack("{s:i}", "a", 1), &e) == -1);
	CHECK(e.status == ST_FILE && strstr(e.msg, "No space left") != NULL);
	CHECK(jsonline_write(full, NULL, &e) == -1 && e.status == ST_NOMEM);
	close(full);
}

/* More than the pipe holds, into a non-blocking end, read by a child. */
static void a_slow_reader_gets_all_of_it(void)
{
	static char big[300000];
	struct error e;
	size_t got = 0;
	int p[2], q[2];
	ssize_t n;

	memset(big, 'x', sizeof(big) - 1);
	REQUIRE(pipe(p) == 0 && pipe(q) == 0);
	if (fork() == 0) {
		char buf[10000];

		close(p[1]);
		while ((n = read(p[0], buf, sizeof(buf))) > 0)
			got += (size_t)n;
		_exit(write(q[1], &got, sizeof(got)) != sizeof(got));
	}
	close(p[0]);
	fcntl(p[1], F_SETFL, O_NONBLOCK);
	CHECK(jsonline_write(p[1], json_pack("{s:s}", "a", big), &e) == 0);
	close(p[1]);
	CHECK(read(q[0], &got, sizeof(got)) == sizeof(got));
	CHECK(got == strlen(big) + strlen("{\"a\":\"\"}\n"));
	wait(NULL);
	close(q[0]);
	close(q[1]);
}

static const struct test_case cases[] = {
	{ "each change of status is one line of QEMU's shape", each_change_is_one_line },
	{ "off says nothing and still knows", off_says_nothing_and_still_knows },
	{ "nothing follows a final status", nothing_follows_a_final_status },
	{ "a reader that left turns events off", a_reader_that_left_turns_it_off },
	{ "every status has QEMU's name", every_status_has_qemus_name },
	{ "bytes that are no UTF-8 are escaped", bytes_that_are_no_utf8_are_escaped },
	{ "what cannot be written is an error", what_cannot_be_written_is_an_error },
	{ "a slow reader gets all of it", a_slow_reader_gets_all_of_it },
};
TEST_MAIN(cases)
