// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The destination's stages. Until a valid greeting or QEVM header was read, a listening recv drops
 * whoever is bad, silent or gone with one warning and listens on; after that the first failure is
 * final.
 */
#include "target.h"

#include "byteorder.h"
#include "delta-offer.h"
#include "link.h"
#include "log.h"
#include "multifd-recv.h"
#include "wire-ram.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* What keeps up with one connection; the other half of the cores is the network's. */
#define PLACERS_MAX 4

/* What the source's --timeout is nobody knows here: its shortest useful ones are to be met. */
#define KEEPALIVE_MS 1000

#define GUEST_MS 250 /* how often one that waits is looked at */

/* Before each peer: what an earlier one said, who was dropped, does not count. */
static void know_nothing(struct session *ss)
{
	const struct config *cfg = ss->cfg;

	snprintf(ss->machine, sizeof(ss->machine), "%s", cfg->machine ? cfg->machine : "");
	snprintf(ss->uuid, sizeof(ss->uuid), "%s", cfg->uuid ? cfg->uuid : "");
	ss->page_size = cfg->page_size ? cfg->page_size : 4096;
	ss->caps = cfg->caps;
	stat_set(&ss->stats.total, 0);
	stat_set(&ss->stats.to_travel, 0);
	stat_set(&ss->stats.holes, 0);
}

/* Waiting for the source has no limit unless one is given, whoever comes and is dropped. */
static uint64_t first_deadline(const struct session *ss)
{
	/* nobody but its source can help a guest, whenever that comes */
	if (ss->paused)
		return UINT64_MAX;
	/* a source that tries again comes within its pauses; people start a recovery */
	if (ss->tries && !ss->target->recovers)
		return link_deadline(LINK_RETURN_MS);
	return link_deadline(ss->cfg->timeout >= 0 ? link_timeout_ms(ss) : -1);
}

int target_open(struct session *ss, struct error *err)
{
	const struct config *cfg = ss->cfg;
	struct target *t = calloc(1, sizeof(*t));

	if (!t)
		return err_set(err, ST_NOMEM, "no memory");
	t->ss = ss;
	pthread_mutex_init(&t->rp_lock, NULL);
	ss->target = t; /* from here on the main thread looks at it */
	know_nothing(ss);
	if (config_has_guest(cfg) && (ss->lazy ? pull_again(t, err) : pull_open(t, err)))
		return -1;
	if (ss->lazy && (!pull_keeps(t) || pull_has_image(t))) {
		t->first_by = first_deadline(ss);
		return 0;
	}
	if (image_check_target(cfg->image, target_may_exist(t), cfg->in_place, target_resumes(t),
			       err) ||
	    target_recover_open(t, err))
		return -1;
	t->first_by = first_deadline(ss);
	return 0;
}

/* ---- the main connection ---- */

struct transport *session_stashed(struct session *ss)
{
	return ss->nstash ? ss->stash[--ss->nstash] : NULL;
}

static bool is_multifd(const uint8_t first[8])
{
	return get_be32(first) == MULTIFD_MAGIC;
}

/* A channel before its main connection: kept for a moment if multifd is expected. */
static void stash_or_drop(struct session *ss, struct transport *t)
{
	struct error ignored;

	if (ss->caps.on[CAP_MULTIFD] && ss->nstash < sizeof(ss->stash) / sizeof(ss->stash[0])) {
		ss->stash[ss->nstash++] = t;
		return;
	}
	log_warn("dropped %s: a multifd channel, and multifd is off here; a QEMU source with "
		 "multifd "
		 "needs: recv --cap multifd=on --param multifd-channels=N",
		 t->name);
	transport_close(t, &ignored);
}

/* 1: somebody came, 0: the time is over, -1. A guest may end meanwhile. */
static int next_peer(struct session *ss, uint8_t first[8], struct transport **t, struct error *err)
{
	int rc = 0;

	if (!ss->paused)
		return pending_next(ss->pending, link_left_ms(ss->target->first_by), first, t, err);
	while (!rc && !ss->done_before) {
		rc = pull_look(ss->target, err);
		if (!rc && !ss->done_before)
			rc = pending_next(ss->pending, GUEST_MS, first, t, err);
	}
	return rc;
}

