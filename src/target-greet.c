// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The destination's half of the greeting: what the source announces against what the user set here,
 * what this host can do, and what the image's place allows. Everything that can be refused is
 * refused now, before a byte of memory has moved, with one reason that both ends print.
 */
#include "target.h"

#include "budget.h"
#include "delta-offer.h"
#include "link.h"
#include "log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What the user did set on recv has to match what the source announces. */
static int judge_given(struct target *t, struct error *err)
{
	const struct config *cfg = t->ss->cfg;
	const struct greeting *g = &t->greeting;

	if (t->ss->lazy && pull_judge(t, err))
		return -1;
	for (int i = 0; i < CAP__MAX; i++) {
		if (!cfg->caps.given[i] || cfg->caps.on[i] == g->caps.on[i] || i == CAP_EVENTS ||
		    i == CAP_RETURN_PATH || i == CAP_POSTCOPY_BLOCKTIME)
			continue;
		err_set(err, ST_UNSUPPORTED, "%s is %s on the source and %s on the destination",
			cap_table[i].name, g->caps.on[i] ? "on" : "off",
			cfg->caps.on[i] ? "on" : "off");
		return err_hint(err, "recv needs no --cap for what the source announces");
	}
	if (cfg->params.given[PARAM_MULTIFD_COMPRESSION] &&
	    params_multifd_compression(&cfg->params) != g->multifd_compression)
		return err_set(err, ST_UNSUPPORTED,
			       "multifd-compression differs between source and destination");
	if (cfg->machine && g->machine[0] && strcmp(cfg->machine, g->machine))
		return err_set(err, ST_UNSUPPORTED,
			       "the source's machine is '%s', the destination expects '%s'",
			       g->machine, cfg->machine);
	if (cfg->page_size && cfg->page_size != g->page_size)
		return err_set(err, ST_UNSUPPORTED,
			       "the source's pages have %u bytes, the destination expects %u",
			       g->page_size, cfg->page_size);
	return 0;
}

static int judge_uuid(struct target *t, struct error *err)
{
	const struct config *cfg = t->ss->cfg;
	const struct greeting *g = &t->greeting;

	if (!g->caps.on[CAP_VALIDATE_UUID])
		return 0;
	if (!cfg->uuid) {
		log_warn("validate-uuid: no --uuid was given here to compare with the source's %s",
			 g->uuid[0] ? g->uuid : "(none)");
		return 0;
	}
	if (strcasecmp(cfg->uuid, g->uuid))
		return err_set(err, ST_UNSUPPORTED,
			       "the source's uuid is %s, the destination expects %s",
			       g->uuid[0] ? g->uuid : "not set", cfg->uuid);
	return 0;
}

static int judge_caps(struct target *t, struct error *err)
{
	struct session *ss = t->ss;
	struct host_facts host;
	struct cap_set wanted = t->greeting.caps;
	struct check_input in = { .new = &wanted,
				  .params = &ss->cfg->params,
				  .host = &host,
				  .role = ROLE_DESTINATION,
				  .stores = true, /* who runs a guest finds out with it */
				  .multi_channel = link_multi_channel(ss) };

	/* these act on this side alone, whatever the other says */
	wanted.on[CAP_EVENTS] = ss->cfg->caps.on[CAP_EVENTS];
	wanted.on[CAP_POSTCOPY_BLOCKTIME] |= ss->cfg->caps.on[CAP_POSTCOPY_BLOCKTIME];
	host_probe(&host, false);
	if (check_caps(&in, err))
		return -1;
	ss->caps = wanted;
	return 0;
}

/* The channels: at most as many as the user allowed here. */
static void agree_channels(struct target *t)
{
	const struct config *cfg = t->ss->cfg;
	unsigned n = t->greeting.multifd_channels;

	if (cfg->params.given[PARAM_MULTIFD_CHANNELS] && params_multifd_channels(&cfg->params) < n)
		n = params_multifd_channels(&cfg->params);
	t->ss->channels = n;
	t->ss->method = t->greeting.multifd_compression;
}

