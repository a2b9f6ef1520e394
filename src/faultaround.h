/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Which of a page's neighbours are worth bringing, too, when a guest needs that page. A guest that
 * walks through its memory needs them next; one that jumps does not, and pays for each.
 *
 * So a page alone brings nothing. A page near the last one of a walk goes on with it: the window
 * that is brought around it, aligned to its own size, doubles each time, and so does what counts as
 * near. A few walks are remembered, in whichever direction they go, as a guest has several threads.
 */
#ifndef MIGTOOL_FAULTAROUND_H
#define MIGTOOL_FAULTAROUND_H

#include <stdint.h>

#define FAULTAROUND_WALKS 8
#define FAULTAROUND_BYTES (64u << 10) /* the largest window */

struct faultaround {
	struct {
		unsigned block;
		uint64_t page;	    /* the last one */
		unsigned window;    /* pages; 0: no walk */
		uint64_t seen;	    /* when, in needed pages */
	} walks[FAULTAROUND_WALKS]; /* all zero at the start */
	uint64_t clock;
};

/* [first, first + n), the page itself in it. n 0: nothing. It may reach beyond the block. */
struct faultaround_run {
	uint64_t first;
	unsigned n;
};

/*
 * Page number `page` of a block is needed. `max`: the largest window in pages, a power of two; with
 * less than 2 there is none.
 */
struct faultaround_run faultaround_next(struct faultaround *f, unsigned block, uint64_t page,
					unsigned max);

#endif
