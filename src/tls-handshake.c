// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The handshake and the judging of the peer.
 *
 * The peer is judged inside the handshake, by callbacks, so that who fails is told by an alert that
 * says why as well as TLS can, and before anything of ours is sent. In TLS 1.3 a client is done
 * before the server has seen its certificate: what the server thinks of it the client learns by
 * its first read (transport-tls.c).
 */
#include "log.h"
#include "tls-internal.h"
#include "transport-io.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>

/* ---- judging, as callbacks ---- */

static int refuse(struct tls *s, int alert)
{
	s->alert = alert;
	return GNUTLS_E_CERTIFICATE_ERROR;
}

static int judge_name(struct tls *s, gnutls_x509_crt_t crt)
{
	char name[TLS_NAME_LEN], wanted[TLS_NAME_LEN];

	if (!authz_asked(&s->creds->authz) || tls_cert_allowed(crt, &s->creds->authz))
		return 0;
	err_set(&s->why, ST_REFUSED, "%s's certificate (%s) has no name of tls-authz, expected: %s",
		tls_peer(s->creds), tls_cert_dn(crt, name, sizeof(name)),
		authz_show(&s->creds->authz, wanted, sizeof(wanted)));
	return refuse(s, GNUTLS_A_ACCESS_DENIED);
}

static int judge_status(struct tls *s, gnutls_x509_crt_t crt, unsigned status)
{
	char name[TLS_NAME_LEN], wrong[2 * TLS_NAME_LEN];
	int alert;

	tls_cert_wrong(crt, status, s->creds->host, wrong, sizeof(wrong), &alert);
	err_set(&s->why, ST_REFUSED, "%s's certificate (%s) %s", tls_peer(s->creds),
		tls_cert_dn(crt, name, sizeof(name)), wrong);
	if (status & GNUTLS_CERT_UNEXPECTED_OWNER && alert == GNUTLS_A_BAD_CERTIFICATE)
		err_hint(&s->why, "if that is the right host: --param tls-hostname=NAME, a name of "
				  "the certificate");
	return refuse(s, alert);
}

int tls_verify_peer(gnutls_session_t session)
{
	struct tls *s = gnutls_session_get_ptr(session);
	bool server = s->creds->server;
	gnutls_typed_vdata_st want[2] = {
		{ .type = GNUTLS_DT_KEY_PURPOSE_OID,
		  .data = (void *)(server ? GNUTLS_KP_TLS_WWW_CLIENT : GNUTLS_KP_TLS_WWW_SERVER) },
		{ .type = GNUTLS_DT_DNS_HOSTNAME, .data = (void *)s->creds->host },
	};
	unsigned status = 0, n = 0;
	const gnutls_datum_t *certs = gnutls_certificate_get_peers(session, &n);
	gnutls_x509_crt_t crt;
	int r;

	if (!certs || !n) {
		err_set(&s->why, ST_REFUSED, "%s has no certificate", tls_peer(s->creds));
		return refuse(s, GNUTLS_A_CERTIFICATE_REQUIRED);
	}
	if (gnutls_x509_crt_init(&crt))
		return GNUTLS_E_MEMORY_ERROR;
	r = gnutls_x509_crt_import(crt, &certs[0], GNUTLS_X509_FMT_DER);
	if (!r)
		r = gnutls_certificate_verify_peers(session, want, server ? 1 : 2, &status);
	if (!r)
		r = status ? judge_status(s, crt, status) : judge_name(s, crt);
	gnutls_x509_crt_deinit(crt);
	return r;
}

/* A server's: the key of whom the client says that it is. */
int tls_find_psk(gnutls_session_t session, const gnutls_datum_t *user, gnutls_datum_t *key)
{
	struct tls *s = gnutls_session_get_ptr(session);
	const struct psk_user *u = NULL;
	char wanted[TLS_NAME_LEN];

	log_escape(s->user, sizeof(s->user), user->data, user->size);
	if (user->size <= PSK_USER_MAX && !memchr(user->data, '\0', user->size)) {
		char name[PSK_USER_MAX + 1];

		memcpy(name, user->data, user->size);
		name[user->size] = '\0';
		u = psk_find(&s->creds->users, name);
	}
	s->alert = GNUTLS_A_UNKNOWN_PSK_IDENTITY;
	if (!u) {
		err_set(&s->why, ST_REFUSED,
			"the source is the PSK user '%s', whom %s does not have", s->user,
			s->creds->path);
		return -1;
	}
	if (authz_asked(&s->creds->authz) &&
	    !authz_allows(&s->creds->authz, u->name, strlen(u->name))) {
		err_set(&s->why, ST_REFUSED,
			"the source is the PSK user '%s', who is not in tls-authz, expected: %s",
			s->user, authz_show(&s->creds->authz, wanted, sizeof(wanted)));
		s->alert = GNUTLS_A_ACCESS_DENIED;
		return -1;
	}
	s->alert = GNUTLS_A_DECRYPT_ERROR; /* should the key be another one */
	key->data = gnutls_malloc((unsigned)u->key_len);
	if (!key->data)
		return -1;
	memcpy(key->data, u->key, u->key_len);
	key->size = (unsigned)u->key_len;
	return 0;
}

