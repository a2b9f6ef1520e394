// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Theory of operation. A thread a channel reads packets, decodes them into its one batch and places
 * the pages itself; nothing is handed over. The channels meet the main one at barriers: a channel
 * that read SYNC stops until the main thread, which waits for all of them, lets them go. That keeps
 * an older copy of a page on one channel from landing after a newer one on another.
 *
 * What a channel announces is not trusted: the header's unpackers bound counts and sizes, the
 * placing checks block and offset.
 */
#include "multifd-recv.h"

#include "codec.h"
#include "link.h"
#include "log.h"

#include <stdlib.h>
#include <string.h>

struct recv_channel {
	struct multifd_recv *m;
	unsigned id;
	pthread_t thread;
	bool started;
	struct transport *t;
	struct stream s;
	const struct codec_ops *ops; /* NULL: the first packet with pages will tell (a QEMU's) */
	struct codec *codec;
	uint8_t *in; /* a payload before decoding */
	struct page_batch batch;
	uint64_t syncs; /* guarded by m->lock, likewise the next */
	bool ended;
};

struct multifd_recv {
	struct target *t;
	const struct codec_ops *ops; /* NULL: nobody said which method it will be */
	unsigned n;
	struct recv_channel *channels; /* by number */
	uint8_t *memory;	       /* the batches' buffers */
	pthread_mutex_t lock;
	pthread_cond_t changed;
	uint64_t released; /* barriers that the main thread has let go */
	unsigned placing;  /* channels that are placing pages right now */
	bool sealed;	   /* no page may come any more */
};

/* ---- one packet ---- */

static int open_codec(struct recv_channel *ch, const struct codec_ops *ops, struct error *err)
{
	ch->ops = ops;
	if (ops->method == METHOD_NONE)
		return 0;
	ch->codec = ops->open_decode(!ch->m->t->ss->dialect.multifd2, MULTIFD_PACKET_BYTES, err);
	return ch->codec ? 0 : -1;
}

static const struct codec_ops *codec_of_wire(uint32_t wire)
{
	for (int i = METHOD_NONE; i <= METHOD_ZSTD; i++)
		if (codec_find((enum multifd_method)i)->wire_flags == wire)
			return codec_find((enum multifd_method)i);
	return NULL;
}

/*
 * The method of all packets with pages is one: the agreed one, or where nothing was agreed (a QEMU
 * announces nothing) the first one's. Ours may also be sent as it is.
 */
static int check_method(struct recv_channel *ch, uint32_t flags, struct error *err)
{
	uint32_t method = flags & MULTIFD_METHOD_MASK;

	if (!ch->ops) {
		const struct codec_ops *ops = codec_of_wire(method);

		if (ops)
			return open_codec(ch, ops, err);
		return err_set(err, ST_UNSUPPORTED,
			       "a packet is compressed with method 0x%x, which is none of none "
			       "(0x0), zlib (0x2), zstd (0x4)",
			       method);
	}
	if (method == ch->ops->wire_flags || (ch->m->t->ss->dialect.multifd2 && method == 0))
		return 0;
	err_set(err, ST_DATA, "a packet is compressed with method 0x%x, expected 0x%x (%s)", method,
		ch->ops->wire_flags, ch->ops->name);
	if (!ch->m->ops)
		return -1;
	return err_hint(err, "--param multifd-compression=METHOD has to be the same on both ends");
}

/* Reads the payload and decodes it into iov, whose bytes are `raw`. */
static int read_payload(struct recv_channel *ch, uint32_t flags, uint32_t payload,
			struct iovec *iov, int n, uint32_t raw, struct error *err)
{
	if (check_method(ch, flags, err))
		return -1;
	if (!(flags & MULTIFD_METHOD_MASK)) {
		if (payload != raw)
			return err_set(err, ST_DATA, "%u bytes for pages of %u bytes", payload,
				       raw);
		for (int i = 0; i < n; i++)
			if (stream_read(&ch->s, iov[i].iov_base, iov[i].iov_len, err))
				return -1;
		return 0;
	}
	if (stream_read(&ch->s, ch->in, payload, err))
		return -1;
	return ch->ops->decode(ch->codec, ch->in, payload, iov, n, err);
}

