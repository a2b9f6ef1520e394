/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A command on the far host over a link that is logged in, and the thread that moves its bytes
 * between the channel and descriptors.
 */
#ifndef MIGTOOL_SSH_PUMP_H
#define MIGTOOL_SSH_PUMP_H

#include "remote.h"
#include "ssh-link.h"

/*
 * Starts the command and the thread, and fills c. The link is the pump's from here on, on failure
 * too. ST_REFUSED: the server gives no channel, or starts no commands.
 */
int ssh_pump_start(struct ssh_link *l, const char *command, struct remote_conn *c,
		   struct error *err);

#endif
