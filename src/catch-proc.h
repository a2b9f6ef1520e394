/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What /proc says about processes and the image's files; private to catch-*.c. */
#ifndef MIGTOOL_CATCH_PROC_H
#define MIGTOOL_CATCH_PROC_H

#include "catch.h"

#include <sys/types.h>

/* The image's files, known by device and inode: their names may be gone. */
struct catch_file {
	dev_t dev;
	ino_t ino;
	uint64_t size;
	uint32_t page;
};

struct catch_files {
	struct catch_file v[CATCH_BLOCKS_MAX];
	unsigned n;
};

/* Which of the files a thread's descriptor is, -1: none. */
int catch_proc_file(pid_t tid, int fd, const struct catch_files *files);

/* A number of /proc/TID/status, as "TracerPid" has one; -1: it has ended. */
long catch_proc_status(pid_t tid, const char *key);

/* Is there a signal that the thread has yet to take, and of which something comes? */
bool catch_proc_signalled(pid_t tid);

/* Would nothing come of the signal if the thread were not traced? */
bool catch_proc_ignores(pid_t tid, int sig);

/* The process that a thread is of; -1: it has ended. */
pid_t catch_proc_process(pid_t tid);

/* A mapping of one of the files. */
struct catch_mapping {
	uint64_t address, len, offset;
	unsigned block;
	bool shared;
};

/* Calls `each` for every one of the process, until it returns -1. -1: that, or errno. */
int catch_proc_mappings(pid_t pid, const struct catch_files *files,
			int (*each)(void *arg, const struct catch_mapping *m), void *arg);

/* Where the process's vdso lies. -1: it has none. */
int catch_proc_vdso(pid_t pid, uint64_t *start, uint64_t *end);

/* The part of a mapping that has pages of its block, by whole pages; len 0: none. */
struct catch_region catch_clip(const struct catch_files *files, const struct catch_mapping *m);

/* A process's name, for messages. */
void catch_proc_name(pid_t pid, char name[32]);

/*
 * Is there a process that maps one of the files, but those that `ours` knows? Its pid, 0: none.
 * Processes that we may not look into cannot open our files either.
 */
pid_t catch_proc_mapper(const struct catch_files *files, bool (*ours)(void *arg, pid_t pid),
			void *arg);

#endif
