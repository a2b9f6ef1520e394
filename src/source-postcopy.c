// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The source's stages where the guest runs before its memory has arrived (qemu-wire 6.5).
 *
 * Precopy goes on until --postcopy-after's part of the memory was sent, or SIGUSR2 came; with 0
 * there is none. Then a migtool's guest is source-guest.c's.
 *
 * Towards a QEMU ADVISE stands in the stream's head, and obliges to nothing. At the switch
 * DISCARD says what the destination has not, or not any more, and PACKAGED brings the devices
 * between LISTEN and RUN, as one piece: its pages are served while they are loaded. From RUN on the
 * guest is the destination's, whatever fails here, and it waits for pages; so nothing of this end
 * may be given up before the destination has said SHUT.
 */
#include "source.h"

#include "blob.h"
#include "log.h"
#include "manifest.h"
#include "postcopy-send.h"
#include "wire-postcopy.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#define LISTEN_LEN 5 /* a command without payload, as RUN */
#define RUN_LEN	   5
#define PING_LEN   9

/* ---- open, and the stream's head ---- */

/* Where the sections of the recorded device state end. */
static int measure_devices(struct source *src, struct error *err)
{
	uint64_t size, at = 0;
	int fd = image_device_state_fd(src->img, &size);
	struct blob b = { 0 };
	uint8_t buf[16384];

	if (fd < 0) {
		log_warn("%s has no device state: the guest begins with its devices as they are "
			 "when they are new",
			 src->img->path);
		return 0;
	}
	while (at < size) {
		ssize_t n = pread(fd, buf, sizeof(buf), (off_t)at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return err_sys(err, ST_FILE, n ? errno : 0,
				       "cannot read the device state of %s", src->img->path);
		if (blob_feed(&b, buf, (size_t)n, err))
			return -1;
		at += (uint64_t)n;
	}
	src->device_sections = blob_sections(&b);
	if (src->device_sections)
		return 0;
	err_set(err, ST_UNSUPPORTED, "the device state of %s does not end as a QEMU's does",
		src->img->path);
	return err_hint(err, "postcopy needs one that was recorded whole");
}

/*
 * Has the image every block of the guest? A QEMU that was advised of postcopy has emptied all of
 * its memory, its ROMs too, so a block that does not come is full of zeros. What a QEMU left is
 * whole; so is what a migtool passed on of it, which a single block or no recorded device is not.
 */
static bool is_whole_guest(const struct manifest *m)
{
	return m && (!strcmp(m->source, "qemu") || (m->nblocks > 1 && m->has_device_state));
}

static int check_image(const struct source *src, struct error *err)
{
	if (src->base)
		return err_set(err, ST_USAGE,
			       "--base: in postcopy the destination has none of the old copy any "
			       "more, and what is equal to it would not be sent");
	/* a migtool runs any guest */
	if (src->ss->cfg->peer != PEER_QEMU || is_whole_guest(src->img->manifest))
		return 0;
	err_set(err, ST_UNSUPPORTED,
		"postcopy-ram: %s is not a guest that a QEMU left (its manifest's source is not "
		"qemu), and in postcopy QEMU empties every block that is not in it, its ROMs too",
		src->img->path);
	return err_hint(err, "send it without --cap postcopy-ram, or an image that recv made of a "
			     "QEMU's stream");
}

int source_postcopy_open(struct source *src, struct error *err)
{
	struct session *ss = src->ss;

	if (!ss->caps.on[CAP_POSTCOPY_RAM])
		return 0;
	if (check_image(src, err))
		return -1;
	if (ss->cfg->dry_run)
		return 0;
	if (ss->cfg->peer == PEER_QEMU) {
		/* there is nothing else to go on with */
		src->recovers = ss->cfg->resume;
		ss->postcopy = src->recovers;
		if (!src->recovers && measure_devices(src, err))
			return -1;
	}
	if (!src->dirty && ss->cfg->peer != PEER_QEMU && source_guest_open(src, err))
		return -1;
	src->postcopy = postcopy_send_open(src, err);
	return src->postcopy ? 0 : -1;
}

int source_postcopy_advise(struct source *src, struct error *err)
{
	struct postcopy_advice a = { .target_page = src->img->target_page };
	struct pagesource *pages;

	if (!src->postcopy || src->ss->dialect.migtool)
		return 0;
	if (!src->ss->main->two_way)
		return err_set(err, ST_UNSUPPORTED,
			       "postcopy-ram: the destination has to ask for pages, and %s is "
			       "one-way",
			       src->ss->main->name);
	pages = postcopy_send_pages(src->postcopy);
	for (unsigned i = 0; i < src->img->nblocks; i++)
		a.host_pages |= pagesource_unit(pages, &src->img->blocks[i]);
	return postcopy_put_advise(&src->ss->stream, &a, err);
}

uint64_t source_postcopy_host_page(const struct source *src, const struct block *b)
{
	uint64_t unit;

	if (!src->postcopy || src->ss->dialect.migtool)
		return 0;
	unit = pagesource_unit(postcopy_send_pages(src->postcopy), b);
	return unit > src->img->target_page ? unit : 0;
}

int source_postcopy_answered(struct source *src, struct error *err)
{
	if (!src->postcopy)
		return 0;
	if (source_guest_wanted(src)) {
		page_cache_free(src->cache);
		src->cache = NULL;
		if (!src->ss->cfg->postcopy_after || (src->answer.features & FEATURE_AHEAD))
			return 0;
		err_set(err, ST_UNSUPPORTED,
			"--postcopy-after: the migtool there takes nothing before its guest goes "
			"on");
		return err_hint(err, "leave it off, or install this version there, too");
	}
	log_info("postcopy-ram: no guest runs at the destination, which takes the memory as it "
		 "always does");
	postcopy_send_close(src->postcopy);
	src->postcopy = NULL;
	return 0;
}

static bool preempts(const struct source *src)
{
	return src->postcopy && src->ss->caps.on[CAP_POSTCOPY_PREEMPT];
}

int source_postcopy_dial(struct source *src, struct error *err)
{
	if (src->ss->dialect.migtool)
		return src->postcopy && (src->answer.features & FEATURE_URGENT)
			       ? postcopy_send_dial(src->postcopy, err)
			       : 0;
	if (!preempts(src) || (src->ss->dialect.preempt_late && !src->recovers))
		return 0;
	return postcopy_send_dial(src->postcopy, err);
}

/* ---- during precopy ---- */

bool source_step(struct session *ss)
{
	struct source *src = ss->source;

	if (!src)
		return false;
	if (source_pause_leave(src))
		return true;
	if (!src->postcopy || ss->postcopy)
		return false;
	return !atomic_exchange(&src->postcopy_asked, true);
}

bool source_postcopy_due(const struct source *src)
{
	const struct session *ss = src->ss;

	if (!src->postcopy)
		return false;
	if (atomic_load_explicit(&src->postcopy_asked, memory_order_relaxed))
		return true;
	/* all of it is precopy, unless somebody says otherwise meanwhile */
	if (ss->cfg->postcopy_after >= 100)
		return false;
	return src->precopied >= stat_get(&ss->stats.to_travel) / 100 * ss->cfg->postcopy_after;
}

void source_postcopy_sent(struct source *src, const struct block *b, uint64_t offset, uint64_t len)
{
	if (src->postcopy)
		pagesource_sent(postcopy_send_pages(src->postcopy), b, offset, len);
}

void source_postcopy_changed(struct source *src)
{
	if (!src->postcopy)
		return;
	for (unsigned i = 0; i < src->img->nblocks; i++) {
		const struct block *b = &src->img->blocks[i];

		pagesource_changed(postcopy_send_pages(src->postcopy), b,
				   dirty_bitmap(src->dirty, b));
	}
}

/* ---- the switch ---- */

int source_postcopy_take_changes(struct source *src, struct error *err)
{
	while (src->dirty && dirty_pending(src->dirty)) {
		if (dirty_sync(src->dirty, err) < 0)
			return -1;
		source_postcopy_changed(src);
	}
	return 0;
}

static int put_package(struct source *src, struct error *err)
{
	struct stream *s = &src->ss->stream;
	uint64_t size, len = src->device_sections;
	int fd = image_device_state_fd(src->img, &size);

	if (postcopy_put_packaged(s, (uint32_t)(LISTEN_LEN + len + PING_LEN + RUN_LEN), err) ||
	    wire_put_command(s, MIG_CMD_POSTCOPY_LISTEN, NULL, 0, err))
		return -1;
	if (len && stream_sendfile(s, fd, 0, len, err))
		return -1;
	if (wire_put_ping(s, WIRE_PING_PACKAGE, err))
		return -1;
	return wire_put_command(s, MIG_CMD_POSTCOPY_RUN, NULL, 0, err);
}

/* The guest may run there from here on: nobody may run it here, and every failure is a loss. */
static int give_up(struct source *src, struct error *err)
{
	struct session *ss = src->ss;

	if (!src->dirty && image_check_at_rest(src->img, err))
		return -1;
	if (session_commit(ss, err))
		return -1;
	ss->owner = OWNER_UNKNOWN;
	return 0;
}

static int start(struct source *src, struct error *err)
{
	struct session *ss = src->ss;

	if (source_postcopy_take_changes(src, err))
		return -1;
	pagesource_settle(postcopy_send_pages(src->postcopy));
	if (preempts(src) && !postcopy_send_dialled(src->postcopy) &&
	    (returnpath_wait(&src->rp, RP_WAIT_PONG, err) ||
	     postcopy_send_dial(src->postcopy, err)))
		return -1;
	if (postcopy_send_discards(src->postcopy, err) ||
	    wire_put_ping(&ss->stream, WIRE_PING_SWITCH, err) || stream_flush(&ss->stream, err) ||
	    postcopy_send_listen(src->postcopy, err) || give_up(src, err))
		return -1;
	return 0;
}

static int put_end(struct source *src, struct error *err)
{
	struct session *ss = src->ss;

	if (pagesend_section_open(src, WIRE_SECTION_END, err) || pagesend_section_close(src, err))
		return -1;
	ss->stream_over = true; /* before its last byte: SHUT may be quick */
	if (stream_put_u8(&ss->stream, WIRE_EOF, err) || stream_flush(&ss->stream, err))
		return -1;
	postcopy_send_finish(src->postcopy);
	return 0;
}

static int run(struct source *src, struct error *err)
{
	struct session *ss = src->ss;

	if (!src->recovers &&
	    (put_package(src, err) || wire_put_ping(&ss->stream, WIRE_PING_PUSH, err)))
		return -1;
	if (stream_flush(&ss->stream, err))
		return -1;
	log_verbose("the guest goes on at the destination, %llu bytes of memory follow",
		    (unsigned long long)pagesource_left(postcopy_send_pages(src->postcopy)));
	if (postcopy_send_run(src->postcopy, err))
		return -1;
	/* pages that were read from it since are in use over there */
	if (!src->dirty && image_check_unwritten(src->img, err))
		return -1;
	return put_end(src, err);
}

/* What nobody has answered for yet. The guest waits there for pages. */
static int lose(struct source *src, struct error *err)
{
	struct session *ss = src->ss;
	struct error why;

	if (src->rp.package)
		ss->owner = OWNER_DESTINATION;
	if (!src->dirty && image_check_unwritten(src->img, &why)) {
		*err = why;
		return session_lost(ss, err,
				    "the image was written to, so the guest at the destination "
				    "has memory of two times",
				    "end it there, for it cannot be mended; restore it again from "
				    "an image that nobody writes to");
	}
	return session_lost(
		ss, err, "the guest runs at the destination, and waits for memory",
		"keep the image: `migrate-recover` there, then `send --resume` here, of "
		"this image or a copy: nothing tells another one from it");
}

/* A QEMU that is in postcopy-paused, and was told migrate-recover. */
static int recover(struct source *src, struct error *err)
{
	struct session *ss = src->ss;

	if (!ss->main->two_way)
		return err_set(err, ST_UNSUPPORTED, "%s is one-way", ss->main->name);
	if (postcopy_send_ask(src->postcopy, err))
		return err->status == ST_CANCELLED
			       ? -1
			       : err_hint(err, "is it in postcopy-paused, and was told "
					       "migrate-recover?");
	if (session_commit(ss, err))
		return -1;
	/* what it answers with is a guest's that it has */
	ss->owner = OWNER_DESTINATION;
	if (postcopy_send_resume(src->postcopy, err))
		return lose(src, err);
	events_status(&ss->events, MIG_POSTCOPY_ACTIVE);
	return 0;
}

static void count_postcopy(struct session *ss)
{
	stat_set(&ss->stats.postcopy_bytes, ss->stream.bytes_out -
						    stat_get(&ss->stats.precopy_bytes) +
						    stat_get(&ss->stats.urgent_bytes));
}

int source_postcopy(struct session *ss, struct error *err)
{
	struct source *src = ss->source;

	if (!ss->postcopy)
		return 0;
	/* the old limit is for a guest that runs here */
	ss->stream.pacer = NULL;
	stat_set(&ss->stats.precopy_bytes, ss->stream.bytes_out);
	if (ss->dialect.migtool) {
		int rc = source_guest(src, err);

		count_postcopy(ss);
		return rc;
	}
	events_status(&ss->events, src->recovers ? MIG_POSTCOPY_RECOVER : MIG_POSTCOPY_ACTIVE);
	stat_set(&ss->stats.t_switchover, stats_now());
	if (src->recovers ? recover(src, err) : start(src, err))
		return -1;
	if (run(src, err))
		return lose(src, err);
	count_postcopy(ss);
	ss->digest = src->digest.sum;
	ss->digest_known = !src->recovers; /* else most was sent by another process */
	return 0;
}

int source_postcopy_finish(struct source *src, struct error *err)
{
	struct session *ss = src->ss;
	struct error ignored;

	if (returnpath_wait(&src->rp, RP_WAIT_SHUT, err))
		return lose(src, err);
	ss->owner = OWNER_DESTINATION;
	transport_shutdown_write(ss->main, &ignored);
	return 0;
}
