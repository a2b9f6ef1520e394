// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The library's back end of ssh: URIs. Everything up to the command's start happens in the caller's
 * thread, which may have to ask its user; then the pump's thread takes over.
 */
#include "ssh-auth.h"
#include "ssh-hostkey.h"
#include "ssh-pump.h"

static struct ssh_login *login_of(const struct remote_how *how, struct error *err)
{
	struct ssh_login *g = how->login ? *how->login : NULL;

	if (!g)
		g = ssh_login_new(how, err);
	if (g && how->login)
		*how->login = g;
	return g;
}

static struct ssh_link *log_in(struct ssh_login *g, const struct remote_how *how,
			       struct cancel *cancel, struct error *err)
{
	struct ssh_link *l = ssh_link_open(g->host, g->port, g->text, how->timeout_ms, cancel, err);

	if (l && !ssh_hostkey_handshake(g, l, err) && !ssh_auth(g, l, err))
		return l;
	ssh_link_close(l);
	return NULL;
}

int ssh_start(const struct remote_how *how, const char *command, struct remote_conn *c,
	      struct cancel *cancel, struct error *err)
{
	struct ssh_login *g = login_of(how, err);
	struct ssh_link *l = g ? log_in(g, how, cancel, err) : NULL;
	int rc = l ? ssh_pump_start(l, command, c, err) : -1;

	if (g && !how->login)
		ssh_login_free(g);
	return rc;
}
