/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The catcher's state; private to catch-*.c. */
#ifndef MIGTOOL_CATCH_WATCH_H
#define MIGTOOL_CATCH_WATCH_H

#include "catch-msg.h"
#include "catch-proc.h"
#include "catch-uffd.h"

#define CATCH_THREADS_MAX  4096
#define CATCH_GUESTS_MAX   64
#define CATCH_CHILDREN_MAX 64

struct catch_thread {
	pid_t tid, pid;
	bool waits;  /* stopped behind its mmap, until somebody serves the region */
	bool child;  /* the first of a process that began behind the first mapping */
	bool stays;  /* stopped where it began, until all memory has come */
	bool called; /* we have interrupted it, to let it go */
	bool skips;  /* the call that it is in fails, for its argument `spoilt` */
	unsigned spoilt;
	uint64_t was; /* that argument */
	bool maps;    /* the call that it is in maps a block, as follows */
	uint64_t at;  /* with `waits`: where it has mapped that */
	struct {
		uint64_t prot, flags; /* as it wanted them */
		uint64_t len, offset;
		unsigned block;
	} map;
};

/* A process that maps the image. */
struct catch_guest {
	pid_t pid;
	struct catch_uffd uffd;
	bool agreed; /* somebody serves it, and has noted where */
};

/* A userfaultfd of a forked child, which is known by a number to whoever serves it. */
struct catch_kept {
	int fd;
	uint32_t serial;
	uint32_t number; /* of the descriptor at who had it last, and is gone */
};

struct catch_watch {
	const struct catch_plan *plan;
	int sock;     /* -1: who serves is gone */
	int listener; /* for the next one */
	int ledger;   /* what is known of the guest's pages; -1: not yet */
	struct catch_files files;
	int fds[CATCH_BLOCKS_MAX]; /* these, open, for a guest that runs already */

	struct catch_thread *threads;
	unsigned nthreads, cap;
	struct catch_guest guests[CATCH_GUESTS_MAX];
	unsigned nguests;
	struct catch_kept kept[2 * CATCH_CHILDREN_MAX]; /* of forked children */
	unsigned nkept;

	pid_t root; /* COMMAND; 0: not started */
	int status; /* its waitpid status, once it has ended */
	int exec_report;
	bool runs;	 /* its exec succeeded */
	bool runs_guest; /* somebody has mapped the image */
	bool served;	 /* and has gone on behind that */
	bool releases;	 /* each thread is let go at its next stop */
	bool kills;	 /* the guest is ended when who serves it is gone */
	bool left;	 /* he has said that he goes */
	bool is_new;	 /* he has come later, and not yet said GO */
	bool notifies;	 /* COMMAND is to say when it is ready */
	bool ready;	 /* and has */
	int notify;	 /* where it does; -1 */
	unsigned nnew;	 /* so many blocks he has named */
	bool other;	 /* and one of them is not the guest's */
};

/* ---- catch-watch.c ---- */

/* Is there anybody who takes reports? */
bool catch_is_heard(const struct catch_watch *w);

void catch_report(struct catch_watch *w, struct catch_report *r, int fd);
void catch_warn(struct catch_watch *w, const struct error *why);
/* COMMAND cannot go on. Ended, and reported; the caller resumes nobody. */
void catch_fail(struct catch_watch *w, const struct error *why);

/*
 * Does somebody map the image whom we do not watch, and who would read zeros? ST_UNSUPPORTED names
 * the process. We and who started us do not count.
 */
int catch_nobody_else(struct catch_watch *w, struct error *err);

/* A thread of that number, NULL: none. */
struct catch_thread *catch_find(struct catch_watch *w, pid_t tid);
/* The same, made if there is none. NULL: no memory, or it has ended already. */
struct catch_thread *catch_add(struct catch_watch *w, pid_t tid);

/* A thread goes on: alone, if it is to be let go. */
void catch_resume(struct catch_watch *w, struct catch_thread *t, int sig);
/* SIGKILL for all that we watch. */
void catch_end_all(struct catch_watch *w);
int catch_start_command(struct catch_watch *w, struct error *err);

/* ---- catch-orders.c ---- */

void catch_take_order(struct catch_watch *w);

/* ---- catch-notify.c ---- */

/* With w->notifies: the socket, and its name in the environment that COMMAND will have. ST_NOMEM.
 */
int catch_notify_open(struct catch_watch *w, struct error *err);
/* Reads what there is. */
void catch_notify_take(struct catch_watch *w);

/* ---- catch-again.c ---- */

/* So that somebody can come and serve the guest on. A failure is said when that is needed. */
void catch_listen(struct catch_watch *w);
/* Tells people how to do that. */
void catch_say_again(struct catch_watch *w);
/* Somebody comes. */
void catch_take_new(struct catch_watch *w);
/* What he says before he serves. */
void catch_hear_new(struct catch_watch *w, const struct catch_order *o, int fd);

/* ---- catch-adopt.c ---- */

/* Takes a process that runs. */
int catch_adopt(struct catch_watch *w, pid_t pid, struct error *err);

/* ---- catch-map.c: one thread's calls; each says whether the thread may go on at once ---- */

bool catch_entry(struct catch_watch *w, struct catch_thread *t, const struct catch_call *call);
bool catch_exit(struct catch_watch *w, struct catch_thread *t, const struct catch_call *call);
/* What a thread that waits has mapped. */
struct catch_region catch_waiting(const struct catch_watch *w, const struct catch_thread *t);

/* A process has ended or runs another program: what was known of its memory is void. */
void catch_forget(struct catch_watch *w, pid_t pid);

#endif