static int accept_main(struct session *ss, struct error *err)
{
	uint8_t first[8];

	for (;;) {
		struct transport *t = NULL;
		struct error ignored;
		char shown[64];
		int r = next_peer(ss, first, &t, err);

		if (r < 0)
			return -1;
		if (ss->done_before)
			return 0;
		if (!r && ss->tries)
			return err_set(err, ST_TIMEOUT, "the source did not come back within %d s",
				       LINK_RETURN_MS / 1000);
		if (!r)
			return err_set(err, ST_TIMEOUT, "no source came within %d s",
				       (int)ss->cfg->timeout);
		if (get_be32(first) == WIRE_MAGIC || !memcmp(first, GREET_MAGIC, GREET_MAGIC_LEN) ||
		    target_recover_is(first)) {
			ss->main = t;
			return 0;
		}
		if (is_multifd(first)) {
			stash_or_drop(ss, t);
			continue;
		}
		log_warn("dropped %s: it begins with \"%s\", which is neither a migtool nor a QEMU",
			 t->name, log_escape(shown, sizeof(shown), first, sizeof(first)));
		transport_close(t, &ignored);
	}
}

static int dial_main(struct session *ss, struct error *err)
{
	return link_dial_main(ss, err);
}

int target_accept(struct session *ss, struct error *err)
{
	if (ss->paused && pull_look(ss->target, err))
		return -1;
	if (ss->done_before)
		return 0;
	if (ss->listener ? accept_main(ss, err) : dial_main(ss, err))
		return -1;
	if (ss->done_before)
		return 0;
	if (link_open_stream(ss, err))
		return -1;
	if (!ss->listener && ss->cfg->connect &&
	    link_put_hello(ss, &ss->stream, LINK_MAIN_CHANNEL, err))
		return -1;
	/* nobody else will come, and who was dialled may have to get ready */
	if (!ss->listener)
		ss->watched = ss->cfg->timeout >= 0;
	return 0;
}

/* ---- greet ---- */

/* Who wants to recover, and what waits for it, have to come together. */
static int recognise_recovery(struct target *t, const uint8_t *first, struct error *err)
{
	if (t->recovers && target_recover_is(first)) {
		target_recover_greet(t);
		return 0;
	}
	if (t->recovers) {
		err_set(err, ST_UNSUPPORTED,
			"%s waits for the rest of its guest's memory, and the source begins anew",
			image_part_path(t->img));
		return err_hint(err, "the QEMU that is in postcopy-paused goes on with it: "
				     "`migrate -r`");
	}
	err_set(err, ST_UNSUPPORTED,
		"the source recovers from a broken postcopy, and no %s.part waits for that",
		t->ss->cfg->image);
	return err_hint(err, "recv --resume --cap postcopy-ram=on, with the IMAGE of before");
}

/* 0: known, 1: another one please, -1 */
static int recognise(struct target *t, struct error *err)
{
	struct session *ss = t->ss;
	const uint8_t *first;
	char shown[64];

	know_nothing(ss);
	if (stream_peek(&ss->stream, 1, &first, err))
		return -1;
	/* what a listener hands over has said who it is: none of this waits */
	if (!ss->listener)
		ss->watched = true;
	if (stream_peek(&ss->stream, 4, &first, err))
		return -1;
	if (get_be32(first) == WIRE_MAGIC && ss->lazy) {
		err_set(err, ST_UNSUPPORTED,
			"the source is a QEMU, and the guest here can only have a migtool's "
			"image");
		return err_hint(err, "receive it without --uffd-socket, --guest or COMMAND");
	}
	if (t->recovers || target_recover_is(first))
		return recognise_recovery(t, first, err);
	if (get_be32(first) == WIRE_MAGIC) {
		ss->main->lax_end = true;
		ss->channels = params_multifd_channels(&ss->cfg->params);
		ss->method = params_multifd_compression(&ss->cfg->params);
		return load_head(t, err);
	}
	if (first[0] == TLS_FIRST_BYTE && !ss->tls) {
		err_set(err, ST_REFUSED, "the source speaks TLS");
		return err_hint(err, "give --param tls-creds=DIR");
	}
	if (stream_peek(&ss->stream, 8, &first, err))
		return -1;
	if (!memcmp(first, GREET_MAGIC, GREET_MAGIC_LEN))
		return target_greet_migtool(t, err);
	return err_set(err, ST_PROTOCOL,
		       "%s begins with \"%s\", which is neither a migtool nor a QEMU",
		       ss->main->name, log_escape(shown, sizeof(shown), first, 8));
}

