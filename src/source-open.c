// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The source's first stages: its image and what needs no peer, the connection, and its half of the
 * greeting.
 */
#include "source.h"

#include "byteorder.h"
#include "link.h"
#include "log.h"
#include "xbzrle.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WAIT_MS	  600000
#define SLOW_DISK (50u << 20) /* bytes a second */

/* ---- open: everything that needs no peer ---- */

static int open_base(struct source *src, struct error *err)
{
	const struct config *cfg = src->ss->cfg;
	struct image_source_opts opts = { .block_name = cfg->block_name,
					  .page_size = src->img->target_page };

	src->base = image_open(cfg->base, &opts, err);
	if (!src->base)
		return err_prefix(err, "--base");
	if (cfg->peer == PEER_QEMU) {
		log_warn("--base: a QEMU cannot say whether %s is what it has; if it is not, the "
			 "guest's memory will be wrong",
			 src->base->path);
		return 0;
	}
	/* now, because a destination that was connected to does not wait long for the greeting */
	log_info("reading the base %s", src->base->path);
	return link_image_digest(src->base, &src->ss->cancel, &src->base_digest, err);
}

static int open_xbzrle(struct source *src, struct error *err)
{
	const struct config *cfg = src->ss->cfg;

	if (cfg->base && !src->ss->caps.on[CAP_XBZRLE])
		return err_set(err, ST_USAGE,
			       "--base needs --cap xbzrle=on: its deltas are XBZRLE");
	if (!src->ss->caps.on[CAP_XBZRLE])
		return 0;
	if (cfg->base && open_base(src, err))
		return -1;
	if (!src->dirty && !src->base) {
		log_verbose("xbzrle has nothing to do: an image at rest is sent in one pass");
		return 0;
	}
	if (src->img->target_page > XBZRLE_PAGE_MAX)
		return err_set(err, ST_UNSUPPORTED,
			       "xbzrle cannot encode pages of %u bytes, only up to %u",
			       src->img->target_page, XBZRLE_PAGE_MAX);
	src->cache =
		page_cache_new(params_xbzrle_cache_size(&cfg->params), src->img->target_page, err);
	src->delta = malloc(2 * (size_t)src->img->target_page);
	if (src->cache && !src->delta)
		return err_set(err, ST_NOMEM, "no memory for xbzrle");
	return src->cache ? 0 : -1;
}

bool source_ignores(const struct source *src, const struct block *b)
{
	return b->shared && src->ss->caps.on[CAP_X_IGNORE_SHARED];
}

/* What both ends reach is not sent, but it is part of the image and so of its digest. */
static int read_shared(struct source *src, struct error *err)
{
	unsigned n = 0;

	if (!src->ss->caps.on[CAP_X_IGNORE_SHARED] || src->ss->cfg->peer == PEER_QEMU)
		return 0;
	src->shared = calloc(src->img->nblocks, sizeof(*src->shared));
	if (!src->shared)
		return err_set(err, ST_NOMEM, "no memory for the digests of shared blocks");
	for (unsigned i = 0; i < src->img->nblocks; i++) {
		const struct block *b = &src->img->blocks[i];

		if (!source_ignores(src, b))
			continue;
		log_info("block %s is shared: it is compared and not sent", b->name);
		if (link_block_digest(src->img, b, &src->ss->cancel, &src->shared[i], err))
			return -1;
		digest_add(&src->digest.sum, src->shared[i]);
		n++;
	}
	if (!n)
		log_info("x-ignore-shared: all of %s is sent, for %s", src->img->path,
			 src->img->manifest ? "its manifest says of no block that it is shared"
					    : "there is no manifest that calls a block shared");
	return 0;
}

static int count_memory(struct source *src, struct error *err)
{
	struct stats *st = &src->ss->stats;
	uint64_t total = 0, data = 0, bytes;

	for (unsigned i = 0; i < src->img->nblocks; i++) {
		const struct block *b = &src->img->blocks[i];

		if (source_ignores(src, b))
			continue;
		if (image_block_data_bytes(src->img, b, &bytes, err))
			return -1;
		total += b->size;
		data += bytes;
	}
	stat_set(&st->total, total);
	stat_set(&st->to_travel, data);
	stat_set(&st->holes, total - data);
	return 0;
}

