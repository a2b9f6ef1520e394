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

/*
 * The same for a link that is yet to be made: the thread makes it by connect(g, ...), whose waits
 * end with the cancel token given to it. c can be used at once; what fails is c's status. `g`
 * outlives it.
 */
struct ssh_login;
typedef struct ssh_link *(ssh_connect)(struct ssh_login *g, int timeout_ms, struct cancel *cancel,
				       struct error *err);
int ssh_pump_start_later(ssh_connect *connect_to, struct ssh_login *g, int timeout_ms,
			 const char *name, const char *command, struct remote_conn *c,
			 struct error *err);

#endif
