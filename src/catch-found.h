/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A process that waits for pages already: what was left there by who has served it. Takes the
 * rights of a debugger.
 */
#ifndef MIGTOOL_CATCH_FOUND_H
#define MIGTOOL_CATCH_FOUND_H

#include "error.h"

#include <dirent.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* Where faults of missing pages wait for somebody, ascending; what touches is one. */
struct catch_armed {
	struct {
		uint64_t from, to;
	} * v;
	unsigned n;
};

/* -1 with errno: ENOENT, it has ended; EACCES. catch_armed_free() in any case. */
int catch_armed_read(pid_t pid, struct catch_armed *out);
/* The first part of a range that is armed: 1, or 0: none is. */
int catch_armed_part(const struct catch_armed *a, uint64_t address, uint64_t len, uint64_t *from,
		     uint64_t *n);
void catch_armed_free(struct catch_armed *a);

/* What a process has open (closedir); NULL with errno. */
DIR *catch_found_fds(pid_t pid);

/*
 * The process's userfaultfd, the one with which that range is registered: a descriptor for us.
 * *pidfd: readable when the process has ended; the caller's. `name`: of whom, for messages.
 * ST_COMMAND (it has ended), ST_UNSUPPORTED with the one thing to change.
 */
int catch_found_uffd(pid_t pid, uint64_t address, uint64_t len, const char *name, int *pidfd,
		     struct error *err);

/*
 * A process that needs nobody any more may still have threads that wait until somebody has read
 * what its one userfaultfd tells of (a dropped range): that is read. With more than one, nothing is
 * done, for another may be somebody else's.
 */
void catch_found_drain(pid_t pid);

#endif
