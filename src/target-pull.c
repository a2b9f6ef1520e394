// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A guest whose memory comes from a migtool on another host, and its stages.
 *
 * Before COMMIT the source owns the guest, and whatever fails ends COMMAND here and leaves nothing.
 * What comes in that time (--postcopy-after) is kept from the guest: target-ahead.c. On LISTEN the
 * guest is got ready: a VMM has handed its memory over, or a mapping was caught. It
 * may touch its memory from then on, and waits: what it asks for is noted, and goes to the source
 * behind COMMIT. From COMMIT on it is ours, and no failure lets it go on without its pages.
 *
 * Threads. The pager's fault thread sends what the guest waits for on the connection for that, and
 * a thread of this file places what comes back there, so neither waits for the other. The migration
 * thread reads the main connection: the background. Where there is no second connection it brings
 * the answers, too, and requests go back among the return messages. With --prefetch another thread
 * asks for what the guest needed the last time.
 *
 * What somebody waits for may come twice: the source sends it once more if the background has it on
 * its way, where it may be far behind. The first that comes counts.
 *
 * A try ends and the guest does not: what is about the guest (the pager, what it has caught, which
 * pages have come) stays, what is about the connection goes (lazy_pause), and the next try, or
 * whoever comes then, goes on with it: target-pull-again.c.
 *
 * The sum is of what arrived, because the guest may write to its pages as soon as it has them.
 */
#include "pull.h"

#include "background.h"
#include "bitmap.h"
#include "link.h"
#include "log.h"
#include "queue.h"
#include "takeup.h"
#include "wire-postcopy.h"
#include "wire-ram.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define END_MS	    5000 /* for the source to hear READY, and close */
#define FETCH_AHEAD 16	 /* pages of --prefetch that are asked for and have not come */

/* ---- the start ---- */

int pull_open(struct target *t, struct error *err)
{
	struct session *ss = t->ss;
	struct lazy *l = calloc(1, sizeof(*l));
	struct pull *p = calloc(1, sizeof(*p));

	if (!l || !p) {
		free(l);
		free(p);
		return err_set(err, ST_NOMEM, "no memory for serving a guest");
	}
	l->ss = ss;
	l->pull = p;
	l->ledger_fd = ss->cfg->uffd_socket ? takeup_fd() : -1;
	p->t = t;
	p->keeps = ss->cfg->uffd_socket && ss->cfg->image;
	p->attached = true;
	pthread_mutex_init(&p->lock, NULL);
	pthread_mutex_init(&p->fetch_lock, NULL);
	pthread_cond_init(&p->came, NULL);
	l->cancel = &p->cancel;
	ss->lazy = l;
	if (cancel_init(&p->cancel, err))
		return -1;
	if (ss->cfg->record && faultlog_check(ss->cfg->record, ss->cfg->force, err))
		return -1;
	if (!ss->cfg->uffd_socket && caught_open(l, err))
		return -1;
	return ss->cfg->resume ? pull_take_up(t, err) : 0;
}

bool pull_keeps(const struct target *t)
{
	return t->ss->lazy->pull->keeps;
}

int pull_judge(struct target *t, struct error *err)
{
	const struct greeting *g = &t->greeting;

	if (!(g->features & FEATURE_POSTCOPY) || !g->caps.on[CAP_POSTCOPY_RAM]) {
		err_set(err, ST_UNSUPPORTED,
			"a guest is to run at the destination before its memory has arrived, and "
			"the source has postcopy-ram off");
		return err_hint(err, "send --cap postcopy-ram=on, with a transport that has two "
				     "ways");
	}
	if (g->nblocks > 1) {
		err_set(err, ST_UNSUPPORTED,
			"the source's image has %u blocks, and the guest's memory is one file here",
			g->nblocks);
		return err_hint(err, "send one of the files in its ram/");
	}
	if (pull_judge_state(t, err))
		return -1;
	if (!t->ss->lazy->caught || !g->nblocks)
		return 0;
	return caught_check(t->ss->lazy, g->blocks[0].size, err);
}

