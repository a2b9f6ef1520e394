/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Messages on the return path, destination to source: be16 type, be16 length (be32 for ours),
 * payload. Source: QEMU 7.2, migration/migration.c, source_return_path_thread.
 */
#ifndef MIGTOOL_WIRE_RETURN_H
#define MIGTOOL_WIRE_RETURN_H

#include "digest.h"
#include "stream.h"

enum rp_type {
	RP_SHUT = 1, /* be32 status, 0: success; the last message */
	RP_PONG = 2, /* be32, the PING's value */
	RP_REQ_PAGES_ID = 3,
	RP_REQ_PAGES = 4,
	RP_RECV_BITMAP = 5,
	RP_RESUME_ACK = 6,
	RP_SWITCHOVER_ACK = 7,
	/* ours */
	RP_READY = 0x4001,	  /* wire_digest: all is here, verified and durable */
	RP_FAILED = 0x4002,	  /* be32 status, text: why the destination stops */
	RP_DONE = 0x4003,	  /* empty: COMMIT was taken, the destination owns */
	RP_KEEPALIVE = 0x4004,	  /* be64 bytes placed so far */
	RP_DIGESTS = 0x4005,	  /* delta_list: chunks of the old copy */
	RP_PAGE_DIGESTS = 0x4006, /* delta_list: pages of a chunk */
	RP_LISTENING = 0x4007,	  /* guest_ready: postcopy: the guest can go on */
	RP_REQUEST = 0x4008,	  /* page_want: the guest waits for these pages */
	RP_ENOUGH = 0x4009,	  /* empty: there is no guest any more that needs pages */
	RP_CAME = 0x400a,	  /* pages_came: recovery: what is there already */
};

#define RP_PAYLOAD_MAX 4096 /* QEMU's limit is 512; ours carry a reason of at most 1 KiB */

struct rp_message {
	uint16_t type;
	uint32_t len;
	uint8_t payload[RP_PAYLOAD_MAX];
};

/* Puts one message and flushes. */
int rp_put(struct stream *s, uint16_t type, const void *payload, uint32_t len, struct error *err);
int rp_put_u32(struct stream *s, uint16_t type, uint32_t value, struct error *err);
/* ST_DATA: unknown type, wrong length. 1: a message, 0: end of stream at a boundary, -1 */
int rp_get(struct stream *s, struct rp_message *m, struct error *err);
const char *rp_name(uint16_t type);

/* What both ends have to agree on at the end: 40 bytes, DIGEST's and READY's payload. */
struct wire_digest {
	struct digest memory;
	struct digest device; /* 0 without device state */
	uint64_t device_size;
};

#define WIRE_DIGEST_LEN 40
#define WIRE_STATE_LEN	24 /* the end of it: the device state's part, LISTEN's payload */
void wire_digest_pack(const struct wire_digest *d, uint8_t out[WIRE_DIGEST_LEN]);
void wire_digest_unpack(const uint8_t in[WIRE_DIGEST_LEN], struct wire_digest *d);

/*
 * FAILED, in both directions: be32 status, then the reason, and after a NUL the hint. pack returns
 * the length, at most 1540. unpack makes what the peer said printable and the status one of ours.
 */
#define WIRE_FAILED_MAX 1540
size_t wire_failed_pack(const struct error *why, uint8_t out[WIRE_FAILED_MAX]);
void wire_failed_unpack(const uint8_t *in, size_t len, const char *who, struct error *why);

#endif
