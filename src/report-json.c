// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The final object. Names are query-migrate's; what does not apply to a transfer is 0, as QEMU does
 * it, and the structs of a capability are there when it is on. Rates are over the whole transfer:
 * QEMU's are over its last period, which says nothing when all is over.
 */
#include "report.h"

#include "jsonline.h"
#include "uri.h"

#include <stdio.h>

static double per_second(uint64_t n, uint64_t ms)
{
	return ms ? (double)n * 1000 / (double)ms : 0;
}

static double ratio(uint64_t a, uint64_t b)
{
	return b ? (double)a / (double)b : 0;
}

struct number {
	const char *name;
	uint64_t value;
};

struct rate {
	const char *name;
	double value;
};

static int put_numbers(json_t *o, const struct number *n, size_t count)
{
	int bad = 0;

	for (size_t i = 0; i < count; i++)
		bad |= json_object_set_new(o, n[i].name, json_integer((json_int_t)n[i].value));
	return bad;
}

static int put_rates(json_t *o, const struct rate *r, size_t count)
{
	int bad = 0;

	for (size_t i = 0; i < count; i++)
		bad |= json_object_set_new(o, r[i].name, json_real(r[i].value));
	return bad;
}

#define LEN(table) (sizeof(table) / sizeof((table)[0]))

/* NULL: out of memory. */
static json_t *object_of(const struct number *n, size_t nn, const struct rate *r, size_t nr)
{
	json_t *o = json_object();

	if (!put_numbers(o, n, nn) && !put_rates(o, r, nr))
		return o;
	json_decref(o);
	return NULL;
}

static json_t *ram(const struct report *r)
{
	const struct stats_snapshot *s = r->stats;
	uint64_t ms = stats_moving(s);
	bool over = r->complete || s->travelled >= s->to_travel;
	const struct number numbers[] = {
		{ "transferred", s->transferred },
		{ "remaining", over ? 0 : s->to_travel - s->travelled },
		{ "total", s->total },
		{ "duplicate", s->duplicate },
		{ "skipped", s->skipped },
		{ "normal", s->normal },
		{ "normal-bytes", s->normal * r->page_size },
		{ "dirty-pages-rate", 0 },
		{ "dirty-bytes-rate", 0 },
		{ "dirty-sync-count", s->dirty_sync_count },
		{ "dirty-sync-missed-zero-copy", s->zero_copy_missed },
		{ "postcopy-requests", s->postcopy_requests },
		{ "page-size", r->page_size },
		{ "multifd-bytes", s->multifd_bytes },
		{ "pages-per-second", (uint64_t)per_second(s->normal + s->duplicate, ms) },
		{ "precopy-bytes", s->precopy_bytes },
		{ "downtime-bytes", s->downtime_bytes },
		{ "postcopy-bytes", s->postcopy_bytes },
	};
	const struct rate rates[] = {
		{ "mbps", per_second(s->transferred, ms) * 8 / 1e6 },
	};

	return object_of(numbers, LEN(numbers), rates, LEN(rates));
}

static json_t *xbzrle(const struct report *r)
{
	const struct stats_snapshot *s = r->stats;
	uint64_t pages = s->normal + s->duplicate + s->xbzrle_pages;
	const struct number numbers[] = {
		{ "cache-size", params_xbzrle_cache_size(r->params) },
		{ "bytes", s->xbzrle_bytes },
		{ "pages", s->xbzrle_pages },
		{ "cache-miss", s->xbzrle_cache_miss },
		{ "overflow", s->xbzrle_overflow },
	};
	const struct rate rates[] = {
		{ "cache-miss-rate", ratio(s->xbzrle_cache_miss, pages) },
		{ "encoding-rate", ratio(s->xbzrle_encode_in, s->xbzrle_bytes) },
	};

	return object_of(numbers, LEN(numbers), rates, LEN(rates));
}

static json_t *compression(const struct report *r)
{
	const struct stats_snapshot *s = r->stats;
	uint64_t pages = s->normal + s->duplicate + s->compress_pages;
	const struct number numbers[] = {
		{ "pages", s->compress_pages },
		{ "busy", s->compress_busy },
		{ "compressed-size", s->compress_size },
	};
	const struct rate rates[] = {
		{ "busy-rate", ratio(s->compress_busy, pages) },
		{ "compression-rate", ratio(s->compress_pages * r->page_size, s->compress_size) },
	};

	return object_of(numbers, LEN(numbers), rates, LEN(rates));
}

/* QEMU's SocketAddress, in which ports and context ids are strings. */
static json_t *socket_address(const struct uri *uri)
{
	char port[16], cid[16];

	snprintf(port, sizeof(port), "%u", uri->port);
	snprintf(cid, sizeof(cid), "%u", uri->cid);
	if (uri->scheme == SCHEME_TCP)
		return json_pack("{s:s,s:s,s:s}", "type", "inet", "host", uri->host, "port", port);
	if (uri->scheme == SCHEME_UNIX)
		return json_pack("{s:s,s:o}", "type", "unix", "path", jsonline_string(uri->path));
	return json_pack("{s:s,s:s,s:s}", "type", "vsock", "cid", cid, "port", port);
}

/* Only what can be listened on has one. */
static int put_socket_address(json_t *o, const char *text)
{
	struct error ignored;
	struct uri uri;
	int bad = 0;

	if (uri_parse(&uri, text, &ignored))
		return 0;
	if (uri.scheme == SCHEME_TCP || uri.scheme == SCHEME_UNIX || uri.scheme == SCHEME_VSOCK)
		bad = json_object_set_new(o, "socket-address",
					  json_pack("[o]", socket_address(&uri)));
	uri_free(&uri);
	return bad;
}

