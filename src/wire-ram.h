/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What stands inside a RAM section: the block list of START, and records. A record begins with a
 * be64 word, offset | flags; offsets are multiples of the target page, so the low bits are free.
 *
 * Source: QEMU 7.2, migration/ram.c. Runs (0x400, 0x800) are ours and go only to a migtool that
 * took the feature.
 */
#ifndef MIGTOOL_WIRE_RAM_H
#define MIGTOOL_WIRE_RAM_H

#include "stream.h"

enum ram_flag {
	RAM_ZERO = 0x002,	   /* u8 fill byte, always 0 */
	RAM_MEM_SIZE = 0x004,	   /* the block list */
	RAM_PAGE = 0x008,	   /* the page */
	RAM_EOS = 0x010,	   /* ends the section's data */
	RAM_CONTINUE = 0x020,	   /* modifier: same block as the last record of this channel */
	RAM_XBZRLE = 0x040,	   /* u8 1, be16 length, delta */
	RAM_HOOK = 0x080,	   /* RDMA's, never on a socket */
	RAM_COMPRESS_PAGE = 0x100, /* be32 length, zlib stream */
	RAM_MULTIFD_FLUSH = 0x200, /* 8.1 and later: a barrier over the channels */
	/* ours */
	RAM_RUN = 0x400,      /* be32 count of pages, the pages */
	RAM_ZERO_RUN = 0x800, /* be64 bytes, all of them zero */
};

#define RAM_IDSTR      "ram"
#define RAM_VERSION    4
#define RAM_BLOCKS_MAX 1024 /* blocks in one stream; a q35 with many devices has some 30 */

/* One entry of the block list. */
struct ram_block_info {
	char name[256];
	uint64_t length;
	uint64_t host_page; /* 0: the host's smallest, which is not in the list */
	bool has_gpa;
	uint64_t gpa;
};

/* A record's word and, without RAM_CONTINUE, the block's name. */
int ram_put_record(struct stream *s, uint64_t offset, uint32_t flags, const char *name,
		   struct error *err);

/* The block list, word included. `with_gpa`: x-ignore-shared. */
int ram_put_block_list(struct stream *s, const struct ram_block_info *blocks, unsigned n,
		       bool with_gpa, struct error *err);

/*
 * Behind the word whose offset part is `total`: entries until their lengths add up to it. At most
 * RAM_BLOCKS_MAX, names unique and not empty, lengths multiples of `page`. *blocks is allocated.
 * host_pages: as POSTCOPY_ADVISE said, 0 without one; the larger of these sizes may be in the list.
 */
int ram_get_block_list(struct stream *s, uint64_t total, uint32_t page, uint64_t host_pages,
		       bool with_gpa, struct ram_block_info **blocks, unsigned *n,
		       struct error *err);

/* "ZERO", "PAGE|CONTINUE" ... for messages. Returns buf. */
char *ram_flags_name(uint32_t flags, char *buf, size_t len);

#endif
