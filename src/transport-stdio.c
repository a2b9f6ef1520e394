// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Descriptors 0 and 1, as a remote shell or a pipeline gives them to us. They are moved away and
 * /dev/null takes their place, so that nothing else (a COMMAND, a stray message) can get between
 * the bytes.
 */
#include "transport-io.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

static const struct transport_ops stdio_ops = {
	.scheme = "stdio",
	.read = io_read,
	.writev = io_writev,
	.sendfile = io_sendfile,
	.shutdown_write = io_shutdown_write,
	.close = io_close,
};

/* A descriptor through which a peer can be spoken with: not a terminal, /dev/null or a file. */
static bool leads_to_a_peer(int fd)
{
	struct stat st;

	if (fstat(fd, &st))
		return false;
	if (S_ISCHR(st.st_mode))
		return !isatty(fd) && st.st_rdev != makedev(1, 3);
	return S_ISFIFO(st.st_mode) || S_ISSOCK(st.st_mode);
}

static int check_main(int fd, bool writer, struct error *err)
{
	const char *what = writer ? "standard output" : "standard input";
	int flags = fcntl(fd, F_GETFL);
	struct stat st;

	if (flags < 0 || fstat(fd, &st))
		return err_sys(err, ST_USAGE, errno, "stdio: %s is not open", what);
	if (isatty(fd)) {
		err_set(err, ST_USAGE, "stdio: %s is a terminal", what);
		return err_hint(err, writer ? "pipe it into the other side's command"
					    : "pipe the other side's output into this command");
	}
	if ((flags & O_ACCMODE) == (writer ? O_RDONLY : O_WRONLY))
		return err_set(err, ST_USAGE, "stdio: %s is not open for %s", what,
			       writer ? "writing" : "reading");
	return 0;
}

/* Moves fd out of the way; the new descriptor or -1. */
static int take(int fd, enum io_kind *kind, struct error *err)
{
	int mine = fcntl(fd, F_DUPFD_CLOEXEC, 3), null;
	struct stat st;

	if (mine < 0 || fstat(mine, &st))
		return err_sys(err, ST_SOCKET, errno, "stdio: cannot take over descriptor %d", fd);
	null = broker_open("/dev/null", O_RDWR, 0);
	if (null >= 0) {
		dup2(null, fd);
		close(null);
	} else {
		close(fd);
	}
	*kind = S_ISSOCK(st.st_mode)			     ? IO_SOCKET
		: S_ISFIFO(st.st_mode)			     ? IO_SHARED
		: S_ISREG(st.st_mode) || S_ISBLK(st.st_mode) ? IO_FILE
							     : IO_POLLED;
	return mine;
}

struct transport *stdio_dial(const struct uri *uri, bool writer, int timeout_ms,
			     struct cancel *cancel, struct error *err)
{
	bool both = leads_to_a_peer(0) && leads_to_a_peer(1);
	struct transport *t;

	(void)timeout_ms;
	if (check_main(writer ? 1 : 0, writer, err))
		return NULL;
	t = io_new(&stdio_ops, uri->text, cancel, err);
	if (!t)
		return NULL;
	t->inherited = true;
	t->two_way = both;
	t->end_status = ST_DATA;
	if (both || !writer)
		t->rfd = take(0, &t->rkind, err);
	if (both || writer)
		t->wfd = take(1, &t->wkind, err);
	if (((both || !writer) && t->rfd < 0) || ((both || writer) && t->wfd < 0)) {
		io_free(t);
		return NULL;
	}
	return t;
}
