// SPDX-License-Identifier: GPL-2.0-or-later
/* A URI. What was taken has all its parts, within their bounds. */
#include "fuzz.h"

#include "uri.h"

static void judge(const struct uri *u, const char *text)
{
	FUZZ_CHECK(u->scheme < SCHEME__MAX && !strcmp(u->text, text));
	FUZZ_CHECK(!strncmp(text, uri_scheme_name(u->scheme), strlen(uri_scheme_name(u->scheme))));
	switch (u->scheme) {
	case SCHEME_TCP:
		FUZZ_CHECK(u->host && u->port <= 65535);
		break;
	case SCHEME_UNIX:
	case SCHEME_FILE:
	case SCHEME_EXEC:
	case SCHEME_IMAGE:
		FUZZ_CHECK(u->path && u->path[0]);
		break;
	case SCHEME_FD:
		FUZZ_CHECK(u->fd >= 0);
		break;
	default:
		break;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = (char *)fuzz_copy(data, size), *line;
	struct error err = { 0 };
	struct uri u;

	/* a string of exactly its size */
	line = strndup(text, size);
	free(text);
	FUZZ_CHECK(line);
	if (uri_parse(&u, line, &err))
		FUZZ_CHECK(err.msg[0] && (err.status == ST_USAGE || err.status == ST_UNSUPPORTED));
	else
		judge(&u, line);
	uri_free(&u);
	free(line);
	return 0;
}
