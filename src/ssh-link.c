// SPDX-License-Identifier: GPL-2.0-or-later
#include "ssh-link.h"

#include "congestion.h"
#include "ssh-known.h"
#include "transport-io.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#ifdef __aarch64__
#include <sys/auxv.h>
#endif

#define IN_SIZE	   (256u << 10)
#define OUT_SIZE   (512u << 10)
#define ONE_PACKET (64u << 10) /* libssh2's are at most 35000 bytes; a call may send two */

/* ---- libssh2's side of the buffers ---- */

static ssize_t take_in(libssh2_socket_t fd, void *buf, size_t len, int flags, void **abstract)
{
	struct ssh_link *l = *abstract;
	size_t n = l->in_end - l->in_at;

	(void)fd;
	(void)flags;
	/* The end is ours to notice: libssh2 would forget what it has read and not yet handed on.
	 */
	if (!n)
		return l->errnum ? -l->errnum : -EAGAIN;
	if (n > len)
		n = len;
	memcpy(buf, l->in + l->in_at, n);
	l->in_at += n;
	return (ssize_t)n;
}

static ssize_t give_out(libssh2_socket_t fd, const void *buf, size_t len, int flags,
			void **abstract)
{
	struct ssh_link *l = *abstract;

	(void)fd;
	(void)flags;
	if (l->errnum)
		return -l->errnum;
	if (l->out_end + len > OUT_SIZE && l->out_at) {
		memmove(l->out, l->out + l->out_at, l->out_end - l->out_at);
		l->out_end -= l->out_at;
		l->out_at = 0;
	}
	if (l->out_end + len > OUT_SIZE)
		return -EAGAIN;
	memcpy(l->out + l->out_end, buf, len);
	l->out_end += len;
	return (ssize_t)len;
}

static void said_goodbye(LIBSSH2_SESSION *s, int reason, const char *message, int len,
			 const char *language, int language_len, void **abstract)
{
	struct ssh_link *l = *abstract;

	(void)s;
	(void)reason;
	(void)language;
	(void)language_len;
	snprintf(l->said, sizeof(l->said), "%.*s", len > 0 ? len : 0, len > 0 ? message : "");
}

/* ---- our side ---- */

bool ssh_link_room(const struct ssh_link *l)
{
	return OUT_SIZE - (l->out_end - l->out_at) >= ONE_PACKET;
}

/* After a call that failed: 0 if it only has to wait, else -1. */
static int not_now(struct ssh_link *l)
{
	if (errno == EAGAIN)
		return 0;
	l->errnum = errno;
	return -1;
}

