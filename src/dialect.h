/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Who is at the other end and what of the stream that changes. One value, decided once, before the
 * first byte of the stream; everything that writes or parses asks it and nothing else.
 */
#ifndef MIGTOOL_DIALECT_H
#define MIGTOOL_DIALECT_H

#include "error.h"

struct dialect {
	bool migtool;	   /* greeted; our commands and return messages are understood */
	bool runs;	   /* RAM_RUN, RAM_ZERO_RUN */
	bool multifd2;	   /* multifd header version 2 */
	bool flush_word;   /* multifd's barrier is RAM_MULTIFD_FLUSH, not every EOS */
	bool preempt_late; /* postcopy-preempt's connection comes at the switch (8.0) */
};

/*
 * Towards a QEMU: from the versioned machine name ("pc-q35-8.1"), which decides how a newer QEMU
 * behaves, or from --peer qemu:VERSION where the name has none. ST_USAGE: neither tells.
 */
int dialect_for_qemu(struct dialect *d, const char *machine, const char *version,
		     struct error *err);

#endif
