/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * An old copy at the destination, of which only the changes have to travel: what both uses of it
 * share, the exchange of digests (delta-offer.h, delta-compare.h) and XBZRLE against --base.
 */
#ifndef MIGTOOL_DELTA_H
#define MIGTOOL_DELTA_H

#include "image.h"
#include "wire-delta.h"

/* Opens the image at `path` as an old copy of what is written into img. */
struct image *delta_open(const struct image *img, const char *path, struct error *err);

/* What it has of a block: one of that name and of the same size, or NULL. */
const struct block *delta_block(const struct image *old, const struct block *b);

/* The digests of a chunk's pages, or of what a block has of it; 0 for a page of zeros. How many. */
unsigned delta_terms(const struct block *b, uint64_t offset, const uint8_t *buf, size_t len,
		     struct digest out[DELTA_PAGES]);

#endif
