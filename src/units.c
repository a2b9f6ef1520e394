// SPDX-License-Identifier: GPL-2.0-or-later
#include "units.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

static const char prefixes[] = "KMGTPE";

/* Reads digits; returns what stands behind them, NULL if there are none or the number is too big.
 */
static const char *digits(const char *s, uint64_t *out)
{
	uint64_t v = 0;
	const char *p = s;

	for (; *p >= '0' && *p <= '9'; p++) {
		if (__builtin_mul_overflow(v, 10, &v) ||
		    __builtin_add_overflow(v, (uint64_t)(*p - '0'), &v))
			return NULL;
	}
	*out = v;
	return p == s ? NULL : p;
}

int units_parse_u64(const char *s, uint64_t *out)
{
	uint64_t v;
	const char *end = digits(s, &v);

	if (!end || *end)
		return -1;
	*out = v;
	return 0;
}

int units_parse_size(const char *s, uint64_t *out)
{
	uint64_t v;
	const char *end = digits(s, &v);
	unsigned shift = 0;

	if (!end)
		return -1;
	if (*end) {
		char suffix[2] = { end[0], '\0' };
		size_t power = strcspn(prefixes, suffix);

		/* Lower case too: QEMU's users write 1g. */
		if (!prefixes[power])
			power = strcspn("kmgtp", suffix);
		if (power >= 5 || (end[1] && strcasecmp(end + 1, "iB")))
			return -1;
		shift = 10 * ((unsigned)power + 1);
	}
	if (v > UINT64_MAX >> shift)
		return -1;
	*out = v << shift;
	return 0;
}

char *units_format_size(uint64_t bytes, char *buf, size_t len)
{
	unsigned power = 0;

	while (power < 6 && bytes >> (10 * (power + 1)))
		power++;
	if (power == 0) {
		snprintf(buf, len, "%" PRIu64 " B", bytes);
		return buf;
	}
	/* In integers: a double would round 1023.999 MiB up to "1024.00 MiB". */
	uint64_t whole = bytes >> (10 * power);
	uint64_t rest = (bytes >> (10 * (power - 1))) & 1023;

	snprintf(buf, len, "%" PRIu64 ".%02" PRIu64 " %ciB", whole, rest * 100 / 1024,
		 prefixes[power - 1]);
	return buf;
}

char *units_format_exact(uint64_t bytes, char *buf, size_t len)
{
	unsigned power = 0;

	while (power < 5 && bytes && !(bytes & 1023)) {
		bytes >>= 10;
		power++;
	}
	if (power)
		snprintf(buf, len, "%" PRIu64 "%ciB", bytes, prefixes[power - 1]);
	else
		snprintf(buf, len, "%" PRIu64, bytes);
	return buf;
}

char *units_format_ms(uint64_t ms, char *buf, size_t len)
{
	uint64_t s = ms / 1000;

	if (ms < 1000)
		snprintf(buf, len, "%" PRIu64 " ms", ms);
	else if (s < 60)
		snprintf(buf, len, "%" PRIu64 ".%" PRIu64 " s", s, ms % 1000 / 100);
	else if (s < 3600)
		snprintf(buf, len, "%" PRIu64 ":%02" PRIu64, s / 60, s % 60);
	else
		snprintf(buf, len, "%" PRIu64 ":%02" PRIu64 ":%02" PRIu64, s / 3600, s / 60 % 60,
			 s % 60);
	return buf;
}

int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

int uuid_parse(const char *s, uint8_t out[16])
{
	uint8_t uuid[16];
	unsigned n = 0;

	if (strlen(s) != 36)
		return -1;
	for (unsigned i = 0; i < 36;) {
		int hi, lo;

		if (i == 8 || i == 13 || i == 18 || i == 23) {
			if (s[i++] != '-')
				return -1;
			continue;
		}
		hi = hex_digit(s[i]);
		lo = hex_digit(s[i + 1]);
		if (hi < 0 || lo < 0)
			return -1;
		uuid[n++] = (uint8_t)(hi << 4 | lo);
		i += 2;
	}
	memcpy(out, uuid, 16);
	return 0;
}

char *uuid_format(const uint8_t uuid[16], char buf[37])
{
	char *p = buf;

	for (unsigned i = 0; i < 16; i++)
		p += sprintf(p, i == 4 || i == 6 || i == 8 || i == 10 ? "-%02x" : "%02x", uuid[i]);
	return buf;
}
