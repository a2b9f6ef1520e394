// SPDX-License-Identifier: GPL-2.0-or-later
#include "pending.h"

#include "byteorder.h"
#include "log.h"
#include "transport-io.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define PARTING_MS    1000
#define PARTING_BYTES (64 << 10)
#define SHORT_MS      1000
#define SILENCE_MS    10000
#define GRACE_MS      1000
#define MAGIC_QEVM    0x5145564dU
#define MAGIC_MULTIFD 0x11223344U
#define MULTIFD_FIRST 64 /* a channel's first packet, which is written as a whole */

/*
 * poll() says at once that one byte is there, and says it again and again: a connection that has
 * said too little is looked at in these steps instead.
 */
#define PARTIAL_STEP_MS 20

struct pending *pending_new(struct listener *l, struct cancel *cancel, struct error *err)
{
	struct pending *p = calloc(1, sizeof(*p));

	if (!p) {
		err_set(err, ST_NOMEM, "out of memory for pending connections");
		return NULL;
	}
	p->l = l;
	p->cancel = cancel;
	p->silence_ms = SILENCE_MS;
	p->grace_ms = GRACE_MS;
	return p;
}

static struct transport *take(struct pending *p, int i)
{
	struct transport *t = p->one[i].t;

	p->n--;
	memmove(&p->one[i], &p->one[i + 1], (size_t)(p->n - i) * sizeof(p->one[0]));
	return t;
}

static void drop(struct pending *p, int i)
{
	struct error ignored; /* a socket's close reports nothing that matters now */

	free(p->one[i].said);
	transport_close(take(p, i), &ignored);
}

void pending_free(struct pending *p)
{
	if (!p)
		return;
	while (p->n)
		drop(p, p->n - 1);
	free(p);
}

/* The oldest gives its place to another one. */
static void make_room(struct pending *p)
{
	if (p->one[0].state != PENDING_PARTING)
		log_warn("dropped the connection from %s: it said nothing, and %d others wait",
			 p->one[0].t->name, p->n);
	p->evicted++;
	drop(p, 0);
}

/* Too many connections are no reason to hear none any more. */
static bool is_shortage(const struct error *err)
{
	return err->status == ST_NOMEM || err->sys == EMFILE || err->sys == ENFILE ||
	       err->sys == ENOBUFS || err->sys == ENOMEM;
}

static void bear_shortage(struct pending *p, const struct error *why)
{
	if (p->n) {
		make_room(p);
		return;
	}
	log_warn("%s; trying again", why->msg);
	p->short_until = io_now_ms() + SHORT_MS;
}

static bool may_be_silent(const struct pending *p, const struct pending_one *c)
{
	return p->quiet && c->state == PENDING_SPEECH;
}

/* Of the time that connection c has, -1: no limit. */
static int left_ms(const struct pending *p, const struct pending_one *c)
{
	return may_be_silent(p, c) ? -1 : io_left_ms(c->deadline);
}

/* TLS over it from now on. -1: it is gone, and its place with it. */
static int begin_tls(struct pending *p, int i)
{
	struct pending_one *c = &p->one[i];
	struct transport *inner = c->t;
	struct error why;

	c->t = tls_wrap(p->tls, inner, &why);
	if (!c->t) {
		log_warn("dropped a connection: %s", why.msg);
		take(p, i);
		return -1;
	}
	c->state = PENDING_HANDSHAKE;
	c->fd = c->t->wfd;
	c->events = POLLOUT; /* whatever comes first: it is asked at once */
	c->partial = false;
	c->deadline = io_deadline(p->silence_ms);
	return 0;
}

/* 1: there is one more, 0: it was gone already or cannot be had now, -1. */
static int accept_one(struct pending *p, struct error *err)
{
	struct transport *t;

	err_clear(err);
	t = listener_accept(p->l, 0, err);
	if (!t && is_shortage(err)) {
		bear_shortage(p, err);
		return 0;
	}
	if (!t)
		return err->status == ST_OK ? 0 : -1;
	if (p->n == PENDING_MAX)
		make_room(p);
	p->one[p->n++] = (struct pending_one){
		.t = t,
		.state = p->tls ? PENDING_TLS : PENDING_SPEECH,
		.since = io_now_ms(),
		.deadline = io_deadline(p->silence_ms),
		.fresh = t->ops->peek != NULL,
	};
	if (p->tls && p->client)
		begin_tls(p, p->n - 1);
	return 1;
}

