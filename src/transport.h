/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A byte channel to the other end. One small interface, one file per kind behind it.
 *
 * A transport allows one reader and one writer thread at the same time. Every wait also waits for
 * the session's cancel token, so firing that token ends every call in progress with the token's
 * reason; transport_abort() does the same to one transport alone.
 *
 * No call blocks in the kernel: an operation is tried first and polled for only when it would
 * block, so the fast path is one system call. (A regular file is the exception, as ever.)
 */
#ifndef MIGTOOL_TRANSPORT_H
#define MIGTOOL_TRANSPORT_H

#include "cancel.h"
#include "policy.h"
#include "uri.h"

#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

struct transport;

struct transport_ops {
	const char *scheme;
	/* > 0: bytes, 0: end of stream, -1: error (ST_SOCKET, ST_FILE or the cancel's reason) */
	ssize_t (*read)(struct transport *t, void *buf, size_t len, struct error *err);
	/*
	 * > 0: bytes taken, maybe fewer than given; -1: error. `iov` is not changed; n <= IOV_MAX.
	 * `more`: other bytes follow at once, so a packet need not leave yet.
	 */
	ssize_t (*writev)(struct transport *t, const struct iovec *iov, int n, bool more,
			  struct error *err);
	/*
	 * At most len bytes of the file, without a copy in user space. > 0: bytes taken, 0: the
	 * file ends at offset, -1: error; with err->sys EOPNOTSUPP these two descriptors cannot
	 * do it and nothing was taken. NULL: never possible.
	 */
	ssize_t (*sendfile)(struct transport *t, int fd, uint64_t offset, size_t len,
			    struct error *err);
	/* Called once a second while something waits for t; -1 ends the wait. NULL: nothing */
	int (*waiting)(struct transport *t, struct error *err);
	int (*shutdown_write)(struct transport *t, struct error *err);
	int (*close)(struct transport *t, struct error *err);
	/* transport_peek, transport_poll_in, transport_last_words; NULL: what the descriptors say
	 */
	ssize_t (*peek)(struct transport *t, void *buf, size_t len, struct error *err);
	int (*poll_in)(struct transport *t, int timeout_ms, struct error *err);
	void (*last_words)(struct transport *t, const void *buf, size_t len);
};

/* How bytes enter or leave a descriptor without blocking. */
enum io_kind {
	IO_NONE,     /* that direction does not exist */
	IO_SOCKET,   /* MSG_DONTWAIT */
	IO_NONBLOCK, /* O_NONBLOCK is set: the open file description is ours alone */
	IO_SHARED,   /* a pipe we inherited: RWF_NOWAIT a call */
	IO_POLLED,   /* inherited, and the kernel has no RWF_NOWAIT for it: poll before each call */
	IO_FILE,     /* regular file or block device */
};

struct transport {
	const struct transport_ops *ops;
	struct cancel *cancel;	/* not owned */
	char name[128];		/* for messages: "tcp:10.0.0.1:4444" (the peer's address) */
	bool two_way;		/* the peer can answer */
	enum status end_status; /* what an end in the middle is: ST_SOCKET; files, stdin: ST_DATA */
	bool lenient;		/* what ops->writev took may be left to last_words by a cancel */
	bool lax_end;		/* TLS: an end that the peer did not announce is one all the same */
	int rfd, wfd;		/* may be equal; -1: that direction does not exist */
	enum io_kind rkind, wkind; /* the reader's, the writer's to change */
	bool patient;		   /* a read may block for a moment, in the kernel */
	bool inherited; /* others may hold the descriptors too: their flags stay as they are */
	atomic_bool aborted;
	int abort_fd;	 /* eventfd: readable once aborted */
	uint8_t *unread; /* transport_unread: comes first, from unread_at to unread_end; owned */
	size_t unread_at, unread_end;
	void *priv;
};

/* As ops->read, of what was unread. */
ssize_t transport_read_unread(struct transport *t, void *buf, size_t len);

static inline ssize_t transport_read(struct transport *t, void *buf, size_t len, struct error *err)
{
	if (t->unread_at < t->unread_end)
		return transport_read_unread(t, buf, len);
	return t->ops->read(t, buf, len, err);
}

static inline ssize_t transport_writev(struct transport *t, const struct iovec *iov, int n,
				       struct error *err)
{
	return t->ops->writev(t, iov, n, false, err);
}

/*
 * The peer reads end of stream after what was written. Idempotent. For file: this is what makes
 * the file complete: it is made durable and gets its final name here and nowhere else.
 */
static inline int transport_shutdown_write(struct transport *t, struct error *err)
{
	return t->ops->shutdown_write(t, err);
}

