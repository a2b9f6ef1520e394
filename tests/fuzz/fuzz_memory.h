/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A peer that has said all it will say: a transport that reads from memory, a few bytes at a time,
 * then ends, and that takes whatever is written.
 */
#ifndef MIGTOOL_FUZZ_MEMORY_H
#define MIGTOOL_FUZZ_MEMORY_H

#include "fuzz.h"

#include "transport-io.h"

#include <fcntl.h>

struct fuzz_said {
	const uint8_t *bytes;
	size_t left;
	size_t step; /* the most that one read gives; 0: all */
};

static inline ssize_t fuzz_memory_read(struct transport *t, void *buf, size_t len,
				       struct error *err)
{
	struct fuzz_said *said = t->priv;
	size_t n = said->left < len ? said->left : len;

	if (io_stopped(t, err))
		return -1;
	if (said->step && n > said->step)
		n = said->step;
	if (n)
		memcpy(buf, said->bytes, n);
	said->bytes += n;
	said->left -= n;
	return (ssize_t)n;
}

static inline ssize_t fuzz_memory_writev(struct transport *t, const struct iovec *iov, int n,
					 bool more, struct error *err)
{
	size_t all = 0;

	(void)t;
	(void)more;
	(void)err;
	for (int i = 0; i < n; i++)
		all += iov[i].iov_len;
	return (ssize_t)all;
}

static inline int fuzz_memory_shutdown(struct transport *t, struct error *err)
{
	(void)t;
	(void)err;
	return 0;
}

static const struct transport_ops fuzz_memory_ops = {
	.scheme = "memory",
	.read = fuzz_memory_read,
	.writev = fuzz_memory_writev,
	.shutdown_write = fuzz_memory_shutdown,
	.close = io_close,
};

/* What it says has to outlive it. An end in the middle is wrong data, as in a file. */
static inline struct transport *fuzz_memory(struct fuzz_said *said, bool two_way,
					    struct cancel *cancel)
{
	struct error err;
	struct transport *t = io_new(&fuzz_memory_ops, "memory", cancel, &err);

	FUZZ_CHECK(t);
	t->priv = said;
	t->two_way = two_way;
	t->end_status = ST_DATA;
	t->rfd = open("/dev/null", O_RDONLY | O_CLOEXEC); /* who polls it finds it readable */
	FUZZ_CHECK(t->rfd >= 0);
	return t;
}

#endif