int target_greet(struct session *ss, struct error *err)
{
	struct target *t = ss->target;

	for (;;) {
		int rc = recognise(t, err);

		if (!rc)
			break;
		if (!ss->listener || cancel_fired(&ss->cancel))
			return -1;
		if (rc < 0) {
			log_warn("%s: %s; listening on", ss->main->name, err->msg);
			if (err->hint[0])
				log_warn("hint: %s", err->hint);
		}
		link_drop_main(ss);
		if (rc > 0) /* a dry run was the source: the real one gets as long again */
			t->first_by = first_deadline(ss);
		if (target_accept(ss, err))
			return -1;
		if (ss->done_before)
			return 0;
	}
	snprintf(ss->peer, sizeof(ss->peer), "%s", ss->main->name);
	ss->watched = true;
	if (!ss->paused)
		stat_set(&ss->stats.t_start, stats_now());
	if (t->found == FOUND_GUEST)
		pull_found(t);
	return 0;
}

/* ---- channels ---- */

int target_channels(struct session *ss, struct error *err)
{
	struct target *t = ss->target;

	if (ss->lazy)
		return pull_channels(t, err);
	if (!ss->caps.on[CAP_MULTIFD]) {
		bool preempt = ss->caps.on[CAP_POSTCOPY_PREEMPT];

		/* without TLS the kernel alone takes postcopy-preempt's connection */
		t->strays = ss->listener && !ss->dialect.migtool && (!preempt || ss->tls);
		if (t->strays)
			ss->pending->quiet = preempt;
		return 0;
	}
	t->multifd = multifd_recv_open(t, ss->channels, err);
	return t->multifd ? 0 : -1;
}

/* ---- compare ---- */

int target_compare(struct session *ss, struct error *err)
{
	struct target *t = ss->target;
	struct image *old = t->old_image;

	if (t->old != OLD_OFFER)
		return 0;
	t->talking = true;
	t->old_image = NULL;
	t->offer = delta_offer_start(t, old, true, err);
	return t->offer ? 0 : -1;
}

/* ---- load ---- */

static unsigned placers(const struct session *ss)
{
	long cores = sysconf(_SC_NPROCESSORS_ONLN);

	if (ss->caps.on[CAP_COMPRESS])
		return params_decompress_threads(&ss->cfg->params);
	if (cores <= 2)
		return 0;
	return cores / 2 > PLACERS_MAX ? PLACERS_MAX : (unsigned)cores / 2;
}

/* Called once the image exists: for a QEMU that is inside START. */
int target_start_workers(struct target *t, struct error *err)
{
	struct session *ss = t->ss;

	t->placer = placer_open(ss, t->img, placers(ss), ss->caps.on[CAP_COMPRESS], err);
	if (!t->placer)
		return -1;
	return t->multifd ? multifd_recv_start(t->multifd, err) : 0;
}

int target_setup(struct session *ss, struct error *err)
{
	struct target *t = ss->target;

	/* a migtool's stream proper begins behind its greeting, a QEMU's was recognised by it */
	if (ss->dialect.migtool && load_head(t, err))
		return -1;
	t->talking = ss->dialect.migtool && t->rp_open;
	return t->img && !ss->lazy ? target_start_workers(t, err) : 0;
}

int target_precopy(struct session *ss, struct error *err)
{
	if (!load_stream(ss->target, err))
		return 0;
	if (ss->lazy || ss->target->postcopy < POSTCOPY_PAUSED)
		return -1;
	/* a link that breaks is one thing, a disk or a stream that is bad another */
	ss->parked = (err->status == ST_SOCKET || err->status == ST_TIMEOUT) && !ss->cfg->in_place;
	return session_lost(ss, err, "the source gave the guest up, and its memory is not all here",
			    "the source has all of it, in postcopy-paused: `recv --resume --cap "
			    "postcopy-ram` here, then `migrate -r` there");
}

