// SPDX-License-Identifier: GPL-2.0-or-later
/* Old copies: what is said about them, and the record beside a .part. */
#include "image_fixture.h"

#include "wire-delta.h"

#define CHUNKS 5

static void finish(struct image *img)
{
	struct error e;

	CHECK(!image_sync(img, &e));
	CHECK(!image_commit(img, &e));
	image_close(img, false);
}

static void lists_go_there_and_back(void)
{
	struct delta_list l = { .block = 7, .offset = 3 * DELTA_CHUNK, .n = 2 }, back;
	uint8_t bytes[DELTA_LIST_LEN];
	struct error err;
	size_t len;

	l.digest[0] = (struct digest){ 1, 2 };
	l.digest[1] = (struct digest){ UINT64_MAX, 3 };
	len = delta_list_pack(&l, bytes);
	CHECK(len == 12 + 32);
	REQUIRE(!delta_list_unpack(bytes, len, &back, &err));
	CHECK(back.block == 7 && back.offset == 3 * DELTA_CHUNK && back.n == 2);
	CHECK(digest_equal(back.digest[0], l.digest[0]) &&
	      digest_equal(back.digest[1], l.digest[1]));
	CHECK(delta_list_unpack(bytes, len - 1, &back, &err) == -1);
	CHECK_ERR(err, ST_DATA, "43 bytes");
	CHECK(delta_list_unpack(bytes, 11, &back, &err) == -1);
	l.offset++;
	delta_list_pack(&l, bytes);
	CHECK(delta_list_unpack(bytes, len, &back, &err) == -1);
	CHECK_ERR(err, ST_DATA, "no multiple of 64 KiB");
}

static void wants_ascend(void)
{
	struct delta_want w = { .block = 1, .n = 2, .offset = { 0, DELTA_CHUNK } }, back;
	uint8_t bytes[DELTA_WANT_LEN];
	struct error err;
	size_t len = delta_want_pack(&w, bytes);

	CHECK(len == 20);
	REQUIRE(!delta_want_unpack(bytes, len, &back, &err));
	CHECK(back.block == 1 && back.n == 2 && back.offset[1] == DELTA_CHUNK);
	CHECK(delta_want_unpack(bytes, 4, &back, &err) == -1);
	CHECK(delta_want_unpack(bytes, 19, &back, &err) == -1);
	w.offset[1] = 0;
	delta_want_pack(&w, bytes);
	CHECK(delta_want_unpack(bytes, len, &back, &err) == -1);
	CHECK_ERR(err, ST_DATA, "not behind the one before");
}

static void ranges_lie_in_their_block(void)
{
	static const struct {
		uint64_t size, offset;
		unsigned n;
		int rc;
	} cases[] = {
		{ DELTA_CHUNK, 0, 1, 0 },
		{ 4096, 0, 1, 0 },
		{ DELTA_CHUNK + 4096, 0, 2, 0 },
		{ DELTA_CHUNK + 4096, DELTA_CHUNK, 1, 0 },
		{ DELTA_CHUNK, 0, 2, -1 },
		{ DELTA_CHUNK, DELTA_CHUNK, 1, -1 },
		{ DELTA_CHUNK, DELTA_CHUNK, 0, 0 },
		{ DELTA_CHUNK, 2 * DELTA_CHUNK, 0, -1 },
		{ UINT64_MAX, UINT64_MAX - DELTA_CHUNK + 1, 2, -1 },
	};
	struct error err;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		if (delta_check_range(cases[i].size, cases[i].offset, cases[i].n, DELTA_CHUNK,
				      &err) != cases[i].rc) {
			printf("# case %zu\n", i);
			CHECK(false);
		}
}

/* Pieces in any order, each once; what they say of the chunks is the digest's parts. */
static void pieces(void)
{
	struct block b = block_of("pc.ram", CHUNKS * DELTA_CHUNK + 2 * PG);
	struct image_layout l = { .blocks = &b, .nblocks = 1 };
	struct image_source_opts o = { 0 };
	struct digest chunks[CHUNKS + 1], sum = { 0, 0 }, want;
	uint8_t *model = calloc(1, b.size), *buf = malloc(IMAGE_ADOPT_BUF);
	struct image *img, *old;
	struct error e;

	img = image_create(at("old"), &l, &e);
	REQUIRE(img && model && buf);
	place_randomly(img, &img->blocks[0], model, PG, 20);
	finish(img);
	old = image_open(at("old"), &o, &e);
	img = image_create(at("img"), &l, &e);
	REQUIRE(old && img);
	for (int i = CHUNKS; i >= 0; i--) {
		struct extent what = { (uint64_t)i * DELTA_CHUNK,
				       i < CHUNKS ? DELTA_CHUNK : 2 * PG };

		REQUIRE(!image_adopt(img, &img->blocks[0], old, &old->blocks[0], what, buf,
				     &chunks[i], &e));
		digest_add(&sum, chunks[i]);
	}
	want = model_digest("pc.ram", model, b.size);
	CHECK(digest_equal(sum, want));
	image_digest(img, &sum);
	CHECK(digest_equal(sum, want));
	image_close(old, false);
	finish(img);
	CHECK(file_is(at("img"), model, b.size));
	free(model);
	free(buf);
}

