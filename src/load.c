// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The stream's elements, from the header to its end: one loop for a QEMU and a migtool. What a
 * migtool may say and a QEMU not (our commands), and the other way round (device sections), is
 * judged by the dialect where it comes.
 */
#include "target.h"

#include "blob.h"
#include "budget.h"
#include "byteorder.h"
#include "delta-offer.h"
#include "link.h"
#include "log.h"
#include "multifd-recv.h"
#include "units.h"
#include "wire-ram.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* It goes to a file. A device that has its own memory may have much. */
#define STATE_MAX (4096ULL << 20)

/* ---- head ---- */

/* What a QEMU would demand of us: both have it, or neither. */
static int check_ignore_shared(const struct target *t, struct error *err)
{
	bool here = t->ss->caps.on[CAP_X_IGNORE_SHARED], there = t->config.ignore_shared;

	if (here == there)
		return 0;
	err_set(err, ST_UNSUPPORTED, "the source has x-ignore-shared %s, here it is %s",
		there ? "on" : "off", here ? "on" : "off");
	return err_hint(err, there ? "recv --cap x-ignore-shared=on, if the shared memory is to "
				     "stay where it is; the image will not hold it"
				   : "switch it on at the source too");
}

static int check_config(struct target *t, struct error *err)
{
	struct session *ss = t->ss;
	const struct wire_config *c = &t->config;
	char shown[520], theirs[37];
	uint8_t uuid[16];

	log_escape(shown, sizeof(shown), c->machine, strlen(c->machine));
	if (ss->cfg->machine && strcmp(ss->cfg->machine, c->machine)) {
		err_set(err, ST_UNSUPPORTED, "the source's machine is '%s', expected '%s'", shown,
			ss->cfg->machine);
		return err_hint(err, "--machine on recv has to be the class name of the source's");
	}
	snprintf(ss->machine, sizeof(ss->machine), "%s", c->machine);
	if (ss->dialect.migtool && (c->page_bits ? 1u << c->page_bits : 4096) != ss->page_size)
		return err_set(err, ST_DATA, "pages have %u bytes, the greeting said %u",
			       c->page_bits ? 1u << c->page_bits : 4096, ss->page_size);
	if (c->page_bits && ss->cfg->page_size && ss->cfg->page_size != 1u << c->page_bits)
		return err_set(err, ST_UNSUPPORTED,
			       "the source's pages have %u bytes, --page-size "
			       "says %u",
			       1u << c->page_bits, ss->cfg->page_size);
	if (c->page_bits)
		ss->page_size = 1u << c->page_bits;
	if (check_ignore_shared(t, err))
		return -1;
	if (!c->has_uuid)
		return 0;
	uuid_format(c->uuid, theirs);
	link_uuid(ss, uuid);
	if (ss->cfg->uuid && memcmp(uuid, c->uuid, 16))
		return err_set(err, ST_UNSUPPORTED, "the source's uuid is %s, expected %s", theirs,
			       ss->cfg->uuid);
	if (!ss->cfg->uuid)
		log_verbose("the source's uuid is %s, and no --uuid was given to compare", theirs);
	snprintf(ss->uuid, sizeof(ss->uuid), "%s", theirs);
	return 0;
}

int load_head(struct target *t, struct error *err)
{
	struct stream *s = &t->ss->stream;
	uint8_t type;

	if (wire_get_header(s, err) || stream_get_u8(s, &type, err))
		return -1;
	if (type != WIRE_CONFIGURATION)
		return err_set(err, ST_UNSUPPORTED,
			       "byte 0x%02x behind the stream's header, expected a configuration "
			       "(0x07): machine types before 2.4 send none",
			       type);
	if (wire_get_config(s, &t->config, err))
		return -1;
	return check_config(t, err);
}

/* ---- commands ---- */

