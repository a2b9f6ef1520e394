/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a system call would do to an image whose pages are missing; private to catch-*.c. */
#ifndef MIGTOOL_CATCH_JUDGE_H
#define MIGTOOL_CATCH_JUDGE_H

#include "catch-ptrace.h"

enum catch_verdict {
	CATCH_FINE,
	CATCH_MAPS,    /* it maps the descriptor: mmap */
	CATCH_READS,   /* it would see zeros, or write beside them, through the descriptors */
	CATCH_SUBMITS, /* the same, through descriptors in its memory: io_submit */
	CATCH_REMAPS,  /* it maps pages that nobody sees: remap_file_pages */
	CATCH_LOCKS,   /* what is mapped from now on would be filled at once: mlockall */
};

/* By the number and arguments alone. */
struct catch_judged {
	enum catch_verdict verdict;
	const char *name;
	/* MAPS, READS: arguments that are descriptors; whether of the image, the caller sees */
	unsigned fds[2], nfds;
	unsigned spoil; /* LOCKS, REMAPS, SUBMITS: with -1 in that argument the kernel refuses the
			   call */
};

struct catch_judged catch_judge(const struct catch_call *call);

#endif