/* ---- why a handshake failed ---- */

/* No TLS at all, or TLS that nobody should speak any more. */
static bool is_foreign(int r)
{
	return r == GNUTLS_E_UNSUPPORTED_VERSION_PACKET || r == GNUTLS_E_UNEXPECTED_PACKET_LENGTH ||
	       r == GNUTLS_E_UNEXPECTED_PACKET || r == GNUTLS_E_RECORD_OVERFLOW;
}

static bool is_end(int r)
{
	return r == GNUTLS_E_PREMATURE_TERMINATION || r == GNUTLS_E_SESSION_EOF ||
	       r == GNUTLS_E_PULL_ERROR || r == GNUTLS_E_PUSH_ERROR;
}

static int explain_end(struct tls *s, struct error *err)
{
	int e = s->read_errno ? s->read_errno : s->write_errno;
	/* on a later connection it is the link: --retry may try again */
	enum status status = s->creds->proved ? ST_SOCKET : ST_REFUSED;
	const char *when = s->creds->proved ? "during" : "instead of";

	if (e)
		err_sys(err, status, e, "%s ended the connection %s a TLS handshake",
			tls_peer(s->creds), when);
	else
		err_set(err, status, "%s ended the connection %s a TLS handshake",
			tls_peer(s->creds), when);
	if (s->creds->proved)
		return -1;
	return err_hint(err, "has it got --param tls-creds=DIR too, with %s (as here)?",
			tls_creds_kind(s->creds));
}

static int explain(struct tls *s, int r, struct error *err)
{
	const char *peer = tls_peer(s->creds);

	if (s->why.status != ST_OK)
		return *err = s->why, -1;
	if (r == GNUTLS_E_FATAL_ALERT_RECEIVED || r == GNUTLS_E_WARNING_ALERT_RECEIVED)
		return tls_explain_alert(s, err);
	if (r == GNUTLS_E_CERTIFICATE_REQUIRED || r == GNUTLS_E_NO_CERTIFICATE_FOUND) {
		err_set(err, ST_REFUSED, "%s has no certificate", peer);
		return err_hint(
			err, "its tls-creds needs client-cert.pem and client-key.pem, of a CA in "
			     "our ca-cert.pem");
	}
	/* a record may have been cut short */
	if (is_end(r) || (s->cut && r == GNUTLS_E_UNEXPECTED_PACKET_LENGTH))
		return explain_end(s, err);
	if (is_foreign(r)) {
		err_set(err, ST_REFUSED, "%s does not speak TLS", peer);
		return err_hint(err, "give it --param tls-creds=DIR too");
	}
	if (s->alert == GNUTLS_A_DECRYPT_ERROR)
		return err_set(err, ST_REFUSED,
			       "the source's key of the PSK user '%s' is not the one in %s",
			       s->user, s->creds->path);
	if (r != GNUTLS_E_INSUFFICIENT_CREDENTIALS && r != GNUTLS_E_NO_CIPHER_SUITES &&
	    r != GNUTLS_E_UNKNOWN_CIPHER_SUITE)
		return err_set(err, ST_REFUSED, "the handshake with %s failed: %s", peer,
			       gnutls_strerror(r));
	err_set(err, ST_REFUSED, "%s's credentials have nothing in common with ours in %s", peer,
		s->creds->path);
	return err_hint(err, "are the credentials of both ends of one kind (here: %s)?",
			tls_creds_kind(s->creds));
}

/* An alert cannot wait for room: an attempt, which succeeds as long as little was sent. */
static void alert(struct tls *s, int r)
{
	if (is_end(r) || r == GNUTLS_E_FATAL_ALERT_RECEIVED)
		return;
	if (s->alert)
		gnutls_alert_send(s->session, GNUTLS_AL_FATAL,
				  (gnutls_alert_description_t)s->alert);
	else
		gnutls_alert_send_appropriate(s->session, r);
}

/* ---- steps ---- */

