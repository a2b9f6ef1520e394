// SPDX-License-Identifier: GPL-2.0-or-later
/* A destination's files are made, as IMAGE.part; what becomes of them: image-commit.c. */
#include "image-internal.h"

#include "broker.h"
#include "image-dir.h"
#include "image-part.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

/* What a peer can make us ask for: descriptors, and a bit for each 4 KiB. */
#define BLOCKS_MAX 4096u
#define TOTAL_MAX  (UINT64_C(1) << 46)

int image_check_target(const char *path, bool force, bool in_place, bool resume, struct error *err)
{
	struct existing ex;
	char *part = NULL;
	bool complete;
	int fd, r;

	if (part_examine(path, &ex, err) < 0)
		return -1;
	r = part_allowed(&ex, force || resume, in_place, err);
	if (!r && !in_place) {
		part = image_format(err, "%s.part", ex.path);
		r = !part ? -1 : resume ? part_probe(part, &complete, err) : part_free(part, err);
		r = r < 0 ? -1 : 0;
	}
	fd = r < 0 ? -1 : part_open_parent(ex.path, err);
	if (!r && fd < 0)
		r = -1;
	else if (!r && ex.kind != EXISTS_DEVICE && part_may_make(ex.path) < 0)
		r = err_sys(err, ST_FILE, errno, "cannot create %s", part ? part : ex.path);
	if (fd >= 0)
		close(fd);
	free(part);
	free(ex.path);
	return r;
}

/* ---- what is to be made ---- */

/* Takes over the layout's blocks; they come from the peer. */
static int take_blocks(struct image *img, const struct image_layout *layout, struct error *err)
{
	uint64_t total = 0;

	img->target_page = layout->target_page ? layout->target_page : DIGEST_PAGE;
	if (image_check_page(img->target_page, err) < 0)
		return -1;
	if (layout->nblocks == 0 || layout->nblocks > BLOCKS_MAX)
		return err_set(err, ST_DATA, "%u blocks, expected 1 to %u", layout->nblocks,
			       BLOCKS_MAX);
	if (image_add_blocks(img, layout->nblocks, err) < 0)
		return -1;
	for (unsigned i = 0; i < layout->nblocks; i++) {
		const struct block *from = &layout->blocks[i];
		struct block *b = &img->blocks[i];

		if (image_find(img, from->name, strlen(from->name)) && from->name[0])
			return err_set(err, ST_DATA, "two blocks are named %s", from->name);
		if (image_name_block(b, from->name, err) < 0)
			return -1;
		if (from->size & (img->target_page - 1))
			return err_set(err, ST_DATA,
				       "block %s has %" PRIu64
				       " bytes, no multiple of the page of %" PRIu32,
				       b->name, from->size, img->target_page);
		if (from->size > TOTAL_MAX - total)
			return err_set(err, ST_DATA,
				       "block %s has %" PRIu64 " bytes: more than %" PRIu64
				       " in all",
				       b->name, from->size, TOTAL_MAX);
		total += from->size;
		b->size = from->size;
		b->has_gpa = from->has_gpa;
		b->gpa = from->gpa;
		b->shared = from->shared;
	}
	return total ? 0 : err_set(err, ST_DATA, "the source's memory is empty");
}

/* File or directory? */
static int choose_form(struct image *img, const struct image_layout *layout,
		       const struct existing *ex, struct error *err)
{
	bool many = layout->from_qemu || layout->nblocks > 1;

	img->directory = many || ex->wants_directory || ex->kind == EXISTS_DIRECTORY;
	if (!many || ex->kind == EXISTS_NOT || ex->kind == EXISTS_DIRECTORY)
		return 0;
	if (layout->nblocks > 1)
		err_set(err, ST_UNSUPPORTED, "the source has %u blocks, but %s is %s",
			layout->nblocks, ex->path,
			ex->kind == EXISTS_DEVICE ? "a block device" : "a file");
	else
		err_set(err, ST_UNSUPPORTED, "a QEMU's memory becomes a directory, but %s is %s",
			ex->path, ex->kind == EXISTS_DEVICE ? "a block device" : "a file");
	return err_hint(err, "name a directory, or something that does not exist yet");
}

