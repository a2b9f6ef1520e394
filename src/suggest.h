/* SPDX-License-Identifier: GPL-2.0-or-later */
/* "Did you mean": the known name that is nearest to what was typed. Pure. */
#ifndef MIGTOOL_SUGGEST_H
#define MIGTOOL_SUGGEST_H

struct suggest {
	const char *word; /* what was typed */
	const char *best; /* the nearest name offered so far, or NULL */
	unsigned distance;
};

/* How much may differ depends on the word's length: one edit, and one more per three characters. */
void suggest_init(struct suggest *s, const char *word);

/* Offers a name that lives as long as the result is used. Of equals the first one wins. */
void suggest_offer(struct suggest *s, const char *name);

/*
 * Edits (insert, delete, change, swap of neighbours) between two words; words over 63 characters
 * are infinitely far away (UINT_MAX).
 */
unsigned suggest_distance(const char *a, const char *b);

#endif
