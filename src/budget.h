/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The memory that a peer can make a destination ask for: channels with their decoders, and a bit
 * for each page of the blocks that it announces. All of it is known before the first page comes.
 */
#ifndef MIGTOOL_BUDGET_H
#define MIGTOOL_BUDGET_H

#include "codec.h"

#include <stdint.h>

#define BUDGET_BYTES (UINT64_C(1) << 30)

struct budget_claim {
	unsigned channels; /* 0: none, or as many as the user allowed himself */
	const struct codec_ops *codec;
	bool continuous; /* the codec's framing */
	uint64_t memory; /* bytes of all blocks together */
	bool old_copy;	 /* --delta: a second bit for each page */
};

/* What a channel costs: its batch, a payload before decoding, the decoder, the stream's buffer. */
uint64_t budget_channel(const struct codec_ops *codec, bool continuous);

/* 0, or -1: ST_UNSUPPORTED with both numbers. */
int budget_check(const struct budget_claim *c, struct error *err);

#endif
