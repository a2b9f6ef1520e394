/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef MIGTOOL_MULTIFD_RECV_H
#define MIGTOOL_MULTIFD_RECV_H

#include "target.h"

struct multifd_recv;

/*
 * Gathers the n channels of this session (accepted, or dialled); their threads start when there is
 * an image to place into. A
 * stranger's connection is dropped; a number twice, or one that does not come, is an error that
 * says what to do.
 */
struct multifd_recv *multifd_recv_open(struct target *t, unsigned n, struct error *err);

int multifd_recv_start(struct multifd_recv *m, struct error *err);

/* Waits for one SYNC on every channel, then lets them go on. */
int multifd_recv_sync(struct multifd_recv *m, struct error *err);

/*
 * The memory is complete: waits for who is placing pages, and refuses pages from now on. Else a
 * channel could change what has been verified.
 */
void multifd_recv_seal(struct multifd_recv *m);

/*
 * The stream is over: channels may still say empty packets until the source closes them. Waits for
 * that at most `ms`, then closes. Frees m; NULL is accepted.
 */
void multifd_recv_close(struct multifd_recv *m, int ms);

#endif
