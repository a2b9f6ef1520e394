// SPDX-License-Identifier: GPL-2.0-or-later
#include "events.h"

#include "jsonline.h"

#include <time.h>

static const char *const names[MIG__MAX] = {
	[MIG_NONE] = "none",
	[MIG_SETUP] = "setup",
	[MIG_CANCELLING] = "cancelling",
	[MIG_CANCELLED] = "cancelled",
	[MIG_ACTIVE] = "active",
	[MIG_POSTCOPY_ACTIVE] = "postcopy-active",
	[MIG_POSTCOPY_PAUSED] = "postcopy-paused",
	[MIG_POSTCOPY_RECOVER] = "postcopy-recover",
	[MIG_COMPLETED] = "completed",
	[MIG_FAILED] = "failed",
	[MIG_COLO] = "colo",
	[MIG_PRE_SWITCHOVER] = "pre-switchover",
	[MIG_DEVICE] = "device",
	[MIG_WAIT_UNPLUG] = "wait-unplug",
};

const char *migration_status_name(enum migration_status status)
{
	return names[status];
}

bool migration_status_final(enum migration_status status)
{
	return status == MIG_COMPLETED || status == MIG_FAILED || status == MIG_CANCELLED;
}

void events_init(struct events *ev, bool on, int fd)
{
	pthread_mutex_init(&ev->lock, NULL);
	ev->status = MIG_NONE;
	ev->on = on;
	ev->fd = fd;
}

void events_destroy(struct events *ev)
{
	pthread_mutex_destroy(&ev->lock);
}

int event_write(int fd, const char *name, void *data, struct error *err)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return jsonline_write(fd,
			      json_pack("{s:{s:I,s:I},s:s,s:o}", "timestamp", "seconds",
					(json_int_t)ts.tv_sec, "microseconds",
					(json_int_t)(ts.tv_nsec / 1000), "event", name, "data",
					data),
			      err);
}

/* Called with the lock held. */
static void put(struct events *ev, const char *name, json_t *data)
{
	struct error err;

	if (event_write(ev->fd, name, data, &err))
		ev->on = false;
}

void events_status(struct events *ev, enum migration_status status)
{
	pthread_mutex_lock(&ev->lock);
	if (status != ev->status && !migration_status_final(ev->status)) {
		ev->status = status;
		if (ev->on)
			put(ev, "MIGRATION", json_pack("{s:s}", "status", names[status]));
	}
	pthread_mutex_unlock(&ev->lock);
}

enum migration_status events_current(struct events *ev)
{
	enum migration_status status;

	pthread_mutex_lock(&ev->lock);
	status = ev->status;
	pthread_mutex_unlock(&ev->lock);
	return status;
}

void events_pass(struct events *ev, uint64_t pass)
{
	pthread_mutex_lock(&ev->lock);
	if (ev->on)
		put(ev, "MIGRATION_PASS", json_pack("{s:I}", "pass", (json_int_t)pass));
	pthread_mutex_unlock(&ev->lock);
}
