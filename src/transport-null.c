// SPDX-License-Identifier: GPL-2.0-or-later
/* Takes everything and keeps nothing: what the sender alone can do. */
#include "transport-io.h"

static ssize_t null_read(struct transport *t, void *buf, size_t len, struct error *err)
{
	(void)buf;
	(void)len;
	return err_set(err, ST_UNSUPPORTED, "nothing can be read from %s", t->name);
}

static ssize_t null_writev(struct transport *t, const struct iovec *iov, int n, bool more,
			   struct error *err)
{
	size_t sum = 0;

	(void)more;
	if (io_stopped(t, err))
		return -1;
	for (int i = 0; i < n; i++)
		sum += iov[i].iov_len;
	return (ssize_t)sum;
}

/* There is no sendfile: a sink that spared the sender reading the file would flatter it. */
static const struct transport_ops null_ops = {
	.scheme = "null",
	.read = null_read,
	.writev = null_writev,
	.shutdown_write = io_shutdown_write,
	.close = io_close,
};

struct transport *null_dial(const struct uri *uri, bool writer, int timeout_ms,
			    struct cancel *cancel, struct error *err)
{
	(void)timeout_ms;
	if (!writer) {
		err_set(err, ST_USAGE, "%s only takes: nothing can be received from it", uri->text);
		return NULL;
	}
	return io_new(&null_ops, uri->text, cancel, err);
}
