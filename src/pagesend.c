// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Which record or batch a page becomes. Three roads, chosen once at set-up: batches to multifd's
 * channels, batches to the compression workers, or records written here by the migration thread.
 * The last also takes XBZRLE's pages, whose order matters, and every zero run.
 */
#include "source.h"

#include "byteorder.h"
#include "compress.h"
#include "multifd-send.h"
#include "xbzrle.h"

#include <string.h>

#define RUN_HEAD 12 /* be64 offset and flags, be32 pages */

/* ---- sections ---- */

int pagesend_section_open(struct source *src, enum wire_type type, struct error *err)
{
	struct wire_section sec = {
		.type = type, .id = RAM_SECTION_ID, .idstr = RAM_IDSTR, .version = RAM_VERSION
	};

	if (wire_put_section(&src->ss->stream, &sec, err))
		return -1;
	src->in_section = true;
	src->section_bytes = 0;
	return 0;
}

int pagesend_section_close(struct source *src, struct error *err)
{
	struct session *ss = src->ss;

	/* QEMU up to 8.0 has its barrier at every EOS, so a SYNC belongs before each */
	if (src->multifd && !ss->dialect.flush_word && multifd_send_sync(src->multifd, err))
		return -1;
	src->in_section = false;
	if (stream_put_be64(&ss->stream, RAM_EOS, err))
		return -1;
	return wire_put_footer(&ss->stream, RAM_SECTION_ID, err);
}

/* ---- records ---- */

int pagesend_record(struct source *src, const struct block *b, uint64_t offset, uint32_t flags,
		    struct error *err)
{
	if (src->last_block == b)
		flags |= RAM_CONTINUE;
	src->last_block = b;
	return ram_put_record(&src->ss->stream, offset, flags, b->name, err);
}

static int zero_records(struct source *src, const struct block *b, uint64_t offset, uint64_t len,
			struct error *err)
{
	struct stream *s = &src->ss->stream;

	if (src->ss->dialect.runs) {
		if (pagesend_record(src, b, offset, RAM_ZERO_RUN, err))
			return -1;
		return stream_put_be64(s, len, err);
	}
	for (uint64_t end = offset + len; offset < end; offset += src->img->target_page)
		if (pagesend_record(src, b, offset, RAM_ZERO, err) || stream_put_u8(s, 0, err))
			return -1;
	return 0;
}

/* XBZRLE's cache follows what the destination has, zero pages too, so that later writes hit. */
static void cache_zero(struct source *src, const struct block *b, uint64_t offset, uint64_t len);

int pagesend_zero(struct source *src, struct block *b, uint64_t offset, uint64_t len,
		  struct error *err)
{
	stat_add(&src->ss->stats.duplicate, len / src->img->target_page);
	sent_digest_zero(&src->digest, b, offset, len);
	if (src->cache && src->round > 1)
		cache_zero(src, b, offset, len);
	return zero_records(src, b, offset, len, err);
}

int pagesend_batch_zeros(struct source *src, const struct page_batch *b, struct error *err)
{
	stat_add(&src->ss->stats.duplicate, b->nzero);
	for (uint32_t i = 0, run; i < b->n; i += run) {
		run = batch_run(b, i);
		if (b->zero[i] &&
		    zero_records(src, b->block, b->offset[i], (uint64_t)run * b->page, err))
			return -1;
	}
	return 0;
}

/*
 * Whole pages, in runs between migtools: one writev for the batch, the runs' heads beside it. Out
 * of the buffer and not by sendfile: the buffer was just read and hashed, so it is in the cache,
 * and the receiver copies out of large fresh segments. Sent from the file, the receiver has to
 * fetch every page from memory: 0.34 instead of 0.30 CPU seconds for 655 MiB there, and it is what
 * limits.
 */