static int start_manifest(struct image *img, const struct image_layout *layout, struct error *err)
{
	struct manifest *m = manifest_new();

	img->manifest = m;
	if (m)
		m->blocks = calloc(img->nblocks, sizeof(*m->blocks));
	if (!m || !m->blocks)
		return err_set(err, ST_NOMEM, "out of memory");
	m->page_size = img->target_page;
	m->nblocks = img->nblocks;
	for (unsigned i = 0; i < img->nblocks; i++) {
		const struct block *b = &img->blocks[i];

		memcpy(m->blocks[i].name, b->name, sizeof(b->name));
		m->blocks[i].size = b->size;
		m->blocks[i].page_size = layout->blocks[i].page_size;
		m->blocks[i].has_gpa = b->has_gpa;
		m->blocks[i].gpa = b->gpa;
		m->blocks[i].shared = b->shared;
	}
	return 0;
}

/* ---- files ---- */

static int wrong_size(const struct image_file *f, const struct block *b, struct error *err)
{
	return err_set(err, ST_UNSUPPORTED, "%s has %" PRIu64 " bytes, but block %s has %" PRIu64,
		       f->path, f->size, b->name, b->size);
}

static int set_length(int fd, uint64_t len)
{
	return TEMP_FAILURE_RETRY(ftruncate(fd, (off_t)len));
}

/* Takes what was in a file away, so that it is all hole. */
static int empty_file(const struct image_file *f, struct error *err)
{
	if (image_file_empty(f) ||
	    !TEMP_FAILURE_RETRY(fallocate(f->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
					  (off_t)f->size)))
		return 0;
	if (errno != EOPNOTSUPP || set_length(f->fd, 0) < 0 || set_length(f->fd, f->size) < 0)
		return err_sys(err, ST_FILE, errno, "cannot empty %s", f->path);
	return 0;
}

static int set_size(struct image_file *f, const struct block *b, struct error *err)
{
	if (f->kind == FILE_HUGE && b->size % f->page)
		return err_set(err, ST_UNSUPPORTED,
			       "block %s has %" PRIu64
			       " bytes, no multiple of the huge page of %" PRIu32 " of %s",
			       b->name, b->size, f->page, f->path);
	if (set_length(f->fd, b->size) < 0)
		return err_sys(err, ST_FILE, errno, "cannot make %s %" PRIu64 " bytes large",
			       f->path, b->size);
	f->size = b->size;
	return 0;
}

/* Opens a block's file, makes it large and empty (or keeps its content). */
static int make_block(struct image *img, struct block *b, const char *path, int flags,
		      struct error *err)
{
	struct image_file *f = &block_priv(b)->file;
	bool frozen = image_priv(img)->target->frozen;
	bool keep = image_priv(img)->target->keep_content;
	bool stale = false;

	if (image_file_open(f, path, (frozen ? O_RDONLY : O_RDWR) | flags, 0600, err) < 0)
		return -1;
	b->fd = f->fd;
	b->page_size = f->page;
	/* a source may be reading it by another name; of a single file `lock` says so */
	if (img->directory && image_priv(img)->target->in_place &&
	    image_file_lock(f, LOCK_EX, err) < 0)
		return -1;
	if (f->kind == FILE_DEVICE) {
		if (f->size < b->size)
			return wrong_size(f, b, err);
		stale = !keep;
	} else if (f->size == 0 && !image_priv(img)->target->frozen) {
		if (set_size(f, b, err) < 0)
			return -1;
	} else {
		if (f->size != b->size)
			return wrong_size(f, b, err);
		block_priv(b)->frozen = image_priv(img)->target->frozen;
		if (!keep && empty_file(f, err) < 0)
			return -1;
	}
	return place_open(img, b, stale, err);
}

/* In place: files that are no block of this guest would be taken for one later. */
static int check_no_others(const struct image *img, const char *dir, struct error *err)
{
	struct image_dir_list files;
	int r = 0;

	if (image_dir_list(dir, &files, err) < 0)
		return -1;
	for (unsigned i = 0; i < files.n && !r; i++)
		if (!image_find(img, files.names[i], strlen(files.names[i])))
			r = err_set(err, ST_UNSUPPORTED,
				    "%s/ram holds block %s, which the source does not have", dir,
				    files.names[i]);
	image_dir_list_free(&files);
	return r;
}

