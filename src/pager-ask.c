// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Faults whose page has to be asked for. The fault thread notes a fault before it looks once more
 * whether the page has come; whoever brings pages marks them as done before he looks for who waits.
 * So one of the two sees the other, and no fault is forgotten.
 *
 * A thread of the guest is woken by the kernel when its page is placed where it waits. It has to be
 * woken by hand when the page came by another mapping of the same file, when it was dropped in the
 * meantime, and when the mapping has moved.
 */
#include "pager-internal.h"

#include <stdlib.h>
#include <string.h>

/* ---- lists of faults ---- */

int fault_add(struct fault_list *l, const struct fault *f)
{
	if (l->n == l->room) {
		size_t room = l->room ? 2 * l->room : 64;
		struct fault *v = realloc(l->v, room * sizeof(*v));

		if (!v)
			return -1;
		l->v = v;
		l->room = room;
	}
	l->v[l->n++] = *f;
	return 0;
}

void fault_drop(struct fault_list *l, size_t i)
{
	l->v[i] = l->v[--l->n];
}

void fault_closed(struct pager *p, const struct fault *f, uint64_t now)
{
	uint64_t since = f->since > p->begun ? f->since : p->begun;

	latency_add(&p->stats.latency, now - since);
	blocktime_add(&p->stats.threads, f->thread, now - since);
	if (!--p->open_faults)
		p->stats.blocked_ns += now - p->blocked_since;
}

/* ---- asking ---- */

static bool same_page(const struct fault *a, const struct fault *b)
{
	return a->block == b->block && a->offset == b->offset;
}

/* Takes it back. False: it was ended already. */
static bool take_back(struct pager *p, const struct fault *f)
{
	bool found = false;

	pthread_mutex_lock(&p->lock);
	for (size_t i = 0; i < p->asked.n && !found; i++) {
		const struct fault *a = &p->asked.v[i];

		found = a->space == f->space && a->address == f->address && a->since == f->since;
		if (found)
			fault_drop(&p->asked, i);
	}
	pthread_mutex_unlock(&p->lock);
	return found;
}

int fault_ask(struct pager *p, const struct fault *f, const struct view *v, size_t i,
	      struct error *err)
{
	struct fault mine = *f;
	bool known = false;
	int rc;

	mine.block = v->r.block;
	mine.offset = v->r.offset + (f->address - v->r.address);
	mine.len = v->r.page;
	pthread_mutex_lock(&p->lock);
	for (size_t k = 0; k < p->asked.n && !known; k++)
		known = same_page(&p->asked.v[k], &mine);
	rc = fault_add(&p->asked, &mine);
	pthread_mutex_unlock(&p->lock);
	if (rc)
		return err_set(err, ST_NOMEM, "no memory for the guest's faults");
	if (bitmap_test(&v->pages->done, i))
		return take_back(p, &mine) ? 1 : 0;
	if (known)
		return 0;
	if (p->o.first_need)
		p->o.first_need(p->o.need_arg, mine.block, mine.offset);
	if (p->o.source.request(p->o.source.arg, mine.block, mine.offset, mine.len, err))
		return -1;
	return around_ask(p, v, f->address, err);
}

int pager_ask_again(struct pager *p, struct error *err)
{
	struct fault *all = NULL;
	size_t n;
	int rc = 0;

	pthread_mutex_lock(&p->lock);
	n = p->asked.n;
	if (n) {
		all = malloc(n * sizeof(*all));
		if (all)
			memcpy(all, p->asked.v, n * sizeof(*all));
	}
	pthread_mutex_unlock(&p->lock);
	if (n && !all)
		return err_set(err, ST_NOMEM, "no memory for the guest's faults");
	for (size_t i = 0; i < n && !rc; i++)
		rc = p->o.source.request(p->o.source.arg, all[i].block, all[i].offset, all[i].len,
					 err);
	free(all);
	return rc;
}

/* ---- ending the wait ---- */

/* Has the kernel woken who waits there, when the page was placed? */
static bool woken(const struct pager *p, const struct fault *f)
{
	const struct view *v;

	if (p->shared && (p->nspaces > 1 || f->space->n > 1))
		return false;
	v = space_find(f->space, f->address);
	return v && bitmap_test(&v->pages->done, view_index(v, f->address));
}

void faults_arrived(struct pager *p, unsigned block, uint64_t offset, uint64_t len)
{
	uint64_t now = 0;

	pthread_mutex_lock(&p->lock);
	for (size_t i = 0; i < p->asked.n;) {
		const struct fault *f = &p->asked.v[i];

		if (f->block != block || f->offset < offset || f->offset - offset >= len) {
			i++;
			continue;
		}
		if (!woken(p, f) && !f->space->gone)
			uffd_wake(f->space->uffd, f->address, f->len);
		now = now ? now : pager_clock();
		fault_closed(p, f, now);
		fault_drop(&p->asked, i);
	}
	pthread_mutex_unlock(&p->lock);
}

void faults_moved(struct pager *p, const struct space *s, uint64_t start, uint64_t len)
{
	uint64_t now = pager_clock();
	bool any = false;

	pthread_mutex_lock(&p->lock);
	for (size_t i = 0; i < p->asked.n;) {
		const struct fault *f = &p->asked.v[i];

		if (f->space != s || f->address < start || f->address - start >= len) {
			i++;
			continue;
		}
		any = true;
		fault_closed(p, f, now);
		fault_drop(&p->asked, i);
	}
	pthread_mutex_unlock(&p->lock);
	if (any)
		uffd_wake(s->uffd, start, len);
}
