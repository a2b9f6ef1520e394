/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A bit a page. Only bitmap_test and bitmap_test_set_atomic may run while other threads use the
 * bitmap; the rest wants it for itself. Ranges lie inside the bitmap: callers have checked them.
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

/* Sets one bit; returns what it was. Of several threads exactly one is told false. */
bool bitmap_test_set_atomic(struct bitmap *b, size_t i);

/* First set (clear) bit at or after from, b->bits if there is none; from may lie behind the end. */
size_t bitmap_next_set(const struct bitmap *b, size_t from);
size_t bitmap_next_clear(const struct bitmap *b, size_t from);
size_t bitmap_count(const struct bitmap *b);

#endif
