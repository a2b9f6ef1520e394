// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * An old copy becomes part of a destination: what is in its files already is read, another image's
 * is copied. Both in one pass that finds the zero pages, hashes the others, and tells the digest of
 * each chunk, so that a copy of any size is read once and nothing of it is kept in memory.
 */
#include "image-internal.h"

#include "wire-delta.h"
#include "zero.h"

#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

bool image_adopt_share(struct block *b, const struct block *from)
{
	/* whatever keeps it from sharing, copying finds out what is really wrong */
	return block_priv(b)->file.kind == FILE_REGULAR &&
	       block_priv(from)->file.kind == FILE_REGULAR &&
	       block_priv(from)->file.size == b->size && ioctl(b->fd, FICLONE, from->fd) == 0;
}

int image_adopt_next(const struct image *img, const struct block *b, const struct image *old,
		     const struct block *from, uint64_t at, struct extent *out, struct error *err)
{
	return old ? image_next_data(old, from, at, out, err)
		   : image_next_data(img, b, at, out, err);
}

/* A run of pages that are not zero: into the account, and into the file if it is not there yet. */
static int take_run(struct image *img, struct block *b, bool copy, uint64_t offset,
		    const uint8_t *buf, size_t len, struct error *err)
{
	if (copy && place_write(img, b, offset, buf, len, err) < 0)
		return -1;
	bitmap_set_atomic(&block_priv(b)->present, (size_t)(offset / UNIT), len / UNIT);
	return 0;
}

/* What was read of a piece; chunks[0] is the one that `offset` is in. */
static int take_piece(struct image *img, struct block *b, bool copy, uint64_t offset,
		      const uint8_t *buf, size_t len, struct digest *chunks, struct error *err)
{
	size_t run = 0; /* bytes that are gathered behind the last zero page */

	for (size_t at = 0; at < len; at += UNIT) {
		bool zero = zero_is(buf + at, UNIT);

		if (!zero) {
			digest_add(&chunks[at / DELTA_CHUNK],
				   digest_page(&b->digest, offset + at, buf + at, UNIT));
			run += UNIT;
		}
		if (run && zero &&
		    take_run(img, b, copy, offset + at - run, buf + at - run, run, err) < 0)
			return -1;
		if (zero)
			run = 0;
	}
	return run ? take_run(img, b, copy, offset + len - run, buf + len - run, run, err) : 0;
}

int image_adopt(struct image *img, struct block *b, const struct image *old,
		const struct block *from, struct extent what, uint8_t *buf, struct digest *chunks,
		struct error *err)
{
	const struct image_file *f = &block_priv(old ? from : b)->file;
	size_t nchunks = (size_t)((what.len + DELTA_CHUNK - 1) / DELTA_CHUNK), n;
	struct digest sum = { 0, 0 }, none = { 0, 0 };

	memset(chunks, 0, nchunks * sizeof(*chunks));
	for (uint64_t at = 0; at < what.len; at += n) {
		uint64_t left = what.len - at, offset = what.offset + at;

		n = left < IMAGE_ADOPT_BUF ? (size_t)left : IMAGE_ADOPT_BUF;
		if (image_file_read(f, old ? old->path : img->path, offset, buf, n, err) < 0 ||
		    take_piece(img, b, old != NULL, offset, buf, n, chunks + at / DELTA_CHUNK,
			       err) < 0)
			return -1;
	}
	for (size_t i = 0; i < nchunks; i++)
		digest_add(&sum, chunks[i]);
	place_account(b, sum, none);
	return 0;
}

/* Whole chunks around an extent, at most a piece of them. */
static struct extent piece_of(const struct block *b, struct extent e)
{
	uint64_t end = e.offset + e.len;
	struct extent p = { e.offset - e.offset % DELTA_CHUNK, 0 };

	end = (end + DELTA_CHUNK - 1) / DELTA_CHUNK * DELTA_CHUNK;
	if (end > b->size)
		end = b->size;
	p.len = end - p.offset < IMAGE_ADOPT_BUF ? end - p.offset : IMAGE_ADOPT_BUF;
	return p;
}

int image_adopt_block(struct image *img, struct block *b, const struct image *old,
		      const struct block *from, struct cancel *cancel, struct error *err)
{
	struct digest chunks[IMAGE_ADOPT_BUF / DELTA_CHUNK];
	struct digest none = { 0, 0 };
	struct extent e = { 0, 0 };
	uint8_t *buf = malloc(IMAGE_ADOPT_BUF);
	int r = buf ? 0 : err_set(err, ST_NOMEM, "out of memory");

	if (old && image_adopt_share(b, from))
		old = NULL;
	while (!r) {
		r = image_adopt_next(img, b, old, from, e.offset + e.len, &e, err);
		if (r || !e.len)
			break;
		if (cancel && cancel_fired(cancel)) {
			r = cancel_reason(cancel, err);
			break;
		}
		e = piece_of(b, e);
		r = image_adopt(img, b, old, from, e, buf, chunks, err);
	}
	/* an empty one was looked at, too */
	place_account(b, none, none);
	free(buf);
	return r;
}
