/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A whole `recv` without a network: its stages, one after the other, on what a peer in memory says.
 * The image is real, on a file system in memory.
 */
#ifndef MIGTOOL_FUZZ_RECV_H
#define MIGTOOL_FUZZ_RECV_H

#include "fuzz_memory.h"

#include "byteorder.h"
#include "link.h"
#include "log.h"
#include "target.h"
#include "wire-ram.h"

#include <ftw.h>
#include <unistd.h>

/* ---- what the peer says ---- */

struct fuzz_text {
	uint8_t *p;
	size_t len, cap;
};

static inline void fuzz_say(struct fuzz_text *to, const void *bytes, size_t len)
{
	if (to->len + len > to->cap) {
		to->cap = 2 * (to->len + len);
		to->p = realloc(to->p, to->cap);
		FUZZ_CHECK(to->p);
	}
	if (len)
		memcpy(to->p + to->len, bytes, len);
	to->len += len;
}

#define FUZZ_SAY(to, literal) fuzz_say(to, literal, sizeof(literal) - 1)

static inline void fuzz_say_be32(struct fuzz_text *to, uint32_t v)
{
	uint8_t b[4];

	put_be32(b, v);
	fuzz_say(to, b, sizeof(b));
}

static inline void fuzz_say_be64(struct fuzz_text *to, uint64_t v)
{
	uint8_t b[8];

	put_be64(b, v);
	fuzz_say(to, b, sizeof(b));
}

/* Bits of the byte that a fuzz target's input begins with. */
enum fuzz_mode {
	FUZZ_MIGTOOL = 1,  /* else a QEMU */
	FUZZ_FEATURES = 2, /* a migtool's */
	FUZZ_COMPRESS = 4, /* the capability */
	FUZZ_PAGE_16K = 8, /* else 4 KiB */
	FUZZ_ONE_WAY = 16, /* no way back */
	FUZZ_RAW = 32,	   /* nothing goes before the input */
	FUZZ_ZLIB = 64,	   /* multifd's method, if it is not FUZZ_ZSTD */
	FUZZ_ZSTD = 128,
	FUZZ_SHARED = 128, /* x-ignore-shared, where there is no multifd */
};

#define FUZZ_RAM_SIZE (16u * 16384)
#define FUZZ_ROM_SIZE (2u * 16384)

/* channels: multifd's, 0: none. */
static inline void fuzz_say_greeting(struct fuzz_text *to, unsigned mode, unsigned channels)
{
	char json[1024];
	int n = snprintf(json, sizeof(json),
			 "{\"version\":1,\"session\":\"%s\",\"page-size\":%d,\"one-way\":%s,"
			 "\"device-state\":true,\"features\":[%s],\"capabilities\":[\"%s\"%s],"
			 "\"parameters\":{\"multifd-channels\":%u,\"multifd-compression\":\"%s\"},"
			 "\"blocks\":"
			 "[{\"name\":\"pc.ram\",\"size\":%u},{\"name\":\"rom\",\"size\":%u}]}",
			 "00000000000000000000000000000000", mode & FUZZ_PAGE_16K ? 16384 : 4096,
			 mode & FUZZ_ONE_WAY ? "true" : "false",
			 mode & FUZZ_FEATURES ? "\"page-runs\",\"multifd-2\"" : "",
			 channels ? "multifd" : "xbzrle",
			 mode & FUZZ_COMPRESS ? ",\"compress\"" : "", channels ? channels : 1,
			 mode & FUZZ_ZSTD   ? "zstd"
			 : mode & FUZZ_ZLIB ? "zlib"
					    : "none",
			 FUZZ_RAM_SIZE, FUZZ_ROM_SIZE);

	FUZZ_SAY(to, GREET_MAGIC);
	fuzz_say_be32(to, (uint32_t)n);
	fuzz_say(to, json, (size_t)n);
}

static inline void fuzz_say_eos(struct fuzz_text *to)
{
	fuzz_say_be64(to, RAM_EOS);
	FUZZ_SAY(to, "\x7e\0\0\0\2");
}

