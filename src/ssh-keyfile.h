/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What can be seen of a private key's file without its passphrase. Pure. Only the form that
 * OpenSSH has written since 7.8 names the public key; older ones are told by their first line.
 */
#ifndef MIGTOOL_SSH_KEYFILE_H
#define MIGTOOL_SSH_KEYFILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum keyfile_kind {
	KEYFILE_NONE,	 /* no private key */
	KEYFILE_PUBLIC,	 /* a public key: its private one lies beside it, without .pub */
	KEYFILE_OPENSSH, /* BEGIN OPENSSH PRIVATE KEY */
	KEYFILE_PEM,	 /* BEGIN RSA, EC or DSA PRIVATE KEY */
	KEYFILE_PKCS8,	 /* BEGIN [ENCRYPTED] PRIVATE KEY */
};

#define KEYFILE_BLOB_MAX 4096

struct keyfile {
	enum keyfile_kind kind;
	bool encrypted;
	char type[64]; /* "ssh-ed25519", "" if it cannot be seen */
	uint8_t blob[KEYFILE_BLOB_MAX];
	size_t len; /* of blob; 0: not to be seen */
};

void keyfile_parse(struct keyfile *k, const char *text, size_t len);

#endif
