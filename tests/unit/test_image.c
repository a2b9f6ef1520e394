// SPDX-License-Identifier: GPL-2.0-or-later
/* Images as a source: raw files, directories, their data, and their rest. */
#include "image_fixture.h"

static struct image *open_raw(const char *path, struct error *err)
{
	struct image_source_opts o = { 0 };

	return image_open(path, &o, err);
}

/* ---- raw files ---- */

static void raw_file(void)
{
	struct image_source_opts o = { .block_name = "m0" };
	uint8_t page[PG], got[3 * PG];
	int fd = make_file(at("img"), 8 * PG);
	struct error e;
	struct image *img;

	fill_random(page, sizeof(page));
	CHECK(pwrite(fd, page, PG, 2 * PG) == PG);
	close(fd);
	img = image_open(at("img"), &o, &e);
	REQUIRE(img);
	CHECK(img->nblocks == 1 && !img->directory && img->target_page == PG);
	CHECK_STR(img->blocks[0].name, "m0");
	CHECK(img->blocks[0].size == 8 * PG && img->blocks[0].page_size == PG);
	CHECK(image_find(img, "m0", 2) == &img->blocks[0] && !image_find(img, "m", 1));
	CHECK(image_read(img, &img->blocks[0], PG, got, sizeof(got), &e) == 0);
	CHECK(zero_is(got, PG) && !memcmp(got + PG, page, PG) && zero_is(got + 2 * PG, PG));
	CHECK(image_read(img, &img->blocks[0], 7 * PG, got, 2 * PG, &e) == -1);
	CHECK_ERR(e, ST_DATA, "reach beyond");
	CHECK(image_read(img, &img->blocks[0], UINT64_MAX - PG + 1, got, PG, &e) == -1);
	CHECK(image_check_at_rest(img, &e) == 0);
	image_close(img, false);
	img = open_raw(at("img"), &e);
	REQUIRE(img);
	CHECK_STR(img->blocks[0].name, "pc.ram");
	image_close(img, false);
}

static void raw_file_is_one_block(void)
{
	on_each_fs(raw_file);
}

/* Lists the extents as text: "2+1 5+3" in target pages. */
static void extents(struct image *img, char *out)
{
	struct block *b = &img->blocks[0];
	struct extent x;
	struct error e;
	uint64_t pos = 0;

	*out = '\0';
	for (;; pos = x.offset + x.len) {
		if (image_next_data(img, b, pos, &x, &e) < 0) {
			strcpy(out, "failed");
			return;
		}
		if (!x.len)
			return;
		out += sprintf(out, "%s%u+%u", pos ? " " : "",
			       (unsigned)(x.offset / img->target_page),
			       (unsigned)(x.len / img->target_page));
	}
}

static void data_on(void)
{
	static const struct {
		uint32_t page;
		const char *want;
	} cases[] = { { PG, "3+1 6+2 63+1" }, { 4 * PG, "0+1 1+1 15+1" }, { 16 * PG, "0+1 3+1" } };
	static const unsigned pages[] = { 4, 12, 32 };
	int fd = make_file(at("img"), 64 * PG);
	struct error e;
	uint64_t bytes;
	char got[256];

	CHECK(pwrite(fd, "x", 1, 3 * PG + 7) == 1);
	CHECK(pwrite(fd, "x", 1, 7 * PG - 1) == 1 && pwrite(fd, "x", 1, 7 * PG) == 1);
	CHECK(pwrite(fd, "x", 1, 64 * PG - 1) == 1);
	close(fd);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct image_source_opts o = { .page_size = cases[i].page };
		struct image *img = image_open(at("img"), &o, &e);

		REQUIRE(img);
		extents(img, got);
		CHECK_STR(got, cases[i].want);
		CHECK(image_data_bytes(img, &bytes, &e) == 0);
		CHECK(bytes == pages[i] * PG);
		image_close(img, false);
	}
	close(make_file(at("hole"), 64 * PG));
	struct image *img = open_raw(at("hole"), &e);

	REQUIRE(img);
	extents(img, got);
	CHECK_STR(got, "");
	CHECK(image_data_bytes(img, &bytes, &e) == 0 && bytes == 0);
	image_close(img, false);
}

/* What fallocate set aside is not data, though tmpfs counts it as stored. */
static void set_aside_on(void)
{
	int fd = make_file(at("img"), 64 * PG);
	struct error e;
	uint64_t bytes;

	CHECK(fallocate(fd, 0, 0, 64 * PG) == 0);
	CHECK(pwrite(fd, "x", 1, 7 * PG) == 1);
	close(fd);
	struct image *img = open_raw(at("img"), &e);

	REQUIRE(img);
	CHECK(image_data_bytes(img, &bytes, &e) == 0 && bytes == PG);
	image_close(img, false);
}

