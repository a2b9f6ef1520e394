/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The source in postcopy: see postcopy-send.c's head. Its stage is source-postcopy.c's. */
#ifndef MIGTOOL_POSTCOPY_SEND_H
#define MIGTOOL_POSTCOPY_SEND_H

#include "pagesource.h"
#include "source.h"

/* Which pages were sent is recorded from now on. NULL: ST_NOMEM. */
struct postcopy_send *postcopy_send_open(struct source *src, struct error *err);
/* The connection for pages that are asked for: postcopy-preempt's, or a migtool's. Before its
 * thread starts.
 */
int postcopy_send_dial(struct postcopy_send *ps, struct error *err);
bool postcopy_send_dialled(const struct postcopy_send *ps);
/* Ends its thread, if one runs, and frees. NULL is accepted. */
void postcopy_send_close(struct postcopy_send *ps);

struct pagesource *postcopy_send_pages(struct postcopy_send *ps);

/* Sends a DISCARD for all that the destination has not. At least one, even for nothing. */
int postcopy_send_discards(struct postcopy_send *ps, struct error *err);

/* From here on the destination's requests are taken (they come by the return path's thread). */
int postcopy_send_listen(struct postcopy_send *ps, struct error *err);

/*
 * Instead of the discards and listening, on a new connection to a destination that has lost the
 * last one: asks what it has, for what was sent before is not known here. It can do without us yet.
 */
int postcopy_send_ask(struct postcopy_send *ps, struct error *err);
/* Behind it: the guest goes on there, and its requests are served. */
int postcopy_send_resume(struct postcopy_send *ps, struct error *err);

/* Everything that is missing, asked-for pages first, in sections of its own; until ENOUGH. */
int postcopy_send_run(struct postcopy_send *ps, struct error *err);

/*
 * To a migtool whose guest waits: before LISTEN, CAME is expected. Its unit has to be the one of
 * LISTENING (0: nothing had come).
 */
void postcopy_send_recovers(struct postcopy_send *ps);
uint32_t postcopy_send_came_unit(const struct postcopy_send *ps);
/* To a migtool: how much it places at once; before LISTENING's answers begin. */
void postcopy_send_unit(struct postcopy_send *ps, uint32_t unit);
/* The image's holes, so that nobody reads them. Before postcopy_send_run. */
int postcopy_send_holes(struct postcopy_send *ps, struct error *err);
/* Instead of both: nothing but what is asked for, until ENOUGH. */
int postcopy_send_answers(struct postcopy_send *ps, struct error *err);

/*
 * Behind the stream's end: ends the second connection. A destination that has all may have closed
 * it already, so a failure here means nothing: SHUT tells.
 */
void postcopy_send_finish(struct postcopy_send *ps);

#endif
