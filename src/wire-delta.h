/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What is said about an old copy at the destination, so that only pages that differ travel. Two
 * levels: the destination offers the digest of each 64 KiB; the source, which has compared them
 * with its own, wants the digests of the pages in those that differ. A digest is the part that the
 * range has in the image's digest: the sum of its pages' terms, 0 if all is zero.
 *
 *   DIGESTS (return message)      be32 block, be64 offset, 16 bytes a chunk
 *   WANT (command)                be32 block, be64 offset of each chunk
 *   PAGE_DIGESTS (return message) be32 block, be64 offset of the chunk, 16 bytes a page
 *   COMPARED (command)            be64 bytes that will travel
 */
#ifndef MIGTOOL_WIRE_DELTA_H
#define MIGTOOL_WIRE_DELTA_H

#include "digest.h"
#include "error.h"

#define DELTA_CHUNK (64u << 10)
#define DELTA_PAGES (DELTA_CHUNK / DIGEST_PAGE) /* in a whole chunk */

#define DELTA_LIST_MAX	255 /* digests in one message */
#define DELTA_LIST_HEAD 12
#define DELTA_LIST_LEN	(DELTA_LIST_HEAD + 16 * DELTA_LIST_MAX)

#define DELTA_WANT_MAX 128 /* chunks in one command */
#define DELTA_WANT_LEN (4 + 8 * DELTA_WANT_MAX)

/*
 * DIGESTS and PAGE_DIGESTS: of `n` neighbouring chunks, or pages, from `offset` on. DIGESTS ascend,
 * by block and offset; chunks between two of them are all zero, and an empty one says that all has
 * been said.
 */
struct delta_list {
	uint32_t block; /* index in the greeting */
	uint64_t offset;
	unsigned n;
	struct digest digest[DELTA_LIST_MAX];
};

struct delta_want {
	uint32_t block;
	unsigned n;
	uint64_t offset[DELTA_WANT_MAX];
};

/* Return the length. */
size_t delta_list_pack(const struct delta_list *l, uint8_t out[DELTA_LIST_LEN]);
size_t delta_want_pack(const struct delta_want *w, uint8_t out[DELTA_WANT_LEN]);

/* ST_DATA: a length that cannot be, an offset that is on no chunk, WANTs that do not ascend. */
int delta_list_unpack(const uint8_t *in, size_t len, struct delta_list *l, struct error *err);
int delta_want_unpack(const uint8_t *in, size_t len, struct delta_want *w, struct error *err);

/* Do `n` pieces of `unit` bytes from `offset` on, the last one maybe short, lie in a block? */
int delta_check_range(uint64_t block_size, uint64_t offset, unsigned n, uint32_t unit,
		      struct error *err);

#endif