/* It follows the memory, as it was announced; an empty one is one empty piece. */
static int check_device_state(struct target *t, uint32_t len, struct error *err)
{
	if (!t->greeting.has_device_state)
		return err_set(err, ST_UNSUPPORTED,
			       "a device state came that the greeting did not announce");
	if (t->ss->lazy ? pull_check_state(t, err) : 0)
		return -1;
	if (!t->ss->lazy && (!t->ram_ended || t->have_digest))
		return err_set(err, ST_DATA, "device state %s",
			       t->ram_ended ? "behind the digest" : "before the memory did end");
	if (!len && t->have_state)
		return err_set(err, ST_DATA, "an empty piece of device state behind another one");
	if (len > STATE_MAX - t->state_size)
		return err_set(err, ST_DATA, "more than %llu MiB of device state", STATE_MAX >> 20);
	t->have_state = true;
	t->state_size += len;
	return 0;
}

static int take_device_state(struct target *t, uint32_t len, struct error *err)
{
	bool first = !t->have_state;
	uint8_t *buf;
	int rc = -1;

	if (check_device_state(t, len, err))
		return -1;
	buf = malloc(len ? len : 1);
	if (!buf)
		err_set(err, ST_NOMEM, "no memory for device state");
	else if (!stream_read(&t->ss->stream, buf, len, err))
		rc = t->ss->lazy ? pull_put_state(t, first, buf, len, err)
				 : image_put_device_state(t->img, buf, len, err);
	free(buf);
	return rc;
}

static int take_digest(struct target *t, uint32_t len, struct error *err)
{
	uint8_t bytes[WIRE_DIGEST_LEN];

	if (len != sizeof(bytes))
		return err_set(err, ST_DATA, "DIGEST has %u bytes, expected %u", len,
			       WIRE_DIGEST_LEN);
	if (!t->ram_ended || t->have_digest)
		return err_set(err, ST_DATA, "DIGEST %s",
			       t->ram_ended ? "a second time" : "before the memory did end");
	if (stream_read(&t->ss->stream, bytes, sizeof(bytes), err))
		return -1;
	wire_digest_unpack(bytes, &t->digest);
	t->have_digest = true;
	return 0;
}

static int take_failed(struct target *t, uint32_t len, struct error *err)
{
	uint8_t bytes[WIRE_FAILED_MAX];
	struct error why;

	if (len < 4 || len > sizeof(bytes))
		return err_set(err, ST_DATA, "FAILED has %u bytes", len);
	if (stream_read(&t->ss->stream, bytes, len, err))
		return -1;
	wire_failed_unpack(bytes, len, "the source failed", &why);
	*err = why;
	t->told = true;
	return session_peer_failed(t->ss, &why);
}

static int take_want(struct target *t, uint32_t len, struct error *err)
{
	uint8_t bytes[DELTA_WANT_LEN];
	struct delta_want w;

	if (!t->offer)
		return err_set(err, ST_DATA, "WANT, and no digests are offered now");
	if (len > sizeof(bytes))
		return err_set(err, ST_DATA, "WANT has %u bytes", len);
	if (stream_read(&t->ss->stream, bytes, len, err) || delta_want_unpack(bytes, len, &w, err))
		return -1;
	return delta_offer_pages(t->offer, &w, err);
}

static int take_compared(struct target *t, uint32_t len, struct error *err)
{
	uint64_t bytes;

	if (!t->offer || len != 8)
		return err_set(err, ST_DATA, "COMPARED of %u bytes%s", len,
			       t->offer ? "" : ", and no digests are offered now");
	/* pages may come from now on: nobody may still be reading */
	if (stream_get_be64(&t->ss->stream, &bytes, err) || delta_offer_wait(t->offer, err))
		return -1;
	delta_offer_free(t->offer);
	t->offer = NULL;
	t->compared = true;
	stat_set(&t->ss->stats.to_travel, bytes);
	if (!bytes || !image_frozen(t->img))
		return 0;
	err_set(err, ST_UNSUPPORTED,
		"%s is complete, and differs from the source's image (by %llu bytes)",
		image_part_path(t->img), (unsigned long long)bytes);
	return err_hint(err, "it may be a guest that runs here; if it is not, remove it, or use it "
			     "as an old copy with --delta");
}

/* It takes as long as the source's user wants it to. */
static int take_paused(struct target *t, uint32_t len, struct error *err)
{
	if (len || !t->ss->caps.on[CAP_PAUSE_BEFORE_SWITCHOVER] || !t->have_ram || t->ram_ended)
		return err_set(err, ST_DATA, "PAUSED of %u bytes, and no pause can be here", len);
	if (!t->paused)
		log_info("the source waits for its user before the switchover");
	t->paused = true;
	atomic_store(&t->ss->phase, "pre-switchover");
	t->moved_at = 0;
	return 0;
}

