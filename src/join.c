// SPDX-License-Identifier: GPL-2.0-or-later
#include "join.h"

#include "log.h"
#include "transport-io.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define SILENCE_MS 10000 /* how long the other end of a connection may say nothing */
#define MESSAGE_MS 1000	 /* between a process of our own user's and its message */
#define NFDS	   2

static void name_of(const char *id, char name[64])
{
	snprintf(name, 64, "migtool-join-%.32s", id);
}

/* 0, or -1 with the reason: the other end is a process of another user. */
static int check_user(int fd, struct error *err)
{
	struct ucred peer;
	socklen_t len = sizeof(peer);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len))
		return err_sys(err, ST_SOCKET, errno, "cannot see who is at a join socket");
	if (peer.uid == geteuid())
		return 0;
	return err_set(err, ST_REFUSED,
		       "process %ld at a join socket belongs to user %ld, expected %ld",
		       (long)peer.pid, (long)peer.uid, (long)geteuid());
}

/* ---- the one process that moves the image ---- */

int join_listen(char id[33], struct error *err)
{
	uint8_t random[16];
	char name[64];
	int fd;

	if (getrandom(random, sizeof(random), 0) != (ssize_t)sizeof(random))
		return err_sys(err, ST_UNSUPPORTED, errno, "no random name for a join socket");
	for (size_t i = 0; i < sizeof(random); i++)
		snprintf(id + 2 * i, 3, "%02x", random[i]);
	name_of(id, name);
	fd = broker_local_listen(name);
	if (fd < 0)
		return err_sys(err, ST_SOCKET, errno, "cannot make a join socket");
	return fd;
}

/* A joined connection: descriptors from elsewhere, and what was read from them already. */
struct joined {
	int held; /* the process that handed it over waits until this is closed */
	uint8_t first[JOIN_FIRST];
	size_t at; /* how much of it was read again */
};

static ssize_t joined_read(struct transport *t, void *buf, size_t len, struct error *err)
{
	struct joined *j = t->priv;
	size_t left = sizeof(j->first) - j->at;

	if (!left)
		return io_read(t, buf, len, err);
	if (io_stopped(t, err))
		return -1;
	if (len > left)
		len = left;
	memcpy(buf, j->first + j->at, len);
	j->at += len;
	return (ssize_t)len;
}

static ssize_t joined_peek(struct transport *t, void *buf, size_t len, struct error *err)
{
	struct joined *j = t->priv;
	size_t left = sizeof(j->first) - j->at;

	if (io_stopped(t, err))
		return -1;
	if (len > left)
		len = left;
	memcpy(buf, j->first + j->at, len);
	return (ssize_t)len;
}

static int joined_close(struct transport *t, struct error *err)
{
	struct joined *j = t->priv;

	(void)err;
	io_free(t);
	close(j->held);
	free(j);
	return 0;
}

static const struct transport_ops joined_ops = {
	.scheme = "join",
	.read = joined_read,
	.writev = io_writev,
	.sendfile = io_sendfile,
	.peek = joined_peek,
	.shutdown_write = io_shutdown_write,
	.close = joined_close,
};

static enum io_kind kind_of(int fd)
{
	struct stat st;

	if (fstat(fd, &st))
		return IO_POLLED;
	return S_ISSOCK(st.st_mode) ? IO_SOCKET : S_ISFIFO(st.st_mode) ? IO_SHARED : IO_POLLED;
}

static void close_all(const int *fds, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		close(fds[i]);
}

/* One message: the first packet and two descriptors. -1: it is something else; nothing is open. */
static int receive(int fd, uint8_t first[JOIN_FIRST], int fds[NFDS])
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(NFDS * sizeof(int))];
	} control;
	struct iovec iov = { first, JOIN_FIRST };
	struct msghdr msg = { .msg_iov = &iov,
			      .msg_iovlen = 1,
			      .msg_control = control.bytes,
			      .msg_controllen = sizeof(control.bytes) };
	ssize_t n = recvmsg(fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	struct cmsghdr *c = n < 0 ? NULL : CMSG_FIRSTHDR(&msg);
	unsigned got = 0;

	if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS) {
		got = (unsigned)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
		memcpy(fds, CMSG_DATA(c), got * sizeof(int));
	}
	if (n == JOIN_FIRST && got == NFDS && !(msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC)))
		return 0;
	close_all(fds, got);
	return -1;
}