/* ---- switchover: is it all here, and is it right? ---- */

static int verify(struct target *t, struct error *err)
{
	struct session *ss = t->ss;
	struct wire_digest own;
	char a[33], b[33];

	image_digest(t->img, &own.memory);
	image_device_state_digest(t->img, &own.device, &own.device_size);
	ss->digest = own.memory;
	ss->digest_known = true;
	if (!t->have_digest)
		return 0; /* a QEMU knows no digest */
	if (!digest_equal(own.memory, t->digest.memory))
		return err_set(err, ST_DIGEST,
			       "the memory that arrived has digest %s, the source sent %s",
			       digest_hex(own.memory, a), digest_hex(t->digest.memory, b));
	if (own.device_size != t->digest.device_size || !digest_equal(own.device, t->digest.device))
		return err_set(err, ST_DIGEST,
			       "the device state that arrived (%llu bytes) differs from "
			       "what the source sent (%llu bytes)",
			       (unsigned long long)own.device_size,
			       (unsigned long long)t->digest.device_size);
	ss->digest_verified = true;
	ss->unheard = !t->rp_open;
	return 0;
}

/*
 * A QEMU does not say which blocks are shared, but of all others it sends every page: what did not
 * come is shared.
 */
static void mark_shared(struct target *t)
{
	for (unsigned i = 0; i < t->img->nblocks; i++) {
		struct block *b = &t->img->blocks[i];

		if (image_block_came(b))
			continue;
		b->shared = true;
		log_warn("block %s is shared memory: it did not come, and %s does not hold it",
			 b->name, t->img->path);
	}
}

/* What is complete stays as .part, for somebody to find out whether it is the guest. */
static int lost(struct target *t, const char *what, struct error *err)
{
	const char *part = image_part_path(t->img);
	bool in_place = t->ss->cfg->in_place;
	char text[512], hint[512];

	snprintf(text, sizeof(text), "all is here (%.300s) %s", part, what);
	snprintf(hint, sizeof(hint), "ask the source: if it %s, %s %.300s%s, else remove it",
		 t->ss->dialect.migtool ? "was told that we own the guest (its exit status is 50)"
					: "says completed (query-migrate)",
		 in_place ? "keep" : "rename", part, in_place ? "" : " to its name without .part");
	return session_lost(t->ss, err, text, hint);
}

/* A source that hears nothing back has finished with its last byte: ours is the only copy then. */
static int make_durable(struct target *t, struct error *err)
{
	if (!image_sync(t->img, err))
		return 0;
	if (t->postcopy == POSTCOPY_RUNNING)
		return session_lost(t->ss, err,
				    "the source gave the guest up, and its memory is not surely on "
				    "the disk",
				    "the source has all of it, in postcopy-paused: make room, "
				    "`recv --resume --cap postcopy-ram` here, then `migrate -r` "
				    "there");
	if (t->rp_open)
		return -1;
	t->ss->owner = OWNER_UNKNOWN;
	return lost(t, "but not surely on the disk", err);
}

int target_switchover(struct session *ss, struct error *err)
{
	struct target *t = ss->target;
	int rc;

	if (ss->lazy) {
		ss->stream_over = true;
		return pull_complete(t, err);
	}
	if (!ss->dialect.migtool && t->config.ignore_shared)
		mark_shared(t);
	ss->stream_over = true;
	if (ss->postcopy)
		stat_set(&ss->stats.postcopy_bytes,
			 ss->stream.bytes_in - stat_get(&ss->stats.precopy_bytes));
	if (!ss->postcopy)
		stat_set(&ss->stats.t_switchover, stats_now());
	if (t->multifd)
		multifd_recv_seal(t->multifd);
	/* we work and the source waits: --timeout is about peers, and fsync may take its time */
	ss->watched = false;
	rc = verify(t, err);
	if (!rc)
		rc = make_durable(t, err);
	ss->watched = true;
	return rc;
}

/* ---- finish ---- */

