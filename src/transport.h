/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A byte channel to the other end. One small interface, one file per kind behind it.
 *
 * A transport allows one reader and one writer thread at the same time. Every wait also waits for
 * the session's cancel token, so firing that token ends every call in progress with the token's
 * reason; transport_abort() does the same to one transport alone.
 *
 * All descriptors are non-blocking: an operation is tried first and polled for only when it would
 * block, so the fast path is one system call.
 */
#ifndef MIGTOOL_TRANSPORT_H
#define MIGTOOL_TRANSPORT_H

#include "cancel.h"
#include "uri.h"

#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

struct transport;

struct transport_ops {
	const char *scheme;
	/* > 0: bytes, 0: end of stream, -1: error (ST_SOCKET, ST_FILE or the cancel's reason) */
	ssize_t (*read)(struct transport *t, void *buf, size_t len, struct error *err);
	/* > 0: bytes taken, maybe fewer than given; -1: error. `iov` is not changed */
	ssize_t (*writev)(struct transport *t, const struct iovec *iov, int n, struct error *err);
	/* The peer reads end of stream after what was written. Idempotent */
	int (*shutdown_write)(struct transport *t, struct error *err);
	/*
	 * Ends it and frees t. 0, or -1 if the end is an error of its own (exec: the command's
	 * status; file: a late write error). Nobody else may use t any more.
	 */
	int (*close)(struct transport *t, struct error *err);
};

struct transport {
	const struct transport_ops *ops;
	struct cancel *cancel; /* not owned */
	char name[128];	       /* for messages: "tcp:10.0.0.1:4444" (the peer's address) */
	bool two_way;	       /* the peer can answer */
	int rfd, wfd;	       /* may be equal; -1: that direction does not exist */
	atomic_bool aborted;
	void *priv;
};

static inline ssize_t transport_read(struct transport *t, void *buf, size_t len, struct error *err)
{
	return t->ops->read(t, buf, len, err);
}

static inline ssize_t transport_writev(struct transport *t, const struct iovec *iov, int n,
				       struct error *err)
{
	return t->ops->writev(t, iov, n, err);
}

static inline int transport_shutdown_write(struct transport *t, struct error *err)
{
	return t->ops->shutdown_write(t, err);
}

/* NULL is accepted. */
int transport_close(struct transport *t, struct error *err);

/* Callable from any thread, more than once: calls in progress and later ones fail (ST_SOCKET). */
void transport_abort(struct transport *t);

/* The raw descriptor to write to or read from, for splice, sendfile, MSG_ZEROCOPY; else -1. */
int transport_raw_wfd(const struct transport *t);

/* Bytes that can be read now without taking them away (MSG_PEEK); -1 where that is impossible. */
ssize_t transport_peek(struct transport *t, void *buf, size_t len, struct error *err);

/*
 * Dials. `timeout_ms` bounds connecting (-1: no limit); ST_CONNECT names the address and the side.
 * exec starts the command, file creates (send) or opens (recv) it, stdio takes descriptors 0 and 1.
 * `writer`: this side sends the memory (decides file's direction and what a one-way pipe can do).
 */
struct transport *transport_dial(const struct uri *uri, bool writer, int timeout_ms,
				 struct cancel *cancel, struct error *err);

/*
 * Listening, on tcp, unix, vsock, and a listening fd. listener_uri is what the other side dials,
 * with the real port. accept gives one connection, NULL with err->status ST_OK when `timeout_ms`
 * is over.
 */
struct listener;

struct listener *listener_open(const struct uri *uri, struct cancel *cancel, struct error *err);
const char *listener_uri(const struct listener *l);
int listener_fd(const struct listener *l);
struct transport *listener_accept(struct listener *l, int timeout_ms, struct error *err);
void listener_close(struct listener *l); /* removes a unix socket's file; NULL is accepted */

/* Wraps a connected descriptor (taken over). For tests, and for fd: */
struct transport *transport_from_fd(int rfd, int wfd, const char *name, struct cancel *cancel,
				    struct error *err);

#endif
