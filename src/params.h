/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The migration parameters: one table with QEMU's names, units, ranges and defaults. The typed
 * getters below are the only way the rest of the program reads one.
 */
#ifndef MIGTOOL_PARAMS_H
#define MIGTOOL_PARAMS_H

#include "caps.h"

#include <stdint.h>

enum param {
	PARAM_ANNOUNCE_INITIAL,
	PARAM_ANNOUNCE_MAX,
	PARAM_ANNOUNCE_ROUNDS,
	PARAM_ANNOUNCE_STEP,
	PARAM_COMPRESS_LEVEL,
	PARAM_COMPRESS_THREADS,
	PARAM_COMPRESS_WAIT_THREAD,
	PARAM_DECOMPRESS_THREADS,
	PARAM_THROTTLE_TRIGGER_THRESHOLD,
	PARAM_CPU_THROTTLE_INITIAL,
	PARAM_CPU_THROTTLE_INCREMENT,
	PARAM_CPU_THROTTLE_TAILSLOW,
	PARAM_MAX_CPU_THROTTLE,
	PARAM_TLS_CREDS,
	PARAM_TLS_HOSTNAME,
	PARAM_TLS_AUTHZ,
	PARAM_MAX_BANDWIDTH,
	PARAM_DOWNTIME_LIMIT,
	PARAM_X_CHECKPOINT_DELAY,
	PARAM_BLOCK_INCREMENTAL,
	PARAM_MULTIFD_CHANNELS,
	PARAM_MULTIFD_COMPRESSION,
	PARAM_MULTIFD_ZLIB_LEVEL,
	PARAM_MULTIFD_ZSTD_LEVEL,
	PARAM_XBZRLE_CACHE_SIZE,
	PARAM_MAX_POSTCOPY_BANDWIDTH,
	PARAM_BLOCK_BITMAP_MAPPING,
	PARAM_X_VCPU_DIRTY_LIMIT_PERIOD,
	PARAM_VCPU_DIRTY_LIMIT,
	/* later than 8.1: known, refused */
	PARAM_AVAIL_SWITCHOVER_BANDWIDTH,
	PARAM_MODE,
	PARAM_ZERO_PAGE_DETECTION,
	PARAM_MULTIFD_QATZIP_LEVEL,
	PARAM_DIRECT_IO,
	PARAM__MAX
};

enum param_type { PT_INT, PT_SIZE, PT_BOOL, PT_ENUM, PT_STR };

enum multifd_method { METHOD_NONE, METHOD_ZLIB, METHOD_ZSTD };

struct param_info {
	const char *name;
	const char *since;
	enum param_type type;
	const char *unit; /* "ms", "%", "bytes", "bytes/s", "" */
	uint64_t min, max;
	uint64_t def;		   /* integers, sizes, bools, index of an enum */
	const char *const *values; /* PT_ENUM: NULL-terminated */
	enum effect effect;
	const char *what;    /* one line */
	const char *differs; /* why our default is not QEMU's, or NULL */
};

extern const struct param_info param_table[PARAM__MAX];

struct params {
	uint64_t num[PARAM__MAX];
	char *str[PARAM__MAX]; /* PT_STR: owned; NULL means "" */
	bool given[PARAM__MAX];
};

/* All defaults. */
void params_init(struct params *p);
void params_free(struct params *p);

int param_find(const char *name);

/*
 * One --param argument, NAME=VALUE: name, type, unit suffix, range and the setter rules
 * (xbzrle-cache-size is a power of two). ST_USAGE; ST_UNSUPPORTED for what is refused here. What
 * depends on something else is judged by params_check once all are in: max-cpu-throttle not below
 * cpu-throttle-initial, xbzrle-cache-size not below `page_size`.
 */
int param_parse(struct params *p, const char *arg, struct error *err);
int params_check(const struct params *p, uint32_t page_size, struct error *err);

/* param_parse with the name looked up already. A refused parameter is ST_UNSUPPORTED. */
int param_set(struct params *p, enum param which, const char *value, struct error *err);

/* What it takes, for people: "1 to 255", "on, off", "none, zlib, zstd". Returns buf. */
char *param_range(enum param which, char *buf, size_t len);

/* The value as a user would write it. Returns buf. */
char *param_format(const struct params *p, enum param which, char *buf, size_t len);

static inline unsigned params_multifd_channels(const struct params *p)
{
	return (unsigned)p->num[PARAM_MULTIFD_CHANNELS];
}

static inline enum multifd_method params_multifd_compression(const struct params *p)
{
	return (enum multifd_method)p->num[PARAM_MULTIFD_COMPRESSION];
}

/* The level of the method in force; 0 for none. */
int params_multifd_level(const struct params *p);

static inline int params_compress_level(const struct params *p)
{
	return (int)p->num[PARAM_COMPRESS_LEVEL];
}

static inline unsigned params_compress_threads(const struct params *p)
{
	return (unsigned)p->num[PARAM_COMPRESS_THREADS];
}

static inline bool params_compress_wait_thread(const struct params *p)
{
	return p->num[PARAM_COMPRESS_WAIT_THREAD];
}

static inline unsigned params_decompress_threads(const struct params *p)
{
	return (unsigned)p->num[PARAM_DECOMPRESS_THREADS];
}

/* Bytes a second, 0: no limit. */
static inline uint64_t params_max_bandwidth(const struct params *p)
{
	return p->num[PARAM_MAX_BANDWIDTH];
}

/* Likewise, of the pages that nobody has asked for. */
static inline uint64_t params_max_postcopy_bandwidth(const struct params *p)
{
	return p->num[PARAM_MAX_POSTCOPY_BANDWIDTH];
}

static inline uint64_t params_xbzrle_cache_size(const struct params *p)
{
	return p->num[PARAM_XBZRLE_CACHE_SIZE];
}

/* NULL: not given, or empty. */
static inline const char *params_text(const struct params *p, enum param which)
{
	return p->str[which] && p->str[which][0] ? p->str[which] : NULL;
}

static inline const char *params_tls_creds(const struct params *p)
{
	return params_text(p, PARAM_TLS_CREDS);
}

static inline const char *params_tls_hostname(const struct params *p)
{
	return params_text(p, PARAM_TLS_HOSTNAME);
}

static inline const char *params_tls_authz(const struct params *p)
{
	return params_text(p, PARAM_TLS_AUTHZ);
}

/* TLS is on iff tls-creds is not empty. */
static inline bool params_tls(const struct params *p)
{
	return params_tls_creds(p);
}

#endif
