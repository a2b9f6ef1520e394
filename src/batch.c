// SPDX-License-Identifier: GPL-2.0-or-later
#include "batch.h"

#include "zero.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

int batch_pool_init(struct batch_pool *p, unsigned count, uint32_t page, struct error *err)
{
	size_t bytes = (size_t)count * MULTIFD_PACKET_BYTES;

	memset(p, 0, sizeof(*p));
	if (queue_init(&p->free, count, err))
		return -1;
	p->all = calloc(count, sizeof(*p->all));
	p->memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p->memory == MAP_FAILED)
		p->memory = NULL;
	if (!p->all || !p->memory) {
		if (p->memory)
			munmap(p->memory, bytes);
		free(p->all);
		queue_destroy(&p->free);
		memset(p, 0, sizeof(*p));
		return err_set(err, ST_NOMEM, "no memory for %u batches of %u bytes", count,
			       MULTIFD_PACKET_BYTES);
	}
	p->count = count;
	for (unsigned i = 0; i < count; i++) {
		p->all[i].page = page;
		p->all[i].buf = p->memory + (size_t)i * MULTIFD_PACKET_BYTES;
		queue_put(&p->free, &p->all[i]);
	}
	return 0;
}

void batch_pool_destroy(struct batch_pool *p)
{
	if (!p->count)
		return;
	munmap(p->memory, (size_t)p->count * MULTIFD_PACKET_BYTES);
	free(p->all);
	queue_destroy(&p->free);
	p->count = 0;
}

void batch_reset(struct page_batch *b, struct block *block)
{
	b->block = block;
	b->n = 0;
	b->nzero = 0;
}

uint32_t batch_run(const struct page_batch *b, uint32_t i)
{
	uint32_t k = i + 1;

	while (k < b->n && b->offset[k] == b->offset[k - 1] + b->page && b->zero[k] == b->zero[i])
		k++;
	return k - i;
}

/* ---- source ---- */

int sent_digest_init(struct sent_digest *d, const struct image *img, bool changing,
		     struct error *err)
{
	memset(d, 0, sizeof(*d));
	pthread_mutex_init(&d->lock, NULL);
	if (!changing)
		return 0;
	d->terms = calloc(img->nblocks, sizeof(*d->terms));
	for (unsigned i = 0; d->terms && i < img->nblocks; i++) {
		d->terms[i] = calloc(img->blocks[i].size / DIGEST_PAGE + 1, sizeof(**d->terms));
		if (!d->terms[i]) {
			sent_digest_destroy(d, img);
			break;
		}
	}
	return d->terms ? 0 : err_set(err, ST_NOMEM, "no memory for the digest's table");
}

void sent_digest_destroy(struct sent_digest *d, const struct image *img)
{
	for (unsigned i = 0; d->terms && i < img->nblocks; i++)
		free(d->terms[i]);
	free(d->terms);
	d->terms = NULL;
	pthread_mutex_destroy(&d->lock);
}

/* Replaces the term of one 4096-byte page in the table; returns the old one. */
static struct digest replace_term(struct sent_digest *d, const struct block *b, uint64_t offset,
				  struct digest now)
{
	struct digest *slot = &d->terms[b->index][offset / DIGEST_PAGE], old = *slot;

	*slot = now;
	return old;
}

void sent_digest_zero(struct sent_digest *d, const struct block *b, uint64_t offset, uint64_t len)
{
	struct digest none = { 0, 0 }, gone = { 0, 0 };

	if (!d->terms)
		return;
	for (uint64_t o = offset; o < offset + len; o += DIGEST_PAGE)
		digest_add(&gone, replace_term(d, b, o, none));
	pthread_mutex_lock(&d->lock);
	digest_sub(&d->sum, gone);
	pthread_mutex_unlock(&d->lock);
}

void sent_digest_have(struct sent_digest *d, const struct block *b, uint64_t offset,
		      struct digest term, struct digest *sum)
{
	digest_add(sum, term);
	if (d->terms)
		digest_sub(sum, replace_term(d, b, offset, term));
}

void sent_digest_add(struct sent_digest *d, struct digest sum)
{
	pthread_mutex_lock(&d->lock);
	digest_add(&d->sum, sum);
	pthread_mutex_unlock(&d->lock);
}

/* The terms of one target page, in steps of the digest's page. */
static void account(const struct page_batch *b, uint32_t i, struct sent_digest *d,
		    struct digest *sum)
{
	const uint8_t *p = batch_page(b, i);

	for (uint32_t o = 0; o < b->page; o += DIGEST_PAGE) {
		struct digest term = { 0, 0 };

		/* a target page of 16 or 64 KiB may hold zero pages of 4 KiB, which count 0 */
		if (!b->zero[i] && (b->page == DIGEST_PAGE || !zero_is(p + o, DIGEST_PAGE)))
			term = digest_page(&b->block->digest, b->offset[i] + o, p + o, DIGEST_PAGE);
		digest_add(sum, term);
		if (d->terms)
			digest_sub(sum, replace_term(d, b->block, b->offset[i] + o, term));
	}
}

int batch_read(struct page_batch *b, const struct image *img, struct error *err)
{
	b->nzero = 0;
	for (uint32_t i = 0, run; i < b->n; i += run) {
		for (run = 1; i + run < b->n; run++)
			if (b->offset[i + run] != b->offset[i] + (uint64_t)run * b->page)
				break;
		if (image_read(img, b->block, b->offset[i], batch_page(b, i), (size_t)run * b->page,
			       err))
			return -1;
	}
	for (uint32_t i = 0; i < b->n; i++) {
		b->zero[i] = zero_is(batch_page(b, i), b->page);
		b->nzero += b->zero[i];
	}
	return 0;
}

void batch_account(const struct page_batch *b, struct sent_digest *d)
{
	struct digest sum = { 0, 0 };

	for (uint32_t i = 0; i < b->n; i++)
		account(b, i, d, &sum);
	sent_digest_add(d, sum);
}

int batch_load(struct page_batch *b, const struct image *img, struct sent_digest *d,
	       struct error *err)
{
	if (batch_read(b, img, err))
		return -1;
	batch_account(b, d);
	return 0;
}

/* ---- destination ---- */

int batch_place(struct page_batch *b, struct image *img, struct error *err)
{
	for (uint32_t i = 0, run; i < b->n; i += run) {
		uint64_t len;
		int rc;

		run = batch_run(b, i);
		len = (uint64_t)run * b->page;
		rc = b->zero[i]
			     ? image_place_zero(img, b->block, b->offset[i], len, err)
			     : image_place(img, b->block, b->offset[i], batch_page(b, i), len, err);
		if (rc)
			return -1;
	}
	return 0;
}
