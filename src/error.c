// SPDX-License-Identifier: GPL-2.0-or-later
#include "error.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const struct status_info status_table[] = {
	{ ST_OK, "ok", "done; the destination is durable" },
	{ ST_USAGE, "usage", "unknown option, name or value" },
	{ ST_PROTOCOL, "protocol", "the peer speaks another protocol or version" },
	{ ST_UNSUPPORTED, "unsupported",
	  "unsupported, incompatible or conflicting here: the check, the kernel, the image, its "
	  "file system" },
	{ ST_REFUSED, "refused", "the peer refused, or authentication failed" },
	{ ST_SOCKET, "socket", "socket error or end of stream in the middle" },
	{ ST_FILE, "file", "file error" },
	{ ST_DATA, "data", "bytes that came and are wrong (and a file or stdin that ends early)" },
	{ ST_DIGEST, "digest", "the digest differs" },
	{ ST_SANDBOX, "sandbox", "the part that reads the peer was stopped by its sandbox" },
	{ ST_CANCELLED, "cancelled",
	  "cancelled (SIGINT, SIGTERM); the source still owns the guest" },
	{ ST_NOMEM, "out-of-memory", "out of memory" },
	{ ST_TIMEOUT, "timeout", "--timeout: nothing moved either way" },
	{ ST_CONNECT, "connect", "could not connect" },
	{ ST_CONVERGE, "no-convergence", "did not converge; the source still owns the guest" },
	{ ST_LOST, "lost", "lost at or after switchover; `owner` says who may run the guest" },
	{ ST_COMMAND, "command", "COMMAND ended before its memory was complete" },
	{ ST_NO_REMOTE, "no-remote", "the far side has no migtool" },
	{ ST_OK, NULL, NULL },
};

const struct status_info *status_info(enum status status)
{
	for (const struct status_info *s = status_table; s->code; s++)
		if (s->status == status)
			return s;
	abort();
}

static int set(struct error *err, enum status status, int errnum, const char *fmt, va_list ap)
	__attribute__((format(printf, 4, 0)));

static int set(struct error *err, enum status status, int errnum, const char *fmt, va_list ap)
{
	int n;

	err->status = status;
	err->sys = errnum;
	err->hint[0] = '\0';
	n = vsnprintf(err->msg, sizeof(err->msg), fmt, ap);
	if (errnum && n >= 0 && (size_t)n < sizeof(err->msg))
		snprintf(err->msg + n, sizeof(err->msg) - (size_t)n, ": %s", strerror(errnum));
	return -1;
}

int err_set(struct error *err, enum status status, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	set(err, status, 0, fmt, ap);
	va_end(ap);
	return -1;
}

int err_sys(struct error *err, enum status status, int errnum, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	set(err, status, errnum, fmt, ap);
	va_end(ap);
	return -1;
}

/* As much of `text` as there is room for. */
static void append(char *buf, size_t cap, const char *text)
{
	size_t used = strlen(buf), n = strlen(text);

	if (n > cap - 1 - used)
		n = cap - 1 - used;
	memcpy(buf + used, text, n);
	buf[used + n] = '\0';
}

int err_prefix(struct error *err, const char *fmt, ...)
{
	char old[sizeof(err->msg)];
	va_list ap;

	memcpy(old, err->msg, sizeof(old));
	va_start(ap, fmt);
	vsnprintf(err->msg, sizeof(err->msg), fmt, ap);
	va_end(ap);
	append(err->msg, sizeof(err->msg), ": ");
	append(err->msg, sizeof(err->msg), old);
	return -1;
}

int err_hint(struct error *err, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(err->hint, sizeof(err->hint), fmt, ap);
	va_end(ap);
	return -1;
}

void err_clear(struct error *err)
{
	err->status = ST_OK;
	err->sys = 0;
	err->msg[0] = err->hint[0] = '\0';
}
