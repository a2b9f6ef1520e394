// SPDX-License-Identifier: GPL-2.0-or-later
#include "wire-postcopy.h"

#include "byteorder.h"
#include "wire.h"

#include <string.h>

#define PAIR	     16
#define REQUEST_HEAD 12
#define BITMAP_END   UINT64_C(0x0123456789abcdef)

static bool is_page_size(uint64_t size)
{
	return size >= 4096 && !(size & (size - 1));
}

int postcopy_put_advise(struct stream *s, const struct postcopy_advice *a, struct error *err)
{
	uint8_t bytes[POSTCOPY_ADVISE_LEN];

	put_be64(bytes, a->host_pages);
	put_be64(bytes + 8, a->target_page);
	return wire_put_command(s, MIG_CMD_POSTCOPY_ADVISE, bytes, sizeof(bytes), err);
}

int postcopy_advise_unpack(const uint8_t *in, size_t len, struct postcopy_advice *a,
			   struct error *err)
{
	if (len != POSTCOPY_ADVISE_LEN)
		return err_set(err, ST_DATA, "POSTCOPY_ADVISE has %zu bytes, expected %d", len,
			       POSTCOPY_ADVISE_LEN);
	a->host_pages = get_be64(in);
	a->target_page = get_be64(in + 8);
	if (is_page_size(a->target_page) && a->host_pages && !(a->host_pages & 4095))
		return 0;
	return err_set(err, ST_DATA,
		       "POSTCOPY_ADVISE: page sizes 0x%llx on the host, 0x%llx in the guest",
		       (unsigned long long)a->host_pages, (unsigned long long)a->target_page);
}

/* ---- DISCARD ---- */

int postcopy_put_discard(struct stream *s, const char *block, const struct extent *ranges,
			 unsigned n, struct error *err)
{
	uint8_t bytes[2 + 255 + 1 + POSTCOPY_RANGES_MAX * PAIR];
	size_t name = strlen(block), at;

	bytes[0] = 0; /* its version */
	bytes[1] = (uint8_t)name;
	memcpy(bytes + 2, block, name);
	at = 2 + name;
	bytes[at++] = 0;
	for (unsigned i = 0; i < n; i++, at += PAIR) {
		put_be64(bytes + at, ranges[i].offset);
		put_be64(bytes + at + 8, ranges[i].len);
	}
	return wire_put_command(s, MIG_CMD_POSTCOPY_RAM_DISCARD, bytes, (uint32_t)at, err);
}

static int take_name(const uint8_t *in, size_t len, char name[256], struct error *err)
{
	if (!len || memchr(in, '\0', len))
		return err_set(err, ST_DATA, "a block name is empty, or has a NUL byte in it");
	memcpy(name, in, len);
	name[len] = '\0';
	return wire_check_text("the block name", name, err);
}

int postcopy_discard_unpack(const uint8_t *in, size_t len, struct postcopy_discard *d,
			    struct error *err)
{
	size_t name, pairs;

	if (len < POSTCOPY_DISCARD_MIN || in[0])
		return err_set(err, ST_DATA, "POSTCOPY_RAM_DISCARD of %zu bytes, version %u", len,
			       len ? in[0] : 0);
	name = in[1];
	if (3 + name + PAIR > len || in[2 + name] || (len - 3 - name) % PAIR)
		return err_set(err, ST_DATA,
			       "POSTCOPY_RAM_DISCARD of %zu bytes with a name of %zu bytes is "
			       "malformed",
			       len, name);
	if (take_name(in + 2, name, d->block, err))
		return err_prefix(err, "POSTCOPY_RAM_DISCARD");
	pairs = (len - 3 - name) / PAIR;
	d->pairs = in + 3 + name;
	d->n = (unsigned)pairs;
	return 0;
}

struct extent postcopy_discard_range(const struct postcopy_discard *d, unsigned i)
{
	const uint8_t *p = d->pairs + (size_t)i * PAIR;

