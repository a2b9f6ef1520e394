// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Images where a file system is special: huge pages, full or read-only ones, ones without holes,
 * and block devices. Everything is mounted in a mount namespace of this process' own.
 */
#include "huge_pool.h"
#include "image_fixture.h"

#include <sched.h>
#include <sys/mount.h>
#include <sys/statvfs.h>

#define HUGE	   (UINT64_C(2) << 20)
#define HUGE_PAGES 6

static char mount_dir[] = "/tmp/migtool-host.XXXXXX";

static void remove_mount_dir(void)
{
	rmdir(mount_dir);
}

/* Once: a mount namespace, and a directory in it. */
static bool set_up(void)
{
	static bool done;

	if (done)
		return true;
	if (unshare(CLONE_NEWNS) < 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
	    !mkdtemp(mount_dir))
		return false;
	atexit(remove_mount_dir);
	done = true;
	return true;
}

/* In a fresh mount of `type`, which becomes work_dir. */
static void in_mount(const char *type, const char *options, void (*fn)(void))
{
	REQUIRE(set_up());
	REQUIRE(mount("none", mount_dir, type, 0, options) == 0);
	work_dir = mount_dir;
	fn();
	work_dir = NULL;
	CHECK(umount2(mount_dir, MNT_DETACH) == 0);
}

static void need_mounts(void (*fn)(void))
{
	if (geteuid() != 0)
		SKIP("only root can mount");
	fn();
}

static uint64_t used_bytes(void)
{
	struct statvfs v;

	return statvfs(work_dir, &v) == 0 ? (v.f_blocks - v.f_bfree) * v.f_frsize : UINT64_MAX;
}

static void finish(struct image *img)
{
	struct error e;

	CHECK(!image_sync(img, &e) && !image_commit(img, &e));
	image_close(img, false);
}

/* ---- huge pages ---- */

static void (*huge_case)(void);

/* qemu-user cannot map huge pages: then that has to be what we say. */
static void on_hugetlbfs(void)
{
	struct error e;

	if (!getenv("RUNNER") || strstr(getenv("RUNNER"), "qemu") == NULL) {
		huge_case();
		return;
	}
	CHECK(!create_one(at("img"), HUGE, false, &e));
	CHECK_ERR(e, ST_FILE, "cannot map");
	CHECK(!exists(at("img.part")));
}

/* With a few more huge pages in the pool, of which the mount may have HUGE_PAGES. */
static void with_huge_pages(void (*fn)(void))
{
	struct huge_pool pool;
	char options[64];

	if (geteuid() != 0)
		SKIP("only root can mount");
	if (!huge_pool_grow(&pool, HUGE_PAGES))
		SKIP("no huge pages, or no memory for them");
	snprintf(options, sizeof(options), "pagesize=2M,size=%u", (unsigned)(HUGE_PAGES * HUGE));
	huge_case = fn;
	in_mount("hugetlbfs", options, on_hugetlbfs);
	huge_pool_end(&pool);
}

static void huge_model(void)
{
	struct image_source_opts o = { .block_name = "m0" };
	uint64_t size = 4 * HUGE, bytes;
	struct block b = block_of("m0", size);
	struct image_layout l = { .blocks = &b, .nblocks = 1 };
	uint8_t *model = calloc(1, size), *got = malloc(size);
	struct digest d;
	struct image *img;
	struct error e;

	img = image_create(at("img"), &l, &e);
	REQUIRE(img);
	CHECK(img->blocks[0].page_size == HUGE && blocks_of(at("img.part")) == 0);
	place_randomly(img, &img->blocks[0], model, PG, 300);
	place_randomly(img, &img->blocks[0], model, 4 * PG, 100);
	image_digest(img, &d);
	CHECK(digest_equal(d, model_digest("m0", model, size)));
	finish(img);
	CHECK(exists(at("img")) && !exists(at("img.part")));

	img = image_open(at("img"), &o, &e);
	REQUIRE(img);
	CHECK(img->blocks[0].size == size && img->blocks[0].page_size == HUGE);
	CHECK(!image_data_bytes(img, &bytes, &e) && bytes == size);
	CHECK(!image_read(img, &img->blocks[0], 0, got, size, &e) && !memcmp(got, model, size));
	CHECK(!image_check_at_rest(img, &e));
	image_close(img, false);
	free(model);
	free(got);
}

static void huge_pages_can_be_placed(void)
{
	with_huge_pages(huge_model);
}

