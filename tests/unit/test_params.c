// SPDX-License-Identifier: GPL-2.0-or-later
#include "test.h"

#include "params.h"

#include <stdlib.h>

/* What QEMU documents, typed in from there and not from our table. */
static const struct {
	const char *name, *range, *value;
} documented[] = {
	{ "announce-initial", "0 to 100000", "50" },
	{ "announce-max", "0 to 100000", "550" },
	{ "announce-rounds", "0 to 1000", "5" },
	{ "announce-step", "1 to 10000", "100" },
	{ "compress-level", "0 to 9", "1" },
	{ "compress-threads", "1 to 255", "8" },
	{ "compress-wait-thread", "on, off", "on" },
	{ "decompress-threads", "1 to 255", "2" },
	{ "throttle-trigger-threshold", "1 to 100", "50" },
	{ "cpu-throttle-initial", "1 to 99", "20" },
	{ "cpu-throttle-increment", "1 to 99", "10" },
	{ "cpu-throttle-tailslow", "on, off", "off" },
	{ "max-cpu-throttle", "cpu-throttle-initial to 99", "99" },
	{ "tls-creds", "text", "" },
	{ "tls-hostname", "text", "" },
	{ "tls-authz", "text", "" },
	{ "max-bandwidth", "any", "0" }, /* QEMU: 134217728 */
	{ "downtime-limit", "0 to 2000000", "300" },
	{ "x-checkpoint-delay", "0 to 4294967295", "20000" },
	{ "block-incremental", "on, off", "off" },
	{ "multifd-channels", "1 to 255", "2" },
	{ "multifd-compression", "none, zlib, zstd", "none" },
	{ "multifd-zlib-level", "0 to 9", "1" },
	{ "multifd-zstd-level", "0 to 20", "1" },
	{ "xbzrle-cache-size", "power of two, at least a page", "64MiB" },
	{ "max-postcopy-bandwidth", "any", "0" },
	{ "block-bitmap-mapping", "text", "" },
	{ "x-vcpu-dirty-limit-period", "1 to 1000", "1000" },
	{ "vcpu-dirty-limit", "at least 1", "1" },
	{ "avail-switchover-bandwidth", "any", "0" },
	{ "mode", "normal, cpr-reboot, cpr-transfer", "normal" },
	{ "zero-page-detection", "none, legacy, multifd", "multifd" },
	{ "multifd-qatzip-level", "1 to 9", "1" },
	{ "direct-io", "on, off", "off" },
};

static void ranges_and_defaults_are_qemus(void)
{
	struct params p;
	char b[128];

	REQUIRE(sizeof(documented) / sizeof(documented[0]) == PARAM__MAX);
	params_init(&p);
	for (int i = 0; i < PARAM__MAX; i++) {
		CHECK_STR(param_table[i].name, documented[i].name);
		CHECK(param_find(documented[i].name) == i);
		CHECK_STR(param_range((enum param)i, b, sizeof(b)), documented[i].range);
		CHECK_STR(param_format(&p, (enum param)i, b, sizeof(b)), documented[i].value);
		CHECK(!p.given[i]);
	}
	CHECK(param_find("") == -1);
	params_free(&p);
}

static void only_max_bandwidth_differs_from_qemu(void)
{
	for (int i = 0; i < PARAM__MAX; i++)
		CHECK(!param_table[i].differs == (i != PARAM_MAX_BANDWIDTH));
}

