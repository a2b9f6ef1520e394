// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The source in postcopy: the guest runs at the destination, and every page it lacks is sent once.
 *
 * Threads. The return path's reader puts what the destination asks for into the pagesource. Who
 * takes from there gives a page out once, so any number may. Without postcopy-preempt that is the
 * migration thread alone: before each piece of the background it sends what was asked for; a piece
 * is small, and the kernel is told to hold little, for what it holds goes before. With
 * postcopy-preempt a second thread sends what is asked for on its own connection, and the
 * background can fill the first one. Between migtools that connection brings the requests, too
 * (postcopy-urgent.c), and is there wherever one can be opened.
 *
 * max-postcopy-bandwidth slows the background down, never what was asked for: a guest waits.
 */
#include "postcopy-send.h"

#include "background.h"
#include "byteorder.h"
#include "link.h"
#include "log.h"
#include "postcopy-came.h"
#include "postcopy-lane.h"
#include "postcopy-urgent.h"
#include "queue.h"
#include "wire-postcopy.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

/* What goes before a request that comes just now; large enough that calls cost little. */
#define PIECE	   (128u << 10)
#define SECTION	   (8u << 20)
#define URGENT_BUF (64u << 10)
#define WAIT_MS	   500 /* shorter than any --timeout */
#define ASKED_MS   100
#define ALIVE_MS   1000 /* between two signs of life */

struct postcopy_send {
	struct source *src;
	struct pagesource *pages;
	struct page_request request; /* the return path's thread's */
	bool recovers;		     /* RECV_BITMAP and RESUME_ACK are expected */
	pthread_mutex_t lock;	     /* of what follows until the next blank line */
	pthread_cond_t answered;
	unsigned bitmaps; /* of so many blocks have come */
	bool acked;

	bool goes_on;	     /* CAME is expected */
	atomic_bool listens; /* requests are */
	struct came came;
	struct pacer pacer;
	struct lane main, urgent;
	struct urgent *asked;	  /* a migtool's; NULL: none */
	uint64_t alive_at;	  /* ms */
	struct transport *second; /* a QEMU's; NULL: none */
	struct stream stream;	  /* over it */
	pthread_t thread;	  /* sends on it */
	bool running;
	atomic_bool done; /* nothing is left that could be asked for */
	int rc;		  /* the thread's result */
	struct error why;
};

struct postcopy_send *postcopy_send_open(struct source *src, struct error *err)
{
	struct postcopy_send *ps = calloc(1, sizeof(*ps));

	if (!ps) {
		err_set(err, ST_NOMEM, "no memory for postcopy");
		return NULL;
	}
	ps->src = src;
	pthread_mutex_init(&ps->lock, NULL);
	pthread_cond_init(&ps->answered, NULL);
	pacer_init(&ps->pacer, params_max_postcopy_bandwidth(&src->ss->cfg->params));
	ps->pages = pagesource_new(src->img, err);
	if (ps->pages && !lane_open(&ps->main, src, &src->ss->stream, err))
		return ps;
	postcopy_send_close(ps);
	return NULL;
}

int postcopy_send_dial(struct postcopy_send *ps, struct error *err)
{
	if (ps->src->ss->dialect.migtool) {
		ps->asked = urgent_open(ps->src, ps->pages, err);
		return ps->asked ? 0 : -1;
	}
	ps->second = link_dial_extra(ps->src->ss, err);
	if (!ps->second)
		return err_prefix(err, "postcopy-preempt's connection");
	if (stream_open(&ps->stream, ps->second, 0, URGENT_BUF, err))
		return -1;
	ps->stream.activity = &ps->src->ss->stats.activity;
	return lane_open(&ps->urgent, ps->src, &ps->stream, err);
}

bool postcopy_send_dialled(const struct postcopy_send *ps)
{
	return ps->second;
}

struct pagesource *postcopy_send_pages(struct postcopy_send *ps)
{
	return ps->pages;
}

static void join(struct postcopy_send *ps)
{
	ps->done = true;
	if (ps->running)
		pthread_join(ps->thread, NULL);
	ps->running = false;
}

