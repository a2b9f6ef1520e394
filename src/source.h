/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the source's files share: source.c (stages), pagesend.c, multifd-send.c, compress.c. */
#ifndef MIGTOOL_SOURCE_H
#define MIGTOOL_SOURCE_H

#include "batch.h"
#include "dirty.h"
#include "pagecache.h"
#include "returnpath.h"
#include "session.h"
#include "wire-ram.h"
#include "wire.h"

#define RAM_SECTION_ID 2 /* what QEMU uses on x86; any but 0 */

struct multifd_send;
struct compressor;
struct delta_compare;
struct postcopy_send;

struct source {
	struct session *ss;
	struct image *img;
	struct sent_digest digest;
	struct returnpath rp;
	struct greet_answer answer;
	struct dirty *dirty;   /* NULL: memory at rest, one round */
	struct image *base;    /* --base: an old copy that the destination has */
	struct digest *shared; /* x-ignore-shared: of blocks that are not sent; or NULL */
	struct digest base_digest;
	struct multifd_send *multifd; /* NULL: off, likewise below */
	struct compressor *compressor;
	struct delta_compare *compare; /* the destination has an old copy */
	struct batch_pool pool;	       /* of the inline path: one batch */
	struct page_cache *cache;      /* xbzrle */
	uint8_t *delta;		       /* xbzrle's output, a page */

	struct postcopy_send *_Atomic postcopy; /* NULL: the guest waits for all of it */
	uint64_t device_sections; /* bytes of the device state that go into postcopy's package */
	uint64_t precopied;	  /* bytes of data that were sent before the switch */
	bool recovers;		  /* --resume: the guest runs there, and waits */
	bool guest_waits;	  /* the same, at a migtool */
	bool guest_ready;	  /* it is to run at a migtool, and could now: LISTENING was said */
	bool has_identity;
	struct digest identity;	    /* what the files of the image are */
	atomic_bool postcopy_asked; /* SIGUSR2 */

	unsigned round;			/* counts from 1 */
	const struct block *last_block; /* main channel's "same block" state */
	bool in_section;		/* a RAM section is open on the main channel */
	uint64_t section_bytes;
	bool may_explain; /* a reason may stand where the stream is, once what was begun is whole */

	struct {
		int wake;	   /* eventfd, -1: none */
		atomic_bool waits; /* for the user */
	} pause;
};

/* Is it a block that both ends reach and that is not sent (x-ignore-shared)? source-open.c */
bool source_ignores(const struct source *src, const struct block *b);

/* The device state, if there is one; to a migtool in commands. source.c */
int source_send_device_state(struct source *src, struct error *err);
/* What was sent so far, and the device state. source.c */
void source_own_digest(const struct source *src, struct wire_digest *d);

/* With --retry: the destination need not wait for us to come back. source-open.c */
void source_say_heard(struct session *ss);

/* Tells people what a transfer would be: blocks, capabilities, channels. source-plan.c */
int source_plan(const struct source *src, struct error *err);

/* ---- source-postcopy.c: all of these do nothing when postcopy-ram is off ---- */

int source_postcopy_open(struct source *src, struct error *err);
/* ADVISE, behind the stream's head. */
int source_postcopy_advise(struct source *src, struct error *err);
/* What a QEMU has to be told of the block's pages in the list of blocks; 0: nothing. */
uint64_t source_postcopy_host_page(const struct source *src, const struct block *b);
/* postcopy-preempt's connection, where it is opened before the stream is read (up to 7.2). */
int source_postcopy_dial(struct source *src, struct error *err);
/* Behind a migtool's answer: it may take the memory only. ST_UNSUPPORTED: not as it is wanted. */
int source_postcopy_answered(struct source *src, struct error *err);
/* Is it time to switch? Cheap: asked for every page. */
bool source_postcopy_due(const struct source *src);
/* Behind dirty_sync: what changed was not sent. */
void source_postcopy_changed(struct source *src);
/* At the switch: what the guest wrote until it was stopped was not sent, either. */
int source_postcopy_take_changes(struct source *src, struct error *err);
/* Waits for a QEMU's SHUT. */
int source_postcopy_finish(struct source *src, struct error *err);
/* What was sent before the switch. */
void source_postcopy_sent(struct source *src, const struct block *b, uint64_t offset, uint64_t len);

/* ---- source-pause.c: likewise with pause-before-switchover ---- */

int source_pause_open(struct source *src, struct error *err);
void source_pause_close(struct source *src);
/* By the main thread: the user wants it to go on. False: it does not wait. */
bool source_pause_leave(struct source *src);
/* ---- source-guest.c: postcopy between two migtools ---- */

/* What the image is: it has to be the same until the guest has all of it. */
int source_guest_open(struct source *src, struct error *err);
/* Has the destination said that a guest goes on there? */
bool source_guest_wanted(const struct source *src);
/* The device state, and LISTEN, until it was answered. */
int source_guest_ready(struct source *src, struct error *err);
/* The same, if that was not yet, and all to the stream's end. A failure behind COMMIT is ST_LOST.
 */
int source_guest(struct source *src, struct error *err);
/* What the destination has found, for a source of a guest. */
int source_guest_found(struct source *src, struct error *err);
/* Waits for READY or ENOUGH. */
int source_guest_finish(struct source *src, struct error *err);

/* ---- source-release.c: likewise with release-ram ---- */

/* Can it be given back? Without the capability: nobody else may. */
int source_release_open(struct source *src, struct error *err);
/* The destination owns the guest, and has said so. */
void source_release(struct source *src);

/* ---- pagesend.c: which record or batch a page becomes ---- */

/* Opens and closes a RAM section (START, PART, END); close writes barrier, EOS and footer. */
int pagesend_section_open(struct source *src, enum wire_type type, struct error *err);
int pagesend_section_close(struct source *src, struct error *err);

/* A batch to fill with offsets of one block, and what has to be sent put on its way. */
struct page_batch *pagesend_get(struct source *src, struct error *err);
int pagesend_put(struct source *src, struct page_batch *b, struct error *err);

/* A run of zero pages (a hole). */
int pagesend_zero(struct source *src, struct block *b, uint64_t offset, uint64_t len,
		  struct error *err);

/* Waits until nothing is on its way any more; with multifd a barrier over its channels. */
int pagesend_barrier(struct source *src, struct error *err);

/* For multifd-send.c and compress.c: the zero pages of a batch, on the main channel. */
int pagesend_batch_zeros(struct source *src, const struct page_batch *b, struct error *err);
/* One record's word, naming the block when it changed. */
int pagesend_record(struct source *src, const struct block *b, uint64_t offset, uint32_t flags,
		    struct error *err);

#endif
