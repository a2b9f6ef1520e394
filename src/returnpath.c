// SPDX-License-Identifier: GPL-2.0-or-later
#include "returnpath.h"

#include "byteorder.h"
#include "link.h"
#include "log.h"
#include "queue.h"
#include "wire.h"

#include <string.h>

/*
 * Signs of life count for --timeout, so a destination that says nothing else would never be given
 * up. What it says to have placed proves nothing; what it takes from us does.
 */
static int check_moving(struct returnpath *rp, struct error *err)
{
	struct session *ss = rp->ss;
	uint64_t now = stats_now(), limit = link_patience_ms(ss);
	uint64_t sent = ss->stream.bytes_out + stat_get(&ss->stats.multifd_bytes);

	if (sent != rp->sent || !rp->sent_at) {
		rp->sent = sent;
		rp->sent_at = now;
		return 0;
	}
	/* a guest that needs nothing may go on for ever */
	if (now - rp->sent_at <= limit || rp->guest_expected)
		return 0;
	return err_set(err, ST_TIMEOUT,
		       "the destination has given signs of life for %llu s, and taken nothing",
		       (unsigned long long)limit / 1000);
}

/* 0 is a QEMU's yes to all that was sent, so it cannot come before. A migtool says READY. */
static int take_shut(struct returnpath *rp, uint32_t status, struct error *err)
{
	const struct session *ss = rp->ss;

	if (!status && (ss->dialect.migtool || !ss->stream_over))
		return err_set(err, ST_DATA, "return path: SHUT 0 %s",
			       ss->dialect.migtool ? "from a migtool" : "before all was sent");
	rp->shut = true;
	rp->shut_status = status;
	return status ? err_set(err, ST_REFUSED, "the destination failed: SHUT %u", status) : 0;
}

/* Likewise without the lock: there may be many. */
static int take_pages(struct returnpath *rp, const struct rp_message *m, struct error *err)
{
	returnpath_digests *pages;
	void *arg;

	pthread_mutex_lock(&rp->lock);
	pages = rp->pages;
	arg = rp->pages_arg;
	pthread_mutex_unlock(&rp->lock);
	if (pages)
		return pages(arg, m, err);
	return err_set(err, ST_DATA, "return path: %s is not expected now", rp_name(m->type));
}

/* The guest's side is ready. */
static int take_listening(struct returnpath *rp, const struct rp_message *m, struct error *err)
{
	if (!rp->guest_expected || rp->listening)
		return err_set(err, ST_DATA, "return path: LISTENING is not expected now");
	if (guest_ready_unpack(m->payload, &rp->guest, err))
		return -1;
	rp->listening = true;
	return 0;
}

/* One message into the state. */
static int take(struct returnpath *rp, const struct rp_message *m, struct error *err)
{
	struct session *ss = rp->ss;
	int rc = 0;

	log_debug("return path: %s", rp_name(m->type));
	/* without the lock: it may wait for workers */
	if ((m->type >= RP_REQ_PAGES_ID && m->type <= RP_RESUME_ACK) || m->type == RP_REQUEST ||
	    m->type == RP_CAME)
		return take_pages(rp, m, err);
	if ((m->type == RP_DIGESTS || m->type == RP_PAGE_DIGESTS) && rp->digests)
		return rp->digests(rp->digests_arg, m, err);
	pthread_mutex_lock(&rp->lock);
	switch (m->type) {
	case RP_PONG:
		rp->pong = true;
		rp->pong_value = get_be32(m->payload);
		if (rp->pong_value == WIRE_PING_PACKAGE && rp->pages && !rp->package) {
			rp->package = true;
			stat_set(&ss->stats.t_resumed, stats_now());
		}
		break;
	case RP_SHUT:
		rc = take_shut(rp, get_be32(m->payload), err);
		break;
	case RP_READY:
		if (!ss->stream_over)
			rc = err_set(err, ST_DATA, "return path: READY before all was sent");
		wire_digest_unpack(m->payload, &rp->digest);
		rp->ready = true;
		break;
	case RP_DONE:
		if (!ss->committed)
			rc = err_set(err, ST_DATA, "return path: DONE before COMMIT");
		rp->done = true;
		break;
	case RP_KEEPALIVE:
		rc = check_moving(rp, err);
		break;
	case RP_SWITCHOVER_ACK:
		if (ss->dialect.migtool)
			rc = err_set(err, ST_DATA, "return path: %s is not expected now",
				     rp_name(m->type));
		rp->acked = true;
		break;
	case RP_LISTENING:
		rc = take_listening(rp, m, err);
		break;
	case RP_ENOUGH:
		if (!ss->committed || !rp->guest_expected)
			rc = err_set(err, ST_DATA, "return path: ENOUGH is not expected now");
		rp->enough = true;
		break;
	default:
		rc = err_set(err, ST_DATA, "return path: %s is not expected now", rp_name(m->type));
	}
	if (m->type >= RP_READY && !ss->dialect.migtool)
		rc = err_set(err, ST_DATA, "return path: %s from a QEMU", rp_name(m->type));
	pthread_cond_broadcast(&rp->changed);
	pthread_mutex_unlock(&rp->lock);
	return rc;
}

/*
 * Nothing more can be read: the destination closed (rc 0), or the transport failed or was aborted
 * by ourselves (-1, err). 0 if that no longer matters, because its last word was heard.
 */
