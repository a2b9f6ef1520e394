/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Recovery between two migtools: what the destination says that it has (CAME). */
#ifndef MIGTOOL_POSTCOPY_CAME_H
#define MIGTOOL_POSTCOPY_CAME_H

#include "pagesource.h"
#include "source.h"

/* All zero at first. */
struct came {
	uint32_t unit;	/* 0: nothing was said */
	unsigned block; /* what is said next stands behind these: */
	uint64_t next;
};

/*
 * Notes one CAME as sent. ST_DATA: it is not inside its block, or not behind the one before; so
 * there are no more of them than units.
 */
int came_take(struct came *c, const struct source *src, struct pagesource *pages,
	      const struct rp_message *m, struct error *err);

#endif
