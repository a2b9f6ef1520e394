// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Pages that came before COMMIT. They stay out of the guest until then: in memory of ours, or in
 * IMAGE.part where the guest's memory is kept beside it anyway. Behind COMMIT a thread gives them
 * to the guest, what it waits for first, and whatever it has given is dropped here, so the two
 * together are not much more than the guest is.
 *
 * Of a unit, what the guest takes at once (known with LISTENING), all pages are here or none: the
 * source counts in the same way, and sends the others once more.
 *
 * The thread belongs to a try, for what it waits on does. When the connection breaks it ends, what
 * is left stays, and the next try goes on with it. If this process is killed it is gone, and who
 * serves the guest then asks for it: only what the guest has is noted as come.
 */
#include "ahead.h"

#include "bitmap.h"
#include "pull.h"
#include "queue.h"
#include "zero.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define CHUNK	  (64u << 10) /* in the background: what the guest waits for is behind one of these */
#define ASKED_MAX 256

struct place {
	uint8_t *mem; /* of the block's size; NULL: its own file */
	/* target pages: */
	struct bitmap here; /* here, and not in the guest */
	struct bitmap data; /* and not zero */
};

struct wish {
	unsigned block;
	size_t first, end; /* target pages: whole units */
};

struct ahead {
	struct lazy *l;
	struct image *img;
	uint32_t page, unit;
	struct place *places; /* a block each */
	uint8_t *buf;	      /* a chunk, or a unit */
	size_t buf_len;
	pthread_t thread;
	bool running;
	atomic_bool stop;
	atomic_bool given; /* COMMIT was taken: the guest may have it */

	pthread_mutex_t lock; /* of what follows */
	pthread_cond_t over;
	struct wish asked[ASKED_MAX];
	unsigned first, n;
	bool done; /* the thread is at its end */
	int rc;	   /* its result */
	struct error why;
};

/* ---- the place ---- */

