// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Theory of operation. Three kinds of thread: the return path's reader takes the destination's
 * messages, judges them and puts them on a queue; workers read our image, hash it, and compare; the
 * migration thread asks for the pages' digests of chunks that differ.
 *
 * Nobody waits in a circle: the reader waits for workers (a free item), a worker for nobody, and
 * the migration thread for the destination, which answers WANT as long as our reader reads.
 *
 * A chunk goes through three bitmaps: `ask`, set by a worker when it differs; `asked`, set by the
 * migration thread, which takes it from `ask`; and pages in `send`. What need not be asked goes
 * straight to `send`: where one of the two sides is all zero, and what lies between two messages,
 * which is zero over there. Pages that are alike are hashed into the account of what was sent here;
 * all others when they are sent.
 */
#include "delta-compare.h"

#include "byteorder.h"
#include "delta.h"
#include "zero.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define THREADS_MAX 4
#define ITEMS	    16
#define ASKED_MAX   1024 /* chunks: what the destination answers at most before it is read */
#define ALIVE_MS    1000

struct item {
	bool pages; /* of one chunk */
	struct delta_list list;
};

struct maps {
	struct bitmap send; /* target pages; set atomically */
	struct bitmap ask;  /* chunks, as the next; under lock */
	struct bitmap asked;
};

struct delta_compare {
	struct source *src;
	struct maps *maps; /* a block */
	struct queue work, free;
	struct item *items;
	unsigned nthreads;
	pthread_t threads[THREADS_MAX];

	/* the reader's: everything before was said */
	uint32_t block;
	uint64_t at;

	pthread_mutex_t here_lock; /* of the next two: the extent of data that was found last */
	struct extent here;
	const struct block *here_block;

	pthread_mutex_t lock; /* of the rest, and of ask and asked */
	pthread_cond_t changed;
	bool all_said;
	size_t busy, nask, nasked; /* items, chunks, chunks */
};

/* ---- what differs ---- */

static uint64_t chunk_len(const struct block *b, uint64_t offset)
{
	return b->size - offset < DELTA_CHUNK ? b->size - offset : DELTA_CHUNK;
}

static void mark(struct delta_compare *c, const struct block *b, uint64_t offset, uint64_t len)
{
	uint32_t page = c->src->img->target_page;

	bitmap_set_atomic(&c->maps[b->index].send, (size_t)(offset / page), (size_t)(len / page));
}

/*
 * Data of ours where theirs is zero. Pages of zeros among it are found when they are sent and cost
 * little; only what is complete over there has to be told from what is not.
 */
static int mark_extent(struct delta_compare *c, const struct block *b, struct extent e,
		       struct error *err)
{
	uint32_t page = c->src->img->target_page;
	uint8_t buf[DELTA_CHUNK];

	if (c->src->answer.found != FOUND_COMPLETE) {
		mark(c, b, e.offset, e.len);
		return 0;
	}
	for (; e.len; e.offset += page, e.len -= page) {
		if (image_read(c->src->img, b, e.offset, buf, page, err))
			return -1;
		if (!zero_is(buf, page))
			mark(c, b, e.offset, page);
	}
	return 0;
}

/* As image_next_data. On tmpfs to find an extent's end takes as long as it is: once is enough. */
static int next_data(struct delta_compare *c, const struct block *b, uint64_t from,
		     struct extent *out, struct error *err)
{
	struct extent *e = &c->here;
	int rc = 0;

	pthread_mutex_lock(&c->here_lock);
	if (c->here_block != b || from < e->offset || from >= e->offset + e->len)
		rc = image_next_data(c->src->img, b, from, e, err);
	c->here_block = rc ? NULL : b;
	*out = *e;
	pthread_mutex_unlock(&c->here_lock);
	if (out->offset < from) {
		out->len -= from - out->offset;
		out->offset = from;
	}
	return rc;
}

/* Over there it is zero: what is data here has to travel. */
static int mark_data(struct delta_compare *c, const struct block *b, uint64_t from, uint64_t to,
		     struct error *err)
{
	struct extent e = { from, 0 };