static int our_command(struct target *t, const struct wire_command *c, struct error *err)
{
	switch (c->cmd) {
	case MIG_CMD_DEVICE_STATE:
		return take_device_state(t, c->len, err);
	case MIG_CMD_DIGEST:
		return take_digest(t, c->len, err);
	case MIG_CMD_FAILED:
		return take_failed(t, c->len, err);
	case MIG_CMD_WANT:
		return take_want(t, c->len, err);
	case MIG_CMD_COMPARED:
		return take_compared(t, c->len, err);
	case MIG_CMD_PAUSED:
		return take_paused(t, c->len, err);
	case MIG_CMD_LISTEN:
		return load_listen(t, c->len, err);
	case MIG_CMD_COMMIT:
		if (c->len || !t->ss->lazy)
			break;
		return load_guest_commit(t, err);
	case MIG_CMD_KEEPALIVE:
		if (c->len)
			break;
		return 0;
	}
	return err_set(err, ST_DATA, "command 0x%x (%s) of %u bytes is not understood", c->cmd,
		       wire_command_name(c->cmd), c->len);
}

static int answer_ping(struct target *t, struct error *err)
{
	uint32_t value;

	if (stream_get_be32(&t->ss->stream, &value, err))
		return -1;
	if (!t->rp_open)
		return err_set(err, ST_DATA, "PING without a return path");
	value = htobe32(value);
	return target_say(t, RP_PONG, &value, sizeof(value), err);
}

/* The length of a command that is followed here, -1 for the others. */
static int command_len(uint16_t cmd)
{
	switch (cmd) {
	case MIG_CMD_PING:
		return 4;
	case MIG_CMD_OPEN_RETURN_PATH:
	case MIG_CMD_SWITCHOVER_START:
		return 0;
	default:
		return -1;
	}
}

static int qemu_command(struct target *t, const struct wire_command *c, struct error *err)
{
	int want = command_len(c->cmd);

	if (want >= 0 && c->len != (uint32_t)want)
		return err_set(err, ST_DATA, "command %u (%s) of %u bytes, expected %d", c->cmd,
			       wire_command_name(c->cmd), c->len, want);
	if (c->cmd == MIG_CMD_OPEN_RETURN_PATH) {
		if (!t->ss->main->two_way)
			return err_set(err, ST_UNSUPPORTED,
				       "the source wants a return path, and %s "
				       "is one-way",
				       t->ss->main->name);
		if (t->rp_open)
			return 0;
		t->rp_open = true;
		return t->ss->caps.on[CAP_SWITCHOVER_ACK]
			       ? target_say(t, RP_SWITCHOVER_ACK, NULL, 0, err)
			       : 0;
	}
	if (c->cmd == MIG_CMD_PING)
		return answer_ping(t, err);
	if (c->cmd == MIG_CMD_SWITCHOVER_START)
		return 0;
	if (target_recover_takes(c->cmd) && t->recovers)
		return target_recover_command(t, c, err);
	if (c->cmd == MIG_CMD_POSTCOPY_RAM_DISCARD && t->ss->lazy)
		return load_guest_discard(t, c->len, err);
	if (load_postcopy_takes(c->cmd) && !t->ss->dialect.migtool)
		return load_postcopy_command(t, c, err);
	err_set(err, ST_UNSUPPORTED, "command %u (%s) of %u bytes cannot be followed", c->cmd,
		wire_command_name(c->cmd), c->len);
	if (c->cmd == MIG_CMD_ENABLE_COLO)
		err_hint(err, "switch x-colo off on the source");
	return -1;
}

static int get_command(struct target *t, struct wire_command *c, struct error *err)
{
	if (wire_get_command(&t->ss->stream, c, err))
		return -1;
	log_debug("command %s, %u bytes", wire_command_name(c->cmd), c->len);
	return 0;
}