/* Whoever places pages is counted, so that multifd_recv_seal can wait for the last one. */
static int begin_placing(struct multifd_recv *m, struct error *err)
{
	int rc = 0;

	pthread_mutex_lock(&m->lock);
	if (m->sealed)
		rc = err_set(err, ST_DATA, "pages after the end of the memory");
	else
		m->placing++;
	pthread_mutex_unlock(&m->lock);
	return rc;
}

static int end_placing(struct multifd_recv *m, int rc)
{
	pthread_mutex_lock(&m->lock);
	m->placing--;
	if (m->sealed)
		pthread_cond_broadcast(&m->changed);
	pthread_mutex_unlock(&m->lock);
	return rc;
}

void multifd_recv_seal(struct multifd_recv *m)
{
	pthread_mutex_lock(&m->lock);
	m->sealed = true;
	pthread_cond_broadcast(&m->changed);
	while (m->placing)
		cond_wait_briefly(&m->changed, &m->lock);
	pthread_mutex_unlock(&m->lock);
}

static int place(struct recv_channel *ch, struct error *err)
{
	struct target *t = ch->m->t;
	struct page_batch *b = &ch->batch;

	if (begin_placing(ch->m, err))
		return -1;
	stat_add(&t->ss->stats.normal, b->n - b->nzero);
	stat_add(&t->ss->stats.duplicate, b->nzero);
	stat_add(&t->ss->stats.travelled, (uint64_t)b->n * b->page);
	return end_placing(ch->m, batch_place(b, t->img, err));
}

static int packet_v1(struct recv_channel *ch, bool *sync, struct error *err)
{
	struct target *t = ch->m->t;
	uint32_t page = t->img->target_page;
	struct page_batch *b = &ch->batch;
	struct multifd_header h;
	struct block *block;
	const uint8_t *bytes;

	if (stream_peek(&ch->s, multifd_header_len(page), &bytes, err) ||
	    multifd_header_unpack(bytes, page, &h, err))
		return -1;
	stream_skip(&ch->s, multifd_header_len(page));
	*sync = h.flags & MULTIFD_SYNC;
	if (!h.normal && !h.zero)
		return 0;
	block = image_find(t->img, h.block, strlen(h.block));
	if (!block) {
		char shown[520];

		return err_set(err, ST_DATA, "a packet for the unknown block '%s'",
			       log_escape(shown, sizeof(shown), h.block, strlen(h.block)));
	}
	batch_reset(b, block);
	b->n = h.normal + h.zero;
	b->nzero = h.zero;
	for (uint32_t i = 0; i < b->n; i++) {
		b->offset[i] = h.offset[i];
		b->zero[i] = i >= h.normal;
	}
	if (h.normal) {
		struct iovec iov = { b->buf, (size_t)h.normal * page };

		if (read_payload(ch, h.flags, h.payload, &iov, 1, h.normal * page, err))
			return -1;
	}
	return place(ch, err);
}

/* Data runs into the batch, zero runs (which may be longer than a batch) placed here. */
static int take_runs(struct recv_channel *ch, const struct multifd2_header *h, struct error *err)
{
	struct target *t = ch->m->t;
	struct page_batch *b = &ch->batch;

	for (uint32_t i = 0; i < h->nruns; i++) {
		const struct multifd2_run *r = &h->runs[i];

		if (r->zero) {
			uint64_t len = (uint64_t)r->pages * b->page;

			if (begin_placing(ch->m, err))
				return -1;
			stat_add(&t->ss->stats.duplicate, r->pages);
			stat_add(&t->ss->stats.travelled, len);
			if (end_placing(ch->m,
					image_place_zero(t->img, b->block, r->offset, len, err)))
				return -1;
			continue;
		}
		for (uint32_t k = 0; k < r->pages; k++, b->n++) {
			b->offset[b->n] = r->offset + (uint64_t)k * b->page;
			b->zero[b->n] = false;
		}
	}
	return 0;
}

