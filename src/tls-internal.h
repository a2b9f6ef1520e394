/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the files of TLS share: credentials, a session, certificates in words. Private to tls-*.c
 * and transport-tls.c, which are GnuTLS' home.
 */
#ifndef MIGTOOL_TLS_INTERNAL_H
#define MIGTOOL_TLS_INTERNAL_H

#include "authz.h"
#include "psk.h"
#include "tls.h"

#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <pthread.h>
#include <stdatomic.h>

#define TLS_RECORD     16384 /* plain bytes of a record at most */
#define TLS_HEADER_LEN 5
#define TLS_NAME_LEN   320 /* a name in a message, escaped and cut */

/* Constant once it is open (but for `proved`), so that all sessions share it. */
struct tls_creds {
	bool server, psk;
	bool is_file; /* path is a file of keys, not a directory */
	char *path;
	char *host; /* whom the destination's certificate has to be for; NULL: a server, or PSK */
	struct authz authz;
	gnutls_priority_t priority;
	gnutls_certificate_credentials_t x509;
	gnutls_dh_params_t dh;
	gnutls_psk_server_credentials_t psk_server;
	gnutls_psk_client_credentials_t psk_client;
	struct psk_file users;
	const struct psk_user *user; /* a PSK client's own */
	atomic_bool proved;	     /* a handshake with them succeeded: the other end has TLS */
};

struct tls {
	struct transport *inner; /* owned */
	struct tls_creds *creds;

	/* GnuTLS lets one thread read and one write, but not while keys change: see transport-tls.c
	 */
	pthread_mutex_t lock; /* guards what follows until the next blank line */
	gnutls_session_t session;
	uint8_t ahead[TLS_HEADER_LEN]; /* of the next record, read with the last one */
	unsigned nahead;
	bool read_blocked;	     /* the last pull found nothing */
	bool cut;		     /* the connection ended */
	int read_errno, write_errno; /* why the last one failed; 0: it did not */
	bool more;		     /* for the push: other bytes follow at once */
	uint8_t *out; /* encrypted, and there was no room for it: out_pos to out_end */
	size_t out_pos, out_end, out_cap;
	bool spoke; /* something of ours was written */
	bool quiet; /* no goodbye: said already, or none is due */

	uint8_t *held; /* the reader's: bytes decrypted and not taken yet */
	size_t held_pos, held_end;
	bool over;	 /* the reader's: nothing more comes, `end` says why */
	int end;	 /* GnuTLS' word: 0, or an error */
	uint8_t *gather; /* the writer's: a record put together from pieces */

	bool shaken;		 /* the handshake is done */
	struct error why;	 /* what a callback found wrong; ST_OK: nothing */
	int alert;		 /* the alert that fits it; 0: GnuTLS chooses */
	char user[TLS_NAME_LEN]; /* the PSK user that a client named, for messages */
};

/*
 * Sends what is in `out`, as far as there is room; the lock is held. 1: all of it, 0: the rest when
 * wfd is writable, -1: write_errno says why not.
 */
int tls_flush(struct tls *s);

/* "the source", "the destination": the other end. */
const char *tls_peer(const struct tls_creds *c);

/* A distinguished name, for messages. Returns buf. */
char *tls_cert_dn(gnutls_x509_crt_t crt, char *buf, size_t len);

/*
 * What is wrong with a certificate, from GnuTLS' verification status, in words that follow a name:
 * "expired on 2026-01-31 12:00:00 UTC". `host` was expected. Returns buf; *alert is what to tell
 * the peer.
 */
char *tls_cert_wrong(gnutls_x509_crt_t crt, unsigned status, const char *host, char *buf,
		     size_t len, int *alert);

/* Is the certificate's DN, one of its CNs or of its alternative names in the list? */
bool tls_cert_allowed(gnutls_x509_crt_t crt, const struct authz *a);

/* The last alert that came: ST_REFUSED. */
int tls_explain_alert(struct tls *s, struct error *err);

/* The callbacks of credentials; they judge the peer and fill `why`. */
int tls_verify_peer(gnutls_session_t session);
int tls_find_psk(gnutls_session_t session, const gnutls_datum_t *user, gnutls_datum_t *key);

#endif
