/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How far it is and how long it will take: a line on the terminal that is drawn anew, or one event
 * line a second for scripts ({"timestamp": ..., "event": "PROGRESS", "data": {"phase", "done",
 * "total", "percent", "rate", "eta", "elapsed"}}; bytes, bytes a second, seconds; null where not
 * known). Main thread only.
 */
#ifndef MIGTOOL_PROGRESS_H
#define MIGTOOL_PROGRESS_H

#include "config.h"
#include "stats.h"

#define PROGRESS_SAMPLES 32

struct progress {
	enum progress_mode mode; /* PROGRESS_AUTO is decided by progress_init */
	int fd;
	uint64_t last_line; /* JSON: when, milliseconds */
	unsigned nsamples, next;
	struct {
		uint64_t t, bytes; /* milliseconds, guest bytes done by then */
	} sample[PROGRESS_SAMPLES];
};

/* What can be said at one moment. */
struct progress_view {
	uint64_t done, total; /* bytes of what has to travel; done <= total */
	int permille;	      /* 0 to 1000, rounded down; -1: what has to travel is not known yet */
	int64_t rate;	      /* bytes a second over the last seconds, -1: not known yet */
	int64_t eta;	      /* seconds, -1: not known */
	uint64_t elapsed;     /* milliseconds */
};

/*
 * auto: the terminal line if stderr is a terminal, TERM is set and not "dumb", and not `quiet`. A
 * dumb terminal gets no line on request either. `fd`: where JSON lines go; not owned.
 */
void progress_init(struct progress *p, enum progress_mode mode, bool quiet, int fd);

/* Called about every 250 ms from the start of the transfer on; shows what is due to be shown. */
void progress_tick(struct progress *p, const struct stats_snapshot *s, const char *phase);

/*
 * The end: takes the terminal's line away, or writes the last JSON line. `complete`: all has
 * arrived; a destination cannot tell zero pages among the data from holes, so its own count may be
 * short.
 */
void progress_end(struct progress *p, const struct stats_snapshot *s, const char *phase,
		  bool complete);

/* Pure but for the samples, of which a new one is kept at most every 200 ms. */
void progress_look(struct progress *p, const struct stats_snapshot *s, struct progress_view *v);

/* The line, of at most `width` columns: the less important parts are left out. Returns buf. */
char *progress_format(const struct progress_view *v, const char *phase, unsigned width, char *buf,
		      size_t len);

#endif
