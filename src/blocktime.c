// SPDX-License-Identifier: GPL-2.0-or-later
#include "blocktime.h"

#include <stddef.h>

static struct blocktime_thread *find(struct blocktime *b, pid_t thread)
{
	for (unsigned i = 0; i < b->n; i++)
		if (b->threads[i].thread == thread)
			return &b->threads[i];
	if (b->n == BLOCKTIME_MAX)
		return NULL;
	b->threads[b->n].thread = thread;
	return &b->threads[b->n++];
}

void blocktime_add(struct blocktime *b, pid_t thread, uint64_t ns)
{
	struct blocktime_thread *t = thread ? find(b, thread) : NULL;

	if (!t)
		t = &b->others;
	t->ns += ns;
	t->faults++;
}

unsigned blocktime_longest(const struct blocktime *b, unsigned out[], unsigned room)
{
	unsigned n = 0;

	for (unsigned i = 0; i < b->n; i++) {
		unsigned at = n < room ? n++ : n;

		/* those that waited less move down, the last one out of the room */
		for (; at && b->threads[out[at - 1]].ns < b->threads[i].ns; at--)
			if (at < n)
				out[at] = out[at - 1];
		if (at < n)
			out[at] = i;
	}
	return n;
}
