// SPDX-License-Identifier: GPL-2.0-or-later
#include "catch-judge.h"

#include <linux/falloc.h>
#include <sys/mman.h>
#include <sys/syscall.h>

/* Calls that reach a file's pages past any mapping, and which argument is its descriptor. */
static const struct {
	long nr;
	unsigned arg;
	const char *name;
} readers[] = {
	{ SYS_read, 0, "read" },
	{ SYS_pread64, 0, "pread" },
	{ SYS_readv, 0, "readv" },
	{ SYS_preadv, 0, "preadv" },
	{ SYS_preadv2, 0, "preadv2" },
	{ SYS_sendfile, 1, "sendfile" },
	{ SYS_splice, 0, "splice" },
	{ SYS_copy_file_range, 0, "copy_file_range" },
	/* what they leave of a page is zero, and looks as if it had come */
	{ SYS_write, 0, "write" },
	{ SYS_pwrite64, 0, "pwrite" },
	{ SYS_writev, 0, "writev" },
	{ SYS_pwritev, 0, "pwritev" },
	{ SYS_pwritev2, 0, "pwritev2" },
	{ SYS_fallocate, 0, "fallocate" },
};

enum catch_verdict catch_judge(const struct catch_call *call, int *fd, const char **name)
{
	if (call->nr == SYS_mmap) {
		*fd = (int)call->args[4];
		*name = "mmap";
		return call->args[3] & MAP_ANONYMOUS ? CATCH_FINE : CATCH_MAPS;
	}
	if (call->nr == SYS_mlockall) {
		*name = "mlockall";
		return call->args[0] & MCL_FUTURE ? CATCH_LOCKS : CATCH_FINE;
	}
	if (call->nr == SYS_fallocate && (call->args[1] & FALLOC_FL_PUNCH_HOLE))
		return CATCH_FINE; /* it drops pages, as a balloon does */
	for (size_t i = 0; i < sizeof(readers) / sizeof(readers[0]); i++)
		if (readers[i].nr == call->nr) {
			*fd = (int)call->args[readers[i].arg];
			*name = readers[i].name;
			return CATCH_READS;
		}
	return CATCH_FINE;
}
