// SPDX-License-Identifier: GPL-2.0-or-later
/* The destination's old copy: what is said of it, what becomes of it, which WANTs are answered. */
#include "image_fixture.h"

#include "delta_fixture.h"

#define CHUNKS 200 /* several pieces */
#define SIZE   (CHUNKS * DELTA_CHUNK + 3 * PG)

static struct delta_end e;
static struct delta_offer *o;
static struct error err;
static uint8_t *memory;

/* Data in one chunk of three, a long hole behind chunk 20, zeros that are stored in chunk 6. */
static bool begin(bool say)
{
	struct image *old;
	int fd = make_file(at("old"), SIZE);

	memory = calloc(1, SIZE);
	if (fd < 0 || !memory || delta_end_open(&e, ROLE_DESTINATION))
		return false;
	for (size_t chunk = 0; chunk <= CHUNKS; chunk += chunk == 21 ? 120 : 3) {
		size_t offset = chunk * DELTA_CHUNK;
		size_t len = SIZE - offset < DELTA_CHUNK ? SIZE - offset : DELTA_CHUNK;

		if (chunk != 6)
			fill_random(memory + offset, len);
		if (pwrite(fd, memory + offset, len, (off_t)offset) != (ssize_t)len)
			return false;
	}
	close(fd);
	err_clear(&err);
	e.t.img = create_one(at("new"), SIZE, false, &err);
	old = e.t.img ? delta_open(e.t.img, at("old"), &err) : NULL;
	o = old ? delta_offer_start(&e.t, old, say, &err) : NULL;
	return o;
}

static void end(void)
{
	delta_offer_free(o);
	image_close(e.t.img, false);
	delta_end_close(&e);
	free(memory);
}

static bool hear(uint16_t *type, struct delta_list *l)
{
	uint8_t payload[DELTA_LIST_LEN];
	uint32_t len;

	return delta_end_next(&e, type, payload, &len) && !delta_list_unpack(payload, len, l, &err);
}

static void it_is_said_in_order_and_taken(void)
{
	struct digest sum = { 0, 0 }, want, terms[DELTA_PAGES], got;
	bool over = false, said[CHUNKS + 1] = { false };
	struct delta_list l;
	uint64_t next = 0;
	uint16_t type;
	unsigned n;

	REQUIRE(begin(true));
	CHECK(!delta_offer_wait(o, &err));
	while (hear(&type, &l)) {
		CHECK(type == RP_DIGESTS && !over && (!l.n || l.offset >= next));
		over = !l.n;
		for (unsigned i = 0; i < l.n; i++) {
			uint64_t offset = l.offset + (uint64_t)i * DELTA_CHUNK;

			got = delta_model_terms(&e.t.img->blocks[0], memory, offset, terms, &n);
			CHECK(digest_equal(got, l.digest[i]));
			digest_add(&sum, got);
			said[offset / DELTA_CHUNK] = true;
		}
		next = l.offset + (uint64_t)l.n * DELTA_CHUNK;
	}
	CHECK(over);
	want = model_digest("pc.ram", memory, SIZE);
	image_digest(e.t.img, &got);
	CHECK(digest_equal(sum, want) && digest_equal(got, want));
	CHECK(said[0] && said[CHUNKS - CHUNKS % 3] && !said[50]);
	CHECK(file_is(at("new.part"), memory, SIZE));
	end();
}

static void it_may_be_taken_without_a_word(void)
{
	struct digest got;

	REQUIRE(begin(false));
	CHECK(!delta_offer_wait(o, &err));
	CHECK(e.len == 0);
	image_digest(e.t.img, &got);
	CHECK(digest_equal(got, model_digest("pc.ram", memory, SIZE)));
	end();
}

static void pages_of_the_chunks_that_are_wanted(void)
{
	/* data, a hole, zeros, the short one at the end */
	struct delta_want w = { .n = 4,
				.offset = { 3 * DELTA_CHUNK, 4 * DELTA_CHUNK, 6 * DELTA_CHUNK,
					    CHUNKS * DELTA_CHUNK } };
	struct digest terms[DELTA_PAGES];
	unsigned answered = 0, n;
	struct delta_list l;
	uint16_t type;

	REQUIRE(begin(true));
	CHECK(!delta_offer_wait(o, &err));
	CHECK(!delta_offer_pages(o, &w, &err));
	while (hear(&type, &l)) {
		if (type != RP_PAGE_DIGESTS)
			continue;
		REQUIRE(answered < w.n);
		CHECK(l.offset == w.offset[answered++]);
		delta_model_terms(&e.t.img->blocks[0], memory, l.offset, terms, &n);
		CHECK(l.n == n && !memcmp(l.digest, terms, n * sizeof(terms[0])));
	}
	CHECK(answered == 4);
	end();
}

static void wants_that_cannot_be_are_refused(void)
{
	struct delta_want none = { .block = 1, .n = 1 };
	struct delta_want beyond = { .n = 1, .offset = { (CHUNKS + 1) * DELTA_CHUNK } };
	struct delta_want far = { .n = 1, .offset = { UINT64_MAX - DELTA_CHUNK + 1 } };

	REQUIRE(begin(true));
	CHECK(!delta_offer_wait(o, &err));
	CHECK(delta_offer_pages(o, &none, &err) == -1);
	CHECK_ERR(err, ST_DATA, "WANT: block 1 of 1");
	CHECK(delta_offer_pages(o, &beyond, &err) == -1);
	CHECK_ERR(err, ST_DATA, "beyond a block's end");
	CHECK(delta_offer_pages(o, &far, &err) == -1);
	CHECK_ERR(err, ST_DATA, "beyond a block's end");
	end();
}

static void a_cancel_ends_it(void)
{
	struct error why;

	REQUIRE(begin(true));
	err_set(&why, ST_CANCELLED, "enough");
	cancel_fire(&e.ss.cancel, &why);
	/* it may have been over before */
	if (delta_offer_wait(o, &err))
		CHECK_ERR(err, ST_CANCELLED, "enough");
	end();
}

static void in_order(void)
{
	on_each_fs(it_is_said_in_order_and_taken);
}

static void without_a_word(void)
{
	on_each_fs(it_may_be_taken_without_a_word);
}

static void pages(void)
{
	on_each_fs(pages_of_the_chunks_that_are_wanted);
}

static void refused(void)
{
	in_dir("/dev/shm", wants_that_cannot_be_are_refused);
}

static void cancelled(void)
{
	in_dir("/dev/shm", a_cancel_ends_it);
}

static const struct test_case cases[] = {
	{ "an old copy is said in order, and taken", in_order },
	{ "it may be taken without a word", without_a_word },
	{ "the pages of chunks that are wanted", pages },
	{ "WANTs that cannot be are refused", refused },
	{ "a cancel ends it", cancelled },
};

TEST_MAIN(cases)