/* Can a page be sent twice? In postcopy a huge one that was sent in part is. */
static bool pages_change(const struct source *src)
{
	if (src->dirty)
		return true;
	for (unsigned i = 0; i < src->img->nblocks; i++)
		if (src->ss->caps.on[CAP_POSTCOPY_RAM] &&
		    src->img->blocks[i].page_size > src->img->target_page)
			return true;
	return false;
}

int source_open(struct session *ss, struct error *err)
{
	const struct config *cfg = ss->cfg;
	struct image_source_opts opts = { .block_name = cfg->block_name,
					  .page_size = cfg->page_size,
					  .device_state = cfg->device_state };
	struct source *src = calloc(1, sizeof(*src));

	if (!src)
		return err_set(err, ST_NOMEM, "no memory");
	ss->source = src;
	src->ss = ss;
	src->img = image_open(cfg->image, &opts, err);
	if (!src->img)
		return -1;
	if (cfg->replay_dirty) {
		src->dirty = dirty_replay(src->img, cfg->replay_dirty, err);
		if (!src->dirty)
			return -1;
	}
	if (sent_digest_init(&src->digest, src->img, pages_change(src), err) ||
	    open_xbzrle(src, err) || source_postcopy_open(src, err) ||
	    source_pause_open(src, err) || source_release_open(src, err) || read_shared(src, err) ||
	    count_memory(src, err))
		return -1;
	ss->page_size = src->img->target_page;
	return link_source_identity(ss, src->img, err);
}

/* ---- connect ---- */

/* Whoever dials a listening source says so first, in a channel's first packet. */
static int accept_main(struct session *ss, struct error *err)
{
	int64_t ms = ss->cfg->timeout >= 0 ? link_timeout_ms(ss) : -1;
	uint64_t deadline = link_deadline(ms);

	for (;;) {
		struct error why;
		uint8_t first[8];
		int r = pending_next(ss->pending, link_left_ms(deadline), first, &ss->main, err);

		if (r < 0)
			return -1;
		if (!r)
			return err_set(err, ST_TIMEOUT, "no destination came within %d s",
				       (int)(ms / 1000));
		if (get_be32(first) != MULTIFD_MAGIC)
			err_set(&why, ST_PROTOCOL, "it begins with something else");
		else if (link_open_stream(ss, err))
			return -1;
		else if (!link_take_main_hello(&ss->stream, &why))
			return 0;
		log_warn("dropped %s: no migtool that waits for an image (%s)", ss->main->name,
			 why.msg);
		link_drop_main(ss);
	}
}

static int dial_main(struct session *ss, struct error *err)
{
	return link_dial_main(ss, err) ? -1 : link_open_stream(ss, err);
}

int source_connect(struct session *ss, struct error *err)
{
	/* a QEMU that is connected to is used up */
	if (ss->cfg->dry_run && ss->cfg->peer == PEER_QEMU) {
		ss->dry_run_done = true;
		if (dialect_for_qemu(&ss->dialect, ss->machine, ss->cfg->peer_version, err))
			return -1;
		return source_plan(ss->source, err);
	}
	if (ss->listener ? accept_main(ss, err) : dial_main(ss, err))
		return -1;
	snprintf(ss->peer, sizeof(ss->peer), "%s", ss->main->name);
	ss->watched = true;
	return 0;
}

/* ---- greet ---- */

static int fill_blocks(struct source *src, struct greeting *g, struct error *err)
{
	g->blocks = calloc(src->img->nblocks, sizeof(*g->blocks));
	if (!g->blocks)
		return err_set(err, ST_NOMEM, "no memory for the greeting");
	for (unsigned i = 0; i < src->img->nblocks; i++) {
		const struct block *b = &src->img->blocks[i];
		struct greet_block *to = &g->blocks[i];

		snprintf(to->name, sizeof(to->name), "%s", b->name);
		to->size = b->size;
		to->page_size = b->page_size;
		to->has_gpa = b->has_gpa;
		to->gpa = b->gpa;
		to->shared = b->shared;
		to->has_digest = src->shared && source_ignores(src, b);
		if (to->has_digest)
			to->digest = src->shared[i];
		g->nblocks++;
	}
	return 0;
}

