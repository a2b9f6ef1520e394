/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a source sends of a guest's memory before it gives the guest up (--postcopy-after), and its
 * way into the guest behind COMMIT: target-ahead.c. Until COMMIT nothing of it may be seen there,
 * or the guest would run in two places.
 */
#ifndef MIGTOOL_AHEAD_H
#define MIGTOOL_AHEAD_H

#include "image.h"

struct ahead;
struct lazy;

/*
 * A place for pages of all blocks of img: its own files, if it has some (kept), else memory of this
 * process. l and img stay the caller's and have to live as long. NULL: ST_NOMEM.
 */
struct ahead *ahead_new(struct lazy *l, struct image *img, bool kept, struct error *err);
/* Not while it brings. NULL is accepted. */
void ahead_free(struct ahead *a);

/* ---- before the switch, one thread; ranges are whole target pages in the block ---- */

/* Where `len` bytes may be read to, for ahead_took(); NULL: anywhere. */
uint8_t *ahead_room(struct ahead *a, const struct block *b, uint64_t offset);
/*
 * Pages have come, and are in buf. What was there of them before goes. *sum: the digest's, of all
 * that is there; *zeros: how many of these pages are zero. -1: as image_place.
 */
int ahead_took(struct ahead *a, struct block *b, uint64_t offset, const uint8_t *buf, size_t len,
	       struct digest *sum, uint64_t *zeros, struct error *err);
int ahead_took_zero(struct ahead *a, struct block *b, uint64_t offset, uint64_t len,
		    struct digest *sum, struct error *err);
/* What is there of the range is worth nothing, and zero in a file. -1: ST_FILE. */
int ahead_drop(struct ahead *a, const struct block *b, uint64_t offset, uint64_t len,
	       struct digest *sum, struct error *err);
/* So is all of it. */
int ahead_forget(struct ahead *a, struct error *err);
/* The guest takes units of so many bytes: of those that are here in part nothing is. */
int ahead_settle(struct ahead *a, uint32_t unit, struct digest *sum, struct error *err);
/* The next run at or after `from` that is here; len 0: none. */
struct extent ahead_next(const struct ahead *a, const struct block *b, uint64_t from);

/* ---- behind it ---- */

/* A thread brings it into the guest, if there is any left. ST_NOMEM. */
int ahead_start(struct ahead *a, struct error *err);
/* The guest waits for these: what is here of them goes first. True: all of them are. Any thread. */
bool ahead_ask(struct ahead *a, unsigned block, uint64_t offset, uint64_t len);
/* Until all is in the guest, or the session's cancel is fired. */
int ahead_wait(struct ahead *a, struct error *err);
/* Ends the thread, of which the session's cancel was fired or nothing is left to do. */
void ahead_stop(struct ahead *a);

#endif
