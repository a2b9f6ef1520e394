/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Is it the right host? Only known_hosts can say so; nothing is ever added to it here.
 */
#ifndef MIGTOOL_SSH_HOSTKEY_H
#define MIGTOOL_SSH_HOSTKEY_H

#include "ssh-link.h"
#include "ssh-login.h"

/*
 * Exchanges keys, asking the server for a host key of a type that known_hosts has, and judges what
 * it shows. ST_REFUSED: unknown, changed, revoked, with its fingerprint and the command that
 * accepts it.
 */
int ssh_hostkey_handshake(struct ssh_login *g, struct ssh_link *l, struct error *err);

#endif
