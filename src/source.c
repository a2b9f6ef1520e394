// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The source's stages. The order of everything on the wire is qemu-precopy's: header,
 * configuration, [OPEN_RETURN_PATH, PING], RAM START, PARTs, RAM END, device state, end. Between
 * migtools the greeting stands before it, and READY, COMMIT, DONE behind.
 */
#include "source.h"

#include "byteorder.h"
#include "compress.h"
#include "link.h"
#include "log.h"
#include "multifd-send.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A PART ends after this much memory: where a keepalive or a reason can stand at the latest. */
#define PART_BYTES (128u << 20)

/* ---- open: everything that needs no peer ---- */

static int open_base(struct source *src, struct error *err)
{
	const struct config *cfg = src->ss->cfg;
	struct image_source_opts opts = { .block_name = cfg->block_name,
					  .page_size = src->img->target_page };

	src->base = image_open(cfg->base, &opts, err);
	if (!src->base)
		return err_prefix(err, "--base");
	if (cfg->peer == PEER_QEMU)
		return 0;
	/* now, because a destination that was connected to does not wait long for the greeting */
	log_info("reading the base %s", src->base->path);
	return link_image_digest(src->base, &src->base_digest, err);
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
	if (src->img->target_page > 16383)
		return err_set(
			err, ST_UNSUPPORTED,
			"xbzrle cannot encode pages of %u bytes: its run lengths end at 16383",
			src->img->target_page);
	src->cache =
		page_cache_new(params_xbzrle_cache_size(&cfg->params), src->img->target_page, err);
	src->delta = malloc(2 * (size_t)src->img->target_page);
	if (src->cache && !src->delta)
		return err_set(err, ST_NOMEM, "no memory for xbzrle");
	return src->cache ? 0 : -1;
}

static bool ignored(const struct source *src, const struct block *b)
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

		if (!ignored(src, b))
			continue;
		log_info("block %s is shared: it is compared and not sent", b->name);
		if (link_block_digest(src->img, b, &src->shared[i], err))
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

		if (ignored(src, b))
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
	if (sent_digest_init(&src->digest, src->img, src->dirty != NULL, err) ||
	    open_xbzrle(src, err) || read_shared(src, err) || count_memory(src, err))
		return -1;
	ss->page_size = src->img->target_page;
	return link_source_identity(ss, src->img, err);
}

/* ---- connect ---- */

