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

struct digest {
	uint64_t high, low;
};

struct digest_block {
	struct digest name; /* XXH3_128 of the block's name */
};

void digest_block_init(struct digest_block *b, const char *name);

/* The term of one non-zero page; `len` < 4096 is padded. */
struct digest digest_page(const struct digest_block *b, uint64_t offset, const void *page,
			  size_t len);

void digest_add(struct digest *sum, struct digest term);
void digest_sub(struct digest *sum, struct digest term);
bool digest_equal(struct digest a, struct digest b);
char *digest_hex(struct digest d, char out[33]);
int digest_from_hex(const char *hex, struct digest *out);

/* Of a byte string (device state): XXH3_128 with the seed, in pieces. */
struct digest_stream; /* opaque */
struct digest_stream *digest_stream_new(void);
void digest_stream_update(struct digest_stream *s, const void *buf, size_t len);
struct digest digest_stream_get(const struct digest_stream *s);
void digest_stream_free(struct digest_stream *s);

#endif
