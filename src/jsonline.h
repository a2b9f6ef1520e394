/* SPDX-License-Identifier: GPL-2.0-or-later */
/* JSON for scripts: one object, one line, one write. */
#ifndef MIGTOOL_JSONLINE_H
#define MIGTOOL_JSONLINE_H

#include "error.h"

#include <jansson.h>

/*
 * Seeds the hash tables against a peer that chooses keys: takes /dev/urandom, which the sandbox
 * does not have.
 */
void jsonline_seed(void);

/*
 * A string that need not be UTF-8 (a file name, a message that quotes one): bytes that are none
 * become \xNN. NULL: out of memory.
 */
json_t *jsonline_string(const char *s);

/*
 * Writes the object and a newline to `fd`, whole, and lets go of it. NULL stands for an object that
 * could not be made: ST_NOMEM. ST_FILE when it cannot be written; a partial line is possible then.
 */
int jsonline_write(int fd, json_t *object, struct error *err);

#endif