int pull_greeted(struct target *t, struct error *err)
{
	struct lazy *l = t->ss->lazy;
	const char *path = t->ss->cfg->prefetch;

	l->img = t->img;
	l->pull->has_source = t->greeting.has_image;
	l->pull->source = t->greeting.image;
	if (pull_open_state(t, err))
		return -1;
	return path ? faultlog_read(&l->wanted, path, t->img, err) : 0;
}

unsigned pull_features(const struct target *t)
{
	unsigned ours = FEATURE_POSTCOPY | FEATURE_AHEAD;

	if (link_multi_channel(t->ss))
		ours |= FEATURE_URGENT;
	return ours & t->greeting.features;
}

int pull_channels(struct target *t, struct error *err)
{
	struct pull *p = t->ss->lazy->pull;

	if (!(pull_features(t) & FEATURE_URGENT))
		return 0;
	p->second = link_urgent_channel(t->ss, &p->stream, err);
	return p->second ? 0 : -1;
}

int pull_check(struct pull *p, struct error *err)
{
	return link_check_main(p->t->ss, err);
}

/* ---- LISTEN and COMMIT ---- */

/* The last one may be cut at the block's end. */
static size_t units(const struct pull *p, uint64_t len)
{
	return (size_t)((len + p->main.unit - 1) / p->main.unit);
}

size_t pull_win(struct pull *p, uint64_t offset, size_t len)
{
	size_t first = (size_t)(offset / p->main.unit), all = units(p, len), n = 0;

	while (n < all && !bitmap_test_and_set(&p->counted, first + n))
		n++;
	return n < all ? n * p->main.unit : len;
}

void pull_came(struct pull *p, const struct block *b, uint64_t offset, uint64_t len)
{
	(void)b; /* there is one */
	bitmap_set_atomic(&p->got, (size_t)(offset / p->main.unit), units(p, len));
}

/* Whoever goes on when we are gone finds there what has come. */
static int note_source(const struct target *t, struct error *err)
{
	struct lazy *l = t->ss->lazy;
	struct ledger_source s = { .page = t->img->target_page, .unit = l->pull->main.unit };

	snprintf(s.block, sizeof(s.block), "%s", t->img->blocks[0].name);
	if (!ledger_source(l->ledger) && ledger_add_source(l->ledger, &s, err))
		return -1;
	l->pull->unnamed = false;
	ledger_came(l->ledger, &l->pull->got);
	return 0;
}

static int open_lanes(struct pull *p, struct error *err)
{
	struct ahead *ahead = p->main.ahead;
	uint32_t guest = p->t->ss->lazy->page;
	struct digest sum = p->main.sum; /* of what came ahead */

	pull_lane_close(&p->main);
	if (pull_lane_open(&p->main, p->t, &p->t->ss->stream, guest, !p->second, err) ||
	    (p->second && pull_lane_open(&p->urgent, p->t, &p->stream, guest, true, err)))
		return -1;
	p->main.ahead = ahead;
	if (ahead)
		p->main.sum = sum;
	return 0;
}

static int listening(struct target *t, struct error *err)
{
	struct lazy *l = t->ss->lazy;
	struct pull *p = l->pull;
	struct guest_ready r = { .asks_all = t->ss->cfg->push_off };
	uint8_t bytes[GUEST_READY_LEN];

	if (open_lanes(p, err))
		return -1;
	if (bitmap_init(&p->counted, units(p, t->img->blocks[0].size)))
		return err_set(err, ST_NOMEM, "no memory for the list of pages that have come");
	if (note_source(t, err) || pull_ahead_settle(p, err))
		return -1;
	r.unit = p->main.unit;
	if (t->found == FOUND_GUEST && pull_tell_came(t, err))
		return -1;
	guest_ready_pack(&r, bytes);
	return target_say(t, RP_LISTENING, bytes, sizeof(bytes), err);
}

static int ended_early(struct error *err)
{
	return err_set(err, ST_COMMAND, "the guest ended before it was handed over");
}

static int ready(struct lazy *l, struct error *err)
{
	if ((!l->pager && lazy_ready(l, err)) || (l->caught && caught_await(l, err)))
		return -1;
	return !l->ss->served && pager_guest_ended(l->pager) ? ended_early(err) : 0;
}

