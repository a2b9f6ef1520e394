// SPDX-License-Identifier: GPL-2.0-or-later
#include "compress.h"

#include "codec.h"

#include <stdlib.h>
#include <string.h>

/* One in work, one waiting or being written. */
#define JOBS_PER_WORKER 2

struct job {
	struct page_batch *batch;
	uint8_t *out;			/* page i's stream at i * bound */
	ssize_t len[MULTIFD_PAGES_MAX]; /* -1: does not shrink below `bound`; send the page */
};

struct compressor {
	struct source *src;
	size_t bound; /* zlib's for a page: what QEMU accepts at most */
	struct batch_pool pool;
	struct job *jobs; /* as many as batches, same index */
	struct queue work, done;
	unsigned busy; /* jobs put and not yet written; the migration thread's */
	unsigned nworkers;
	struct worker {
		struct compressor *c;
		pthread_t thread;
		struct page_zlib *zlib;
		bool started;
	} * workers;
};

/* ---- workers ---- */

static int do_job(struct worker *w, struct job *j, struct error *err)
{
	struct compressor *c = w->c;
	struct page_batch *b = j->batch;

	if (batch_load(b, c->src->img, &c->src->digest, err))
		return -1;
	for (uint32_t i = 0; i < b->n; i++)
		if (!b->zero[i])
			j->len[i] = page_zlib_encode(w->zlib, batch_page(b, i), b->page,
						     j->out + i * c->bound, c->bound);
	return 0;
}

static void *worker_main(void *arg)
{
	struct worker *w = arg;
	struct compressor *c = w->c;
	struct error err;
	void *item;
	int rc;

	while ((rc = queue_get(&c->work, &item, &c->src->ss->cancel, &err)) > 0) {
		rc = do_job(w, item, &err);
		if (rc)
			break;
		queue_put(&c->done, item);
	}
	if (rc < 0)
		session_fail(c->src->ss, &err);
	return NULL;
}

/* ---- the migration thread's side ---- */

static int write_page(struct compressor *c, struct job *j, uint32_t i, struct error *err)
{
	struct page_batch *b = j->batch;
	struct stream *s = &c->src->ss->stream;
	struct stats *st = &c->src->ss->stats;

	if (j->len[i] < 0) {
		stat_add(&st->normal, 1);
		if (pagesend_record(c->src, b->block, b->offset[i], RAM_PAGE, err))
			return -1;
		return stream_write(s, batch_page(b, i), b->page, err);
	}
	stat_add(&st->compress_pages, 1);
	stat_add(&st->compress_size, (uint64_t)j->len[i]);
	if (pagesend_record(c->src, b->block, b->offset[i], RAM_COMPRESS_PAGE, err) ||
	    stream_put_be32(s, (uint32_t)j->len[i], err))
		return -1;
	return stream_write(s, j->out + i * c->bound, (size_t)j->len[i], err);
}

static int write_job(struct compressor *c, struct job *j, struct error *err)
{
	struct page_batch *b = j->batch;

	if (b->nzero && pagesend_batch_zeros(c->src, b, err))
		return -1;
	for (uint32_t i = 0; i < b->n; i++)
		if (!b->zero[i] && write_page(c, j, i, err))
			return -1;
	stat_add(&c->src->ss->stats.travelled, (uint64_t)b->n * b->page);
	queue_put(&c->pool.free, b);
	c->busy--;
	return 0;
}

static int write_finished(struct compressor *c, struct error *err)
{
	struct job *j;

	while ((j = queue_try(&c->done)))
		if (write_job(c, j, err))
			return -1;
	return 0;
}

int compressor_get(struct compressor *c, struct page_batch **b, struct error *err)
{
	void *item;

	if (write_finished(c, err))
		return -1;
	*b = queue_try(&c->pool.free);
	if (*b)
		return 0;
	stat_add(&c->src->ss->stats.compress_busy, 1);
	if (!params_compress_wait_thread(&c->src->ss->cfg->params))
		return 0;
	if (queue_get(&c->done, &item, &c->src->ss->cancel, err) <= 0 || write_job(c, item, err))
		return -1;
	*b = queue_try(&c->pool.free);
	return 0;
}

bool compressor_owns(const struct compressor *c, const struct page_batch *b)
{
	return b >= c->pool.all && b < c->pool.all + c->pool.count;
}

void compressor_put(struct compressor *c, struct page_batch *b)
{
	c->busy++;
	queue_put(&c->work, &c->jobs[b - c->pool.all]);
}

int compressor_drain(struct compressor *c, struct error *err)
{
	void *item;

	while (c->busy > 0)
		if (queue_get(&c->done, &item, &c->src->ss->cancel, err) <= 0 ||
		    write_job(c, item, err))
			return -1;
	return 0;
}

/* ---- set-up ---- */

static int make_jobs(struct compressor *c, struct error *err)
{
	unsigned n = c->nworkers * JOBS_PER_WORKER;

	if (batch_pool_init(&c->pool, n, c->src->img->target_page, err) ||
	    queue_init(&c->work, n, err) || queue_init(&c->done, n, err))
		return -1;
	c->jobs = calloc(n, sizeof(*c->jobs));
	for (unsigned i = 0; c->jobs && i < n; i++) {
		c->jobs[i].batch = &c->pool.all[i];
		c->jobs[i].out = malloc(batch_room(c->src->img->target_page) * c->bound);
		if (!c->jobs[i].out)
			return err_set(err, ST_NOMEM, "no memory for compress");
	}
	return c->jobs ? 0 : err_set(err, ST_NOMEM, "no memory for compress");
}

static int start_worker(struct compressor *c, struct worker *w, struct error *err)
{
	int e;

	w->c = c;
	w->zlib = page_zlib_new(true, params_compress_level(&c->src->ss->cfg->params), err);
	if (!w->zlib)
		return -1;
	e = pthread_create(&w->thread, NULL, worker_main, w);
	if (e)
		return err_sys(err, ST_NOMEM, e, "cannot start a compression thread");
	w->started = true;
	return 0;
}

struct compressor *compressor_open(struct source *src, struct error *err)
{
	struct compressor *c = calloc(1, sizeof(*c));

	if (!c) {
		err_set(err, ST_NOMEM, "no memory for compress");
		return NULL;
	}
	c->src = src;
	c->bound = page_zlib_bound(src->img->target_page);
	c->nworkers = params_compress_threads(&src->ss->cfg->params);
	c->workers = calloc(c->nworkers, sizeof(*c->workers));
	if (!c->workers)
		err_set(err, ST_NOMEM, "no memory for compress");
	if (!c->workers || make_jobs(c, err)) {
		compressor_close(c);
		return NULL;
	}
	for (unsigned i = 0; i < c->nworkers; i++) {
		if (start_worker(c, &c->workers[i], err)) {
			compressor_close(c);
			return NULL;
		}
	}
	return c;
}

void compressor_close(struct compressor *c)
{
	if (!c)
		return;
	if (c->work.items)
		queue_close(&c->work);
	for (unsigned i = 0; c->workers && i < c->nworkers; i++) {
		if (c->workers[i].started)
			pthread_join(c->workers[i].thread, NULL);
		page_zlib_free(c->workers[i].zlib);
	}
	for (unsigned i = 0; c->jobs && i < c->pool.count; i++)
		free(c->jobs[i].out);
	if (c->work.items)
		queue_destroy(&c->work);
	if (c->done.items)
		queue_destroy(&c->done);
	batch_pool_destroy(&c->pool);
	free(c->jobs);
	free(c->workers);
	free(c);
}