static bool enough(const uint8_t *first, ssize_t n)
{
	uint32_t magic = get_be32(first);

	if (n >= 4 && magic == MAGIC_MULTIFD)
		return n >= MULTIFD_FIRST;
	return n >= 8 || (n >= 4 && magic == MAGIC_QEVM);
}

/* It was refused. What it was told travels better if it is not reset at once. */
static void part(struct pending_one *c)
{
	shutdown(c->t->wfd, SHUT_WR);
	c->state = PENDING_PARTING;
	c->partial = false;
	c->deadline = io_deadline(PARTING_MS);
}

/* Reads what nobody wants any more. 0: it goes on, -1: it is gone. */
static int go_on_parting(struct pending *p, int i)
{
	struct pending_one *c = &p->one[i];
	char rest[4096];
	ssize_t n = recv(c->t->rfd, rest, sizeof(rest), MSG_DONTWAIT);

	c->refused += n > 0 ? (size_t)n : 0;
	if (io_left_ms(c->deadline) && c->refused < PARTING_BYTES &&
	    (n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR))))
		return 0;
	drop(p, i);
	return -1;
}

/*
 * Looks at what connection i has said, `want` bytes at most. 1: there is something, 0: not yet, -1:
 * it was dropped.
 */
static int look(struct pending *p, int i, short revents,
		bool (*enough_of)(const uint8_t *, ssize_t), uint8_t said[MULTIFD_FIRST])
{
	struct pending_one *c = &p->one[i];
	struct error why;
	ssize_t n;

	c->fresh = false;
	memset(said, 0, MULTIFD_FIRST);
	n = transport_peek(c->t, said, MULTIFD_FIRST, &why);
	if (n > 0 && enough_of(said, n))
		return 1;
	c->partial = n > 0;
	if (n < 0 && why.status == ST_REFUSED)
		log_warn("dropped the connection from %s: %s", c->t->name, why.msg);
	else if (n < 0 && may_be_silent(p, c))
		log_verbose("%s has ended", c->t->name);
	else if (n < 0 && p->tls && c->state == PENDING_SPEECH) /* as a QEMU does it */
		log_warn("dropped the connection from %s: it ended after the TLS handshake, so it "
			 "does not accept our credentials",
			 c->t->name);
	else if (n < 0 || revents & (POLLHUP | POLLRDHUP | POLLERR))
		log_warn("dropped the connection from %s: it ended after %zd byte%s", c->t->name,
			 n < 0 ? 0 : n, n == 1 ? "" : "s");
	else if (!left_ms(p, c))
		log_warn("dropped the connection from %s: it said %s in %g s", c->t->name,
			 n ? "too little" : "nothing", p->silence_ms / 1000.0);
	else
		return 0;
	drop(p, i);
	return -1;
}

/* ---- more than the first bytes ---- */

static bool keep(struct pending_one *c, const uint8_t *bytes, size_t len)
{
	if (c->len + len > c->cap) {
		size_t cap = 2 * (c->len + len);
		uint8_t *more = realloc(c->said, cap);

		if (!more)
			return false;
		c->said = more;
		c->cap = cap;
	}
	memcpy(c->said + c->len, bytes, len);
	c->len += len;
	return true;
}

/* It has said all: it is read again by who takes it. */
static int give_back(struct pending_one *c, uint8_t first[8])
{
	memset(first, 0, 8);
	memcpy(first, c->said, c->len < 8 ? c->len : 8);
	transport_unread(c->t, c->said, c->len);
	c->said = NULL;
	return 1;
}

