// SPDX-License-Identifier: GPL-2.0-or-later
/* An image that is read: opening it, its data, and whether it is still what was opened. */
#include "image-internal.h"

#include "broker.h"
#include "byteorder.h"
#include "image-dir.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define DEFAULT_BLOCK "pc.ram"

/* Size and page of a block whose file was opened. */
static int take_size(struct image *img, struct block *b, struct error *err)
{
	struct image_file *f = &block_priv(b)->file;

	b->fd = f->fd;
	b->size = f->size;
	b->page_size = f->page;
	if (f->size & (img->target_page - 1)) {
		err_set(err, ST_UNSUPPORTED,
			"%s has %" PRIu64 " bytes, no multiple of the page of %" PRIu32, f->path,
			f->size, img->target_page);
		return err_hint(err, "pad it: truncate -s %%%" PRIu32 " '%s'", img->target_page,
				f->path);
	}
	return 0;
}

static int open_raw(struct image *img, const struct image_source_opts *opts, struct error *err)
{
	struct block *b;

	img->target_page = opts->page_size ? opts->page_size : DIGEST_PAGE;
	if (image_check_page(img->target_page, err) < 0 || image_add_blocks(img, 1, err) < 0)
		return -1;
	b = &img->blocks[0];
	if (image_name_block(b, opts->block_name ? opts->block_name : DEFAULT_BLOCK, err) < 0)
		return -1;
	if (image_file_open(&block_priv(b)->file, img->path, O_RDONLY, 0, err) < 0)
		return -1;
	if (block_priv(b)->file.size == 0) {
		err_set(err, ST_UNSUPPORTED, "%s is empty", img->path);
		return err_hint(err, "a guest's memory has at least one page");
	}
	return take_size(img, b, err);
}

/* One block of a directory, from its file in ram/. */
static int open_block(struct image *img, struct block *b, const char *name, struct error *err)
{
	char *path = image_dir_block_path(img->path, name, err);
	int r;

	if (!path)
		return -1;
	r = image_name_block(b, name, err);
	if (!r)
		r = image_file_open(&block_priv(b)->file, path, O_RDONLY, 0, err);
	if (!r)
		r = take_size(img, b, err);
	free(path);
	return r;
}

/* The size that the manifest gives, and the file's; hugetlbfs rounds up. And the page. */
static int agree_size(const struct image *img, struct block *b, const struct manifest_block *m,
		      struct error *err)
{
	const struct image_file *f = &block_priv(b)->file;
	uint64_t up = f->kind == FILE_HUGE ? f->page - 1 : 0;

	if (f->size < m->size || f->size - m->size > up)
		return err_set(err, ST_UNSUPPORTED,
			       "%s/manifest.json says that block %s has %" PRIu64
			       " bytes, but %s has %" PRIu64,
			       img->path, m->name, m->size, f->path, f->size);
	if (m->size & (img->target_page - 1))
		return err_set(err, ST_UNSUPPORTED,
			       "%s/manifest.json says that block %s has %" PRIu64
			       " bytes, no multiple of the page of %" PRIu32,
			       img->path, m->name, m->size, img->target_page);
	b->size = m->size;
	if (m->page_size > b->page_size)
		b->page_size = m->page_size;
	return 0;
}

/* Blocks in the manifest's order; every file has to be in it. */
static int open_listed(struct image *img, const struct image_dir_list *files, struct error *err)
{
	const struct manifest *m = img->manifest;

	if (image_add_blocks(img, m->nblocks, err) < 0)
		return -1;
	for (unsigned i = 0; i < m->nblocks; i++) {
		struct block *b = &img->blocks[i];

		if (!image_dir_has(files, m->blocks[i].name))
			return err_set(err, ST_UNSUPPORTED,
				       "%s/manifest.json lists block %s, but its file is not in "
				       "%s/ram",
				       img->path, m->blocks[i].name, img->path);
		if (open_block(img, b, m->blocks[i].name, err) < 0 ||
		    agree_size(img, b, &m->blocks[i], err) < 0)
			return -1;
		b->has_gpa = m->blocks[i].has_gpa;
		b->gpa = m->blocks[i].gpa;
		b->shared = m->blocks[i].shared;
	}
	for (unsigned i = 0; i < files->n; i++)
		if (!image_find(img, files->names[i], strlen(files->names[i])))
			return err_set(err, ST_UNSUPPORTED,
				       "%s/ram holds block %s, but %s/manifest.json does not list "
				       "it",
				       img->path, files->names[i], img->path);
	return 0;
}

