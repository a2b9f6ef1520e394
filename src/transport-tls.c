// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A TLS session as a transport.
 *
 * Threads. GnuTLS lets one thread send while another receives, with an exception that matters here:
 * TLS 1.3 changes keys in the middle of a session, after 2^24 records of AES-GCM (256 GiB of ours),
 * or when the peer asks, and then sender and receiver touch the same state. So one mutex guards the
 * session, and nobody waits while holding it: the push and pull below never block, and who would
 * have to wait lets go first and polls. A channel that moves pages is used by one thread, which
 * finds the mutex free.
 *
 * Writing. GnuTLS is never told that there is no room: what the descriptor does not take is kept
 * here
 * (`out`) and sent before anything else. For GnuTLS could not go on with half a record if in the
 * meantime the peer asked for new keys: the request would be answered in the middle of it.
 *
 * Reading. GnuTLS asks for a record's header of 5 bytes and then for the rest, which would be two
 * system calls a record. Behind the rest the next record's header is read along with it.
 *
 * The end. A session ends with a goodbye (close_notify), which nobody but the peer can make. The
 * end of the connection without one is an error, unless the peer is a QEMU (`lax_end`): before 10.0
 * they just close, and what the stream itself says has to do. We say it when all went well, never
 * after a failure.
 */
#include "tls-internal.h"
#include "transport-io.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define GOODBYE_MS    1000  /* how long a peer that takes nothing keeps us at the end */
#define HANDSHAKE_MAX 65536 /* bytes of one handshake message: what a stranger makes us keep */
#define WARNINGS_MAX  16    /* alerts one after the other that end nothing */

/* ---- between GnuTLS and the descriptors; the lock is held ---- */

static ssize_t pull(gnutls_transport_ptr_t p, void *buf, size_t len)
{
	struct tls *s = p;
	struct iovec iov[2] = { { buf, len }, { s->ahead, sizeof(s->ahead) } };
	ssize_t n;

	if (s->nahead) {
		n = (ssize_t)(len < s->nahead ? len : s->nahead);
		memcpy(buf, s->ahead, (size_t)n);
		s->nahead -= (unsigned)n;
		memmove(s->ahead, s->ahead + n, s->nahead);
		return n;
	}
	n = io_try_readv(s->inner, iov, len > sizeof(s->ahead) ? 2 : 1);
	s->read_blocked = n < 0 && errno == EAGAIN;
	if (n < 0) {
		if (!s->read_blocked)
			s->read_errno = errno;
		gnutls_transport_set_errno(s->session, errno);
		return -1;
	}
	s->cut = n == 0 && len > 0;
	if ((size_t)n > len) {
		s->nahead = (unsigned)((size_t)n - len);
		n = (ssize_t)len;
	}
	return n;
}

int tls_flush(struct tls *s)
{
	while (s->out_pos < s->out_end) {
		struct iovec iov = { s->out + s->out_pos, s->out_end - s->out_pos };
		ssize_t n = io_try_writev(s->inner, &iov, 1, false);

		if (n < 0 && errno == EAGAIN)
			return 0;
		if (n < 0) {
			s->write_errno = errno;
			return -1;
		}
		s->out_pos += (size_t)n;
	}
	s->out_pos = s->out_end = 0;
	return 1;
}

/* Keeps what is behind the first `skip` bytes. 0, or -1: no memory. */
static int keep(struct tls *s, const giovec_t *iov, int n, size_t skip)
{
	for (int i = 0; i < n; i++) {
		size_t from = skip < iov[i].iov_len ? skip : iov[i].iov_len;
		size_t len = iov[i].iov_len - from;

		skip -= from;
		if (s->out_cap - s->out_end < len) {
			size_t cap = s->out_end + len + TLS_RECORD;
			uint8_t *more = realloc(s->out, cap);

			if (!more)
				return -1;
			s->out = more;
			s->out_cap = cap;
		}
		if (len)
			memcpy(s->out + s->out_end, (const uint8_t *)iov[i].iov_base + from, len);
		s->out_end += len;
	}
	return 0;
}