/* With several kinds of credentials in a priority string: was it the kind that we have? */
static int check_kind(struct tls *s, struct error *err)
{
	gnutls_credentials_type_t want = s->creds->psk ? GNUTLS_CRD_PSK : GNUTLS_CRD_CERTIFICATE;

	if (gnutls_auth_server_get_type(s->session) == want)
		return 0;
	s->alert = GNUTLS_A_HANDSHAKE_FAILURE;
	alert(s, GNUTLS_E_INSUFFICIENT_CREDENTIALS);
	return err_set(err, ST_REFUSED, "%s did not prove who it is by %s", tls_peer(s->creds),
		       tls_creds_kind(s->creds));
}

int tls_handshake_step(struct transport *t, int *fd, short *events, struct error *err)
{
	struct tls *s = t->priv;
	int r, rc = 0;

	pthread_mutex_lock(&s->lock);
	/* once it is done a further call would be the next handshake */
	r = s->shaken ? GNUTLS_E_SUCCESS : gnutls_handshake(s->session);
	if (r == GNUTLS_E_SUCCESS) {
		s->shaken = s->shaken || !check_kind(s, err);
		rc = s->shaken ? tls_flush(s) : -1;
		if (s->shaken)
			s->creds->proved = true;
		if (s->shaken && rc < 0)
			explain(s, GNUTLS_E_PUSH_ERROR, err);
	} else if (gnutls_error_is_fatal(r)) {
		alert(s, r);
		rc = explain(s, r, err);
	} else if (tls_flush(s) < 0) {
		rc = explain(s, GNUTLS_E_PUSH_ERROR, err);
	}
	if (rc == 0) {
		*events = s->out_end ? POLLOUT : POLLIN;
		*fd = s->out_end ? s->inner->wfd : s->inner->rfd;
	}
	if (rc < 0)
		s->quiet = true;
	pthread_mutex_unlock(&s->lock);
	if (rc < 0)
		return err_prefix(err, "TLS with %s", t->name);
	return rc;
}

/* Waits for the descriptor, with an eye on what ends a session. 1, 0: the time is over, -1 */
static int wait_for(struct transport *t, int fd, short events, int timeout_ms, struct error *err)
{
	if (io_stopped(t, err))
		return -1;
	return cancel_wait(t->cancel, fd, events, timeout_ms, err);
}

int tls_handshake(struct transport *t, int first_ms, struct error *err)
{
	struct tls *s = t->priv;
	int64_t deadline = -1;
	bool begun = false;

	for (;;) {
		short events = 0;
		int fd = -1, left, r = tls_handshake_step(t, &fd, &events, err);

		if (r)
			return r < 0 ? -1 : 0;
		/* a client speaks first and waits for an answer; a server for a client to begin */
		if (!begun && events == POLLIN && s->inner->rfd >= 0) {
			r = wait_for(t, fd, events, first_ms, err);
			begun = true;
			deadline = io_deadline(TLS_HANDSHAKE_MS);
		} else {
			left = deadline < 0 ? TLS_HANDSHAKE_MS : io_left_ms(deadline);
			r = wait_for(t, fd, events, left, err);
		}
		if (r < 0)
			return -1;
		if (r)
			continue;
		err_set(err, ST_TIMEOUT, "TLS with %s: %s does not answer the handshake in time",
			t->name, tls_peer(s->creds));
		return err_hint(err, "has it got --param tls-creds=DIR too?");
	}
}

/* ---- who it is ---- */

static void describe_x509(struct tls *s, char *buf, size_t len)
{
	unsigned n = 0;
	const gnutls_datum_t *certs = gnutls_certificate_get_peers(s->session, &n);
	gnutls_x509_crt_t crt;

	snprintf(buf, len, "somebody");
	if (!certs || !n || gnutls_x509_crt_init(&crt))
		return;
	if (!gnutls_x509_crt_import(crt, &certs[0], GNUTLS_X509_FMT_DER))
		tls_cert_dn(crt, buf, len);
	gnutls_x509_crt_deinit(crt);
}

void tls_describe(struct transport *t, char *buf, size_t len)
{
	struct tls *s = t->priv;
	char who[TLS_NAME_LEN];

	pthread_mutex_lock(&s->lock);
	if (!s->creds->psk)
		describe_x509(s, who, sizeof(who));
	else
		snprintf(who, sizeof(who), "PSK user %.300s",
			 s->creds->server ? s->user : s->creds->user->name);
	snprintf(buf, len, "%s (%s, %s)", who,
		 gnutls_protocol_get_name(gnutls_protocol_get_version(s->session)),
		 gnutls_cipher_get_name(gnutls_cipher_get(s->session)));
	pthread_mutex_unlock(&s->lock);
}