static struct transport *wrap(int held, const int fds[NFDS], const uint8_t first[JOIN_FIRST],
			      struct cancel *cancel, struct error *err)
{
	struct transport *t = io_new(&joined_ops, "the other end (joined)", cancel, err);
	struct joined *j = calloc(1, sizeof(*j));

	if (!t || !j) {
		if (t) {
			err_set(err, ST_NOMEM, "no memory for a joined connection");
			io_free(t);
		}
		free(j);
		close_all(fds, NFDS);
		close(held);
		return NULL;
	}
	j->held = held;
	memcpy(j->first, first, JOIN_FIRST);
	t->priv = j;
	t->inherited = true; /* the process that handed them over has them open, too */
	t->two_way = true;
	t->rfd = fds[0];
	t->wfd = fds[1];
	t->rkind = kind_of(fds[0]);
	t->wkind = kind_of(fds[1]);
	return t;
}

struct transport *join_take(int fd, struct cancel *cancel, struct error *err)
{
	uint8_t first[JOIN_FIRST];
	int fds[NFDS], rc;

	if (check_user(fd, err)) {
		log_warn("dropped a connection: %s", err->msg);
		close(fd);
		err_clear(err);
		return NULL;
	}
	rc = cancel_wait(cancel, fd, POLLIN, MESSAGE_MS, err);
	if (rc < 0) {
		close(fd);
		return NULL;
	}
	if (rc == 0 || receive(fd, first, fds)) {
		log_warn("dropped a connection to the join socket: it %s",
			 rc ? "handed over something else than a channel" : "said nothing");
		close(fd);
		err_clear(err);
		return NULL;
	}
	return wrap(fd, fds, first, cancel, err);
}

/* ---- the process of a further connection ---- */

static int read_first(uint8_t first[JOIN_FIRST], struct error *err)
{
	int64_t deadline = io_deadline(SILENCE_MS);
	size_t n = 0;

	while (n < JOIN_FIRST) {
		struct pollfd p = { .fd = STDIN_FILENO, .events = POLLIN };
		ssize_t got;
		int rc = poll(&p, 1, io_left_ms(deadline));

		if (rc == 0)
			return err_set(err, ST_TIMEOUT, "stdin said %zu of %d bytes in %d s", n,
				       JOIN_FIRST, SILENCE_MS / 1000);
		got = rc < 0 ? -1 : read(STDIN_FILENO, first + n, JOIN_FIRST - n);
		if (got == 0)
			return err_set(err, ST_SOCKET, "stdin ended after %zu bytes", n);
		if (got < 0 && errno != EINTR && errno != EAGAIN)
			return err_sys(err, ST_SOCKET, errno, "cannot read stdin");
		n += got > 0 ? (size_t)got : 0;
	}
	return 0;
}

static int send_all(int fd, const uint8_t first[JOIN_FIRST], struct error *err)
{
	static const int fds[NFDS] = { STDIN_FILENO, STDOUT_FILENO };
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(NFDS * sizeof(int))];
	} control = { 0 };
	struct iovec iov = { (void *)first, JOIN_FIRST };
	struct msghdr msg = { .msg_iov = &iov,
			      .msg_iovlen = 1,
			      .msg_control = control.bytes,
			      .msg_controllen = sizeof(control.bytes) };
	struct cmsghdr *c = CMSG_FIRSTHDR(&msg);

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(fds));
	memcpy(CMSG_DATA(c), fds, sizeof(fds));
	if (sendmsg(fd, &msg, MSG_NOSIGNAL) == JOIN_FIRST)
		return 0;
	return err_sys(err, ST_SOCKET, errno, "cannot hand the connection over");
}

/* Ours are closed, so that their end is seen when the other process closes its own. */
static void wait_until_done(int fd)
{
	char byte;
	ssize_t n;

	close(STDIN_FILENO);
	close(STDOUT_FILENO);
	do
		n = recv(fd, &byte, 1, 0);
	while (n > 0 || (n < 0 && errno == EINTR));
}

int join_hand_over(const char *id, struct error *err)
{
	uint8_t first[JOIN_FIRST];
	char name[64];
	int fd, rc;

	if (read_first(first, err))
		return -1;
	name_of(id, name);
	fd = broker_local_connect(name);
	if (fd < 0) {
		err_sys(err, ST_SOCKET, errno, "no process here waits for connections as %.32s",
			id);
		return err->sys == ECONNREFUSED ? err_hint(err, "it may have ended meanwhile") : -1;
	}
	rc = check_user(fd, err) ? -1 : send_all(fd, first, err);
	if (!rc)
		wait_until_done(fd);
	close(fd);
	return rc;
}
