/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Logging in over a connection whose host key was accepted: an agent's keys, key files, then, on a
 * terminal, what the server asks for (keyboard-interactive, else a password).
 */
#ifndef MIGTOOL_SSH_AUTH_H
#define MIGTOOL_SSH_AUTH_H

#include "ssh-link.h"
#include "ssh-login.h"

/* 0, or -1: ST_REFUSED with what was tried and what the server takes, or a broken connection. */
int ssh_auth(struct ssh_login *g, struct ssh_link *l, struct error *err);

#endif
