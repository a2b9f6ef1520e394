// SPDX-License-Identifier: GPL-2.0-or-later
#include "test.h"

#include "log.h"
#include "report.h"

#include <fcntl.h>
#include <jansson.h>
#include <stdlib.h>
#include <unistd.h>

static struct stats_snapshot snap;
static struct cap_set caps;
static struct params params;
static struct error error;

/* 1 GiB of memory, a quarter of it data, sent in 2 s after 100 ms of set-up. */
static struct report done(void)
{
	snap = (struct stats_snapshot){
		.transferred = 300000000,
		.multifd_bytes = 1000,
		.total = UINT64_C(1) << 30,
		.to_travel = 1 << 28,
		.travelled = 1 << 28,
		.duplicate = (3u << 16) + 36,
		.normal = 65500,
		.holes = 3ull << 28,
		.dirty_sync_count = 1,
		.precopy_bytes = 299,
		.downtime_bytes = 1,
		.t_start = 10000,
		.t_setup_done = 10100,
		.t_switchover = 12040,
		.t_end = 12100,
		.now = 99999,
		.zero_copy_missed = 5,
		.xbzrle_bytes = 1000,
		.xbzrle_pages = 10,
		.xbzrle_cache_miss = 3,
		.xbzrle_overflow = 2,
		.xbzrle_encode_in = 4000,
		.compress_pages = 100,
		.compress_busy = 7,
		.compress_size = 204800,
	};
	memset(&caps, 0, sizeof(caps));
	params_free(&params);
	params_init(&params);
	err_clear(&error);
	return (struct report){
		.role = ROLE_SOURCE,
		.status = MIG_COMPLETED,
		.stats = &snap,
		.caps = &caps,
		.params = &params,
		.owner = OWNER_DESTINATION,
		.complete = true,
		.image = "guest.mem",
		.peer = "tcp:10.0.0.1:4444",
		.page_size = 4096,
	};
}

static json_t *object_from(const struct report *r)
{
	static char buf[8000];
	struct error e;
	ssize_t n;
	int p[2];

	if (pipe(p) || report_json(r, p[1], &e))
		return NULL;
	n = read(p[0], buf, sizeof(buf));
	close(p[0]);
	close(p[1]);
	/* One line, and nothing behind it. */
	if (n <= 0 || memchr(buf, '\n', (size_t)n) != buf + n - 1)
		return NULL;
	return json_loadb(buf, (size_t)n, JSON_REJECT_DUPLICATES, NULL);
}

static long long number(json_t *o, const char *name)
{
	json_t *v = json_object_get(o, name);

	return json_is_integer(v) ? json_integer_value(v) : -1;
}

static const char *string(json_t *o, const char *name)
{
	const char *s = json_string_value(json_object_get(o, name));

	return s ? s : "(none)";
}

static struct blocktime threads;

