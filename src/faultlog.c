// SPDX-License-Identifier: GPL-2.0-or-later
#include "faultlog.h"

#include "broker.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define HEADER	  "migtool-faults 1"
#define LINE_ROOM (BLOCK_NAME_MAX + 32)
#define PAGES_MAX (UINT64_C(1) << 26)

void faultlog_add(struct faultlog *l, unsigned block, uint64_t offset)
{
	if (l->n == l->room) {
		size_t room = l->room ? 2 * l->room : 1024;
		struct faultlog_page *grown =
			l->n < PAGES_MAX ? realloc(l->pages, room * sizeof(*grown)) : NULL;

		if (!grown) {
			l->full = true;
			return;
		}
		l->pages = grown;
		l->room = room;
	}
	l->pages[l->n++] = (struct faultlog_page){ offset, block };
}

void faultlog_free(struct faultlog *l)
{
	free(l->pages);
	memset(l, 0, sizeof(*l));
}

/* ---- writing ---- */

int faultlog_check(const char *path, bool force, struct error *err)
{
	struct stat st;

	if (force || broker_stat(path, true, &st) || !st.st_size)
		return 0;
	err_set(err, ST_FILE, "%s exists", path);
	return err_hint(err, "--force replaces it");
}

static int put(FILE *f, const struct faultlog *l, const struct image *img)
{
	if (fprintf(f, HEADER "\n") < 0)
		return -1;
	for (size_t i = 0; i < l->n; i++)
		if (fprintf(f, "0x%" PRIx64 " %s\n", l->pages[i].offset,
			    img->blocks[l->pages[i].block].name) < 0)
			return -1;
	return fflush(f) || fsync(fileno(f)) ? -1 : 0;
}

static int write_part(const struct faultlog *l, const char *part, const struct image *img)
{
	int fd, e, rc;
	FILE *f;

	broker_unlink(part);
	fd = broker_open(part, O_WRONLY | O_CREAT | O_EXCL, 0600);
	f = fd < 0 ? NULL : fdopen(fd, "w");
	if (!f) {
		e = errno;
		if (fd >= 0)
			close(fd);
		errno = e;
		return -1;
	}
	rc = put(f, l, img);
	e = errno;
	if (fclose(f) && !rc) {
		rc = -1;
		e = errno;
	}
	errno = e;
	return rc;
}

int faultlog_write(const struct faultlog *l, const char *path, const struct image *img,
		   struct error *err)
{
	char *final = image_final_name(path, err), *part = NULL;
	int rc = 0;

	if (!final)
		return -1;
	if (asprintf(&part, "%s.part", final) < 0) {
		free(final);
		return err_set(err, ST_NOMEM, "no memory for the name of %s", path);
	}
	if (write_part(l, part, img) || broker_rename(part, final, 0))
		rc = err_sys(err, ST_FILE, errno, "cannot write %s", path);
	free(part);
	free(final);
	if (!rc && l->full)
		rc = err_set(err, ST_NOMEM, "%s is not whole: there was no memory for it", path);
	return rc;
}

/* ---- reading ---- */

static int take_line(struct faultlog *l, char *line, const struct image *img)
{
	char *end;
	uint64_t offset;
	const struct block *b;

	line[strcspn(line, "\n")] = '\0';
	errno = 0;
	offset = strtoull(line, &end, 16);
	if (errno || end == line || *end != ' ' || strncmp(line, "0x", 2))
		return -1;
	b = image_find(img, end + 1, strlen(end + 1));
	if (b && offset < b->size)
		faultlog_add(l, b->index, offset);
	return 0;
}

static int take_lines(struct faultlog *l, FILE *f, const char *path, const struct image *img,
		      struct error *err)
{
	char line[LINE_ROOM];
	uint64_t n = 1;

	if (!fgets(line, sizeof(line), f) || strcmp(line, HEADER "\n")) {
		err_set(err, ST_DATA, "%s does not begin with \"" HEADER "\"", path);
		return err_hint(err, "--record writes such a file");
	}
	while (fgets(line, sizeof(line), f)) {
		n++;
		if (take_line(l, line, img))
			return err_set(err, ST_DATA,
				       "%s, line %" PRIu64 ": expected 0xOFFSET BLOCK", path, n);
	}
	if (ferror(f))
		return err_sys(err, ST_FILE, errno, "cannot read %s", path);
	return l->full ? err_set(err, ST_NOMEM, "no memory for %s", path) : 0;
}

int faultlog_read(struct faultlog *l, const char *path, const struct image *img, struct error *err)
{
	int fd = broker_open(path, O_RDONLY, 0), rc;
	FILE *f = fd < 0 ? NULL : fdopen(fd, "r");

	if (!f) {
		err_sys(err, ST_FILE, errno, "cannot open %s", path);
		if (fd >= 0)
			close(fd);
		return -1;
	}
	rc = take_lines(l, f, path, img, err);
	fclose(f);
	return rc;
}
