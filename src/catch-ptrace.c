// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A call in a foreign thread. It is made where the thread has just come out of a system call: the
 * instruction behind it stands right before its program counter, so nothing is written into its
 * code. All its signals are held meanwhile. It stops at the entry and at the exit of what we let it
 * do, as at those of its own calls, and gets its registers back.
 *
 * Whoever is killed in the middle leaves a thread with strange registers, which destroys the guest.
 * So this is done by a process of its own that nobody has a reason to kill.
 */
#include "catch-ptrace.h"

#include "catch-proc.h"

#include <elf.h>
#include <errno.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/wait.h>

#ifndef PTRACE_O_SUSPEND_SECCOMP
#define PTRACE_O_SUSPEND_SECCOMP (1 << 21)
#endif

#define OPTIONS                                                                                   \
	(PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | PTRACE_O_TRACECLONE | \
	 PTRACE_O_TRACEEXEC)

/* glibc's prototype wants one of its own enum; the newer requests are not in it. */
static long request(int what, pid_t tid, unsigned long addr, const void *data)
{
	return ptrace((enum __ptrace_request)what, tid, (void *)addr, (void *)data);
}

static int simple(int what, pid_t tid, unsigned long data)
{
	return request(what, tid, 0, (void *)data) < 0 ? -1 : 0;
}

int catch_ptrace_seize(pid_t tid)
{
	return simple(PTRACE_SEIZE, tid, OPTIONS);
}

int catch_ptrace_go(pid_t tid, int sig)
{
	return simple(PTRACE_SYSCALL, tid, (unsigned long)sig);
}

int catch_ptrace_listen(pid_t tid)
{
	return simple(PTRACE_LISTEN, tid, 0);
}

int catch_ptrace_interrupt(pid_t tid)
{
	return simple(PTRACE_INTERRUPT, tid, 0);
}

int catch_ptrace_detach(pid_t tid, int sig)
{
	return simple(PTRACE_DETACH, tid, (unsigned long)sig);
}

int catch_ptrace_message(pid_t tid, unsigned long *out)
{
	return request(PTRACE_GETEVENTMSG, tid, 0, out) < 0 ? -1 : 0;
}

int catch_ptrace_call(pid_t tid, struct catch_call *out)
{
	struct __ptrace_syscall_info info;

	memset(out, 0, sizeof(*out));
	if (request(PTRACE_GET_SYSCALL_INFO, tid, sizeof(info), &info) <= 0)
		return -1;
	out->foreign = info.arch != CATCH_ARCH;
	if (info.op == PTRACE_SYSCALL_INFO_ENTRY) {
		out->at = CALL_ENTRY;
		out->nr = (long)info.entry.nr;
		memcpy(out->args, info.entry.args, sizeof(out->args));
	} else if (info.op == PTRACE_SYSCALL_INFO_EXIT) {
		out->at = CALL_EXIT;
		out->result = (long)info.exit.rval;
	}
	return 0;
}

static int regset(int what, pid_t tid, void *regs, size_t len, unsigned long kind)
{
	struct iovec iov = { regs, len };

	return request(what, tid, kind, &iov) < 0 ? -1 : 0;
}

int catch_ptrace_get(pid_t tid, struct catch_regs *out)
{
	return regset(PTRACE_GETREGSET, tid, &out->r, sizeof(out->r), NT_PRSTATUS);
}

int catch_ptrace_set(pid_t tid, const struct catch_regs *in)
{
	return regset(PTRACE_SETREGSET, tid, (void *)&in->r, sizeof(in->r), NT_PRSTATUS);
}

int catch_ptrace_restart(pid_t tid)
{
	struct catch_regs regs;

	if (catch_ptrace_get(tid, &regs))
		return -1;
	if (regs_result(&regs) >= 0 || catch_proc_signalled(tid))
		return 0;
	/* the kernel goes on with it, and knows how long it has waited; but by another number */
	if (regs_result(&regs) == -516 && catch_proc_status(tid, "Seccomp") <= 0)
		return 0;
	regs_restart(&regs);
	return catch_ptrace_set(tid, &regs);
}

/* ---- memory ---- */

int catch_peek(pid_t tid, uint64_t from, void *to, size_t len)
{
	struct iovec local = { to, len }, remote = { (void *)from, len };

	if (process_vm_readv(tid, &local, 1, &remote, 1, 0) == (ssize_t)len)
		return 0;
	errno = errno ? errno : EFAULT;
	return -1;
}

int catch_poke(pid_t tid, uint64_t to, const void *from, size_t len)
{
	struct iovec local = { (void *)from, len }, remote = { (void *)to, len };

	if (process_vm_writev(tid, &local, 1, &remote, 1, 0) == (ssize_t)len)
		return 0;
	errno = errno ? errno : EFAULT;
	return -1;
}

/* ---- a call in a foreign thread ---- */

/* Without it a filter that the guest has set up could refuse the calls, or kill it for them. */
static int suspend_filter(pid_t tid)
{
	if (!simple(PTRACE_SETOPTIONS, tid, OPTIONS | (unsigned long)PTRACE_O_SUSPEND_SECCOMP) ||
	    catch_proc_status(tid, "Seccomp") <= 0)
		return 0;
	errno = EACCES;
	return -1;
}

