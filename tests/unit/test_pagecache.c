// SPDX-License-Identifier: GPL-2.0-or-later
#include "test.h"

#include "pagecache.h"

static uint8_t page[65536];
static struct error err;

static uint8_t *insert(struct page_cache *c, uint64_t addr, uint8_t fill, uint64_t age)
{
	memset(page, fill, sizeof(page));
	return page_cache_insert(c, addr, page, age);
}

static void check_sizes(uint64_t size, uint32_t page_size, bool good)
{
	struct page_cache *c = page_cache_new(size, page_size, &err);

	CHECK(!!c == good);
	if (!c)
		CHECK(err.status == ST_USAGE && strstr(err.msg, "power of two"));
	page_cache_free(c);
}

static void sizes(void)
{
	check_sizes(4096, 4096, true);
	check_sizes(65536, 65536, true);
	check_sizes(UINT64_C(1) << 30, 16384, true);
	check_sizes(4095, 4096, false);
	check_sizes(4096 * 3, 4096, false);
	check_sizes(0, 4096, false);
	check_sizes(4096, 0, false);
	check_sizes(4096, 3000, false);
	CHECK(page_cache_new(UINT64_C(1) << 63, 8, &err) == NULL && err.status == ST_NOMEM);
	CHECK(page_cache_new(UINT64_C(1) << 62, 4096, &err) == NULL && err.status == ST_NOMEM);
}

static void holds_copies(void)
{
	struct page_cache *c = page_cache_new(16 * 16384, 16384, &err);

	REQUIRE(c);
	CHECK(page_cache_lookup(c, 0, 1) == NULL);
	for (unsigned i = 0; i < 16; i++)
		CHECK(insert(c, i * 16384, (uint8_t)i, 1));
	for (unsigned i = 0; i < 16; i++) {
		uint8_t *p = page_cache_lookup(c, i * 16384, 1);

		REQUIRE(p && p != page);
		CHECK(p[0] == i && p[16383] == i);
	}
	/* another page of the same slot */
	CHECK(page_cache_lookup(c, 16 * 16384, 1) == NULL);
	page_cache_free(c);
}

static void keeps_the_young(void)
{
	struct page_cache *c = page_cache_new(4 * 4096, 4096, &err);

	REQUIRE(c);
	CHECK(insert(c, 4096, 1, 10));
	CHECK(insert(c, 5 * 4096, 2, 10) == NULL);
	CHECK(insert(c, 5 * 4096, 2, 11) == NULL);
	CHECK(page_cache_lookup(c, 5 * 4096, 11) == NULL);
	/* the resident was left as it is, and looking for another did not refresh it */
	CHECK(insert(c, 5 * 4096, 2, 12));
	CHECK(page_cache_lookup(c, 4096, 12) == NULL);
	CHECK(page_cache_lookup(c, 5 * 4096, 12)[7] == 2);
	page_cache_free(c);
}

static void hits_refresh(void)
{
	struct page_cache *c = page_cache_new(4 * 4096, 4096, &err);

	REQUIRE(c);
	CHECK(insert(c, 0, 1, 1));
	CHECK(page_cache_lookup(c, 0, 5));
	CHECK(insert(c, 4 * 4096, 2, 6) == NULL);
	CHECK(page_cache_lookup(c, 0, 5)[0] == 1);
	/* so does putting the same page in again, whatever its age */
	CHECK(insert(c, 0, 3, 7));
	CHECK(insert(c, 4 * 4096, 2, 8) == NULL);
	CHECK(page_cache_lookup(c, 0, 7)[0] == 3);
	CHECK(insert(c, 4 * 4096, 2, 9));
	page_cache_free(c);
	page_cache_free(NULL);
}

/* Address 0 in an empty slot is not the page at address 0. */
static void empty_is_empty(void)
{
	struct page_cache *c = page_cache_new(4096, 4096, &err);

	REQUIRE(c);
	CHECK(page_cache_lookup(c, 0, 0) == NULL);
	CHECK(insert(c, UINT64_C(0xfffffffffffff000), 1, 0));
	CHECK(page_cache_lookup(c, 0, 0) == NULL);
	CHECK(page_cache_lookup(c, UINT64_C(0xfffffffffffff000), 0));
	page_cache_free(c);
}

static const struct test_case cases[] = {
	{ "sizes are powers of two that hold a page", sizes },
	{ "it holds copies of pages", holds_copies },
	{ "a page of the last two rounds keeps its slot", keeps_the_young },
	{ "a hit makes a page young", hits_refresh },
	{ "an empty slot holds no page", empty_is_empty },
};
TEST_MAIN(cases)
