// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The stream in a file, to be received later. Nothing half done looks done: what is written goes
 * to PATH.part, and transport_shutdown_write, which the sender calls when the stream is complete,
 * makes it durable and gives it its name. Closing without that removes it. An existing file is
 * only replaced if it is empty. A FIFO or a device is written and read as it is.
 */
#include "transport-io.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

struct file {
	char *path;
	char *part;   /* the writer's, until it is renamed; NULL: written in place */
	bool replace; /* an empty file has the final name */
};

static void file_free(struct transport *t)
{
	struct file *f = t->priv;

	if (f->part)
		broker_unlink(f->part);
	free(f->part);
	free(f->path);
	free(f);
	io_free(t);
}

/* Some file systems cannot, and then there is nothing to wait for. */
static int sync_fd(int fd)
{
	while (fsync(fd)) {
		if (errno == EINVAL)
			return 0;
		if (errno != EINTR)
			return -1;
	}
	return 0;
}

/* A rename lasts only once its directory was written. */
static int sync_directory(const char *path)
{
	const char *slash = strrchr(path, '/');
	char *dir = slash == path ? strdup("/")
		    : slash	  ? strndup(path, (size_t)(slash - path))
				  : strdup(".");
	int fd = dir ? broker_open(dir, O_RDONLY | O_DIRECTORY, 0) : -1;
	int rc = fd < 0 ? -1 : sync_fd(fd);

	free(dir);
	if (fd >= 0)
		close(fd);
	return rc;
}

static int rename_part(struct file *f)
{
	struct stat st;

	if (!f->replace) {
		if (!broker_rename(f->part, f->path, RENAME_NOREPLACE))
			return 0;
		if (errno != EINVAL)
			return -1;
		/* A file system without the flag: as close to it as it gets. */
	}
	if (!broker_stat(f->path, false, &st) && st.st_size) {
		errno = EEXIST;
		return -1;
	}
	return broker_rename(f->part, f->path, 0);
}

static int file_finish(struct transport *t, struct error *err)
{
	struct file *f = t->priv;

	if (!f->part)
		return io_shutdown_write(t, err);
	if (io_stopped(t, err))
		return -1;
	if (sync_fd(t->wfd))
		return io_failed(t, false, errno, err);
	if (rename_part(f))
		return err_sys(err, ST_FILE, errno, "cannot rename %s to %s", f->part, f->path);
	free(f->part);
	f->part = NULL;
	if (sync_directory(f->path))
		return err_sys(err, ST_FILE, errno, "cannot sync the directory of %s", f->path);
	return io_shutdown_write(t, err);
}

static int file_close(struct transport *t, struct error *err)
{
	(void)err;
	file_free(t);
	return 0;
}

static const struct transport_ops file_ops = {
	.scheme = "file",
	.read = io_read,
	.writev = io_writev,
	.sendfile = io_sendfile,
	.shutdown_write = file_finish,
	.close = file_close,
};

/* A FIFO's other end need not be open yet: for a writer the kernel gives nothing to wait on. */
static int open_fifo_writer(const struct uri *uri, int timeout_ms, struct cancel *cancel,
			    struct error *err)
{
	int64_t deadline = io_deadline(timeout_ms);

	for (;;) {
		int fd = broker_open(uri->path, O_WRONLY | O_NONBLOCK, 0);

		if (fd >= 0)
			return fd;
		if (errno != ENXIO)
			return err_sys(err, ST_FILE, errno, "cannot open %s", uri->text);
		if (!io_left_ms(deadline))
			return err_set(err, ST_CONNECT, "nobody opened %s for reading", uri->text);
		if (cancel_wait(cancel, -1, 0, 20, err))
			return -1;
	}
}

