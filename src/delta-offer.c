// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Theory of operation. A few threads share one cursor over the old copy's data: each takes the next
 * piece, reads (or copies) and hashes it beside the others, and waits for its turn to say the
 * piece's digests, so that these are in order on the wire. A piece's digests are all that is kept.
 *
 * Holes are in no piece and are never said. Nothing is placed before all was taken: load.c sees to
 * it that the source has no page for us before it has said COMPARED, and that not before our last
 * digest.
 */
#include "delta-offer.h"

#include "delta.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PIECE	     (4u << 20)
#define PIECE_CHUNKS (PIECE / DELTA_CHUNK)
#define THREADS_MAX  4

struct delta_offer {
	struct target *t;
	struct image *old; /* NULL: it is in img's own files */
	bool say;
	unsigned nthreads;
	pthread_t threads[THREADS_MAX];
	uint8_t *chunk; /* of whoever answers WANT */

	pthread_mutex_t lock; /* of the rest */
	pthread_cond_t changed;
	unsigned block; /* the cursor */
	uint64_t at;
	uint64_t data_end;   /* data goes on from `at` to there: to find its end may take long */
	bool shared;	     /* `block` has the old one's extents */
	uint64_t taken;	     /* pieces given to threads */
	uint64_t said;	     /* pieces whose digests are out; all before them are, too */
	unsigned said_block; /* and where they end */
	uint64_t said_at;
	bool ending, over; /* somebody says the end; it is said */
};

struct piece {
	uint64_t number;
	struct block *b;
	const struct image *old;
	const struct block *from;
	struct extent e;
	struct digest digest[PIECE_CHUNKS];
};

/* ---- the cursor ---- */

/* What there is of the cursor's block, seen for the first time if `at` is 0. */
static int look_at_block(struct delta_offer *o, struct piece *p)
{
	p->b = &o->t->img->blocks[o->block];
	p->old = o->old;
	p->from = o->old ? delta_block(o->old, p->b) : NULL;
	if (image_block_here(p->b) || (o->old && !p->from))
		return 0;
	if (o->old && !o->at)
		o->shared = image_adopt_share(p->b, p->from);
	if (o->shared) {
		p->old = NULL;
		p->from = NULL;
	}
	return 1;
}

static void next_block(struct delta_offer *o)
{
	o->block++;
	o->at = o->data_end = 0;
	o->shared = false;
}

/* 1: a piece, 0: there is none any more, -1. Under the lock. */
static int next_piece(struct delta_offer *o, struct piece *p, struct error *err)
{
	for (; o->block < o->t->img->nblocks; next_block(o)) {
		uint64_t end;

		if (!look_at_block(o, p))
			continue;
		p->e = (struct extent){ o->at, o->data_end > o->at ? o->data_end - o->at : 0 };
		if (!p->e.len &&
		    image_adopt_next(o->t->img, p->b, p->old, p->from, o->at, &p->e, err))
			return -1;
		if (!p->e.len)
			continue;
		end = o->data_end = p->e.offset + p->e.len;
		end = (end + DELTA_CHUNK - 1) / DELTA_CHUNK * DELTA_CHUNK;
		p->e.offset -= p->e.offset % DELTA_CHUNK;
		if (end - p->e.offset > PIECE)
			end = p->e.offset + PIECE;
		if (end > p->b->size)
			end = p->b->size;
		p->e.len = end - p->e.offset;
		o->at = end;
		p->number = o->taken++;
		return 1;
	}
	return 0;
}

static int take(struct delta_offer *o, struct piece *p, struct error *err)
{
	int rc;

	pthread_mutex_lock(&o->lock);
	rc = next_piece(o, p, err);
	pthread_mutex_unlock(&o->lock);
	return rc;
}

/* ---- saying ---- */

static unsigned chunks(uint64_t len)
{
	return (unsigned)((len + DELTA_CHUNK - 1) / DELTA_CHUNK);
}

static int say_list(struct delta_offer *o, uint16_t type, const struct delta_list *l,
		    struct error *err)
{
	uint8_t bytes[DELTA_LIST_LEN];

	return target_say(o->t, type, bytes, (uint32_t)delta_list_pack(l, bytes), err);
}

/* A piece that turned out to be all zero is like a hole. */
static int say_piece(struct delta_offer *o, const struct piece *p, struct error *err)
{
	struct delta_list l = { .block = p->b->index, .offset = p->e.offset };
	struct digest none = { 0, 0 };
	bool any = false;

	l.n = chunks(p->e.len);
	for (unsigned i = 0; i < l.n; i++) {
		l.digest[i] = p->digest[i];
		any |= !digest_equal(l.digest[i], none);
	}
	return any && o->say ? say_list(o, RP_DIGESTS, &l, err) : 0;
}

/* Whose turn it is says it without the lock: the others may take pieces meanwhile. */
static int say_in_turn(struct delta_offer *o, const struct piece *p, struct error *err)
{
	struct cancel *c = &o->t->ss->cancel;
	int rc;

	pthread_mutex_lock(&o->lock);
	while (o->said != p->number && !cancel_fired(c))
		cond_wait_briefly(&o->changed, &o->lock);
	/* before it is said: the source may be quick to ask */
	o->said_block = p->b->index;
	o->said_at = p->e.offset + p->e.len;
	pthread_mutex_unlock(&o->lock);
	if (cancel_fired(c))
		return cancel_reason(c, err);
	rc = say_piece(o, p, err);
	pthread_mutex_lock(&o->lock);
	o->said++;
	pthread_cond_broadcast(&o->changed);
	pthread_mutex_unlock(&o->lock);
	return rc;
}

