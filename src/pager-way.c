// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Whoever fills the background makes way for faults. He is busy all the time, and each of those who
 * bring a page that the guest waits for (the fault thread, the connection's, the guest itself)
 * works for some microseconds and sleeps: where there are few cores he would be in somebody's way
 * until the scheduler takes the core from him, milliseconds later. So between two pieces he looks
 * whether somebody waits, and if so he sleeps himself.
 *
 * Not for long: the page may be one that only he brings. A fault that is not young any more is none
 * to wait for, and after some time the next piece is placed whoever waits.
 */
#include "pager-internal.h"

#include <poll.h>
#include <time.h>

#define MOMENT_NS 20000
#define WAY_NS	  500000  /* for a piece: 64 KiB in that time is the least that goes on */
#define YOUNG_NS  1000000 /* what answers come in */

/* Has the guest faulted, and the fault thread has not been told yet? */
static bool unread(const struct pager *p)
{
	struct pollfd fds[GUEST_SPACES_MAX];
	bool any = false;

	for (unsigned i = 0; i < p->nspaces; i++)
		fds[i] = (struct pollfd){ .fd = p->spaces[i].gone ? -1 : p->spaces[i].uffd,
					  .events = POLLIN };
	if (poll(fds, p->nspaces, 0) <= 0)
		return false;
	for (unsigned i = 0; i < p->nspaces; i++)
		any |= fds[i].revents & POLLIN;
	return any;
}

/* Is a page on its way that was asked for just now? */
static bool young(struct pager *p, uint64_t now)
{
	bool any = false;

	pthread_mutex_lock(&p->lock);
	for (size_t i = 0; i < p->asked.n && !any; i++)
		any = now - p->asked.v[i].since < YOUNG_NS;
	pthread_mutex_unlock(&p->lock);
	return any;
}

bool way_wanted(struct pager *p)
{
	return p->o.source.request && (unread(p) || young(p, pager_clock()));
}

void way_make(struct pager *p)
{
	const struct timespec moment = { 0, MOMENT_NS };
	uint64_t until = pager_clock() + WAY_NS;

	do
		nanosleep(&moment, NULL);
	while (young(p, pager_clock()) && pager_clock() < until);
}