int load_listen(struct target *t, uint32_t len, struct error *err)
{
	struct session *ss = t->ss;
	int rc;

	if (!ss->lazy || t->postcopy != POSTCOPY_NONE || !t->start_done)
		return err_set(err, ST_DATA, "LISTEN is not expected now");
	if (pull_listen_state(t, len, err))
		return -1;
	ss->lazy->pull->listened = true;
	t->postcopy = POSTCOPY_ADVISED;
	/* the guest is ours to wait for, and the source says that it lives */
	ss->watched = false;
	rc = ready(ss->lazy, err);
	ss->watched = true;
	if (rc || listening(t, err))
		return -1;
	t->postcopy = POSTCOPY_DISCARDED;
	ss->lazy->pull->ready = true;
	return 0;
}

static void *receive(void *arg);
static int start_fetching(struct pull *p, struct error *err);

static int start_thread(struct pull *p, struct error *err)
{
	int e;

	if (!p->second)
		return 0;
	e = pthread_create(&p->thread, NULL, receive, p);
	if (e)
		return err_sys(err, ST_NOMEM, e, "cannot start the thread for requested pages");
	p->running = true;
	return 0;
}

void pull_first(struct target *t)
{
	const struct greeting *g = &t->greeting;

	memcpy(t->ss->first, g->knows_session ? g->resumed : g->session, sizeof(t->ss->first));
}

/* The guest is ours from here on, by this source. */
static void note_switch(struct target *t)
{
	struct session *ss = t->ss;

	pull_first(t);
	stat_set(&ss->stats.t_switchover, stats_now());
	stat_set(&ss->stats.t_resumed, stats_now());
	stat_set(&ss->stats.precopy_bytes, ss->stream.bytes_in);
}

/* Whoever keeps the guest is told that it is ours. */
static void begin(struct lazy *l)
{
	pager_begins(l->pager);
	if (l->caught)
		caught_commit(l);
}

int load_guest_commit(struct target *t, struct error *err)
{
	struct session *ss = t->ss;
	struct pull *p = ss->lazy->pull;

	if (t->postcopy != POSTCOPY_DISCARDED)
		return err_set(err, ST_DATA, "COMMIT is not expected now");
	if (session_commit(ss, err))
		return -1;
	ss->owner = OWNER_DESTINATION;
	ss->served = true;
	ss->serving = true;
	ss->postcopy = true;
	t->postcopy = POSTCOPY_RUNNING;
	atomic_store(&ss->phase, "postcopy");
	if (t->found != FOUND_GUEST)
		note_switch(t);
	pull_hand_over(t);
	/* what fails from here on leaves it waiting, so whoever keeps it has to know first */
	if (t->found != FOUND_GUEST)
		begin(ss->lazy);
	if (start_thread(p, err))
		return -1;
	/* before a page could be asked for that is here */
	if (p->ahead && ahead_start(p->ahead, err))
		return -1;
	pthread_mutex_lock(&p->lock);
	p->open = true;
	pthread_mutex_unlock(&p->lock);
	if (pager_ask_again(ss->lazy->pager, err) || target_say(t, RP_DONE, NULL, 0, err) ||
	    start_fetching(p, err))
		return -1;
	if (p->second)
		background_thread();
	events_status(&ss->events, MIG_POSTCOPY_ACTIVE);
	log_info(t->found == FOUND_GUEST ? "the source is there again, and the rest of the guest's "
					   "memory follows"
					 : "the guest is here, and goes on; its memory follows");
	return 0;
}

/* ---- requests ---- */

/* With the lock. */
static int send_request(struct pull *p, const struct page_want *w, struct error *err)
{
	uint8_t bytes[PAGE_WANT_LEN];

	page_want_pack(w, bytes);
	if (!p->second)
		return target_say(p->t, RP_REQUEST, bytes, sizeof(bytes), err);
	return rp_put(&p->stream, RP_REQUEST, bytes, sizeof(bytes), err);
}