	return (struct extent){ get_be64(p), get_be64(p + 8) };
}

/* ---- RECV_BITMAP ---- */

int postcopy_put_recv_bitmap(struct stream *s, const char *block, struct error *err)
{
	uint8_t bytes[256];
	size_t n = strlen(block);

	bytes[0] = (uint8_t)n;
	memcpy(bytes + 1, block, n);
	return wire_put_command(s, MIG_CMD_RECV_BITMAP, bytes, (uint32_t)n + 1, err);
}

int postcopy_recv_bitmap_unpack(const uint8_t *in, size_t len, char block[256], struct error *err)
{
	if (len < 2 || in[0] != len - 1)
		return err_set(err, ST_DATA, "RECV_BITMAP of %zu bytes names no block", len);
	return take_name(in + 1, len - 1, block, err);
}

int postcopy_put_bitmap(struct stream *s, const char *block, const struct bitmap *map,
			struct error *err)
{
	uint64_t size = ((uint64_t)map->bits + 63) / 64 * 8;
	uint8_t head[4 + 256];
	size_t n = strlen(block);

	put_be16(head, RP_RECV_BITMAP);
	put_be16(head + 2, (uint16_t)(n + 1));
	head[4] = (uint8_t)n;
	memcpy(head + 5, block, n);
	if (stream_write(s, head, 5 + n, err) || stream_put_be64(s, size, err))
		return -1;
	for (uint64_t i = 0; i < size; i++) {
		uint8_t byte = 0;

		for (unsigned bit = 0; bit < 8; bit++)
			if (i * 8 + bit < map->bits && bitmap_test(map, (size_t)(i * 8 + bit)))
				byte |= (uint8_t)(1u << bit);
		if (stream_put_u8(s, byte, err))
			return -1;
	}
	return stream_put_be64(s, BITMAP_END, err) || stream_flush(s, err) ? -1 : 0;
}

int postcopy_get_bitmap(struct stream *s, struct bitmap *map, struct error *err)
{
	uint64_t size, mark, want = (map->bits + 63) / 64 * 8;
	uint8_t byte;

	if (stream_get_be64(s, &size, err))
		return -1;
	if (size != want)
		return err_set(err, ST_DATA, "a bitmap of %llu bytes, expected %llu",
			       (unsigned long long)size, (unsigned long long)want);
	for (uint64_t i = 0; i < size; i++) {
		if (stream_get_u8(s, &byte, err))
			return -1;
		for (unsigned bit = 0; bit < 8; bit++)
			if (byte >> bit & 1 && i * 8 + bit < map->bits)
				bitmap_set(map, i * 8 + bit, 1);
	}
	if (stream_get_be64(s, &mark, err))
		return -1;
	if (mark == BITMAP_END)
		return 0;
	return err_set(err, ST_DATA, "a bitmap ends with 0x%llx, expected 0x%llx",
		       (unsigned long long)mark, (unsigned long long)BITMAP_END);
}

/* ---- PACKAGED ---- */

int postcopy_put_packaged(struct stream *s, uint32_t len, struct error *err)
{
	uint8_t bytes[4];

	put_be32(bytes, len);
	return wire_put_command(s, MIG_CMD_PACKAGED, bytes, sizeof(bytes), err);
}

/* ---- requests ---- */

int page_request_unpack(const struct rp_message *m, struct page_request *r, struct error *err)
{
	r->offset = get_be64(m->payload);
	r->len = get_be32(m->payload + 8);
	if (m->type == RP_REQ_PAGES_ID) {
		size_t n = m->payload[REQUEST_HEAD];

		if (m->len != REQUEST_HEAD + 1 + n)
			return err_set(err, ST_DATA,
				       "REQ_PAGES_ID of %u bytes with a name of %zu bytes", m->len,
				       n);
		return take_name(m->payload + REQUEST_HEAD + 1, n, r->block, err);
	}
	if (r->block[0])
		return 0;
	return err_set(err, ST_DATA, "REQ_PAGES before any request that names a block");
}

