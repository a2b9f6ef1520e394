// SPDX-License-Identifier: GPL-2.0-or-later
#include "test.h"

#include "progress.h"

#include <fcntl.h>
#include <jansson.h>
#include <stdlib.h>
#include <unistd.h>

#define MIB (UINT64_C(1) << 20)

static struct progress quiet(void)
{
	struct progress p;

	progress_init(&p, PROGRESS_NONE, false, -1);
	return p;
}

static void no_eta_before_there_is_a_rate(void)
{
	struct progress p = quiet();
	struct stats_snapshot s = { .t_start = 1000, .now = 1000, .to_travel = 100 * MIB };
	struct progress_view v;

	progress_look(&p, &s, &v);
	CHECK(v.permille == 0 && v.rate == -1 && v.eta == -1 && v.elapsed == 0);
	s.now = 1250;
	s.travelled = 5 * MIB;
	progress_look(&p, &s, &v);
	CHECK(v.permille == 50 && v.rate == -1 && v.eta == -1);
	s.now = 2000;
	s.travelled = 20 * MIB;
	progress_look(&p, &s, &v);
	CHECK(v.rate == (int64_t)(20 * MIB) && v.eta == 4 && v.elapsed == 1000);
}

static void the_rate_is_that_of_the_last_seconds(void)
{
	struct progress p = quiet();
	struct stats_snapshot s = { .t_start = 1, .to_travel = 10000 * MIB };
	struct progress_view v;

	/* ten seconds of 100 MiB/s, then ten of 10, then none */
	for (s.now = 1; s.now <= 10001; s.now += 250, s.travelled += 25 * MIB)
		progress_look(&p, &s, &v);
	CHECK(v.rate == (int64_t)(100 * MIB));
	for (uint64_t end = s.now + 10000; s.now <= end; s.now += 250, s.travelled += 5 * MIB / 2)
		progress_look(&p, &s, &v);
	CHECK(v.rate == (int64_t)(10 * MIB));
	for (uint64_t end = s.now + 10000; s.now <= end; s.now += 250)
		progress_look(&p, &s, &v);
	CHECK(v.rate == 0 && v.eta == -1);
}

static void frequent_looks_do_not_shorten_the_window(void)
{
	struct progress p = quiet();
	struct stats_snapshot s = { .t_start = 1, .now = 1, .to_travel = 100000 * MIB };
	struct progress_view v;

	for (; s.now <= 4001; s.now++, s.travelled += MIB)
		progress_look(&p, &s, &v);
	CHECK(p.nsamples <= 21 && v.rate == (int64_t)(1000 * MIB));
}

static void never_more_than_all(void)
{
	struct progress p = quiet();
	struct stats_snapshot s = { .t_start = 1, .now = 1, .to_travel = 1000, .travelled = 5000 };
	struct progress_view v;

	progress_look(&p, &s, &v);
	CHECK(v.permille == 1000 && v.done == 1000);
	s.to_travel = UINT64_C(1) << 60;
	s.travelled = s.to_travel - 1;
	progress_look(&p, &s, &v);
	CHECK(v.permille == 999);
	s.to_travel = 0;
	progress_look(&p, &s, &v);
	CHECK(v.permille == -1 && v.eta == -1);
}

static void a_narrow_terminal_gets_what_matters(void)
{
	struct progress_view v = { .done = 512 * MIB,
				   .total = 1024 * MIB,
				   .permille = 500,
				   .rate = (int64_t)(64 * MIB),
				   .eta = 3661,
				   .elapsed = 62000 };
	char buf[240];

	CHECK_STR(progress_format(&v, "active", 100, buf, sizeof(buf)),
		  "active   50 %  512.00 MiB of 1.00 GiB  64.00 MiB/s  ETA 1:01:01  elapsed 1:02");
	CHECK_STR(progress_format(&v, "active", 70, buf, sizeof(buf)),
		  "active   50 %  512.00 MiB of 1.00 GiB  64.00 MiB/s  ETA 1:01:01");
	CHECK_STR(progress_format(&v, "active", 40, buf, sizeof(buf)),
		  "active   50 %  64.00 MiB/s  ETA 1:01:01");
	CHECK_STR(progress_format(&v, "active", 20, buf, sizeof(buf)), " 50 %  ETA 1:01:01");
	CHECK_STR(progress_format(&v, "active", 5, buf, sizeof(buf)), " 50 %");
	CHECK_STR(progress_format(&v, "active", 3, buf, sizeof(buf)), "");
	for (unsigned w = 0; w < 90; w++)
		CHECK(strlen(progress_format(&v, "postcopy-active", w, buf, sizeof(buf))) <= w);
	for (size_t len = 1; len < 90; len++)
		CHECK(strlen(progress_format(&v, "active", 200, buf, len)) < len);
}

static void what_is_not_known_is_not_shown(void)
{
	struct progress_view v = { .permille = -1, .rate = -1, .eta = -1, .elapsed = 2000 };
	char buf[240];

	CHECK_STR(progress_format(&v, "setup", 80, buf, sizeof(buf)), "setup  elapsed 0:02");
}

static json_t *line_from(int fd)
{
	char buf[2000];
	ssize_t n = read(fd, buf, sizeof(buf));

	return n > 0 ? json_loadb(buf, (size_t)n, 0, NULL) : NULL;
}

