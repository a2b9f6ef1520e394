/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How hard to compress, where nobody has said it. A slow link gains by every byte that it does not
 * have to carry; on hosts whose cores are all busy, compressing takes from what feeds the link. A
 * compressing thread notes what its packets took, and is told what to do with the next one.
 *
 * Up, to what compresses better: the link is slow (SLOW bytes a second), or it is what the thread
 * waits for while cores are idle. Down: the thread had to wait for a core, or hardly for the link.
 */
#ifndef MIGTOOL_EFFORT_H
#define MIGTOOL_EFFORT_H

#include <stdbool.h>
#include <stdint.h>

#define EFFORT_LOW  (-5)
#define EFFORT_HIGH 1 /* the parameter's default */
#define EFFORT_SLOW (100u << 20)

/* Begins as zeros, which is the least effort. */
struct effort {
	unsigned step;	  /* 0: EFFORT_LOW, and only for what shrinks to a half */
	unsigned packets; /* that the others are about */
	uint64_t making_ns, cpu_ns, sending_ns, bytes;
};

/* zstd's level. */
int effort_level(const struct effort *e);

/* Does a packet travel as it is whose sample of `raw` bytes becomes `len`? */
bool effort_skips(const struct effort *e, uint64_t raw, uint64_t len);

/*
 * One packet took making_ns to make, of which cpu_ns on a core, and sending_ns to send; the link as
 * a whole carries `share` times what this thread saw: bytes in sending_ns. True: the level has
 * changed.
 */
bool effort_note(struct effort *e, uint64_t making_ns, uint64_t cpu_ns, uint64_t sending_ns,
		 uint64_t bytes, unsigned share);

#endif
