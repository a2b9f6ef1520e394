// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What is known of the guest's pages, in the ledger (ledger.h), for a process that serves the guest
 * on when this one was killed. The bitmaps are the ledger's own memory, so they need no further
 * word; where everything lies is written anew whenever it has changed.
 */
#include "pager-internal.h"

#include <stdlib.h>
#include <string.h>

#define SMALLEST_PAGE UINT64_C(4096)
_Static_assert(UFFD_ROOM == LEDGER_INBOX, "all that is read at a time finds room");

int pager_new_bits(struct pager *p, struct pages *pages, size_t n, struct error *err)
{
	if (p->o.ledger)
		return ledger_add_pages(p->o.ledger, n, &pages->done, &pages->dropped, err);
	if (!bitmap_init(&pages->done, n) && !bitmap_init(&pages->dropped, n))
		return 0;
	bitmap_free(&pages->done);
	return err_set(err, ST_NOMEM, "no memory for what is known of the guest's pages");
}

void pager_free_bits(const struct pager *p, struct pages *pages)
{
	if (p->o.ledger)
		return;
	bitmap_free(&pages->done);
	bitmap_free(&pages->dropped);
}

int pager_load_pages(struct pager *p, struct error *err)
{
	unsigned n = p->o.ledger ? ledger_npages(p->o.ledger) : 0;

	if (!n)
		return 0;
	p->pages = calloc(n, sizeof(*p->pages));
	for (; p->pages && p->npages < n; p->npages++) {
		struct pages *pages = calloc(1, sizeof(*pages));

		if (!pages)
			break;
		ledger_pages(p->o.ledger, p->npages, &pages->done, &pages->dropped);
		p->pages[p->npages] = pages;
	}
	if (p->npages == n)
		return 0;
	return err_set(err, ST_NOMEM, "no memory for what is known of the guest's pages");
}

static uint32_t number_of(const struct pager *p, const struct pages *pages)
{
	unsigned i = p->npages;

	/* most are the newest */
	while (i-- > 0 && p->pages[i] != pages)
		;
	return i;
}

static void note_view(const struct pager *p, const struct view *v, unsigned space,
		      struct ledger_view *out)
{
	*out = (struct ledger_view){ .address = v->r.address,
				     .len = v->r.len,
				     .offset = v->r.offset,
				     .block = v->r.block,
				     .page = v->r.page,
				     .space = space,
				     .pages = number_of(p, v->pages),
				     .first = v->first };
}

static struct ledger_space note_space(const struct space *s)
{
	return (struct ledger_space){ s->pid, s->serial, s->process };
}

void *pager_inbox(const struct pager *p, const struct space *s)
{
	struct ledger_space of = note_space(s);

	return p->o.ledger ? ledger_inbox(p->o.ledger, &of) : NULL;
}

/* As the kernel says it: page by page, and nothing wraps. */
static bool is_sound(const struct uffd_event *e)
{
	const uint64_t rest = SMALLEST_PAGE - 1;

	return !((e->start | e->len | e->to) & rest) && e->len <= UINT64_MAX - e->start &&
	       e->len <= UINT64_MAX - e->to;
}

/* The child that had that number. One that has ended, or was noted after all, is not there. */
static int take_child(struct guest_memory *g, uint64_t number)
{
	for (unsigned i = 0; i < g->nchildren; i++)
		if (g->children[i].number == number) {
			int uffd = g->children[i].uffd;

			g->children[i] = g->children[--g->nchildren];
			return uffd;
		}
	return -1;
}

static int heed(struct pager *p, struct space *s, struct uffd_event *e, struct guest_memory *g,
		struct error *err)
{
	if (e->kind != UFFD_FORK && !is_sound(e))
		return err_set(err, ST_DATA, "the list of the guest's pages is bad: its inbox");
	if (e->kind != UFFD_FORK)
		return pager_event(p, s, e, err);
	e->child = take_child(g, e->to);
	return e->child < 0 ? 0 : pager_event(p, s, e, err);
}

static int heed_left(struct pager *p, struct space *s, const void *left, struct guest_memory *g,
		     struct error *err)
{
	struct uffd_event e[UFFD_EVENTS_MAX];
	void *room = pager_inbox(p, s);
	int n = uffd_parse(left, e);

	for (int i = 0; i < n; i++) {
		if (e[i].kind != UFFD_FAULT && e[i].kind != UFFD_OTHER && heed(p, s, &e[i], g, err))
			return -1;
		uffd_heeded(room, (unsigned)i);
	}
	return 0;
}

int pager_heed_left(struct pager *p, struct guest_memory *g, struct error *err)
{
	struct ledger_space of;
	const void *left;

	if (!p->o.ledger)
		return 0;
	left = ledger_left(p->o.ledger, &of);
	for (unsigned i = 0; i < p->nspaces; i++) {
		struct ledger_space is = note_space(&p->spaces[i]);

		if (memcmp(&is, &of, sizeof(of)) != 0)
			continue;
		if (heed_left(p, &p->spaces[i], left, g, err))
			return -1;
		return g->nchildren ? guestmem_orphan(err) : 0;
	}
	if (g->nchildren)
		return guestmem_orphan(err);
	/* that process has gone */
	memset(ledger_inbox(p->o.ledger, &of), 0, LEDGER_INBOX);
	return 0;
}

int pager_note(struct pager *p, struct error *err)
{
	struct ledger_space spaces[GUEST_SPACES_MAX];
	struct ledger_layout now = { .spaces = spaces };
	size_t n = 1;
	int rc;

	if (!p->o.ledger)
		return 0;
	for (unsigned i = 0; i < p->nspaces; i++)
		n += p->spaces[i].n;
	now.views = calloc(n, sizeof(*now.views));
	if (!now.views)
		return err_set(err, ST_NOMEM, "no memory for the list of the guest's pages");
	for (unsigned i = 0; i < p->nspaces; i++) {
		const struct space *s = &p->spaces[i];

		if (s->gone)
			continue;
		for (unsigned j = 0; j < s->n; j++)
			note_view(p, &s->views[j], now.nspaces, &now.views[now.nviews++]);
		spaces[now.nspaces++] = note_space(s);
	}
	rc = ledger_note(p->o.ledger, &now, err);
	free(now.views);
	return rc;
}
