// SPDX-License-Identifier: GPL-2.0-or-later
/* Descriptors that exist already: inherited as fd:N, or made by a test. */
#include "transport-io.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

const struct transport_ops fd_ops = {
	.scheme = "fd",
	.read = io_read,
	.writev = io_writev,
	.sendfile = io_sendfile,
	.shutdown_write = io_shutdown_write,
	.close = io_close,
};

bool fd_is_listening(int fd)
{
	int on = 0;
	socklen_t len = sizeof(on);

	return !getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &on, &len) && on;
}

/* What the service manager's variables say about a descriptor that is not there. */
static void hint_listen_fds(int fd, struct error *err)
{
	const char *pid = getenv("LISTEN_PID"), *fds = getenv("LISTEN_FDS");

	if (!pid || !fds)
		err_hint(err, "the shell passes a file as descriptor %d by %d<>FILE", fd, fd);
	else if (strtol(pid, NULL, 10) != (long)getpid())
		err_hint(err, "LISTEN_FDS is meant for process %s, this is process %ld", pid,
			 (long)getpid());
	else
		err_hint(err, "LISTEN_FDS=%s passes that many descriptors, from 3 on", fds);
}

static int check_inherited(const struct uri *uri, struct error *err)
{
	int flags = fcntl(uri->fd, F_GETFD);

	/*
	 * Our own descriptors are all close-on-exec, an inherited one cannot be: else a missing
	 * fd:3 would be whatever we opened first.
	 */
	if (flags >= 0 && !(flags & FD_CLOEXEC))
		return 0;
	err_set(err, ST_USAGE, "%s: descriptor %d was not passed to this process", uri->text,
		uri->fd);
	hint_listen_fds(uri->fd, err);
	return -1;
}

static int check_socket(const struct uri *uri, struct error *err)
{
	struct sockaddr_storage sa;
	socklen_t len = sizeof(int);
	int type = 0;

	if (fd_is_listening(uri->fd)) {
		err_set(err, ST_USAGE, "%s is a listening socket, not a connection", uri->text);
		return err_hint(err, "`migtool recv` accepts on it, `migtool send` with --listen");
	}
	if (getsockopt(uri->fd, SOL_SOCKET, SO_TYPE, &type, &len) || type != SOCK_STREAM)
		return err_set(err, ST_USAGE, "%s is a socket, but no stream socket", uri->text);
	len = sizeof(sa);
	if (getpeername(uri->fd, (struct sockaddr *)&sa, &len))
		return err_sys(err, ST_USAGE, errno, "%s is a socket that is not connected",
			       uri->text);
	return 0;
}

static int check_direction(const struct uri *uri, bool writer, struct error *err)
{
	int mode = fcntl(uri->fd, F_GETFL) & O_ACCMODE;

	if (mode == O_RDWR || mode == (writer ? O_WRONLY : O_RDONLY))
		return 0;
	return err_set(err, ST_USAGE, "%s is open for %s only, and this side %s", uri->text,
		       writer ? "reading" : "writing",
		       writer ? "sends the memory" : "receives the memory");
}

/* How to move bytes through an inherited descriptor that is no socket. */
static enum io_kind kind_of(mode_t mode)
{
	if (S_ISREG(mode) || S_ISBLK(mode))
		return IO_FILE;
	return S_ISFIFO(mode) ? IO_SHARED : IO_POLLED;
}

struct transport *fd_dial(const struct uri *uri, bool writer, int timeout_ms, struct cancel *cancel,
			  struct error *err)
{
	struct transport *t;
	struct stat st;

	(void)timeout_ms;
	if (check_inherited(uri, err))
		return NULL;
	if (fstat(uri->fd, &st) || S_ISDIR(st.st_mode)) {
		err_set(err, ST_USAGE, "%s is no socket, pipe or file", uri->text);
		return NULL;
	}
	if (S_ISSOCK(st.st_mode) ? check_socket(uri, err) : check_direction(uri, writer, err))
		return NULL;
	t = io_new(&fd_ops, uri->text, cancel, err);
	if (!t)
		return NULL;
	t->inherited = true;
	fcntl(uri->fd, F_SETFD, FD_CLOEXEC);
	if (S_ISSOCK(st.st_mode)) {
		tcp_tune(uri->fd); /* says no to other families, which does no harm */
		t->rfd = t->wfd = uri->fd;
		t->rkind = t->wkind = IO_SOCKET;
		t->two_way = true;
	} else if (writer) {
		t->wfd = uri->fd;
		t->wkind = kind_of(st.st_mode);
	} else {
		t->rfd = uri->fd;
		t->rkind = kind_of(st.st_mode);
		t->end_status = t->rkind == IO_FILE ? ST_DATA : ST_SOCKET;
	}
	return t;
}

/* The URI of a socket that somebody else bound. */
static void bound_uri(int fd, char *out, size_t len)
{
	struct sockaddr_storage sa = { 0 };
	struct sockaddr_un un = { 0 };
	socklen_t salen = sizeof(sa);

	if (getsockname(fd, (struct sockaddr *)&sa, &salen))
		return;
	if (sa.ss_family == AF_INET || sa.ss_family == AF_INET6)
		tcp_name(&sa, out, len);
	if (sa.ss_family == AF_VSOCK)
		vsock_name(&sa, out, len);
	if (sa.ss_family == AF_UNIX) {
		memcpy(&un, &sa, salen < sizeof(un) ? salen : sizeof(un));
		if (un.sun_path[0]) /* else it has no file */
			snprintf(out, len, "unix:%.*s", (int)sizeof(un.sun_path), un.sun_path);
	}
}

int fd_listen(const struct uri *uri, char *text, size_t len, struct error *err)
{
	if (check_inherited(uri, err))
		return -1;
	if (!fd_is_listening(uri->fd))
		return err_set(err, ST_USAGE, "%s is no listening socket", uri->text);
	fcntl(uri->fd, F_SETFD, FD_CLOEXEC);
	snprintf(text, len, "%s", uri->text);
	bound_uri(uri->fd, text, len);
	return uri->fd;
}

static int adopt(int fd, enum io_kind *kind, struct error *err)
{
	struct stat st;

	if (fd < 0)
		return 0;
	if (fstat(fd, &st) || fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK))
		return err_sys(err, ST_SOCKET, errno, "cannot use descriptor %d", fd);
	fcntl(fd, F_SETFD, FD_CLOEXEC);
	*kind = S_ISSOCK(st.st_mode)			     ? IO_SOCKET
		: S_ISREG(st.st_mode) || S_ISBLK(st.st_mode) ? IO_FILE
							     : IO_NONBLOCK;
	return 0;
}

struct transport *transport_from_fd(int rfd, int wfd, const char *name, struct cancel *cancel,
				    struct error *err)
{
	struct transport *t = io_new(&fd_ops, name, cancel, err);

	if (t && !adopt(rfd, &t->rkind, err) && !adopt(wfd, &t->wkind, err)) {
		t->rfd = rfd;
		t->wfd = wfd;
		t->two_way = rfd >= 0 && wfd >= 0;
		return t;
	}
	if (t)
		io_free(t);
	if (rfd >= 0)
		close(rfd);
	if (wfd >= 0 && wfd != rfd)
		close(wfd);
	return NULL;
}