static void values_are_read(void)
{
	struct params p;
	struct error err;

	params_init(&p);
	CHECK(param_parse(&p, "multifd-channels=255", &err) == 0);
	CHECK(param_parse(&p, "multifd-compression=zstd", &err) == 0);
	CHECK(param_parse(&p, "multifd-zstd-level=20", &err) == 0);
	CHECK(param_parse(&p, "multifd-zlib-level=9", &err) == 0);
	CHECK(param_parse(&p, "max-bandwidth=10M", &err) == 0);
	CHECK(param_parse(&p, "xbzrle-cache-size=1MiB", &err) == 0);
	CHECK(param_parse(&p, "compress-level=0", &err) == 0);
	CHECK(param_parse(&p, "compress-threads=3", &err) == 0);
	CHECK(param_parse(&p, "decompress-threads=4", &err) == 0);
	CHECK(param_parse(&p, "compress-wait-thread=off", &err) == 0);
	CHECK(params_multifd_channels(&p) == 255);
	CHECK(params_multifd_compression(&p) == METHOD_ZSTD);
	CHECK(params_multifd_level(&p) == 20);
	CHECK(params_max_bandwidth(&p) == 10 << 20);
	CHECK(params_xbzrle_cache_size(&p) == 1 << 20);
	CHECK(params_compress_level(&p) == 0);
	CHECK(params_compress_threads(&p) == 3);
	CHECK(params_decompress_threads(&p) == 4);
	CHECK(!params_compress_wait_thread(&p));
	CHECK(p.given[PARAM_COMPRESS_LEVEL] && !p.given[PARAM_DOWNTIME_LIMIT]);
	CHECK(!params_tls(&p));
	CHECK(param_parse(&p, "multifd-compression=zlib", &err) == 0);
	CHECK(params_multifd_level(&p) == 9);
	CHECK(param_parse(&p, "multifd-compression=none", &err) == 0);
	CHECK(params_multifd_level(&p) == 0);
	params_free(&p);
}

static void refused(const char *arg, enum status status, const char *msg, const char *hint)
{
	struct params p, before;
	struct error err;

	params_init(&p);
	before = p;
	err_clear(&err);
	CHECK(param_parse(&p, arg, &err) == -1);
	CHECK_ERROR(err, status, msg, hint);
	CHECK(!memcmp(&p, &before, sizeof(p)));
}

static void wrong_names_and_values_are_refused(void)
{
	refused("multifd-chanels=2", ST_USAGE, "unknown parameter \"multifd-chanels\"",
		"did you mean multifd-channels?");
	refused("zzz", ST_USAGE, "unknown parameter \"zzz\"", "migtool params lists them");
	refused("multifd-channels", ST_USAGE, "parameter multifd-channels has no value",
		"--param multifd-channels=VALUE");
	refused("multifd-channels=0", ST_USAGE, "parameter multifd-channels cannot be \"0\"",
		"it takes: 1 to 255");
	refused("multifd-channels=256", ST_USAGE, "parameter multifd-channels cannot be \"256\"",
		"it takes: 1 to 255");
	refused("multifd-channels=2K", ST_USAGE, "parameter multifd-channels cannot be \"2K\"",
		"it takes: 1 to 255");
	refused("downtime-limit=2000001", ST_USAGE,
		"parameter downtime-limit cannot be \"2000001\"", "it takes: 0 to 2000000 (ms)");
	refused("multifd-compression=lz4", ST_USAGE,
		"parameter multifd-compression cannot be \"lz4\"", "it takes: none, zlib, zstd");
	refused("cpu-throttle-tailslow=true", ST_USAGE,
		"parameter cpu-throttle-tailslow cannot be \"true\"", "it takes: on, off");
	refused("xbzrle-cache-size=3M", ST_USAGE, "parameter xbzrle-cache-size cannot be \"3M\"",
		"it takes: power of two, at least a page (bytes)");
	refused("xbzrle-cache-size=0", ST_USAGE, "parameter xbzrle-cache-size cannot be \"0\"",
		"it takes: power of two, at least a page (bytes)");
	refused("max-bandwidth=-1", ST_USAGE, "parameter max-bandwidth cannot be \"-1\"",
		"it takes: any (bytes/s)");
}

static void what_is_not_built_yet_says_so(void)
{
	refused("zero-page-detection=legacy", ST_UNSUPPORTED,
		"parameter zero-page-detection is not built yet: came with QEMU 9.0", "");
	refused("multifd-compression=qpl", ST_UNSUPPORTED,
		"parameter multifd-compression=qpl is not built yet: came with QEMU 9.1", "");
	for (int i = 0; i < PARAM__MAX; i++) {
		bool later = !strncmp(param_table[i].what, "not built yet: ", 15);

		CHECK(later == (param_table[i].effect == EFFECT_REFUSED));
	}
}