static void names_are_query_migrates(void)
{
	static const char *const top[] = { "status",
					   "total-time",
					   "setup-time",
					   "downtime",
					   "expected-downtime",
					   "cpu-throttle-percentage",
					   "postcopy-blocktime",
					   "postcopy-vcpu-blocktime",
					   "postcopy-thread-blocktime",
					   "ram",
					   "xbzrle-cache",
					   "compression",
					   "owner",
					   "digest-verified",
					   "holes",
					   "fault-latency",
					   "complete",
					   "socket-address",
					   "digest",
					   "error-desc",
					   "error-code",
					   "blocked-reasons",
					   "released" };
	static const char *const in_ram[] = { "transferred",
					      "remaining",
					      "total",
					      "duplicate",
					      "skipped",
					      "normal",
					      "normal-bytes",
					      "dirty-pages-rate",
					      "dirty-bytes-rate",
					      "mbps",
					      "dirty-sync-count",
					      "dirty-sync-missed-zero-copy",
					      "postcopy-requests",
					      "page-size",
					      "multifd-bytes",
					      "pages-per-second",
					      "precopy-bytes",
					      "downtime-bytes",
					      "postcopy-bytes" };
	static const char *const in_xbzrle[] = { "cache-size", "bytes",		  "pages",
						 "cache-miss", "cache-miss-rate", "encoding-rate",
						 "overflow" };
	static const char *const in_compression[] = { "pages", "busy", "busy-rate",
						      "compressed-size", "compression-rate" };
	static const char *const in_latency[] = { "count", "p50", "p95", "p99", "max" };
	static const struct {
		const char *of;
		const char *const *names;
		size_t n;
	} sets[] = {
		{ NULL, top, sizeof(top) / sizeof(top[0]) },
		{ "ram", in_ram, sizeof(in_ram) / sizeof(in_ram[0]) },
		{ "xbzrle-cache", in_xbzrle, sizeof(in_xbzrle) / sizeof(in_xbzrle[0]) },
		{ "compression", in_compression,
		  sizeof(in_compression) / sizeof(in_compression[0]) },
		{ "fault-latency", in_latency, sizeof(in_latency) / sizeof(in_latency[0]) },
	};
	struct report r = done();
	struct digest d = { 1, 2 };
	json_t *o;

	caps.on[CAP_XBZRLE] = caps.on[CAP_COMPRESS] = caps.on[CAP_RELEASE_RAM] =
		caps.on[CAP_POSTCOPY_BLOCKTIME] = true;
	r.threads = &threads;
	err_set(&error, ST_UNSUPPORTED, "no");
	r.err = &error;
	r.blocked = true;
	r.digest = &d;
	r.socket_address = "tcp:0.0.0.0:4444";
	o = object_from(&r);
	REQUIRE(o != NULL);
	for (size_t i = 0; i < sizeof(sets) / sizeof(sets[0]); i++) {
		json_t *of = sets[i].of ? json_object_get(o, sets[i].of) : o;

		CHECK(json_object_size(of) == sets[i].n);
		for (size_t k = 0; k < sets[i].n; k++)
			if (!json_object_get(of, sets[i].names[k])) {
				printf("# no %s\n", sets[i].names[k]);
				CHECK(!"a name is missing");
			}
	}
	json_decref(o);
}

static void numbers_of_a_transfer_that_is_over(void)
{
	struct report r = done();
	json_t *o = object_from(&r), *m;

	REQUIRE(o != NULL);
	m = json_object_get(o, "ram");
	CHECK_STR(string(o, "status"), "completed");
	CHECK(number(o, "total-time") == 2100 && number(o, "setup-time") == 100);
	CHECK(number(o, "downtime") == 60);
	CHECK(number(o, "holes") == 805306368);
	CHECK(number(m, "transferred") == 300000000 && number(m, "remaining") == 0);
	CHECK(number(m, "normal-bytes") == 65500ll * 4096);
	CHECK(number(m, "pages-per-second") == (65500 + 36 + (3 << 16)) / 2);
	CHECK(number(m, "dirty-sync-missed-zero-copy") == 5);
	CHECK(json_real_value(json_object_get(m, "mbps")) == 1200.0);
	CHECK(json_is_true(json_object_get(o, "complete")));
	CHECK_STR(string(o, "owner"), "destination");
	CHECK(!json_object_get(o, "error-desc") && !json_object_get(o, "xbzrle-cache"));
	CHECK(!json_object_get(o, "compression") && !json_object_get(o, "socket-address"));
	CHECK(json_is_false(json_object_get(o, "digest-verified")) &&
	      !json_object_get(o, "digest"));
	json_decref(o);
}

static void the_codecs_have_their_structs_when_on(void)
{
	struct report r = done();
	json_t *o, *x, *c;
	double miss;

	caps.on[CAP_XBZRLE] = caps.on[CAP_COMPRESS] = true;
	o = object_from(&r);
	REQUIRE(o != NULL);
	x = json_object_get(o, "xbzrle-cache");
	c = json_object_get(o, "compression");
	CHECK(number(x, "cache-size") == 64 << 20 && number(x, "overflow") == 2);
	CHECK(json_real_value(json_object_get(x, "encoding-rate")) == 4.0);
	miss = json_real_value(json_object_get(x, "cache-miss-rate")) * (65546 + (3 << 16));
	CHECK(miss > 2.9999 && miss < 3.0001);
	CHECK(number(c, "busy") == 7 && number(c, "compressed-size") == 204800);
	CHECK(json_real_value(json_object_get(c, "compression-rate")) == 2.0);
	json_decref(o);
}

