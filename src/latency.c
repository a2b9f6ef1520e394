// SPDX-License-Identifier: GPL-2.0-or-later
#include "latency.h"

/* The times below 16 ns have a slot each; then each doubling has 16. */
static unsigned slot_of(uint64_t ns)
{
	unsigned log;

	if (ns < LATENCY_STEPS)
		return (unsigned)ns;
	log = 63 - (unsigned)__builtin_clzll(ns);
	return (log - 3) * LATENCY_STEPS + (unsigned)(ns >> (log - 4) & (LATENCY_STEPS - 1));
}

/* The largest time that is counted there. */
static uint64_t top_of(unsigned slot)
{
	unsigned log = slot / LATENCY_STEPS + 3;

	if (slot < LATENCY_STEPS)
		return slot;
	return ((uint64_t)(LATENCY_STEPS + slot % LATENCY_STEPS + 1) << (log - 4)) - 1;
}

void latency_add(struct latency *l, uint64_t ns)
{
	l->count++;
	l->sum += ns;
	if (ns > l->max)
		l->max = ns;
	l->slot[slot_of(ns)]++;
}

uint64_t latency_percentile(const struct latency *l, double percent)
{
	double want = (double)l->count * percent / 100;
	uint64_t seen = 0;

	for (unsigned i = 0; i < LATENCY_SLOTS && l->count; i++) {
		seen += l->slot[i];
		if ((double)seen >= want && seen)
			return top_of(i) < l->max ? top_of(i) : l->max;
	}
	return l->max;
}
