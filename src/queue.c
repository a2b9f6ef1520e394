// SPDX-License-Identifier: GPL-2.0-or-later
#include "queue.h"

#include <stdlib.h>
#include <time.h>

int queue_init(struct queue *q, size_t cap, struct error *err)
{
	pthread_mutex_init(&q->lock, NULL);
	pthread_cond_init(&q->changed, NULL);
	q->head = q->len = 0;
	q->cap = cap;
	q->closed = false;
	q->items = calloc(cap, sizeof(*q->items));
	if (!q->items)
		return err_set(err, ST_NOMEM, "no memory for a queue of %zu", cap);
	return 0;
}

void queue_destroy(struct queue *q)
{
	free(q->items);
	q->items = NULL;
	pthread_cond_destroy(&q->changed);
	pthread_mutex_destroy(&q->lock);
}

void queue_put(struct queue *q, void *item)
{
	pthread_mutex_lock(&q->lock);
	if (q->len == q->cap)
		abort();
	q->items[(q->head + q->len++) % q->cap] = item;
	pthread_cond_signal(&q->changed);
	pthread_mutex_unlock(&q->lock);
}

static void *take(struct queue *q)
{
	void *item = q->items[q->head];

	q->head = (q->head + 1) % q->cap;
	q->len--;
	return item;
}

int queue_get(struct queue *q, void **item, struct cancel *c, struct error *err)
{
	int rc = 1;

	pthread_mutex_lock(&q->lock);
	while (!q->len && !q->closed && !cancel_fired(c))
		cond_wait_briefly(&q->changed, &q->lock);
	if (cancel_fired(c))
		rc = cancel_reason(c, err);
	else if (q->len)
		*item = take(q);
	else
		rc = 0;
	pthread_mutex_unlock(&q->lock);
	return rc;
}

void *queue_try(struct queue *q)
{
	void *item = NULL;

	pthread_mutex_lock(&q->lock);
	if (q->len)
		item = take(q);
	pthread_mutex_unlock(&q->lock);
	return item;
}

void queue_close(struct queue *q)
{
	pthread_mutex_lock(&q->lock);
	q->closed = true;
	pthread_cond_broadcast(&q->changed);
	pthread_mutex_unlock(&q->lock);
}

void cond_wait_briefly(pthread_cond_t *cond, pthread_mutex_t *lock)
{
	struct timespec until;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_nsec += 100000000;
	if (until.tv_nsec >= 1000000000) {
		until.tv_nsec -= 1000000000;
		until.tv_sec++;
	}
	pthread_cond_timedwait(cond, lock, &until);
}
