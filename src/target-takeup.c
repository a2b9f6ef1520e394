// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A guest whose memory comes from another host, and whose recv is gone (recv --resume). It is
 * served from the start of this process on: whatever it touches is noted, and asked for when its
 * source is there. So all goes on as between two tries of one process (target-pull-again.c), with
 * what that process would have known: which block it is, the session, what the source's files were,
 * and which units have come. The ledger has it.
 *
 * A guest that was not handed over has nothing of its memory yet, and is anybody's. Of one whose
 * ledger is lost, with the process that watched it, nobody can tell which source is its own; then
 * the user has to say that the next one is.
 */
#include "pull.h"

#include "log.h"
#include "takeup.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* ---- what the ledger says ---- */

/* By another name, until somebody says the right one. */
static int make_blocks(struct lazy *l, const char *name, uint64_t size, uint32_t page,
		       struct error *err)
{
	struct block b = { .size = size, .page_size = page };

	snprintf(b.name, sizeof(b.name), "%s", name);
	l->pull->img = image_of_blocks(&b, 1, page, err);
	l->img = l->pull->img;
	return l->img ? 0 : -1;
}

static int learn_source(struct lazy *l, const struct ledger_source *s, struct error *err)
{
	const struct ledger_guest *g = ledger_guest(l->ledger);
	struct session *ss = l->ss;
	struct pull *p = l->pull;

	if (make_blocks(l, s->block, g->sizes[0], s->page, err))
		return -1;
	if (s->unit != pull_unit(g->page, s->page))
		return err_set(err, ST_DATA,
			       "the list of the guest's pages is bad: units of 0x%" PRIx32,
			       s->unit);
	ledger_came(l->ledger, &p->got);
	if (!s->handed_over)
		return 0;
	p->has_source = s->has_files;
	p->source = s->files;
	memcpy(ss->first, s->session, sizeof(ss->first));
	ss->knows_first = true;
	return 0;
}

static int is_from_here(struct error *err)
{
	err_set(err, ST_UNSUPPORTED,
		"the guest has memory of an image on this host, and the source is on another one");
	return err_hint(err, "it is served on from there: recv --resume with image:IMAGE");
}

/* Nobody knows whose the guest is, but that it has some memory. */
static bool is_lost(const struct lazy *l)
{
	const struct ledger_source *s = l->ledger ? ledger_source(l->ledger) : NULL;

	if (!l->ledger)
		return true;
	return !(s && s->handed_over) &&
	       !memcmp(&ledger_guest(l->ledger)->from, &lazy_lost_file, sizeof(lazy_lost_file));
}

static int check_lost(const struct lazy *l, struct error *err)
{
	if (l->ss->cfg->force || !is_lost(l))
		return 0;
	err_set(err, ST_UNSUPPORTED,
		"who watched the guest was killed, too: nobody knows which source its memory comes "
		"from");
	return err_hint(err, "--force takes the next one that says --resume, which has to be the "
			     "guest's own");
}

int pull_learn(struct lazy *l, struct error *err)
{
	static const struct ledger_file afar;
	const struct ledger_guest *g = l->ledger ? ledger_guest(l->ledger) : NULL;
	const struct ledger_source *s = l->ledger ? ledger_source(l->ledger) : NULL;

	if (check_lost(l, err))
		return -1;
	if (s)
		return learn_source(l, s, err);
	if (g && (g->nblocks != 1 || (!is_lost(l) && memcmp(&g->from, &afar, sizeof(afar)) != 0)))
		return is_from_here(err);
	l->pull->unnamed = true;
	return make_blocks(l, "guest", g ? g->sizes[0] : caught_size(l), DIGEST_PAGE, err);
}

int pull_take_blocks(struct target *t, struct error *err)
{
	const struct greeting *g = &t->greeting;
	struct image *img = t->ss->lazy->pull->img, *of;
	struct block b = { .size = g->nblocks == 1 ? g->blocks[0].size : 0 };

	if (b.size != img->blocks[0].size)
		return -1;
	if (g->dry_run)
		return 0;
	memcpy(b.name, g->blocks[0].name, sizeof(b.name));
	of = image_of_blocks(&b, 1, g->page_size, err);
	if (!of)
		return -1;
	/* others look at its size meanwhile, and at nothing else */
	memcpy(img->blocks[0].name, of->blocks[0].name, sizeof(b.name));
	img->blocks[0].digest = of->blocks[0].digest;
	img->target_page = of->target_page;
	image_close(of, false);
	return 0;
}

void pull_hand_over(struct target *t)
{
	struct session *ss = t->ss;
	struct pull *p = ss->lazy->pull;
	const struct greeting *g = &t->greeting;

	if (ledger_source(ss->lazy->ledger)->handed_over)
		return;
	ss->knows_first = true;
	p->has_source = g->has_image;
	p->source = g->image;
	ledger_hand_over(ss->lazy->ledger, ss->first, g->has_image ? &g->image : NULL);
}

/* ---- the guest ---- */

/* Whoever is gone was about to let it go: the source may not know. */
static int has_all(struct lazy *l, struct error *err)
{
	struct session *ss = l->ss;
	const struct ledger *known = l->ledger ? l->ledger : takeup_known();
	const struct ledger_source *s = known ? ledger_source(known) : NULL;

	if (l->pager && caught_complete(l, err))
		return -1;
	if (s && s->handed_over) {
		memcpy(ss->first, s->session, sizeof(ss->first));
		ss->peer_retries = true;
	}
	ss->owner = OWNER_DESTINATION;
	stat_set(&ss->stats.t_setup_done, stats_now());
	ss->serving = false;
	ss->served = ss->complete = ss->done_before = l->over = true;
	log_info("the guest had all of its memory before");
	return 0;
}

/* It is ours, waits, and may be left at any time. */
static int own(struct session *ss, struct error *err)
{
	ss->owner = OWNER_DESTINATION;
	ss->served = ss->postcopy = true;
	ss->paused = true;
	ss->serving = true;
	atomic_store(&ss->phase, "postcopy");
	if (session_commit(ss, err))
		return -1;
	events_status(&ss->events, MIG_POSTCOPY_PAUSED);
	log_info("%s is taken up again; it waits for its source",
		 ss->cfg->uffd_socket ? ss->peer : "the guest");
	return 0;
}

/* With --resume. What waits was handed over, or else it still belongs to its source. */
int pull_take_up(struct target *t, struct error *err)
{
	struct session *ss = t->ss;
	struct lazy *l = ss->lazy;
	const char *path = ss->cfg->prefetch;

	ss->adopted = true;
	if (takeup_complete())
		return has_all(l, err);
	if (l->caught && caught_check(l, caught_size(l), err))
		return -1;
	if (l->caught ? caught_ready(l, err) : lazy_take_up(l, err))
		return -1;
	if (ledger_complete(l->ledger))
		return has_all(l, err);
	if (path && faultlog_read(&l->wanted, path, l->img, err))
		return -1;
	if (ss->knows_first || is_lost(l))
		return own(ss, err);
	log_info("the guest waits, and was not handed over yet");
	return 0;
}
