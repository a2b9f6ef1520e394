// SPDX-License-Identifier: GPL-2.0-or-later
#include "pending.h"

#include "byteorder.h"
#include "log.h"
#include "transport-io.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

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

/* 1: there is one more, 0: it was gone already, -1. */
static int accept_one(struct pending *p, struct error *err)
{
	struct transport *t = listener_accept(p->l, 0, err);

	if (!t)
		return err->status == ST_OK ? 0 : -1;
	if (p->n == PENDING_MAX) {
		log_warn("dropped the connection from %s: it said nothing, and %d others wait",
			 p->one[0].t->name, PENDING_MAX);
		drop(p, 0);
	}
	p->one[p->n++] = (struct pending_one){
		.t = t,
		.since = io_now_ms(),
		.deadline = io_deadline(p->silence_ms),
		.fresh = t->ops->peek != NULL,
	};
	return 1;
}

static bool enough(const uint8_t *first, ssize_t n)
{
	uint32_t magic = get_be32(first);

	if (n >= 4 && magic == MAGIC_MULTIFD)
		return n >= MULTIFD_FIRST;
	return n >= 8 || (n >= 4 && magic == MAGIC_QEVM);
}

/* What connection i has said. 1: enough, 0: not yet, -1: it was dropped. */
static int examine(struct pending *p, int i, short revents, uint8_t first[8])
{
	struct pending_one *c = &p->one[i];
	uint8_t said[MULTIFD_FIRST] = { 0 };
	struct error why;
	ssize_t n = transport_peek(c->t, said, sizeof(said), &why);

	c->fresh = false;
	memcpy(first, said, 8);
	if (n > 0 && enough(said, n))
		return 1;
	c->partial = n > 0;
	if (n < 0 || revents & (POLLHUP | POLLRDHUP | POLLERR))
		log_warn("dropped the connection from %s: it ended after %zd byte%s", c->t->name,
			 n < 0 ? 0 : n, n == 1 ? "" : "s");
	else if (!io_left_ms(c->deadline))
		log_warn("dropped the connection from %s: it said %s in %g s", c->t->name,
			 n ? "too little" : "nothing", p->silence_ms / 1000.0);
	else
		return 0;
	drop(p, i);
	return -1;
}

/* How long no further connection may be accepted. */
static int full_ms(const struct pending *p)
{
	return p->n < PENDING_MAX ? 0 : io_left_ms(p->one[0].since + p->grace_ms);
}

/* Until when nothing has to be looked at unless a descriptor is ready. */
static int wait_ms(const struct pending *p, int64_t deadline)
{
	int ms = io_left_ms(deadline), full = full_ms(p);

	if (full && (ms < 0 || full < ms))
		ms = full;
	for (int i = 0; i < p->n; i++) {
		int left = p->one[i].fresh ? 0 : io_left_ms(p->one[i].deadline);

		if (p->one[i].partial && left > PARTIAL_STEP_MS)
			left = PARTIAL_STEP_MS;
		if (ms < 0 || left < ms)
			ms = left;
	}
	return ms;
}

/* One wait for everything. pfd[0] is the token, [1] the listener, then the connections. */
static int wait_all(struct pending *p, int64_t deadline, struct pollfd *pfd, struct error *err)
{
	int rc;

	pfd[0] = (struct pollfd){ .fd = p->cancel->fd, .events = POLLIN };
	pfd[1] = (struct pollfd){ .fd = full_ms(p) ? -1 : listener_fd(p->l), .events = POLLIN };
	for (int i = 0; i < p->n; i++)
		pfd[2 + i] = (struct pollfd){
			.fd = p->one[i].t->rfd,
			.events = p->one[i].partial ? POLLRDHUP : POLLIN | POLLRDHUP,
		};
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
				return 1;
			}
		if (pfd[1].revents && accept_one(p, err) < 0)
			return -1;
		else if (!pfd[1].revents && !io_left_ms(deadline))
			return 0;
	}
}
