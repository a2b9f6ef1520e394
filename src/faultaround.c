// SPDX-License-Identifier: GPL-2.0-or-later
#include "faultaround.h"

#include <stdbool.h>

static bool is_near(uint64_t a, uint64_t b, unsigned window)
{
	return (a > b ? a - b : b - a) <= 2 * (uint64_t)window;
}

/* The walk that the page goes on with, or the place for a new one, whose window is 0. */
static unsigned find(struct faultaround *f, unsigned block, uint64_t page)
{
	unsigned oldest = 0;

	for (unsigned i = 0; i < FAULTAROUND_WALKS; i++) {
		if (f->walks[i].window && f->walks[i].block == block &&
		    is_near(f->walks[i].page, page, f->walks[i].window))
			return i;
		if (f->walks[i].seen < f->walks[oldest].seen)
			oldest = i;
	}
	f->walks[oldest].window = 0;
	return oldest;
}

struct faultaround_run faultaround_next(struct faultaround *f, unsigned block, uint64_t page,
					unsigned max)
{
	struct faultaround_run run = { page, 0 };
	unsigned i, window;

	if (max < 2)
		return run;
	i = find(f, block, page);
	window = f->walks[i].window ? 2 * f->walks[i].window : 1;
	if (window > max)
		window = max;
	f->walks[i].block = block;
	f->walks[i].page = page;
	f->walks[i].window = window;
	f->walks[i].seen = ++f->clock;
	if (window < 2)
		return run;
	run.first = page & ~((uint64_t)window - 1);
	run.n = window;
	return run;
}
