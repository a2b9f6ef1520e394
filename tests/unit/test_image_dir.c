// SPDX-License-Identifier: GPL-2.0-or-later
/* Directory images: written and read back, by hand, replaced as a whole, disagreeing. */
#include "image_fixture.h"

#include "log.h"

static const char *const names[] = { "pc.ram", "/rom@etc/acpi/tables", ".dot", "0000:00:02.0/vga",
				     "none" };
static const uint64_t sizes[] = { 64 * PG, 32 * PG, 4 * PG, 16 * PG, 0 };
#define BLOCKS (sizeof(names) / sizeof(names[0]))

static struct image *create_dir(const char *path, bool force, bool in_place, struct error *err)
{
	struct block b[BLOCKS];
	struct image_layout l = { .blocks = b,
				  .nblocks = BLOCKS,
				  .from_qemu = true,
				  .force = force,
				  .in_place = in_place };

	for (unsigned i = 0; i < BLOCKS; i++)
		b[i] = block_of(names[i], sizes[i]);
	b[1].has_gpa = b[1].shared = true;
	b[1].gpa = 0xc0000;
	b[0].page_size = 2 << 20;
	return image_create(path, &l, err);
}

/* Every block's first page is the block's own. */
static void place_marks(struct image *img, uint8_t seed)
{
	uint8_t page[PG];
	struct error e;

	for (unsigned i = 0; i < BLOCKS; i++) {
		memset(page, seed + (int)i, PG);
		if (sizes[i])
			CHECK(!image_place(img, &img->blocks[i], 0, page, PG, &e));
	}
}

/* Is `dir` the whole image that place_marks(seed) made? */
static bool has_marks(const char *dir, uint8_t seed)
{
	struct image_source_opts o = { 0 };
	struct image *img;
	uint8_t page[PG];
	struct error e;
	bool ok = true;

	img = image_open(dir, &o, &e);
	if (!img)
		return false;
	for (unsigned i = 0; i < BLOCKS; i++) {
		struct block *b = image_find(img, names[i], strlen(names[i]));

		if (!b || b->size != sizes[i] ||
		    (sizes[i] && (image_read(img, b, 0, page, PG, &e) < 0 || page[7] != seed + i)))
			ok = false;
	}
	image_close(img, false);
	return ok;
}

static void finish(struct image *img)
{
	struct error e;

	CHECK(!image_sync(img, &e) && !image_commit(img, &e));
	image_close(img, false);
}

static void write_one(const char *name, uint8_t seed)
{
	struct image *img;
	struct error e;

	img = create_dir(name, false, false, &e);
	REQUIRE(img);
	place_marks(img, seed);
	CHECK(!image_put_device_state(img, "state", 5, &e));
	finish(img);
}

/* ---- round trip ---- */

static void check_manifest(const struct image *img)
{
	const struct manifest *m = img->manifest;
	uint8_t page[PG];
	struct digest d;
	char hex[33];

	REQUIRE(m && m->nblocks == BLOCKS);
	CHECK_STR(m->machine, "pc-i440fx-7.2");
	CHECK(m->page_size == PG);
	CHECK(m->blocks[1].has_gpa && m->blocks[1].gpa == 0xc0000 && m->blocks[1].shared);
	CHECK(img->blocks[1].has_gpa && img->blocks[1].gpa == 0xc0000 && img->blocks[1].shared);
	/* where the guest ran it had huge pages, whatever the file has */
	CHECK(m->blocks[0].page_size == 2 << 20 && img->blocks[0].page_size == 2 << 20);
	memset(page, 10, PG);
	d = model_digest("pc.ram", page, PG);
	CHECK_STR(m->blocks[0].digest, digest_hex(d, hex));
	CHECK(m->has_device_state && m->device_state_size == 5);
}