/* 1: all is here, 0: not yet, -1: it was dropped. */
static int gather(struct pending *p, int i, uint8_t first[8])
{
	struct pending_one *c = &p->one[i];
	uint8_t bytes[4096];
	struct error why;
	ssize_t n;

	/* what can be seen can be read without a wait */
	while ((n = transport_peek(c->t, bytes, sizeof(bytes), &why)) > 0) {
		n = transport_read(c->t, bytes, (size_t)n, &why);
		if (n <= 0)
			break;
		if (!keep(c, bytes, (size_t)n)) {
			n = err_set(&why, ST_NOMEM, "no memory for its greeting");
			break;
		}
		if (!p->whole || p->whole(c->said, c->len))
			return give_back(c, first);
	}
	if (n < 0 && (why.status == ST_REFUSED || why.status == ST_NOMEM))
		log_warn("dropped the connection from %s: %s", c->t->name, why.msg);
	else if (n < 0)
		log_warn("dropped the connection from %s: it ended after %zu byte%s", c->t->name,
			 c->len, c->len == 1 ? "" : "s");
	else if (!io_left_ms(c->deadline))
		log_warn("dropped the connection from %s: it has not said who it is within %g s",
			 c->t->name, p->silence_ms / 1000.0);
	else
		return 0;
	drop(p, i);
	return -1;
}

/* A TLS client's first byte is enough to know it by. */
static bool enough_or_tls(const uint8_t *first, ssize_t n)
{
	return first[0] == TLS_FIRST_BYTE || enough(first, n);
}

/* A client that wants TLS understands an alert, without encryption at this point. */
static void refuse_tls(struct pending_one *c)
{
	static const uint8_t protocol_version[] = { 21, 3, 3, 0, 2, 2, 70 };
	struct iovec iov = { (void *)protocol_version, sizeof(protocol_version) };
	struct error ignored;

	log_warn("dropped the connection from %s: the source speaks TLS; give --param "
		 "tls-creds=DIR",
		 c->t->name);
	transport_writev(c->t, &iov, 1, &ignored);
	part(c);
}

/* 0: it may part, -1: it is gone. */
static int refuse_plain(struct pending *p, int i, const uint8_t first[8])
{
	struct pending_one *c = &p->one[i];
	char shown[64];

	log_warn("dropped the connection from %s: it begins with \"%s\", which is no TLS, and "
		 "tls-creds is given here",
		 c->t->name, log_escape(shown, sizeof(shown), first, 8));
	if (p->refuse_plain && p->refuse_plain(c->t, first)) {
		part(c);
		return 0;
	}
	drop(p, i);
	return -1;
}

/* 1: it is done, 0: not yet, -1: no longer in its place, or only to part. */
static int go_on_shaking(struct pending *p, int i)
{
	struct pending_one *c = &p->one[i];
	char text[512];
	struct error why;
	int r = tls_handshake_step(c->t, &c->fd, &c->events, &why);

	if (r > 0) {
		log_verbose("%s is %s", c->t->name, (tls_describe(c->t, text, sizeof(text)), text));
		c->state = PENDING_SPEECH;
		c->deadline = io_deadline(p->silence_ms);
		return 1;
	}
	if (r < 0) {
		log_warn("dropped the connection: %s", why.msg);
		if (why.hint[0])
			log_warn("hint: %s", why.hint);
		part(c);
		return -1;
	}
	if (io_left_ms(c->deadline))
		return 0;
	log_warn("dropped the connection from %s: no TLS handshake in %g s", c->t->name,
		 p->silence_ms / 1000.0);
	drop(p, i);
	return -1;
}