void target_stop_talking(struct target *t)
{
	pthread_mutex_lock(&t->rp_lock);
	t->talking = t->adopting = false;
	pthread_mutex_unlock(&t->rp_lock);
}

int target_say(struct target *t, uint16_t type, const void *payload, uint32_t len,
	       struct error *err)
{
	int rc;

	pthread_mutex_lock(&t->rp_lock);
	rc = rp_put(&t->ss->stream, type, payload, len, err);
	pthread_mutex_unlock(&t->rp_lock);
	return rc;
}

/* From here on this end owns the memory, whatever becomes of its name. */
static int take_over(struct target *t, struct error *err)
{
	t->ss->committed = true;
	t->ss->watched = false;
	t->ss->owner = OWNER_DESTINATION;
	if (!image_commit(t->img, err))
		return 0;
	return session_lost(t->ss, err, "the memory is ours and complete, but a name is missing",
			    NULL);
}

static int finish_migtool(struct target *t, struct error *err)
{
	struct session *ss = t->ss;
	uint8_t bytes[WIRE_DIGEST_LEN];

	wire_digest_pack(&t->digest, bytes);
	if (target_say(t, RP_READY, bytes, sizeof(bytes), err))
		return -1;
	/* the source may have given the guest up although its COMMIT never comes here */
	ss->owner = OWNER_UNKNOWN;
	if (load_commit(t, err)) {
		if (!t->told)
			return lost(t, "and verified, but COMMIT did not come", err);
		ss->owner = OWNER_SOURCE; /* it said why it fails, so it did not commit */
		return -1;
	}
	if (take_over(t, err))
		return -1;
	target_stop_talking(t);
	/* the image is ours now, whether or not the source hears of it */
	if (target_say(t, RP_DONE, NULL, 0, err))
		log_warn("the source may not know that the image arrived: %s", err->msg);
	return 0;
}

/* After SHUT a QEMU decides; a clean end of the connection is its yes. */
static int finish_qemu_rp(struct target *t, struct error *err)
{
	struct session *ss = t->ss;
	uint8_t zero[4] = { 0 };
	bool eof;

	/* as long as SHUT was not said the source goes on, and is told so */
	if (cancel_fired(&ss->cancel))
		return cancel_reason(&ss->cancel, err);
	ss->owner = OWNER_UNKNOWN;
	if (target_say(t, RP_SHUT, zero, sizeof(zero), err) ||
	    stream_at_eof(&ss->stream, &eof, err))
		return lost(t, "but the source's end is not clean", err);
	if (!eof) {
		err_set(err, ST_DATA, "the source says more after its end");
		return lost(t, "but the source's end is not clean", err);
	}
	return take_over(t, err);
}

int target_finish(struct session *ss, struct error *err)
{
	struct target *t = ss->target;
	int rc;

	if (ss->lazy)
		return pull_finish(t, err);
	if (ss->dialect.migtool && t->rp_open)
		rc = finish_migtool(t, err);
	else if (t->rp_open)
		rc = finish_qemu_rp(t, err);
	else /* a command that failed may have been cut short: before the rename */
		rc = link_end_main(ss, err) ? -1 : take_over(t, err);
	if (rc)
		return -1;
	ss->owner = OWNER_DESTINATION;
	ss->complete = true;
	return 0;
}

/* ---- the main thread's part, and the end ---- */

static bool can_write(const struct transport *t)
{
	struct pollfd p = { .fd = t->wfd, .events = POLLOUT };

	return poll(&p, 1, 0) > 0;
}

/*
 * Says that this end lives, where a source may wait long for us. What we say ourselves is no sign
 * of life of the source's, so the watchdog must not see it. Skipped if it would have to wait: the
 * main thread has signals to answer.
 */
static void say_alive(struct target *t)
{
	struct session *ss = t->ss;
	uint64_t before;
	struct error ignored;
	uint8_t placed[8];

	if (pthread_mutex_trylock(&t->rp_lock))
		return;
	/* the connection may be dropped as soon as neither holds, and that needs the lock */
	if ((t->adopting || t->talking) && can_write(ss->main)) {
		before = ss->stream.bytes_out;
		put_be64(placed, stat_get(&ss->stats.travelled));
		if (t->adopting)
			greet_wait_put(&ss->stream, &ignored);
		else
			rp_put(&ss->stream, RP_KEEPALIVE, placed, sizeof(placed), &ignored);
		stat_add(&ss->stats.activity, before - ss->stream.bytes_out);
	}
	pthread_mutex_unlock(&t->rp_lock);
}

