// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What lies where in the guest's processes, and how that changes while they run.
 *
 * What is known of pages stands apart from where they lie: a region that moves (mremap) takes its
 * pages along, a fork's child gets a copy of what is known, and where the memory is a shared file
 * all spaces have the same.
 */
#include "pager-internal.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int no_memory(struct error *err)
{
	return err_set(err, ST_NOMEM, "no memory for what is known of the guest's pages");
}

static struct pages *new_pages(struct pager *p, size_t n, struct error *err)
{
	struct pages **grown = realloc(p->pages, (p->npages + 1) * sizeof(*grown));
	struct pages *pages = calloc(1, sizeof(*pages));

	if (grown)
		p->pages = grown;
	if (!grown || !pages)
		no_memory(err);
	if (!grown || !pages || pager_new_bits(p, pages, n, err)) {
		free(pages);
		return NULL;
	}
	p->pages[p->npages++] = pages;
	return pages;
}

/* ---- at the start ---- */

/*
 * In a shared file the pages are the file's: one grain for all who map it. They are the first in a
 * ledger.
 */
static int shared_pages(struct pager *p, struct error *err)
{
	for (unsigned i = 0; p->shared && i < p->o.nblocks; i++) {
		size_t n = (size_t)((p->sizes[i] + p->page - 1) / p->page);

		p->of_block[i] = i < p->npages ? p->pages[i] : new_pages(p, n, err);
		if (!p->of_block[i])
			return -1;
		if (p->of_block[i]->done.bits != n)
			return err_set(err, ST_DATA, "the guest's memory had another size before");
	}
	return 0;
}

int pager_view_init(struct pager *p, struct view *v, const struct guest_region *r,
		    struct error *err)
{
	*v = (struct view){ .r = *r, .first = p->shared ? r->offset / r->page : r->first };
	v->pages = p->shared  ? p->of_block[r->block]
		   : r->known ? p->pages[r->known - 1]
			      : new_pages(p, r->len / r->page, err);
	return v->pages ? 0 : -1;
}

static int check_page(const struct pager *p, const struct guest_region *r, struct error *err)
{
	if (!p->shared || r->page == p->page)
		return 0;
	return err_set(err, ST_UNSUPPORTED,
		       "the guest maps its memory with pages of %u and of %u bytes", r->page,
		       p->page);
}

static int take_space(struct pager *p, const struct guest_space *from, struct error *err)
{
	struct space *s = &p->spaces[p->nspaces];

	s->uffd = from->uffd;
	s->pid = from->pid;
	s->process = from->process;
	s->serial = from->serial;
	if (s->serial > p->serial)
		p->serial = s->serial;
	s->views = calloc(from->nregions, sizeof(*s->views));
	if (!s->views)
		return no_memory(err);
	p->nspaces++;
	for (; s->n < from->nregions; s->n++)
		if (check_page(p, &from->regions[s->n], err) ||
		    pager_view_init(p, &s->views[s->n], &from->regions[s->n], err))
			return -1;
	return 0;
}

/* Who has told a former server of his fault is not heard again before he looks again. */
static void wake_all(const struct pager *p)
{
	for (unsigned i = 0; i < p->nspaces; i++)
		for (unsigned j = 0; j < p->spaces[i].n; j++) {
			const struct guest_region *r = &p->spaces[i].views[j].r;

			uffd_wake(p->spaces[i].uffd, r->address, r->len);
		}
}

int pager_take_spaces(struct pager *p, struct guest_memory *g, struct error *err)
{
	int rc;

	p->of_block = calloc(p->o.nblocks, sizeof(*p->of_block));
	rc = p->of_block ? 0 : no_memory(err);
	p->shared = g->shared;
	p->page = guestmem_page(g);
	if (!rc)
		rc = pager_load_pages(p, err);
	if (!rc)
		rc = shared_pages(p, err);
	for (unsigned i = 0; !rc && i < g->nspaces; i++) {
		rc = take_space(p, &g->spaces[i], err);
		if (!rc)
			g->spaces[i].uffd = -1;
		else if (p->nspaces > i)
			p->spaces[i].uffd = -1;
	}
	if (rc || pager_heed_left(p, g, err) || pager_note(p, err))
		return -1;
	wake_all(p);
	p->pidfd = g->pidfd;
	p->peer = g->peer;
	g->pidfd = g->peer = -1;
	return 0;
}

void pager_free_spaces(struct pager *p)
{
	for (unsigned i = 0; i < p->nspaces; i++) {
		if (p->spaces[i].uffd >= 0)
			close(p->spaces[i].uffd);
		free(p->spaces[i].views);
	}
	for (unsigned i = 0; i < p->npages; i++) {
		pager_free_bits(p, p->pages[i]);
		free(p->pages[i]);
	}
	free(p->pages);
	free(p->of_block);
	if (p->pidfd >= 0)
		close(p->pidfd);
	if (p->peer >= 0)
		close(p->peer);
}

/* ---- looking ---- */

struct view *space_find(const struct space *s, uint64_t address)
{
	unsigned low = 0, high = s->n;

	while (low < high) {
		unsigned mid = low + (high - low) / 2;
		struct view *v = &s->views[mid];

		if (address < v->r.address)
			high = mid;
		else if (address - v->r.address >= v->r.len)
			low = mid + 1;
		else
			return v;
	}
	return NULL;
}

size_t view_index(const struct view *v, uint64_t address)
{
	return v->first + (address - v->r.address) / v->r.page;
}

/* ---- changes ---- */

/* The part of a view in [start, end), which overlap. */
static struct view part_of(const struct view *v, uint64_t start, uint64_t end)
{
	struct view part = *v;