void postcopy_send_close(struct postcopy_send *ps)
{
	struct error ignored;

	if (!ps)
		return;
	join(ps);
	urgent_close(ps->asked);
	if (ps->second) {
		stream_close(&ps->stream);
		transport_close(ps->second, &ignored);
	}
	lane_close(&ps->main);
	lane_close(&ps->urgent);
	pagesource_free(ps->pages);
	pacer_destroy(&ps->pacer);
	pthread_cond_destroy(&ps->answered);
	pthread_mutex_destroy(&ps->lock);
	free(ps);
}

/* ---- what the destination has to drop ---- */

static int discard_block(struct postcopy_send *ps, const struct block *b, unsigned *total,
			 struct error *err)
{
	struct extent ranges[POSTCOPY_RANGES_MAX];
	struct extent e = { 0, 0 };
	unsigned n = 0;

	for (;;) {
		e = pagesource_missing(ps->pages, b, e.offset + e.len);
		if (n == POSTCOPY_RANGES_MAX || (!e.len && n)) {
			if (postcopy_put_discard(ps->main.s, b->name, ranges, n, err))
				return -1;
			*total += n;
			n = 0;
		}
		if (!e.len)
			return 0;
		ranges[n++] = e;
	}
}

int postcopy_send_discards(struct postcopy_send *ps, struct error *err)
{
	struct image *img = ps->src->img;
	unsigned total = 0;

	for (unsigned i = 0; i < img->nblocks; i++)
		if (discard_block(ps, &img->blocks[i], &total, err))
			return -1;
	if (total)
		return 0;
	/* a QEMU that was told to discard nothing is not ready to listen: one page goes again */
	pagesource_unsent(ps->pages, &img->blocks[0], 0);
	return discard_block(ps, &img->blocks[0], &total, err);
}

/* ---- records ---- */

/*
 * A QEMU holds its RCU read lock for as long as a section lasts, and what it wants to free waits
 * meanwhile: a section is short, and none is open while the background rests.
 */
static int end_section(struct postcopy_send *ps, struct error *err)
{
	if (!ps->src->in_section)
		return 0;
	ps->main.last = NULL;
	return pagesend_section_close(ps->src, err) || stream_flush(ps->main.s, err) ? -1 : 0;
}

/* The second connection has no sections. */
static int begin_section(struct postcopy_send *ps, const struct lane *l, uint64_t len,
			 struct error *err)
{
	struct source *src = ps->src;

	if (l != &ps->main)
		return 0;
	if (src->section_bytes >= SECTION && end_section(ps, err))
		return -1;
	if (!src->in_section && pagesend_section_open(src, WIRE_SECTION_PART, err))
		return -1;
	src->section_bytes += len;
	return 0;
}

static int send_run(struct postcopy_send *ps, struct lane *l, const struct page_run *run,
		    struct error *err)
{
	if (begin_section(ps, l, run->len, err) || lane_send(l, run, err))
		return -1;
	if (l == &ps->urgent)
		stat_set(&ps->src->ss->stats.urgent_bytes, l->s->bytes_out);
	return 0;
}

/* ---- requests ---- */

static int take_request(struct postcopy_send *ps, const struct rp_message *m, struct error *err)
{
	struct page_request *r = &ps->request;
	struct block *b;
	uint64_t unit;

	if (page_request_unpack(m, r, err))
		return -1;
	b = image_find(ps->src->img, r->block, strlen(r->block));
	if (!b)
		return err_set(err, ST_DATA, "a request for pages of the unknown block '%s'",
			       r->block);
	unit = pagesource_unit(ps->pages, b);
	if (!r->len || r->len % unit || r->offset % unit || r->len > b->size ||
	    r->offset > b->size - r->len)
		return err_set(err, ST_DATA,
			       "a request for %u bytes at 0x%llx of block %s, which has 0x%llx "
			       "bytes in pages of %llu",
			       r->len, (unsigned long long)r->offset, b->name,
			       (unsigned long long)b->size, (unsigned long long)unit);
	stat_add(&ps->src->ss->stats.postcopy_requests, 1);
	return pagesource_ask(ps->pages, b, r->offset, r->len, &ps->src->ss->cancel, err);
}

