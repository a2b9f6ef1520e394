/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef MIGTOOL_CONFINE_H
#define MIGTOOL_CONFINE_H

#include "config.h"
#include "error.h"

/*
 * Before a command that speaks with a peer: checks the descriptors that the command line names,
 * starts the broker with what this command line may need, and takes everything else away from this
 * process (broker.c, sandbox.c). With --no-sandbox: a warning. Commands without a peer are left as
 * they are. To be called before anything is opened. -1: ST_USAGE, ST_UNSUPPORTED, ST_NOMEM.
 */
int confine(const struct config *cfg, struct error *err);

#endif
