// SPDX-License-Identifier: GPL-2.0-or-later
/* Images as a destination: what is placed, what is refused, what stands under which name when. */
#include "bitmap.h"
#include "image_fixture.h"

#include <pthread.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/syscall.h>
#include <sys/wait.h>

/* The C library's, and we see which directories were synced. */
static const char *watched;
static unsigned watched_syncs;

int fsync(int fd)
{
	struct stat st, want;

	if (watched && !fstat(fd, &st) && !stat(watched, &want))
		watched_syncs += st.st_dev == want.st_dev && st.st_ino == want.st_ino;
	return (int)syscall(SYS_fsync, fd);
}

/* ---- placing ---- */

#define PAGES 512

static void placing_with_page(uint32_t page)
{
	struct block b = block_of("pc.ram", PAGES * PG);
	struct image_layout l = { .blocks = &b, .nblocks = 1, .target_page = page };
	struct image_source_opts o = { .page_size = page };
	uint8_t *model = calloc(PAGES, PG);
	struct digest d;
	struct image *img;
	struct error e;
	uint64_t bytes;

	img = image_create(at("img"), &l, &e);
	REQUIRE(img);
	CHECK(blocks_of(at("img.part")) == 0 && !exists(at("img")));
	place_randomly(img, &img->blocks[0], model, page, 300);
	image_digest(img, &d);
	CHECK(digest_equal(d, model_digest("pc.ram", model, PAGES * PG)));
	CHECK(image_placed_bytes(img) == model_data(model, PAGES * PG));
	CHECK(!image_sync(img, &e) && !exists(at("img")));
	CHECK(!image_commit(img, &e));
	image_close(img, false);
	CHECK(!exists(at("img.part")));
	CHECK(file_is(at("img"), model, PAGES * PG));
	/* holes are where the model has zeros, to the page */
	o.page_size = PG;
	img = image_open(at("img"), &o, &e);
	REQUIRE(img);
	CHECK(!image_data_bytes(img, &bytes, &e) && bytes == model_data(model, PAGES * PG));
	image_close(img, false);
	CHECK(unlink(at("img")) == 0);
	free(model);
}

static void placing(void)
{
	placing_with_page(4096);
	placing_with_page(16384);
	placing_with_page(65536);
}

static void pages_may_come_in_any_order_and_often(void)
{
	on_each_fs(placing);
}

static void sparse(void)
{
	static uint8_t page[PG], zero[16 * PG];
	struct image *img;
	struct digest d;
	struct error e;

	img = create_one(at("img"), UINT64_C(1) << 40, false, &e);
	REQUIRE(img);
	fill_random(page, PG);
	CHECK(!image_place(img, &img->blocks[0], 0, zero, sizeof(zero), &e));
	CHECK(!image_place_zero(img, &img->blocks[0], 0, UINT64_C(1) << 40, &e));
	CHECK(!image_place(img, &img->blocks[0], (UINT64_C(1) << 40) - PG, page, PG, &e));
	image_digest(img, &d);
	CHECK(!digest_equal(d, (struct digest){ 0, 0 }));
	CHECK(fsync(img->blocks[0].fd) == 0);
	CHECK(blocks_of(at("img.part")) > 0 && blocks_of(at("img.part")) <= 4 * PG / 512);
	CHECK(!image_place(img, &img->blocks[0], (UINT64_C(1) << 40) - 16 * PG, zero, 16 * PG, &e));
	image_digest(img, &d);
	CHECK(digest_equal(d, (struct digest){ 0, 0 }));
	CHECK(fsync(img->blocks[0].fd) == 0);
	CHECK(blocks_of(at("img.part")) <= 3 * PG / 512);
	image_close(img, false);
	CHECK(!exists(at("img.part")));
}

static void sparse_on_both(void)
{
	on_each_fs(sparse);
}

