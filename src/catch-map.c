// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A mapping of the image is made harmless at its entry: nothing is filled at once, and nothing in
 * it may be touched (PROT_NONE), because another thread could do that before the registration.
 * Behind the call the thread itself makes a userfaultfd, if its process has none; the range is
 * registered, gets the protection that was asked for, and the thread goes on once somebody serves
 * it.
 *
 * A call that goes past the mapping is worse than a fault: it sees zeros, and may leave them.
 * COMMAND is ended for it as long as no guest runs; later that one call fails.
 */
#include "catch-watch.h"

#include "catch-judge.h"

#include <errno.h>
#include <linux/aio_abi.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

static void name_of(pid_t pid, char out[64])
{
	char comm[32];

	catch_proc_name(pid, comm);
	snprintf(out, 64, "%s (process %ld)", comm, (long)pid);
}

/*
 * The kernel refuses the call for the argument. True: the thread goes on, and the call fails. It
 * keeps its number: a filter of the guest's would end it for another.
 */
static bool deny(struct catch_watch *w, struct catch_thread *t, const struct catch_call *c,
		 unsigned argument, const struct error *why)
{
	struct catch_regs regs;

	if (!w->runs_guest || catch_ptrace_get(t->tid, &regs)) {
		catch_fail(w, why);
		return false;
	}
	regs_set_arg(&regs, argument, UINT64_MAX);
	if (catch_ptrace_set(t->tid, &regs)) {
		catch_fail(w, why);
		return false;
	}
	t->skips = true;
	t->spoilt = argument;
	t->was = c->args[argument];
	catch_warn(w, why);
	return true;
}

static bool deny_read(struct catch_watch *w, struct catch_thread *t, const struct catch_call *c,
		      const char *call, unsigned argument)
{
	struct error why = { 0 };
	char name[64];

	name_of(t->pid, name);
	err_set(&why, ST_UNSUPPORTED,
		"%s calls %s on IMAGE, whose pages have not come: it would get zeros", name, call);
	err_hint(&why, "in postcopy IMAGE can be mapped, and nothing else; let COMMAND map it");
	return deny(w, t, c, argument, &why);
}

static bool deny_lock(struct catch_watch *w, struct catch_thread *t, const struct catch_call *c)
{
	struct error why = { 0 };
	char name[64];

	name_of(t->pid, name);
	err_set(&why, ST_UNSUPPORTED,
		"%s calls mlockall(MCL_FUTURE): IMAGE would be filled with zeros when it is mapped",
		name);
	err_hint(&why, "let COMMAND lock its memory after it has mapped IMAGE, or not at all");
	return deny(w, t, c, 0, &why);
}

/* Is one of the requests of the image? Where their memory ends the kernel ends, too. */
static bool submits_image(const struct catch_watch *w, const struct catch_thread *t,
			  const struct catch_call *c)
{
	for (uint64_t i = 0; i < c->args[1]; i++) {
		struct iocb cb;
		uint64_t at;

		if (catch_peek(t->tid, c->args[2] + i * sizeof(at), &at, sizeof(at)) ||
		    catch_peek(t->tid, at, &cb, sizeof(cb)))
			return false;
		if (catch_proc_file(t->tid, (int)cb.aio_fildes, &w->files) >= 0)
			return true;
	}
	return false;
}

static bool is_guest(const struct catch_watch *w, pid_t pid)
{
	for (unsigned i = 0; i < w->nguests; i++)
		if (w->guests[i].pid == pid)
			return true;
	return false;
}

/* ---- entry ---- */

static bool enter_map(struct catch_thread *t, const struct catch_call *c, int block)
{
	struct catch_regs regs;

	if (catch_ptrace_get(t->tid, &regs))
		return true; /* it has ended */
	t->maps = true;
	t->map.len = c->args[1];
	t->map.prot = c->args[2];
	t->map.flags = c->args[3];
	t->map.offset = c->args[5];
	t->map.block = (unsigned)block;
	regs_set_arg(&regs, 2, PROT_NONE);
	regs_set_arg(&regs, 3, c->args[3] & ~(uint64_t)(MAP_POPULATE | MAP_LOCKED));
	if (!catch_ptrace_set(t->tid, &regs))
		return true;
	t->maps = false;
	return errno == ESRCH;
}

bool catch_entry(struct catch_watch *w, struct catch_thread *t, const struct catch_call *call)
{
	struct catch_judged j = catch_judge(call);
	int block;

	switch (j.verdict) {
	case CATCH_FINE:
		return true;
	case CATCH_LOCKS:
		return is_guest(w, t->pid) || deny_lock(w, t, call);
	case CATCH_SUBMITS:
		return !submits_image(w, t, call) || deny_read(w, t, call, j.name, j.spoil);
	case CATCH_REMAPS:
		return deny_read(w, t, call, j.name, j.spoil);
	case CATCH_READS:
		for (unsigned i = 0; i < j.nfds; i++)
			if (catch_proc_file(t->tid, (int)call->args[j.fds[i]], &w->files) >= 0)
				return deny_read(w, t, call, j.name, j.fds[i]);
		return true;
	case CATCH_MAPS:
		block = catch_proc_file(t->tid, (int)call->args[j.fds[0]], &w->files);
		return block < 0 || enter_map(t, call, block);
	}
	return true;
}

/* ---- exit ---- */

static void report_space(struct catch_watch *w, const struct catch_guest *g)
{
	struct catch_report r = { .kind = CATCH_SPACE, .pid = g->pid };

	catch_report(w, &r, g->uffd.fd);
}

