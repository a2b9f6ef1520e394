/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * COMMAND in postcopy: a process of its own, the catcher, starts it and watches its system calls,
 * so that every mapping of IMAGE is under a userfaultfd before COMMAND can touch it. This is the
 * side of who asks for that; catch-watch.c is the catcher.
 *
 * The catcher is forked before the sandbox goes up, reads nothing of a peer, and takes only the few
 * orders below. It outlives us if it must: when we end before catch_complete() and catch_ack() was
 * not called, COMMAND is ended; afterwards it is left waiting for its pages, still watched, or is
 * ended, as the plan has it.
 *
 * One thread uses this, but where something else is said.
 */
#ifndef MIGTOOL_CATCH_H
#define MIGTOOL_CATCH_H

#include "cancel.h"
#include "error.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define CATCH_BLOCKS_MAX  64
#define CATCH_REGIONS_MAX 256 /* of a process that ran before */

struct catch_plan {
	char *const *argv;	  /* NULL-terminated; PATH is searched */
	pid_t guest;		  /* not 0: it runs already, maps the image, and is taken instead */
	bool kill;		  /* end the guest when we end before catch_complete() */
	bool resume;		  /* the guest waits: somebody has served it before, and is gone */
	const struct config *cfg; /* the run, for words; it has to live as long as the process */
};

/*
 * Forks the catcher, which waits for catch_go(). To be called while the process has one thread and
 * no sandbox. ST_NOMEM. With `resume` the catcher that watches the guest is gone to instead, if it
 * lives: ST_UNSUPPORTED, ST_COMMAND.
 */
int catch_start(const struct catch_plan *plan, struct error *err);

/* A RAM block: its file, open for writing, and the size that it is to have. */
struct catch_block {
	int fd;
	uint64_t size;
};

/*
 * Can missing pages of such a file be served? ST_UNSUPPORTED says why not, and what to use instead.
 * *page: bytes that are placed at a time.
 */
int catch_check_file(int fd, const char *name, uint32_t *page, struct error *err);

/*
 * Sees that nobody else maps the files, makes them holes of that size, and starts COMMAND. The
 * descriptors stay the caller's. A guest that runs already: its mappings are caught, then the files
 * are emptied; CATCH_SPACE and all CATCH_REGIONs come before CATCH_RUNS, and nothing needs
 * catch_ack(). A failure before leaves it, and what is in the files, as it was.
 */
int catch_go(const struct catch_block *blocks, unsigned n, struct error *err);

/*
 * Before catch_go(): COMMAND gets a NOTIFY_SOCKET, and what it says there (READY=1) is reported.
 * ST_COMMAND.
 */
int catch_notify(struct error *err);

/*
 * A guest that is served on: first come a CATCH_SPACE for each of its processes that the catcher
 * has made a userfaultfd for, and for each forked child; then CATCH_LEDGER, or, if nobody has ever
 * served it, each mapping that there is as a CATCH_REGION; then those whose threads wait for
 * catch_ack(); then CATCH_RUNS.
 */
enum catch_kind {
	CATCH_RUNS, /* COMMAND was started: pid */
	/*
	 * An address space: pid, and its userfaultfd, ours from then on. To serve on: pid 0 is a
	 * forked child, `token` its serial number, or CATCH_UNNOTED, and wstatus the number that
	 * who served had for its userfaultfd; of another one token is not 0 if nobody has agreed
	 * yet to serve it.
	 */
	CATCH_SPACE,
	CATCH_LEDGER, /* what is known of the guest: uffd is that file, ours from then on */
	CATCH_REGION, /* in the space of `pid`; its thread waits for catch_ack(token) */
	CATCH_WARNS,  /* why: something was refused to COMMAND, or is not served; it goes on */
	CATCH_ENDED,  /* COMMAND and all that it started has ended: wstatus is its own */
	CATCH_FAILED, /* why; COMMAND was ended, unless there was a CATCH_REGION */
	CATCH_LEFT,   /* after catch_complete(): nobody watches it any more */
	CATCH_READY,  /* after catch_notify(): COMMAND has said that it is, once */
	CATCH__MAX
};

/* Who served was killed before he could pass the child on: its ledger's inbox tells of it. */
#define CATCH_UNNOTED 0

struct catch_region {
	uint64_t address, len;
	uint64_t offset; /* in the block */
	uint32_t block, page;
	bool shared; /* what is placed there is in the file, too */
};

struct catch_event {
	enum catch_kind kind;
	pid_t pid;
	int uffd; /* close-on-exec, non-blocking, UFFDIO_API done; a copy stays in the process */
	uint32_t token;
	struct catch_region region;
	int wstatus;
	struct error why;
};

/*
 * Waits for the next event, at most so many ms (-1: no limit). 1: there is one, 0: time is up, -1:
 * cancelled, or the catcher is gone (ST_COMMAND).
 */
int catch_next(struct cancel *cancel, int ms, struct catch_event *out, struct error *err);

/*
 * Faults in the region will be served from now on: the thread that mapped it may go on. A first
 * mapping that is not to be served is refused by catch_stop() instead, which ends COMMAND.
 */
int catch_ack(uint32_t token, struct error *err);

/*
 * The same of a thread of COMMAND's before there is a guest: until catch_ours() all of COMMAND is
 * still ended when we end, for it has waited for its first page so far.
 */
int catch_let(uint32_t token, struct error *err);
int catch_ours(struct error *err);

/*
 * The userfaultfd of a forked child, whose number in the ledger is `serial`, of which nobody else
 * has a copy: the catcher keeps one, so that the child waits when we are killed; CATCH_WARNS if it
 * cannot. One that it has gets that number instead. Of more than 64 children that live the catcher
 * lets none run before catch_complete(). Any thread.
 */
int catch_keep(int uffd, unsigned serial, struct error *err);

/* A ledger's file: who serves the guest on, when we are gone, gets it. */
int catch_ledger(int fd, struct error *err);

/* All memory is there and every range is unregistered: COMMAND runs on alone. CATCH_LEFT follows.
 */
int catch_complete(struct error *err);

/* Closes our end. Waits for the catcher's, unless it has a guest to watch. */
void catch_stop(void);

#endif
