/* SPDX-License-Identifier: GPL-2.0-or-later */
/* XBZRLE's cache: direct-mapped copies of the pages as last sent. One thread uses it. */
#ifndef MIGTOOL_PAGECACHE_H
#define MIGTOOL_PAGECACHE_H

#include "error.h"

#include <stdint.h>

struct page_cache;

/* `size` bytes, a power of two >= page. */
struct page_cache *page_cache_new(uint64_t size, uint32_t page, struct error *err);
void page_cache_free(struct page_cache *c);

/*
 * The cached copy of the page at `addr` (an address that is unique over all blocks), or NULL. A hit
 * refreshes the entry's age to `age` (the count of dirty-bitmap syncs).
 */
uint8_t *page_cache_lookup(struct page_cache *c, uint64_t addr, uint64_t age);

/*
 * Copies the page in. Refused (NULL) while the slot holds another page with resident age + 2 > age,
 * as in QEMU; else the cached copy, which is what has to be sent.
 */
uint8_t *page_cache_insert(struct page_cache *c, uint64_t addr, const uint8_t *page, uint64_t age);

#endif
