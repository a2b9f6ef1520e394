// SPDX-License-Identifier: GPL-2.0-or-later
#include "test.h"

#include "effort.h"

#define US     UINT64_C(1000)
#define PACKET (512u << 10)

struct took {
	unsigned making_us, cpu_us, sending_us;
};

/* Many packets of the same times, from one of two threads; how often the level changed. */
static unsigned note(struct effort *e, unsigned packets, struct took t)
{
	unsigned changes = 0;

	while (packets--)
		changes += effort_note(e, t.making_us * US, t.cpu_us * US, t.sending_us * US,
				       PACKET, 2);
	return changes;
}

static const struct took waits_for_link = { 600, 590, 2000 }, waits_for_none = { 600, 590, 50 },
			 waits_for_core = { 1200, 600, 3000 }, slow_link = { 1200, 600, 20000 },
			 even = { 600, 590, 500 };

static void it_begins_with_the_least(void)
{
	struct effort e = { 0 };

	CHECK(effort_level(&e) == EFFORT_LOW);
	CHECK(note(&e, 1000, waits_for_none) == 0);
	CHECK(effort_skips(&e, 1000, 501) && !effort_skips(&e, 1000, 500));
}

static void a_thread_that_waits_for_the_link_compresses_harder(void)
{
	struct effort e = { 0 };

	CHECK(note(&e, 1000, waits_for_link) == 2);
	CHECK(effort_level(&e) == EFFORT_HIGH);
	CHECK(!effort_skips(&e, 1000, 999));
}

static void one_that_waits_for_a_core_compresses_less(void)
{
	struct effort e = { 0 };

	note(&e, 1000, waits_for_link);
	CHECK(note(&e, 1000, waits_for_core) == 2);
	CHECK(effort_level(&e) == EFFORT_LOW && effort_skips(&e, 1000, 900));
}

static void a_slow_link_is_worth_a_core_that_others_want(void)
{
	struct effort e = { 0 };

	CHECK(note(&e, 1000, slow_link) == 2);
	CHECK(effort_level(&e) == EFFORT_HIGH);
}

static void it_stays_where_neither_waits_for_the_other(void)
{
	struct effort e = { 0 };

	while (effort_level(&e) != -1)
		note(&e, 1, waits_for_link);
	CHECK(note(&e, 1000, even) == 0);
	CHECK(effort_level(&e) == -1);
}

static void one_packet_that_takes_long_changes_nothing(void)
{
	struct effort e = { 0 };

	for (unsigned i = 0; i < 100; i++) {
		CHECK(note(&e, 31, waits_for_none) == 0);
		CHECK(note(&e, 1, waits_for_link) == 0);
	}
}

static const struct test_case cases[] = {
	{ "it begins with the least", it_begins_with_the_least },
	{ "a thread that waits for the link compresses harder",
	  a_thread_that_waits_for_the_link_compresses_harder },
	{ "one that waits for a core compresses less", one_that_waits_for_a_core_compresses_less },
	{ "a slow link is worth a core that others want",
	  a_slow_link_is_worth_a_core_that_others_want },
	{ "it stays where neither waits for the other",
	  it_stays_where_neither_waits_for_the_other },
	{ "one packet that takes long changes nothing",
	  one_packet_that_takes_long_changes_nothing },
};
TEST_MAIN(cases)
