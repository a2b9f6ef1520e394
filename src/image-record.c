// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What stands beside an IMAGE.part that can be gone on with: IMAGE.part.session, one line with the
 * id of the session that began it. It tells people and sources whose .part that is; what is in the
 * .part is never believed for it, digests decide.
 *
 * In place it has a second use: as long as it is there, IMAGE is neither what it was nor what was
 * sent. So it is written before the first page, and removed once all is durable.
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
#include <sys/stat.h>
#include <unistd.h>

#define RECORD_HEAD "migtool-session 1 "

char *record_name(const char *final, struct error *err)
{
	return image_format(err, "%s.part.session", final);
}

int record_write(const char *path, const uint8_t session[IMAGE_SESSION_LEN], struct error *err)
{
	char text[sizeof(RECORD_HEAD) + 2 * IMAGE_SESSION_LEN + 1];
	struct image_file f = IMAGE_FILE_NONE;
	int n = snprintf(text, sizeof(text), RECORD_HEAD), r = 0;

	for (int i = 0; i < IMAGE_SESSION_LEN; i++)
		n += snprintf(text + n, sizeof(text) - (size_t)n, "%02x", session[i]);
	text[n++] = '\n';
	broker_unlink(path);
	if (image_file_open(&f, path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0600, err) < 0)
		return -1;
	/* hugetlbfs takes no write: then it only cannot be told whose .part it is */
	if (f.kind == FILE_HUGE)
		broker_unlink(path);
	else if (image_file_write(&f, 0, text, (size_t)n) < 0 || fsync(f.fd) < 0)
		r = err_sys(err, ST_FILE, errno, "cannot write %s", path);
	image_file_close(&f);
	return r;
}

static int digit(char c)
{
	return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool record_read(const char *path, uint8_t session[IMAGE_SESSION_LEN])
{
	size_t head = strlen(RECORD_HEAD), want = head + 2 * IMAGE_SESSION_LEN + 1;
	char text[128];
	int fd = broker_open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK, 0);
	ssize_t n = fd < 0 ? -1 : pread(fd, text, sizeof(text), 0);

	if (fd >= 0)
		close(fd);
	if (n != (ssize_t)want || memcmp(text, RECORD_HEAD, head) || text[want - 1] != '\n')
		return false;
	for (int i = 0; i < IMAGE_SESSION_LEN; i++) {
		int high = digit(text[head + 2 * i]), low = digit(text[head + 2 * i + 1]);

		if (high < 0 || low < 0)
			return false;
		session[i] = (uint8_t)(high << 4 | low);
	}
	return true;
}

void record_remove(const char *path)
{
	if (path && broker_unlink(path) < 0 && errno != ENOENT)
		log_warn("cannot remove %s: %s", path, strerror(errno));
}

/* ---- what a transfer could go on with ---- */

static int look_at_part(const char *final, struct image_start *s, struct error *err)
{
	char *part = image_format(err, "%s.part", final);
	bool complete;
	int r = part ? part_probe(part, &complete, err) : -1;

	if (r > 0)
		s->kind = complete ? START_COMPLETE : START_PART;
	free(part);
	return r < 0 ? -1 : 0;
}

int image_find_postcopy(const char *path, struct manifest **m, struct error *err)
{
	struct image_start start;
	char *final, *part;
	struct stat st;
	int fd, r = -1;

	*m = NULL;
	if (image_find_start(path, false, &start, err) < 0)
		return -1;
	if (start.kind != START_PART)
		return 0;
	final = image_final_name(path, err);
	part = final ? image_format(err, "%s.part", final) : NULL;
	fd = part ? broker_open(part, O_PATH | O_NOFOLLOW, 0) : -1;
	if (fd >= 0 && !fstat(fd, &st))
		r = S_ISDIR(st.st_mode) ? image_dir_manifest(part, m, err) : 0;
	else if (part)
		r = err_sys(err, ST_FILE, errno, "cannot look at %s", part);
	if (*m && !(*m)->postcopy) {
		manifest_free(*m);
		*m = NULL;
	}
	if (fd >= 0)
		close(fd);
	free(part);
	free(final);
	return r;
}

int image_find_start(const char *path, bool in_place, struct image_start *s, struct error *err)
{
	struct existing ex;
	char *record;
	int r;

	memset(s, 0, sizeof(*s));
	if (part_examine(path, &ex, err) < 0)
		return -1;
	record = record_name(ex.path, err);
	r = record ? 0 : -1;
	if (!r)
		s->known = record_read(record, s->session);
	if (!r && !in_place)
		r = look_at_part(ex.path, s, err);
	else if (!r && !ex.empty && (s->known || ex.kind == EXISTS_DEVICE))
		s->kind = START_PART;
	if (!r && s->kind == START_NOTHING && !ex.empty)
		s->kind = START_IMAGE;
	if (s->kind != START_PART && s->kind != START_COMPLETE)
		s->known = false; /* a record alone is of nothing */
	free(record);
	free(ex.path);
	return r;
}
