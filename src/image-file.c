// SPDX-License-Identifier: GPL-2.0-or-later
#include "image-file.h"

#include "broker.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

static const uint8_t zeros[64 << 10];

static int device_size(int fd, uint64_t *size)
{
	return ioctl(fd, BLKGETSIZE64, size);
}

/* Kind, page, size and identity of the open file. */
static int learn(struct image_file *f, struct error *err)
{
	struct statfs fs;
	struct stat st;

	if (fstat(f->fd, &st) < 0 || fstatfs(f->fd, &fs) < 0)
		return err_sys(err, ST_FILE, errno, "cannot look at %s", f->path);
	f->page = (uint32_t)sysconf(_SC_PAGESIZE);
	f->size = (uint64_t)st.st_size;
	f->dev = st.st_dev;
	f->ino = st.st_ino;
	f->mtime = st.st_mtim;
	f->counted = S_ISREG(st.st_mode) && fs.f_type == TMPFS_MAGIC;
	if (S_ISBLK(st.st_mode)) {
		f->kind = FILE_DEVICE;
		if (device_size(f->fd, &f->size) < 0)
			return err_sys(err, ST_FILE, errno, "cannot learn the size of %s", f->path);
	} else if (!S_ISREG(st.st_mode)) {
		return err_set(err, ST_UNSUPPORTED, "%s is neither a file nor a block device",
			       f->path);
	} else if (fs.f_type == HUGETLBFS_MAGIC) {
		f->kind = FILE_HUGE;
		f->page = (uint32_t)fs.f_bsize;
	} else {
		f->kind = FILE_REGULAR;
	}
	return 0;
}

int image_file_open(struct image_file *f, const char *path, int flags, mode_t mode,
		    struct error *err)
{
	memset(f, 0, sizeof(*f));
	/* O_NONBLOCK: a FIFO must be refused, not waited for */
	f->fd = broker_open(path, flags | O_NONBLOCK, mode);
	if (f->fd < 0)
		return err_sys(err, ST_FILE, errno, "cannot %s %s",
			       flags & O_CREAT ? "create" : "open", path);
	f->path = strdup(path);
	if (!f->path) {
		image_file_close(f);
		return err_set(err, ST_NOMEM, "out of memory");
	}
	if (learn(f, err) < 0) {
		image_file_close(f);
		return -1;
	}
	return 0;
}

void image_file_close(struct image_file *f)
{
	if (f->fd >= 0)
		close(f->fd);
	f->fd = -1;
	free(f->path);
	f->path = NULL;
}

static int changed(const struct image_file *f, const char *image, const char *how,
		   struct error *err)
{
	err_set(err, ST_UNSUPPORTED, "%s changed while it was read (%s was %s)", image, f->path,
		how);
	return err_hint(err, "a static image has to be at rest: stop what writes to it");
}

static int changed_size(const struct image_file *f, const char *image, uint64_t now,
			struct error *err)
{
	err_set(err, ST_UNSUPPORTED,
		"%s changed while it was read (%s is %" PRIu64 " bytes, was %" PRIu64 ")", image,
		f->path, now, f->size);
	return err_hint(err, "a static image has to be at rest: stop what writes to it");
}

static int size_now(const struct image_file *f, uint64_t *size, struct stat *st, struct error *err)
{
	memset(st, 0, sizeof(*st));
	*size = 0;
	if (fstat(f->fd, st) < 0)
		return err_sys(err, ST_FILE, errno, "cannot look at %s", f->path);
	*size = (uint64_t)st->st_size;
	if (f->kind == FILE_DEVICE && device_size(f->fd, size) < 0)
		return err_sys(err, ST_FILE, errno, "cannot learn the size of %s", f->path);
	return 0;
}

int image_file_lock(const struct image_file *f, int how, struct error *err)
{
	/* a file system without locks is taken as it is */
	if (!TEMP_FAILURE_RETRY(flock(f->fd, how | LOCK_NB)) || errno != EWOULDBLOCK)
		return 0;
	err_set(err, ST_FILE, "%s is %s by another migtool", f->path,
		how == LOCK_EX ? "used" : "written, or will be emptied,");
	return err_hint(err, "wait for it");
}

int image_file_whole(const struct image_file *f, const char *image, struct error *err)
{
	struct stat st;
	uint64_t size;

	if (size_now(f, &size, &st, err) < 0)
		return -1;
	return size < f->size ? changed_size(f, image, size, err) : 0;
}

