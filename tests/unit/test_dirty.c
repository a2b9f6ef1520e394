// SPDX-License-Identifier: GPL-2.0-or-later
#include "image_fixture.h"

#include "dirty.h"

static struct error err;
static uint8_t mem[16 * PG];

static struct image *make_image(uint32_t page)
{
	struct image_source_opts opts = { .page_size = page };
	int fd = make_file(at("image"), sizeof(mem));

	memset(mem, 0, sizeof(mem));
	fill_random(mem + 4 * PG, 2 * PG);
	CHECK(pwrite(fd, mem + 4 * PG, 2 * PG, 4 * PG) == 2 * PG);
	close(fd);
	return image_open(at("image"), &opts, &err);
}

static bool image_holds(const struct image *img, const uint8_t *want)
{
	static uint8_t got[sizeof(mem)];

	return !image_read(img, &img->blocks[0], 0, got, sizeof(got), &err) &&
	       !memcmp(got, want, sizeof(got));
}

static void replay_rounds(void)
{
	struct image *img = make_image(PG);
	static uint8_t before[sizeof(mem)];
	const struct bitmap *map;
	struct dirty *d;

	REQUIRE(img);
	memcpy(before, mem, sizeof(mem));
	REQUIRE(write_text(at("rounds"), "# a comment\n"
					 "\n"
					 "round\n"
					 "write pc.ram 0x5ffe 4 0xaa\n"
					 "\twrite pc.ram 0 1 1\n"
					 "round \n"
					 "round\n"
					 "write pc.ram 8192 020000 0\n"));
	d = dirty_replay(img, at("rounds"), &err);
	REQUIRE(d);
	/* until the first sync nothing has happened */
	CHECK(image_holds(img, before) && dirty_pending(d));
	CHECK(dirty_sync(d, &err) == 3 && dirty_pending(d));
	map = dirty_bitmap(d, &img->blocks[0]);
	CHECK(map->bits == 16 && bitmap_next_set(map, 0, 16) == 0 &&
	      bitmap_next_set(map, 1, 16) == 5 && bitmap_next_set(map, 6, 16) == 6 &&
	      bitmap_next_set(map, 7, 16) == 16);
	mem[0] = 1;
	memset(mem + 0x5ffe, 0xaa, 4);
	CHECK(image_holds(img, mem));
	/* a round in which nothing was written is a round */
	CHECK(dirty_sync(d, &err) == 0 && dirty_pending(d));
	CHECK(dirty_sync(d, &err) == 2 && !dirty_pending(d));
	memset(mem + 8192, 0, 8192);
	CHECK(image_holds(img, mem));
	CHECK(dirty_sync(d, &err) == 0);
	dirty_free(d);
	image_close(img, false);
	/* the file is as it was */
	CHECK(file_is(at("image"), before, sizeof(before)));
}

static void rounds(void)
{
	in_dir("/dev/shm", replay_rounds);
}

static void larger_pages(void)
{
	struct image *img = make_image(16384);
	struct dirty *d;

	REQUIRE(img && write_text(at("rounds"), "round\nwrite pc.ram 16383 2 7\n"));
	d = dirty_replay(img, at("rounds"), &err);
	REQUIRE(d);
	CHECK(dirty_sync(d, &err) == 2 && dirty_bitmap(d, &img->blocks[0])->bits == 4);
	dirty_free(d);
	image_close(img, false);
}

static void pages(void)
{
	in_dir("/dev/shm", larger_pages);
}

static void refuse(const char *text, const char *words)
{
	struct image *img = make_image(PG);
	struct dirty *d;

	REQUIRE(img && write_text(at("rounds"), text));
	d = dirty_replay(img, at("rounds"), &err);
	CHECK(!d);
	CHECK_ERR(err, ST_DATA, words);
	dirty_free(d);
	image_close(img, false);
}

static void bad_files(void)
{
	struct image *img;

	refuse("write pc.ram 0 1 1\n", "rounds:1: a write before the first");
	refuse("round\nround x\n", "rounds:2: expected `round` or `write`");
	refuse("round\nwrites pc.ram 0 1 1\n", "rounds:2: expected `round` or `write`");
	refuse("round\nwrite\n", "rounds:2: expected `round` or `write`");
	refuse("round\nwrite \n", "rounds:2: expected: write BLOCK");
	refuse("round\nwrite pc.ram 0 1\n", "rounds:2: expected: write BLOCK");
	refuse("round\nwrite pc.rom 0 1 1\n", "rounds:2: no such block");
	refuse("round\nwrite pc.ram -1 1 1\n", "rounds:2: no number");
	refuse("round\nwrite pc.ram 0x 1 1\n", "rounds:2: no number");
	refuse("round\nwrite pc.ram 99999999999999999999 1 1\n", "rounds:2: no number");
	refuse("round\nwrite pc.ram 0 0 1\n", "rounds:2: outside");
	refuse("round\nwrite pc.ram 0 1 256\n", "rounds:2: outside");
	refuse("round\nwrite pc.ram 0xffff 2 1\n", "rounds:2: outside");
	refuse("round\nwrite pc.ram 0x10001 1 1\n", "rounds:2: outside");
	refuse("round\nwrite pc.ram 0xffff 0xffffffffffffffff 1\n", "rounds:2: outside");
	img = make_image(PG);
	REQUIRE(img);
	CHECK(!dirty_replay(img, at("missing"), &err));
	CHECK_ERR(err, ST_FILE, "missing");
	image_close(img, false);
}

static void bad(void)
{
	in_dir("/dev/shm", bad_files);
}

static const struct test_case cases[] = {
	{ "recorded writes come round by round, on a private copy", rounds },
	{ "the bitmap counts target pages", pages },
	{ "a bad line is named", bad },
};

TEST_MAIN(cases)
