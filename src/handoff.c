// SPDX-License-Identifier: GPL-2.0-or-later
#include "handoff.h"

#include "jsonbound.h"
#include "jsonread.h"
#include "uffd.h"

#include <errno.h>
#include <jansson.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77 /* Linux 6.5 */
#endif

#define SILENCE_MS 10000
#define TEXT_MAX   (1u << 20)
#define FDS_MAX	   8
#define VALUES_MAX (GUEST_REGIONS_MAX * 16) /* a region has four members, and room for more */

/* ---- the JSON ---- */

/* Length of the array that the text begins with; 0: it has not ended. -1: it begins otherwise. */
static ssize_t value_length(const char *text, size_t n)
{
	size_t i = 0, depth = 0;
	bool quoted = false;

	while (i < n && strchr(" \t\r\n", text[i]) && text[i])
		i++;
	if (i < n && text[i] != '[')
		return -1;
	for (; i < n; i++) {
		if (quoted && text[i] == '\\')
			i++;
		else if (text[i] == '"')
			quoted = !quoted;
		else if (!quoted && (text[i] == '[' || text[i] == '{'))
			depth++;
		else if (!quoted && (text[i] == ']' || text[i] == '}') && --depth == 0)
			return (ssize_t)i + 1;
	}
	return 0;
}

static int bad(struct error *err, const char *what)
{
	err_set(err, ST_DATA, "the VMM's hand-over of its memory is bad: %s", what);
	return err_hint(err, "expected is Firecracker's: a JSON array of objects with "
			     "base_host_virt_addr, size, offset, page_size");
}

static int get(const json_t *o, const char *key, uint64_t *out)
{
	const json_t *v = json_object_get(o, key);

	if (!json_is_integer(v) || json_integer_value(v) < 0)
		return -1;
	*out = (uint64_t)json_integer_value(v);
	return 0;
}

static int take_region(const json_t *o, struct guest_space *s, struct error *err)
{
	struct guest_region r = { 0 };
	uint64_t page;

	if (!json_is_object(o))
		return bad(err, "an element of the array is no object");
	if (get(o, "base_host_virt_addr", &r.address))
		return bad(err, "a region without base_host_virt_addr");
	if (get(o, "size", &r.len))
		return bad(err, "a region without size");
	if (get(o, "offset", &r.offset))
		return bad(err, "a region without offset");
	if (get(o, "page_size", &page) && get(o, "page_size_kib", &page))
		return bad(err, "a region without page_size");
	if (page > UINT32_MAX)
		return bad(err, "a page_size beyond all pages");
	r.page = (uint32_t)page;
	return guestmem_add_region(s, &r, err);
}

int handoff_parse(const char *text, size_t n, struct guest_space *s, struct error *err)
{
	ssize_t len = value_length(text, n);
	json_error_t why;
	json_t *root;
	int rc = 1;

	if (len < 0)
		return bad(err, "it is no JSON array");
	if (!len)
		return n < TEXT_MAX ? 0 : bad(err, "it has no end");
	if (!json_within(text, (size_t)len, VALUES_MAX, 4))
		return bad(err, "it has more values than a guest's regions");
	root = json_read(text, (size_t)len, &why);
	if (!root && errno == ENOMEM)
		return err_set(err, ST_NOMEM, "no memory for the VMM's hand-over of its memory");
	if (!json_is_array(root))
		rc = bad(err, root ? "it is no array" : why.text);
	else if (!json_array_size(root))
		rc = bad(err, "it has no region");
	for (size_t i = 0; rc > 0 && i < json_array_size(root); i++)
		if (take_region(json_array_get(root, i), s, err))
			rc = -1;
	json_decref(root);
	return rc;
}

/* ---- the message ---- */

struct message {
	char *text;
	size_t n;
	int fds[FDS_MAX];
	unsigned nfds;
};

