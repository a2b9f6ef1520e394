/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The greeting between two migtools, before QEMU's stream: the source says what it is about to
 * send, the destination takes it or says why not. A frame is 8 bytes of magic, be32 length, JSON.
 *
 * The version rule: unknown keys are ignored; a name in the array `needs` that the destination does
 * not know is a refusal. The source uses a feature only if the answer lists it.
 */
#ifndef MIGTOOL_WIRE_GREET_H
#define MIGTOOL_WIRE_GREET_H

#include "caps.h"
#include "digest.h"
#include "params.h"
#include "stream.h"

#define GREET_MAGIC	"migtool\n" /* 8 bytes, no prefix of anything QEMU, TLS or ssh says first */
#define GREET_MAGIC_LEN 8
#define GREET_MAX	(1u << 20)
#define GREET_VERSION	1

enum feature {
	FEATURE_RUNS = 1 << 0,	   /* RAM_RUN and RAM_ZERO_RUN */
	FEATURE_MULTIFD2 = 1 << 1, /* multifd header version 2 */
	FEATURE_DELTA = 1 << 2,	   /* the destination offers the digests of an old copy */
	FEATURE_POSTCOPY = 1 << 3, /* a guest runs there before its memory has arrived */
	FEATURE_URGENT = 1 << 4,   /* and what it waits for has a connection of its own */
	FEATURE_AHEAD = 1 << 5,	   /* and some of it may come before */
};

/* What there is with a guest alone. */
#define FEATURES_GUEST (FEATURE_POSTCOPY | FEATURE_URGENT | FEATURE_AHEAD)
#define FEATURES_ALL   (FEATURE_RUNS | FEATURE_MULTIFD2 | FEATURE_DELTA | FEATURES_GUEST)

/* What a destination has of the session that a source goes on with. */
enum greet_found {
	FOUND_NOTHING,
	FOUND_PART,
	FOUND_COMPLETE, /* verified and durable, and nobody knows whether it was handed over */
	FOUND_DONE,	/* handed over: the destination owns it */
	FOUND_GUEST,	/* handed over, and the guest there waits for the rest of its memory */
	FOUND_READY,	/* a guest is there, and was not handed over */
};

struct greet_block {
	char name[256];
	uint64_t size;
	uint32_t page_size;
	bool has_gpa, shared;
	uint64_t gpa;
	bool has_digest; /* x-ignore-shared: it is not sent, the destination has the same */
	struct digest digest;
};

struct greeting {
	char program[64]; /* "migtool 0.1.0" */
	uint8_t session[16];
	bool resume;	    /* it goes on with an earlier session: */
	bool knows_session; /* with this one, else whichever the destination has */
	uint8_t resumed[16];
	bool retries;	     /* it comes back when the link dies, and says HEARD */
	bool dry_run;	     /* answer, and listen on */
	bool one_way;	     /* no answer is read */
	struct cap_set caps; /* .on only */
	unsigned multifd_channels;
	enum multifd_method multifd_compression;
	char machine[256]; /* "" where unknown, likewise below */
	char uuid[37];
	char target_arch[32];
	char run_state[104];
	uint32_t page_size;
	unsigned features; /* enum feature, offered */
	bool has_base;	   /* xbzrle against an old copy with this digest */
	struct digest base;
	bool has_image; /* postcopy: which files these are, and of what time */
	struct digest image;
	bool has_device_state;
	char join[33];	     /* the far end of an ssh: URI: its name for `migtool join`; or "" */
	uint64_t data_bytes; /* what has to travel at most; for progress */
	struct greet_block *blocks;
	unsigned nblocks;
};

struct greet_answer {
	char program[64];
	bool take;
	unsigned features;	   /* of those offered, what the source may use */
	unsigned multifd_channels; /* at most as many as announced */
	char join[33];		   /* as the greeting's */
	enum greet_found found;	   /* to a source that resumes */
	uint8_t session[16];	   /* which one it is that goes on; 0: unknown */
	struct error why;	   /* of a refusal: status, reason, hint */
};

int greet_put(struct stream *s, const struct greeting *g, struct error *err);

/*
 * Magic included. ST_PROTOCOL: no greeting, another version, an unknown need; ST_DATA: a value that
 * is out of bounds. The caller frees with greet_free, also after a failure.
 */
int greet_get(struct stream *s, struct greeting *g, struct error *err);
void greet_free(struct greeting *g);

int greet_answer_put(struct stream *s, const struct greet_answer *a, struct error *err);
/* "Not yet": the destination lives and looks at its old copy. */
int greet_wait_put(struct stream *s, struct error *err);
/*
 * Skips waits, for `wait_ms` from now on: ST_TIMEOUT when one comes later. That something comes in
 * time at all is the caller's to watch.
 */
int greet_answer_get(struct stream *s, uint64_t wait_ms, struct greet_answer *a, struct error *err);

/* For fuzzing and tests: the JSON alone. */
int greet_parse(const char *text, size_t len, struct greeting *g, struct error *err);
int greet_answer_parse(const char *text, size_t len, struct greet_answer *a, bool *wait,
		       struct error *err);

#endif