static void a_failure_has_its_words(void)
{
	struct report r = done();
	json_t *o;

	r.status = MIG_FAILED;
	r.complete = false;
	r.owner = OWNER_SOURCE;
	snap.travelled = 1 << 27;
	snap.t_end = 0;
	snap.now = 12100;
	err_set(&error, ST_DATA, "block \"a\xff\" is odd");
	err_hint(&error, "mend it");
	r.err = &error;
	o = object_from(&r);
	REQUIRE(o != NULL);
	CHECK_STR(string(o, "status"), "failed");
	CHECK_STR(string(o, "error-code"), "data");
	CHECK_STR(string(o, "error-desc"), "block \"a\\xff\" is odd");
	CHECK_STR(string(o, "error-hint"), "mend it");
	CHECK(!json_object_get(o, "blocked-reasons"));
	CHECK_STR(string(o, "owner"), "source");
	CHECK(number(o, "total-time") == 2100 && number(o, "downtime") == 0);
	CHECK(number(json_object_get(o, "ram"), "remaining") == 1 << 27);
	CHECK(json_is_false(json_object_get(o, "complete")));
	json_decref(o);
	r.blocked = true;
	o = object_from(&r);
	CHECK_STR(json_string_value(json_array_get(json_object_get(o, "blocked-reasons"), 0)),
		  "block \"a\\xff\" is odd");
	json_decref(o);
}

static void nothing_began_and_all_is_zero(void)
{
	struct report r = done();
	json_t *o, *m;

	snap = (struct stats_snapshot){ .now = 5000 };
	caps.on[CAP_XBZRLE] = caps.on[CAP_COMPRESS] = true;
	r.status = MIG_NONE;
	r.complete = false;
	err_set(&error, ST_UNSUPPORTED, "no");
	r.err = &error;
	o = object_from(&r);
	REQUIRE(o != NULL);
	CHECK_STR(string(o, "status"), "failed");
	m = json_object_get(o, "ram");
	CHECK(number(o, "total-time") == 0 && number(o, "setup-time") == 0);
	CHECK(number(m, "pages-per-second") == 0);
	CHECK(json_real_value(json_object_get(m, "mbps")) == 0.0);
	json_decref(o);
}

static void an_address_has_qemus_shape(void)
{
	static const struct {
		const char *uri, *type, *key, *value;
	} rows[] = {
		{ "tcp:[::1]:4444", "inet", "port", "4444" },
		{ "tcp:[::1]:4444", "inet", "host", "::1" },
		{ "unix:/run/a b", "unix", "path", "/run/a b" },
		{ "vsock:3:99", "vsock", "cid", "3" },
	};
	struct report r = done();
	json_t *o;

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		json_t *a;

		r.socket_address = rows[i].uri;
		o = object_from(&r);
		a = json_array_get(json_object_get(o, "socket-address"), 0);
		CHECK_STR(string(a, "type"), rows[i].type);
		CHECK_STR(string(a, rows[i].key), rows[i].value);
		json_decref(o);
	}
	r.socket_address = "exec:cat";
	o = object_from(&r);
	CHECK(!json_object_get(o, "socket-address"));
	json_decref(o);
}

/* What `say` prints on stderr. */
static const char *said(void (*say)(const struct report *), const struct report *r)
{
	static char buf[4000];
	int saved = dup(STDERR_FILENO), p[2];
	ssize_t n;

	if (pipe(p))
		return "";
	dup2(p[1], STDERR_FILENO);
	say(r);
	dup2(saved, STDERR_FILENO);
	close(saved);
	close(p[1]);
	n = read(p[0], buf, sizeof(buf) - 1);
	buf[n > 0 ? n : 0] = '\0';
	close(p[0]);
	return buf;
}

