// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Pages on their way from a connection into the guest. What is placed at once, a unit, may be
 * larger than the pages on the wire (hugetlbfs), and then its pages come one behind the other, on
 * one connection; so pages are gathered until a unit is whole. A page alone, as one that somebody
 * waits for mostly is, goes into the guest from where the stream has it.
 */
#include "pull.h"

#include "log.h"
#include "wire-ram.h"
#include "zero.h"

#include <stdlib.h>
#include <string.h>

#define GATHER (512u << 10)

uint32_t pull_unit(uint32_t guest, uint32_t page)
{
	return guest > page ? guest : page;
}

int pull_lane_open(struct pull_lane *l, struct target *t, struct stream *s, uint32_t guest,
		   bool asked, struct error *err)
{
	uint32_t page = t->img->target_page;

	memset(l, 0, sizeof(*l));
	l->t = t;
	l->s = s;
	l->asked = asked;
	l->unit = pull_unit(guest, page);
	l->cap = l->unit > GATHER ? l->unit : GATHER;
	l->buf = malloc(l->cap);
	return l->buf ? 0 : err_set(err, ST_NOMEM, "no memory for the guest's pages");
}

void pull_lane_close(struct pull_lane *l)
{
	free(l->buf);
	l->buf = NULL;
	l->ahead = NULL;
}

/* ---- into the guest ---- */

/* The terms of one target page; is it all zero? */
static bool add_page(struct pull_lane *l, uint64_t offset, const uint8_t *p, size_t len)
{
	bool zero = true;

	for (size_t o = 0; o < len; o += DIGEST_PAGE) {
		if (zero_is(p + o, DIGEST_PAGE))
			continue;
		zero = false;
		digest_add(&l->sum, digest_page(&l->block->digest, offset + o, p + o, DIGEST_PAGE));
	}
	return zero;
}

static void account(struct pull_lane *l, uint64_t offset, const uint8_t *buf, size_t len)
{
	struct stats *st = &l->t->ss->stats;
	uint32_t page = l->t->img->target_page;
	uint64_t zeros = 0, all = len / page;

	for (size_t o = 0; o < len; o += page)
		zeros += add_page(l, offset + o, buf + o, page);
	stat_add(&st->normal, all - zeros);
	stat_add(&st->duplicate, zeros);
	stat_add(&st->postcopy_pages, all);
	stat_add(&st->travelled, (all - zeros) * page);
}

/*
 * What another lane has brought, too, is one page all the same. Who was the first says that it has
 * come: the other one cannot know whether it is stored yet.
 */
static int take_first(struct pull_lane *l, uint64_t offset, const uint8_t *buf, size_t len,
		      struct error *err)
{
	struct pull *p = l->t->ss->lazy->pull;

	for (size_t at = 0, n; at < len; at += n ? n : l->unit) {
		n = pull_win(p, offset + at, len - at);
		if (!n)
			continue;
		account(l, offset + at, buf + at, n);
		if (pull_store(p, l->block, offset + at, buf + at, n, err))
			return -1;
		pull_came(p, l->block, offset + at, n);
	}
	return 0;
}

/* What came is hashed from our copy, so the guest need not wait for that. */
static int place(struct pull_lane *l, uint64_t offset, const uint8_t *buf, size_t len,
		 struct error *err)
{
	struct lazy *lazy = l->t->ss->lazy;
	unsigned b = l->block->index;
	int rc;

	pull_placing(lazy->pull, true);
	rc = lazy_keep(lazy, offset, buf, len, err);
	if (!rc)
		rc = l->asked ? pager_arrived_asked(lazy->pager, b, offset, buf, len, err)
			      : pager_arrived(lazy->pager, b, offset, buf, len, err);
	if (!rc)
		rc = take_first(l, offset, buf, len, err);
	pull_placing(lazy->pull, false);
	return rc;
}