static int take_end(struct returnpath *rp, int rc, struct error *err)
{
	bool fine;

	pthread_mutex_lock(&rp->lock);
	rp->ended = true;
	/* with a guest DONE is the beginning */
	fine = rp->end_expected || (rp->done && !rp->guest_expected) || rp->enough ||
	       (rp->guest_expected && rp->ready) || (rp->shut && !rp->shut_status);
	pthread_cond_broadcast(&rp->changed);
	pthread_mutex_unlock(&rp->lock);
	if (fine)
		return 0;
	if (rc < 0)
		return -1;
	return err_set(err, ST_SOCKET, "the destination closed the connection (%s) without a word",
		       rp->ss->main->name);
}

/* The destination has said that, or why, it fails: nothing more is read. */
static void *stop(struct returnpath *rp, const struct error *why)
{
	session_peer_failed(rp->ss, why);
	pthread_mutex_lock(&rp->lock);
	rp->ended = true;
	pthread_cond_broadcast(&rp->changed);
	pthread_mutex_unlock(&rp->lock);
	return NULL;
}

static void *run(void *arg)
{
	struct returnpath *rp = arg;
	struct session *ss = rp->ss;
	struct rp_message m;
	struct error err;
	int rc;

	while ((rc = rp_get(&ss->stream, &m, &err)) > 0) {
		if (m.type == RP_FAILED && ss->dialect.migtool) {
			wire_failed_unpack(m.payload, m.len, "the destination failed", &err);
			return stop(rp, &err);
		}
		if (take(rp, &m, &err))
			return stop(rp, &err);
	}
	if (take_end(rp, rc, &err))
		session_fail(ss, &err);
	return NULL;
}

int returnpath_start(struct returnpath *rp, struct session *ss, returnpath_digests *digests,
		     void *arg, struct error *err)
{
	int e;

	memset(rp, 0, sizeof(*rp));
	rp->ss = ss;
	rp->digests = digests;
	rp->digests_arg = arg;
	pthread_mutex_init(&rp->lock, NULL);
	pthread_cond_init(&rp->changed, NULL);
	e = pthread_create(&rp->thread, NULL, run, rp);
	if (e)
		return err_sys(err, ST_NOMEM, e, "cannot start the return path's thread");
	rp->started = true;
	return 0;
}

void returnpath_serve(struct returnpath *rp, returnpath_digests *pages, void *arg)
{
	pthread_mutex_lock(&rp->lock);
	rp->pages = pages;
	rp->pages_arg = arg;
	pthread_mutex_unlock(&rp->lock);
}

void returnpath_expect_guest(struct returnpath *rp)
{
	pthread_mutex_lock(&rp->lock);
	rp->guest_expected = true;
	pthread_mutex_unlock(&rp->lock);
}

static bool happened(const struct returnpath *rp, enum returnpath_event what)
{
	switch (what) {
	case RP_WAIT_PONG:
		return rp->pong;
	case RP_WAIT_ACK:
		return rp->acked;
	case RP_WAIT_READY:
		return rp->ready;
	case RP_WAIT_DONE:
		return rp->done;
	case RP_WAIT_SHUT: /* any other SHUT ends the wait as the failure that it is */
		return rp->shut && !rp->shut_status;
	case RP_WAIT_END:
		return rp->ended;
	case RP_WAIT_LISTENING:
		return rp->listening;
	case RP_WAIT_ENOUGH:
		return rp->enough;
	case RP_WAIT_VERDICT:
		return rp->ready || rp->enough;
	}
	return false;
}

int returnpath_wait(struct returnpath *rp, enum returnpath_event what, struct error *err)
{
	struct cancel *c = &rp->ss->cancel;
	int rc = 0;

	pthread_mutex_lock(&rp->lock);
	while (!happened(rp, what) && !cancel_fired(c))
		cond_wait_briefly(&rp->changed, &rp->lock);
	if (!happened(rp, what))
		rc = cancel_reason(c, err);
	pthread_mutex_unlock(&rp->lock);
	return rc;
}

int returnpath_wait_ms(struct returnpath *rp, enum returnpath_event what, int ms, struct error *err)
{
	struct cancel *c = &rp->ss->cancel;
	uint64_t end = stats_now() + (uint64_t)ms;
	int rc;

	pthread_mutex_lock(&rp->lock);
	while (!happened(rp, what) && !cancel_fired(c) && stats_now() < end)
		cond_wait_briefly(&rp->changed, &rp->lock);
	rc = happened(rp, what) ? 1 : cancel_fired(c) ? cancel_reason(c, err) : 0;
	pthread_mutex_unlock(&rp->lock);
	return rc;
}

bool returnpath_wait_end(struct returnpath *rp, int ms)
{
	uint64_t end = stats_now() + (uint64_t)ms;
	bool ended;

	pthread_mutex_lock(&rp->lock);
	while (!rp->ended && stats_now() < end)
		cond_wait_briefly(&rp->changed, &rp->lock);
	ended = rp->ended;
	pthread_mutex_unlock(&rp->lock);
	return ended;
}

void returnpath_stop(struct returnpath *rp)
{
	if (!rp->started)
		return;
	pthread_join(rp->thread, NULL);
	rp->started = false;
	pthread_cond_destroy(&rp->changed);
	pthread_mutex_destroy(&rp->lock);
}
