/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The destination's old copy is taken into the new image, and offered to the source: a digest for
 * each 64 KiB, in order, as it is read; then for those chunks that the source asks for a digest a
 * page.
 */
#ifndef MIGTOOL_DELTA_OFFER_H
#define MIGTOOL_DELTA_OFFER_H

#include "target.h"
#include "wire-delta.h"

struct delta_offer;

/*
 * Starts threads that take `old`, which is theirs from now on (also if this fails), or, if it is
 * NULL, what the image's own files hold. say: the source is told. What goes wrong in there fails
 * the session.
 */
struct delta_offer *delta_offer_start(struct target *t, struct image *old, bool say,
				      struct error *err);

/* Until all was taken. */
int delta_offer_wait(struct delta_offer *o, struct error *err);

/* Says the pages' digests of the chunks that the source wants, which were offered before. */
int delta_offer_pages(struct delta_offer *o, const struct delta_want *w, struct error *err);

/* Joins the threads: all was taken, or the session's token was fired. NULL is accepted. */
void delta_offer_free(struct delta_offer *o);

#endif