	while (e.offset + e.len < to) {
		if (next_data(c, b, e.offset + e.len, &e, err))
			return -1;
		if (!e.len || e.offset >= to)
			break;
		if (e.len > to - e.offset)
			e.len = to - e.offset;
		if (mark_extent(c, b, e, err))
			return -1;
	}
	return 0;
}

static void ask(struct delta_compare *c, const struct block *b, uint64_t offset)
{
	pthread_mutex_lock(&c->lock);
	bitmap_set(&c->maps[b->index].ask, (size_t)(offset / DELTA_CHUNK), 1);
	c->nask++;
	pthread_mutex_unlock(&c->lock);
}

/* ---- workers ---- */

struct worker {
	struct delta_compare *c;
	uint8_t *buf;
	struct digest sum; /* of pages that are alike */
};

/* Is anything of this range data? */
static int is_data(struct delta_compare *c, const struct block *b, uint64_t offset, uint64_t len,
		   bool *data, struct error *err)
{
	struct extent e;

	if (next_data(c, b, offset, &e, err))
		return -1;
	*data = e.len && e.offset < offset + len;
	return 0;
}

static int own_terms(struct worker *w, const struct block *b, uint64_t offset,
		     struct digest terms[DELTA_PAGES], unsigned *n, struct error *err)
{
	size_t len = (size_t)chunk_len(b, offset);

	if (image_read(w->c->src->img, b, offset, w->buf, len, err))
		return -1;
	*n = delta_terms(b, offset, w->buf, len, terms);
	return 0;
}

static void have(struct worker *w, const struct block *b, uint64_t offset,
		 const struct digest *terms, unsigned n)
{
	struct source *src = w->c->src;

	for (unsigned i = 0; i < n; i++)
		sent_digest_have(&src->digest, b, offset + (uint64_t)i * DIGEST_PAGE, terms[i],
				 &w->sum);
	stat_add(&src->ss->stats.skipped, (uint64_t)n * DIGEST_PAGE / src->img->target_page);
}

static int compare_chunk(struct worker *w, const struct block *b, uint64_t offset,
			 struct digest theirs, struct error *err)
{
	struct digest terms[DELTA_PAGES], ours = { 0, 0 }, none = { 0, 0 };
	uint64_t len = chunk_len(b, offset);
	bool data;
	unsigned n;

	if (digest_equal(theirs, none))
		return mark_data(w->c, b, offset, offset + len, err);
	if (is_data(w->c, b, offset, len, &data, err))
		return -1;
	if (data && own_terms(w, b, offset, terms, &n, err))
		return -1;
	for (unsigned i = 0; data && i < n; i++)
		digest_add(&ours, terms[i]);
	if (data && digest_equal(ours, theirs))
		have(w, b, offset, terms, n);
	else if (digest_equal(ours, none))
		mark(w->c, b, offset, len);
	else
		ask(w->c, b, offset);
	return 0;
}

static int compare_chunks(struct worker *w, const struct delta_list *l, struct error *err)
{
	struct block *b = &w->c->src->img->blocks[l->block];

	for (unsigned i = 0; i < l->n; i++)
		if (compare_chunk(w, b, l->offset + (uint64_t)i * DELTA_CHUNK, l->digest[i], err))
			return -1;
	return 0;
}

/* By target pages, which may have several digests. */
static int compare_pages(struct worker *w, const struct delta_list *l, struct error *err)
{
	struct block *b = &w->c->src->img->blocks[l->block];
	unsigned step = w->c->src->img->target_page / DIGEST_PAGE, n, alike;
	struct digest terms[DELTA_PAGES];

	if (own_terms(w, b, l->offset, terms, &n, err))
		return -1;
	for (unsigned i = 0; i < n; i += step) {
		uint64_t offset = l->offset + (uint64_t)i * DIGEST_PAGE;

		for (alike = 0; alike < step; alike++)
			if (!digest_equal(terms[i + alike], l->digest[i + alike]))
				break;
		if (alike == step)
			have(w, b, offset, terms + i, step);
		else
			mark(w->c, b, offset, w->c->src->img->target_page);
	}
	return 0;
}