/* What the directory said of its old content must not outlive that. */
static int remove_old_words(const char *dir, struct error *err)
{
	static const char *const names[] = { "manifest.json", "device-state" };

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		char *path = image_format(err, "%s/%s", dir, names[i]);
		int r;

		if (!path)
			return -1;
		r = broker_unlink(path) < 0 && errno != ENOENT
			    ? err_sys(err, ST_FILE, errno, "cannot remove %s", path)
			    : 0;
		free(path);
		if (r < 0)
			return -1;
	}
	return 0;
}

/* The blocks of a directory, in ram/. */
static int open_blocks(struct image *img, const struct image_layout *layout, struct error *err)
{
	struct target *t = image_priv(img)->target;
	int flags = t->frozen ? 0 : t->ours && !t->resumed ? O_CREAT | O_EXCL : O_CREAT, r = 0;

	for (unsigned i = 0; i < img->nblocks && !r; i++) {
		struct block *b = &img->blocks[i];
		char *path = image_dir_block_path(t->part, b->name, err);

		if (layout->use_shared && b->shared)
			r = shared_open(b, t->final, t->part, err);
		else
			r = path ? make_block(img, b, path, flags, err) : -1;
		free(path);
	}
	return r;
}

static int make_directory(struct image *img, const struct image_layout *layout, struct error *err)
{
	struct target *t = image_priv(img)->target;
	bool fresh = t->ours && !t->resumed;
	struct statfs fs;
	char *ram;
	int r;

	if (t->frozen)
		return open_blocks(img, layout, err);
	if (fstatfs(t->lock, &fs) < 0)
		return err_sys(err, ST_FILE, errno, "cannot look at %s", t->part);
	if (fs.f_type == HUGETLBFS_MAGIC) {
		err_set(err, ST_UNSUPPORTED, "%s is on hugetlbfs, where no manifest can be written",
			t->final);
		return err_hint(err,
				"receive into a directory elsewhere, or one block into a file");
	}
	if (!fresh && (check_no_others(img, t->part, err) < 0 ||
		       (!layout->postcopy && remove_old_words(t->part, err) < 0)))
		return -1;
	ram = image_format(err, "%s/ram", t->part);
	if (!ram)
		return -1;
	r = broker_mkdir(ram, 0700) < 0 && (fresh || errno != EEXIST)
		    ? err_sys(err, ST_FILE, errno, "cannot create %s", ram)
		    : 0;
	free(ram);
	return r ? -1 : open_blocks(img, layout, err);
}

/* ---- a postcopy that broke ---- */

static int read_state(const struct image_priv *p, struct error *err)
{
	uint8_t buf[16384];

	for (uint64_t at = 0; at < p->state_size;) {
		uint64_t left = p->state_size - at;
		size_t n = left < sizeof(buf) ? (size_t)left : sizeof(buf);

		if (image_file_read(&p->state, p->state.path, at, buf, n, err) < 0)
			return -1;
		digest_stream_update(p->state_digest, buf, n);
		at += n;
	}
	return 0;
}

/* The devices came before the guest was given up: they are whole. */
static int resume_state(struct image *img, const struct manifest *m, struct error *err)
{
	struct image_priv *p = image_priv(img);
	char *path, hex[33];
	int r;

	if (!m->has_device_state)
		return 0;
	path = image_format(err, "%s/device-state", p->target->part);
	if (!path)
		return -1;
	r = image_file_open(&p->state, path, O_RDWR, 0, err);
	free(path);
	if (r < 0)
		return -1;
	p->state_size = p->state.size;
	p->state_digest = digest_stream_new();
	if (!p->state_digest)
		return err_set(err, ST_NOMEM, "out of memory");
	if (read_state(p, err) < 0)
		return -1;
	digest_hex(digest_stream_get(p->state_digest), hex);
	if (p->state_size == m->device_state_size && !strcmp(hex, m->device_state_digest))
		return 0;
	return err_set(err, ST_FILE, "%s is not the device state that %s/manifest.json tells of",
		       p->state.path, p->target->part);
}

/* ---- image_create ---- */

/* What there is stays; a complete IMAGE is only looked at. */
static int plan_resume(struct target *t, const struct image_layout *layout, struct error *err)
{
	struct image_start start;

	if (image_find_start(t->final, layout->in_place, &start, err) < 0)
		return -1;
	t->keep_content = start.kind != START_NOTHING;
	t->resumed = start.kind == START_PART || start.kind == START_COMPLETE;
	t->frozen = start.kind == START_IMAGE && !layout->keep;
	if (start.kind == START_IMAGE)
		t->in_place = true;
	return 0;
}

