// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A shell command whose standard input and output are a socket to us. It runs in a process group
 * of its own: Ctrl-C is for us to act on (after COMMIT it must not tear the connection), and what
 * the shell started can be ended with it. The price is that it cannot ask the terminal anything;
 * a command that tries is stopped by the kernel, which we notice and say.
 */
#include "transport-io.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define TAIL_MS	  60000 /* for a command to do its work after the end of a complete stream */
#define POLITE_MS 1000	/* between the end of its output's reader, SIGTERM, and SIGKILL */
#define ENDED_MS  300	/* for a command that has nothing left to do to end */

struct exec {
	pthread_mutex_t lock; /* reader and writer may both find that it ended */
	pid_t pid;	      /* 0: reaped */
	int pidfd;
	int wstatus; /* once reaped */
	bool writer;
	bool complete; /* the writer said that all was written */
};

/* Reads and drops what the command still says, so that it can end, for at most `ms`. */
static bool wait_ended(struct transport *t, int ms)
{
	struct exec *x = t->priv;
	int64_t deadline = io_deadline(ms);
	struct pollfd p[] = { { .fd = x->pidfd, .events = POLLIN },
			      { .fd = t->rfd, .events = POLLIN },
			      { .fd = t->cancel->fd, .events = POLLIN } };
	char drop[4096];

	if (cancel_fired(t->cancel))
		p[2].fd = -1; /* it was acted on: what remains is bounded by ms */
	for (;;) {
		int n = poll(p, 3, io_left_ms(deadline));

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0 || p[0].revents)
			return n > 0;
		if (p[2].revents)
			return false;
		if (p[1].revents && recv(t->rfd, drop, sizeof(drop), MSG_DONTWAIT) <= 0)
			p[1].fd = -1;
	}
}

static bool reap(struct exec *x)
{
	bool gone;

	pthread_mutex_lock(&x->lock);
	if (x->pid && broker_reap(x->pid, &x->wstatus) != 0)
		x->pid = 0;
	gone = !x->pid;
	pthread_mutex_unlock(&x->lock);
	return gone;
}

static int report(struct transport *t, struct error *err)
{
	const char *command = t->name + strlen("exec:");
	int w = ((struct exec *)t->priv)->wstatus;

	if (WIFSIGNALED(w))
		return err_set(err, ST_SOCKET, "%s was killed by signal %d (%s)", command,
			       WTERMSIG(w), strsignal(WTERMSIG(w)));
	return err_set(err, ST_SOCKET, "%s exited with status %d", command, WEXITSTATUS(w));
}

/*
 * The other end of the socket is gone in the middle: if the command failed, that is the reason.
 * 0: it did not, or still runs.
 */
static int ended(struct transport *t, struct error *err)
{
	struct exec *x = t->priv;
	struct pollfd p = { .fd = x->pidfd, .events = POLLIN };

	if (poll(&p, 1, ENDED_MS) == 1 && reap(x) && x->wstatus)
		return report(t, err);
	return 0;
}

static ssize_t exec_read(struct transport *t, void *buf, size_t len, struct error *err)
{
	ssize_t n = io_read(t, buf, len, err);

	if (n > 0 || io_stopped(t, err))
		return n > 0 ? n : -1;
	return ended(t, err) ? -1 : n;
}

static ssize_t exec_writev(struct transport *t, const struct iovec *iov, int n, bool more,
			   struct error *err)
{
	ssize_t done = io_writev(t, iov, n, more, err);

	if (done < 0 && err->sys == EPIPE)
		ended(t, err);
	return done;
}

static ssize_t exec_sendfile(struct transport *t, int fd, uint64_t offset, size_t len,
			     struct error *err)
{
	ssize_t done = io_sendfile(t, fd, offset, len, err);

	if (done < 0 && err->sys == EPIPE)
		ended(t, err);
	return done;
}

static int exec_shutdown_write(struct transport *t, struct error *err)
{
	((struct exec *)t->priv)->complete = true;
	return io_shutdown_write(t, err);
}