/* One of the threads says the end, when all others have had their turn. */
static int say_end(struct delta_offer *o, struct error *err)
{
	struct cancel *c = &o->t->ss->cancel;
	struct delta_list l = { 0 };
	bool mine;
	int rc = 0;

	pthread_mutex_lock(&o->lock);
	mine = !o->ending;
	o->ending = true;
	while (mine && o->said != o->taken && !cancel_fired(c))
		cond_wait_briefly(&o->changed, &o->lock);
	pthread_mutex_unlock(&o->lock);
	if (!mine)
		return 0;
	if (cancel_fired(c))
		return cancel_reason(c, err);
	if (o->say)
		rc = say_list(o, RP_DIGESTS, &l, err);
	pthread_mutex_lock(&o->lock);
	o->over = true;
	o->said_block = o->t->img->nblocks;
	pthread_cond_broadcast(&o->changed);
	pthread_mutex_unlock(&o->lock);
	return rc;
}

/* ---- a thread ---- */

static int work(struct delta_offer *o, struct piece *p, uint8_t *buf, struct error *err)
{
	struct cancel *c = &o->t->ss->cancel;
	int rc;

	while ((rc = take(o, p, err)) > 0) {
		if (cancel_fired(c))
			return cancel_reason(c, err);
		if (image_adopt(o->t->img, p->b, p->old, p->from, p->e, buf, p->digest, err) ||
		    say_in_turn(o, p, err))
			return -1;
	}
	return rc ? -1 : say_end(o, err);
}

static void *thread_main(void *arg)
{
	struct delta_offer *o = arg;
	struct piece *p = malloc(sizeof(*p));
	uint8_t *buf = malloc(IMAGE_ADOPT_BUF);
	struct error err;
	int rc = p && buf ? 0 : err_set(&err, ST_NOMEM, "no memory to read the old copy");

	if (!rc)
		rc = work(o, p, buf, &err);
	if (rc)
		session_fail(o->t->ss, &err);
	free(buf);
	free(p);
	return NULL;
}

struct delta_offer *delta_offer_start(struct target *t, struct image *old, bool say,
				      struct error *err)
{
	struct delta_offer *o = calloc(1, sizeof(*o));
	long cores = sysconf(_SC_NPROCESSORS_ONLN);
	unsigned n = cores < 1 ? 1 : cores > THREADS_MAX ? THREADS_MAX : (unsigned)cores;
	int e = 0;

	if (o)
		o->chunk = malloc(DELTA_CHUNK);
	if (!o || !o->chunk) {
		free(o);
		image_close(old, false);
		err_set(err, ST_NOMEM, "no memory to read the old copy");
		return NULL;
	}
	o->t = t;
	o->old = old;
	o->say = say;
	pthread_mutex_init(&o->lock, NULL);
	pthread_cond_init(&o->changed, NULL);
	for (; o->nthreads < n && !e; o->nthreads += !e)
		e = pthread_create(&o->threads[o->nthreads], NULL, thread_main, o);
	if (o->nthreads) /* fewer do it, too */
		return o;
	err_sys(err, ST_NOMEM, e, "cannot start a thread to read the old copy");
	delta_offer_free(o);
	return NULL;
}

int delta_offer_wait(struct delta_offer *o, struct error *err)
{
	struct cancel *c = &o->t->ss->cancel;
	bool over;

	pthread_mutex_lock(&o->lock);
	while (!o->over && !cancel_fired(c))
		cond_wait_briefly(&o->changed, &o->lock);
	over = o->over;
	pthread_mutex_unlock(&o->lock);
	return over ? 0 : cancel_reason(c, err);
}

void delta_offer_free(struct delta_offer *o)
{
	if (!o)
		return;
	for (unsigned i = 0; i < o->nthreads; i++)
		pthread_join(o->threads[i], NULL);
	image_close(o->old, false);
	pthread_cond_destroy(&o->changed);
	pthread_mutex_destroy(&o->lock);
	free(o->chunk);
	free(o);
}

/* ---- pages ---- */

static bool was_said(struct delta_offer *o, uint32_t block, uint64_t offset)
{
	bool was;

	pthread_mutex_lock(&o->lock);
	was = block < o->said_block || (block == o->said_block && offset < o->said_at);
	pthread_mutex_unlock(&o->lock);
	return was;
}

static int say_pages(struct delta_offer *o, struct block *b, uint64_t offset, struct error *err)
{
	struct delta_list l = { .block = b->index, .offset = offset };
	uint64_t left = b->size - offset;
	size_t len = left < DELTA_CHUNK ? (size_t)left : DELTA_CHUNK;

	if (image_get_page(o->t->img, b, offset, o->chunk, len, err))
		return -1;
	l.n = delta_terms(b, offset, o->chunk, len, l.digest);
	return say_list(o, RP_PAGE_DIGESTS, &l, err);
}

int delta_offer_pages(struct delta_offer *o, const struct delta_want *w, struct error *err)
{
	struct image *img = o->t->img;

	if (w->block >= img->nblocks)
		return err_set(err, ST_DATA, "WANT: block %u of %u", w->block, img->nblocks);
	for (unsigned i = 0; i < w->n; i++) {
		struct block *b = &img->blocks[w->block];

		if (delta_check_range(b->size, w->offset[i], 1, DELTA_CHUNK, err))
			return err_prefix(err, "WANT");
		if (image_block_here(b) || !was_said(o, w->block, w->offset[i]))
			return err_set(err, ST_DATA,
				       "WANT: block %s, offset 0x%llx: no digest was said of it",
				       b->name, (unsigned long long)w->offset[i]);
		if (say_pages(o, b, w->offset[i], err))
			return -1;
	}
	return 0;
}
