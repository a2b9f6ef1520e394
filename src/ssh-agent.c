// SPDX-License-Identifier: GPL-2.0-or-later
#include "ssh-agent.h"

#include "broker.h"
#include "byteorder.h"
#include "ssh-known.h"

#include <ctype.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

#define ANSWER_MAX (256u << 10) /* OpenSSH's own limit */
#define ANSWER_MS  10000	/* for what needs nobody's consent */

enum {
	REQUEST_IDENTITIES = 11,
	IDENTITIES_ANSWER = 12,
	SIGN_REQUEST = 13,
	SIGN_RESPONSE = 14,
};

/* What is left of a message that is being read. */
struct reader {
	const uint8_t *p;
	size_t left;
};

static int get_u32(struct reader *r, uint32_t *v)
{
	if (r->left < 4)
		return -1;
	*v = get_be32(r->p);
	r->p += 4;
	r->left -= 4;
	return 0;
}

static int get_string(struct reader *r, const uint8_t **s, uint32_t *len)
{
	if (get_u32(r, len) || *len > r->left)
		return -1;
	*s = r->p;
	r->p += *len;
	r->left -= *len;
	return 0;
}

static int transfer(struct agent *a, uint8_t *buf, size_t len, bool reading, int timeout_ms,
		    struct error *err)
{
	while (len) {
		ssize_t n = reading ? recv(a->fd, buf, len, MSG_DONTWAIT)
				    : send(a->fd, buf, len, MSG_DONTWAIT | MSG_NOSIGNAL);
		int r;

		if (n > 0) {
			buf += n;
			len -= (size_t)n;
			continue;
		}
		if (n < 0 && errno == EINTR)
			continue;
		if (n == 0 || errno != EAGAIN)
			return err_set(err, ST_SOCKET, "the ssh-agent closed the connection");
		r = cancel_wait(a->cancel, a->fd, reading ? POLLIN : POLLOUT, timeout_ms, err);
		if (r < 0)
			return -1;
		if (!r)
			return err_set(err, ST_TIMEOUT, "the ssh-agent does not answer");
	}
	return 0;
}

/* Sends a request (its first four bytes are left free) and reads the answer; the caller frees it.
 */
static int ask(struct agent *a, uint8_t *request, size_t len, uint8_t expected, int timeout_ms,
	       uint8_t **answer, struct reader *r, struct error *err)
{
	uint8_t head[4];
	uint32_t size;

	put_be32(request, (uint32_t)(len - 4));
	if (transfer(a, request, len, false, ANSWER_MS, err) ||
	    transfer(a, head, sizeof(head), true, timeout_ms, err))
		return -1;
	size = get_be32(head);
	if (!size || size > ANSWER_MAX)
		return err_set(err, ST_SOCKET, "SSH_AUTH_SOCK is no ssh-agent");
	*answer = malloc(size);
	if (!*answer)
		return err_set(err, ST_NOMEM, "no memory for the ssh-agent's answer");
	r->p = *answer + 1;
	r->left = size - 1;
	if (transfer(a, *answer, size, true, ANSWER_MS, err) == 0) {
		if ((*answer)[0] == expected)
			return 0;
		err_set(err, ST_REFUSED, "the ssh-agent refused");
	}
	free(*answer);
	return -1;
}

static int take_key(struct agent *a, struct reader *r)
{
	struct agent_key *key = &a->keys[a->n];
	const uint8_t *blob, *comment;
	uint32_t len, clen;

	if (get_string(r, &blob, &len) || get_string(r, &comment, &clen) ||
	    known_blob_type(blob, len, key->type))
		return -1;
	for (uint32_t i = 0; i < clen && i < sizeof(key->comment) - 1; i++)
		key->comment[i] = (char)(isprint(comment[i]) ? comment[i] : '?');
	key->blob = malloc(len);
	if (!key->blob)
		return -1;
	memcpy(key->blob, blob, len);
	key->len = len;
	a->n++;
	return 0;
}

