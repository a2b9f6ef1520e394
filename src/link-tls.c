// SPDX-License-Identifier: GPL-2.0-or-later
/* TLS on a session's connections: those that are dialled, those that are accepted. */
#include "link.h"
#include "log.h"

#include <arpa/inet.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#define OBJECTION_MS 250

/* A destination that dials is TLS's server and waits for a source that may have to get ready. */
struct transport *link_secure(struct session *ss, struct transport *t, struct error *err)
{
	int64_t first_ms = ss->cfg->timeout >= 0 ? link_timeout_ms(ss) : -1;
	struct error ignored;
	char text[512];

	if (ss->role == ROLE_SOURCE)
		first_ms = TLS_HANDSHAKE_MS;
	t = tls_wrap(ss->tls, t, err);
	if (!t)
		return NULL;
	if (tls_handshake(t, (int)first_ms, err)) {
		transport_close(t, &ignored);
		return NULL;
	}
	tls_describe(t, text, sizeof(text));
	log_verbose("%s is %s", t->name, text);
	t->lax_end = ss->role == ROLE_SOURCE && ss->cfg->peer == PEER_QEMU;
	return t;
}

/* Until the other host has all that was written, or does not say so for a second. */
static int await_delivery(struct session *ss, struct error *err)
{
	int left;

	for (int ms = 0; ms < 1000; ms += 5) {
		if (ioctl(ss->main->wfd, SIOCOUTQ, &left) || !left)
			return 0;
		if (cancel_wait(&ss->cancel, -1, 0, 5, err))
			return -1;
	}
	return 0;
}

/*
 * A QEMU looks at our certificate when its handshake is done, and if it does not like it, closes
 * without a word. It never speaks first, so whatever it has to say now is that. (And its channels
 * have to come later than its main connection has got through: the first to be done is main.)
 */
int link_await_objection(struct session *ss, struct error *err)
{
	char byte;
	int r;

	if (!ss->main->lax_end)
		return 0;
	if (await_delivery(ss, err))
		return -1;
	r = transport_poll_in(ss->main, OBJECTION_MS, err);
	if (r <= 0)
		return r;
	if (transport_read(ss->main, &byte, 1, err) > 0)
		return err_set(err, ST_PROTOCOL, "%s speaks before it was spoken to, as no QEMU",
			       ss->main->name);
	if (cancel_fired(&ss->cancel))
		return cancel_reason(&ss->cancel, err);
	if (err->status != ST_REFUSED)
		err_set(err, ST_REFUSED,
			"TLS with %s: the destination closed the connection after the handshake, "
			"so "
			"it does not accept our credentials (%s)",
			ss->main->name, tls_creds_kind(ss->tls));
	return err_hint(err, "the QEMU says why: its log, its tls-creds and tls-authz");
}

/* A migtool whose user forgot tls-creds reads why in the answer to its greeting. */
static bool refuse_plain(struct transport *t, const uint8_t first[8])
{
	struct greet_answer a = { .take = false, .multifd_channels = 1 };
	struct error ignored;
	struct stream s;

	if (memcmp(first, GREET_MAGIC, GREET_MAGIC_LEN))
		return false;
	snprintf(a.program, sizeof(a.program), "migtool %s", MIGTOOL_VERSION);
	err_set(&a.why, ST_REFUSED, "the destination wants TLS, and the source speaks none");
	err_hint(&a.why, "send --param tls-creds=DIR");
	if (stream_open(&s, t, 0, 4096, &ignored))
		return false;
	greet_answer_put(&s, &a, &ignored);
	stream_close(&s);
	return true;
}

void link_secure_pending(struct session *ss)
{
	ss->pending->tls = ss->tls;
	ss->pending->client = ss->role == ROLE_SOURCE;
	if (ss->role == ROLE_DESTINATION)
		ss->pending->refuse_plain = refuse_plain;
}

static bool is_loopback(const struct sockaddr_storage *sa)
{
	struct sockaddr_in6 v6;
	struct sockaddr_in v4;

	memcpy(&v6, sa, sizeof(v6));
	memcpy(&v4, sa, sizeof(v4));
	if (sa->ss_family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(&v6.sin6_addr))
		return v6.sin6_addr.s6_addr[12] == 127;
	if (sa->ss_family == AF_INET6)
		return IN6_IS_ADDR_LOOPBACK(&v6.sin6_addr);
	return sa->ss_family != AF_INET || ntohl(v4.sin_addr.s_addr) >> 24 == 127;
}

/* Whoever reaches the port is taken for the other end. */
void link_warn_open(struct session *ss, const char *uri)
{
	struct sockaddr_storage sa = { 0 };
	socklen_t len = sizeof(sa);

	if (ss->tls || getsockname(listener_fd(ss->listener), (struct sockaddr *)&sa, &len) ||
	    is_loopback(&sa))
		return;
	log_warn("%s has no TLS: who reaches it can %s; --param tls-creds=DIR protects it", uri,
		 ss->role == ROLE_DESTINATION ? "send an image of his own or read along"
					      : "fetch the image or read along");
}