static int checked(const char *a, const char *b, uint32_t page, struct error *err)
{
	struct params p;
	int r;

	params_init(&p);
	r = param_parse(&p, a, err) || (b && param_parse(&p, b, err)) ? -2 : 0;
	if (!r)
		r = params_check(&p, page, err);
	params_free(&p);
	return r;
}

static void rules_across_parameters_hold_in_any_order(void)
{
	struct error err;

	CHECK(checked("max-cpu-throttle=30", "cpu-throttle-initial=30", 4096, &err) == 0);
	CHECK(checked("cpu-throttle-initial=31", "max-cpu-throttle=30", 4096, &err) == -1);
	CHECK(checked("max-cpu-throttle=30", "cpu-throttle-initial=31", 4096, &err) == -1);
	CHECK(err.status == ST_USAGE);
	CHECK_STR(err.msg, "parameter max-cpu-throttle is 30, below cpu-throttle-initial, which is "
			   "31");
	/* against the value in force, here the default of 20 */
	CHECK(checked("max-cpu-throttle=19", NULL, 4096, &err) == -1);
	CHECK(checked("max-cpu-throttle=20", NULL, 4096, &err) == 0);
}

static void the_cache_holds_a_page_at_least(void)
{
	struct error err;

	CHECK(checked("xbzrle-cache-size=4096", NULL, 4096, &err) == 0);
	CHECK(checked("xbzrle-cache-size=2048", NULL, 4096, &err) == -1);
	CHECK(checked("xbzrle-cache-size=32K", NULL, 65536, &err) == -1);
	CHECK(err.status == ST_USAGE);
	CHECK_STR(err.msg, "parameter xbzrle-cache-size is 32768, less than a page of 65536 bytes");
}

static void tls_others_need_creds(void)
{
	struct error err;

	CHECK(checked("tls-authz=a", NULL, 4096, &err) == -1);
	CHECK(err.status == ST_USAGE);
	CHECK_STR(err.msg, "parameter tls-authz has no effect without tls-creds");
	CHECK(checked("tls-hostname=a", NULL, 4096, &err) == -1);
	CHECK_STR(err.msg, "parameter tls-hostname has no effect without tls-creds");
	CHECK(!checked("tls-hostname=a", "tls-creds=d", 4096, &err));
	CHECK(!checked("tls-hostname=", "tls-authz=", 4096, &err));
}

static void tls_is_on_once_creds_are_named(void)
{
	struct params p;
	char b[16];

	params_init(&p);
	p.str[PARAM_TLS_CREDS] = strdup("");
	CHECK(!params_tls(&p));
	free(p.str[PARAM_TLS_CREDS]);
	p.str[PARAM_TLS_CREDS] = strdup("tls0");
	CHECK(params_tls(&p));
	CHECK_STR(param_format(&p, PARAM_TLS_CREDS, b, sizeof(b)), "tls0");
	params_free(&p);
	CHECK(!params_tls(&p));
}

static const struct test_case cases[] = {
	{ "ranges and defaults are QEMU's", ranges_and_defaults_are_qemus },
	{ "only max-bandwidth's default differs from QEMU's",
	  only_max_bandwidth_differs_from_qemu },
	{ "values are read", values_are_read },
	{ "wrong names and values are refused and change nothing",
	  wrong_names_and_values_are_refused },
	{ "what is not built yet says so", what_is_not_built_yet_says_so },
	{ "rules across parameters hold in any order", rules_across_parameters_hold_in_any_order },
	{ "the cache holds a page at least", the_cache_holds_a_page_at_least },
	{ "TLS is on once creds are named", tls_is_on_once_creds_are_named },
	{ "TLS's other parameters need its creds", tls_others_need_creds },
};

TEST_MAIN(cases)
