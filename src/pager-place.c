// SPDX-License-Identifier: GPL-2.0-or-later
/* Pages into the guest, and what the kernel answers to that. */
#include "pager-internal.h"

#include "log.h"

#include <errno.h>
#include <inttypes.h>
#include <sys/mman.h>

/* So much at a time in the background: what a fault may have to wait for at the gate. */
#define CHUNK	(64u << 10)
#define BUSY_MS 1
#define FULL_MS 100

/* ---- the gate ---- */

void gate_enter(struct pager *p, bool urgent)
{
	if (urgent)
		atomic_fetch_add(&p->urgent, 1);
	pthread_mutex_lock(&p->gate);
	while (!urgent && atomic_load(&p->urgent))
		pthread_cond_wait(&p->open, &p->gate);
}

void gate_leave(struct pager *p, bool urgent)
{
	bool last = urgent && atomic_fetch_sub(&p->urgent, 1) == 1;

	if (last)
		pthread_cond_broadcast(&p->open);
	pthread_mutex_unlock(&p->gate);
}

/* ---- one space ---- */

void space_gone(struct pager *p, struct space *s)
{
	unsigned left = 0;

	s->gone = true;
	for (unsigned i = 0; i < p->nspaces; i++)
		left += !p->spaces[i].gone;
	if (!left && !p->o.watched)
		pager_set_ended(p);
}

static bool wanted(const struct pages *pg, size_t i)
{
	return !bitmap_test(&pg->done, i) && !bitmap_test(&pg->dropped, i);
}

static void count_placed(struct pager *p, uint64_t bytes)
{
	pthread_mutex_lock(&p->lock);
	p->stats.placed += bytes;
	pthread_mutex_unlock(&p->lock);
}

/*
 * After a page that the kernel would not take. True: it is settled, the next one, please.
 */
static bool settled(enum uffd_result r, struct space *s, const struct view *v, uint64_t to,
		    size_t i)
{
	if (r == UFFD_THERE) {
		bitmap_set_atomic(&v->pages->done, i, 1);
		uffd_wake(s->uffd, to, v->r.page);
		return true;
	}
	return r == UFFD_NOWHERE;
}

enum uffd_result place_in_view(struct pager *p, struct space *s, const struct view *v, size_t first,
			       size_t n, const uint8_t *buf, bool now)
{
	uint64_t base = v->r.address - (uint64_t)v->first * v->r.page;
	size_t end = first + n;

	for (size_t i = first; i < end;) {
		uint64_t to = base + (uint64_t)i * v->r.page, done;
		enum uffd_result r;
		size_t run = i;

		while (run < end && wanted(v->pages, run))
			run++;
		if (run == i) {
			i++;
			continue;
		}
		if (!buf && now) {
			r = place_zero(p, s, v, to);
			if (r != UFFD_DONE && r != UFFD_NOWHERE)
				return r;
			bitmap_set_atomic(&v->pages->done, i++, 1);
			continue;
		}
		if (!buf) { /* nothing need be there: who waits finds out */
			bitmap_set_atomic(&v->pages->done, i, run - i);
			uffd_wake(s->uffd, to, (run - i) * v->r.page);
			i = run;
			continue;
		}
		r = uffd_copy(s->uffd, to, buf + (i - first) * v->r.page, (run - i) * v->r.page,
			      &done);
		if (done) {
			bitmap_set_atomic(&v->pages->done, i, done / v->r.page);
			count_placed(p, done);
		}
		i += done / v->r.page;
		if (r == UFFD_DONE)
			continue;
		if (!settled(r, s, v, to + done, i))
			return r;
		i++;
	}
	return UFFD_DONE;
}

/* hugetlbfs has no zero page: a page full of zeros is copied. */
static enum uffd_result copy_zeros(struct space *s, uint64_t to, uint32_t page)
{
	void *zeros = mmap(NULL, page, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	enum uffd_result r;
	uint64_t done;

	if (zeros == MAP_FAILED)
		return UFFD_FULL;
	r = uffd_copy(s->uffd, to, zeros, page, &done);
	munmap(zeros, page);
	return r;
}

enum uffd_result place_zero(struct pager *p, struct space *s, const struct view *v, uint64_t to)
{
	uint64_t done;
	enum uffd_result r = uffd_zero(s->uffd, to, v->r.page, &done);

