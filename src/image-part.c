// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Who owns a .part: whoever has it open and flock()ed; the kernel drops that lock when the process
 * ends, however it ends. So a .part without a lock is a leftover.
 *
 * But a leftover that is complete may be the only copy of a guest: from READY on, the source may
 * have given it up, whatever happens here. It carries a mark, which has to survive our death at any
 * moment and a loss of power, and to travel with the file: the sticky bit of its mode, which means
 * nothing on a file, and nothing to its owner on a directory. image_sync sets it once all else is
 * durable. It is taken away only after the rename is durable, so that at no moment a complete .part
 * is without it; an IMAGE that kept it, as we were killed then, is none the worse. Who finds a
 * marked .part leaves it alone: people decide, and renaming it is all there is to do.
 *
 * Two that find the same leftover: both open it, one gets the lock, removes it and makes its own.
 * The other is refused the lock; or, if the first has finished meanwhile, holds a lock on a file
 * that no longer has that name, sees that, and starts over.
 */
#include "image-part.h"

#include "broker.h"
#include "image-dir.h"
#include "image-internal.h"
#include "log.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- what IMAGE is ---- */

/* stat without following a final link; 0, 1: is not there, -1. */
static int look(const char *path, int flags, struct stat *st, struct error *err)
{
	int fd = broker_open(path, O_PATH | flags, 0), r;

	memset(st, 0, sizeof(*st));
	if (fd < 0 && errno == ENOENT)
		return 1;
	r = fd < 0 || fstat(fd, st) < 0 ? err_sys(err, ST_FILE, errno, "cannot look at %s", path)
					: 0;
	if (fd >= 0)
		close(fd);
	return r;
}

/* A link's own name must survive, "." and ".." cannot be renamed. */
char *image_final_name(const char *image, struct error *err)
{
	char *path = image_format(err, "%s", image), *last, *real;
	size_t len = path ? strlen(path) : 0;
	struct stat st;
	int r;

	if (!path)
		return NULL;
	while (len > 1 && path[len - 1] == '/')
		path[--len] = '\0';
	last = strrchr(path, '/');
	last = last ? last + 1 : path;
	r = look(path, O_NOFOLLOW, &st, err);
	if (r == 0 && !S_ISLNK(st.st_mode) && strcmp(last, ".") && strcmp(last, ".."))
		return path;
	if (r == 1 && len > 0)
		return path;
	if (r == 1)
		err_set(err, ST_FILE, "an empty name names no image");
	real = r == 0 ? broker_realpath(path) : NULL;
	if (r == 0 && !real)
		err_sys(err, ST_FILE, errno, "cannot follow the symbolic link %s", path);
	free(path);
	return real;
}

static int find_empty(struct existing *ex, struct error *err)
{
	struct image_file f;

	if (ex->kind == EXISTS_DIRECTORY)
		return image_dir_empty(ex->path, &ex->empty, err);
	if (ex->kind != EXISTS_FILE || image_file_open(&f, ex->path, O_RDONLY, 0, err) < 0)
		return 0; /* what cannot be read is not known to be empty */
	ex->empty = image_file_empty(&f);
	image_file_close(&f);
	return 0;
}

int part_examine(const char *image, struct existing *ex, struct error *err)
{
	size_t len = strlen(image);
	struct stat st;
	int r;

	memset(ex, 0, sizeof(*ex));
	ex->wants_directory = len > 0 && image[len - 1] == '/';
	ex->path = image_final_name(image, err);
	if (!ex->path)
		return -1;
	r = look(ex->path, 0, &st, err);
	if (r == 1) {
		ex->kind = EXISTS_NOT;
		ex->empty = true;
		return 0;
	}
	if (!r && S_ISREG(st.st_mode))
		ex->kind = EXISTS_FILE;
	else if (!r && S_ISDIR(st.st_mode))
		ex->kind = EXISTS_DIRECTORY;
	else if (!r && S_ISBLK(st.st_mode))
		ex->kind = EXISTS_DEVICE;
	else if (!r)
		r = err_set(err, ST_UNSUPPORTED,
			    "%s is neither a file nor a directory nor a block device", ex->path);
	if (!r && ex->wants_directory && ex->kind != EXISTS_DIRECTORY)
		r = err_set(err, ST_FILE, "%s is not a directory", ex->path);
	if (!r)
		r = find_empty(ex, err);
	if (r < 0) {
		free(ex->path);
		ex->path = NULL;
	}
	return r;
}

int part_allowed(const struct existing *ex, bool force, bool in_place, struct error *err)
{
	if (ex->kind == EXISTS_DEVICE && !in_place) {
		err_set(err, ST_UNSUPPORTED, "%s is a block device, which cannot be renamed to",
			ex->path);
		return err_hint(err, "write it in place: --in-place");
	}
	if (!ex->empty && !force) {
		err_set(err, ST_FILE, "%s exists and is not empty", ex->path);
		return err_hint(err, "--force %s it", in_place ? "overwrites" : "replaces");
	}
	if (ex->kind == EXISTS_DIRECTORY && !ex->empty && image_dir_only_image(ex->path, err) < 0)
		return err_hint(err, "only an image is replaced: name another directory, or "
				     "remove what it holds");
	return 0;
}

