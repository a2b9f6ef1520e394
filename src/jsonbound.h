/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How much a JSON text asks of whoever parses it. A value in memory is up to a hundred times as
 * large as in the text ("{}," becomes a hash table), so a peer's text is looked at before it is
 * parsed.
 */
#ifndef MIGTOOL_JSONBOUND_H
#define MIGTOOL_JSONBOUND_H

#include <stdbool.h>
#include <stddef.h>

/*
 * Has the text at most `values` values (keys are counted, too) and `depth` levels? Of a text that
 * is no JSON this may be true or false; that is the parser's to say.
 */
bool json_within(const char *text, size_t len, unsigned values, unsigned depth);

#endif