static void huge_sparse(void)
{
	struct image_source_opts o = { 0 };
	static uint8_t page[PG], zero[64 * PG], got[PG];
	struct image *img;
	struct error e;

	/* ten times what there is */
	img = create_one(at("img"), 10 * HUGE_PAGES * HUGE, false, &e);
	REQUIRE(img);
	for (uint64_t i = 0; i < 10 * HUGE_PAGES; i++)
		CHECK(!image_place(img, &img->blocks[0], i * HUGE + 5 * PG, zero, sizeof(zero),
				   &e));
	CHECK(!image_place_zero(img, &img->blocks[0], 0, img->blocks[0].size, &e));
	CHECK(blocks_of(at("img.part")) == 0);
	fill_random(page, PG);
	CHECK(!image_place(img, &img->blocks[0], 7 * HUGE + 9 * PG, page, PG, &e));
	CHECK(blocks_of(at("img.part")) == HUGE / 512);
	CHECK(!image_place(img, &img->blocks[0], 7 * HUGE + 11 * PG, page, PG, &e));
	CHECK(!image_place(img, &img->blocks[0], 30 * HUGE - PG, page, PG, &e));
	CHECK(blocks_of(at("img.part")) == 2 * HUGE / 512);
	finish(img);

	/* reading the rest allocates nothing either */
	img = image_open(at("img"), &o, &e);
	REQUIRE(img);
	for (uint64_t i = 0; i < 10 * HUGE_PAGES; i++)
		CHECK(!image_read(img, &img->blocks[0], i * HUGE + 9 * PG, got, PG, &e) &&
		      (i == 7 ? !memcmp(got, page, PG) : zero_is(got, PG)));
	CHECK(blocks_of(at("img")) == 2 * HUGE / 512);
	image_close(img, false);
}

static void holes_take_no_huge_pages(void)
{
	with_huge_pages(huge_sparse);
}

static void huge_full(void)
{
	static uint8_t page[PG];
	struct image *img;
	struct error e;

	img = create_one(at("img"), 2 * HUGE_PAGES * HUGE, false, &e);
	REQUIRE(img);
	fill_random(page, PG);
	for (uint64_t i = 0; i < HUGE_PAGES; i++)
		CHECK(!image_place(img, &img->blocks[0], i * HUGE, page, PG, &e));
	CHECK(image_place(img, &img->blocks[0], HUGE_PAGES * HUGE, page, PG, &e) == -1);
	CHECK_ERR(e, ST_FILE, "img.part: no huge pages left (24576 of 25165824 bytes placed)");
	CHECK_ERR(e, ST_FILE, "nr_hugepages");
	CHECK(e.sys == ENOSPC);
	image_close(img, false);
	CHECK(!exists(at("img.part")) && used_bytes() == 0);
}

static void too_few_huge_pages_are_an_error_not_a_signal(void)
{
	with_huge_pages(huge_full);
}

static void huge_cut(void)
{
	static uint8_t page[PG];
	struct image *img;
	struct error e;

	img = create_one(at("img"), 2 * HUGE, false, &e);
	REQUIRE(img);
	fill_random(page, PG);
	CHECK(!image_place(img, &img->blocks[0], HUGE, page, PG, &e));
	CHECK(truncate(at("img.part"), (off_t)HUGE) == 0);
	/* the page that was there: it cannot be read back; another one: it cannot be stored */
	CHECK(image_place(img, &img->blocks[0], HUGE, page, PG, &e) == -1);
	CHECK_ERR(e, ST_UNSUPPORTED, "img.part is 2097152 bytes, was 4194304");
	CHECK(image_place(img, &img->blocks[0], HUGE + PG, page, PG, &e) == -1);
	CHECK_ERR(e, ST_FILE, "cannot write");
	CHECK(e.sys == EFAULT);
	image_close(img, false);
}

static void a_huge_file_cut_under_us_is_an_error_not_a_signal(void)
{
	with_huge_pages(huge_cut);
}

