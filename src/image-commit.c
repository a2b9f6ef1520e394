// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The end of a destination: made durable, renamed, or given up.
 *
 * Whatever ends a run early, the name IMAGE stands for what it stood for before. image_sync makes
 * .part complete on the disk, image_commit is one rename (of a directory over a non-empty one: one
 * exchange of the two names, and the old one is removed under its new name). A device state of its
 * own is renamed after the memory, so it is never newer than that. Only in place is
 * IMAGE itself changed, and only what was not there before is removed when that fails.
 */
#include "image-internal.h"

#include "broker.h"
#include "image-dir.h"
#include "image-part.h"
#include "log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- durable ---- */

static int sync_fd(int fd, const char *path, struct error *err)
{
	while (fsync(fd) < 0) {
		/* EINVAL: hugetlbfs, which has nothing to sync a directory to */
		if (errno == EINVAL)
			return 0;
		if (errno != EINTR)
			return err_sys(err, ST_FILE, errno, "cannot sync %s", path);
	}
	return 0;
}

static int sync_directory(const char *path, struct error *err)
{
	int fd = broker_open(path, O_RDONLY | O_DIRECTORY, 0), r;

	if (fd < 0)
		return err_sys(err, ST_FILE, errno, "cannot open %s", path);
	r = sync_fd(fd, path, err);
	close(fd);
	return r;
}

static void fill_manifest(struct image *img)
{
	struct image_priv *p = image_priv(img);
	struct manifest *m = img->manifest;
	struct digest d;

	for (unsigned i = 0; i < img->nblocks; i++) {
		struct block *b = &img->blocks[i];

		m->blocks[i].shared = b->shared;
		if (b->shared && !image_block_came(b))
			continue; /* its content is elsewhere */
		image_block_digest(b, &d);
		digest_hex(d, m->blocks[i].digest);
	}
	m->postcopy = false;
	m->has_device_state = p->state.fd >= 0;
	m->device_state_size = p->state_size;
	if (m->has_device_state)
		digest_hex(digest_stream_get(p->state_digest), m->device_state_digest);
}

/* Writes it beside and renames, so that in place too there is a whole one or none. */
static int write_manifest(struct image *img, const char *dir, struct error *err)
{
	char *name = image_format(err, "%s/manifest.json", dir);
	char *part = name ? image_format(err, "%s.part", name) : NULL;
	char *text = part ? manifest_format(img->manifest) : NULL;
	struct image_file f = IMAGE_FILE_NONE;
	int r = -1;

	if (part && !text)
		err_set(err, ST_NOMEM, "out of memory");
	if (text)
		r = image_file_open(&f, part, O_WRONLY | O_CREAT | O_TRUNC, 0600, err);
	if (!r && image_file_write(&f, 0, text, strlen(text)) < 0)
		r = err_sys(err, ST_FILE, errno, "cannot write %s", part);
	if (!r)
		r = sync_fd(f.fd, part, err);
	if (!r && broker_rename(part, name, 0) < 0)
		r = err_sys(err, ST_FILE, errno, "cannot rename %s", part);
	image_file_close(&f);
	free(text);
	free(part);
	free(name);
	return r;
}

static int sync_tree(struct image *img, struct error *err)
{
	struct target *t = image_priv(img)->target;
	char *ram = image_format(err, "%s/ram", t->part);
	int r;

	if (!ram)
		return -1;
	fill_manifest(img);
	r = write_manifest(img, t->part, err);
	if (!r)
		r = sync_directory(ram, err);
	free(ram);
	return r < 0 ? -1 : sync_fd(t->lock, t->part, err);
}

int image_note_postcopy(struct image *img, struct error *err)
{
	struct image_priv *p = image_priv(img);
	const struct target *t = p->target;

	if (!img->directory)
		return 0;
	fill_manifest(img);
	img->manifest->postcopy = true;
	for (unsigned i = 0; i < img->nblocks; i++)
		img->manifest->blocks[i].digest[0] = '\0'; /* they change */
	if ((p->state.fd >= 0 && sync_fd(p->state.fd, p->state.path, err) < 0) ||
	    write_manifest(img, t->part, err) < 0 || sync_fd(t->lock, t->part, err) < 0)
		return -1;
	return sync_fd(t->parent, t->part, err);
}

/* A file that no directory names on the disk is lost with the power, synced or not. */
static int sync_names(struct image *img, struct error *err)
{
	struct image_priv *p = image_priv(img);
	struct target *t = p->target;
	int parent, r;

	if (sync_fd(t->parent, t->part, err) < 0)
		return -1;
	if (!t->state_part || p->state.fd < 0)
		return 0;
	parent = part_open_parent(t->state_part, err);
	if (parent < 0)
		return -1;
	r = sync_fd(parent, t->state_part, err);
	close(parent);
	return r;
}