static int put_error(json_t *o, const struct error *err, bool blocked)
{
	if (json_object_set_new(o, "error-desc", jsonline_string(err->msg)) ||
	    json_object_set_new(o, "error-code", json_string(status_info(err->status)->code)))
		return -1;
	if (err->hint[0] && json_object_set_new(o, "error-hint", jsonline_string(err->hint)))
		return -1;
	if (blocked)
		return json_object_set_new(o, "blocked-reasons",
					   json_pack("[o]", jsonline_string(err->msg)));
	return 0;
}

static int put_times(json_t *o, const struct report *r)
{
	const struct stats_snapshot *s = r->stats;
	uint64_t end = s->t_end ? s->t_end : s->now;
	bool has_setup = s->t_start && s->t_setup_done >= s->t_start;
	uint64_t resumed = s->t_resumed ? s->t_resumed : end;
	bool has_downtime = r->complete && s->t_switchover && resumed >= s->t_switchover;
	const struct number numbers[] = {
		{ "total-time", stats_elapsed(s) },
		{ "setup-time", has_setup ? s->t_setup_done - s->t_start : 0 },
		{ "downtime", has_downtime ? resumed - s->t_switchover : 0 },
		{ "expected-downtime", 0 },
		{ "cpu-throttle-percentage", 0 },
		{ "postcopy-blocktime", r->blocked_ms },
		{ "holes", s->holes },
	};

	return put_numbers(o, numbers, LEN(numbers));
}

static int put_digest(json_t *o, const struct report *r)
{
	char hex[33];

	if (r->digest && json_object_set_new(o, "digest", json_string(digest_hex(*r->digest, hex))))
		return -1;
	return json_object_set_new(o, "digest-verified", json_boolean(r->digest_verified));
}

/* What was refused before it began has no status in QEMU's diagrams; it did not work, though. */
static enum migration_status final_status(const struct report *r)
{
	bool bad = r->err && r->err->status != ST_OK;

	return bad && !migration_status_final(r->status) && r->status != MIG_POSTCOPY_PAUSED
		       ? MIG_FAILED
		       : r->status;
}

/* Microseconds. */
static json_t *fault_latency(const struct latency *l)
{
	static const struct latency none;

	if (!l)
		l = &none;
	return json_pack("{s:I,s:f,s:f,s:f,s:f}", "count", (json_int_t)l->count, "p50",
			 (double)latency_percentile(l, 50) / 1000, "p95",
			 (double)latency_percentile(l, 95) / 1000, "p99",
			 (double)latency_percentile(l, 99) / 1000, "max", (double)l->max / 1000);
}

static json_t *thread_blocktime(const struct blocktime_thread *t)
{
	return json_pack("{s:I,s:f,s:I}", "thread", (json_int_t)t->thread, "blocktime",
			 (double)t->ns / 1e6, "faults", (json_int_t)t->faults);
}

/* A vCPU is a thread, in the order of their first faults; whole milliseconds, as in QEMU. */
static int put_blocktimes(json_t *o, const struct report *r)
{
	const struct blocktime *b = r->caps->on[CAP_POSTCOPY_BLOCKTIME] ? r->threads : NULL;
	json_t *vcpus = json_array(), *threads = b ? json_array() : NULL;
	int bad = 0;

	for (unsigned i = 0; b && i < b->n; i++) {
		bad |= json_array_append_new(
			vcpus, json_integer((json_int_t)(b->threads[i].ns / 1000000)));
		bad |= json_array_append_new(threads, thread_blocktime(&b->threads[i]));
	}
	if (b && b->others.faults)
		bad |= json_array_append_new(threads, thread_blocktime(&b->others));
	bad |= json_object_set_new(o, "postcopy-vcpu-blocktime", vcpus);
	if (b)
		bad |= json_object_set_new(o, "postcopy-thread-blocktime", threads);
	return bad;
}

static int fill(json_t *o, const struct report *r)
{
	const char *status = migration_status_name(final_status(r));
	int bad = json_object_set_new(o, "status", json_string(status));

	bad |= put_times(o, r);
	bad |= put_blocktimes(o, r);
	bad |= json_object_set_new(o, "ram", ram(r));
	if (r->caps->on[CAP_XBZRLE])
		bad |= json_object_set_new(o, "xbzrle-cache", xbzrle(r));
	if (r->caps->on[CAP_COMPRESS])
		bad |= json_object_set_new(o, "compression", compression(r));
	if (r->caps->on[CAP_RELEASE_RAM])
		bad |= json_object_set_new(o, "released",
					   json_integer((json_int_t)r->stats->released));
	if (r->socket_address)
		bad |= put_socket_address(o, r->socket_address);
	if (r->err && r->err->status != ST_OK)
		bad |= put_error(o, r->err, r->blocked);
	bad |= json_object_set_new(o, "owner", json_string(owner_name(r->owner)));
	bad |= put_digest(o, r);
	bad |= json_object_set_new(o, "complete", json_boolean(r->complete));
	bad |= json_object_set_new(o, "fault-latency", fault_latency(r->faults));
	if (r->faults)
		bad |= json_object_set_new(o, "fault-around", json_integer((json_int_t)r->around));
	if (r->digest_recovered && r->digest)
		bad |= json_object_set_new(o, "digest-scope", json_string("since-recovery"));
	if (r->since_recovery)
		bad |= json_object_set_new(o, "scope", json_string("since-recovery"));
	return bad;
}

int report_json(const struct report *r, int fd, struct error *err)
{
	json_t *o = json_object();

	if (fill(o, r)) {
		json_decref(o);
		o = NULL;
	}
	return jsonline_write(fd, o, err);
}
