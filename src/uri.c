// SPDX-License-Identifier: GPL-2.0-or-later
#include "uri.h"

#include "suggest.h"
#include "units.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <linux/vm_sockets.h>

#define SCHEMES                                                                                  \
	"tcp:HOST:PORT, unix:PATH, vsock:CID:PORT, ssh://[USER@]HOST/PATH, fd:N, exec:COMMAND, " \
	"file:PATH, stdio:, null:, image:PATH"

static int parse_u32(const char *s, uint32_t max, uint32_t *out)
{
	uint64_t v;

	if (units_parse_u64(s, &v) || v > max)
		return -1;
	*out = (uint32_t)v;
	return 0;
}

static int bad(const struct uri *uri, struct error *err, const char *what, const char *form)
{
	err_set(err, ST_USAGE, "%s in the URI \"%s\"", what, uri->text);
	return err_hint(err, "the form is %s", form);
}

static int no_memory(struct error *err)
{
	return err_set(err, ST_NOMEM, "out of memory while a URI was parsed");
}

static int parse_tcp(struct uri *uri, const char *s, struct error *err)
{
	const char *form = "tcp:HOST:PORT, tcp:[IPV6-ADDRESS]:PORT or tcp::PORT";
	const char *host = s, *end = strrchr(s, ':');

	if (*s == '[') {
		host = s + 1;
		end = strchr(host, ']');
		if (!end || end == host || end[1] != ':')
			return bad(uri, err, "an address in brackets without its end or a port",
				   form);
	} else if (!end) {
		return bad(uri, err, "no port", form);
	} else if (memchr(s, ':', (size_t)(end - s))) {
		return bad(uri, err, "a host with a colon", form);
	}
	if (parse_u32(*s == '[' ? end + 2 : end + 1, 65535, &uri->port))
		return bad(uri, err, "a port that is no number up to 65535", form);
	uri->host = strndup(host, (size_t)(end - host));
	return uri->host ? 0 : no_memory(err);
}

static int parse_vsock(struct uri *uri, const char *s, struct error *err)
{
	const char *form = "vsock:CID:PORT or vsock::PORT";
	const char *end = strrchr(s, ':');
	char cid[16];

	if (!end)
		return bad(uri, err, "no port", form);
	if ((size_t)(end - s) >= sizeof(cid))
		return bad(uri, err, "a CID that is no 32-bit number", form);
	memcpy(cid, s, (size_t)(end - s));
	cid[end - s] = '\0';
	uri->cid = VMADDR_CID_ANY;
	if (cid[0] && parse_u32(cid, UINT32_MAX, &uri->cid))
		return bad(uri, err, "a CID that is no 32-bit number", form);
	if (parse_u32(end + 1, UINT32_MAX, &uri->port))
		return bad(uri, err, "a port that is no 32-bit number", form);
	return 0;
}

static int parse_fd(struct uri *uri, const char *s, struct error *err)
{
	uint32_t fd;

	if (parse_u32(s, INT_MAX, &fd))
		return bad(uri, err, "a descriptor that is no number",
			   "fd:N, N being a descriptor that migtool inherits");
	uri->fd = (int)fd;
	return 0;
}

static int parse_path(struct uri *uri, const char *s, struct error *err)
{
	if (!*s)
		return bad(uri, err, "nothing behind the colon",
			   uri->scheme == SCHEME_EXEC ? "exec:COMMAND" : "SCHEME:PATH");
	uri->path = strdup(s);
	return uri->path ? 0 : no_memory(err);
}

static int parse_unix(struct uri *uri, const char *s, struct error *err)
{
	size_t max = sizeof(((struct sockaddr_un *)NULL)->sun_path) - 1;

	if (strlen(s) > max) {
		err_set(err, ST_USAGE, "the path in \"%s\" has %zu bytes, a socket's at most %zu",
			uri->text, strlen(s), max);
		return err_hint(err, "use a shorter one, or a relative one");
	}
	return parse_path(uri, s, err);
}

static int parse_nothing(struct uri *uri, const char *s, struct error *err)
{
	return *s ? bad(uri, err, "something behind the colon", "stdio: or null:") : 0;
}