static struct catch_guest *guest_of(struct catch_watch *w, struct catch_visit *v, pid_t pid,
				    const char *name, struct error *err)
{
	struct catch_guest *g;

	for (unsigned i = 0; i < w->nguests; i++)
		if (w->guests[i].pid == pid)
			return &w->guests[i];
	if (w->nguests == CATCH_GUESTS_MAX) {
		err_set(err, ST_UNSUPPORTED, "more than %d processes map IMAGE", CATCH_GUESTS_MAX);
		return NULL;
	}
	g = &w->guests[w->nguests];
	if (catch_uffd_make(v, pid, name, &g->uffd, err))
		return NULL;
	g->pid = pid;
	g->agreed = false;
	w->nguests++;
	report_space(w, g);
	return g;
}

static int call3(struct catch_visit *v, long nr, uint64_t a, uint64_t b, uint64_t c,
		 const char *what, struct error *err)
{
	uint64_t args[6] = { a, b, c };
	long result;

	if (catch_visit_call(v, nr, args, &result))
		return err_sys(err, ST_COMMAND, errno,
			       "COMMAND ended while its mapping was caught");
	if (result < 0)
		return err_sys(err, ST_UNSUPPORTED, (int)-result,
			       "cannot catch COMMAND's mapping of IMAGE: %s fails there", what);
	return 0;
}

static struct catch_region region_of(const struct catch_watch *w, const struct catch_thread *t,
				     uint64_t address)
{
	uint64_t type = t->map.flags & MAP_TYPE;
	struct catch_mapping m = { .address = address,
				   .len = t->map.len,
				   .offset = t->map.offset,
				   .block = t->map.block,
				   .shared = type == MAP_SHARED || type == MAP_SHARED_VALIDATE };

	return catch_clip(&w->files, &m);
}

/* Behind it faults in the region wait for whoever serves them. */
static int arm(struct catch_watch *w, struct catch_thread *t, struct catch_visit *v,
	       const struct catch_region *r, const char *name, struct error *err)
{
	struct catch_guest *g = guest_of(w, v, t->pid, name, err);

	if (!g || catch_uffd_register(&g->uffd, r->address, r->len, name, err))
		return -1;
	if (g->uffd.forks)
		return 0;
	return call3(v, SYS_madvise, r->address, r->len, MADV_DONTFORK, "madvise(MADV_DONTFORK)",
		     err);
}

/* A mapping that cannot be served must not stay. True: the thread goes on without it. */
static bool give_up(struct catch_watch *w, struct catch_thread *t, struct catch_visit *v,
		    uint64_t address, const struct error *why)
{
	struct error ignored;

	if (!w->runs_guest) {
		catch_fail(w, why);
		return false;
	}
	if (call3(v, SYS_munmap, address, t->map.len, 0, "munmap", &ignored))
		return false;
	regs_set_result(&v->saved, -EACCES);
	catch_warn(w, why);
	return !catch_visit_end(v);
}

static bool leave_map(struct catch_watch *w, struct catch_thread *t, uint64_t address)
{
	struct catch_region r = region_of(w, t, address);
	struct catch_report report = {
		.kind = CATCH_REGION, .pid = t->pid, .token = (uint32_t)t->tid, .region = r
	};
	struct catch_visit v;
	struct error err = { 0 };
	char name[64];
	int rc;

	name_of(t->pid, name);
	if (catch_visit_begin(&v, t->tid)) {
		if (errno == ESRCH)
			return true;
		catch_visit_failed(errno, name, &err);
		catch_fail(w, &err);
		return false;
	}
	regs_set_arg(&v.saved, 2, t->map.prot);
	regs_set_arg(&v.saved, 3, t->map.flags);
	rc = r.len && !w->releases ? arm(w, t, &v, &r, name, &err) : 0;
	if (!rc)
		rc = call3(&v, SYS_mprotect, address, t->map.len, t->map.prot, "mprotect", &err);
	if (rc)
		return give_up(w, t, &v, address, &err);
	if (catch_visit_end(&v) || !r.len || w->releases)
		return true;
	w->runs_guest = true;
	t->waits = true;
	t->at = address;
	catch_report(w, &report, -1);
	return false;
}

struct catch_region catch_waiting(const struct catch_watch *w, const struct catch_thread *t)
{
	return region_of(w, t, t->at);
}

/* The thread's own view of its arguments, which a call leaves as they were. */
static void restore_arguments(const struct catch_thread *t)
{
	struct catch_regs regs;

	if (catch_ptrace_get(t->tid, &regs))
		return;
	regs_set_arg(&regs, 2, t->map.prot);
	regs_set_arg(&regs, 3, t->map.flags);
	catch_ptrace_set(t->tid, &regs);
}

bool catch_exit(struct catch_watch *w, struct catch_thread *t, const struct catch_call *call)
{
	struct catch_regs regs;

	if (t->skips && !catch_ptrace_get(t->tid, &regs)) {
		regs_set_arg(&regs, t->spoilt, t->was); /* the result may be in its register */
		regs_set_result(&regs, -EIO);
		catch_ptrace_set(t->tid, &regs);
	}
	t->skips = false;
	if (!t->maps)
		return true;
	t->maps = false;
	if (call->result >= 0 || call->result < -4095)
		return leave_map(w, t, (uint64_t)call->result);
	restore_arguments(t);
	return true;
}

void catch_forget(struct catch_watch *w, pid_t pid)
{
	for (unsigned i = 0; i < w->nguests; i++)
		if (w->guests[i].pid == pid) {
			close(w->guests[i].uffd.fd);
			w->guests[i--] = w->guests[--w->nguests];
		}
}
