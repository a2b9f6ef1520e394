// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The files that ssh: reads. Input: 'k' and a key file's text, or 'h' and known_hosts lines of the
 * host "example.org", on the port 22 or 2222 by the second byte. What is seen is within its bounds;
 * a line that counts counts again when it is written anew, for that host and no other port.
 */
#include "fuzz.h"

#include "base64.h"
#include "ssh-keyfile.h"
#include "ssh-known.h"

#define HOST	"example.org"
#define FILE_OF "known_hosts"

static void judge_type(const char type[64], const uint8_t *blob, size_t len)
{
	char again[64];

	FUZZ_CHECK(memchr(type, '\0', 64));
	FUZZ_CHECK(!known_blob_type(blob, len, again) && !strcmp(type, again));
	for (const char *p = type; *p; p++)
		FUZZ_CHECK(*p > ' ' && *p < 0x7f);
}

static void key_file(const char *text, size_t len)
{
	struct keyfile k;

	keyfile_parse(&k, text, len);
	FUZZ_CHECK(k.kind <= KEYFILE_PKCS8 && k.len <= KEYFILE_BLOB_MAX);
	FUZZ_CHECK(memchr(k.type, '\0', sizeof(k.type)));
	if (k.kind == KEYFILE_NONE || k.kind == KEYFILE_PUBLIC)
		FUZZ_CHECK(!k.encrypted && !k.len && !k.type[0]);
	if (k.len) {
		FUZZ_CHECK(k.kind == KEYFILE_OPENSSH);
		judge_type(k.type, k.blob, k.len);
	}
}

/* Whoever shows this key is judged by one of the lines. */
static void judge_key(const struct known_hosts *k, const struct known_key *key)
{
	const struct known_key *which;
	enum known_verdict v = known_judge(k, key->blob, key->len, &which);

	FUZZ_CHECK(which >= k->keys && which < k->keys + k->n);
	if (key->mark == KNOWN_REVOKED)
		FUZZ_CHECK(v == KNOWN_IS_REVOKED);
	if (key->mark == KNOWN_PLAIN)
		FUZZ_CHECK(v == KNOWN_YES || v == KNOWN_IS_REVOKED);
	if (v == KNOWN_YES)
		FUZZ_CHECK(which->mark == KNOWN_PLAIN && which->len == key->len);
}

/* As the hint's command writes it. */
static void write_anew(const struct known_key *key, unsigned port)
{
	size_t size = BASE64_SIZE(key->len) + 200;
	char *line = malloc(size), *base64 = malloc(BASE64_SIZE(key->len)), name[64];
	struct known_hosts k = { 0 };
	struct error err = { 0 };
	size_t len;

	FUZZ_CHECK(line && base64);
	len = (size_t)snprintf(line, size, "%s %s %s\n", known_name(name, sizeof(name), HOST, port),
			       key->type, base64_encode(base64, key->blob, key->len, true));
	FUZZ_CHECK(!known_add(&k, FILE_OF, line, len, HOST, port, &err) && k.n == 1);
	FUZZ_CHECK(k.keys[0].len == key->len && !memcmp(k.keys[0].blob, key->blob, key->len));
	FUZZ_CHECK(!known_add(&k, FILE_OF, line, len, HOST, port + 1, &err) && k.n == 1);
	known_free(&k);
	free(base64);
	free(line);
}

static void known_hosts(const char *text, size_t len, unsigned port)
{
	struct known_hosts k = { 0 };
	struct error err = { 0 };
	unsigned lines = 1, last = 0;

	for (size_t i = 0; i < len; i++)
		lines += text[i] == '\n';
	FUZZ_CHECK(!known_add(&k, FILE_OF, text, len, HOST, port, &err));
	for (size_t i = 0; i < k.n; i++) {
		const struct known_key *key = &k.keys[i];

		FUZZ_CHECK(key->line > last && key->line <= lines && key->mark <= KNOWN_CA);
		last = key->line;
		judge_type(key->type, key->blob, key->len);
		if (i < 8) {
			judge_key(&k, key);
			write_anew(key, port);
		}
	}
	known_free(&k);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text;

	if (size < 2)
		return 0;
	text = (char *)fuzz_copy(data + 2, size - 2);
	if (data[0] == 'k')
		key_file(text, size - 2);
	else
		known_hosts(text, size - 2, data[1] == '2' ? 2222 : SSH_PORT);
	free(text);
	return 0;
}
