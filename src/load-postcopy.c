// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A QEMU's postcopy, received into an image: the guest leaves its host before its memory has, and
 * waits in the image until somebody runs it. So nothing faults here and nothing is asked for: the
 * source pushes all that is missing by itself. With postcopy-preempt its second connection stays
 * silent but for its end, so it is never accepted; the kernel has done so.
 *
 * From RUN on the source gives the guest up, whatever fails: it can only pause.
 */
#include "target.h"

#include "blob.h"
#include "log.h"
#include "wire-postcopy.h"

#include <stdlib.h>
#include <string.h>

static const uint8_t listen_command[] = { WIRE_COMMAND, 0, MIG_CMD_POSTCOPY_LISTEN, 0, 0 };
static const uint8_t run_command[] = { WIRE_COMMAND, 0, MIG_CMD_POSTCOPY_RUN, 0, 0 };
static const uint8_t ping_command[] = { WIRE_COMMAND, 0, MIG_CMD_PING, 0, 4 };

#define PING_LEN (sizeof(ping_command) + 4)

static int misplaced(const struct target *t, const char *what, struct error *err)
{
	static const char *const after[] = { "the stream's head", "POSTCOPY_ADVISE",
					     "POSTCOPY_RAM_DISCARD", "the break", "POSTCOPY_RUN" };

	return err_set(err, ST_DATA, "%s behind %s is not expected", what, after[t->postcopy]);
}

static uint8_t *read_payload(struct target *t, size_t len, struct error *err)
{
	uint8_t *p = malloc(len ? len : 1);

	if (!p)
		err_set(err, ST_NOMEM, "no memory for %zu bytes of postcopy", len);
	else if (!stream_read(&t->ss->stream, p, len, err))
		return p;
	free(p);
	return NULL;
}

static int take_advise(struct target *t, uint32_t len, struct error *err)
{
	struct postcopy_advice a;
	uint8_t *p;
	int rc;

	if (!len) {
		err_set(err, ST_UNSUPPORTED, "the source moves dirty bitmaps in postcopy");
		return err_hint(err, "switch dirty-bitmaps off on the source");
	}
	if (!t->ss->caps.on[CAP_POSTCOPY_RAM]) {
		err_set(err, ST_UNSUPPORTED,
			"the source may go to postcopy, which was not announced");
		return err_hint(err, "recv --cap postcopy-ram=on, or switch it off on the source");
	}
	if (t->postcopy != POSTCOPY_NONE || t->have_ram || !t->rp_open)
		return misplaced(t, "POSTCOPY_ADVISE", err);
	p = read_payload(t, len, err);
	if (!p)
		return -1;
	rc = postcopy_advise_unpack(p, len, &a, err);
	free(p);
	if (rc)
		return -1;
	if (a.target_page != t->ss->page_size)
		return err_set(err, ST_UNSUPPORTED,
			       "POSTCOPY_ADVISE: the guest's pages have %llu bytes, expected %u",
			       (unsigned long long)a.target_page, t->ss->page_size);
	t->host_pages = a.host_pages;
	t->postcopy = POSTCOPY_ADVISED;
	return 0;
}

/* ---- DISCARD ---- */

static int discard(struct target *t, const struct postcopy_discard *d, struct error *err)
{
	struct block *b = image_find(t->img, d->block, strlen(d->block));
	uint32_t page = t->img->target_page;

	if (!b)
		return err_set(err, ST_DATA, "POSTCOPY_RAM_DISCARD of the unknown block '%s'",
			       d->block);
	for (unsigned i = 0; i < d->n; i++) {
		struct extent e = postcopy_discard_range(d, i);

		if (!e.len || e.offset % page || e.len % page || e.len > b->size ||
		    e.offset > b->size - e.len)
			return err_set(err, ST_DATA,
				       "POSTCOPY_RAM_DISCARD of 0x%llx bytes at 0x%llx in block "
				       "%s of 0x%llx bytes",
				       (unsigned long long)e.len, (unsigned long long)e.offset,
				       b->name, (unsigned long long)b->size);
		if (image_place_zero(t->img, b, e.offset, e.len, err))
			return -1;
	}
	return 0;
}

static int take_discard(struct target *t, uint32_t len, struct error *err)
{
	struct postcopy_discard d;
	uint8_t *p;
	int rc;

	if ((t->postcopy != POSTCOPY_ADVISED && t->postcopy != POSTCOPY_DISCARDED) ||
	    !t->start_done || t->ram_ended)
		return misplaced(t, "POSTCOPY_RAM_DISCARD", err);
	/* an older copy that is still on its way would come back */
	if (pageload_drain(t, err))
		return -1;
	p = read_payload(t, len, err);
	if (!p)
		return -1;
	rc = postcopy_discard_unpack(p, len, &d, err);
	if (!rc)
		rc = discard(t, &d, err);
	free(p);
	t->postcopy = POSTCOPY_DISCARDED;
	return rc;
}

