// SPDX-License-Identifier: GPL-2.0-or-later
#include "image_fixture.h"

#include "batch.h"

static struct error err;
static struct cancel token;

static void pool(void)
{
	struct batch_pool p;
	struct page_batch *b[3];
	void *item;

	REQUIRE(!batch_pool_init(&p, 3, 16384, &err));
	for (int i = 0; i < 3; i++) {
		REQUIRE(queue_get(&p.free, &item, &token, &err) == 1);
		b[i] = item;
		CHECK(b[i]->page == 16384 && (uintptr_t)b[i]->buf % 4096 == 0);
		memset(b[i]->buf, i + 1, MULTIFD_PACKET_BYTES);
	}
	CHECK(!queue_try(&p.free));
	for (int i = 0; i < 3; i++) {
		CHECK(b[i]->buf[0] == i + 1 && b[i]->buf[MULTIFD_PACKET_BYTES - 1] == i + 1);
		queue_put(&p.free, b[i]);
	}
	batch_pool_destroy(&p);
	/* once more is harmless */
	batch_pool_destroy(&p);
	CHECK(batch_room(4096) == MULTIFD_PAGES_MAX && batch_room(65536) == 8);
}

static void runs(void)
{
	static struct page_batch b = { .page = 4096 };
	static const uint64_t pages[] = { 4, 5, 6, 8, 9, 10, 3, 2 };

	for (unsigned i = 0; i < 8; i++)
		b.offset[b.n++] = pages[i] * 4096;
	b.zero[4] = true;
	CHECK(batch_run(&b, 0) == 3);
	CHECK(batch_run(&b, 1) == 2);
	CHECK(batch_run(&b, 2) == 1);
	CHECK(batch_run(&b, 3) == 1);
	CHECK(batch_run(&b, 4) == 1);
	CHECK(batch_run(&b, 5) == 1);
	/* downwards is no run */
	CHECK(batch_run(&b, 6) == 1);
	CHECK(batch_run(&b, 7) == 1);
	/* the same distance counted in other pages is none */
	b.page = 8192;
	CHECK(batch_run(&b, 0) == 1);
}

/* A raw image of n target pages: every third a hole, the others random or written zeros. */
static struct image *make_image(uint8_t *mem, unsigned n, uint32_t page)
{
	struct image_source_opts opts = { .page_size = page };
	int fd = make_file(at("image"), (uint64_t)n * page);

	memset(mem, 0, (size_t)n * page);
	for (unsigned i = 0; i < n; i++) {
		uint8_t *p = mem + (size_t)i * page;

		if (i % 3 == 0)
			continue;
		if (i % 3 == 1)
			fill_random(p, page - PG < PG ? PG : page - PG); /* ends in zeros */
		if (pwrite(fd, p, page, (off_t)((uint64_t)i * page)) != (ssize_t)page)
			break;
	}
	close(fd);
	return image_open(at("image"), &opts, &err);
}

static void load_one(uint32_t page)
{
	static uint8_t mem[32 * 65536];
	struct image *img = make_image(mem, 32, page);
	struct sent_digest sent;
	struct batch_pool p;
	struct page_batch *b;
	struct digest want;

	REQUIRE(img && !batch_pool_init(&p, 1, page, &err));
	REQUIRE(!sent_digest_init(&sent, img, false, &err));
	b = queue_try(&p.free);
	for (unsigned i = 0; i < 32; i += b->n) {
		batch_reset(b, &img->blocks[0]);
		/* in odd order, as dirty pages may come */
		for (unsigned k = 0; k < 8; k++)
			b->offset[b->n++] = (uint64_t)(i + (k ^ 2)) * page;
		REQUIRE(!batch_load(b, img, &sent, &err));
		for (unsigned k = 0; k < 8; k++) {
			CHECK(!memcmp(batch_page(b, k), mem + b->offset[k], page));
			CHECK(b->zero[k] == ((i + (k ^ 2)) % 3 != 1));
		}
		CHECK(b->nzero == 5 || b->nzero == 6);
	}
	want = model_digest("pc.ram", mem, (size_t)32 * page);
	CHECK(digest_equal(sent.sum, want));
	/* beyond the end */
	batch_reset(b, &img->blocks[0]);
	b->offset[b->n++] = UINT64_C(32) * page;
	CHECK(batch_load(b, img, &sent, &err) == -1 && err.status == ST_DATA);
	sent_digest_destroy(&sent, img);
	batch_pool_destroy(&p);
	image_close(img, false);
}

