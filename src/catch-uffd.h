/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A userfaultfd inside a guest's process, made by one of its threads; private to catch-*.c. */
#ifndef MIGTOOL_CATCH_UFFD_H
#define MIGTOOL_CATCH_UFFD_H

#include "catch-ptrace.h"
#include "error.h"

struct catch_uffd {
	int fd;	    /* ours */
	int number; /* its own, which stays open there */
	bool forks; /* a forked child is served; else it must not get the memory */
};

/*
 * Makes one: non-blocking, close-on-exec, events of forks, moves and drops switched on. `name`: of
 * whom, for messages. -1: ST_UNSUPPORTED with the one thing to change, ST_COMMAND (it has ended).
 */
int catch_uffd_make(struct catch_visit *v, pid_t pid, const char *name, struct catch_uffd *out,
		    struct error *err);

/* Why a visit could not begin or go on. Returns -1. */
int catch_visit_failed(int why, const char *name, struct error *err);

/* Registers a range for missing pages. ST_UNSUPPORTED. */
int catch_uffd_register(const struct catch_uffd *u, uint64_t start, uint64_t len, const char *name,
			struct error *err);

#endif