static void scripts_get_a_line_a_second(void)
{
	struct stats_snapshot s = { .now = 100, .to_travel = 1000 };
	struct progress p;
	json_t *j, *d;
	int fd[2];

	REQUIRE(pipe(fd) == 0);
	fcntl(fd[0], F_SETFL, O_NONBLOCK);
	progress_init(&p, PROGRESS_JSON, true, fd[1]);
	progress_tick(&p, &s, "none");
	CHECK(line_from(fd[0]) == NULL); /* not started yet */
	s.t_start = 100;
	s.now = 1100;
	progress_tick(&p, &s, "setup");
	j = line_from(fd[0]);
	d = json_object_get(j, "data");
	CHECK_STR(json_string_value(json_object_get(j, "event")), "PROGRESS");
	CHECK_STR(json_string_value(json_object_get(d, "phase")), "setup");
	CHECK(json_is_null(json_object_get(d, "eta")) && json_is_null(json_object_get(d, "rate")));
	CHECK(json_real_value(json_object_get(d, "elapsed")) == 1.0);
	json_decref(j);
	s.now = 1900;
	progress_tick(&p, &s, "active");
	CHECK(line_from(fd[0]) == NULL);
	s.now = 2100;
	s.travelled = 500;
	progress_tick(&p, &s, "active");
	j = line_from(fd[0]);
	d = json_object_get(j, "data");
	CHECK(json_integer_value(json_object_get(d, "rate")) == 500);
	CHECK(json_integer_value(json_object_get(d, "eta")) == 1);
	CHECK(json_real_value(json_object_get(d, "percent")) == 50.0);
	json_decref(j);
	s.travelled = 990;
	progress_end(&p, &s, "completed", true);
	j = line_from(fd[0]);
	d = json_object_get(j, "data");
	CHECK(json_real_value(json_object_get(d, "percent")) == 100.0);
	CHECK(json_integer_value(json_object_get(d, "done")) == 1000);
	json_decref(j);
	progress_tick(&p, &s, "completed");
	CHECK(line_from(fd[0]) == NULL);
	progress_init(&p, PROGRESS_JSON, true, fd[1]);
	progress_end(&p, &s, "failed", false);
	j = line_from(fd[0]);
	d = json_object_get(j, "data");
	CHECK(json_real_value(json_object_get(d, "percent")) == 99.0);
	json_decref(j);
	close(fd[0]);
	close(fd[1]);
}

static void a_reader_that_stopped_stops_nobody(void)
{
	struct stats_snapshot s = { .now = 2000, .t_start = 100, .to_travel = 1000 };
	static char fill[65536];
	struct progress p;
	int fd[2];

	REQUIRE(pipe(fd) == 0);
	fcntl(fd[1], F_SETFL, O_NONBLOCK);
	while (write(fd[1], fill, sizeof(fill)) > 0)
		;
	fcntl(fd[1], F_SETFL, 0);
	progress_init(&p, PROGRESS_JSON, true, fd[1]);
	alarm(20);
	progress_tick(&p, &s, "active");
	CHECK(p.mode == PROGRESS_JSON); /* it may go on reading */
	progress_end(&p, &s, "active", true);
	alarm(0);
	close(fd[0]);
	close(fd[1]);
}

static void a_dumb_terminal_gets_no_line(void)
{
	struct progress p;

	setenv("TERM", "dumb", 1);
	progress_init(&p, PROGRESS_TTY, false, -1);
	CHECK(p.mode == PROGRESS_NONE);
	unsetenv("TERM");
	progress_init(&p, PROGRESS_TTY, false, -1);
	CHECK(p.mode == PROGRESS_NONE);
	setenv("TERM", "xterm", 1);
	progress_init(&p, PROGRESS_TTY, false, -1);
	CHECK(p.mode == PROGRESS_TTY);
}

/* stderr becomes a pseudo-terminal, then a file. */
static void auto_is_for_terminals(void)
{
	int saved = dup(STDERR_FILENO), pt = posix_openpt(O_RDWR | O_NOCTTY), tty, null;
	struct progress p;

	REQUIRE(saved >= 0 && pt >= 0 && grantpt(pt) == 0 && unlockpt(pt) == 0);
	tty = open(ptsname(pt), O_RDWR | O_NOCTTY);
	null = open("/dev/null", O_WRONLY);
	REQUIRE(tty >= 0 && null >= 0);
	setenv("TERM", "xterm", 1);
	dup2(tty, STDERR_FILENO);
	progress_init(&p, PROGRESS_AUTO, false, -1);
	CHECK(p.mode == PROGRESS_TTY);
	progress_init(&p, PROGRESS_AUTO, true, -1);
	CHECK(p.mode == PROGRESS_NONE);
	dup2(null, STDERR_FILENO);
	progress_init(&p, PROGRESS_AUTO, false, -1);
	CHECK(p.mode == PROGRESS_NONE);
	dup2(saved, STDERR_FILENO);
	close(saved);
	close(pt);
	close(tty);
	close(null);
}

static const struct test_case cases[] = {
	{ "no ETA before there is a rate", no_eta_before_there_is_a_rate },
	{ "the rate is that of the last seconds", the_rate_is_that_of_the_last_seconds },
	{ "frequent looks do not shorten the window", frequent_looks_do_not_shorten_the_window },
	{ "never more than 100 per cent, nor 100 before the last byte", never_more_than_all },
	{ "a narrow terminal gets what matters most", a_narrow_terminal_gets_what_matters },
	{ "what is not known is not shown", what_is_not_known_is_not_shown },
	{ "scripts get a line a second and one at the end", scripts_get_a_line_a_second },
	{ "a reader that stopped stops nobody", a_reader_that_stopped_stops_nobody },
	{ "a dumb terminal gets no line", a_dumb_terminal_gets_no_line },
	{ "auto is for terminals that nobody wants quiet", auto_is_for_terminals },
};
TEST_MAIN(cases)
