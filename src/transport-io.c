// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * One engine under all kinds of transport. A call is tried at once in a way that cannot block, and
 * only if it would have blocked we poll: for the descriptor, the session's cancel token and the
 * transport's own abort descriptor.
 *
 * Not blocking is easy for descriptors that are ours: O_NONBLOCK. It is a flag of the open file
 * description, though, and an inherited one (stdin, stdout, fd:N) is shared with whoever passed
 * it; a shell whose terminal or pipe turned non-blocking under it breaks, and a kill -9 would
 * leave it so. So flags of inherited descriptors are never touched: sockets have MSG_DONTWAIT,
 * pipes RWF_NOWAIT (since Linux 6.4), and for what is left a poll precedes every call: a read then
 * does not block, nor does a write of at most PIPE_BUF bytes.
 *
 * Where somebody waits for every answer, to find out that there is none yet, and to poll, costs
 * more than the answer: such a socket may be told to block (transport_be_patient).
 */
#include "transport-io.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/sendfile.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

/* How long a stop may have to wait for a read that blocks. */
#define PATIENCE_MS 50

struct transport *io_new(const struct transport_ops *ops, const char *name, struct cancel *cancel,
			 struct error *err)
{
	struct transport *t = calloc(1, sizeof(*t));
	int n;

	if (!t) {
		err_set(err, ST_NOMEM, "out of memory for the connection to %s", name);
		return NULL;
	}
	t->ops = ops;
	t->cancel = cancel;
	t->rfd = t->wfd = -1;
	t->end_status = ST_SOCKET;
	n = snprintf(t->name, sizeof(t->name), "%s", name);
	if (n >= (int)sizeof(t->name))
		memcpy(t->name + sizeof(t->name) - 4, "...", 4);
	t->abort_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (t->abort_fd < 0) {
		err_sys(err, ST_NOMEM, errno, "no descriptor for the connection to %s", name);
		free(t);
		return NULL;
	}
	return t;
}

struct transport *io_new_socket(const struct transport_ops *ops, const char *name, int fd,
				struct cancel *cancel, struct error *err)
{
	struct transport *t = io_new(ops, name, cancel, err);

	if (!t) {
		close(fd);
		return NULL;
	}
	t->rfd = t->wfd = fd;
	t->rkind = t->wkind = IO_SOCKET;
	t->two_way = true;
	return t;
}

void io_free(struct transport *t)
{
	if (t->rfd >= 0)
		close(t->rfd);
	if (t->wfd >= 0 && t->wfd != t->rfd)
		close(t->wfd);
	close(t->abort_fd);
	free(t->unread);
	free(t);
}

int io_close(struct transport *t, struct error *err)
{
	(void)err;
	io_free(t);
	return 0;
}

int io_stopped(struct transport *t, struct error *err)
{
	if (cancel_fired(t->cancel))
		return cancel_reason(t->cancel, err);
	if (atomic_load_explicit(&t->aborted, memory_order_relaxed))
		return err_set(err, ST_SOCKET, "the connection to %s was given up", t->name);
	return 0;
}

int io_failed(struct transport *t, bool reading, int errnum, struct error *err)
{
	enum io_kind kind = reading ? t->rkind : t->wkind;

	if (io_stopped(t, err))
		return -1;
	if (kind == IO_FILE)
		return err_sys(err, ST_FILE, errnum, "cannot %s %s", reading ? "read" : "write",
			       t->name);
	/* the last two: keepalive or the network gave up */
	if (errnum == EPIPE || errnum == ECONNRESET || errnum == ETIMEDOUT ||
	    errnum == EHOSTUNREACH)
		return err_sys(err, ST_SOCKET, errnum, "the connection to %s ended", t->name);
	return err_sys(err, ST_SOCKET, errnum, "cannot %s %s", reading ? "read from" : "write to",
		       t->name);
}

/* 1: ready, 0: the deadline is over, -1 */
static int wait_until(struct transport *t, int fd, short events, int64_t deadline,
		      struct error *err)
{
	struct pollfd p[] = { { .fd = t->cancel->fd, .events = POLLIN },
			      { .fd = t->abort_fd, .events = POLLIN },
			      { .fd = fd, .events = events } };

	for (;;) {
		int ms = io_left_ms(deadline), n;

		if (t->ops->waiting && (ms < 0 || ms > 1000))
			ms = 1000;
		n = poll(p, 3, ms);
		if (io_stopped(t, err))
			return -1;
		if (n == 0 && t->ops->waiting && t->ops->waiting(t, err))
			return -1;
		if (n == 0 && !io_left_ms(deadline))
			return 0;
		if (n > 0 && p[2].revents)
			return 1;
		if (n < 0 && errno != EINTR)
			return err_sys(err, ST_SOCKET, errno, "cannot wait for %s", t->name);
	}
}

int transport_wait(struct transport *t, int fd, short events, struct error *err)
{
	return wait_until(t, fd, events, -1, err) < 0 ? -1 : 0;
}