static ssize_t push(gnutls_transport_ptr_t p, const giovec_t *iov, int n)
{
	struct tls *s = p;
	ssize_t done = 0, all = 0;

	for (int i = 0; i < n; i++)
		all += (ssize_t)iov[i].iov_len;
	if (!s->out_end)
		done = io_try_writev(s->inner, iov, n, s->more);
	if (done < 0 && errno == EAGAIN)
		done = 0;
	if (done < 0 || (done < all && keep(s, iov, n, (size_t)done))) {
		s->write_errno = errno;
		gnutls_transport_set_errno(s->session, errno);
		return -1;
	}
	return all;
}

/* ---- reading ---- */

static bool is_blocked(int r)
{
	return r == GNUTLS_E_AGAIN || r == GNUTLS_E_INTERRUPTED;
}

/* > 0: bytes; 0: none have come yet; -1: nothing more comes, s->end says why. */
static ssize_t fetch(struct tls *s, void *buf, size_t len)
{
	ssize_t n = 0;

	if (s->over)
		return -1;
	pthread_mutex_lock(&s->lock);
	for (int tries = 0; tries < WARNINGS_MAX; tries++) {
		s->read_blocked = false;
		n = gnutls_record_recv(s->session, buf, len);
		/* what was not ours to have, as a change of keys, is followed by a look for more */
		if (n != GNUTLS_E_WARNING_ALERT_RECEIVED &&
		    (!is_blocked((int)n) || s->read_blocked))
			break;
	}
	/* who sends what cannot be decrypted should know why we go */
	if (n < 0 && gnutls_error_is_fatal((int)n) && !s->cut && !s->read_errno &&
	    n != GNUTLS_E_FATAL_ALERT_RECEIVED)
		gnutls_alert_send_appropriate(s->session, (int)n);
	pthread_mutex_unlock(&s->lock);
	if (n > 0 || is_blocked((int)n))
		return n > 0 ? n : 0;
	s->over = true;
	s->end = (int)n;
	return -1;
}

/* Why nothing more comes: 0 for a clean end, -1. */
static int explain_end(struct transport *t, struct error *err)
{
	struct tls *s = t->priv;
	int rc = 0;

	if (io_stopped(t, err)) /* a stop explains an end better */
		return -1;
	pthread_mutex_lock(&s->lock);
	if (s->end == 0) {
		rc = 0;
	} else if (s->read_errno) {
		rc = io_failed(t, true, s->read_errno, err);
	} else if (s->cut) {
		/* between two records, or inside one */
		if (!t->lax_end || s->end != GNUTLS_E_PREMATURE_TERMINATION)
			rc = err_set(err, ST_SOCKET,
				     "the connection to %s ended without TLS's goodbye", t->name);
	} else if (s->end == GNUTLS_E_FATAL_ALERT_RECEIVED ||
		   s->end == GNUTLS_E_WARNING_ALERT_RECEIVED) {
		rc = tls_explain_alert(s, err);
		err_prefix(err, "TLS with %s", t->name);
	} else {
		rc = err_set(err, ST_DATA, "TLS with %s: %s", t->name, gnutls_strerror(s->end));
	}
	pthread_mutex_unlock(&s->lock);
	return rc;
}

static size_t take_held(struct tls *s, void *buf, size_t len)
{
	size_t n = s->held_end - s->held_pos;

	if (n > len)
		n = len;
	memcpy(buf, s->held + s->held_pos, n);
	s->held_pos += n;
	return n;
}

static ssize_t tls_read(struct transport *t, void *buf, size_t len, struct error *err)
{
	struct tls *s = t->priv;

	if (s->held_pos < s->held_end)
		return (ssize_t)take_held(s, buf, len);
	for (;;) {
		ssize_t n;

		if (io_stopped(t, err))
			return -1;
		n = fetch(s, buf, len);
		if (n > 0)
			return n;
		if (n < 0)
			return explain_end(t, err);
		if (transport_wait(t, s->inner->rfd, POLLIN, err))
			return -1;
	}
}

