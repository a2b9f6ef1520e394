/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * multifd's channels: the first packet of each, then packets of a header and a payload.
 *
 * Header version 1 is QEMU's: a fixed size (1344 bytes for 4 KiB pages), one offset a page, the
 * block by name. In a packet without pages next_packet_size, block and offsets are stale: what
 * follows is decided by normal_pages alone (QEMU 7.2, migration/multifd.c).
 *
 * Version 2 is ours: it names the block by its index in the greeting, pages as runs, and zero runs
 * too, so that a packet of 128 neighbours costs 52 bytes instead of 1344 and zero pages need no
 * record on the main channel. Each payload stands alone (codec.h), and a packet that does not
 * shrink is sent as it is.
 */
#ifndef MIGTOOL_WIRE_MULTIFD_H
#define MIGTOOL_WIRE_MULTIFD_H

#include "error.h"

#include <stdbool.h>

#include <stddef.h>
#include <stdint.h>

#define MULTIFD_MAGIC	     UINT32_C(0x11223344)
#define MULTIFD_VERSION	     1u
#define MULTIFD_VERSION_OURS 2u
#define MULTIFD_PACKET_BYTES (512u << 10)		   /* of pages, at most */
#define MULTIFD_PAGES_MAX    (MULTIFD_PACKET_BYTES / 4096) /* 128, with the smallest page */

#define MULTIFD_SYNC	    0x01u
#define MULTIFD_METHOD_MASK 0x3eu
#define MULTIFD_METHOD_ZLIB 0x02u
#define MULTIFD_METHOD_ZSTD 0x04u

#define MULTIFD_INIT_LEN 64

/* The first packet. In version 2 the 16 bytes are the session id, in version 1 the VM's uuid. */
struct multifd_init {
	uint32_t version;
	uint8_t id[16];
	uint8_t channel; /* 0 .. N-1 */
};

void multifd_init_pack(const struct multifd_init *m, uint8_t out[MULTIFD_INIT_LEN]);
int multifd_init_unpack(const uint8_t in[MULTIFD_INIT_LEN], struct multifd_init *m,
			struct error *err);

/* ---- version 1 ---- */

struct multifd_header {
	uint32_t flags;
	uint32_t normal;  /* pages with payload */
	uint32_t zero;	  /* 9.0 and later: zero pages behind them in offset[] */
	uint32_t payload; /* bytes that follow; 0 without normal pages whatever the wire says */
	uint64_t packet_num;
	char block[256];
	uint64_t offset[MULTIFD_PAGES_MAX];
};

/* Bytes of a header: 320 + 8 a page that a packet can have. 1344 for 4096. */
size_t multifd_header_len(uint32_t page);
void multifd_header_pack(const struct multifd_header *h, uint32_t page, uint8_t *out);
/* Checks magic, version, counts, payload size (at most 2 * MULTIFD_PACKET_BYTES), block name. */
int multifd_header_unpack(const uint8_t *in, uint32_t page, struct multifd_header *h,
			  struct error *err);

/* ---- version 2 ---- */

#define MULTIFD2_FIXED_LEN 40
#define MULTIFD2_RUN_LEN   12
#define MULTIFD2_RUNS_MAX  (2 * MULTIFD_PAGES_MAX)
#define MULTIFD2_ZERO	   0x80000000u

struct multifd2_run {
	uint64_t offset;
	uint32_t pages;
	bool zero;
};

struct multifd2_header {
	uint32_t flags;
	uint32_t block; /* index in the greeting */
	uint32_t nruns;
	uint32_t payload; /* bytes that follow the runs */
	uint32_t raw;	  /* bytes of the data runs' pages */
	uint64_t packet_num;
	struct multifd2_run runs[MULTIFD2_RUNS_MAX];
};

/* Fixed part and runs; returns the length. */
size_t multifd2_header_pack(const struct multifd2_header *h, uint8_t *out);
/* The fixed part; tells how many runs have to be read. */
int multifd2_fixed_unpack(const uint8_t in[MULTIFD2_FIXED_LEN], struct multifd2_header *h,
			  struct error *err);
/* The runs: offsets aligned, data pages adding up to raw. Block bounds are the caller's. */
int multifd2_runs_unpack(const uint8_t *in, uint32_t page, struct multifd2_header *h,
			 struct error *err);

#endif