static int by_size(const void *a, const void *b)
{
	const struct block *x = a, *y = b;

	if (x->size != y->size)
		return x->size < y->size ? 1 : -1;
	return strcmp(x->name, y->name);
}

/* Without a manifest: what is in ram/, largest first as in QEMU's own list. */
static int open_found(struct image *img, const struct image_dir_list *files, struct error *err)
{
	if (image_add_blocks(img, files->n, err) < 0)
		return -1;
	for (unsigned i = 0; i < files->n; i++)
		if (open_block(img, &img->blocks[i], files->names[i], err) < 0)
			return -1;
	qsort(img->blocks, img->nblocks, sizeof(*img->blocks), by_size);
	for (unsigned i = 0; i < img->nblocks; i++)
		img->blocks[i].index = i;
	return 0;
}

static int open_blocks(struct image *img, struct error *err)
{
	struct image_dir_list files;
	int r;

	if (image_dir_list(img->path, &files, err) < 0)
		return -1;
	if (files.n == 0) {
		err_set(err, ST_UNSUPPORTED, "%s is no image: it holds no block", img->path);
		r = err_hint(err, "a directory image has a file for each block in %s/ram",
			     img->path);
	} else {
		r = img->manifest ? open_listed(img, &files, err) : open_found(img, &files, err);
	}
	image_dir_list_free(&files);
	return r;
}

/* Opens the device state and takes its digest. */
static int open_state(struct image *img, const char *path, struct error *err)
{
	struct image_priv *p = image_priv(img);
	uint8_t buf[64 << 10];

	if (image_file_open(&p->state, path, O_RDONLY, 0, err) < 0)
		return -1;
	p->state_digest = digest_stream_new();
	if (!p->state_digest)
		return err_set(err, ST_NOMEM, "out of memory");
	for (p->state_size = 0; p->state_size < p->state.size;) {
		uint64_t left = p->state.size - p->state_size;
		size_t n = left < sizeof(buf) ? (size_t)left : sizeof(buf);

		if (image_file_read(&p->state, img->path, p->state_size, buf, n, err) < 0)
			return -1;
		digest_stream_update(p->state_digest, buf, n);
		p->state_size += n;
	}
	return 0;
}

/* The device state of a directory, which has to be the one that the manifest tells of. */
static int open_dir_state(struct image *img, struct error *err)
{
	const struct manifest *m = img->manifest;
	struct image_priv *p = image_priv(img);
	char *path = image_format(err, "%s/device-state", img->path), hex[33];
	int r;

	if (!path)
		return -1;
	r = open_state(img, path, err);
	if (r < 0 && err->sys == ENOENT && p->state.fd < 0) {
		err_clear(err);
		r = 0;
		if (m && m->has_device_state)
			r = err_set(err, ST_UNSUPPORTED,
				    "%s/manifest.json tells of a device state, but %s is missing",
				    img->path, path);
	} else if (!r && m && m->has_device_state) {
		digest_hex(digest_stream_get(p->state_digest), hex);
		if (m->device_state_size != p->state_size)
			r = err_set(err, ST_UNSUPPORTED,
				    "%s/manifest.json says that the device state has %" PRIu64
				    " bytes, but %s has %" PRIu64,
				    img->path, m->device_state_size, path, p->state_size);
		else if (m->device_state_digest[0] && strcmp(m->device_state_digest, hex) != 0)
			r = err_set(err, ST_UNSUPPORTED,
				    "%s/manifest.json says that the device state's digest is %s, "
				    "but %s has %s",
				    img->path, m->device_state_digest, path, hex);
	} else if (!r && m) {
		r = err_set(err, ST_UNSUPPORTED, "%s exists, but %s/manifest.json tells of none",
			    path, img->path);
	}
	free(path);
	return r;
}

static int open_dir(struct image *img, const struct image_source_opts *opts, struct error *err)
{
	img->directory = true;
	if (image_dir_manifest(img->path, &img->manifest, err) < 0)
		return -1;
	if (img->manifest && img->manifest->postcopy) {
		err_set(err, ST_UNSUPPORTED,
			"%s has not all of its guest's memory: a postcopy into it broke",
			img->path);
		return err_hint(err, "`recv --resume --cap postcopy-ram` brings the rest");
	}
	img->target_page = opts->page_size ? opts->page_size
			   : img->manifest ? img->manifest->page_size
					   : 0;
	if (!img->target_page)
		img->target_page = DIGEST_PAGE;
	if (image_check_page(img->target_page, err) < 0 || open_blocks(img, err) < 0)
		return -1;
	return opts->device_state ? 0 : open_dir_state(img, err);
}

