/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The userfaultfd calls of who serves faults, and the only file that knows their kernel header. A
 * descriptor is non-blocking and its UFFDIO_API is done. Addresses are the guest process's, lengths
 * multiples of the page there.
 *
 * Closing the last copy of a descriptor, or unregistering a range, lets threads that wait there go
 * on with pages of zeros. So nothing here does either but uffd_unregister().
 */
#ifndef MIGTOOL_UFFD_H
#define MIGTOOL_UFFD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum uffd_event_kind {
	UFFD_FAULT,  /* start: the address, a byte of the page that is missing */
	UFFD_REMOVE, /* [start, start + len) is dropped: what is touched there next is zero */
	UFFD_REMAP,  /* [start, start + len) moves to `to` */
	UFFD_UNMAP,  /* [start, start + len) goes */
	UFFD_FORK,   /* child: a descriptor for the child's copy of the address space, ours now */
	UFFD_OTHER,
};

struct uffd_event {
	enum uffd_event_kind kind;
	uint64_t start, len, to;
	pid_t thread; /* of a fault: who waits; 0: not told (UFFD_FEATURE_THREAD_ID is off) */
	int child;
};

#define UFFD_EVENTS_MAX 64
#define UFFD_ROOM	(UFFD_EVENTS_MAX * 32) /* bytes, for the kernel's messages of them */

/*
 * Events that wait, in the kernel's order: how many (0: none), -1 with errno. A fault may stand
 * before the event of a range that was dropped earlier. While an event other than a fault is
 * unread, each of the calls below is UFFD_BUSY.
 *
 * room: UFFD_ROOM bytes, all zero, into which the kernel writes each message before the call can
 * end, or NULL. Whoever looks there later passes a copy to uffd_parse(), which tells what
 * uffd_read() has told, but of a fork not the descriptor (-1): `to` is the number that it had
 * there.
 */
int uffd_read(int fd, void *room, struct uffd_event out[UFFD_EVENTS_MAX]);
int uffd_parse(const void *room, struct uffd_event out[UFFD_EVENTS_MAX]);

/* The i-th message in there has been heeded: it tells nothing any more (UFFD_OTHER). */
void uffd_heeded(void *room, unsigned i);

enum uffd_result {
	UFFD_DONE,
	UFFD_BUSY,    /* the address space is changing: read the events, then again */
	UFFD_THERE,   /* the first page not done is there already */
	UFFD_NOWHERE, /* not registered: the mapping is gone */
	UFFD_DEAD,    /* the process is gone */
	UFFD_FULL,    /* no memory for the page on its side: wait, never give up the range */
	UFFD_FAILED,  /* errno says why */
};

/*
 * Places len bytes, or zeros, and wakes who waits for them. *done: how many bytes were placed, from
 * the start, whatever the result. hugetlbfs cannot be given zeros this way (UFFD_FAILED, EINVAL).
 */
enum uffd_result uffd_copy(int fd, uint64_t to, const void *from, uint64_t len, uint64_t *done);
enum uffd_result uffd_zero(int fd, uint64_t to, uint64_t len, uint64_t *done);

/* Threads that wait in the range look again, and fault again if the page is still missing. */
enum uffd_result uffd_wake(int fd, uint64_t start, uint64_t len);

/*
 * Has the process, or at least this address space of it, gone? Nothing is changed there; the
 * address is any that a process can have.
 */
bool uffd_gone(int fd, uint64_t address, uint32_t page);

/* No more faults there: missing pages are zeros from now on, for who waits there too. */
enum uffd_result uffd_unregister(int fd, uint64_t start, uint64_t len);

/*
 * Is it a userfaultfd whose UFFDIO_API is done? It is made non-blocking, as this file needs it: the
 * kernel lets nobody poll another one.
 */
bool uffd_valid(int fd);

#endif
