/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Placing pages beside receiving them. Allocating the destination's memory is the slowest step of a
 * plain transfer (about 2 GB/s a core), so the thread that reads the stream hands full batches to
 * workers and reads on. With `compress` the workers inflate as well.
 *
 * Handing over has its price: the batch leaves the cache of the core that received it, and two
 * threads are woken in turn. On a machine of one or two cores, where a worker's core is also the
 * network's (and on loopback the sender's), it costs more than it brings: 0.62 instead of 0.50 CPU
 * seconds for 548 MiB, both ends. So there may be no worker at all, and the reader places.
 */
#ifndef MIGTOOL_PLACER_H
#define MIGTOOL_PLACER_H

#include "batch.h"
#include "session.h"

struct placer;

/*
 * workers: 0: whoever hands a batch over places it himself. `compressed`: batches may hold zlib
 * streams of pages, and there has to be a worker.
 */
struct placer *placer_open(struct session *ss, struct image *img, unsigned workers, bool compressed,
			   struct error *err);

/* An empty batch; waits for a worker to be done with one. */
struct page_batch *placer_get(struct placer *p, struct error *err);
/*
 * Hands it over; -1 without workers, if placing failed. The same page must not be in two batches
 * without placer_drain in between.
 */
int placer_put(struct placer *p, struct page_batch *b, struct error *err);
/* Back to the pool unused. */
void placer_return(struct placer *p, struct page_batch *b);

/*
 * Makes `b` a batch of zlib streams: how many it holds, and where the i-th (of len bytes) goes.
 */
uint32_t placer_zlib_room(const struct placer *p);
uint8_t *placer_zlib_slot(struct placer *p, struct page_batch *b, uint32_t i, uint32_t len);

/* Waits until everything handed over is placed. */
int placer_drain(struct placer *p, struct error *err);

void placer_close(struct placer *p);

#endif
