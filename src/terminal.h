/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Asking the person at the terminal, where there is one: /dev/tty, whatever stdin is. */
#ifndef MIGTOOL_TERMINAL_H
#define MIGTOOL_TERMINAL_H

#include "cancel.h"

/*
 * Prints the prompt (control characters are escaped) and reads a line, without its end, into buf;
 * what is too long is cut. `echo`: what is typed can be seen. 0, or -1: ST_UNSUPPORTED without a
 * terminal, or the cancel's reason; the terminal is as it was before.
 */
int terminal_ask(const char *prompt, bool echo, char *buf, size_t size, struct cancel *cancel,
		 struct error *err);

#endif