static void bounds(void)
{
	static uint8_t buf[4 * PG];
	static const struct {
		uint64_t offset;
		size_t len;
		const char *says;
	} bad[] = {
		{ 8 * PG, PG, "0x1000 bytes at 0x8000 reach beyond its 0x8000 bytes" },
		{ 7 * PG, 2 * PG, "reach beyond" },
		{ UINT64_MAX - PG + 1, PG, "reach beyond" },
		{ UINT64_MAX - PG + 1, 2 * PG, "reach beyond" },
		{ 0, UINT64_MAX - PG + 1, "reach beyond" },
		{ 8, PG, "block pc.ram: offset 0x8 or length 0x1000 is not aligned" },
		{ 0, 100, "not aligned" },
		{ UINT64_MAX, 1, "not aligned" },
	};
	struct image *img;
	struct digest d;
	struct error e;

	img = create_one(at("img"), 8 * PG, false, &e);
	REQUIRE(img);
	memset(buf, 1, sizeof(buf));
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct block *b = &img->blocks[0];

		CHECK(image_place(img, b, bad[i].offset, buf, bad[i].len, &e) == -1);
		CHECK_ERR(e, ST_DATA, bad[i].says);
		CHECK(image_place_zero(img, b, bad[i].offset, bad[i].len, &e) == -1);
		CHECK_ERR(e, ST_DATA, bad[i].says);
		CHECK(image_get_page(img, b, bad[i].offset, buf, bad[i].len, &e) == -1);
		CHECK_ERR(e, ST_DATA, bad[i].says);
	}
	CHECK(!image_place(img, &img->blocks[0], 0, buf, 0, &e));
	image_digest(img, &d);
	CHECK(digest_equal(d, (struct digest){ 0, 0 }) && blocks_of(at("img.part")) == 0);
	image_close(img, false);
}

static void offsets_outside_are_refused(void)
{
	in_dir("/dev/shm", bounds);
}

static void lost_destination(void)
{
	uint8_t page[PG], got[4 * PG];
	struct image *img;
	struct error e;

	img = create_one(at("img"), 4 * PG, false, &e);
	REQUIRE(img);
	fill_random(page, PG);
	CHECK(!image_place(img, &img->blocks[0], 3 * PG, page, PG, &e));
	CHECK(truncate(at("img.part"), PG) == 0);
	CHECK(image_place(img, &img->blocks[0], 3 * PG, page, PG, &e) == -1);
	CHECK(image_get_page(img, &img->blocks[0], 0, got, sizeof(got), &e) == -1);
	CHECK_ERR(e, ST_UNSUPPORTED, "img.part is 4096 bytes, was 16384");
	image_close(img, false);
}

static void a_destination_cut_under_us_is_an_error(void)
{
	on_each_fs(lost_destination);
}

/* ---- threads ---- */

#define THREADS	     4
#define THREAD_PAGES 2048

struct placer {
	struct image *img;
	uint8_t *model;
	unsigned me;
	uint64_t seed;
};

/* Each thread has every fourth page, so that neighbours in a bitmap's word are always others'. */
static void *place_mine(void *arg)
{
	struct placer *p = arg;
	struct block *b = &p->img->blocks[0];
	uint64_t x = p->seed;
	struct error e;

	for (unsigned turn = 0; turn < 4 * THREAD_PAGES / THREADS; turn++) {
		size_t i;
		uint8_t *page;

		x = x * 6364136223846793005u + 1442695040888963407u;
		i = (x >> 33) % (THREAD_PAGES / THREADS) * THREADS + p->me;
		page = p->model + i * PG;
		if (turn % 5 == 0) {
			memset(page, 0, PG);
			if (image_place_zero(p->img, b, i * PG, PG, &e) < 0)
				return arg;
		} else {
			memset(page, turn % 3 ? (int)(turn & 0xff) : 0, PG);
			if (image_place(p->img, b, i * PG, page, PG, &e) < 0)
				return arg;
		}
	}
	return NULL;
}

static void threads(void)
{
	uint8_t *model = calloc(THREAD_PAGES, PG);
	struct placer p[THREADS];
	pthread_t t[THREADS];
	struct image *img;
	struct digest d;
	struct error e;
	void *failed;

	img = create_one(at("img"), THREAD_PAGES * PG, false, &e);
	REQUIRE(img);
	for (unsigned i = 0; i < THREADS; i++) {
		p[i] = (struct placer){ .img = img, .model = model, .me = i, .seed = rng() };
		CHECK(!pthread_create(&t[i], NULL, place_mine, &p[i]));
	}
	for (unsigned i = 0; i < THREADS; i++) {
		pthread_join(t[i], &failed);
		CHECK(!failed);
	}
	image_digest(img, &d);
	CHECK(digest_equal(d, model_digest("pc.ram", model, THREAD_PAGES * PG)));
	CHECK(image_placed_bytes(img) == model_data(model, THREAD_PAGES * PG));
	CHECK(file_is(at("img.part"), model, THREAD_PAGES * PG));
	image_close(img, false);
	free(model);
}

static void many_threads_may_place(void)
{
	on_each_fs(threads);
}

/* ---- names ---- */

static void finish(struct image *img)
{
	struct error e;

	CHECK(!image_sync(img, &e) && !image_commit(img, &e));
	image_close(img, false);
}