/* What the destination has, behind RECV_BITMAP's name: blocks come in the order of our questions.
 */
static int take_bitmap(struct postcopy_send *ps, const struct rp_message *m, struct error *err)
{
	struct source *src = ps->src;
	struct block *b = ps->bitmaps < src->img->nblocks ? &src->img->blocks[ps->bitmaps] : NULL;
	size_t n = m->payload[0];
	struct bitmap map;
	int rc;

	if (!b || m->len != n + 1 || n != strlen(b->name) || memcmp(m->payload + 1, b->name, n))
		return err_set(err, ST_DATA, "a RECV_BITMAP for another block than %s",
			       b ? b->name : "any");
	if (bitmap_init(&map, b->size / src->img->target_page))
		return err_set(err, ST_NOMEM, "no memory for the destination's bitmap");
	rc = postcopy_get_bitmap(&src->ss->stream, &map, err);
	if (!rc)
		pagesource_came(ps->pages, b, &map);
	bitmap_free(&map);
	if (rc)
		return -1;
	pthread_mutex_lock(&ps->lock);
	ps->bitmaps++;
	pthread_cond_broadcast(&ps->answered);
	pthread_mutex_unlock(&ps->lock);
	return 0;
}

static int take_ack(struct postcopy_send *ps, const struct rp_message *m, struct error *err)
{
	if (ps->bitmaps < ps->src->img->nblocks || ps->acked || get_be32(m->payload) != 1)
		return err_set(err, ST_DATA, "RESUME_ACK %u is not expected now",
			       get_be32(m->payload));
	pthread_mutex_lock(&ps->lock);
	ps->acked = true;
	pthread_cond_broadcast(&ps->answered);
	pthread_mutex_unlock(&ps->lock);
	return 0;
}

/* A migtool's, where there is no connection for them. */
static int take_migtools(struct postcopy_send *ps, const struct rp_message *m, struct error *err)
{
	struct page_run asked;

	if (ps->asked || !ps->src->ss->dialect.migtool || !ps->listens)
		return err_set(err, ST_DATA, "return path: %s is not expected here",
			       rp_name(m->type));
	if (urgent_judge(ps->src, ps->pages, m, &asked, err))
		return -1;
	stat_add(&ps->src->ss->stats.postcopy_requests, 1);
	return pagesource_ask(ps->pages, asked.block, asked.offset, asked.len, &ps->src->ss->cancel,
			      err);
}

/* In the return path's thread. */
static int take_message(void *arg, const struct rp_message *m, struct error *err)
{
	struct postcopy_send *ps = arg;

	if (m->type == RP_REQUEST)
		return take_migtools(ps, m, err);
	if (m->type == RP_CAME && ps->goes_on && !ps->listens)
		return came_take(&ps->came, ps->src, ps->pages, m, err);
	if (!ps->src->ss->dialect.migtool &&
	    (m->type == RP_REQ_PAGES || m->type == RP_REQ_PAGES_ID))
		return take_request(ps, m, err);
	if (!ps->recovers)
		return err_set(err, ST_DATA, "return path: %s is not expected now",
			       rp_name(m->type));
	return m->type == RP_RECV_BITMAP ? take_bitmap(ps, m, err) : take_ack(ps, m, err);
}

static int send_asked(struct postcopy_send *ps, struct lane *l, struct error *err)
{
	struct page_run run;

	while (pagesource_asked(ps->pages, PIECE, &run))
		if (send_run(ps, l, &run, err))
			return -1;
	return 0;
}

/* The second connection's thread. */
static void *serve(void *arg)
{
	struct postcopy_send *ps = arg;
	struct session *ss = ps->src->ss;

	while (ps->rc >= 0 && !ps->done) {
		ps->rc = pagesource_wait(ps->pages, 100, &ss->cancel, &ps->why);
		if (ps->rc > 0)
			ps->rc = send_asked(ps, &ps->urgent, &ps->why);
	}
	if (ps->rc < 0)
		session_fail(ss, &ps->why);
	return NULL;
}