size_t page_request_pack(const char *block, uint64_t offset, uint32_t len,
			 uint8_t out[PAGE_REQUEST_MAX])
{
	size_t n = block ? strlen(block) : 0;

	put_be64(out, offset);
	put_be32(out + 8, len);
	if (!block)
		return REQUEST_HEAD;
	out[REQUEST_HEAD] = (uint8_t)n;
	memcpy(out + REQUEST_HEAD + 1, block, n);
	return REQUEST_HEAD + 1 + n;
}

/* ---- between migtools ---- */

#define ASKS_ALL 1u
#define UNIT_MAX (1u << 30)

void guest_ready_pack(const struct guest_ready *r, uint8_t out[GUEST_READY_LEN])
{
	put_be32(out, r->asks_all ? ASKS_ALL : 0);
	put_be32(out + 4, r->unit);
}

int guest_ready_unpack(const uint8_t in[GUEST_READY_LEN], struct guest_ready *r, struct error *err)
{
	uint32_t flags = get_be32(in);

	r->asks_all = flags & ASKS_ALL;
	r->unit = get_be32(in + 4);
	if (flags & ~ASKS_ALL)
		return err_set(err, ST_DATA, "LISTENING: flags 0x%x are not understood", flags);
	if (r->unit < DIGEST_PAGE || r->unit > UNIT_MAX || (r->unit & (r->unit - 1)))
		return err_set(err, ST_DATA,
			       "LISTENING: pages of %u bytes, expected a power of two from %u to "
			       "%u",
			       r->unit, DIGEST_PAGE, UNIT_MAX);
	return 0;
}

void page_want_pack(const struct page_want *w, uint8_t out[PAGE_WANT_LEN])
{
	put_be32(out, w->block);
	put_be32(out + 4, w->len);
	put_be64(out + 8, w->offset);
}

void page_want_unpack(const uint8_t in[PAGE_WANT_LEN], struct page_want *w)
{
	w->block = get_be32(in);
	w->len = get_be32(in + 4);
	w->offset = get_be64(in + 8);
}

/* One bit a unit, or none at all where every one would be set. */
size_t pages_came_pack(const struct pages_came *c, const struct bitmap *map,
		       uint8_t out[PAGES_CAME_HEAD + PAGES_CAME_BITS / 8])
{
	size_t bytes = (size_t)((c->n + 7) / 8);

	put_be32(out, c->block);
	put_be32(out + 4, c->unit);
	put_be64(out + 8, c->first);
	put_be64(out + 16, c->n);
	if (!map)
		return PAGES_CAME_HEAD;
	memset(out + PAGES_CAME_HEAD, 0, bytes);
	for (size_t i = 0; i < c->n; i++)
		if (bitmap_test(map, (size_t)c->first + i))
			out[PAGES_CAME_HEAD + i / 8] |= (uint8_t)(1u << i % 8);
	return PAGES_CAME_HEAD + bytes;
}

int pages_came_unpack(const uint8_t *in, size_t len, struct pages_came *c, struct error *err)
{
	c->block = get_be32(in);
	c->unit = get_be32(in + 4);
	c->first = get_be64(in + 8);
	c->n = get_be64(in + 16);
	c->bits = len > PAGES_CAME_HEAD ? in + PAGES_CAME_HEAD : NULL;
	if (c->unit < DIGEST_PAGE || c->unit > UNIT_MAX || (c->unit & (c->unit - 1)) || !c->n)
		return err_set(err, ST_DATA, "CAME: %llu pages of %u bytes",
			       (unsigned long long)c->n, c->unit);
	if (!c->bits || (c->n <= PAGES_CAME_BITS && len - PAGES_CAME_HEAD == (c->n + 7) / 8))
		return 0;
	return err_set(err, ST_DATA, "CAME: %zu bytes for %llu pages", len - PAGES_CAME_HEAD,
		       (unsigned long long)c->n);
}
