// SPDX-License-Identifier: GPL-2.0-or-later
#include "ssh-hostkey.h"

#include "base64.h"
#include "log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* By name in known_hosts, and what to ask the server for. */
static const struct {
	const char *type, *methods;
} types[] = {
	{ "ssh-ed25519", "ssh-ed25519" },
	{ "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp256" },
	{ "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp384" },
	{ "ecdsa-sha2-nistp521", "ecdsa-sha2-nistp521" },
	{ "ssh-rsa", "rsa-sha2-512,rsa-sha2-256,ssh-rsa" },
};
#define NTYPES (sizeof(types) / sizeof(types[0]))

static bool have_type(const struct known_hosts *k, const char *type)
{
	for (size_t i = 0; i < k->n; i++)
		if (k->keys[i].mark == KNOWN_PLAIN && !strcmp(k->keys[i].type, type))
			return true;
	return false;
}

/*
 * A server shows one key, of the first type on our list that it has: those that can be verified go
 * first. The others follow, so that a host without them can be told by its fingerprint.
 */
static void order(const struct known_hosts *k, char *out, size_t size)
{
	size_t n = 0;

	for (int known = 1; known >= 0; known--)
		for (size_t i = 0; i < NTYPES; i++)
			if (have_type(k, types[i].type) == (known == 1))
				n += (size_t)snprintf(out + n, size - n, "%s%s", n ? "," : "",
						      types[i].methods);
}

/* For the shell: ' is the only character that is special between '. NULL: `out` is too small. */
static const char *quote(char *out, size_t size, const char *s)
{
	size_t n = 0;

	if (!strpbrk(s, " \t\"'\\$`!*?[]()<>|&;#~{}=%") && *s)
		return s;
	out[n++] = '\'';
	for (; *s && n + 6 < size; s++) {
		if (*s == '\'') {
			memcpy(out + n, "'\\''", 4);
			n += 4;
		} else {
			out[n++] = *s;
		}
	}
	out[n++] = '\'';
	out[n] = '\0';
	return *s ? NULL : out;
}

/* The key that was shown. */
struct shown {
	const char *type, *blob, *print;
	size_t len;
};

/* Where keys are added. */
static const char *own_file(const struct ssh_login *g)
{
	/* none is read: where they usually are */
	return g->nfiles > LOGIN_SYSTEM_FILES ? g->files[0] : NULL;
}

/* Its first words, which make room for the key. As snprintf. */
static int begin_command(const struct ssh_login *g, const char *name, const char *file,
			 bool replace, char *out, size_t size)
{
	char q[600];

	if (g->no_directory)
		return snprintf(out, size, "mkdir -m 700 ~/.ssh && ");
	if (!replace)
		return 0;
	return snprintf(out, size, "ssh-keygen -R %s -f %s && ", quote(q, sizeof(q), name), file);
}

/*
 * The command adds just the key whose fingerprint stands in the message; one that asks the host
 * again could be given another. A long (RSA) key does not fit in a line for people. False: nor does
 * the command; half of one would do something else.
 */
static bool accept_command(const struct ssh_login *g, const struct shown *key, bool replace,
			   char *out, size_t size)
{
	char base64[BASE64_SIZE(256)], name[300], f[600], q[600];
	const char *own = own_file(g), *file = "~/.ssh/known_hosts";
	int n, more;

	if (own)
		file = quote(f, sizeof(f), own);
	if (!file)
		return false;
	known_name(name, sizeof(name), g->host, g->port);
	n = begin_command(g, name, file, replace, out, size);
	if (n < 0 || (size_t)n >= size)
		return false;
	if (key->len <= 256)
		more = snprintf(out + n, size - (size_t)n, "echo '%s %s %s' >> %s", name, key->type,
				base64_encode(base64, key->blob, key->len, true), file);
	else
		more = snprintf(out + n, size - (size_t)n, "ssh-keyscan -p %u -t rsa %s >> %s",
				g->port, quote(q, sizeof(q), g->host), file);
	return more >= 0 && (size_t)more < size - (size_t)n;
}

