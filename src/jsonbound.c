// SPDX-License-Identifier: GPL-2.0-or-later
#include "jsonbound.h"

/* Where the string that begins at `at` ends: its closing quote, or len. */
static size_t string_end(const char *text, size_t len, size_t at)
{
	for (at++; at < len && text[at] != '"'; at++)
		if (text[at] == '\\')
			at++;
	return at;
}

bool json_within(const char *text, size_t len, unsigned values, unsigned depth)
{
	unsigned n = 1, level = 0;

	for (size_t i = 0; i < len; i++) {
		switch (text[i]) {
		case '"':
			i = string_end(text, len, i);
			break;
		case '{':
		case '[':
			if (++level > depth)
				return false;
			n++;
			break;
		case '}':
		case ']':
			level -= level > 0;
			break;
		case ',':
		case ':':
			n++;
			break;
		}
		if (n > values)
			return false;
	}
	return true;
}