static int plan(struct image *img, const struct existing *ex, const struct image_layout *layout,
		struct error *err)
{
	struct target *t = calloc(1, sizeof(*t));

	image_priv(img)->target = t;
	if (!t)
		return err_set(err, ST_NOMEM, "out of memory");
	t->lock = t->parent = t->state_lock = -1;
	t->force = layout->force;
	t->in_place = layout->in_place;
	t->keep_content = layout->in_place && layout->keep;
	t->existed = ex->kind != EXISTS_NOT;
	t->final = image_format(err, "%s", ex->path);
	if (t->final && layout->resume && plan_resume(t, layout, err) < 0)
		return -1;
	t->part = image_format(err, t->in_place ? "%s" : "%s.part", ex->path);
	/* a device's name is not ours to put files beside */
	if (t->final && ex->kind != EXISTS_DEVICE)
		t->record = record_name(t->final, err);
	return t->final && t->part ? 0 : -1;
}

static int claim(struct image *img, const struct existing *ex, struct error *err)
{
	struct target *t = image_priv(img)->target;

	t->parent = part_open_parent(t->final, err);
	if (t->parent < 0)
		return -1;
	if (t->in_place && t->existed)
		return part_lock_in_place(t->part, ex->kind, t->frozen, &t->lock, err);
	if (t->resumed)
		return part_reopen(t->part, img->directory, &t->lock, &t->frozen, err);
	if (part_claim(t->part, img->directory, &t->lock, err) < 0)
		return -1;
	t->ours = true;
	return 0;
}

/* Whose it is, before the first page; a resumed one stays whose it was. */
static int remember(const struct target *t, const struct image_layout *layout, struct error *err)
{
	uint8_t known[IMAGE_SESSION_LEN];

	if (!t->record || t->frozen || (t->resumed && record_read(t->record, known)))
		return 0;
	if (layout->session)
		return record_write(t->record, layout->session, err);
	record_remove(t->record); /* of a .part that was a leftover */
	return 0;
}

/* Shared blocks are in a directory before anything comes; that alone overwrites nothing. */
static int consider_shared(const struct image_layout *layout, const struct existing *ex,
			   bool *force, struct error *err)
{
	const struct block *first = NULL;

	for (unsigned i = 0; layout->use_shared && i < layout->nblocks && !first; i++)
		if (layout->blocks[i].shared)
			first = &layout->blocks[i];
	if (!first || (ex->kind == EXISTS_DIRECTORY && *force))
		return 0;
	if (ex->kind == EXISTS_DIRECTORY)
		return shared_only(ex->path, layout, force, err);
	err_set(err, ST_UNSUPPORTED,
		"block %s is shared memory, but there is no directory %s with it in ram/",
		first->name, ex->path);
	return err_hint(err, "make that directory with a symbolic link to the memory, or switch "
			     "x-ignore-shared off on the source");
}

static int create(struct image *img, const struct image_layout *layout, const struct existing *ex,
		  struct error *err)
{
	struct image_priv *p = image_priv(img);
	bool force = layout->force;

	if (take_blocks(img, layout, err) < 0 || consider_shared(layout, ex, &force, err) < 0 ||
	    part_allowed(ex, force || layout->resume, layout->in_place, err) < 0 ||
	    choose_form(img, layout, ex, err) < 0 || plan(img, ex, layout, err) < 0)
		return -1;
	p->target->force = force || layout->resume;
	if (layout->device_state && !img->directory &&
	    state_plan(p->target, layout->device_state, layout->resume, err) < 0)
		return -1;
	if (claim(img, ex, err) < 0 || remember(p->target, layout, err) < 0)
		return -1;
	if (!img->directory)
		return make_block(img, &img->blocks[0], p->target->part, 0, err);
	if (start_manifest(img, layout, err) < 0 || make_directory(img, layout, err) < 0)
		return -1;
	return layout->postcopy ? resume_state(img, layout->postcopy, err) : 0;
}

struct image *image_create(const char *path, const struct image_layout *layout, struct error *err)
{
	struct image *img = image_new(path, err);
	struct existing ex;
	int r;

	if (!img)
		return NULL;
	r = part_examine(path, &ex, err);
	if (!r) {
		r = create(img, layout, &ex, err);
		free(ex.path);
	}
	if (r < 0) {
		image_close(img, false);
		return NULL;
	}
	return img;
}
