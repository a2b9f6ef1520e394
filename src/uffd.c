// SPDX-License-Identifier: GPL-2.0-or-later
#include "uffd.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

static void translate(const struct uffd_msg *m, struct uffd_event *e)
{
	*e = (struct uffd_event){ .kind = UFFD_OTHER, .child = -1 };
	switch (m->event) {
	case UFFD_EVENT_PAGEFAULT:
		e->kind = UFFD_FAULT;
		e->start = m->arg.pagefault.address;
		e->thread = (pid_t)m->arg.pagefault.feat.ptid;
		break;
	case UFFD_EVENT_REMOVE:
	case UFFD_EVENT_UNMAP:
		e->kind = m->event == UFFD_EVENT_REMOVE ? UFFD_REMOVE : UFFD_UNMAP;
		e->start = m->arg.remove.start;
		e->len = m->arg.remove.end - m->arg.remove.start;
		break;
	case UFFD_EVENT_REMAP:
		e->kind = UFFD_REMAP;
		e->start = m->arg.remap.from;
		e->to = m->arg.remap.to;
		e->len = m->arg.remap.len;
		break;
	case UFFD_EVENT_FORK:
		e->kind = UFFD_FORK;
		e->to = m->arg.fork.ufd;
		break;
	}
}

static void take_child(const struct uffd_msg *m, struct uffd_event *e)
{
	if (e->kind != UFFD_FORK)
		return;
	e->child = (int)m->arg.fork.ufd;
	/* it has the flags that its parent's was made with, not those of today */
	fcntl(e->child, F_SETFL, fcntl(e->child, F_GETFL) | O_NONBLOCK);
	fcntl(e->child, F_SETFD, FD_CLOEXEC);
}

_Static_assert(UFFD_ROOM == UFFD_EVENTS_MAX * sizeof(struct uffd_msg), "the kernel's size");

int uffd_read(int fd, void *room, struct uffd_event out[UFFD_EVENTS_MAX])
{
	struct uffd_msg msg[UFFD_EVENTS_MAX];
	ssize_t n;

	do
		n = read(fd, room ? room : msg, sizeof(msg));
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return errno == EAGAIN ? 0 : -1;
	if (room)
		memcpy(msg, room, (size_t)n);
	n /= (ssize_t)sizeof(msg[0]);
	for (ssize_t i = 0; i < n; i++) {
		translate(&msg[i], &out[i]);
		take_child(&msg[i], &out[i]);
	}
	return (int)n;
}

int uffd_parse(const void *room, struct uffd_event out[UFFD_EVENTS_MAX])
{
	struct uffd_msg msg[UFFD_EVENTS_MAX];

	memcpy(msg, room, sizeof(msg));
	for (unsigned i = 0; i < UFFD_EVENTS_MAX; i++)
		translate(&msg[i], &out[i]);
	return UFFD_EVENTS_MAX;
}

void uffd_heeded(void *room, unsigned i)
{
	memset((struct uffd_msg *)room + i, 0, sizeof(struct uffd_msg));
}

static enum uffd_result result_of(int errnum)
{
	switch (errnum) {
	case EAGAIN:
		return UFFD_BUSY;
	case EEXIST:
		return UFFD_THERE;
	case ENOENT:
		return UFFD_NOWHERE;
	case ESRCH:
		return UFFD_DEAD;
	case ENOMEM:
	case ENOSPC:
		return UFFD_FULL;
	}
	return UFFD_FAILED;
}

/* The kernel stops at a page that is special, and says so only when asked about that one. */
static enum uffd_result result(int rc, int64_t moved, uint64_t *done)
{
	*done = moved > 0 ? (uint64_t)moved : 0;
	return rc ? result_of(errno) : UFFD_DONE;
}

enum uffd_result uffd_copy(int fd, uint64_t to, const void *from, uint64_t len, uint64_t *done)
{
	uint64_t at = 0, n;
	enum uffd_result r;

	do {
		struct uffdio_copy c = { .dst = to + at,
					 .src = (uintptr_t)from + at,
					 .len = len - at };
		int rc = ioctl(fd, UFFDIO_COPY, &c);

		r = result(rc, c.copy, &n);
		at += n;
	} while (r == UFFD_BUSY && n);
	*done = at;
	return r;
}

enum uffd_result uffd_zero(int fd, uint64_t to, uint64_t len, uint64_t *done)
{
	uint64_t at = 0, n;
	enum uffd_result r;

	do {
		struct uffdio_zeropage z = { .range = { .start = to + at, .len = len - at } };
		int rc = ioctl(fd, UFFDIO_ZEROPAGE, &z);

		r = result(rc, z.zeropage, &n);
		at += n;
	} while (r == UFFD_BUSY && n);
	*done = at;
	return r;
}

enum uffd_result uffd_wake(int fd, uint64_t start, uint64_t len)
{
	struct uffdio_range range = { .start = start, .len = len };

	return ioctl(fd, UFFDIO_WAKE, &range) ? result_of(errno) : UFFD_DONE;
}

enum uffd_result uffd_unregister(int fd, uint64_t start, uint64_t len)
{
	struct uffdio_range range = { .start = start, .len = len };

	if (!ioctl(fd, UFFDIO_UNREGISTER, &range)) {
		/*
		 * The kernel wakes who waits before it changes the mapping, and a thread that
		 * faults in between, under its lock of the mapping alone, waits for ever.
		 */
		ioctl(fd, UFFDIO_WAKE, &range);
		return UFFD_DONE;
	}
	/* of this call alone: the process is gone, and nothing is mapped there */
	return errno == ENOMEM ? UFFD_DEAD : errno == EINVAL ? UFFD_NOWHERE : result_of(errno);
}

bool uffd_gone(int fd, uint64_t address, uint32_t page)
{
	/* to be copied from what nobody can read: the process is looked for first */
	void *from =
		mmap(NULL, page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	uint64_t done;
	bool gone;

	if (from == MAP_FAILED)
		return false;
	gone = uffd_copy(fd, address, from, page, &done) == UFFD_DEAD;
	munmap(from, page);
	return gone;
}

bool uffd_valid(int fd)
{
	/* a range that can be none: a userfaultfd says so, anything else knows no such request */
	struct uffdio_range none = { .start = 1, .len = 1 };
	struct pollfd p = { .fd = fd, .events = POLLIN };
	int flags = fcntl(fd, F_GETFL);

	if (flags < 0 || !ioctl(fd, UFFDIO_WAKE, &none) || errno != EINVAL)
		return false;
	if (!(flags & O_NONBLOCK) && fcntl(fd, F_SETFL, flags | O_NONBLOCK))
		return false;
	/* before UFFDIO_API poll knows only an error */
	return poll(&p, 1, 0) >= 0 && !(p.revents & (POLLERR | POLLNVAL));
}