/* ---- .part ---- */

static int in_use(const char *path, struct error *err)
{
	err_set(err, ST_FILE, "%s is being written by another migtool", path);
	return err_hint(err, "wait for it, or name another image");
}

/* 0, -1: somebody has it. A file system without locks is taken as it is. */
static int lock(int fd, const char *path, struct error *err)
{
	if (flock(fd, LOCK_EX | LOCK_NB) < 0 && errno == EWOULDBLOCK)
		return in_use(path, err);
	return 0;
}

/* Is it still there under its name? 1: no. */
static int replaced(int fd, const char *part, struct error *err)
{
	struct stat st, there;

	if (fstat(fd, &st) < 0)
		return err_sys(err, ST_FILE, errno, "cannot look at %s", part);
	switch (look(part, O_NOFOLLOW, &there, err)) {
	case 0:
		return st.st_dev != there.st_dev || st.st_ino != there.st_ino;
	case 1:
		return 1;
	default:
		return -1;
	}
}

static bool is_complete(const struct stat *st)
{
	return st->st_mode & S_ISVTX && (S_ISREG(st->st_mode) || S_ISDIR(st->st_mode));
}

static int refuse_complete(const char *part, const struct stat *st, struct error *err)
{
	if (!is_complete(st))
		return 0;
	err_set(err, ST_FILE, "%s is complete and may be the only copy of a guest", part);
	return err_hint(err,
			"--resume on both ends asks the source; if that says that the guest was "
			"handed over, rename it to %.*s; else delete it",
			(int)(strlen(part) - strlen(".part")), part);
}

/* Opens and locks what is there: its descriptor, -1, or -2: there is none (any more). */
static int open_there(const char *part, int flags, struct stat *st, struct error *err)
{
	int fd = broker_open(part, flags | O_NOFOLLOW | O_NONBLOCK, 0), r;

	memset(st, 0, sizeof(*st));
	if (fd < 0)
		return errno == ENOENT ? -2 : err_sys(err, ST_FILE, errno, "cannot open %s", part);
	r = lock(fd, part, err);
	if (!r)
		r = replaced(fd, part, err); /* then the lock is on what had that name before */
	/* only now: who had the lock may have set the mark */
	if (!r && fstat(fd, st) < 0)
		r = err_sys(err, ST_FILE, errno, "cannot look at %s", part);
	if (!r)
		return fd;
	close(fd);
	return r == 1 ? -2 : -1;
}

/* The same for a leftover that may be removed. */
static int open_leftover(const char *part, struct stat *st, struct error *err)
{
	int fd = open_there(part, O_RDONLY, st, err);

	if (fd < 0 || !refuse_complete(part, st, err))
		return fd;
	close(fd);
	return -1;
}

int part_probe(const char *part, bool *complete, struct error *err)
{
	struct stat st;
	int fd = open_there(part, O_RDONLY, &st, err);

	*complete = fd >= 0 && is_complete(&st);
	if (fd >= 0)
		close(fd);
	return fd >= 0 ? 1 : fd == -2 ? 0 : -1;
}

int part_reopen(const char *part, bool directory, int *out, bool *complete, struct error *err)
{
	struct stat st;
	int fd = open_there(part, directory ? O_RDONLY : O_RDWR, &st, err);

	if (fd == -2)
		return err_set(err, ST_FILE, "%s is gone", part);
	if (fd < 0)
		return -1;
	if (directory ? !S_ISDIR(st.st_mode) : !S_ISREG(st.st_mode)) {
		close(fd);
		err_set(err, ST_FILE, "%s is no %s, which the source's image needs", part,
			directory ? "directory" : "file");
		return err_hint(err, "it is of another transfer: remove it");
	}
	*complete = is_complete(&st);
	*out = fd;
	return 0;
}

int part_free(const char *part, struct error *err)
{
	struct stat st;
	int fd = open_leftover(part, &st, err);

	if (fd >= 0)
		close(fd);
	return fd == -1 ? -1 : 0;
}

static int remove_leftover(const char *part, struct error *err)
{
	struct stat st;
	int fd = open_leftover(part, &st, err), r = 0;

	if (fd < 0)
		return fd == -1 ? -1 : 0;
	if (S_ISDIR(st.st_mode))
		r = image_dir_only_image(part, err);
	else if (!S_ISREG(st.st_mode))
		r = err_set(err, ST_FILE, "%s exists and is no file", part);
	if (!r && (S_ISDIR(st.st_mode) ? image_dir_remove(part) : broker_unlink(part)) < 0)
		r = err_sys(err, ST_FILE, errno, "cannot remove the leftover %s", part);
	close(fd);
	return r;
}

