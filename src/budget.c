// SPDX-License-Identifier: GPL-2.0-or-later
#include "budget.h"

#include "units.h"
#include "wire-multifd.h"

#define STREAM_BUFFER (64u << 10)
#define BITMAP_PAGE   4096

uint64_t budget_channel(const struct codec_ops *codec, bool continuous)
{
	uint64_t decoder = codec->decoder_memory(continuous, MULTIFD_PACKET_BYTES);

	/* a payload may be twice as long as its pages */
	return decoder + 3 * (uint64_t)MULTIFD_PACKET_BYTES + STREAM_BUFFER;
}

int budget_check(const struct budget_claim *c, struct error *err)
{
	uint64_t bitmaps = c->memory / BITMAP_PAGE / 8 * (c->old_copy ? 2 : 1);
	uint64_t channels = c->channels ? c->channels * budget_channel(c->codec, c->continuous) : 0;
	char want[32], have[32];

	units_format_size(BUDGET_BYTES, have, sizeof(have));
	if (bitmaps > BUDGET_BYTES)
		return err_set(err, ST_UNSUPPORTED,
			       "the source's blocks need %s of memory here to keep account of "
			       "their pages, at most %s is given",
			       units_format_size(bitmaps, want, sizeof(want)), have);
	if (bitmaps + channels <= BUDGET_BYTES)
		return 0;
	err_set(err, ST_UNSUPPORTED,
		"the source's %u multifd channels (%s) need %s of memory here, at most %s is given",
		c->channels, c->codec->name,
		units_format_size(bitmaps + channels, want, sizeof(want)), have);
	return err_hint(err, "--param multifd-channels=N on recv allows N of them");
}
