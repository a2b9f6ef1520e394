// SPDX-License-Identifier: GPL-2.0-or-later
#include "placer.h"

#include "codec.h"

#include <stdlib.h>
#include <string.h>

#define BATCHES_MAX 64

struct zlib_lens {
	bool used;
	uint32_t len[MULTIFD_PAGES_MAX];
};

struct placer {
	struct session *ss;
	struct image *img;
	struct batch_pool pool;
	struct queue work;
	struct zlib_lens *lens; /* per batch of the pool; NULL without `compress` */
	uint32_t stride;	/* of a zlib stream in a batch's buffer */
	unsigned nworkers;
	struct worker {
		struct placer *p;
		pthread_t thread;
		bool started;
		struct page_zlib *zlib;
		uint8_t *page;
	} * workers;
};

/* ---- workers ---- */

static int inflate_pages(struct worker *w, struct page_batch *b, const struct zlib_lens *lens,
			 struct error *err)
{
	struct placer *p = w->p;

	for (uint32_t i = 0; i < b->n; i++) {
		if (page_zlib_decode(w->zlib, b->buf + (size_t)i * p->stride, lens->len[i], w->page,
				     b->page))
			return err_set(err, ST_DATA,
				       "block %s, offset 0x%llx: the zlib stream of %u bytes is no "
				       "page of %u bytes",
				       b->block->name, (unsigned long long)b->offset[i],
				       lens->len[i], b->page);
		if (image_place(p->img, b->block, b->offset[i], w->page, b->page, err))
			return -1;
	}
	return 0;
}

static int place(struct worker *w, struct page_batch *b, struct error *err)
{
	struct placer *p = w->p;
	struct zlib_lens *lens = p->lens ? &p->lens[b - p->pool.all] : NULL;

	stat_add(&p->ss->stats.travelled, (uint64_t)b->n * b->page);
	if (!lens || !lens->used)
		return batch_place(b, p->img, err);
	lens->used = false;
	return inflate_pages(w, b, lens, err);
}

static void *worker_main(void *arg)
{
	struct worker *w = arg;
	struct placer *p = w->p;
	struct error err;
	void *item;
	int rc;

	while ((rc = queue_get(&p->work, &item, &p->ss->cancel, &err)) > 0) {
		rc = place(w, item, &err);
		if (rc)
			break;
		queue_put(&p->pool.free, item);
	}
	if (rc < 0)
		session_fail(p->ss, &err);
	return NULL;
}

/* ---- the reader's side ---- */

struct page_batch *placer_get(struct placer *p, struct error *err)
{
	void *item;

	return queue_get(&p->pool.free, &item, &p->ss->cancel, err) > 0 ? item : NULL;
}

int placer_put(struct placer *p, struct page_batch *b, struct error *err)
{
	int rc;

	if (p->nworkers) {
		queue_put(&p->work, b);
		return 0;
	}
	stat_add(&p->ss->stats.travelled, (uint64_t)b->n * b->page);
	rc = batch_place(b, p->img, err);
	queue_put(&p->pool.free, b);
	return rc;
}

void placer_return(struct placer *p, struct page_batch *b)
{
	queue_put(&p->pool.free, b);
}

uint32_t placer_zlib_room(const struct placer *p)
{
	return MULTIFD_PACKET_BYTES / p->stride;
}

uint8_t *placer_zlib_slot(struct placer *p, struct page_batch *b, uint32_t i, uint32_t len)
{
	struct zlib_lens *lens = &p->lens[b - p->pool.all];

	lens->used = true;
	lens->len[i] = len;
	return b->buf + (size_t)i * p->stride;
}

int placer_drain(struct placer *p, struct error *err)
{
	struct page_batch *held[BATCHES_MAX];
	unsigned n = 0;
	int rc = 0;

	/* holding the whole pool means that every worker is idle */
	while (n < p->pool.count && !rc) {
		held[n] = placer_get(p, err);
		if (held[n])
			n++;
		else
			rc = -1;
	}
	while (n > 0)
		placer_return(p, held[--n]);
	return rc;
}

/* ---- set-up ---- */

static int start_worker(struct placer *p, struct worker *w, struct error *err)
{
	int e;

	w->p = p;
	if (p->lens) {
		w->zlib = page_zlib_new(false, 0, err);
		w->page = malloc(p->img->target_page);
		if (!w->zlib)
			return -1;
		if (!w->page)
			return err_set(err, ST_NOMEM, "no memory for decompression");
	}
	e = pthread_create(&w->thread, NULL, worker_main, w);
	if (e)
		return err_sys(err, ST_NOMEM, e, "cannot start a placing thread");
	w->started = true;
	return 0;
}

struct placer *placer_open(struct session *ss, struct image *img, unsigned workers, bool compressed,
			   struct error *err)
{
	struct placer *p = calloc(1, sizeof(*p));
	unsigned batches = workers ? workers * 2 + 2 : 1;
	int rc = 0;

	if (batches > BATCHES_MAX)
		batches = BATCHES_MAX;
	if (p)
		p->workers = calloc(workers + 1, sizeof(*p->workers));
	if (!p || !p->workers) {
		free(p);
		err_set(err, ST_NOMEM, "no memory for placing threads");
		return NULL;
	}
	p->ss = ss;
	p->img = img;
	p->stride = (uint32_t)(page_zlib_bound(img->target_page) + 63) & ~63u;
	p->nworkers = workers;
	if (compressed) {
		p->lens = calloc(batches, sizeof(*p->lens));
		if (!p->lens)
			rc = err_set(err, ST_NOMEM, "no memory for decompression");
	}
	if (!rc)
		rc = batch_pool_init(&p->pool, batches, img->target_page, err);
	if (!rc)
		rc = queue_init(&p->work, batches, err);
	for (unsigned i = 0; i < workers && !rc; i++)
		rc = start_worker(p, &p->workers[i], err);
	if (rc) {
		placer_close(p);
		return NULL;
	}
	return p;
}

void placer_close(struct placer *p)
{
	if (!p)
		return;
	if (p->work.items)
		queue_close(&p->work);
	for (unsigned i = 0; i < p->nworkers; i++) {
		if (p->workers[i].started)
			pthread_join(p->workers[i].thread, NULL);
		page_zlib_free(p->workers[i].zlib);
		free(p->workers[i].page);
	}
	if (p->work.items)
		queue_destroy(&p->work);
	batch_pool_destroy(&p->pool);
	free(p->lens);
	free(p->workers);
	free(p);
}
