// SPDX-License-Identifier: GPL-2.0-or-later
#include "params.h"

#include "suggest.h"
#include "units.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NOT_LIVE	   "a static image has no guest to slow down, stop or announce"
#define NO_BLOCK	   "not built yet: block devices in the stream"
#define CAME_WITH(version) "not built yet: came with QEMU " version
#define ANY		   UINT64_MAX

/* In the order of enum multifd_method. */
static const char *const methods[] = { "none", "zlib", "zstd", NULL };
static const char *const modes[] = { "normal", "cpr-reboot", "cpr-transfer", NULL };
static const char *const zero_pages[] = { "none", "legacy", "multifd", NULL };

/* What a known parameter can be set to from a later QEMU on. */
static const struct {
	enum param param;
	const char *value, *since;
} later_values[] = {
	{ PARAM_MULTIFD_COMPRESSION, "qpl", "9.1" },
	{ PARAM_MULTIFD_COMPRESSION, "uadk", "9.1" },
	{ PARAM_MULTIFD_COMPRESSION, "qatzip", "9.2" },
};

#define ROW(n, since_, t, unit_, lo, hi, def_, vals, eff, what_, ...)                           \
	{                                                                                       \
		.name = n, .since = since_, .type = t, .unit = unit_, .min = lo, .max = hi,     \
		.def = def_, .values = vals, .effect = EFFECT_##eff, .what = what_, __VA_ARGS__ \
	}
#define INT(n, since, unit, lo, hi, def, eff, ...) \
	ROW(n, since, PT_INT, unit, lo, hi, def, NULL, eff, __VA_ARGS__, )
#define SIZE(n, since, unit, lo, def, eff, ...) \
	ROW(n, since, PT_SIZE, unit, lo, ANY, def, NULL, eff, __VA_ARGS__, )
#define BOOL(n, since, def, eff, ...) \
	ROW(n, since, PT_BOOL, "", 0, 1, def, NULL, eff, __VA_ARGS__, )
#define ENUM(n, since, vals, def, eff, ...) \
	ROW(n, since, PT_ENUM, "", 0, 2, def, vals, eff, __VA_ARGS__, )
#define STR(n, since, eff, ...) ROW(n, since, PT_STR, "", 0, 0, 0, NULL, eff, __VA_ARGS__, )

