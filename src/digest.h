/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The digest of a guest's memory: the sum modulo 2^128, over all non-zero 4096-byte pages, of
 * XXH3-128(page, seed) mixed with the block's name and the offset. Zero pages and holes count 0, so
 * the same memory has the same digest whatever the order and however often a page was sent.
 *
 * Exactly: h = XXH3_128(page, SEED); n = XXH3_128(name, SEED);
 * term = XXH3_128(be64 h.high, be64 h.low, be64 n.high, be64 n.low, be64 offset; SEED).
 * A block's ragged last page is padded with zeros.
 */
#ifndef MIGTOOL_DIGEST_H
#define MIGTOOL_DIGEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DIGEST_PAGE 4096u
#define DIGEST_SEED UINT64_C(0x6d6967746f6f6c31) /* "migtool1" */

/* All zero: no page. */
struct digest {
	uint64_t high, low;
};

struct digest_block {
	struct digest name; /* XXH3_128 of the block's name */
};

void digest_block_init(struct digest_block *b, const char *name);

/*
 * The term of the page at `offset` (a multiple of DIGEST_PAGE) in the block; `len` <= DIGEST_PAGE,
 * less is padded. A page of zeros must not be passed: its term is 0, but this function would not
 * return that; the caller has tested with zero_is.
 */
struct digest digest_page(const struct digest_block *b, uint64_t offset, const void *page,
			  size_t len);

void digest_add(struct digest *sum, struct digest term);
void digest_sub(struct digest *sum, struct digest term);
bool digest_equal(struct digest a, struct digest b);

/* 32 lower-case hexadecimal digits, high half first. Returns out. */
char *digest_hex(struct digest d, char out[33]);

/* -1: not just what digest_hex writes; out is untouched then. */
int digest_from_hex(const char *hex, struct digest *out);

/* Of a byte string (device state): XXH3_128 with the seed, in pieces. */
struct digest_stream;
struct digest_stream *digest_stream_new(void); /* NULL: out of memory */
void digest_stream_update(struct digest_stream *s, const void *buf, size_t len);
/* Of what came so far; more may follow. */
struct digest digest_stream_get(const struct digest_stream *s);
void digest_stream_free(struct digest_stream *s); /* NULL is accepted */

#endif
