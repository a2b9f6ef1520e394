// SPDX-License-Identifier: GPL-2.0-or-later
#include "wire-multifd.h"

#include "byteorder.h"

#include <string.h>

void multifd_init_pack(const struct multifd_init *m, uint8_t out[MULTIFD_INIT_LEN])
{
	memset(out, 0, MULTIFD_INIT_LEN);
	put_be32(out, MULTIFD_MAGIC);
	put_be32(out + 4, m->version);
	memcpy(out + 8, m->id, sizeof(m->id));
	out[24] = m->channel;
}

int multifd_init_unpack(const uint8_t in[MULTIFD_INIT_LEN], struct multifd_init *m,
			struct error *err)
{
	if (get_be32(in) != MULTIFD_MAGIC)
		return err_set(err, ST_PROTOCOL,
			       "multifd channel: magic is 0x%08x, expected 0x%08x", get_be32(in),
			       MULTIFD_MAGIC);
	m->version = get_be32(in + 4);
	if (m->version != MULTIFD_VERSION && m->version != MULTIFD_VERSION_OURS)
		return err_set(err, ST_PROTOCOL, "multifd channel: version is %u, expected 1 or 2",
			       m->version);
	memcpy(m->id, in + 8, sizeof(m->id));
	m->channel = in[24];
	return 0;
}

/* ---- version 1 ---- */

size_t multifd_header_len(uint32_t page)
{
	return 320 + 8 * (size_t)(MULTIFD_PACKET_BYTES / page);
}

void multifd_header_pack(const struct multifd_header *h, uint32_t page, uint8_t *out)
{
	memset(out, 0, multifd_header_len(page));
	put_be32(out, MULTIFD_MAGIC);
	put_be32(out + 4, MULTIFD_VERSION);
	put_be32(out + 8, h->flags);
	put_be32(out + 12, MULTIFD_PACKET_BYTES / page);
	put_be32(out + 16, h->normal);
	put_be32(out + 20, h->payload);
	put_be64(out + 24, h->packet_num);
	memcpy(out + 64, h->block, strlen(h->block));
	for (uint32_t i = 0; i < h->normal; i++)
		put_be64(out + 320 + 8 * (size_t)i, h->offset[i]);
}

static int check_v1(const uint8_t *in, uint32_t most, struct error *err)
{
	if (get_be32(in) != MULTIFD_MAGIC || get_be32(in + 4) != MULTIFD_VERSION)
		return err_set(err, ST_DATA,
			       "multifd packet: magic 0x%08x version %u, expected 0x%08x version 1",
			       get_be32(in), get_be32(in + 4), MULTIFD_MAGIC);
	if (get_be32(in + 12) > most)
		return err_set(err, ST_DATA,
			       "multifd packet: room for %u pages, at most %u expected (other page "
			       "size?)",
			       get_be32(in + 12), most);
	return 0;
}

int multifd_header_unpack(const uint8_t *in, uint32_t page, struct multifd_header *h,
			  struct error *err)
{
	uint32_t most = MULTIFD_PACKET_BYTES / page;

	if (check_v1(in, most, err))
		return -1;
	h->flags = get_be32(in + 8);
	h->normal = get_be32(in + 16);
	h->payload = h->normal ? get_be32(in + 20) : 0;
	h->packet_num = get_be64(in + 24);
	h->zero = get_be32(in + 32);
	if (h->flags & ~(MULTIFD_SYNC | MULTIFD_METHOD_MASK))
		return err_set(err, ST_DATA, "multifd packet: unknown flags 0x%x", h->flags);
	if (h->normal > most || h->zero > most - h->normal)
		return err_set(err, ST_DATA,
			       "multifd packet: %u pages and %u zero pages, at most %u expected",
			       h->normal, h->zero, most);
	if (h->payload > 2 * MULTIFD_PACKET_BYTES)
		return err_set(err, ST_DATA,
			       "multifd packet: payload of %u bytes, at most %u allowed",
			       h->payload, 2 * MULTIFD_PACKET_BYTES);
	if (!h->normal && !h->zero)
		return 0;
	memcpy(h->block, in + 64, sizeof(h->block));
	if (!memchr(h->block, '\0', sizeof(h->block)))
		return err_set(err, ST_DATA, "multifd packet: block name without an end");
	for (uint32_t i = 0; i < h->normal + h->zero; i++)
		h->offset[i] = get_be64(in + 320 + 8 * (size_t)i);
	return 0;
}