static int fill_greeting(struct source *src, struct greeting *g, struct error *err)
{
	struct session *ss = src->ss;
	const struct config *cfg = ss->cfg;
	uint64_t size;

	memset(g, 0, sizeof(*g));
	snprintf(g->program, sizeof(g->program), "migtool %s", MIGTOOL_VERSION);
	memcpy(g->session, ss->id, sizeof(g->session));
	g->dry_run = cfg->dry_run;
	g->one_way = !ss->main->two_way;
	g->caps = ss->caps;
	g->multifd_channels = params_multifd_channels(&cfg->params);
	g->multifd_compression = params_multifd_compression(&cfg->params);
	memcpy(g->join, ss->join, sizeof(g->join));
	snprintf(g->machine, sizeof(g->machine), "%s", ss->machine);
	snprintf(g->uuid, sizeof(g->uuid), "%s", ss->uuid);
	if (src->img->manifest) {
		snprintf(g->target_arch, sizeof(g->target_arch), "%s",
			 src->img->manifest->target_arch);
		snprintf(g->run_state, sizeof(g->run_state), "%s", src->img->manifest->run_state);
	}
	g->page_size = src->img->target_page;
	g->features = FEATURES_ALL;
	if (!ss->caps.on[CAP_POSTCOPY_RAM] || g->one_way)
		g->features &= ~(unsigned)FEATURES_GUEST;
	if (!link_multi_channel(ss))
		g->features &= ~(unsigned)FEATURE_URGENT;
	if (g->one_way) /* who cannot hear digests does not want them */
		g->features &= ~(unsigned)FEATURE_DELTA;
	g->retries = cfg->retry;
	g->resume = ss->again;
	g->knows_session = ss->knows_first;
	memcpy(g->resumed, ss->first, sizeof(g->resumed));
	g->has_device_state = image_device_state_fd(src->img, &size) >= 0;
	g->data_bytes = stat_get(&ss->stats.to_travel);
	/* the user knows better */
	g->has_image = src->has_identity && !cfg->force;
	g->image = src->identity;
	g->has_base = src->base != NULL;
	g->base = src->base_digest;
	return fill_blocks(src, g, err);
}

/* Without an answer the features are ours: the destination refuses what it does not know. */
static int greet_one_way(struct source *src, const struct greeting *g)
{
	src->answer.take = true;
	src->answer.features = g->features;
	src->answer.multifd_channels = g->multifd_channels;
	return 0;
}

static int no_answer(const struct session *ss, struct error *err)
{
	/* ssh: says itself what became of the far process, TLS why it was refused */
	if (ss->uri.scheme == SCHEME_SSH || err->status == ST_REFUSED)
		return -1;
	if (err->status == ST_SOCKET)
		err_hint(err, "is a `migtool recv` listening there? towards a QEMU use "
			      "--peer qemu");
	return err_prefix(err, "no answer to the greeting");
}

/* A destination may ask to wait while it reads what it has: at a slow disk's rate, and some more.
 */
static uint64_t longest_wait_ms(const struct source *src)
{
	uint64_t bytes = 0;

	for (unsigned i = 0; i < src->img->nblocks; i++)
		bytes += src->img->blocks[i].size;
	return WAIT_MS + bytes / (SLOW_DISK / 1000);
}

static int await_answer(struct source *src, struct error *err)
{
	struct session *ss = src->ss;
	bool far = ss->uri.scheme == SCHEME_SSH; /* nobody there until he has logged in */
	int ms = far ? (int)link_timeout_ms(ss) : LINK_SILENCE_MS;
	int r = transport_poll_in(ss->main, ms, err);

	if (r < 0)
		return -1;
	if (!r) {
		err_set(err, ST_TIMEOUT, "%s does not answer the greeting within %d s",
			ss->main->name, ms / 1000);
		if (far)
			return err_hint(err, "--timeout SECONDS, 0 for never");
		return err_hint(err,
				"is this a one-way pipe? use --one-way; a QEMU? use --peer qemu");
	}
	if (greet_answer_get(&ss->stream, longest_wait_ms(src), &src->answer, err))
		return no_answer(ss, err);
	if (!src->answer.take) {
		*err = src->answer.why;
		return -1;
	}
	if (far)
		memcpy(ss->join, src->answer.join, sizeof(ss->join));
	return 0;
}

