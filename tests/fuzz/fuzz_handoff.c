// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What a VMM hands over on its socket: the message, in pieces with descriptors beside them, and
 * what is said of the regions. Input: a byte that says how long a piece is, one for the descriptors
 * of the first four pieces (two bits each: none, a userfaultfd, something else, both), then the
 * text.
 */
#include "fuzz.h"

#include "handoff.h"
#include "uffd.h"

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SIZE (UINT64_C(64) << 20) /* of the block that it is about */

/* Where there is none to be had, no message is taken. */
static int userfaultfd(void)
{
	static int fd = -2;
	struct uffdio_api api = { .api = UFFD_API };

	if (fd == -2) {
		fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
		if (fd >= 0 && ioctl(fd, UFFDIO_API, &api)) {
			close(fd);
			fd = -1;
		}
	}
	return fd;
}

/* The lowest number that is free: it goes up when something is left open. */
static int next_number(void)
{
	int fd = fcntl(0, F_DUPFD, 3);

	FUZZ_CHECK(fd >= 0);
	close(fd);
	return fd;
}

static void say(int sock, const uint8_t *text, size_t len, unsigned what)
{
	char control[CMSG_SPACE(2 * sizeof(int))] = { 0 };
	struct iovec iov = { (void *)text, len };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
	int fds[2];
	unsigned n = 0;

	if (what & 2)
		fds[n++] = 0;
	if (what & 1 && userfaultfd() >= 0)
		fds[n++] = userfaultfd();
	if (n) {
		struct cmsghdr *c = (struct cmsghdr *)control;

		msg.msg_control = control;
		msg.msg_controllen = CMSG_SPACE(n * sizeof(int));
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(n * sizeof(int));
		memcpy(CMSG_DATA(c), fds, n * sizeof(int));
	}
	FUZZ_CHECK(sendmsg(sock, &msg, MSG_DONTWAIT | MSG_NOSIGNAL) == (ssize_t)len);
}

static void say_all(int sock, const uint8_t *data, size_t size)
{
	size_t piece = data[0] ? data[0] : size;
	unsigned what = data[1];

	/* each takes a buffer of the socket's, of which there are some hundred */
	if (piece < size / 64)
		piece = size / 64;
	for (size_t at = 2; at < size; at += piece, what >>= 2)
		say(sock, data + at, size - at < piece ? size - at : piece, what & 3);
}

static void judge_regions(const struct guest_memory *g)
{
	const struct guest_space *s = &g->spaces[0];

	FUZZ_CHECK(g->nspaces == 1 && s->nregions && s->nregions <= GUEST_REGIONS_MAX);
	FUZZ_CHECK(guestmem_bytes(g) >= s->nregions * UINT64_C(4096));
	for (unsigned i = 0; i < s->nregions; i++) {
		const struct guest_region *r = &s->regions[i];

		FUZZ_CHECK(r->len && r->page >= 4096 && !(r->page & (r->page - 1)));
		FUZZ_CHECK(r->address + r->len > r->address);
		FUZZ_CHECK(r->offset <= SIZE && r->len <= SIZE - r->offset && !r->block);
		FUZZ_CHECK(guestmem_find(s, r->address) == r);
		FUZZ_CHECK(guestmem_find(s, r->address + r->len - 1) == r);
		FUZZ_CHECK(!i || s->regions[i - 1].address + s->regions[i - 1].len <= r->address);
	}
}

/* The text alone: once it is whole, what stands behind it changes nothing. */
static void judge_text(const char *text, size_t len)
{
	struct guest_memory g;
	struct guest_space *s;
	struct error err = { 0 };
	char more[64];
	int rc;

	guestmem_init(&g);
	s = guestmem_add_space(&g, -1, 0, &err);
	FUZZ_CHECK(s);
	rc = handoff_parse(text, len, s, &err);
	FUZZ_CHECK(rc >= -1 && rc <= 1);
	FUZZ_CHECK(rc != -1 || err.status == ST_DATA);
	if (rc == 1 && len < sizeof(more)) {
		unsigned before = s->nregions;

		memcpy(more, text, len);
		memset(more + len, ']', sizeof(more) - len);
		FUZZ_CHECK(handoff_parse(more, sizeof(more), s, &err) == 1);
		FUZZ_CHECK(s->nregions == 2 * before);
	}
	guestmem_free(&g);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct cancel token;
	uint64_t block = SIZE;
	struct guest_memory g;
	struct error err = { 0 };
	int pair[2], before;

	FUZZ_CHECK(token.fd || !cancel_init(&token, &err));
	userfaultfd();
	if (size < 3 || size > 65536)
		return 0;
	judge_text((const char *)data + 2, size - 2);
	before = next_number();
	FUZZ_CHECK(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair));
	say_all(pair[1], data, size);
	close(pair[1]);
	if (handoff_take(pair[0], &token, &g, &err)) {
		FUZZ_CHECK(err.msg[0] && (err.status == ST_DATA || err.status == ST_SOCKET));
		FUZZ_CHECK(!g.nspaces && g.peer == -1 && g.pidfd == -1);
		close(pair[0]);
	} else {
		FUZZ_CHECK(g.peer == pair[0] && g.spaces[0].uffd >= 0);
		FUZZ_CHECK(g.spaces[0].pid == getpid());
		if (!guestmem_check(&g, &block, 1, &err))
			judge_regions(&g);
		guestmem_free(&g);
	}
	FUZZ_CHECK(next_number() == before);
	return 0;
}
