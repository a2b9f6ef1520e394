/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Base64 (RFC 4648, the alphabet with + and /), as SSH's key files use it. */
#ifndef MIGTOOL_BASE64_H
#define MIGTOOL_BASE64_H

#include <stdbool.h>
#include <stddef.h>

#define BASE64_SIZE(len) (((len) + 2) / 3 * 4 + 1) /* of the text, with its NUL */

/* Encodes into `out`, which has BASE64_SIZE(len) bytes. `pad`: with = at the end. Returns out. */
char *base64_encode(char *out, const void *in, size_t len, bool pad);

/*
 * Decodes `len` characters, line ends among them ignored, padding required. Returns how many bytes,
 * at most `max`, were written to out; -1: no base64, or more than max.
 */
long base64_decode(void *out, size_t max, const char *in, size_t len);

#endif
