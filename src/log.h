/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What migtool says to people, on stderr, a line each: "migtool send: ...". Callable from any
 * thread; a line is written whole. A progress line on a terminal is cleared first. Control
 * characters in a message are escaped, whoever they come from.
 */
#ifndef MIGTOOL_LOG_H
#define MIGTOOL_LOG_H

#include <stddef.h>

/* LOG_ANSWER: somebody asked while we run (a signal); printed whatever the level is. */
enum log_level { LOG_ANSWER, LOG_ERROR, LOG_WARN, LOG_INFO, LOG_VERBOSE, LOG_DEBUG };

/* Called once before threads start. `level`: what is still printed; `role` is "send", "recv"... */
void log_init(enum log_level level, const char *role);

void log_at(enum log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#define log_answer(...)	 log_at(LOG_ANSWER, __VA_ARGS__)
#define log_error(...)	 log_at(LOG_ERROR, __VA_ARGS__)
#define log_warn(...)	 log_at(LOG_WARN, __VA_ARGS__)
#define log_info(...)	 log_at(LOG_INFO, __VA_ARGS__)
#define log_verbose(...) log_at(LOG_VERBOSE, __VA_ARGS__)
#define log_debug(...)	 log_at(LOG_DEBUG, __VA_ARGS__)

/*
 * A line that another program said, as "who: line", whatever the level is: how much it says is
 * decided where it is started.
 */
void log_far(const char *who, const char *line);

/* The progress line (no newline) that every other line has to clear and bring back; NULL ends it.
 */
void log_status_line(const char *line);

/*
 * Copies what a peer said so that it can be printed: at most 512 bytes of it, control characters
 * and bytes that are no UTF-8 escaped as \xNN. Returns `out`.
 */
char *log_escape(char *out, size_t outlen, const void *in, size_t inlen);

#endif
