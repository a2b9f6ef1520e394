/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * --on-loss=kill for a VMM's guest: a process of its own, outside the sandbox, ends the VMM when
 * this one ends, in whatever way, before the guest could do without it. (Who watches COMMAND does
 * the same for that: catch.h.)
 */
#ifndef MIGTOOL_WARDEN_H
#define MIGTOOL_WARDEN_H

#include "error.h"

#include <sys/types.h>

/* While the process has one thread and no sandbox. ST_NOMEM. */
int warden_start(struct error *err);

/* Whom to end: by pidfd, which stays the caller's, or if that is -1 by pid. Without a warden:
 * nothing. ST_COMMAND. */
int warden_guard(pid_t pid, int pidfd, struct error *err);

/* The guest needs nobody any more; waits for the warden's end. */
void warden_release(void);

/* It does: the guest is ended, and the warden too when this returns. True: it was. */
bool warden_act(void);

#endif