static void take_fds(struct msghdr *msg, struct message *m)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
		size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		int fds[FDS_MAX];

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS || n > FDS_MAX)
			continue;
		memcpy(fds, CMSG_DATA(c), n * sizeof(int));
		for (size_t i = 0; i < n; i++) {
			if (m->nfds < FDS_MAX)
				m->fds[m->nfds++] = fds[i];
			else
				close(fds[i]);
		}
	}
}

/* What has come, at least a byte. 1; 0: nothing has; -1. */
static int receive(int sock, struct message *m, struct error *err)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(FDS_MAX * sizeof(int))];
	} control;
	struct iovec iov = { m->text + m->n, TEXT_MAX - m->n };
	struct msghdr msg = { .msg_iov = &iov,
			      .msg_iovlen = 1,
			      .msg_control = control.bytes,
			      .msg_controllen = sizeof(control.bytes) };
	ssize_t n = recvmsg(sock, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (n < 0)
		return err_sys(err, ST_SOCKET, errno, "cannot read what the VMM hands over");
	take_fds(&msg, m);
	if (!n)
		return err_set(err, ST_SOCKET,
			       "the VMM closed its connection after %zu bytes of its hand-over",
			       m->n);
	m->n += (size_t)n;
	return 1;
}

static int64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* Until the JSON is whole. */
static int read_message(int sock, struct cancel *cancel, struct message *m, struct guest_space *s,
			struct error *err)
{
	int64_t deadline = now_ms() + SILENCE_MS;

	for (;;) {
		int64_t left = deadline - now_ms();
		int rc = cancel_wait(cancel, sock, POLLIN, left > 0 ? (int)left : 0, err);

		if (rc < 0)
			return -1;
		if (!rc)
			return err_set(err, ST_TIMEOUT,
				       "the VMM has not handed its memory over within %d s (%zu "
				       "bytes came)",
				       SILENCE_MS / 1000, m->n);
		rc = receive(sock, m, err);
		if (rc > 0)
			rc = handoff_parse(m->text, m->n, s, err);
		if (rc)
			return rc < 0 ? -1 : 0;
	}
}

/* The first that is a userfaultfd; it is taken out of the list. -1. */
static int find_uffd(struct message *m, struct error *err)
{
	for (unsigned i = 0; i < m->nfds; i++) {
		int fd = m->fds[i];

		if (uffd_valid(fd)) {
			m->fds[i] = -1;
			return fd;
		}
	}
	return bad(err, m->nfds ? "no descriptor beside it is a userfaultfd that is ready"
				: "no descriptor came with it");
}

static void ask_who(int sock, struct guest_memory *g)
{
	struct ucred who;
	socklen_t len = sizeof(who);

	if (!getsockopt(sock, SOL_SOCKET, SO_PEERCRED, &who, &len) && who.pid > 0)
		g->spaces[0].pid = who.pid;
	len = sizeof(g->pidfd);
	if (getsockopt(sock, SOL_SOCKET, SO_PEERPIDFD, &g->pidfd, &len))
		g->pidfd = -1;
	else
		g->spaces[0].process = guestmem_process(g->pidfd);
}

int handoff_take(int sock, struct cancel *cancel, struct guest_memory *guest, struct error *err)
{
	struct message m = { .text = malloc(TEXT_MAX) };
	struct guest_space *s;
	int rc = -1;

	guestmem_init(guest);
	s = guestmem_add_space(guest, -1, 0, err);
	if (!m.text)
		err_set(err, ST_NOMEM, "no memory for what the VMM hands over");
	else if (s)
		rc = read_message(sock, cancel, &m, s, err);
	if (!rc) {
		s->uffd = find_uffd(&m, err);
		rc = s->uffd < 0 ? -1 : 0;
	}
	for (unsigned i = 0; i < m.nfds; i++)
		if (m.fds[i] >= 0)
			close(m.fds[i]);
	free(m.text);
	if (rc) {
		guestmem_free(guest);
		return -1;
	}
	ask_who(sock, guest);
	guest->peer = sock;
	return 0;
}
