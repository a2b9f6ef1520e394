/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The client of an ssh-agent (SSH_AUTH_SOCK). libssh2's own opens the socket itself and blocks in
 * it; this one gets its connection from the broker, and every wait ends with the cancel token.
 */
#ifndef MIGTOOL_SSH_AGENT_H
#define MIGTOOL_SSH_AGENT_H

#include "policy.h"
#include "cancel.h"

#include <stdint.h>

#define AGENT_KEYS_MAX 64

struct agent_key {
	uint8_t *blob; /* the public key */
	size_t len;
	char type[64];	  /* "ssh-ed25519" */
	char comment[64]; /* cut, control characters replaced */
};

struct agent {
	int fd;
	struct cancel *cancel; /* not owned */
	struct agent_key keys[AGENT_KEYS_MAX];
	unsigned n;
};

/*
 * Connects and asks for its keys. 0, or -1 and nothing to close: ST_UNSUPPORTED without
 * SSH_AUTH_SOCK, ST_SOCKET if the agent does not answer as one.
 */
/* Puts into the policy what agent_open asks the broker for. */
int agent_policy(struct policy *p, struct error *err);
int agent_open(struct agent *a, struct cancel *cancel, struct error *err);
void agent_close(struct agent *a);

/*
 * Signs `data` with a key. flags: the protocol's (2: rsa-sha2-256, 4: rsa-sha2-512). *sig is the
 * signature without its method's name, malloc'd. The agent may ask its user first, so there is no
 * time limit. 0, or -1: ST_REFUSED.
 */
int agent_sign(struct agent *a, const struct agent_key *key, const void *data, size_t len,
	       uint32_t flags, uint8_t **sig, size_t *siglen, struct error *err);

#endif
