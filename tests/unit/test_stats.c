// SPDX-License-Identifier: GPL-2.0-or-later
#include "test.h"

#include "stats.h"

#include <pthread.h>

static void *add_many(void *arg)
{
	struct stats *s = arg;

	for (int i = 0; i < 10000; i++) {
		stat_add(&s->normal, 1);
		stat_add(&s->transferred, 4096);
	}
	return NULL;
}

static void threads_add_and_nothing_is_lost(void)
{
	static struct stats s;
	struct stats_snapshot snap;
	pthread_t t[4];

	for (int i = 0; i < 4; i++)
		REQUIRE(pthread_create(&t[i], NULL, add_many, &s) == 0);
	for (int i = 0; i < 4; i++)
		pthread_join(t[i], NULL);
	stats_snapshot(&s, &snap);
	CHECK(snap.normal == 40000 && snap.transferred == UINT64_C(40000) * 4096);
	CHECK(snap.duplicate == 0);
}

static void a_snapshot_has_every_counter(void)
{
	static struct stats s;
	struct stats_snapshot snap;
	uint64_t n = 0;

	memset(&snap, 0, sizeof(snap));
#define FILL(name) stat_set(&s.name, ++n);
	STATS_COUNTERS(FILL)
	stats_snapshot(&s, &snap);
	CHECK(n == sizeof(s) / sizeof(counter));
	n = 0;
#define SAME(name) CHECK(snap.name == ++n);
	STATS_COUNTERS(SAME)
	CHECK(snap.now >= 1);
}

static void elapsed_ends_with_the_transfer(void)
{
	struct stats_snapshot s = { .now = 5000 };

	CHECK(stats_elapsed(&s) == 0 && stats_moving(&s) == 0);
	s.t_start = 1000;
	CHECK(stats_elapsed(&s) == 4000 && stats_moving(&s) == 4000);
	s.t_setup_done = 1500;
	CHECK(stats_elapsed(&s) == 4000 && stats_moving(&s) == 3500);
	s.t_end = 3000;
	CHECK(stats_elapsed(&s) == 2000 && stats_moving(&s) == 1500);
	s.t_end = 900;
	CHECK(stats_elapsed(&s) == 0);
}

static void the_clock_never_says_not_yet(void)
{
	uint64_t a = stats_now(), b = stats_now();

	CHECK(a > 0 && b >= a);
}

static const struct test_case cases[] = {
	{ "threads add and nothing is lost", threads_add_and_nothing_is_lost },
	{ "a snapshot has every counter", a_snapshot_has_every_counter },
	{ "elapsed ends with the transfer", elapsed_ends_with_the_transfer },
	{ "the clock never says 'not yet'", the_clock_never_says_not_yet },
};
TEST_MAIN(cases)
