// SPDX-License-Identifier: GPL-2.0-or-later
#include "image_fixture.h"

#include "codec.h"
#include "placer.h"

#define PAGES 512u

static struct session ss;
static struct error err;
static uint8_t model[PAGES * PG];

static bool begin(struct image **img, struct placer **p, unsigned workers, bool compressed)
{
	memset(&ss, 0, sizeof(ss));
	memset(model, 0, sizeof(model));
	pthread_mutex_init(&ss.lock, NULL);
	if (cancel_init(&ss.cancel, &err))
		return false;
	*img = create_one(at("out"), sizeof(model), false, &err);
	*p = *img ? placer_open(&ss, *img, workers, compressed, &err) : NULL;
	return *p;
}

static void end(struct image *img, struct placer *p)
{
	placer_close(p);
	image_close(img, false);
	cancel_destroy(&ss.cancel);
	pthread_mutex_destroy(&ss.lock);
}

static bool holds_model(struct image *img)
{
	struct digest got;

	image_digest(img, &got);
	return digest_equal(got, model_digest("pc.ram", model, sizeof(model)));
}

/* A batch of n pages from `first` on, random or zero. */
static void fill(struct page_batch *b, struct image *img, unsigned first, unsigned n)
{
	batch_reset(b, &img->blocks[0]);
	for (; b->n < n; b->n++) {
		uint8_t *page = batch_page(b, b->n), *to = model + (size_t)(first + b->n) * PG;

		fill_random(page, PG);
		b->offset[b->n] = (uint64_t)(first + b->n) * PG;
		b->zero[b->n] = rng() % 8 == 0;
		memcpy(to, page, PG);
		if (b->zero[b->n])
			memset(to, 0, PG);
	}
}

static void place_plain(void)
{
	struct image *img;
	struct placer *p;

	for (unsigned workers = 0; workers <= 4; workers += 2) {
		REQUIRE(begin(&img, &p, workers, false));
		for (int turn = 0; turn < 4; turn++) {
			for (unsigned i = 0; i < PAGES; i += 32) {
				struct page_batch *b = placer_get(p, &err);

				REQUIRE(b);
				fill(b, img, i, 32);
				CHECK(!placer_put(p, b, &err));
			}
			/* the next turn sends the same pages again */
			CHECK(!placer_drain(p, &err));
			CHECK(holds_model(img));
		}
		CHECK(stat_get(&ss.stats.travelled) == 4 * sizeof(model));
		end(img, p);
	}
}

static void plain(void)
{
	in_dir("/dev/shm", place_plain);
}

static void unused_batches(void)
{
	struct image *img;
	struct placer *p;

	REQUIRE(begin(&img, &p, 2, false));
	for (int i = 0; i < 100; i++) {
		struct page_batch *b = placer_get(p, &err);

		REQUIRE(b);
		placer_return(p, b);
	}
	CHECK(!placer_drain(p, &err) && holds_model(img));
	end(img, p);
}

static void unused(void)
{
	in_dir("/dev/shm", unused_batches);
}

static void fill_zlib(struct placer *p, struct page_batch *b, struct image *img,
		      struct page_zlib *z, unsigned first)
{
	uint8_t out[8192];

	batch_reset(b, &img->blocks[0]);
	for (; b->n < placer_zlib_room(p) && first + b->n < PAGES; b->n++) {
		uint8_t *page = model + (size_t)(first + b->n) * PG;
		ssize_t len;

		fill_random(page, rng() % 2 ? PG : 64); /* the first do not shrink */
		len = page_zlib_encode(z, page, PG, out, page_zlib_bound(PG));
		REQUIRE(len > 0);
		memcpy(placer_zlib_slot(p, b, b->n, (uint32_t)len), out, (size_t)len);
		b->offset[b->n] = (uint64_t)(first + b->n) * PG;
		b->zero[b->n] = false;
	}
}

static void place_zlib(void)
{
	struct page_zlib *z = page_zlib_new(true, 1, &err);
	struct page_batch *b;
	struct image *img;
	struct placer *p;

	REQUIRE(z && begin(&img, &p, 3, true));
	CHECK(placer_zlib_room(p) > 100 && placer_zlib_room(p) <= MULTIFD_PAGES_MAX);
	for (unsigned i = 0; i < PAGES; i += placer_zlib_room(p)) {
		b = placer_get(p, &err);
		REQUIRE(b);
		fill_zlib(p, b, img, z, i);
		CHECK(!placer_put(p, b, &err));
	}
	CHECK(!placer_drain(p, &err) && holds_model(img));
	/* whole pages and zlib streams take turns in the same batches */
	for (unsigned i = 0; i < 64; i++) {
		b = placer_get(p, &err);
		REQUIRE(b);
		if (i % 2)
			fill_zlib(p, b, img, z, PAGES - 8);
		else
			fill(b, img, 0, 8);
		CHECK(!placer_put(p, b, &err));
		CHECK(!placer_drain(p, &err));
	}
	CHECK(holds_model(img));
	page_zlib_free(z);
	end(img, p);
}

static void zlib(void)
{
	in_dir("/dev/shm", place_zlib);
}

static void fail_in_a_worker(void)
{
	struct page_batch *b;
	struct image *img;
	struct placer *p;

	REQUIRE(begin(&img, &p, 2, true));
	b = placer_get(p, &err);
	REQUIRE(b);
	batch_reset(b, &img->blocks[0]);
	memset(placer_zlib_slot(p, b, 0, 100), 0x55, 100);
	b->offset[b->n++] = 3 * PG;
	CHECK(!placer_put(p, b, &err));
	CHECK(placer_drain(p, &err) == -1);
	CHECK_ERR(err, ST_DATA, "block pc.ram, offset 0x3000: the zlib stream of 100 bytes");
	CHECK(ss.failed && ss.why.status == ST_DATA);
	CHECK(!placer_get(p, &err) && err.status == ST_DATA);
	end(img, p);
	/* outside the block */
	REQUIRE(begin(&img, &p, 1, false));
	b = placer_get(p, &err);
	REQUIRE(b);
	fill(b, img, 0, 1);
	b->offset[0] = sizeof(model);
	CHECK(!placer_put(p, b, &err));
	CHECK(placer_drain(p, &err) == -1 && err.status == ST_DATA);
	end(img, p);
	/* without a worker it is the caller's to report */
	REQUIRE(begin(&img, &p, 0, false));
	b = placer_get(p, &err);
	REQUIRE(b);
	fill(b, img, 0, 1);
	b->offset[0] = sizeof(model);
	CHECK(placer_put(p, b, &err) == -1 && err.status == ST_DATA && !ss.failed);
	CHECK(!placer_drain(p, &err));
	end(img, p);
}

static void failure(void)
{
	in_dir("/dev/shm", fail_in_a_worker);
}

static const struct test_case cases[] = {
	{ "workers place what is handed to them", plain },
	{ "a batch may come back unused", unused },
	{ "workers inflate, and batches may change their kind", zlib },
	{ "what a worker cannot place stops the session", failure },
};

TEST_MAIN(cases)