int ssh_link_flush(struct ssh_link *l)
{
	ssize_t n;

	if (!ssh_link_unsent(l))
		return 0;
	do
		n = send(l->tcp->wfd, l->out + l->out_at, l->out_end - l->out_at,
			 MSG_DONTWAIT | MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return not_now(l);
	l->out_at += (size_t)n;
	if (l->out_at == l->out_end)
		l->out_at = l->out_end = 0;
	return 1;
}

static void remember_first(struct ssh_link *l, size_t n)
{
	size_t have = strlen(l->first), room = sizeof(l->first) - 1 - have;

	if (n > room)
		n = room;
	for (size_t i = 0; i < n; i++)
		l->first[have + i] = (char)(l->in[i] ? l->in[i] : '?');
}

int ssh_link_fill(struct ssh_link *l)
{
	ssize_t n;

	if (ssh_link_unread(l) || l->in_eof)
		return 0;
	l->in_at = l->in_end = 0;
	do
		n = recv(l->tcp->rfd, l->in, IN_SIZE, MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return not_now(l);
	if (!n)
		l->in_eof = true;
	l->in_end = (size_t)n;
	if (n && strlen(l->first) < sizeof(l->first) - 1)
		remember_first(l, (size_t)n);
	return n > 0;
}

int ssh_link_turn(struct ssh_link *l, struct error *err)
{
	struct pollfd p[] = { { .fd = l->tcp->rfd },
			      { .fd = l->tcp->cancel->fd, .events = POLLIN } };

	for (;;) {
		int left = io_left_ms(l->deadline), n, got;

		if (io_stopped(l->tcp, err))
			return -1;
		got = ssh_link_flush(l) < 0 ? -1 : ssh_link_fill(l);
		/* libssh2 has yet to see the end, or the words before it */
		if (got || l->in_eof)
			return ssh_link_unread(l) ? 0 : ssh_link_failed(l, 0, "", ST_SOCKET, err);
		if (!left)
			return err_set(err, ST_TIMEOUT, "%s does not answer in time", l->name);
		p[0].events = (short)(POLLIN | (ssh_link_unsent(l) ? POLLOUT : 0));
		n = poll(p, 2, left);
		if (n < 0 && errno != EINTR)
			return err_sys(err, ST_SOCKET, errno, "poll failed");
	}
}

int ssh_link_failed(struct ssh_link *l, int rc, const char *what, enum status otherwise,
		    struct error *err)
{
	const char *colon = *what ? ": " : "";
	char *text = NULL;

	if (rc == LIBSSH2_ERROR_EAGAIN)
		return -1;
	if (rc == LIBSSH2_ERROR_ALLOC)
		return err_set(err, ST_NOMEM, "%s: no memory for ssh", l->name);
	if (l->said[0])
		return err_set(err, ST_SOCKET, "%s%s%s: it disconnected: %s", l->name, colon, what,
			       l->said);
	if (l->errnum)
		return err_sys(err, ST_SOCKET, l->errnum, "%s%s%s: the connection was lost",
			       l->name, colon, what);
	if (l->in_eof && !ssh_link_unread(l))
		return err_set(err, ST_SOCKET, "%s%s%s: it closed the connection", l->name, colon,
			       what);
	libssh2_session_last_error(l->s, &text, NULL, 0);
	return err_set(err, otherwise, "%s%s%s: %s", l->name, colon, what,
		       text && *text ? text : "ssh failed");
}

/* ---- setting up ---- */

static pthread_once_t once = PTHREAD_ONCE_INIT;

static void init_library(void)
{
	libssh2_init(0);
}

void ssh_link_prepare(void)
{
	pthread_once(&once, init_library);
}

/* AES without instructions of its own is slower than ChaCha20. */
static bool aes_is_fast(void)
{
#if defined(__x86_64__) || defined(__i386__)
	return __builtin_cpu_supports("aes");
#elif defined(__aarch64__)
	return getauxval(AT_HWCAP) & 8; /* HWCAP_AES */
#else
	return true;
#endif
}

bool ssh_link_knows(struct ssh_link *l, int kind, const char *method)
{
	const char **all = NULL;
	int n = libssh2_session_supported_algs(l->s, kind, &all);
	bool found = false;

	for (int i = 0; i < n; i++)
		found = found || !strcmp(all[i], method);
	if (n > 0)
		libssh2_free(l->s, all);
	return found;
}

/* The methods that libssh2 knows; it would leave out the others itself, by an overlapping memcpy.
 */
static void keep_known(struct ssh_link *l, int kind, const char *methods, char *out, size_t size)
{
	size_t n = 0;

	out[0] = '\0';
	while (*methods) {
		size_t len = strcspn(methods, ",");
		char one[64];

		snprintf(one, sizeof(one), "%.*s", (int)len, methods);
		if (n + len + 2 <= size && ssh_link_knows(l, kind, one))
			n += (size_t)snprintf(out + n, size - n, "%s%s", n ? "," : "", one);
		methods += len + (methods[len] == ',');
	}
}

/*
 * By measured speed among what is still good, and known to libssh2: 1.10 has neither AES-GCM nor
 * ChaCha20 nor the -etm MACs. It encrypts 16 bytes a call, so the key's length hardly matters, and
 * the MAC costs a third.
 */
static int prefer(struct ssh_link *l, const char *hostkeys, struct error *err)
{
	const char *crypt = aes_is_fast() ? "aes128-gcm@openssh.com,aes256-gcm@openssh.com,"
					    "aes128-ctr,aes192-ctr,aes256-ctr,"
					    "chacha20-poly1305@openssh.com"
					  : "chacha20-poly1305@openssh.com,aes128-ctr,aes192-ctr,"
					    "aes256-ctr,aes128-gcm@openssh.com";
	const char *mac = "hmac-sha2-256-etm@openssh.com,hmac-sha2-256,hmac-sha2-512-etm@openssh."
			  "com,hmac-sha2-512,hmac-sha1";
	const struct {
		int kind;
		const char *methods;
	} prefs[] = { { LIBSSH2_METHOD_CRYPT_CS, crypt },  { LIBSSH2_METHOD_CRYPT_SC, crypt },
		      { LIBSSH2_METHOD_MAC_CS, mac },	   { LIBSSH2_METHOD_MAC_SC, mac },
		      { LIBSSH2_METHOD_COMP_CS, "none" },  { LIBSSH2_METHOD_COMP_SC, "none" },
		      { LIBSSH2_METHOD_HOSTKEY, hostkeys } };

	for (size_t i = 0; i < sizeof(prefs) / sizeof(prefs[0]); i++) {
		char known[512];
		int rc;

		keep_known(l, prefs[i].kind, prefs[i].methods, known, sizeof(known));
		rc = libssh2_session_method_pref(l->s, prefs[i].kind, known);

		if (rc)
			return ssh_link_failed(l, rc, "no method for ssh", ST_UNSUPPORTED, err);
	}
	return 0;
}

/* Our own dialler's words are about a migtool that listens. */
static struct transport *dial(const char *host, unsigned port, const char *text, int timeout_ms,
			      struct cancel *cancel, struct error *err)
{
	struct uri uri = { .scheme = SCHEME_TCP,
			   .text = (char *)text,
			   .host = (char *)host,
			   .port = port,
			   .fd = -1 };
	struct transport *t = tcp_dial(&uri, true, timeout_ms, cancel, err);

	if (!t && err->status == ST_CONNECT)
		err_hint(err, "is there an ssh server on port %u of %s?", port, host);
	return t;
}

struct ssh_link *ssh_link_open(const char *host, unsigned port, const char *text, int timeout_ms,
			       struct cancel *cancel, struct error *err)
{
	struct ssh_link *l = calloc(1, sizeof(*l));
	int64_t deadline = io_deadline(timeout_ms);

	ssh_link_prepare();
	if (!l || !(l->in = malloc(IN_SIZE)) || !(l->out = malloc(OUT_SIZE)) ||
	    !(l->s = libssh2_session_init_ex(NULL, NULL, NULL, l))) {
		err_set(err, ST_NOMEM, "no memory for ssh");
		ssh_link_close(l);
		return NULL;
	}
	libssh2_session_set_blocking(l->s, 0);
	libssh2_session_callback_set(l->s, LIBSSH2_CALLBACK_RECV, (void *)take_in);
	libssh2_session_callback_set(l->s, LIBSSH2_CALLBACK_SEND, (void *)give_out);
	libssh2_session_callback_set(l->s, LIBSSH2_CALLBACK_DISCONNECT, (void *)said_goodbye);
	l->port = port;
	l->deadline = deadline;
	known_name(l->name, sizeof(l->name), host, port);
	l->tcp = dial(host, port, text, timeout_ms, cancel, err);
	if (l->tcp) {
		l->rtt_us = congestion_rtt_us(l->tcp->rfd);
		return l;
	}
	ssh_link_close(l);
	return NULL;
}

void ssh_link_close(struct ssh_link *l)
{
	struct error ignored;

	if (!l)
		return;
	if (l->s) {
		if (l->tcp && !l->errnum && !l->in_eof) {
			libssh2_session_disconnect(l->s, "bye");
			ssh_link_flush(l);
		}
		libssh2_session_free(l->s);
	}
	transport_close(l->tcp, &ignored);
	free(l->in);
	free(l->out);
	free(l);
}

static int no_ssh_server(struct ssh_link *l, struct error *err)
{
	size_t line = strcspn(l->first, "\r\n");

	err_set(err, ST_CONNECT, "%s is no ssh server: it says \"%.*s\"", l->name, (int)line,
		l->first);
	return err_hint(err, "is port %u the right one? -p PORT or ssh://HOST:PORT/ chooses it",
			l->port);
}

static int no_common_method(struct ssh_link *l, struct error *err)
{
	err_set(err, ST_CONNECT,
		"%s: no common method of key exchange, host key or cipher with libssh2 %s", l->name,
		libssh2_version(0));
	return err_hint(err, "the OpenSSH client may know what that server wants: --rsh ssh");
}

int ssh_link_handshake(struct ssh_link *l, const char *hostkeys, struct error *err)
{
	int rc;

	if (prefer(l, hostkeys, err))
		return -1;
	SSH_LINK_RUN(l, rc, libssh2_session_handshake(l->s, l->tcp->rfd), err);
	if (!rc)
		return 0;
	if (l->first[0] && !strstr(l->first, "SSH-") && rc != LIBSSH2_ERROR_ALLOC &&
	    !cancel_fired(l->tcp->cancel))
		return no_ssh_server(l, err);
	if (rc == LIBSSH2_ERROR_KEX_FAILURE || rc == LIBSSH2_ERROR_METHOD_NONE)
		return no_common_method(l, err);
	ssh_link_failed(l, rc, "the ssh handshake failed", ST_CONNECT, err);
	if (err->status == ST_SOCKET)
		err->status = ST_CONNECT;
	return -1;
}