static int take_command(struct target *t, struct error *err)
{
	struct wire_command c;

	if (get_command(t, &c, err))
		return -1;
	if (t->ss->dialect.migtool && c.cmd >= WIRE_OURS)
		return our_command(t, &c, err);
	return qemu_command(t, &c, err);
}

/* ---- sections ---- */

/* A migtool's blocks are known from its greeting. */
static int compare_blocks(const struct target *t, const struct ram_block_info *list, unsigned n,
			  struct error *err)
{
	if (n != t->img->nblocks)
		return err_set(err, ST_DATA, "%u blocks, the greeting said %u", n, t->img->nblocks);
	for (unsigned i = 0; i < n; i++)
		if (strcmp(list[i].name, t->img->blocks[i].name) ||
		    list[i].length != t->img->blocks[i].size)
			return err_set(err, ST_DATA,
				       "block %u is not the one of the greeting (%s, %llu bytes)",
				       i, t->img->blocks[i].name,
				       (unsigned long long)t->img->blocks[i].size);
	return 0;
}

int load_blocks(struct target *t, const struct ram_block_info *list, unsigned n, struct error *err)
{
	struct image_layout layout = { .nblocks = n, .from_qemu = true };
	struct budget_claim claim = { .old_copy = t->ss->cfg->delta };
	struct block *blocks;
	uint64_t total = 0;
	int rc;

	if (t->img)
		return compare_blocks(t, list, n, err);
	blocks = calloc(n, sizeof(*blocks));
	if (!blocks)
		return err_set(err, ST_NOMEM, "no memory for %u blocks", n);
	for (unsigned i = 0; i < n; i++) {
		snprintf(blocks[i].name, sizeof(blocks[i].name), "%s", list[i].name);
		blocks[i].size = list[i].length;
		blocks[i].page_size = list[i].host_page ? (uint32_t)list[i].host_page
							: t->ss->page_size;
		blocks[i].has_gpa = list[i].has_gpa;
		blocks[i].gpa = list[i].gpa;
		total += list[i].length;
	}
	layout.blocks = blocks;
	layout.target_page = t->ss->page_size;
	claim.memory = total;
	rc = budget_check(&claim, err);
	if (!rc)
		rc = target_create_image(t, &layout, err);
	if (!rc)
		rc = target_start_workers(t, err);
	free(blocks);
	stat_set(&t->ss->stats.total, total);
	stat_set(&t->ss->stats.to_travel, total);
	return rc;
}

/* The one that began over the connection that broke: only its number is not known. */
static int check_recovered_section(struct target *t, const struct wire_section *sec,
				   struct error *err)
{
	if (t->postcopy != POSTCOPY_RUNNING || sec->type == WIRE_SECTION_START || t->ram_ended ||
	    (t->have_ram && sec->id != t->ram_id))
		return err_set(err, ST_DATA, "section %u is not expected in a recovery", sec->id);
	t->have_ram = true;
	t->ram_id = sec->id;
	return 0;
}

static int check_section(struct target *t, const struct wire_section *sec, struct error *err)
{
	char shown[520];

	if (t->recovers)
		return check_recovered_section(t, sec, err);
	if (sec->type != WIRE_SECTION_START) {
		if (t->ram_ended)
			return err_set(err, ST_DATA, "a RAM section behind the last one");
		if (t->have_ram && sec->id == t->ram_id)
			return 0;
		return err_set(err, ST_DATA, "a part of section %u, which has not begun", sec->id);
	}
	if (strcmp(sec->idstr, RAM_IDSTR)) {
		err_set(err, ST_UNSUPPORTED, "a live section '%s' cannot be followed",
			log_escape(shown, sizeof(shown), sec->idstr, strlen(sec->idstr)));
		return err_hint(err, "switch block and dirty-bitmaps off on the source, and unplug "
				     "devices that migrate live");
	}
	if (sec->instance != 0)
		return err_set(err, ST_DATA, "RAM section instance %u, expected instance 0",
			       sec->instance);
	if (sec->version != RAM_VERSION || t->have_ram)
		return err_set(err, ST_DATA, "RAM section version %u%s, expected one of version %d",
			       sec->version, t->have_ram ? ", a second one" : "", RAM_VERSION);
	if (t->old == OLD_OFFER && !t->compared)
		return err_set(err, ST_DATA, "RAM section before COMPARED");
	t->have_ram = true;
	t->ram_id = sec->id;
	return 0;
}

