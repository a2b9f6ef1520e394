// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * One RAM section: records to the end of the section (EOS), one parser for every kind of peer.
 *
 * Pages are gathered into batches that the placer's workers store, zero records into runs. Nothing
 * of one section may still be on its way when the next begins, because the next may carry a newer
 * copy of the same page; within one section a page comes at most once (qemu-wire 2.6). A delta
 * (XBZRLE) needs the page as it is, so from the first one on a section is placed in order, here.
 */
#include "target.h"

#include "byteorder.h"
#include "codec.h"
#include "log.h"
#include "multifd-recv.h"
#include "wire-ram.h"
#include "xbzrle.h"

#include <stdlib.h>
#include <string.h>

/* ---- what is gathered ---- */

static int flush_zeros(struct target *t, struct error *err)
{
	uint64_t len = t->zeros.len;

	if (!len)
		return 0;
	t->zeros.len = 0;
	stat_add(&t->ss->stats.duplicate, len / t->img->target_page);
	return image_place_zero(t->img, t->zeros.block, t->zeros.offset, len, err);
}

static int flush_fill(struct target *t, struct error *err)
{
	struct page_batch *b = t->fill;

	t->fill = NULL;
	if (b && b->n)
		return placer_put(t->placer, b, err);
	if (b)
		placer_return(t->placer, b);
	return 0;
}

int pageload_drain(struct target *t, struct error *err)
{
	if (flush_fill(t, err) || flush_zeros(t, err))
		return -1;
	return t->placer ? placer_drain(t->placer, err) : 0;
}

/* The batch that takes one more page of the current block, at most `room` in it. */
static struct page_batch *filling(struct target *t, uint32_t room, struct error *err)
{
	if (t->fill && (t->fill->block != t->block || t->fill->n >= room) && flush_fill(t, err))
		return NULL;
	if (!t->fill) {
		t->fill = placer_get(t->placer, err);
		if (t->fill)
			batch_reset(t->fill, t->block);
	}
	return t->fill;
}

/* ---- records ---- */

static int check_range(const struct target *t, uint64_t offset, uint64_t len, struct error *err)
{
	if (len <= t->block->size && offset <= t->block->size - len)
		return 0;
	return err_set(err, ST_DATA,
		       "block %s, offset 0x%llx: %llu bytes reach beyond its end at 0x%llx",
		       t->block->name, (unsigned long long)offset, (unsigned long long)len,
		       (unsigned long long)t->block->size);
}

static int take_zero(struct target *t, uint64_t offset, uint64_t len, struct error *err)
{
	if (check_range(t, offset, len, err))
		return -1;
	if (t->zeros.len && t->zeros.block == t->block &&
	    t->zeros.offset + t->zeros.len == offset) {
		t->zeros.len += len;
		return 0;
	}
	if (flush_zeros(t, err))
		return -1;
	t->zeros.block = t->block;
	t->zeros.offset = offset;
	t->zeros.len = len;
	return 0;
}

static int take_zero_page(struct target *t, uint64_t offset, struct error *err)
{
	uint8_t fill;

	if (stream_get_u8(&t->ss->stream, &fill, err))
		return -1;
	if (fill)
		return err_set(err, ST_DATA,
			       "block %s, offset 0x%llx: fill byte 0x%02x, expected 0",
			       t->block->name, (unsigned long long)offset, fill);
	return take_zero(t, offset, t->img->target_page, err);
}

static int take_zero_run(struct target *t, uint64_t offset, struct error *err)
{
	uint64_t len;

	if (stream_get_be64(&t->ss->stream, &len, err))
		return -1;
	if (!len || len % t->img->target_page)
		return err_set(err, ST_DATA,
			       "block %s, offset 0x%llx: zero run of %llu bytes, "
			       "expected a multiple of the page",
			       t->block->name, (unsigned long long)offset, (unsigned long long)len);
	return take_zero(t, offset, len, err);
}

/* `pages` whole pages, straight from the stream into batches. */
static int take_pages(struct target *t, uint64_t offset, uint64_t pages, struct error *err)
{
	uint32_t page = t->img->target_page, room = batch_room(page);

	if (!pages || check_range(t, offset, pages * page, err))
		return pages ? -1
			     : err_set(err, ST_DATA, "block %s: a run of no pages", t->block->name);
	stat_add(&t->ss->stats.normal, pages);
	while (pages > 0) {
		struct page_batch *b = filling(t, room, err);
		uint32_t n;

		if (!b)
			return -1;
		n = pages < room - b->n ? (uint32_t)pages : room - b->n;
		if (stream_read(&t->ss->stream, batch_page(b, b->n), (size_t)n * page, err))
			return -1;
		for (; n > 0; n--, pages--, offset += page) {
			b->offset[b->n] = offset;
			b->zero[b->n++] = false;
		}
	}
	return 0;
}

