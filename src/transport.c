// SPDX-License-Identifier: GPL-2.0-or-later
#include "transport-io.h"

#include <errno.h>
#include <unistd.h>

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
	return t->wkind == IO_SOCKET && !t->inherited ? t->wfd : -1;
}

ssize_t transport_peek(struct transport *t, void *buf, size_t len, struct error *err)
{
	ssize_t n;

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
