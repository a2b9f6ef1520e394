/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What pager*.c share. */
#ifndef MIGTOOL_PAGER_INTERNAL_H
#define MIGTOOL_PAGER_INTERNAL_H

#include "bitmap.h"
#include "faultaround.h"
#include "pager.h"
#include "uffd.h"

#include <pthread.h>
#include <stdatomic.h>

/*
 * What is known of a run of pages. Bits are set by atomic acts and never cleared, but where a page
 * that was dropped comes again.
 */
struct pages {
	struct bitmap done;    /* it was placed, or is known to be zero */
	struct bitmap dropped; /* the guest threw it away before: it is zero there */
};

/* A region, and which pages its own are. */
struct view {
	struct guest_region r;
	struct pages *pages;
	size_t first;
};

struct space {
	int uffd;
	pid_t pid;	  /* 0: unknown */
	uint64_t process; /* 0: unknown (guestmem.h) */
	unsigned serial;  /* of a forked child, from 1; 0: it is none */
	atomic_bool gone; /* the process has ended */
	struct view *views;
	unsigned n;
	unsigned strays; /* faults where no view is, since it changed last; the fault thread's */
};

/* A fault that is not answered yet. */
struct fault {
	struct space *space;
	uint64_t address; /* of the page */
	uint64_t since;	  /* nanoseconds */
	pid_t thread;	  /* who waits; 0: not told */
	unsigned block;	  /* with offset and len: what was asked for */
	uint32_t len;
	uint64_t offset;
};

struct fault_list {
	struct fault *v;
	size_t n, room;
};

/* What pager_add() hands to the fault thread, which takes `uffd` over by setting it to -1. */
struct pager_more {
	int uffd;
	pid_t pid;
	struct guest_region region;
	struct error *err;
	int rc;
	bool done;
};

struct pager {
	struct pager_options o;
	uint64_t *sizes;
	bool shared;
	uint32_t page; /* the largest */
	struct space spaces[GUEST_SPACES_MAX];
	unsigned nspaces;     /* under the gate, but for the fault thread, which alone adds some */
	unsigned serial;      /* the last forked child's */
	struct pages **pages; /* all of them, to be freed */
	unsigned npages;
	struct pages **of_block; /* of a shared file, by block: all there from the start */
	atomic_bool in_hand;	 /* the fault thread may have placed a page that is not done yet */
	int pidfd, peer;

	pthread_mutex_t gate; /* see pager.c */
	pthread_cond_t open;
	atomic_uint urgent; /* how many want the gate first */

	pthread_t thread;
	bool running;
	int stop_fd;
	int more_fd; /* eventfd: look at `more` */
	atomic_bool ended;

	/* the fault thread's own */
	struct fault_list work;
	uint8_t *buf; /* one page */
	struct {
		struct faultaround history;
		struct space *space;
		uint64_t at, end; /* what is to be brought there */
		uint8_t *buf;	  /* FAULTAROUND_BYTES */
		unsigned block;	  /* with first and len: what was asked for last */
		uint64_t first, len;
	} around;

	pthread_mutex_t lock; /* of what follows */
	pthread_cond_t changed;
	struct pager_more *more;
	bool failed, full_said;
	struct error why;
	struct fault_list asked; /* for these a page is on its way */
	uint64_t begun;		 /* nanoseconds: no wait before this counts */
	size_t open_faults;
	uint64_t blocked_since; /* nanoseconds; with open_faults */
	struct pager_stats stats;
};

/* ---- pager-space.c: what lies where ---- */

/* Takes the guest's spaces over. -1: ST_NOMEM, ST_UNSUPPORTED. */
int pager_take_spaces(struct pager *p, struct guest_memory *g, struct error *err);
void pager_free_spaces(struct pager *p);
struct view *space_find(const struct space *s, uint64_t address);
/* The page's bits of an address in the view. */
size_t view_index(const struct view *v, uint64_t address);
/*
 * What an event of the address space changes; by the fault thread, with the gate. -1: ST_NOMEM, and
 * the space cannot be served any more.
 */
int pager_event(struct pager *p, struct space *s, const struct uffd_event *e, struct error *err);

/* What is known of a region's pages; *v is filled also on failure. -1: ST_NOMEM. */
int pager_view_init(struct pager *p, struct view *v, const struct guest_region *r,
		    struct error *err);

/*
 * A place for one more space, taken over from a process that has gone, but not from `keep`. NULL:
 * ST_UNSUPPORTED, there are too many. By the fault thread, with the gate.
 */
struct space *space_new(struct pager *p, int uffd, pid_t pid, const struct space *keep,
			struct error *err);