int io_poll_in(struct transport *t, int timeout_ms, struct error *err)
{
	return wait_until(t, t->rfd, POLLIN, io_deadline(timeout_ms), err);
}

static bool ready_now(int fd, short events)
{
	struct pollfd p = { .fd = fd, .events = events };

	return poll(&p, 1, 0) == 1;
}

static ssize_t read_once(struct transport *t, const struct iovec *iov, int count)
{
	struct msghdr msg = { .msg_iov = (struct iovec *)iov, .msg_iovlen = (size_t)count };
	int flags = t->patient ? 0 : MSG_DONTWAIT;
	ssize_t n;

	switch (t->rkind) {
	case IO_SOCKET:
		if (count == 1)
			return recv(t->rfd, iov->iov_base, iov->iov_len, flags);
		return recvmsg(t->rfd, &msg, flags);
	case IO_SHARED:
		n = preadv2(t->rfd, iov, count, -1, RWF_NOWAIT);
		if (n >= 0 || (errno != EOPNOTSUPP && errno != ENOSYS))
			return n;
		t->rkind = IO_POLLED;
		/* fall through */
	case IO_POLLED:
		if (!ready_now(t->rfd, POLLIN)) {
			errno = EAGAIN;
			return -1;
		}
		/* fall through */
	case IO_NONBLOCK:
	case IO_FILE:
		return readv(t->rfd, iov, count);
	case IO_NONE:
		break;
	}
	errno = EBADF;
	return -1;
}

ssize_t io_try_readv(struct transport *t, const struct iovec *iov, int n)
{
	ssize_t got;

	do
		got = read_once(t, iov, n);
	while (got < 0 && errno == EINTR);
	return got;
}

ssize_t io_read(struct transport *t, void *buf, size_t len, struct error *err)
{
	struct iovec iov = { buf, len };

	for (;;) {
		ssize_t n;

		if (io_stopped(t, err))
			return -1;
		n = read_once(t, &iov, 1);
		if (n > 0)
			return n;
		if (n == 0)
			return io_stopped(t, err); /* a stop explains an end better */
		if (errno == EINTR)
			continue;
		if (errno != EAGAIN)
			return io_failed(t, true, errno, err);
		if (!t->patient && transport_wait(t, t->rfd, POLLIN, err))
			return -1;
	}
}

void transport_be_patient(struct transport *t)
{
	struct timeval moment = { .tv_usec = PATIENCE_MS * 1000 };
	int flags = fcntl(t->rfd, F_GETFL);

	if (t->ops->read != io_read || t->ops->waiting || t->rkind != IO_SOCKET || t->inherited)
		return;
	/* writes say MSG_DONTWAIT themselves */
	if (flags < 0 || setsockopt(t->rfd, SOL_SOCKET, SO_RCVTIMEO, &moment, sizeof(moment)) ||
	    fcntl(t->rfd, F_SETFL, flags & ~O_NONBLOCK))
		return;
	t->patient = true;
}

static ssize_t write_polled(int fd, const struct iovec *iov, int n)
{
	struct iovec first;

	while (n > 1 && !iov->iov_len) {
		iov++;
		n--;
	}
	first = *iov;
	if (first.iov_len > PIPE_BUF)
		first.iov_len = PIPE_BUF;
	if (!ready_now(fd, POLLOUT)) {
		errno = EAGAIN;
		return -1;
	}
	return writev(fd, &first, 1);
}

static ssize_t write_once(struct transport *t, const struct iovec *iov, int n, bool more)
{
	struct msghdr msg = { .msg_iov = (struct iovec *)iov, .msg_iovlen = (size_t)n };
	ssize_t done;

	switch (t->wkind) {
	case IO_SOCKET:
		return sendmsg(t->wfd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL | (more ? MSG_MORE : 0));
	case IO_SHARED:
		done = pwritev2(t->wfd, iov, n, -1, RWF_NOWAIT);
		if (done >= 0 || (errno != EOPNOTSUPP && errno != ENOSYS))
			return done;
		t->wkind = IO_POLLED;
		/* fall through */
	case IO_POLLED:
		return write_polled(t->wfd, iov, n);
	case IO_NONBLOCK:
	case IO_FILE:
		return writev(t->wfd, iov, n);
	case IO_NONE:
		break;
	}
	errno = EBADF;
	return -1;
}

ssize_t io_try_writev(struct transport *t, const struct iovec *iov, int n, bool more)
{
	ssize_t done;

	do
		done = write_once(t, iov, n, more);
	while (done < 0 && errno == EINTR);
	return done;
}

ssize_t io_writev(struct transport *t, const struct iovec *iov, int n, bool more, struct error *err)
{
	for (;;) {
		ssize_t done;

		if (io_stopped(t, err))
			return -1;
		done = write_once(t, iov, n, more);
		if (done >= 0)
			return done;
		if (errno == EINTR)
			continue;
		if (errno != EAGAIN)
			return io_failed(t, false, errno, err);
		if (transport_wait(t, t->wfd, POLLOUT, err))
			return -1;
	}
}

