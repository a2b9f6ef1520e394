/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Which pages changed since they were last asked for: what a live source has to answer, one round
 * after the other. The one backend so far replays a recorded sequence of dirty rounds on a private
 * copy of the image; that is how rounds are tested before there is a live source.
 */
#ifndef MIGTOOL_DIRTY_H
#define MIGTOOL_DIRTY_H

#include "bitmap.h"
#include "image.h"

struct dirty;

/*
 * Backend "replay": takes private copies of the image's blocks (the files stay as they are), to
 * which the recorded writes are applied. The file is text, one line each:
 *   round
 *   write BLOCK OFFSET LENGTH BYTE     (numbers in any base that C knows; BYTE: the fill)
 * writes belong to the round above them. ST_FILE, ST_DATA naming the line.
 */
struct dirty *dirty_replay(struct image *img, const char *path, struct error *err);
void dirty_free(struct dirty *d);

/* Memory that will still change after this many more syncs? */
bool dirty_pending(const struct dirty *d);

/*
 * The dirty-bitmap sync: what was written since the last one, a bitmap a block (bits are target
 * pages), valid until the next sync. Returns the number of dirty pages, -1 on error.
 */
int64_t dirty_sync(struct dirty *d, struct error *err);
const struct bitmap *dirty_bitmap(const struct dirty *d, const struct block *b);

#endif
