/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The option table: argv to struct config, --help, --usage, --list-options for the completions. */
#ifndef MIGTOOL_OPTIONS_H
#define MIGTOOL_OPTIONS_H

#include "config.h"

/*
 * Parses argv. 0: cfg is complete; 1: the option answered by itself on stdout (--help, --usage,
 * -V, the hidden listings) and the program ends with success; -1: ST_USAGE. Strings in cfg live
 * until options_free. argv is split at the first `--` before popt sees it, because popt drops it.
 */
int options_parse(struct config *cfg, int argc, char **argv, struct error *err);
void options_free(struct config *cfg);

#endif
