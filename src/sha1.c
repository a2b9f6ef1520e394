// SPDX-License-Identifier: GPL-2.0-or-later
#include "sha1.h"

#include "byteorder.h"

#include <string.h>

#define BLOCK 64

struct sha1 {
	uint32_t h[5];
	uint64_t bytes;
	uint8_t block[BLOCK];
};

static uint32_t rol(uint32_t v, unsigned n)
{
	return v << n | v >> (32 - n);
}

/* FIPS 180-4, 6.1.2 */
static void compress(struct sha1 *s)
{
	uint32_t w[80], a = s->h[0], b = s->h[1], c = s->h[2], d = s->h[3], e = s->h[4];

	for (unsigned t = 0; t < 16; t++)
		w[t] = get_be32(s->block + 4 * t);
	for (unsigned t = 16; t < 80; t++)
		w[t] = rol(w[t - 3] ^ w[t - 8] ^ w[t - 14] ^ w[t - 16], 1);
	for (unsigned t = 0; t < 80; t++) {
		uint32_t f, k, next;

		if (t < 20) {
			f = (b & c) | (~b & d);
			k = 0x5a827999;
		} else if (t < 40) {
			f = b ^ c ^ d;
			k = 0x6ed9eba1;
		} else if (t < 60) {
			f = (b & c) | (b & d) | (c & d);
			k = 0x8f1bbcdc;
		} else {
			f = b ^ c ^ d;
			k = 0xca62c1d6;
		}
		next = rol(a, 5) + f + e + k + w[t];
		e = d;
		d = c;
		c = rol(b, 30);
		b = a;
		a = next;
	}
	s->h[0] += a;
	s->h[1] += b;
	s->h[2] += c;
	s->h[3] += d;
	s->h[4] += e;
}

static void start(struct sha1 *s)
{
	static const uint32_t first[5] = { 0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476,
					   0xc3d2e1f0 };

	memcpy(s->h, first, sizeof(first));
	s->bytes = 0;
}

static void add(struct sha1 *s, const uint8_t *buf, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		s->block[s->bytes++ % BLOCK] = buf[i];
		if (s->bytes % BLOCK == 0)
			compress(s);
	}
}

static void end(struct sha1 *s, uint8_t out[SHA1_SIZE])
{
	static const uint8_t pad[BLOCK] = { 0x80 };
	uint8_t bits[8];

	put_be64(bits, s->bytes * 8);
	add(s, pad, 1 + (2 * BLOCK - 9 - s->bytes % BLOCK) % BLOCK);
	add(s, bits, sizeof(bits));
	for (unsigned i = 0; i < 5; i++)
		put_be32(out + 4 * i, s->h[i]);
}

void sha1(uint8_t out[SHA1_SIZE], const void *buf, size_t len)
{
	struct sha1 s;

	start(&s);
	add(&s, buf, len);
	end(&s, out);
}

void sha1_hmac(uint8_t out[SHA1_SIZE], const void *key, size_t keylen, const void *buf, size_t len)
{
	uint8_t pad[BLOCK] = { 0 }, inner[SHA1_SIZE];
	struct sha1 s;

	if (keylen > BLOCK)
		sha1(pad, key, keylen);
	else
		memcpy(pad, key, keylen);
	for (unsigned i = 0; i < BLOCK; i++)
		pad[i] ^= 0x36;
	start(&s);
	add(&s, pad, BLOCK);
	add(&s, buf, len);
	end(&s, inner);
	for (unsigned i = 0; i < BLOCK; i++)
		pad[i] ^= 0x36 ^ 0x5c;
	start(&s);
	add(&s, pad, BLOCK);
	add(&s, inner, sizeof(inner));
	end(&s, out);
}
