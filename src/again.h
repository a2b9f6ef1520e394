/* SPDX-License-Identifier: GPL-2.0-or-later */
/* How to take up a guest again that was left waiting: in words that a shell understands. */
#ifndef MIGTOOL_AGAIN_H
#define MIGTOOL_AGAIN_H

#include "config.h"

/*
 * "migtool recv --resume ... takes it up again", for the guest that this run serves. pid: its
 * process, for one whose mapping was caught. To be freed; NULL: no memory.
 */
char *lazy_again(const struct config *cfg, pid_t pid);

/* "migtool send --resume ... goes on with it": a source whose guest waits. Likewise. */
char *send_again(const struct config *cfg);

#endif
