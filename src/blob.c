// SPDX-License-Identifier: GPL-2.0-or-later
#include "blob.h"

#include "byteorder.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#define DESCRIPTION_MAX (32u << 20)

struct blob {
	uint8_t *data;
	size_t len, cap;
};

struct blob *blob_new(struct error *err)
{
	struct blob *b = calloc(1, sizeof(*b));

	if (!b)
		err_set(err, ST_NOMEM, "no memory for the device state");
	return b;
}

void blob_free(struct blob *b)
{
	if (!b)
		return;
	free(b->data);
	free(b);
}

int blob_feed(struct blob *b, const void *buf, size_t len, struct error *err)
{
	if (len > BLOB_MAX - b->len)
		return err_set(err, ST_DATA, "more than %u MiB of device state", BLOB_MAX >> 20);
	if (b->len + len > b->cap) {
		size_t cap = b->cap ? b->cap : 1 << 20;
		uint8_t *more;

		while (cap < b->len + len)
			cap *= 2;
		more = realloc(b->data, cap);
		if (!more)
			return err_set(err, ST_NOMEM, "no memory for %zu bytes of device state",
				       cap);
		b->data = more;
		b->cap = cap;
	}
	memcpy(b->data + b->len, buf, len);
	b->len += len;
	return 0;
}

/* 00 06 be32 L at p, and L bytes that reach exactly to the end: a JSON object, or nothing at all */
static bool description_at(const struct blob *b, size_t p)
{
	size_t len = get_be32(b->data + p + 2);
	json_t *j;
	bool object;

	if (len > DESCRIPTION_MAX || p + 6 + len != b->len)
		return false;
	/* without a description the 00 has to follow a footer, or six zero-ish bytes would do */
	if (len == 0)
		return p >= 5 && b->data[p - 5] == 0x7e;
	if (b->data[p + 6] != '{')
		return false;
	j = json_loadb((const char *)b->data + p + 6, len, 0, NULL);
	object = json_is_object(j);
	json_decref(j);
	return object;
}

bool blob_complete(const struct blob *b)
{
	const uint8_t *at = b->data, *end = b->data + b->len;

	while (at + 6 <= end) {
		at = memchr(at, 0x06, (size_t)(end - at));
		if (!at)
			break;
		if (at > b->data && at[-1] == 0x00 && at + 5 <= end &&
		    description_at(b, (size_t)(at - 1 - b->data)))
			return true;
		at++;
	}
	return false;
}

bool blob_ends_with_eof(const struct blob *b)
{
	return b->len >= 6 && b->data[b->len - 1] == 0x00 && b->data[b->len - 6] == 0x7e;
}

void blob_run_state(const struct blob *b, char out[104])
{
	/* idstr, instance 0, version 1, be32 size, name NUL-padded to 100 bytes */
	static const char head[] = "\x0bglobalstate\0\0\0\0\0\0\0\1";
	size_t n = sizeof(head) - 1;
	const uint8_t *p = b->len ? memmem(b->data, b->len, head, n) : NULL;

	out[0] = '\0';
	if (!p || (size_t)(b->data + b->len - p) < n + 4 + 100)
		return;
	memcpy(out, p + n + 4, 100);
	out[100] = '\0';
	for (char *c = out; *c; c++)
		if ((*c < 'a' || *c > 'z') && *c != '-')
			out[0] = '\0';
}

const void *blob_data(const struct blob *b, size_t *len)
{
	*len = b->len;
	return b->data;
}