/* PATH.part, ours alone: a left-over of an earlier run is used again, a running one's is not. */
static int open_part(struct file *f, struct error *err)
{
	struct stat st;
	int fd = broker_open(f->part, O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK, 0666);

	if (fd < 0)
		return err_sys(err, ST_FILE, errno, "cannot create %s", f->part);
	if (fstat(fd, &st) || !S_ISREG(st.st_mode))
		err_set(err, ST_FILE, "%s exists and is no regular file", f->part);
	else if (flock(fd, LOCK_EX | LOCK_NB))
		err_sys(err, ST_FILE, errno, "another process writes %s", f->part);
	else if (ftruncate(fd, 0))
		err_sys(err, ST_FILE, errno, "cannot truncate %s", f->part);
	else
		return fd;
	close(fd);
	return -1;
}

static int open_writer(struct transport *t, const struct uri *uri, int timeout_ms,
		       struct error *err)
{
	struct file *f = t->priv;
	struct stat st;
	bool exists = !broker_stat(uri->path, true, &st);

	if (exists && S_ISREG(st.st_mode) && st.st_size) {
		err_set(err, ST_FILE, "%s exists and is not empty", uri->text);
		return err_hint(err, "remove it, or choose another name");
	}
	if (exists && !S_ISREG(st.st_mode)) {
		bool fifo = S_ISFIFO(st.st_mode);

		t->wkind = S_ISBLK(st.st_mode) ? IO_FILE : IO_NONBLOCK;
		t->wfd = fifo ? open_fifo_writer(uri, timeout_ms, t->cancel, err)
			      : broker_open(uri->path, O_WRONLY | O_NONBLOCK, 0);
		if (t->wfd < 0 && !fifo)
			err_sys(err, ST_FILE, errno, "cannot open %s", uri->text);
		return t->wfd < 0 ? -1 : 0;
	}
	f->replace = exists;
	if (asprintf(&f->part, "%s.part", uri->path) < 0) {
		f->part = NULL;
		return err_set(err, ST_NOMEM, "out of memory for %s", uri->text);
	}
	t->wkind = IO_FILE;
	t->wfd = open_part(f, err);
	if (t->wfd >= 0)
		return 0;
	free(f->part); /* not ours to remove */
	f->part = NULL;
	return -1;
}

static int open_reader(struct transport *t, const struct uri *uri, int timeout_ms,
		       struct error *err)
{
	struct stat st;

	t->end_status = ST_DATA;
	t->rfd = broker_open(uri->path, O_RDONLY | O_NONBLOCK, 0);
	if (t->rfd < 0 || fstat(t->rfd, &st))
		return err_sys(err, ST_FILE, errno, "cannot open %s", uri->text);
	if (S_ISDIR(st.st_mode))
		return err_sys(err, ST_FILE, EISDIR, "cannot read %s", uri->text);
	t->rkind = S_ISREG(st.st_mode) || S_ISBLK(st.st_mode) ? IO_FILE : IO_NONBLOCK;
	if (!S_ISFIFO(st.st_mode))
		return 0;
	/* Until somebody writes, a FIFO reads as ended, but it does not poll so. */
	switch (cancel_wait(t->cancel, t->rfd, POLLIN, timeout_ms, err)) {
	case 0:
		return err_set(err, ST_CONNECT, "nobody opened %s for writing", uri->text);
	case 1:
		return 0;
	default:
		return -1;
	}
}

struct transport *file_dial(const struct uri *uri, bool writer, int timeout_ms,
			    struct cancel *cancel, struct error *err)
{
	struct transport *t = io_new(&file_ops, uri->text, cancel, err);
	struct file *f = calloc(1, sizeof(*f));

	if (t && f && (f->path = strdup(uri->path))) {
		t->priv = f;
		if (!(writer ? open_writer : open_reader)(t, uri, timeout_ms, err))
			return t;
		file_free(t);
		return NULL;
	}
	if (t) {
		err_set(err, ST_NOMEM, "out of memory for %s", uri->text);
		io_free(t);
	}
	free(f);
	return NULL;
}
