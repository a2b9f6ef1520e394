// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The switch to postcopy between two migtools. The destination is told to get its guest ready
 * (LISTEN), says when it is (LISTENING), and only then the guest is given up: COMMIT. So whatever
 * fails before leaves the guest here. DONE says that the destination has it; until then nobody
 * knows. Behind DONE all that fails leaves a guest that waits there for pages of ours.
 *
 * What was sent before LISTEN is there, but for what DISCARD takes back, and for units that went in
 * part only: how large one is nobody knows before LISTENING. These are sent once more.
 *
 * With switchover-ack LISTEN goes before the stage in which the source's user stops his guest, and
 * COMMIT alone is left for the time in which it does not run.
 *
 * A failure there is no end with --retry: the next connection begins as this one, but the
 * destination says in its answer that a guest waits (found: guest), and before LISTENING what has
 * come (postcopy-came.c). COMMIT and DONE give nothing up then; requests are answered from there
 * on.
 *
 * The end is the destination's to say: READY when all has arrived and agrees with DIGEST, or ENOUGH
 * when there is no guest any more that needs pages.
 */
#include "source.h"

#include "log.h"
#include "postcopy-send.h"
#include "zero.h"

#include <string.h>

#define ALIVE_MS 1000

bool source_guest_wanted(const struct source *src)
{
	return src->postcopy && (src->answer.features & FEATURE_POSTCOPY);
}

/* What was sent, and the device state; to a guest that waits none was sent. */
static void own_digest(const struct source *src, struct wire_digest *d)
{
	struct digest memory = src->digest.sum;

	source_own_digest(src, d);
	if (src->guest_waits)
		*d = (struct wire_digest){ .memory = memory };
}

/* With the device state's digest, if there is one: the guest has it before it is ours to judge. */
static int put_listen(struct source *src, struct error *err)
{
	uint8_t bytes[WIRE_DIGEST_LEN];
	struct wire_digest d;
	uint64_t size;

	if (src->guest_waits || image_device_state_fd(src->img, &size) < 0)
		return wire_put_command(&src->ss->stream, MIG_CMD_LISTEN, NULL, 0, err);
	if (source_send_device_state(src, err))
		return -1;
	own_digest(src, &d);
	wire_digest_pack(&d, bytes);
	return wire_put_command(&src->ss->stream, MIG_CMD_LISTEN,
				bytes + WIRE_DIGEST_LEN - WIRE_STATE_LEN, WIRE_STATE_LEN, err);
}

/* The destination may have much to do first: its VMM may not even be there. */
static int await_guest(struct source *src, struct error *err)
{
	struct stream *s = &src->ss->stream;
	int rc = 0;

	if (src->guest_waits)
		postcopy_send_recovers(src->postcopy);
	returnpath_expect_guest(&src->rp);
	if (put_listen(src, err) || stream_flush(s, err))
		return -1;
	while (!rc) {
		rc = returnpath_wait_ms(&src->rp, RP_WAIT_LISTENING, ALIVE_MS, err);
		if (!rc &&
		    (wire_put_command(s, MIG_CMD_KEEPALIVE, NULL, 0, err) || stream_flush(s, err)))
			return -1;
	}
	return rc < 0 ? -1 : 0;
}

/* What was sent ahead and has changed since is worth nothing. Memory at rest has no such pages. */
static int take_back(struct source *src, struct error *err)
{
	if (!src->dirty || !src->round)
		return 0;
	return source_postcopy_take_changes(src, err) || postcopy_send_discards(src->postcopy, err)
		       ? -1
		       : 0;
}

/* Pages that will be sent again were summed; a source that changes replaces their terms itself. */
static int unsum(struct source *src, const struct block *b, struct extent e, struct error *err)
{
	struct digest sum = { 0, 0 };
	uint8_t page[DIGEST_PAGE];

	for (uint64_t at = e.offset; at < e.offset + e.len; at += DIGEST_PAGE) {
		if (image_read(src->img, b, at, page, sizeof(page), err))
			return -1;
		if (!zero_is(page, sizeof(page)))
			digest_sub(&sum, digest_page(&b->digest, at, page, sizeof(page)));
	}
	sent_digest_add(&src->digest, sum);
	return 0;
}

/* The destination's unit is known, and drops what it has of one in part. */
static int settle(struct source *src, struct error *err)
{
	struct pagesource *pages = postcopy_send_pages(src->postcopy);

	for (unsigned i = 0; !src->dirty && i < src->img->nblocks; i++) {
		const struct block *b = &src->img->blocks[i];
		struct extent e = { 0, 0 };

		while ((e = pagesource_partial(pages, b, e.offset + e.len)).len)
			if (unsum(src, b, e, err))
				return -1;
	}
	pagesource_settle(pages);
	return 0;
}

