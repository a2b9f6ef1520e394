// SPDX-License-Identifier: GPL-2.0-or-later
#include "catch-keeper.h"

#include "broker-act.h"
#include "broker-msg.h"
#include "catch-found.h"
#include "catch-msg.h"
#include "uffd.h"

#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static struct {
	pid_t pid; /* 0: there is none */
	int stop;  /* eventfd */
	int owner; /* pidfd of ours: it tells the keeper that we are gone */
} keeper;

/* ---- its process ---- */

/* What is not given away is closed at once: a peer is to see that we are gone. */
static void give_away(int lane)
{
	DIR *d = catch_found_fds(getpid());
	struct dirent *e;

	while (d && (e = readdir(d))) {
		int fd = atoi(e->d_name);
		struct catch_order o = { .op = CATCH_OP_FOUND, .token = (uint32_t)fd };

		if (fd <= STDERR_FILENO || fd == lane || fd == dirfd(d))
			continue;
		if (uffd_valid(fd))
			broker_send(lane, &o, sizeof(o), &fd, 1, 0);
		close(fd);
	}
}

static _Noreturn void keep(int lane)
{
	struct pollfd p[2] = { { .fd = keeper.stop, .events = POLLIN },
			       { .fd = keeper.owner, .events = POLLIN } };
	sigset_t all;

	prctl(PR_SET_NAME, "migtool-keeper");
	setsid(); /* what ends our group leaves it alone */
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, NULL);
	while (poll(p, 2, -1) < 0)
		;
	if (!p[0].revents)
		give_away(lane);
	_exit(0);
}

/* ---- ours ---- */

static void forget(void)
{
	if (keeper.stop >= 0)
		close(keeper.stop);
	if (keeper.owner >= 0)
		close(keeper.owner);
	keeper.pid = 0;
}

int keeper_start(int lane, struct error *err)
{
	keeper.stop = eventfd(0, EFD_CLOEXEC);
	keeper.owner = (int)syscall(SYS_pidfd_open, getpid(), 0);
	if (keeper.stop >= 0 && keeper.owner >= 0) {
		keeper.pid = broker_fork_sharing();
		if (keeper.pid == 0)
			keep(lane);
	}
	if (keeper.pid > 0)
		return 0;
	err_sys(err, errno == ENOSYS ? ST_UNSUPPORTED : ST_NOMEM, errno,
		"cannot start the process that keeps forked children's memory");
	forget();
	return -1;
}

void keeper_stop(void)
{
	uint64_t one = 1;

	if (keeper.pid <= 0)
		return;
	while (write(keeper.stop, &one, sizeof(one)) < 0 && errno == EINTR)
		;
	while (waitpid(keeper.pid, NULL, 0) < 0 && errno == EINTR)
		;
	forget();
}
