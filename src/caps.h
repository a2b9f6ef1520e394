/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The capabilities: one table in QAPI order of QEMU 8.1, later ones behind it (known, refused,
 * naming their version). Parsing, `migtool caps`, the check, the completions and the manual's test
 * are fed from it.
 */
#ifndef MIGTOOL_CAPS_H
#define MIGTOOL_CAPS_H

#include "error.h"

enum cap {
	CAP_XBZRLE,
	CAP_RDMA_PIN_ALL,
	CAP_AUTO_CONVERGE,
	CAP_ZERO_BLOCKS,
	CAP_COMPRESS,
	CAP_EVENTS,
	CAP_POSTCOPY_RAM,
	CAP_X_COLO,
	CAP_RELEASE_RAM,
	CAP_BLOCK,
	CAP_RETURN_PATH,
	CAP_PAUSE_BEFORE_SWITCHOVER,
	CAP_MULTIFD,
	CAP_DIRTY_BITMAPS,
	CAP_POSTCOPY_BLOCKTIME,
	CAP_LATE_BLOCK_ACTIVATE,
	CAP_X_IGNORE_SHARED,
	CAP_VALIDATE_UUID,
	CAP_BACKGROUND_SNAPSHOT,
	CAP_ZERO_COPY_SEND,
	CAP_POSTCOPY_PREEMPT,
	CAP_SWITCHOVER_ACK,
	CAP_DIRTY_LIMIT,
	/* later than 8.1 */
	CAP_MAPPED_RAM,
	CAP__MAX
};

/* What a capability or a parameter does here; `caps` and `params` show the word. */
enum effect { EFFECT_ACT, EFFECT_INERT, EFFECT_REFUSED };

const char *effect_name(enum effect effect);

/* What a capability needs and excludes is not here: it is derived from the rules (check.h). */
struct cap_info {
	const char *name;
	const char *since; /* QEMU version that brought it, "4.0" */
	enum effect effect;
	const char *what; /* one line: what it does here, or why it is inert or refused */
};

extern const struct cap_info cap_table[CAP__MAX];

struct cap_set {
	bool on[CAP__MAX];
	bool given[CAP__MAX]; /* the user said so, on or off */
};

/* The capability of that name, or -1. */
int cap_find(const char *name);

/*
 * Reads a switch: "on" or "off", nothing else. 0, or -1 and err untouched (the caller says whose
 * value it is).
 */
int switch_parse(const char *value, bool *on);

/*
 * One --cap argument, NAME or NAME=on|off, into the set. Nothing is checked but name and value;
 * an unknown name gets the nearest known one as the hint. ST_USAGE.
 */
int cap_parse(struct cap_set *set, const char *arg, struct error *err);

/* Pseudo-capabilities: what several capabilities together mean. */
static inline bool caps_postcopy(const struct cap_set *s)
{
	return s->on[CAP_POSTCOPY_RAM] || s->on[CAP_DIRTY_BITMAPS];
}

#endif