static int check_unit(const struct source *src, struct error *err)
{
	uint32_t unit = src->rp.guest.unit, page = src->img->target_page;
	uint32_t came = postcopy_send_came_unit(src->postcopy);

	if (came && came != unit)
		return err_set(err, ST_DATA, "LISTENING: pages of %u bytes, and CAME had %u", unit,
			       came);
	if (unit >= page)
		return 0;
	return err_set(err, ST_DATA, "LISTENING: pages of %u bytes, and those here have %u", unit,
		       page);
}

/* From here on nobody may run the guest here. */
static int give_up(struct source *src, struct error *err)
{
	struct session *ss = src->ss;

	if (!src->dirty && image_check_at_rest(src->img, err))
		return -1;
	/* requests may come as soon as COMMIT was read */
	if (postcopy_send_listen(src->postcopy, err) || session_commit(ss, err))
		return -1;
	if (!src->guest_waits)
		ss->owner = OWNER_UNKNOWN;
	ss->image = src->identity;
	ss->knows_image = src->has_identity;
	if (!wire_put_command(&ss->stream, MIG_CMD_COMMIT, NULL, 0, err) &&
	    !stream_flush(&ss->stream, err) && !returnpath_wait(&src->rp, RP_WAIT_DONE, err))
		return 0;
	if (src->guest_waits)
		return -1;
	return session_lost(ss, err,
			    "COMMIT was sent and not answered, so the guest may run at the "
			    "destination",
			    "look there: run it here only if it was ended there");
}

static int send_memory(struct source *src, struct error *err)
{
	struct postcopy_send *ps = src->postcopy;

	if (src->rp.guest.asks_all)
		return postcopy_send_answers(ps, err);
	return postcopy_send_holes(ps, err) || postcopy_send_run(ps, err) ? -1 : 0;
}

static int put_digest(struct source *src, struct error *err)
{
	uint8_t bytes[WIRE_DIGEST_LEN];
	struct wire_digest d;

	own_digest(src, &d);
	src->ss->digest = d.memory;
	src->ss->digest_known = true;
	wire_digest_pack(&d, bytes);
	return wire_put_command(&src->ss->stream, MIG_CMD_DIGEST, bytes, sizeof(bytes), err);
}

/* Who has said ENOUGH compares nothing. */
static int put_end(struct source *src, struct error *err)
{
	struct session *ss = src->ss;

	/* what was read from an image that was written to meanwhile is of two times */
	if (!src->dirty && image_check_unwritten(src->img, err))
		return -1;
	if (pagesend_section_open(src, WIRE_SECTION_END, err) || pagesend_section_close(src, err) ||
	    put_digest(src, err))
		return -1;
	ss->stream_over = true; /* before its last byte: READY may be quick */
	return stream_put_u8(&ss->stream, WIRE_EOF, err) || stream_flush(&ss->stream, err) ? -1 : 0;
}

int source_guest_ready(struct source *src, struct error *err)
{
	if ((!src->guest_waits && take_back(src, err)) || await_guest(src, err) ||
	    check_unit(src, err))
		return -1;
	src->guest_ready = true;
	return 0;
}

int source_guest(struct source *src, struct error *err)
{
	struct session *ss = src->ss;

	if (!src->guest_ready && source_guest_ready(src, err))
		return -1;
	postcopy_send_unit(src->postcopy, src->rp.guest.unit);
	if (!src->guest_waits && settle(src, err))
		return -1;
	if (!src->guest_waits)
		stat_set(&ss->stats.t_switchover, stats_now());
	if (give_up(src, err))
		return -1;
	ss->owner = OWNER_DESTINATION;
	ss->serving = true;
	if (!src->guest_waits)
		stat_set(&ss->stats.t_resumed, stats_now());
	events_status(&ss->events, MIG_POSTCOPY_ACTIVE);
	log_verbose("the guest goes on at the destination, which has %s",
		    src->rp.guest.asks_all ? "asked for no more than it needs" : "all to come");
	return send_memory(src, err) || put_end(src, err) ? -1 : 0;
}

int source_guest_finish(struct source *src, struct error *err)
{
	struct session *ss = src->ss;
	struct wire_digest own;

	if (returnpath_wait(&src->rp, RP_WAIT_VERDICT, err))
		return -1;
	ss->serving = false;
	if (!src->rp.ready) {
		log_info("the guest has ended, or needs no more pages");
		ss->digest_known = false; /* it is that of what was sent */
		return 0;
	}
	own_digest(src, &own);
	if (memcmp(&src->rp.digest, &own, sizeof(own)) != 0) {
		err_set(err, ST_DIGEST, "the destination's digest differs from ours");
		return session_lost(ss, err, "the guest runs at the destination with other memory",
				    "end it there");
	}
	ss->digest_verified = true;
	ss->complete = true;
	source_say_heard(ss);
	source_release(src);
	return 0;
}