	if (start < v->r.address)
		start = v->r.address;
	if (end > v->r.address + v->r.len)
		end = v->r.address + v->r.len;
	part.r.address = start;
	part.r.len = end - start;
	part.r.offset += start - v->r.address;
	part.first += (start - v->r.address) / v->r.page;
	return part;
}

static int by_address(const void *a, const void *b)
{
	const struct view *x = a, *y = b;

	return x->r.address < y->r.address ? -1 : x->r.address > y->r.address;
}

/* What lies in [start, start + len) moves to `to`, or (0) goes. */
static int cut(struct space *s, uint64_t start, uint64_t len, uint64_t to, struct error *err)
{
	struct view *out = calloc((size_t)s->n * 3 + 1, sizeof(*out));
	uint64_t end = start + len;
	unsigned n = 0;

	if (!out)
		return no_memory(err);
	for (unsigned i = 0; i < s->n; i++) {
		const struct view *v = &s->views[i];
		uint64_t v_end = v->r.address + v->r.len;

		if (v_end <= start || v->r.address >= end) {
			out[n++] = *v;
			continue;
		}
		if (v->r.address < start)
			out[n++] = part_of(v, v->r.address, start);
		if (v_end > end)
			out[n++] = part_of(v, end, v_end);
		if (!to)
			continue;
		out[n] = part_of(v, start, end);
		out[n].r.address += to - start;
		n++;
	}
	qsort(out, n, sizeof(*out), by_address);
	free(s->views);
	s->views = out;
	s->n = n;
	return 0;
}

/*
 * In memory of its own the guest has thrown the pages away: they are zero from now on. In a shared
 * file the event says so too when only its page tables forget the pages (MADV_DONTNEED), and what
 * has not come yet must still come. A page that had come and is missing is zero there anyway.
 */
static void drop(struct pager *p, struct space *s, uint64_t start, uint64_t len)
{
	uint64_t end = start + len;

	if (p->shared || p->o.drops_come_again)
		return;
	for (unsigned i = 0; i < s->n; i++) {
		struct view *v = &s->views[i];
		struct view part;

		if (v->r.address + v->r.len <= start || v->r.address >= end)
			continue;
		part = part_of(v, start, end);
		bitmap_set_atomic(&part.pages->dropped, part.first,
				  (size_t)((part.r.len + part.r.page - 1) / part.r.page));
	}
}

static void copy_bits(struct bitmap *to, const struct bitmap *from)
{
	memcpy(to->words, from->words, (from->bits + 63) / 64 * sizeof(*from->words));
}

/* Its descriptor was the last word of a process that is no more. */
static void clear_space(struct pager *p, struct space *s)
{
	faults_forget(p, s);
	if (s->uffd >= 0)
		close(s->uffd);
	free(s->views);
}

struct space *space_new(struct pager *p, int uffd, pid_t pid, const struct space *keep,
			struct error *err)
{
	struct space *s = NULL;

	for (unsigned i = 0; !s && i < p->nspaces; i++)
		if (p->spaces[i].gone && &p->spaces[i] != keep)
			s = &p->spaces[i];
	/* who has ended is known only when something was to be placed there */
	for (unsigned i = 0; !s && p->nspaces == GUEST_SPACES_MAX && i < p->nspaces; i++) {
		struct space *of = &p->spaces[i];

		if (of != keep &&
		    uffd_gone(of->uffd, of->n ? of->views[0].r.address : p->page, p->page))
			s = of;
	}
	if (!s && p->nspaces == GUEST_SPACES_MAX) {
		err_set(err, ST_UNSUPPORTED, "the guest has more than %d processes",
			GUEST_SPACES_MAX);
		return NULL;
	}
	if (s)
		clear_space(p, s);
	else
		s = &p->spaces[p->nspaces++];
	*s = (struct space){ .uffd = uffd, .pid = pid };
	return s;
}

/* The child has its own copy of what had come, and waits for the rest as its parent does. */
static int add_child(struct pager *p, const struct space *parent, int uffd, struct error *err)
{
	struct space *s = space_new(p, uffd, 0, parent, err);

	if (!s)
		return -1;
	s->serial = p->serial;
	s->views = calloc(parent->n + 1, sizeof(*s->views));
	if (!s->views)
		return no_memory(err);
	s->n = parent->n;
	for (unsigned i = 0; i < parent->n; i++) {
		const struct view *from = &parent->views[i];
		struct view *v = &s->views[i];

		*v = *from;
		if (p->shared)
			continue;
		v->pages = new_pages(p, from->pages->done.bits, err);
		if (!v->pages) {
			s->n = i;
			return -1;
		}
		copy_bits(&v->pages->done, &from->pages->done);
		copy_bits(&v->pages->dropped, &from->pages->dropped);
	}
	return pager_note(p, err);
}

static int take_child(struct pager *p, const struct space *parent, int uffd, struct error *err)
{
	p->serial++;
	/* at once, whatever comes: when the last copy is closed the child goes on with zeros */
	if (p->o.forked)
		p->o.forked(p->o.forked_arg, uffd, p->serial);
	return add_child(p, parent, uffd, err);
}

int pager_event(struct pager *p, struct space *s, const struct uffd_event *e, struct error *err)
{
	switch (e->kind) {
	case UFFD_REMOVE:
		drop(p, s, e->start, e->len);
		faults_moved(p, s, e->start, e->len);
		return 0;
	case UFFD_UNMAP:
		faults_moved(p, s, e->start, e->len);
		return cut(s, e->start, e->len, 0, err) || pager_note(p, err) ? -1 : 0;
	case UFFD_REMAP:
		faults_moved(p, s, e->start, e->len);
		return cut(s, e->start, e->len, e->to, err) || pager_note(p, err) ? -1 : 0;
	case UFFD_FORK:
		return take_child(p, s, e->child, err);
	default:
		return 0;
	}
}
