// SPDX-License-Identifier: GPL-2.0-or-later
#include "base64.h"

#include <stdint.h>
#include <string.h>

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

char *base64_encode(char *out, const void *in, size_t len, bool pad)
{
	const uint8_t *s = in;
	char *p = out;

	for (size_t i = 0; i < len; i += 3) {
		size_t n = len - i < 3 ? len - i : 3;
		uint32_t v = (uint32_t)s[i] << 16;

		if (n > 1)
			v |= (uint32_t)s[i + 1] << 8;
		if (n > 2)
			v |= s[i + 2];
		for (size_t k = 0; k < 4; k++)
			if (k <= n)
				*p++ = alphabet[v >> (18 - 6 * k) & 63];
			else if (pad)
				*p++ = '=';
	}
	*p = '\0';
	return out;
}

static int value_of(char c)
{
	const char *at = c ? strchr(alphabet, c) : NULL;

	return at ? (int)(at - alphabet) : -1;
}

long base64_decode(void *out, size_t max, const char *in, size_t len)
{
	uint32_t v = 0;
	unsigned chars = 0, pads = 0;
	uint8_t *p = out;
	size_t n = 0;

	for (size_t i = 0; i < len; i++) {
		int d = value_of(in[i]);

		if (in[i] == '\n' || in[i] == '\r')
			continue;
		if (in[i] == '=')
			pads++;
		else if (d < 0 || pads)
			return -1;
		v = v << 6 | (uint32_t)(d < 0 ? 0 : d);
		if (++chars % 4)
			continue;
		for (unsigned k = 0; k < 3 && k + pads < 3; k++) {
			if (n == max)
				return -1;
			p[n++] = (uint8_t)(v >> (16 - 8 * k));
		}
		v = 0;
		if (pads > 2)
			return -1;
	}
	return chars % 4 ? -1 : (long)n;
}