/* Decrypts what is there behind what is held already, `want` bytes or all. */
static void hold(struct tls *s, size_t want)
{
	if (s->held_pos == s->held_end)
		s->held_pos = s->held_end = 0;
	memmove(s->held, s->held + s->held_pos, s->held_end - s->held_pos);
	s->held_end -= s->held_pos;
	s->held_pos = 0;
	while (s->held_end < want) {
		ssize_t n = fetch(s, s->held + s->held_end, TLS_RECORD - s->held_end);

		if (n <= 0)
			return;
		s->held_end += (size_t)n;
	}
}

static ssize_t tls_peek(struct transport *t, void *buf, size_t len, struct error *err)
{
	struct tls *s = t->priv;
	size_t n;

	if (io_stopped(t, err))
		return -1;
	if (len > TLS_RECORD)
		len = TLS_RECORD;
	hold(s, len);
	n = s->held_end - s->held_pos;
	if (!n && s->over)
		return explain_end(t, err)
			       ? -1
			       : err_set(err, ST_SOCKET, "the connection to %s ended", t->name);
	if (n > len)
		n = len;
	memcpy(buf, s->held + s->held_pos, n);
	return (ssize_t)n;
}

static int tls_poll_in(struct transport *t, int timeout_ms, struct error *err)
{
	struct tls *s = t->priv;
	int64_t deadline = io_deadline(timeout_ms);

	for (;;) {
		int r;

		hold(s, 1);
		if (s->held_pos < s->held_end || s->over)
			return 1;
		r = cancel_wait(t->cancel, s->inner->rfd, POLLIN, io_left_ms(deadline), err);
		if (r <= 0)
			return r;
	}
}

/* ---- writing ---- */

/* Gives GnuTLS all of it. 1: it is sent, 0: the rest of it when there is room, -1 and *code. */
static int send_some(struct tls *s, const void *buf, size_t len, bool more, int *code)
{
	const char *p = buf;
	ssize_t n = 0;
	int r = -1;

	pthread_mutex_lock(&s->lock);
	s->more = more;
	s->spoke = true;
	/* a peer may have asked for shorter records than ours */
	for (; len && (n = gnutls_record_send(s->session, p, len)) > 0; len -= (size_t)n)
		p += n;
	if (!len)
		r = tls_flush(s);
	if (r < 0)
		s->quiet = true;
	pthread_mutex_unlock(&s->lock);
	*code = (int)n;
	return r;
}

static int send_failed(struct transport *t, int code, struct error *err)
{
	struct tls *s = t->priv;
	int e;

	pthread_mutex_lock(&s->lock);
	e = s->write_errno;
	pthread_mutex_unlock(&s->lock);
	if (e)
		return io_failed(t, false, e, err);
	if (code == GNUTLS_E_INVALID_SESSION) /* the reader knows why */
		return err_set(err, ST_SOCKET, "the connection to %s ended", t->name);
	return err_set(err, ST_SOCKET, "TLS with %s: cannot send: %s", t->name,
		       gnutls_strerror(code));
}

/* All of one record. If t is lenient, a cancel leaves what GnuTLS has taken for the last words. */
static int send_record(struct transport *t, const void *buf, size_t len, bool more,
		       struct error *err)
{
	struct tls *s = t->priv;
	int r, code;

	if (io_stopped(t, err))
		return -1;
	while ((r = send_some(s, buf, len, more, &code)) == 0) {
		if (transport_wait(t, s->inner->wfd, POLLOUT, err))
			return t->lenient && cancel_fired(t->cancel) ? 0 : -1;
		len = 0; /* GnuTLS has done its part */
	}
	return r < 0 ? send_failed(t, code, err) : 0;
}

