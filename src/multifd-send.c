// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Theory of operation. The migration thread fills batches with offsets and puts them on one queue;
 * each worker's thread takes one, reads its pages from the image, finds the zero ones, compresses,
 * sends, and gives the batch back to the pool. So reading, hashing and compressing are spread over
 * the workers, and a slow channel just takes fewer batches.
 *
 * Workers and channels. A packet that is a unit of its own may travel on any channel: there are two
 * workers a channel then, so that one compresses while the other waits for the channel to take its
 * packet, and each sends on whichever channel is free. A QEMU's streams go on from packet to packet
 * on one channel, and what is not compressed costs next to nothing before it is sent: there each
 * channel has its one worker.
 *
 * Zero pages: in header version 2 they travel in the packet. Towards a QEMU of 7.2 to 8.2 they are
 * records on the main channel, which only the migration thread writes; so a batch comes back with
 * its zero pages marked, and whoever takes it from the pool sends them first.
 *
 * The barrier: the migration thread takes the whole pool, which means that every channel is idle,
 * and writes the SYNC packets itself. A SYNC is a packet of its own because QEMU 9.2 cannot take a
 * merged one.
 */
#include "multifd-send.h"

#include "codec.h"
#include "effort.h"
#include "link.h"
#include "zerocopy.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Per channel: one batch in work, one waiting, so that no channel idles while the other reads. */
#define BATCHES_PER_CHANNEL 3
#define SAMPLE_PAGES	    8
#define SPARE_WORKERS	    4 /* at most: with many channels some worker is always compressing */

/* A worker has the channel's lock while it sends; the barrier needs none, it has all batches. */
struct send_channel {
	struct multifd_send *m;
	unsigned id;
	pthread_mutex_t lock;
	struct transport *t;
	struct stream s;
	uint8_t *header;
	uint64_t packet_num;
	struct zerocopy zc;
};

struct send_worker {
	struct multifd_send *m;
	struct send_channel *home; /* the only one it may use, unless packets are units */
	pthread_t thread;
	bool started;
	struct codec *codec; /* NULL: method none */
	uint8_t *out;	     /* the codec's output */
	size_t out_cap;
	bool adapts; /* nobody has said how hard to compress */
	struct effort effort;
};

struct multifd_send {
	struct source *src;
	const struct codec_ops *ops;
	unsigned n, nworkers;
	struct send_channel *channels;
	struct send_worker *workers;
	struct batch_pool pool;
	struct queue work;
};

/* ---- one packet ---- */

/* Fills iov with the batch's non-zero runs; returns how many, bytes in *raw. */
static int data_iov(const struct page_batch *b, struct iovec *iov, uint32_t *raw)
{
	int n = 0;

	*raw = 0;
	for (uint32_t i = 0, run; i < b->n; i += run) {
		/* neighbours in the buffer need not be neighbours in the block */
		for (run = 1; i + run < b->n && b->zero[i + run] == b->zero[i]; run++)
			;
		if (b->zero[i])
			continue;
		iov[n].iov_base = batch_page(b, i);
		iov[n].iov_len = (size_t)run * b->page;
		*raw += run * b->page;
		n++;
	}
	return n;
}

/* Is each compressed packet a unit of its own? */
static bool units(const struct multifd_send *m)
{
	return m->src->ss->dialect.multifd2 && m->ops->method != METHOD_NONE;
}

/* Some of its pages, compressed: would they all gain too little by it? */
static bool skips(struct send_worker *w, const struct page_batch *b, struct error *err)
{
	struct iovec iov[SAMPLE_PAGES];
	uint32_t step = b->n / SAMPLE_PAGES + 1;
	ssize_t len;
	int n = 0;

	for (uint32_t i = step / 2; i < b->n; i += step)
		if (!b->zero[i])
			iov[n++] = (struct iovec){ batch_page(b, i), b->page };
	if (!n)
		return false;
	len = w->m->ops->encode(w->codec, iov, n, w->out, w->out_cap, err);
	return len < 0 || effort_skips(&w->effort, (uint64_t)n * b->page, (uint64_t)len);
}

/* The payload as it will be sent: compressed into w->out, or the pages themselves. */
static int make_payload(struct send_worker *w, const struct page_batch *b, struct iovec *iov,
			int *n, uint32_t raw, uint32_t *payload, uint32_t *method,
			struct error *err)
{
	ssize_t len;