static int list(struct agent *a, struct error *err)
{
	uint8_t request[5] = { 0, 0, 0, 0, REQUEST_IDENTITIES }, *answer;
	struct reader r;
	uint32_t n = 0;
	int rc = 0;

	if (ask(a, request, sizeof(request), IDENTITIES_ANSWER, ANSWER_MS, &answer, &r, err))
		return -1;
	if (get_u32(&r, &n))
		rc = -1;
	for (uint32_t i = 0; i < n && i < AGENT_KEYS_MAX && !rc; i++)
		rc = take_key(a, &r);
	free(answer);
	return rc ? err_set(err, ST_SOCKET, "the ssh-agent's list of keys makes no sense") : 0;
}

int agent_policy(struct policy *p, struct error *err)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	const char *path = getenv("SSH_AUTH_SOCK");

	if (!path || !*path || strlen(path) >= sizeof(sa.sun_path))
		return 0; /* there is none to ask */
	strcpy(sa.sun_path, path);
	return policy_add_address(p, &sa, sizeof(sa), POLICY_CONNECT, err);
}

int agent_open(struct agent *a, struct cancel *cancel, struct error *err)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	const char *path = getenv("SSH_AUTH_SOCK");

	memset(a, 0, sizeof(*a));
	a->cancel = cancel;
	a->fd = -1;
	if (!path || !*path)
		return err_set(err, ST_UNSUPPORTED, "no ssh-agent (SSH_AUTH_SOCK is not set)");
	if (strlen(path) >= sizeof(sa.sun_path))
		return err_set(err, ST_UNSUPPORTED, "SSH_AUTH_SOCK is too long");
	strcpy(sa.sun_path, path);
	a->fd = broker_socket_connect((struct sockaddr *)&sa, sizeof(sa));
	if (a->fd < 0)
		return err_sys(err, ST_UNSUPPORTED, errno, "no ssh-agent at %s", path);
	if (list(a, err) == 0)
		return 0;
	agent_close(a);
	return -1;
}

void agent_close(struct agent *a)
{
	for (unsigned i = 0; i < a->n; i++)
		free(a->keys[i].blob);
	a->n = 0;
	if (a->fd >= 0)
		close(a->fd);
	a->fd = -1;
}

int agent_sign(struct agent *a, const struct agent_key *key, const void *data, size_t len,
	       uint32_t flags, uint8_t **sig, size_t *siglen, struct error *err)
{
	size_t size = 4 + 1 + 4 + key->len + 4 + len + 4;
	uint8_t *request = malloc(size), *answer, *p = request;
	const uint8_t *both = NULL, *method, *bare;
	uint32_t bothlen, n, barelen;
	struct reader r;
	int rc;

	if (!request)
		return err_set(err, ST_NOMEM, "no memory for the ssh-agent");
	p[4] = SIGN_REQUEST;
	put_be32(p + 5, (uint32_t)key->len);
	memcpy(p + 9, key->blob, key->len);
	p += 9 + key->len;
	put_be32(p, (uint32_t)len);
	memcpy(p + 4, data, len);
	put_be32(p + 4 + len, flags);
	rc = ask(a, request, size, SIGN_RESPONSE, -1, &answer, &r, err);
	free(request);
	if (rc)
		return err_prefix(err, "signing with %s", key->comment);
	rc = get_string(&r, &both, &bothlen);
	r.p = both;
	r.left = rc ? 0 : bothlen;
	*sig = NULL;
	if (!rc && !get_string(&r, &method, &n) && !get_string(&r, &bare, &barelen) && !r.left &&
	    barelen && (*sig = malloc(barelen))) {
		memcpy(*sig, bare, barelen);
		*siglen = barelen;
	}
	free(answer);
	return *sig ? 0 : err_set(err, ST_SOCKET, "the ssh-agent's signature makes no sense");
}
