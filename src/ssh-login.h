/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Who logs in where, and with what: read from the options and files once, kept for the connections
 * that follow, so that a passphrase or password is asked for once.
 */
#ifndef MIGTOOL_SSH_LOGIN_H
#define MIGTOOL_SSH_LOGIN_H

#include "remote.h"
#include "ssh-keyfile.h"
#include "ssh-known.h"

#include <pthread.h>

#define LOGIN_SECRET_MAX   512
#define LOGIN_FILES_MAX	   8
#define LOGIN_SYSTEM_FILES 2 /* the last of them, which are not the user's */

/* A private key's file. */
struct login_key {
	char path[512]; /* as messages call it */
	char *text;	/* NULL: cannot be read */
	size_t len;
	struct keyfile seen;
	char passphrase[LOGIN_SECRET_MAX]; /* once it was right */
	bool asked;			   /* for: passphrase is right, or it was given up */
};

/* How the last login succeeded: what the next one tries first. */
struct login_way {
	enum { WAY_NONE, WAY_AGENT, WAY_FILE, WAY_INTERACTIVE, WAY_PASSWORD } kind;
	unsigned key;			/* WAY_FILE: which */
	uint8_t blob[KEYFILE_BLOB_MAX]; /* WAY_AGENT: the public key */
	size_t len;
	char secret[LOGIN_SECRET_MAX]; /* the passphrase, password or answer; "": none */
};

/* Files and options do not change once it is made; what is asked for does, under the lock. */
struct ssh_login {
	pthread_mutex_t lock; /* one connection asks at a time */
	struct login_way way;
	char user[128], host[256];
	unsigned port;
	char text[512]; /* the URI, for messages */
	struct known_hosts known;
	char files[LOGIN_FILES_MAX][512]; /* the known_hosts files; the first is where one adds */
	unsigned nfiles;
	bool no_directory; /* there is no ~/.ssh, where the first file is to be */
	struct login_key keys[CONFIG_LIST_MAX];
	unsigned nkeys;
	bool chosen; /* by -i: an agent's other keys are not offered */
};

/* ST_USAGE for an option it does not know, ST_FILE for a key that -i names and cannot be read. */
struct ssh_login *ssh_login_new(const struct remote_how *how, struct error *err);
/* ssh_login_free (remote.h) wipes secrets; NULL is accepted. */

#endif
