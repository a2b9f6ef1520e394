// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The source's stages. The order of everything on the wire is qemu-precopy's: header,
 * configuration, [OPEN_RETURN_PATH, PING], RAM START, PARTs, RAM END, device state, end. Between
 * migtools the greeting stands before it, and READY, COMMIT, DONE behind.
 */
#include "source.h"

#include "byteorder.h"
#include "compress.h"
#include "delta-compare.h"
#include "link.h"
#include "log.h"
#include "multifd-send.h"
#include "postcopy-send.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A PART ends after this much memory: where a keepalive or a reason can stand at the latest. */
#define PART_BYTES (128u << 20)

#define PART_MS 2000 /* for a destination that is done to end */

/* ---- channels, and the stream's head ---- */

static bool wants_return_path(const struct session *ss)
{
	return ss->main->two_way && (ss->dialect.migtool || ss->caps.on[CAP_RETURN_PATH] ||
				     ss->caps.on[CAP_POSTCOPY_RAM]);
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
	if (wants_return_path(ss) && !ss->dialect.migtool &&
	    (wire_put_command(&ss->stream, MIG_CMD_OPEN_RETURN_PATH, NULL, 0, err) ||
	     wire_put_ping(&ss->stream, WIRE_PING_START, err)))
		return -1;
	return source_postcopy_advise(src, err) ? -1 : stream_flush(&ss->stream, err);
}

/* While it is on, the stream is whole wherever a stage fails: what was begun goes out, then why. */
static void may_explain(struct source *src, bool on)
{
	src->may_explain = on && src->ss->dialect.migtool && src->ss->main->two_way;
	stream_keep(&src->ss->stream, src->may_explain);
}

int source_channels(struct session *ss, struct error *err)
{
	struct source *src = ss->source;

	if (src->answer.features & FEATURE_DELTA) {
		src->compare = delta_compare_open(src, err);
		if (!src->compare)
			return -1;
	}
	if (wants_return_path(ss) &&
	    returnpath_start(&src->rp, ss, src->compare ? delta_compare_take : NULL, src->compare,
			     err))
		return -1;
	/* a QEMU of 8.0 and later looks at the header to tell the main channel from the others */
	/* a connection that recovers postcopy begins with a command */
	if ((!src->recovers && put_head(src, err)) || source_postcopy_dial(src, err))
		return -1;
	may_explain(src, !src->recovers);
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
	/* a guest's pages come as they are */
	if (ss->caps.on[CAP_COMPRESS] && !source_guest_wanted(src)) {
		src->compressor = compressor_open(src, err);
		if (!src->compressor)
			return -1;
	}
	return 0;
}

/* ---- compare ---- */

int source_compare(struct session *ss, struct error *err)
{
	struct source *src = ss->source;
	uint64_t bytes;

	if (!src->compare)
		return 0;
	if (delta_compare_run(src->compare, &bytes, err))
		return -1;
	stat_set(&ss->stats.to_travel, bytes);
	log_verbose("%llu bytes differ from what the destination has", (unsigned long long)bytes);
	if (!bytes || src->answer.found != FOUND_COMPLETE)
		return 0;
	err_set(err, ST_LOST, "%llu bytes differ", (unsigned long long)bytes);
	return session_lost(
		ss, err, "the destination has a complete image that is not ours, which it may own",
		"a guest that runs there has changed it; else remove it there");
}

/* ---- RAM ---- */

