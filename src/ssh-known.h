/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What known_hosts files say of one host: its keys, in the forms that sshd(8) describes. Pure: the
 * caller reads the files. Nothing here ever adds a key.
 *
 * A line speaks of the host if its patterns match "host", or "[host]:port" where the port is not
 * 22 (a plain name says nothing of other ports): names, * and ?, a leading ! that excludes, and
 * hashed names. Case does not matter. What is no line of this form is passed over, as ssh does.
 */
#ifndef MIGTOOL_SSH_KNOWN_H
#define MIGTOOL_SSH_KNOWN_H

#include "error.h"

#include <stdint.h>

enum known_mark {
	KNOWN_PLAIN,   /* the host's key */
	KNOWN_REVOKED, /* @revoked: never to be accepted */
	KNOWN_CA,      /* @cert-authority: signs host keys, is none itself */
};

struct known_key {
	enum known_mark mark;
	char type[64]; /* "ssh-ed25519" */
	uint8_t *blob; /* the public key as it travels */
	size_t len;
	const char *file; /* not owned */
	unsigned line;
};

struct known_hosts {
	struct known_key *keys;
	size_t n;
};

#define SSH_PORT 22

/* How known_hosts calls a host: "host", "[host]:2222". Returns buf, cut to fit. */
char *known_name(char *buf, size_t size, const char *host, unsigned port);

/*
 * Adds what a file's text says of the host. `file` is remembered for messages. 0, or -1: no memory
 * (k stays valid).
 */
int known_add(struct known_hosts *k, const char *file, const char *text, size_t len,
	      const char *host, unsigned port, struct error *err);
void known_free(struct known_hosts *k);

enum known_verdict {
	KNOWN_YES,	  /* the host has this key */
	KNOWN_NO,	  /* nothing is known of the host */
	KNOWN_CHANGED,	  /* another key of this type is known */
	KNOWN_OTHER_TYPE, /* only keys of other types are known */
	KNOWN_IS_REVOKED, /* whatever else is said of it */
	KNOWN_ONLY_CA,	  /* nothing but a certificate authority is known */
};

/* Judges the key that a host showed. *which: the line that decided, or NULL. */
enum known_verdict known_judge(const struct known_hosts *k, const void *blob, size_t len,
			       const struct known_key **which);

/*
 * A key's type, the name in front of its blob, into `type`: letters, digits and -.@_+, so that it
 * can stand in a command. 0, or -1: no key.
 */
int known_blob_type(const void *blob, size_t len, char type[64]);

/* "SHA256:..." of a digest, as ssh-keygen prints it. */
#define FINGERPRINT_SIZE 64
char *known_fingerprint(char out[FINGERPRINT_SIZE], const uint8_t sha256[32]);

#endif