struct image *image_open(const char *path, const struct image_source_opts *opts, struct error *err)
{
	struct image *img = image_new(path, err);
	struct stat st = { 0 };
	int fd, r;

	if (!img)
		return NULL;
	fd = broker_open(path, O_PATH, 0);
	r = fd < 0 || fstat(fd, &st) < 0 ? err_sys(err, ST_FILE, errno, "cannot open %s", path) : 0;
	if (fd >= 0)
		close(fd);
	if (!r)
		r = S_ISDIR(st.st_mode) ? open_dir(img, opts, err) : open_raw(img, opts, err);
	if (!r && opts->device_state)
		r = open_state(img, opts->device_state, err);
	if (r < 0) {
		image_close(img, false);
		return NULL;
	}
	return img;
}

int image_next_data(const struct image *img, const struct block *b, uint64_t from,
		    struct extent *out, struct error *err)
{
	uint64_t mask = img->target_page - 1, start, end;

	out->offset = b->size;
	out->len = 0;
	if (from >= b->size)
		return 0;
	if (image_file_next_data(&block_priv(b)->file, img->path, from, &start, &end, err) < 0)
		return -1;
	if (start >= b->size)
		return 0;
	start &= ~mask;
	/* the page that `from` is in was given with the extent before */
	if (start < from)
		start = from;
	end = (end + mask) & ~mask;
	if (end > b->size)
		end = b->size;
	out->offset = start;
	out->len = end - start;
	return 0;
}

int image_read(const struct image *img, const struct block *b, uint64_t offset, void *buf,
	       size_t len, struct error *err)
{
	if (offset > b->size || len > b->size - offset)
		return err_set(err, ST_DATA,
			       "block %s: 0x%zx bytes at 0x%" PRIx64 " reach beyond its 0x%" PRIx64
			       " bytes",
			       b->name, len, offset, b->size);
	return image_file_read(&block_priv(b)->file, img->path, offset, buf, len, err);
}

int image_check_at_rest(const struct image *img, struct error *err)
{
	struct image_priv *p = image_priv(img);

	for (unsigned i = 0; i < img->nblocks; i++)
		if (image_file_unchanged(&block_priv(&img->blocks[i])->file, img->path, err) < 0)
			return -1;
	return p->state.fd < 0 ? 0 : image_file_unchanged(&p->state, img->path, err);
}

int image_check_unwritten(const struct image *img, struct error *err)
{
	for (unsigned i = 0; i < img->nblocks; i++)
		if (image_file_unwritten(&block_priv(&img->blocks[i])->file, img->path, err) < 0)
			return -1;
	return 0;
}

struct image_identity image_identity(const struct block *b)
{
	const struct image_file *f = &block_priv(b)->file;

	return (struct image_identity){ .dev = f->dev,
					.ino = f->ino,
					.size = f->size,
					.mtime = (int64_t)f->mtime.tv_sec * 1000000000 +
						 f->mtime.tv_nsec };
}

void image_identity_digest(const struct image *img, struct digest *out)
{
	uint8_t facts[32];

	memset(out, 0, sizeof(*out));
	for (unsigned i = 0; i < img->nblocks; i++) {
		struct image_identity id = image_identity(&img->blocks[i]);

		put_be64(facts, id.dev);
		put_be64(facts + 8, id.ino);
		put_be64(facts + 16, id.size);
		put_be64(facts + 24, (uint64_t)id.mtime);
		digest_add(out, digest_page(&img->blocks[i].digest, 0, facts, sizeof(facts)));
	}
}

int image_block_data_bytes(const struct image *img, const struct block *b, uint64_t *bytes,
			   struct error *err)
{
	const struct image_file *f = &block_priv(b)->file;
	struct extent e = { 0, 0 };

	/* a guest's page that is larger than the host's travels whole */
	if (img->target_page <= f->page && image_file_stored(f, bytes))
		return 0;
	*bytes = 0;
	do {
		if (image_next_data(img, b, e.offset + e.len, &e, err) < 0)
			return -1;
		*bytes += e.len;
	} while (e.len > 0);
	return 0;
}

int image_data_bytes(const struct image *img, uint64_t *bytes, struct error *err)
{
	uint64_t one;

	*bytes = 0;
	for (unsigned i = 0; i < img->nblocks; i++) {
		if (image_block_data_bytes(img, &img->blocks[i], &one, err) < 0)
			return -1;
		*bytes += one;
	}
	return 0;
}
