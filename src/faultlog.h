/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The order in which a guest first needed its pages, from --record to --prefetch: a text file with
 * a line a page, its offset in hexadecimal and the name of its RAM block.
 *
 *   migtool-faults 1
 *   0x1f000 pc.ram
 */
#ifndef MIGTOOL_FAULTLOG_H
#define MIGTOOL_FAULTLOG_H

#include "image.h"

struct faultlog_page {
	uint64_t offset;
	unsigned block;
};

struct faultlog {
	struct faultlog_page *pages;
	size_t n, room;
	bool full; /* no memory for more: the file will be short */
};

/* One thread. */
void faultlog_add(struct faultlog *l, unsigned block, uint64_t offset);
void faultlog_free(struct faultlog *l);

/* Can `path` be written in the end? An existing one that is not empty needs `force`. ST_FILE. */
int faultlog_check(const char *path, bool force, struct error *err);
/* As PATH.part, then renamed. ST_FILE, ST_NOMEM. */
int faultlog_write(const struct faultlog *l, const char *path, const struct image *img,
		   struct error *err);
/*
 * Pages that this image does not have are left out.
 * ST_FILE; ST_DATA: it is none.
 */
int faultlog_read(struct faultlog *l, const char *path, const struct image *img, struct error *err);

#endif
