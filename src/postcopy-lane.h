/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A connection that carries a postcopy source's pages, as records: the main one, inside sections,
 * or one for pages that are asked for, which has none. Whole units stand together on one lane, in
 * ascending order, so that a destination with huge pages can place each at once.
 */
#ifndef MIGTOOL_POSTCOPY_LANE_H
#define MIGTOOL_POSTCOPY_LANE_H

#include "pagesource.h"
#include "source.h"

struct lane {
	struct source *src;
	struct stream *s;
	const struct block *last; /* the block that CONTINUE means; NULL: name it */
	struct batch_pool pool;	  /* one batch */
};

/* The stream stays the caller's. ST_NOMEM. A zeroed lane may be closed. */
int lane_open(struct lane *l, struct source *src, struct stream *s, struct error *err);
void lane_close(struct lane *l);

/*
 * Reads the run from the image, sends it and flushes; then it is in the source's digest. One thread
 * a lane. An image that cannot be read fails before a byte of the batch was written.
 */
int lane_send(struct lane *l, const struct page_run *run, struct error *err);
/* The same for what goes by another connection already: it counts there. */
int lane_send_again(struct lane *l, const struct page_run *run, struct error *err);

/* Between migtools: a run of zeros of any length, which was not read. Not flushed. */
int lane_send_zero(struct lane *l, const struct page_run *run, struct error *err);

#endif
