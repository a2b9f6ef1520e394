/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * An ssh connection as libssh2 sees it: the TCP socket, the session, and the buffers between them.
 *
 * libssh2 never touches the socket: it reads and writes these buffers, which are filled and flushed
 * here, and is always in non-blocking mode. So a packet is never sent in part (libssh2 would then
 * want the very same call again before any other), a system call moves many packets instead of one,
 * and every wait is ours: it ends with the cancel token, an abort, or the deadline.
 *
 * One thread at a time uses a link.
 */
#ifndef MIGTOOL_SSH_LINK_H
#define MIGTOOL_SSH_LINK_H

#include "transport.h"

#include <libssh2.h>

struct ssh_link {
	LIBSSH2_SESSION *s;
	struct transport *tcp;
	unsigned port;
	unsigned rtt_us;  /* the path's round trip, as connecting to it took; 0: not known */
	char name[128];	  /* for messages: "host", "[host]:2222" */
	int64_t deadline; /* of connecting and logging in, on io_now_ms's clock; -1: none */
	void *user;	  /* whoever's turn it is (libssh2's callbacks have no argument of ours) */

	uint8_t *in, *out;
	size_t in_at, in_end, out_at, out_end;
	bool in_eof;
	int errnum;	/* the socket failed */
	char first[64]; /* what it said first, for who is no ssh server */
	char said[256]; /* why it disconnected, in its words */
};

/* Sets the library up, which opens files: before a sandbox. Else ssh_link_open does it. */
void ssh_link_prepare(void);

/*
 * Connects and prepares a session; no byte has been sent yet. `text` is what messages call the
 * other end while nothing is there. NULL: ST_CONNECT, ST_NOMEM or the cancel's reason.
 */
struct ssh_link *ssh_link_open(const char *host, unsigned port, const char *text, int timeout_ms,
			       struct cancel *cancel, struct error *err);
/* Says goodbye if it can at once; frees everything. NULL is accepted. */
void ssh_link_close(struct ssh_link *l);

/*
 * Banners and keys are exchanged. `hostkeys`: a comma-separated list of the host key types that are
 * preferred. ST_CONNECT: no ssh server, or no method that both know.
 */
int ssh_link_handshake(struct ssh_link *l, const char *hostkeys, struct error *err);

/* Whether libssh2 knows a method of this kind (LIBSSH2_METHOD_...). */
bool ssh_link_knows(struct ssh_link *l, int kind, const char *method);

/*
 * Writes what is to be sent, reads what has come, without waiting: 1 if bytes moved, 0 if not, -1
 * if the connection is gone (l->errnum; reading: l->in_eof and 0 too).
 */
int ssh_link_flush(struct ssh_link *l);
int ssh_link_fill(struct ssh_link *l);
static inline bool ssh_link_unsent(const struct ssh_link *l)
{
	return l->out_at < l->out_end;
}
static inline bool ssh_link_unread(const struct ssh_link *l)
{
	return l->in_at < l->in_end;
}
/* Is there room for whatever one call of libssh2 may send? */
bool ssh_link_room(const struct ssh_link *l);

/*
 * Flushes, then waits until the other end said something. 0, or -1: ST_TIMEOUT after the deadline,
 * the cancel's reason, or the end of the connection (ST_SOCKET).
 */
int ssh_link_turn(struct ssh_link *l, struct error *err);

/*
 * Repeats a call of libssh2 until it is through. rc stays LIBSSH2_ERROR_EAGAIN if waiting failed,
 * and err says why.
 */
#define SSH_LINK_RUN(l, rc, call, err) \
	do                             \
		(rc) = (call);         \
	while ((rc) == LIBSSH2_ERROR_EAGAIN && ssh_link_turn(l, err) == 0)

/*
 * What libssh2's error means, behind "<name>: <what>": `otherwise` unless the connection is gone
 * (ST_SOCKET, with the reason that the other end gave). After SSH_LINK_RUN err is kept if rc is
 * EAGAIN. -1.
 */
int ssh_link_failed(struct ssh_link *l, int rc, const char *what, enum status otherwise,
		    struct error *err);

#endif
