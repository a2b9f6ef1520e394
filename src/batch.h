/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A page_batch: up to 512 KiB of pages of one block that travel together, from one thread to
 * another and over one channel. Batches and their buffers come from a pool made at set-up; the page
 * loop allocates nothing, and an empty pool is what holds back whoever is too fast.
 */
#ifndef MIGTOOL_BATCH_H
#define MIGTOOL_BATCH_H

#include "image.h"
#include "queue.h"
#include "wire-multifd.h"

struct page_batch {
	struct block *block;
	uint32_t page;			    /* target page size */
	uint32_t n;			    /* pages */
	uint64_t offset[MULTIFD_PAGES_MAX]; /* in the block, ascending */
	uint8_t *buf;		      /* page i at i * page; MULTIFD_PACKET_BYTES, page-aligned */
	bool zero[MULTIFD_PAGES_MAX]; /* known to be all zero (source: after batch_load) */
	uint32_t nzero;
};

struct batch_pool {
	struct queue free;
	struct page_batch *all;
	uint8_t *memory;
	unsigned count;
};

int batch_pool_init(struct batch_pool *p, unsigned count, uint32_t page, struct error *err);
void batch_pool_destroy(struct batch_pool *p);

/* Most pages a batch holds. */
static inline uint32_t batch_room(uint32_t page)
{
	return MULTIFD_PACKET_BYTES / page;
}

/* Empties it for pages of `block`. */
void batch_reset(struct page_batch *b, struct block *block);

static inline uint8_t *batch_page(const struct page_batch *b, uint32_t i)
{
	return b->buf + (size_t)i * b->page;
}

/* How many pages from i on are neighbours in the block and alike in being zero. */
uint32_t batch_run(const struct page_batch *b, uint32_t i);

/* ---- source ---- */

/*
 * The digest's account of what was sent: the sum, and for a source whose memory changes the term of
 * each page, so that a page sent again replaces itself (16 bytes a page).
 */
struct sent_digest {
	pthread_mutex_t lock; /* of sum */
	struct digest sum;
	struct digest **terms; /* per block, per 4096 bytes; NULL for memory at rest */
};

int sent_digest_init(struct sent_digest *d, const struct image *img, bool changing,
		     struct error *err);
void sent_digest_destroy(struct sent_digest *d, const struct image *img);
/* A run that is zero now. */
void sent_digest_zero(struct sent_digest *d, const struct block *b, uint64_t offset, uint64_t len);

/*
 * 4096 bytes that the destination has already: their term (0: zeros) goes into *sum, which goes
 * into the account with sent_digest_add. Any thread, no two for the same page.
 */
void sent_digest_have(struct sent_digest *d, const struct block *b, uint64_t offset,
		      struct digest term, struct digest *sum);
void sent_digest_add(struct sent_digest *d, struct digest sum);

/* Reads the batch's pages from the image, finds the zero ones, accounts for all. Any thread. */
int batch_load(struct page_batch *b, const struct image *img, struct sent_digest *d,
	       struct error *err);
/* Its two halves, for who has to be quick: what was read may be sent before it is accounted for. */
int batch_read(struct page_batch *b, const struct image *img, struct error *err);
void batch_account(const struct page_batch *b, struct sent_digest *d);

/* ---- destination ---- */

/*
 * Places the batch's pages; those marked zero become zero. Offsets are checked by image_place.
 * Any thread.
 */
int batch_place(struct page_batch *b, struct image *img, struct error *err);

#endif