	*payload = raw;
	*method = 0;
	if (!w->codec || !raw || (w->adapts && skips(w, b, err)))
		return 0;
	len = w->m->ops->encode(w->codec, iov, *n, w->out, w->out_cap, err);
	if (len < 0)
		return -1;
	/* QEMU's stream goes on from packet to packet and may not be left out of one */
	if (units(w->m) && len >= (ssize_t)raw)
		return 0;
	*payload = (uint32_t)len;
	*method = w->m->ops->wire_flags;
	iov[0].iov_base = w->out;
	iov[0].iov_len = (size_t)len;
	*n = 1;
	return 0;
}

static size_t make_header_v1(struct send_channel *ch, const struct page_batch *b, uint32_t flags,
			     uint32_t payload)
{
	struct multifd_header h = { .flags = flags,
				    .payload = payload,
				    .packet_num = ch->packet_num };

	if (b) {
		strcpy(h.block, b->block->name);
		for (uint32_t i = 0; i < b->n; i++)
			if (!b->zero[i])
				h.offset[h.normal++] = b->offset[i];
	}
	multifd_header_pack(&h, ch->m->src->img->target_page, ch->header);
	return multifd_header_len(ch->m->src->img->target_page);
}

static size_t make_header_v2(struct send_channel *ch, const struct page_batch *b, uint32_t flags,
			     uint32_t payload, uint32_t raw)
{
	struct multifd2_header h;

	h.flags = flags;
	h.block = b ? b->block->index : 0;
	h.nruns = 0;
	h.payload = payload;
	h.raw = raw;
	h.packet_num = ch->packet_num;
	for (uint32_t i = 0, run; b && i < b->n; i += run) {
		struct multifd2_run *r = &h.runs[h.nruns++];

		run = batch_run(b, i);
		r->offset = b->offset[i];
		r->pages = run;
		r->zero = b->zero[i];
	}
	return multifd2_header_pack(&h, ch->header);
}

static int write_packet(struct send_channel *ch, const struct page_batch *b, uint32_t flags,
			struct iovec *iov, int n, uint32_t raw, uint32_t payload, struct error *err)
{
	struct session *ss = ch->m->src->ss;
	uint64_t before = ch->s.bytes_out;
	size_t len = ss->dialect.multifd2 ? make_header_v2(ch, b, flags, payload, raw)
					  : make_header_v1(ch, b, flags, payload);

	ch->packet_num++;
	if (stream_write(&ch->s, ch->header, len, err))
		return -1;
	if (payload && ch->zc.on) {
		if (stream_flush(&ch->s, err) || zerocopy_send(&ch->zc, &ch->s, iov, n, err))
			return -1;
	} else if (payload ? stream_writev(&ch->s, iov, n, err) : stream_flush(&ch->s, err)) {
		return -1;
	}
	stat_add(&ss->stats.multifd_bytes, ch->s.bytes_out - before);
	return 0;
}

/* The channel for the next packet, locked. Waits for the worker's own if none is free. */
static struct send_channel *take_channel(struct send_worker *w)
{
	struct multifd_send *m = w->m;

	for (unsigned i = 0; units(m) && i < m->n; i++) {
		struct send_channel *ch = &m->channels[(w->home->id + i) % m->n];

		if (!pthread_mutex_trylock(&ch->lock))
			return ch;
	}
	pthread_mutex_lock(&w->home->lock);
	return w->home;
}

static int send_packet(struct send_worker *w, const struct page_batch *b, uint32_t flags,
		       struct iovec *iov, int n, uint32_t raw, uint32_t payload, struct error *err)
{
	struct send_channel *ch = take_channel(w);
	int rc = write_packet(ch, b, flags, iov, n, raw, payload, err);

	pthread_mutex_unlock(&ch->lock);
	return rc ? err_prefix(err, "multifd channel %u", ch->id) : 0;
}