const struct param_info param_table[PARAM__MAX] = {
	[PARAM_ANNOUNCE_INITIAL] =
		INT("announce-initial", "4.0", "ms", 0, 100000, 50, INERT, NOT_LIVE),
	[PARAM_ANNOUNCE_MAX] = INT("announce-max", "4.0", "ms", 0, 100000, 550, INERT, NOT_LIVE),
	[PARAM_ANNOUNCE_ROUNDS] = INT("announce-rounds", "4.0", "", 0, 1000, 5, INERT, NOT_LIVE),
	[PARAM_ANNOUNCE_STEP] = INT("announce-step", "4.0", "ms", 1, 10000, 100, INERT, NOT_LIVE),
	[PARAM_COMPRESS_LEVEL] =
		INT("compress-level", "2.4", "", 0, 9, 1, ACT, "zlib's level of compress"),
	[PARAM_COMPRESS_THREADS] = INT("compress-threads", "2.4", "", 1, 255, 8, ACT,
				       "the source's workers of compress"),
	[PARAM_COMPRESS_WAIT_THREAD] = BOOL("compress-wait-thread", "3.1", 1, ACT,
					    "wait for a free worker; off: send the page as it is"),
	[PARAM_DECOMPRESS_THREADS] = INT("decompress-threads", "2.4", "", 1, 255, 2, ACT,
					 "the destination's workers of compress"),
	[PARAM_THROTTLE_TRIGGER_THRESHOLD] =
		INT("throttle-trigger-threshold", "5.0", "%", 1, 100, 50, INERT, NOT_LIVE),
	[PARAM_CPU_THROTTLE_INITIAL] =
		INT("cpu-throttle-initial", "2.7", "%", 1, 99, 20, INERT, NOT_LIVE),
	[PARAM_CPU_THROTTLE_INCREMENT] =
		INT("cpu-throttle-increment", "2.7", "%", 1, 99, 10, INERT, NOT_LIVE),
	[PARAM_CPU_THROTTLE_TAILSLOW] = BOOL("cpu-throttle-tailslow", "5.1", 0, INERT, NOT_LIVE),
	[PARAM_MAX_CPU_THROTTLE] = INT("max-cpu-throttle", "3.1", "%", 1, 99, 99, INERT, NOT_LIVE),
	[PARAM_TLS_CREDS] = STR("tls-creds", "2.7", ACT,
				"where TLS's credentials are: DIR as QEMU's, or keys.psk"),
	[PARAM_TLS_HOSTNAME] = STR("tls-hostname", "2.7", ACT,
				   "the destination's name in its certificate, if not the URI's"),
	[PARAM_TLS_AUTHZ] = STR("tls-authz", "4.0", ACT,
				"names that the peer may have: NAME;NAME, whole names"),
	[PARAM_MAX_BANDWIDTH] = SIZE("max-bandwidth", "2.8", "bytes/s", 0, 0, ACT,
				     "what the source sends at most; 0: no limit",
				     .differs = "QEMU's default is 128MiB"),
	[PARAM_DOWNTIME_LIMIT] =
		INT("downtime-limit", "2.8", "ms", 0, 2000000, 300, INERT, NOT_LIVE),
	[PARAM_X_CHECKPOINT_DELAY] = INT("x-checkpoint-delay", "2.8", "ms", 0, UINT32_MAX, 20000,
					 REFUSED, "not built yet: x-colo"),
	[PARAM_BLOCK_INCREMENTAL] = BOOL("block-incremental", "2.10", 0, REFUSED, NO_BLOCK),
	[PARAM_MULTIFD_CHANNELS] = INT("multifd-channels", "4.0", "", 1, 255, 2, ACT,
				       "connections of multifd; with a QEMU the same at both ends"),
	[PARAM_MULTIFD_COMPRESSION] =
		ENUM("multifd-compression", "5.0", methods, METHOD_NONE, ACT,
		     "how multifd compresses; with a QEMU the same at both ends"),
	[PARAM_MULTIFD_ZLIB_LEVEL] =
		INT("multifd-zlib-level", "5.0", "", 0, 9, 1, ACT, "zlib's level of multifd"),
	[PARAM_MULTIFD_ZSTD_LEVEL] =
		INT("multifd-zstd-level", "5.0", "", 0, 20, 1, ACT, "zstd's level of multifd"),
	[PARAM_XBZRLE_CACHE_SIZE] = SIZE("xbzrle-cache-size", "2.11", "bytes", 1, 64 << 20, ACT,
					 "the source's copies of pages sent, for deltas"),
	[PARAM_MAX_POSTCOPY_BANDWIDTH] =
		SIZE("max-postcopy-bandwidth", "3.0", "bytes/s", 0, 0, ACT,
		     "what the source pushes at most in postcopy; 0: no limit"),
	[PARAM_BLOCK_BITMAP_MAPPING] = STR("block-bitmap-mapping", "5.2", REFUSED, NO_BLOCK),
	[PARAM_X_VCPU_DIRTY_LIMIT_PERIOD] =
		INT("x-vcpu-dirty-limit-period", "8.1", "ms", 1, 1000, 1000, INERT, NOT_LIVE),
	[PARAM_VCPU_DIRTY_LIMIT] =
		INT("vcpu-dirty-limit", "8.1", "MB/s", 1, ANY, 1, INERT, NOT_LIVE),
	[PARAM_AVAIL_SWITCHOVER_BANDWIDTH] = SIZE("avail-switchover-bandwidth", "8.2", "bytes/s", 0,
						  0, REFUSED, CAME_WITH("8.2")),
	[PARAM_MODE] = ENUM("mode", "8.2", modes, 0, REFUSED, CAME_WITH("8.2")),
	[PARAM_ZERO_PAGE_DETECTION] =
		ENUM("zero-page-detection", "9.0", zero_pages, 2, REFUSED, CAME_WITH("9.0")),
	[PARAM_MULTIFD_QATZIP_LEVEL] =
		INT("multifd-qatzip-level", "9.2", "", 1, 9, 1, REFUSED, CAME_WITH("9.2")),
	[PARAM_DIRECT_IO] = BOOL("direct-io", "9.1", 0, REFUSED, CAME_WITH("9.1")),
};

