/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The engine that serves the page faults of a guest whose memory is still elsewhere. pager.c has
 * the theory of operation.
 *
 * Never zero. A page is given to the guest when its content is here, or when it is known to be
 * zero: it was dropped by the guest itself, or pager_complete() was told that all else has come.
 * In every other case, an error above all, the guest waits; pager_stop() before completion leaves
 * it waiting.
 *
 * Who owns what. pager_start() takes the guest's memory over and its threads end in pager_stop(),
 * which closes our descriptors. The source's functions are called from the pager's threads and must
 * not call back, except the pager_arrived*(), which any thread may call.
 */
#ifndef MIGTOOL_PAGER_H
#define MIGTOOL_PAGER_H

#include "blocktime.h"
#include "cancel.h"
#include "guestmem.h"
#include "latency.h"
#include "ledger.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct pager;

/* Where pages come from: one of the two functions. */
struct pager_source {
	/*
	 * Fills buf with len bytes of the block at once. *zero: they are all zero,
	 * and buf need not be filled.
	 */
	int (*read)(void *arg, unsigned block, uint64_t offset, void *buf, size_t len, bool *zero,
		    struct error *err);
	/*
	 * Asks for a page that comes by pager_arrived*() some time; each is asked for once, until
	 * pager_ask_again(). By the fault thread, and by who calls that. -1: it never comes.
	 */
	int (*request)(void *arg, unsigned block, uint64_t offset, size_t len, struct error *err);
	void *arg;
};

struct pager_options {
	struct cancel *cancel;	/* not owned: fired, and the threads end, the guest waits */
	struct cancel *bringer; /* not owned: fired, and who brings pages gives up; NULL: cancel */
	struct pager_source source;
	const uint64_t *sizes; /* of the image's blocks; copied */
	unsigned nblocks;
	/*
	 * A shared file's page that no region covers (any more) goes into the file itself, like
	 * image_place; if there is no room (pager_full) it is tried again. NULL: nowhere; for
	 * memory that is not shared it is not called.
	 */
	int (*store)(void *arg, unsigned block, uint64_t offset, const void *buf, size_t len,
		     struct error *err);
	void *store_arg;
	/* Called by the fault thread for a forked child's userfaultfd, the only copy; or NULL */
	void (*forked)(void *arg, int uffd, unsigned serial);
	void *forked_arg;
	/*
	 * Memory that is not shared is a file's private mapping: what the guest drops there is not
	 * zero from then on, but as it came.
	 */
	bool drops_come_again;
	/* Somebody watches the guest's processes, and pager_end() alone ends it */
	bool watched;
	/*
	 * Not owned; what is known of the guest's pages is kept there. A new one, made for this
	 * guest, or one that was opened: then guestmem_resume() has filled in the guest, whose
	 * threads are told to fault anew. NULL: nobody can go on when we are gone.
	 */
	struct ledger *ledger;
	/* Called by the fault thread for each page when it is first needed; NULL: nobody listens */
	void (*first_need)(void *arg, unsigned block, uint64_t offset);
	void *need_arg;
};

/*
 * Takes *guest over, also on failure, and leaves it empty. Checks it (guestmem_check), starts to
 * serve. ST_DATA, ST_NOMEM.
 */
struct pager *pager_start(struct guest_memory *guest, const struct pager_options *o,
			  struct error *err);

/*
 * One more mapping, while the guest is served: of a process that is known by its pid, or of another
 * one, or with an address space of its own after exec (uffd >= 0, taken over also on failure).
 * Faults there are answered from now on, and a page that has come to a shared file is there. For
 * memory that is shared if all of the guest's is. -1: ST_NOMEM, ST_UNSUPPORTED, ST_COMMAND (the
 * guest has ended).
 */
int pager_add(struct pager *p, int uffd, pid_t pid, const struct guest_region *r,
	      struct error *err);

/*
 * A page, or a run of them, has come: offset and len are multiples of the largest page of the
 * guest, or reach to the block's end. What is there already, or was dropped by the guest, is left
 * alone. Waits while the guest's side has no memory for it. -1: cancelled, or the guest cannot be
 * served any more (the reason); a guest that has ended is no error.
 */
int pager_arrived(struct pager *p, unsigned block, uint64_t offset, const void *buf, size_t len,
		  struct error *err);
/* The same for pages that are known to be zero. */
int pager_arrived_zero(struct pager *p, unsigned block, uint64_t offset, uint64_t len,
		       struct error *err);

/* One page or few, that somebody waits for: before what comes in the background. buf NULL: zeros.
 */
int pager_arrived_asked(struct pager *p, unsigned block, uint64_t offset, const void *buf,
			size_t len, struct error *err);

/*
 * Asks anew for all that the guest waits for: whoever was asked could not hear it, or is gone. What
 * comes twice does no harm. -1: as the source's request.
 */
int pager_ask_again(struct pager *p, struct error *err);

/* The guest was handed over: what it waited for that is nobody's latency. */
void pager_begins(struct pager *p);

/* The next page at or after `from` that has not come; the block's size: there is none. */
uint64_t pager_next_missing(struct pager *p, unsigned block, uint64_t from);

/*
 * Everything that is not zero has come: the rest is zero. From now on the guest needs nobody. -1:
 * it still does (the reason).
 */
int pager_complete(struct pager *p, struct error *err);

/*
 * Waits until the guest has ended (1), or `timeout_ms` (-1: no limit) are over (0). -1: the token
 * was fired, or faults cannot be served any more (the reason).
 */
int pager_wait(struct pager *p, int timeout_ms, struct error *err);
bool pager_guest_ended(const struct pager *p);

struct pager_stats {
	uint64_t faults;	  /* the kernel told of */
	uint64_t placed;	  /* bytes that were put into the guest */
	uint64_t around;	  /* pages that came with a needed one, its neighbours */
	uint64_t waiting;	  /* faults that have no answer */
	uint64_t blocked_ns;	  /* for how long at least one of the guest's threads waited */
	struct latency latency;	  /* from the kernel's message to the page */
	struct blocktime threads; /* the same, by thread */
};
void pager_get_stats(struct pager *p, struct pager_stats *out);

/* Is there no memory, or no room, for the guest's pages? Then to wait is all that can be done. */
bool pager_full(const struct error *err);

/* The guest has ended, as somebody knows who watches its processes. */
void pager_end(struct pager *p);

/* Ends the threads: the numbers are final. Who waits for a page goes on waiting. */
void pager_halt(struct pager *p);

/* The same, closes our descriptors, frees. NULL is accepted. */
void pager_stop(struct pager *p);

#endif
