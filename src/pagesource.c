// SPDX-License-Identifier: GPL-2.0-or-later
#include "pagesource.h"

#include "bitmap.h"
#include "queue.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* A guest asks once a vCPU, or an I/O thread: more wait on its side of the connection. */
#define ASKED_MAX 1024

struct pagesource {
	const struct image *img;
	uint32_t page;
	uint32_t unit; /* the destination's; 0: it has not said */
	int asked_fd;  /* eventfd: readable while `n` is not 0 */

	pthread_mutex_t lock; /* of all that follows */
	pthread_cond_t room;
	struct bitmap *sent;   /* per block, a bit a target page */
	struct bitmap *behind; /* what pagesource_next took of it, and nobody needed since */
	struct page_run asked[ASKED_MAX];
	unsigned first, n;
	unsigned block; /* where pagesource_next goes on */
	uint64_t offset;
};

struct pagesource *pagesource_new(const struct image *img, struct error *err)
{
	struct pagesource *ps = calloc(1, sizeof(*ps));
	int bad = 0;

	if (!ps) {
		err_set(err, ST_NOMEM, "no memory for postcopy");
		return NULL;
	}
	ps->img = img;
	ps->page = img->target_page;
	pthread_mutex_init(&ps->lock, NULL);
	pthread_cond_init(&ps->room, NULL);
	ps->asked_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	ps->sent = calloc(img->nblocks, sizeof(*ps->sent));
	ps->behind = calloc(img->nblocks, sizeof(*ps->behind));
	for (unsigned i = 0; ps->sent && ps->behind && i < img->nblocks; i++)
		bad |= bitmap_init(&ps->sent[i], img->blocks[i].size / ps->page) ||
		       bitmap_init(&ps->behind[i], img->blocks[i].size / ps->page);
	if (ps->asked_fd >= 0 && ps->sent && ps->behind && !bad)
		return ps;
	err_set(err, ST_NOMEM, "no memory for postcopy");
	pagesource_free(ps);
	return NULL;
}

void pagesource_free(struct pagesource *ps)
{
	if (!ps)
		return;
	for (unsigned i = 0; ps->sent && i < ps->img->nblocks; i++)
		bitmap_free(&ps->sent[i]);
	for (unsigned i = 0; ps->behind && i < ps->img->nblocks; i++)
		bitmap_free(&ps->behind[i]);
	free(ps->sent);
	free(ps->behind);
	if (ps->asked_fd >= 0)
		close(ps->asked_fd);
	pthread_cond_destroy(&ps->room);
	pthread_mutex_destroy(&ps->lock);
	free(ps);
}

uint64_t pagesource_unit(const struct pagesource *ps, const struct block *b)
{
	if (ps->unit)
		return ps->unit;
	return b->page_size > ps->page ? b->page_size : ps->page;
}

void pagesource_set_unit(struct pagesource *ps, uint32_t unit)
{
	ps->unit = unit;
}

/* ---- before the switch ---- */

void pagesource_sent(struct pagesource *ps, const struct block *b, uint64_t offset, uint64_t len)
{
	bitmap_set(&ps->sent[b->index], offset / ps->page, len / ps->page);
}

void pagesource_changed(struct pagesource *ps, const struct block *b, const struct bitmap *map)
{
	for (size_t i = bitmap_next_set(map, 0, map->bits); i < map->bits;
	     i = bitmap_next_set(map, i + 1, map->bits))
		bitmap_clear(&ps->sent[b->index], i, 1);
}

void pagesource_came(struct pagesource *ps, const struct block *b, const struct bitmap *map)
{
	for (size_t i = bitmap_next_set(map, 0, map->bits); i < map->bits;
	     i = bitmap_next_set(map, i + 1, map->bits))
		bitmap_set(&ps->sent[b->index], i, 1);
}

/* How many target pages of the unit there are at page i: the block may end in the middle. */
static size_t unit_pages(const struct pagesource *ps, const struct block *b, size_t i)
{
	size_t all = ps->sent[b->index].bits, n = pagesource_unit(ps, b) / ps->page;

	return i + n < all ? n : all - i;
}

void pagesource_settle(struct pagesource *ps)
{
	for (unsigned k = 0; k < ps->img->nblocks; k++) {
		const struct block *b = &ps->img->blocks[k];
		struct bitmap *sent = &ps->sent[k];
		size_t step = pagesource_unit(ps, b) / ps->page;

		for (size_t i = bitmap_next_clear(sent, 0, sent->bits); i < sent->bits;
		     i = bitmap_next_clear(sent, i + step, sent->bits)) {
			i -= i % step;
			bitmap_clear(sent, i, unit_pages(ps, b, i));
		}
	}
}

struct extent pagesource_partial(const struct pagesource *ps, const struct block *b, uint64_t from)
{
	const struct bitmap *sent = &ps->sent[b->index];
	size_t step = pagesource_unit(ps, b) / ps->page, at = from / ps->page, n = sent->bits;

	while ((at = bitmap_next_set(sent, at, n)) < n) {
		size_t unit = at - at % step, end = unit + unit_pages(ps, b, unit);
		size_t run = bitmap_next_clear(sent, at, end);

		if (bitmap_next_clear(sent, unit, end) < end)
			return (struct extent){ (uint64_t)at * ps->page,
						(uint64_t)(run - at) * ps->page };
		at = end;
	}
	return (struct extent){ 0, 0 };
}

void pagesource_unsent(struct pagesource *ps, const struct block *b, uint64_t offset)
{
	bitmap_clear(&ps->sent[b->index], offset / ps->page, unit_pages(ps, b, offset / ps->page));
}