/* Where in an iovec array the next byte is. */
struct place {
	const struct iovec *iov;
	int n;
	size_t at; /* in the first of them */
};

/* The next record: where it lies if it is in one piece, else copied together. */
static const void *next_record(struct tls *s, struct place *p, size_t *len)
{
	const char *one = NULL;

	*len = 0;
	while (p->n && *len < TLS_RECORD) {
		size_t left = p->iov->iov_len - p->at, room = TLS_RECORD - *len;
		const char *from = (const char *)p->iov->iov_base + p->at;
		size_t take = left < room ? left : room;

		/* the first piece stays where it is unless another follows */
		if (!*len)
			one = from;
		else if (one && take)
			memcpy(s->gather, one, *len);
		if (*len && take) {
			memcpy(s->gather + *len, from, take);
			one = NULL;
		}
		*len += take;
		p->at += take;
		if (p->at == p->iov->iov_len) {
			p->iov++;
			p->n--;
			p->at = 0;
		}
	}
	return one ? (const void *)one : s->gather;
}

static ssize_t tls_writev(struct transport *t, const struct iovec *iov, int n, bool more,
			  struct error *err)
{
	struct tls *s = t->priv;
	struct place p = { iov, n, 0 };
	ssize_t all = 0;

	while (p.n) {
		size_t len;
		const void *record = next_record(s, &p, &len);

		if (len && send_record(t, record, len, more || p.n, err))
			return t->lenient && all ? all : -1;
		all += (ssize_t)len;
	}
	return all;
}

/* ---- the end ---- */

/* What was kept for lack of room goes out, if there is room in time. */
static bool flush_in_time(struct tls *s, int64_t deadline)
{
	struct pollfd p = { .fd = s->inner->wfd, .events = POLLOUT };

	for (;;) {
		int r, left = io_left_ms(deadline);

		pthread_mutex_lock(&s->lock);
		r = tls_flush(s);
		pthread_mutex_unlock(&s->lock);
		if (r)
			return r > 0;
		if (!left || (poll(&p, 1, left) < 0 && errno != EINTR))
			return false;
	}
}

static void goodbye(struct tls *s, int64_t deadline)
{
	pthread_mutex_lock(&s->lock);
	s->more = false;
	if (!s->quiet && s->shaken)
		gnutls_bye(s->session, GNUTLS_SHUT_WR);
	s->quiet = true;
	pthread_mutex_unlock(&s->lock);
	flush_in_time(s, deadline);
}

/* The token has been fired, maybe in the middle of a record: our own deadline instead. */
static void tls_last_words(struct transport *t, const void *buf, size_t len)
{
	struct tls *s = t->priv;
	int64_t deadline = io_deadline(GOODBYE_MS);
	const char *p = buf;
	int code;

	while (len > 0 && flush_in_time(s, deadline)) {
		size_t n = len < TLS_RECORD ? len : TLS_RECORD;

		if (send_some(s, p, n, false, &code) < 0)
			return;
		p += n;
		len -= n;
	}
	if (!len && flush_in_time(s, deadline))
		goodbye(s, deadline);
}

static int tls_shutdown_write(struct transport *t, struct error *err)
{
	struct tls *s = t->priv;

	if (io_stopped(t, err))
		return -1;
	goodbye(s, io_deadline(GOODBYE_MS));
	return transport_shutdown_write(s->inner, err);
}

static int tls_waiting(struct transport *t, struct error *err)
{
	struct tls *s = t->priv;

	return s->inner->ops->waiting ? s->inner->ops->waiting(s->inner, err) : 0;
}

static void tls_free(struct tls *s)
{
	if (s->session)
		gnutls_deinit(s->session);
	pthread_mutex_destroy(&s->lock);
	if (s->held)
		explicit_bzero(s->held, 2 * TLS_RECORD);
	free(s->held);
	free(s->out);
	free(s);
}

