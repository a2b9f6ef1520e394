// SPDX-License-Identifier: GPL-2.0-or-later
#include "suggest.h"

#include <limits.h>
#include <string.h>

#define WORD_MAX 63

static unsigned min2(unsigned a, unsigned b)
{
	return a < b ? a : b;
}

unsigned suggest_distance(const char *a, const char *b)
{
	/* Three rows of the usual matrix: a swap looks two rows up. */
	unsigned rows[3][WORD_MAX + 1];
	size_t la = strlen(a), lb = strlen(b);

	if (la > WORD_MAX || lb > WORD_MAX)
		return UINT_MAX;
	for (size_t j = 0; j <= lb; j++)
		rows[0][j] = (unsigned)j;
	for (size_t i = 1; i <= la; i++) {
		unsigned *now = rows[i % 3], *up = rows[(i + 2) % 3], *up2 = rows[(i + 1) % 3];

		now[0] = (unsigned)i;
		for (size_t j = 1; j <= lb; j++) {
			now[j] = up[j - 1] + (a[i - 1] != b[j - 1]);
			now[j] = min2(now[j], min2(up[j], now[j - 1]) + 1);
			if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
				now[j] = min2(now[j], up2[j - 2] + 1);
		}
	}
	return rows[la % 3][lb];
}

void suggest_init(struct suggest *s, const char *word)
{
	s->word = word;
	s->best = NULL;
	s->distance = 2 + (unsigned)strlen(word) / 3;
}

void suggest_offer(struct suggest *s, const char *name)
{
	unsigned d = suggest_distance(s->word, name);
	size_t n = strlen(s->word);

	/* What was cut short ("postcopy") is as near as one typing error. */
	if (n >= 2 && !strncmp(name, s->word, n))
		d = min2(d, 1);
	if (d < s->distance) {
		s->distance = d;
		s->best = name;
	}
}
