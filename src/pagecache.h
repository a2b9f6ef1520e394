/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * XBZRLE's cache: direct-mapped copies of the pages as last sent, QEMU's rules. One thread uses it.
 *
 * A page's slot is its address modulo the cache's size, its age the count of dirty-bitmap syncs
 * when it was last used. A page that was used in this round or the one before keeps its slot:
 * otherwise two pages of one slot that are both written in every round would drive out each other
 * and neither would ever be found.
 */
#ifndef MIGTOOL_PAGECACHE_H
#define MIGTOOL_PAGECACHE_H

#include "error.h"

#include <stdint.h>

struct page_cache;

/* `size` bytes, a power of two >= page, itself a power of two. Memory is used as pages come. */
struct page_cache *page_cache_new(uint64_t size, uint32_t page, struct error *err);
void page_cache_free(struct page_cache *c); /* NULL is accepted */

/*
 * The cached copy of the page at `addr` (a multiple of page, unique over all blocks), or NULL. A
 * hit refreshes the entry's age to `age`. The copy may be written to, to keep it what the peer has;
 * it is valid until the next page_cache_insert.
 */
uint8_t *page_cache_lookup(struct page_cache *c, uint64_t addr, uint64_t age);

/*
 * Copies the page in. Refused (NULL) while the slot holds another page with resident age + 2 > age,
 * as in QEMU; else the cached copy, which is what has to be sent.
 */
uint8_t *page_cache_insert(struct page_cache *c, uint64_t addr, const uint8_t *page, uint64_t age);

#endif
