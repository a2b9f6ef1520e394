/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A directory image below a directory of the process' own, and in memory what is in it. For the
 * targets that compare digests.
 */
#ifndef MIGTOOL_FUZZ_IMAGE_H
#define MIGTOOL_FUZZ_IMAGE_H

#include "fuzz.h"

#include "digest.h"

#include <fcntl.h>
#include <ftw.h>
#include <sys/stat.h>
#include <unistd.h>

enum fuzz_page { FUZZ_PAGE_HOLE, FUZZ_PAGE_ZEROS, FUZZ_PAGE_DATA }; /* zeros: they are stored */

static char fuzz_dir[64]; /* empty until fuzz_make_dir */

static int fuzz_remove_one(const char *path, const struct stat *st, int type, struct FTW *at)
{
	(void)st;
	(void)type;
	(void)at;
	return remove(path);
}

static void fuzz_remove_dir(void)
{
	nftw(fuzz_dir, fuzz_remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

/* Makes fuzz_dir, which goes with all that is in it when the process ends. */
static inline void fuzz_make_dir(void)
{
	strcpy(fuzz_dir, "/dev/shm/migtool-fuzz.XXXXXX");
	FUZZ_CHECK(mkdtemp(fuzz_dir));
	atexit(fuzz_remove_dir);
}

/*
 * A block in the image `dir`: kind() says what each of its pages is. Some of what is data is zeros,
 * too. Returns the memory, which the caller frees.
 */
static inline uint8_t *fuzz_make_block(const char *dir, const char *name, unsigned pages,
				       enum fuzz_page (*kind)(unsigned page))
{
	uint8_t *memory = calloc(pages, DIGEST_PAGE);
	char path[128];
	int fd;

	snprintf(path, sizeof(path), "%s/ram/%s", dir, name);
	fd = open(path, O_RDWR | O_CREAT, 0600);
	FUZZ_CHECK(memory && fd >= 0 && !ftruncate(fd, (off_t)pages * DIGEST_PAGE));
	for (unsigned i = 0; i < pages; i++) {
		uint8_t *page = memory + (size_t)i * DIGEST_PAGE;
		enum fuzz_page is = kind(i);

		if (is == FUZZ_PAGE_HOLE)
			continue;
		if (is == FUZZ_PAGE_DATA)
			memset(page, (int)(i % 7), DIGEST_PAGE);
		FUZZ_CHECK(pwrite(fd, page, DIGEST_PAGE, (off_t)i * DIGEST_PAGE) == DIGEST_PAGE);
	}
	close(fd);
	return memory;
}

#endif