/* ---- the image ---- */

static int set_capabilities(struct manifest *m, const struct cap_set *caps, struct error *err)
{
	unsigned n = 0;

	m->capabilities = calloc(CAP__MAX + 1, sizeof(*m->capabilities));
	for (int i = 0; m->capabilities && i < CAP__MAX; i++)
		if (caps->on[i] && (m->capabilities[n] = strdup(cap_table[i].name)))
			n++;
	return m->capabilities ? 0 : err_set(err, ST_NOMEM, "no memory for the manifest");
}

bool target_resumes(const struct target *t)
{
	return t->ss->cfg->resume || t->ss->again;
}

bool target_may_exist(const struct target *t)
{
	const struct config *cfg = t->ss->cfg;

	return cfg->force || cfg->delta || cfg->caps.on[CAP_X_IGNORE_SHARED];
}

int target_create_image(struct target *t, const struct image_layout *layout, struct error *err)
{
	const struct config *cfg = t->ss->cfg;
	struct image_layout l = *layout;
	struct manifest *m;

	l.force = cfg->force || cfg->delta;
	l.in_place = cfg->in_place;
	l.keep = t->old != OLD_NONE && cfg->in_place && cfg->delta;
	l.resume = t->found != FOUND_NOTHING;
	l.device_state = cfg->device_state;
	if (t->ss->knows_first && (cfg->in_place || cfg->resume || cfg->retry))
		l.session = t->ss->first;
	t->img = image_create(cfg->image, &l, err);
	if (!t->img)
		return -1;
	m = t->img->manifest;
	if (!m)
		return 0;
	snprintf(m->machine, sizeof(m->machine), "%s", t->ss->machine);
	snprintf(m->uuid, sizeof(m->uuid), "%s", t->ss->uuid);
	snprintf(m->source, sizeof(m->source), "%s", layout->from_qemu ? "qemu" : "migtool");
	snprintf(m->target_arch, sizeof(m->target_arch), "%s", t->greeting.target_arch);
	snprintf(m->run_state, sizeof(m->run_state), "%s", t->greeting.run_state);
	m->page_size = layout->target_page;
	return set_capabilities(m, &t->ss->caps, err);
}

static bool not_sent(const struct target *t, const struct greet_block *b)
{
	return b->shared && t->ss->caps.on[CAP_X_IGNORE_SHARED];
}

static int create_for_greeting(struct target *t, struct error *err)
{
	const struct greeting *g = &t->greeting;
	struct image_layout layout = { .nblocks = g->nblocks, .target_page = g->page_size };
	struct block *blocks = calloc(g->nblocks, sizeof(*blocks));
	uint64_t total = 0;
	int rc;

	if (!blocks)
		return err_set(err, ST_NOMEM, "no memory for %u blocks", g->nblocks);
	for (unsigned i = 0; i < g->nblocks; i++) {
		snprintf(blocks[i].name, sizeof(blocks[i].name), "%s", g->blocks[i].name);
		blocks[i].size = g->blocks[i].size;
		blocks[i].page_size = g->blocks[i].page_size;
		blocks[i].has_gpa = g->blocks[i].has_gpa;
		blocks[i].gpa = g->blocks[i].gpa;
		blocks[i].shared = g->blocks[i].shared;
		if (!not_sent(t, &g->blocks[i]))
			total += blocks[i].size;
	}
	layout.use_shared = t->ss->caps.on[CAP_X_IGNORE_SHARED];
	layout.blocks = blocks;
	if (t->ss->lazy && pull_has_image(t)) {
		rc = pull_judge_again(t, err);
	} else if (t->ss->lazy && !pull_keeps(t)) {
		t->img = image_of_blocks(blocks, g->nblocks, g->page_size, err);
		rc = t->img ? 0 : -1;
	} else {
		rc = target_create_image(t, &layout, err);
	}
	if (!rc && t->ss->lazy && !pull_has_image(t))
		rc = pull_greeted(t, err);
	free(blocks);
	stat_set(&t->ss->stats.total, total);
	stat_set(&t->ss->stats.to_travel, g->data_bytes);
	if (g->data_bytes <= total)
		stat_set(&t->ss->stats.holes, total - g->data_bytes);
	return rc;
}