static void round_trip(void)
{
	struct image_source_opts o = { 0 };
	struct digest sum = { 0, 0 };
	struct image *img;
	struct error e;
	struct stat st;
	uint64_t size;
	char buf[8];
	int fd;

	umask(0);
	img = create_dir(at("vm"), false, false, &e);
	REQUIRE(img);
	CHECK(img->directory && img->manifest && exists(at("vm.part/ram")) && !exists(at("vm")));
	place_marks(img, 10);
	strcpy(img->manifest->machine, "pc-i440fx-7.2");
	CHECK(!image_put_device_state(img, "st", 2, &e) &&
	      !image_put_device_state(img, "ate", 3, &e));
	image_digest(img, &sum);
	CHECK(!image_sync(img, &e) && !exists(at("vm")));
	CHECK(!image_commit(img, &e));
	image_close(img, false);
	CHECK(!exists(at("vm.part")));
	CHECK(exists(at("vm/ram/%%2From%%40etc%%2Facpi%%2Ftables")) &&
	      exists(at("vm/ram/%%2Edot")) && exists(at("vm/ram/pc.ram")));
	CHECK(run("test $(ls -A '%s' | wc -l) = 3 && test $(ls -A '%s/ram' | wc -l) = 5", at("vm"),
		  at("vm")) == 0);
	CHECK(stat(at("vm"), &st) == 0 && (st.st_mode & 07777) == 0700);
	CHECK(stat(at("vm/ram"), &st) == 0 && (st.st_mode & 07777) == 0700);
	CHECK(stat(at("vm/ram/pc.ram"), &st) == 0 && (st.st_mode & 07777) == 0600);
	CHECK(stat(at("vm/device-state"), &st) == 0 && (st.st_mode & 07777) == 0600);

	img = image_open(at("vm"), &o, &e);
	REQUIRE(img);
	CHECK(img->directory && img->nblocks == BLOCKS);
	for (unsigned i = 0; i < BLOCKS; i++)
		CHECK_STR(img->blocks[i].name, names[i]);
	check_manifest(img);
	fd = image_device_state_fd(img, &size);
	CHECK(size == 5 && read(fd, buf, 8) == 5 && !memcmp(buf, "state", 5));
	CHECK(!image_check_at_rest(img, &e));
	image_close(img, false);
	CHECK(has_marks(at("vm"), 10));
	/* the manifest is JSON that others can read */
	CHECK(run("python3 -c 'import json,sys; d=json.load(open(sys.argv[1]));"
		  "assert [b[\"size\"] for b in d[\"blocks\"]][:2]==[262144,131072]' '%s'",
		  at("vm/manifest.json")) == 0);
}

static void a_directory_is_written_and_read_back(void)
{
	on_each_fs(round_trip);
}

static void one_block_kinds(void)
{
	struct block b = block_of("pc.ram", PG);
	struct image_layout l = { .blocks = &b, .nblocks = 1 };
	struct image *img;
	struct error e;

	img = image_create(at("slash/"), &l, &e);
	REQUIRE(img);
	CHECK(img->directory);
	finish(img);
	CHECK(exists(at("slash/ram/pc.ram")) && !exists(at("slash/device-state")));
	CHECK(mkdir(at("empty"), 0755) == 0);
	img = image_create(at("empty"), &l, &e);
	REQUIRE(img);
	CHECK(img->directory);
	finish(img);
	CHECK(exists(at("empty/ram/pc.ram")) && !exists(at("empty.part")));
	l.from_qemu = true;
	img = image_create(at("qemu"), &l, &e);
	REQUIRE(img);
	CHECK(img->directory);
	image_close(img, false);
	CHECK(!exists(at("qemu")) && !exists(at("qemu.part")));
	img = image_create(at("qemu"), &l, &e);
	REQUIRE(img);
	image_close(img, true);
	CHECK(exists(at("qemu.part/ram/pc.ram")));
	img = image_create(at("qemu"), &l, &e); /* over the leftover directory */
	REQUIRE(img);
	CHECK(!image_create(at("qemu"), &l, &e));
	CHECK_ERR(e, ST_FILE, "another migtool");
	finish(img);
	CHECK(exists(at("qemu/ram/pc.ram")) && !exists(at("qemu.part")));
	CHECK(chdir(at("qemu")) == 0);
	l.force = true;
	img = image_create(".", &l, &e);
	CHECK(img && exists(at("qemu.part")));
	image_close(img, false);
	CHECK(chdir("/") == 0 && exists(at("qemu")) && !exists(at("qemu.part")));
}