/* What cannot be marked is as durable; only our next run will not know it. */
static int mark(int fd, const char *part, struct error *err)
{
	if (broker_mark(part, true) < 0) {
		log_warn("cannot mark %s as complete (%s): if this transfer ends before %s is "
			 "renamed, the next one takes it for a leftover",
			 part, strerror(errno), part);
		return 0;
	}
	return sync_fd(fd, part, err);
}

static int mark_complete(struct image *img, struct error *err)
{
	struct image_priv *p = image_priv(img);
	struct target *t = p->target;

	if (!t->in_place && mark(t->lock, t->part, err) < 0)
		return -1;
	return t->state_part && p->state.fd >= 0 ? mark(t->state_lock, t->state_part, err) : 0;
}

static int check_frozen_state(const struct image_priv *p, struct error *err)
{
	if (p->state.fd < 0 || p->state.size == p->state_size)
		return 0;
	return err_set(err, ST_FILE, "%s is complete, and longer than the device state that came",
		       p->state.path);
}

int image_sync(struct image *img, struct error *err)
{
	struct image_priv *p = image_priv(img);

	for (unsigned i = 0; i < img->nblocks; i++) {
		struct block *b = &img->blocks[i];

		if (place_settle(img, b, err) < 0 ||
		    sync_fd(b->fd, block_priv(b)->file.path, err) < 0)
			return -1;
	}
	if (p->state.fd >= 0 && sync_fd(p->state.fd, p->state.path, err) < 0)
		return -1;
	if (p->target->frozen)
		return check_frozen_state(p, err); /* all else was made durable when it was made */
	if (img->directory && sync_tree(img, err) < 0)
		return -1;
	return mark_complete(img, err) < 0 ? -1 : sync_names(img, err);
}

/* ---- the rename ---- */

/* The mark may go once the new name is durable, not before. */
static int settle_name(int parent, int fd, const char *final, struct error *err)
{
	if (sync_fd(parent, final, err) < 0)
		return -1;
	if (broker_mark(final, false) < 0 && errno != EOPNOTSUPP)
		log_warn("cannot reset the mode of %s: %s", final, strerror(errno));
	return sync_fd(fd, final, err);
}

static int commit_state(struct image *img, struct error *err)
{
	struct target *t = image_priv(img)->target;
	int parent, r;

	if (!t->state_part || image_priv(img)->state.fd < 0)
		return 0;
	parent = part_open_parent(t->state_final, err);
	if (parent < 0)
		return -1;
	r = part_rename(t->state_part, t->state_final, t->state_existed, t->force, err);
	if (!r) {
		free(t->state_part);
		t->state_part = NULL;
		r = settle_name(parent, t->state_lock, t->state_final, err);
	}
	close(parent);
	return r;
}

int image_place_device_state(struct image *img, struct error *err)
{
	struct image_priv *p = image_priv(img);
	struct target *t = p->target;

	if (p->state.fd < 0 || t->state_placed)
		return 0;
	if (sync_fd(p->state.fd, p->state.path, err) < 0 || commit_state(img, err) < 0)
		return -1;
	t->state_placed = true;
	return 0;
}

static int commit_memory(struct target *t, struct error *err)
{
	if (!t->in_place && part_rename(t->part, t->final, t->existed, t->force, err) < 0)
		return -1;
	t->committed = true;
	return t->in_place ? sync_fd(t->parent, t->final, err)
			   : settle_name(t->parent, t->lock, t->final, err);
}

int image_commit(struct image *img, struct error *err)
{
	struct target *t = image_priv(img)->target;

	if (commit_memory(t, err) < 0) {
		t->keep = true;
		return -1;
	}
	record_remove(t->record);
	return commit_state(img, err) < 0 ? err_prefix(err, "the memory is %s now, but", t->final)
					  : 0;
}

/* ---- the end ---- */

const char *image_part_path(const struct image *img)
{
	return image_priv(img)->target->part;
}

void target_close(struct image *img, bool keep_part)
{
	struct target *t = image_priv(img)->target;

	if (!t)
		return;
	if (!t->committed && !keep_part && !t->keep) {
		if (t->ours &&
		    (img->directory ? image_dir_remove(t->part) : broker_unlink(t->part)) < 0)
			log_warn("cannot remove %s: %s", t->part, strerror(errno));
		if (t->ours)
			record_remove(t->record);
		if (!t->frozen && t->state_lock >= 0 && t->state_part &&
		    broker_unlink(t->state_part) < 0)
			log_warn("cannot remove %s: %s", t->state_part, strerror(errno));
	}
	if (t->lock >= 0)
		close(t->lock);
	if (t->state_lock >= 0)
		close(t->state_lock);
	if (t->parent >= 0)
		close(t->parent);
	free(t->final);
	free(t->part);
	free(t->record);
	free(t->state_final);
	free(t->state_part);
	free(t);
}
