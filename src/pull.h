/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A guest whose memory comes from a source on another host: what target-pull.c (its stages) and
 * target-lane.c (its pages) share.
 */
#ifndef MIGTOOL_PULL_H
#define MIGTOOL_PULL_H

#include "lazy.h"
#include "target.h"

/* A connection's pages, into the guest as they come. One thread. */
struct pull_lane {
	struct target *t;
	struct stream *s;
	bool asked; /* somebody waits for what comes here */
	struct block *block;
	uint8_t *buf; /* of neighbours; whole units are placed and dropped */
	size_t cap, have;
	uint64_t at;	   /* buf's place in the block */
	uint32_t unit;	   /* bytes that are placed at once, a power of two */
	struct digest sum; /* of what has come */
};

/* The stream stays the caller's. ST_NOMEM. A zeroed lane may be closed. */
int pull_lane_open(struct pull_lane *l, struct target *t, struct stream *s, bool asked,
		   struct error *err);
void pull_lane_close(struct pull_lane *l);

/* The record that begins with this word: read, checked, given to the guest. */
int pull_lane_record(struct pull_lane *l, uint64_t word, struct error *err);

/* Behind a section's records: nothing may be half there. ST_DATA. */
int pull_lane_rest(const struct pull_lane *l, struct error *err);

/* Is it waiting for room, or for the guest? Nothing is read meanwhile, which is not the peer's
 * fault. */
bool pull_is_placing(const struct pull *p);
void pull_placing(struct pull *p, bool now);

/* A run of whole units has come; the lanes' threads. */
void pull_came(struct pull *p, const struct block *b, uint64_t offset, uint64_t len);

/* Pages that came, for --uffd-socket's IMAGE; after the guest has them. */
int pull_store(struct pull *p, struct block *b, uint64_t offset, const void *buf, size_t len,
	       struct error *err);

#endif