static void huge_in_place(void)
{
	struct block b = block_of("pc.ram", 2 * HUGE);
	struct image_layout l = { .blocks = &b, .nblocks = 1, .in_place = true };
	uint8_t *model = malloc(b.size), *got = malloc(b.size);
	struct image_source_opts o = { 0 };
	struct image *img;
	struct digest d;
	struct error e;

	for (int turn = 0; turn < 2; turn++) {
		l.force = turn > 0;
		img = image_create(at("img"), &l, &e);
		REQUIRE(img);
		CHECK(blocks_of(at("img")) == 0);
		memset(model, 0, b.size);
		place_randomly(img, &img->blocks[0], model, PG, 20);
		image_digest(img, &d);
		CHECK(digest_equal(d, model_digest("pc.ram", model, b.size)));
		finish(img);
		img = image_open(at("img"), &o, &e);
		REQUIRE(img);
		CHECK(!image_read(img, &img->blocks[0], 0, got, b.size, &e));
		CHECK(!memcmp(got, model, b.size));
		image_close(img, false);
	}
	l.keep = true;
	img = image_create(at("img"), &l, &e);
	REQUIRE(img);
	CHECK(!image_adopt_block(img, &img->blocks[0], NULL, NULL, NULL, &e));
	place_randomly(img, &img->blocks[0], model, PG, 5);
	image_digest(img, &d);
	CHECK(digest_equal(d, model_digest("pc.ram", model, b.size)));
	finish(img);
	l.force = false;
	CHECK(!image_create(at("img"), &l, &e));
	CHECK_ERR(e, ST_FILE, "img exists and is not empty");
	free(model);
	free(got);
}

static void huge_pages_in_place(void)
{
	with_huge_pages(huge_in_place);
}

static void huge_refused(void)
{
	struct block b = block_of("pc.ram", HUGE);
	struct image_layout l = { .blocks = &b, .nblocks = 1, .from_qemu = true };
	struct error e;

	CHECK(!image_create(at("vm"), &l, &e));
	CHECK_ERR(e, ST_UNSUPPORTED, "vm is on hugetlbfs");
	CHECK(!exists(at("vm")) && !exists(at("vm.part")));
	CHECK(!create_one(at("img"), HUGE + PG, false, &e));
	CHECK_ERR(e, ST_UNSUPPORTED, "no multiple of the huge page of 2097152");
	CHECK(!exists(at("img.part")));
}

static void what_hugetlbfs_cannot_hold_is_refused(void)
{
	with_huge_pages(huge_refused);
}

/* ---- no room ---- */

static void full(void)
{
	static uint8_t buf[16 * PG];
	uint64_t i, before = used_bytes();
	struct image *img;
	struct error e;

	img = create_one(at("img"), 64 << 20, false, &e);
	REQUIRE(img);
	fill_random(buf, sizeof(buf));
	for (i = 0; i < 1024; i++)
		if (image_place(img, &img->blocks[0], i * sizeof(buf), buf, sizeof(buf), &e) < 0)
			break;
	CHECK(i == 16); /* 1 MiB */
	CHECK_ERR(e, ST_FILE,
		  "img.part: no space left on the device (1048576 of 67108864 bytes placed)");
	CHECK(e.sys == ENOSPC);
	CHECK(image_put_device_state(img, buf, 1, &e) == -1);
	image_close(img, false);
	CHECK(!exists(at("img.part")) && used_bytes() == before);

	/* the same for what stands beside the memory */
	struct block b = block_of("pc.ram", 1 << 20);
	struct image_layout l = { .blocks = &b, .nblocks = 1, .from_qemu = true };

	img = image_create(at("vm"), &l, &e);
	REQUIRE(img);
	for (i = 0; i < 1024; i++)
		if (image_place(img, &img->blocks[0], i * PG, buf, PG, &e) < 0)
			break;
	CHECK(image_put_device_state(img, buf, sizeof(buf), &e) == -1);
	CHECK_ERR(e, ST_FILE, "device-state");
	CHECK(e.sys == ENOSPC);
	CHECK(image_sync(img, &e) == -1);
	CHECK_ERR(e, ST_FILE, "manifest.json.part");
	image_close(img, false);
	CHECK(!exists(at("vm")) && !exists(at("vm.part")) && used_bytes() == before);
}

static void on_small_tmpfs(void)
{
	in_mount("tmpfs", "size=1m", full);
}

static void a_full_file_system_is_a_clear_error(void)
{
	need_mounts(on_small_tmpfs);
}

static void read_only(void)
{
	struct image *img;
	struct error e;

	close(make_file(at("img"), 4 * PG));
	CHECK(mount(NULL, mount_dir, NULL, MS_REMOUNT | MS_RDONLY, NULL) == 0);
	CHECK(image_check_target(at("new"), false, false, false, &e) == -1);
	CHECK_ERR(e, ST_FILE, "cannot create");
	CHECK(e.sys == EROFS);
	CHECK(!create_one(at("new"), PG, false, &e));
	CHECK_ERR(e, ST_FILE, "new.part: Read-only file system");
	struct image_source_opts o = { 0 };

	img = image_open(at("img"), &o, &e);
	CHECK(img && !image_check_at_rest(img, &e));
	image_close(img, false);
}

