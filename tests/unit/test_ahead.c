// SPDX-License-Identifier: GPL-2.0-or-later
/* What comes ahead of a guest, until it is given to it. */
#include "image_fixture.h"

#include "ahead.h"
#include "lazy.h"
#include "pull.h"

#include <string.h>

#define UNIT (4 * PG)

static struct image *img;
static struct block *block;
static struct ahead *a;
static struct digest sum;
static struct error err;

/* ---- the guest: what it is given, in runs of pages ---- */

struct run {
	unsigned first, n;
	bool asked, data;
};

static struct run given[8];
static unsigned ngiven;
static uint64_t wants, wants_len; /* with the first that it gets; 0: nothing */
static bool wants_all_here;

static int give(uint64_t offset, uint64_t len, bool asked, bool data)
{
	if (ngiven < 8)
		given[ngiven] =
			(struct run){ (unsigned)(offset / PG), (unsigned)(len / PG), asked, data };
	if (!ngiven++ && wants_len)
		wants_all_here = ahead_ask(a, 0, wants, wants_len);
	return 0;
}

int pager_arrived(struct pager *p, unsigned b, uint64_t offset, const void *buf, size_t len,
		  struct error *e)
{
	(void)p, (void)b, (void)e;
	return give(offset, len, false, buf);
}

int pager_arrived_zero(struct pager *p, unsigned b, uint64_t offset, uint64_t len, struct error *e)
{
	(void)p, (void)b, (void)e;
	return give(offset, len, false, false);
}

int pager_arrived_asked(struct pager *p, unsigned b, uint64_t offset, const void *buf, size_t len,
			struct error *e)
{
	(void)p, (void)b, (void)e;
	return give(offset, len, true, buf);
}

int lazy_keep(struct lazy *l, uint64_t offset, const void *buf, size_t len, struct error *e)
{
	(void)l, (void)offset, (void)buf, (void)len, (void)e;
	return 0;
}

void pull_came(struct pull *p, const struct block *b, uint64_t offset, uint64_t len)
{
	(void)p, (void)b, (void)offset, (void)len;
}

int session_fail(struct session *ss, const struct error *e)
{
	(void)ss, (void)e;
	CHECK(false);
	return -1;
}

static bool was_given(unsigned i, struct run r)
{
	return i < ngiven && given[i].first == r.first && given[i].n == r.n &&
	       given[i].asked == r.asked && given[i].data == r.data;
}

static struct session session;
static struct lazy lazy = { .ss = &session };

/* One block of 18 pages: its last unit is cut. */
static bool begin(void)
{
	struct block b = { .name = "a", .size = 18 * PG, .page_size = PG };

	sum = (struct digest){ 0, 0 };
	ngiven = 0;
	wants_len = 0;
	img = image_of_blocks(&b, 1, PG, &err);
	block = img ? &img->blocks[0] : NULL;
	a = img ? ahead_new(&lazy, img, false, &err) : NULL;
	return a;
}

static void end(void)
{
	ahead_free(a);
	image_close(img, false);
}

/* n pages from page `first` on, each full of `fill`. */
static bool took(unsigned first, unsigned n, uint8_t fill)
{
	uint64_t at = (uint64_t)first * PG, zeros;
	uint8_t *to = ahead_room(a, block, at), buf[18 * PG];

	to = to ? to : buf;
	if (ahead_drop(a, block, at, (uint64_t)n * PG, &sum, &err))
		return false;
	memset(to, fill, (size_t)n * PG);
	return !ahead_took(a, block, at, to, (size_t)n * PG, &sum, &zeros, &err) &&
	       zeros == (fill ? 0 : n);
}

static bool sum_is(const uint8_t fills[18])
{
	struct digest want = { 0, 0 };
	uint8_t page[PG];

	for (unsigned i = 0; i < 18; i++) {
		memset(page, fills[i], PG);
		if (fills[i])
			digest_add(&want, digest_page(&block->digest, (uint64_t)i * PG, page, PG));
	}
	return digest_equal(sum, want);
}

static bool next_is(unsigned from, unsigned first, unsigned n)
{
	struct extent e = ahead_next(a, block, (uint64_t)from * PG);

	return e.len == (uint64_t)n * PG && (!n || e.offset == (uint64_t)first * PG);
}

static void a_page_that_comes_again_counts_once(void)
{
	REQUIRE(begin());
	CHECK(took(0, 4, 1) && took(2, 4, 2));
	CHECK(sum_is((uint8_t[18]){ 1, 1, 2, 2, 2, 2 }));
	CHECK(!ahead_took_zero(a, block, PG, 2 * PG, &sum, &err));
	CHECK(sum_is((uint8_t[18]){ 1, 0, 0, 2, 2, 2 }));
	CHECK(took(4, 1, 0) && took(1, 1, 3));
	CHECK(sum_is((uint8_t[18]){ 1, 3, 0, 2, 0, 2 }));
	CHECK(next_is(0, 0, 6) && next_is(6, 0, 0));
	end();
}

static void what_is_taken_back_is_gone(void)
{
	REQUIRE(begin());
	CHECK(took(0, 18, 9));
	CHECK(!ahead_drop(a, block, 3 * PG, 2 * PG, &sum, &err));
	CHECK(next_is(0, 0, 3) && next_is(3, 5, 13));
	CHECK(sum_is((uint8_t[18]){ 9, 9, 9, 0, 0, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9 }));
	/* nothing of it is left in memory, either */
	CHECK(ahead_room(a, block, 3 * PG)[0] == 0 && ahead_room(a, block, 5 * PG)[0] == 9);
	CHECK(!ahead_forget(a, &err));
	CHECK(next_is(0, 0, 0) && ahead_room(a, block, 0)[0] == 0);
	end();
}

