// SPDX-License-Identifier: GPL-2.0-or-later
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "digest.h"
#include "digest-hash.h"
#include "byteorder.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct digest hash(const void *buf, size_t len)
{
	XXH128_hash_t h;

#if defined(__x86_64__)
	if (__builtin_cpu_supports("avx2"))
		return digest_hash_avx2(buf, len);
#endif
	h = XXH3_128bits_withSeed(buf, len, DIGEST_SEED);
	return (struct digest){ .high = h.high64, .low = h.low64 };
}

void digest_block_init(struct digest_block *b, const char *name)
{
	b->name = hash(name, strlen(name));
}

struct digest digest_page(const struct digest_block *b, uint64_t offset, const void *page,
			  size_t len)
{
	uint8_t padded[DIGEST_PAGE], mix[40];
	struct digest h;

	if (len < DIGEST_PAGE) {
		memcpy(padded, page, len);
		memset(padded + len, 0, sizeof(padded) - len);
		page = padded;
	}
	h = hash(page, DIGEST_PAGE);
	put_be64(mix, h.high);
	put_be64(mix + 8, h.low);
	put_be64(mix + 16, b->name.high);
	put_be64(mix + 24, b->name.low);
	put_be64(mix + 32, offset);
	return hash(mix, sizeof(mix));
}

void digest_add(struct digest *sum, struct digest term)
{
	sum->low += term.low;
	sum->high += term.high + (sum->low < term.low);
}

void digest_sub(struct digest *sum, struct digest term)
{
	sum->high -= term.high + (sum->low < term.low);
	sum->low -= term.low;
}

bool digest_equal(struct digest a, struct digest b)
{
	return a.high == b.high && a.low == b.low;
}

char *digest_hex(struct digest d, char out[33])
{
	snprintf(out, 33, "%016llx%016llx", (unsigned long long)d.high, (unsigned long long)d.low);
	return out;
}

static int half_from_hex(const char *hex, uint64_t *out)
{
	*out = 0;
	for (int i = 0; i < 16; i++) {
		char c = hex[i];
		unsigned digit;

		if (c >= '0' && c <= '9')
			digit = (unsigned)(c - '0');
		else if (c >= 'a' && c <= 'f')
			digit = (unsigned)(c - 'a') + 10;
		else
			return -1;
		*out = *out << 4 | digit;
	}
	return 0;
}

int digest_from_hex(const char *hex, struct digest *out)
{
	struct digest d;

	if (strlen(hex) != 32 || half_from_hex(hex, &d.high) || half_from_hex(hex + 16, &d.low))
		return -1;
	*out = d;
	return 0;
}

struct digest_stream {
	XXH3_state_t state;
};

struct digest_stream *digest_stream_new(void)
{
	/* The state wants more alignment than malloc gives. */
	struct digest_stream *s = aligned_alloc(_Alignof(struct digest_stream), sizeof(*s));

	if (!s)
		return NULL;
	/* reset makes the secret anew only if the seed changes: it reads what malloc left there */
	XXH3_INITSTATE(&s->state);
	XXH3_128bits_reset_withSeed(&s->state, DIGEST_SEED);
	return s;
}

void digest_stream_update(struct digest_stream *s, const void *buf, size_t len)
{
	/* xxhash takes a NULL buffer for an error, also an empty one. */
	if (len)
		XXH3_128bits_update(&s->state, buf, len);
}

struct digest digest_stream_get(const struct digest_stream *s)
{
	XXH128_hash_t h = XXH3_128bits_digest(&s->state);

	return (struct digest){ .high = h.high64, .low = h.low64 };
}

void digest_stream_free(struct digest_stream *s)
{
	free(s);
}
