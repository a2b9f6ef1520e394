/* SPDX-License-Identifier: GPL-2.0-or-later */
/* How a system call looks in a thread's registers; private to catch-*.c. */
#ifndef MIGTOOL_CATCH_REGS_H
#define MIGTOOL_CATCH_REGS_H

#include <linux/audit.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/user.h>

struct catch_regs {
	struct user_regs_struct r;
};

#if defined(__x86_64__)

#define CATCH_ARCH		AUDIT_ARCH_X86_64
#define CATCH_INSTRUCTION	2 /* bytes of `syscall` */
#define CATCH_INSTRUCTION_ALIGN 1
static const uint8_t catch_instruction[CATCH_INSTRUCTION] = { 0x0f, 0x05 };

static inline uint64_t regs_pc(const struct catch_regs *c)
{
	return c->r.rip;
}

static inline uint64_t regs_sp(const struct catch_regs *c)
{
	return c->r.rsp;
}

static inline long regs_result(const struct catch_regs *c)
{
	return (long)c->r.rax;
}

static inline void regs_set_result(struct catch_regs *c, long v)
{
	c->r.rax = (unsigned long long)v;
}

static inline void regs_set_arg(struct catch_regs *c, unsigned n, uint64_t v)
{
	unsigned long long *at[] = {
		&c->r.rdi, &c->r.rsi, &c->r.rdx, &c->r.r10, &c->r.r8, &c->r.r9
	};

	*at[n] = v;
}

/* A number of x32: the same calls under others. -1 is none. */
static inline bool regs_foreign(long nr)
{
	return nr >= 0 && (nr & 0x40000000);
}

/* The instruction at `site` is to be run with these. */
static inline void regs_call(struct catch_regs *c, uint64_t site, long nr, const uint64_t args[6])
{
	c->r.rip = site;
	c->r.rax = (unsigned long long)nr;
	c->r.orig_rax = ~0ULL;
	c->r.eflags &= ~0x100ULL; /* no trap behind each instruction */
	for (unsigned i = 0; i < 6; i++)
		regs_set_arg(c, i, args[i]);
}

/*
 * Stopped inside a call that a stop interrupts, and that would not just be made again: it is, from
 * the registers alone, whatever is run in between, and at any stop.
 */
static inline void regs_restart(struct catch_regs *c)
{
	long nr = (long)c->r.orig_rax, result = (long)c->r.rax;

	/* 516: by a call that a strict filter may not know; EINTR but of ioctl, and of close, which
	 * has closed: epoll_wait, accept
	 */
	if (nr < 0 || (result != -516 && (result != -4 || nr == 16 || nr == 3)))
		return;
	c->r.rax = (unsigned long long)nr;
	c->r.rip -= CATCH_INSTRUCTION;
}

#elif defined(__aarch64__)

#define CATCH_ARCH		AUDIT_ARCH_AARCH64
#define CATCH_INSTRUCTION	4 /* bytes of `svc #0` */
#define CATCH_INSTRUCTION_ALIGN 4
static const uint8_t catch_instruction[CATCH_INSTRUCTION] = { 0x01, 0x00, 0x00, 0xd4 };

static inline uint64_t regs_pc(const struct catch_regs *c)
{
	return c->r.pc;
}

static inline uint64_t regs_sp(const struct catch_regs *c)
{
	return c->r.sp;
}

static inline long regs_result(const struct catch_regs *c)
{
	return (long)c->r.regs[0];
}

static inline void regs_set_result(struct catch_regs *c, long v)
{
	c->r.regs[0] = (unsigned long long)v;
}

static inline void regs_set_arg(struct catch_regs *c, unsigned n, uint64_t v)
{
	c->r.regs[n] = v;
}

static inline bool regs_foreign(long nr)
{
	(void)nr;
	return false;
}

static inline void regs_call(struct catch_regs *c, uint64_t site, long nr, const uint64_t args[6])
{
	c->r.pc = site;
	c->r.regs[8] = (unsigned long long)nr;
	for (unsigned i = 0; i < 6; i++)
		regs_set_arg(c, i, args[i]);
}

/*
 * The kernel has already taken the call back when it stops a thread inside it. One that says EINTR
 * cannot be made again: its first argument is gone.
 */
static inline void regs_restart(struct catch_regs *c)
{
	(void)c;
}

#else
#error "which registers hold a system call here?"
#endif

#endif
