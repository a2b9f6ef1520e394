/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A destination where a guest runs before its memory has arrived: what target-lazy.c (a VMM's
 * memory, and the push from an image on this host), target-caught.c (COMMAND, and a process that
 * runs already) and target-pull.c (a source on another host) share.
 */
#ifndef MIGTOOL_LAZY_H
#define MIGTOOL_LAZY_H

#include "faultlog.h"
#include "image.h"
#include "pager.h"
#include "session.h"

struct caught;
struct pull;

struct lazy {
	struct session *ss;
	struct image *img;     /* its blocks: the source, or (pull) the target's, which owns it */
	struct pull *pull;     /* a source on another host; NULL: img is the source */
	struct cancel *cancel; /* of what outlives a connection; the session's, if nothing does */
	struct pager *pager;
	struct caught *caught;	       /* NULL: a VMM hands its memory over */
	struct faultlog needs, wanted; /* --record, --prefetch */
	uint8_t *buf;		       /* of the push: PUSH_BUFFER, or a huge page */
	size_t buf_len;
	uint32_t page;	       /* the guest's largest */
	struct ledger *ledger; /* NULL: there is no guest yet */
	int ledger_fd;	       /* a VMM's, until there is one */
	pid_t vmm;	       /* 0: unknown, or none */
	bool full_said;
	bool over; /* the guest needs nobody any more */
};

/* In a ledger that was made for a guest whose own is lost: what it has memory of is not known. */
extern const struct ledger_file lazy_lost_file;

/* What messages call the source. */
const char *lazy_source(const struct lazy *l);
/* Until the guest is there and the pager serves it: a VMM has come, or a mapping was caught. */
int lazy_ready(struct lazy *l, struct error *err);
/*
 * Starts to serve the guest, which is taken over also on failure. Without l->ledger one is made.
 */
int lazy_start_pager(struct lazy *l, struct guest_memory *g, struct error *err);
/* A VMM's guest that waits, since whoever has served it is gone (takeup.h). */
int lazy_take_up(struct lazy *l, struct error *err);
/* What came and each mapping has a copy of, into the file: waits while there is no room. */
int lazy_keep(struct lazy *l, uint64_t offset, const void *buf, size_t len, struct error *err);
/* What goes on beside the connection has failed: the session does, now or when it takes it up. */
void lazy_fail(struct lazy *l, const struct error *err);
/* Serving is over: the numbers are final. */
void lazy_take_stats(struct lazy *l);
/* The guest is left waiting, and that is what there is to say. Returns -1. */
int lazy_left_waiting(struct lazy *l, struct error *err);

/* ---- target-pull.c ---- */

/* Looks whether the source is still there, while the guest is waited for. */
int pull_check(struct pull *p, struct error *err);
/* The guest's pages are asked for here: pager_source's request. */
int pull_request(void *arg, unsigned block, uint64_t offset, size_t len, struct error *err);
/* After the pager's end. Of a guest that waits IMAGE.part stays. */
void pull_close(struct pull *p, const struct session *ss);
/* Reports it, while there is a try that can fail, else to the next one. */
void pull_fail(struct pull *p, const struct error *err);
/* A guest that is taken up: what its ledger (NULL: it is lost) says of its source. Sets l->img. */
int pull_learn(struct lazy *l, struct error *err);

/*
 * `who` is left waiting, or is ended, as the user wants it, and that is what there is to say
 * (session_lost); hint: how to go on, if it waits. Returns -1.
 */
int lazy_lost(struct lazy *l, const char *who, const char *hint, struct error *err);

/* ---- target-caught.c ---- */

/* A file for a ledger, which somebody keeps who outlives us. -1: ST_NOMEM, ST_COMMAND. */
int caught_ledger(struct error *err);

/* Opens the file that COMMAND will map, or makes it. ST_FILE, ST_UNSUPPORTED. */
int caught_open(struct lazy *l, struct error *err);
/* Can it be the memory of so many bytes? */
int caught_check(struct lazy *l, uint64_t size, struct error *err);
/*
 * Starts COMMAND, or takes the process; back when its first mapping is served. With a source on
 * another host it does not go on before caught_commit().
 */
int caught_ready(struct lazy *l, struct error *err);
/* Likewise until it is ready: what it says of itself, or that it cannot go on, decides that. */
int caught_await(struct lazy *l, struct error *err);
/* The size of the file. */
uint64_t caught_size(const struct lazy *l);
/* COMMIT: the memory is ours, and who waits to see his mapping may. */
void caught_commit(struct lazy *l);
/* A page that came and lies in no mapping of COMMAND's: into the file. */
int caught_store(void *arg, unsigned block, uint64_t offset, const void *buf, size_t len,
		 struct error *err);
/* A forked child's userfaultfd is kept by somebody else too. */
void caught_forked(void *arg, int uffd, unsigned serial);
/* The same for pages that came and that each mapping has a copy of. */
int caught_keep(struct lazy *l, uint64_t offset, const void *buf, size_t len, struct error *err);
/* All has come: COMMAND is let go. */
int caught_complete(struct lazy *l, struct error *err);
/* Listens to it no more. */
void caught_stop(struct lazy *l);
/* The guest has ended too early; fills err and returns -1. */
int caught_early(struct lazy *l, struct error *err);
/* The guest is left waiting: says which one it is (session_lost). Returns -1. */
int caught_lost(struct lazy *l, struct error *err);
void caught_close(struct lazy *l);

#endif