/* START with the blocks; `flush`: multifd's barrier. */
static inline void fuzz_say_start(struct fuzz_text *to, bool flush)
{
	FUZZ_SAY(to, "\1\0\0\0\2\3ram\0\0\0\0\0\0\0\4");
	fuzz_say_be64(to, (FUZZ_RAM_SIZE + FUZZ_ROM_SIZE) | RAM_MEM_SIZE);
	FUZZ_SAY(to, "\6pc.ram");
	fuzz_say_be64(to, FUZZ_RAM_SIZE);
	FUZZ_SAY(to, "\3rom");
	fuzz_say_be64(to, FUZZ_ROM_SIZE);
	if (flush)
		fuzz_say_be64(to, RAM_MULTIFD_FLUSH);
	fuzz_say_eos(to);
}

/* Greeting, header, configuration, and START with the blocks; `flush`: multifd's barrier. */
static inline void fuzz_say_head(struct fuzz_text *to, unsigned mode, bool flush)
{
	if (mode & FUZZ_MIGTOOL)
		fuzz_say_greeting(to, mode, flush ? 1 : 0);
	FUZZ_SAY(to, "QEVM\0\0\0\3\7\0\0\0\2pc");
	if (mode & FUZZ_PAGE_16K)
		FUZZ_SAY(to, "\5\x1e"
			     "configuration/target-page-bits\0\0\0\1\0\0\0\x0e");
	fuzz_say_start(to, flush);
}

/* END and what follows. A migtool's digest is that of no memory. */
static inline void fuzz_say_tail(struct fuzz_text *to, unsigned mode)
{
	static const uint8_t none[WIRE_DIGEST_LEN];

	FUZZ_SAY(to, "\3\0\0\0\2");
	fuzz_say_eos(to);
	if (mode & FUZZ_MIGTOOL) {
		FUZZ_SAY(to, "\x08\x40\x02\0\0\0\x28");
		fuzz_say(to, none, sizeof(none));
	}
	FUZZ_SAY(to, "\0\6\0\0\0\0\x08\x40\3\0\0\0\0");
}

/* ---- the destination ---- */

static inline int fuzz_remove_one(const char *path, const struct stat *st, int type, struct FTW *at)
{
	(void)st;
	(void)type;
	(void)at;
	return remove(path);
}

/* A place of our own, gone at the end. */
static char fuzz_dir[64];