static void names(void)
{
	struct image *img;
	struct stat st;
	struct error e;

	umask(0);
	img = create_one(at("img"), 4 * PG, false, &e);
	REQUIRE(img);
	CHECK(!img->directory && exists(at("img.part")) && !exists(at("img")));
	CHECK(stat(at("img.part"), &st) == 0 && (st.st_mode & 07777) == 0600);
	image_close(img, false);
	CHECK(!exists(at("img.part")) && !exists(at("img")));

	img = create_one(at("img"), 4 * PG, false, &e);
	REQUIRE(img);
	image_close(img, true);
	CHECK(exists(at("img.part")) && !exists(at("img")));

	img = create_one(at("img"), 4 * PG, false, &e); /* over the leftover */
	REQUIRE(img);
	finish(img);
	CHECK(!exists(at("img.part")));
	CHECK(stat(at("img"), &st) == 0 && (st.st_mode & 07777) == 0600);
	CHECK(st.st_size == 4 * PG);
}

static void part_is_renamed_or_removed(void)
{
	on_each_fs(names);
}

static unsigned syncs_of(struct image *img, const char *dir)
{
	struct error e;

	watched = dir;
	watched_syncs = 0;
	CHECK(!image_sync(img, &e));
	watched = NULL;
	return watched_syncs;
}

static void durable(void)
{
	struct block b = block_of("pc.ram", PG);
	struct image_layout l = { .blocks = &b, .nblocks = 1, .device_state = at("far/state") };
	struct image *img;
	struct error e;

	CHECK(mkdir(at("near"), 0700) == 0 && mkdir(at("far"), 0700) == 0);
	img = image_create(at("near/img"), &l, &e);
	REQUIRE(img);
	CHECK(!image_put_device_state(img, "abc", 3, &e));
	CHECK(syncs_of(img, at("near")) == 1);
	CHECK(syncs_of(img, at("far")) == 1);
	image_close(img, false);
	img = image_create(at("near/dir/"), &l, &e);
	REQUIRE(img && img->directory);
	CHECK(syncs_of(img, at("near")) == 1);
	image_close(img, false);
}

static void what_is_synced_has_a_durable_name(void)
{
	on_each_fs(durable);
}

/* A child makes `name` complete and is killed before the rename, or before it is complete. */
static void killed_before_commit(const char *name, bool complete)
{
	struct image_layout l = { .nblocks = 1, .device_state = at("state") };
	struct block b = block_of("pc.ram", PG);
	uint8_t page[PG];
	struct error e;
	int status = 0;
	pid_t pid;

	memset(page, 7, PG);
	l.blocks = &b;
	pid = fork();
	if (!pid) {
		struct image *img = image_create(at("%s", name), &l, &e);

		if (img && !image_place(img, &img->blocks[0], 0, page, PG, &e) &&
		    !image_put_device_state(img, "abc", 3, &e) &&
		    (!complete || !image_sync(img, &e)))
			raise(SIGKILL);
		_exit(1);
	}
	CHECK(waitpid(pid, &status, 0) == pid && WIFSIGNALED(status) &&
	      WTERMSIG(status) == SIGKILL);
}

static void refused_as_complete(const char *name, const char *part)
{
	struct error e;

	for (int force = 0; force < 2; force++) {
		CHECK(!create_one(at("%s", name), PG, force, &e));
		CHECK_ERR(e, ST_FILE, part);
		CHECK_ERR(e, ST_FILE, "is complete and may be the only copy of a guest");
		CHECK_ERR(e, ST_FILE, "rename it to");
		CHECK(image_check_target(at("%s", name), force, false, false, &e) == -1);
		CHECK_ERR(e, ST_FILE, "is complete");
		CHECK(exists(at("%s", part)));
	}
}

static void only_copy(void)
{
	struct block b = block_of("pc.ram", PG);
	struct image_layout l = { .blocks = &b, .nblocks = 1, .device_state = at("state") };
	uint8_t page[PG];
	struct image *img;
	struct stat st;
	struct error e;

	memset(page, 7, PG);
	killed_before_commit("img", false);
	CHECK(exists(at("img.part")));
	killed_before_commit("img", true); /* over the leftover */
	refused_as_complete("img", "img.part");
	CHECK(file_is(at("img.part"), page, PG) && file_is(at("state.part"), "abc", 3));

	/* people decide; a device state alone is refused, too */
	CHECK(rename(at("img.part"), at("img")) == 0);
	l.force = true;
	CHECK(!image_create(at("img"), &l, &e));
	CHECK_ERR(e, ST_FILE, "state.part is complete");
	CHECK(file_is(at("img"), page, PG) && !exists(at("img.part")));
	CHECK(rename(at("state.part"), at("state")) == 0);
	img = image_create(at("img"), &l, &e);
	REQUIRE(img);
	CHECK(!image_put_device_state(img, "new", 3, &e));
	finish(img);
	CHECK(stat(at("img"), &st) == 0 && (st.st_mode & 07777) == 0600);
	CHECK(stat(at("state"), &st) == 0 && (st.st_mode & 07777) == 0600);

	/* as a directory */
	killed_before_commit("dir/", true);
	refused_as_complete("dir/", "dir.part");
	CHECK(file_is(at("dir.part/ram/pc.ram"), page, PG));
	CHECK(rename(at("dir.part"), at("dir")) == 0);
	img = create_one(at("dir"), PG, true, &e);
	REQUIRE(img);
	finish(img);
	CHECK(stat(at("dir"), &st) == 0 && (st.st_mode & 07777) == 0700 && !exists(at("dir.part")));

	/* kept by us, and complete but given up by us */
	img = create_one(at("kept"), PG, false, &e);
	REQUIRE(img && !image_sync(img, &e));
	image_close(img, true);
	refused_as_complete("kept", "kept.part");
	img = create_one(at("given/"), PG, false, &e);
	REQUIRE(img && !image_sync(img, &e));
	image_close(img, false);
	CHECK(!exists(at("given.part")));
}

