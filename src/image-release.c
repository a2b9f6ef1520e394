// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A source that gives its memory back (release-ram), once the destination has it.
 *
 * What is released is zeros for whoever looks, so nobody else may be reading it or depend on it:
 * every source holds a shared lock on its blocks' files, one that will release an exclusive one,
 * and so does a destination that writes in place, which may be the same file by another name. What
 * takes no notice of locks sees that the file was written to.
 */
#include "image-internal.h"

#include "broker.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define STEP (1u << 30)

int image_hold(const struct image *img, struct error *err)
{
	for (unsigned i = 0; i < img->nblocks; i++)
		if (image_file_lock(&block_priv(&img->blocks[i])->file, LOCK_SH, err) < 0)
			return -1;
	return 0;
}

bool image_same_file(const struct block *a, const struct block *b)
{
	const struct image_file *f = &block_priv(a)->file, *g = &block_priv(b)->file;

	return f->dev == g->dev && f->ino == g->ino;
}

/* tmpfs and hugetlbfs: what they store is memory. */
static bool is_memory(const struct image_file *f)
{
	return f->kind == FILE_HUGE || f->counted;
}

static int check_kind(const struct image_file *f, bool force, struct error *err)
{
	if (f->kind == FILE_DEVICE)
		return err_set(err, ST_UNSUPPORTED,
			       "release-ram: %s is a block device, which has no memory to give "
			       "back",
			       f->path);
	if (is_memory(f) || force)
		return 0;
	err_set(err, ST_UNSUPPORTED, "release-ram: %s is on a disk, not on tmpfs or hugetlbfs",
		f->path);
	return err_hint(err, "--force, if it may be emptied there too");
}

int image_release_open(struct image *img, struct block *b, bool force, struct error *err)
{
	struct block_priv *p = block_priv(b);
	struct image_file w;

	if (check_kind(&p->file, force, err) < 0)
		return -1;
	if (image_file_open(&w, p->file.path, O_RDWR, 0, err) < 0)
		return err_prefix(err, "release-ram");
	if (w.dev != p->file.dev || w.ino != p->file.ino) {
		image_file_close(&w);
		return err_set(err, ST_UNSUPPORTED, "%s changed while it was opened (%s)",
			       img->path, p->file.path);
	}
	if (image_file_lock(&w, LOCK_EX, err) < 0) {
		image_file_close(&w);
		return -1;
	}
	p->writer = w;
	return 0;
}

static uint64_t stored(int fd)
{
	struct stat st;

	return fstat(fd, &st) < 0 ? 0 : (uint64_t)st.st_blocks * 512;
}

static int punch(const struct image_file *f, uint64_t from, uint64_t to, struct error *err)
{
	while (from < to) {
		uint64_t n = to - from < STEP ? to - from : STEP;

		if (TEMP_FAILURE_RETRY(fallocate(f->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
						 (off_t)from, (off_t)n)))
			return err_sys(err, ST_FILE, errno,
				       "cannot give back 0x%" PRIx64 " bytes at 0x%" PRIx64
				       " of %s",
				       n, from, f->path);
		from += n;
	}
	return 0;
}

int image_release(struct image *img, struct block *b, uint64_t offset, uint64_t len,
		  uint64_t *bytes, struct error *err)
{
	struct block_priv *p = block_priv(b);
	struct image_file *f = &p->writer;
	uint64_t mask = (uint64_t)f->page - 1, to = offset + len, before, after;
	struct stat st;
	int rc;

	if (image_check_range(img, b, offset, len, err) < 0)
		return -1;
	/* a page of the host that is named in part stays; the last one may reach beyond the block
	 */
	to = to == b->size ? f->size : to & ~mask;
	before = stored(f->fd);
	rc = punch(f, (offset + mask) & ~mask, to, err);
	after = stored(f->fd);
	*bytes = before > after ? before - after : 0;
	/* it was us who wrote to it */
	if (!fstat(f->fd, &st))
		p->file.mtime = st.st_mtim;
	return rc;
}

void image_release_close(struct block *b)
{
	struct block_priv *p = block_priv(b);

	if (p->writer.path)
		image_file_close(&p->writer);
}
