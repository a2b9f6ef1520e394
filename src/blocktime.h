/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * For how long each thread of a guest waited for pages. Not locked: who shares one does that.
 */
#ifndef MIGTOOL_BLOCKTIME_H
#define MIGTOOL_BLOCKTIME_H

#include <stdint.h>
#include <sys/types.h>

/* More threads than vCPUs; what comes later is counted together. */
#define BLOCKTIME_MAX 256

struct blocktime_thread {
	pid_t thread; /* as its process calls it */
	uint64_t ns, faults;
};

struct blocktime {
	unsigned n;
	struct blocktime_thread threads[BLOCKTIME_MAX]; /* in the order of their first fault */
	struct blocktime_thread others; /* `thread` 0: of who has no number, or no room here */
};

/* One wait of `thread`, 0 where the kernel does not say who it was. */
void blocktime_add(struct blocktime *b, pid_t thread, uint64_t ns);

/* The threads that waited longest, longest first: their numbers in b->threads. Returns how many. */
unsigned blocktime_longest(const struct blocktime *b, unsigned out[], unsigned room);

#endif