static void remove_made(const char *part, bool directory)
{
	int why = errno;

	if ((directory ? image_dir_remove(part) : broker_unlink(part)) < 0)
		log_warn("cannot remove %s: %s", part, strerror(errno));
	errno = why;
}

/* Its descriptor, or -1 with errno. */
static int make(const char *part, bool directory)
{
	int fd;

	if (!directory)
		return broker_open(part, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, 0600);
	if (broker_mkdir(part, 0700) < 0)
		return -1;
	fd = broker_open(part, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
	if (fd < 0)
		remove_made(part, directory);
	return fd;
}

int part_claim(const char *part, bool directory, int *out, struct error *err)
{
	/* more than one turn is only needed while others come and go */
	for (int turn = 0; turn < 8; turn++) {
		int fd = make(part, directory), r;

		if (fd >= 0) {
			if (lock(fd, part, err) < 0) {
				close(fd);
				return -1;
			}
			r = replaced(fd, part, err);
			if (!r) {
				*out = fd;
				return 0;
			}
			/* made, locked, and then something fails: it is still ours */
			if (r < 0)
				remove_made(part, directory);
			close(fd);
			if (r < 0)
				return -1;
			continue;
		}
		if (errno != EEXIST)
			return err_sys(err, ST_FILE, errno, "cannot create %s", part);
		if (remove_leftover(part, err) < 0)
			return -1;
	}
	return in_use(part, err);
}

int part_lock_in_place(const char *path, enum existing_kind kind, bool frozen, int *out,
		       struct error *err)
{
	int flags = kind == EXISTS_DIRECTORY ? O_RDONLY | O_DIRECTORY : frozen ? O_RDONLY : O_RDWR;
	int fd;

	/* on a device: EBUSY if it is mounted or part of another one */
	fd = broker_open(path, kind == EXISTS_DEVICE ? flags | O_EXCL : flags, 0);
	if (fd < 0)
		return err_sys(err, ST_FILE, errno, "cannot open %s%s", path,
			       frozen ? "" : " for writing");
	if (lock(fd, path, err) < 0) {
		close(fd);
		return -1;
	}
	*out = fd;
	return 0;
}

int part_open_parent(const char *path, struct error *err)
{
	char *copy = image_format(err, "%s", path), *dir;
	int fd;

	if (!copy)
		return -1;
	dir = dirname(copy);
	fd = broker_open(dir, O_RDONLY | O_DIRECTORY, 0);
	if (fd < 0)
		err_sys(err, ST_FILE, errno, "cannot open the directory %s", dir);
	free(copy);
	return fd;
}

int part_may_make(const char *path)
{
	char *copy = strdup(path);
	int r, e;

	if (!copy)
		return -1;
	r = broker_may_write(dirname(copy));
	e = errno;
	free(copy);
	errno = e;
	return r;
}

/* ---- the rename ---- */

static int rename_failed(const char *part, const char *final, const char *why, int errnum,
			 struct error *err)
{
	if (why)
		err_set(err, ST_FILE, "cannot rename %s to %s: %s", part, final, why);
	else
		err_sys(err, ST_FILE, errnum, "cannot rename %s to %s", part, final);
	return err_hint(err, "it is complete as %s: rename it to %s", part, final);
}

/* The name was free when we began; whoever took it since then keeps it. */
static int rename_new(const char *part, const char *final, struct error *err)
{
	if (!broker_rename(part, final, RENAME_NOREPLACE))
		return 0;
	if (errno == EINVAL || errno == ENOSYS) { /* a file system that cannot */
		int fd = broker_open(final, O_PATH | O_NOFOLLOW, 0);

		if (fd < 0 && errno == ENOENT && !broker_rename(part, final, 0))
			return 0;
		if (fd >= 0) {
			close(fd);
			errno = EEXIST;
		}
	}
	return rename_failed(part, final, errno == EEXIST ? "somebody made that meanwhile" : NULL,
			     errno, err);
}

static int rename_over(const char *part, const char *final, bool force, struct error *err)
{
	struct existing now;
	bool exchange;

	if (part_examine(final, &now, err) < 0)
		return -1;
	exchange = now.kind == EXISTS_DIRECTORY && !now.empty;
	free(now.path);
	if (!force && !now.empty)
		return rename_failed(part, final, "somebody wrote to that meanwhile", 0, err);
	if (broker_rename(part, final, exchange ? RENAME_EXCHANGE : 0) < 0)
		return rename_failed(part, final, NULL, errno, err);
	if (exchange && image_dir_remove(part) < 0)
		log_warn("what %s was is now %s and could not be removed: %s", final, part,
			 strerror(errno));
	return 0;
}

int part_rename(const char *part, const char *final, bool existed, bool force, struct error *err)
{
	return existed ? rename_over(part, final, force, err) : rename_new(part, final, err);
}