static void on_read_only(void)
{
	in_mount("tmpfs", "size=1m", read_only);
}

static void a_read_only_destination_is_a_clear_error(void)
{
	need_mounts(on_read_only);
}

/* ---- a file system that has neither holes to find nor fallocate ---- */

static void without_holes(void)
{
	struct block b = block_of("pc.ram", 128 * PG);
	struct image_layout l = { .blocks = &b, .nblocks = 1 };
	uint8_t *model = calloc(1, b.size);
	struct image_source_opts o = { 0 };
	struct digest d;
	struct image *img;
	struct error e;
	uint64_t bytes;
	int fd = make_file(at("probe"), PG);

	CHECK(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, PG) == -1);
	close(fd);
	img = image_create(at("img"), &l, &e);
	REQUIRE(img);
	place_randomly(img, &img->blocks[0], model, PG, 200);
	image_digest(img, &d);
	CHECK(digest_equal(d, model_digest("pc.ram", model, b.size)));
	finish(img);
	CHECK(file_is(at("img"), model, b.size));
	img = image_open(at("img"), &o, &e);
	REQUIRE(img);
	CHECK(!image_data_bytes(img, &bytes, &e) && bytes == b.size);
	image_close(img, false);
	/* in place: emptied by other means */
	l.force = l.in_place = true;
	img = image_create(at("img"), &l, &e);
	REQUIRE(img);
	finish(img);
	memset(model, 0, b.size);
	CHECK(file_is(at("img"), model, b.size));
	free(model);
}

static void on_ramfs(void)
{
	in_mount("ramfs", NULL, without_holes);
}

static void zero_pages_are_written_where_none_can_be_punched(void)
{
	need_mounts(on_ramfs);
}

/* ---- a file system that can share extents ---- */

static void shared_extents(void)
{
	uint64_t size = 32 << 20, before;
	uint8_t *mem = calloc(1, size);
	struct image_source_opts o = { 0 };
	struct image *img, *old;
	struct digest d;
	struct error e;

	fill_random(mem, size / 2);
	img = create_one(at("img"), size, false, &e);
	REQUIRE(img);
	CHECK(!image_place(img, &img->blocks[0], 0, mem, size, &e));
	finish(img);
	sync();
	before = used_bytes();
	old = image_open(at("img"), &o, &e);
	img = create_one(at("img"), size, true, &e);
	REQUIRE(img && old);
	CHECK(!image_adopt_block(img, &img->blocks[0], old, &old->blocks[0], NULL, &e));
	image_digest(img, &d);
	CHECK(digest_equal(d, model_digest("pc.ram", mem, size)));
	CHECK(image_placed_bytes(img) == size / 2);
	CHECK(fsync(img->blocks[0].fd) == 0);
	CHECK(used_bytes() < before + (1 << 20));
	/* the old copy does not see what is written to the new one */
	memset(mem, 7, PG);
	CHECK(!image_place(img, &img->blocks[0], 0, mem, PG, &e));
	CHECK(!image_read(old, &old->blocks[0], 0, mem + PG, PG, &e) && mem[PG] != 7);
	CHECK(!image_get_page(img, &img->blocks[0], PG, mem + PG, PG, &e));
	image_close(old, false);
	finish(img);
	CHECK(file_is(at("img"), mem, size));
	free(mem);
}

static void on_btrfs(void)
{
	char dir[64];

	snprintf(dir, sizeof(dir), "%s/fs", work_dir);
	CHECK(run("truncate -s 256M '%s' && mkfs.btrfs -q '%s' >/dev/null", at("disk"),
		  at("disk")) == 0);
	CHECK(mkdir(dir, 0700) == 0);
	if (run("mount -o loop -t btrfs '%s' '%s' 2>/dev/null", at("disk"), dir) != 0)
		SKIP("this kernel has no btrfs");
	work_dir = dir;
	shared_extents();
	work_dir = mount_dir;
	CHECK(run("umount '%s'", dir) == 0);
}

static void in_btrfs_mount(void)
{
	in_mount("tmpfs", "size=512m", on_btrfs);
}

static void an_old_copy_shares_its_extents(void)
{
	need_mounts(in_btrfs_mount);
}

/* ---- block devices ---- */

static char device[64];