static int send_runs(struct source *src, struct page_batch *b, struct error *err)
{
	struct stream *s = &src->ss->stream;
	struct iovec iov[2 * MULTIFD_PAGES_MAX];
	uint8_t heads[MULTIFD_PAGES_MAX][RUN_HEAD];
	int n = 0;

	for (uint32_t i = 0, run; i < b->n; i += run) {
		run = batch_run(b, i);
		if (b->zero[i])
			continue;
		if (n) {
			put_be64(heads[i], b->offset[i] | RAM_RUN | RAM_CONTINUE);
			put_be32(heads[i] + 8, run);
			iov[n++] = (struct iovec){ heads[i], RUN_HEAD };
		} else if (pagesend_record(src, b->block, b->offset[i], RAM_RUN, err) ||
			   stream_put_be32(s, run, err)) {
			return -1; /* the first one may have to name the block: into the buffer */
		}
		iov[n++] = (struct iovec){ batch_page(b, i), (size_t)run * b->page };
	}
	return n ? stream_writev(s, iov, n, err) : 0;
}

/*
 * Towards a QEMU: be64 before every page. One writev for the batch instead of one a page; the words
 * live in an array beside the pages.
 */
static int send_pages(struct source *src, struct page_batch *b, struct error *err)
{
	struct stream *s = &src->ss->stream;
	struct iovec iov[2 * MULTIFD_PAGES_MAX];
	uint64_t words[MULTIFD_PAGES_MAX];
	uint32_t i = 0;
	int n = 0;

	while (i < b->n && b->zero[i])
		i++;
	if (i == b->n)
		return 0;
	/* the first one may have to name the block: into the buffer */
	if (pagesend_record(src, b->block, b->offset[i], RAM_PAGE, err))
		return -1;
	iov[n].iov_base = batch_page(b, i);
	iov[n++].iov_len = b->page;
	for (i++; i < b->n; i++) {
		if (b->zero[i])
			continue;
		words[i] = htobe64(b->offset[i] | RAM_PAGE | RAM_CONTINUE);
		iov[n].iov_base = &words[i];
		iov[n++].iov_len = sizeof(words[i]);
		iov[n].iov_base = batch_page(b, i);
		iov[n++].iov_len = b->page;
	}
	return stream_writev(s, iov, n, err);
}

static int send_plain(struct source *src, struct page_batch *b, struct error *err)
{
	stat_add(&src->ss->stats.normal, b->n - b->nzero);
	return src->ss->dialect.runs ? send_runs(src, b, err) : send_pages(src, b, err);
}

/* ---- XBZRLE ---- */

/* An address that is unique over all blocks, for the cache. */
static uint64_t global_address(const struct source *src, const struct block *b, uint64_t offset)
{
	uint64_t base = 0;

	for (unsigned i = 0; i < b->index; i++)
		base += src->img->blocks[i].size;
	return base + offset;
}

static void cache_zero(struct source *src, const struct block *b, uint64_t offset, uint64_t len)
{
	static const uint8_t zeros[65536];

	for (uint64_t o = offset; o < offset + len; o += src->img->target_page)
		page_cache_insert(src->cache, global_address(src, b, o), zeros, src->round);
}

/* 1: sent (or nothing had to be), 0: send the whole page, -1 */
static int send_delta(struct source *src, struct page_batch *b, uint32_t i, const uint8_t *old,
		      struct error *err)
{
	struct stream *s = &src->ss->stream;
	struct stats *st = &src->ss->stats;
	int len = xbzrle_encode(old, batch_page(b, i), b->page, src->delta, b->page);

	stat_add(&st->xbzrle_encode_in, b->page);
	if (len < 0) {
		stat_add(&st->xbzrle_overflow, 1);
		return 0;
	}
	if (len == 0) {
		stat_add(&st->skipped, 1);
		return 1;
	}
	if (pagesend_record(src, b->block, b->offset[i], RAM_XBZRLE, err) ||
	    stream_put_u8(s, 1, err) || stream_put_be16(s, (uint16_t)len, err) ||
	    stream_write(s, src->delta, (size_t)len, err))
		return -1;
	stat_add(&st->xbzrle_pages, 1);
	stat_add(&st->xbzrle_bytes, (uint64_t)len);
	return 1;
}

