// SPDX-License-Identifier: GPL-2.0-or-later
#include "pagecache.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define LIFETIME 2 /* syncs for which a page keeps its slot */

struct slot {
	uint64_t addr;
	uint64_t age;
	bool used;
};

struct page_cache {
	uint64_t slots; /* a power of two */
	uint32_t page;
	uint8_t *data; /* the mapping: all pages, and behind them */
	struct slot *slot;
	size_t len;
};

/* The kernel gives memory for the slots as they are used, and refuses at once what it never could.
 */
static bool map(struct page_cache *c)
{
	if (__builtin_mul_overflow(c->slots, c->page + sizeof(struct slot), &c->len))
		return false;
	c->data = mmap(NULL, c->len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (c->data == MAP_FAILED)
		return false;
	c->slot = (struct slot *)(c->data + c->slots * c->page);
	return true;
}

struct page_cache *page_cache_new(uint64_t size, uint32_t page, struct error *err)
{
	struct page_cache *c;

	/* A multiple of 8 keeps what stands behind the pages aligned. */
	if (page < 8 || size < page || (size & (size - 1)) || (page & (page - 1))) {
		err_set(err, ST_USAGE,
			"xbzrle: a cache of %llu bytes for pages of %u, expected a power of two "
			"that "
			"holds a page",
			(unsigned long long)size, page);
		return NULL;
	}
	c = calloc(1, sizeof(*c));
	if (c) {
		c->slots = size / page;
		c->page = page;
		if (map(c))
			return c;
		free(c);
	}
	err_set(err, ST_NOMEM, "xbzrle: no memory for a cache of %llu bytes",
		(unsigned long long)size);
	return NULL;
}

void page_cache_free(struct page_cache *c)
{
	if (!c)
		return;
	munmap(c->data, c->len);
	free(c);
}

static uint64_t slot_of(const struct page_cache *c, uint64_t addr)
{
	return addr / c->page & (c->slots - 1);
}

uint8_t *page_cache_lookup(struct page_cache *c, uint64_t addr, uint64_t age)
{
	uint64_t i = slot_of(c, addr);
	struct slot *s = &c->slot[i];

	if (!s->used || s->addr != addr)
		return NULL;
	s->age = age;
	return c->data + i * c->page;
}

uint8_t *page_cache_insert(struct page_cache *c, uint64_t addr, const uint8_t *page, uint64_t age)
{
	uint64_t i = slot_of(c, addr);
	struct slot *s = &c->slot[i];

	if (s->used && s->addr != addr && s->age + LIFETIME > age)
		return NULL;
	*s = (struct slot){ .addr = addr, .age = age, .used = true };
	return memcpy(c->data + i * c->page, page, c->page);
}
