// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * How a page gets into a destination.
 *
 * Everything happens in units of 4096 bytes, the grain of the digest, whatever the target's page
 * is. The bitmap `present` has a bit for each unit that is not zero; what it does not mark is a
 * hole, because a fresh file is one. That gives the rules:
 *
 *   - a zero unit that is not present needs nothing at all;
 *   - a zero unit that is present is read, taken out of the sum, punched, and no longer present;
 *   - a unit that is present is read and taken out of the sum before it is written;
 *   - a unit that is not zero is written, put into the sum, and present.
 *
 * So sum and present always tell the truth about the file, and a page may come any number of times.
 * A block device has old content instead of holes; `stale` marks it until something came or
 * image_sync zeroes it.
 *
 * hugetlbfs takes no write(2), only stores into a mapping. A huge page is allocated before the
 * first store, so that a lack of them is ENOSPC. The store itself is process_vm_writev() into our
 * own mapping: if somebody truncates the file, that is EFAULT where memcpy would be SIGBUS.
 *
 * Threads: callers promise that no page is placed by two at once. Neighbouring pages may be, so
 * bitmaps are changed atomically; the sum is changed once per call, under the block's lock.
 */
#include "image-internal.h"

#include "zero.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

/* What one call does to the sum. */
struct change {
	struct digest in, out;
};

/* ---- opening ---- */

int place_open(struct image *img, struct block *b, bool stale, struct error *err)
{
	struct block_priv *p = block_priv(b);
	size_t units = (size_t)(b->size / UNIT);

	(void)img;
	if (bitmap_init(&p->present, units) < 0 || (stale && bitmap_init(&p->stale, units) < 0))
		return err_set(err, ST_NOMEM,
			       "out of memory for the bitmap of block %s (%" PRIu64 " bytes)",
			       b->name, b->size);
	if (stale)
		bitmap_set(&p->stale, 0, units);
	if (p->file.kind != FILE_HUGE || b->size == 0)
		return 0;
	if (bitmap_init(&p->huge, (size_t)(b->size / p->file.page)) < 0)
		return err_set(err, ST_NOMEM, "out of memory");
	/* MAP_NORESERVE: else all huge pages would have to be there now, holes or not */
	p->map = mmap(NULL, (size_t)b->size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE,
		      p->file.fd, 0);
	if (p->map == MAP_FAILED) {
		p->map = NULL;
		return err_sys(err, ST_FILE, errno, "cannot map %s", p->file.path);
	}
	return 0;
}

int place_open_shared(struct block *b, struct error *err)
{
	if (bitmap_init(&block_priv(b)->present, (size_t)(b->size / UNIT)) == 0)
		return 0;
	return err_set(err, ST_NOMEM, "out of memory for the bitmap of block %s", b->name);
}

void place_close(struct block *b)
{
	struct block_priv *p = block_priv(b);

	if (p->map)
		munmap(p->map, (size_t)b->size);
	p->map = NULL;
	bitmap_free(&p->present);
	bitmap_free(&p->stale);
	bitmap_free(&p->huge);
}

/* ---- writing ---- */

void image_came(const struct image *img, const struct block *b, struct bitmap *map)
{
	const struct bitmap *present = &block_priv(b)->present;
	size_t units = img->target_page / UNIT, end = (size_t)(b->size / UNIT), from, to;

	for (from = 0; (from = bitmap_next_set(present, from, end)) < end; from = to) {
		size_t first = (from + units - 1) / units;

		to = bitmap_next_clear(present, from, end);
		if (to / units > first)
			bitmap_set(map, first, to / units - first);
	}
}

uint64_t image_placed_bytes(const struct image *img)
{
	uint64_t units = 0;

	for (unsigned i = 0; i < img->nblocks; i++)
		units += bitmap_count(&block_priv(&img->blocks[i])->present);
	return units * UNIT;
}

static int write_failed(const struct image *img, const struct block *b, uint64_t offset, int errnum,
			struct error *err)
{
	const struct image_file *f = &block_priv(b)->file;
	uint64_t total = 0;

	if (errnum != ENOSPC && errnum != EDQUOT)
		return err_sys(err, ST_FILE, errnum, "cannot write %s at %" PRIu64, f->path,
			       offset);
	for (unsigned i = 0; i < img->nblocks; i++)
		total += img->blocks[i].size;
	err_set(err, ST_FILE, "%s: %s (%" PRIu64 " of %" PRIu64 " bytes placed)", f->path,
		f->kind == FILE_HUGE ? "no huge pages left"
		: errnum == EDQUOT   ? "disk quota exceeded"
				     : "no space left on the device",
		image_placed_bytes(img), total);
	err->sys = errnum;
	if (f->kind == FILE_HUGE)
		err_hint(err, "raise /proc/sys/vm/nr_hugepages");
	return -1;
}