/* Whoever dials a listening source says so first, in a channel's first packet. */
static int accept_main(struct session *ss, struct error *err)
{
	int ms = ss->cfg->timeout >= 0 ? (int)link_timeout_ms(ss) : -1;

	for (;;) {
		struct error why;
		uint8_t first[8];
		int r = pending_next(ss->pending, ms, first, &ss->main, err);

		if (r < 0)
			return -1;
		if (!r)
			return err_set(err, ST_TIMEOUT, "no destination came within %d s",
				       ms / 1000);
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
	ss->main = transport_dial(&ss->uri, true, (int)link_timeout_ms(ss), &ss->cancel, err);
	return ss->main ? link_open_stream(ss, err) : -1;
}

int source_connect(struct session *ss, struct error *err)
{
	/* a QEMU that is connected to is used up */
	if (ss->cfg->dry_run && ss->cfg->peer == PEER_QEMU) {
		ss->dry_run_done = true;
		return dialect_for_qemu(&ss->dialect, ss->machine, ss->cfg->peer_version, err);
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
		to->has_digest = src->shared && ignored(src, b);
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
	snprintf(g->machine, sizeof(g->machine), "%s", ss->machine);
	snprintf(g->uuid, sizeof(g->uuid), "%s", ss->uuid);
	if (src->img->manifest) {
		snprintf(g->target_arch, sizeof(g->target_arch), "%s",
			 src->img->manifest->target_arch);
		snprintf(g->run_state, sizeof(g->run_state), "%s", src->img->manifest->run_state);
	}
	g->page_size = src->img->target_page;
	g->features = FEATURES_ALL;
	g->has_device_state = image_device_state_fd(src->img, &size) >= 0;
	g->data_bytes = stat_get(&ss->stats.to_travel);
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

static int await_answer(struct source *src, struct error *err)
{
	struct session *ss = src->ss;
	int r = cancel_wait(&ss->cancel, ss->main->rfd, POLLIN, LINK_SILENCE_MS, err);

	if (r < 0)
		return -1;
	if (!r) {
		err_set(err, ST_TIMEOUT, "%s does not answer the greeting within %d s",
			ss->main->name, LINK_SILENCE_MS / 1000);
		return err_hint(err,
				"is this a one-way pipe? use --one-way; a QEMU? use --peer qemu");
	}
	if (greet_answer_get(&ss->stream, &src->answer, err)) {
		if (err->status == ST_SOCKET)
			err_hint(err, "is a `migtool recv` listening there? towards a QEMU use "
				      "--peer qemu");
		return err_prefix(err, "no answer to the greeting");
	}
	if (!src->answer.take) {
		*err = src->answer.why;
		return -1;
	}
	return 0;
}

static int greet_migtool(struct source *src, struct error *err)
{
	struct session *ss = src->ss;
	struct greeting g;
	int rc = fill_greeting(src, &g, err);

	if (!rc)
		rc = greet_put(&ss->stream, &g, err);
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
		return 0;
	}
	return 0;
}

/* ---- channels, and the stream's head ---- */

static bool wants_return_path(const struct session *ss)
{
	return ss->main->two_way && (ss->dialect.migtool || ss->caps.on[CAP_RETURN_PATH]);
}

static int put_head(struct source *src, struct error *err)
{
	struct session *ss = src->ss;
	struct wire_config c = { .ignore_shared = ss->caps.on[CAP_X_IGNORE_SHARED] };

	snprintf(c.machine, sizeof(c.machine), "%s", ss->machine);
	if (ss->caps.on[CAP_VALIDATE_UUID] && ss->uuid[0]) {
		c.has_uuid = true;
		link_uuid(ss, c.uuid);
	}
	/* QEMU on x86 has one page size and never says it */
	for (uint32_t p = src->img->target_page; p > 4096; p >>= 1)
		c.page_bits = c.page_bits ? c.page_bits + 1 : 13;
	if (wire_put_header(&ss->stream, err) || wire_put_config(&ss->stream, &c, err))
		return -1;
	if (wants_return_path(ss) && !ss->dialect.migtool) {
		uint8_t one[4] = { 0, 0, 0, 1 };

		if (wire_put_command(&ss->stream, MIG_CMD_OPEN_RETURN_PATH, NULL, 0, err) ||
		    wire_put_command(&ss->stream, MIG_CMD_PING, one, sizeof(one), err))
			return -1;
	}
	return stream_flush(&ss->stream, err);
}

int source_channels(struct session *ss, struct error *err)
{
	struct source *src = ss->source;

	if (wants_return_path(ss) && returnpath_start(&src->rp, ss, err))
		return -1;
	/* a QEMU of 8.0 and later looks at the header to tell the main channel from the others */
	if (put_head(src, err))
		return -1;
	if (ss->caps.on[CAP_MULTIFD]) {
		unsigned n = params_multifd_channels(&ss->cfg->params);

		if (src->answer.multifd_channels && src->answer.multifd_channels < n) {
			n = src->answer.multifd_channels;
			log_info("the destination takes %u multifd channels", n);
		}
		src->multifd = multifd_send_open(src, n, err);
		if (!src->multifd)
			return -1;
	} else if (batch_pool_init(&src->pool, 1, src->img->target_page, err)) {
		return -1;
	}
	if (ss->caps.on[CAP_COMPRESS]) {
		src->compressor = compressor_open(src, err);
		if (!src->compressor)
			return -1;
	}
	return 0;
}

/* ---- RAM ---- */

int source_setup(struct session *ss, struct error *err)
{
	struct source *src = ss->source;
	struct ram_block_info *list = calloc(src->img->nblocks, sizeof(*list));
	int rc;

	if (!list)
		return err_set(err, ST_NOMEM, "no memory for the block list");
	for (unsigned i = 0; i < src->img->nblocks; i++) {
		snprintf(list[i].name, sizeof(list[i].name), "%s", src->img->blocks[i].name);
		list[i].length = src->img->blocks[i].size;
		list[i].gpa = src->img->blocks[i].gpa;
	}
	rc = pagesend_section_open(src, WIRE_SECTION_START, err);
	if (!rc)
		rc = ram_put_block_list(&ss->stream, list, src->img->nblocks,
					ss->caps.on[CAP_X_IGNORE_SHARED], err);
	free(list);
	if (rc || pagesend_barrier(src, err) || pagesend_section_close(src, err))
		return -1;
	return stream_flush(&ss->stream, err);
}

/* One PART ends and the next begins when it has grown long. */
static int maybe_new_part(struct source *src, struct error *err)
{
	if (src->section_bytes < PART_BYTES)
		return 0;
	if (src->compressor && compressor_drain(src->compressor, err))
		return -1;
	/* memory full of zeros fills no buffer: the destination has to see that we live */
	if (pagesend_section_close(src, err) || stream_flush(&src->ss->stream, err))
		return -1;
	return pagesend_section_open(src, WIRE_SECTION_PART, err);
}

static int send_extent(struct source *src, struct block *b, struct extent e, struct error *err)
{
	uint32_t page = src->img->target_page;

	while (e.len > 0) {
		struct page_batch *batch = pagesend_get(src, err);

		if (!batch)
			return -1;
		batch_reset(batch, b);
		for (; batch->n < batch_room(page) && e.len > 0; e.offset += page, e.len -= page)
			batch->offset[batch->n++] = e.offset;
		if (pagesend_put(src, batch, err) || maybe_new_part(src, err))
			return -1;
	}
	return 0;
}

/* The first pass: every page once, holes as zero runs that were never read. */
static int send_block(struct source *src, struct block *b, struct error *err)
{
	uint64_t at = 0;

	for (;;) {
		struct extent e;

		if (image_next_data(src->img, b, at, &e, err))
			return -1;
		if (!e.len)
			e.offset = b->size;
		if (e.offset > at && pagesend_zero(src, b, at, e.offset - at, err))
			return -1;
		if (!e.len)
			return 0;
		if (send_extent(src, b, e, err))
			return -1;
		at = e.offset + e.len;
	}
}

static int send_dirty_block(struct source *src, struct block *b, struct error *err)
{
	const struct bitmap *map = dirty_bitmap(src->dirty, b);
	uint32_t page = src->img->target_page;
	size_t i = bitmap_next_set(map, 0);

	while (i < map->bits) {
		struct page_batch *batch = pagesend_get(src, err);

		if (!batch)
			return -1;
		batch_reset(batch, b);
		for (; batch->n < batch_room(page) && i < map->bits;
		     i = bitmap_next_set(map, i + 1))
			batch->offset[batch->n++] = (uint64_t)i * page;
		if (pagesend_put(src, batch, err) || maybe_new_part(src, err))
			return -1;
	}
	return 0;
}

static int send_round(struct source *src, struct error *err)
{
	struct stats *st = &src->ss->stats;

	src->round++;
	stat_add(&st->dirty_sync_count, 1);
	events_pass(&src->ss->events, src->round);
	if (pagesend_section_open(src, WIRE_SECTION_PART, err))
		return -1;
	for (unsigned i = 0; i < src->img->nblocks; i++) {
		struct block *b = &src->img->blocks[i];

		if (ignored(src, b))
			continue;
		if (src->round == 1 ? send_block(src, b, err) : send_dirty_block(src, b, err))
			return -1;
		/* QEMU changes blocks only after all compression workers are done */
		if (src->compressor && compressor_drain(src->compressor, err))
			return -1;
	}
	if (pagesend_barrier(src, err) || pagesend_section_close(src, err))
		return -1;
	return stream_flush(&src->ss->stream, err);
}

int source_precopy(struct session *ss, struct error *err)
{
	struct source *src = ss->source;

	if (send_round(src, err))
		return -1;
	while (src->dirty && dirty_pending(src->dirty)) {
		int64_t pages = dirty_sync(src->dirty, err);

		if (pages < 0)
			return -1;
		stat_add(&ss->stats.to_travel, (uint64_t)pages * src->img->target_page);
		if (send_round(src, err))
			return -1;
	}
	return 0;
}

/* ---- switchover ---- */

/* Towards a migtool in pieces that say their length; towards a QEMU as it was recorded. */
static int send_device_state(struct source *src, struct error *err)
{
	struct session *ss = src->ss;
	uint64_t size, at = 0;
	int fd = image_device_state_fd(src->img, &size);
	uint8_t *buf;
	int rc = 0;

	if (fd < 0)
		return 0;
	buf = malloc(WIRE_PIECE);
	if (!buf)
		return err_set(err, ST_NOMEM, "no memory for the device state");
	/* an empty one is one, too */
	do {
		size_t n = size - at < WIRE_PIECE ? (size_t)(size - at) : WIRE_PIECE;

		if (pread(fd, buf, n, (off_t)at) != (ssize_t)n)
			rc = err_set(err, ST_UNSUPPORTED,
				     "the device state of %s changed while it was "
				     "read",
				     src->img->path);
		if (!rc)
			rc = ss->dialect.migtool
				     ? wire_put_command(&ss->stream, MIG_CMD_DEVICE_STATE, buf,
							(uint32_t)n, err)
				     : stream_write(&ss->stream, buf, n, err);
		at += n;
	} while (!rc && at < size);
	free(buf);
	return rc;
}

/* The tail that a QEMU needs where no recorded device state brings it. */
static int put_tail(struct source *src, struct error *err)
{
	uint64_t size;

	if (!src->ss->dialect.migtool && image_device_state_fd(src->img, &size) >= 0)
		return 0; /* EOF and description are part of it */
	if (stream_put_u8(&src->ss->stream, WIRE_EOF, err) ||
	    stream_put_u8(&src->ss->stream, WIRE_VMDESCRIPTION, err))
		return -1;
	return stream_put_be32(&src->ss->stream, 0, err);
}

static void own_digest(struct source *src, struct wire_digest *d)
{
	d->memory = src->digest.sum;
	image_device_state_digest(src->img, &d->device, &d->device_size);
}

/* Tells a migtool why nothing more comes, at a place where a command may stand. */
static int give_reason(struct source *src, const struct error *why)
{
	uint8_t bytes[WIRE_FAILED_MAX];
	size_t len = wire_failed_pack(why, bytes);
	struct error ignored_err;

	if (src->ss->dialect.migtool &&
	    !wire_put_command(&src->ss->stream, MIG_CMD_FAILED, bytes, (uint32_t)len, &ignored_err))
		stream_flush(&src->ss->stream, &ignored_err);
	return -1;
}

int source_switchover(struct session *ss, struct error *err)
{
	struct source *src = ss->source;
	struct wire_digest d;

	stat_set(&ss->stats.t_switchover, stats_now());
	stat_set(&ss->stats.precopy_bytes, ss->stream.bytes_out);
	events_status(&ss->events, MIG_DEVICE);
	if (pagesend_section_open(src, WIRE_SECTION_END, err) || pagesend_section_close(src, err))
		return -1;
	if (!src->dirty && image_check_at_rest(src->img, err))
		return give_reason(src, err);
	if (send_device_state(src, err))
		return -1;
	own_digest(src, &d);
	ss->digest = d.memory;
	ss->digest_known = true;
	if (ss->dialect.migtool) {
		uint8_t bytes[WIRE_DIGEST_LEN];

		wire_digest_pack(&d, bytes);
		if (wire_put_command(&ss->stream, MIG_CMD_DIGEST, bytes, sizeof(bytes), err))
			return -1;
	}
	if (put_tail(src, err))
		return -1;
	return stream_flush(&ss->stream, err);
}

/* ---- finish ---- */

/* After a mismatch: was it our image that changed under us? Then that is the error. */
static void explain_mismatch(struct source *src, struct error *err)
{
	struct digest now;
	struct error why;

	/* a base that differs is found before anything was sent */
	if (src->dirty || !src->ss->digest_known)
		return;
	if (!image_check_at_rest(src->img, &why) && !link_image_digest(src->img, &now, &why) &&
	    digest_equal(now, src->digest.sum))
		return;
	err_set(err, ST_UNSUPPORTED, "%s changed while it was read", src->img->path);
	err_hint(err, "stop the guest (or copy the image) before you send it");
}

static int finish_migtool(struct source *src, struct error *err)
{
	struct session *ss = src->ss;
	struct wire_digest own;

	if (returnpath_wait(&src->rp, RP_WAIT_READY, err))
		return -1;
	own_digest(src, &own);
	if (memcmp(&src->rp.digest, &own, sizeof(own)))
		return err_set(err, ST_DIGEST, "the destination's digest differs from ours");
	/* from here to DONE nobody can say who owns the guest */
	ss->committed = true;
	ss->owner = OWNER_UNKNOWN;
	if (wire_put_command(&ss->stream, MIG_CMD_COMMIT, NULL, 0, err) ||
	    stream_flush(&ss->stream, err) || returnpath_wait(&src->rp, RP_WAIT_DONE, err)) {
		err->status = ST_LOST;
		return err_prefix(err,
				  "COMMIT was sent and not answered; the destination may own the "
				  "guest");
	}
	ss->owner = OWNER_DESTINATION;
	ss->digest_verified = true;
	return 0;
}

/* Nobody answers: what the transport says at its end has to do. */
static int finish_unconfirmed(struct session *ss, struct error *err)
{
	if (transport_shutdown_write(ss->main, err) || link_end_main(ss, err))
		return -1;
	ss->owner = OWNER_DESTINATION;
	return 0;
}

static int finish_qemu(struct source *src, struct error *err)
{
	struct session *ss = src->ss;
	struct error ignored_err;

	if (!src->rp.started)
		return finish_unconfirmed(ss, err);
	/* QEMU runs the guest before it says SHUT, so until then nobody knows */
	ss->committed = true;
	ss->owner = OWNER_UNKNOWN;
	if (returnpath_wait(&src->rp, RP_WAIT_SHUT, err)) {
		if (err->status != ST_REFUSED)
			err->status = ST_LOST;
		else
			ss->owner = OWNER_SOURCE;
		return err_prefix(err, "all was sent, and the destination did not confirm it");
	}
	ss->owner = OWNER_DESTINATION;
	transport_shutdown_write(ss->main, &ignored_err);
	return 0;
}

static void judge_zero_copy(struct session *ss)
{
	uint64_t missed = stat_get(&ss->stats.zero_copy_missed);

	if (missed)
		log_warn(
			"zero-copy-send: the kernel copied %llu of %llu sends anyway (as it always "
			"does on loopback)",
			(unsigned long long)missed,
			(unsigned long long)stat_get(&ss->stats.zero_copy_sent));
}

int source_finish(struct session *ss, struct error *err)
{
	struct source *src = ss->source;
	int rc;

	judge_zero_copy(ss);
	if (!ss->main->two_way) {
		rc = finish_unconfirmed(ss, err);
	} else if (ss->dialect.migtool) {
		rc = finish_migtool(src, err);
	} else {
		rc = finish_qemu(src, err);
	}
	if (!rc)
		ss->complete = true;
	return rc;
}

void source_end(struct session *ss, const struct error *why)
{
	struct source *src = ss->source;

	if (!src)
		return;
	(void)why;
	multifd_send_close(src->multifd);
	compressor_close(src->compressor);
	if (src->rp.started && !why)
		transport_abort(ss->main);
	returnpath_stop(&src->rp);
	batch_pool_destroy(&src->pool);
	page_cache_free(src->cache);
	free(src->delta);
	free(src->shared);
	if (src->img)
		sent_digest_destroy(&src->digest, src->img);
	dirty_free(src->dirty);
	image_close(src->base, false);
	image_close(src->img, false);
	free(src);
	ss->source = NULL;
}

void source_explain(struct session *ss, struct error *err)
{
	if (ss->source && err->status == ST_DIGEST)
		explain_mismatch(ss->source, err);
}