/* What a QEMU up to 7.2 says on postcopy-preempt's connection if nothing is asked for: its end. */
static bool is_preempt(const struct session *ss, const uint8_t first[8])
{
	return ss->pending->quiet && get_be64(first) == RAM_EOS;
}

/*
 * A QEMU says nowhere in its stream that it uses multifd. If its channels knock after the main
 * connection came, it waits for them, and nothing moves until --timeout. With postcopy-preempt over
 * TLS the second connection shakes hands here, and stays.
 */
static void look_for_strays(struct session *ss)
{
	struct transport *stray = NULL;
	struct error err, ignored;
	uint8_t first[8];

	while (pending_next(ss->pending, 0, first, &stray, &err) > 0) {
		bool channel = is_multifd(first);

		if (!channel && !is_preempt(ss, first))
			log_warn("dropped %s: a source is here already", stray->name);
		transport_close(stray, &ignored);
		if (!channel)
			continue;
		err_set(&err, ST_UNSUPPORTED,
			"the source opens multifd channels, and multifd is off on the destination");
		err_hint(&err, "start recv with --cap multifd=on --param multifd-channels=N");
		session_peer_failed(ss, &err);
		return;
	}
}

void target_tick(struct session *ss)
{
	struct target *t = ss->target;

	if ((t->talking || t->adopting) && stats_now() > t->next_keepalive) {
		t->next_keepalive = stats_now() + KEEPALIVE_MS;
		say_alive(t);
	}
	if (ss->lazy)
		pull_tick(ss);
	if (t->strays && !cancel_fired(&ss->cancel))
		look_for_strays(ss);
}

static void tell(struct target *t, const struct error *why)
{
	uint8_t msg[6 + WIRE_FAILED_MAX];
	size_t len;

	if (!t->rp_open || t->told || !t->ss->main)
		return;
	/* a QEMU in postcopy would take it for its own end; of a broken link it makes a pause */
	if (t->postcopy >= POSTCOPY_DISCARDED && !t->ss->dialect.migtool)
		return;
	if (t->ss->dialect.migtool) {
		len = wire_failed_pack(why, msg + 6);
		put_be16(msg, RP_FAILED);
		put_be32(msg + 2, (uint32_t)len);
		link_last_words(t->ss, msg, 6 + len);
	} else {
		put_be16(msg, RP_SHUT);
		put_be16(msg + 2, 4);
		put_be32(msg + 4, 1);
		link_last_words(t->ss, msg, 8);
	}
}

/* A QEMU sends all of it again, whatever we have. */
static bool worth_keeping(const struct target *t)
{
	const struct session *ss = t->ss;
	const struct config *cfg = ss->cfg;

	return t->img && (cfg->resume || cfg->retry) && ss->dialect.migtool && t->rp_open &&
	       (t->found == FOUND_PART || image_placed_bytes(t->img) > 0);
}

void target_end(struct session *ss, const struct error *why)
{
	struct target *t = ss->target;
	bool keep;

	if (!t)
		return;
	/* READY was said: the source may have given the guest up, so this copy stays */
	keep = why && ss->owner != OWNER_SOURCE;
	/* a QEMU that was told of success must not hear of a failure */
	if (why && (!keep || ss->dialect.migtool))
		tell(t, why);
	multifd_recv_close(t->multifd, why ? 0 : 5000);
	placer_close(t->placer);
	delta_offer_free(t->offer);
	image_close(t->old_image, false);
	ss->kept = why && !keep && worth_keeping(t);
	if (why && !keep && !session_tries_again(ss, why))
		target_say_left(t);
	image_close(t->img, keep || ss->kept);
	greet_free(&t->greeting);
	free(t->page);
	free(t->delta);
	pthread_mutex_destroy(&t->rp_lock);
	free(t);
	ss->target = NULL;
}
