// SPDX-License-Identifier: GPL-2.0-or-later
#include "ssh-known.h"

#include "base64.h"
#include "byteorder.h"
#include "sha1.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define LINE_MAX_LEN 16384 /* an RSA key of 16384 bits has 2800 characters */
#define BLOB_MAX_LEN 8192
#define KEYS_MAX     1024

struct word {
	const char *s;
	size_t len;
};

/* The next word of a line, which ends at `end`; empty at the end. */
static struct word next_word(const char **at, const char *end)
{
	struct word w;

	while (*at < end && (**at == ' ' || **at == '\t'))
		(*at)++;
	w.s = *at;
	while (*at < end && **at != ' ' && **at != '\t')
		(*at)++;
	w.len = (size_t)(*at - w.s);
	return w;
}

static bool word_is(struct word w, const char *s)
{
	return w.len == strlen(s) && !memcmp(w.s, s, w.len);
}

char *known_name(char *buf, size_t size, const char *host, unsigned port)
{
	snprintf(buf, size, port == SSH_PORT ? "%s" : "[%s]:%u", host, port);
	return buf;
}

/* * and ?, in any case. Going back to the last * only keeps this from taking exponential time. */
static bool glob(struct word p, const char *name)
{
	size_t i = 0, star = SIZE_MAX;
	const char *mark = NULL;

	while (*name) {
		if (i < p.len && p.s[i] == '*') {
			star = i++;
			mark = name;
		} else if (i < p.len && (p.s[i] == '?' || tolower((unsigned char)p.s[i]) ==
								  tolower((unsigned char)*name))) {
			i++;
			name++;
		} else if (mark) {
			i = star + 1;
			name = ++mark;
		} else {
			return false;
		}
	}
	while (i < p.len && p.s[i] == '*')
		i++;
	return i == p.len;
}

/* |1|SALT|HASH */
static bool hashed_match(struct word w, const char *name)
{
	uint8_t salt[SHA1_SIZE], want[SHA1_SIZE], have[SHA1_SIZE];
	char lower[512];
	const char *bar;
	size_t n = 0;

	if (w.len < 3 || memcmp(w.s, "|1|", 3))
		return false;
	bar = memchr(w.s + 3, '|', w.len - 3);
	if (!bar ||
	    base64_decode(salt, sizeof(salt), w.s + 3, (size_t)(bar - w.s) - 3) != SHA1_SIZE)
		return false;
	bar++;
	if (base64_decode(want, sizeof(want), bar, (size_t)(w.s + w.len - bar)) != SHA1_SIZE)
		return false;
	for (; name[n] && n < sizeof(lower) - 1; n++)
		lower[n] = (char)tolower((unsigned char)name[n]);
	sha1_hmac(have, salt, sizeof(salt), lower, n);
	return !memcmp(have, want, sizeof(have));
}

static bool hosts_match(struct word w, const char *name)
{
	bool matched = false;

	if (w.len && w.s[0] == '|')
		return hashed_match(w, name);
	while (w.len) {
		const char *comma = memchr(w.s, ',', w.len);
		struct word one = { w.s, comma ? (size_t)(comma - w.s) : w.len };
		bool not = one.len && one.s[0] == '!';

		w.s += one.len + (comma != NULL);
		w.len -= one.len + (comma != NULL);
		if (not ) {
			one.s++;
			one.len--;
		}
		if (!one.len || !glob(one, name))
			continue;
		if (not )
			return false;
		matched = true;
	}
	return matched;
}

int known_blob_type(const void *blob, size_t len, char type[64])
{
	const uint8_t *b = blob;
	uint32_t n;

	if (len < 4)
		return -1;
	n = get_be32(b);
	if (!n || n > len - 4 || n >= 64)
		return -1;
	for (uint32_t i = 0; i < n; i++)
		if (!isalnum(b[4 + i]) && (!b[4 + i] || !strchr("-.@_+", b[4 + i])))
			return -1;
	memcpy(type, b + 4, n);
	type[n] = '\0';
	return 0;
}

/* Every key is a row of strings, each behind its length. */
static bool blob_whole(const uint8_t *blob, size_t len)
{
	while (len >= 4) {
		uint32_t n = get_be32(blob);

		if (n > len - 4)
			return false;
		blob += 4 + n;
		len -= 4 + n;
	}
	return !len;
}

