// SPDX-License-Identifier: GPL-2.0-or-later
#include "cancel.h"

#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

int cancel_init(struct cancel *c, struct error *err)
{
	c->fired = false;
	err_clear(&c->why);
	pthread_mutex_init(&c->lock, NULL);
	c->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (c->fd < 0)
		return err_sys(err, ST_NOMEM, errno, "cannot make an eventfd");
	return 0;
}

void cancel_destroy(struct cancel *c)
{
	if (c->fd >= 0)
		close(c->fd);
	c->fd = -1;
	pthread_mutex_destroy(&c->lock);
}

void cancel_fire(struct cancel *c, const struct error *why)
{
	uint64_t one = 1;

	pthread_mutex_lock(&c->lock);
	if (!c->fired) {
		c->why = *why;
		atomic_store_explicit(&c->fired, true, memory_order_release);
		while (write(c->fd, &one, sizeof(one)) < 0 && errno == EINTR)
			;
	}
	pthread_mutex_unlock(&c->lock);
}

int cancel_reason(struct cancel *c, struct error *err)
{
	pthread_mutex_lock(&c->lock);
	*err = c->why;
	pthread_mutex_unlock(&c->lock);
	return -1;
}

static int64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

int cancel_wait(struct cancel *c, int fd, short events, int timeout_ms, struct error *err)
{
	int64_t end = timeout_ms < 0 ? 0 : now_ms() + timeout_ms;
	struct pollfd p[2] = { { .fd = c->fd, .events = POLLIN }, { .fd = fd, .events = events } };

	for (;;) {
		int64_t left = timeout_ms < 0 ? -1 : end - now_ms();
		int n = poll(p, 2, left < 0 && timeout_ms >= 0 ? 0 : (int)left);

		if (cancel_fired(c))
			return cancel_reason(c, err);
		if (n > 0 && p[1].revents)
			return 1;
		if (n == 0 && timeout_ms >= 0 && now_ms() >= end)
			return 0;
		if (n < 0 && errno != EINTR)
			return err_sys(err, ST_SOCKET, errno, "poll failed");
	}
}