static int hint_command(const struct ssh_login *g, const struct shown *key, bool replace,
			const char *when, struct error *err)
{
	char command[sizeof(err->hint)];
	const char *own = own_file(g);

	if (accept_command(g, key, replace, command, sizeof(command) - strlen(when) - 2))
		return err_hint(err, "%s: %s", when, command);
	return err_hint(err, "%s: %s its line in %.300s", when, replace ? "replace" : "put",
			own ? own : "~/.ssh/known_hosts");
}

static int unknown(const struct ssh_login *g, const struct shown *key, struct error *err)
{
	err_set(err, ST_REFUSED, "%s shows a host key that is not known: %s %s", g->text, key->type,
		key->print);
	return hint_command(g, key, false, "if that is its fingerprint, accept it", err);
}

static int changed(const struct ssh_login *g, const struct known_key *which,
		   const struct shown *key, struct error *err)
{
	err_set(err, ST_REFUSED,
		"%s shows another host key than the one in %s, line %u: %s %s. Somebody may be "
		"between you and it",
		g->text, which->file, which->line, key->type, key->print);
	return hint_command(g, key, true, "only if its administrator says that this is the new one",
			    err);
}

static int other_type(const struct ssh_login *g, const struct known_key *which,
		      const struct shown *key, struct error *err)
{
	err_set(err, ST_REFUSED,
		"%s shows a host key that is not known: %s %s; %s, line %u, has its %s key, which "
		"it does not show to libssh2 %s",
		g->text, key->type, key->print, which->file, which->line, which->type,
		libssh2_version(0));
	return hint_command(g, key, false,
			    "use --rsh ssh, or, if that is its fingerprint, accept it", err);
}

static int judge(struct ssh_login *g, struct ssh_link *l, struct error *err)
{
	const char *hash = libssh2_hostkey_hash(l->s, LIBSSH2_HOSTKEY_HASH_SHA256);
	char print[FINGERPRINT_SIZE], type[64];
	struct shown key = { .type = type, .print = print };
	const struct known_key *which;
	int kind;

	key.blob = libssh2_session_hostkey(l->s, &key.len, &kind);
	if (!key.blob || !hash || known_blob_type(key.blob, key.len, type))
		return err_set(err, ST_REFUSED, "%s shows no host key", g->text);
	known_fingerprint(print, (const uint8_t *)hash);
	switch (known_judge(&g->known, key.blob, key.len, &which)) {
	case KNOWN_YES:
		log_verbose("the host key of %s is known: %s %s (%s, line %u)", l->name, type,
			    print, which->file, which->line);
		return 0;
	case KNOWN_CHANGED:
		return changed(g, which, &key, err);
	case KNOWN_IS_REVOKED:
		return err_set(err, ST_REFUSED,
			       "%s shows a host key that was revoked in %s, line %u: %s %s",
			       g->text, which->file, which->line, type, print);
	case KNOWN_OTHER_TYPE:
		return other_type(g, which, &key, err);
	case KNOWN_ONLY_CA:
		unknown(g, &key, err);
		return err_hint(err,
				"%s, line %u, knows only a certificate authority, which libssh2 "
				"%s cannot check: use --rsh ssh",
				which->file, which->line, libssh2_version(0));
	case KNOWN_NO:
		break;
	}
	return unknown(g, &key, err);
}

int ssh_hostkey_handshake(struct ssh_login *g, struct ssh_link *l, struct error *err)
{
	char hostkeys[512];

	order(&g->known, hostkeys, sizeof(hostkeys));
	if (ssh_link_handshake(l, hostkeys, err) || judge(g, l, err))
		return -1;
	log_verbose("ssh to %s: %s, %s", l->name,
		    libssh2_session_methods(l->s, LIBSSH2_METHOD_CRYPT_CS),
		    libssh2_session_methods(l->s, LIBSSH2_METHOD_MAC_CS));
	return 0;
}
