/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The capability `compress`: a zlib stream a page, made by a pool of workers, written by the
 * migration thread in whatever order they finish. Source: QEMU 7.2, migration/ram.c.
 */
#ifndef MIGTOOL_COMPRESS_H
#define MIGTOOL_COMPRESS_H

#include "source.h"

struct compressor;

/* compress-threads workers at compress-level. */
struct compressor *compressor_open(struct source *src, struct error *err);

/*
 * A batch to fill; what finished meanwhile is written to the main channel first. *b is NULL when
 * all workers are busy and compress-wait-thread is off: send the pages uncompressed.
 */
int compressor_get(struct compressor *c, struct page_batch **b, struct error *err);
bool compressor_owns(const struct compressor *c, const struct page_batch *b);
void compressor_put(struct compressor *c, struct page_batch *b);

/* Waits for all workers and writes what they made. */
int compressor_drain(struct compressor *c, struct error *err);

void compressor_close(struct compressor *c);

#endif
