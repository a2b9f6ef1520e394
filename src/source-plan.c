// SPDX-License-Identifier: GPL-2.0-or-later
/* What a dry run has to say: what would travel, and how. */
#include "source.h"

#include "log.h"
#include "units.h"

#include <stdio.h>
#include <string.h>

static int plan_block(const struct source *src, const struct block *b, struct error *err)
{
	char size[32], data[32];
	uint64_t bytes;

	units_format_size(b->size, size, sizeof(size));
	if (source_ignores(src, b)) {
		log_info("plan: block %s: %s, shared, compared and not sent", b->name, size);
		return 0;
	}
	if (image_block_data_bytes(src->img, b, &bytes, err))
		return -1;
	log_info("plan: block %s: %s, of which %s are data", b->name, size,
		 units_format_size(bytes, data, sizeof(data)));
	return 0;
}

static void plan_capabilities(const struct session *ss)
{
	char list[512];
	size_t n = 0;

	list[0] = '\0';
	for (int i = 0; i < CAP__MAX; i++)
		if (ss->caps.on[i] && n < sizeof(list))
			n += (size_t)snprintf(list + n, sizeof(list) - n, "%s%s", n ? ", " : "",
					      cap_table[i].name);
	log_info("plan: capabilities: %s", n ? list : "none");
}

static void plan_channels(const struct source *src)
{
	const struct session *ss = src->ss;
	static const char *const methods[] = { "none", "zlib", "zstd" };
	unsigned n = params_multifd_channels(&ss->cfg->params);

	if (src->answer.multifd_channels && src->answer.multifd_channels < n)
		n = src->answer.multifd_channels;
	if (ss->caps.on[CAP_MULTIFD])
		log_info("plan: channels: the main one and %u of multifd, compression %s", n,
			 methods[params_multifd_compression(&ss->cfg->params)]);
	else
		log_info("plan: channels: the main one, compression %s",
			 ss->caps.on[CAP_COMPRESS] ? "zlib a page (compress)" : "none");
}

int source_plan(const struct source *src, struct error *err)
{
	char size[32], most[32];
	uint64_t state = 0;

	for (unsigned i = 0; i < src->img->nblocks; i++)
		if (plan_block(src, &src->img->blocks[i], err))
			return -1;
	if (image_device_state_fd(src->img, &state) >= 0)
		log_info("plan: device state: %s", units_format_size(state, size, sizeof(size)));
	plan_capabilities(src->ss);
	plan_channels(src);
	units_format_size(stat_get(&src->ss->stats.to_travel) + state, most, sizeof(most));
	log_info("plan: at most %s of data travel, before compression%s", most,
		 src->base ? " and without what the old copy has" : "");
	return 0;
}