static int place_zero(struct pull_lane *l, uint64_t offset, uint64_t len, struct error *err)
{
	struct lazy *lazy = l->t->ss->lazy;
	struct stats *st = &l->t->ss->stats;
	unsigned b = l->block->index;
	int rc;

	stat_add(&st->duplicate, len / l->t->img->target_page);
	stat_add(&st->postcopy_pages, len / l->t->img->target_page);
	/* a page that somebody waits for, not the whole of a hole */
	pull_placing(lazy->pull, true);
	rc = l->asked && len <= l->unit
		     ? pager_arrived_asked(lazy->pager, b, offset, NULL, (size_t)len, err)
		     : pager_arrived_zero(lazy->pager, b, offset, len, err);
	pull_placing(lazy->pull, false);
	if (!rc)
		pull_came(lazy->pull, l->block, offset, len);
	return rc;
}

/* ---- gathering ---- */

static int bad_piece(const struct pull_lane *l, uint64_t offset, struct error *err)
{
	return err_set(err, ST_DATA,
		       "block %s, offset 0x%llx: a piece of a page of %u bytes that is not the "
		       "next one",
		       l->block->name, (unsigned long long)offset, l->unit);
}

/* What comes next stands at `offset`. */
static int follow(struct pull_lane *l, uint64_t offset, struct error *err)
{
	if (l->have)
		return offset == l->at + l->have ? 0 : bad_piece(l, offset, err);
	l->at = offset;
	return offset % l->unit ? bad_piece(l, offset, err) : 0;
}

/* Places the whole units that have been gathered. */
static int flush(struct pull_lane *l, struct error *err)
{
	size_t whole = l->have - l->have % l->unit;

	if (l->at + l->have == l->block->size)
		whole = l->have;
	if (!whole)
		return 0;
	if (place(l, l->at, l->buf, whole, err))
		return -1;
	l->have -= whole;
	l->at += whole;
	memmove(l->buf, l->buf + whole, l->have);
	return 0;
}

/* How much of `len` bytes fits. */
static size_t room(const struct pull_lane *l, uint64_t len)
{
	size_t n = l->cap - l->have;

	return len < n ? (size_t)len : n;
}

/* ---- what comes ahead ---- */

static int ahead_data(struct pull_lane *l, uint64_t offset, uint64_t len, struct error *err)
{
	struct stats *st = &l->t->ss->stats;
	uint32_t page = l->t->img->target_page;
	uint64_t zeros;

	if (ahead_drop(l->ahead, l->block, offset, len, &l->sum, err))
		return -1;
	for (uint64_t end = offset + len; offset < end;) {
		size_t n = end - offset < l->cap ? (size_t)(end - offset) : l->cap;
		uint8_t *to = ahead_room(l->ahead, l->block, offset);

		to = to ? to : l->buf;
		if (stream_read(l->s, to, n, err) ||
		    ahead_took(l->ahead, l->block, offset, to, n, &l->sum, &zeros, err))
			return -1;
		stat_add(&st->normal, n / page - zeros);
		stat_add(&st->duplicate, zeros);
		stat_add(&st->travelled, n - zeros * page);
		offset += n;
	}
	return 0;
}

static int ahead_zero(struct pull_lane *l, uint64_t offset, uint64_t len, struct error *err)
{
	stat_add(&l->t->ss->stats.duplicate, len / l->t->img->target_page);
	return ahead_took_zero(l->ahead, l->block, offset, len, &l->sum, err);
}

/* ---- units ---- */

static int take_data(struct pull_lane *l, uint64_t offset, uint64_t len, struct error *err)
{
	uint32_t page = l->t->img->target_page;
	const uint8_t *p;

	if (l->ahead)
		return ahead_data(l, offset, len, err);
	if (follow(l, offset, err))
		return -1;
	if (len == page && l->unit == page) {
		if (stream_peek(l->s, page, &p, err) || place(l, offset, p, page, err))
			return -1;
		stream_skip(l->s, page);
		return 0;
	}
	while (len > 0) {
		size_t n = room(l, len);

		if (stream_read(l->s, l->buf + l->have, n, err))
			return -1;
		l->have += n;
		len -= n;
		if (flush(l, err))
			return -1;
	}
	return 0;
}

/* Into the unit that is half there, as far as it goes. */
static int fill_zero(struct pull_lane *l, uint64_t *offset, uint64_t *len, uint64_t most,
		     struct error *err)
{
	size_t n = room(l, *len < most ? *len : most);

