/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The status of a migration in QEMU's words, and with `--cap events=on` QEMU's events about it:
 * MIGRATION at each change, MIGRATION_PASS at each round, a JSON line each in the shape of QMP.
 * What only migtool says in that shape (PROGRESS) is made by the same function.
 */
#ifndef MIGTOOL_EVENTS_H
#define MIGTOOL_EVENTS_H

#include "error.h"

#include <pthread.h>
#include <stdint.h>

/* QEMU's MigrationStatus, in its order. */
enum migration_status {
	MIG_NONE,
	MIG_SETUP,
	MIG_CANCELLING,
	MIG_CANCELLED,
	MIG_ACTIVE,
	MIG_POSTCOPY_ACTIVE,
	MIG_POSTCOPY_PAUSED,
	MIG_POSTCOPY_RECOVER,
	MIG_COMPLETED,
	MIG_FAILED,
	MIG_COLO,
	MIG_PRE_SWITCHOVER,
	MIG_DEVICE,
	MIG_WAIT_UNPLUG,
	MIG__MAX
};

const char *migration_status_name(enum migration_status status);

/* Completed, failed, cancelled: nothing follows. */
bool migration_status_final(enum migration_status status);

struct events {
	pthread_mutex_t lock; /* of `status` and of the order of lines */
	enum migration_status status;
	bool on;
	int fd;
};

/* `fd`: where the lines go, not owned: stdout, or stderr where stdout carries the stream. */
void events_init(struct events *ev, bool on, int fd);
void events_destroy(struct events *ev);

/*
 * The migration has this status now; the event is written if it is another than before. Any thread.
 * A status after a final one is ignored, so that a late thread cannot revive what has failed. A
 * reader that went away turns events off; the migration does not suffer.
 */
void events_status(struct events *ev, enum migration_status status);
enum migration_status events_current(struct events *ev);

/* A round begins; `pass` counts from 1. Any thread. */
void events_pass(struct events *ev, uint64_t pass);

/*
 * One event line: {"timestamp": {...}, "event": name, "data": data}. `data` is a json_t, taken
 * over; NULL: ST_NOMEM.
 */
int event_write(int fd, const char *name, void *data, struct error *err);

#endif
