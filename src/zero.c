// SPDX-License-Identifier: GPL-2.0-or-later
#include "zero.h"

#include <stdint.h>
#include <string.h>

/* The compiler picks the widest registers of each clone for these. */
typedef uint64_t lanes __attribute__((vector_size(64), aligned(1), may_alias));

#define CHUNK 512u

/*
 * A clone per instruction set, chosen when the program is loaded. Not with the thread sanitizer: it
 * instruments the choice, which runs before its run-time library is set up, and crashes.
 */
#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define NO_CLONES
#endif
#endif
#if defined(__x86_64__) && !defined(__SANITIZE_THREAD__) && !defined(NO_CLONES)
#define WIDEST __attribute__((target_clones("default", "avx2", "avx512f")))
#else
#define WIDEST
#endif

static uint64_t word_at(const uint8_t *p)
{
	uint64_t v;

	memcpy(&v, p, sizeof(v));
	return v;
}

WIDEST static bool chunks_zero(const uint8_t *p, size_t chunks)
{
	for (; chunks; chunks--, p += CHUNK) {
		const lanes *v = (const lanes *)p;
		lanes or = (v[0] | v[1] | v[2] | v[3]) | (v[4] | v[5] | v[6] | v[7]);

		if (or [0] | or [1] | or [2] | or [3] | or [4] | or [5] | or [6] | or [7])
			return false;
	}
	return true;
}

bool zero_is(const void *buf, size_t len)
{
	const uint8_t *p = buf, *end = p + len;

	if (len >= 8 && (word_at(p) | word_at(p + len / 2 / 8 * 8) | word_at(end - 8)))
		return false;
	if (!chunks_zero(p, len / CHUNK))
		return false;
	for (p += len / CHUNK * CHUNK; end - p >= 8; p += 8)
		if (word_at(p))
			return false;
	for (; p < end; p++)
		if (*p)
			return false;
	return true;
}
