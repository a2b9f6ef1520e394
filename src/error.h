/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Errors are values: a function that can fail takes a struct error * last, returns 0 or -1 (or a
 * pointer and NULL), and fills the error when it fails. Each level above may add a prefix that
 * says what it was doing. Only main.c turns an error into an exit status.
 *
 * The exit statuses are one table, status_table: --help, the manual page's test and the JSON's
 * `error-code` are fed from it.
 */
#ifndef MIGTOOL_ERROR_H
#define MIGTOOL_ERROR_H

#include <stdbool.h>
#include <stddef.h>

/* rsync's numbers where the meaning is the same */
enum status {
	ST_OK = 0,
	ST_USAGE = 1,
	ST_PROTOCOL = 2,
	ST_UNSUPPORTED = 4,
	ST_REFUSED = 5,
	ST_SOCKET = 10,
	ST_FILE = 11,
	ST_DATA = 12,
	ST_DIGEST = 13,
	ST_SANDBOX = 14,
	ST_CANCELLED = 20,
	ST_NOMEM = 22,
	ST_TIMEOUT = 30,
	ST_CONNECT = 35,
	ST_CONVERGE = 40,
	ST_LOST = 50,
	ST_COMMAND = 51,
	ST_NO_REMOTE = 127,
};

struct error {
	enum status status; /* ST_OK: no error */
	int sys;	    /* errno behind it, or 0 */
	char msg[1024];	    /* one line, no newline, no final full stop */
	char hint[512];	    /* how to fix it; may be empty */
};

struct status_info {
	enum status status;
	const char *code; /* the stable word of the JSON's `error-code` */
	const char *text; /* for --help and the manual */
};

/* Ends with an entry whose code is NULL. */
extern const struct status_info status_table[];

/* The table's entry, never NULL: an unknown status is a programming error and aborts. */
const struct status_info *status_info(enum status status);

/* All four return -1, so that `return err_set(...)` reads well. `err` must not be NULL. */
int err_set(struct error *err, enum status status, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* As err_set, and ": <strerror(errnum)>" behind it. */
int err_sys(struct error *err, enum status status, int errnum, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));

/* Puts "<prefix>: " before the message; what does not fit is cut at the end. */
int err_prefix(struct error *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Sets the hint, the sentence that says how to fix it. */
int err_hint(struct error *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

void err_clear(struct error *err);

#endif