static void a_complete_part_is_nobodys_leftover(void)
{
	on_each_fs(only_copy);
}

static void overwriting(void)
{
	static uint8_t page[PG];
	struct image *img;
	struct error e;

	CHECK(write_text(at("img"), "precious"));
	CHECK(!create_one(at("img"), PG, false, &e));
	CHECK_ERR(e, ST_FILE, "img exists and is not empty");
	CHECK_ERR(e, ST_FILE, "--force");
	CHECK(image_check_target(at("img"), false, false, false, &e) == -1 && e.status == ST_FILE);
	CHECK(image_check_target(at("img"), true, false, false, &e) == 0);
	CHECK(!exists(at("img.part")));

	img = create_one(at("img"), PG, true, &e);
	REQUIRE(img);
	fill_random(page, PG);
	CHECK(!image_place(img, &img->blocks[0], 0, page, PG, &e));
	CHECK(file_is(at("img"), "precious", 8));
	image_close(img, false);
	CHECK(file_is(at("img"), "precious", 8));

	img = create_one(at("img"), PG, true, &e);
	REQUIRE(img);
	CHECK(!image_place(img, &img->blocks[0], 0, page, PG, &e));
	CHECK(!image_sync(img, &e) && file_is(at("img"), "precious", 8));
	CHECK(!image_commit(img, &e));
	image_close(img, false);
	CHECK(file_is(at("img"), page, PG));

	/* empty: no bytes, or nothing but holes */
	CHECK(truncate(at("img"), 0) == 0);
	img = create_one(at("img"), PG, false, &e);
	REQUIRE(img);
	image_close(img, false);
	CHECK(truncate(at("img"), 1 << 20) == 0);
	img = create_one(at("img"), PG, false, &e);
	REQUIRE(img);
	/* ... and written to while we were receiving */
	CHECK(write_text(at("img"), "precious"));
	CHECK(!image_sync(img, &e) && image_commit(img, &e) == -1);
	CHECK_ERR(e, ST_FILE, "somebody wrote to that meanwhile");
	CHECK_ERR(e, ST_FILE, "complete as");
	image_close(img, false);
	CHECK(file_is(at("img"), "precious", 8) && exists(at("img.part")));

	/* ... or made while we were receiving */
	img = create_one(at("new"), PG, false, &e);
	REQUIRE(img);
	CHECK(write_text(at("new"), "precious"));
	CHECK(!image_sync(img, &e) && image_commit(img, &e) == -1);
	CHECK_ERR(e, ST_FILE, "somebody made that meanwhile");
	image_close(img, false);
	CHECK(file_is(at("new"), "precious", 8) && exists(at("new.part")));
	CHECK(unlink(at("new")) == 0);
	refused_as_complete("new", "new.part");
}

static void nothing_is_overwritten_by_surprise(void)
{
	on_each_fs(overwriting);
}

