/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tls-authz: the names that a peer may have. The list is NAME[;NAME]...; a name is compared byte
 * for byte and as a whole, there are no patterns. A `;` behind a backslash belongs to its name, as
 * a distinguished name writes it, backslash and all.
 */
#ifndef MIGTOOL_AUTHZ_H
#define MIGTOOL_AUTHZ_H

#include "error.h"

#define AUTHZ_NAMES_MAX 256

struct authz {
	char *text;	   /* owned; the names point into it */
	const char **name; /* n of them */
	unsigned n;
};

/*
 * `text` may be NULL or "": no name, and nobody is asked for one (authz_asked). Blanks around a
 * name do not count. ST_USAGE: an empty name, or too many. Only after success authz_free is due.
 */
int authz_parse(struct authz *a, const char *text, struct error *err);
void authz_free(struct authz *a);

static inline bool authz_asked(const struct authz *a)
{
	return a->n > 0;
}

/* Is it one of the names? `name` has len bytes, which may contain anything. */
bool authz_allows(const struct authz *a, const char *name, size_t len);

/* The names for a message: "a; b". Cut with "..." where it does not fit. Returns buf. */
char *authz_show(const struct authz *a, char *buf, size_t len);

#endif
