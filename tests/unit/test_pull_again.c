// SPDX-License-Identifier: GPL-2.0-or-later
/* Who comes to a guest that waits, and is let in or not. */
#include "test.h"

#include "pull.h"

#define SIZE (1u << 20)

static struct session ss;
static struct lazy lazy;
static struct pull pull;
static struct target t;
static struct greet_block block = { .size = SIZE };
static struct error e;

/* A VMM's guest was taken up that was not handed over, and nobody knows its block. */
static bool begin(bool ahead)
{
	struct block b = { .name = "guest", .size = SIZE, .page_size = DIGEST_PAGE };

	memset(&pull, 0, sizeof(pull));
	ss.lazy = &lazy;
	lazy.ss = &ss;
	lazy.pull = &pull;
	t.ss = &ss;
	t.greeting.blocks = &block;
	t.greeting.nblocks = 1;
	snprintf(block.name, sizeof(block.name), "ram");
	pull.unnamed = true;
	pull.img = image_of_blocks(&b, 1, 65536, &e);
	if (pull.img && ahead)
		pull.ahead = ahead_new(&lazy, pull.img, false, &e);
	return pull.img && !pull.ahead == !ahead;
}

static void end(void)
{
	ahead_free(pull.ahead);
	image_close(pull.img, false);
}

static int comes(uint32_t page)
{
	t.greeting.page_size = page;
	t.img = NULL;
	return pull_judge_again(&t, &e);
}

static void what_came_ahead_settles_the_page(void)
{
	REQUIRE(begin(true));
	CHECK(comes(4096) == -1 && !t.img && pull.img->target_page == 65536);
	CHECK_ERROR(e, ST_UNSUPPORTED,
		    "a source with pages of 65536 bytes began to send the guest's memory, and this "
		    "one has pages of 4096 bytes",
		    "send from a host with the first one's pages, or start recv --resume anew");
	CHECK(!comes(65536) && t.img == pull.img && !strcmp(pull.img->blocks[0].name, "ram"));
	end();
}

static void else_any_page_will_do(void)
{
	REQUIRE(begin(false));
	CHECK(!comes(4096) && pull.img->target_page == 4096);
	CHECK(!comes(65536) && pull.img->target_page == 65536);
	end();
}

static const struct test_case cases[] = {
	{ "what came ahead settles the size of the source's pages",
	  what_came_ahead_settles_the_page },
	{ "else any page will do", else_any_page_will_do },
};

TEST_MAIN(cases)
