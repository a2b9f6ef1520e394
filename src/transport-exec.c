// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A shell command whose standard input and output are a socket to us (child.h). One that stops
 * because it wants to ask something on the terminal is noticed, and we say so.
 */
#include "child.h"
#include "transport-io.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define TAIL_MS	  60000 /* for a command to do its work after the end of a complete stream */
#define POLITE_MS 1000	/* between the end of its output's reader, SIGTERM, and SIGKILL */
#define ENDED_MS  300	/* for a command that has nothing left to do to end */

struct exec {
	struct child child;
	int end_fd; /* readable once it has ended */
	bool writer;
	bool complete; /* the writer said that all was written */
};

static bool wait_ended(struct transport *t, int ms)
{
	return io_drain(t, ((struct exec *)t->priv)->end_fd, ms);
}

static int report(struct transport *t, struct error *err)
{
	const char *command = t->name + strlen("exec:");
	int w = ((struct exec *)t->priv)->child.wstatus;

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
	struct pollfd p = { .fd = x->end_fd, .events = POLLIN };

	if (poll(&p, 1, ENDED_MS) == 1 && child_reap(&x->child) && x->child.wstatus)
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
	child_signal(&x->child, SIGTERM);
	child_signal(&x->child, SIGCONT); /* a stopped one would not notice */
	if (!wait_ended(t, POLITE_MS)) {
		child_signal(&x->child, SIGKILL);
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
		return x->child.wstatus ? report(t, err) : 0;
	if (x->writer && x->complete)
		return err_set(err, ST_SOCKET, "%s did not end %d s after its input ended",
			       t->name + strlen("exec:"), TAIL_MS / 1000);
	return 0; /* the failure that made us end it is the one to report */
}

static int exec_close(struct transport *t, struct error *err)
{
	struct exec *x = t->priv;
	bool by_itself = child_reap(&x->child);
	int rc;

	if (!by_itself) {
		by_itself = end_command(t);
		child_reap(&x->child); /* what not even SIGKILL ends is left to init */
	}
	rc = judge_end(t, by_itself, err);
	close(x->end_fd);
	child_free(&x->child);
	free(x);
	io_free(t);
	return rc;
}

/* Whoever waits for the command looks in on it: stopped at the terminal it would never answer. */
static int exec_waiting(struct transport *t, struct error *err)
{
	if (!child_wants_terminal(&((struct exec *)t->priv)->child))
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

/* Our end of the command's socket is made non-blocking. 0 or -1 with errno. */
static int start(struct transport *t, const char *command)
{
	char *argv[] = { (char *)"/bin/sh", (char *)"-c", (char *)command, NULL };
	struct exec *x = t->priv;
	int fd;

	if (child_start(&x->child, argv, -1, &fd, &x->end_fd))
		return -1;
	fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
	t->rfd = t->wfd = fd;
	t->rkind = t->wkind = IO_SOCKET;
	t->two_way = true;
	return 0;
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
	t->priv = x;
	if (start(t, uri->path) == 0)
		return t;
	err_sys(err, ST_CONNECT, errno, "cannot start %s", uri->text);
	free(x);
	io_free(t);
	return NULL;
}
