// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What a destination has already: an IMAGE.part of an earlier try, which is gone on with; a
 * complete one, or an IMAGE, of which nobody knows whether the guest was handed over with it; an
 * older copy. All are compared with the source's image in the same way, and what was written down
 * about them is only used to find out whose they are.
 *
 * What is complete is never written to: it may be the only copy of a guest, and that may run.
 */
#include "target.h"

#include "delta.h"
#include "log.h"

#include <stdio.h>
#include <string.h>

static void short_id(const uint8_t id[16], char out[9])
{
	snprintf(out, 9, "%02x%02x%02x%02x", id[0], id[1], id[2], id[3]);
}

static const char *what_there_is(const struct target *t)
{
	return t->ss->cfg->in_place ? "" : ".part";
}

/* Whose is it, and does this source go on with that? */
static int judge_session(const struct target *t, const struct image_start *start, struct error *err)
{
	const struct greeting *g = &t->greeting;
	const char *image = t->ss->cfg->image, *part = what_there_is(t);
	char have[9] = "?", theirs[9];

	if (start->known)
		short_id(start->session, have);
	if (!g->resume) {
		err_set(err, ST_UNSUPPORTED,
			"%s%s is of an earlier session (%s), and the source begins a new one",
			image, part, have);
		return err_hint(err,
				"send --resume goes on with it; recv without --resume replaces it");
	}
	if (!g->knows_session || !start->known || !memcmp(g->resumed, start->session, 16))
		return 0;
	short_id(g->resumed, theirs);
	err_set(err, ST_UNSUPPORTED, "%s%s is of session %s, the source goes on with session %s",
		image, part, have, theirs);
	return err_hint(err, "that is another transfer's: name another IMAGE, or remove it");
}

/* The session that goes on here, for the record and for the answer. */
static void take_session(struct target *t, const struct image_start *start)
{
	const struct greeting *g = &t->greeting;
	char id[9];

	if (start->known)
		memcpy(t->ss->first, start->session, sizeof(start->session));
	else if (g->knows_session)
		memcpy(t->ss->first, g->resumed, sizeof(g->resumed));
	else if (!t->ss->knows_first)
		memcpy(t->ss->first, g->session, sizeof(g->session));
	if (!g->dry_run)
		t->ss->knows_first = true;
	short_id(t->ss->first, id);
	if (t->found != FOUND_NOTHING)
		log_info("going on with session %s", id);
}

/* Between two tries of ours nobody else is let in. */
static int judge_stranger(const struct target *t, struct error *err)
{
	const struct session *ss = t->ss;
	const struct greeting *g = &t->greeting;
	char ours[9];

	if (!ss->tries || !ss->knows_first ||
	    (g->resume && (!g->knows_session || !memcmp(g->resumed, ss->first, 16))))
		return 0;
	short_id(ss->first, ours);
	err_set(err, ST_UNSUPPORTED,
		"session %s is waited for, to go on with it, and the source begins another", ours);
	return err_hint(err, "send --resume goes on with a session");
}

static int need_digests(const struct target *t, const char *what, struct error *err)
{
	if (t->greeting.features & FEATURE_DELTA)
		return 0;
	return err_set(err, ST_UNSUPPORTED,
		       "%s%s cannot be %s: the source's transport has one way, or it is too old",
		       t->ss->cfg->image, what_there_is(t), what);
}

/* Something that may be the whole of it is only looked at. */
static int find_start(struct target *t, struct error *err)
{
	const struct config *cfg = t->ss->cfg;
	struct image_start start;

	if (image_find_start(cfg->image, cfg->in_place, &start, err))
		return -1;
	if (start.kind == START_IMAGE && (!t->greeting.resume || target_may_exist(t)))
		start.kind = START_NOTHING;
	if (start.kind == START_NOTHING) {
		take_session(t, &start);
		return 0;
	}
	if (judge_session(t, &start, err) || need_digests(t, "gone on with", err))
		return -1;
	t->found = start.kind == START_PART ? FOUND_PART : FOUND_COMPLETE;
	t->old = OLD_OFFER;
	take_session(t, &start);
	return 0;
}

/* IMAGE as an old copy, if there is one. */
static int find_image(struct target *t, struct error *err)
{
	const struct config *cfg = t->ss->cfg;
	const struct greeting *g = &t->greeting;
	struct image_start start;

	if (g->has_base && !cfg->delta) {
		err_set(err, ST_UNSUPPORTED,
			"the source sends deltas against an old copy (--base), and "
			"the destination was not told to use one");
		return err_hint(err, "start recv with --delta");
	}
	if (g->has_base)
		t->old = OLD_BASE;
	if (!cfg->delta || g->has_base)
		return 0;
	if (image_find_start(cfg->image, true, &start, err))
		return -1;
	if (start.kind == START_NOTHING)
		return 0;
	if (!(g->features & FEATURE_DELTA)) {
		log_warn(
			"--delta: the source cannot compare digests, so all of its memory travels");
		return 0;
	}
	t->old = OLD_OFFER;
	return 0;
}

int target_find_old(struct target *t, struct error *err)
{
	struct image_start none = { .kind = START_NOTHING };

	t->old = OLD_NONE;
	t->found = FOUND_NOTHING;
	if (!t->ss->tries) /* whoever was refused before names nothing */
		t->ss->knows_first = false;
	if (judge_stranger(t, err))
		return -1;
	if (!target_resumes(t))
		take_session(t, &none);
	else if (find_start(t, err))
		return -1;
	return t->old == OLD_NONE ? find_image(t, err) : 0;
}

int target_open_old(struct target *t, struct error *err)
{
	const struct config *cfg = t->ss->cfg;

	if (t->found == FOUND_COMPLETE || image_frozen(t->img)) {
		/* the source may have given the guest up for it */
		t->ss->owner = OWNER_UNKNOWN;
		log_info("%s is complete: it is compared, and nothing is written to it",
			 image_part_path(t->img));
	}
	if (t->old == OLD_NONE || t->found != FOUND_NOTHING || cfg->in_place)
		return 0;
	t->old_image = delta_open(t->img, cfg->image, err);
	return t->old_image ? 0 : -1;
}

void target_say_left(const struct target *t)
{
	const struct config *cfg = t->ss->cfg;

	if (!t->img || image_frozen(t->img))
		return;
	if (cfg->in_place && t->start_done)
		log_warn("%s is neither what it was nor what was to come: `recv --resume "
			 "--in-place` here and `send --resume` there mend it",
			 cfg->image);
	else if (t->ss->kept)
		log_warn("%s is kept: `recv --resume` here and `send --resume` there go on with "
			 "it",
			 image_part_path(t->img));
}
