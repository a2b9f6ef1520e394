/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A bounded hand-over of pointers between threads. Putting an item gives it away: the putter does
 * not touch it again. Items come from a pool that is as large as the queue, so that putting never
 * waits; an empty pool is the back-pressure.
 */
#ifndef MIGTOOL_QUEUE_H
#define MIGTOOL_QUEUE_H

#include "cancel.h"

#include <stdbool.h>
#include <stddef.h>

struct queue {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	void **items;
	size_t cap, head, len;
	bool closed; /* nothing more will be put; what is in it is still given out */
};

int queue_init(struct queue *q, size_t cap, struct error *err);
void queue_destroy(struct queue *q);

/* A full queue is a programming error (the pool is larger than the queue) and aborts. */
void queue_put(struct queue *q, void *item);

/* 1: *item is the oldest, 0: closed and empty, -1: cancelled, with the reason in err. */
int queue_get(struct queue *q, void **item, struct cancel *c, struct error *err);

/* As queue_get, but NULL at once when it is empty. */
void *queue_try(struct queue *q);

void queue_close(struct queue *q);

/*
 * Waits on a condition variable, a tenth of a second at most, so that a wait in a loop notices a
 * cancel that nobody signals through the variable.
 */
void cond_wait_briefly(pthread_cond_t *cond, pthread_mutex_t *lock);

#endif
