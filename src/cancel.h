/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How a session's threads are stopped: one token that any thread may fire, once, with the error
 * that is the reason. Every wait in the program is a poll on the awaited descriptor and on the
 * token's, so firing it ends all of them; the first error wins and is what the user is told.
 */
#ifndef MIGTOOL_CANCEL_H
#define MIGTOOL_CANCEL_H

#include "error.h"

#include <pthread.h>
#include <stdatomic.h>

struct cancel {
	int fd; /* eventfd: readable once fired, never drained */
	atomic_bool fired;
	pthread_mutex_t lock; /* guards why */
	struct error why;
};

int cancel_init(struct cancel *c, struct error *err);
void cancel_destroy(struct cancel *c);

/* Any thread; only the first call counts. */
void cancel_fire(struct cancel *c, const struct error *why);

static inline bool cancel_fired(const struct cancel *c)
{
	return atomic_load_explicit(&c->fired, memory_order_acquire);
}

/* Copies the reason into err and returns -1. Only after it was fired. */
int cancel_reason(struct cancel *c, struct error *err);

/*
 * Waits until `fd` is ready for `events` (poll's), at most `timeout_ms` (-1: no limit). `fd` may
 * be -1: a sleep that a cancel ends. 1: ready (errors and hang-ups of fd count as ready), 0: the
 * time is over, -1: cancelled, with the reason in err.
 */
int cancel_wait(struct cancel *c, int fd, short events, int timeout_ms, struct error *err);

#endif
