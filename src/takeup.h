/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A VMM's guest that another process has served: that one is gone, the guest waits, and is taken up
 * again (recv --resume --uffd-socket). What is known of its pages was kept in a ledger beside the
 * socket, PATH.guest; its userfaultfd is fetched from the VMM.
 *
 * That takes rights which the sandbox gives up. So it is done before, and kept until somebody asks.
 */
#ifndef MIGTOOL_TAKEUP_H
#define MIGTOOL_TAKEUP_H

#include "config.h"
#include "guestmem.h"
#include "ledger.h"

/* The ledger's name, to be freed; NULL: no memory. */
char *takeup_path(const char *socket);

/*
 * For a run with --uffd-socket, before the sandbox: makes the ledger's file, or with --resume opens
 * it and fetches the guest. One that another process works on, or whose guest waits still, stays as
 * it is (the second: but for --force). ST_FILE, ST_UNSUPPORTED, ST_COMMAND (the guest has ended).
 */
int takeup_prepare(const struct config *cfg, struct error *err);

/* The file, for ledger_new(); the caller's from then on. */
int takeup_fd(void);

/* With --resume: whoever is gone was about to end; the guest has all and needs nobody. */
bool takeup_complete(void);

/* In that case what the ledger says; NULL: nothing. */
const struct ledger *takeup_known(void);

/* With --resume: the guest, and the ledger; both the caller's from then on. */
int takeup_guest(struct guest_memory *g, struct ledger **l, struct error *err);

#endif
