// SPDX-License-Identifier: GPL-2.0-or-later
#include "bitmap.h"

#include <stdlib.h>

#define BITS 64u

static size_t words_for(size_t bits)
{
	return bits / BITS + (bits % BITS != 0);
}

int bitmap_init(struct bitmap *b, size_t bits)
{
	/* One word at least, so that an empty bitmap is no special case for calloc. */
	b->bits = bits;
	b->words = calloc(words_for(bits) + 1, sizeof(*b->words));
	return b->words ? 0 : -1;
}

void bitmap_free(struct bitmap *b)
{
	free(b->words);
	b->words = NULL;
	b->bits = 0;
}

/* The bits from..from+n of the word they start in, as far as they lie in it. */
static uint64_t mask_of(size_t from, size_t n)
{
	uint64_t m = ~UINT64_C(0) << from % BITS;

	if (n < BITS - from % BITS)
		m &= ~(~UINT64_C(0) << (from % BITS + n));
	return m;
}

void bitmap_set(struct bitmap *b, size_t from, size_t n)
{
	while (n) {
		size_t here = BITS - from % BITS;

		b->words[from / BITS] |= mask_of(from, n);
		here = here < n ? here : n;
		from += here;
		n -= here;
	}
}

void bitmap_clear(struct bitmap *b, size_t from, size_t n)
{
	while (n) {
		size_t here = BITS - from % BITS;

		b->words[from / BITS] &= ~mask_of(from, n);
		here = here < n ? here : n;
		from += here;
		n -= here;
	}
}

bool bitmap_test(const struct bitmap *b, size_t i)
{
	return __atomic_load_n(&b->words[i / BITS], __ATOMIC_RELAXED) >> i % BITS & 1;
}

/* Every word once, however many bits of it: set ? or : and not. */
static void change_atomic(struct bitmap *b, size_t from, size_t n, bool set)
{
	while (n) {
		size_t here = BITS - from % BITS;
		uint64_t m = mask_of(from, n);

		if (set)
			__atomic_fetch_or(&b->words[from / BITS], m, __ATOMIC_ACQ_REL);
		else
			__atomic_fetch_and(&b->words[from / BITS], ~m, __ATOMIC_ACQ_REL);
		here = here < n ? here : n;
		from += here;
		n -= here;
	}
}

void bitmap_set_atomic(struct bitmap *b, size_t from, size_t n)
{
	change_atomic(b, from, n, true);
}

void bitmap_clear_atomic(struct bitmap *b, size_t from, size_t n)
{
	change_atomic(b, from, n, false);
}

bool bitmap_test_and_set(struct bitmap *b, size_t i)
{
	uint64_t m = UINT64_C(1) << i % BITS;

	return __atomic_fetch_or(&b->words[i / BITS], m, __ATOMIC_ACQ_REL) & m;
}

static uint64_t word(const struct bitmap *b, size_t w)
{
	return __atomic_load_n(&b->words[w], __ATOMIC_RELAXED);
}

/* First bit of from..end that differs from those of `same` (all ones or all zeros), else end. */
static size_t next_other(const struct bitmap *b, size_t from, size_t end, uint64_t same)
{
	size_t w = from / BITS;
	uint64_t v;

	if (from >= end)
		return end;
	v = (word(b, w) ^ same) & (~UINT64_C(0) << from % BITS);
	while (!v) {
		if (++w * BITS >= end)
			return end;
		v = word(b, w) ^ same;
	}
	from = w * BITS + (size_t)__builtin_ctzll(v);
	return from < end ? from : end;
}

size_t bitmap_next_set(const struct bitmap *b, size_t from, size_t end)
{
	return next_other(b, from, end, 0);
}

size_t bitmap_next_clear(const struct bitmap *b, size_t from, size_t end)
{
	return next_other(b, from, end, ~UINT64_C(0));
}

/* The bits beyond the last are never set, so whole words can be counted. */
size_t bitmap_count(const struct bitmap *b)
{
	size_t n = 0, words = words_for(b->bits);

	for (size_t w = 0; w < words; w++)
		n += (size_t)__builtin_popcountll(word(b, w));
	return n;
}
