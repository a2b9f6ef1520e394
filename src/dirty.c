// SPDX-License-Identifier: GPL-2.0-or-later
#include "dirty.h"

#include "broker.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

struct record {
	unsigned round; /* 1: what the first sync finds */
	unsigned block;
	uint64_t offset, len;
	uint8_t fill;
};

struct dirty {
	struct image *img;
	struct record *records; /* ascending rounds */
	size_t n, room, next;
	unsigned round, rounds;
	struct bitmap *bitmaps; /* per block */
};

/* ---- the private copies ---- */

static int copy_extents(const struct image *img, struct block *b, int to, struct error *err)
{
	struct extent e;
	uint8_t buf[65536];
	uint64_t at = 0;

	for (;;) {
		if (image_next_data(img, b, at, &e, err))
			return -1;
		if (!e.len)
			return 0;
		for (at = e.offset; at < e.offset + e.len; at += sizeof(buf)) {
			uint64_t left = e.offset + e.len - at;
			size_t n = left < sizeof(buf) ? (size_t)left : sizeof(buf);

			if (image_read(img, b, at, buf, n, err))
				return -1;
			if (pwrite(to, buf, n, (off_t)at) != (ssize_t)n)
				return err_sys(err, ST_FILE, errno, "cannot copy block %s",
					       b->name);
		}
		at = e.offset + e.len;
	}
}

static int make_private(struct image *img, struct block *b, struct error *err)
{
	int fd = memfd_create("migtool-replay", MFD_CLOEXEC);

	if (fd < 0 || ftruncate(fd, (off_t)b->size)) {
		err_sys(err, ST_NOMEM, errno, "cannot make a private copy of block %s", b->name);
		if (fd >= 0)
			close(fd);
		return -1;
	}
	if (copy_extents(img, b, fd, err)) {
		close(fd);
		return -1;
	}
	/* under the number that the image knows */
	if (dup3(fd, b->fd, O_CLOEXEC) < 0) {
		err_sys(err, ST_NOMEM, errno, "cannot take a private copy of block %s", b->name);
		close(fd);
		return -1;
	}
	close(fd);
	return 0;
}

/* ---- the record ---- */

static int bad_line(struct error *err, const char *path, unsigned line, const char *what)
{
	return err_set(err, ST_DATA, "%s:%u: %s", path, line, what);
}

static int add_record(struct dirty *d, const struct record *r, struct error *err)
{
	if (d->n == d->room) {
		size_t room = d->room ? 2 * d->room : 64;
		struct record *more = realloc(d->records, room * sizeof(*more));

		if (!more)
			return err_set(err, ST_NOMEM, "no memory for %zu dirty records", room);
		d->records = more;
		d->room = room;
	}
	d->records[d->n++] = *r;
	return 0;
}

static int parse_write(struct dirty *d, char *args, const char *path, unsigned line,
		       struct error *err)
{
	char *name = strtok(args, " \t\n"), *num[3], *end;
	struct record r = { .round = d->rounds };
	uint64_t v[3];
	struct block *b;

	for (int i = 0; i < 3; i++) {
		num[i] = strtok(NULL, " \t\n");
		if (!num[i])
			return bad_line(err, path, line,
					"expected: write BLOCK OFFSET LENGTH BYTE");
		errno = 0;
		v[i] = strtoull(num[i], &end, 0);
		if (errno || *end || !isdigit((unsigned char)num[i][0]))
			return bad_line(err, path, line, "no number");
	}
	b = image_find(d->img, name, strlen(name));
	if (!b)
		return bad_line(err, path, line, "no such block in the image");
	if (!d->rounds)
		return bad_line(err, path, line, "a write before the first `round`");
	if (v[0] > b->size || v[1] > b->size - v[0] || !v[1] || v[2] > 255)
		return bad_line(err, path, line, "outside the block, empty, or no byte");
	r.block = b->index;
	r.offset = v[0];
	r.len = v[1];
	r.fill = (uint8_t)v[2];
	return add_record(d, &r, err);
}