/* Against the cache: what was sent last, if it is still there. */
static int send_cached(struct source *src, struct page_batch *b, uint32_t i, struct error *err)
{
	uint64_t addr = global_address(src, b->block, b->offset[i]);
	uint8_t *old = page_cache_lookup(src->cache, addr, src->round);
	int rc = 0;

	if (old) {
		rc = send_delta(src, b, i, old, err);
		memcpy(old, batch_page(b, i), b->page);
	} else {
		stat_add(&src->ss->stats.xbzrle_cache_miss, 1);
		page_cache_insert(src->cache, addr, batch_page(b, i), src->round);
	}
	return rc;
}

/* Against --base: what the destination has had all the time. The buffer is the batch's own. */
static int send_against_base(struct source *src, struct page_batch *b, uint32_t i,
			     struct error *err)
{
	struct block *old = image_find(src->base, b->block->name, strlen(b->block->name));
	uint8_t *page = src->delta + b->page;

	if (!old || b->offset[i] + b->page > old->size)
		return 0;
	if (image_read(src->base, old, b->offset[i], page, b->page, err))
		return -1;
	return send_delta(src, b, i, page, err);
}

static int send_xbzrle(struct source *src, struct page_batch *b, struct error *err)
{
	for (uint32_t i = 0; i < b->n; i++) {
		struct iovec iov = { batch_page(b, i), b->page };
		int rc;

		if (b->zero[i]) {
			if (src->cache && src->round > 1)
				cache_zero(src, b->block, b->offset[i], b->page);
			continue;
		}
		rc = src->base && src->round == 1 ? send_against_base(src, b, i, err)
						  : send_cached(src, b, i, err);
		if (rc < 0)
			return -1;
		if (rc)
			continue;
		stat_add(&src->ss->stats.normal, 1);
		if (pagesend_record(src, b->block, b->offset[i], RAM_PAGE, err) ||
		    stream_writev(&src->ss->stream, &iov, 1, err))
			return -1;
	}
	return 0;
}

/* XBZRLE starts after the first pass, or at once when there is an old copy. */
static bool xbzrle_now(const struct source *src)
{
	return src->cache && (src->round > 1 || src->base);
}

/* ---- batches ---- */

struct page_batch *pagesend_get(struct source *src, struct error *err)
{
	void *item;

	if (src->multifd)
		return multifd_send_get(src->multifd, err);
	if (src->compressor && !xbzrle_now(src)) {
		struct page_batch *b;

		if (compressor_get(src->compressor, &b, err))
			return NULL;
		if (b)
			return b; /* else all workers are busy and compress-wait-thread is off */
	}
	return queue_get(&src->pool.free, &item, &src->ss->cancel, err) > 0 ? item : NULL;
}

static int send_inline(struct source *src, struct page_batch *b, struct error *err)
{
	int rc = batch_load(b, src->img, &src->digest, err);

	if (!rc && b->nzero)
		rc = pagesend_batch_zeros(src, b, err);
	if (!rc)
		rc = xbzrle_now(src) ? send_xbzrle(src, b, err) : send_plain(src, b, err);
	stat_add(&src->ss->stats.travelled, (uint64_t)b->n * b->page);
	queue_put(&src->pool.free, b);
	return rc;
}

int pagesend_put(struct source *src, struct page_batch *b, struct error *err)
{
	src->section_bytes += (uint64_t)b->n * b->page;
	if (src->multifd) {
		multifd_send_put(src->multifd, b);
		return 0;
	}
	if (src->compressor && compressor_owns(src->compressor, b)) {
		compressor_put(src->compressor, b);
		return 0;
	}
	return send_inline(src, b, err);
}

int pagesend_barrier(struct source *src, struct error *err)
{
	struct session *ss = src->ss;

	if (src->compressor && compressor_drain(src->compressor, err))
		return -1;
	if (!src->multifd || !ss->dialect.flush_word)
		return 0;
	if (multifd_send_sync(src->multifd, err))
		return -1;
	return stream_put_be64(&ss->stream, RAM_MULTIFD_FLUSH, err);
}