static void what_becomes_a_directory(void)
{
	on_each_fs(one_block_kinds);
}

/* ---- replacing ---- */

static void replacing(void)
{
	struct image *img;
	struct error e;

	write_one(at("vm"), 20);
	CHECK(!create_dir(at("vm"), false, false, &e));
	CHECK_ERR(e, ST_FILE, "vm exists and is not empty");
	img = create_dir(at("vm"), true, false, &e);
	REQUIRE(img);
	place_marks(img, 30);
	CHECK(has_marks(at("vm"), 20));
	image_close(img, false);
	CHECK(has_marks(at("vm"), 20) && !exists(at("vm.part")));

	img = create_dir(at("vm"), true, false, &e);
	REQUIRE(img);
	place_marks(img, 30);
	CHECK(!image_sync(img, &e) && has_marks(at("vm"), 20));
	CHECK(!image_commit(img, &e));
	image_close(img, false);
	CHECK(has_marks(at("vm"), 30) && !exists(at("vm.part")));
	CHECK(!exists(at("vm/device-state")));

	/* a directory with other things in it is not an image */
	CHECK(write_text(at("vm/notes.txt"), "mine"));
	CHECK(!create_dir(at("vm"), true, false, &e));
	CHECK_ERR(e, ST_FILE, "vm holds notes.txt, which is no part of an image");
	CHECK(!create_dir(at("vm"), true, true, &e) && e.status == ST_FILE);
	CHECK(image_check_target(at("vm"), true, false, false, &e) == -1);
	CHECK(rename(at("vm/notes.txt"), at("vm/ram/my notes")) == 0);
	CHECK(!create_dir(at("vm"), true, false, &e));
	CHECK_ERR(e, ST_FILE, "vm holds ram/my notes, which is no part of an image");

	/* ... and if such a thing comes while we are receiving, it is kept */
	CHECK(unlink(at("vm/ram/my notes")) == 0);
	img = create_dir(at("vm"), true, false, &e);
	REQUIRE(img);
	place_marks(img, 40);
	CHECK(write_text(at("vm/late.txt"), "mine"));
	log_init(LOG_ERROR, "test"); /* the warning is not for the test's output */
	finish(img);
	log_init(LOG_INFO, NULL);
	CHECK(has_marks(at("vm"), 40) && file_is(at("vm.part/late.txt"), "mine", 4));
}

static void a_directory_is_replaced_as_a_whole(void)
{
	on_each_fs(replacing);
}

static void in_place(void)
{
	struct image *img;
	struct error e;

	img = create_dir(at("vm"), false, true, &e);
	REQUIRE(img);
	CHECK(exists(at("vm/ram")) && !exists(at("vm.part")));
	image_close(img, false);
	CHECK(!exists(at("vm")));
	img = create_dir(at("vm"), false, true, &e);
	REQUIRE(img);
	place_marks(img, 50);
	CHECK(!image_put_device_state(img, "one", 3, &e));
	CHECK(!exists(at("vm/manifest.json")));
	finish(img);
	CHECK(has_marks(at("vm"), 50) && exists(at("vm/manifest.json")));

	CHECK(!create_dir(at("vm"), false, true, &e));
	img = create_dir(at("vm"), true, true, &e);
	REQUIRE(img);
	CHECK(!exists(at("vm/manifest.json")) && !exists(at("vm/device-state")));
	place_marks(img, 60);
	finish(img);
	CHECK(has_marks(at("vm"), 60));

	close(make_file(at("vm/ram/extra"), PG));
	CHECK(!create_dir(at("vm"), true, true, &e));
	CHECK_ERR(e, ST_UNSUPPORTED, "ram holds block extra, which the source does not have");
	CHECK(unlink(at("vm/ram/extra")) == 0);
	CHECK(truncate(at("vm/ram/pc.ram"), PG) == 0);
	CHECK(!create_dir(at("vm"), true, true, &e));
	CHECK_ERR(e, ST_UNSUPPORTED, "pc.ram has 4096 bytes, but block pc.ram has 262144");
}

