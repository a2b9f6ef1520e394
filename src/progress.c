// SPDX-License-Identifier: GPL-2.0-or-later
#include "progress.h"

#include "events.h"
#include "log.h"
#include "units.h"

#include <inttypes.h>
#include <jansson.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define SAMPLE_MS 200
#define WINDOW_MS 5000
#define SPAN_MS	  500 /* a rate over less than this would jump */
#define LINE_MS	  1000
#define MAX_ETA	  UINT64_C(2592000) /* seconds: who waits for a month is not told */

void progress_init(struct progress *p, enum progress_mode mode, bool quiet, int fd)
{
	const char *term = getenv("TERM");
	bool capable = term && *term && strcmp(term, "dumb") != 0;

	memset(p, 0, sizeof(*p));
	p->mode = mode;
	p->fd = fd;
	if (mode == PROGRESS_AUTO)
		p->mode = isatty(STDERR_FILENO) && !quiet ? PROGRESS_TTY : PROGRESS_NONE;
	if (p->mode == PROGRESS_TTY && !capable)
		p->mode = PROGRESS_NONE;
}

static void keep_sample(struct progress *p, uint64_t t, uint64_t bytes)
{
	unsigned last = (p->next + PROGRESS_SAMPLES - 1) % PROGRESS_SAMPLES;

	if (p->nsamples && t < p->sample[last].t + SAMPLE_MS)
		return;
	p->sample[p->next].t = t;
	p->sample[p->next].bytes = bytes;
	p->next = (p->next + 1) % PROGRESS_SAMPLES;
	if (p->nsamples < PROGRESS_SAMPLES)
		p->nsamples++;
}

/* From the oldest sample inside the window until now. */
static int64_t recent_rate(const struct progress *p, uint64_t now, uint64_t bytes)
{
	for (unsigned i = 0; i < p->nsamples; i++) {
		unsigned k = (p->next + PROGRESS_SAMPLES - p->nsamples + i) % PROGRESS_SAMPLES;
		uint64_t span = now - p->sample[k].t;

		if (p->sample[k].t > now || span > WINDOW_MS)
			continue;
		if (span < SPAN_MS || bytes < p->sample[k].bytes)
			return -1;
		return (int64_t)((double)(bytes - p->sample[k].bytes) * 1000 / (double)span);
	}
	return -1;
}

void progress_look(struct progress *p, const struct stats_snapshot *s, struct progress_view *v)
{
	uint64_t left;

	v->total = s->to_travel;
	v->done = s->travelled < v->total ? s->travelled : v->total;
	v->permille = v->total ? (int)((double)v->done / (double)v->total * 1000) : -1;
	/* Rounding must not say that all is done. */
	if (v->permille >= 1000)
		v->permille = v->done == v->total ? 1000 : 999;
	v->elapsed = stats_elapsed(s);
	keep_sample(p, s->now, v->done);
	v->rate = recent_rate(p, s->now, v->done);
	v->eta = -1;
	left = v->total - v->done;
	if (v->total && v->rate > 0 && left / (uint64_t)v->rate < MAX_ETA)
		v->eta = (int64_t)((left + (uint64_t)v->rate - 1) / (uint64_t)v->rate);
}

static void format_clock(uint64_t seconds, char *buf, size_t len)
{
	if (seconds >= 3600)
		snprintf(buf, len, "%" PRIu64 ":%02u:%02u", seconds / 3600,
			 (unsigned)(seconds / 60 % 60), (unsigned)(seconds % 60));
	else
		snprintf(buf, len, "%u:%02u", (unsigned)(seconds / 60), (unsigned)(seconds % 60));
}

/* The line's parts from left to right, and the order in which they go when it is too narrow. */
enum part { PART_PHASE, PART_PERCENT, PART_BYTES, PART_RATE, PART_ETA, PART_ELAPSED, NPARTS };

static const enum part dispensable[] = { PART_ELAPSED, PART_BYTES, PART_PHASE,
					 PART_RATE,    PART_ETA,   PART_PERCENT };