/* A page of the guest may be a part of what the source sends at once. */
int pull_request(void *arg, unsigned block, uint64_t offset, size_t len, struct error *err)
{
	struct lazy *l = arg;
	struct pull *p = l->pull;
	uint64_t mask, size = l->img->blocks[block].size;
	struct page_want w = { .block = block };
	struct error why;

	(void)err;
	if (p->ahead && ahead_ask(p->ahead, block, offset, len))
		return 0;
	pthread_mutex_lock(&p->lock);
	if (p->open) { /* else it is asked for again behind COMMIT */
		mask = p->main.unit - 1;
		w.offset = offset & ~mask;
		len = (size_t)(((offset + len + mask) & ~mask) - w.offset);
		w.len = (uint32_t)(len < size - w.offset ? len : size - w.offset);
		/* that the source is gone is the session's to say; the guest waits */
		if (send_request(p, &w, &why) && !p->over)
			session_fail(l->ss, &why);
	}
	pthread_mutex_unlock(&p->lock);
	return 0;
}

/* ---- what the guest needed the last time ---- */

static bool is_missing(const struct lazy *l, const struct faultlog_page *w, uint64_t *at)
{
	*at = w->offset & ~((uint64_t)l->page - 1);
	return pager_next_missing(l->pager, w->block, *at) == *at;
}

static bool may_fetch(const struct pull *p)
{
	return !p->over && !cancel_fired(&p->t->ss->cancel) &&
	       !pager_guest_ended(p->t->ss->lazy->pager);
}

/* Whatever the guest asks for itself waits behind no more than a few of these. */
static void *fetch(void *arg)
{
	struct pull *p = arg;
	struct lazy *l = p->t->ss->lazy;
	struct error ignored;
	uint64_t at;

	for (size_t i = 0; i < l->wanted.n && may_fetch(p); i++) {
		const struct faultlog_page *w = &l->wanted.pages[i];

		if (is_missing(l, w, &at))
			pull_request(l, w->block, at, l->page, &ignored);
		if (i < FETCH_AHEAD)
			continue;
		pthread_mutex_lock(&p->fetch_lock);
		while (may_fetch(p) && is_missing(l, w - FETCH_AHEAD, &at))
			cond_wait_briefly(&p->came, &p->fetch_lock);
		pthread_mutex_unlock(&p->fetch_lock);
	}
	p->fetching = false;
	return NULL;
}

static int start_fetching(struct pull *p, struct error *err)
{
	int e;

	if (!p->t->ss->lazy->wanted.n)
		return 0;
	p->fetching = true;
	e = pthread_create(&p->fetcher, NULL, fetch, p);
	if (e)
		return err_sys(err, ST_NOMEM, e, "cannot start the thread for --prefetch");
	p->fetches = true;
	return 0;
}

static void stop_fetching(struct pull *p)
{
	if (p->fetches)
		pthread_join(p->fetcher, NULL);
	p->fetches = false;
}

/* ---- what comes ---- */

static int receive_all(struct pull *p, struct error *err)
{
	uint64_t word;

	for (;;) {
		if (stream_get_be64(&p->stream, &word, err))
			return -1;
		if (word == RAM_EOS)
			return pull_lane_rest(&p->urgent, err);
		if (pull_lane_record(&p->urgent, word, err))
			return err_prefix(err, "the connection for requested pages");
	}
}

static void *receive(void *arg)
{
	struct pull *p = arg;

	p->rc = receive_all(p, &p->why);
	if (p->rc && !p->over)
		session_fail(p->t->ss, &p->why);
	return NULL;
}

int load_guest_section(struct target *t, struct error *err)
{
	struct pull_lane *l = &t->ss->lazy->pull->main;
	uint64_t word;

	for (;;) {
		if (stream_get_be64(&t->ss->stream, &word, err))
			return -1;
		if (word == RAM_EOS)
			break;
		if (t->postcopy != POSTCOPY_RUNNING && pull_ahead_open(t, err))
			return -1;
		if (pull_lane_record(l, word, err))
			return -1;
	}
	return t->postcopy == POSTCOPY_RUNNING ? pull_lane_rest(l, err) : 0;
}

bool pull_is_placing(const struct pull *p)
{
	return p->placing;
}

void pull_placing(struct pull *p, bool now)
{
	if (now)
		p->placing++;
	else
		p->placing--;
	if (now || !p->fetching)
		return;
	pthread_mutex_lock(&p->fetch_lock);
	pthread_cond_signal(&p->came);
	pthread_mutex_unlock(&p->fetch_lock);
}

