// SPDX-License-Identifier: GPL-2.0-or-later
#include "image-dir.h"

#include "broker.h"
#include "image-internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MANIFEST_MAX (16u << 20)

/* What may stand in an image's directory beside ram/; the .part names are an unfinished run's. */
static const char *const members[] = { "device-state", "device-state.part", "manifest.json",
				       "manifest.json.part" };

/* Goes through the entries of a directory but . and .. */
struct walk {
	const char *dir;
	DIR *d;
	const char *name; /* of the entry */
	bool is_dir;
};

/* 0, or -1 with errno. */
static int walk_open(struct walk *w, const char *dir)
{
	int fd = broker_open(dir, O_RDONLY | O_DIRECTORY, 0), saved;

	memset(w, 0, sizeof(*w));
	if (fd < 0)
		return -1;
	w->dir = dir;
	w->d = fdopendir(fd);
	if (w->d)
		return 0;
	saved = errno;
	close(fd);
	errno = saved;
	return -1;
}

/*
 * What the listing itself does not say of an entry. A name that nobody may look at is none of an
 * image's, so it does not matter what it is.
 */
static int look_at(const struct walk *w, const char *name, bool *is_dir)
{
	struct error err;
	char *path = image_format(&err, "%s/%s", w->dir, name);
	struct stat st;
	int r, e;

	*is_dir = false;
	if (!path) {
		errno = ENOMEM;
		return -1;
	}
	r = broker_stat(path, false, &st);
	e = errno;
	free(path);
	errno = e;
	if (r < 0)
		return e == EPERM ? 0 : -1;
	*is_dir = S_ISDIR(st.st_mode);
	return 0;
}