static void what_was_only_set_aside_is_no_data(void)
{
	on_each_fs(set_aside_on);
}

static void data_is_found_and_aligned_outwards(void)
{
	on_each_fs(data_on);
}

static void reading_all(void)
{
	uint8_t *buf = malloc(1 << 20);
	struct error e;
	struct image *img;

	close(make_file(at("img"), 8 << 20));
	img = open_raw(at("img"), &e);
	REQUIRE(img);
	for (unsigned i = 0; i < 8; i++)
		CHECK(image_read(img, &img->blocks[0], (uint64_t)i << 20, buf, 1 << 20, &e) == 0);
	CHECK(zero_is(buf, 1 << 20));
	CHECK(blocks_of(at("img")) == 0);
	image_close(img, false);
	free(buf);
}

static void reading_a_hole_allocates_nothing(void)
{
	on_each_fs(reading_all);
}

static void refused_files(void)
{
	struct image_source_opts o = { .page_size = 16 * PG };
	struct error e;

	CHECK(!open_raw(at("none"), &e));
	CHECK_ERR(e, ST_FILE, "No such file");
	CHECK(e.sys == ENOENT);
	close(make_file(at("empty"), 0));
	CHECK(!open_raw(at("empty"), &e));
	CHECK_ERR(e, ST_UNSUPPORTED, "empty is empty");
	close(make_file(at("odd"), 3 * PG + 1));
	CHECK(!open_raw(at("odd"), &e));
	CHECK_ERR(e, ST_UNSUPPORTED, "odd has 12289 bytes, no multiple of the page of 4096");
	CHECK_ERR(e, ST_UNSUPPORTED, "truncate -s %4096 ");
	CHECK(run("truncate -s %%4096 '%s'", at("odd")) == 0);
	struct image *img = open_raw(at("odd"), &e);

	CHECK(img && img->blocks[0].size == 4 * PG);
	image_close(img, false);
	CHECK(!image_open(at("odd"), &o, &e));
	CHECK_ERR(e, ST_UNSUPPORTED, "no multiple of the page of 65536");
	o.page_size = 1024;
	CHECK(!image_open(at("odd"), &o, &e));
	CHECK_ERR(e, ST_UNSUPPORTED, "page size 1024");
	o.page_size = 3 * PG;
	CHECK(!image_open(at("odd"), &o, &e));
	o.page_size = 0;
	o.block_name = "a\nb";
	CHECK(!image_open(at("odd"), &o, &e));
	CHECK_ERR(e, ST_DATA, "a\\x0ab");
	CHECK(mkfifo(at("fifo"), 0600) == 0);
	CHECK(!open_raw(at("fifo"), &e));
	CHECK_ERR(e, ST_UNSUPPORTED, "neither a file nor a block device");
	CHECK(!open_raw("/dev/null", &e));
}

static void what_is_no_image_is_refused(void)
{
	on_each_fs(refused_files);
}

/* ---- at rest ---- */

static struct image *open_full(const char *name, size_t pages)
{
	uint8_t page[PG];
	int fd = make_file(at("%s", name), pages * PG);
	struct image *img;
	struct error e;

	for (size_t i = 0; fd >= 0 && i < pages; i++) {
		fill_random(page, PG);
		if (pwrite(fd, page, PG, (off_t)(i * PG)) != PG)
			break;
	}
	close(fd);
	img = open_raw(at("%s", name), &e);
	return img;
}

static void shrinking(void)
{
	struct image *img = open_full("img", 8);
	uint8_t buf[8 * PG];
	struct extent x;
	struct error e;
	uint64_t bytes;

	REQUIRE(img);
	CHECK(truncate(at("img"), 3 * PG + 100) == 0);
	CHECK(image_read(img, &img->blocks[0], 0, buf, 3 * PG, &e) == 0);
	CHECK(image_read(img, &img->blocks[0], 0, buf, 8 * PG, &e) == -1);
	CHECK_ERR(e, ST_UNSUPPORTED, "changed while it was read");
	CHECK_ERR(e, ST_UNSUPPORTED, "img is 12388 bytes, was 32768)");
	/* the end of the data must not be taken for a hole */
	CHECK(image_next_data(img, &img->blocks[0], 4 * PG, &x, &e) == -1);
	CHECK_ERR(e, ST_UNSUPPORTED, "img is 12388 bytes, was 32768)");
	CHECK(image_data_bytes(img, &bytes, &e) == -1);
	CHECK(image_check_at_rest(img, &e) == -1);
	CHECK_ERR(e, ST_UNSUPPORTED, "img is 12388 bytes, was 32768)");
	image_close(img, false);
}

static void a_file_that_shrinks_is_a_clear_error(void)
{
	on_each_fs(shrinking);
}

