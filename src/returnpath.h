/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The source's end of the backward channel: one thread reads what the destination says and keeps
 * the state that the stages wait for. A FAILED message, or an end that nothing explains, stops the
 * session.
 */
#ifndef MIGTOOL_RETURNPATH_H
#define MIGTOOL_RETURNPATH_H

#include "session.h"
#include "wire-postcopy.h"

struct returnpath {
	struct session *ss;
	int (*digests)(void *arg, const struct rp_message *m, struct error *err);
	void *digests_arg;
	int (*pages)(void *arg, const struct rp_message *m, struct error *err);
	void *pages_arg;
	pthread_t thread;
	bool started;
	pthread_mutex_t lock; /* of the rest */
	pthread_cond_t changed;
	bool pong, acked, ready, done, shut, ended;
	bool guest_expected, listening;
	struct guest_ready guest; /* LISTENING's */
	atomic_bool enough;	  /* the guest needs no more pages */
	atomic_bool package;	  /* PONG 3: the destination has all of postcopy's package */
	uint32_t pong_value, shut_status;
	struct wire_digest digest; /* READY's */
	uint64_t sent, sent_at;	   /* what it has taken from us, and when that grew last (ms) */
	bool end_expected;	   /* the destination may close now */
};

enum returnpath_event {
	RP_WAIT_PONG,
	RP_WAIT_ACK, /* a QEMU's SWITCHOVER_ACK */
	RP_WAIT_READY,
	RP_WAIT_DONE,
	RP_WAIT_SHUT,
	RP_WAIT_END,
	RP_WAIT_LISTENING,
	RP_WAIT_ENOUGH,
	RP_WAIT_VERDICT, /* READY or ENOUGH */
};

/* digests: who takes DIGESTS and PAGE_DIGESTS, in the reader's thread; NULL: none may come. */
typedef int(returnpath_digests)(void *arg, const struct rp_message *m, struct error *err);

int returnpath_start(struct returnpath *rp, struct session *ss, returnpath_digests *digests,
		     void *arg, struct error *err);

/*
 * Postcopy: from now on REQ_PAGES, REQ_PAGES_ID, RECV_BITMAP and RESUME_ACK may come, from a
 * migtool REQUEST, and go to `pages` in that thread, which also reads what stands behind them.
 */
void returnpath_serve(struct returnpath *rp, returnpath_digests *pages, void *arg);

/*
 * LISTEN is about to be sent: LISTENING may come, and from now on a destination that says nothing
 * but that it lives is no reason to give up.
 */
void returnpath_expect_guest(struct returnpath *rp);

/* Waits for what the destination has to say; -1: it failed, ended, or the session was cancelled. */
int returnpath_wait(struct returnpath *rp, enum returnpath_event what, struct error *err);

/* The same, at most ms. 1: it was said, 0: not yet, -1. */
int returnpath_wait_ms(struct returnpath *rp, enum returnpath_event what, int ms,
		       struct error *err);

/*
 * After DONE: lets the destination, and the command that carries what it says, come to its end by
 * itself. False: it has not within ms.
 */
bool returnpath_wait_end(struct returnpath *rp, int ms);

/* Joins the thread; the session's token has been fired or the peer has closed. */
void returnpath_stop(struct returnpath *rp);

#endif