	memset(l->buf + l->have, 0, n);
	l->have += n;
	*offset += n;
	*len -= n;
	return flush(l, err);
}

static int take_zero(struct pull_lane *l, uint64_t offset, uint64_t len, struct error *err)
{
	uint64_t whole;

	if (l->ahead)
		return ahead_zero(l, offset, len, err);
	if (follow(l, offset, err))
		return -1;
	if (l->have && fill_zero(l, &offset, &len, l->unit - l->have % l->unit, err))
		return -1;
	if (l->have || !len) /* it did not reach to the unit's end */
		return 0;
	whole = offset + len == l->block->size ? len : len - len % l->unit;
	if (whole && place_zero(l, offset, whole, err))
		return -1;
	offset += whole;
	len -= whole;
	l->at = offset;
	return len ? fill_zero(l, &offset, &len, len, err) : 0;
}

/* ---- records ---- */

static int check_range(const struct pull_lane *l, uint64_t offset, uint64_t len, struct error *err)
{
	const struct block *b = l->block;

	if (len && len <= b->size && offset <= b->size - len && !(len % l->t->img->target_page))
		return 0;
	return err_set(err, ST_DATA, "block %s, offset 0x%llx: %llu bytes in a block of 0x%llx",
		       b->name, (unsigned long long)offset, (unsigned long long)len,
		       (unsigned long long)b->size);
}

/* Without CONTINUE the record names its block; a unit that is half there belongs to the last one.
 */
static int take_block(struct pull_lane *l, uint32_t flags, struct error *err)
{
	char name[256], shown[520];
	struct block *b;

	if (flags & RAM_CONTINUE)
		return l->block ? 0
				: err_set(err, ST_DATA,
					  "a page of the same block as the last one, and there "
					  "was none");
	if (wire_get_cstr(l->s, name, err))
		return -1;
	b = image_find(l->t->img, name, strlen(name));
	if (!b)
		return err_set(err, ST_DATA, "a page of the unknown block '%s'",
			       log_escape(shown, sizeof(shown), name, strlen(name)));
	if (l->have && b != l->block)
		return err_set(err, ST_DATA, "block %s: a page of %u bytes that is not whole",
			       l->block->name, l->unit);
	l->block = b;
	return 0;
}

static int get_len(struct pull_lane *l, uint32_t type, uint64_t *len, struct error *err)
{
	uint32_t pages = 1;
	uint8_t fill = 0;

	switch (type) {
	case RAM_ZERO:
		if (stream_get_u8(l->s, &fill, err))
			return -1;
		if (fill)
			return err_set(err, ST_DATA, "fill byte 0x%02x, expected 0", fill);
		break;
	case RAM_ZERO_RUN:
		return stream_get_be64(l->s, len, err);
	case RAM_RUN:
		if (stream_get_be32(l->s, &pages, err))
			return -1;
		break;
	default:
		break;
	}
	*len = (uint64_t)pages * l->t->img->target_page;
	return 0;
}

int pull_lane_record(struct pull_lane *l, uint64_t word, struct error *err)
{
	uint64_t offset = word & ~((uint64_t)l->t->img->target_page - 1), len = 0;
	uint32_t flags = (uint32_t)(word - offset), type = flags & ~(uint32_t)RAM_CONTINUE;
	bool zero = type == RAM_ZERO || type == RAM_ZERO_RUN;
	char names[64];

	if (!zero && type != RAM_PAGE && type != RAM_RUN)
		return err_set(err, ST_DATA, "a record with flags 0x%x (%s) is not understood",
			       flags, ram_flags_name(flags, names, sizeof(names)));
	if (take_block(l, flags, err) || get_len(l, type, &len, err) ||
	    check_range(l, offset, len, err))
		return -1;
	return zero ? take_zero(l, offset, len, err) : take_data(l, offset, len, err);
}

int pull_lane_rest(const struct pull_lane *l, struct error *err)
{
	return l->have ? err_set(err, ST_DATA, "block %s: a page of %u bytes that is not whole",
				 l->block->name, l->unit)
		       : 0;
}
