/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the target's files share: target.c (stages), target-greet.c, load.c, pageload.c, ... */
#ifndef MIGTOOL_TARGET_H
#define MIGTOOL_TARGET_H

#include "batch.h"
#include "placer.h"
#include "session.h"
#include "wire.h"

struct multifd_recv;
struct delta_offer;

/* An old copy at the destination. */
enum old_copy {
	OLD_NONE,
	OLD_BASE,  /* the source has one, too, and sends XBZRLE deltas against it */
	OLD_OFFER, /* its digests are offered */
};

/* How far a QEMU's postcopy is. */
enum postcopy_state {
	POSTCOPY_NONE,
	POSTCOPY_ADVISED,
	POSTCOPY_DISCARDED,
	POSTCOPY_PAUSED, /* broken; asked what has come */
	POSTCOPY_RUNNING,
};

struct target {
	struct session *ss;
	struct image *img; /* NULL until the blocks are known; with a guest it may have no files */
	struct greeting greeting; /* of a migtool */
	struct wire_config config;
	struct placer *placer;
	struct multifd_recv *multifd; /* NULL: off */

	enum old_copy old;	   /* what is there already, and how it is used */
	struct image *old_image;   /* until an offer takes it; NULL: it is in img's own files */
	struct delta_offer *offer; /* NULL: nothing is offered */
	enum greet_found found;	   /* what there was to go on with */
	bool compared;		   /* the source has said COMPARED */

	pthread_mutex_t rp_lock; /* writing to ss->stream: messages go out whole */
	bool rp_open;		 /* the source reads what we say */
	atomic_bool talking;	 /* keepalives may be sent */
	atomic_bool strays;	 /* the main thread looks at who still connects */
	atomic_bool adopting;	 /* likewise the greeting's waits */

	/* parser */
	bool have_ram, ram_ended, footers, footers_known, start_done;
	bool listed; /* the list of blocks came */
	enum postcopy_state postcopy;
	bool recovers;	     /* IMAGE.part waits for the rest of a guest that was given up for it */
	uint64_t host_pages; /* the source's, or-ed (POSTCOPY_ADVISE) */
	uint32_t ram_id;
	bool flush_word;	 /* the barrier is RAM_MULTIFD_FLUSH */
	struct block *block;	 /* main channel's "same block" state */
	struct page_batch *fill; /* being filled, or NULL */
	bool fill_zlib;		 /* with zlib streams */
	struct {
		struct block *block;
		uint64_t offset, len;
	} zeros;	       /* a run being gathered */
	bool in_order;	       /* a delta came: this section's pages are placed one by one */
	uint8_t *page, *delta; /* XBZRLE's */
	bool have_state;
	uint64_t state_size;	  /* bytes of device state that came in commands */
	bool paused;		  /* the source has said PAUSED */
	uint64_t moved, moved_at; /* what has come so far, and when more was seen last (ms) */
	bool have_digest;
	struct wire_digest digest; /* what the source says */
	bool told;		   /* the source said why it fails, and needs no reason of ours */

	uint64_t first_by;	 /* --timeout: when the source has to be here (link_deadline) */
	uint64_t next_keepalive; /* ms; the main thread's */
};

/* Placing threads and channels; once the image exists, which for a QEMU is inside START. */
int target_start_workers(struct target *t, struct error *err);

/* ---- target-greet.c ---- */

/* Reads and judges a migtool's greeting, answers. 0: taken, 1: wait for another peer, -1. */
int target_greet_migtool(struct target *t, struct error *err);
/* Did the user say that IMAGE may hold something already? What exactly is seen with the blocks. */
bool target_may_exist(const struct target *t);
/* Is this to go on with what an earlier try left? */
bool target_resumes(const struct target *t);
/* The image for the blocks of a QEMU's list. */
int target_create_image(struct target *t, const struct image_layout *layout, struct error *err);

/* ---- target-old.c: what is there already ---- */

