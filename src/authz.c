// SPDX-License-Identifier: GPL-2.0-or-later
#include "authz.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The first `;` that is not escaped, or the end. */
static char *name_end(char *s)
{
	for (; *s && *s != ';'; s++)
		if (*s == '\\' && s[1])
			s++;
	return s;
}

static bool is_blank(char c)
{
	return c == ' ' || c == '\t';
}

/* Without the blanks around it. An escaped one at the end is the name's own. */
static char *trim(char *s, char *end)
{
	while (is_blank(*s))
		s++;
	while (end > s && is_blank(end[-1]) && !(end - 1 > s && end[-2] == '\\'))
		end--;
	*end = '\0';
	return s;
}

static int split(struct authz *a, struct error *err)
{
	char *s = a->text;

	for (;;) {
		char *end = name_end(s), last = *end;
		char *name = trim(s, end);

		if (!*name) {
			err_set(err, ST_USAGE, "parameter tls-authz: an empty name");
			return err_hint(err, "--param 'tls-authz=NAME;NAME', names apart by ;");
		}
		if (a->n == AUTHZ_NAMES_MAX)
			return err_set(err, ST_USAGE, "parameter tls-authz: more than %d names",
				       AUTHZ_NAMES_MAX);
		a->name[a->n++] = name;
		if (!last)
			return 0;
		s = end + 1;
	}
}

int authz_parse(struct authz *a, const char *text, struct error *err)
{
	memset(a, 0, sizeof(*a));
	if (!text || !text[0])
		return 0;
	a->text = strdup(text);
	a->name = calloc(AUTHZ_NAMES_MAX, sizeof(*a->name));
	if (!a->text || !a->name) {
		authz_free(a);
		return err_set(err, ST_NOMEM, "out of memory for tls-authz");
	}
	if (!split(a, err))
		return 0;
	authz_free(a);
	return -1;
}

void authz_free(struct authz *a)
{
	free(a->text);
	free(a->name);
	memset(a, 0, sizeof(*a));
}

bool authz_allows(const struct authz *a, const char *name, size_t len)
{
	for (unsigned i = 0; i < a->n; i++)
		if (strlen(a->name[i]) == len && !memcmp(a->name[i], name, len))
			return true;
	return false;
}

char *authz_show(const struct authz *a, char *buf, size_t len)
{
	size_t n = 0;

	buf[0] = '\0';
	for (unsigned i = 0; i < a->n && n < len; i++)
		n += (size_t)snprintf(buf + n, len - n, "%s%s", i ? "; " : "", a->name[i]);
	if (n >= len && len > 3)
		memcpy(buf + len - 4, "...", 4);
	return buf;
}