static void done_with(struct delta_compare *c, struct item *it)
{
	queue_put(&c->free, it);
	/* slow disks: this, too, is a sign of life */
	stat_add(&c->src->ss->stats.activity, 1);
	pthread_mutex_lock(&c->lock);
	c->busy--;
	pthread_cond_broadcast(&c->changed);
	pthread_mutex_unlock(&c->lock);
}

static int work(struct worker *w, struct error *err)
{
	struct delta_compare *c = w->c;
	void *item;
	int rc;

	while ((rc = queue_get(&c->work, &item, &c->src->ss->cancel, err)) > 0) {
		struct item *it = item;

		w->sum = (struct digest){ 0, 0 };
		if (it->pages ? compare_pages(w, &it->list, err)
			      : compare_chunks(w, &it->list, err))
			return -1;
		sent_digest_add(&c->src->digest, w->sum);
		done_with(c, it);
	}
	return rc;
}

static void *thread_main(void *arg)
{
	struct worker w = { .c = arg, .buf = malloc(DELTA_CHUNK) };
	struct error err;

	if (!w.buf)
		err_set(&err, ST_NOMEM, "no memory to compare the image");
	if (!w.buf || work(&w, &err))
		session_fail(w.c->src->ss, &err);
	free(w.buf);
	return NULL;
}

/* ---- the reader ---- */

static int hand_over(struct delta_compare *c, const struct delta_list *l, bool pages,
		     struct error *err)
{
	struct item *it;
	void *item;

	if (queue_get(&c->free, &item, &c->src->ss->cancel, err) <= 0)
		return -1;
	it = item;
	it->pages = pages;
	it->list = *l;
	pthread_mutex_lock(&c->lock);
	c->busy++;
	if (pages)
		c->nasked--;
	pthread_mutex_unlock(&c->lock);
	queue_put(&c->work, it);
	return 0;
}

/* What lies between the last message and this place is zero over there. */
static int pass_gap(struct delta_compare *c, uint32_t block, uint64_t to, struct error *err)
{
	struct image *img = c->src->img;

	for (; c->block < img->nblocks && c->block <= block; c->block++, c->at = 0) {
		const struct block *b = &img->blocks[c->block];
		uint64_t end = c->block == block ? to : b->size;

		if (!source_ignores(c->src, b) && mark_data(c, b, c->at, end, err))
			return -1;
		if (c->block == block)
			break;
	}
	return 0;
}

static int take_chunks(struct delta_compare *c, const struct delta_list *l, struct error *err)
{
	const struct image *img = c->src->img;

	if (c->all_said)
		return err_set(err, ST_DATA, "DIGESTS behind the last one");
	if (!l->n) {
		if (pass_gap(c, img->nblocks, 0, err))
			return -1;
		pthread_mutex_lock(&c->lock);
		c->all_said = true;
		pthread_cond_broadcast(&c->changed);
		pthread_mutex_unlock(&c->lock);
		return 0;
	}
	if (l->block >= img->nblocks || source_ignores(c->src, &img->blocks[l->block]) ||
	    l->block < c->block || (l->block == c->block && l->offset < c->at))
		return err_set(err, ST_DATA, "DIGESTS: block %u, offset 0x%llx is not its turn",
			       l->block, (unsigned long long)l->offset);
	if (delta_check_range(img->blocks[l->block].size, l->offset, l->n, DELTA_CHUNK, err))
		return err_prefix(err, "DIGESTS");
	if (pass_gap(c, l->block, l->offset, err))
		return -1;
	c->at = l->offset + (uint64_t)l->n * DELTA_CHUNK;
	if (c->at > img->blocks[l->block].size)
		c->at = img->blocks[l->block].size;
	return hand_over(c, l, false, err);
}