/* Footers are there or not for the whole stream: old machine types send none. */
static int take_footer(struct target *t, const struct wire_section *sec, struct error *err)
{
	const uint8_t *next;

	if (!t->footers_known) {
		if (stream_peek(&t->ss->stream, 1, &next, err))
			return -1;
		t->footers = *next == WIRE_FOOTER;
		t->footers_known = true;
	}
	return t->footers ? wire_get_footer(&t->ss->stream, sec->id, err) : 0;
}

static int take_section(struct target *t, enum wire_type type, struct error *err)
{
	struct wire_section sec = { .type = type };

	if (wire_get_section(&t->ss->stream, &sec, err) || check_section(t, &sec, err))
		return -1;
	if (t->ss->lazy && type != WIRE_SECTION_START ? load_guest_section(t, err)
						      : pageload_section(t, type, err))
		return err_prefix(err, "RAM section");
	if (type == WIRE_SECTION_START && !t->img)
		return err_set(err, ST_DATA, "RAM section: no list of blocks");
	if (type == WIRE_SECTION_END)
		t->ram_ended = true;
	return take_footer(t, &sec, err);
}

/* ---- a QEMU's device state ---- */

/* More bytes are coming? Not when the last ones may be the end and nothing follows for a while. */
static int more_comes(struct target *t, const struct blob *b, struct error *err)
{
	if (!t->rp_open || stream_buffered(&t->ss->stream))
		return 1;
	if (blob_complete(b))
		return 0;
	if (!blob_ends_with_eof(b))
		return 1;
	/* a machine that suppresses the description: only silence tells (qemu-wire 1.6) */
	return transport_poll_in(t->ss->main, 2000, err);
}

static int keep_piece(struct target *t, struct blob *b, const void *buf, size_t len,
		      struct error *err)
{
	return blob_feed(b, buf, len, err) ? -1 : image_put_device_state(t->img, buf, len, err);
}

/* From its first byte, which has been read, to where it ends. */
static int keep_blob(struct target *t, struct blob *b, uint8_t *buf, struct error *err)
{
	static const uint8_t full = WIRE_SECTION_FULL;
	ssize_t n = keep_piece(t, b, &full, 1, err) ? -1 : 1;
	int more = 1;

	while (n > 0 && (more = more_comes(t, b, err)) > 0) {
		n = stream_read_some(&t->ss->stream, buf, LINK_STREAM_BUFFER, err);
		if (n > 0 && keep_piece(t, b, buf, (size_t)n, err))
			return -1;
	}
	if (n < 0 || more < 0)
		return -1;
	if (!blob_complete(b) && !blob_ends_with_eof(b))
		return err_set(err, t->ss->main->end_status,
			       "%s ended in the middle of the device state", t->ss->main->name);
	return 0;
}

static int take_blob(struct target *t, struct error *err)
{
	uint8_t *buf = malloc(LINK_STREAM_BUFFER);
	struct blob b = { 0 };
	int rc;

	if (!buf)
		return err_set(err, ST_NOMEM, "no memory for the device state");
	rc = keep_blob(t, &b, buf, err);
	free(buf);
	blob_run_state(&b, t->img->manifest->run_state);
	return rc;
}

/* ---- the end ---- */

/* Behind EOF: a description of any length, which nobody needs. A source may close instead. */
static int skip_description(struct target *t, struct error *err)
{
	struct stream *s = &t->ss->stream;
	uint8_t buf[4096], type;
	uint32_t len;
	bool eof;

	if (stream_at_eof(s, &eof, err))
		return -1;
	if (eof)
		return 0;
	if (stream_get_u8(s, &type, err))
		return -1;
	if (type != WIRE_VMDESCRIPTION)
		return err_set(err, ST_DATA,
			       "byte 0x%02x behind the end, expected a description "
			       "(0x06)",
			       type);
	if (stream_get_be32(s, &len, err))
		return -1;
	if (len > BLOB_MAX)
		return err_set(err, ST_DATA, "a description of %u bytes, at most %u allowed", len,
			       BLOB_MAX);
	while (len > 0) {
		size_t n = len < sizeof(buf) ? len : sizeof(buf);

		if (stream_read(s, buf, n, err))
			return -1;
		len -= (uint32_t)n;
	}
	return 0;
}