int pull_store(struct pull *p, struct block *b, uint64_t offset, const void *buf, size_t len,
	       struct error *err)
{
	return p->keeps ? image_place(p->t->img, b, offset, buf, len, err) : 0;
}

/* ---- the end ---- */

/* Of the two verdicts the first one counts. */
static bool decide(struct pull *p, enum verdict v)
{
	bool mine;

	pthread_mutex_lock(&p->t->rp_lock);
	mine = p->verdict == VERDICT_NONE;
	if (mine)
		p->verdict = v;
	pthread_mutex_unlock(&p->t->rp_lock);
	return mine;
}

/* What was asked for and is on its way still belongs to the sum. */
static int join_receiver(struct pull *p, struct error *err)
{
	if (!p->running)
		return 0;
	pthread_join(p->thread, NULL);
	p->running = false;
	*err = p->why;
	return p->rc;
}

static int verify(struct target *t, struct error *err)
{
	struct session *ss = t->ss;
	const struct pull *p = ss->lazy->pull;
	char a[33], b[33];

	ss->digest = p->main.sum;
	digest_add(&ss->digest, p->urgent.sum);
	ss->digest_known = true;
	if (pull_verify_state(t, err))
		return -1;
	if (digest_equal(ss->digest, t->digest.memory)) {
		ss->digest_verified = true;
		return 0;
	}
	return err_set(err, ST_DIGEST, "the memory that arrived has digest %s, the source sent %s",
		       digest_hex(ss->digest, a), digest_hex(t->digest.memory, b));
}

static void count(struct session *ss)
{
	struct pull *p = ss->lazy->pull;

	stat_set(&ss->stats.urgent_bytes, p->stream.bytes_in + p->stream.bytes_out);
	stat_set(&ss->stats.postcopy_bytes, ss->moved_before + ss->stream.bytes_in -
						    stat_get(&ss->stats.precopy_bytes) +
						    stat_get(&ss->stats.urgent_bytes));
}

/*
 * A page that never came counts as nothing in both sums, and would be one of zeros as soon as the
 * guest needs nobody. So what has not come is asked for by name, zeros too.
 */
static int check_whole(const struct target *t, struct error *err)
{
	const struct pull *p = t->ss->lazy->pull;
	size_t n = p->got.bits, at = bitmap_next_clear(&p->got, 0, n);

	if (at == n)
		return 0;
	return err_set(err, ST_DATA,
		       "the source says that all has been sent, and the page at 0x%llx of block %s "
		       "has not come",
		       (unsigned long long)at * p->main.unit, t->img->blocks[0].name);
}

/* Everything has come: the guest needs nobody from here on. */
static int complete(struct target *t, struct error *err)
{
	struct lazy *l = t->ss->lazy;

	if (check_whole(t, err) || verify(t, err) ||
	    (l->caught ? caught_complete(l, err) : pager_complete(l->pager, err)))
		return -1;
	if (l->pull->keeps && (image_sync(t->img, err) || image_commit(t->img, err)))
		return -1;
	return 0;
}

int pull_complete(struct target *t, struct error *err)
{
	struct session *ss = t->ss;
	struct pull *p = ss->lazy->pull;
	bool ready = decide(p, VERDICT_READY);
	int rc = join_receiver(p, err) || pull_ahead_wait(p, err) ? -1 : 0;

	p->over = true;
	stop_fetching(p);
	if (!rc && ready)
		rc = complete(t, err);
	/* it waits, and its source may come back */
	if (rc)
		return -1;
	if (!ready && ss->lazy->caught && !ss->cfg->push_off)
		rc = caught_early(ss->lazy, err);
	if (ss->lazy->caught)
		caught_stop(ss->lazy);
	ss->serving = false;
	ss->lazy->over = true;
	return rc;
}

/* The source closes when it has heard it; a second word of it must not destroy ours on its way. */
static void await_close(struct session *ss)
{
	uint64_t end = link_deadline(END_MS);
	struct error ignored;
	uint8_t drop[512];

	while (link_left_ms(end) &&
	       (stream_buffered(&ss->stream) ||
		cancel_wait(&ss->cancel, ss->main->rfd, POLLIN, link_left_ms(end), &ignored) > 0))
		if (stream_read_some(&ss->stream, drop, sizeof(drop), &ignored) <= 0)
			return;
}

