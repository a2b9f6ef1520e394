// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A guest that waits, and whoever comes with the rest of its memory. Behind COMMIT nobody else is
 * let in than who goes on with the session that the guest was handed over in, or a new process that
 * goes on with "any"; he has to have the blocks, and the files unchanged if he says what they are.
 * A stranger is refused, and the guest waits on.
 *
 * Then the stream begins as always, but for LISTEN: the guest is there, so before LISTENING CAME
 * tells which of its pages are (by units: what is placed at once). COMMIT gives nothing up; it says
 * that the source has marked them, and serves. What was on its way when the connection broke is in
 * neither end's books as come, and is sent once more: a page that did arrive is left as it is, for
 * the guest may have written to it since.
 *
 * Both ends sum what comes from then on, and the digest says so (digest-scope).
 */
#include "pull.h"

#include "log.h"
#include "wire-postcopy.h"

#include <stdio.h>
#include <string.h>

/* ---- which pages are there ---- */

static int tell(struct target *t, const struct pages_came *c, const struct bitmap *map,
		struct error *err)
{
	uint8_t bytes[PAGES_CAME_HEAD + PAGES_CAME_BITS / 8];
	size_t len = pages_came_pack(c, map, bytes);

	return target_say(t, RP_CAME, bytes, (uint32_t)len, err);
}

static int tell_all(struct target *t, const struct bitmap *map, struct error *err)
{
	struct pull *p = t->ss->lazy->pull;
	size_t at = 0;

	while ((at = bitmap_next_set(map, at, map->bits)) < map->bits) {
		size_t run = bitmap_next_clear(map, at, map->bits) - at, rest = map->bits - at;
		bool all = run == rest || run >= PAGES_CAME_BITS;
		struct pages_came c = { .unit = p->main.unit, .first = at };

		c.n = all ? run : rest < PAGES_CAME_BITS ? rest : PAGES_CAME_BITS;
		if (tell(t, &c, all ? NULL : map, err))
			return -1;
		at += (size_t)c.n;
	}
	return 0;
}

int pull_tell_came(struct target *t, struct error *err)
{
	struct pull *p = t->ss->lazy->pull;
	struct bitmap map;
	int rc;

	if (bitmap_init(&map, p->got.bits))
		return err_set(err, ST_NOMEM, "no memory for the list of pages that have come");
	memcpy(map.words, p->got.words, (map.bits + 63) / 64 * sizeof(*map.words));
	pull_ahead_mark(p, &t->img->blocks[0], &map);
	rc = tell_all(t, &map, err);
	bitmap_free(&map);
	return rc;
}

/* ---- another try ---- */

void pull_fail(struct pull *p, const struct error *err)
{
	pthread_mutex_lock(&p->lock);
	if (!p->failed)
		p->failure = *err;
	p->failed = true;
	if (p->attached)
		session_fail(p->t->ss, err);
	pthread_mutex_unlock(&p->lock);
}

static int failure(struct pull *p, struct error *err)
{
	int rc = 0;

	pthread_mutex_lock(&p->lock);
	if (p->failed) {
		*err = p->failure;
		rc = -1;
	}
	pthread_mutex_unlock(&p->lock);
	return rc;
}

int pull_again(struct target *t, struct error *err)
{
	struct pull *p = t->ss->lazy->pull;

	pthread_mutex_lock(&p->lock);
	p->t = t;
	p->attached = true;
	pthread_mutex_unlock(&p->lock);
	return failure(p, err);
}

int pull_look(struct target *t, struct error *err)
{
	struct session *ss = t->ss;
	struct lazy *l = ss->lazy;

	if (failure(l->pull, err))
		return -1;
	if (!pager_guest_ended(l->pager))
		return 0;
	ss->serving = false;
	l->over = true;
	if (l->caught && !ss->cfg->push_off) {
		caught_early(l, err);
		return -1;
	}
	log_info("the guest has ended while it waited for its memory");
	ss->done_before = true;
	return 0;
}

bool pull_has_image(const struct target *t)
{
	return t->ss->lazy->pull->img;
}

void pull_forget(struct target *t)
{
	if (t->img == t->ss->lazy->pull->img)
		t->img = NULL;
	t->found = FOUND_NOTHING;
}

void pull_found(struct target *t)
{
	struct session *ss = t->ss;

	ss->paused = false;
	ss->recovered = true;
	events_status(&ss->events, MIG_POSTCOPY_RECOVER);
}

/* ---- who comes ---- */

static int judge_session(const struct target *t, struct error *err)
{
	const struct session *ss = t->ss;
	const struct pull *p = ss->lazy->pull;
	const struct greeting *g = &t->greeting;
	const uint8_t *id = ss->first;

	if (!g->resume ||
	    (ss->knows_first && g->knows_session && memcmp(g->resumed, id, sizeof(ss->first)))) {
		char of[64] = "";

		if (ss->knows_first)
			snprintf(of, sizeof(of), ", which is that of session %02x%02x%02x%02x",
				 id[0], id[1], id[2], id[3]);
		err_set(err, ST_UNSUPPORTED, "a guest waits here for the rest of its memory%s", of);
		return err_hint(err, "its source goes on with it: send --resume --cap "
				     "postcopy-ram=on, with the same IMAGE");
	}
	if (!p->has_source || !g->has_image || digest_equal(p->source, g->image))
		return 0;
	err_set(err, ST_UNSUPPORTED,
		"the guest's memory began to come from another file, or from this one before it "
		"was "
		"changed");
	return err_hint(err, "send --resume --force, if it is an exact copy");
}

static bool same_blocks(const struct image *img, const struct greeting *g)
{
	if (g->nblocks != img->nblocks || g->page_size != img->target_page)
		return false;
	for (unsigned i = 0; i < g->nblocks; i++)
		if (strcmp(g->blocks[i].name, img->blocks[i].name) ||
		    g->blocks[i].size != img->blocks[i].size)
			return false;
	return true;
}

/* What came ahead is kept by pages of a size, which the fault thread reads: it stays that. */
static int judge_page(const struct pull *p, const struct greeting *g, struct error *err)
{
	if (!p->unnamed || !p->ahead || g->page_size == p->img->target_page)
		return 0;
	err_set(err, ST_UNSUPPORTED,
		"a source with pages of %u bytes began to send the guest's memory, and this one "
		"has "
		"pages of %u bytes",
		p->img->target_page, g->page_size);
	return err_hint(err, "send from a host with the first one's pages, or start recv --resume "
			     "anew");
}

int pull_judge_again(struct target *t, struct error *err)
{
	struct session *ss = t->ss;
	struct pull *p = ss->lazy->pull;
	const struct greeting *g = &t->greeting;

	if ((ss->serving && judge_session(t, err)) || judge_page(p, g, err))
		return -1;
	if (p->unnamed ? pull_take_blocks(t, err) : !same_blocks(p->img, g)) {
		err_set(err, ST_UNSUPPORTED,
			"the guest here has another memory than the source's image");
		return err_hint(err, "it waits for the image that was sent first");
	}
	if (pull_judge_begun(t, err))
		return -1;
	if (g->dry_run)
		return 0;
	if (ss->serving && !ss->knows_first)
		pull_first(t);
	t->img = p->img;
	t->found = ss->serving ? FOUND_GUEST : FOUND_READY;
	if (ss->serving)
		return 0;
	/* nobody has given the guest up: its source begins anew, and may be another one */
	return pull_ahead_forget(p, err) || pull_open_state(t, err) ? -1 : 0;
}
