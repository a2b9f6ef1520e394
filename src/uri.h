/* SPDX-License-Identifier: GPL-2.0-or-later */
/* One grammar of URIs for both sides; interface.md lists it. */
#ifndef MIGTOOL_URI_H
#define MIGTOOL_URI_H

#include "error.h"

#include <stdint.h>

enum scheme {
	SCHEME_TCP, SCHEME_UNIX, SCHEME_VSOCK, SCHEME_FD, SCHEME_EXEC, SCHEME_FILE, SCHEME_STDIO,
	SCHEME_NULL, SCHEME_IMAGE, SCHEME_SSH, SCHEME_RDMA, SCHEME__MAX
};

struct uri {
	enum scheme scheme;
	char *text;	/* as given, for messages */
	char *host;	/* tcp, ssh: without brackets; empty: any / loopback */
	char *user;	/* ssh, or NULL */
	char *path;	/* unix, file, image, ssh (decoded), exec: the command */
	uint32_t cid;	/* vsock; VMADDR_CID_ANY for an empty one */
	uint32_t port;	/* tcp, vsock, ssh */
	int fd;		/* fd */
};

/* Parses; ST_USAGE for what is none, ST_UNSUPPORTED for what is known and not built (rdma, ssh). */
int uri_parse(struct uri *uri, const char *text, struct error *err);
void uri_free(struct uri *uri);

/* Whether more than one connection can be opened to it: tcp, unix, vsock, null (and ssh, later). */
bool uri_multi_channel(const struct uri *uri);

#endif
