// SPDX-License-Identifier: GPL-2.0-or-later
#include "jsonline.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void jsonline_seed(void)
{
	json_object_seed(0);
}

json_t *jsonline_string(const char *s)
{
	json_t *j = json_string(s);
	size_t len = strlen(s), o = 0;
	char *out;

	if (j)
		return j;
	/* Not UTF-8 somewhere: of such a string only ASCII is believed. */
	out = malloc(4 * len + 1);
	if (!out)
		return NULL;
	for (size_t i = 0; i < len; i++) {
		unsigned char c = (unsigned char)s[i];

		if (c < 0x80)
			out[o++] = s[i];
		else
			o += (size_t)snprintf(out + o, 5, "\\x%02x", c);
	}
	j = json_stringn(out, o);
	free(out);
	return j;
}

/* All of it; a descriptor that we were given may be non-blocking. */
static int write_all(int fd, const char *buf, size_t len)
{
	while (len > 0) {
		ssize_t n = write(fd, buf, len);

		if (n > 0) {
			buf += n;
			len -= (size_t)n;
		} else if (n < 0 && errno == EAGAIN) {
			struct pollfd p = { .fd = fd, .events = POLLOUT };

			poll(&p, 1, -1);
		} else if (n < 0 && errno != EINTR) {
			return -1;
		}
	}
	return 0;
}

int jsonline_write(int fd, json_t *object, struct error *err)
{
	char *text = object ? json_dumps(object, JSON_COMPACT | JSON_REAL_PRECISION(9)) : NULL;
	char *line = text ? realloc(text, strlen(text) + 2) : NULL;
	int r = 0;

	json_decref(object);
	if (!line) {
		free(text);
		return err_set(err, ST_NOMEM, "out of memory for a line of JSON");
	}
	strcat(line, "\n");
	if (write_all(fd, line, strlen(line)))
		r = err_sys(err, ST_FILE, errno, "cannot write JSON to %s",
			    fd == STDOUT_FILENO ? "stdout" : "its descriptor");
	free(line);
	return r;
}