void params_init(struct params *p)
{
	memset(p, 0, sizeof(*p));
	for (int i = 0; i < PARAM__MAX; i++)
		p->num[i] = param_table[i].def;
}

void params_free(struct params *p)
{
	for (int i = 0; i < PARAM__MAX; i++) {
		free(p->str[i]);
		p->str[i] = NULL;
	}
}

int param_find(const char *name)
{
	for (int i = 0; i < PARAM__MAX; i++)
		if (!strcmp(param_table[i].name, name))
			return i;
	return -1;
}

static int unknown(const char *name, struct error *err)
{
	struct suggest near;

	suggest_init(&near, name);
	for (int i = 0; i < PARAM__MAX; i++)
		suggest_offer(&near, param_table[i].name);
	err_set(err, ST_USAGE, "unknown parameter \"%s\"", name);
	if (near.best)
		return err_hint(err, "did you mean %s?", near.best);
	return err_hint(err, "migtool params lists them");
}

char *param_range(enum param which, char *buf, size_t len)
{
	const struct param_info *info = &param_table[which];
	size_t n = 0;

	buf[0] = '\0';
	if (info->type == PT_BOOL) {
		snprintf(buf, len, "on, off");
	} else if (info->type == PT_ENUM) {
		for (const char *const *v = info->values; *v && n < len; v++)
			n += (size_t)snprintf(buf + n, len - n, "%s%s", n ? ", " : "", *v);
	} else if (which == PARAM_XBZRLE_CACHE_SIZE) {
		snprintf(buf, len, "power of two, at least a page");
	} else if (which == PARAM_MAX_CPU_THROTTLE) {
		snprintf(buf, len, "cpu-throttle-initial to 99");
	} else if (info->type == PT_STR) {
		snprintf(buf, len, "text");
	} else if (info->max == ANY) {
		snprintf(buf, len, info->min ? "at least %" PRIu64 : "any", info->min);
	} else {
		snprintf(buf, len, "%" PRIu64 " to %" PRIu64, info->min, info->max);
	}
	return buf;
}

static int bad_value(enum param which, const char *value, struct error *err)
{
	const struct param_info *info = &param_table[which];
	char range[128];

	for (size_t i = 0; i < sizeof(later_values) / sizeof(later_values[0]); i++)
		if (later_values[i].param == which && !strcmp(later_values[i].value, value))
			return err_set(err, ST_UNSUPPORTED,
				       "parameter %s=%s is not built yet: came with QEMU %s",
				       info->name, value, later_values[i].since);
	err_set(err, ST_USAGE, "parameter %s cannot be \"%s\"", info->name, value);
	return err_hint(err, "it takes: %s%s%s%s", param_range(which, range, sizeof(range)),
			info->unit[0] ? " (" : "", info->unit, info->unit[0] ? ")" : "");
}

/* The value of an integer, a size, a switch or a word as a number. */
static int parse_number(const struct param_info *info, const char *value, uint64_t *out)
{
	bool on;

	switch (info->type) {
	case PT_INT:
		return units_parse_u64(value, out);
	case PT_SIZE:
		return units_parse_size(value, out);
	case PT_BOOL:
		if (switch_parse(value, &on))
			return -1;
		*out = on;
		return 0;
	case PT_ENUM:
		for (*out = 0; info->values[*out]; ++*out)
			if (!strcmp(info->values[*out], value))
				return 0;
		return -1;
	case PT_STR:
		break;
	}
	return -1;
}