static void changing(void)
{
	struct image *img = open_full("img", 4);
	struct timespec now[2] = { { .tv_nsec = UTIME_OMIT }, { .tv_sec = 1000000000 } };
	struct error e;
	int fd;

	REQUIRE(img);
	CHECK(image_check_at_rest(img, &e) == 0);
	/* reading and looking change nothing */
	CHECK(run("cat '%s' >/dev/null", at("img")) == 0);
	CHECK(image_check_at_rest(img, &e) == 0);
	fd = open(at("img"), O_WRONLY);
	usleep(20000); /* the kernel's clock of time stamps */
	CHECK(pwrite(fd, "y", 1, 5) == 1);
	close(fd);
	CHECK(image_check_at_rest(img, &e) == -1);
	CHECK_ERR(e, ST_UNSUPPORTED, "img was written to)");
	image_close(img, false);

	img = open_full("img", 4);
	REQUIRE(img);
	CHECK(utimensat(AT_FDCWD, at("img"), now, 0) == 0);
	CHECK(image_check_at_rest(img, &e) == -1);
	image_close(img, false);

	img = open_full("img", 4);
	REQUIRE(img);
	CHECK(run("cp -p '%s' '%s' && mv '%s' '%s'", at("img"), at("new"), at("new"), at("img")) ==
	      0);
	CHECK(image_check_at_rest(img, &e) == -1);
	CHECK_ERR(e, ST_UNSUPPORTED, "img was replaced)");
	image_close(img, false);

	img = open_full("img", 4);
	REQUIRE(img);
	CHECK(truncate(at("img"), 5 * PG) == 0);
	CHECK(image_check_at_rest(img, &e) == -1);
	CHECK_ERR(e, ST_UNSUPPORTED, "is 20480 bytes, was 16384)");
	CHECK(unlink(at("img")) == 0);
	image_close(img, false);
}

static void a_change_is_noticed_by_size_mtime_and_inode(void)
{
	on_each_fs(changing);
}

/* Whole pages of the host, inside the block, and the file counts as unwritten. */
static void releasing(void)
{
	struct image *img = open_full("img", 8), *other;
	uint8_t got[8 * PG];
	uint64_t bytes;
	struct block *b;
	struct error e;

	REQUIRE(img);
	b = &img->blocks[0];
	REQUIRE(image_release_open(img, b, true, &e) == 0);
	CHECK(image_release(img, b, PG, 2 * PG, &bytes, &e) == 0);
	CHECK(image_read(img, b, 0, got, sizeof(got), &e) == 0);
	CHECK(!zero_is(got, PG) && zero_is(got + PG, 2 * PG) && !zero_is(got + 3 * PG, PG));
	CHECK(image_check_unwritten(img, &e) == 0);
	CHECK(image_release(img, b, 6 * PG, 3 * PG, &bytes, &e) == -1);
	CHECK(e.status == ST_DATA);
	other = open_raw(at("img"), &e);
	REQUIRE(other);
	CHECK(image_same_file(b, &other->blocks[0]));
	CHECK(image_hold(other, &e) == -1);
	CHECK_ERR(e, ST_FILE, "is written, or will be emptied, by another migtool");
	CHECK(image_release(img, b, 0, 8 * PG, &bytes, &e) == 0);
	CHECK(image_read(img, b, 0, got, sizeof(got), &e) == 0 && zero_is(got, sizeof(got)));
	image_close(img, false);
	CHECK(image_hold(other, &e) == 0);
	img = open_raw(at("img"), &e);
	REQUIRE(img);
	CHECK(image_hold(img, &e) == 0);
	CHECK(image_release_open(img, &img->blocks[0], true, &e) == -1);
	CHECK_ERR(e, ST_FILE, "is used by another migtool");
	image_close(img, false);
	image_close(other, false);
}

static void memory_is_given_back_while_nobody_else_has_it(void)
{
	on_each_fs(releasing);
}

static const struct test_case cases[] = {
	{ "a raw file is one block", raw_file_is_one_block },
	{ "data is found and aligned outwards to target pages",
	  data_is_found_and_aligned_outwards },
	{ "what fallocate only set aside is no data", what_was_only_set_aside_is_no_data },
	{ "reading a hole allocates nothing", reading_a_hole_allocates_nothing },
	{ "what is no image is refused", what_is_no_image_is_refused },
	{ "a file that shrinks is a clear error", a_file_that_shrinks_is_a_clear_error },
	{ "a change is noticed by size, mtime and inode",
	  a_change_is_noticed_by_size_mtime_and_inode },
	{ "memory is given back while nobody else has it",
	  memory_is_given_back_while_nobody_else_has_it },
};

TEST_MAIN(cases)