static void two_writers(void)
{
	struct image *img, *other;
	struct error e;
	int fd;

	img = create_one(at("img"), PG, false, &e);
	REQUIRE(img);
	other = create_one(at("img"), PG, false, &e);
	CHECK(!other);
	CHECK_ERR(e, ST_FILE, "img.part is being written by another migtool");
	CHECK(image_check_target(at("img"), false, false, false, &e) == -1);
	CHECK_ERR(e, ST_FILE, "another migtool");
	CHECK(exists(at("img.part")));
	finish(img);
	CHECK(exists(at("img")) && !exists(at("img.part")));

	/* not ours to remove */
	CHECK(mkdir(at("x.part"), 0700) == 0 && write_text(at("x.part/letter"), "dear"));
	CHECK(!create_one(at("x"), PG, false, &e));
	CHECK_ERR(e, ST_FILE, "x.part holds letter, which is no part of an image");
	CHECK(symlink("/etc/passwd", at("y.part")) == 0);
	CHECK(!create_one(at("y"), PG, false, &e));
	CHECK(exists(at("y.part")));
	CHECK(mkfifo(at("z.part"), 0600) == 0);
	CHECK(!create_one(at("z"), PG, false, &e));
	CHECK_ERR(e, ST_FILE, "is no file");

	/* in place */
	fd = make_file(at("p"), PG);
	CHECK(flock(fd, LOCK_EX) == 0);
	struct block b = block_of("pc.ram", PG);
	struct image_layout l = { .blocks = &b, .nblocks = 1, .in_place = true };

	CHECK(!image_create(at("p"), &l, &e));
	CHECK_ERR(e, ST_FILE, "another migtool");
	close(fd);
}

static void one_writer_at_a_time(void)
{
	on_each_fs(two_writers);
}

static void links(void)
{
	uint8_t page[PG];
	struct image *img;
	struct stat st;
	struct error e;

	fill_random(page, PG);
	CHECK(mkdir(at("far"), 0700) == 0 && write_text(at("far/real"), "old"));
	CHECK(symlink("far/real", at("img")) == 0);
	img = create_one(at("img"), PG, true, &e);
	REQUIRE(img);
	CHECK(exists(at("far/real.part")) && !exists(at("img.part")));
	CHECK(!image_place(img, &img->blocks[0], 0, page, PG, &e));
	finish(img);
	CHECK(lstat(at("img"), &st) == 0 && S_ISLNK(st.st_mode));
	CHECK(file_is(at("far/real"), page, PG));
	CHECK(symlink("nowhere", at("dangling")) == 0);
	CHECK(!create_one(at("dangling"), PG, false, &e));
	CHECK_ERR(e, ST_FILE, "cannot follow the symbolic link");
}

static void a_symbolic_link_stays_one(void)
{
	in_dir("/var/tmp", links);
}

static void bad_targets(void)
{
	struct block b[2] = { block_of("pc.ram", PG), block_of("vga.vram", PG) };
	struct image_layout l = { .blocks = b, .nblocks = 2 };
	struct image *img;
	struct error e;

	CHECK(!create_one(at("no/img"), PG, false, &e));
	CHECK_ERR(e, ST_FILE, "cannot open the directory");
	CHECK(image_check_target(at("no/img"), false, false, false, &e) == -1);
	CHECK(!create_one("", PG, false, &e));
	CHECK_ERR(e, ST_FILE, "empty name");
	CHECK(mkfifo(at("fifo"), 0600) == 0);
	CHECK(!create_one(at("fifo"), PG, true, &e));
	CHECK_ERR(e, ST_UNSUPPORTED, "neither a file nor a directory nor a block device");
	CHECK(!create_one(at("img"), (UINT64_C(1) << 46) + PG, false, &e));
	CHECK_ERR(e, ST_DATA, "in all");
	CHECK(!exists(at("img.part")));

	/* several blocks into an existing file */
	close(make_file(at("file"), 0));
	CHECK(!image_create(at("file"), &l, &e));
	CHECK_ERR(e, ST_UNSUPPORTED, "the source has 2 blocks, but");
	CHECK_ERR(e, ST_UNSUPPORTED, "name a directory");
	l.nblocks = 1;
	l.from_qemu = true;
	CHECK(!image_create(at("file"), &l, &e));
	CHECK_ERR(e, ST_UNSUPPORTED, "a QEMU's memory becomes a directory");
	l.from_qemu = false;
	CHECK(!image_create(at("file/"), &l, &e) && e.status == ST_FILE);

	/* what the peer says of its blocks */
	l.nblocks = 2;
	strcpy(b[1].name, "pc.ram");
	CHECK(!image_create(at("img"), &l, &e));
	CHECK_ERR(e, ST_DATA, "two blocks are named pc.ram");
	strcpy(b[1].name, "");
	CHECK(!image_create(at("img"), &l, &e));
	CHECK_ERR(e, ST_DATA, "a block's name has 0 bytes");
	strcpy(b[1].name, "\xff");
	CHECK(!image_create(at("img"), &l, &e));
	CHECK_ERR(e, ST_DATA, "not printable UTF-8: \\xff");
	strcpy(b[1].name, "ok");
	b[1].size = PG + 1;
	CHECK(!image_create(at("img"), &l, &e));
	CHECK_ERR(e, ST_DATA, "no multiple of the page");
	b[1].size = UINT64_MAX - PG + 1;
	CHECK(!image_create(at("img"), &l, &e));
	CHECK_ERR(e, ST_DATA, "in all");
	b[0].size = b[1].size = 0;
	CHECK(!image_create(at("img"), &l, &e));
	CHECK_ERR(e, ST_DATA, "empty");
	l.nblocks = 0;
	CHECK(!image_create(at("img"), &l, &e));
	CHECK_ERR(e, ST_DATA, "0 blocks");
	CHECK(!exists(at("img")) && !exists(at("img.part")));
	/* nothing of all this was left behind */
	CHECK(run("test \"$(ls '%s')\" = \"$(printf 'fifo\\nfile')\"", work_dir) == 0);
	img = create_one(at("img"), PG, false, &e);
	CHECK(img);
	image_close(img, false);
}