/* What the kernel holds of the background goes before what is asked for next. */
static void hold_little(const struct transport *t)
{
	int bytes = PIECE;

	setsockopt(t->wfd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &bytes, sizeof(bytes));
}

static int start_serving(struct postcopy_send *ps, struct error *err)
{
	int e;

	if (ps->asked)
		return urgent_start(ps->asked, err);
	if (!ps->second) {
		hold_little(ps->src->ss->main);
		return 0;
	}
	e = pthread_create(&ps->thread, NULL, serve, ps);
	if (e)
		return err_sys(err, ST_NOMEM, e, "cannot start the thread for requested pages");
	ps->running = true;
	return 0;
}

int postcopy_send_listen(struct postcopy_send *ps, struct error *err)
{
	ps->listens = true;
	returnpath_serve(&ps->src->rp, take_message, ps);
	return start_serving(ps, err);
}

void postcopy_send_recovers(struct postcopy_send *ps)
{
	ps->goes_on = true;
	returnpath_serve(&ps->src->rp, take_message, ps);
}

uint32_t postcopy_send_came_unit(const struct postcopy_send *ps)
{
	return ps->came.unit;
}

/* ---- recovery ---- */

static int await_answer(struct postcopy_send *ps, unsigned bitmaps, bool ack, struct error *err)
{
	struct cancel *c = &ps->src->ss->cancel;
	bool there;

	pthread_mutex_lock(&ps->lock);
	while (!(there = ps->bitmaps >= bitmaps && (ps->acked || !ack)) && !cancel_fired(c))
		cond_wait_briefly(&ps->answered, &ps->lock);
	pthread_mutex_unlock(&ps->lock);
	return there ? 0 : cancel_reason(c, err);
}

int postcopy_send_ask(struct postcopy_send *ps, struct error *err)
{
	const struct image *img = ps->src->img;
	struct stream *s = ps->main.s;

	ps->recovers = true;
	returnpath_serve(&ps->src->rp, take_message, ps);
	for (unsigned i = 0; i < img->nblocks; i++)
		if (postcopy_put_recv_bitmap(s, img->blocks[i].name, err))
			return -1;
	if (stream_flush(s, err) || await_answer(ps, img->nblocks, false, err))
		return -1;
	pagesource_settle(ps->pages);
	return 0;
}

int postcopy_send_resume(struct postcopy_send *ps, struct error *err)
{
	struct stream *s = ps->main.s;

	if (wire_put_command(s, MIG_CMD_POSTCOPY_RESUME, NULL, 0, err) || stream_flush(s, err) ||
	    await_answer(ps, ps->src->img->nblocks, true, err))
		return -1;
	/* not before: it reads what the bitmaps set, and the destination takes no page yet */
	return start_serving(ps, err);
}

/* ---- the background ---- */

/* Between sections: a destination that waits long has to know that we live. */
static int say_alive(struct postcopy_send *ps, struct error *err)
{
	struct session *ss = ps->src->ss;

	if (!ss->dialect.migtool || stats_now() < ps->alive_at)
		return 0;
	ps->alive_at = stats_now() + ALIVE_MS;
	return wire_put_command(&ss->stream, MIG_CMD_KEEPALIVE, NULL, 0, err) ||
			       stream_flush(&ss->stream, err)
		       ? -1
		       : 0;
}

/*
 * Until the budget allows more, or somebody asks for pages that this thread has to send; for a part
 * of ms if that is long. That nothing moves is meant, and no matter of --timeout.
 */
static int wait_budget(struct postcopy_send *ps, int ms, struct error *err)
{
	struct cancel *c = &ps->src->ss->cancel;

	stat_add(&ps->src->ss->stats.activity, 1);
	if (ms > WAIT_MS)
		ms = WAIT_MS;
	if (ps->second || ps->asked)
		return cancel_wait(c, -1, 0, ms, err);
	return pagesource_wait(ps->pages, ms, c, err);
}

