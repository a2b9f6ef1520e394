// SPDX-License-Identifier: GPL-2.0-or-later
#include "congestion.h"
#include "join.h"
#include "transport-io.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct listener {
	struct cancel *cancel; /* not owned */
	int fd;
	bool joins;    /* what comes brings its descriptors */
	bool prepared; /* by congestion_prepare(), which a socket of somebody else's is not */
	char *uri;     /* what the other side dials */
	char *path;    /* unix: the file that is ours to remove, else NULL */
	dev_t dev;     /* which file it was */
	ino_t ino;
};

static io_listen *const listens[SCHEME__MAX] = {
	[SCHEME_TCP] = tcp_listen,
	[SCHEME_UNIX] = unix_listen,
	[SCHEME_VSOCK] = vsock_listen,
	[SCHEME_FD] = fd_listen,
};

bool listener_possible(const struct uri *uri)
{
	return uri->scheme == SCHEME_TCP || uri->scheme == SCHEME_UNIX ||
	       uri->scheme == SCHEME_VSOCK ||
	       (uri->scheme == SCHEME_FD && fd_is_listening(uri->fd));
}

static int open_socket(struct listener *l, const struct uri *uri, size_t len, struct error *err)
{
	io_listen *listen_on = listens[uri->scheme];

	if (!listen_on)
		return err_set(err, ST_USAGE, "cannot listen on %s: only on tcp, unix and vsock",
			       uri->text);
	l->fd = listen_on(uri, l->uri, len, err);
	l->prepared = uri->scheme == SCHEME_TCP;
	return l->fd < 0 ? -1 : 0;
}

/* The socket's own inode is another one: the file's is remembered. */
static void remember_file(struct listener *l, const char *path)
{
	struct stat st;

	if (!broker_stat(path, false, &st)) {
		l->path = strdup(path);
		l->dev = st.st_dev;
		l->ino = st.st_ino;
	}
}

struct listener *listener_open(const struct uri *uri, struct cancel *cancel, struct error *err)
{
	size_t len = strlen(uri->text) + 128;
	struct listener *l = calloc(1, sizeof(*l));
	char *text = malloc(len);

	if (!l || !text) {
		err_set(err, ST_NOMEM, "out of memory for listening on %s", uri->text);
		free(l);
		free(text);
		return NULL;
	}
	l->cancel = cancel;
	l->uri = text;
	l->fd = -1;
	if (open_socket(l, uri, len, err)) {
		listener_close(l);
		return NULL;
	}
	if (uri->scheme == SCHEME_UNIX)
		remember_file(l, uri->path);
	return l;
}

struct listener *listener_open_joins(char id[33], struct cancel *cancel, struct error *err)
{
	struct listener *l = calloc(1, sizeof(*l));

	if (!l || !(l->uri = strdup("the far host's join socket"))) {
		err_set(err, ST_NOMEM, "out of memory for a listener");
		free(l);
		return NULL;
	}
	l->cancel = cancel;
	l->joins = true;
	l->fd = join_listen(id, err);
	if (l->fd >= 0)
		return l;
	listener_close(l);
	return NULL;
}

const char *listener_uri(const struct listener *l)
{
	return l->uri;
}

int listener_fd(const struct listener *l)
{
	return l->fd;
}

static struct transport *accepted(struct listener *l, int fd, const struct sockaddr_storage *sa,
				  struct error *err)
{
	const struct transport_ops *ops = &unix_ops;
	char name[128];
	struct ucred peer;
	socklen_t len = sizeof(peer);

	if (sa->ss_family == AF_INET || sa->ss_family == AF_INET6) {
		tcp_tune(fd);
		if (l->prepared)
			congestion_settle(fd);
		tcp_name(sa, name, sizeof(name));
		ops = &tcp_ops;
	} else if (sa->ss_family == AF_VSOCK) {
		vsock_name(sa, name, sizeof(name));
		ops = &vsock_ops;
	} else if (!getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) && peer.pid > 0) {
		snprintf(name, sizeof(name), "%.100s (process %ld)", l->uri, (long)peer.pid);
	} else {
		snprintf(name, sizeof(name), "%.120s", l->uri);
	}
	return io_new_socket(ops, name, fd, l->cancel, err);
}

/* Errors of a connection that ended before it was accepted, not of the listener. */
static bool not_ours(int e)
{
	return e == EAGAIN || e == ECONNABORTED || e == EPROTO || e == ENETDOWN || e == ENONET ||
	       e == EHOSTDOWN || e == EHOSTUNREACH || e == ENETUNREACH || e == ENOPROTOOPT;
}

struct transport *listener_accept(struct listener *l, int timeout_ms, struct error *err)
{
	int64_t deadline = io_deadline(timeout_ms);

	for (;;) {
		struct sockaddr_storage sa;
		socklen_t len;
		int fd, rc = cancel_wait(l->cancel, l->fd, POLLIN, io_left_ms(deadline), err);

		if (rc < 0)
			return NULL;
		if (rc == 0) {
			err_clear(err);
			return NULL;
		}
		memset(&sa, 0, sizeof(sa));
		fd = broker_accept(l->fd, &sa, &len);
		if (fd >= 0 && l->joins) {
			struct transport *t = join_take(fd, l->cancel, err);

			/* a stranger was dropped with a warning: the next one, please */
			if (t || err->status != ST_OK)
				return t;
			continue;
		}
		if (fd >= 0)
			return accepted(l, fd, &sa, err);
		if (!not_ours(errno)) {
			err_sys(err, ST_SOCKET, errno, "cannot accept on %s", l->uri);
			return NULL;
		}
	}
}

void listener_close(struct listener *l)
{
	struct stat st;

	if (!l)
		return;
	if (l->path && !broker_stat(l->path, false, &st) && st.st_dev == l->dev &&
	    st.st_ino == l->ino)
		broker_unlink(l->path);
	if (l->fd >= 0)
		broker_listener_close(l->fd);
	free(l->path);
	free(l->uri);
	free(l);
}
