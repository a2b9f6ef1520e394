// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The library's back end of ssh: URIs. Of the first connection everything up to the command's start
 * happens in the caller's thread, which may have to ask its user; then the pump's takes over.
 */
#include "ssh-agent.h"
#include "ssh-auth.h"
#include "ssh-hostkey.h"
#include "ssh-pump.h"

/* Made before the sandbox took the files away; for the first who logs in. */
static struct {
	bool done;
	struct ssh_login *login; /* NULL: why */
	struct error why;
} prepared;

static struct ssh_login *new_login(const struct remote_how *how, struct error *err)
{
	struct ssh_login *g = prepared.login;

	if (!prepared.done)
		return ssh_login_new(how, err);
	prepared.login = NULL;
	if (!g)
		*err = prepared.why;
	return g;
}

static struct ssh_login *login_of(const struct remote_how *how, struct error *err)
{
	struct ssh_login *g = how->login ? *how->login : NULL;

	if (!g)
		g = new_login(how, err);
	if (g && how->login)
		*how->login = g;
	return g;
}

static struct ssh_link *log_in(struct ssh_login *g, int timeout_ms, struct cancel *cancel,
			       struct error *err)
{
	struct ssh_link *l = ssh_link_open(g->host, g->port, g->text, timeout_ms, cancel, err);

	if (l && !ssh_hostkey_handshake(g, l, err) && !ssh_auth(g, l, err))
		return l;
	ssh_link_close(l);
	return NULL;
}

/* Many further connections on a long path log in at the same time, each in its own thread. */
static int start_later(struct ssh_login *g, const struct remote_how *how, const char *command,
		       struct remote_conn *c, struct error *err)
{
	char name[128];

	known_name(name, sizeof(name), g->host, g->port);
	return ssh_pump_start_later(log_in, g, how->timeout_ms, name, command, c, err);
}

int ssh_start(const struct remote_how *how, const char *command, struct remote_conn *c,
	      struct cancel *cancel, struct error *err)
{
	struct ssh_login *g = login_of(how, err);
	struct ssh_link *l;
	int rc;

	if (g && how->extra && how->login)
		return start_later(g, how, command, c, err);
	l = g ? log_in(g, how->timeout_ms, cancel, err) : NULL;
	rc = l ? ssh_pump_start(l, command, c, err) : -1;
	if (g && !how->login)
		ssh_login_free(g);
	return rc;
}

int ssh_policy(struct policy *p, const struct remote_how *how, struct error *err)
{
	prepared.done = true;
	prepared.login = ssh_login_new(how, &prepared.why);
	if (!prepared.login)
		return 0; /* whoever logs in says so */
	ssh_link_prepare();
	if (policy_add_host(p, prepared.login->host, (uint16_t)prepared.login->port, false, err) ||
	    policy_add_root(p, "/dev/tty", POLICY_LOOK | POLICY_WRITE, err))
		return -1;
	return agent_policy(p, err);
}

void ssh_policy_end(void)
{
	ssh_login_free(prepared.login);
	prepared.login = NULL;
}
