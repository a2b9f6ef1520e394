// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * `migtool join ID`: started by the other end through a remote shell, for one more connection to a
 * process that it has on this host already. Not meant for people.
 */
#include "commands.h"
#include "far.h"
#include "join.h"

int cmd_join(const struct config *cfg, struct error *err)
{
	if (!far_is_id(cfg->image))
		return err_set(err, ST_USAGE, "join: \"%.40s\" is no name of a session's",
			       cfg->image);
	return join_hand_over(cfg->image, err);
}