static inline void fuzz_remove(void)
{
	nftw(fuzz_dir, fuzz_remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

static inline const char *fuzz_image(void)
{
	static char path[80];

	if (!fuzz_dir[0]) {
		strcpy(fuzz_dir, "/dev/shm/migtool-fuzz.XXXXXX");
		FUZZ_CHECK(mkdtemp(fuzz_dir));
		atexit(fuzz_remove);
		snprintf(path, sizeof(path), "%s/image", fuzz_dir);
		log_init(LOG_ANSWER, "fuzz");
	}
	return path;
}

/* Who comes after the last channel: nobody ever does. */
static inline ssize_t fuzz_nobody_read(struct transport *t, void *buf, size_t len,
				       struct error *err)
{
	(void)buf;
	(void)len;
	err_set(err, ST_TIMEOUT, "no further channel comes");
	cancel_fire(t->cancel, err);
	return -1;
}

static const struct transport_ops fuzz_nobody_ops = {
	.scheme = "nobody",
	.read = fuzz_nobody_read,
	.shutdown_write = fuzz_memory_shutdown,
	.close = io_close,
};

/* The channels wait where those are that came before the main connection. */
static inline void fuzz_stash(struct session *ss, struct fuzz_said *channels, unsigned n)
{
	static struct listener *listener;
	static struct cancel token;
	struct error err;
	struct uri uri;
	char text[96];

	if (!listener) {
		snprintf(text, sizeof(text), "unix:%s/socket", fuzz_dir);
		FUZZ_CHECK(!cancel_init(&token, &err) && !uri_parse(&uri, text, &err));
		listener = listener_open(&uri, &token, &err);
		FUZZ_CHECK(listener);
		uri_free(&uri);
	}
	ss->pending = pending_new(listener, &ss->cancel, &err);
	ss->stash[ss->nstash++] = io_new(&fuzz_nobody_ops, "nobody", &ss->cancel, &err);
	FUZZ_CHECK(ss->pending && ss->stash[0]);
	for (unsigned i = 0; i < n; i++)
		ss->stash[ss->nstash++] = fuzz_memory(&channels[i], false, &ss->cancel);
}

static inline int fuzz_stages(struct session *ss, struct error *err)
{
	int (*const stages[])(struct session *, struct error *) = {
		target_greet,	target_channels,   target_setup,
		target_precopy, target_switchover, target_finish,
	};

	if (link_open_stream(ss, err))
		return -1;
	for (size_t i = 0; i < sizeof(stages) / sizeof(stages[0]); i++) {
		/* a destination that listens takes what has come already, and no more has to */
		ss->listener = i == 1 && ss->nstash ? (struct listener *)ss : NULL;
		if (stages[i](ss, err))
			return -1;
		if (ss->dry_run_done)
			return 0;
	}
	return 0;
}

/* Receives, with `n` multifd channels (0: none). Returns 0 if an image came of it. */
static inline int fuzz_recv(unsigned mode, struct fuzz_said *main, struct fuzz_said *channels,
			    unsigned n)
{
	static struct session ss;
	struct config cfg = { .image = fuzz_image(), .force = true, .timeout = -1, .ready_fd = -1 };
	struct error err = { 0 }, why;
	struct transport *t;
	int rc;

	params_init(&cfg.params);
	cfg.params.num[PARAM_MULTIFD_CHANNELS] = n ? n : 1;
	cfg.params.num[PARAM_DECOMPRESS_THREADS] = 2;
	if (!(mode & FUZZ_MIGTOOL)) {
		cfg.caps.on[CAP_COMPRESS] = mode & FUZZ_COMPRESS;
		cfg.caps.on[CAP_MULTIFD] = n;
		cfg.caps.on[CAP_X_IGNORE_SHARED] = !n && mode & FUZZ_SHARED;
		cfg.page_size = mode & FUZZ_PAGE_16K ? 16384 : 0;
	}
	memset(&ss, 0, sizeof(ss));
	pthread_mutex_init(&ss.lock, NULL);
	FUZZ_CHECK(!cancel_init(&ss.cancel, &why));
	FUZZ_CHECK(!uri_parse(&ss.uri, "unix:memory", &why));
	ss.cfg = &cfg;
	ss.role = ROLE_DESTINATION;
	FUZZ_CHECK(!target_open(&ss, &why));
	ss.main = fuzz_memory(main, !(mode & FUZZ_ONE_WAY), &ss.cancel);
	if (n)
		fuzz_stash(&ss, channels, n);
	rc = fuzz_stages(&ss, &err);
	FUZZ_CHECK(!rc == !err.status && !rc == !err.msg[0]);
	FUZZ_CHECK(rc || ss.complete || ss.dry_run_done);
	/* the first reason stops all threads */
	if (rc)
		session_peer_failed(&ss, &err);
	target_end(&ss, rc ? &err : NULL);
	while ((t = session_stashed(&ss)))
		transport_close(t, &why);
	stream_close(&ss.stream);
	transport_close(ss.main, &why);
	pending_free(ss.pending);
	uri_free(&ss.uri);
	params_free(&cfg.params);
	cancel_destroy(&ss.cancel);
	pthread_mutex_destroy(&ss.lock);
	return ss.complete ? 0 : -1;
}

/* No image may be there after a failure; what is left is removed for the next input. */
static inline void fuzz_clean(int rc)
{
	char part[96];

	snprintf(part, sizeof(part), "%s.part", fuzz_image());
	FUZZ_CHECK(!rc == !access(fuzz_image(), F_OK));
	if (!access(fuzz_image(), F_OK))
		nftw(fuzz_image(), fuzz_remove_one, 8, FTW_DEPTH | FTW_PHYS);
	if (!access(part, F_OK))
		nftw(part, fuzz_remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

#endif
