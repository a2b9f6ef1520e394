/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * TLS over a transport, as QEMU has it: the source is the client, the destination the server,
 * whichever of them dials; every connection is a session of its own, from its first byte on.
 *
 * Credentials are read once, by tls_creds_open; after it no file is touched again.
 */
#ifndef MIGTOOL_TLS_H
#define MIGTOOL_TLS_H

#include "transport.h"

#define TLS_HANDSHAKE_MS 10000 /* how long a handshake may take once it has begun */
#define TLS_FIRST_BYTE	 0x16  /* every TLS connection begins with it, nothing of ours does */

struct tls_creds;

/* The parameters of these names, NULL where not given, and what else they depend on. */
struct tls_options {
	const char *creds;    /* a directory laid out as QEMU's `dir`, or a file of keys itself */
	const char *hostname; /* whom the destination's certificate is for, if not uri's host */
	const char *authz;
	bool server;	       /* a destination's credentials */
	const struct uri *uri; /* where a source connects to; NULL: nobody knows yet */
	bool listens;	       /* it does not connect: uri's host is its own */
};

/* Puts the files that tls_creds_open will read into the policy. */
int tls_policy(struct policy *p, const char *creds, struct error *err);

/* Bad files are ST_UNSUPPORTED, and so is a certificate that the peer could not accept. */
struct tls_creds *tls_creds_open(const struct tls_options *o, struct error *err);
/* No transport may use it any more. NULL is accepted. */
void tls_creds_close(struct tls_creds *c);

/* "x509" or "PSK". */
const char *tls_creds_kind(const struct tls_creds *c);

/*
 * Wraps a connected transport, which is taken over (closed on failure). Nothing may be read or
 * written before the handshake is done. ST_UNSUPPORTED: it does not carry bytes both ways.
 */
struct transport *tls_wrap(struct tls_creds *c, struct transport *inner, struct error *err);

/*
 * The handshake, as far as it goes without waiting. 1: done; 0: when the descriptor *fd is ready
 * for *events there is more to do; -1: it failed, the peer was told why, ST_REFUSED or a broken
 * connection. After -1 there is nothing but transport_close.
 */
int tls_handshake_step(struct transport *t, int *fd, short *events, struct error *err);

/*
 * The whole handshake. `first_ms` is how long the peer's first byte may take (-1: no limit),
 * after that it is TLS_HANDSHAKE_MS. 0 or -1.
 */
int tls_handshake(struct transport *t, int first_ms, struct error *err);

/* Who the peer is and what was agreed, for messages: "CN=source (TLS1.3, AES-256-GCM)". */
void tls_describe(struct transport *t, char *buf, size_t len);

#endif
