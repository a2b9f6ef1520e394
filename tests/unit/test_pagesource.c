// SPDX-License-Identifier: GPL-2.0-or-later
/* Which page a postcopy source sends next. */
#include "test.h"

#include "bitmap.h"
#include "pagesource.h"

#include <pthread.h>

#define PG   4096u
#define HUGE (8 * PG)

static struct block blocks[2];
static struct image img = { .blocks = blocks, .nblocks = 2, .target_page = PG };
static struct cancel cancel;
static struct pagesource *ps;
static struct error err;

static bool begin(uint32_t second_page)
{
	blocks[0] = (struct block){ .name = "a", .size = 16 * PG, .page_size = PG, .index = 0 };
	blocks[1] = (struct block){
		.name = "b", .size = 20 * PG, .page_size = second_page, .index = 1
	};
	ps = pagesource_new(&img, &err);
	return ps && !cancel_init(&cancel, &err);
}

static void end(void)
{
	pagesource_free(ps);
	cancel_destroy(&cancel);
}

static bool is(const struct page_run *r, unsigned block, uint64_t page, uint64_t pages)
{
	return r->block == &blocks[block] && r->offset == page * PG && r->len == pages * PG;
}

static void everything_once_in_order(void)
{
	struct page_run r;

	REQUIRE(begin(PG));
	CHECK(pagesource_left(ps) == 36 * PG);
	CHECK(pagesource_next(ps, 10 * PG, &r) && is(&r, 0, 0, 10));
	CHECK(pagesource_next(ps, 10 * PG, &r) && is(&r, 0, 10, 6));
	CHECK(pagesource_next(ps, 100 * PG, &r) && is(&r, 1, 0, 20));
	CHECK(!pagesource_next(ps, PG, &r));
	CHECK(!pagesource_asked(ps, PG, &r));
	CHECK(pagesource_left(ps) == 0);
	end();
}

static void a_range_is_taken_in_whole_units_once(void)
{
	struct page_run r;

	REQUIRE(begin(PG));
	pagesource_set_unit(ps, HUGE);
	CHECK(pagesource_unit(ps, &blocks[0]) == HUGE);
	CHECK(pagesource_take(ps, &blocks[1], 8 * PG, 8 * PG, &r) && is(&r, 1, 8, 8));
	CHECK(!pagesource_take(ps, &blocks[1], 8 * PG, 8 * PG, &r));
	/* the block ends in the middle of a unit */
	CHECK(pagesource_take(ps, &blocks[1], 0, 20 * PG, &r) && is(&r, 1, 0, 8));
	CHECK(pagesource_take(ps, &blocks[1], 0, 20 * PG, &r) && is(&r, 1, 16, 4));
	CHECK(!pagesource_take(ps, &blocks[1], 0, 20 * PG, &r));
	CHECK(pagesource_left(ps) == 16 * PG);
	end();
}

static void what_only_fills_the_background_is_given_out_again_once(void)
{
	struct page_run r;

	REQUIRE(begin(PG));
	CHECK(pagesource_next(ps, 4 * PG, &r) && is(&r, 0, 0, 4));
	CHECK(pagesource_take(ps, &blocks[0], 8 * PG, PG, &r));
	CHECK(pagesource_again(ps, &blocks[0], 3 * PG, PG));
	CHECK(!pagesource_again(ps, &blocks[0], 3 * PG, PG));
	CHECK(pagesource_again(ps, &blocks[0], 0, PG));
	CHECK(!pagesource_again(ps, &blocks[0], 4 * PG, PG)); /* nobody has it */
	CHECK(!pagesource_again(ps, &blocks[0], 8 * PG, PG)); /* somebody needed it */
	CHECK(!pagesource_again(ps, &blocks[0], PG, 2 * PG)); /* nobody waits for two */
	end();
}

