/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef MIGTOOL_ZERO_H
#define MIGTOOL_ZERO_H

#include <stdbool.h>
#include <stddef.h>

/*
 * Is all of it zero? len: any; fast for a multiple of 512 bytes. Pages that are not zero mostly
 * show it in the first, a middle or the last word, so these are looked at first.
 */
bool zero_is(const void *buf, size_t len);

#endif
