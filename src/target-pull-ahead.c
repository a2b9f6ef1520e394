// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The stages of what comes ahead of a guest (target-ahead.c): taken before LISTEN, taken back by
 * DISCARD, settled with LISTENING, and in the guest before its memory is whole. A source that comes
 * back is told that it has come, whether or not the guest has it by then.
 */
#include "pull.h"

#include "log.h"
#include "wire-postcopy.h"

#include <stdlib.h>
#include <string.h>

int pull_ahead_open(struct target *t, struct error *err)
{
	struct pull *p = t->ss->lazy->pull;

	if (!t->start_done || t->postcopy != POSTCOPY_NONE || t->found == FOUND_GUEST ||
	    !(pull_features(t) & FEATURE_AHEAD))
		return err_set(err, ST_DATA, "a page before COMMIT");
	if (p->main.ahead)
		return 0;
	if (!p->ahead)
		p->ahead = ahead_new(t->ss->lazy, t->img, p->keeps, err);
	if (!p->ahead || pull_lane_open(&p->main, t, &t->ss->stream, 0, false, err))
		return -1;
	p->main.ahead = p->ahead;
	return 0;
}

static int discard(struct pull *p, const struct postcopy_discard *d, struct error *err)
{
	const struct image *img = p->t->img;
	const struct block *b = image_find(img, d->block, strlen(d->block));
	char shown[520];

	if (!b)
		return err_set(err, ST_DATA, "POSTCOPY_RAM_DISCARD of the unknown block '%s'",
			       log_escape(shown, sizeof(shown), d->block, strlen(d->block)));
	for (unsigned i = 0; i < d->n; i++) {
		struct extent e = postcopy_discard_range(d, i);

		if (!e.len || (e.offset | e.len) % img->target_page || e.len > b->size ||
		    e.offset > b->size - e.len)
			return err_set(err, ST_DATA,
				       "POSTCOPY_RAM_DISCARD of 0x%llx bytes at 0x%llx in block "
				       "%s of 0x%llx bytes",
				       (unsigned long long)e.len, (unsigned long long)e.offset,
				       b->name, (unsigned long long)b->size);
		if (ahead_drop(p->ahead, b, e.offset, e.len, &p->main.sum, err))
			return -1;
	}
	return 0;
}

int load_guest_discard(struct target *t, uint32_t len, struct error *err)
{
	struct postcopy_discard d;
	uint8_t *bytes = malloc(len ? len : 1);
	int rc;

	if (!bytes)
		return err_set(err, ST_NOMEM, "no memory for %u bytes of postcopy", len);
	rc = pull_ahead_open(t, err) || stream_read(&t->ss->stream, bytes, len, err) ||
			     postcopy_discard_unpack(bytes, len, &d, err) ||
			     discard(t->ss->lazy->pull, &d, err)
		     ? -1
		     : 0;
	free(bytes);
	return rc;
}

int pull_ahead_settle(struct pull *p, struct error *err)
{
	if (p->main.ahead && ahead_settle(p->ahead, p->main.unit, &p->main.sum, err))
		return -1;
	p->main.ahead = NULL;
	return 0;
}

void pull_ahead_mark(const struct pull *p, const struct block *b, struct bitmap *map)
{
	struct extent e = { 0, 0 };
	uint32_t unit = p->main.unit;

	while (p->ahead && (e = ahead_next(p->ahead, b, e.offset + e.len)).len)
		bitmap_set(map, (size_t)(e.offset / unit), (size_t)((e.len + unit - 1) / unit));
}

int pull_ahead_wait(struct pull *p, struct error *err)
{
	int rc;

	if (!p->ahead)
		return 0;
	pull_placing(p, true);
	rc = ahead_wait(p->ahead, err);
	pull_placing(p, false);
	return rc;
}

int pull_ahead_forget(struct pull *p, struct error *err)
{
	return p->ahead ? ahead_forget(p->ahead, err) : 0;
}
