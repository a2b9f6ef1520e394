// SPDX-License-Identifier: GPL-2.0-or-later
#include "xbzrle.h"

#include <string.h>

/* Eight bytes of old XOR eight of now: a zero byte is an unchanged one. */
static uint64_t differs(const uint8_t *old, const uint8_t *now)
{
	uint64_t a, b;

	memcpy(&a, old, sizeof(a));
	memcpy(&b, now, sizeof(b));
	return a ^ b;
}

/* Which of the bytes of a word that is not zero is the first in memory that is not zero. */
static size_t first_byte(uint64_t v)
{
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
	return (size_t)__builtin_ctzll(v) / 8;
#else
	return (size_t)__builtin_clzll(v) / 8;
#endif
}

/* 0x80 in each byte that is zero in v, and nothing anywhere else. */
static uint64_t zero_bytes(uint64_t v)
{
	const uint64_t low7 = UINT64_C(0x7f7f7f7f7f7f7f7f);

	return ~(((v & low7) + low7) | v | low7);
}

/* The end of the run of unchanged (changed) bytes that begins at i. */
static size_t skip_same(const uint8_t *old, const uint8_t *now, size_t i, size_t page)
{
	for (; page - i >= 8; i += 8) {
		uint64_t v = differs(old + i, now + i);

		if (v)
			return i + first_byte(v);
	}
	while (i < page && old[i] == now[i])
		i++;
	return i;
}

static size_t skip_changed(const uint8_t *old, const uint8_t *now, size_t i, size_t page)
{
	for (; page - i >= 8; i += 8) {
		uint64_t v = zero_bytes(differs(old + i, now + i));

		if (v)
			return i + first_byte(v);
	}
	while (i < page && old[i] != now[i])
		i++;
	return i;
}

static size_t put_uleb(uint8_t *out, size_t v)
{
	if (v < 0x80) {
		out[0] = (uint8_t)v;
		return 1;
	}
	out[0] = (uint8_t)(v | 0x80);
	out[1] = (uint8_t)(v >> 7);
	return 2;
}

int xbzrle_encode(const uint8_t *old, const uint8_t *now, size_t page, uint8_t *out, size_t cap)
{
	size_t i = 0, o = 0;

	if (page > XBZRLE_PAGE_MAX)
		return -1;
	while (i < page) {
		size_t from = i, end;

		/*
		 * QEMU asks for room before it knows whether the run it is about to measure is
		 * the last, unchanged one. The peer must not notice who encoded, so we do too.
		 */
		if (o + 2 > cap)
			return -1;
		i = skip_same(old, now, from, page);
		if (i == page)
			break;
		o += put_uleb(out + o, i - from);
		if (o + 2 > cap)
			return -1;
		end = skip_changed(old, now, i, page);
		/* A whole page of 16384 changed bytes: more than two bytes of uleb can say. */
		if (end - i > 0x3fff)
			return -1;
		o += put_uleb(out + o, end - i);
		if (o + (end - i) > cap)
			return -1;
		memcpy(out + o, now + i, end - i);
		o += end - i;
		i = end;
	}
	return (int)o;
}

/* The length's end in the delta, 0: malformed. At least two bytes are left at i. */
static size_t get_uleb(const uint8_t *delta, size_t i, size_t *v)
{
	*v = delta[i] & 0x7f;
	if (!(delta[i] & 0x80))
		return i + 1;
	if (delta[i + 1] & 0x80)
		return 0;
	*v |= (size_t)delta[i + 1] << 7;
	return i + 2;
}

int xbzrle_decode(const uint8_t *delta, size_t len, uint8_t *page_io, size_t page)
{
	size_t i = 0, d = 0, run;

	if (page > XBZRLE_PAGE_MAX)
		return -1;
	while (i < len) {
		size_t at = i;

		if (len - i < 2)
			return -1;
		i = get_uleb(delta, i, &run);
		if (!i || (!run && at) || run > page - d)
			return -1;
		d += run;
		if (len - i < 2)
			return -1;
		i = get_uleb(delta, i, &run);
		if (!i || !run || run > page - d || run > len - i)
			return -1;
		memcpy(page_io + d, delta + i, run);
		d += run;
		i += run;
	}
	return (int)d;
}
