/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Text for people, broken into lines of at most 80 columns. */
#ifndef MIGTOOL_TEXT_H
#define MIGTOOL_TEXT_H

#include <stdio.h>

#define TEXT_WIDTH 80

/*
 * Prints `text` where the cursor is, at column `at`, and a newline. A word that does not fit falls
 * to a new line of `indent` spaces; one that fits nowhere is printed whole.
 */
void text_wrap(FILE *out, unsigned at, unsigned indent, const char *text);

/*
 * Prints `left` (indented by `margin`), pads to column `indent` and wraps `right` there; a `left`
 * that is too long gets a line of its own.
 */
void text_row(FILE *out, unsigned margin, unsigned indent, const char *left, const char *right);

#endif