/* ---- pager-note.c: for somebody who goes on when we are gone ---- */

/* What is known of n pages, kept in the ledger if there is one. -1: ST_NOMEM, ST_FILE. */
int pager_new_bits(struct pager *p, struct pages *pages, size_t n, struct error *err);
void pager_free_bits(const struct pager *p, struct pages *pages);
/* All that an opened ledger knows of pages: p->pages[0..npages). -1: ST_NOMEM. */
int pager_load_pages(struct pager *p, struct error *err);
/* Where everything lies has changed. -1: ST_NOMEM, ST_FILE. */
int pager_note(struct pager *p, struct error *err);
/* Where the space's messages are read to (ledger_inbox()), or NULL. */
void *pager_inbox(const struct pager *p, const struct space *s);
/*
 * What another one had read, and was killed before he heeded it: also the guest's forked children
 * of which nobody knows, each for one fork that he was told of. Before anything is placed. -1:
 * ST_DATA, ST_NOMEM, ST_FILE.
 */
int pager_heed_left(struct pager *p, struct guest_memory *g, struct error *err);

/* ---- pager-add.c: more of it ---- */

/* By the fault thread, when more_fd is readable. */
void pager_take_more(struct pager *p);

/* ---- pager-place.c: into the guest ---- */

/* The gate. urgent: before whoever fills the background. */
void gate_enter(struct pager *p, bool urgent);
void gate_leave(struct pager *p, bool urgent);

/*
 * Gives n pages of the view from index `first` on (which is address `to`) to the guest; buf NULL:
 * they are zero, and put there only if somebody waits `now`, else he finds out when he faults.
 * Pages that are done or dropped are left alone. UFFD_DONE: none is left to do, or not by this
 * view, whose mapping is gone.
 */
enum uffd_result place_in_view(struct pager *p, struct space *s, const struct view *v, size_t first,
			       size_t n, const uint8_t *buf, bool now);
/* A missing page of which nothing is to be fetched: it was dropped, or came and was dropped. */
enum uffd_result place_zero(struct pager *p, struct space *s, const struct view *v, uint64_t to);

/* There is no memory on the guest's side: it is told to people, once. */
void say_full(struct pager *p);

/* The address space is gone; unless somebody watches the guest, the last one ends it. */
void space_gone(struct pager *p, struct space *s);

/* ---- pager-way.c: the background, and who waits ---- */

/* With the gate: should whoever fills the background let somebody go first? */
bool way_wanted(struct pager *p);
/* Lets him: sleeps a little, without the gate. */
void way_make(struct pager *p);

/* ---- pager-ask.c: faults whose page has to be asked for ---- */

int fault_add(struct fault_list *l, const struct fault *f);
void fault_drop(struct fault_list *l, size_t i);
/* It was answered. With the lock. */
void fault_closed(struct pager *p, const struct fault *f, uint64_t now);

/*
 * By the fault thread: asks for the page of f, unless somebody waits for it already. 1: it has come
 * meanwhile, or is zero, and f is the caller's still; 0: whoever brings it ends the wait; -1: the
 * source's failure, or ST_NOMEM.
 */
int fault_ask(struct pager *p, const struct fault *f, const struct view *v, size_t i,
	      struct error *err);
/* [offset, offset + len) of the block was placed: who waits for it goes on. With the gate. */
void faults_arrived(struct pager *p, unsigned block, uint64_t offset, uint64_t len);
/* What lies in [start, start + len) has changed: who waits there looks again. With the gate. */
void faults_moved(struct pager *p, const struct space *s, uint64_t start, uint64_t len);

/* ---- pager-around.c: a needed page's neighbours; by the fault thread ---- */

/* The page was needed, and is there. */
void around_note(struct pager *p, struct space *s, const struct view *v, uint64_t address);
/* Brings what was noted last. */
void around_bring(struct pager *p);
/* The page was asked for: its neighbours, too, behind it. -1: as the source's request. */
int around_ask(struct pager *p, const struct view *v, uint64_t address, struct error *err);
/* The space goes. */
void around_forget(struct pager *p, const struct space *s);

/* ---- pager-fault.c: the fault thread ---- */

void *pager_fault_thread(void *arg);
/* The space goes: nobody waits there any more. */
void faults_forget(struct pager *p, const struct space *s);

/* ---- pager.c ---- */

uint64_t pager_clock(void); /* nanoseconds */
/* Serving is over, for this reason: everybody is told, the guest waits. */
void pager_fail(struct pager *p, const struct error *why);
void pager_set_ended(struct pager *p);

#endif
