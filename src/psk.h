/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A file of pre-shared keys, as QEMU and GnuTLS have it: a line USER:HEXKEY for each user. A line
 * that is empty or begins with # counts for nothing.
 */
#ifndef MIGTOOL_PSK_H
#define MIGTOOL_PSK_H

#include "error.h"

#include <stdint.h>

#define PSK_DEFAULT_USER "qemu" /* QEMU's own default */
#define PSK_USER_MAX	 128	/* bytes of a name, GnuTLS' limit */
#define PSK_KEY_MAX	 64	/* bytes of a key, likewise */
#define PSK_KEY_MIN	 16	/* a shorter one can be guessed too soon */
#define PSK_KEY_NEW	 32	/* what we make */
#define PSK_USERS_MAX	 1024
#define PSK_FILE_MAX	 (1u << 20) /* bytes */
/* USER, colon, hexadecimal key, newline, NUL */
#define PSK_LINE_MAX (PSK_USER_MAX + 1 + 2 * PSK_KEY_MAX + 2)

struct psk_user {
	char name[PSK_USER_MAX + 1];
	uint8_t key[PSK_KEY_MAX];
	size_t key_len;
};

struct psk_file {
	struct psk_user *users;
	unsigned n;
};

/*
 * `text` has len bytes. ST_UNSUPPORTED, with `name` as the file's and the line's number, for what
 * is no such file, has nobody, or has somebody twice. A key never stands in a message. Only after
 * success psk_free is due, which wipes the keys.
 */
int psk_parse(struct psk_file *f, const char *name, const char *text, size_t len,
	      struct error *err);
void psk_free(struct psk_file *f);

/* NULL: no such user. */
const struct psk_user *psk_find(const struct psk_file *f, const char *user);

/* Who a client is: PSK_DEFAULT_USER, else the only one there; NULL: several and none of them. */
const struct psk_user *psk_client(const struct psk_file *f);

/* The line of such a file for this user. Returns its length. */
size_t psk_line(char out[PSK_LINE_MAX], const char *user, const uint8_t *key, size_t key_len);

#endif
