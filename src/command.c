// SPDX-License-Identifier: GPL-2.0-or-later
#include "command.h"

#include "broker.h"
#include "log.h"

#include <errno.h>

int command_start(char *const argv[], const char *image, pid_t *pid, struct error *err)
{
	static const int ours[3] = { -1, -1, -1 };
	pid_t child = broker_spawn(argv, ours, SPAWN_SESSION);

	if (child < 0) {
		err_sys(err, ST_COMMAND, errno, "cannot start the command '%s'", argv[0]);
		return err_hint(err,
				"the memory is complete in %s and stays there; only the "
				"command has to be started again",
				image);
	}
	log_verbose("started '%s', process %ld, in a session of its own", argv[0], (long)child);
	if (pid)
		*pid = child;
	return 0;
}