/* A loop device over a file of `pages`, full of old content. */
static bool attach(size_t pages)
{
	char cmd[600];
	FILE *f;
	size_t n = 0;

	CHECK(run("head -c %zu /dev/urandom >'%s'", pages * PG, at("disk")) == 0);
	snprintf(cmd, sizeof(cmd), "losetup -f --show '%s' 2>/dev/null", at("disk"));
	f = popen(cmd, "r");
	if (f) {
		n = fread(device, 1, sizeof(device) - 1, f);
		pclose(f);
	}
	device[n] = '\0';
	if (n)
		device[n - 1] = '\0';
	return n > 0;
}

static void on_device(void)
{
	struct block b = block_of("pc.ram", 256 * PG);
	struct image_layout l = { .blocks = &b, .nblocks = 1 };
	struct image_source_opts o = { 0 };
	uint8_t *model = calloc(1, b.size);
	struct image *img;
	struct digest d;
	struct error e;
	uint64_t bytes;
	int fd;

	CHECK(!image_create(device, &l, &e));
	CHECK_ERR(e, ST_UNSUPPORTED, "is a block device");
	CHECK_ERR(e, ST_UNSUPPORTED, "--in-place");
	l.in_place = true;
	CHECK(!image_create(device, &l, &e));
	CHECK_ERR(e, ST_FILE, "--force overwrites");
	l.force = true;
	b.size = 512 * PG;
	CHECK(!image_create(device, &l, &e));
	CHECK_ERR(e, ST_UNSUPPORTED, "has 1048576 bytes, but block pc.ram has 2097152");
	b.size = 256 * PG;
	fd = open(device, O_RDWR | O_EXCL); /* as a mount does */
	CHECK(fd >= 0 && !image_create(device, &l, &e));
	CHECK_ERR(e, ST_FILE, "Device or resource busy");
	close(fd);
	CHECK(!image_check_target(device, true, true, false, &e));

	img = image_create(device, &l, &e);
	REQUIRE(img);
	place_randomly(img, &img->blocks[0], model, PG, 8); /* leaves some where nothing came */
	image_digest(img, &d);
	CHECK(digest_equal(d, model_digest("pc.ram", model, b.size)));
	finish(img);
	CHECK(file_is(device, model, b.size));

	img = image_open(device, &o, &e);
	REQUIRE(img);
	CHECK(img->blocks[0].size == b.size);
	CHECK(!image_data_bytes(img, &bytes, &e) && bytes == b.size);
	CHECK(!image_check_at_rest(img, &e));
	image_close(img, false);

	/* as an old copy, it counts from the start, and nothing of it is zeroed */
	l.keep = true;
	img = image_create(device, &l, &e);
	REQUIRE(img);
	CHECK(!image_adopt_block(img, &img->blocks[0], NULL, NULL, NULL, &e));
	image_digest(img, &d);
	CHECK(digest_equal(d, model_digest("pc.ram", model, b.size)));
	place_randomly(img, &img->blocks[0], model, PG, 3);
	image_digest(img, &d);
	CHECK(digest_equal(d, model_digest("pc.ram", model, b.size)));
	finish(img);
	CHECK(file_is(device, model, b.size));
	free(model);
}

static void with_device(void)
{
	if (!attach(256))
		SKIP("no loop device");
	on_device();
	CHECK(run("losetup -d '%s'", device) == 0);
}

static void in_device_mount(void)
{
	in_mount("tmpfs", "size=64m", with_device);
}

static void a_block_device_is_written_in_place(void)
{
	need_mounts(in_device_mount);
}

static const struct test_case cases[] = {
	{ "huge pages can be placed", huge_pages_can_be_placed },
	{ "holes take no huge pages", holes_take_no_huge_pages },
	{ "too few huge pages are an error, not a signal",
	  too_few_huge_pages_are_an_error_not_a_signal },
	{ "a huge file cut under us is an error, not a signal",
	  a_huge_file_cut_under_us_is_an_error_not_a_signal },
	{ "huge pages in place", huge_pages_in_place },
	{ "what hugetlbfs cannot hold is refused", what_hugetlbfs_cannot_hold_is_refused },
	{ "a full file system is a clear error", a_full_file_system_is_a_clear_error },
	{ "a read-only destination is a clear error", a_read_only_destination_is_a_clear_error },
	{ "zero pages are written where none can be punched",
	  zero_pages_are_written_where_none_can_be_punched },
	{ "an old copy shares its extents with the new one", an_old_copy_shares_its_extents },
	{ "a block device is written in place", a_block_device_is_written_in_place },
};

TEST_MAIN(cases)
