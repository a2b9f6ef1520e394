// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Blocks that both ends reach (x-ignore-shared): they are in IMAGE before anything comes, mostly as
 * a symbolic link to where a guest has its memory, and are read and never written. IMAGE.part gets
 * the same links, so that the image is whole whichever of the two it is looked for in.
 */
#include "image-internal.h"

#include "broker.h"
#include "image-dir.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static int not_there(const char *path, const struct block *b, struct error *err)
{
	err_set(err, ST_UNSUPPORTED, "block %s is shared memory of %" PRIu64 " bytes, but %s %s",
		b->name, b->size, path, "does not exist");
	return err_hint(err, "make it a symbolic link to that memory, or switch x-ignore-shared "
			     "off on the source");
}

static int open_shared(struct block *b, const char *path, const char *name, struct error *err)
{
	struct block_priv *p = block_priv(b);
	struct image_file *f = &p->file;
	uint64_t up;

	if (image_file_open(f, path, O_RDONLY, 0, err) < 0)
		return err->sys == ENOENT ? not_there(name, b, err) : -1;
	b->fd = f->fd;
	b->page_size = f->page;
	/* hugetlbfs rounds up, a device is as large as it is */
	up = f->kind == FILE_HUGE ? f->page - 1 : f->kind == FILE_DEVICE ? UINT64_MAX : 0;
	if (f->size < b->size || f->size - b->size > up)
		return err_set(err, ST_UNSUPPORTED,
			       "block %s is shared memory: %s has %" PRIu64
			       " bytes, at the source it has %" PRIu64,
			       b->name, name, f->size, b->size);
	p->shared = true;
	return place_open_shared(b, err);
}

int shared_open(struct block *b, const char *final, const char *part, struct error *err)
{
	char *there = image_dir_block_path(final, b->name, err), *here = NULL;
	int r = there ? 0 : -1;

	if (!r && strcmp(final, part) != 0) {
		here = image_dir_block_path(part, b->name, err);
		r = here ? 0 : -1;
		/* a symbolic link is linked as what it is; relative, it leads the same way */
		if (!r && broker_link(there, here) < 0)
			r = errno == ENOENT ? not_there(there, b, err)
					    : err_sys(err, ST_FILE, errno, "cannot link %s to %s",
						      here, there);
	}
	if (!r)
		r = open_shared(b, here ? here : there, there, err);
	free(there);
	free(here);
	return r;
}

/* Is it the name of one of the layout's shared blocks? */
static bool expected(const struct image_layout *layout, const char *name)
{
	for (unsigned i = 0; i < layout->nblocks; i++)
		if (layout->blocks[i].shared && !strcmp(layout->blocks[i].name, name))
			return true;
	return false;
}

int shared_only(const char *dir, const struct image_layout *layout, bool *only, struct error *err)
{
	struct image_dir_list files;

	*only = false;
	if (image_dir_bare(dir, only, err) < 0)
		return -1;
	if (!*only)
		return 0;
	if (image_dir_list(dir, &files, err) < 0)
		return -1;
	for (unsigned i = 0; i < files.n; i++)
		*only &= expected(layout, files.names[i]);
	image_dir_list_free(&files);
	return 0;
}

bool image_block_here(const struct block *b)
{
	return block_priv(b)->shared;
}

int image_read_shared(struct image *img, struct block *b, struct cancel *cancel, struct error *err)
{
	return image_adopt_block(img, b, NULL, NULL, cancel, err);
}
