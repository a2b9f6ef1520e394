// SPDX-License-Identifier: GPL-2.0-or-later
#include "effort.h"

#define PACKETS 8 /* between two decisions: 4 MiB of pages */
#define SECOND	UINT64_C(1000000000)

static const int levels[] = { EFFORT_LOW, EFFORT_LOW, -1, EFFORT_HIGH };

#define LAST (sizeof(levels) / sizeof(levels[0]) - 1)

int effort_level(const struct effort *e)
{
	return levels[e->step];
}

bool effort_skips(const struct effort *e, uint64_t raw, uint64_t len)
{
	return e->step == 0 && len > raw / 2;
}

static bool slow(const struct effort *e, unsigned share)
{
	return e->bytes * share < e->sending_ns / 1000 * EFFORT_SLOW / (SECOND / 1000);
}

/* A tenth of the time or more it could have run, and something else did. */
static bool crowded(const struct effort *e)
{
	return e->cpu_ns + e->making_ns / 10 < e->making_ns;
}

static int direction(const struct effort *e, unsigned share)
{
	if (slow(e, share))
		return 1;
	if (crowded(e))
		return -1;
	if (e->sending_ns > e->making_ns)
		return 1;
	return e->sending_ns < e->making_ns / 2 ? -1 : 0;
}

bool effort_note(struct effort *e, uint64_t making_ns, uint64_t cpu_ns, uint64_t sending_ns,
		 uint64_t bytes, unsigned share)
{
	int was = effort_level(e), to;

	e->making_ns += making_ns;
	e->cpu_ns += cpu_ns;
	e->sending_ns += sending_ns;
	e->bytes += bytes;
	if (++e->packets < PACKETS)
		return false;
	to = direction(e, share);
	if (to > 0 && e->step < LAST)
		e->step++;
	else if (to < 0 && e->step)
		e->step--;
	e->packets = 0;
	e->making_ns = e->cpu_ns = e->sending_ns = e->bytes = 0;
	return effort_level(e) != was;
}