static int take_page(struct target *t, uint64_t offset, struct error *err)
{
	if (!t->in_order)
		return take_pages(t, offset, 1, err);
	stat_add(&t->ss->stats.normal, 1);
	stat_add(&t->ss->stats.travelled, t->img->target_page);
	if (stream_read(&t->ss->stream, t->page, t->img->target_page, err))
		return -1;
	return image_place(t->img, t->block, offset, t->page, t->img->target_page, err);
}

static int take_run(struct target *t, uint64_t offset, struct error *err)
{
	uint32_t pages;

	if (stream_get_be32(&t->ss->stream, &pages, err))
		return -1;
	return take_pages(t, offset, pages, err);
}

static int begin_in_order(struct target *t, struct error *err)
{
	if (pageload_drain(t, err))
		return -1;
	if (!t->page)
		t->page = malloc(t->img->target_page);
	if (!t->delta)
		t->delta = malloc(t->img->target_page);
	if (!t->page || !t->delta)
		return err_set(err, ST_NOMEM, "no memory for xbzrle");
	t->in_order = true;
	return 0;
}

static int take_xbzrle(struct target *t, uint64_t offset, struct error *err)
{
	uint32_t page = t->img->target_page;
	uint8_t encoding;
	uint16_t len;

	if (check_range(t, offset, page, err) || stream_get_u8(&t->ss->stream, &encoding, err) ||
	    stream_get_be16(&t->ss->stream, &len, err))
		return -1;
	if (encoding != 1 || len > page)
		return err_set(err, ST_DATA,
			       "block %s, offset 0x%llx: xbzrle encoding %u of %u bytes, "
			       "expected 1 of at most %u",
			       t->block->name, (unsigned long long)offset, encoding, len, page);
	if (!t->in_order && begin_in_order(t, err))
		return -1;
	if (flush_zeros(t, err) || stream_read(&t->ss->stream, t->delta, len, err) ||
	    image_get_page(t->img, t->block, offset, t->page, page, err))
		return -1;
	if (xbzrle_decode(t->delta, len, t->page, page) < 0)
		return err_set(err, ST_DATA,
			       "block %s, offset 0x%llx: the xbzrle data of %u bytes is no delta "
			       "of a page of %u bytes",
			       t->block->name, (unsigned long long)offset, len, page);
	stat_add(&t->ss->stats.travelled, page);
	stat_add(&t->ss->stats.xbzrle_pages, 1);
	stat_add(&t->ss->stats.xbzrle_bytes, len);
	return image_place(t->img, t->block, offset, t->page, page, err);
}

static int take_compressed(struct target *t, uint64_t offset, struct error *err)
{
	uint32_t page = t->img->target_page, len;
	struct page_batch *b;

	if (check_range(t, offset, page, err) || stream_get_be32(&t->ss->stream, &len, err))
		return -1;
	if (!t->ss->caps.on[CAP_COMPRESS]) {
		err_set(err, ST_UNSUPPORTED,
			"the source compresses pages, which was not announced");
		return err_hint(err, "start recv with --cap compress=on");
	}
	if (!len || len > page_zlib_bound(page))
		return err_set(err, ST_DATA,
			       "block %s, offset 0x%llx: a page of %u compressed bytes, "
			       "expected 1 to %zu",
			       t->block->name, (unsigned long long)offset, len,
			       page_zlib_bound(page));
	/* a batch is either whole pages or zlib streams */
	if (t->fill && !t->fill_zlib && flush_fill(t, err))
		return -1;
	b = filling(t, placer_zlib_room(t->placer), err);
	if (!b)
		return -1;
	t->fill_zlib = true;
	stat_add(&t->ss->stats.compress_pages, 1);
	stat_add(&t->ss->stats.compress_size, len);
	if (stream_read(&t->ss->stream, placer_zlib_slot(t->placer, b, b->n, len), len, err))
		return -1;
	b->offset[b->n] = offset;
	b->zero[b->n++] = false;
	return 0;
}

/* Without CONTINUE the record names its block. */
static int take_block(struct target *t, uint32_t flags, struct error *err)
{
	char name[256], shown[520];

	if (flags & RAM_CONTINUE)
		return t->block ? 0
				: err_set(err, ST_DATA,
					  "a page of the same block as the last "
					  "one, and there was none");
	if (wire_get_cstr(&t->ss->stream, name, err))
		return -1;
	t->block = image_find(t->img, name, strlen(name));
	if (t->block)
		return 0;
	return err_set(err, ST_DATA, "a page of the unknown block '%s'",
		       log_escape(shown, sizeof(shown), name, strlen(name)));
}