/*
 * Ends it and frees t. 0, or -1 if the end is an error of its own (exec: the command's status,
 * for which it waits). Nobody else may use t any more. file without transport_shutdown_write:
 * nothing is left of it. NULL is accepted.
 */
int transport_close(struct transport *t, struct error *err);

/* Callable from any thread, more than once: calls in progress and later ones fail (ST_SOCKET). */
void transport_abort(struct transport *t);

/*
 * The raw descriptor to write to, for splice, sendfile, MSG_ZEROCOPY: a non-blocking socket that
 * is ours alone; else -1. Who writes to it himself waits with transport_wait and tells the stream
 * with stream_count_out.
 */
int transport_raw_wfd(const struct transport *t);

/*
 * From now on a read blocks in the kernel and looks for a stop a few times a second: two system
 * calls fewer for each answer where little comes at a time and each is waited for. Only sockets
 * that are ours alone do it; others stay as they are. Before t is read by another thread.
 */
void transport_be_patient(struct transport *t);

/* Waits until fd, one of t's, is ready for poll's `events`. 0, or -1 if cancelled or aborted. */
int transport_wait(struct transport *t, int fd, short events, struct error *err);

/*
 * Bytes that have come, at most len, without taking them away. > 0: how many are there (a later
 * call may see more), 0: none yet, -1: the peer closed, an error, or no socket (ST_UNSUPPORTED).
 */
ssize_t transport_peek(struct transport *t, void *buf, size_t len, struct error *err);

/*
 * Bytes that were read come again, before all others: read, peek and poll_in see them first. They
 * were allocated, and are the transport's from now on. Once, by the thread that reads.
 */
void transport_unread(struct transport *t, uint8_t *bytes, size_t len);

/*
 * Waits until there is something to read, or the end. 1, 0: `timeout_ms` (-1: no limit) are over,
 * -1: cancelled. By the thread that reads.
 */
int transport_poll_in(struct transport *t, int timeout_ms, struct error *err);

/*
 * Sends the bytes although the token was fired, and then reads, without keeping it, until the peer
 * closes, a second each at most: so a reset does not destroy them on their way. What else is to be
 * said is over with it. A one-way transport says nothing.
 */
void transport_last_words(struct transport *t, const void *buf, size_t len);

/*
 * Dials. `timeout_ms` bounds connecting (-1: no limit); ST_CONNECT names the address.
 * exec starts the command, file creates (writer) or opens it, stdio takes descriptors 0 and 1 (and
 * leaves /dev/null there), fd takes the descriptor. Those fail with ST_FILE or ST_USAGE too.
 * `writer`: this side sends the memory (decides file's direction and what a one-way pipe can do).
 */
struct transport *transport_dial(const struct uri *uri, bool writer, int timeout_ms,
				 struct cancel *cancel, struct error *err);

/*
 * Listening, on tcp, unix, vsock, and a listening fd. listener_uri is what the other side dials,
 * with the real port and the host as it was given. accept gives one connection, NULL with
 * err->status ST_OK when `timeout_ms` is over (-1: no limit).
 *
 * A tcp host with several addresses: the first one that can be bound. Port 0 picks a port. A unix
 * socket's file on which nobody listens any more is replaced, any other file is not.
 */
struct listener;

/* Whether one can listen on it: tcp, unix, vsock, and a descriptor that is a listening socket. */
bool listener_possible(const struct uri *uri);
struct listener *listener_open(const struct uri *uri, struct cancel *cancel, struct error *err);
/*
 * On the far host of an ssh: URI: listens for `migtool join ID` (join.h), by a name that nobody can
 * guess and a socket that no other user's process gets an answer from. `id`: 32 hex digits and NUL.
 */
struct listener *listener_open_joins(char id[33], struct cancel *cancel, struct error *err);
const char *listener_uri(const struct listener *l);
int listener_fd(const struct listener *l);
struct transport *listener_accept(struct listener *l, int timeout_ms, struct error *err);
/* Removes a unix socket's file if it is still the one that was made. NULL is accepted. */
void listener_close(struct listener *l);

/*
 * Puts into the policy what transport_dial, or listener_open and listener_accept, will ask the
 * broker for. ST_NOMEM.
 */
int transport_policy(struct policy *p, const struct uri *uri, bool listens, bool writer,
		     struct error *err);

/* Wraps connected descriptors, equal or not, or -1. Taken over: closed on failure, O_NONBLOCK. */
struct transport *transport_from_fd(int rfd, int wfd, const char *name, struct cancel *cancel,
				    struct error *err);

#endif
