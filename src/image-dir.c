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

/* Calls each(entry, arg) for all entries but . and ..; ends at its first non-zero result. */
static int for_each(const char *dir, int (*each)(const char *name, bool is_dir, void *arg),
		    void *arg)
{
	int fd = broker_open(dir, O_RDONLY | O_DIRECTORY, 0), r = 0, saved;
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *e;
	struct stat st;

	if (!d) {
		saved = errno;
		if (fd >= 0)
			close(fd);
		errno = saved;
		return -1;
	}
	for (errno = 0; !r && (e = readdir(d)); errno = 0) {
		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
			continue;
		r = fstatat(fd, e->d_name, &st, AT_SYMLINK_NOFOLLOW);
		if (!r)
			r = each(e->d_name, S_ISDIR(st.st_mode), arg);
	}
	saved = errno;
	closedir(d);
	errno = saved;
	return r ? r : saved ? -1 : 0;
}

struct listing {
	struct image_dir_list *list;
	const char *dir;
	struct error *err;
};

static int list_one(const char *file, bool is_dir, void *arg)
{
	char name[BLOCK_NAME_MAX + 1], **more;
	struct listing *l = arg;

	if (is_dir || manifest_block_name(file, name, sizeof(name)) < 0) {
		err_set(l->err, ST_UNSUPPORTED, "%s/ram/%s is no block's memory", l->dir, file);
		return err_hint(l->err, "ram/ holds a file a block, named as the block with all "
					"but letters, digits, - . _ ~ (and a leading dot) as %%XX");
	}
	more = realloc(l->list->names, (l->list->n + 1) * sizeof(*more));
	if (more)
		l->list->names = more;
	if (!more || !(more[l->list->n] = strdup(name)))
		return err_set(l->err, ST_NOMEM, "out of memory");
	l->list->n++;
	return 0;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

int image_dir_list(const char *dir, struct image_dir_list *list, struct error *err)
{
	struct listing l = { .list = list, .dir = dir, .err = err };
	char *ram = image_format(err, "%s/ram", dir);
	int r;

	memset(list, 0, sizeof(*list));
	if (!ram)
		return -1;
	err_clear(err);
	r = for_each(ram, list_one, &l);
	if (r < 0 && err->status == ST_OK && errno == ENOENT)
		r = 0;
	else if (r < 0 && err->status == ST_OK)
		err_sys(err, ST_FILE, errno, "cannot list %s", ram);
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

static int count_one(const char *name, bool is_dir, void *arg)
{
	(void)name;
	(void)is_dir;
	*(bool *)arg = false;
	return 1;
}

int image_dir_empty(const char *dir, bool *empty, struct error *err)
{
	*empty = true;
	if (for_each(dir, count_one, empty) < 0)
		return err_sys(err, ST_FILE, errno, "cannot list %s", dir);
	return 0;
}

static bool is_member(const char *name)
{
	for (size_t i = 0; i < sizeof(members) / sizeof(members[0]); i++)
		if (!strcmp(name, members[i]))
			return true;
	return false;
}

struct foreign {
	bool in_ram;
	char name[NAME_MAX + 1];
};

static int find_foreign(const char *name, bool is_dir, void *arg)
{
	char block[BLOCK_NAME_MAX + 1];
	struct foreign *f = arg;

	if (f->in_ram ? !is_dir && !manifest_block_name(name, block, sizeof(block))
		      : (is_dir && !strcmp(name, "ram")) || (!is_dir && is_member(name)))
		return 0;
	strncpy(f->name, name, sizeof(f->name) - 1);
	return 1;
}

int image_dir_only_image(const char *dir, struct error *err)
{
	struct foreign f = { 0 };
	char *ram = image_format(err, "%s/ram", dir);
	int r;

	if (!ram)
		return -1;
	r = for_each(dir, find_foreign, &f);
	if (!r) {
		f.in_ram = true;
		r = for_each(ram, find_foreign, &f);
		if (r < 0 && errno == ENOENT)
			r = 0;
	}
	if (r < 0)
		err_sys(err, ST_FILE, errno, "cannot list %s", dir);
	else if (r > 0)
		r = err_set(err, ST_FILE, "%s holds %s%s, which is no part of an image", dir,
			    f.in_ram ? "ram/" : "", f.name);
	free(ram);
	return r;
}

static int remove_block(const char *name, bool is_dir, void *arg)
{
	char block[BLOCK_NAME_MAX + 1], *path;
	struct error err;
	int r;

	if (is_dir || manifest_block_name(name, block, sizeof(block)) < 0)
		return 0;
	path = image_format(&err, "%s/%s", (const char *)arg, name);
	if (!path) {
		errno = ENOMEM;
		return -1;
	}
	r = broker_unlink(path);
	free(path);
	return r;
}

int image_dir_remove(const char *dir)
{
	struct error err;
	char *path = image_format(&err, "%s/ram", dir);

	if (!path) {
		errno = ENOMEM;
		return -1;
	}
	if ((for_each(path, remove_block, path) < 0 || broker_rmdir(path) < 0) && errno != ENOENT) {
		free(path);
		return -1;
	}
	free(path);
	for (size_t i = 0; i < sizeof(members) / sizeof(members[0]); i++) {
		path = image_format(&err, "%s/%s", dir, members[i]);
		if (!path) {
			errno = ENOMEM;
			return -1;
		}
		if (broker_unlink(path) < 0 && errno != ENOENT) {
			free(path);
			return -1;
		}
		free(path);
	}
	return broker_rmdir(dir);
}
