// SPDX-License-Identifier: GPL-2.0-or-later
#include "transport-io.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

const struct transport_ops unix_ops = {
	.scheme = "unix",
	.read = io_read,
	.writev = io_writev,
	.sendfile = io_sendfile,
	.shutdown_write = io_shutdown_write,
	.close = io_close,
};

int unix_address(const char *path, struct broker_addr *out, struct error *err)
{
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	size_t len = strlen(path);

	if (len >= sizeof(un.sun_path))
		return err_set(err, ST_USAGE,
			       "the socket path \"%s\" has %zu bytes, at most %zu fit", path, len,
			       sizeof(un.sun_path) - 1);
	memcpy(un.sun_path, path, len + 1);
	memcpy(&out->sa, &un, sizeof(un));
	out->len = sizeof(un);
	return 0;
}

struct transport *unix_dial(const struct uri *uri, bool writer, int timeout_ms,
			    struct cancel *cancel, struct error *err)
{
	struct broker_addr addr;
	int fd;

	if (unix_address(uri->path, &addr, err))
		return NULL;
	fd = io_connect((struct sockaddr *)&addr.sa, addr.len, uri->text, writer,
			io_deadline(timeout_ms), cancel, err);
	return fd < 0 ? NULL : io_new_socket(&unix_ops, uri->text, fd, cancel, err);
}

/*
 * A socket file stays behind when its owner is killed; a connection attempt tells that from a
 * listener that lives. True: the file was such a left-over and is gone now.
 */
static bool remove_stale(const char *path, const struct broker_addr *addr)
{
	struct stat st, again;
	int fd;

	if (broker_stat(path, false, &st) || !S_ISSOCK(st.st_mode))
		return false;
	fd = broker_socket_connect((const struct sockaddr *)&addr->sa, addr->len);
	if (fd >= 0) {
		close(fd);
		return false;
	}
	if (errno != ECONNREFUSED)
		return false;
	if (broker_stat(path, false, &again) || again.st_dev != st.st_dev ||
	    again.st_ino != st.st_ino)
		return false;
	return broker_unlink(path) == 0;
}

int unix_listen(const struct uri *uri, char *text, size_t len, struct error *err)
{
	struct broker_addr addr;
	const struct sockaddr *sa = (struct sockaddr *)&addr.sa;
	int fd;

	if (unix_address(uri->path, &addr, err))
		return -1;
	fd = broker_socket_listen(sa, addr.len, SOMAXCONN);
	if (fd < 0 && errno == EADDRINUSE) {
		if (remove_stale(uri->path, &addr))
			fd = broker_socket_listen(sa, addr.len, SOMAXCONN);
		else
			errno = EADDRINUSE;
	}
	if (fd >= 0) {
		snprintf(text, len, "%s", uri->text);
		return fd;
	}
	err_sys(err, ST_SOCKET, errno, "cannot listen on %s", uri->text);
	if (err->sys == EADDRINUSE)
		err_hint(err, "another process listens there, or the file is no socket");
	return -1;
}