int source_setup(struct session *ss, struct error *err)
{
	struct source *src = ss->source;
	struct ram_block_info *list;
	int rc;

	if (src->recovers)
		return 0;
	list = calloc(src->img->nblocks, sizeof(*list));
	if (!list)
		return err_set(err, ST_NOMEM, "no memory for the block list");
	for (unsigned i = 0; i < src->img->nblocks; i++) {
		snprintf(list[i].name, sizeof(list[i].name), "%s", src->img->blocks[i].name);
		list[i].length = src->img->blocks[i].size;
		list[i].gpa = src->img->blocks[i].gpa;
		list[i].host_page = source_postcopy_host_page(src, &src->img->blocks[i]);
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

/* A batch with room for a page of b, *batch unless it is full. */
static int want_room(struct source *src, struct block *b, struct page_batch **batch,
		     struct error *err)
{
	struct page_batch *full = *batch;

	if (full && full->n < batch_room(src->img->target_page))
		return 0;
	*batch = NULL;
	if (full && (pagesend_put(src, full, err) || maybe_new_part(src, err)))
		return -1;
	*batch = pagesend_get(src, err);
	if (!*batch)
		return -1;
	batch_reset(*batch, b);
	return 0;
}

static int send_extent(struct source *src, struct block *b, struct extent e,
		       struct page_batch **batch, struct error *err)
{
	uint32_t page = src->img->target_page;

	for (; e.len > 0 && !source_postcopy_due(src); e.offset += page, e.len -= page) {
		if (want_room(src, b, batch, err))
			return -1;
		(*batch)->offset[(*batch)->n++] = e.offset;
		source_postcopy_sent(src, b, e.offset, page);
		src->precopied += page;
	}
	return 0;
}

/* Sends what the last batch of a block holds. */
static int send_rest(struct source *src, struct page_batch *batch, struct error *err)
{
	return batch && (pagesend_put(src, batch, err) || maybe_new_part(src, err)) ? -1 : 0;
}

/*
 * The first pass: every page once, holes as zero runs that were never read. A batch goes on over
 * holes, or memory in small pieces would travel in as many small writes.
 */
static int send_block(struct source *src, struct block *b, struct error *err)
{
	struct page_batch *batch = NULL;
	uint64_t at = 0;

	for (;;) {
		struct extent e;

		if (image_next_data(src->img, b, at, &e, err))
			return -1;
		if (!e.len)
			e.offset = b->size;
		if (e.offset > at && pagesend_zero(src, b, at, e.offset - at, err))
			return -1;
		source_postcopy_sent(src, b, at, e.offset - at);
		if (e.len && send_extent(src, b, e, &batch, err))
			return -1;
		if (!e.len || source_postcopy_due(src))
			return send_rest(src, batch, err);
		at = e.offset + e.len;
	}
}

/* What is marked: what changed since the last round, or differs from an old copy. */
static int send_marked(struct source *src, struct block *b, const struct bitmap *map,
		       struct error *err)
{
	struct page_batch *batch = NULL;

	for (size_t i = bitmap_next_set(map, 0, map->bits); i < map->bits;
	     i = bitmap_next_set(map, i + 1, map->bits)) {
		if (source_postcopy_due(src))
			break;
		if (want_room(src, b, &batch, err))
			return -1;
		batch->offset[batch->n] = (uint64_t)i * src->img->target_page;
		source_postcopy_sent(src, b, batch->offset[batch->n++], src->img->target_page);
	}
	return send_rest(src, batch, err);
}

static int send_in_round(struct source *src, struct block *b, struct error *err)
{
	if (src->round > 1)
		return send_marked(src, b, dirty_bitmap(src->dirty, b), err);
	if (src->compare)
		return send_marked(src, b, delta_compare_map(src->compare, b), err);
	return send_block(src, b, err);
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

		if (source_ignores(src, b))
			continue;
		if (source_postcopy_due(src))
			break;
		if (send_in_round(src, b, err))
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

	if (src->recovers || src->guest_waits)
		return 0;
	if (!source_postcopy_due(src) && send_round(src, err))
		return -1;
	while (!source_postcopy_due(src) && src->dirty && dirty_pending(src->dirty)) {
		int64_t pages = dirty_sync(src->dirty, err);

		if (pages < 0)
			return -1;
		source_postcopy_changed(src);
		stat_add(&ss->stats.to_travel, (uint64_t)pages * src->img->target_page);
		if (send_round(src, err))
			return -1;
	}
	/* a guest there is given up in the same way when it has all */
	ss->postcopy = source_postcopy_due(src) || source_guest_wanted(src);
	return 0;
}

/* ---- switchover ---- */

/* A piece of the device state, whole. */
static int read_piece(const struct source *src, int fd, uint8_t *buf, size_t len, uint64_t at,
		      struct error *err)
{
	while (len > 0) {
		ssize_t n = pread(fd, buf, len, (off_t)at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_sys(err, ST_FILE, errno, "cannot read the device state of %s",
				       src->img->path);
		if (!n)
			return err_set(err, ST_UNSUPPORTED,
				       "the device state of %s changed while it was read",
				       src->img->path);
		buf += n;
		at += (uint64_t)n;
		len -= (size_t)n;
	}
	return 0;
}

/* Towards a migtool in pieces that say their length; towards a QEMU as it was recorded. */
static int send_pieces(struct source *src, int fd, uint64_t size, struct error *err)
{
	uint8_t *buf = malloc(WIRE_PIECE);
	uint64_t at = 0;
	int rc = 0;

	if (!buf)
		return err_set(err, ST_NOMEM, "no memory for the device state");
	/* an empty one is one, too */
	do {
		size_t n = size - at < WIRE_PIECE ? (size_t)(size - at) : WIRE_PIECE;

		rc = read_piece(src, fd, buf, n, at, err);
		if (!rc)
			rc = wire_put_command(&src->ss->stream, MIG_CMD_DEVICE_STATE, buf,
					      (uint32_t)n, err);
		at += n;
	} while (!rc && at < size);
	free(buf);
	return rc;
}

int source_send_device_state(struct source *src, struct error *err)
{
	uint64_t size;
	int fd = image_device_state_fd(src->img, &size);

	if (fd < 0)
		return 0;
	if (src->ss->dialect.migtool)
		return send_pieces(src, fd, size, err);
	return stream_sendfile(&src->ss->stream, fd, 0, size, err);
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

void source_own_digest(const struct source *src, struct wire_digest *d)
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

	may_explain(src, false);
	if (src->ss->dialect.migtool &&
	    !wire_put_command(&src->ss->stream, MIG_CMD_FAILED, bytes, (uint32_t)len, &ignored_err))
		stream_flush(&src->ss->stream, &ignored_err);
	return -1;
}

int source_switchover(struct session *ss, struct error *err)
{
	struct source *src = ss->source;
	struct wire_digest d;

	if (ss->postcopy) {
		may_explain(src, false);
		return 0; /* the next stage's */
	}
	stat_set(&ss->stats.t_switchover, stats_now());
	stat_set(&ss->stats.precopy_bytes, ss->stream.bytes_out);
	events_status(&ss->events, MIG_DEVICE);
	if (pagesend_section_open(src, WIRE_SECTION_END, err) || pagesend_section_close(src, err))
		return -1;
	if (!src->dirty && image_check_at_rest(src->img, err))
		return give_reason(src, err);
	/* what a QEMU recorded holds the stream's end: SHUT may come as soon as it was written */
	if (!ss->dialect.migtool)
		ss->stream_over = true;
	if (source_send_device_state(src, err))
		return -1;
	source_own_digest(src, &d);
	ss->digest = d.memory;
	ss->digest_known = true;
	if (ss->dialect.migtool) {
		uint8_t bytes[WIRE_DIGEST_LEN];

		wire_digest_pack(&d, bytes);
		if (wire_put_command(&ss->stream, MIG_CMD_DIGEST, bytes, sizeof(bytes), err))
			return -1;
	}
	if (cancel_fired(&ss->cancel))
		return cancel_reason(&ss->cancel, err);
	may_explain(src, false);
	ss->stream_over = true; /* before its last byte: READY may be quick */
	if (put_tail(src, err) || stream_flush(&ss->stream, err))
		return -1;
	src->may_explain = true;
	return 0;
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
	if (!image_check_at_rest(src->img, &why) &&
	    !link_image_digest(src->img, NULL, &now, &why) && digest_equal(now, src->digest.sum))
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
	source_own_digest(src, &own);
	if (memcmp(&src->rp.digest, &own, sizeof(own)))
		return err_set(err, ST_DIGEST, "the destination's digest differs from ours");
	if (session_commit(ss, err))
		return -1;
	/* from here to DONE nobody can say who owns the guest */
	ss->owner = OWNER_UNKNOWN;
	if (wire_put_command(&ss->stream, MIG_CMD_COMMIT, NULL, 0, err) ||
	    stream_flush(&ss->stream, err) || returnpath_wait(&src->rp, RP_WAIT_DONE, err))
		return session_lost(ss, err,
				    "COMMIT was sent and not answered, so the destination may own "
				    "the guest",
				    "ask it: `recv --resume` there, then `send --resume` here");
	ss->owner = OWNER_DESTINATION;
	ss->digest_verified = true;
	source_say_heard(ss);
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

	if (ss->postcopy)
		return source_postcopy_finish(src, err);
	if (!src->rp.started)
		return finish_unconfirmed(ss, err);
	/* QEMU runs the guest before it says SHUT, so until then nobody knows */
	if (session_commit(ss, err))
		return -1;
	ss->owner = OWNER_UNKNOWN;
	if (returnpath_wait(&src->rp, RP_WAIT_SHUT, err)) {
		if (err->status != ST_REFUSED)
			return session_lost(ss, err,
					    "all was sent, and the destination did not confirm it",
					    NULL);
		ss->owner = OWNER_SOURCE;
		return -1;
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
	} else if (ss->dialect.migtool && ss->postcopy) {
		return source_guest_finish(src, err);
	} else if (ss->dialect.migtool) {
		rc = finish_migtool(src, err);
	} else {
		rc = finish_qemu(src, err);
	}
	if (rc)
		return -1;
	ss->complete = true;
	source_release(src);
	return 0;
}

/* Behind what was begun, at a place where a command may stand. */
static void tell_within(struct source *src, const struct error *why)
{
	struct session *ss = src->ss;
	uint8_t msg[WIRE_FAILED_MAX], *last;
	size_t len = wire_failed_pack(why, msg);
	struct error ignored;

	if ((src->in_section && pagesend_section_close(src, &ignored)) ||
	    wire_put_command(&ss->stream, MIG_CMD_FAILED, msg, (uint32_t)len, &ignored))
		return;
	last = stream_unsent(&ss->stream, &len);
	if (last)
		link_last_words(ss, last, len);
	free(last);
}

/* A destination has to know that nothing more comes, and no COMMIT. */
static void tell(struct source *src, const struct error *why)
{
	struct session *ss = src->ss;
	uint8_t msg[7 + WIRE_FAILED_MAX];
	size_t len;

	if (!src->may_explain || ss->committed || !ss->dialect.migtool || !ss->main)
		return;
	if (ss->stream.keeps) {
		/* with --retry the other end may wait for the next link */
		if (!session_link_died(why))
			tell_within(src, why);
		return;
	}
	len = wire_failed_pack(why, msg + 7);
	msg[0] = WIRE_COMMAND;
	put_be16(msg + 1, MIG_CMD_FAILED);
	put_be32(msg + 3, (uint32_t)len);
	link_last_words(ss, msg, 7 + len);
}

/*
 * The other end closes now. A command behind exec: may have more to do than carrying our stream:
 * it reads that nothing more comes, and is ended only if that does not end it.
 */
static void part(struct source *src)
{
	struct transport *t = src->ss->main;
	struct error ignored;

	transport_shutdown_write(t, &ignored);
	if (!returnpath_wait_end(&src->rp, PART_MS))
		transport_abort(t);
}

void source_end(struct session *ss, const struct error *why)
{
	struct source *src = ss->source;

	if (!src)
		return;
	if (why)
		tell(src, why);
	multifd_send_close(src->multifd);
	compressor_close(src->compressor);
	if (src->rp.started && !why)
		part(src);
	returnpath_stop(&src->rp);
	postcopy_send_close(src->postcopy); /* the return path's thread has used it until now */
	source_pause_close(src);
	delta_compare_free(src->compare);
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