static void what_is_asked_for_comes_first(void)
{
	struct page_run r;

	REQUIRE(begin(PG));
	CHECK(pagesource_wait(ps, 0, &cancel, &err) == 0);
	CHECK(pagesource_next(ps, 2 * PG, &r) && is(&r, 0, 0, 2));
	CHECK(!pagesource_ask(ps, &blocks[1], 5 * PG, 2 * PG, &cancel, &err));
	CHECK(!pagesource_ask(ps, &blocks[0], 0, PG, &cancel, &err)); /* it was sent */
	CHECK(!pagesource_ask(ps, &blocks[0], 9 * PG, PG, &cancel, &err));
	CHECK(pagesource_wait(ps, 0, &cancel, &err) == 1);
	CHECK(pagesource_asked(ps, 100 * PG, &r) && is(&r, 1, 5, 2));
	CHECK(pagesource_asked(ps, 100 * PG, &r) && is(&r, 0, 9, 1));
	CHECK(!pagesource_asked(ps, 100 * PG, &r));
	CHECK(pagesource_wait(ps, 0, &cancel, &err) == 0);
	/* its neighbours next, then round to what lies before */
	CHECK(pagesource_next(ps, 100 * PG, &r) && is(&r, 0, 10, 6));
	CHECK(pagesource_next(ps, 100 * PG, &r) && is(&r, 1, 0, 5));
	CHECK(pagesource_next(ps, 100 * PG, &r) && is(&r, 1, 7, 13));
	CHECK(pagesource_next(ps, 100 * PG, &r) && is(&r, 0, 2, 7));
	CHECK(!pagesource_next(ps, PG, &r));
	end();
}

static void a_long_request_is_cut_and_skips_what_was_sent(void)
{
	struct page_run r;

	REQUIRE(begin(PG));
	CHECK(!pagesource_ask(ps, &blocks[0], 4 * PG, PG, &cancel, &err));
	CHECK(pagesource_asked(ps, PG, &r) && is(&r, 0, 4, 1));
	CHECK(!pagesource_ask(ps, &blocks[0], 0, 16 * PG, &cancel, &err));
	CHECK(pagesource_asked(ps, 3 * PG, &r) && is(&r, 0, 0, 3));
	CHECK(pagesource_asked(ps, 3 * PG, &r) && is(&r, 0, 3, 1));
	CHECK(pagesource_asked(ps, 100 * PG, &r) && is(&r, 0, 5, 11));
	CHECK(!pagesource_asked(ps, PG, &r));
	end();
}

static void huge_pages_stay_whole(void)
{
	struct page_run r;
	struct extent e;

	REQUIRE(begin(HUGE));
	CHECK(pagesource_unit(ps, &blocks[0]) == PG && pagesource_unit(ps, &blocks[1]) == HUGE);
	/* the first whole, the second but for its last page, of the third, which is cut, nothing */
	pagesource_sent(ps, &blocks[1], 0, 15 * PG);
	e = pagesource_partial(ps, &blocks[1], 0);
	CHECK(e.offset == 8 * PG && e.len == 7 * PG);
	CHECK(pagesource_partial(ps, &blocks[1], 15 * PG).len == 0);
	CHECK(pagesource_partial(ps, &blocks[0], 0).len == 0);
	pagesource_settle(ps);
	CHECK(pagesource_partial(ps, &blocks[1], 0).len == 0);
	e = pagesource_missing(ps, &blocks[1], 0);
	CHECK(e.offset == 8 * PG && e.len == 12 * PG);
	CHECK(pagesource_missing(ps, &blocks[1], 20 * PG).len == 0);
	CHECK(!pagesource_ask(ps, &blocks[1], HUGE, HUGE, &cancel, &err));
	CHECK(pagesource_asked(ps, PG, &r) && is(&r, 1, 8, 8));
	CHECK(pagesource_next(ps, PG, &r) && is(&r, 1, 16, 4));
	end();
}