static int parse_line(struct dirty *d, char *text, const char *path, unsigned line,
		      struct error *err)
{
	text += strspn(text, " \t");
	if (*text == '#' || *text == '\n' || !*text)
		return 0;
	if (!strncmp(text, "round", 5) && !text[5 + strspn(text + 5, " \t\n")]) {
		d->rounds++;
		return 0;
	}
	if (!strncmp(text, "write ", 6))
		return parse_write(d, text + 6, path, line, err);
	return bad_line(err, path, line, "expected `round` or `write`");
}

static int load(struct dirty *d, const char *path, struct error *err)
{
	int fd = broker_open(path, O_RDONLY, 0);
	FILE *f = fd >= 0 ? fdopen(fd, "r") : NULL;
	char *text = NULL;
	size_t cap = 0;
	unsigned line = 0;
	int rc = 0;

	if (!f) {
		err_sys(err, ST_FILE, errno, "cannot open %s", path);
		if (fd >= 0)
			close(fd);
		return -1;
	}
	while (!rc && getline(&text, &cap, f) >= 0)
		rc = parse_line(d, text, path, ++line, err);
	free(text);
	fclose(f);
	return rc;
}

struct dirty *dirty_replay(struct image *img, const char *path, struct error *err)
{
	struct dirty *d = calloc(1, sizeof(*d));
	int rc = 0;

	if (d)
		d->bitmaps = calloc(img->nblocks, sizeof(*d->bitmaps));
	if (!d || !d->bitmaps) {
		free(d);
		err_set(err, ST_NOMEM, "no memory for dirty bitmaps");
		return NULL;
	}
	d->img = img;
	for (unsigned i = 0; !rc && i < img->nblocks; i++) {
		if (bitmap_init(&d->bitmaps[i], img->blocks[i].size / img->target_page))
			rc = err_set(err, ST_NOMEM, "no memory for dirty bitmaps");
		else
			rc = make_private(img, &img->blocks[i], err);
	}
	if (rc || load(d, path, err)) {
		dirty_free(d);
		return NULL;
	}
	return d;
}

void dirty_free(struct dirty *d)
{
	if (!d)
		return;
	for (unsigned i = 0; i < d->img->nblocks; i++)
		bitmap_free(&d->bitmaps[i]);
	free(d->bitmaps);
	free(d->records);
	free(d);
}

/* ---- rounds ---- */

bool dirty_pending(const struct dirty *d)
{
	return d->round < d->rounds;
}

static int apply(struct dirty *d, const struct record *r, struct error *err)
{
	const struct block *b = &d->img->blocks[r->block];
	uint32_t page = d->img->target_page;
	uint8_t fill[4096];

	memset(fill, r->fill, sizeof(fill));
	for (uint64_t done = 0; done < r->len;) {
		size_t n = r->len - done < sizeof(fill) ? (size_t)(r->len - done) : sizeof(fill);

		if (pwrite(b->fd, fill, n, (off_t)(r->offset + done)) != (ssize_t)n)
			return err_sys(err, ST_FILE, errno, "cannot replay a write to %s", b->name);
		done += n;
	}
	bitmap_set(&d->bitmaps[r->block], r->offset / page,
		   (r->offset + r->len - 1) / page - r->offset / page + 1);
	return 0;
}

int64_t dirty_sync(struct dirty *d, struct error *err)
{
	int64_t pages = 0;

	for (unsigned i = 0; i < d->img->nblocks; i++)
		bitmap_clear(&d->bitmaps[i], 0, d->bitmaps[i].bits);
	d->round++;
	for (; d->next < d->n && d->records[d->next].round == d->round; d->next++)
		if (apply(d, &d->records[d->next], err))
			return -1;
	for (unsigned i = 0; i < d->img->nblocks; i++)
		pages += (int64_t)bitmap_count(&d->bitmaps[i]);
	return pages;
}

const struct bitmap *dirty_bitmap(const struct dirty *d, const struct block *b)
{
	return &d->bitmaps[b->index];
}
