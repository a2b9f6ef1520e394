// SPDX-License-Identifier: GPL-2.0-or-later
#include "test.h"

#include "blocktime.h"

static struct blocktime b;

static void each_thread_has_its_own_time(void)
{
	memset(&b, 0, sizeof(b));
	blocktime_add(&b, 7, 10);
	blocktime_add(&b, 5, 100);
	blocktime_add(&b, 7, 15);
	CHECK(b.n == 2 && !b.others.faults);
	CHECK(b.threads[0].thread == 7 && b.threads[0].ns == 25 && b.threads[0].faults == 2);
	CHECK(b.threads[1].thread == 5 && b.threads[1].ns == 100 && b.threads[1].faults == 1);
}

static void who_has_no_number_or_no_room_is_counted_with_others(void)
{
	memset(&b, 0, sizeof(b));
	blocktime_add(&b, 0, 3);
	CHECK(!b.n && b.others.ns == 3 && b.others.faults == 1);
	for (int i = 1; i <= BLOCKTIME_MAX + 5; i++)
		blocktime_add(&b, i, 1);
	CHECK(b.n == BLOCKTIME_MAX && b.others.faults == 6 && b.others.ns == 8);
	blocktime_add(&b, BLOCKTIME_MAX, 1); /* has its place */
	CHECK(b.others.faults == 6 && b.threads[BLOCKTIME_MAX - 1].ns == 2);
}

static void the_longest_come_first(void)
{
	static const uint64_t ns[] = { 5, 50, 1, 50, 40, 2 };
	unsigned out[4];

	memset(&b, 0, sizeof(b));
	CHECK(blocktime_longest(&b, out, 4) == 0);
	for (int i = 0; i < 6; i++)
		blocktime_add(&b, i + 1, ns[i]);
	CHECK(blocktime_longest(&b, out, 4) == 4);
	CHECK(out[0] == 1 && out[1] == 3 && out[2] == 4 && out[3] == 0);
	CHECK(blocktime_longest(&b, out, 1) == 1 && out[0] == 1);
	b.n = 2;
	CHECK(blocktime_longest(&b, out, 4) == 2 && out[0] == 1 && out[1] == 0);
}

static const struct test_case cases[] = {
	{ "each thread has its own time", each_thread_has_its_own_time },
	{ "who has no number, or no room, is counted with others",
	  who_has_no_number_or_no_room_is_counted_with_others },
	{ "the longest come first", the_longest_come_first },
};

TEST_MAIN(cases)