static void a_unit_is_there_as_a_whole_or_not_at_all(void)
{
	REQUIRE(begin());
	CHECK(took(0, 6, 1) && !ahead_took_zero(a, block, 9 * PG, 2 * PG, &sum, &err));
	CHECK(took(12, 3, 2) && !ahead_took_zero(a, block, 15 * PG, PG, &sum, &err));
	CHECK(took(16, 2, 3));
	CHECK(!ahead_settle(a, UNIT, &sum, &err));
	CHECK(next_is(0, 0, 4) && next_is(4, 12, 6));
	CHECK(sum_is((uint8_t[18]){ 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 2, 2, 2, 0, 3, 3 }));
	end();
}

static bool kept_is(const uint8_t fills[18])
{
	uint8_t page[PG], want[PG];

	for (unsigned i = 0; i < 18; i++) {
		memset(want, fills[i], PG);
		if (image_get_page(img, block, (uint64_t)i * PG, page, PG, &err) ||
		    memcmp(page, want, PG) != 0)
			return false;
	}
	return true;
}

/* Zeros that come behind COMMIT are not stored there. */
static void keep(void)
{
	sum = (struct digest){ 0, 0 };
	img = create_one(at("img"), 18 * PG, false, &err);
	REQUIRE(img);
	img->target_page = PG;
	block = &img->blocks[0];
	a = ahead_new(NULL, img, true, &err);
	REQUIRE(a);
	CHECK(took(0, 10, 7) && kept_is((uint8_t[18]){ 7, 7, 7, 7, 7, 7, 7, 7, 7, 7 }));
	CHECK(!ahead_drop(a, block, 3 * PG, 2 * PG, &sum, &err));
	CHECK(kept_is((uint8_t[18]){ 7, 7, 7, 0, 0, 7, 7, 7, 7, 7 }));
	CHECK(!ahead_took_zero(a, block, 0, PG, &sum, &err));
	CHECK(!ahead_settle(a, UNIT, &sum, &err) && next_is(0, 0, 0));
	CHECK(kept_is((uint8_t[18]){ 0 }) && sum_is((uint8_t[18]){ 0 }));
	CHECK(took(4, 8, 5) && kept_is((uint8_t[18]){ 0, 0, 0, 0, 5, 5, 5, 5, 5, 5, 5, 5 }));
	CHECK(!ahead_forget(a, &err) && next_is(0, 0, 0) && kept_is((uint8_t[18]){ 0 }));
	end();
}

static void what_is_worth_nothing_does_not_stay_in_a_file(void)
{
	on_each_fs(keep);
}

static void the_guest_gets_nothing_before_it_is_given(void)
{
	REQUIRE(begin());
	CHECK(took(0, 18, 1));
	CHECK(!ahead_settle(a, PG, &sum, &err));
	CHECK(!ahead_ask(a, 0, 0, PG));
	end();
}

/* All of it, until it is there. */
static bool bring(void)
{
	bool ok = !cancel_init(&session.cancel, &err) && !ahead_start(a, &err) &&
		  !ahead_wait(a, &err);

	ahead_stop(a);
	cancel_destroy(&session.cancel);
	return ok;
}

static void the_guest_gets_all_of_it_in_runs(void)
{
	REQUIRE(begin());
	CHECK(took(0, 8, 1) && !ahead_took_zero(a, block, 8 * PG, 4 * PG, &sum, &err));
	CHECK(took(16, 2, 2) && !ahead_settle(a, UNIT, &sum, &err));
	CHECK(bring());
	CHECK(ngiven == 3 && was_given(0, (struct run){ 0, 8, false, true }) &&
	      was_given(1, (struct run){ 8, 4, false, false }) &&
	      was_given(2, (struct run){ 16, 2, false, true }));
	CHECK(next_is(0, 0, 0));
	end();
}

/* A VMM's regions may have pages of several sizes; the unit is the largest. */
static void a_page_that_is_less_than_a_unit_brings_its_unit(void)
{
	REQUIRE(begin());
	CHECK(took(0, 4, 1) && took(8, 4, 2) && !ahead_settle(a, UNIT, &sum, &err));
	wants = 9 * PG;
	wants_len = PG;
	CHECK(bring() && wants_all_here);
	CHECK(ngiven == 2 && was_given(0, (struct run){ 0, 4, false, true }) &&
	      was_given(1, (struct run){ 8, 4, true, true }));
	end();
	REQUIRE(begin());
	CHECK(took(0, 4, 1) && took(16, 2, 2) && !ahead_settle(a, UNIT, &sum, &err));
	wants = 15 * PG; /* its unit is not here, the next one, which is cut, is */
	wants_len = 3 * PG;
	CHECK(bring() && !wants_all_here);
	CHECK(ngiven == 2 && was_given(1, (struct run){ 16, 2, true, true }));
	end();
}

static const struct test_case cases[] = {
	{ "a page that comes again counts once", a_page_that_comes_again_counts_once },
	{ "what is taken back is gone", what_is_taken_back_is_gone },
	{ "a unit is there as a whole, or not at all", a_unit_is_there_as_a_whole_or_not_at_all },
	{ "what is worth nothing does not stay in a file",
	  what_is_worth_nothing_does_not_stay_in_a_file },
	{ "the guest gets nothing before it is given to it",
	  the_guest_gets_nothing_before_it_is_given },
	{ "the guest gets all of it, in runs", the_guest_gets_all_of_it_in_runs },
	{ "a page that is less than a unit brings its unit",
	  a_page_that_is_less_than_a_unit_brings_its_unit },
};

TEST_MAIN(cases)
