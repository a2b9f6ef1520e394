/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What query-migrate counts, and what QEMU lacks. Counters are atomic: workers add, the main thread
 * takes snapshots for progress, SIGUSR1 and the final object. Units: bytes and pages as named.
 */
#ifndef MIGTOOL_STATS_H
#define MIGTOOL_STATS_H

#include <stdatomic.h>
#include <stdint.h>

typedef _Atomic uint64_t counter;

/* One list for the counters and their snapshot. */
#define STATS_COUNTERS(X)                                                         \
	X(activity)	 /* bytes moved either way: the watchdog's */             \
	X(transferred)	 /* bytes on the wire, all channels */                    \
	X(multifd_bytes) /* of these on multifd channels */                       \
	X(total)	 /* bytes of guest memory */                              \
	X(to_travel)	 /* bytes of data that have to travel, as far as known */ \
	X(travelled)	 /* bytes of guest data done (read or placed) */          \
	X(duplicate)	 /* zero pages sent or received as such */                \
	X(normal)	 /* whole pages */                                        \
	X(skipped)                                                                \
	X(holes)	    /* bytes never sent because they are holes */         \
	X(dirty_sync_count) /* rounds */                                          \
	X(zero_copy_missed) /* dirty-sync-missed-zero-copy */                     \
	X(zero_copy_sent)                                                         \
	X(xbzrle_bytes)                                                           \
	X(xbzrle_pages)                                                           \
	X(xbzrle_cache_miss)                                                      \
	X(xbzrle_overflow)                                                        \
	X(xbzrle_encode_in) /* bytes of pages that were encoded */                \
	X(compress_pages)                                                         \
	X(compress_busy)                                                          \
	X(compress_size) /* bytes */                                              \
	X(precopy_bytes)                                                          \
	X(downtime_bytes)                                                         \
	X(postcopy_requests) /* of pages, by the destination */                   \
	X(postcopy_pages)    /* sent or received after the switch */              \
	X(postcopy_bytes)    /* on the wire, the same */                          \
	X(urgent_bytes)	     /* of these on postcopy-preempt's connection */      \
	X(placed)	     /* bytes that were put into a guest */               \
	X(released)	     /* bytes that release-ram gave back */               \
	/* milliseconds of CLOCK_MONOTONIC, 0: not yet */                         \
	X(t_start)                                                                \
	X(t_setup_done)                                                           \
	X(t_switchover)                                                           \
	X(t_resumed) /* postcopy: the guest has all that it needs to run */       \
	X(t_end)

#define STATS_COUNTER_(name) counter name;
#define STATS_PLAIN_(name)   uint64_t name;

struct stats {
	STATS_COUNTERS(STATS_COUNTER_)
};

/* The counters at one moment (each for itself: they are not read under one lock). */
struct stats_snapshot {
	STATS_COUNTERS(STATS_PLAIN_)
	uint64_t now; /* when it was taken, milliseconds of CLOCK_MONOTONIC */
};

static inline void stat_add(counter *c, uint64_t n)
{
	atomic_fetch_add_explicit(c, n, memory_order_relaxed);
}

static inline uint64_t stat_get(const counter *c)
{
	return atomic_load_explicit(c, memory_order_relaxed);
}

static inline void stat_set(counter *c, uint64_t n)
{
	atomic_store_explicit(c, n, memory_order_relaxed);
}

/* Any thread. */
void stats_snapshot(const struct stats *s, struct stats_snapshot *out);

/* Milliseconds of CLOCK_MONOTONIC, never 0: what the t_ counters are set to. */
uint64_t stats_now(void);

/* From t_start to t_end, or to the snapshot while it runs; 0 before the start. Milliseconds. */
uint64_t stats_elapsed(const struct stats_snapshot *s);

/* The same from the end of the set-up, where it is known: the time in which memory moved. */
uint64_t stats_moving(const struct stats_snapshot *s);

#endif