static void what_cannot_be_is_refused(void)
{
	on_each_fs(bad_targets);
}

/* ---- in place ---- */

static void in_place(void)
{
	struct block b = block_of("pc.ram", 8 * PG);
	struct image_layout l = { .blocks = &b, .nblocks = 1, .in_place = true };
	uint8_t mem[8 * PG] = { 0 };
	struct image *img;
	struct digest d;
	struct stat st, was;
	struct error e;

	/* made if it is not there, and removed again */
	img = image_create(at("img"), &l, &e);
	REQUIRE(img);
	CHECK(exists(at("img")) && !exists(at("img.part")));
	image_close(img, false);
	CHECK(!exists(at("img")));
	img = image_create(at("img"), &l, &e);
	REQUIRE(img);
	fill_random(mem, sizeof(mem));
	CHECK(!image_place(img, &img->blocks[0], 0, mem, sizeof(mem), &e));
	finish(img);
	CHECK(file_is(at("img"), mem, sizeof(mem)) && stat(at("img"), &was) == 0);

	/* what it held needs consent, and goes */
	CHECK(!image_create(at("img"), &l, &e));
	CHECK_ERR(e, ST_FILE, "--force overwrites it");
	l.force = true;
	img = image_create(at("img"), &l, &e);
	REQUIRE(img);
	memset(mem, 0, sizeof(mem));
	fill_random(mem + PG, PG);
	CHECK(!image_place(img, &img->blocks[0], PG, mem + PG, PG, &e));
	image_digest(img, &d);
	CHECK(digest_equal(d, model_digest("pc.ram", mem, sizeof(mem))));
	finish(img);
	CHECK(file_is(at("img"), mem, sizeof(mem)));
	CHECK(stat(at("img"), &st) == 0 && st.st_ino == was.st_ino);

	b.size = 4 * PG;
	CHECK(!image_create(at("img"), &l, &e));
	CHECK_ERR(e, ST_UNSUPPORTED, "img has 32768 bytes, but block pc.ram has 16384");
	CHECK(file_is(at("img"), mem, sizeof(mem)));
	/* an image that a VMM has mapped already: all hole */
	close(make_file(at("mapped"), 4 * PG));
	l.force = false;
	img = image_create(at("mapped"), &l, &e);
	REQUIRE(img);
	image_close(img, false);
	CHECK(exists(at("mapped")));
}

static void in_place_writes_the_file_itself(void)
{
	on_each_fs(in_place);
}

/* ---- an old copy ---- */

static void old_copy(void)
{
	struct block b = block_of("pc.ram", PAGES * PG);
	struct image_layout l = { .blocks = &b, .nblocks = 1, .target_page = 4 * PG };
	struct image_source_opts o = { 0 };
	uint8_t *model = calloc(PAGES, PG);
	struct image *img, *old;
	struct digest d;
	struct error e;

	img = image_create(at("old"), &l, &e);
	REQUIRE(img);
	place_randomly(img, &img->blocks[0], model, 4 * PG, 10);
	finish(img);
	o.page_size = 4 * PG;
	old = image_open(at("old"), &o, &e);
	l.force = true;
	img = image_create(at("old"), &l, &e);
	REQUIRE(img && old);
	CHECK(!image_adopt_block(img, &img->blocks[0], old, &old->blocks[0], NULL, &e));
	image_digest(img, &d);
	CHECK(digest_equal(d, model_digest("pc.ram", model, PAGES * PG)));
	CHECK(image_placed_bytes(img) == model_data(model, PAGES * PG));
	CHECK(blocks_of(at("old.part")) <= blocks_of(at("old")) + 8);
	place_randomly(img, &img->blocks[0], model, 4 * PG, 10);
	image_digest(img, &d);
	CHECK(digest_equal(d, model_digest("pc.ram", model, PAGES * PG)));
	CHECK(!image_check_at_rest(old, &e));
	image_close(old, false);
	finish(img);
	CHECK(file_is(at("old"), model, PAGES * PG));

	/* in place, what is there counts from the start */
	l.in_place = l.keep = true;
	img = image_create(at("old"), &l, &e);
	REQUIRE(img);
	CHECK(!image_adopt_block(img, &img->blocks[0], NULL, NULL, NULL, &e));
	image_digest(img, &d);
	CHECK(digest_equal(d, model_digest("pc.ram", model, PAGES * PG)));
	place_randomly(img, &img->blocks[0], model, 4 * PG, 10);
	image_digest(img, &d);
	CHECK(digest_equal(d, model_digest("pc.ram", model, PAGES * PG)));
	finish(img);
	CHECK(file_is(at("old"), model, PAGES * PG));
	free(model);
}

