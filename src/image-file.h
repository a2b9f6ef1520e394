/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One file of an image: a block's memory or the device state. Private to image*.c.
 *
 * What a file system can do differs, and this is where it is known: regular files have holes that
 * SEEK_DATA finds and that fallocate punches; a hugetlbfs file says that all of it is data, takes
 * no write(2), and has a size in huge pages; a block device has neither holes nor a size of its
 * own.
 */
#ifndef MIGTOOL_IMAGE_FILE_H
#define MIGTOOL_IMAGE_FILE_H

#include "error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

enum file_kind { FILE_REGULAR, FILE_HUGE, FILE_DEVICE };

struct image_file {
	int fd;	    /* -1: not open */
	char *path; /* for messages, and to see whether it was replaced */
	enum file_kind kind;
	bool counted;  /* its file system counts what it stores page by page: tmpfs */
	uint32_t page; /* the host's page in this file: hugetlbfs' or the machine's */
	uint64_t size; /* bytes when it was opened or made */
	/* who it was when it was opened */
	dev_t dev;
	ino_t ino;
	struct timespec mtime;
};

#define IMAGE_FILE_NONE  \
	{                \
		.fd = -1 \
	}

/*
 * Opens `path` (copied) with open's flags and mode and learns what it is. ST_FILE; what is neither
 * a regular file nor a block device: ST_UNSUPPORTED. On failure f is closed.
 */
int image_file_open(struct image_file *f, const char *path, int flags, mode_t mode,
		    struct error *err);
void image_file_close(struct image_file *f);

/* Is it still the file that was opened: size, mtime, and under its path the same inode? */
int image_file_unchanged(const struct image_file *f, const char *image, struct error *err);

/* The same of the open file alone, whatever became of its name. */
int image_file_unwritten(const struct image_file *f, const char *image, struct error *err);

/*
 * Who reads it (LOCK_SH), or who writes it (LOCK_EX), among migtools on this host; until it is
 * closed. ST_FILE: another one does what does not go with it.
 */
int image_file_lock(const struct image_file *f, int how, struct error *err);

/* ST_UNSUPPORTED if it is shorter than it was. */
int image_file_whole(const struct image_file *f, const char *image, struct error *err);

/*
 * How much a sparse file stores, in bytes, without a walk over its data, which on tmpfs looks at
 * every page (13 ms a GiB). False where only the walk can tell: another file system, or one that
 * has storage for all of its size, which may have been set aside by fallocate and never written.
 */
bool image_file_stored(const struct image_file *f, uint64_t *bytes);

/*
 * The next run of data at or after `from`: [*start, *end), both f->size when there is none. What
 * cannot tell its holes is all data.
 */
int image_file_next_data(const struct image_file *f, const char *image, uint64_t from,
			 uint64_t *start, uint64_t *end, struct error *err);

/* Reads exactly len bytes; an early end is ST_UNSUPPORTED, "<image> changed while it was read". */
int image_file_read(const struct image_file *f, const char *image, uint64_t offset, void *buf,
		    size_t len, struct error *err);

/* Does it hold nothing: no bytes, or nothing but holes? A block device never does. */
bool image_file_empty(const struct image_file *f);

/* Writes all of it; not for FILE_HUGE. 0, or -1 with errno. */
int image_file_write(const struct image_file *f, uint64_t offset, const void *buf, size_t len);

/* Makes a run zero: a hole where there can be one. Not for FILE_HUGE. 0, or -1 with errno. */
int image_file_zero(const struct image_file *f, uint64_t offset, uint64_t len);

#endif
