// SPDX-License-Identifier: GPL-2.0-or-later
#include "test.h"

#include "bitmap.h"

#include <pthread.h>
#include <stdlib.h>

/* A byte a bit is what the bitmap is compared with. */
static bool plain[400];

static void same_as_plain(const struct bitmap *b)
{
	size_t count = 0, set = b->bits, clear = b->bits;

	for (size_t i = b->bits; i-- > 0;) {
		count += plain[i];
		if (plain[i])
			set = i;
		else
			clear = i;
		CHECK(bitmap_test(b, i) == plain[i]);
		CHECK(bitmap_next_set(b, i, b->bits) == set);
		CHECK(bitmap_next_clear(b, i, b->bits) == clear);
		for (size_t end = 0; end <= b->bits; end += 29) {
			CHECK(bitmap_next_set(b, i, end) == (set < end ? set : end));
			CHECK(bitmap_next_clear(b, i, end) == (clear < end ? clear : end));
		}
	}
	CHECK(bitmap_count(b) == count);
	CHECK(bitmap_next_set(b, b->bits, b->bits) == b->bits);
	CHECK(bitmap_next_clear(b, b->bits, b->bits) == b->bits);
}

static void random_ranges_of(size_t bits)
{
	struct bitmap b;

	memset(plain, 0, sizeof(plain));
	REQUIRE(bitmap_init(&b, bits) == 0);
	same_as_plain(&b);
	for (int round = 0; round < 300; round++) {
		size_t from = (size_t)rand() % (bits + 1), n = (size_t)rand() % (bits - from + 1);
		bool set = rand() & 1;

		(set ? bitmap_set : bitmap_clear)(&b, from, n);
		memset(plain + from, set, n);
		same_as_plain(&b);
	}
	bitmap_free(&b);
}

static void random_ranges(void)
{
	const char *seed = getenv("SEED");

	srand(seed ? (unsigned)atoi(seed) : 1);
	random_ranges_of(0);
	random_ranges_of(1);
	random_ranges_of(63);
	random_ranges_of(64);
	random_ranges_of(65);
	random_ranges_of(128);
	random_ranges_of(399);
}

static void every_range(void)
{
	struct bitmap b;

	REQUIRE(bitmap_init(&b, 130) == 0);
	for (size_t from = 0; from <= 130; from++)
		for (size_t n = 0; n <= 130 - from; n++) {
			bitmap_set(&b, from, n);
			CHECK(bitmap_count(&b) == n);
			CHECK(bitmap_next_set(&b, 0, 130) == (n ? from : 130));
			CHECK(bitmap_next_clear(&b, from, 130) == from + n);
			bitmap_clear(&b, from, n);
			CHECK(bitmap_count(&b) == 0);
		}
	bitmap_free(&b);
	bitmap_free(&b);
}

static void large(void)
{
	size_t bits = (UINT64_C(1) << 40) / 65536 + 3;
	struct bitmap b;

	/* 1 TiB in pages of 64 KiB and a bit */
	REQUIRE(bitmap_init(&b, bits) == 0);
	bitmap_set(&b, bits - 1, 1);
	CHECK(bitmap_next_set(&b, 0, bits) == bits - 1 && bitmap_count(&b) == 1);
	bitmap_set(&b, 0, bits);
	CHECK(bitmap_next_clear(&b, 0, bits) == bits && bitmap_count(&b) == bits);
	bitmap_free(&b);
}

struct stripe {
	struct bitmap *b;
	size_t from;
};

/* Runs of 3 bits, every 9: the other two threads' lie in the same words. */
static void *set_and_clear(void *arg)
{
	struct stripe *s = arg;

	for (size_t i = s->from; i + 3 <= s->b->bits; i += 9) {
		bitmap_set_atomic(s->b, i, 3);
		if (bitmap_next_set(s->b, i, s->b->bits) != i)
			return arg;
	}
	for (size_t i = s->from; i + 3 <= s->b->bits; i += 18)
		bitmap_clear_atomic(s->b, i, 3);
	return NULL;
}

static void a_bit_is_won_once(void)
{
	struct bitmap b;

	REQUIRE(!bitmap_init(&b, 130));
	CHECK(!bitmap_test_and_set(&b, 129) && !bitmap_test_and_set(&b, 64));
	CHECK(bitmap_test_and_set(&b, 129) && bitmap_test_and_set(&b, 64));
	CHECK(bitmap_count(&b) == 2);
	bitmap_free(&b);
}

static void threads_keep_neighbours(void)
{
	struct bitmap b;
	struct stripe s[3];
	pthread_t t[3];
	void *failed;

	REQUIRE(bitmap_init(&b, 90000) == 0);
	for (size_t i = 0; i < 3; i++) {
		s[i] = (struct stripe){ &b, 3 * i };
		REQUIRE(pthread_create(&t[i], NULL, set_and_clear, &s[i]) == 0);
	}
	for (int i = 0; i < 3; i++) {
		pthread_join(t[i], &failed);
		CHECK(!failed);
	}
	for (size_t i = 0; i < b.bits; i++)
		if (bitmap_test(&b, i) != (i % 18 >= 9))
			CHECK(!"a neighbour was changed");
	bitmap_free(&b);
}

static const struct test_case cases[] = {
	{ "random ranges match a plain array", random_ranges },
	{ "every range of 130 bits is set and cleared exactly", every_range },
	{ "a terabyte's bitmap works", large },
	{ "threads that change runs leave their neighbours' alone", a_bit_is_won_once },
	{ "threads that change runs leave their neighbours' alone", threads_keep_neighbours },
};
TEST_MAIN(cases)