static int take_pages(struct delta_compare *c, const struct delta_list *l, struct error *err)
{
	const struct image *img = c->src->img;
	const struct block *b = l->block < img->nblocks ? &img->blocks[l->block] : NULL;
	size_t chunk = (size_t)(l->offset / DELTA_CHUNK);
	bool wanted = false;

	pthread_mutex_lock(&c->lock);
	if (b && l->offset < b->size && bitmap_test(&c->maps[l->block].asked, chunk)) {
		bitmap_clear(&c->maps[l->block].asked, chunk, 1);
		wanted = true;
	}
	pthread_mutex_unlock(&c->lock);
	if (!wanted)
		return err_set(err, ST_DATA,
			       "PAGE_DIGESTS: block %u, offset 0x%llx was not asked for", l->block,
			       (unsigned long long)l->offset);
	if (l->n != chunk_len(b, l->offset) / DIGEST_PAGE)
		return err_set(err, ST_DATA, "PAGE_DIGESTS: %u digests of a chunk of %u pages",
			       l->n, (unsigned)(chunk_len(b, l->offset) / DIGEST_PAGE));
	return hand_over(c, l, true, err);
}

int delta_compare_take(void *compare, const struct rp_message *m, struct error *err)
{
	struct delta_list l;

	if (delta_list_unpack(m->payload, m->len, &l, err))
		return -1;
	return m->type == RP_DIGESTS ? take_chunks(compare, &l, err) : take_pages(compare, &l, err);
}

/* ---- the migration thread ---- */

/* Moves at most a command's worth from `ask` to `asked`. */
static void gather(struct delta_compare *c, struct delta_want *w)
{
	w->n = 0;
	pthread_mutex_lock(&c->lock);
	for (unsigned i = 0; c->nask && !w->n && i < c->src->img->nblocks; i++) {
		struct bitmap *from = &c->maps[i].ask;

		w->block = i;
		for (size_t k = bitmap_next_set(from, 0, from->bits);
		     k < from->bits && w->n < DELTA_WANT_MAX && c->nasked < ASKED_MAX;
		     k = bitmap_next_set(from, k + 1, from->bits)) {
			bitmap_clear(from, k, 1);
			bitmap_set(&c->maps[i].asked, k, 1);
			c->nask--;
			c->nasked++;
			w->offset[w->n++] = (uint64_t)k * DELTA_CHUNK;
		}
	}
	pthread_mutex_unlock(&c->lock);
}

/* 1: something was said */
static int say_wants(struct delta_compare *c, struct error *err)
{
	struct stream *s = &c->src->ss->stream;
	uint8_t bytes[DELTA_WANT_LEN];
	struct delta_want w;
	int said = 0;

	for (gather(c, &w); w.n; gather(c, &w), said = 1)
		if (wire_put_command(s, MIG_CMD_WANT, bytes, (uint32_t)delta_want_pack(&w, bytes),
				     err))
			return -1;
	return said && stream_flush(s, err) ? -1 : said;
}

static bool all_compared(struct delta_compare *c)
{
	bool all;

	pthread_mutex_lock(&c->lock);
	all = c->all_said && !c->busy && !c->nask && !c->nasked;
	if (!all && (!c->nask || c->nasked == ASKED_MAX))
		cond_wait_briefly(&c->changed, &c->lock);
	pthread_mutex_unlock(&c->lock);
	return all;
}

static uint64_t bytes_to_send(const struct delta_compare *c)
{
	uint64_t pages = 0;

	for (unsigned i = 0; i < c->src->img->nblocks; i++)
		pages += bitmap_count(&c->maps[i].send);
	return pages * c->src->img->target_page;
}

static int say_compared(struct delta_compare *c, uint64_t bytes, struct error *err)
{
	struct stream *s = &c->src->ss->stream;
	uint8_t payload[8];

	put_be64(payload, bytes);
	if (wire_put_command(s, MIG_CMD_COMPARED, payload, sizeof(payload), err))
		return -1;
	return stream_flush(s, err);
}

/* What we say into a dead link is no sign of life: the watchdog must not see it. */
static int say_alive(struct session *ss, struct error *err)
{
	uint64_t before = ss->stream.bytes_out;
	int rc = wire_put_command(&ss->stream, MIG_CMD_KEEPALIVE, NULL, 0, err);

	if (!rc)
		rc = stream_flush(&ss->stream, err);
	stat_add(&ss->stats.activity, before - ss->stream.bytes_out);
	return rc;
}

