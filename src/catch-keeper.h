/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A forked child's userfaultfd is made inside the read() that tells of it, and is nowhere else: a
 * process that is killed before it has passed it on takes it along, and the child goes on with
 * zeros. So a second process, the keeper, shares our table of descriptors, and does nothing as long
 * as we live. When we are gone it gives every userfaultfd in the table to the catcher, who finds
 * those that he has not, closes all else, and ends.
 *
 * One thread uses this.
 */
#ifndef MIGTOOL_CATCH_KEEPER_H
#define MIGTOOL_CATCH_KEEPER_H

#include "error.h"

/*
 * lane: our end of the socket to the catcher. While the process has one thread and no sandbox.
 * ST_NOMEM, ST_UNSUPPORTED.
 */
int keeper_start(int lane, struct error *err);

/* We go, and have left nothing. Without a keeper nothing is done. */
void keeper_stop(void);

#endif
