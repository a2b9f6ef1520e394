// SPDX-License-Identifier: GPL-2.0-or-later
#include "warden.h"

#include "broker-msg.h"

#include <errno.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

struct order {
	int32_t pid; /* 0: release */
};

static int sock = -1;
static pid_t warden;
static bool guards;

/* ---- its process ---- */

static void settle(int end)
{
	sigset_t all;

	prctl(PR_SET_NAME, "migtool-warden");
	setsid();
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, NULL);
	broker_close_but(3, &end, 1);
}

static _Noreturn void watch(int end)
{
	int target = -1;

	settle(end);
	for (;;) {
		struct order o;
		unsigned nfds = 0;
		int fd = -1;
		ssize_t n = broker_receive(end, &o, sizeof(o), &fd, 1, &nfds);

		if (n != sizeof(o))
			break;
		if (!o.pid)
			_exit(0);
		target = nfds ? fd : (int)syscall(SYS_pidfd_open, o.pid, 0);
	}
	if (target >= 0)
		syscall(SYS_pidfd_send_signal, target, SIGKILL, NULL, 0);
	_exit(0);
}

/* ---- ours ---- */

int warden_start(struct error *err)
{
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
		return err_sys(err, ST_NOMEM, errno, "no socket to the process of --on-loss=kill");
	warden = broker_fork();
	if (warden == 0)
		watch(pair[1]);
	close(pair[1]);
	if (warden < 0) {
		close(pair[0]);
		return err_sys(err, ST_NOMEM, errno, "cannot fork the process of --on-loss=kill");
	}
	sock = pair[0];
	return 0;
}

int warden_guard(pid_t pid, int pidfd, struct error *err)
{
	struct order o = { pid };

	if (sock < 0)
		return 0;
	if (pid <= 0 || broker_send(sock, &o, sizeof(o), &pidfd, pidfd >= 0, 0))
		return err_set(err, ST_COMMAND,
			       "--on-loss=kill: it is not known which process to end, or nobody is "
			       "left who would");
	guards = true;
	return 0;
}

static void await_end(void)
{
	close(sock);
	sock = -1;
	while (waitpid(warden, NULL, 0) < 0 && errno == EINTR)
		;
}

void warden_release(void)
{
	struct order o = { 0 };

	if (sock < 0)
		return;
	broker_send(sock, &o, sizeof(o), NULL, 0, 0);
	await_end();
}

bool warden_act(void)
{
	if (sock < 0)
		return false;
	await_end();
	return guards;
}
