// SPDX-License-Identifier: GPL-2.0-or-later
/* What each kind of transport will ask the broker for. */
#include "transport-io.h"

#include <string.h>

static int tcp_policy(struct policy *p, const struct uri *uri, bool listens, struct error *err)
{
	return policy_add_host(p, uri->host, (uint16_t)uri->port, listens, err);
}

/* Who listens looks first whether somebody still does, and removes a file that was left. */
static int unix_policy(struct policy *p, const struct uri *uri, bool listens, struct error *err)
{
	struct broker_addr addr;
	struct error ignored;

	if (unix_address(uri->path, &addr, &ignored))
		return 0; /* whoever uses it says so */
	if (policy_add_address(p, &addr.sa, addr.len,
			       POLICY_CONNECT | (listens ? POLICY_LISTEN : 0), err))
		return -1;
	return listens ? policy_add_root(p, uri->path, POLICY_LOOK | POLICY_UNLINK, err) : 0;
}

static int vsock_policy(struct policy *p, const struct uri *uri, bool listens, struct error *err)
{
	struct broker_addr addr;

	vsock_address(uri, listens, &addr);
	return policy_add_address(p, &addr.sa, addr.len, listens ? POLICY_LISTEN : POLICY_CONNECT,
				  err);
}

static int file_policy(struct policy *p, const struct uri *uri, bool writer, struct error *err)
{
	unsigned rights = POLICY_LOOK;

	if (writer)
		rights |= POLICY_PART | POLICY_WRITE | POLICY_PARENT;
	return policy_add_root(p, uri->path, rights, err);
}

static int exec_policy(struct policy *p, const struct uri *uri, struct error *err)
{
	char *argv[] = { (char *)"/bin/sh", (char *)"-c", uri->path, NULL };
	struct policy_command how = { .max = 1, .given_stdio = true };

	return policy_add_command(p, argv, &how, err);
}

int transport_policy(struct policy *p, const struct uri *uri, bool listens, bool writer,
		     struct error *err)
{
	switch (uri->scheme) {
	case SCHEME_TCP:
		return tcp_policy(p, uri, listens, err);
	case SCHEME_UNIX:
		return unix_policy(p, uri, listens, err);
	case SCHEME_VSOCK:
		return vsock_policy(p, uri, listens, err);
	case SCHEME_FILE:
		return file_policy(p, uri, writer, err);
	case SCHEME_EXEC:
		return exec_policy(p, uri, err);
	case SCHEME_FD:
		return fd_is_listening(uri->fd) ? policy_add_listener(p, uri->fd, err) : 0;
	case SCHEME_STDIO:
		p->stdio_taken = true;
		return policy_add_root(p, "/dev/null", POLICY_LOOK | POLICY_WRITE, err);
	default:
		return 0;
	}
}