/* What connection i has said. 1: enough, 0: not yet, -1: it was dropped. */
static int examine(struct pending *p, int i, short revents, uint8_t first[8])
{
	uint8_t said[MULTIFD_FIRST];
	int r;

	if (p->one[i].state == PENDING_TLS) {
		r = look(p, i, revents, enough_or_tls, said);
		if (r <= 0)
			return r;
		if (said[0] != TLS_FIRST_BYTE)
			return refuse_plain(p, i, said);
		if (begin_tls(p, i))
			return -1;
	}
	if (p->one[i].state == PENDING_HANDSHAKE) {
		r = go_on_shaking(p, i);
		if (r <= 0)
			return r;
		revents = 0; /* it may have said all and gone: the transport knows */
	}
	if (p->one[i].state == PENDING_PARTING)
		return go_on_parting(p, i);
	if (p->one[i].state == PENDING_GATHERING)
		return gather(p, i, first);
	r = look(p, i, revents, p->tls ? enough : enough_or_tls, said);
	if (r > 0 && !p->tls && said[0] == TLS_FIRST_BYTE) {
		refuse_tls(&p->one[i]);
		return 0;
	}
	if (r > 0 && p->whole && get_be32(said) != MAGIC_MULTIFD) {
		p->one[i].state = PENDING_GATHERING;
		p->one[i].partial = false;
		return gather(p, i, first);
	}
	memcpy(first, said, 8);
	return r;
}

/* How long no further connection may be accepted. */
static int full_ms(const struct pending *p)
{
	int until_then = p->short_until ? io_left_ms(p->short_until) : 0;

	if (until_then)
		return until_then;
	if (p->n < PENDING_MAX || p->evicted >= PENDING_FLOOD)
		return 0;
	return io_left_ms(p->one[0].since + p->grace_ms);
}

/* Until when nothing has to be looked at unless a descriptor is ready. */
static int wait_ms(const struct pending *p, int64_t deadline)
{
	int ms = io_left_ms(deadline), full = full_ms(p);

	if (full && (ms < 0 || full < ms))
		ms = full;
	for (int i = 0; i < p->n; i++) {
		int left = p->one[i].fresh ? 0 : left_ms(p, &p->one[i]);

		if (p->one[i].partial && (left < 0 || left > PARTIAL_STEP_MS))
			left = PARTIAL_STEP_MS;
		if (left >= 0 && (ms < 0 || left < ms))
			ms = left;
	}
	return ms;
}

static struct pollfd await(const struct pending_one *c)
{
	if (c->state == PENDING_HANDSHAKE)
		return (struct pollfd){ .fd = c->fd, .events = c->events };
	return (struct pollfd){
		.fd = c->t->rfd,
		.events = c->partial ? POLLRDHUP : POLLIN | POLLRDHUP,
	};
}

/* One wait for everything. pfd[0] is the token, [1] the listener, then the connections. */
static int wait_all(struct pending *p, int64_t deadline, struct pollfd *pfd, struct error *err)
{
	int rc;

	pfd[0] = (struct pollfd){ .fd = p->cancel->fd, .events = POLLIN };
	pfd[1] = (struct pollfd){ .fd = full_ms(p) ? -1 : listener_fd(p->l), .events = POLLIN };
	for (int i = 0; i < p->n; i++)
		pfd[2 + i] = await(&p->one[i]);
	rc = poll(pfd, (nfds_t)p->n + 2, wait_ms(p, deadline));
	if (cancel_fired(p->cancel))
		return cancel_reason(p->cancel, err);
	if (rc < 0 && errno != EINTR)
		return err_sys(err, ST_SOCKET, errno, "cannot wait for connections to %s",
			       listener_uri(p->l));
	if (rc < 0) /* nothing is known of any of them */
		for (int i = 0; i < 2 + p->n; i++)
			pfd[i].revents = 0;
	return 0;
}

int pending_next(struct pending *p, int timeout_ms, uint8_t first[8], struct transport **t,
		 struct error *err)
{
	int64_t deadline = io_deadline(timeout_ms);

	for (;;) {
		struct pollfd pfd[2 + PENDING_MAX];

		if (wait_all(p, deadline, pfd, err))
			return -1;
		/* From the last to the first: a dropped one moves only those behind it. */
		for (int i = p->n - 1; i >= 0; i--)
			if (examine(p, i, pfd[2 + i].revents, first) == 1) {
				*t = take(p, i);
				p->evicted = 0;
				return 1;
			}
		if (pfd[1].revents && accept_one(p, err) < 0)
			return -1;
		else if (!pfd[1].revents && !io_left_ms(deadline))
			return 0;
	}
}
