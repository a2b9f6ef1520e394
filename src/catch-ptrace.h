/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * ptrace, and a system call made by somebody else's thread; private to catch-*.c. Each returns 0 or
 * -1 with errno; ESRCH: the thread has ended meanwhile.
 */
#ifndef MIGTOOL_CATCH_PTRACE_H
#define MIGTOOL_CATCH_PTRACE_H

#include "catch-regs.h"

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* At a stop: which system call, if it is in one. */
struct catch_call {
	enum { CALL_NONE, CALL_ENTRY, CALL_EXIT } at;
	bool foreign; /* of another architecture (32 bits) */
	long nr;      /* ENTRY */
	uint64_t args[6];
	long result; /* EXIT */
};

int catch_ptrace_seize(pid_t tid);	 /* with everything that it starts from then on */
int catch_ptrace_go(pid_t tid, int sig); /* to its next entry, exit, or other stop */
int catch_ptrace_listen(pid_t tid);	 /* it stays stopped, as a SIGSTOP wants it */
int catch_ptrace_interrupt(pid_t tid);
int catch_ptrace_detach(pid_t tid, int sig);
int catch_ptrace_call(pid_t tid, struct catch_call *out);
int catch_ptrace_message(pid_t tid, unsigned long *out);
int catch_ptrace_get(pid_t tid, struct catch_regs *out);
int catch_ptrace_set(pid_t tid, const struct catch_regs *in);

/*
 * A stop that the thread has not asked for has brought it out of its call: that is made again, as
 * if nothing had been; unless a signal waits, whose handler the thread expects to notice.
 */
int catch_ptrace_restart(pid_t tid);

/*
 * Calls made by a stopped thread, which is where it was afterwards, as if nothing had been. begin:
 * it is at a system call's exit, and its own instruction is used. begin_anywhere: it may be at any
 * stop, the instruction is one of its vdso. EACCES: it has a filter of system calls that cannot be
 * suspended; ENOEXEC: no instruction was found.
 */
struct catch_visit {
	pid_t tid;
	bool steps;
	struct catch_regs saved;
	uint64_t site;
	uint64_t mask;
};

int catch_visit_begin(struct catch_visit *v, pid_t tid);
int catch_visit_begin_anywhere(struct catch_visit *v, pid_t tid);
/* -1 with errno: it could not be made. Else *result is what the kernel answered. */
int catch_visit_call(struct catch_visit *v, long nr, const uint64_t args[6], long *result);
/* The registers that it goes on with are v->saved. */
int catch_visit_end(struct catch_visit *v);

/* Where its vdso has a system call's instruction; 0: nowhere. */
uint64_t catch_find_instruction(pid_t tid, uint64_t start, uint64_t end);

/* Bytes of its memory. */
int catch_peek(pid_t tid, uint64_t from, void *to, size_t len);
int catch_poke(pid_t tid, uint64_t to, const void *from, size_t len);

#endif