static void a_directory_in_place(void)
{
	on_each_fs(in_place);
}

/* ---- reading what others made ---- */

static void by_hand(void)
{
	struct image_source_opts o = { 0 };
	struct image *img;
	struct error e;
	uint64_t size;

	CHECK(mkdir(at("vm"), 0700) == 0);
	CHECK(!image_open(at("vm"), &o, &e));
	CHECK_ERR(e, ST_UNSUPPORTED, "vm is no image: it holds no block");
	CHECK(mkdir(at("vm/ram"), 0700) == 0);
	CHECK(!image_open(at("vm"), &o, &e) && e.status == ST_UNSUPPORTED);
	close(make_file(at("vm/ram/small"), PG));
	close(make_file(at("vm/ram/%%2From%%40b"), 16 * PG));
	close(make_file(at("vm/ram/a"), PG));
	img = image_open(at("vm"), &o, &e);
	REQUIRE(img);
	CHECK(!img->manifest && img->nblocks == 3 && image_device_state_fd(img, &size) == -1);
	CHECK_STR(img->blocks[0].name, "/rom@b");
	CHECK_STR(img->blocks[1].name, "a");
	CHECK_STR(img->blocks[2].name, "small");
	for (unsigned i = 0; i < 3; i++)
		CHECK(img->blocks[i].index == i);
	image_close(img, false);
	o.page_size = 65536;
	CHECK(!image_open(at("vm"), &o, &e));
	CHECK_ERR(e, ST_UNSUPPORTED, "no multiple of the page of 65536");
	o.page_size = 0;
	CHECK(write_text(at("vm/device-state"), "abc"));
	img = image_open(at("vm"), &o, &e);
	REQUIRE(img);
	CHECK(image_device_state_fd(img, &size) >= 0 && size == 3);
	image_close(img, false);
	CHECK(write_text(at("vm/ram/a:b"), "x"));
	CHECK(!image_open(at("vm"), &o, &e));
	CHECK_ERR(e, ST_UNSUPPORTED, "ram/a:b is no block's memory");
	CHECK(rename(at("vm/ram/a:b"), at("vm/ram/.swp")) == 0);
	CHECK(!image_open(at("vm"), &o, &e));
	CHECK(unlink(at("vm/ram/.swp")) == 0 && mkdir(at("vm/ram/dir"), 0700) == 0);
	CHECK(!image_open(at("vm"), &o, &e));
	CHECK_ERR(e, ST_UNSUPPORTED, "ram/dir is no block's memory");
}

static void a_directory_without_a_manifest_works(void)
{
	on_each_fs(by_hand);
}

/* Changes one thing of a good image, expects the words, and puts it back. */
static void refused(const char *change, enum status status, const char *says)
{
	struct image_source_opts o = { 0 };
	struct image *img;
	struct error e = { 0 };

	CHECK(run("cd '%s' && rm -rf bad && cp -r vm bad && cd bad && %s", work_dir, change) == 0);
	img = image_open(at("bad"), &o, &e);
	CHECK(!img);
	if (!img)
		CHECK_ERR(e, status, says);
	image_close(img, false);
}