/* 1: an entry, 0: no more, -1: errno. */
static int walk_next(struct walk *w)
{
	struct dirent *e;

	do {
		errno = 0;
		e = readdir(w->d);
		if (!e)
			return errno ? -1 : 0;
	} while (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."));
	w->name = e->d_name;
	w->is_dir = e->d_type == DT_DIR;
	if (e->d_type == DT_UNKNOWN && look_at(w, e->d_name, &w->is_dir) < 0)
		return -1;
	return 1;
}

/* Leaves errno alone. */
static void walk_close(struct walk *w)
{
	int saved = errno;

	closedir(w->d);
	errno = saved;
}

static bool is_block_file(const struct walk *w, char name[BLOCK_NAME_MAX + 1])
{
	return !w->is_dir && manifest_block_name(w->name, name, BLOCK_NAME_MAX + 1) == 0;
}

static int list_add(struct image_dir_list *list, const char *name, struct error *err)
{
	char **more = realloc(list->names, (list->n + 1) * sizeof(*more));

	if (!more)
		return err_set(err, ST_NOMEM, "out of memory");
	list->names = more;
	more[list->n] = strdup(name);
	if (!more[list->n])
		return err_set(err, ST_NOMEM, "out of memory");
	list->n++;
	return 0;
}

static int list_all(struct walk *w, const char *dir, struct image_dir_list *list, struct error *err)
{
	char name[BLOCK_NAME_MAX + 1];
	int r;

	while ((r = walk_next(w)) > 0) {
		if (!is_block_file(w, name)) {
			err_set(err, ST_UNSUPPORTED, "%s/ram/%s is no block's memory", dir,
				w->name);
			return err_hint(err,
					"ram/ holds a file a block, named as the block with all "
					"but letters, digits, - . _ ~ (and a leading dot) as %%XX");
		}
		if (list_add(list, name, err) < 0)
			return -1;
	}
	return r < 0 ? err_sys(err, ST_FILE, errno, "cannot list %s/ram", dir) : 0;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

int image_dir_list(const char *dir, struct image_dir_list *list, struct error *err)
{
	char *ram = image_format(err, "%s/ram", dir);
	struct walk w;
	int r;

	memset(list, 0, sizeof(*list));
	if (!ram)
		return -1;
	if (walk_open(&w, ram) == 0) {
		r = list_all(&w, dir, list, err);
		walk_close(&w);
	} else {
		r = errno == ENOENT ? 0 : err_sys(err, ST_FILE, errno, "cannot list %s", ram);
	}
	free(ram);
	if (r < 0)
		image_dir_list_free(list);
	else if (list->n)
		qsort(list->names, list->n, sizeof(*list->names), by_name);
	return r;
}

void image_dir_list_free(struct image_dir_list *list)
{
	for (unsigned i = 0; i < list->n; i++)
		free(list->names[i]);
	free(list->names);
	memset(list, 0, sizeof(*list));
}

bool image_dir_has(const struct image_dir_list *list, const char *block)
{
	return list->n &&
	       bsearch(&block, list->names, list->n, sizeof(*list->names), by_name) != NULL;
}

char *image_dir_block_path(const char *dir, const char *block, struct error *err)
{
	char file[MANIFEST_FILE_NAME_MAX + 1];

	manifest_file_name(block, file, sizeof(file));
	return image_format(err, "%s/ram/%s", dir, file);
}

/* All of the file; sizes are checked before the memory is asked for. */
static char *read_all(const char *path, int fd, size_t *len, struct error *err)
{
	struct stat st;
	size_t cap;
	char *text;

	if (fstat(fd, &st) < 0) {
		err_sys(err, ST_FILE, errno, "cannot look at %s", path);
		return NULL;
	}
	if (!S_ISREG(st.st_mode) || st.st_size > MANIFEST_MAX) {
		err_set(err, ST_FILE, "%s is no file of at most %u bytes", path, MANIFEST_MAX);
		return NULL;
	}
	cap = (size_t)st.st_size;
	text = malloc(cap + 1);
	if (!text) {
		err_set(err, ST_NOMEM, "out of memory");
		return NULL;
	}
	for (*len = 0; *len < cap;) {
		ssize_t n = pread(fd, text + *len, cap - *len, (off_t)*len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			err_sys(err, ST_FILE, errno, "cannot read %s", path);
			free(text);
			return NULL;
		}
		if (n == 0)
			break;
		*len += (size_t)n;
	}
	return text;
}

int image_dir_manifest(const char *dir, struct manifest **out, struct error *err)
{
	char *path = image_format(err, "%s/manifest.json", dir), *text = NULL;
	size_t len;
	int fd, r = -1;

	*out = NULL;
	if (!path)
		return -1;
	fd = broker_open(path, O_RDONLY | O_NONBLOCK, 0);
	if (fd >= 0)
		text = read_all(path, fd, &len, err);
	else if (errno == ENOENT)
		r = 0;
	else
		err_sys(err, ST_FILE, errno, "cannot open %s", path);
	if (text) {
		*out = manifest_parse(text, len, err);
		r = *out ? 0 : err_prefix(err, "%s", path);
	}
	if (fd >= 0)
		close(fd);
	free(text);
	free(path);
	return r;
}

int image_dir_empty(const char *dir, bool *empty, struct error *err)
{
	struct walk w;
	int r = walk_open(&w, dir);

	if (!r) {
		r = walk_next(&w);
		walk_close(&w);
	}
	*empty = r == 0;
	return r < 0 ? err_sys(err, ST_FILE, errno, "cannot list %s", dir) : 0;
}

int image_dir_bare(const char *dir, bool *bare, struct error *err)
{
	struct walk w;
	int r = walk_open(&w, dir);

	*bare = true;
	if (!r) {
		while ((r = walk_next(&w)) > 0)
			*bare &= w.is_dir && !strcmp(w.name, "ram");
		walk_close(&w);
	}
	return r < 0 ? err_sys(err, ST_FILE, errno, "cannot list %s", dir) : 0;
}

static bool is_member(const char *name)
{
	for (size_t i = 0; i < sizeof(members) / sizeof(members[0]); i++)
		if (!strcmp(name, members[i]))
			return true;
	return false;
}

/* Looks for what is no part of an image in `dir` itself, or in its ram/. */
static int only_image(const char *dir, bool in_ram, struct error *err)
{
	char *path = image_format(err, in_ram ? "%s/ram" : "%s", dir);
	char block[BLOCK_NAME_MAX + 1];
	struct walk w;
	int r;

	if (!path)
		return -1;
	r = walk_open(&w, path);
	if (r < 0 && !(in_ram && errno == ENOENT))
		err_sys(err, ST_FILE, errno, "cannot list %s", path);
	else if (r < 0)
		r = 0;
	else {
		while ((r = walk_next(&w)) > 0)
			if (in_ram     ? !is_block_file(&w, block)
			    : w.is_dir ? strcmp(w.name, "ram") != 0
				       : !is_member(w.name))
				break;
		if (r > 0)
			r = err_set(err, ST_FILE, "%s holds %s%s, which is no part of an image",
				    dir, in_ram ? "ram/" : "", w.name);
		else if (r < 0)
			err_sys(err, ST_FILE, errno, "cannot list %s", path);
		walk_close(&w);
	}
	free(path);
	return r;
}

int image_dir_only_image(const char *dir, struct error *err)
{
	return only_image(dir, false, err) < 0 || only_image(dir, true, err) < 0 ? -1 : 0;
}

/* 0, or -1 with errno. */
static int unlink_in(const char *dir, const char *name)
{
	struct error err;
	char *path = image_format(&err, "%s/%s", dir, name);
	int r;

	if (!path) {
		errno = ENOMEM;
		return -1;
	}
	r = broker_unlink(path);
	free(path);
	return r;
}

static int remove_blocks(const char *ram)
{
	char block[BLOCK_NAME_MAX + 1];
	struct walk w;
	int r;

	if (walk_open(&w, ram) < 0)
		return -1;
	while ((r = walk_next(&w)) > 0)
		if (is_block_file(&w, block) && unlink_in(ram, w.name) < 0) {
			r = -1;
			break;
		}
	walk_close(&w);
	return r < 0 ? -1 : broker_rmdir(ram);
}

int image_dir_remove(const char *dir)
{
	struct error err;
	char *ram = image_format(&err, "%s/ram", dir);
	int r;

	if (!ram) {
		errno = ENOMEM;
		return -1;
	}
	r = remove_blocks(ram);
	free(ram);
	if (r < 0 && errno != ENOENT)
		return -1;
	for (size_t i = 0; i < sizeof(members) / sizeof(members[0]); i++)
		if (unlink_in(dir, members[i]) < 0 && errno != ENOENT)
			return -1;
	return broker_rmdir(dir);
}
