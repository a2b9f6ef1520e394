// SPDX-License-Identifier: GPL-2.0-or-later
#include "log.h"

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static struct {
	pthread_mutex_t lock;
	enum log_level level;
	const char *role;
	char status[256];
} logger = { .lock = PTHREAD_MUTEX_INITIALIZER, .level = LOG_INFO };

void log_init(enum log_level level, const char *role)
{
	logger.level = level;
	logger.role = role;
}

/* One write, so that lines of two processes on one terminal do not mix. */
static void put(const char *line, size_t len)
{
	while (len > 0) {
		ssize_t n = write(STDERR_FILENO, line, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return;
		line += n;
		len -= (size_t)n;
	}
}

void log_status_line(const char *line)
{
	char out[300];
	int n;

	pthread_mutex_lock(&logger.lock);
	if (line || logger.status[0]) {
		snprintf(logger.status, sizeof(logger.status), "%s", line ? line : "");
		n = snprintf(out, sizeof(out), "\r%s\033[K", logger.status);
		put(out, (size_t)n);
	}
	pthread_mutex_unlock(&logger.lock);
}

/* Length of the UTF-8 sequence at `s`, 0 if it is none or a control character. */
static size_t utf8_len(const unsigned char *s, size_t left)
{
	size_t n = s[0] < 0x80 ? 1 : s[0] >= 0xf0 ? 4 : s[0] >= 0xe0 ? 3 : 2;

	if (s[0] < 0x20 || s[0] == 0x7f || (s[0] >= 0x80 && s[0] < 0xc2) || s[0] > 0xf4 || n > left)
		return 0;
	for (size_t i = 1; i < n; i++)
		if ((s[i] & 0xc0) != 0x80)
			return 0;
	/* U+0080 to U+009F are control characters too; overlong forms and surrogates are no UTF-8
	 */
	if ((s[0] == 0xc2 && s[1] < 0xa0) || (s[0] == 0xe0 && s[1] < 0xa0) ||
	    (s[0] == 0xed && s[1] > 0x9f) || (s[0] == 0xf0 && s[1] < 0x90) ||
	    (s[0] == 0xf4 && s[1] > 0x8f))
		return 0;
	return n;
}

/* Stops where the next character would not fit; returns the length. */
static size_t escape(char *out, size_t outlen, const void *in, size_t left)
{
	const unsigned char *s = in;
	size_t o = 0;

	while (left > 0) {
		size_t n = utf8_len(s, left);

		if (o + (n ? n : 4) + 1 > outlen)
			break;
		if (n) {
			memcpy(out + o, s, n);
			o += n;
		} else {
			n = 1;
			o += (size_t)snprintf(out + o, outlen - o, "\\x%02x", s[0]);
		}
		s += n;
		left -= n;
	}
	if (outlen)
		out[o] = '\0';
	return o;
}

char *log_escape(char *out, size_t outlen, const void *in, size_t inlen)
{
	escape(out, outlen, in, inlen < 512 ? inlen : 512);
	return out;
}

/* Writes head and text as one line, around the progress line. */
static void put_line(const char *head, const char *text)
{
	char line[2400];
	size_t n = 0;

	pthread_mutex_lock(&logger.lock);
	if (logger.status[0])
		n += (size_t)snprintf(line, sizeof(line), "\r\033[K");
	n += (size_t)snprintf(line + n, sizeof(line) - n, "%.300s", head);
	/* block names and the like come from peers: no message may steer the terminal */
	n += escape(line + n, sizeof(line) - n - sizeof(logger.status) - 1, text, strlen(text));
	line[n++] = '\n';
	if (logger.status[0])
		n += (size_t)snprintf(line + n, sizeof(line) - n, "%s", logger.status);
	put(line, n);
	pthread_mutex_unlock(&logger.lock);
}

void log_far(const char *who, const char *line)
{
	char head[300];

	snprintf(head, sizeof(head), "%s: ", who);
	put_line(head, line);
}

#define WARN_MOST   100 /* warnings in WARN_WINDOW seconds; more say nothing new */
#define WARN_WINDOW 10

/*
 * Whoever connects can cause a warning, so they are counted. *missed: how many were left out before
 * this one, to be said with it.
 */
static bool too_many_warnings(unsigned *missed)
{
	static time_t since;
	static unsigned said, left_out;
	struct timespec now;
	bool many;

	clock_gettime(CLOCK_MONOTONIC, &now);
	pthread_mutex_lock(&logger.lock);
	if (!said || now.tv_sec - since >= WARN_WINDOW) {
		*missed = left_out;
		since = now.tv_sec;
		said = left_out = 0;
	}
	many = said == WARN_MOST;
	*(many ? &left_out : &said) += 1;
	pthread_mutex_unlock(&logger.lock);
	return many;
}

void log_at(enum log_level level, const char *fmt, ...)
{
	static const char *const words[] = {
		[LOG_ANSWER] = "", [LOG_ERROR] = "error: ", [LOG_WARN] = "warning: "
	};
	char head[300], text[2000];
	unsigned missed = 0;
	va_list ap;

	if (level > logger.level && level != LOG_ANSWER)
		return;
	if (level == LOG_WARN && too_many_warnings(&missed))
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (missed)
		snprintf(text + strlen(text), sizeof(text) - strlen(text),
			 " (%u warnings before this one were left out)", missed);
	snprintf(head, sizeof(head), "migtool%s%s: %s", logger.role ? " " : "",
		 logger.role ? logger.role : "", level <= LOG_WARN ? words[level] : "");
	put_line(head, text);
}
