// SPDX-License-Identifier: GPL-2.0-or-later
/* The source's comparison with an old copy: what is asked for, what travels, what is refused. */
#include "image_fixture.h"

#include "delta_fixture.h"

#define CHUNKS 6
#define SIZE   (CHUNKS * DELTA_CHUNK + 2 * PG)

static struct delta_end e;
static struct delta_compare *c;
static struct error err;
static uint8_t *memory;
static pthread_t runner;
static uint64_t bytes;
static int rc;

/* Chunk 1 is a hole, chunk 2 has zeros that are stored; all else is data. */
static bool begin(enum greet_found found)
{
	struct image_source_opts opts = { 0 };
	int fd = make_file(at("image"), SIZE);

	memory = calloc(1, SIZE);
	if (fd < 0 || !memory)
		return false;
	fill_random(memory, SIZE);
	memset(memory + DELTA_CHUNK, 0, 2 * DELTA_CHUNK);
	for (size_t o = 0; o < SIZE; o += PG)
		if (o / DELTA_CHUNK != 1 && pwrite(fd, memory + o, PG, (off_t)o) != PG)
			return false;
	close(fd);
	err_clear(&err);
	if (delta_end_open(&e, ROLE_SOURCE))
		return false;
	e.src.img = image_open(at("image"), &opts, &err);
	if (!e.src.img || sent_digest_init(&e.src.digest, e.src.img, false, &err))
		return false;
	e.src.answer.found = found;
	c = delta_compare_open(&e.src, &err);
	return c;
}

static void end(void)
{
	struct error over;

	err_set(&over, ST_CANCELLED, "the case is over");
	cancel_fire(&e.ss.cancel, &over);
	delta_compare_free(c);
	sent_digest_destroy(&e.src.digest, e.src.img);
	image_close(e.src.img, false);
	delta_end_close(&e);
	free(memory);
}

static void *run_main(void *arg)
{
	(void)arg;
	rc = delta_compare_run(c, &bytes, &err);
	return NULL;
}

static void start_run(void)
{
	rc = 1;
	CHECK(!pthread_create(&runner, NULL, run_main, NULL));
}

/* Digests of n chunks from that one on: `right`, or others. */
static struct delta_list chunks(unsigned from, unsigned n, bool right)
{
	struct delta_list l = { .offset = (uint64_t)from * DELTA_CHUNK, .n = n };
	struct digest terms[DELTA_PAGES];
	unsigned ignored;

	for (unsigned i = 0; i < n; i++) {
		uint64_t offset = l.offset + (uint64_t)i * DELTA_CHUNK;

		l.digest[i] = (struct digest){ 1, i };
		if (right && offset < SIZE)
			l.digest[i] = delta_model_terms(&e.src.img->blocks[0], memory, offset,
							terms, &ignored);
	}
	return l;
}

static int say(uint16_t type, const struct delta_list *l)
{
	static struct rp_message m;

	m.type = type;
	m.len = (uint32_t)delta_list_pack(l, m.payload);
	return delta_compare_take(c, &m, &err);
}

static int say_end(void)
{
	struct delta_list l = { 0 };

	return say(RP_DIGESTS, &l);
}

/* Until the source says something else than that it lives. */
static bool hear(uint16_t *type, uint8_t *payload, uint32_t *len)
{
	for (int i = 0; i < 3000; i++) {
		while (delta_end_next(&e, type, payload, len))
			if (*type != MIG_CMD_KEEPALIVE)
				return true;
		usleep(10000);
	}
	return false;
}

static size_t pages_to_send(void)
{
	return bitmap_count(delta_compare_map(c, &e.src.img->blocks[0]));
}

static void expect_compared(uint64_t want)
{
	uint8_t payload[DELTA_LIST_LEN];
	uint16_t type;
	uint32_t len;

	REQUIRE(hear(&type, payload, &len));
	CHECK(type == MIG_CMD_COMPARED && len == 8 && get_be64(payload) == want);
	pthread_join(runner, NULL);
	CHECK(!rc && bytes == want && pages_to_send() * PG == want);
}

static void what_is_alike_stays(void)
{
	struct delta_list first, last;
	struct digest want, got;

	REQUIRE(begin(FOUND_PART));
	want = model_digest("pc.ram", memory, SIZE);
	first = chunks(0, 1, true);
	last = chunks(3, 4, true);
	start_run();
	CHECK(!say(RP_DIGESTS, &first) && !say(RP_DIGESTS, &last) && !say_end());
	/* what was not said is zero there; zeros that are stored here are looked at when sent */
	expect_compared(DELTA_CHUNK);
	CHECK(bitmap_test(delta_compare_map(c, &e.src.img->blocks[0]), 2 * DELTA_PAGES));
	got = e.src.digest.sum;
	CHECK(digest_equal(got, want));
	end();
}

static void what_is_complete_there_is_compared_to_the_page(void)
{
	struct delta_list first, last;

	REQUIRE(begin(FOUND_COMPLETE));
	first = chunks(0, 1, true);
	last = chunks(3, 4, true);
	start_run();
	CHECK(!say(RP_DIGESTS, &first) && !say(RP_DIGESTS, &last) && !say_end());
	expect_compared(0);
	end();
}

static void what_was_never_said_travels(void)
{
	REQUIRE(begin(FOUND_COMPLETE));
	start_run();
	CHECK(!say_end());
	expect_compared(SIZE - 2 * DELTA_CHUNK);
	end();
}

