/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The command line of the migtool on the far host of an ssh: URI, as words for the far login's
 * shell. Pure.
 */
#ifndef MIGTOOL_FAR_H
#define MIGTOOL_FAR_H

#include "check.h"
#include "config.h"
#include "uri.h"

#define FAR_ID_LEN 32 /* hex digits of a session's name for its extra channels */

/*
 * What has to run there when this side is `role`: the other command, on stdio:, with the options
 * that concern it. Every word of ours is quoted, so that none becomes a command or an option;
 * --remote-command goes first as the user wrote it. The caller frees it; NULL: ST_NOMEM, ST_USAGE.
 */
char *far_command(const struct config *cfg, const struct uri *uri, enum role role,
		  struct error *err);

/* What hands one more connection to the far process whose name for it is `id`. */
char *far_join_command(const struct config *cfg, const char *id, struct error *err);

/* "USER@HOST" or "HOST", as messages call the far side. Cut to fit; returns buf. */
char *far_name(const struct uri *uri, char *buf, size_t len);

/* Is it what a far process may call itself: FAR_ID_LEN hex digits? */
bool far_is_id(const char *id);

#endif