int image_file_unwritten(const struct image_file *f, const char *image, struct error *err)
{
	struct stat st;
	uint64_t size;

	if (size_now(f, &size, &st, err) < 0)
		return -1;
	if (size != f->size)
		return changed_size(f, image, size, err);
	if (st.st_mtim.tv_sec != f->mtime.tv_sec || st.st_mtim.tv_nsec != f->mtime.tv_nsec)
		return changed(f, image, "written to", err);
	return 0;
}

int image_file_unchanged(const struct image_file *f, const char *image, struct error *err)
{
	struct stat there;
	int fd, r;

	if (image_file_unwritten(f, image, err) < 0)
		return -1;
	fd = broker_open(f->path, O_PATH, 0);
	if (fd < 0)
		return errno == ENOENT ? changed(f, image, "removed", err)
				       : err_sys(err, ST_FILE, errno, "cannot open %s", f->path);
	r = fstat(fd, &there);
	close(fd);
	if (r < 0)
		return err_sys(err, ST_FILE, errno, "cannot look at %s", f->path);
	if (there.st_dev != f->dev || there.st_ino != f->ino)
		return changed(f, image, "replaced", err);
	return 0;
}

bool image_file_stored(const struct image_file *f, uint64_t *bytes)
{
	struct stat st;

	if (!f->counted || fstat(f->fd, &st) || (uint64_t)st.st_size != f->size)
		return false;
	*bytes = (uint64_t)st.st_blocks * 512;
	return *bytes < f->size;
}

int image_file_next_data(const struct image_file *f, const char *image, uint64_t from,
			 uint64_t *start, uint64_t *end, struct error *err)
{
	off_t data = -1, hole;

	*start = *end = f->size;
	if (from >= f->size)
		return 0;
	if (f->kind == FILE_REGULAR) {
		data = lseek(f->fd, (off_t)from, SEEK_DATA);
		/* the end of the data, or of a file that became shorter */
		if (data < 0 && errno == ENXIO)
			return image_file_whole(f, image, err);
	}
	if (data < 0) {
		*start = from;
		return 0;
	}
	hole = lseek(f->fd, data, SEEK_HOLE);
	if (hole < 0)
		return image_file_whole(f, image, err) < 0
			       ? -1
			       : err_sys(err, ST_FILE, errno, "cannot find holes in %s", f->path);
	*start = (uint64_t)data < f->size ? (uint64_t)data : f->size;
	*end = (uint64_t)hole < f->size ? (uint64_t)hole : f->size;
	return 0;
}

int image_file_read(const struct image_file *f, const char *image, uint64_t offset, void *buf,
		    size_t len, struct error *err)
{
	uint8_t *p = buf;

	while (len > 0) {
		ssize_t n = pread(f->fd, p, len, (off_t)offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_sys(err, ST_FILE, errno, "cannot read %s at %" PRIu64, f->path,
				       offset);
		if (n == 0)
			return image_file_whole(f, image, err) < 0
				       ? -1
				       : changed(f, image, "cut short for a moment", err);
		p += n;
		offset += (uint64_t)n;
		len -= (size_t)n;
	}
	return 0;
}

bool image_file_empty(const struct image_file *f)
{
	struct stat st;

	if (f->kind == FILE_DEVICE || fstat(f->fd, &st) < 0)
		return false;
	if (st.st_size == 0)
		return true;
	if (f->kind == FILE_HUGE)
		return st.st_blocks == 0;
	return lseek(f->fd, 0, SEEK_DATA) < 0 && errno == ENXIO;
}

int image_file_write(const struct image_file *f, uint64_t offset, const void *buf, size_t len)
{
	const uint8_t *p = buf;

	while (len > 0) {
		ssize_t n = pwrite(f->fd, p, len, (off_t)offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -1;
		p += n;
		offset += (uint64_t)n;
		len -= (size_t)n;
	}
	return 0;
}

int image_file_zero(const struct image_file *f, uint64_t offset, uint64_t len)
{
	if (f->kind == FILE_REGULAR) {
		if (!TEMP_FAILURE_RETRY(fallocate(f->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
						  (off_t)offset, (off_t)len)))
			return 0;
		if (errno != EOPNOTSUPP && errno != ENOSYS)
			return -1;
	} else {
		uint64_t range[2] = { offset, len };

		if (!ioctl(f->fd, BLKZEROOUT, range))
			return 0;
	}
	while (len > 0) {
		size_t n = len < sizeof(zeros) ? (size_t)len : sizeof(zeros);

		if (image_file_write(f, offset, zeros, n) < 0)
			return -1;
		offset += n;
		len -= n;
	}
	return 0;
}
