// SPDX-License-Identifier: GPL-2.0-or-later
#include "wire-return.h"

#include "byteorder.h"
#include "log.h"
#include "wire-delta.h"
#include "wire-postcopy.h"
#include "wire.h"

#include <string.h>

static const struct rp_type_info {
	uint16_t type;
	const char *name;
	uint32_t min, max; /* length */
} rp_types[] = {
	{ RP_SHUT, "SHUT", 4, 4 },
	{ RP_PONG, "PONG", 4, 4 },
	{ RP_REQ_PAGES_ID, "REQ_PAGES_ID", 14, 268 },
	{ RP_REQ_PAGES, "REQ_PAGES", 12, 12 },
	{ RP_RECV_BITMAP, "RECV_BITMAP", 2, 256 },
	{ RP_RESUME_ACK, "RESUME_ACK", 4, 4 },
	{ RP_SWITCHOVER_ACK, "SWITCHOVER_ACK", 0, 0 },
	{ RP_READY, "READY", WIRE_DIGEST_LEN, WIRE_DIGEST_LEN },
	{ RP_FAILED, "FAILED", 4, WIRE_FAILED_MAX },
	{ RP_DONE, "DONE", 0, 0 },
	{ RP_KEEPALIVE, "KEEPALIVE", 8, 8 },
	{ RP_DIGESTS, "DIGESTS", DELTA_LIST_HEAD, DELTA_LIST_LEN },
	{ RP_PAGE_DIGESTS, "PAGE_DIGESTS", DELTA_LIST_HEAD + 16, DELTA_LIST_LEN },
	{ RP_LISTENING, "LISTENING", GUEST_READY_LEN, GUEST_READY_LEN },
	{ RP_REQUEST, "REQUEST", PAGE_WANT_LEN, PAGE_WANT_LEN },
	{ RP_ENOUGH, "ENOUGH", 0, 0 },
	{ RP_CAME, "CAME", PAGES_CAME_HEAD, PAGES_CAME_HEAD + PAGES_CAME_BITS / 8 },
};

static const struct rp_type_info *find(uint16_t type)
{
	for (size_t i = 0; i < sizeof(rp_types) / sizeof(rp_types[0]); i++)
		if (rp_types[i].type == type)
			return &rp_types[i];
	return NULL;
}

const char *rp_name(uint16_t type)
{
	const struct rp_type_info *t = find(type);

	return t ? t->name : "unknown";
}

int rp_put(struct stream *s, uint16_t type, const void *payload, uint32_t len, struct error *err)
{
	if (stream_put_be16(s, type, err))
		return -1;
	if (type >= WIRE_OURS ? stream_put_be32(s, len, err)
			      : stream_put_be16(s, (uint16_t)len, err))
		return -1;
	if (stream_write(s, payload, len, err))
		return -1;
	return stream_flush(s, err);
}

int rp_put_u32(struct stream *s, uint16_t type, uint32_t value, struct error *err)
{
	uint8_t b[4];

	put_be32(b, value);
	return rp_put(s, type, b, sizeof(b), err);
}

int rp_get(struct stream *s, struct rp_message *m, struct error *err)
{
	const struct rp_type_info *t;
	uint16_t len;
	bool eof;

	if (stream_at_eof(s, &eof, err))
		return -1;
	if (eof)
		return 0;
	if (stream_get_be16(s, &m->type, err))
		return -1;
	t = find(m->type);
	if (!t)
		return err_set(err, ST_DATA, "return path: unknown message type 0x%x", m->type);
	if (m->type >= WIRE_OURS) {
		if (stream_get_be32(s, &m->len, err))
			return -1;
	} else {
		if (stream_get_be16(s, &len, err))
			return -1;
		m->len = len;
	}
	if (m->len < t->min || m->len > t->max)
		return err_set(err, ST_DATA, "return path: %s has %u bytes, expected %u to %u",
			       t->name, m->len, t->min, t->max);
	return stream_read(s, m->payload, m->len, err) ? -1 : 1;
}

void wire_digest_pack(const struct wire_digest *d, uint8_t out[WIRE_DIGEST_LEN])
{
	put_be64(out, d->memory.high);
	put_be64(out + 8, d->memory.low);
	put_be64(out + 16, d->device.high);
	put_be64(out + 24, d->device.low);
	put_be64(out + 32, d->device_size);
}

void wire_digest_unpack(const uint8_t in[WIRE_DIGEST_LEN], struct wire_digest *d)
{
	d->memory.high = get_be64(in);
	d->memory.low = get_be64(in + 8);
	d->device.high = get_be64(in + 16);
	d->device.low = get_be64(in + 24);
	d->device_size = get_be64(in + 32);
}

size_t wire_failed_pack(const struct error *why, uint8_t out[WIRE_FAILED_MAX])
{
	size_t msg = strlen(why->msg), hint = strlen(why->hint);

	put_be32(out, (uint32_t)why->status);
	memcpy(out + 4, why->msg, msg);
	out[4 + msg] = '\0';
	memcpy(out + 5 + msg, why->hint, hint);
	return 5 + msg + hint;
}

/* What was unsupported or wrong over there is not so here; who owns the guest is not theirs to say.
 */
static enum status peer_status(uint32_t theirs)
{
	static const enum status taken[] = { ST_PROTOCOL, ST_SOCKET,	ST_FILE,  ST_DATA,
					     ST_DIGEST,	  ST_CANCELLED, ST_NOMEM, ST_TIMEOUT };

	for (size_t i = 0; i < sizeof(taken) / sizeof(taken[0]); i++)
		if (theirs == (uint32_t)taken[i])
			return taken[i];
	return ST_REFUSED;
}

void wire_failed_unpack(const uint8_t *in, size_t len, const char *who, struct error *why)
{
	char msg[2100], hint[2100];
	const uint8_t *text = in + 4, *nul;
	size_t n = len - 4, hint_len = 0;
	enum status status = peer_status(get_be32(in));

	nul = memchr(text, '\0', n);
	if (nul) {
		hint_len = n - (size_t)(nul - text) - 1;
		n = (size_t)(nul - text);
	}
	err_set(why, status, "%s: %.900s", who, log_escape(msg, sizeof(msg), text, n));
	if (hint_len)
		err_hint(why, "%.500s", log_escape(hint, sizeof(hint), nul + 1, hint_len));
}