	(void)p;
	if (r == UFFD_FAILED && errno == EINVAL)
		r = copy_zeros(s, to, v->r.page);
	if (r == UFFD_THERE) {
		uffd_wake(s->uffd, to, v->r.page);
		r = UFFD_DONE;
	}
	return r;
}

/* ---- all spaces ---- */

/* What of [offset, offset + len) of the block lies in the view: false, nothing. */
static bool overlap(const struct view *v, unsigned block, uint64_t offset, uint64_t len,
		    uint64_t *from, uint64_t *n)
{
	uint64_t start = v->r.offset, end = start + v->r.len;

	if (v->r.block != block)
		return false;
	if (start < offset)
		start = offset;
	if (end > offset + len)
		end = offset + len;
	*from = start;
	*n = end > start ? end - start : 0;
	return end > start;
}

static enum uffd_result place_in_space(struct pager *p, struct space *s, unsigned block,
				       uint64_t offset, uint64_t len, const uint8_t *buf, bool now)
{
	uint64_t from, n;

	for (unsigned i = 0; i < s->n; i++) {
		const struct view *v = &s->views[i];
		enum uffd_result r;

		if (!overlap(v, block, offset, len, &from, &n))
			continue;
		r = place_in_view(p, s, v, v->first + (from - v->r.offset) / v->r.page,
				  n / v->r.page, buf ? buf + (from - offset) : NULL, now);
		if (r != UFFD_DONE)
			return r;
	}
	return UFFD_DONE;
}

static void wake_space(const struct space *s, unsigned block, uint64_t offset, uint64_t len)
{
	uint64_t from, n;

	for (unsigned i = 0; i < s->n; i++)
		if (overlap(&s->views[i], block, offset, len, &from, &n))
			uffd_wake(s->uffd, s->views[i].r.address + (from - s->views[i].r.offset),
				  n);
}

/*
 * What no region could take of a shared file's run goes into the file, page by page: what is done
 * may have been written by the guest since. All regions have been tried, so a page that the fault
 * thread has placed is known, but for the one that it has in hand.
 */
static enum uffd_result store_rest(struct pager *p, unsigned block, uint64_t offset, uint64_t len,
				   const uint8_t *buf, struct error *err)
{
	size_t end = (size_t)((offset + len + p->page - 1) / p->page), run;
	bool in_hand = atomic_load(&p->in_hand);
	struct bitmap *done;

	if (!p->shared || !p->o.store)
		return UFFD_DONE;
	done = &p->of_block[block]->done;
	for (size_t i = offset / p->page; (i = bitmap_next_clear(done, i, end)) < end; i = run) {
		uint64_t at = (uint64_t)i * p->page, n;

		if (in_hand)
			return UFFD_BUSY;
		run = bitmap_next_set(done, i, end);
		n = (uint64_t)run * p->page < offset + len ? (uint64_t)run * p->page - at
							   : offset + len - at;
		if (buf &&
		    p->o.store(p->o.store_arg, block, at, buf + (at - offset), (size_t)n, err))
			return pager_full(err) ? UFFD_FULL : UFFD_FAILED;
		bitmap_set_atomic(done, i, run - i);
	}
	return UFFD_DONE;
}

/* With the gate. UFFD_FAILED: err says why. */
static enum uffd_result place_everywhere(struct pager *p, unsigned block, uint64_t offset,
					 uint64_t len, const uint8_t *buf, bool now,
					 struct error *err)
{
	for (unsigned i = 0; i < p->nspaces; i++) {
		struct space *s = &p->spaces[i];
		enum uffd_result r;

		if (s->gone)
			continue;
		r = place_in_space(p, s, block, offset, len, buf, now);
		if (r == UFFD_FAILED)
			err_sys(err, ST_UNSUPPORTED, errno,
				"cannot place 0x%" PRIx64 " bytes at 0x%" PRIx64
				" of the guest's memory",
				len, offset);
		if (r == UFFD_DEAD)
			space_gone(p, s);
		else if (r != UFFD_DONE)
			return r;
	}
	/* who waits for a shared file's page in another space than the one it was placed by */
	for (unsigned i = 0; p->shared && p->nspaces > 1 && i < p->nspaces; i++)
		if (!p->spaces[i].gone)
			wake_space(&p->spaces[i], block, offset, len);
	return store_rest(p, block, offset, len, buf, err);
}

bool pager_full(const struct error *err)
{
	return err->sys == ENOSPC || err->sys == ENOMEM || err->sys == EDQUOT;
}

void say_full(struct pager *p)
{
	bool said;

	pthread_mutex_lock(&p->lock);
	said = p->full_said;
	p->full_said = true;
	pthread_mutex_unlock(&p->lock);
	if (!said)
		log_warn("there is no memory for the guest's pages: it waits until there is");
}

/* A piece that fits through the gate at once. */
static int place_chunk(struct pager *p, unsigned block, uint64_t offset, uint64_t len,
		       const uint8_t *buf, bool now, struct error *err)
{
	for (;;) {
		enum uffd_result r;
		bool way;

		gate_enter(p, now);
		r = place_everywhere(p, block, offset, len, buf, now, err);
		if (r == UFFD_DONE && p->o.source.request)
			faults_arrived(p, block, offset, len);
		way = r == UFFD_DONE && !now && way_wanted(p);
		gate_leave(p, now);
		if (way)
			way_make(p);
		if (r == UFFD_DONE)
			return 0;
		if (r == UFFD_FAILED)
			return -1;
		if (r == UFFD_FULL)
			say_full(p);
		if (cancel_wait(p->o.bringer, -1, 0, r == UFFD_FULL ? FULL_MS : BUSY_MS, err) < 0)
			return -1;
	}
}

static int arrived(struct pager *p, unsigned block, uint64_t offset, uint64_t len,
		   const uint8_t *buf, bool now, struct error *err)
{
	uint64_t step = p->page > CHUNK ? p->page : CHUNK;

	if (!buf)
		step = len;
	for (uint64_t at = 0; at < len; at += step) {
		uint64_t n = len - at < step ? len - at : step;

		if (atomic_load(&p->ended))
			return 0;
		if (place_chunk(p, block, offset + at, n, buf ? buf + at : NULL, now, err)) {
			/* they may come again, by somebody else */
			if (p->o.bringer == p->o.cancel || !cancel_fired(p->o.bringer))
				pager_fail(p, err);
			return -1;
		}
	}
	return 0;
}

int pager_arrived(struct pager *p, unsigned block, uint64_t offset, const void *buf, size_t len,
		  struct error *err)
{
	return arrived(p, block, offset, len, buf, false, err);
}

int pager_arrived_zero(struct pager *p, unsigned block, uint64_t offset, uint64_t len,
		       struct error *err)
{
	return len ? arrived(p, block, offset, len, NULL, false, err) : 0;
}

int pager_arrived_asked(struct pager *p, unsigned block, uint64_t offset, const void *buf,
			size_t len, struct error *err)
{
	return len ? arrived(p, block, offset, len, buf, true, err) : 0;
}