bool io_drain(struct transport *t, int end_fd, int ms)
{
	int64_t deadline = io_deadline(ms);
	struct pollfd p[] = { { .fd = end_fd, .events = POLLIN },
			      { .fd = t->rfd, .events = POLLIN },
			      { .fd = t->cancel->fd, .events = POLLIN } };
	char drop[4096];

	if (cancel_fired(t->cancel))
		p[2].fd = -1;
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

static ssize_t sendfile_once(struct transport *t, int fd, uint64_t offset, size_t len)
{
	off_t off = (off_t)offset;

	switch (t->wkind) {
	case IO_SOCKET:
		/* Without O_NONBLOCK it would block, and it takes no flags. */
		if (t->inherited || t->patient)
			break;
		return sendfile(t->wfd, fd, &off, len);
	case IO_NONBLOCK:
	case IO_SHARED:
		return splice(fd, &off, t->wfd, NULL, len, SPLICE_F_NONBLOCK);
	case IO_FILE:
		return sendfile(t->wfd, fd, &off, len);
	case IO_POLLED:
	case IO_NONE:
		break;
	}
	errno = EINVAL;
	return -1;
}

ssize_t io_sendfile(struct transport *t, int fd, uint64_t offset, size_t len, struct error *err)
{
	for (;;) {
		ssize_t n;

		if (io_stopped(t, err))
			return -1;
		n = sendfile_once(t, fd, offset, len);
		if (n >= 0)
			return n;
		if (errno == EINTR)
			continue;
		if (errno == EINVAL || errno == ENOSYS || errno == EOPNOTSUPP) {
			err_sys(err, ST_UNSUPPORTED, EOPNOTSUPP, "no sendfile to %s", t->name);
			return -1;
		}
		if (errno == EIO)
			return err_sys(err, ST_FILE, errno, "cannot read what is sent to %s",
				       t->name);
		if (errno != EAGAIN)
			return io_failed(t, false, errno, err);
		if (transport_wait(t, t->wfd, POLLOUT, err))
			return -1;
	}
}

int io_shutdown_write(struct transport *t, struct error *err)
{
	if (t->wfd < 0)
		return 0;
	if (t->wkind == IO_SOCKET) {
		/* ENOTCONN: the peer closed already, which its reader knows best. */
		if (shutdown(t->wfd, SHUT_WR) && errno != ENOTCONN)
			return io_failed(t, false, errno, err);
		return 0;
	}
	if (t->wfd != t->rfd)
		close(t->wfd);
	t->wfd = -1;
	t->wkind = IO_NONE;
	return 0;
}

/* --- connecting --- */

int64_t io_now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

int64_t io_deadline(int timeout_ms)
{
	return timeout_ms < 0 ? -1 : io_now_ms() + timeout_ms;
}

int io_left_ms(int64_t deadline)
{
	int64_t left;

	if (deadline < 0)
		return -1;
	left = deadline - io_now_ms();
	return left < 0 ? 0 : left > INT_MAX ? INT_MAX : (int)left;
}

static int connect_failed(const char *name, bool writer, int errnum, struct error *err)
{
	err_sys(err, ST_CONNECT, errnum, "cannot connect to %s", name);
	if (errnum == ECONNREFUSED || errnum == ENOENT || errnum == ECONNRESET)
		err_hint(err, "is `migtool %s` listening there?",
			 writer ? "recv" : "send --listen");
	return -1;
}

static int connect_finish(int fd, int64_t deadline, struct cancel *cancel, struct error *err)
{
	int result = 0, rc;
	socklen_t len = sizeof(result);

	rc = cancel_wait(cancel, fd, POLLOUT, io_left_ms(deadline), err);
	if (rc < 0)
		return -1;
	if (rc == 0)
		return ETIMEDOUT;
	if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &result, &len))
		return errno;
	return result;
}

int io_connect(const struct sockaddr *sa, socklen_t len, const char *name, bool writer,
	       int64_t deadline, struct cancel *cancel, struct error *err)
{
	int fd, rc;

	/* A unix listener whose queue is full says EAGAIN and gives nothing to wait for. */
	while ((fd = broker_socket_connect(sa, len)) < 0 && errno == EAGAIN) {
		if (!io_left_ms(deadline))
			return connect_failed(name, writer, ETIMEDOUT, err);
		if (cancel_wait(cancel, -1, 0, 20, err))
			return -1;
	}
	if (fd < 0)
		return connect_failed(name, writer, errno, err);
	rc = connect_finish(fd, deadline, cancel, err);
	if (rc == 0)
		return fd;
	close(fd);
	return rc < 0 ? -1 : connect_failed(name, writer, rc, err);
}
