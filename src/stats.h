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

struct stats {
	counter activity;	 /* bytes moved either way: the watchdog's */
	counter transferred;	 /* bytes on the wire, all channels */
	counter multifd_bytes;	 /* of these on multifd channels */
	counter total;		 /* bytes of guest memory */
	counter to_travel;	 /* bytes of data that have to travel, as far as known */
	counter travelled;	 /* bytes of guest data done (read or placed) */
	counter duplicate;	 /* zero pages sent or received as such */
	counter normal;		 /* whole pages */
	counter skipped;
	counter holes;		 /* bytes never sent because they are holes */
	counter dirty_sync_count; /* rounds */
	counter zero_copy_missed; /* dirty-sync-missed-zero-copy */
	counter zero_copy_sent;
	counter xbzrle_bytes, xbzrle_pages, xbzrle_cache_miss, xbzrle_overflow;
	counter xbzrle_encode_in; /* bytes of pages that were encoded */
	counter compress_pages, compress_busy, compress_size;
	counter precopy_bytes, downtime_bytes;
	/* milliseconds of CLOCK_MONOTONIC, 0: not yet */
	counter t_start, t_setup_done, t_switchover, t_end;
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

#endif