static int packet_v2(struct recv_channel *ch, bool *sync, struct error *err)
{
	struct target *t = ch->m->t;
	struct page_batch *b = &ch->batch;
	struct multifd2_header h;
	const uint8_t *bytes;
	struct iovec iov;

	if (stream_peek(&ch->s, MULTIFD2_FIXED_LEN, &bytes, err) ||
	    multifd2_fixed_unpack(bytes, &h, err))
		return -1;
	stream_skip(&ch->s, MULTIFD2_FIXED_LEN);
	*sync = h.flags & MULTIFD_SYNC;
	if (!h.nruns && !h.payload)
		return 0;
	if (stream_peek(&ch->s, (size_t)h.nruns * MULTIFD2_RUN_LEN, &bytes, err) ||
	    multifd2_runs_unpack(bytes, t->img->target_page, &h, err))
		return -1;
	stream_skip(&ch->s, (size_t)h.nruns * MULTIFD2_RUN_LEN);
	if (h.block >= t->img->nblocks)
		return err_set(err, ST_DATA, "a packet for block %u, there are %u", h.block,
			       t->img->nblocks);
	batch_reset(b, &t->img->blocks[h.block]);
	if (take_runs(ch, &h, err))
		return -1;
	if (!h.raw)
		return 0;
	iov.iov_base = b->buf;
	iov.iov_len = h.raw;
	if (read_payload(ch, h.flags, h.payload, &iov, 1, h.raw, err))
		return -1;
	return place(ch, err);
}

/* ---- barriers ---- */

static int arrive(struct recv_channel *ch, struct error *err)
{
	struct multifd_recv *m = ch->m;
	struct cancel *c = &m->t->ss->cancel;
	int rc = 0;

	pthread_mutex_lock(&m->lock);
	ch->syncs++;
	pthread_cond_broadcast(&m->changed);
	/* behind the end nobody lets it go any more, and no page can come: it reads on to its end
	 */
	while (m->released < ch->syncs && !m->sealed && !cancel_fired(c))
		cond_wait_briefly(&m->changed, &m->lock);
	if (m->released < ch->syncs && !m->sealed)
		rc = cancel_reason(c, err);
	pthread_mutex_unlock(&m->lock);
	return rc;
}

/* -1 with the channel that has ended before its SYNC; 1: all are there. */
static int all_arrived(const struct multifd_recv *m, uint64_t want, struct error *err)
{
	bool all = true;

	for (unsigned i = 0; i < m->n; i++) {
		if (m->channels[i].syncs >= want)
			continue;
		if (m->channels[i].ended)
			return err_set(err, ST_SOCKET, "multifd channel %u ended before its SYNC",
				       i);
		all = false;
	}
	return all;
}

int multifd_recv_sync(struct multifd_recv *m, struct error *err)
{
	struct cancel *c = &m->t->ss->cancel;
	uint64_t want;
	int rc;

	pthread_mutex_lock(&m->lock);
	want = m->released + 1;
	while (!(rc = all_arrived(m, want, err)) && !cancel_fired(c))
		cond_wait_briefly(&m->changed, &m->lock);
	if (rc == 0)
		rc = cancel_reason(c, err);
	if (rc > 0) {
		m->released = want;
		pthread_cond_broadcast(&m->changed);
	}
	pthread_mutex_unlock(&m->lock);
	return rc < 0 ? -1 : 0;
}

/* ---- a channel's thread ---- */

static int channel_loop(struct recv_channel *ch, struct error *err)
{
	bool v2 = ch->m->t->ss->dialect.multifd2;
	uint64_t counted = 0;

	for (;;) {
		bool eof, sync;

		if (stream_at_eof(&ch->s, &eof, err))
			return -1;
		if (eof)
			return 0;
		if (v2 ? packet_v2(ch, &sync, err) : packet_v1(ch, &sync, err))
			return -1;
		stat_add(&ch->m->t->ss->stats.multifd_bytes, ch->s.bytes_in - counted);
		counted = ch->s.bytes_in;
		if (sync && arrive(ch, err))
			return -1;
	}
}

