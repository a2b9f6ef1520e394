/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Where a QEMU's device state ends. Its sections carry no length, so only two things tell: the
 * source closes (no return path), or the last bytes are EOF and the machine's description, a JSON
 * object whose length stands before it. qemu-wire 1.6.
 *
 * Looks at the bytes as they pass, keeps none of them, and costs the same for each byte whatever
 * they are.
 */
#ifndef MIGTOOL_BLOB_H
#define MIGTOOL_BLOB_H

#include "error.h"

#include <stdint.h>

#define BLOB_MAX (256u << 20)

/* A description that has begun: JSON read so far. */
struct blob_description {
	uint64_t start, end; /* of EOF before it, and of the blob, if it is one */
	uint64_t kinds;	     /* a bit a level: 1 in an array, 0 in an object */
	unsigned depth;	     /* 0: the object is closed */
	bool string, escape; /* inside "...", behind a backslash */
};

/* All zero: nothing came yet. */
struct blob {
	uint64_t len;
	uint64_t last; /* the last eight bytes */
	uint8_t eofs;  /* bit i: a footer and EOF ended i bytes ago */
	struct blob_description one[4];
	unsigned n;
	uint8_t carry[123]; /* the last bytes, where a run state may have begun */
	size_t ncarry;
	char run_state[104];
};

/* Looks at the next bytes. ST_DATA: more than BLOB_MAX of device state. */
int blob_feed(struct blob *b, const void *buf, size_t len, struct error *err);

/* Are the bytes fed so far a device state that has ended with a description? */
bool blob_complete(const struct blob *b);

/* Do they end with a section's footer and EOF (a machine that suppresses the description)? */
bool blob_ends_with_eof(const struct blob *b);

/*
 * How many bytes of sections stand before the end of what was fed: EOF and the description. 0: it
 * is no whole device state.
 */
uint64_t blob_sections(const struct blob *b);

/* The guest's run state out of the globalstate section, "" if there is none. */
void blob_run_state(const struct blob *b, char out[104]);

#endif
