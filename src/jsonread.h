/* SPDX-License-Identifier: GPL-2.0-or-later */
/* JSON of others, parsed: what is read is what was written, or nothing. */
#ifndef MIGTOOL_JSONREAD_H
#define MIGTOOL_JSONREAD_H

#include <jansson.h>
#include <stddef.h>

/*
 * The text's value, which the caller lets go of; an object in which a key stands twice is refused.
 * NULL: errno is ENOMEM where memory was short; else it is not, and *why says what is wrong with
 * the text.
 */
json_t *json_read(const char *text, size_t len, json_error_t *why);

#endif
