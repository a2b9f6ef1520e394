// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Where memory is short, jansson blames the text, or goes on without a character of a string or a
 * member; and errno says nothing, as each number sets it to 0. So what it asks for is watched.
 */
#include "jsonread.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>

static _Thread_local bool was_short;

static void *take(size_t n)
{
	void *p = malloc(n);

	was_short |= !p;
	return p;
}

/* For the whole process, so before there are threads. */
__attribute__((constructor)) static void watch(void)
{
	json_set_alloc_funcs(take, free);
}

json_t *json_read(const char *text, size_t len, json_error_t *why)
{
	json_t *o;

	was_short = false;
	o = json_loadb(text, len, JSON_REJECT_DUPLICATES, why);
	errno = was_short ? ENOMEM : 0;
	if (!was_short)
		return o;
	json_decref(o);
	return NULL;
}
