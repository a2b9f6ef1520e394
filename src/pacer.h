/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A limit on bytes a second that several streams share: a token bucket. */
#ifndef MIGTOOL_PACER_H
#define MIGTOOL_PACER_H

#include "cancel.h"

#include <stdint.h>

struct pacer {
	uint64_t rate;	      /* bytes a second, 0: no limit; does not change after pacer_init */
	pthread_mutex_t lock; /* guards what follows */
	double tokens;	      /* bytes that may be sent now; negative: a debt */
	uint64_t last_ns;     /* when tokens was right */
};

void pacer_init(struct pacer *p, uint64_t rate);
void pacer_destroy(struct pacer *p);

/* The most that should be taken at once for the flow to stay even; SIZE_MAX without a limit. */
size_t pacer_chunk(const struct pacer *p);

/* Accounts for n bytes and sleeps (cancellable) until they were allowed. */
int pacer_take(struct pacer *p, uint64_t n, struct cancel *c, struct error *err);

/*
 * The same in two steps, for who has something better to do than to sleep: how long nothing more
 * should be taken (milliseconds, 0: not at all), and accounting for n bytes that were.
 */
int pacer_owed_ms(struct pacer *p);
void pacer_charge(struct pacer *p, uint64_t n);

#endif
