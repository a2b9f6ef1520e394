// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A QEMU's postcopy into an image broke: the QEMU is in postcopy-paused and has all of the memory,
 * IMAGE.part has the devices and what had come. It comes again (`migrate -r`), and the stream has
 * no head: it asks for each block which pages have come, is told, says POSTCOPY_RESUME, and sends
 * the others (qemu-wire 6.8).
 *
 * What has come is what the file holds, whoever wrote it there. A page that is zero cannot be told
 * from one that never came, and comes again, which costs nine bytes. DISCARD had made holes of what
 * was not valid any more before the guest was given up, so what is there is what the guest has.
 */
#include "target.h"

#include "bitmap.h"
#include "log.h"
#include "wire-postcopy.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool target_recover_is(const uint8_t *first)
{
	return first[0] == WIRE_COMMAND && first[1] == 0 && first[2] == MIG_CMD_RECV_BITMAP &&
	       first[3] == 0;
}

/* ---- open ---- */

static int create(struct target *t, const struct manifest *m, struct error *err)
{
	struct image_layout layout = { .nblocks = m->nblocks,
				       .from_qemu = true,
				       .target_page = m->page_size,
				       .resume = true,
				       .force = true,
				       .postcopy = m };
	struct block *blocks = calloc(m->nblocks, sizeof(*blocks));

	if (!blocks)
		return err_set(err, ST_NOMEM, "no memory for %u blocks", m->nblocks);
	for (unsigned i = 0; i < m->nblocks; i++) {
		snprintf(blocks[i].name, sizeof(blocks[i].name), "%s", m->blocks[i].name);
		blocks[i].size = m->blocks[i].size;
		blocks[i].page_size = m->blocks[i].page_size;
		blocks[i].has_gpa = m->blocks[i].has_gpa;
		blocks[i].gpa = m->blocks[i].gpa;
	}
	layout.blocks = blocks;
	t->img = image_create(t->ss->cfg->image, &layout, err);
	free(blocks);
	return t->img ? 0 : -1;
}

/* What the stream's head said then. */
static void take_words(struct target *t, struct manifest *m)
{
	struct manifest *to = t->img->manifest;

	snprintf(to->machine, sizeof(to->machine), "%s", m->machine);
	snprintf(to->uuid, sizeof(to->uuid), "%s", m->uuid);
	snprintf(to->target_arch, sizeof(to->target_arch), "%s", m->target_arch);
	snprintf(to->source, sizeof(to->source), "%s", m->source);
	snprintf(to->run_state, sizeof(to->run_state), "%s", m->run_state);
	to->capabilities = m->capabilities;
	m->capabilities = NULL;
}

/* Reads what is there: which pages, and their digest. */
static int adopt(struct target *t, struct error *err)
{
	struct session *ss = t->ss;

	log_info("%s waits for the rest of its guest's memory: reading what has come",
		 image_part_path(t->img));
	for (unsigned i = 0; i < t->img->nblocks; i++)
		if (image_adopt_block(t->img, &t->img->blocks[i], NULL, NULL, &ss->cancel, err))
			return -1;
	return 0;
}

int target_recover_open(struct target *t, struct error *err)
{
	const struct config *cfg = t->ss->cfg;
	struct manifest *m;
	int rc;

	if (!target_resumes(t) || !cfg->caps.on[CAP_POSTCOPY_RAM] || cfg->in_place)
		return 0;
	if (image_find_postcopy(cfg->image, &m, err))
		return -1;
	if (!m)
		return 0;
	t->recovers = true;
	t->ss->owner = OWNER_UNKNOWN;
	rc = create(t, m, err);
	if (!rc)
		take_words(t, m);
	manifest_free(m);
	return rc ? -1 : adopt(t, err);
}

/* ---- the connection ---- */

void target_recover_greet(struct target *t)
{
	struct session *ss = t->ss;
	const struct manifest *m = t->img->manifest;
	uint64_t total = 0;

	for (unsigned i = 0; i < t->img->nblocks; i++)
		total += t->img->blocks[i].size;
	snprintf(ss->machine, sizeof(ss->machine), "%s", m->machine);
	snprintf(ss->uuid, sizeof(ss->uuid), "%s", m->uuid);
	ss->page_size = t->img->target_page;
	ss->main->lax_end = true;
	stat_set(&ss->stats.total, total);
	stat_set(&ss->stats.to_travel, total - image_placed_bytes(t->img));
	t->rp_open = t->listed = t->start_done = true;
	t->postcopy = POSTCOPY_PAUSED;
	ss->postcopy = true;
	events_status(&ss->events, MIG_POSTCOPY_RECOVER);
}

/* ---- commands ---- */

static int send_bitmap(struct target *t, const struct block *b, struct error *err)
{
	struct bitmap map;
	int rc;

	if (bitmap_init(&map, (size_t)(b->size / t->img->target_page)))
		return err_set(err, ST_NOMEM, "no memory for the bitmap of block %s", b->name);
	image_came(t->img, b, &map);
	pthread_mutex_lock(&t->rp_lock);
	rc = postcopy_put_bitmap(&t->ss->stream, b->name, &map, err);
	pthread_mutex_unlock(&t->rp_lock);
	bitmap_free(&map);
	return rc;
}

static int take_recv_bitmap(struct target *t, uint32_t len, struct error *err)
{
	const struct block *b;
	uint8_t payload[256];
	char name[256];

	if (len > sizeof(payload))
		return err_set(err, ST_DATA, "RECV_BITMAP has %u bytes", len);
	if (stream_read(&t->ss->stream, payload, len, err) ||
	    postcopy_recv_bitmap_unpack(payload, len, name, err))
		return -1;
	b = image_find(t->img, name, strlen(name));
	if (!b)
		return err_set(err, ST_DATA, "RECV_BITMAP for the unknown block '%s'", name);
	return send_bitmap(t, b, err);
}

static int take_resume(struct target *t, uint32_t len, struct error *err)
{
	static const uint8_t one[4] = { 0, 0, 0, 1 };
	struct session *ss = t->ss;

	if (len)
		return err_set(err, ST_DATA, "POSTCOPY_RESUME of %u bytes, expected 0", len);
	if (session_commit(ss, err) || target_say(t, RP_RESUME_ACK, one, sizeof(one), err))
		return -1;
	t->postcopy = POSTCOPY_RUNNING;
	stat_set(&ss->stats.t_switchover, stats_now());
	stat_set(&ss->stats.precopy_bytes, ss->stream.bytes_in);
	events_status(&ss->events, MIG_POSTCOPY_ACTIVE);
	log_verbose("the source goes on with the rest of the memory");
	return 0;
}

bool target_recover_takes(uint16_t cmd)
{
	return cmd == MIG_CMD_RECV_BITMAP || cmd == MIG_CMD_POSTCOPY_RESUME;
}

int target_recover_command(struct target *t, const struct wire_command *c, struct error *err)
{
	if (t->postcopy != POSTCOPY_PAUSED)
		return err_set(err, ST_DATA, "%s, and nothing is to be recovered here",
			       wire_command_name(c->cmd));
	return c->cmd == MIG_CMD_RECV_BITMAP ? take_recv_bitmap(t, c->len, err)
					     : take_resume(t, c->len, err);
}
