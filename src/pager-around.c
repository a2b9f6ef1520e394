// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A needed page's neighbours, by the fault thread.
 *
 * Where the content is on this host they are brought behind the page itself, all of them at once.
 * Who walks through his memory waits for the next page before anybody could look whether he does,
 * so they do not wait for a moment of rest; they take some 20 microseconds, where he would have
 * needed six for each. Where it is elsewhere they are asked for behind the page.
 */
#include "pager-internal.h"

#include "zero.h"

#include <string.h>

/* A run of a block, in bytes. */
struct around {
	uint64_t first, len;
};

/* The window around a needed page, as far as its view goes; len 0: none. */
static struct around window(struct pager *p, const struct view *v, uint64_t address)
{
	uint64_t page = v->r.page, first, end;
	struct faultaround_run run;

	/* who records what is needed has to see it */
	if (p->o.first_need)
		return (struct around){ 0, 0 };
	run = faultaround_next(&p->around.history, v->r.block,
			       (v->r.offset + (address - v->r.address)) / page,
			       FAULTAROUND_BYTES / v->r.page);
	first = run.first * page;
	end = first + run.n * page;
	if (first < v->r.offset)
		first = v->r.offset;
	if (end > v->r.offset + v->r.len)
		end = v->r.offset + v->r.len;
	return (struct around){ first, run.n ? end - first : 0 };
}

void around_note(struct pager *p, struct space *s, const struct view *v, uint64_t address)
{
	struct around w = window(p, v, address);

	p->around.space = s;
	p->around.at = v->r.address + (w.first - v->r.offset);
	p->around.end = p->around.at + w.len;
	if (!w.len)
		p->around.at = p->around.end = 0;
}

void around_forget(struct pager *p, const struct space *s)
{
	if (p->around.space == s)
		p->around.at = p->around.end = 0;
}

static void count(struct pager *p, size_t pages)
{
	pthread_mutex_lock(&p->lock);
	p->stats.around += pages;
	pthread_mutex_unlock(&p->lock);
}

/* Zeros; what is shared would have memory for them: there they are left until they are needed. */
static enum uffd_result place_zeros(struct pager *p, struct space *s, const struct view *v,
				    uint64_t address, size_t n)
{
	enum uffd_result r = UFFD_DONE;

	for (size_t k = 0; k < n && r == UFFD_DONE && !p->shared; k++) {
		r = place_zero(p, s, v, address + k * v->r.page);
		if (r == UFFD_DONE)
			bitmap_set_atomic(&v->pages->done, view_index(v, address) + k, 1);
	}
	return r;
}

static bool all_zero(const uint8_t *buf, size_t page, size_t k)
{
	return zero_is(buf + k * page, page);
}

/* n pages, which are in buf, in pieces that are zeros or not. */
static enum uffd_result place(struct pager *p, struct space *s, const struct view *v,
			      uint64_t address, size_t n, const uint8_t *buf)
{
	uint32_t page = v->r.page;
	enum uffd_result r = UFFD_DONE;

	for (size_t k = 0, end; k < n && r == UFFD_DONE; k = end) {
		bool zero = all_zero(buf, page, k);

		for (end = k + 1; end < n && all_zero(buf, page, end) == zero; end++)
			;
		if (zero)
			r = place_zeros(p, s, v, address + k * page, end - k);
		else
			r = place_in_view(p, s, v, view_index(v, address) + k, end - k,
					  buf + k * page, false);
		if (r == UFFD_DONE && !(zero && p->shared))
			count(p, end - k);
	}
	return r;
}

/* n missing pages. False: that is the end of the run; who needs one of the rest says so. */
static bool bring(struct pager *p, struct space *s, const struct view *v, uint64_t address,
		  size_t n)
{
	uint64_t offset = v->r.offset + (address - v->r.address);
	enum uffd_result r;
	struct error err;
	bool zero = false;

	if (p->o.source.read(p->o.source.arg, v->r.block, offset, p->around.buf, n * v->r.page,
			     &zero, &err)) {
		pager_fail(p, &err);
		return false;
	}
	if (zero)
		memset(p->around.buf, 0, n * v->r.page);
	atomic_store(&p->in_hand, true);
	r = place(p, s, v, address, n, p->around.buf);
	atomic_store(&p->in_hand, false);
	/* it may have come meanwhile, by another region than the one where somebody waits */
	if (p->shared && r == UFFD_DONE)
		uffd_wake(s->uffd, address, n * v->r.page);
	return r == UFFD_DONE;
}

static bool is_missing(const struct view *v, size_t i)
{
	return !bitmap_test(&v->pages->done, i) && !bitmap_test(&v->pages->dropped, i);
}

void around_bring(struct pager *p)
{
	struct space *s = p->around.space;
	uint64_t at = p->around.at, end = p->around.end;
	const struct view *v = at < end && !s->gone ? space_find(s, at) : NULL;

	p->around.at = p->around.end = 0;
	if (!v || end > v->r.address + v->r.len)
		return;
	while (at < end) {
		size_t i = view_index(v, at), n = 0;

		while (n < (end - at) / v->r.page && is_missing(v, i + n))
			n++;
		if (n && !bring(p, s, v, at, n))
			return;
		at += (n ? n : 1) * v->r.page;
	}
}

/* Of the window what is missing, from the first such page to the last. */
static struct around missing(const struct view *v, struct around w)
{
	size_t base = v->first + (w.first - v->r.offset) / v->r.page, n = w.len / v->r.page, i = 0;

	while (i < n && !is_missing(v, base + i))
		i++;
	while (n > i && !is_missing(v, base + n - 1))
		n--;
	return (struct around){ w.first + i * v->r.page, (n - i) * v->r.page };
}

int around_ask(struct pager *p, const struct view *v, uint64_t address, struct error *err)
{
	struct around w = window(p, v, address);

	if (!w.len)
		return 0;
	/* it may be on its way, and its pages needed one by one meanwhile */
	if (v->r.block == p->around.block && w.first == p->around.first && w.len == p->around.len)
		return 0;
	p->around.block = v->r.block;
	p->around.first = w.first;
	p->around.len = w.len;
	w = missing(v, w);
	if (w.len <= v->r.page)
		return 0;
	count(p, w.len / v->r.page - 1);
	return p->o.source.request(p->o.source.arg, v->r.block, w.first, w.len, err);
}