static int open_place(struct place *p, const struct ahead *a, const struct block *b, bool kept)
{
	size_t pages = (size_t)(b->size / a->page);
	void *mem;

	if (bitmap_init(&p->here, pages) || bitmap_init(&p->data, pages))
		return -1;
	if (kept)
		return 0;
	mem = mmap(NULL, b->size, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (mem == MAP_FAILED)
		return -1;
	p->mem = mem;
	return 0;
}

struct ahead *ahead_new(struct lazy *l, struct image *img, bool kept, struct error *err)
{
	struct ahead *a = calloc(1, sizeof(*a));
	bool bad = !a;

	if (a) {
		a->l = l;
		a->img = img;
		a->page = a->unit = img->target_page;
		pthread_mutex_init(&a->lock, NULL);
		pthread_cond_init(&a->over, NULL);
		a->places = calloc(img->nblocks, sizeof(*a->places));
		bad = !a->places;
	}
	for (unsigned i = 0; !bad && i < img->nblocks; i++)
		bad = open_place(&a->places[i], a, &img->blocks[i], kept);
	if (!bad)
		return a;
	ahead_free(a);
	err_set(err, ST_NOMEM, "no memory for what comes ahead of the guest");
	return NULL;
}

void ahead_free(struct ahead *a)
{
	if (!a)
		return;
	for (unsigned i = 0; a->places && i < a->img->nblocks; i++) {
		struct place *p = &a->places[i];

		if (p->mem)
			munmap(p->mem, a->img->blocks[i].size);
		bitmap_free(&p->here);
		bitmap_free(&p->data);
	}
	free(a->places);
	free(a->buf);
	pthread_cond_destroy(&a->over);
	pthread_mutex_destroy(&a->lock);
	free(a);
}

/* What it held is held no more. */
static void release(const struct place *p, uint64_t offset, uint64_t len)
{
	/* pages of this host may be larger */
	if (p->mem && madvise(p->mem + offset, len, MADV_DONTNEED))
		memset(p->mem + offset, 0, len);
}

/* What it held is worth nothing. In a file it would stay: zeros that come later are not stored. */
static int wipe(struct ahead *a, unsigned block, uint64_t offset, uint64_t len, struct error *err)
{
	const struct place *p = &a->places[block];

	if (!p->mem)
		return image_place_zero(a->img, &a->img->blocks[block], offset, len, err);
	release(p, offset, len);
	return 0;
}

/* ---- what comes ---- */

uint8_t *ahead_room(struct ahead *a, const struct block *b, uint64_t offset)
{
	uint8_t *mem = a->places[b->index].mem;

	return mem ? mem + offset : NULL;
}

/* The terms of a page of 4096 bytes or more. */
static struct digest terms(const struct block *b, uint64_t offset, const uint8_t *p, size_t len)
{
	struct digest sum = { 0, 0 };

	for (size_t o = 0; o < len; o += DIGEST_PAGE)
		if (!zero_is(p + o, DIGEST_PAGE))
			digest_add(&sum, digest_page(&b->digest, offset + o, p + o, DIGEST_PAGE));
	return sum;
}

int ahead_took(struct ahead *a, struct block *b, uint64_t offset, const uint8_t *buf, size_t len,
	       struct digest *sum, uint64_t *zeros, struct error *err)
{
	struct place *p = &a->places[b->index];
	size_t first = (size_t)(offset / a->page);

	*zeros = 0;
	if (!p->mem && image_place(a->img, b, offset, buf, len, err))
		return -1;
	for (size_t o = 0; o < len; o += a->page) {
		if (zero_is(buf + o, a->page)) {
			++*zeros;
			continue;
		}
		bitmap_set(&p->data, first + o / a->page, 1);
		digest_add(sum, terms(b, offset + o, buf + o, a->page));
	}
	bitmap_set(&p->here, first, len / a->page);
	return 0;
}

int ahead_took_zero(struct ahead *a, struct block *b, uint64_t offset, uint64_t len,
		    struct digest *sum, struct error *err)
{
	struct place *p = &a->places[b->index];

	if (ahead_drop(a, b, offset, len, sum, err))
		return -1;
	bitmap_set(&p->here, (size_t)(offset / a->page), (size_t)(len / a->page));
	return 0;
}

/* A page that is data. */
static const uint8_t *look(struct ahead *a, const struct block *b, uint64_t offset, uint8_t *buf,
			   size_t len, struct error *err)
{
	const struct place *p = &a->places[b->index];

	if (p->mem)
		return p->mem + offset;
	return image_get_page(a->img, b, offset, buf, len, err) ? NULL : buf;
}

int ahead_drop(struct ahead *a, const struct block *b, uint64_t offset, uint64_t len,
	       struct digest *sum, struct error *err)
{
	struct place *p = &a->places[b->index];
	size_t first = (size_t)(offset / a->page), end = first + (size_t)(len / a->page);
	uint8_t buf[1u << 16]; /* as large as a target's page can be */

	for (size_t i = bitmap_next_set(&p->data, first, end); i < end;
	     i = bitmap_next_set(&p->data, i + 1, end)) {
		uint64_t at = (uint64_t)i * a->page;
		const uint8_t *was = look(a, b, at, buf, a->page, err);

		if (!was)
			return -1;
		digest_sub(sum, terms(b, at, was, a->page));
		if (wipe(a, b->index, at, a->page, err))
			return -1;
	}
	bitmap_clear(&p->data, first, end - first);
	bitmap_clear(&p->here, first, end - first);
	return 0;
}

int ahead_forget(struct ahead *a, struct error *err)
{
	for (unsigned i = 0; i < a->img->nblocks; i++) {
		struct place *p = &a->places[i];

		if (wipe(a, i, 0, a->img->blocks[i].size, err))
			return -1;
		bitmap_clear(&p->data, 0, p->data.bits);
		bitmap_clear(&p->here, 0, p->here.bits);
	}
	a->unit = a->page;
	return 0;
}

int ahead_settle(struct ahead *a, uint32_t unit, struct digest *sum, struct error *err)
{
	a->unit = unit;
	for (unsigned k = 0; k < a->img->nblocks; k++) {
		const struct block *b = &a->img->blocks[k];
		const struct bitmap *here = &a->places[k].here;
		size_t n = here->bits, i, end;

		for (size_t at = 0; (at = bitmap_next_clear(here, at, n)) < n; at = end) {
			i = at - at % (unit / a->page);
			end = i + unit / a->page < n ? i + unit / a->page : n;
			if (bitmap_next_set(here, i, end) < end &&
			    ahead_drop(a, b, (uint64_t)i * a->page, (uint64_t)(end - i) * a->page,
				       sum, err))
				return -1;
		}
	}
	return 0;
}

struct extent ahead_next(const struct ahead *a, const struct block *b, uint64_t from)
{
	const struct bitmap *here = &a->places[b->index].here;
	size_t i = bitmap_next_set(here, (size_t)(from / a->page), here->bits);
	size_t end = bitmap_next_clear(here, i, here->bits);

	return (struct extent){ (uint64_t)i * a->page, (uint64_t)(end - i) * a->page };
}

/* ---- into the guest ---- */

/*
 * From a unit that is here: its end, and those of its neighbours behind it that are like it. Never
 * further than what is here: the rest would be zeros that nobody sent.
 */
static size_t run_end(const struct ahead *a, const struct place *p, size_t i, size_t limit,
		      bool data)
{
	size_t step = a->unit / a->page, n = p->here.bits, at = i, end;

	do {
		at = at + step < n ? at + step : n;
		end = at + step < n ? at + step : n;
	} while (at < limit && bitmap_test(&p->here, at) &&
		 (bitmap_next_set(&p->data, at, end) < end) == data);
	return bitmap_next_clear(&p->here, i, at);
}

static int give_data(struct ahead *a, const struct block *b, uint64_t at, size_t len, bool asked,
		     struct error *err)
{
	const uint8_t *p = look(a, b, at, a->buf, len, err);
	struct pager *pager = a->l->pager;

	if (!p || lazy_keep(a->l, at, p, len, err))
		return -1;
	return asked ? pager_arrived_asked(pager, b->index, at, p, len, err)
		     : pager_arrived(pager, b->index, at, p, len, err);
}

static int give_zero(struct ahead *a, const struct block *b, uint64_t at, uint64_t len, bool asked,
		     struct error *err)
{
	struct pager *pager = a->l->pager;

	return asked && len <= a->unit
		       ? pager_arrived_asked(pager, b->index, at, NULL, (size_t)len, err)
		       : pager_arrived_zero(pager, b->index, at, len, err);
}

/* A run that begins at page i, which is here, and ends before `end`, or at a unit's end behind. */
static int give(struct ahead *a, unsigned block, size_t i, size_t end, bool asked,
		struct error *err)
{
	const struct block *b = &a->img->blocks[block];
	struct place *p = &a->places[block];
	size_t one = i + a->unit / a->page < p->here.bits ? i + a->unit / a->page : p->here.bits;
	bool data = bitmap_next_set(&p->data, i, one) < one;
	size_t room = i + a->buf_len / a->page, stop;
	uint64_t at = (uint64_t)i * a->page, len;
	int rc;

	stop = run_end(a, p, i, data && room < end ? room : end, data);
	len = (uint64_t)(stop - i) * a->page;
	rc = data ? give_data(a, b, at, (size_t)len, asked, err)
		  : give_zero(a, b, at, len, asked, err);
	if (rc)
		return -1;
	pull_came(a->l->pull, b, at, len);
	bitmap_clear_atomic(&p->here, i, stop - i);
	if (data)
		release(p, at, len);
	return 0;
}

/* The first page of what is waited for longest. False: nobody waits for what is here. */
static bool next_asked(struct ahead *a, unsigned *block, size_t *i, size_t *end)
{
	bool found = false;

	pthread_mutex_lock(&a->lock);
	while (a->n && !found) {
		const struct wish *w = &a->asked[a->first];

		*block = w->block;
		*end = w->end;
		*i = bitmap_next_set(&a->places[w->block].here, w->first, *end);
		found = *i < *end;
		if (found)
			continue;
		a->first = (a->first + 1) % ASKED_MAX;
		a->n--;
	}
	pthread_mutex_unlock(&a->lock);
	return found;
}

static int bring_all(struct ahead *a, struct error *err)
{
	unsigned at = 0;
	size_t from = 0;

	while (at < a->img->nblocks && !a->stop) {
		const struct bitmap *here = &a->places[at].here;
		unsigned block;
		size_t i, end;

		if (next_asked(a, &block, &i, &end)) {
			if (give(a, block, i, end, true, err))
				return -1;
			continue;
		}
		from = bitmap_next_set(here, from, here->bits);
		if (from == here->bits) {
			at++;
			from = 0;
		} else if (give(a, at, from, here->bits, false, err)) {
			return -1;
		}
	}
	return 0;
}

static void *bring(void *arg)
{
	struct ahead *a = arg;
	struct error why;
	int rc = bring_all(a, &why);

	pthread_mutex_lock(&a->lock);
	a->rc = rc;
	if (rc)
		a->why = why;
	a->done = true;
	pthread_cond_broadcast(&a->over);
	pthread_mutex_unlock(&a->lock);
	if (rc && !a->stop)
		session_fail(a->l->ss, &why);
	return NULL;
}

int ahead_start(struct ahead *a, struct error *err)
{
	int e;

	a->buf_len = a->unit > CHUNK ? a->unit : CHUNK;
	if (!a->buf)
		a->buf = malloc(a->buf_len);
	if (!a->buf)
		return err_set(err, ST_NOMEM, "no memory for what came ahead of the guest");
	a->stop = a->done = false;
	a->rc = 0;
	a->given = true;
	e = pthread_create(&a->thread, NULL, bring, a);
	if (e)
		return err_sys(err, ST_NOMEM, e, "cannot start the thread for what came ahead");
	a->running = true;
	return 0;
}

/* The guest's pages may be smaller, as those of one of its regions are: units are given. */
static struct wish whole_units(const struct ahead *a, unsigned block, uint64_t offset, uint64_t len)
{
	size_t n = a->places[block].here.bits, step = a->unit / a->page;
	size_t end = (size_t)((offset + len + a->unit - 1) / a->unit) * step;

	return (struct wish){ block, (size_t)(offset / a->unit) * step, end < n ? end : n };
}

bool ahead_ask(struct ahead *a, unsigned block, uint64_t offset, uint64_t len)
{
	const struct bitmap *here = &a->places[block].here;
	struct wish w;

	if (!a->given) /* else the unit is settled */
		return false;
	w = whole_units(a, block, offset, len);
	if (bitmap_next_set(here, w.first, w.end) >= w.end)
		return false;
	pthread_mutex_lock(&a->lock);
	/* who finds no room gets it when its turn comes */
	if (a->n < ASKED_MAX)
		a->asked[(a->first + a->n++) % ASKED_MAX] = w;
	pthread_mutex_unlock(&a->lock);
	return bitmap_next_clear(here, w.first, w.end) >= w.end;
}

int ahead_wait(struct ahead *a, struct error *err)
{
	struct cancel *c = &a->l->ss->cancel;
	int rc;

	pthread_mutex_lock(&a->lock);
	while (a->running && !a->done && !cancel_fired(c))
		cond_wait_briefly(&a->over, &a->lock);
	rc = a->rc;
	if (rc)
		*err = a->why;
	else if (a->running && !a->done)
		rc = cancel_reason(c, err);
	pthread_mutex_unlock(&a->lock);
	return rc;
}

void ahead_stop(struct ahead *a)
{
	a->stop = true;
	if (a->running)
		pthread_join(a->thread, NULL);
	a->running = false;
}
