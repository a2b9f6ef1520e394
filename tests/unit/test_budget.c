// SPDX-License-Identifier: GPL-2.0-or-later
#include "test.h"

#include "budget.h"

#include <string.h>

static void channels_cost_what_their_decoders_do(void)
{
	struct budget_claim c = { .channels = 16, .codec = &codec_zstd, .continuous = true };
	struct error e;

	/* 32 MiB of window each */
	CHECK(budget_channel(&codec_zstd, true) > 33u << 20);
	CHECK(budget_channel(&codec_zstd, false) < 3u << 20);
	CHECK(!budget_check(&c, &e));
	c.channels = 255;
	REQUIRE(budget_check(&c, &e) == -1);
	CHECK(e.status == ST_UNSUPPORTED);
	CHECK(strstr(e.msg, "255 multifd channels (zstd) need 8."));
	CHECK(strstr(e.msg, "at most 1.00 GiB"));
	CHECK(strstr(e.hint, "multifd-channels=N"));
	/* a frame a packet, and the other methods, fit at any number */
	c.continuous = false;
	CHECK(!budget_check(&c, &e));
	c.codec = &codec_zlib;
	CHECK(!budget_check(&c, &e));
	c.codec = &codec_none;
	c.continuous = true;
	CHECK(!budget_check(&c, &e));
}

static void announced_memory_costs_its_bitmaps(void)
{
	struct budget_claim c = { .memory = UINT64_C(1) << 45 };
	struct error e;

	CHECK(!budget_check(&c, &e));
	c.old_copy = true;
	CHECK(budget_check(&c, &e) == -1 && strstr(e.msg, "need 2.00 GiB"));
	c.old_copy = false;
	c.memory = UINT64_C(1) << 46;
	CHECK(budget_check(&c, &e) == -1 && strstr(e.msg, "need 2.00 GiB"));
	c.memory = INT64_MAX;
	CHECK(budget_check(&c, &e) == -1);
	/* both together */
	c = (struct budget_claim){ .memory = UINT64_C(1) << 45,
				   .channels = 1,
				   .codec = &codec_none };
	CHECK(budget_check(&c, &e) == -1);
}

static const struct test_case cases[] = {
	{ "channels cost what their decoders do", channels_cost_what_their_decoders_do },
	{ "announced memory costs its bitmaps", announced_memory_costs_its_bitmaps },
};
TEST_MAIN(cases)