/* ---- version 2 ---- */

size_t multifd2_header_pack(const struct multifd2_header *h, uint8_t *out)
{
	uint8_t *p = out + MULTIFD2_FIXED_LEN;

	put_be32(out, MULTIFD_MAGIC);
	put_be32(out + 4, MULTIFD_VERSION_OURS);
	put_be32(out + 8, h->flags);
	put_be32(out + 12, h->block);
	put_be32(out + 16, h->nruns);
	put_be32(out + 20, h->payload);
	put_be64(out + 24, h->packet_num);
	put_be32(out + 32, h->raw);
	put_be32(out + 36, 0);
	for (uint32_t i = 0; i < h->nruns; i++, p += MULTIFD2_RUN_LEN) {
		put_be64(p, h->runs[i].offset);
		put_be32(p + 8, h->runs[i].pages | (h->runs[i].zero ? MULTIFD2_ZERO : 0));
	}
	return (size_t)(p - out);
}

int multifd2_fixed_unpack(const uint8_t in[MULTIFD2_FIXED_LEN], struct multifd2_header *h,
			  struct error *err)
{
	if (get_be32(in) != MULTIFD_MAGIC || get_be32(in + 4) != MULTIFD_VERSION_OURS)
		return err_set(err, ST_DATA,
			       "multifd packet: magic 0x%08x version %u, expected 0x%08x version 2",
			       get_be32(in), get_be32(in + 4), MULTIFD_MAGIC);
	h->flags = get_be32(in + 8);
	h->block = get_be32(in + 12);
	h->nruns = get_be32(in + 16);
	h->payload = get_be32(in + 20);
	h->packet_num = get_be64(in + 24);
	h->raw = get_be32(in + 32);
	if (h->flags & ~(MULTIFD_SYNC | MULTIFD_METHOD_MASK))
		return err_set(err, ST_DATA, "multifd packet: unknown flags 0x%x", h->flags);
	if (h->nruns > MULTIFD2_RUNS_MAX)
		return err_set(err, ST_DATA, "multifd packet: %u runs, at most %d allowed",
			       h->nruns, MULTIFD2_RUNS_MAX);
	if (h->raw > MULTIFD_PACKET_BYTES || h->payload > h->raw)
		return err_set(err, ST_DATA,
			       "multifd packet: %u bytes for %u bytes of pages, at most %u allowed",
			       h->payload, h->raw, MULTIFD_PACKET_BYTES);
	if (h->raw && !h->payload)
		return err_set(err, ST_DATA, "multifd packet: no payload for %u bytes of pages",
			       h->raw);
	return 0;
}

int multifd2_runs_unpack(const uint8_t *in, uint32_t page, struct multifd2_header *h,
			 struct error *err)
{
	uint64_t raw = 0;

	for (uint32_t i = 0; i < h->nruns; i++, in += MULTIFD2_RUN_LEN) {
		struct multifd2_run *r = &h->runs[i];
		uint32_t word = get_be32(in + 8);

		r->offset = get_be64(in);
		r->zero = word & MULTIFD2_ZERO;
		r->pages = word & ~MULTIFD2_ZERO;
		if (!r->pages || r->offset % page)
			return err_set(
				err, ST_DATA,
				"multifd packet: run of %u pages at offset 0x%llx, expected at "
				"least one page at a multiple of %u",
				r->pages, (unsigned long long)r->offset, page);
		if (!r->zero)
			raw += (uint64_t)r->pages * page;
	}
	if (raw != h->raw)
		return err_set(err, ST_DATA, "multifd packet: runs of %llu bytes, header says %u",
			       (unsigned long long)raw, h->raw);
	return 0;
}