static void of_a_chunk_that_differs_the_pages_are_wanted(void)
{
	struct delta_list others, pages = { .offset = 6 * DELTA_CHUNK };
	uint8_t payload[DELTA_LIST_LEN];
	struct delta_want w;
	uint16_t type;
	uint32_t len;

	REQUIRE(begin(FOUND_COMPLETE));
	others = chunks(0, 1, true);
	start_run();
	CHECK(!say(RP_DIGESTS, &others));
	others = chunks(3, 3, true);
	CHECK(!say(RP_DIGESTS, &others));
	others = chunks(6, 1, false);
	CHECK(!say(RP_DIGESTS, &others) && !say_end());
	REQUIRE(hear(&type, payload, &len));
	CHECK(type == MIG_CMD_WANT);
	REQUIRE(!delta_want_unpack(payload, len, &w, &err));
	CHECK(w.block == 0 && w.n == 1 && w.offset[0] == 6 * DELTA_CHUNK);
	/* the last chunk has two pages, of which the first is alike */
	delta_model_terms(&e.src.img->blocks[0], memory, pages.offset, pages.digest, &pages.n);
	CHECK(pages.n == 2);
	pages.digest[1].low ^= 1;
	CHECK(!say(RP_PAGE_DIGESTS, &pages));
	expect_compared(PG);
	CHECK(bitmap_test(delta_compare_map(c, &e.src.img->blocks[0]), CHUNKS * DELTA_PAGES + 1));
	CHECK(say(RP_PAGE_DIGESTS, &pages) == -1);
	CHECK_ERR(err, ST_DATA, "was not asked for");
	end();
}

static void a_chunk_of_ours_that_is_zero_travels_unasked(void)
{
	struct delta_list others;

	REQUIRE(begin(FOUND_COMPLETE));
	start_run();
	others = chunks(0, 1, true);
	CHECK(!say(RP_DIGESTS, &others));
	others = chunks(1, 2, false);
	CHECK(!say(RP_DIGESTS, &others));
	others = chunks(3, 4, true);
	CHECK(!say(RP_DIGESTS, &others) && !say_end());
	expect_compared(2 * DELTA_CHUNK);
	end();
}

static void refused(uint16_t type, struct delta_list l, const char *words)
{
	CHECK(say(type, &l) == -1);
	CHECK_ERR(err, ST_DATA, words);
}

static void what_cannot_be_is_refused(void)
{
	struct delta_list l;

	REQUIRE(begin(FOUND_PART));
	l = chunks(0, 1, true);
	l.block = 1;
	refused(RP_DIGESTS, l, "is not its turn");
	refused(RP_DIGESTS, chunks(5, 3, true), "reach beyond a block's end");
	refused(RP_DIGESTS, chunks(8, 1, true), "reach beyond a block's end");
	l = chunks(3, 1, true);
	CHECK(!say(RP_DIGESTS, &l));
	refused(RP_DIGESTS, chunks(3, 1, true), "is not its turn");
	refused(RP_DIGESTS, chunks(0, 1, true), "is not its turn");
	refused(RP_PAGE_DIGESTS, chunks(0, 1, true), "was not asked for");
	CHECK(!say_end());
	refused(RP_DIGESTS, chunks(4, 1, true), "behind the last one");
	CHECK(say_end() == -1);
	end();
}

static void a_count_of_pages_has_to_be_the_chunks(void)
{
	uint8_t payload[DELTA_LIST_LEN];
	struct delta_list l;
	uint16_t type;
	uint32_t len;

	REQUIRE(begin(FOUND_PART));
	start_run();
	l = chunks(6, 1, false);
	CHECK(!say(RP_DIGESTS, &l));
	REQUIRE(hear(&type, payload, &len));
	CHECK(type == MIG_CMD_WANT);
	refused(RP_PAGE_DIGESTS, chunks(6, 3, false), "3 digests of a chunk of 2 pages");
	cancel_fire(&e.ss.cancel, &err);
	pthread_join(runner, NULL);
	CHECK(rc == -1);
	end();
}

static void a_cancel_ends_the_wait(void)
{
	struct error why;

	REQUIRE(begin(FOUND_PART));
	start_run();
	err_set(&why, ST_CANCELLED, "enough");
	cancel_fire(&e.ss.cancel, &why);
	pthread_join(runner, NULL);
	CHECK(rc == -1);
	CHECK_ERR(err, ST_CANCELLED, "enough");
	end();
}

#define CASE(fn)                              \
	static void fn##_in_a_directory(void) \
	{                                     \
		in_dir("/dev/shm", fn);       \
	}

CASE(what_is_alike_stays)
CASE(what_is_complete_there_is_compared_to_the_page)
CASE(what_was_never_said_travels)
CASE(of_a_chunk_that_differs_the_pages_are_wanted)
CASE(a_chunk_of_ours_that_is_zero_travels_unasked)
CASE(what_cannot_be_is_refused)
CASE(a_count_of_pages_has_to_be_the_chunks)
CASE(a_cancel_ends_the_wait)

static const struct test_case cases[] = {
	{ "what is alike stays where it is", what_is_alike_stays_in_a_directory },
	{ "what is complete there is compared to the page",
	  what_is_complete_there_is_compared_to_the_page_in_a_directory },
	{ "what was never said travels", what_was_never_said_travels_in_a_directory },
	{ "of a chunk that differs the pages are wanted",
	  of_a_chunk_that_differs_the_pages_are_wanted_in_a_directory },
	{ "a chunk of ours that is zero travels unasked",
	  a_chunk_of_ours_that_is_zero_travels_unasked_in_a_directory },
	{ "what cannot be is refused", what_cannot_be_is_refused_in_a_directory },
	{ "a count of pages has to be the chunk's",
	  a_count_of_pages_has_to_be_the_chunks_in_a_directory },
	{ "a cancel ends the wait", a_cancel_ends_the_wait_in_a_directory },
};

TEST_MAIN(cases)
