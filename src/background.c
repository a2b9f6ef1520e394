// SPDX-License-Identifier: GPL-2.0-or-later
#include "background.h"

#include "log.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

/*
 * A tenth of what a guest's thread beside it gets: enough to go on by, and so little that who wakes
 * up is hardly ever thought to have had his share.
 */
#define STEPS 10

void background_thread(void)
{
	errno = 0;
	/* Linux: of the thread, not of the process */
	if (nice(STEPS) == -1 && errno)
		log_verbose("the background keeps its priority: %s", strerror(errno));
}
