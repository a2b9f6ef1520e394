/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Signals as requests that the main thread polls for: they are blocked in every thread and read
 * from one signalfd, so no handler ever runs. SIGPIPE is ignored.
 */
#ifndef MIGTOOL_SIGNALS_H
#define MIGTOOL_SIGNALS_H

#include "error.h"

enum signal_request {
	SIGNAL_NONE,  /* nothing pending */
	SIGNAL_INT,   /* cancel */
	SIGNAL_TERM,  /* cancel */
	SIGNAL_HUP,   /* cancel; in postcopy: ignored */
	SIGNAL_STATS, /* SIGUSR1: print statistics */
	SIGNAL_STEP,  /* SIGUSR2: do the next pending step */
};

/*
 * Blocks them until signals_init makes them requests: for what comes before it and must not be cut
 * short, as the start of the sandbox's processes. What is spawned does not inherit it.
 */
void signals_hold(void);

/*
 * Blocks them and makes the descriptor; called once, before any thread starts (threads inherit the
 * mask). SIGINT is taken even where a shell's `&` made us ignore it; SIGHUP stays ignored under
 * nohup. ST_NOMEM when the kernel has no descriptor for us.
 */
int signals_init(struct error *err);

/* Readable when a request is pending; -1 before signals_init. */
int signals_fd(void);

/* The next pending request, each kind once however often it came; never waits. Main thread only. */
enum signal_request signals_next(void);

/* Does it ask to cancel? */
bool signals_is_cancel(enum signal_request req);

/* "SIGINT"...; for messages. */
const char *signals_name(enum signal_request req);

/* Closes the descriptor. The signals stay blocked: what comes now, the exit will not mind. */
void signals_close(void);

#endif