static void people_are_told_what_moved(void)
{
	struct report r = done();
	struct digest d = { 0x0123456789abcdef, 0xfedcba9876543210 };

	r.digest = &d;
	r.digest_verified = true;
	CHECK_STR(said(report_summary, &r),
		  "migtool: sent 256.00 MiB of data to tcp:10.0.0.1:4444 in 2.1 s (128.00 MiB/s); "
		  "286.10 MiB on the wire for 1.00 GiB of memory, of which 768.00 MiB are holes "
		  "and 144.00 KiB zero pages; zero-copy: 0 packets, 5 copied by the kernel\n"
		  "migtool: digest 0123456789abcdeffedcba9876543210, verified by both ends\n"
		  "migtool: the destination owns the memory now; guest.mem is as it was\n");
	r.role = ROLE_DESTINATION;
	r.digest_verified = false;
	r.digest_why = "a one-way transport";
	snap.zero_copy_missed = 0;
	snap.holes = 0;
	snap.duplicate = 1;
	CHECK_STR(
		said(report_summary, &r),
		"migtool: received 256.00 MiB of data from tcp:10.0.0.1:4444 in 2.1 s (128.00 "
		"MiB/s); 286.10 MiB on the wire for 1.00 GiB of memory, of which 4.00 KiB "
		"are zero pages\n"
		"migtool: digest 0123456789abcdeffedcba9876543210, not verified by the other end: "
		"a one-way transport\n"
		"migtool: the memory is in guest.mem\n");
	r.digest_verified = true;
	r.one_way = true;
	CHECK(strstr(said(report_summary, &r), "fedcba9876543210, verified here\n"));
}

static void people_are_told_who_owns_after_a_failure(void)
{
	struct report r = done();

	r.status = MIG_CANCELLED;
	r.complete = false;
	r.owner = OWNER_SOURCE;
	snap.travelled = 1 << 27;
	CHECK_STR(
		said(report_summary, &r),
		"migtool: cancelled after 2.1 s: 128.00 MiB of 256.00 MiB done, 286.10 MiB on the "
		"wire\n"
		"migtool: the source still owns the memory; guest.mem is as it was\n");
	r.role = ROLE_DESTINATION;
	snap.travelled = 1;
	CHECK(strstr(
		said(report_summary, &r),
		"migtool: the source still owns the memory; nothing new is under guest.mem\n"));
	snap.travelled = 0;
	CHECK_STR(said(report_summary, &r), "");
	r.owner = OWNER_UNKNOWN;
	CHECK(strstr(said(report_summary, &r), "not known") != NULL);
}

static void statistics_are_printed_even_when_quiet(void)
{
	struct report r = done();
	const char *s;

	r.status = MIG_ACTIVE;
	r.complete = false;
	snap.travelled = 1 << 27;
	caps.on[CAP_XBZRLE] = true;
	log_init(LOG_ERROR, NULL);
	s = said(report_statistics, &r);
	CHECK(strstr(s,
		     "migtool: active for 2.1 s: 128.00 MiB of 256.00 MiB (50 %), 64.00 MiB/s on "
		     "average, round 1\n") == s);
	CHECK(strstr(s, "; xbzrle: 10 pages, 3 cache misses, 2 overflows") != NULL);
	CHECK(strstr(s, ", 65500 whole pages; 1000 B on multifd channels\n") != NULL);
	CHECK_STR(said(report_summary, &r), "");
	log_init(LOG_INFO, NULL);
}

static void a_full_disk_is_told(void)
{
	struct report r = done();
	int full = open("/dev/full", O_WRONLY);
	struct error e;

	CHECK(report_json(&r, full, &e) == -1 && e.status == ST_FILE);
	close(full);
	params_free(&params);
}

static const struct test_case cases[] = {
	{ "names are query-migrate's, no more and no less", names_are_query_migrates },
	{ "numbers of a transfer that is over", numbers_of_a_transfer_that_is_over },
	{ "the codecs have their structs when they are on", the_codecs_have_their_structs_when_on },
	{ "a failure has its words", a_failure_has_its_words },
	{ "nothing began and all is zero", nothing_began_and_all_is_zero },
	{ "an address has QEMU's shape", an_address_has_qemus_shape },
	{ "people are told what moved", people_are_told_what_moved },
	{ "people are told who owns after a failure", people_are_told_who_owns_after_a_failure },
	{ "statistics are printed even when quiet", statistics_are_printed_even_when_quiet },
	{ "a full disk is told", a_full_disk_is_told },
};
TEST_MAIN(cases)
