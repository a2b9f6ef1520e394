// SPDX-License-Identifier: GPL-2.0-or-later
#include "wire-delta.h"

#include "byteorder.h"

#include <string.h>

size_t delta_list_pack(const struct delta_list *l, uint8_t out[DELTA_LIST_LEN])
{
	uint8_t *p = out + DELTA_LIST_HEAD;

	put_be32(out, l->block);
	put_be64(out + 4, l->offset);
	for (unsigned i = 0; i < l->n; i++, p += 16) {
		put_be64(p, l->digest[i].high);
		put_be64(p + 8, l->digest[i].low);
	}
	return (size_t)(p - out);
}

int delta_list_unpack(const uint8_t *in, size_t len, struct delta_list *l, struct error *err)
{
	const uint8_t *p = in + DELTA_LIST_HEAD;

	if (len < DELTA_LIST_HEAD || len > DELTA_LIST_LEN || (len - DELTA_LIST_HEAD) % 16)
		return err_set(err, ST_DATA, "a list of digests has %zu bytes", len);
	l->block = get_be32(in);
	l->offset = get_be64(in + 4);
	l->n = (unsigned)((len - DELTA_LIST_HEAD) / 16);
	if (l->offset % DELTA_CHUNK)
		return err_set(err, ST_DATA,
			       "a list of digests begins at 0x%llx, no multiple of 64 KiB",
			       (unsigned long long)l->offset);
	for (unsigned i = 0; i < l->n; i++, p += 16) {
		l->digest[i].high = get_be64(p);
		l->digest[i].low = get_be64(p + 8);
	}
	return 0;
}

size_t delta_want_pack(const struct delta_want *w, uint8_t out[DELTA_WANT_LEN])
{
	put_be32(out, w->block);
	for (unsigned i = 0; i < w->n; i++)
		put_be64(out + 4 + 8 * i, w->offset[i]);
	return 4 + 8 * (size_t)w->n;
}

int delta_want_unpack(const uint8_t *in, size_t len, struct delta_want *w, struct error *err)
{
	if (len < 12 || len > DELTA_WANT_LEN || (len - 4) % 8)
		return err_set(err, ST_DATA, "WANT has %zu bytes", len);
	w->block = get_be32(in);
	w->n = (unsigned)((len - 4) / 8);
	for (unsigned i = 0; i < w->n; i++) {
		w->offset[i] = get_be64(in + 4 + 8 * i);
		if (w->offset[i] % DELTA_CHUNK || (i && w->offset[i] <= w->offset[i - 1]))
			return err_set(err, ST_DATA,
				       "WANT: 0x%llx is no multiple of 64 KiB, or not behind the "
				       "one before",
				       (unsigned long long)w->offset[i]);
	}
	return 0;
}

int delta_check_range(uint64_t block_size, uint64_t offset, unsigned n, uint32_t unit,
		      struct error *err)
{
	uint64_t len = (uint64_t)n * unit;

	/* the last one may be short, but has to begin inside */
	if (offset <= block_size && len <= UINT64_MAX - offset &&
	    (!n || offset + len - unit < block_size))
		return 0;
	return err_set(err, ST_DATA,
		       "%u digests from 0x%llx on reach beyond a block's end at 0x%llx", n,
		       (unsigned long long)offset, (unsigned long long)block_size);
}
