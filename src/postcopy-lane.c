// SPDX-License-Identifier: GPL-2.0-or-later
#include "postcopy-lane.h"

#include "byteorder.h"

#define HEAD	 9  /* be64 offset and flags, a zero page's fill byte */
#define RUN_HEAD 16 /* be64 offset and flags, be32 pages or be64 bytes */

int lane_open(struct lane *l, struct source *src, struct stream *s, struct error *err)
{
	l->src = src;
	l->s = s;
	l->last = NULL;
	return batch_pool_init(&l->pool, 1, src->img->target_page, err);
}

void lane_close(struct lane *l)
{
	batch_pool_destroy(&l->pool);
}

/* To a QEMU, which knows single pages: one writev, heads lie beside the pages. */
static int put_pages(struct lane *l, struct page_batch *b, struct error *err)
{
	struct iovec iov[2 * MULTIFD_PAGES_MAX];
	uint8_t heads[MULTIFD_PAGES_MAX][HEAD];
	int n = 0;

	for (uint32_t i = 0; i < b->n; i++) {
		uint32_t type = b->zero[i] ? RAM_ZERO : RAM_PAGE;

		put_be64(heads[i], b->offset[i] | type | RAM_CONTINUE);
		heads[i][8] = 0;
		if (l->last != b->block) {
			/* the first one names the block: into the buffer */
			if (ram_put_record(l->s, b->offset[i], type, b->block->name, err) ||
			    (b->zero[i] && stream_put_u8(l->s, 0, err)))
				return -1;
			l->last = b->block;
		} else {
			iov[n++] = (struct iovec){ heads[i], b->zero[i] ? HEAD : HEAD - 1 };
		}
		if (!b->zero[i])
			iov[n++] = (struct iovec){ batch_page(b, i), b->page };
	}
	return stream_writev(l->s, iov, n, err);
}

/* The head of `len` bytes at `offset` in head[]; its length. */
static size_t run_head(uint8_t *head, uint64_t offset, uint64_t len, uint32_t page, bool zero)
{
	put_be64(head, offset | (zero ? RAM_ZERO_RUN : RAM_RUN) | RAM_CONTINUE);
	if (zero)
		put_be64(head + 8, len);
	else
		put_be32(head + 8, (uint32_t)(len / page));
	return zero ? RUN_HEAD : RUN_HEAD - 4;
}

/* The same head, and the block's name: into the buffer. */
static int put_first(struct lane *l, const struct block *b, uint64_t offset, uint64_t len,
		     uint32_t page, bool zero, struct error *err)
{
	if (ram_put_record(l->s, offset, zero ? RAM_ZERO_RUN : RAM_RUN, b->name, err))
		return -1;
	l->last = b;
	return zero ? stream_put_be64(l->s, len, err)
		    : stream_put_be32(l->s, (uint32_t)(len / page), err);
}

/* To a migtool: in runs. */
static int put_runs(struct lane *l, struct page_batch *b, struct error *err)
{
	struct iovec iov[2 * MULTIFD_PAGES_MAX];
	uint8_t heads[MULTIFD_PAGES_MAX][RUN_HEAD];
	int n = 0;

	for (uint32_t i = 0, run; i < b->n; i += run) {
		uint64_t len;

		run = batch_run(b, i);
		len = (uint64_t)run * b->page;
		if (l->last == b->block)
			iov[n++] = (struct iovec){ heads[i], run_head(heads[i], b->offset[i], len,
								      b->page, b->zero[i]) };
		else if (put_first(l, b->block, b->offset[i], len, b->page, b->zero[i], err))
			return -1;
		if (!b->zero[i])
			iov[n++] = (struct iovec){ batch_page(b, i), (size_t)len };
	}
	return stream_writev(l->s, iov, n, err);
}

static void count(struct source *src, const struct page_batch *b)
{
	struct stats *st = &src->ss->stats;

	stat_add(&st->duplicate, b->nzero);
	stat_add(&st->normal, b->n - b->nzero);
	stat_add(&st->travelled, (uint64_t)(b->n - b->nzero) * b->page);
	stat_add(&st->postcopy_pages, b->n);
}

static int send_pages(struct lane *l, const struct page_run *run, bool again, struct error *err)
{
	struct source *src = l->src;
	struct page_batch *b = l->pool.all;
	uint32_t page = src->img->target_page, room = batch_room(page);
	bool runs = src->ss->dialect.runs;

	for (uint64_t at = 0; at < run->len;) {
		batch_reset(b, run->block);
		for (; at < run->len && b->n < room; at += page)
			b->offset[b->n++] = run->offset + at;
		if (batch_read(b, src->img, err) ||
		    (runs ? put_runs(l, b, err) : put_pages(l, b, err)) || stream_flush(l->s, err))
			return -1;
		if (again)
			continue;
		/* behind it: somebody may be waiting for these */
		batch_account(b, &src->digest);
		count(src, b);
	}
	return 0;
}

int lane_send(struct lane *l, const struct page_run *run, struct error *err)
{
	return send_pages(l, run, false, err);
}

int lane_send_again(struct lane *l, const struct page_run *run, struct error *err)
{
	return send_pages(l, run, true, err);
}

int lane_send_zero(struct lane *l, const struct page_run *run, struct error *err)
{
	struct stats *st = &l->src->ss->stats;
	uint32_t page = l->src->img->target_page;
	uint8_t head[RUN_HEAD];
	size_t n;

	stat_add(&st->duplicate, run->len / page);
	stat_add(&st->postcopy_pages, run->len / page);
	sent_digest_zero(&l->src->digest, run->block, run->offset, run->len);
	if (l->last != run->block)
		return put_first(l, run->block, run->offset, run->len, page, true, err);
	n = run_head(head, run->offset, run->len, page, true);
	return stream_write(l->s, head, n, err);
}