static void format_parts(const struct progress_view *v, const char *phase, char part[NPARTS][80])
{
	char a[24], b[24];

	snprintf(part[PART_PHASE], 80, "%s", phase);
	if (v->permille >= 0) {
		snprintf(part[PART_PERCENT], 80, "%3d %%", v->permille / 10);
		units_format_size(v->done, a, sizeof(a));
		units_format_size(v->total, b, sizeof(b));
		snprintf(part[PART_BYTES], 80, "%s of %s", a, b);
	}
	if (v->rate >= 0)
		snprintf(part[PART_RATE], 80, "%s/s",
			 units_format_size((uint64_t)v->rate, a, sizeof(a)));
	if (v->eta >= 0) {
		format_clock((uint64_t)v->eta, a, sizeof(a));
		snprintf(part[PART_ETA], 80, "ETA %s", a);
	}
	format_clock(v->elapsed / 1000, a, sizeof(a));
	snprintf(part[PART_ELAPSED], 80, "elapsed %s", a);
}

char *progress_format(const struct progress_view *v, const char *phase, unsigned width, char *buf,
		      size_t len)
{
	char part[NPARTS][80] = { "" };
	size_t room = width < len - 1 ? width : len - 1, n = 0;

	format_parts(v, phase, part);
	for (size_t drop = 0;; drop++) {
		size_t need = 0;

		for (int i = 0; i < NPARTS; i++)
			if (part[i][0])
				need += strlen(part[i]) + (need ? 2 : 0);
		if (need <= room)
			break;
		part[dispensable[drop]][0] = '\0';
	}
	buf[0] = '\0';
	for (int i = 0; i < NPARTS; i++)
		if (part[i][0])
			n += (size_t)snprintf(buf + n, len - n, "%s%s", n ? "  " : "", part[i]);
	return buf;
}

static unsigned terminal_width(void)
{
	struct winsize w;

	if (ioctl(STDERR_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_col > 0)
		return w.ws_col;
	return 80;
}

/* A reader that stopped must not stop us: the main thread has signals to answer. */
static bool has_room(int fd, int ms)
{
	struct pollfd p = { .fd = fd, .events = POLLOUT };

	return poll(&p, 1, ms) > 0;
}

static void draw(const struct progress_view *v, const char *phase)
{
	char line[240];

	if (!has_room(STDERR_FILENO, 0))
		return;
	/* The last column stays free: many terminals wrap when it is written. */
	log_status_line(progress_format(v, phase, terminal_width() - 1, line, sizeof(line)));
}

/* What is not known is null. */
static json_t *number_or_null(int64_t n)
{
	return n < 0 ? json_null() : json_integer(n);
}

/* Waits up to `ms` for a slow reader, else there is one line less. */
static void write_line(struct progress *p, const struct progress_view *v, const char *phase, int ms)
{
	struct error err;
	json_t *data;

	if (!has_room(p->fd, ms))
		return;
	data = json_pack("{s:s,s:I,s:I,s:o,s:o,s:o,s:f}", "phase", phase, "done",
			 (json_int_t)v->done, "total", (json_int_t)v->total, "percent",
			 v->permille < 0 ? json_null() : json_real((double)v->permille / 10),
			 "rate", number_or_null(v->rate), "eta", number_or_null(v->eta), "elapsed",
			 (double)v->elapsed / 1000);

	if (event_write(p->fd, "PROGRESS", data, &err))
		p->mode = PROGRESS_NONE; /* the reader left; the transfer does not suffer */
}

void progress_tick(struct progress *p, const struct stats_snapshot *s, const char *phase)
{
	struct progress_view v;

	if (p->mode == PROGRESS_NONE || !s->t_start)
		return;
	progress_look(p, s, &v);
	if (p->mode == PROGRESS_TTY) {
		draw(&v, phase);
	} else if (s->now >= p->last_line + LINE_MS) {
		p->last_line = s->now;
		write_line(p, &v, phase, 0);
	}
}

/* What is said of a transfer that has reached its end: its rate is that of the whole of it. */
static void look_back(struct progress_view *v, uint64_t ms)
{
	v->done = v->total;
	v->permille = 1000;
	v->rate = (int64_t)((double)v->total * 1000 / (double)(ms ? ms : 1));
	v->eta = 0;
}

void progress_end(struct progress *p, const struct stats_snapshot *s, const char *phase,
		  bool complete)
{
	struct progress_view v;

	if (p->mode == PROGRESS_TTY)
		log_status_line(NULL);
	if (p->mode == PROGRESS_JSON && s->t_start) {
		progress_look(p, s, &v);
		if (complete)
			look_back(&v, stats_moving(s));
		write_line(p, &v, phase, LINE_MS);
	}
	p->mode = PROGRESS_NONE;
}
