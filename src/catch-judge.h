/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a system call would do to an image whose pages are missing; private to catch-*.c. */
#ifndef MIGTOOL_CATCH_JUDGE_H
#define MIGTOOL_CATCH_JUDGE_H

#include "catch-ptrace.h"

enum catch_verdict {
	CATCH_FINE,
	CATCH_MAPS,  /* it maps the descriptor `fd`: mmap */
	CATCH_READS, /* it would see zeros, or write beside them, through the descriptor `fd` */
	CATCH_LOCKS, /* what is mapped from now on would be filled at once: mlockall */
};

/* By the number and arguments alone; whether `fd` is the image's is for the caller to see. */
enum catch_verdict catch_judge(const struct catch_call *call, int *fd, const char **name);

#endif
