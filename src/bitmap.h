/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A bit a page. bitmap_set and bitmap_clear want the bitmap for themselves; while other threads use
 * it there are the _atomic calls, and reading is allowed then too: it sees each word as it is at
 * that moment. Ranges lie inside the bitmap: callers have checked them.
 */
#ifndef MIGTOOL_BITMAP_H
#define MIGTOOL_BITMAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct bitmap {
	size_t bits;
	uint64_t *words;
};

/* All clear; bits may be 0. -1: out of memory. */
int bitmap_init(struct bitmap *b, size_t bits);
/* A second call, and one after memset(b, 0), do nothing. */
void bitmap_free(struct bitmap *b);

void bitmap_set(struct bitmap *b, size_t from, size_t n);
void bitmap_clear(struct bitmap *b, size_t from, size_t n);
bool bitmap_test(const struct bitmap *b, size_t i);

/* As bitmap_set and bitmap_clear; one atomic act a word. */
void bitmap_set_atomic(struct bitmap *b, size_t from, size_t n);
void bitmap_clear_atomic(struct bitmap *b, size_t from, size_t n);
/* One bit, atomically; was it set before? */
bool bitmap_test_and_set(struct bitmap *b, size_t i);

/*
 * First set (clear) bit of from..end, end if there is none; from may lie behind the end. It looks
 * no further than end: who goes through a large bitmap in short ranges would else see all of it
 * again for each.
 */
size_t bitmap_next_set(const struct bitmap *b, size_t from, size_t end);
size_t bitmap_next_clear(const struct bitmap *b, size_t from, size_t end);
size_t bitmap_count(const struct bitmap *b);

#endif
