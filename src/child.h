/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A process that a connection goes through. It runs in a process group of its own: Ctrl-C is for us
 * to act on (after COMMIT it must not tear the connection), and what it started can be ended with
 * it. The price is that it cannot ask the terminal anything; one that tries is stopped by the
 * kernel.
 */
#ifndef MIGTOOL_CHILD_H
#define MIGTOOL_CHILD_H

#include <pthread.h>
#include <stdbool.h>
#include <sys/types.h>

/* Zeros: none. Any thread may call what is below. */
struct child {
	pthread_mutex_t
		lock; /* guards what follows; reader and writer may both find that it ended */
	pid_t pid;    /* 0: reaped */
	int wstatus;  /* waitpid's, once reaped */
};

/*
 * Starts argv on one end of a socket pair, its stdin and stdout; err_fd is its stderr (-1: ours).
 * *fd is given the other end, *end_fd a descriptor that is readable once it has ended; both are the
 * caller's and close-on-exec. 0, or -1 with errno: nothing is left.
 */
int child_start(struct child *c, char *const argv[], int err_fd, int *fd, int *end_fd);

/* True: it has ended, and wstatus says how. */
bool child_reap(struct child *c);

/* Signals it and all that it started, if it was not reaped. */
void child_signal(struct child *c, int sig);

/* True: it is stopped because it wants the terminal, and will never answer. */
bool child_wants_terminal(struct child *c);

/* Forgets it; what has not ended is left to init. */
void child_free(struct child *c);

#endif
