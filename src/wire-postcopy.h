/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What postcopy says, in both directions: the payloads of POSTCOPY_ADVISE, POSTCOPY_RAM_DISCARD and
 * PACKAGED, and of the return path's REQ_PAGES and REQ_PAGES_ID; between migtools LISTENING and
 * REQUEST.
 *
 * Source: QEMU 7.2, migration/savevm.c, migration/migration.c.
 */
#ifndef MIGTOOL_WIRE_POSTCOPY_H
#define MIGTOOL_WIRE_POSTCOPY_H

#include "bitmap.h"
#include "image.h"
#include "wire-return.h"

#define POSTCOPY_ADVISE_LEN  16
#define POSTCOPY_RANGES_MAX  12 /* a QEMU sends no more in one DISCARD; takes any number */
#define POSTCOPY_DISCARD_MIN 20

/* Both have to be those of the destination. */
struct postcopy_advice {
	uint64_t host_pages;  /* all blocks' host page sizes, or-ed */
	uint64_t target_page; /* bytes */
};

int postcopy_put_advise(struct stream *s, const struct postcopy_advice *a, struct error *err);
/* ST_DATA: another length, or sizes that cannot be. */
int postcopy_advise_unpack(const uint8_t *in, size_t len, struct postcopy_advice *a,
			   struct error *err);

/* n is 1 to POSTCOPY_RANGES_MAX. */
int postcopy_put_discard(struct stream *s, const char *block, const struct extent *ranges,
			 unsigned n, struct error *err);

/* A DISCARD's payload, taken apart; the ranges are still to be checked against the block. */
struct postcopy_discard {
	char block[256];
	const uint8_t *pairs; /* in the payload */
	unsigned n;	      /* at least 1 */
};

int postcopy_discard_unpack(const uint8_t *in, size_t len, struct postcopy_discard *d,
			    struct error *err);
struct extent postcopy_discard_range(const struct postcopy_discard *d, unsigned i);

/* Recovery: asks which pages of the block have come. */
int postcopy_put_recv_bitmap(struct stream *s, const char *block, struct error *err);
/* The question's payload, into `block`. ST_DATA: no name. */
int postcopy_recv_bitmap_unpack(const uint8_t *in, size_t len, char block[256], struct error *err);

/*
 * The answer's bitmap, behind its message: be64 bytes, little-endian bits, an end mark; for `pages`
 * pages. Into map, which is empty and has as many bits. ST_DATA: it has another size.
 */
int postcopy_get_bitmap(struct stream *s, struct bitmap *map, struct error *err);
/* The answer, message and bitmap, flushed. */
int postcopy_put_bitmap(struct stream *s, const char *block, const struct bitmap *map,
			struct error *err);

/* PACKAGED's head; `len` bytes of elements have to follow. */
int postcopy_put_packaged(struct stream *s, uint32_t len, struct error *err);

/* A destination's wish. REQ_PAGES names no block: it is the one of the request before. */
struct page_request {
	char block[256]; /* "": none was ever named */
	uint64_t offset;
	uint32_t len;
};

/*
 * One REQ_PAGES or REQ_PAGES_ID into *r, which keeps the block from one call to the next. ST_DATA:
 * a malformed name, or none so far. Offset and length are the caller's to check.
 */
int page_request_unpack(const struct rp_message *m, struct page_request *r, struct error *err);
/* The other way round: `block` NULL for the block of the request before. Returns the length. */
#define PAGE_REQUEST_MAX 268
size_t page_request_pack(const char *block, uint64_t offset, uint32_t len,
			 uint8_t out[PAGE_REQUEST_MAX]);

/* ---- between migtools ---- */

/* LISTENING's payload: the guest is ready, and this is how it takes pages. */
#define GUEST_READY_LEN 8

struct guest_ready {
	bool asks_all; /* nothing is to be sent but what is asked for */
	uint32_t unit; /* bytes that are placed at once: whole such units travel together */
};

void guest_ready_pack(const struct guest_ready *r, uint8_t out[GUEST_READY_LEN]);
/* ST_DATA: the unit is no power of two from 4 KiB to 1 GiB, or unknown flags are set. */
int guest_ready_unpack(const uint8_t in[GUEST_READY_LEN], struct guest_ready *r, struct error *err);

/* REQUEST's payload. All of it is the peer's word: block, offset and length are to be checked. */
#define PAGE_WANT_LEN 16

struct page_want {
	uint32_t block; /* index in the greeting */
	uint32_t len;	/* bytes */
	uint64_t offset;
};

/*
 * CAME's payload: of a run of units in a block, those that are there. Without bits all of them are.
 */
#define PAGES_CAME_HEAD 24
#define PAGES_CAME_BITS 32576u /* in one message at most: with the head it has 4096 bytes */

struct pages_came {
	uint32_t block; /* index in the greeting */
	uint32_t unit;	/* bytes; as LISTENING says it later */
	uint64_t first, n;
	const uint8_t *bits; /* in the message, little-endian; NULL: all n have come */
};

/* Bits are taken from a map of units. Returns the length. */
size_t pages_came_pack(const struct pages_came *c, const struct bitmap *map,
		       uint8_t out[PAGES_CAME_HEAD + PAGES_CAME_BITS / 8]);
/* ST_DATA: a unit that is none, or another length than n units have. The rest is to be checked. */
int pages_came_unpack(const uint8_t *in, size_t len, struct pages_came *c, struct error *err);

void page_want_pack(const struct page_want *w, uint8_t out[PAGE_WANT_LEN]);
void page_want_unpack(const uint8_t in[PAGE_WANT_LEN], struct page_want *w);

#endif