static int tls_close(struct transport *t, struct error *err)
{
	struct tls *s = t->priv;
	struct error ignored;
	int rc;

	/* who only listened has nothing to end, and who failed must not look like an end */
	if (s->spoke && !io_stopped(t, &ignored))
		goodbye(s, io_deadline(GOODBYE_MS));
	rc = transport_close(s->inner, err);
	tls_free(s);
	t->rfd = t->wfd = -1;
	io_free(t);
	return rc;
}

static const struct transport_ops tls_ops = {
	.scheme = "tls",
	.read = tls_read,
	.writev = tls_writev,
	.peek = tls_peek,
	.poll_in = tls_poll_in,
	.last_words = tls_last_words,
	.waiting = tls_waiting,
	.shutdown_write = tls_shutdown_write,
	.close = tls_close,
};

/* ---- making one ---- */

static int set_credentials(struct tls *s)
{
	const struct tls_creds *c = s->creds;
	int r = gnutls_priority_set(s->session, c->priority);

	if (r)
		return r;
	if (c->psk && c->server)
		return gnutls_credentials_set(s->session, GNUTLS_CRD_PSK, c->psk_server);
	if (c->psk)
		return gnutls_credentials_set(s->session, GNUTLS_CRD_PSK, c->psk_client);
	if (c->server)
		gnutls_certificate_server_set_request(s->session, GNUTLS_CERT_REQUIRE);
	return gnutls_credentials_set(s->session, GNUTLS_CRD_CERTIFICATE, c->x509);
}

static int open_session(struct tls *s, struct error *err)
{
	unsigned flags = s->creds->server ? GNUTLS_SERVER : GNUTLS_CLIENT;
	int r = gnutls_init(&s->session,
			    flags | GNUTLS_NONBLOCK | GNUTLS_NO_TICKETS | GNUTLS_FORCE_CLIENT_CERT);

	if (!r)
		r = set_credentials(s);
	if (r)
		return err_set(err, ST_NOMEM, "TLS: %s", gnutls_strerror(r));
	gnutls_session_set_ptr(s->session, s);
	gnutls_handshake_set_max_packet_length(s->session, HANDSHAKE_MAX);
	gnutls_transport_set_ptr(s->session, s);
	gnutls_transport_set_pull_function(s->session, pull);
	gnutls_transport_set_vec_push_function(s->session, push);
	return 0;
}

static struct tls *tls_new(struct tls_creds *c, struct transport *inner, struct error *err)
{
	struct tls *s = calloc(1, sizeof(*s));

	if (!s) {
		err_set(err, ST_NOMEM, "out of memory for TLS with %s", inner->name);
		return NULL;
	}
	s->inner = inner;
	s->creds = c;
	pthread_mutex_init(&s->lock, NULL);
	s->held = malloc(2 * TLS_RECORD);
	s->gather = s->held ? s->held + TLS_RECORD : NULL;
	if (!s->held)
		err_set(err, ST_NOMEM, "out of memory for TLS with %s", inner->name);
	if (s->held && !open_session(s, err))
		return s;
	tls_free(s);
	return NULL;
}

struct transport *tls_wrap(struct tls_creds *c, struct transport *inner, struct error *err)
{
	struct transport *t = NULL;
	struct error ignored;
	struct tls *s = NULL;

	if (inner->rfd < 0 || inner->wfd < 0)
		err_set(err, ST_UNSUPPORTED, "%s: TLS needs both ways, and this one has one",
			inner->name);
	else
		s = tls_new(c, inner, err);
	if (s)
		t = io_new(&tls_ops, inner->name, inner->cancel, err);
	if (!t) {
		if (s)
			tls_free(s);
		transport_close(inner, &ignored);
		return NULL;
	}
	t->priv = s;
	t->two_way = true;
	t->end_status = inner->end_status;
	/* for those who poll; what they carry nobody but this file can read */
	t->rfd = inner->rfd;
	t->wfd = inner->wfd;
	return t;
}