/* Signals stay away until the end. A step's own cannot be held without losing its handler. */
static int hold_signals(struct catch_visit *v)
{
	uint64_t held = v->steps ? ~(UINT64_C(1) << (SIGTRAP - 1)) : ~UINT64_C(0);

	if (request(PTRACE_GETSIGMASK, v->tid, sizeof(v->mask), &v->mask) < 0 ||
	    request(PTRACE_SETSIGMASK, v->tid, sizeof(held), &held) < 0)
		return -1;
	return 0;
}

int catch_visit_begin(struct catch_visit *v, pid_t tid)
{
	uint8_t code[CATCH_INSTRUCTION];

	v->tid = tid;
	v->steps = false;
	if (catch_ptrace_get(tid, &v->saved) || suspend_filter(tid))
		return -1;
	v->site = regs_pc(&v->saved) - CATCH_INSTRUCTION;
	if (catch_peek(tid, v->site, code, sizeof(code)))
		return -1;
	if (memcmp(code, catch_instruction, sizeof(code)) != 0) {
		errno = ENOEXEC;
		return -1;
	}
	return hold_signals(v);
}

uint64_t catch_find_instruction(pid_t tid, uint64_t start, uint64_t end)
{
	uint8_t code[4096];

	for (uint64_t at = start; at + sizeof(code) <= end; at += sizeof(code)) {
		if (catch_peek(tid, at, code, sizeof(code)))
			return 0;
		for (size_t i = 0; i + CATCH_INSTRUCTION <= sizeof(code);
		     i += CATCH_INSTRUCTION_ALIGN)
			if (!memcmp(code + i, catch_instruction, CATCH_INSTRUCTION))
				return at + i;
	}
	return 0;
}

int catch_visit_begin_anywhere(struct catch_visit *v, pid_t tid)
{
	uint64_t start, end;

	v->tid = tid;
	v->steps = true;
	if (catch_ptrace_get(tid, &v->saved) || suspend_filter(tid))
		return -1;
	regs_restart(&v->saved);
	v->site = catch_proc_vdso(tid, &start, &end) ? 0 : catch_find_instruction(tid, start, end);
	if (!v->site) {
		errno = ENOEXEC;
		return -1;
	}
	return hold_signals(v);
}

/* Its next stop. An end is left for the main loop to find. */
static int next_stop(pid_t tid, int *status)
{
	siginfo_t si;

	while (waitid(P_PID, (id_t)tid, &si, WSTOPPED | WEXITED | WNOWAIT | __WALL))
		if (errno != EINTR)
			return -1;
	if (si.si_code == CLD_TRAPPED || si.si_code == CLD_STOPPED)
		return waitpid(tid, status, __WALL) == tid ? 0 : -1;
	errno = ESRCH;
	return -1;
}

/* Lets it run to the next stop at a system call. Signals that cannot be held pass through. */
static int run_to(pid_t tid, int at, struct catch_call *call)
{
	int sig = 0, status;

	for (;;) {
		if (catch_ptrace_go(tid, sig) || next_stop(tid, &status))
			return -1;
		sig = 0;
		if (WSTOPSIG(status) == (SIGTRAP | 0x80)) {
			if (catch_ptrace_call(tid, call))
				return -1;
			if ((int)call->at == at)
				return 0;
		} else if (!(status >> 16)) {
			sig = WSTOPSIG(status);
		}
	}
}

/* One instruction. What else stops it is no step. */
static int step(struct catch_visit *v, struct catch_regs *regs)
{
	int status = 0;

	do {
		if (simple(PTRACE_SINGLESTEP, v->tid, 0) || next_stop(v->tid, &status))
			return -1;
	} while (WSTOPSIG(status) != SIGTRAP || status >> 16);
	if (catch_ptrace_get(v->tid, regs))
		return -1;
	if (regs_pc(regs) == v->site + CATCH_INSTRUCTION)
		return 0;
	errno = EFAULT;
	return -1;
}

int catch_visit_call(struct catch_visit *v, long nr, const uint64_t args[6], long *result)
{
	struct catch_regs regs = v->saved;
	struct catch_call call;

	regs_call(&regs, v->site, nr, args);
	if (v->steps) {
		if (catch_ptrace_set(v->tid, &regs) || step(v, &regs))
			return -1;
		*result = regs_result(&regs);
		return 0;
	}
	if (catch_ptrace_set(v->tid, &regs) || run_to(v->tid, CALL_ENTRY, &call) ||
	    run_to(v->tid, CALL_EXIT, &call))
		return -1;
	*result = call.result;
	return 0;
}

int catch_visit_end(struct catch_visit *v)
{
	simple(PTRACE_SETOPTIONS, v->tid, OPTIONS);
	if (request(PTRACE_SETSIGMASK, v->tid, sizeof(v->mask), &v->mask) < 0)
		return -1;
	return catch_ptrace_set(v->tid, &v->saved);
}