/* What is not sent has to be the same here. */
static int compare_shared(struct target *t, struct error *err)
{
	char a[33], b[33];

	for (unsigned i = 0; i < t->greeting.nblocks; i++) {
		const struct greet_block *g = &t->greeting.blocks[i];
		struct digest have;

		if (!not_sent(t, g))
			continue;
		if (!g->has_digest)
			return err_set(err, ST_DATA,
				       "greeting: block %s is shared and has no digest", g->name);
		log_info("comparing the shared block %s", g->name);
		if (image_read_shared(t->img, &t->img->blocks[i], &t->ss->cancel, err))
			return -1;
		image_block_digest(&t->img->blocks[i], &have);
		if (!digest_equal(have, g->digest))
			return err_set(err, ST_DIGEST,
				       "block %s is not the same shared memory: at the source it "
				       "has digest %s, at the destination %s",
				       g->name, digest_hex(g->digest, a), digest_hex(have, b));
	}
	return 0;
}

/* The old copy here has to be the one that the source encodes against. */
static int judge_base(struct target *t, struct error *err)
{
	struct image *old = t->old_image;
	struct digest have;
	char a[33], b[33];
	int rc;

	if (t->old != OLD_BASE)
		return 0;
	log_info("reading the old copy %s", t->ss->cfg->image);
	t->old_image = NULL;
	t->offer = delta_offer_start(t, old, false, err);
	if (!t->offer)
		return -1;
	rc = delta_offer_wait(t->offer, err);
	delta_offer_free(t->offer);
	t->offer = NULL;
	if (rc)
		return -1;
	image_digest(t->img, &have);
	if (digest_equal(have, t->greeting.base))
		return 0;
	err_set(err, ST_DIGEST, "the source's --base has digest %s, the destination's old copy %s",
		digest_hex(t->greeting.base, a), digest_hex(have, b));
	return err_hint(err, "--base has to be an exact copy of what the destination has in IMAGE");
}

/* Reading may take longer than a source waits in silence: it is told to wait. */
static int judge_contents(struct target *t, struct error *err)
{
	int rc;

	t->adopting = t->ss->main->two_way && !t->greeting.one_way;
	rc = compare_shared(t, err);
	if (!rc)
		rc = judge_base(t, err);
	target_stop_talking(t);
	return rc;
}

/* Nobody on this side chose what the source announces. */
static int judge_memory(const struct target *t, struct error *err)
{
	const struct config *cfg = t->ss->cfg;
	const struct greeting *g = &t->greeting;
	struct budget_claim claim = { .codec = codec_find(g->multifd_compression),
				      .continuous = !(g->features & FEATURE_MULTIFD2),
				      .old_copy = cfg->delta };

	if (t->ss->caps.on[CAP_MULTIFD] && !cfg->params.given[PARAM_MULTIFD_CHANNELS])
		claim.channels = g->multifd_channels;
	for (unsigned i = 0; i < g->nblocks; i++)
		claim.memory += g->blocks[i].size;
	return budget_check(&claim, err);
}

static int judge(struct target *t, struct error *err)
{
	const struct config *cfg = t->ss->cfg;
	const struct greeting *g = &t->greeting;

	if (judge_given(t, err) || judge_uuid(t, err) || judge_caps(t, err) || judge_memory(t, err))
		return -1;
	if (!g->nblocks && !g->dry_run) /* `check` has none */
		return err_set(err, ST_DATA, "the source has no block of memory");
	if (!t->ss->lazy && target_find_old(t, err))
		return -1;
	agree_channels(t);
	snprintf(t->ss->machine, sizeof(t->ss->machine), "%s", g->machine);
	snprintf(t->ss->uuid, sizeof(t->ss->uuid), "%s", g->uuid);
	t->ss->page_size = g->page_size;
	if (g->dry_run && t->ss->lazy && pull_has_image(t))
		return pull_judge_again(t, err);
	if (g->dry_run && t->ss->lazy && !pull_keeps(t))
		return 0;
	if (g->dry_run)
		return image_check_target(cfg->image, target_may_exist(t), cfg->in_place,
					  target_resumes(t), err);
	if (create_for_greeting(t, err))
		return -1;
	if (t->ss->lazy)
		return 0;
	if (target_open_old(t, err))
		return -1;
	if (g->has_device_state && !t->img->directory && !cfg->device_state) {
		err_set(err, ST_UNSUPPORTED,
			"the source sends a device state, and %s is a file for one block",
			cfg->image);
		return err_hint(err, "say where it goes: --device-state FILE");
	}
	return judge_contents(t, err);
}

