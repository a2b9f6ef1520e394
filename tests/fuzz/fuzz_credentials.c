// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A file of pre-shared keys, and a list of allowed names. What was taken is within its bounds, is
 * found under its name, and is the same again when it is written and read.
 */
#include "fuzz.h"

#include "authz.h"
#include "psk.h"

static void judge_user(const struct psk_file *f, const struct psk_user *u)
{
	struct error err = { 0 };
	char line[PSK_LINE_MAX];
	struct psk_file again;
	size_t n;

	FUZZ_CHECK(u->name[0] && strlen(u->name) <= PSK_USER_MAX);
	FUZZ_CHECK(u->key_len >= PSK_KEY_MIN && u->key_len <= PSK_KEY_MAX);
	FUZZ_CHECK(psk_find(f, u->name) == u);
	n = psk_line(line, u->name, u->key, u->key_len);
	FUZZ_CHECK(n < sizeof(line) && !psk_parse(&again, "k", line, n, &err));
	FUZZ_CHECK(again.n == 1 && !strcmp(again.users[0].name, u->name));
	FUZZ_CHECK(again.users[0].key_len == u->key_len &&
		   !memcmp(again.users[0].key, u->key, u->key_len));
	psk_free(&again);
}

static void try_psk(const char *text, size_t size)
{
	struct error err = { 0 };
	struct psk_file f;

	if (psk_parse(&f, "k", text, size, &err)) {
		FUZZ_CHECK(err.msg[0] && err.status == ST_UNSUPPORTED && !f.users);
		return;
	}
	FUZZ_CHECK(f.n > 0 && f.n <= PSK_USERS_MAX);
	for (unsigned i = 0; i < f.n && i < 16; i++)
		judge_user(&f, &f.users[i]);
	psk_free(&f);
}

static void try_authz(const char *text, size_t size)
{
	char *line = strndup(text, size), shown[100];
	struct error err = { 0 };
	struct authz a;

	FUZZ_CHECK(line);
	if (authz_parse(&a, line, &err)) {
		FUZZ_CHECK(err.msg[0] && err.status == ST_USAGE && !a.text);
	} else {
		FUZZ_CHECK(authz_asked(&a) == (line[0] != '\0') && a.n <= AUTHZ_NAMES_MAX);
		for (unsigned i = 0; i < a.n; i++)
			FUZZ_CHECK(a.name[i][0] && authz_allows(&a, a.name[i], strlen(a.name[i])));
		FUZZ_CHECK(strlen(authz_show(&a, shown, sizeof(shown))) < sizeof(shown));
		FUZZ_CHECK(!authz_allows(&a, "", 0));
		authz_free(&a);
	}
	free(line);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = (char *)fuzz_copy(data, size);

	try_psk(text, size);
	try_authz(text, size);
	free(text);
	return 0;
}