/* Sees to it that the huge pages of a run exist. */
static int huge_reserve(struct block_priv *p, uint64_t offset, size_t len)
{
	uint64_t page = p->file.page;

	for (uint64_t i = offset / page; i * page < offset + len; i++) {
		if (bitmap_test(&p->huge, i))
			continue;
		/* two threads may both come here: the second call finds the page and does nothing
		 */
		while (fallocate(p->file.fd, 0, (off_t)(i * page), (off_t)page) < 0)
			if (errno != EINTR)
				return -1;
		bitmap_set_atomic(&p->huge, i, 1);
	}
	return 0;
}

static int huge_write(struct block_priv *p, uint64_t offset, const void *buf, size_t len)
{
	if (huge_reserve(p, offset, len) < 0)
		return -1;
	while (len > 0) {
		struct iovec from = { (void *)(uintptr_t)buf, len }, to = { p->map + offset, len };
		ssize_t n = process_vm_writev(getpid(), &from, 1, &to, 1, 0);

		if (n < 0)
			return -1;
		buf = (const uint8_t *)buf + n;
		offset += (uint64_t)n;
		len -= (size_t)n;
	}
	return 0;
}

static int write_run(struct block_priv *p, uint64_t offset, const void *buf, size_t len)
{
	return p->file.kind == FILE_HUGE ? huge_write(p, offset, buf, len)
					 : image_file_write(&p->file, offset, buf, len);
}

static int zero_file(struct block_priv *p, uint64_t offset, uint64_t len)
{
	static const uint8_t zeros[64 << 10];

	if (p->file.kind != FILE_HUGE)
		return image_file_zero(&p->file, offset, len);
	while (len > 0) {
		size_t n = len < sizeof(zeros) ? (size_t)len : sizeof(zeros);

		if (huge_write(p, offset, zeros, n) < 0)
			return -1;
		offset += n;
		len -= n;
	}
	return 0;
}

int place_write(struct image *img, struct block *b, uint64_t offset, const void *buf, size_t len,
		struct error *err)
{
	return write_run(block_priv(b), offset, buf, len) < 0
		       ? write_failed(img, b, offset, errno, err)
		       : 0;
}

/* ---- what happens to a run ---- */

/* Takes what is in a run out of the sum, before it is overwritten. */
static int forget(struct image *img, struct block *b, uint64_t offset, uint64_t len,
		  struct change *c, struct error *err)
{
	struct block_priv *p = block_priv(b);
	size_t end = (size_t)((offset + len) / UNIT), next;
	uint8_t old[8 * UNIT];

	for (size_t i = bitmap_next_set(&p->present, (size_t)(offset / UNIT), end); i < end;
	     i = bitmap_next_set(&p->present, next, end)) {
		next = bitmap_next_clear(&p->present, i, end);
		if (next - i > sizeof(old) / UNIT)
			next = i + sizeof(old) / UNIT;
		if (image_file_read(&p->file, img->path, (uint64_t)i * UNIT, old, (next - i) * UNIT,
				    err) < 0)
			return -1;
		for (size_t k = i; k < next; k++)
			digest_add(&c->out, digest_page(&b->digest, (uint64_t)k * UNIT,
							old + (k - i) * UNIT, UNIT));
	}
	return 0;
}

/* Zeroes what `marks` marks in a run, and clears the marks. */
static int zero_marked(struct image *img, struct block *b, struct bitmap *marks, uint64_t offset,
		       uint64_t len, struct error *err)
{
	size_t end = (size_t)((offset + len) / UNIT), next;

	for (size_t i = bitmap_next_set(marks, (size_t)(offset / UNIT), end); i < end;
	     i = bitmap_next_set(marks, next, end)) {
		next = bitmap_next_clear(marks, i, end);
		if (zero_file(block_priv(b), (uint64_t)i * UNIT, (uint64_t)(next - i) * UNIT) < 0)
			return write_failed(img, b, (uint64_t)i * UNIT, errno, err);
		bitmap_clear_atomic(marks, i, next - i);
	}
	return 0;
}

