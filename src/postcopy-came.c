// SPDX-License-Identifier: GPL-2.0-or-later
#include "postcopy-came.h"

#include "wire-postcopy.h"

static int check(const struct came *c, const struct source *src, const struct pages_came *p,
		 struct error *err)
{
	uint64_t units;

	if (p->block >= src->img->nblocks)
		return err_set(err, ST_DATA, "CAME for block %u, and there are %u", p->block,
			       src->img->nblocks);
	if (p->unit < src->img->target_page || (c->unit && p->unit != c->unit))
		return err_set(err, ST_DATA, "CAME: pages of %u bytes, expected %u", p->unit,
			       c->unit ? c->unit : src->img->target_page);
	units = (src->img->blocks[p->block].size + p->unit - 1) / p->unit;
	if (p->n > units || p->first > units - p->n)
		return err_set(err, ST_DATA,
			       "CAME: %llu pages from page %llu on of block %s, which has %llu",
			       (unsigned long long)p->n, (unsigned long long)p->first,
			       src->img->blocks[p->block].name, (unsigned long long)units);
	if (p->block > c->block || (p->block == c->block && p->first >= c->next))
		return 0;
	return err_set(err, ST_DATA, "CAME: page %llu of block %s is behind what was said before",
		       (unsigned long long)p->first, src->img->blocks[p->block].name);
}

static void mark(struct pagesource *pages, const struct block *b, const struct pages_came *p,
		 uint64_t first, uint64_t n)
{
	uint64_t at = first * p->unit, len = n * p->unit;

	pagesource_sent(pages, b, at, len < b->size - at ? len : b->size - at);
}

int came_take(struct came *c, const struct source *src, struct pagesource *pages,
	      const struct rp_message *m, struct error *err)
{
	const struct block *b;
	struct pages_came p;

	if (pages_came_unpack(m->payload, m->len, &p, err) || check(c, src, &p, err))
		return -1;
	b = &src->img->blocks[p.block];
	if (!p.bits)
		mark(pages, b, &p, p.first, p.n);
	for (uint64_t i = 0; p.bits && i < p.n; i++)
		if (p.bits[i / 8] >> i % 8 & 1)
			mark(pages, b, &p, p.first + i, 1);
	c->unit = p.unit;
	c->block = p.block;
	c->next = p.first + p.n;
	return 0;
}
