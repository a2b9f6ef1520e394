/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The machine's pool of huge pages, larger for a while. It is one for all: whoever sizes it takes
 * his turn by a lock on the file itself, and so does huge_pages of tests/helper.bash.
 */
#ifndef MIGTOOL_HUGE_POOL_H
#define MIGTOOL_HUGE_POOL_H

#include "test.h"

#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/file.h>
#include <unistd.h>

struct huge_pool {
	int fd; /* holds the lock */
	int was;
};

static inline int huge_pool_read(const struct huge_pool *p)
{
	char text[32] = { 0 };

	return pread(p->fd, text, sizeof(text) - 1, 0) > 0 ? atoi(text) : -1;
}

static inline void huge_pool_write(const struct huge_pool *p, int n)
{
	char text[32];
	int len = snprintf(text, sizeof(text), "%d\n", n);

	/* at 0: the kernel ignores what is written further on */
	CHECK(pwrite(p->fd, text, (size_t)len, 0) == len);
}

/* Back to what it was, and the next one's turn. The pages may be in use until a process has ended.
 */
static inline void huge_pool_end(struct huge_pool *p)
{
	int i;

	huge_pool_write(p, p->was);
	/* the next one must not take them for the machine's */
	for (i = 0; i < 1000 && huge_pool_read(p) > p->was; i++)
		usleep(10000);
	CHECK(i < 1000);
	close(p->fd);
}

/* `pages` more, until huge_pool_end. False: it cannot be had, and all is as it was. */
static inline bool huge_pool_grow(struct huge_pool *p, int pages)
{
	p->fd = open("/proc/sys/vm/nr_hugepages", O_RDWR | O_CLOEXEC);
	if (p->fd < 0)
		return false;
	CHECK(flock(p->fd, LOCK_EX) == 0);
	p->was = huge_pool_read(p);
	huge_pool_write(p, p->was + pages);
	if (huge_pool_read(p) >= p->was + pages)
		return true;
	huge_pool_end(p);
	return false;
}

#endif