static int take_eof(struct target *t, struct error *err)
{
	if (!t->img || !t->ram_ended)
		return err_set(err, ST_DATA, "the stream ends before the memory did");
	if (t->ss->dialect.migtool && !t->have_digest)
		return err_set(err, ST_DATA, "the stream ends without a digest");
	if (t->ss->lazy && t->postcopy != POSTCOPY_RUNNING)
		return err_set(err, ST_DATA, "the stream ends before COMMIT");
	/* behind postcopy there is none, and the source waits for SHUT */
	return t->postcopy == POSTCOPY_RUNNING ? 0 : skip_description(t, err);
}

static int unexpected(uint8_t type, struct error *err)
{
	return err_set(err, ST_DATA, "element 0x%02x is not expected here", type);
}

/* 1: the stream is over */
static int take_element(struct target *t, struct error *err)
{
	uint8_t type;

	if (stream_get_u8(&t->ss->stream, &type, err))
		return -1;
	switch (type) {
	case WIRE_SECTION_START:
	case WIRE_SECTION_PART:
	case WIRE_SECTION_END:
		return take_section(t, (enum wire_type)type, err);
	case WIRE_COMMAND:
		return take_command(t, err);
	case WIRE_SECTION_FULL:
		if (t->ss->dialect.migtool || t->postcopy == POSTCOPY_RUNNING)
			return unexpected(type, err);
		if (!t->start_done) {
			err_set(err, ST_UNSUPPORTED, "a device's state comes before the memory");
			return err_hint(err, "virtio-mem devices cannot be followed yet");
		}
		return take_blob(t, err) ? -1 : 1;
	case WIRE_EOF:
		return take_eof(t, err) ? -1 : 1;
	default:
		return unexpected(type, err);
	}
}

/*
 * Signs of life count for --timeout, so a source that sends nothing else would never be given up.
 * How long it may have something else to do is bounded by what it has to read.
 */
static int check_moving(struct target *t, struct error *err)
{
	const struct stats *st = &t->ss->stats;
	uint64_t now = stats_now(), limit = link_patience_ms(t->ss);
	uint64_t moved = stat_get(&st->normal) + stat_get(&st->duplicate) +
			 stat_get(&st->xbzrle_pages) + stat_get(&st->compress_pages) +
			 t->state_size;

	if (moved != t->moved || !t->moved_at) {
		t->moved = moved;
		t->moved_at = now;
		return 0;
	}
	/* a guest that asks for nothing may go on for ever */
	if (now - t->moved_at <= limit || t->ss->lazy)
		return 0;
	return err_set(err, ST_TIMEOUT, "the source has sent signs of life for %llu s, and no page",
		       (unsigned long long)limit / 1000);
}

int load_stream(struct target *t, struct error *err)
{
	int rc = 0;

	while (!rc && !(rc = check_moving(t, err)))
		rc = take_element(t, err);
	if (rc < 0)
		return -1;
	return pageload_drain(t, err);
}

/* 1: it is COMMIT. Nothing may change what READY has vouched for. */
static int take_last_command(struct target *t, struct error *err)
{
	struct wire_command c;

	if (get_command(t, &c, err))
		return -1;
	if (c.cmd == MIG_CMD_COMMIT && !c.len)
		return 1;
	if (c.cmd == MIG_CMD_FAILED || c.cmd == MIG_CMD_KEEPALIVE)
		return our_command(t, &c, err);
	return err_set(err, ST_DATA, "command 0x%x (%s) of %u bytes instead of COMMIT", c.cmd,
		       wire_command_name(c.cmd), c.len);
}

int load_commit(struct target *t, struct error *err)
{
	int rc = 0;

	while (!rc) {
		uint8_t type;

		if (stream_get_u8(&t->ss->stream, &type, err))
			return -1;
		rc = type == WIRE_COMMAND ? take_last_command(t, err) : unexpected(type, err);
	}
	return rc < 0 ? -1 : 0;
}
