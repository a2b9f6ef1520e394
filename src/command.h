/* SPDX-License-Identifier: GPL-2.0-or-later */
/* COMMAND of recv: what uses the memory once it has arrived, usually a virtual machine monitor. */
#ifndef MIGTOOL_COMMAND_H
#define MIGTOOL_COMMAND_H

#include "error.h"

#include <sys/types.h>

/*
 * Starts argv (NULL-terminated; PATH is searched) in a session of its own with our stdin, stdout,
 * stderr and no other descriptor; it survives us and nobody waits for it. `pid` may be NULL. Called
 * after the rename: a command that cannot be started is ST_COMMAND, and `image` stays where it is.
 */
int command_start(char *const argv[], const char *image, pid_t *pid, struct error *err);

#endif
