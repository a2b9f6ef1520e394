// SPDX-License-Identifier: GPL-2.0-or-later
#include "signals.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>

static const struct {
	int signo;
	const char *name;
} requests[] = {
	[SIGNAL_NONE] = { 0, "no signal" },	 [SIGNAL_INT] = { SIGINT, "SIGINT" },
	[SIGNAL_TERM] = { SIGTERM, "SIGTERM" },	 [SIGNAL_HUP] = { SIGHUP, "SIGHUP" },
	[SIGNAL_STATS] = { SIGUSR1, "SIGUSR1" }, [SIGNAL_STEP] = { SIGUSR2, "SIGUSR2" },
};

#define NREQUESTS (sizeof(requests) / sizeof(requests[0]))

static int signal_fd = -1;

static bool is_ignored(int signo)
{
	struct sigaction sa;

	return sigaction(signo, NULL, &sa) == 0 && sa.sa_handler == SIG_IGN;
}

static void our_signals(sigset_t *set)
{
	sigemptyset(set);
	/* A blocked signal is queued even where it is ignored, so nohup has to be asked for. */
	for (size_t i = SIGNAL_INT; i < NREQUESTS; i++)
		if (i != SIGNAL_HUP || !is_ignored(SIGHUP))
			sigaddset(set, requests[i].signo);
}

void signals_hold(void)
{
	sigset_t set;

	our_signals(&set);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
}

int signals_init(struct error *err)
{
	sigset_t set;

	signals_hold();
	our_signals(&set);
	signal(SIGPIPE, SIG_IGN);
	signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (signal_fd < 0)
		return err_sys(err, ST_NOMEM, errno, "cannot make a signalfd");
	return 0;
}

int signals_fd(void)
{
	return signal_fd;
}

enum signal_request signals_next(void)
{
	struct signalfd_siginfo info;

	if (signal_fd < 0 || read(signal_fd, &info, sizeof(info)) != sizeof(info))
		return SIGNAL_NONE;
	for (size_t i = SIGNAL_INT; i < NREQUESTS; i++)
		if (requests[i].signo == (int)info.ssi_signo)
			return (enum signal_request)i;
	return SIGNAL_NONE;
}

bool signals_is_cancel(enum signal_request req)
{
	return req == SIGNAL_INT || req == SIGNAL_TERM || req == SIGNAL_HUP;
}

const char *signals_name(enum signal_request req)
{
	return requests[req].name;
}

void signals_close(void)
{
	if (signal_fd >= 0)
		close(signal_fd);
	signal_fd = -1;
}
