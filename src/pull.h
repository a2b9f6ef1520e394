/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A guest whose memory comes from a source on another host: what target-pull.c (its stages) and
 * target-lane.c (its pages) share.
 */
#ifndef MIGTOOL_PULL_H
#define MIGTOOL_PULL_H

#include "ahead.h"
#include "bitmap.h"
#include "lazy.h"
#include "target.h"

/* A connection's pages, into the guest as they come. One thread. */
struct pull_lane {
	struct target *t;
	struct stream *s;
	bool asked;	     /* somebody waits for what comes here */
	struct ahead *ahead; /* before COMMIT: there, and not into the guest; else NULL */
	struct block *block;
	uint8_t *buf; /* of neighbours; whole units are placed and dropped */
	size_t cap, have;
	uint64_t at;	   /* buf's place in the block */
	uint32_t unit;	   /* bytes that are placed at once, a power of two */
	struct digest sum; /* of what has come */
};

/* What is said to the source at the end; one of the two. */
enum verdict { VERDICT_NONE, VERDICT_ENOUGH, VERDICT_READY };

struct pull {
	struct target *t;  /* of this try */
	struct image *img; /* between two tries, and from then on; else the target's */
	struct bitmap got; /* units of the block that have come, whoever maps them; the ledger's */
	struct ahead *_Atomic ahead; /* what of them came before COMMIT; NULL: nothing did */
	struct bitmap counted;	     /* those that a lane of this try has taken as the first */
	struct cancel cancel;	     /* of what outlives a connection */
	struct transport *second;    /* for requested pages; NULL: there is none */
	struct stream stream;	     /* over it */
	struct pull_lane main, urgent;
	pthread_t thread; /* reads it */
	bool running;
	int rc; /* the thread's result */
	struct error why;
	atomic_bool over; /* its end is no failure */
	atomic_uint placing;
	bool keeps;	      /* --uffd-socket with an IMAGE */
	bool unnamed;	      /* which block it is has not been said yet */
	bool listened;	      /* LISTEN was taken: the guest may have begun, with what was there */
	bool has_source;      /* what the source's files are: */
	struct digest source; /* the greeting's */
	pthread_t fetcher;    /* --prefetch */
	bool fetches;
	atomic_bool fetching; /* it wants to be told of what comes */
	pthread_cond_t came;  /* with fetch_lock */
	pthread_mutex_t fetch_lock;
	enum verdict verdict; /* under the target's rp_lock */

	pthread_mutex_t lock; /* of what follows, and of asking */
	bool attached;	      /* there is a try that can fail */
	atomic_bool ready;    /* LISTENING was said */
	atomic_bool open;     /* COMMIT was taken: requests can be answered */
	bool failed;	      /* beside the connection */
	struct error failure;
};

/* Bytes that are placed at once, of a guest and a source with such pages. */
uint32_t pull_unit(uint32_t guest, uint32_t page);

/* ---- target-takeup.c ---- */

/* A guest that another process has served: it is served from here on, and waits for its source. */
int pull_take_up(struct target *t, struct error *err);
/* Nobody has written down which blocks it has: those of this greeting, of that size. */
int pull_take_blocks(struct target *t, struct error *err);
/* The session that the guest belongs to is that of this greeting. */
void pull_first(struct target *t);
/* COMMIT: what whoever goes on when we are gone has to know. */
void pull_hand_over(struct target *t);

/* ---- target-pull-state.c ---- */

/* Is there a place for a device state that is announced? */
int pull_judge_state(const struct target *t, struct error *err);
/*
 * Another try, once the image is there: has the guest begun as this source's would? ST_UNSUPPORTED.
 */
int pull_judge_begun(const struct target *t, struct error *err);
/* Once the image was made. ST_FILE, ST_UNSUPPORTED. */
int pull_open_state(struct target *t, struct error *err);
/* LISTEN, of so many bytes that are still to be read: all of it is here, and gets its name. */
int pull_listen_state(struct target *t, uint32_t len, struct error *err);
/* DIGEST has told of the same. */
int pull_verify_state(const struct target *t, struct error *err);

/* ---- target-pull-ahead.c ---- */

/* A page comes before COMMIT: its place. A guest that waits gets all that it lacks behind it. */
int pull_ahead_open(struct target *t, struct error *err);
/* The guest's unit is known: of those that came in part nothing stays. */
int pull_ahead_settle(struct pull *p, struct error *err);
/* Sets the units of a block that are here and not in the guest, while they are not brought. */
void pull_ahead_mark(const struct pull *p, const struct block *b, struct bitmap *map);
/* Until all of it is in the guest. */
int pull_ahead_wait(struct pull *p, struct error *err);
/* It was another try's. ST_FILE. */
int pull_ahead_forget(struct pull *p, struct error *err);

/* Recovery, before LISTENING: tells the source which those are. */
int pull_tell_came(struct target *t, struct error *err);

/*
 * The stream stays the caller's. Without the guest's page (0) it is for what comes ahead. ST_NOMEM.
 * A zeroed lane may be closed.
 */
int pull_lane_open(struct pull_lane *l, struct target *t, struct stream *s, uint32_t guest,
		   bool asked, struct error *err);
void pull_lane_close(struct pull_lane *l);

/* The record that begins with this word: read, checked, given to the guest. */
int pull_lane_record(struct pull_lane *l, uint64_t word, struct error *err);

/* Behind a section's records: nothing may be half there. ST_DATA. */
int pull_lane_rest(const struct pull_lane *l, struct error *err);

/* Is it waiting for room, or for the guest? Nothing is read meanwhile, which is not the peer's
 * fault. */
bool pull_is_placing(const struct pull *p);
void pull_placing(struct pull *p, bool now);

/*
 * How much of a run of whole units, from its first on, comes for the first time: who learns of it
 * has to count and store it, and then to call pull_came. 0: not that unit. The lanes' threads.
 */
size_t pull_win(struct pull *p, uint64_t offset, size_t len);

/* A run of whole units has come, and is stored; the lanes' threads. */
void pull_came(struct pull *p, const struct block *b, uint64_t offset, uint64_t len);

/* Pages that came, for --uffd-socket's IMAGE; after the guest has them. */
int pull_store(struct pull *p, struct block *b, uint64_t offset, const void *buf, size_t len,
	       struct error *err);

#endif