static void load_pages(void)
{
	load_one(4096);
	load_one(16384);
	load_one(65536);
}

static void loads(void)
{
	in_dir("/dev/shm", load_pages);
}

/* Memory that changes: random writes, each followed by sending the page or its zero run. */
static void changing_memory(void)
{
	enum { PAGES = 64, PAGE = 16384 };
	static uint8_t mem[PAGES * PAGE], buf[PAGE];
	struct image *img = make_image(mem, PAGES, PAGE);
	struct sent_digest sent;
	struct batch_pool p;
	struct page_batch *b;
	int fd = open(at("image"), O_RDWR);

	REQUIRE(img && fd >= 0 && !batch_pool_init(&p, 1, PAGE, &err));
	REQUIRE(!sent_digest_init(&sent, img, true, &err));
	b = queue_try(&p.free);
	for (int turn = 0; turn < 300; turn++) {
		unsigned i = (unsigned)(rng() % PAGES);

		memset(buf, 0, PAGE);
		if (rng() % 3)
			fill_random(buf + rng() % 4 * PG, PG);
		memcpy(mem + i * PAGE, buf, PAGE);
		CHECK(pwrite(fd, buf, PAGE, i * PAGE) == PAGE);
		batch_reset(b, &img->blocks[0]);
		b->offset[b->n++] = i * PAGE;
		if (zero_is(buf, PAGE) && rng() % 2)
			sent_digest_zero(&sent, b->block, i * PAGE, PAGE);
		else
			CHECK(!batch_load(b, img, &sent, &err));
	}
	/* and all of it at the end, whatever was sent before */
	for (unsigned i = 0; i < PAGES; i++) {
		batch_reset(b, &img->blocks[0]);
		b->offset[b->n++] = i * PAGE;
		CHECK(!batch_load(b, img, &sent, &err));
	}
	CHECK(digest_equal(sent.sum, model_digest("pc.ram", mem, sizeof(mem))));
	sent_digest_zero(&sent, &img->blocks[0], 0, sizeof(mem));
	CHECK(digest_equal(sent.sum, (struct digest){ 0, 0 }));
	sent_digest_destroy(&sent, img);
	batch_pool_destroy(&p);
	image_close(img, false);
	close(fd);
}

static void changes(void)
{
	in_dir("/dev/shm", changing_memory);
}

static void place_batches(void)
{
	static uint8_t model[64 * PG];
	struct image *img = create_one(at("out"), sizeof(model), false, &err);
	struct batch_pool p;
	struct page_batch *b;
	struct digest got;

	REQUIRE(img && !batch_pool_init(&p, 1, PG, &err));
	b = queue_try(&p.free);
	for (int turn = 0; turn < 50; turn++) {
		unsigned first = (unsigned)(rng() % 48);

		batch_reset(b, &img->blocks[0]);
		for (unsigned i = 0; i < 16; i += 1 + rng() % 2) {
			uint8_t *page = batch_page(b, b->n);

			b->offset[b->n] = (uint64_t)(first + i) * PG;
			b->zero[b->n++] = rng() % 4 == 0;
			fill_random(page, PG); /* behind a zero mark stands rubbish */
			memcpy(model + (size_t)(first + i) * PG, page, PG);
			if (b->zero[b->n - 1])
				memset(model + (size_t)(first + i) * PG, 0, PG);
		}
		CHECK(!batch_place(b, img, &err));
	}
	image_digest(img, &got);
	CHECK(digest_equal(got, model_digest("pc.ram", model, sizeof(model))));
	for (unsigned i = 0; i < 3; i++) {
		static const uint64_t bad[] = { 64 * PG, 17, UINT64_MAX - PG + 1 };

		batch_reset(b, &img->blocks[0]);
		b->zero[b->n] = i == 1;
		b->offset[b->n++] = bad[i];
		CHECK(batch_place(b, img, &err) == -1 && err.status == ST_DATA);
	}
	CHECK(!image_sync(img, &err) && !image_commit(img, &err));
	CHECK(file_is(at("out"), model, sizeof(model)));
	batch_pool_destroy(&p);
	image_close(img, false);
}

static void places(void)
{
	in_dir("/dev/shm", place_batches);
}

static const struct test_case cases[] = {
	{ "a pool gives each batch a buffer of its own", pool },
	{ "a run is neighbours that are alike", runs },
	{ "loading finds zero pages and sums up, whatever the page", loads },
	{ "what is sent again replaces itself in the sum", changes },
	{ "placing writes pages and zeros, and refuses what is outside", places },
};

TEST_MAIN(cases)
