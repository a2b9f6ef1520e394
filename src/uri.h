/* SPDX-License-Identifier: GPL-2.0-or-later */
/* One grammar of URIs for both sides. */
#ifndef MIGTOOL_URI_H
#define MIGTOOL_URI_H

#include "error.h"

#include <stdint.h>

enum scheme {
	SCHEME_TCP,   /* tcp:HOST:PORT, tcp:[V6]:PORT, tcp::PORT */
	SCHEME_UNIX,  /* unix:PATH */
	SCHEME_VSOCK, /* vsock:CID:PORT, vsock::PORT */
	SCHEME_FD,    /* fd:N */
	SCHEME_EXEC,  /* exec:COMMAND */
	SCHEME_FILE,  /* file:PATH */
	SCHEME_STDIO, /* stdio: */
	SCHEME_NULL,  /* null: */
	SCHEME_SSH,   /* ssh://[USER@]HOST[:PORT]/PATH, /~/ is the home */
	SCHEME_IMAGE, /* image:PATH, on this host: recv only */
	SCHEME_RDMA,  /* known, not built */
	SCHEME__MAX
};

struct uri {
	enum scheme scheme;
	char *text;    /* as given, for messages */
	char *host;    /* tcp: without brackets; empty: any / loopback. ssh: never empty */
	char *user;    /* ssh; NULL: not given */
	char *path;    /* unix, file, image; exec: the command; ssh: on the far host, decoded */
	uint32_t cid;  /* vsock; VMADDR_CID_ANY for an empty one */
	uint32_t port; /* tcp, vsock; ssh, 0: not given */
	int fd;	       /* fd */
};

/*
 * Parses; ST_USAGE for what is none, ST_UNSUPPORTED for what is known and not built (rdma),
 * with the reason. The caller frees it after success; after a failure there is nothing to
 * free (doing so is harmless).
 */
int uri_parse(struct uri *uri, const char *text, struct error *err);
void uri_free(struct uri *uri);

/* "tcp", ... as written before the colon. */
const char *uri_scheme_name(enum scheme scheme);

/*
 * Of ssh: user and host begin with no dash and hold nothing that a shell or ssh's own options would
 * take for more than a name. The path holds no NUL; it is relative to the far login's directory
 * unless it begins with '/', never empty, and never begins with '-'.
 */

/* Whether more than one connection can be opened to it: tcp, unix, vsock, null, ssh. */
bool uri_multi_channel(const struct uri *uri);

/* Whether its connections may have MSG_ZEROCOPY: tcp, fd. */
bool uri_zero_copy(const struct uri *uri);

#endif
