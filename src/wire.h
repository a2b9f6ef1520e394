/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The framing of QEMU's migration stream: header, configuration, sections, commands; put and get
 * of each thing side by side. Everything is big-endian. What arrives is decoded and bounds-checked
 * into the structures below; nobody past wire-* sees raw bytes other than page contents.
 *
 * Source: QEMU 7.2, migration/savevm.c. Additions of ours are commands and return messages from
 * 0x4000 on, whose lengths are be32 instead of be16; they are sent only to a migtool.
 */
#ifndef MIGTOOL_WIRE_H
#define MIGTOOL_WIRE_H

#include "stream.h"

#define WIRE_MAGIC   UINT32_C(0x5145564d) /* "QEVM" */
#define WIRE_VERSION 3

enum wire_type {
	WIRE_EOF = 0x00,
	WIRE_SECTION_START = 0x01,
	WIRE_SECTION_PART = 0x02,
	WIRE_SECTION_END = 0x03,
	WIRE_SECTION_FULL = 0x04,
	WIRE_SUBSECTION = 0x05,
	WIRE_VMDESCRIPTION = 0x06,
	WIRE_CONFIGURATION = 0x07,
	WIRE_COMMAND = 0x08,
	WIRE_FOOTER = 0x7e,
};

int wire_put_header(struct stream *s, struct error *err);
int wire_get_header(struct stream *s, struct error *err);

/* The configuration element: the machine and what both ends have to agree on. */
struct wire_config {
	char machine[256];  /* class name, "pc-i440fx-7.2" */
	uint32_t page_bits; /* 0: not sent, the family's minimum */
	bool ignore_shared; /* the one capability that 7.2 validates */
	bool has_uuid;
	uint8_t uuid[16];
};

/* With the type byte. */
int wire_put_config(struct stream *s, const struct wire_config *c, struct error *err);
/* Behind the type byte. An unknown capability or subsection is ST_UNSUPPORTED, as in QEMU. */
int wire_get_config(struct stream *s, struct wire_config *c, struct error *err);

struct wire_section {
	enum wire_type type;
	uint32_t id;	 /* chosen by the sender; never 0 for RAM */
	char idstr[256]; /* START and FULL only, likewise below */
	uint32_t instance;
	uint32_t version;
};

int wire_put_section(struct stream *s, const struct wire_section *sec, struct error *err);
/* Behind the type byte, which is in sec->type already. */
int wire_get_section(struct stream *s, struct wire_section *sec, struct error *err);
int wire_put_footer(struct stream *s, uint32_t id, struct error *err);
/* Type byte included. ST_DATA if it is no footer or has another id. */
int wire_get_footer(struct stream *s, uint32_t id, struct error *err);

enum wire_cmd {
	MIG_CMD_OPEN_RETURN_PATH = 1,
	MIG_CMD_PING = 2,
	MIG_CMD_POSTCOPY_ADVISE = 3,
	MIG_CMD_POSTCOPY_LISTEN = 4,
	MIG_CMD_POSTCOPY_RUN = 5,
	MIG_CMD_POSTCOPY_RAM_DISCARD = 6,
	MIG_CMD_PACKAGED = 7,
	MIG_CMD_ENABLE_COLO = 8,
	MIG_CMD_POSTCOPY_RESUME = 9,
	MIG_CMD_RECV_BITMAP = 10,
	MIG_CMD_SWITCHOVER_START = 11,
	/* ours */
	MIG_CMD_DEVICE_STATE = 0x4001, /* a piece of it, at most WIRE_PIECE bytes */
	MIG_CMD_DIGEST = 0x4002,       /* wire_digest, the last word before EOF */
	MIG_CMD_COMMIT = 0x4003,       /* empty: the source gives the guest up */
	MIG_CMD_FAILED = 0x4004,       /* be32 status, text: why the source stops */
	MIG_CMD_KEEPALIVE = 0x4005,    /* empty */
	MIG_CMD_WANT = 0x4006,	       /* delta_want: chunks whose pages' digests are wanted */
	MIG_CMD_COMPARED = 0x4007,     /* be64: no more is wanted, so many bytes will travel */
	MIG_CMD_HEARD = 0x4008,	       /* empty: a source that tries again has heard DONE */
	MIG_CMD_PAUSED = 0x4009,       /* empty: the source waits for its user, however long */
	MIG_CMD_LISTEN = 0x400a,       /* postcopy: get the guest ready; wire_state, or empty */
};

/* PING's values: any would do, these are QEMU's. */
enum wire_ping {
	WIRE_PING_START = 1,
	WIRE_PING_SWITCH = 2,  /* postcopy: before the package */
	WIRE_PING_PACKAGE = 3, /* in it, before RUN */
	WIRE_PING_PUSH = 4,    /* behind it */
};

int wire_put_ping(struct stream *s, uint32_t value, struct error *err);

#define WIRE_OURS  0x4000
#define WIRE_PIECE (1u << 20) /* the most that one of our commands or messages may carry */

struct wire_command {
	uint16_t cmd;
	uint32_t len;
};

/* With the type byte; be32 length for ours. Flushes nothing. */
int wire_put_command(struct stream *s, uint16_t cmd, const void *payload, uint32_t len,
		     struct error *err);
/* Behind the type byte; the payload is still to be read. Ours are bounded by WIRE_PIECE. */
int wire_get_command(struct stream *s, struct wire_command *c, struct error *err);
const char *wire_command_name(uint16_t cmd);

/* ST_DATA unless it is UTF-8 without control characters. `what` it is; at most 255 bytes. */
int wire_check_text(const char *what, const char *text, struct error *err);

/* One counted string (u8 length), into a NUL-terminated one. A NUL inside is ST_DATA. */
int wire_put_cstr(struct stream *s, const char *str, struct error *err);
int wire_get_cstr(struct stream *s, char out[256], struct error *err);

#endif