static void *channel_main(void *arg)
{
	struct recv_channel *ch = arg;
	struct multifd_recv *m = ch->m;
	struct error err;
	int rc = channel_loop(ch, &err);

	/* how a channel ends does not matter any more then, but what it says does */
	if (rc && (!m->t->ss->stream_over || err.status == ST_DATA)) {
		err_prefix(&err, "multifd channel %u", ch->id);
		session_fail(m->t->ss, &err);
	}
	pthread_mutex_lock(&m->lock);
	ch->ended = true;
	pthread_cond_broadcast(&m->changed);
	pthread_mutex_unlock(&m->lock);
	return NULL;
}

/* ---- set-up ---- */

/* The connection is a channel of this session: keeps it under its number. */
static int keep(struct multifd_recv *m, struct transport *t, struct stream *s, unsigned id,
		struct error *err)
{
	struct recv_channel *ch;

	if (id >= m->n)
		return err_set(err, ST_DATA,
			       "multifd channel %u came, expected 0 to %u: do both ends "
			       "have the same multifd-channels?",
			       id, m->n - 1);
	ch = &m->channels[id];
	if (ch->t)
		return err_set(err, ST_DATA, "multifd channel %u came twice", id);
	t->lax_end = !m->t->ss->dialect.migtool;
	ch->t = t;
	ch->s = *s;
	return 0;
}

/* Judges one connection. 0: kept, 1: dropped, -1 */
static int take_connection(struct multifd_recv *m, struct transport *t, struct error *err)
{
	struct session *ss = m->t->ss;
	struct stream s;
	struct error why;
	unsigned id;

	memset(&s, 0, sizeof(s));
	if (stream_open(&s, t, 64 << 10, 0, &why) || link_take_hello(ss, &s, &id, &why)) {
		log_warn("dropped %s: %s", t->name, why.msg);
		stream_close(&s);
		transport_close(t, &why);
		return 1;
	}
	s.activity = &ss->stats.activity;
	if (!keep(m, t, &s, id, err))
		return 0;
	stream_close(&s);
	transport_close(t, &why);
	return -1;
}

static int accept_channels(struct multifd_recv *m, struct error *err)
{
	struct session *ss = m->t->ss;
	uint64_t deadline = link_deadline(link_timeout_ms(ss));
	unsigned got = 0;

	while (got < m->n) {
		struct transport *t = session_stashed(ss);
		int r = t ? 1 : link_next_channel(ss, deadline, &t, err);

		if (r < 0)
			return -1;
		if (!r) {
			err_set(err, ST_TIMEOUT, "%u of %u multifd channels came within %d s", got,
				m->n, (int)(link_timeout_ms(ss) / 1000));
			return err_hint(err,
					"both ends need multifd on and the same multifd-channels");
		}
		r = take_connection(m, t, err);
		if (r < 0)
			return -1;
		got += r == 0;
	}
	return 0;
}

/* We dialled the main one, so we dial these, and say which they are. */
static int dial_channels(struct multifd_recv *m, struct error *err)
{
	struct session *ss = m->t->ss;

	for (unsigned i = 0; i < m->n; i++) {
		struct transport *t = link_dial_extra(ss, err);
		struct stream s, hello;
		int rc;

		if (!t)
			return -1;
		memset(&s, 0, sizeof(s));
		memset(&hello, 0, sizeof(hello));
		rc = stream_open(&hello, t, 0, MULTIFD_INIT_LEN, err);
		if (!rc)
			rc = link_put_hello(ss, &hello, i, err);
		stream_close(&hello);
		if (!rc)
			rc = stream_open(&s, t, 64 << 10, 0, err);
		s.activity = &ss->stats.activity;
		if (!rc)
			rc = keep(m, t, &s, i, err);
		if (rc) {
			struct error ignored;

			stream_close(&s);
			transport_close(t, &ignored);
			return -1;
		}
	}
	return 0;
}

