// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The bucket holds 50 ms worth of the rate. Whoever takes more than there is goes into debt and
 * sleeps until it is paid, outside the lock; others meanwhile deepen the debt and sleep longer, so
 * the sum of all keeps the rate.
 */
#include "pacer.h"

#include <limits.h>
#include <time.h>

#define BURST_S 0.05

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

static double burst(const struct pacer *p)
{
	return (double)p->rate * BURST_S;
}

void pacer_init(struct pacer *p, uint64_t rate)
{
	p->rate = rate;
	pthread_mutex_init(&p->lock, NULL);
	p->tokens = burst(p);
	p->last_ns = now_ns();
}

void pacer_destroy(struct pacer *p)
{
	pthread_mutex_destroy(&p->lock);
}

size_t pacer_chunk(const struct pacer *p)
{
	double b = burst(p);

	if (!p->rate)
		return SIZE_MAX;
	/* Less than a page at once would only cost calls. */
	return b < 4096 ? 4096 : b > 1048576 ? 1048576 : (size_t)b;
}

/* How long until n bytes are paid for. */
static double take_locked(struct pacer *p, uint64_t n)
{
	uint64_t now = now_ns();

	p->tokens += (double)(now - p->last_ns) * 1e-9 * (double)p->rate;
	if (p->tokens > burst(p))
		p->tokens = burst(p);
	p->last_ns = now;
	p->tokens -= (double)n;
	return p->tokens < 0 ? -p->tokens / (double)p->rate : 0;
}

static int to_ms(double s)
{
	return s > INT_MAX / 1000 ? INT_MAX : (int)(s * 1000);
}

void pacer_charge(struct pacer *p, uint64_t n)
{
	if (!p->rate)
		return;
	pthread_mutex_lock(&p->lock);
	take_locked(p, n);
	pthread_mutex_unlock(&p->lock);
}

int pacer_owed_ms(struct pacer *p)
{
	double s;

	if (!p->rate)
		return 0;
	pthread_mutex_lock(&p->lock);
	s = take_locked(p, 0);
	pthread_mutex_unlock(&p->lock);
	return to_ms(s);
}

int pacer_take(struct pacer *p, uint64_t n, struct cancel *c, struct error *err)
{
	double s;

	if (!p->rate)
		return 0;
	pthread_mutex_lock(&p->lock);
	s = take_locked(p, n);
	pthread_mutex_unlock(&p->lock);
	/* Less than a millisecond stays a debt for the next one to sleep off. */
	if (s < 0.001)
		return 0;
	return cancel_wait(c, -1, 0, to_ms(s), err) < 0 ? -1 : 0;
}