static int parse_rdma(struct uri *uri, const char *s, struct error *err)
{
	(void)s;
	err_set(err, ST_UNSUPPORTED,
		"%s: rdma is not built yet: it needs an RDMA device and library", uri->text);
	return err_hint(err, "use tcp:, over the same cards if need be");
}

#define SSH_FORM "ssh://[USER@]HOST[:PORT]/PATH, where /~/ is the home"

/* %41 is A. NULL with the error: out of memory, no two hex digits, %00. */
static char *percent_decode(const struct uri *uri, const char *s, size_t len, struct error *err)
{
	char *out = malloc(len + 1);
	size_t n = 0;

	if (!out) {
		no_memory(err);
		return NULL;
	}
	for (size_t i = 0; i < len; i++) {
		int high, low;

		if (s[i] != '%') {
			out[n++] = s[i];
			continue;
		}
		high = i + 2 < len ? hex_digit(s[i + 1]) : -1;
		low = i + 2 < len ? hex_digit(s[i + 2]) : -1;
		if (high < 0 || low < 0 || !(high | low)) {
			bad(uri, err, high < 0 || low < 0 ? "a % without two hex digits" : "a %00",
			    SSH_FORM "; %25 is a percent sign");
			free(out);
			return NULL;
		}
		out[n++] = (char)(high << 4 | low);
		i += 2;
	}
	out[n] = '\0';
	return out;
}

/* What ssh, its ProxyCommand's shell and our own messages can take for nothing but a name. */
static bool is_plain_name(const char *s, size_t len)
{
	if (!len || *s == '-')
		return false;
	for (size_t i = 0; i < len; i++)
		if ((unsigned char)s[i] <= ' ' || s[i] == 0x7f ||
		    strchr("'\"`$\\;&<>|(){}*?!#", s[i]))
			return false;
	return true;
}

/* HOST, HOST:PORT, [V6], [V6]:PORT between s and end. */
static int parse_ssh_host(struct uri *uri, const char *s, const char *end, struct error *err)
{
	const char *host = s, *host_end = end, *port = NULL;
	char digits[8];

	if (*s == '[') {
		host = s + 1;
		host_end = memchr(s, ']', (size_t)(end - s));
		if (!host_end || (host_end + 1 != end && host_end[1] != ':'))
			return bad(uri, err, "an address in brackets without its end", SSH_FORM);
		port = host_end + 1 == end ? NULL : host_end + 2;
	} else if ((port = memchr(s, ':', (size_t)(end - s)))) {
		host_end = port++;
	}
	if (!is_plain_name(host, (size_t)(host_end - host)) || (size_t)(host_end - host) > 255)
		return bad(uri, err, "a host that is no name of one", SSH_FORM);
	if (port) {
		snprintf(digits, sizeof(digits), "%.*s", (int)(end - port), port);
		if (end - port > 5 || parse_u32(digits, 65535, &uri->port) || !uri->port)
			return bad(uri, err, "a port that is no number from 1 to 65535", SSH_FORM);
	}
	uri->host = strndup(host, (size_t)(host_end - host));
	return uri->host ? 0 : no_memory(err);
}

static int parse_ssh_user(struct uri *uri, const char *s, const char *end, struct error *err)
{
	if (memchr(s, ':', (size_t)(end - s))) {
		bad(uri, err, "a password", SSH_FORM);
		return err_hint(err, "secrets come from keys, an agent or the terminal: everybody "
				     "can read a command line");
	}
	uri->user = percent_decode(uri, s, (size_t)(end - s), err);
	if (!uri->user)
		return -1;
	if (!is_plain_name(uri->user, strlen(uri->user)) || strlen(uri->user) > 255)
		return bad(uri, err, "a user that is no name of one", SSH_FORM);
	return 0;
}

/* The path as the far command's operand: relative to the home is what needs no tilde there. */
static int parse_ssh_path(struct uri *uri, const char *s, struct error *err)
{
	bool home = !strncmp(s, "/~/", 3);
	size_t len;
	char *path;

	if (home)
		s += 3;
	path = percent_decode(uri, s, strlen(s), err);
	if (!path)
		return -1;
	/* a relative one must not look like an option, an absolute one, nor like nothing */
	if (home && (path[0] == '-' || path[0] == '/' || !path[0])) {
		len = strlen(path) + 3;
		uri->path = malloc(len);
		if (uri->path)
			snprintf(uri->path, len, "./%s", path);
		free(path);
		return uri->path ? 0 : no_memory(err);
	}
	uri->path = path;
	return 0;
}