static int greet_migtool(struct source *src, struct error *err)
{
	struct session *ss = src->ss;
	struct greeting g;
	int rc = fill_greeting(src, &g, err);

	if (!rc && greet_put(&ss->stream, &g, err))
		rc = err->status == ST_SOCKET ? no_answer(ss, err) : -1;
	if (!rc)
		rc = ss->main->two_way ? await_answer(src, err) : greet_one_way(src, &g);
	greet_free(&g);
	if (rc)
		return -1;
	ss->dialect.migtool = true;
	ss->dialect.flush_word = true;
	ss->dialect.runs = src->answer.features & FEATURE_RUNS;
	ss->dialect.multifd2 = src->answer.features & FEATURE_MULTIFD2;
	return 0;
}

void source_say_heard(struct session *ss)
{
	struct error ignored;

	if (ss->cfg->retry && !wire_put_command(&ss->stream, MIG_CMD_HEARD, NULL, 0, &ignored))
		stream_flush(&ss->stream, &ignored);
}

static int take_done(struct session *ss, struct error *err)
{
	/* READY had been compared before we gave the guest up; with a guest it was said behind */
	if ((ss->owner != OWNER_UNKNOWN && !ss->serving) || !ss->tries)
		return err_set(err, ST_DATA, "the answer: done, and nothing was given up");
	ss->owner = OWNER_DESTINATION;
	ss->complete = ss->digest_known = ss->digest_verified = ss->done_before = true;
	ss->serving = false;
	source_say_heard(ss);
	return 0;
}

/* What the destination has of an earlier try, and so whose the guest is. */
static int take_found(struct source *src, struct error *err)
{
	struct session *ss = src->ss;
	static const uint8_t unknown[16];

	if (!ss->again) {
		memcpy(ss->first, ss->id, sizeof(ss->first));
		ss->knows_first = true;
	} else if (memcmp(src->answer.session, unknown, sizeof(unknown))) {
		memcpy(ss->first, src->answer.session, sizeof(ss->first));
		ss->knows_first = true;
	}
	if (src->postcopy && source_guest_wanted(src))
		return source_guest_found(src, err);
	if (src->answer.found == FOUND_GUEST || src->answer.found == FOUND_READY)
		return err_set(err, ST_DATA, "the answer: a guest, and none was announced");
	if (src->answer.found == FOUND_NOTHING || src->answer.found == FOUND_PART)
		ss->owner = OWNER_SOURCE;
	if (src->answer.found != FOUND_NOTHING)
		log_info("going on with session %02x%02x%02x%02x", ss->first[0], ss->first[1],
			 ss->first[2], ss->first[3]);
	if (src->answer.found == FOUND_DONE)
		return take_done(ss, err);
	if (src->answer.found != FOUND_NOTHING && !(src->answer.features & FEATURE_DELTA))
		return err_set(err, ST_DATA, "the answer: something was found, and no digests");
	/* what is there is compared itself */
	if (src->answer.features & FEATURE_DELTA) {
		image_close(src->base, false);
		src->base = NULL;
	}
	return 0;
}

int source_greet(struct session *ss, struct error *err)
{
	struct source *src = ss->source;

	if (ss->cfg->peer == PEER_QEMU) {
		src->answer.multifd_channels = params_multifd_channels(&ss->cfg->params);
		return dialect_for_qemu(&ss->dialect, ss->machine, ss->cfg->peer_version, err);
	}
	if (greet_migtool(src, err))
		return -1;
	log_verbose("the destination is %s",
		    src->answer.program[0] ? src->answer.program : "not answering (one-way)");
	if (ss->cfg->dry_run) {
		ss->dry_run_done = true;
		return source_plan(src, err);
	}
	if (take_found(src, err))
		return -1;
	if (ss->done_before)
		return 0;
	if (ss->serving && !src->guest_waits)
		return err_set(err, ST_REFUSED, "no guest runs at the destination any more");
	return source_postcopy_answered(src, err);
}
