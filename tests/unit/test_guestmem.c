// SPDX-License-Identifier: GPL-2.0-or-later
#include "guestmem.h"
#include "latency.h"
#include "test.h"
#include "uffd.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#define K4 UINT64_C(4096)
#define M2 (UINT64_C(2) << 20)

static const uint64_t sizes[2] = { 16 * M2, 64 * K4 };

/* One space with these regions: what guestmem_check says. */
static int check(const struct guest_region *r, unsigned n, struct error *err)
{
	struct guest_memory g;
	struct guest_space *s;
	int rc = 0;

	guestmem_init(&g);
	s = guestmem_add_space(&g, -1, 0, err);
	for (unsigned i = 0; s && !rc && i < n; i++)
		rc = guestmem_add_region(s, &r[i], err);
	if (s && !rc)
		rc = guestmem_check(&g, sizes, 2, err);
	guestmem_free(&g);
	return rc;
}

static void regions_that_can_be(void)
{
	struct guest_region r[3] = {
		{ 0x7f0000200000, M2, 0, M2, (uint32_t)M2, 0, 0 },
		{ 0x7f0000000000, M2, 0, 0, (uint32_t)M2, 0, 0 },
		{ 0x10000, 64 * K4, 1, 0, (uint32_t)K4, 0, 0 },
	};
	struct error err;

	CHECK(!check(r, 3, &err));
	CHECK(!check(r, 1, &err));
}

static void bad_region(struct guest_region r, const char *word)
{
	struct error err;

	CHECK(check(&r, 1, &err) < 0);
	CHECK(err.status == ST_DATA);
	if (!strstr(err.msg, word))
		CHECK_STR(err.msg, word);
}

static void regions_that_cannot_be(void)
{
	struct guest_region overlap[2] = { { 0x10000, 4 * K4, 1, 0, (uint32_t)K4, 0, 0 },
					   { 0x13000, 4 * K4, 1, 4 * K4, (uint32_t)K4, 0, 0 } };
	struct error err;

	CHECK(check(overlap, 0, &err) < 0);
	CHECK(check(overlap, 2, &err) < 0 && strstr(err.msg, "overlaps"));
	bad_region((struct guest_region){ 0x10000, K4, 1, 0, 2048, 0, 0 }, "power of two");
	bad_region((struct guest_region){ 0x10000, K4, 1, 0, 12288, 0, 0 }, "power of two");
	bad_region((struct guest_region){ 0x10000, 0, 1, 0, (uint32_t)K4, 0, 0 }, "multiple");
	bad_region((struct guest_region){ 0x10800, K4, 1, 0, (uint32_t)K4, 0, 0 }, "multiple");
	bad_region((struct guest_region){ 0x10000, 100, 1, 0, (uint32_t)K4, 0, 0 }, "multiple");
	bad_region((struct guest_region){ 0x10000, K4, 1, 7, (uint32_t)K4, 0, 0 }, "multiple");
	bad_region((struct guest_region){ ~(K4 - 1), 2 * K4, 1, 0, (uint32_t)K4, 0, 0 }, "beyond");
	bad_region((struct guest_region){ 0x10000, K4, 2, 0, (uint32_t)K4, 0, 0 }, "no block");
	bad_region((struct guest_region){ 0x10000, 2 * K4, 1, 63 * K4, (uint32_t)K4, 0, 0 }, "end");
	bad_region((struct guest_region){ 0x10000, K4, 1, 65 * K4, (uint32_t)K4, 0, 0 }, "end");
}

static void an_address_finds_its_region(void)
{
	struct guest_region r[3] = { { 0x30000, K4, 1, 0, (uint32_t)K4, 0, 0 },
				     { 0x10000, 4 * K4, 1, K4, (uint32_t)K4, 0, 0 },
				     { 0x20000, K4, 1, 8 * K4, (uint32_t)K4, 0, 0 } };
	struct guest_memory g;
	struct guest_space *s;
	struct error err;

	guestmem_init(&g);
	s = guestmem_add_space(&g, -1, 0, &err);
	REQUIRE(s);
	for (int i = 0; i < 3; i++)
		REQUIRE(!guestmem_add_region(s, &r[i], &err));
	REQUIRE(!guestmem_check(&g, sizes, 2, &err));
	CHECK(!guestmem_find(s, 0));
	CHECK(!guestmem_find(s, 0xffff));
	CHECK(guestmem_find(s, 0x10000) == &s->regions[0]);
	CHECK(guestmem_find(s, 0x13fff) == &s->regions[0]);
	CHECK(!guestmem_find(s, 0x14000));
	CHECK(guestmem_find(s, 0x20001) == &s->regions[1]);
	CHECK(guestmem_find(s, 0x30fff) == &s->regions[2]);
	CHECK(!guestmem_find(s, UINT64_MAX));
	CHECK(guestmem_page(&g) == K4);
	CHECK(guestmem_bytes(&g) == 6 * K4);
	guestmem_free(&g);
}

static void descriptors_are_closed_once(void)
{
	struct guest_memory g;
	struct error err;
	int fds[2];

	REQUIRE(!pipe2(fds, O_CLOEXEC));
	guestmem_init(&g);
	REQUIRE(guestmem_add_space(&g, fds[0], 0, &err));
	g.peer = fds[1];
	guestmem_free(&g);
	CHECK(fcntl(fds[0], F_GETFD) < 0);
	CHECK(fcntl(fds[1], F_GETFD) < 0);
	CHECK(g.peer < 0 && !g.nspaces);
	for (int i = 0; i < GUEST_SPACES_MAX; i++)
		REQUIRE(guestmem_add_space(&g, -1, 0, &err));
	fds[0] = memfd_create("one too many", MFD_CLOEXEC);
	CHECK(!guestmem_add_space(&g, fds[0], 0, &err));
	CHECK(fcntl(fds[0], F_GETFD) < 0);
	guestmem_free(&g);
}

static void what_is_no_userfaultfd(void)
{
	int fds[2];

	REQUIRE(!pipe2(fds, O_CLOEXEC));
	CHECK(!uffd_valid(fds[0]));
	CHECK(!uffd_valid(-1));
	close(fds[0]);
	close(fds[1]);
}

static void percentiles(void)
{
	struct latency l = { 0 };

	CHECK(latency_percentile(&l, 50) == 0);
	for (uint64_t i = 1; i <= 1000; i++)
		latency_add(&l, i * 1000);
	CHECK(l.count == 1000 && l.max == 1000000 && l.sum == UINT64_C(500500000));
	CHECK(latency_percentile(&l, 50) >= 500000 && latency_percentile(&l, 50) < 535000);
	CHECK(latency_percentile(&l, 99) >= 990000 && latency_percentile(&l, 99) <= 1000000);
	CHECK(latency_percentile(&l, 100) == 1000000);
	CHECK(latency_percentile(&l, 0) >= 1000 && latency_percentile(&l, 0) < 1100);
	latency_add(&l, UINT64_MAX / 2);
	CHECK(latency_percentile(&l, 100) == UINT64_MAX / 2);
	latency_add(&l, 0);
	CHECK(latency_percentile(&l, 0) == 0);
}

static const struct test_case cases[] = {
	{ "regions of a guest that can be are taken", regions_that_can_be },
	{ "regions that cannot be are refused with the reason", regions_that_cannot_be },
	{ "an address finds its region", an_address_finds_its_region },
	{ "a guest's descriptors are closed once", descriptors_are_closed_once },
	{ "what is no userfaultfd is seen", what_is_no_userfaultfd },
	{ "percentiles of times are right to a sixteenth", percentiles },
};

TEST_MAIN(cases)