int pull_finish(struct target *t, struct error *err)
{
	struct session *ss = t->ss;
	struct pull *p = ss->lazy->pull;
	uint8_t bytes[WIRE_DIGEST_LEN];

	ss->watched = false;
	target_stop_talking(t);
	if (p->verdict == VERDICT_READY) {
		wire_digest_pack(&t->digest, bytes);
		if (target_say(t, RP_READY, bytes, sizeof(bytes), err))
			log_warn("the source may not know that all has arrived: %s", err->msg);
		ss->complete = true;
	} else {
		log_info("the guest has ended%s", ss->cfg->push_off ? "" : " before it had all");
	}
	/* HEARD is for target_linger() to read */
	if (!ss->complete || !ss->cfg->retry || !ss->listener || !ss->peer_retries)
		await_close(ss);
	if (!ss->cfg->record)
		return 0;
	return faultlog_write(&ss->lazy->needs, ss->cfg->record, t->img, err);
}

/* A guest that has ended needs no pages: the source is told, by the main thread. */
void pull_tick(struct session *ss)
{
	struct pull *p = ss->lazy->pull;
	struct pollfd fd = { .fd = -1, .events = POLLOUT };
	struct error ignored, err;
	struct target *t;

	/* COMMAND is somebody else's to look at */
	if (p->ready && !p->open && !ss->lazy->caught && pager_guest_ended(ss->lazy->pager)) {
		ended_early(&err);
		session_fail(ss, &err);
	}
	/* until then the migration thread is still making what is looked at here, in each try */
	if (!p->open)
		return;
	t = p->t;
	fd.fd = ss->main->wfd;
	if (pull_is_placing(p))
		stat_add(&ss->stats.activity, 1);
	if (!pager_guest_ended(ss->lazy->pager) || poll(&fd, 1, 0) <= 0 ||
	    pthread_mutex_trylock(&t->rp_lock))
		return;
	if (p->verdict == VERDICT_NONE && !cancel_fired(&ss->cancel)) {
		p->verdict = VERDICT_ENOUGH;
		rp_put(&ss->stream, RP_ENOUGH, NULL, 0, &ignored);
	}
	pthread_mutex_unlock(&t->rp_lock);
}

/* The thread that places what was asked for; what is under way is given up. */
static void stop(struct pull *p)
{
	struct error ignored;

	p->over = true;
	if (p->running)
		transport_abort(p->second);
	join_receiver(p, &ignored);
	stop_fetching(p);
	if (p->ahead)
		ahead_stop(p->ahead);
}

static void drop_connection(struct pull *p)
{
	struct error ignored;

	pull_lane_close(&p->main);
	pull_lane_close(&p->urgent);
	bitmap_free(&p->counted);
	if (p->second) {
		stream_close(&p->stream);
		transport_close(p->second, &ignored);
	}
	p->second = NULL;
	memset(&p->stream, 0, sizeof(p->stream));
}

void lazy_pause(struct session *ss)
{
	struct pull *p = ss->lazy ? ss->lazy->pull : NULL;

	if (!p || !p->t)
		return;
	/* who asks meanwhile has failed, or is done, before this */
	pthread_mutex_lock(&p->lock);
	p->open = p->attached = false;
	p->ready = false;
	pthread_mutex_unlock(&p->lock);
	stop(p);
	count(ss);
	drop_connection(p);
	if (p->t->img)
		p->img = p->t->img;
	p->t->img = NULL;
	p->t = NULL;
	p->verdict = VERDICT_NONE;
	p->over = false;
	p->rc = 0;
}

void pull_close(struct pull *p, const struct session *ss)
{
	if (!p)
		return;
	drop_connection(p);
	ahead_free(p->ahead);
	if (p->img && !ss->served)
		image_withdraw_device_state(p->img);
	image_close(p->img, ss->serving);
	cancel_destroy(&p->cancel);
	pthread_cond_destroy(&p->came);
	pthread_mutex_destroy(&p->fetch_lock);
	pthread_mutex_destroy(&p->lock);
	free(p);
}