static int set_text(struct params *p, enum param which, const char *value, struct error *err)
{
	char *copy = strdup(value);

	if (!copy)
		return err_set(err, ST_NOMEM, "out of memory for parameter %s",
			       param_table[which].name);
	free(p->str[which]);
	p->str[which] = copy;
	p->given[which] = true;
	return 0;
}

int param_set(struct params *p, enum param which, const char *value, struct error *err)
{
	const struct param_info *info = &param_table[which];
	uint64_t v;

	if (info->effect == EFFECT_REFUSED)
		return err_set(err, ST_UNSUPPORTED, "parameter %s is %s", info->name, info->what);
	if (info->type == PT_STR)
		return set_text(p, which, value, err);
	if (parse_number(info, value, &v) || v < info->min || v > info->max ||
	    (which == PARAM_XBZRLE_CACHE_SIZE && (v & (v - 1))))
		return bad_value(which, value, err);
	p->num[which] = v;
	p->given[which] = true;
	return 0;
}

int param_parse(struct params *p, const char *arg, struct error *err)
{
	const char *eq = strchr(arg, '=');
	char name[64];
	int which;

	/* A name that is cut is longer than any known one, so it stays unknown. */
	snprintf(name, sizeof(name), "%.*s", (int)(eq ? eq - arg : (ptrdiff_t)strlen(arg)), arg);
	which = param_find(name);
	if (which < 0)
		return unknown(name, err);
	if (!eq) {
		err_set(err, ST_USAGE, "parameter %s has no value", name);
		return err_hint(err, "--param %s=VALUE", name);
	}
	return param_set(p, (enum param)which, eq + 1, err);
}

/* Who names a peer and gives nothing to know it by would believe to be protected. */
static int check_tls(const struct params *p, struct error *err)
{
	enum param lone = params_tls_authz(p) ? PARAM_TLS_AUTHZ : PARAM_TLS_HOSTNAME;

	if (params_tls(p) || !params_text(p, lone))
		return 0;
	err_set(err, ST_USAGE, "parameter %s has no effect without tls-creds",
		param_table[lone].name);
	return err_hint(err, "--param tls-creds=DIR");
}

int params_check(const struct params *p, uint32_t page_size, struct error *err)
{
	uint64_t most = p->num[PARAM_MAX_CPU_THROTTLE], first = p->num[PARAM_CPU_THROTTLE_INITIAL];

	if (most < first) {
		err_set(err, ST_USAGE,
			"parameter max-cpu-throttle is %" PRIu64
			", below cpu-throttle-initial, which is %" PRIu64,
			most, first);
		return err_hint(err, "raise the one or lower the other");
	}
	if (check_tls(p, err))
		return -1;
	if (params_xbzrle_cache_size(p) < page_size) {
		err_set(err, ST_USAGE,
			"parameter xbzrle-cache-size is %" PRIu64 ", less than a page of %" PRIu32
			" bytes",
			params_xbzrle_cache_size(p), page_size);
		return err_hint(err, "--param xbzrle-cache-size=64MiB is the default");
	}
	return 0;
}

char *param_format(const struct params *p, enum param which, char *buf, size_t len)
{
	const struct param_info *info = &param_table[which];
	uint64_t v = p->num[which];

	switch (info->type) {
	case PT_INT:
		snprintf(buf, len, "%" PRIu64, v);
		break;
	case PT_SIZE:
		units_format_exact(v, buf, len);
		break;
	case PT_BOOL:
		snprintf(buf, len, "%s", v ? "on" : "off");
		break;
	case PT_ENUM:
		snprintf(buf, len, "%s", info->values[v]);
		break;
	case PT_STR:
		snprintf(buf, len, "%s", p->str[which] ? p->str[which] : "");
		break;
	}
	return buf;
}

int params_multifd_level(const struct params *p)
{
	switch (params_multifd_compression(p)) {
	case METHOD_ZLIB:
		return (int)p->num[PARAM_MULTIFD_ZLIB_LEVEL];
	case METHOD_ZSTD:
		return (int)p->num[PARAM_MULTIFD_ZSTD_LEVEL];
	case METHOD_NONE:
		break;
	}
	return 0;
}