static int channel_start(struct recv_channel *ch, struct error *err)
{
	struct multifd_recv *m = ch->m;
	int e;

	if (m->ops && open_codec(ch, m->ops, err))
		return -1;
	if (!m->ops || ch->codec) {
		ch->in = malloc((size_t)2 * MULTIFD_PACKET_BYTES);
		if (!ch->in)
			return err_set(err, ST_NOMEM, "no memory for a multifd channel");
	}
	e = pthread_create(&ch->thread, NULL, channel_main, ch);
	if (e)
		return err_sys(err, ST_NOMEM, e, "cannot start the thread of a multifd channel");
	ch->started = true;
	return 0;
}

static int allocate(struct multifd_recv *m, struct error *err)
{
	m->channels = calloc(m->n, sizeof(*m->channels));
	m->memory = aligned_alloc(4096, (size_t)m->n * MULTIFD_PACKET_BYTES);
	if (!m->channels || !m->memory)
		return err_set(err, ST_NOMEM, "no memory for %u multifd channels", m->n);
	for (unsigned i = 0; i < m->n; i++) {
		m->channels[i].m = m;
		m->channels[i].id = i;
		m->channels[i].batch.page = m->t->ss->page_size;
		m->channels[i].batch.buf = m->memory + (size_t)i * MULTIFD_PACKET_BYTES;
	}
	return 0;
}

struct multifd_recv *multifd_recv_open(struct target *t, unsigned n, struct error *err)
{
	struct multifd_recv *m = calloc(1, sizeof(*m));

	if (!m) {
		err_set(err, ST_NOMEM, "no memory for multifd");
		return NULL;
	}
	m->t = t;
	m->n = n;
	if (t->ss->dialect.migtool || t->ss->cfg->params.given[PARAM_MULTIFD_COMPRESSION])
		m->ops = codec_find(t->ss->method);
	pthread_mutex_init(&m->lock, NULL);
	pthread_cond_init(&m->changed, NULL);
	if (allocate(m, err) ||
	    (t->ss->pending ? accept_channels(m, err) : dial_channels(m, err))) {
		multifd_recv_close(m, 0);
		return NULL;
	}
	return m;
}

int multifd_recv_start(struct multifd_recv *m, struct error *err)
{
	for (unsigned i = 0; i < m->n; i++)
		if (channel_start(&m->channels[i], err))
			return -1;
	return 0;
}

/* True when all threads are at the end of their channels. */
static bool all_ended(struct multifd_recv *m, int ms)
{
	bool all = false;

	pthread_mutex_lock(&m->lock);
	for (; !all && ms > 0; ms -= 100) {
		all = true;
		for (unsigned i = 0; i < m->n; i++)
			all = all && (m->channels[i].ended || !m->channels[i].started);
		if (!all)
			cond_wait_briefly(&m->changed, &m->lock);
	}
	pthread_mutex_unlock(&m->lock);
	return all;
}

void multifd_recv_close(struct multifd_recv *m, int ms)
{
	struct error ignored;

	if (!m)
		return;
	if (m->channels && !all_ended(m, ms))
		for (unsigned i = 0; i < m->n; i++)
			if (m->channels[i].t)
				transport_abort(m->channels[i].t);
	for (unsigned i = 0; m->channels && i < m->n; i++) {
		struct recv_channel *ch = &m->channels[i];

		if (ch->started)
			pthread_join(ch->thread, NULL);
		stream_close(&ch->s);
		transport_close(ch->t, &ignored);
		if (ch->codec)
			ch->ops->close(ch->codec);
		free(ch->in);
	}
	free(m->channels);
	free(m->memory);
	pthread_cond_destroy(&m->changed);
	pthread_mutex_destroy(&m->lock);
	free(m);
}
