/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The commands, one function each: 0, or -1 and the error that main turns into an exit status. What
 * they print for scripts goes to stdout, everything else to stderr.
 */
#ifndef MIGTOOL_COMMANDS_H
#define MIGTOOL_COMMANDS_H

#include "config.h"

int cmd_send(const struct config *cfg, struct error *err);
int cmd_recv(const struct config *cfg, struct error *err);
int cmd_check(const struct config *cfg, struct error *err);
int cmd_caps(const struct config *cfg, struct error *err);
int cmd_join(const struct config *cfg, struct error *err);
int cmd_params(const struct config *cfg, struct error *err);
int cmd_psk(const struct config *cfg, struct error *err);

#endif
