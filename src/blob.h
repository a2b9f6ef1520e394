/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Where a QEMU's device state ends. Its sections carry no length, so only two things tell: the
 * source closes (no return path), or the last bytes are EOF and the machine's description, a JSON
 * object whose length stands before it. qemu-wire 1.6.
 */
#ifndef MIGTOOL_BLOB_H
#define MIGTOOL_BLOB_H

#include "error.h"

#include <stdint.h>

struct blob;

struct blob *blob_new(struct error *err);
void blob_free(struct blob *b);

/* Looks at the next bytes. ST_DATA: more than BLOB_MAX of device state, ST_NOMEM. */
int blob_feed(struct blob *b, const void *buf, size_t len, struct error *err);

/* Are the bytes fed so far a device state that has ended with a description? */
bool blob_complete(const struct blob *b);

/* Do they end with a section's footer and EOF (a machine that suppresses the description)? */
bool blob_ends_with_eof(const struct blob *b);

/* The guest's run state out of the globalstate section, "" if there is none. */
void blob_run_state(const struct blob *b, char out[104]);

const void *blob_data(const struct blob *b, size_t *len);

#define BLOB_MAX (256u << 20)

#endif
