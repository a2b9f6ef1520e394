/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A histogram of times with logarithmic steps: 16 to each doubling, so a percentile is right to
 * 1/16. Not locked: who shares one does that.
 */
#ifndef MIGTOOL_LATENCY_H
#define MIGTOOL_LATENCY_H

#include <stdint.h>

#define LATENCY_STEPS 16
#define LATENCY_SLOTS (61 * LATENCY_STEPS)

struct latency {
	uint64_t count, max, sum; /* nanoseconds */
	uint64_t slot[LATENCY_SLOTS];
};

/* One time in nanoseconds. */
void latency_add(struct latency *l, uint64_t ns);

/* What `percent` (0 to 100) of the times do not exceed, in nanoseconds; 0 of none. */
uint64_t latency_percentile(const struct latency *l, double percent);

#endif