static void what_changed_was_not_sent(void)
{
	struct bitmap map;
	struct extent e;

	REQUIRE(begin(PG) && !bitmap_init(&map, 16));
	pagesource_sent(ps, &blocks[0], 0, 16 * PG);
	CHECK(pagesource_missing(ps, &blocks[0], 0).len == 0);
	bitmap_set(&map, 3, 2);
	bitmap_set(&map, 9, 1);
	pagesource_changed(ps, &blocks[0], &map);
	pagesource_settle(ps);
	e = pagesource_missing(ps, &blocks[0], 0);
	CHECK(e.offset == 3 * PG && e.len == 2 * PG);
	e = pagesource_missing(ps, &blocks[0], e.offset + e.len);
	CHECK(e.offset == 9 * PG && e.len == PG);
	pagesource_unsent(ps, &blocks[0], 0);
	CHECK(pagesource_missing(ps, &blocks[0], 0).offset == 0);
	bitmap_free(&map);
	end();
}

static void *take_all(void *arg)
{
	uint64_t *sum = arg;
	struct page_run r;

	for (;;) {
		if (!pagesource_asked(ps, PG, &r) && !pagesource_next(ps, 2 * PG, &r))
			return NULL;
		*sum += r.len;
	}
}

static void of_two_threads_one_gets_each_page(void)
{
	uint64_t sum[2] = { 0, 0 };
	pthread_t one, two;

	REQUIRE(begin(PG));
	REQUIRE(!pthread_create(&one, NULL, take_all, &sum[0]));
	REQUIRE(!pthread_create(&two, NULL, take_all, &sum[1]));
	/* no more than wait without anybody who takes them */
	for (unsigned i = 0; i < 1000; i++)
		CHECK(!pagesource_ask(ps, &blocks[1], i % 20 * PG, PG, &cancel, &err));
	pthread_join(one, NULL);
	pthread_join(two, NULL);
	CHECK(sum[0] + sum[1] == 36 * PG);
	end();
}

static void who_asks_for_what_was_sent_never_waits(void)
{
	struct page_run r;

	REQUIRE(begin(PG));
	for (unsigned i = 0; i < 1024; i++)
		CHECK(!pagesource_ask(ps, &blocks[0], 0, PG, &cancel, &err));
	while (pagesource_next(ps, 100 * PG, &r))
		;
	/* with the queue full, and nobody who takes from it */
	CHECK(!pagesource_ask(ps, &blocks[0], 0, PG, &cancel, &err));
	CHECK(!pagesource_ask(ps, &blocks[1], 19 * PG, PG, &cancel, &err));
	CHECK(!pagesource_asked(ps, PG, &r));
	CHECK(!pagesource_ask(ps, &blocks[1], 0, 20 * PG, &cancel, &err));
	CHECK(pagesource_wait(ps, 0, &cancel, &err) == 0);
	end();
}

static void a_cancel_ends_who_asks_too_much(void)
{
	struct error why;

	REQUIRE(begin(PG));
	err_set(&why, ST_CANCELLED, "cancelled");
	for (unsigned i = 0; i < 1024; i++)
		CHECK(!pagesource_ask(ps, &blocks[0], 0, PG, &cancel, &err));
	cancel_fire(&cancel, &why);
	CHECK(pagesource_ask(ps, &blocks[0], 0, PG, &cancel, &err) == -1);
	CHECK(err.status == ST_CANCELLED);
	end();
}

static const struct test_case cases[] = {
	{ "a range is taken in whole units, once", a_range_is_taken_in_whole_units_once },
	{ "everything comes once, in order", everything_once_in_order },
	{ "what is asked for comes first, then its neighbours",
	  what_only_fills_the_background_is_given_out_again_once },
	{ "what is asked for comes first, then its neighbours", what_is_asked_for_comes_first },
	{ "a long request is cut, and skips what was sent",
	  a_long_request_is_cut_and_skips_what_was_sent },
	{ "huge pages stay whole", huge_pages_stay_whole },
	{ "what changed was not sent", what_changed_was_not_sent },
	{ "of two threads one gets each page", of_two_threads_one_gets_each_page },
	{ "who asks for what was sent never waits", who_asks_for_what_was_sent_never_waits },
	{ "a cancel ends who asks too much", a_cancel_ends_who_asks_too_much },
};

TEST_MAIN(cases)
