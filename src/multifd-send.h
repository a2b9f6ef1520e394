/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef MIGTOOL_MULTIFD_SEND_H
#define MIGTOOL_MULTIFD_SEND_H

#include "source.h"

struct multifd_send;

/* Opens n channels to where the main one goes (or accepts them) and starts their threads. */
struct multifd_send *multifd_send_open(struct source *src, unsigned n, struct error *err);

/* A batch to fill: its zero pages of last time have been sent. Waits for a channel to be done. */
struct page_batch *multifd_send_get(struct multifd_send *m, struct error *err);
void multifd_send_put(struct multifd_send *m, struct page_batch *b);

/* All batches are out and one SYNC packet behind them on every channel. */
int multifd_send_sync(struct multifd_send *m, struct error *err);

/* Ends the threads and the channels. After a failure the session's token has been fired. */
void multifd_send_close(struct multifd_send *m);

#endif
