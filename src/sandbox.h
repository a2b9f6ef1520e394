/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The worker gives up everything that it does not need to parse and to move pages. */
#ifndef MIGTOOL_SANDBOX_H
#define MIGTOOL_SANDBOX_H

#include "error.h"

/*
 * Closes what we inherited and nobody needs: descriptors from 3 on without close-on-exec, except
 * the n in `keep`. Before sandbox_enter, and before there is a broker.
 */
void sandbox_close_inherited(const int *keep, unsigned n);

/*
 * Enters it, for good: this thread and all that it starts. To be called while there is one. -1:
 * ST_UNSUPPORTED, what is missing, and how to do without; the process may be half confined then and
 * has to end.
 */
int sandbox_enter(struct error *err);

/* The name of a system call of that number, to be freed; NULL: it has none. */
char *sandbox_syscall_name(int number);

#endif