static void an_old_copy_can_be_the_start(void)
{
	on_each_fs(old_copy);
}

/* ---- device state of a raw image ---- */

static void raw_state(void)
{
	struct block b = block_of("pc.ram", PG);
	struct image_layout l = { .blocks = &b, .nblocks = 1 };
	struct image_source_opts o = { 0 };
	struct digest d, d2;
	struct image *img;
	struct error e;
	uint64_t size;

	img = image_create(at("img"), &l, &e);
	REQUIRE(img);
	CHECK(image_put_device_state(img, "abc", 3, &e) == -1);
	CHECK_ERR(e, ST_UNSUPPORTED, "--device-state FILE");
	image_close(img, false);

	l.device_state = at("state");
	img = image_create(at("img"), &l, &e);
	REQUIRE(img);
	CHECK(!image_put_device_state(img, "abc", 3, &e));
	CHECK(!image_put_device_state(img, "defg", 4, &e));
	CHECK(exists(at("state.part")) && !exists(at("state")));
	image_device_state_digest(img, &d, &size);
	CHECK(size == 7);
	image_close(img, false);
	CHECK(!exists(at("state.part")) && !exists(at("state")));

	img = image_create(at("img"), &l, &e);
	REQUIRE(img);
	CHECK(!image_put_device_state(img, "abcdefg", 7, &e));
	finish(img);
	CHECK(file_is(at("state"), "abcdefg", 7) && !exists(at("state.part")));

	o.device_state = at("state");
	img = image_open(at("img"), &o, &e);
	REQUIRE(img);
	CHECK(image_device_state_fd(img, &size) >= 0 && size == 7);
	image_device_state_digest(img, &d2, &size);
	CHECK(digest_equal(d, d2) && size == 7);
	CHECK(truncate(at("state"), 6) == 0);
	CHECK(image_check_at_rest(img, &e) == -1);
	CHECK_ERR(e, ST_UNSUPPORTED, "state is 6 bytes, was 7");
	image_close(img, false);

	CHECK(!image_create(at("img2"), &l, &e));
	CHECK_ERR(e, ST_FILE, "state exists and is not empty");
	CHECK(!exists(at("img2.part")));
	l.force = true;
	img = image_create(at("img2"), &l, &e);
	REQUIRE(img);
	CHECK(!image_put_device_state(img, "new", 3, &e));
	CHECK(file_is(at("state"), "abcdef", 6));
	finish(img);
	CHECK(file_is(at("state"), "new", 3));
	o.device_state = at("none");
	CHECK(!image_open(at("img"), &o, &e));
	CHECK_ERR(e, ST_FILE, "none");
}

/* Memory, then device state: a second rename that fails leaves no new one beside an old IMAGE. */
static void half_renamed(void)
{
	struct block b = block_of("pc.ram", PG);
	struct image_layout l = { .blocks = &b, .nblocks = 1, .device_state = at("state") };
	uint8_t page[PG];
	struct image *img;
	struct error e;

	memset(page, 7, PG);
	for (int fails = 0; fails < 2; fails++) { /* the memory's, the device state's */
		img = image_create(at("img"), &l, &e);
		REQUIRE(img);
		CHECK(!image_place(img, &img->blocks[0], 0, page, PG, &e));
		CHECK(!image_put_device_state(img, "new", 3, &e) && !image_sync(img, &e));
		CHECK(write_text(fails ? at("state") : at("img"), "precious"));
		CHECK(image_commit(img, &e) == -1);
		CHECK_ERR(e, ST_FILE, "somebody made that meanwhile");
		image_close(img, false);
		CHECK(file_is(at("state.part"), "new", 3));
		if (!fails) {
			CHECK(file_is(at("img"), "precious", 8) && !exists(at("state")));
			CHECK(file_is(at("img.part"), page, PG));
			CHECK(!unlink(at("img")) && !unlink(at("img.part")));
			CHECK(!unlink(at("state.part")));
		}
	}
	CHECK_ERR(e, ST_FILE, "img now, but: cannot rename");
	CHECK_ERR(e, ST_FILE, "complete as");
	CHECK(file_is(at("state"), "precious", 8));
	CHECK(file_is(at("img"), page, PG) && !exists(at("img.part")));
}