static int append(struct known_hosts *k, const struct known_key *key, const uint8_t *blob,
		  struct error *err)
{
	struct known_key *more = realloc(k->keys, (k->n + 1) * sizeof(*more));

	if (more) {
		k->keys = more;
		k->keys[k->n] = *key;
		k->keys[k->n].blob = malloc(key->len);
		if (k->keys[k->n].blob) {
			memcpy(k->keys[k->n++].blob, blob, key->len);
			return 0;
		}
	}
	return err_set(err, ST_NOMEM, "no memory for %s", key->file);
}

/* One line, without its end. */
static int add_line(struct known_hosts *k, struct known_key *key, const char *s, const char *end,
		    const char *name, struct error *err)
{
	struct word w = next_word(&s, end), base64;
	uint8_t blob[BLOB_MAX_LEN];
	long len;

	if (!w.len || w.s[0] == '#')
		return 0;
	key->mark = KNOWN_PLAIN;
	if (w.s[0] == '@') {
		if (word_is(w, "@revoked"))
			key->mark = KNOWN_REVOKED;
		else if (word_is(w, "@cert-authority"))
			key->mark = KNOWN_CA;
		else
			return 0;
		w = next_word(&s, end);
	}
	if (!hosts_match(w, name))
		return 0;
	w = next_word(&s, end);
	base64 = next_word(&s, end);
	len = base64_decode(blob, sizeof(blob), base64.s, base64.len);
	if (len <= 0 || !blob_whole(blob, (size_t)len) ||
	    known_blob_type(blob, (size_t)len, key->type) || !word_is(w, key->type))
		return 0;
	key->len = (size_t)len;
	return append(k, key, blob, err);
}

int known_add(struct known_hosts *k, const char *file, const char *text, size_t len,
	      const char *host, unsigned port, struct error *err)
{
	struct known_key key = { .file = file };
	const char *end = text + len;
	char name[512];

	known_name(name, sizeof(name), host, port);
	while (text < end && k->n < KEYS_MAX) {
		const char *nl = memchr(text, '\n', (size_t)(end - text));
		const char *stop = nl ? nl : end;

		key.line++;
		if (stop > text && stop[-1] == '\r')
			stop--;
		if (stop - text <= LINE_MAX_LEN && add_line(k, &key, text, stop, name, err))
			return -1;
		text = nl ? nl + 1 : end;
	}
	return 0;
}

void known_free(struct known_hosts *k)
{
	for (size_t i = 0; i < k->n; i++)
		free(k->keys[i].blob);
	free(k->keys);
	k->keys = NULL;
	k->n = 0;
}

enum known_verdict known_judge(const struct known_hosts *k, const void *blob, size_t len,
			       const struct known_key **which)
{
	enum known_verdict v = KNOWN_NO;
	char type[64] = "";

	*which = NULL;
	known_blob_type(blob, len, type);
	for (size_t i = 0; i < k->n; i++) {
		const struct known_key *key = &k->keys[i];
		bool same = key->len == len && !memcmp(key->blob, blob, len);
		enum known_verdict now = KNOWN_OTHER_TYPE;

		if (key->mark == KNOWN_REVOKED) {
			if (!same)
				continue;
			*which = key;
			return KNOWN_IS_REVOKED;
		}
		if (v == KNOWN_YES)
			continue;
		if (key->mark == KNOWN_CA)
			now = KNOWN_ONLY_CA;
		else if (same)
			now = KNOWN_YES;
		else if (!strcmp(key->type, type))
			now = KNOWN_CHANGED;
		if (v == KNOWN_NO || now == KNOWN_YES ||
		    (now == KNOWN_CHANGED && v != KNOWN_CHANGED) ||
		    (now == KNOWN_OTHER_TYPE && v == KNOWN_ONLY_CA)) {
			v = now;
			*which = key;
		}
	}
	return v;
}

char *known_fingerprint(char out[FINGERPRINT_SIZE], const uint8_t sha256[32])
{
	memcpy(out, "SHA256:", 7);
	base64_encode(out + 7, sha256, 32, false);
	return out;
}