static int parse_ssh(struct uri *uri, const char *s, struct error *err)
{
	const char *at, *slash;

	if (strncmp(s, "//", 2))
		return bad(uri, err, "no // behind ssh:", SSH_FORM);
	s += 2;
	slash = strchr(s, '/');
	if (!slash)
		return bad(uri, err, "no path", SSH_FORM);
	at = memrchr(s, '@', (size_t)(slash - s));
	if (at && parse_ssh_user(uri, s, at, err))
		return -1;
	if (parse_ssh_host(uri, at ? at + 1 : s, slash, err))
		return -1;
	return parse_ssh_path(uri, slash, err);
}

static const struct {
	const char *name;
	int (*parse)(struct uri *uri, const char *s, struct error *err);
} schemes[SCHEME__MAX] = {
	[SCHEME_TCP] = { "tcp", parse_tcp },	     [SCHEME_UNIX] = { "unix", parse_unix },
	[SCHEME_VSOCK] = { "vsock", parse_vsock },   [SCHEME_FD] = { "fd", parse_fd },
	[SCHEME_EXEC] = { "exec", parse_path },	     [SCHEME_FILE] = { "file", parse_path },
	[SCHEME_STDIO] = { "stdio", parse_nothing }, [SCHEME_NULL] = { "null", parse_nothing },
	[SCHEME_IMAGE] = { "image", parse_path },    [SCHEME_SSH] = { "ssh", parse_ssh },
	[SCHEME_RDMA] = { "rdma", parse_rdma },
};

const char *uri_scheme_name(enum scheme scheme)
{
	return schemes[scheme].name;
}

static int unknown_scheme(const struct uri *uri, size_t len, struct error *err)
{
	char word[32];
	struct suggest near;

	snprintf(word, sizeof(word), "%.*s", (int)(len < sizeof(word) ? len : 0), uri->text);
	suggest_init(&near, word);
	for (unsigned i = 0; i < SCHEME__MAX; i++)
		suggest_offer(&near, schemes[i].name);
	err_set(err, ST_USAGE, "\"%s\" is no URI: its scheme is unknown", uri->text);
	if (near.best)
		return err_hint(err, "did you mean %s:%s?", near.best, uri->text + len + 1);
	return err_hint(err, "a URI is one of " SCHEMES);
}

static int parse_scheme(struct uri *uri, struct error *err)
{
	const char *colon = strchr(uri->text, ':');
	size_t n = colon ? (size_t)(colon - uri->text) : 0;

	if (!colon) {
		err_set(err, ST_USAGE, "\"%s\" is no URI: it has no scheme", uri->text);
		return err_hint(err, "a URI is one of " SCHEMES);
	}
	for (unsigned i = 0; i < SCHEME__MAX; i++) {
		if (strlen(schemes[i].name) != n || memcmp(schemes[i].name, uri->text, n))
			continue;
		uri->scheme = (enum scheme)i;
		return schemes[i].parse(uri, colon + 1, err);
	}
	return unknown_scheme(uri, n, err);
}

int uri_parse(struct uri *uri, const char *text, struct error *err)
{
	memset(uri, 0, sizeof(*uri));
	uri->fd = -1;
	uri->text = strdup(text);
	if (!uri->text)
		return no_memory(err);
	if (parse_scheme(uri, err) == 0)
		return 0;
	uri_free(uri);
	return -1;
}

void uri_free(struct uri *uri)
{
	free(uri->text);
	free(uri->host);
	free(uri->user);
	free(uri->path);
	uri->text = uri->host = uri->user = uri->path = NULL;
}

bool uri_zero_copy(const struct uri *uri)
{
	return uri->scheme == SCHEME_TCP || uri->scheme == SCHEME_FD;
}

bool uri_multi_channel(const struct uri *uri)
{
	return uri->scheme == SCHEME_TCP || uri->scheme == SCHEME_UNIX ||
	       uri->scheme == SCHEME_VSOCK || uri->scheme == SCHEME_NULL ||
	       uri->scheme == SCHEME_SSH;
}