static int place_zero_run(struct image *img, struct block *b, uint64_t offset, uint64_t len,
			  struct change *c, struct error *err)
{
	struct block_priv *p = block_priv(b);

	if (forget(img, b, offset, len, c, err) < 0 ||
	    zero_marked(img, b, &p->present, offset, len, err) < 0)
		return -1;
	return p->stale.words ? zero_marked(img, b, &p->stale, offset, len, err) : 0;
}

static int place_data_run(struct image *img, struct block *b, uint64_t offset, const uint8_t *buf,
			  size_t len, struct change *c, struct error *err)
{
	struct block_priv *p = block_priv(b);

	if (forget(img, b, offset, len, c, err) < 0)
		return -1;
	for (size_t at = 0; at < len; at += UNIT)
		digest_add(&c->in, digest_page(&b->digest, offset + at, buf + at, UNIT));
	if (place_write(img, b, offset, buf, len, err) < 0)
		return -1;
	bitmap_set_atomic(&p->present, (size_t)(offset / UNIT), len / UNIT);
	if (p->stale.words)
		bitmap_clear_atomic(&p->stale, (size_t)(offset / UNIT), len / UNIT);
	return 0;
}

void place_account(struct block *b, struct digest in, struct digest out)
{
	struct block_priv *p = block_priv(b);

	pthread_mutex_lock(&p->lock);
	digest_add(&p->sum, in);
	digest_sub(&p->sum, out);
	p->came = true;
	pthread_mutex_unlock(&p->lock);
}

bool image_block_came(const struct block *b)
{
	struct block_priv *p = block_priv(b);
	bool came;

	pthread_mutex_lock(&p->lock);
	came = p->came;
	pthread_mutex_unlock(&p->lock);
	return came;
}

/* ---- the interface ---- */

static int check_place(const struct image *img, const struct block *b, uint64_t offset,
		       uint64_t len, struct error *err)
{
	if (block_priv(b)->shared || block_priv(b)->frozen)
		return err_set(err, ST_DATA, "block %s, offset 0x%" PRIx64 ": a page of %s",
			       b->name, offset,
			       block_priv(b)->shared ? "shared memory, which is not to be sent"
						     : "an image that is complete already");
	return image_check_range(img, b, offset, len, err);
}

int image_place(struct image *img, struct block *b, uint64_t offset, const void *buf, size_t len,
		struct error *err)
{
	const uint8_t *data = buf;
	struct change c = { 0 };
	size_t end;

	if (check_place(img, b, offset, len, err) < 0)
		return -1;
	for (size_t at = 0; at < len; at = end) {
		bool zero = zero_is(data + at, UNIT);
		int r;

		for (end = at + UNIT; end < len && zero_is(data + end, UNIT) == zero; end += UNIT)
			;
		r = zero ? place_zero_run(img, b, offset + at, end - at, &c, err)
			 : place_data_run(img, b, offset + at, data + at, end - at, &c, err);
		if (r < 0)
			return -1;
	}
	place_account(b, c.in, c.out);
	return 0;
}

int image_place_zero(struct image *img, struct block *b, uint64_t offset, uint64_t len,
		     struct error *err)
{
	struct change c = { 0 };

	if (check_place(img, b, offset, len, err) < 0 ||
	    place_zero_run(img, b, offset, len, &c, err) < 0)
		return -1;
	place_account(b, c.in, c.out);
	return 0;
}

/* ---- what is there ---- */

int image_get_page(const struct image *img, const struct block *b, uint64_t offset, void *buf,
		   size_t len, struct error *err)
{
	if (image_check_range(img, b, offset, len, err) < 0)
		return -1;
	return image_file_read(&block_priv(b)->file, img->path, offset, buf, len, err);
}

void image_block_digest(const struct block *b, struct digest *out)
{
	struct block_priv *p = block_priv(b);

	pthread_mutex_lock(&p->lock);
	*out = p->sum;
	pthread_mutex_unlock(&p->lock);
}

void image_digest(const struct image *img, struct digest *out)
{
	struct digest sum;

	memset(out, 0, sizeof(*out));
	for (unsigned i = 0; i < img->nblocks; i++) {
		image_block_digest(&img->blocks[i], &sum);
		digest_add(out, sum);
	}
}

int place_settle(struct image *img, struct block *b, struct error *err)
{
	struct block_priv *p = block_priv(b);

	return p->stale.words ? zero_marked(img, b, &p->stale, 0, b->size, err) : 0;
}