static void a_device_state_is_never_newer_than_its_memory(void)
{
	on_each_fs(half_renamed);
}

static void a_raw_image_has_its_device_state_beside_it(void)
{
	on_each_fs(raw_state);
}

/* Pages of 16 KiB: one whole, one half of zeros, none, one whole. */
static void parked(void)
{
	static uint8_t pages[4 * 4 * PG];
	struct block b = block_of("pc.ram", sizeof(pages));
	struct image_layout l = {
		.blocks = &b, .nblocks = 1, .target_page = 4 * PG, .from_qemu = true
	};
	struct image_source_opts o = { 0 };
	struct manifest *m;
	struct image *img;
	struct bitmap map;
	struct error e;

	memset(pages, 'x', sizeof(pages));
	memset(pages + 6 * PG, 0, 6 * PG);
	CHECK(!image_find_postcopy(at("dir"), &m, &e) && !m);
	img = image_create(at("dir"), &l, &e);
	REQUIRE(img);
	CHECK(!image_place(img, &img->blocks[0], 0, pages, 8 * PG, &e));
	CHECK(!image_put_device_state(img, "state", 5, &e));
	CHECK(image_find_postcopy(at("dir"), &m, &e) == -1); /* it is locked */
	CHECK(!image_note_postcopy(img, &e));
	image_close(img, true);
	CHECK(!image_open(at("dir.part"), &o, &e));
	CHECK_ERR(e, ST_UNSUPPORTED, "has not all of its guest's memory");
	REQUIRE(!image_find_postcopy(at("dir"), &m, &e) && m);
	CHECK(m->nblocks == 1 && m->page_size == 4 * PG && m->device_state_size == 5);
	l.resume = l.force = true;
	l.postcopy = m;
	img = image_create(at("dir"), &l, &e);
	REQUIRE(img && !bitmap_init(&map, 4));
	CHECK(!image_adopt_block(img, &img->blocks[0], NULL, NULL, NULL, &e));
	image_came(img, &img->blocks[0], &map);
	CHECK(bitmap_count(&map) == 1 && bitmap_test(&map, 0));
	CHECK(!image_place(img, &img->blocks[0], 12 * PG, pages + 12 * PG, 4 * PG, &e));
	image_came(img, &img->blocks[0], &map);
	CHECK(bitmap_count(&map) == 2 && bitmap_test(&map, 3));
	bitmap_free(&map);
	CHECK(!image_sync(img, &e) && !image_commit(img, &e));
	image_close(img, false);
	manifest_free(m);
	CHECK(!image_find_postcopy(at("dir"), &m, &e) && !m);
	CHECK(file_is(at("dir/ram/pc.ram"), pages, sizeof(pages)));
	CHECK(file_is(at("dir/device-state"), "state", 5));
	img = image_open(at("dir"), &o, &e);
	CHECK(img && !img->manifest->postcopy && img->manifest->device_state_size == 5);
	image_close(img, false);
}

static void a_guest_that_waits_for_the_rest_of_its_memory(void)
{
	on_each_fs(parked);
}

static const struct test_case cases[] = {
	{ "pages may come in any order and often", pages_may_come_in_any_order_and_often },
	{ "a terabyte of holes costs nothing", sparse_on_both },
	{ "offsets outside the block are refused", offsets_outside_are_refused },
	{ "a destination that is cut under us is an error",
	  a_destination_cut_under_us_is_an_error },
	{ "many threads may place at the same time", many_threads_may_place },
	{ ".part is renamed, kept or removed", part_is_renamed_or_removed },
	{ "what is synced has a durable name", what_is_synced_has_a_durable_name },
	{ "a complete .part is nobody's leftover", a_complete_part_is_nobodys_leftover },
	{ "nothing is overwritten by surprise", nothing_is_overwritten_by_surprise },
	{ "one writer at a time", one_writer_at_a_time },
	{ "a symbolic link stays one", a_symbolic_link_stays_one },
	{ "what cannot be is refused and leaves nothing behind", what_cannot_be_is_refused },
	{ "in place writes the file itself", in_place_writes_the_file_itself },
	{ "an old copy can be what a destination starts from", an_old_copy_can_be_the_start },
	{ "a device state is never newer than its memory",
	  a_device_state_is_never_newer_than_its_memory },
	{ "a raw image has its device state beside it",
	  a_raw_image_has_its_device_state_beside_it },
	{ "a guest that waits for the rest of its memory",
	  a_guest_that_waits_for_the_rest_of_its_memory },
};

TEST_MAIN(cases)
