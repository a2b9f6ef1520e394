// SPDX-License-Identifier: GPL-2.0-or-later
#include "transport-io.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#define LAST_WORDS_MS 1000

static io_dial *const dialers[SCHEME__MAX] = {
	[SCHEME_TCP] = tcp_dial,     [SCHEME_UNIX] = unix_dial, [SCHEME_VSOCK] = vsock_dial,
	[SCHEME_FD] = fd_dial,	     [SCHEME_EXEC] = exec_dial, [SCHEME_FILE] = file_dial,
	[SCHEME_STDIO] = stdio_dial, [SCHEME_NULL] = null_dial,
};

struct transport *transport_dial(const struct uri *uri, bool writer, int timeout_ms,
				 struct cancel *cancel, struct error *err)
{
	io_dial *dial = dialers[uri->scheme];

	if (!dial) {
		err_set(err, ST_UNSUPPORTED, "%s: %s is not built yet", uri->text,
			uri_scheme_name(uri->scheme));
		return NULL;
	}
	return dial(uri, writer, timeout_ms, cancel, err);
}

int transport_close(struct transport *t, struct error *err)
{
	return t ? t->ops->close(t, err) : 0;
}

void transport_abort(struct transport *t)
{
	uint64_t one = 1;

	atomic_store(&t->aborted, true);
	while (write(t->abort_fd, &one, sizeof(one)) < 0 && errno == EINTR)
		;
}

int transport_raw_wfd(const struct transport *t)
{
	return t->wkind == IO_SOCKET && !t->inherited && !t->patient ? t->wfd : -1;
}

void transport_unread(struct transport *t, uint8_t *bytes, size_t len)
{
	t->unread = bytes;
	t->unread_at = 0;
	t->unread_end = len;
}

static size_t copy_unread(const struct transport *t, void *buf, size_t len)
{
	size_t n = t->unread_end - t->unread_at;

	if (n > len)
		n = len;
	memcpy(buf, t->unread + t->unread_at, n);
	return n;
}

ssize_t transport_read_unread(struct transport *t, void *buf, size_t len)
{
	size_t n = copy_unread(t, buf, len);

	t->unread_at += n;
	return (ssize_t)n;
}

ssize_t transport_peek(struct transport *t, void *buf, size_t len, struct error *err)
{
	ssize_t n;

	if (t->unread_at < t->unread_end)
		return (ssize_t)copy_unread(t, buf, len);
	if (t->ops->peek)
		return t->ops->peek(t, buf, len, err);
	if (t->rkind != IO_SOCKET)
		return err_set(err, ST_UNSUPPORTED, "%s cannot be peeked at", t->name);
	if (io_stopped(t, err))
		return -1;
	do
		n = recv(t->rfd, buf, len, MSG_PEEK | MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	if (n > 0)
		return n;
	if (n < 0 && errno == EAGAIN)
		return 0;
	if (n < 0)
		return io_failed(t, true, errno, err);
	return err_set(err, ST_SOCKET, "the connection to %s ended", t->name);
}

int transport_poll_in(struct transport *t, int timeout_ms, struct error *err)
{
	if (t->unread_at < t->unread_end)
		return 1;
	if (t->ops->poll_in)
		return t->ops->poll_in(t, timeout_ms, err);
	return io_poll_in(t, timeout_ms, err);
}

static void write_last(struct transport *t, const char *p, size_t len)
{
	int64_t deadline = io_deadline(LAST_WORDS_MS);

	while (len > 0) {
		struct iovec iov = { (void *)p, len };
		struct pollfd w = { .fd = t->wfd, .events = POLLOUT };
		ssize_t n = io_try_writev(t, &iov, 1, false);

		if (n <= 0 && (errno != EAGAIN || poll(&w, 1, io_left_ms(deadline)) <= 0))
			return;
		if (n <= 0)
			continue;
		p += n;
		len -= (size_t)n;
	}
}

/* By the clock: a peer that goes on sending makes each wait a short one. */
static void drain_briefly(int fd)
{
	int64_t deadline = io_deadline(LAST_WORDS_MS);
	char rest[4096];
	struct pollfd p = { .fd = fd, .events = POLLIN };
	ssize_t n = 1;
	int left;

	while ((left = io_left_ms(deadline)) > 0 &&
	       (n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR))))
		if (poll(&p, 1, left) > 0)
			n = read(fd, rest, sizeof(rest));
}

void transport_last_words(struct transport *t, const void *buf, size_t len)
{
	if (t->wfd < 0 || !t->two_way)
		return;
	if (t->ops->last_words)
		t->ops->last_words(t, buf, len);
	else
		write_last(t, buf, len);
	shutdown(t->wfd, SHUT_WR);
	drain_briefly(t->rfd);
}
