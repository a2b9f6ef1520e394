/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the tests of images share: directories on several file systems, files with holes, models. */
#ifndef MIGTOOL_IMAGE_FIXTURE_H
#define MIGTOOL_IMAGE_FIXTURE_H

#include "test.h"

#include "image.h"
#include "zero.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define PG 4096u

static uint64_t rng_state;

/* xorshift; the seed is the suite's, so that a failure can be repeated. */
static inline uint64_t rng(void)
{
	if (!rng_state) {
		const char *seed = getenv("SEED");

		rng_state = (seed ? strtoull(seed, NULL, 0) : 1) * 2654435761u + 1;
	}
	rng_state ^= rng_state << 13;
	rng_state ^= rng_state >> 7;
	rng_state ^= rng_state << 17;
	return rng_state;
}

static inline void fill_random(void *buf, size_t len)
{
	uint64_t *w = buf;

	for (size_t i = 0; i < len / 8; i++)
		w[i] = rng() | 1;
}

/* A path made of the directory under test and the rest; the last 64 stay valid. */
static const char *work_dir;

static inline char *at(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static inline char *at(const char *fmt, ...)
{
	static char paths[64][512];
	static unsigned next;
	char *p = paths[next++ % 64], rest[256];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(rest, sizeof(rest), fmt, ap);
	va_end(ap);
	snprintf(p, sizeof(paths[0]), "%s/%s", work_dir, rest);
	return p;
}

static inline int run(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static inline int run(const char *fmt, ...)
{
	char cmd[2048];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(cmd, sizeof(cmd), fmt, ap);
	va_end(ap);
	return system(cmd);
}

/* Runs the case in a fresh directory under `base`, which becomes work_dir. */
static inline void in_dir(const char *base, void (*fn)(void))
{
	char dir[128];

	snprintf(dir, sizeof(dir), "%s/migtool-image.XXXXXX", base);
	REQUIRE(mkdtemp(dir));
	work_dir = dir;
	fn();
	if (test_bad)
		printf("# in %s\n", dir);
	run("rm -rf '%s'", dir);
	work_dir = NULL;
}

/* On memory and on a disk. */
static inline void on_each_fs(void (*fn)(void))
{
	in_dir("/dev/shm", fn);
	in_dir("/var/tmp", fn);
}

/* A file of `size` bytes, all hole. */
static inline int make_file(const char *path, uint64_t size)
{
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);

	if (fd >= 0 && ftruncate(fd, (off_t)size) < 0) {
		close(fd);
		return -1;
	}
	return fd;
}

static inline bool write_text(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	bool ok = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);

	if (fd >= 0)
		close(fd);
	return ok;
}

static inline bool exists(const char *path)
{
	struct stat st;

	return lstat(path, &st) == 0;
}

static inline uint64_t blocks_of(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 ? (uint64_t)st.st_blocks : UINT64_MAX;
}

/* Is the file these bytes, no more and no fewer? */
static inline bool file_is(const char *path, const void *want, size_t len)
{
	int fd = open(path, O_RDONLY);
	uint8_t *got = malloc(len + 1);
	size_t n = 0;
	bool same;

	while (fd >= 0 && n <= len) {
		ssize_t r = pread(fd, got + n, len + 1 - n, (off_t)n);

		if (r <= 0)
			break;
		n += (size_t)r;
	}
	same = fd >= 0 && n == len && !memcmp(got, want, len);
	free(got);
	if (fd >= 0)
		close(fd);
	return same;
}

/* The digest as interface.md defines it, over memory. */
static inline struct digest model_digest(const char *block, const uint8_t *mem, size_t len)
{
	struct digest sum = { 0, 0 };
	struct digest_block b;

	digest_block_init(&b, block);
	for (size_t o = 0; o < len; o += PG)
		if (!zero_is(mem + o, PG))
			digest_add(&sum, digest_page(&b, o, mem + o, PG));
	return sum;
}

static inline size_t model_data(const uint8_t *mem, size_t len)
{
	size_t n = 0;

	for (size_t o = 0; o < len; o += PG)
		n += zero_is(mem + o, PG) ? 0 : PG;
	return n;
}

static inline struct block block_of(const char *name, uint64_t size)
{
	struct block b = { .size = size };

	snprintf(b.name, sizeof(b.name), "%s", name);
	return b;
}

/* A destination of one block with the options that most tests want. */
static inline struct image *create_one(const char *path, uint64_t size, bool force,
				       struct error *err)
{
	struct block b = block_of("pc.ram", size);
	struct image_layout l = { .blocks = &b, .nblocks = 1, .force = force };

	return image_create(path, &l, err);
}

/* Random runs of data and of zeros in `grain` bytes, the same to a model in memory. */
static inline void place_randomly(struct image *img, struct block *b, uint8_t *model, size_t grain,
				  int turns)
{
	static uint8_t buf[64 * PG], got[64 * PG];
	size_t grains = b->size / grain, most = sizeof(buf) / grain;
	struct error e;

	for (int turn = 0; turn < turns; turn++) {
		size_t first = rng() % grains, n = 1 + rng() % most;

		if (n > grains - first)
			n = grains - first;
		if (rng() % 4 == 0) {
			memset(model + first * grain, 0, n * grain);
			CHECK(!image_place_zero(img, b, first * grain, n * grain, &e));
			continue;
		}
		for (size_t i = 0; i < n * grain; i += PG) {
			if (rng() % 3)
				fill_random(buf + i, PG);
			else
				memset(buf + i, 0, PG);
		}
		memcpy(model + first * grain, buf, n * grain);
		CHECK(!image_place(img, b, first * grain, buf, n * grain, &e));
		CHECK(!image_get_page(img, b, first * grain, got, n * grain, &e));
		CHECK(!memcmp(got, buf, n * grain));
	}
}

#define CHECK_ERR(e, st, text)                                                                   \
	do {                                                                                     \
		CHECK((e).status == (st));                                                       \
		if (!strstr((e).msg, text) && !strstr((e).hint, text)) {                         \
			test_bad++;                                                              \
			printf("# %s:%d: \"%s\" (%s) does not say \"%s\"\n", __FILE__, __LINE__, \
			       (e).msg, (e).hint, text);                                         \
		}                                                                                \
	} while (0)

#endif
