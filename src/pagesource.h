/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The next page of a postcopy source: what was asked for before what nobody has asked for. It knows
 * which pages the destination has; each is given out once, whoever takes it.
 *
 * A unit is what the destination places at once: the larger of the target's page and the block's
 * host page, unless the destination has said what it is. All its pages are given out together, or
 * those of a huge page could be spread.
 */
#ifndef MIGTOOL_PAGESOURCE_H
#define MIGTOOL_PAGESOURCE_H

#include "cancel.h"
#include "image.h"

struct bitmap;
struct pagesource;

/* Neighbours in a block, whole units. */
struct page_run {
	struct block *block;
	uint64_t offset, len;
};

/* Nothing was sent yet. The image has to stay. ST_NOMEM. */
struct pagesource *pagesource_new(const struct image *img, struct error *err);
void pagesource_free(struct pagesource *ps); /* NULL is accepted */

uint64_t pagesource_unit(const struct pagesource *ps, const struct block *b);
/* The destination's unit, a power of two and at least the target's page. Before anything is sent.
 */
void pagesource_set_unit(struct pagesource *ps, uint32_t unit);

/* ---- before the switch, one thread; offsets and lengths are whole target pages ---- */

void pagesource_sent(struct pagesource *ps, const struct block *b, uint64_t offset, uint64_t len);
/* Its pages of which a bit is set were changed: what was sent of them is worth nothing. */
void pagesource_changed(struct pagesource *ps, const struct block *b, const struct bitmap *map);
/* The destination says that it has these. */
void pagesource_came(struct pagesource *ps, const struct block *b, const struct bitmap *map);
/* One unit is to be sent again. */
void pagesource_unsent(struct pagesource *ps, const struct block *b, uint64_t offset);
/* Nothing changes any more. A unit that was sent in part counts as not sent. */
void pagesource_settle(struct pagesource *ps);
/* Before that: the next run of pages at or after `from` of which so much is true; len 0: none. */
struct extent pagesource_partial(const struct pagesource *ps, const struct block *b, uint64_t from);
/* The next range at or after `from` that was not sent; len 0: none. */
struct extent pagesource_missing(const struct pagesource *ps, const struct block *b, uint64_t from);

/* ---- after it, any thread ---- */

/* Bytes that nobody has taken yet. */
uint64_t pagesource_left(struct pagesource *ps);

/*
 * Somebody needs these pages now: offset and len are multiples of the unit and inside the block, or
 * reach to its end.
 * What was sent, or is meanwhile, is forgotten. Waits while too many wait already; -1: cancelled.
 */
int pagesource_ask(struct pagesource *ps, struct block *b, uint64_t offset, uint64_t len,
		   struct cancel *cancel, struct error *err);

/* Takes what was asked for and not sent yet, at most about max bytes. False: nothing now. */
bool pagesource_asked(struct pagesource *ps, uint64_t max, struct page_run *out);

/* Takes what comes next, behind what was asked for last. False: all was given out. */
bool pagesource_next(struct pagesource *ps, uint64_t max, struct page_run *out);

/* Takes what is not taken yet of [offset, offset + len), whole units, from its first. False: none.
 */
bool pagesource_take(struct pagesource *ps, struct block *b, uint64_t offset, uint64_t len,
		     struct page_run *out);

/*
 * Somebody waits for one unit, [offset, offset + len): is it one that pagesource_next gave out? It
 * may be far behind other things. True once for each.
 */
bool pagesource_again(struct pagesource *ps, struct block *b, uint64_t offset, uint64_t len);

/* Waits until something is asked for. 1: so it is, 0: ms (-1: no limit) are over, -1: cancelled. */
int pagesource_wait(struct pagesource *ps, int ms, struct cancel *cancel, struct error *err);

#endif