static void disagreeing(void)
{
	write_one(at("vm"), 70);
	refused("truncate -s 8192 ram/pc.ram", ST_UNSUPPORTED,
		"bad/manifest.json says that block pc.ram has 262144 bytes, but");
	refused("truncate -s 524288 ram/pc.ram", ST_UNSUPPORTED, "has 524288");
	refused("rm ram/pc.ram", ST_UNSUPPORTED,
		"manifest.json lists block pc.ram, but its file is not in");
	refused("rm -r ram", ST_UNSUPPORTED, "holds no block");
	refused("cp ram/pc.ram ram/extra", ST_UNSUPPORTED, "ram holds block extra, but");
	refused("rm device-state", ST_UNSUPPORTED, "tells of a device state, but");
	refused("echo more >>device-state", ST_UNSUPPORTED,
		"says that the device state has 5 bytes, but");
	refused("printf STATE >device-state", ST_UNSUPPORTED,
		"says that the device state's digest");
	refused("sed -i '/device-state/,/}/d; s/],$/]/' manifest.json", ST_UNSUPPORTED,
		"device-state exists, but");
	refused("echo >>manifest.json x", ST_FILE, "bad/manifest.json: line");
	refused("sed -i 's/\"page-size\": 4096/\"page-size\": 128/' manifest.json", ST_UNSUPPORTED,
		"page size 128");
	refused("sed -i 's/\"size\": 262144/\"size\": 262144000000/' manifest.json", ST_UNSUPPORTED,
		"has 262144000000 bytes");
	refused("sed -i 's/pc.ram/..\\/..\\/etc/' manifest.json", ST_UNSUPPORTED,
		"lists block ../../etc");
	refused("rm manifest.json && mkdir manifest.json", ST_FILE, "manifest.json is no file");
	refused("truncate -s 17M manifest.json", ST_FILE, "no file of at most");
	refused("rm ram/pc.ram && mkfifo ram/pc.ram", ST_UNSUPPORTED, "neither a file nor");
}

static void a_manifest_that_disagrees_is_refused(void)
{
	in_dir("/var/tmp", disagreeing);
}

static void changing(void)
{
	struct image_source_opts o = { 0 };
	struct image *img;
	struct error e;

	write_one(at("vm"), 80);
	img = image_open(at("vm"), &o, &e);
	REQUIRE(img);
	usleep(20000);
	CHECK(run("printf x | dd of='%s' conv=notrunc status=none", at("vm/ram/%%2Edot")) == 0);
	CHECK(image_check_at_rest(img, &e) == -1);
	CHECK_ERR(e, ST_UNSUPPORTED, "ram/%2Edot was written to");
	CHECK(image_check_unwritten(img, &e) == -1);
	CHECK_ERR(e, ST_UNSUPPORTED, "ram/%2Edot was written to");
	image_close(img, false);
	/* the directory itself was moved away */
	img = image_open(at("vm"), &o, &e);
	REQUIRE(img);
	CHECK(rename(at("vm"), at("gone")) == 0);
	CHECK(image_check_at_rest(img, &e) == -1);
	CHECK_ERR(e, ST_UNSUPPORTED, "was removed");
	CHECK(!image_check_unwritten(img, &e));
	image_close(img, false);
}

static void every_file_has_to_be_at_rest(void)
{
	on_each_fs(changing);
}

static void long_names(void)
{
	struct block b = block_of("", PG);
	struct image_layout l = { .blocks = &b, .nblocks = 1, .from_qemu = true };
	struct error e;

	memset(b.name, '/', 255);
	CHECK(!image_create(at("vm"), &l, &e));
	CHECK_ERR(e, ST_FILE, "File name too long");
	CHECK(!exists(at("vm")) && !exists(at("vm.part")));
	memset(b.name, 'r', 255);
	struct image *img = image_create(at("vm"), &l, &e);

	REQUIRE(img);
	finish(img);
	strcpy(b.name, "../../../../tmp/evil");
	l.force = true;
	img = image_create(at("vm"), &l, &e);
	REQUIRE(img);
	finish(img);
	CHECK(exists(at("vm/ram/%%2E.%%2F..%%2F..%%2F..%%2Ftmp%%2Fevil")));
}

static void a_block_name_is_never_a_path(void)
{
	on_each_fs(long_names);
}

static const struct test_case cases[] = {
	{ "a directory is written and read back", a_directory_is_written_and_read_back },
	{ "what becomes a directory", what_becomes_a_directory },
	{ "a directory is replaced as a whole", a_directory_is_replaced_as_a_whole },
	{ "a directory may be written in place", a_directory_in_place },
	{ "a directory without a manifest works", a_directory_without_a_manifest_works },
	{ "a manifest that disagrees with the files is refused",
	  a_manifest_that_disagrees_is_refused },
	{ "every file has to be at rest", every_file_has_to_be_at_rest },
	{ "a block's name is never a path", a_block_name_is_never_a_path },
};

TEST_MAIN(cases)