/* What can be gone on with or compared, and whether this source may. ST_UNSUPPORTED, ST_FILE. */
int target_find_old(struct target *t, struct error *err);
/* Once the image was made: opens the old copy, unless it is in the image's own files. */
int target_open_old(struct target *t, struct error *err);
/* Says to people what a failed transfer has left, and how to go on. */
void target_say_left(const struct target *t);

/* ---- load.c: the stream's elements ---- */

struct ram_block_info;

int load_head(struct target *t, struct error *err);
/* Everything to the end of the stream. */
int load_stream(struct target *t, struct error *err);
/* The one element that may follow READY: COMMIT. */
int load_commit(struct target *t, struct error *err);

/* The block list of START. */
int load_blocks(struct target *t, const struct ram_block_info *list, unsigned n, struct error *err);

/* ---- load-postcopy.c: a QEMU's commands for postcopy ---- */

bool load_postcopy_takes(uint16_t cmd);
int load_postcopy_command(struct target *t, const struct wire_command *c, struct error *err);

/* ---- target-recover.c: a QEMU's postcopy that broke ---- */

/* Opens the IMAGE.part that such a one has left, if there is one; then t->recovers is set. */
int target_recover_open(struct target *t, struct error *err);
/* Are these a recovery's first bytes? At least 4. */
bool target_recover_is(const uint8_t *first);
/* The connection is one: what the stream's head would have said is known. */
void target_recover_greet(struct target *t);
/* RECV_BITMAP and POSTCOPY_RESUME. */
bool target_recover_takes(uint16_t cmd);
int target_recover_command(struct target *t, const struct wire_command *c, struct error *err);
/* ---- target-pull.c: a guest runs here (ss->lazy) before its memory has arrived ---- */

/* Makes ss->lazy; the files that a guest will map. Stages, in their order: */
int pull_open(struct target *t, struct error *err);
/* The greeting's half: may it be, and what is used of the features. The blocks are known: greeted.
 */
int pull_judge(struct target *t, struct error *err);
unsigned pull_features(const struct target *t);
int pull_greeted(struct target *t, struct error *err);
/* Are pages that come kept in IMAGE, too? */
bool pull_keeps(const struct target *t);
int pull_channels(struct target *t, struct error *err);
/*
 * Another try, with what the one before has left: a guest, maybe. Judges who comes for it; then
 * t->found says what there is, and the blocks are known.
 */
int pull_again(struct target *t, struct error *err);
int pull_judge_again(struct target *t, struct error *err);
bool pull_has_image(const struct target *t);
void pull_forget(struct target *t);
/* Its source is there again. */
void pull_found(struct target *t);
/* Does it still wait? If it has ended that is the session's end (done_before, or -1). */
int pull_look(struct target *t, struct error *err);
/* The commands; one RAM section's records behind them. */
int load_listen(struct target *t, uint32_t len, struct error *err);
int load_guest_commit(struct target *t, struct error *err);
int load_guest_section(struct target *t, struct error *err);
/* May a piece of the device state come now? And it has; first: of this connection. */
int pull_check_state(const struct target *t, struct error *err);
int pull_put_state(struct target *t, bool first, const void *buf, size_t len, struct error *err);
int load_guest_discard(struct target *t, uint32_t len, struct error *err);
/* Behind the stream's end. */
int pull_complete(struct target *t, struct error *err);
int pull_finish(struct target *t, struct error *err);
/* By the main thread. */
void pull_tick(struct session *ss);

/* ---- pageload.c: one RAM section ---- */

int pageload_section(struct target *t, enum wire_type type, struct error *err);
/* Places all that is on its way. */
int pageload_drain(struct target *t, struct error *err);

/* ---- the backward channel ---- */

/* Behind it no keepalive and no wait is said. */
void target_stop_talking(struct target *t);

int target_say(struct target *t, uint16_t type, const void *payload, uint32_t len,
	       struct error *err);

#endif