/* What is asked for and has no connection of its own. */
static int serve_here(struct postcopy_send *ps, struct error *err)
{
	if (cancel_fired(&ps->src->ss->cancel))
		return cancel_reason(&ps->src->ss->cancel, err);
	return ps->second || ps->asked ? 0 : send_asked(ps, &ps->main, err);
}

static int push(struct postcopy_send *ps, struct error *err)
{
	uint64_t piece = ps->asked ? MULTIFD_PACKET_BYTES : PIECE;
	struct page_run run;

	if (ps->asked)
		background_thread();
	for (;;) {
		int ms = pacer_owed_ms(&ps->pacer);

		if (serve_here(ps, err))
			return -1;
		if (ps->src->rp.enough)
			break;
		if (ms) {
			if (end_section(ps, err) || say_alive(ps, err) ||
			    wait_budget(ps, ms, err) < 0)
				return -1;
			continue;
		}
		if (ps->asked)
			urgent_make_way(ps->asked);
		if (!pagesource_next(ps->pages, piece, &run))
			break;
		if (send_run(ps, &ps->main, &run, err))
			return -1;
		pacer_charge(&ps->pacer, run.len);
	}
	return end_section(ps, err);
}

int postcopy_send_run(struct postcopy_send *ps, struct error *err)
{
	if (push(ps, err))
		return -1;
	/* what the other thread has taken has to be on its way before the end is said */
	join(ps);
	if (ps->rc < 0)
		return cancel_reason(&ps->src->ss->cancel, err);
	return ps->asked ? urgent_finish(ps->asked, err) : 0;
}

/* ---- to a migtool ---- */

void postcopy_send_unit(struct postcopy_send *ps, uint32_t unit)
{
	pagesource_set_unit(ps->pages, unit);
}

/* Whole units of [from, to) that nobody has sent. */
static int send_hole(struct postcopy_send *ps, struct block *b, uint64_t from, uint64_t to,
		     struct error *err)
{
	uint64_t mask = pagesource_unit(ps->pages, b) - 1;
	struct page_run run;

	from = (from + mask) & ~mask;
	if (to < b->size)
		to &= ~mask;
	while (from < to && pagesource_take(ps->pages, b, from, to - from, &run)) {
		if (begin_section(ps, &ps->main, 0, err) || lane_send_zero(&ps->main, &run, err))
			return -1;
		from = run.offset + run.len;
	}
	return 0;
}

static int block_holes(struct postcopy_send *ps, struct block *b, struct error *err)
{
	struct extent e = { 0, 0 };
	uint64_t at = 0;

	do {
		if (image_next_data(ps->src->img, b, at, &e, err) ||
		    send_hole(ps, b, at, e.len ? e.offset : b->size, err) || serve_here(ps, err))
			return -1;
		at = e.offset + e.len;
	} while (e.len && !ps->src->rp.enough);
	return 0;
}

int postcopy_send_holes(struct postcopy_send *ps, struct error *err)
{
	struct image *img = ps->src->img;

	for (unsigned i = 0; i < img->nblocks; i++)
		if (block_holes(ps, &img->blocks[i], err))
			return -1;
	return end_section(ps, err);
}

int postcopy_send_answers(struct postcopy_send *ps, struct error *err)
{
	struct session *ss = ps->src->ss;

	while (!ps->src->rp.enough) {
		if (serve_here(ps, err) || end_section(ps, err) || say_alive(ps, err))
			return -1;
		if (ps->asked ? returnpath_wait_ms(&ps->src->rp, RP_WAIT_ENOUGH, WAIT_MS, err) < 0
			      : pagesource_wait(ps->pages, ASKED_MS, &ss->cancel, err) < 0)
			return -1;
	}
	return ps->asked ? urgent_finish(ps->asked, err) : 0;
}

void postcopy_send_finish(struct postcopy_send *ps)
{
	struct error ignored;

	if (!ps->second)
		return;
	if (ps->src->ss->dialect.preempt_late || !stream_put_be64(&ps->stream, RAM_EOS, &ignored))
		stream_flush(&ps->stream, &ignored);
	transport_shutdown_write(ps->second, &ignored);
}
