/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The source compares its image with the digests of the destination's old copy, and knows then
 * which pages have to travel.
 */
#ifndef MIGTOOL_DELTA_COMPARE_H
#define MIGTOOL_DELTA_COMPARE_H

#include "source.h"

struct delta_compare;

/* Before the return path is read. */
struct delta_compare *delta_compare_open(struct source *src, struct error *err);

/* A message of digests, by the thread that reads them. ST_DATA: it cannot be. */
int delta_compare_take(void *compare, const struct rp_message *m, struct error *err);

/*
 * Until all is compared; asks for pages on the main channel, and says COMPARED in the end. *bytes:
 * what has to travel.
 */
int delta_compare_run(struct delta_compare *c, uint64_t *bytes, struct error *err);

/* A bit for each target page of a block that has to travel. */
const struct bitmap *delta_compare_map(const struct delta_compare *c, const struct block *b);

/* NULL is accepted. The session's token was fired, or all is compared. */
void delta_compare_free(struct delta_compare *c);

#endif