static int take_record(struct target *t, uint64_t offset, uint32_t flags, struct error *err)
{
	char names[64];
	bool ours = t->ss->dialect.runs;
	uint32_t type = flags & ~(uint32_t)RAM_CONTINUE;

	if (!t->img || !t->listed)
		return err_set(err, ST_DATA, "a page before the list of blocks");
	if (t->ss->lazy)
		return err_set(err, ST_DATA, "a page before COMMIT");
	if (type != RAM_ZERO && type != RAM_PAGE && type != RAM_XBZRLE &&
	    type != RAM_COMPRESS_PAGE && !(ours && (type == RAM_RUN || type == RAM_ZERO_RUN)))
		return err_set(err, ST_DATA, "a record with flags 0x%x (%s) is not understood",
			       flags, ram_flags_name(flags, names, sizeof(names)));
	if (take_block(t, flags, err))
		return -1;
	if (type != RAM_COMPRESS_PAGE && t->fill_zlib) {
		if (flush_fill(t, err))
			return -1;
		t->fill_zlib = false;
	}
	switch (type) {
	case RAM_ZERO:
		return take_zero_page(t, offset, err);
	case RAM_PAGE:
		return take_page(t, offset, err);
	case RAM_XBZRLE:
		return take_xbzrle(t, offset, err);
	case RAM_COMPRESS_PAGE:
		return take_compressed(t, offset, err);
	case RAM_RUN:
		return take_run(t, offset, err);
	default:
		return take_zero_run(t, offset, err);
	}
}

/* ---- the section ---- */

/* A QEMU whose pages have the family's usual size does not say it: then --page-size is believed. */
static int maybe_page_size(struct target *t, struct error *err)
{
	if (t->ss->dialect.migtool || !t->ss->cfg->page_size || t->config.page_bits)
		return -1;
	return err_hint(err, "--page-size has to be the source's own, and it does not say which; "
			     "nearly all guests have the default, 4096");
}

/* Only the page's size tells the total from the flags in its low bits. */
static int bad_total(struct target *t, uint64_t total, struct error *err)
{
	err_set(err, ST_DATA,
		"the source's memory has 0x%llx bytes, expected a multiple of the page (%u)",
		(unsigned long long)total, t->ss->page_size);
	return maybe_page_size(t, err);
}

static int take_block_list(struct target *t, uint64_t total, struct error *err)
{
	struct ram_block_info *list;
	unsigned n;
	int rc;

	if (t->start_done || t->listed)
		return err_set(err, ST_DATA, "a second list of blocks");
	t->listed = true;
	if (ram_get_block_list(&t->ss->stream, total, t->ss->page_size, t->host_pages,
			       t->config.ignore_shared, &list, &n, err))
		return err->status == ST_DATA ? maybe_page_size(t, err) : -1;
	rc = load_blocks(t, list, n, err);
	free(list);
	return rc;
}

static int barrier(struct target *t, struct error *err)
{
	if (pageload_drain(t, err))
		return -1;
	return t->multifd ? multifd_recv_sync(t->multifd, err) : 0;
}

/* A flush word in START tells that this source's barrier is the word, not EOS (8.1 and later). */
static int take_flush(struct target *t, enum wire_type type, struct error *err)
{
	if (type == WIRE_SECTION_START)
		t->flush_word = true;
	return t->flush_word ? barrier(t, err) : 0;
}

/* 1: the section's data is over */
static int take_word(struct target *t, enum wire_type type, uint64_t word, struct error *err)
{
	uint64_t offset = word & ~((uint64_t)t->ss->page_size - 1);
	uint32_t flags = (uint32_t)(word - offset);

	if (flags == RAM_MEM_SIZE && type == WIRE_SECTION_START)
		return take_block_list(t, offset, err);
	if (type == WIRE_SECTION_START && !t->listed && (word & 0xfff) == RAM_MEM_SIZE)
		return bad_total(t, word & ~(uint64_t)0xfff, err);
	if ((flags == RAM_EOS || flags == RAM_MULTIFD_FLUSH) && !offset && !t->listed)
		return err_set(err, ST_DATA, "no list of blocks");
	if (flags == RAM_EOS && !offset)
		return (t->flush_word ? pageload_drain(t, err) : barrier(t, err)) ? -1 : 1;
	if (flags == RAM_MULTIFD_FLUSH && !offset)
		return take_flush(t, type, err);
	return take_record(t, offset, flags, err);
}

int pageload_section(struct target *t, enum wire_type type, struct error *err)
{
	uint64_t word;
	int rc = 0;

	t->in_order = false;
	t->fill_zlib = false;
	while (!rc) {
		if (stream_get_be64(&t->ss->stream, &word, err))
			return -1;
		rc = take_word(t, type, word, err);
	}
	if (rc < 0)
		return -1;
	if (type == WIRE_SECTION_START)
		t->start_done = true;
	return 0;
}
