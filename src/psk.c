// SPDX-License-Identifier: GPL-2.0-or-later
#include "psk.h"

#include "units.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int bad_line(const char *name, unsigned line, const char *what, struct error *err)
{
	err_set(err, ST_UNSUPPORTED, "%s, line %u: %s", name, line, what);
	return err_hint(err, "a line is USER:KEY, the key in hexadecimal; migtool psk FILE makes "
			     "one");
}

static const char *take_key(struct psk_user *u, const char *hex, size_t len)
{
	if (!len || len % 2)
		return "a key has an even number of hexadecimal digits";
	if (len / 2 < PSK_KEY_MIN)
		return "the key is shorter than 16 bytes (32 digits)";
	if (len / 2 > PSK_KEY_MAX)
		return "the key is longer than 64 bytes (128 digits)";
	for (size_t i = 0; i < len; i += 2) {
		int high = hex_digit(hex[i]), low = hex_digit(hex[i + 1]);

		if (high < 0 || low < 0)
			return "the key is not hexadecimal";
		u->key[i / 2] = (uint8_t)(high << 4 | low);
	}
	u->key_len = len / 2;
	return NULL;
}

/* NULL, or what is wrong with the line. */
static const char *take_line(struct psk_file *f, const char *s, size_t len)
{
	const char *colon = memchr(s, ':', len);
	size_t name_len = colon ? (size_t)(colon - s) : 0;
	struct psk_user *u = &f->users[f->n];
	const char *wrong;

	if (!colon)
		return "no colon";
	if (!name_len)
		return "no user";
	if (name_len > PSK_USER_MAX)
		return "the user's name is longer than 128 bytes";
	if (memchr(s, '\0', name_len))
		return "a NUL in the user's name";
	memcpy(u->name, s, name_len);
	u->name[name_len] = '\0';
	if (psk_find(f, u->name))
		return "this user was there before";
	wrong = take_key(u, colon + 1, len - name_len - 1);
	if (!wrong)
		f->n++;
	return wrong;
}

static int take_lines(struct psk_file *f, const char *name, const char *text, size_t len,
		      struct error *err)
{
	const char *end = text + len;

	for (unsigned line = 1; text < end; line++) {
		const char *nl = memchr(text, '\n', (size_t)(end - text));
		const char *next = nl ? nl + 1 : end, *stop = nl ? nl : end;
		const char *wrong;

		while (stop > text && (stop[-1] == '\r' || stop[-1] == ' ' || stop[-1] == '\t'))
			stop--;
		if (stop > text && *text != '#') {
			if (f->n == PSK_USERS_MAX)
				return bad_line(name, line, "more than 1024 users", err);
			wrong = take_line(f, text, (size_t)(stop - text));
			if (wrong)
				return bad_line(name, line, wrong, err);
		}
		text = next;
	}
	return f->n ? 0 : bad_line(name, 1, "there is no user", err);
}

int psk_parse(struct psk_file *f, const char *name, const char *text, size_t len, struct error *err)
{
	unsigned lines = 1;

	memset(f, 0, sizeof(*f));
	if (len > PSK_FILE_MAX)
		return err_set(err, ST_UNSUPPORTED, "%s is larger than 1 MiB", name);
	for (size_t i = 0; i < len && lines <= PSK_USERS_MAX; i++)
		lines += text[i] == '\n';
	f->users = calloc(lines, sizeof(*f->users));
	if (!f->users)
		return err_set(err, ST_NOMEM, "out of memory for %s", name);
	if (!take_lines(f, name, text, len, err))
		return 0;
	/* the line that was wrong may have left a part of its key behind the last user */
	explicit_bzero(f->users, lines * sizeof(*f->users));
	f->n = 0;
	psk_free(f);
	return -1;
}

void psk_free(struct psk_file *f)
{
	if (f->users)
		explicit_bzero(f->users, f->n * sizeof(*f->users));
	free(f->users);
	memset(f, 0, sizeof(*f));
}

const struct psk_user *psk_find(const struct psk_file *f, const char *user)
{
	for (unsigned i = 0; i < f->n; i++)
		if (!strcmp(f->users[i].name, user))
			return &f->users[i];
	return NULL;
}

const struct psk_user *psk_client(const struct psk_file *f)
{
	const struct psk_user *u = psk_find(f, PSK_DEFAULT_USER);

	return u || f->n != 1 ? u : &f->users[0];
}

size_t psk_line(char out[PSK_LINE_MAX], const char *user, const uint8_t *key, size_t key_len)
{
	static const char digits[] = "0123456789abcdef";
	size_t n = (size_t)snprintf(out, PSK_USER_MAX + 2, "%s:", user);

	for (size_t i = 0; i < key_len; i++) {
		out[n++] = digits[key[i] >> 4];
		out[n++] = digits[key[i] & 15];
	}
	out[n++] = '\n';
	out[n] = '\0';
	return n;
}