struct extent pagesource_missing(const struct pagesource *ps, const struct block *b, uint64_t from)
{
	const struct bitmap *sent = &ps->sent[b->index];
	size_t i = bitmap_next_clear(sent, from / ps->page, sent->bits);
	size_t end = bitmap_next_set(sent, i, sent->bits);

	return (struct extent){ (uint64_t)i * ps->page, (uint64_t)(end - i) * ps->page };
}

/* ---- after it ---- */

uint64_t pagesource_left(struct pagesource *ps)
{
	uint64_t pages = 0;

	pthread_mutex_lock(&ps->lock);
	for (unsigned i = 0; i < ps->img->nblocks; i++)
		pages += ps->sent[i].bits - bitmap_count(&ps->sent[i]);
	pthread_mutex_unlock(&ps->lock);
	return pages * ps->page;
}

/* Takes units from page i, the first of one that is not sent, up to `end`. */
static struct page_run take_locked(struct pagesource *ps, struct block *b, size_t i, size_t end,
				   uint64_t max)
{
	struct bitmap *sent = &ps->sent[b->index];
	size_t at = i, limit = i + max / ps->page;

	do {
		size_t n = unit_pages(ps, b, at);

		bitmap_set(sent, at, n);
		at += n;
	} while (at < end && at < limit && !bitmap_test(sent, at));
	return (struct page_run){ b, (uint64_t)i * ps->page, (uint64_t)(at - i) * ps->page };
}

static bool missing_locked(const struct pagesource *ps, const struct block *b, uint64_t offset,
			   uint64_t len)
{
	size_t end = (offset + len) / ps->page;

	return bitmap_next_clear(&ps->sent[b->index], offset / ps->page, end) < end;
}

int pagesource_ask(struct pagesource *ps, struct block *b, uint64_t offset, uint64_t len,
		   struct cancel *cancel, struct error *err)
{
	uint64_t one = 1;

	pthread_mutex_lock(&ps->lock);
	/* nobody takes from here when all was sent, and what comes behind has to be read */
	while (ps->n == ASKED_MAX && missing_locked(ps, b, offset, len) && !cancel_fired(cancel))
		cond_wait_briefly(&ps->room, &ps->lock);
	if (ps->n < ASKED_MAX && missing_locked(ps, b, offset, len)) {
		ps->asked[(ps->first + ps->n++) % ASKED_MAX] = (struct page_run){ b, offset, len };
		while (write(ps->asked_fd, &one, sizeof(one)) < 0 && errno == EINTR)
			;
	}
	pthread_mutex_unlock(&ps->lock);
	return cancel_fired(cancel) ? cancel_reason(cancel, err) : 0;
}

static void pop_locked(struct pagesource *ps)
{
	uint64_t count;

	ps->first = (ps->first + 1) % ASKED_MAX;
	ps->n--;
	if (!ps->n)
		while (read(ps->asked_fd, &count, sizeof(count)) < 0 && errno == EINTR)
			;
	pthread_cond_signal(&ps->room);
}

bool pagesource_asked(struct pagesource *ps, uint64_t max, struct page_run *out)
{
	bool found = false;

	pthread_mutex_lock(&ps->lock);
	while (ps->n && !found) {
		struct page_run *a = &ps->asked[ps->first];
		struct bitmap *sent = &ps->sent[a->block->index];
		size_t end = (a->offset + a->len) / ps->page;
		size_t i = bitmap_next_clear(sent, a->offset / ps->page, end);

		if (i >= end) {
			pop_locked(ps);
			continue;
		}
		*out = take_locked(ps, a->block, i, end, max);
		ps->block = out->block->index;
		ps->offset = out->offset + out->len;
		found = true;
	}
	pthread_mutex_unlock(&ps->lock);
	return found;
}

bool pagesource_take(struct pagesource *ps, struct block *b, uint64_t offset, uint64_t len,
		     struct page_run *out)
{
	size_t end = (offset + len) / ps->page, i;

	pthread_mutex_lock(&ps->lock);
	i = bitmap_next_clear(&ps->sent[b->index], offset / ps->page, end);
	if (i < end)
		*out = take_locked(ps, b, i, end, len);
	pthread_mutex_unlock(&ps->lock);
	return i < end;
}

bool pagesource_again(struct pagesource *ps, struct block *b, uint64_t offset, uint64_t len)
{
	struct bitmap *behind = &ps->behind[b->index];
	size_t first = offset / ps->page;
	bool was;

	if (len > pagesource_unit(ps, b))
		return false;
	pthread_mutex_lock(&ps->lock);
	was = bitmap_test(behind, first);
	bitmap_clear(behind, first, len / ps->page);
	pthread_mutex_unlock(&ps->lock);
	return was;
}

bool pagesource_next(struct pagesource *ps, uint64_t max, struct page_run *out)
{
	unsigned n = ps->img->nblocks;
	bool found = false;

	pthread_mutex_lock(&ps->lock);
	/* the block where it went on once more, for what lies before that place */
	for (unsigned k = 0; k <= n && !found; k++) {
		struct bitmap *sent = &ps->sent[ps->block];
		size_t i = bitmap_next_clear(sent, ps->offset / ps->page, sent->bits);

		if (i < sent->bits) {
			*out = take_locked(ps, &ps->img->blocks[ps->block], i, sent->bits, max);
			ps->offset = out->offset + out->len;
			bitmap_set(&ps->behind[ps->block], i, out->len / ps->page);
			found = true;
		} else {
			ps->block = (ps->block + 1) % n;
			ps->offset = 0;
		}
	}
	pthread_mutex_unlock(&ps->lock);
	return found;
}

int pagesource_wait(struct pagesource *ps, int ms, struct cancel *cancel, struct error *err)
{
	return cancel_wait(cancel, ps->asked_fd, POLLIN, ms, err);
}
