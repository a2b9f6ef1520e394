// SPDX-License-Identifier: GPL-2.0-or-later
#include "catch-judge.h"

#include <linux/falloc.h>
#include <sys/mman.h>
#include <sys/syscall.h>

/* Calls that reach a file's pages past any mapping, and which argument is its descriptor: each at
 * most twice. */
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
	{ SYS_sendfile, 0, "sendfile" },
	{ SYS_splice, 2, "splice" },
	{ SYS_copy_file_range, 2, "copy_file_range" },
};

static struct catch_judged judge_descriptors(const struct catch_call *call)
{
	struct catch_judged j = { .verdict = CATCH_FINE };

	for (size_t i = 0; i < sizeof(readers) / sizeof(readers[0]); i++) {
		if (readers[i].nr != call->nr)
			continue;
		j.verdict = CATCH_READS;
		j.name = readers[i].name;
		j.fds[j.nfds++] = readers[i].arg;
	}
	return j;
}

struct catch_judged catch_judge(const struct catch_call *call)
{
	static const struct catch_judged fine = { .verdict = CATCH_FINE };

	switch (call->nr) {
	case SYS_mmap:
		if (call->args[3] & MAP_ANONYMOUS)
			return fine;
		return (struct catch_judged){
			.verdict = CATCH_MAPS, .name = "mmap", .fds = { 4 }, .nfds = 1
		};
	case SYS_remap_file_pages: /* its length */
		return (struct catch_judged){ .verdict = CATCH_REMAPS,
					      .name = "remap_file_pages",
					      .spoil = 1 };
	case SYS_io_submit: /* its context */
		return (struct catch_judged){ .verdict = CATCH_SUBMITS, .name = "io_submit" };
	case SYS_mlockall:
		if (!(call->args[0] & MCL_FUTURE))
			return fine;
		return (struct catch_judged){ .verdict = CATCH_LOCKS, .name = "mlockall" };
	case SYS_fallocate:
		if (call->args[1] & FALLOC_FL_PUNCH_HOLE)
			return fine; /* it drops pages, as a balloon does */
		break;
	default:
		break;
	}
	return judge_descriptors(call);
}
