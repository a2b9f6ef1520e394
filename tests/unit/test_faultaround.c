// SPDX-License-Identifier: GPL-2.0-or-later
#include "test.h"

#include "faultaround.h"

#include <stdbool.h>
#include <stdlib.h>

#define MAX 16

static struct faultaround f;

static void fresh(void)
{
	memset(&f, 0, sizeof(f));
}

/* Is the run [first, first + n)? */
static bool brings(unsigned block, uint64_t page, uint64_t first, unsigned n)
{
	struct faultaround_run r = faultaround_next(&f, block, page, MAX);

	if (r.n == n && (!n || r.first == first))
		return true;
	printf("# page %llu brings %u from %llu\n", (unsigned long long)page, r.n,
	       (unsigned long long)r.first);
	return false;
}

static void a_walk_upwards_doubles_its_window(void)
{
	fresh();
	CHECK(brings(0, 100, 0, 0));
	CHECK(brings(0, 101, 100, 2));
	CHECK(brings(0, 102, 100, 4));
	CHECK(brings(0, 104, 104, 8));
	CHECK(brings(0, 112, 112, 16));
	CHECK(brings(0, 128, 128, 16));
}

static void a_walk_downwards_too(void)
{
	fresh();
	CHECK(brings(0, 103, 0, 0));
	CHECK(brings(0, 102, 102, 2));
	CHECK(brings(0, 101, 100, 4));
	CHECK(brings(0, 99, 96, 8));
	CHECK(brings(0, 95, 80, 16));
	CHECK(brings(0, 79, 64, 16));
	CHECK(brings(0, 0, 0, 0)); /* far away */
}

static void the_ends_of_numbers_are_no_neighbours(void)
{
	fresh();
	CHECK(brings(0, 0, 0, 0));
	CHECK(brings(0, UINT64_MAX, 0, 0));
	CHECK(brings(0, UINT64_MAX - 1, UINT64_MAX - 1, 2));
	CHECK(brings(0, 1, 0, 2));
}

static void threads_walk_apart(void)
{
	fresh();
	for (uint64_t i = 0; i < FAULTAROUND_WALKS; i++)
		CHECK(brings((unsigned)(i % 2), 1000 * i, 0, 0));
	for (uint64_t i = 0; i < FAULTAROUND_WALKS; i++)
		CHECK(brings((unsigned)(i % 2), 1000 * i + 1, 1000 * i, 2));
	CHECK(brings(7, 1, 0, 0)); /* another block, in place of the one that rested longest */
	CHECK(brings(0, 2, 0, 0));
	CHECK(brings(0, 2002, 2000, 4));
}

/* How many pages a pattern brings beside those that it needs, where all that came is there. */
static unsigned long extra(const uint64_t *pages, size_t n, size_t size, unsigned long *faults)
{
	uint8_t *there = calloc(size, 1);
	unsigned long more = 0;

	fresh();
	*faults = 0;
	for (size_t i = 0; there && i < n; i++) {
		struct faultaround_run r;

		if (there[pages[i]])
			continue;
		there[pages[i]] = 1;
		++*faults;
		r = faultaround_next(&f, 0, pages[i], MAX);
		CHECK(!r.n || (r.first <= pages[i] && pages[i] < r.first + r.n));
		for (uint64_t k = r.first; k < r.first + r.n && k < size; k++) {
			more += !there[k];
			there[k] = 1;
		}
	}
	free(there);
	return more;
}

static void a_walk_through_all_faults_once_in_sixteen_pages(void)
{
	enum { N = 1 << 16 };
	static uint64_t pages[N];
	unsigned long faults;

	for (size_t i = 0; i < N; i++)
		pages[i] = i;
	CHECK(extra(pages, N, N, &faults) == N - faults);
	CHECK(faults < N / 16 + 8);
}

static void random_pages_and_strides_bring_next_to_nothing(void)
{
	enum { SIZE = 1 << 20, N = 1 << 14 };
	static uint64_t pages[N];
	unsigned long faults, more;

	srandom(1);
	for (size_t i = 0; i < N; i++)
		pages[i] = (uint64_t)random() % SIZE;
	more = extra(pages, N, SIZE, &faults);
	CHECK(more < N / 100);
	for (size_t i = 0; i < N; i++)
		pages[i] = i * 3;
	CHECK(extra(pages, N, SIZE, &faults) == 0 && faults == N);
}

static void where_pages_are_large_there_is_none(void)
{
	fresh();
	for (unsigned max = 0; max < 2; max++)
		for (uint64_t i = 0; i < 10; i++)
			CHECK(faultaround_next(&f, 0, i, max).n == 0);
}

static const struct test_case cases[] = {
	{ "a walk upwards doubles its window", a_walk_upwards_doubles_its_window },
	{ "a walk downwards, too", a_walk_downwards_too },
	{ "the ends of the numbers are no neighbours", the_ends_of_numbers_are_no_neighbours },
	{ "threads walk apart", threads_walk_apart },
	{ "a walk through all faults once in sixteen pages",
	  a_walk_through_all_faults_once_in_sixteen_pages },
	{ "random pages, and strides, bring next to nothing",
	  random_pages_and_strides_bring_next_to_nothing },
	{ "where pages are large there is none", where_pages_are_large_there_is_none },
};

TEST_MAIN(cases)