static uint64_t now_ns(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

/* On the clock, and on a core. */
static void times(uint64_t t[2])
{
	t[0] = now_ns(CLOCK_MONOTONIC);
	t[1] = now_ns(CLOCK_THREAD_CPUTIME_ID);
}

/* The packet that has just been sent was made between two such times. */
static void adapt(struct send_worker *w, const uint64_t begun[2], const uint64_t made[2],
		  uint32_t payload)
{
	uint64_t sent = now_ns(CLOCK_MONOTONIC);

	if (w->adapts && effort_note(&w->effort, made[0] - begun[0], made[1] - begun[1],
				     sent - made[0], payload, w->m->nworkers))
		w->m->ops->set_level(w->codec, effort_level(&w->effort));
}

static int send_batch(struct send_worker *w, struct page_batch *b, struct error *err)
{
	struct source *src = w->m->src;
	struct iovec iov[MULTIFD_PAGES_MAX];
	uint64_t begun[2], made[2];
	uint32_t raw, payload, method;
	int n;

	times(begun);
	if (batch_load(b, src->img, &src->digest, err))
		return -1;
	n = data_iov(b, iov, &raw);
	if (make_payload(w, b, iov, &n, raw, &payload, &method, err))
		return -1;
	times(made);
	/* a QEMU learns of zero pages on the main channel */
	if ((raw || src->ss->dialect.multifd2) &&
	    send_packet(w, b, method, iov, n, raw, payload, err))
		return -1;
	adapt(w, begun, made, payload);
	stat_add(&src->ss->stats.normal, b->n - b->nzero);
	stat_add(&src->ss->stats.travelled, (uint64_t)b->n * b->page);
	return 0;
}

/* ---- a worker's thread ---- */

static void give_back(void *batch, void *to)
{
	struct multifd_send *m = to;

	queue_put(&m->pool.free, batch);
}

static int worker_loop(struct send_worker *w, struct error *err)
{
	struct multifd_send *m = w->m;
	struct cancel *c = &m->src->ss->cancel;
	struct zerocopy *zc = &w->home->zc;
	struct page_batch *b;
	void *item;
	int rc;

	for (;;) {
		item = queue_try(&m->work);
		if (!item) {
			/* idle: nothing may be left in flight, the barrier waits for the pool */
			if (zerocopy_wait(zc, 0, give_back, m, err))
				return -1;
			rc = queue_get(&m->work, &item, c, err);
			if (rc <= 0)
				return rc;
		}
		b = item;
		if (send_batch(w, b, err))
			return -1;
		if (!zc->on)
			give_back(b, m);
		else if (zerocopy_queue(zc, b, give_back, m, err))
			return -1;
	}
}

static void *worker_main(void *arg)
{
	struct send_worker *w = arg;
	struct error err;

	if (worker_loop(w, &err))
		session_fail(w->m->src->ss, &err);
	return NULL;
}

/* ---- set-up ---- */

static int channel_open(struct send_channel *ch, struct error *err)
{
	struct source *src = ch->m->src;

	ch->t = link_source_channel(src->ss, ch->id, &ch->s, err);
	if (!ch->t)
		return err_prefix(err, "multifd channel %u", ch->id);
	ch->header = malloc(multifd_header_len(4096) + MULTIFD2_FIXED_LEN +
			    MULTIFD2_RUN_LEN * (size_t)MULTIFD2_RUNS_MAX);
	if (!ch->header)
		return err_set(err, ST_NOMEM, "no memory for multifd channel %u", ch->id);
	if (src->ss->caps.on[CAP_ZERO_COPY_SEND])
		return zerocopy_open(&ch->zc, ch->t, src->ss, err);
	return 0;
}

/* The codec of a worker, if the method wants one. */
static int worker_codec(struct send_worker *w, struct error *err)
{
	struct multifd_send *m = w->m;
	const struct session *ss = m->src->ss;

	if (m->ops->method == METHOD_NONE)
		return 0;
	w->codec = m->ops->open_encode(params_multifd_level(&ss->cfg->params),
				       !ss->dialect.multifd2, MULTIFD_PACKET_BYTES, err);
	if (!w->codec)
		return -1;
	w->adapts = units(m) && m->ops->set_level &&
		    !ss->cfg->params.given[PARAM_MULTIFD_ZSTD_LEVEL];
	if (w->adapts)
		m->ops->set_level(w->codec, effort_level(&w->effort));
	w->out_cap = m->ops->bound(MULTIFD_PACKET_BYTES);
	w->out = malloc(w->out_cap);
	return w->out ? 0 : err_set(err, ST_NOMEM, "no memory to compress");
}

static int worker_start(struct send_worker *w, struct error *err)
{
	int e;

	if (worker_codec(w, err))
		return -1;
	e = pthread_create(&w->thread, NULL, worker_main, w);
	if (e)
		return err_sys(err, ST_NOMEM, e, "cannot start a thread of multifd");
	w->started = true;
	return 0;
}

static int start_workers(struct multifd_send *m, struct error *err)
{
	for (unsigned i = 0; i < m->nworkers; i++) {
		m->workers[i].m = m;
		m->workers[i].home = &m->channels[i % m->n];
		if (worker_start(&m->workers[i], err))
			return -1;
	}
	return 0;
}

static struct multifd_send *new_send(struct source *src, unsigned n, struct error *err)
{
	unsigned batches = n * BATCHES_PER_CHANNEL;
	struct multifd_send *m = calloc(1, sizeof(*m));

	if (!m) {
		err_set(err, ST_NOMEM, "no memory for multifd");
		return NULL;
	}
	m->src = src;
	m->ops = codec_find(params_multifd_compression(&src->ss->cfg->params));
	m->n = n;
	m->nworkers = n + (!units(m) ? 0 : n < SPARE_WORKERS ? n : SPARE_WORKERS);
	m->channels = calloc(n, sizeof(*m->channels));
	m->workers = calloc(m->nworkers, sizeof(*m->workers));
	for (unsigned i = 0; m->channels && i < n; i++) {
		m->channels[i].m = m;
		m->channels[i].id = i;
		pthread_mutex_init(&m->channels[i].lock, NULL);
	}
	if (src->ss->caps.on[CAP_ZERO_COPY_SEND])
		batches += n * ZEROCOPY_INFLIGHT;
	if (!m->channels || !m->workers)
		err_set(err, ST_NOMEM, "no memory for %u multifd channels", n);
	if (m->channels && m->workers && !queue_init(&m->work, batches, err) &&
	    !batch_pool_init(&m->pool, batches, src->img->target_page, err))
		return m;
	multifd_send_close(m);
	return NULL;
}

struct multifd_send *multifd_send_open(struct source *src, unsigned n, struct error *err)
{
	struct multifd_send *m = new_send(src, n, err);

	for (unsigned i = 0; m && i < n; i++) {
		if (channel_open(&m->channels[i], err)) {
			multifd_send_close(m);
			return NULL;
		}
	}
	if (!m || !start_workers(m, err))
		return m;
	/* threads already running end by the session's token or the closed queue */
	multifd_send_close(m);
	return NULL;
}

/* The destination may wait for the end of all channels before it closes one. */
static void channel_end(struct send_channel *ch)
{
	struct error ignored;

	zerocopy_close(&ch->zc);
	stream_close(&ch->s);
	if (ch->t)
		transport_shutdown_write(ch->t, &ignored);
}

static void channel_close(struct send_channel *ch)
{
	struct error ignored;

	transport_close(ch->t, &ignored);
	free(ch->header);
	pthread_mutex_destroy(&ch->lock);
}

static void worker_end(struct send_worker *w)
{
	if (w->started)
		pthread_join(w->thread, NULL);
	if (w->codec)
		w->m->ops->close(w->codec);
	free(w->out);
}

void multifd_send_close(struct multifd_send *m)
{
	if (!m)
		return;
	if (m->work.items)
		queue_close(&m->work);
	for (unsigned i = 0; m->workers && i < m->nworkers; i++)
		worker_end(&m->workers[i]);
	for (unsigned i = 0; m->channels && i < m->n; i++)
		channel_end(&m->channels[i]);
	for (unsigned i = 0; m->channels && i < m->n; i++)
		channel_close(&m->channels[i]);
	free(m->workers);
	free(m->channels);
	batch_pool_destroy(&m->pool);
	if (m->work.items)
		queue_destroy(&m->work);
	free(m);
}

/* ---- the migration thread's side ---- */

/* What a returned batch still owes the main channel. */
static int settle(struct multifd_send *m, struct page_batch *b, struct error *err)
{
	int rc = 0;

	if (b->nzero && !m->src->ss->dialect.multifd2)
		rc = pagesend_batch_zeros(m->src, b, err);
	else
		stat_add(&m->src->ss->stats.duplicate, b->nzero);
	b->n = b->nzero = 0;
	return rc;
}

struct page_batch *multifd_send_get(struct multifd_send *m, struct error *err)
{
	void *item;

	if (queue_get(&m->pool.free, &item, &m->src->ss->cancel, err) <= 0)
		return NULL;
	return settle(m, item, err) ? NULL : item;
}

void multifd_send_put(struct multifd_send *m, struct page_batch *b)
{
	queue_put(&m->work, b);
}

int multifd_send_sync(struct multifd_send *m, struct error *err)
{
	unsigned got = 0;
	int rc = 0;

	/* holding the whole pool means that every channel is idle and waits for work */
	for (; got < m->pool.count && !rc; got++)
		rc = multifd_send_get(m, err) ? 0 : -1;
	for (unsigned i = 0; i < m->n && !rc; i++)
		rc = write_packet(&m->channels[i], NULL, MULTIFD_SYNC, NULL, 0, 0, 0, err);
	for (unsigned i = 0; i < m->pool.count && !rc; i++)
		queue_put(&m->pool.free, &m->pool.all[i]);
	return rc;
}