/* ---- the answer ---- */

static int answer(struct target *t, const struct error *why, struct error *err)
{
	struct greet_answer a = { .take = !why,
				  .features = t->greeting.features & FEATURES_ALL,
				  .multifd_channels = t->ss->channels,
				  .found = t->found };

	if (t->old != OLD_OFFER)
		a.features &= ~(unsigned)FEATURE_DELTA;
	a.features &= ~(unsigned)FEATURES_GUEST;
	if (t->ss->lazy)
		a.features |= pull_features(t);
	memcpy(a.session, t->ss->first, sizeof(a.session));
	snprintf(a.program, sizeof(a.program), "migtool %s", MIGTOOL_VERSION);
	if (t->ss->joins)
		memcpy(a.join, t->ss->join, sizeof(a.join));
	if (why)
		a.why = *why;
	return greet_answer_put(&t->ss->stream, &a, err);
}

static void set_dialect(struct target *t)
{
	struct dialect *d = &t->ss->dialect;

	d->migtool = true;
	d->flush_word = t->flush_word = true;
	d->runs = t->greeting.features & FEATURE_RUNS;
	d->multifd2 = t->greeting.features & FEATURE_MULTIFD2;
	/* what is read ahead of a run's pages has to be copied out of the buffer again */
	if (d->runs)
		t->ss->stream.readahead = 32 << 10;
	memcpy(t->ss->id, t->greeting.session, sizeof(t->ss->id));
	if (t->ss->uri.scheme == SCHEME_SSH)
		memcpy(t->ss->join, t->greeting.join, sizeof(t->ss->join));
	t->ss->peer_retries = t->greeting.retries;
	t->rp_open = t->ss->main->two_way && !t->greeting.one_way;
}

/* A refused or dry greeting does not use a listening recv up. */
static void forget(struct target *t)
{
	delta_offer_free(t->offer);
	t->offer = NULL;
	image_close(t->old_image, false);
	t->old_image = NULL;
	if (t->ss->lazy)
		pull_forget(t);
	image_close(t->img, false);
	t->img = NULL;
	greet_free(&t->greeting);
	memset(&t->greeting, 0, sizeof(t->greeting));
	memset(&t->ss->dialect, 0, sizeof(t->ss->dialect));
}

int target_greet_migtool(struct target *t, struct error *err)
{
	struct session *ss = t->ss;
	struct error why, ignored;
	bool taken, answered = true;

	if (greet_get(&ss->stream, &t->greeting, &why)) {
		/* who says nothing sensible gets no answer, a version mismatch does */
		if (why.status != ST_SOCKET && why.status != ST_TIMEOUT && ss->main->two_way)
			answer(t, &why, &ignored);
		goto refused;
	}
	taken = !judge(t, &why);
	if (ss->main->two_way && !t->greeting.one_way)
		answered = !answer(t, taken ? NULL : &why, taken ? &why : &ignored);
	if (taken && answered && !t->greeting.dry_run) {
		set_dialect(t);
		log_verbose("the source is %s", t->greeting.program);
		return 0;
	}
	if (taken && answered) {
		log_info("a dry run of %s: it could be received", ss->main->name);
		forget(t);
		if (ss->listener)
			return 1;
		ss->dry_run_done = true;
		return 0;
	}
refused:
	forget(t);
	*err = why;
	return -1;
}