int delta_compare_run(struct delta_compare *c, uint64_t *bytes, struct error *err)
{
	struct session *ss = c->src->ss;
	uint64_t spoke = stats_now();

	while (!all_compared(c)) {
		int said = say_wants(c, err);

		if (said < 0)
			return -1;
		if (cancel_fired(&ss->cancel))
			return cancel_reason(&ss->cancel, err);
		if (said) {
			spoke = stats_now();
		} else if (stats_now() - spoke >= ALIVE_MS) {
			spoke = stats_now();
			if (say_alive(ss, err))
				return -1;
		}
	}
	*bytes = bytes_to_send(c);
	return say_compared(c, *bytes, err);
}

const struct bitmap *delta_compare_map(const struct delta_compare *c, const struct block *b)
{
	return &c->maps[b->index].send;
}

/* ---- set-up ---- */

static int make_maps(struct delta_compare *c, struct error *err)
{
	const struct image *img = c->src->img;

	c->maps = calloc(img->nblocks, sizeof(*c->maps));
	for (unsigned i = 0; c->maps && i < img->nblocks; i++) {
		uint64_t size = img->blocks[i].size;
		size_t chunks = (size_t)((size + DELTA_CHUNK - 1) / DELTA_CHUNK);

		if (bitmap_init(&c->maps[i].send, (size_t)(size / img->target_page)) ||
		    bitmap_init(&c->maps[i].ask, chunks) || bitmap_init(&c->maps[i].asked, chunks))
			return err_set(err, ST_NOMEM, "no memory to compare the image");
	}
	return c->maps ? 0 : err_set(err, ST_NOMEM, "no memory to compare the image");
}

static int make_items(struct delta_compare *c, struct error *err)
{
	if (queue_init(&c->work, ITEMS, err) || queue_init(&c->free, ITEMS, err))
		return -1;
	c->items = calloc(ITEMS, sizeof(*c->items));
	if (!c->items)
		return err_set(err, ST_NOMEM, "no memory to compare the image");
	for (unsigned i = 0; i < ITEMS; i++)
		queue_put(&c->free, &c->items[i]);
	return 0;
}

static int start_threads(struct delta_compare *c, struct error *err)
{
	long cores = sysconf(_SC_NPROCESSORS_ONLN);
	unsigned n = cores < 1 ? 1 : cores > THREADS_MAX ? THREADS_MAX : (unsigned)cores;
	int e = 0;

	for (; c->nthreads < n && !e; c->nthreads += !e)
		e = pthread_create(&c->threads[c->nthreads], NULL, thread_main, c);
	/* fewer do it, too */
	return c->nthreads
		       ? 0
		       : err_sys(err, ST_NOMEM, e, "cannot start a thread to compare the image");
}

struct delta_compare *delta_compare_open(struct source *src, struct error *err)
{
	struct delta_compare *c = calloc(1, sizeof(*c));

	if (!c) {
		err_set(err, ST_NOMEM, "no memory to compare the image");
		return NULL;
	}
	c->src = src;
	pthread_mutex_init(&c->here_lock, NULL);
	pthread_mutex_init(&c->lock, NULL);
	pthread_cond_init(&c->changed, NULL);
	if (make_maps(c, err) || make_items(c, err) || start_threads(c, err)) {
		delta_compare_free(c);
		return NULL;
	}
	return c;
}

void delta_compare_free(struct delta_compare *c)
{
	if (!c)
		return;
	if (c->work.items)
		queue_close(&c->work);
	for (unsigned i = 0; i < c->nthreads; i++)
		pthread_join(c->threads[i], NULL);
	for (unsigned i = 0; c->maps && i < c->src->img->nblocks; i++) {
		bitmap_free(&c->maps[i].send);
		bitmap_free(&c->maps[i].ask);
		bitmap_free(&c->maps[i].asked);
	}
	if (c->work.items)
		queue_destroy(&c->work);
	if (c->free.items)
		queue_destroy(&c->free);
	free(c->maps);
	free(c->items);
	pthread_cond_destroy(&c->changed);
	pthread_mutex_destroy(&c->lock);
	pthread_mutex_destroy(&c->here_lock);
	free(c);
}