static void an_old_copy_is_taken_in_pieces(void)
{
	on_each_fs(pieces);
}

/* ---- going on ---- */

static const uint8_t session[IMAGE_SESSION_LEN] = "0123456789abcdef";

static void part(void)
{
	struct block b = block_of("pc.ram", 4 * DELTA_CHUNK);
	struct image_layout l = { .blocks = &b, .nblocks = 1, .session = session };
	uint8_t *model = calloc(1, b.size);
	struct image_start start;
	struct image *img;
	struct digest d;
	struct error e, ignored;
	struct cancel cancel;

	REQUIRE(model);
	CHECK(!image_find_start(at("img"), false, &start, &e) && start.kind == START_NOTHING);
	img = image_create(at("img"), &l, &e);
	REQUIRE(img);
	place_randomly(img, &img->blocks[0], model, PG, 9);
	memset(model, 'x', PG); /* there is something to be adopted, whatever the seed */
	CHECK(!image_place(img, &img->blocks[0], 0, model, PG, &e));
	CHECK(image_find_start(at("img"), false, &start, &e) == -1);
	CHECK_ERR(e, ST_FILE, "is being written by another migtool");
	image_close(img, true);
	CHECK(!image_find_start(at("img"), false, &start, &e) && start.kind == START_PART);
	CHECK(start.known && !memcmp(start.session, session, sizeof(session)));

	/* gone on with, it has what it had, and is not removed when that fails, too */
	l.resume = true;
	img = image_create(at("img"), &l, &e);
	REQUIRE(img && !image_frozen(img));
	CHECK(!image_adopt_block(img, &img->blocks[0], NULL, NULL, NULL, &e));
	image_digest(img, &d);
	CHECK(digest_equal(d, model_digest("pc.ram", model, b.size)));
	image_close(img, false);
	CHECK(exists(at("img.part")));

	img = image_create(at("img"), &l, &e);
	REQUIRE(img);
	err_set(&e, ST_CANCELLED, "enough");
	REQUIRE(!cancel_init(&cancel, &ignored));
	cancel_fire(&cancel, &e);
	CHECK(image_adopt_block(img, &img->blocks[0], NULL, NULL, &cancel, &ignored) &&
	      ignored.status == ST_CANCELLED);
	cancel_destroy(&cancel);
	CHECK(!image_adopt_block(img, &img->blocks[0], NULL, NULL, NULL, &e));
	place_randomly(img, &img->blocks[0], model, PG, 9);
	CHECK(!image_sync(img, &e));
	image_close(img, true);
	CHECK(!image_find_start(at("img"), false, &start, &e) && start.kind == START_COMPLETE);

	/* complete: nothing may be placed, and only the rename is left to do */
	img = image_create(at("img"), &l, &e);
	REQUIRE(img && image_frozen(img));
	CHECK(image_place(img, &img->blocks[0], 0, model, PG, &e) == -1);
	CHECK_ERR(e, ST_DATA, "an image that is complete already");
	CHECK(image_place_zero(img, &img->blocks[0], 0, PG, &e) == -1);
	finish(img);
	CHECK(file_is(at("img"), model, b.size));
	CHECK(!exists(at("img.part")) && !exists(at("img.part.session")));

	/* an IMAGE is looked at, and stays */
	CHECK(!image_find_start(at("img"), false, &start, &e) && start.kind == START_IMAGE);
	img = image_create(at("img"), &l, &e);
	REQUIRE(img && image_frozen(img));
	CHECK(image_place(img, &img->blocks[0], 0, model, PG, &e) == -1);
	image_close(img, false);
	CHECK(file_is(at("img"), model, b.size));
	free(model);
}

static void a_part_is_gone_on_with(void)
{
	on_each_fs(part);
}

static void in_place(void)
{
	struct block b = block_of("pc.ram", 4 * DELTA_CHUNK);
	struct image_layout l = { .blocks = &b, .nblocks = 1, .session = session };
	uint8_t page[PG] = { 1 };
	struct image_start start;
	struct image *img;
	struct error e;

	img = image_create(at("img"), &l, &e);
	REQUIRE(img);
	CHECK(!image_place(img, &img->blocks[0], 0, page, PG, &e));
	finish(img);
	l.in_place = l.force = l.keep = true;
	img = image_create(at("img"), &l, &e);
	REQUIRE(img);
	image_close(img, false);
	CHECK(exists(at("img.part.session")));
	l.keep = false;
	l.resume = true;
	CHECK(!image_find_start(at("img"), true, &start, &e));
	CHECK(start.kind == START_PART && start.known);
	img = image_create(at("img"), &l, &e);
	REQUIRE(img);
	finish(img);
	CHECK(!exists(at("img.part.session")));
}

static void a_half_written_image_is_known_in_place(void)
{
	on_each_fs(in_place);
}

static const struct test_case cases[] = {
	{ "lists of digests go there and back", lists_go_there_and_back },
	{ "the chunks that are wanted ascend", wants_ascend },
	{ "ranges lie in their block", ranges_lie_in_their_block },
	{ "an old copy is taken in pieces", an_old_copy_is_taken_in_pieces },
	{ "a .part is gone on with, a complete one is only finished", a_part_is_gone_on_with },
	{ "an IMAGE half written in place is known", a_half_written_image_is_known_in_place },
};

TEST_MAIN(cases)