/* True: it ended by itself, and its status says something. */
static bool end_command(struct transport *t)
{
	struct exec *x = t->priv;
	bool stopped = cancel_fired(t->cancel) || atomic_load(&t->aborted);

	if (!stopped && wait_ended(t, x->writer && x->complete ? TAIL_MS : ENDED_MS))
		return true;
	/*
	 * A writer's command must not take this for the end of a complete stream. A reader's that
	 * still writes now fails, which is no fault of its own.
	 */
	if (!x->writer) {
		shutdown(t->rfd, SHUT_RDWR);
		if (!stopped && wait_ended(t, POLITE_MS))
			return false;
	}
	broker_kill(x->pid, SIGTERM);
	broker_kill(x->pid, SIGCONT); /* a stopped one would not notice */
	if (!wait_ended(t, POLITE_MS)) {
		broker_kill(x->pid, SIGKILL);
		wait_ended(t, POLITE_MS);
	}
	return false;
}

static int judge_end(struct transport *t, bool by_itself, struct error *err)
{
	struct exec *x = t->priv;

	if (cancel_fired(t->cancel) || atomic_load(&t->aborted))
		return 0;
	if (by_itself)
		return x->wstatus ? report(t, err) : 0;
	if (x->writer && x->complete)
		return err_set(err, ST_SOCKET, "%s did not end %d s after its input ended",
			       t->name + strlen("exec:"), TAIL_MS / 1000);
	return 0; /* the failure that made us end it is the one to report */
}

static int exec_close(struct transport *t, struct error *err)
{
	struct exec *x = t->priv;
	bool by_itself = reap(x);
	int rc;

	if (!by_itself) {
		by_itself = end_command(t);
		reap(x); /* what not even SIGKILL ends is left to init */
	}
	rc = judge_end(t, by_itself, err);
	close(x->pidfd);
	pthread_mutex_destroy(&x->lock);
	free(x);
	io_free(t);
	return rc;
}

/* Whoever waits for the command looks in on it: stopped at the terminal it would never answer. */
static int exec_waiting(struct transport *t, struct error *err)
{
	struct exec *x = t->priv;
	int sig = 0;

	pthread_mutex_lock(&x->lock);
	if (x->pid)
		sig = broker_stopped(x->pid);
	pthread_mutex_unlock(&x->lock);
	if (sig != SIGTTIN && sig != SIGTTOU)
		return 0;
	err_set(err, ST_SOCKET, "%s wants to ask something on the terminal, which it cannot have",
		t->name + strlen("exec:"));
	return err_hint(err,
			"give it what it needs by a file or an agent (ssh: a key in ssh-agent)");
}

static const struct transport_ops exec_ops = {
	.scheme = "exec",
	.read = exec_read,
	.writev = exec_writev,
	.sendfile = exec_sendfile,
	.waiting = exec_waiting,
	.shutdown_write = exec_shutdown_write,
	.close = exec_close,
};

/* The command gets one end of a socket pair; ours is made non-blocking. 0 or -1 with errno. */
static int start(struct transport *t, const char *command)
{
	char *argv[] = { (char *)"/bin/sh", (char *)"-c", (char *)command, NULL };
	struct exec *x = t->priv;
	int pair[2], e;

	if (broker_socketpair(pair))
		return -1;
	t->rfd = t->wfd = pair[0];
	t->rkind = t->wkind = IO_SOCKET;
	t->two_way = true;
	fcntl(pair[0], F_SETFL, fcntl(pair[0], F_GETFL) | O_NONBLOCK);
	x->pid = broker_spawn(argv, (int[3]){ pair[1], pair[1], -1 }, SPAWN_GROUP);
	e = errno;
	close(pair[1]);
	if (x->pid > 0) {
		x->pidfd = broker_child_fd(x->pid);
		if (x->pidfd >= 0)
			return 0;
		e = errno;
		broker_kill(x->pid, SIGKILL);
		while (!reap(x))
			poll(NULL, 0, 1);
	}
	errno = e;
	return -1;
}

struct transport *exec_dial(const struct uri *uri, bool writer, int timeout_ms,
			    struct cancel *cancel, struct error *err)
{
	struct transport *t = io_new(&exec_ops, uri->text, cancel, err);
	struct exec *x = calloc(1, sizeof(*x));

	(void)timeout_ms;
	if (!t || !x) {
		if (t) {
			err_set(err, ST_NOMEM, "out of memory for %s", uri->text);
			io_free(t);
		}
		free(x);
		return NULL;
	}
	x->writer = writer;
	pthread_mutex_init(&x->lock, NULL);
	t->priv = x;
	if (start(t, uri->path) == 0)
		return t;
	err_sys(err, ST_CONNECT, errno, "cannot start %s", uri->text);
	pthread_mutex_destroy(&x->lock);
	free(x);
	io_free(t);
	return NULL;
}
