// SPDX-License-Identifier: GPL-2.0-or-later
#include "report.h"

#include "log.h"
#include "units.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

/* Room for a sentence that is made of parts; what does not fit is cut. */
struct text {
	char s[800];
	size_t len;
};

const char *owner_name(enum owner owner)
{
	static const char *const names[] = { [OWNER_SOURCE] = "source",
					     [OWNER_DESTINATION] = "destination",
					     [OWNER_UNKNOWN] = "unknown" };

	return names[owner];
}

static void add(struct text *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void add(struct text *t, const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(t->s + t->len, sizeof(t->s) - t->len, fmt, ap);
	va_end(ap);
	if (n > 0)
		t->len += (size_t)n < sizeof(t->s) - t->len ? (size_t)n : sizeof(t->s) - t->len - 1;
}

static void add_size(struct text *t, uint64_t bytes)
{
	char buf[32];

	add(t, "%s", units_format_size(bytes, buf, sizeof(buf)));
}

static void add_time(struct text *t, uint64_t ms)
{
	char buf[32];

	add(t, "%s", units_format_ms(ms, buf, sizeof(buf)));
}

static void add_rate(struct text *t, uint64_t bytes, uint64_t ms)
{
	add_size(t, (uint64_t)((double)bytes * 1000 / (double)(ms ? ms : 1)));
	add(t, "/s");
}

/* What the codecs and zero-copy did, where they were on. */
static void add_codecs(struct text *t, const struct report *r)
{
	const struct stats_snapshot *s = r->stats;

	if (r->caps->on[CAP_XBZRLE])
		add(t,
		    "; xbzrle: %" PRIu64 " pages, %" PRIu64 " cache misses, %" PRIu64 " overflows",
		    s->xbzrle_pages, s->xbzrle_cache_miss, s->xbzrle_overflow);
	if (r->caps->on[CAP_COMPRESS])
		add(t, "; compress: %" PRIu64 " pages, all workers busy %" PRIu64 " times",
		    s->compress_pages, s->compress_busy);
	if (s->zero_copy_sent || s->zero_copy_missed)
		add(t, "; zero-copy: %" PRIu64 " packets, %" PRIu64 " copied by the kernel",
		    s->zero_copy_sent, s->zero_copy_missed);
}

/* "512.00 MiB on the wire for 2.00 GiB of memory, of which 1.50 GiB are holes and 4.00 KiB zero" */
static void add_wire(struct text *t, const struct report *r)
{
	const struct stats_snapshot *s = r->stats;
	uint64_t zero = s->duplicate * r->page_size;

	add_size(t, s->transferred);
	add(t, " on the wire for ");
	add_size(t, s->total);
	add(t, " of memory, of which ");
	if (s->holes) {
		add_size(t, s->holes);
		add(t, " are holes and ");
	}
	/* Holes are announced as zero pages, too. */
	add_size(t, zero > s->holes ? zero - s->holes : 0);
	add(t, s->holes ? " zero pages" : " are zero pages");
	add_codecs(t, r);
}

static void add_digest(struct text *t, const struct report *r)
{
	char hex[33];

	if (!r->digest) {
		add(t, "no digest was made");
		return;
	}
	add(t, "digest %s, ", digest_hex(*r->digest, hex));
	if (r->digest_verified)
		add(t, r->one_way ? "verified here" : "verified by both ends");
	else
		add(t, "not verified by the other end%s%s", r->digest_why ? ": " : "",
		    r->digest_why ? r->digest_why : "");
}

/* What is at the source when all is at the destination. */
static void add_left_behind(struct text *t, const struct report *r)
{
	add(t, "the destination owns the memory now; ");
	if (r->stats->released) {
		add_size(t, r->stats->released);
		add(t, " of %s were given back: it holds zeros", r->image);
	} else {
		add(t, "%s is as it was", r->image);
	}
}

static void add_whereabouts(struct text *t, const struct report *r)
{
	bool source = r->role == ROLE_SOURCE;

	if (r->complete && source)
		add_left_behind(t, r);
	else if (r->complete)
		add(t, "the memory is in %s", r->image);
	else if (r->owner == OWNER_UNKNOWN)
		add(t, "who owns the memory is not known: neither end may run the guest before "
		       "you know which one owns it");
	else if (!source && r->owner == OWNER_DESTINATION)
		add(t, "this end owns the memory, and it is not yet under its name: rename %s.part",
		    r->image);
	else if (source && r->owner == OWNER_DESTINATION && !r->err)
		add(t, "the guest had as much as it needed; %s is as it was", r->image);
	else if (source && r->owner == OWNER_DESTINATION)
		add(t,
		    "the guest is the destination's and waits there for memory: do not run %s "
		    "here, and keep it",
		    r->image);
	else if (source)
		add(t, "the source still owns the memory; %s is as it was", r->image);
	else if (r->image)
		add(t, "the source still owns the memory; nothing new is under %s", r->image);
	else
		add(t, "the source still owns the memory");
}

static void summary_of_success(const struct report *r)
{
	const struct stats_snapshot *s = r->stats;
	struct text t = { .len = 0 };

	add(&t, "%s ", r->role == ROLE_SOURCE ? "sent" : "received");
	add_size(&t, s->travelled);
	add(&t, " of data%s%s in ",
	    !r->peer		     ? ""
	    : r->role == ROLE_SOURCE ? " to "
				     : " from ",
	    r->peer ? r->peer : "");
	add_time(&t, stats_elapsed(s));
	add(&t, " (");
	add_rate(&t, s->travelled, stats_moving(s));
	add(&t, "); ");
	add_wire(&t, r);
	log_info("%s", t.s);
}

static void summary_of_failure(const struct report *r)
{
	const struct stats_snapshot *s = r->stats;
	struct text t = { .len = 0 };

	add(&t, "%s after ", migration_status_name(r->status));
	add_time(&t, stats_elapsed(s));
	add(&t, ": ");
	add_size(&t, s->travelled);
	if (s->to_travel) {
		add(&t, " of ");
		add_size(&t, s->to_travel);
	}
	add(&t, " done, ");
	add_size(&t, s->transferred);
	add(&t, " on the wire");
	log_info("%s", t.s);
}

#define LONGEST 4

/* "its threads waited for 12 ms in all: 3 ms of 4711 (120 faults), ..." */
static void summary_of_blocktime(const struct report *r)
{
	const struct blocktime *b = r->threads;
	struct text t = { .len = 0 };
	unsigned longest[LONGEST], n;

	if (!r->caps->on[CAP_POSTCOPY_BLOCKTIME] || !b)
		return;
	n = blocktime_longest(b, longest, LONGEST);
	add(&t, "the guest waited for pages for ");
	add_time(&t, r->blocked_ms);
	for (unsigned i = 0; i < n; i++) {
		const struct blocktime_thread *w = &b->threads[longest[i]];

		add(&t, "%s thread %ld for %.1f ms (%" PRIu64 " faults)", i ? "," : ":",
		    (long)w->thread, (double)w->ns / 1e6, w->faults);
	}
	if (b->n > n)
		add(&t, ", %u others for less", b->n - n);
	if (!b->n && b->others.faults)
		add(&t, "; of which thread is not known, for the userfaultfd was made without "
			"UFFD_FEATURE_THREAD_ID");
	log_info("%s", t.s);
}

/* Of a guest whose faults were served: what moved, and how long it waited. */
static void summary_of_faults(const struct report *r)
{
	struct text t = { .len = 0 };

	add_size(&t, r->stats->placed);
	add(&t, " of memory placed in ");
	add_time(&t, stats_elapsed(r->stats));
	if (r->since_recovery)
		add(&t, " since it was taken up again");
	add(&t, "; %" PRIu64 " faults", r->faults->count);
	if (r->faults->count)
		add(&t, ", answered in %.1f us (median), %.1f us (99 %%), %.1f us at most",
		    (double)latency_percentile(r->faults, 50) / 1000,
		    (double)latency_percentile(r->faults, 99) / 1000,
		    (double)r->faults->max / 1000);
	if (r->around)
		add(&t, "; %" PRIu64 " of their neighbours came with them", r->around);
	if (r->waiting)
		add(&t, "; %" PRIu64 " have no answer", r->waiting);
	log_info("%s", t.s);
	summary_of_blocktime(r);
	if (r->complete)
		log_info("the guest has all of its memory; %s is as it was", r->image);
	else
		log_info("not all of its memory has moved: %s stays needed for this guest",
			 r->image);
}

void report_summary(const struct report *r)
{
	struct text digest = { .len = 0 }, where = { .len = 0 };

	if (r->faults) {
		summary_of_faults(r);
		return;
	}
	/* What never began has nothing to tell but its error. */
	if (!r->complete && r->owner != OWNER_UNKNOWN && !r->stats->travelled)
		return;
	if (r->complete)
		summary_of_success(r);
	else
		summary_of_failure(r);
	if (r->complete) {
		add_digest(&digest, r);
		log_info("%s", digest.s);
	}
	add_whereabouts(&where, r);
	log_info("%s", where.s);
}

void report_statistics(const struct report *r)
{
	const struct stats_snapshot *s = r->stats;
	struct text how_far = { .len = 0 }, wire = { .len = 0 };

	add(&how_far, "%s for ", migration_status_name(r->status));
	add_time(&how_far, stats_elapsed(s));
	add(&how_far, ": ");
	add_size(&how_far, s->travelled);
	if (s->to_travel) {
		uint64_t done = s->travelled < s->to_travel ? s->travelled : s->to_travel;

		add(&how_far, " of ");
		add_size(&how_far, s->to_travel);
		add(&how_far, " (%u %%)", (unsigned)((double)done / (double)s->to_travel * 100));
	}
	add(&how_far, ", ");
	add_rate(&how_far, s->travelled, stats_moving(s));
	add(&how_far, " on average, round %" PRIu64, s->dirty_sync_count);
	add_wire(&wire, r);
	add(&wire, ", %" PRIu64 " whole pages", s->normal);
	if (s->multifd_bytes) {
		add(&wire, "; ");
		add_size(&wire, s->multifd_bytes);
		add(&wire, " on multifd channels");
	}
	log_answer("%s", how_far.s);
	log_answer("%s", wire.s);
}
