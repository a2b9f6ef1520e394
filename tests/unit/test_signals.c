// SPDX-License-Identifier: GPL-2.0-or-later
#include "test.h"

#include "signals.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

static bool readable(void)
{
	struct pollfd p = { .fd = signals_fd(), .events = POLLIN };

	return poll(&p, 1, 0) == 1;
}

static void each_signal_is_its_request(void)
{
	static const struct {
		int signo;
		enum signal_request req;
		bool cancel;
	} rows[] = {
		{ SIGINT, SIGNAL_INT, true },	 { SIGTERM, SIGNAL_TERM, true },
		{ SIGHUP, SIGNAL_HUP, true },	 { SIGUSR1, SIGNAL_STATS, false },
		{ SIGUSR2, SIGNAL_STEP, false },
	};
	struct error e;

	signal(SIGHUP, SIG_DFL); /* the tests may run under nohup */
	REQUIRE(signals_init(&e) == 0);
	CHECK(!readable() && signals_next() == SIGNAL_NONE);
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		kill(getpid(), rows[i].signo);
		CHECK(readable());
		CHECK(signals_next() == rows[i].req);
		CHECK(signals_is_cancel(rows[i].req) == rows[i].cancel);
	}
	CHECK(signals_next() == SIGNAL_NONE && !signals_is_cancel(SIGNAL_NONE));
	CHECK_STR(signals_name(SIGNAL_STEP), "SIGUSR2");
	signals_close();
	CHECK(signals_fd() == -1 && signals_next() == SIGNAL_NONE);
}

static void *send_to_self(void *arg)
{
	(void)arg;
	pthread_kill(pthread_self(), SIGTERM);
	return NULL;
}

static void a_thread_inherits_the_mask(void)
{
	struct error e;
	pthread_t t;

	REQUIRE(signals_init(&e) == 0);
	REQUIRE(pthread_create(&t, NULL, send_to_self, NULL) == 0);
	pthread_join(t, NULL);
	/* Sent to that thread alone: it survived, and the main thread is not told. */
	CHECK(signals_next() == SIGNAL_NONE);
	signals_close();
}

static void a_broken_pipe_is_an_error_number(void)
{
	struct error e;
	int p[2];

	REQUIRE(signals_init(&e) == 0 && pipe(p) == 0);
	close(p[0]);
	CHECK(write(p[1], "x", 1) == -1 && errno == EPIPE);
	close(p[1]);
	signals_close();
}

/* What fn() returns in a child, whose mask is none at first. */
static int in_child(int (*fn)(void))
{
	int status = -1;
	pid_t pid = fork();

	if (pid == 0) {
		sigset_t none;

		sigemptyset(&none);
		sigprocmask(SIG_SETMASK, &none, NULL);
		_exit(fn());
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid || !WIFEXITED(status))
		return -1;
	return WEXITSTATUS(status);
}

static int ignore_both(void)
{
	struct error e;

	signal(SIGINT, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	if (signals_init(&e))
		return 1;
	kill(getpid(), SIGHUP);
	if (signals_next() != SIGNAL_NONE)
		return 2;
	kill(getpid(), SIGINT);
	return signals_next() == SIGNAL_INT ? 0 : 3;
}

static void ignored_from_birth(void)
{
	CHECK(in_child(ignore_both) == 0);
}

static int hold_first(void)
{
	struct error e;

	signals_hold();
	kill(getpid(), SIGTERM);
	return signals_init(&e) || signals_next() != SIGNAL_TERM;
}

static void held_from_the_start(void)
{
	CHECK(in_child(hold_first) == 0);
}

static const struct test_case cases[] = {
	{ "each signal is its request", each_signal_is_its_request },
	{ "a thread inherits the mask", a_thread_inherits_the_mask },
	{ "a broken pipe is an error number, not a death", a_broken_pipe_is_an_error_number },
	{ "SIGINT comes even to a background job, SIGHUP not under nohup", ignored_from_birth },
	{ "what comes while they are held is a request afterwards", held_from_the_start },
};
TEST_MAIN(cases)
