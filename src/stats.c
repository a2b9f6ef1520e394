// SPDX-License-Identifier: GPL-2.0-or-later
#include "stats.h"

#include <time.h>

uint64_t stats_now(void)
{
	struct timespec ts;
	uint64_t ms;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	ms = (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
	return ms ? ms : 1;
}

void stats_snapshot(const struct stats *s, struct stats_snapshot *out)
{
#define TAKE(name) out->name = stat_get(&s->name);
	STATS_COUNTERS(TAKE)
#undef TAKE
	out->now = stats_now();
}

static uint64_t since(const struct stats_snapshot *s, uint64_t start)
{
	uint64_t end = s->t_end ? s->t_end : s->now;

	return start && end > start ? end - start : 0;
}

uint64_t stats_elapsed(const struct stats_snapshot *s)
{
	return since(s, s->t_start);
}

uint64_t stats_moving(const struct stats_snapshot *s)
{
	return since(s, s->t_setup_done ? s->t_setup_done : s->t_start);
}