/* ---- PACKAGED ---- */

/* The devices, and behind them what ends them in a stream without postcopy. */
static int keep_devices(struct target *t, const uint8_t *p, size_t len, struct error *err)
{
	static const uint8_t tail[] = { WIRE_EOF, WIRE_VMDESCRIPTION, 0, 0, 0, 0 };
	struct blob b = { 0 };

	if (!len)
		return 0;
	if (p[0] != WIRE_SECTION_FULL)
		return err_set(err, ST_DATA, "PACKAGED: element 0x%02x is not expected", p[0]);
	if (blob_feed(&b, p, len, err))
		return -1;
	blob_run_state(&b, t->img->manifest->run_state);
	if (image_put_device_state(t->img, p, len, err))
		return -1;
	return image_put_device_state(t->img, tail, sizeof(tail), err);
}

static bool begins_with(const uint8_t *p, const uint8_t *what, size_t len)
{
	return !memcmp(p, what, len);
}

/* LISTEN, device sections, maybe PING, RUN. The sections have no length: both ends are known. */
static int open_package(struct target *t, const uint8_t *p, size_t len, struct error *err)
{
	const size_t head = sizeof(listen_command), tail = sizeof(run_command);
	const uint8_t *ping;

	if (len < head + tail || !begins_with(p, listen_command, head) ||
	    !begins_with(p + len - tail, run_command, tail))
		return err_set(err, ST_DATA,
			       "PACKAGED: %zu bytes do not begin with POSTCOPY_LISTEN and end with "
			       "POSTCOPY_RUN",
			       len);
	p += head;
	len -= head + tail;
	ping = len >= PING_LEN ? p + len - PING_LEN : NULL;
	if (!ping || !begins_with(ping, ping_command, sizeof(ping_command)))
		return keep_devices(t, p, len, err);
	if (keep_devices(t, p, len - PING_LEN, err))
		return -1;
	return target_say(t, RP_PONG, ping + sizeof(ping_command), 4, err);
}

/* For whoever comes after us, if it breaks. The memory comes, whether or not that can be noted. */
static void note_postcopy(const struct target *t)
{
	struct error why;

	if (image_note_postcopy(t->img, &why))
		log_warn("%s; if the connection breaks, nobody can go on with %s", why.msg,
			 image_part_path(t->img));
}

static int take_packaged(struct target *t, uint32_t len, struct error *err)
{
	struct session *ss = t->ss;
	uint8_t *p;
	uint32_t n;
	int rc;

	if (t->postcopy != POSTCOPY_DISCARDED || len != 4)
		return misplaced(t, "PACKAGED", err);
	if (stream_get_be32(&ss->stream, &n, err))
		return -1;
	if (n > BLOB_MAX)
		return err_set(err, ST_DATA, "PACKAGED: %u bytes, at most %u allowed", n, BLOB_MAX);
	p = read_payload(t, n, err);
	if (!p)
		return -1;
	/* before the source hears that we have it: whatever comes now, it cannot take it back */
	rc = session_commit(ss, err);
	if (!rc) {
		ss->owner = OWNER_UNKNOWN;
		t->postcopy = POSTCOPY_RUNNING;
		rc = open_package(t, p, n, err);
	}
	if (!rc)
		note_postcopy(t);
	free(p);
	if (rc)
		return -1;
	ss->postcopy = true;
	atomic_store(&ss->phase, "postcopy");
	stat_set(&ss->stats.t_switchover, stats_now());
	stat_set(&ss->stats.t_resumed, stats_now());
	stat_set(&ss->stats.precopy_bytes, ss->stream.bytes_in);
	events_status(&ss->events, MIG_POSTCOPY_ACTIVE);
	log_verbose("the source has given the guest up; its memory follows");
	return 0;
}

bool load_postcopy_takes(uint16_t cmd)
{
	return cmd == MIG_CMD_POSTCOPY_ADVISE || cmd == MIG_CMD_POSTCOPY_RAM_DISCARD ||
	       cmd == MIG_CMD_PACKAGED;
}

int load_postcopy_command(struct target *t, const struct wire_command *c, struct error *err)
{
	switch (c->cmd) {
	case MIG_CMD_POSTCOPY_ADVISE:
		return take_advise(t, c->len, err);
	case MIG_CMD_POSTCOPY_RAM_DISCARD:
		return take_discard(t, c->len, err);
	default:
		return take_packaged(t, c->len, err);
	}
}
