// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A process that runs already and maps the image. All its threads are stopped; one of them makes
 * the userfaultfd, and every mapping of the image is registered. Only then the files are emptied,
 * so that whatever fails before leaves the process as it was, and nothing can be touched between
 * the two. From there on its system calls are watched like those of COMMAND.
 *
 * One that waits for its memory, because who has served and who has watched it are gone, has its
 * userfaultfd already. A thread that waits inside the kernel does not stop before its page comes,
 * so nobody is waited for: each is watched from its next stop on.
 */
#include "catch-watch.h"

#include "broker-act.h"
#include "catch-found.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define STOP_MS	  10000
#define ATTACH_MS 1000

/* ---- stopping it ---- */

static int cannot_attach(pid_t pid, int why, struct error *err)
{
	long tracer = catch_proc_status(pid, "TracerPid");

	if (why == ESRCH)
		return err_set(err, ST_COMMAND, "--guest: there is no process %ld", (long)pid);
	if (why == EPERM && tracer > 0) {
		err_set(err, ST_UNSUPPORTED,
			"cannot attach to process %ld: it is traced by process %ld", (long)pid,
			tracer);
		return err_hint(err, "end that first (a debugger, strace, another migtool)");
	}
	err_sys(err, ST_UNSUPPORTED, why, "cannot attach to process %ld", (long)pid);
	if (geteuid() != 0)
		return err_hint(err, "run recv as root, or as its user with "
				     "kernel.yama.ptrace_scope=0");
	return -1;
}

/*
 * EPERM may pass: a thread that is just ending, or whose last tracer is (a catcher that was
 * killed). -1 with errno.
 */
static int seize(const struct catch_watch *w, pid_t tid)
{
	for (int ms = 0;; ms++) {
		int why;

		if (!catch_ptrace_seize(tid))
			return 0;
		why = errno;
		if (why == EPERM && ms < ATTACH_MS &&
		    (w->plan->resume || catch_proc_status(tid, "TracerPid") <= 0)) {
			usleep(1000);
			continue;
		}
		errno = why;
		return -1;
	}
}

static bool is_signal(int status)
{
	return !(status >> 16) && WSTOPSIG(status) != (SIGTRAP | 0x80);
}

/* A thread that was told to stop; what stops it before that is passed on. */
static int await_stop(pid_t tid, struct error *err)
{
	for (int ms = 0; ms < STOP_MS; ms++) {
		int status;
		pid_t got = waitpid(tid, &status, __WALL | WNOHANG);

		if (got == tid && !WIFSTOPPED(status))
			return 1; /* it has ended */
		if (got == tid && status >> 16 == PTRACE_EVENT_STOP)
			return 0;
		if (got < 0)
			return 1;
		if (got == 0) {
			usleep(1000);
			continue;
		}
		/* another stop takes the interruption away */
		catch_ptrace_go(tid, is_signal(status) ? WSTOPSIG(status) : 0);
		catch_ptrace_interrupt(tid);
	}
	return err_set(err, ST_TIMEOUT, "thread %ld of the guest does not stop within %d s",
		       (long)tid, STOP_MS / 1000);
}

/* How many threads were new, or -1. */
static int stop_new(struct catch_watch *w, pid_t pid, struct error *err)
{
	char path[64];
	struct dirent *e;
	int fd, rc = 0, n = 0;
	DIR *d;

	snprintf(path, sizeof(path), "/proc/%ld/task", (long)pid);
	fd = broker_acts.open(path, O_RDONLY | O_DIRECTORY, 0);
	d = fd < 0 ? NULL : fdopendir(fd);
	if (!d)
		return cannot_attach(pid, ESRCH, err);
	while (rc >= 0 && (e = readdir(d))) {
		pid_t tid = (pid_t)atol(e->d_name);

		if (tid <= 0 || catch_find(w, tid))
			continue;
		if (seize(w, tid)) {
			rc = errno == ESRCH && tid != pid ? 0 : cannot_attach(pid, errno, err);
			continue;
		}
		if (!catch_add(w, tid)) {
			rc = err_set(err, ST_NOMEM, "too many threads to watch");
			continue;
		}
		catch_ptrace_interrupt(tid);
		if (!w->plan->resume)
			rc = await_stop(tid, err);
		if (!rc)
			catch_ptrace_restart(tid);
		n++;
	}
	closedir(d);
	return rc < 0 ? -1 : n;
}

static int stop_all(struct catch_watch *w, pid_t pid, struct error *err)
{
	int n;

	do
		n = stop_new(w, pid, err);
	while (n > 0);
	return n;
}

/* ---- its mappings ---- */

struct adoption {
	struct catch_watch *w;
	struct catch_guest *guest;
	const char *name;
	struct error *err;
	struct catch_region regions[CATCH_REGIONS_MAX];
	unsigned n;
};

static int take_mapping(void *arg, const struct catch_mapping *m)
{
	struct adoption *a = arg;
	struct catch_region r = catch_clip(&a->w->files, m);

	if (!r.len)
		return 0;
	if (!m->shared && !a->w->plan->resume) {
		err_set(a->err, ST_UNSUPPORTED,
			"%s maps IMAGE private: what it has there already "
			"cannot be replaced",
			a->name);
		return err_hint(a->err, "let it map IMAGE shared (share=on)");
	}
	if (a->n == CATCH_REGIONS_MAX)
		return err_set(a->err, ST_UNSUPPORTED, "%s maps IMAGE in more than %d pieces",
			       a->name, CATCH_REGIONS_MAX);
	a->regions[a->n++] = r;
	return 0;
}

static int find_mappings(struct adoption *a, pid_t pid)
{
	if (catch_proc_mappings(pid, &a->w->files, take_mapping, a))
		return a->err->status ? -1
				      : err_sys(a->err, ST_UNSUPPORTED, errno,
						"cannot read the mappings of %s", a->name);
	if (a->n)
		return 0;
	err_set(a->err, ST_UNSUPPORTED, "%s does not map IMAGE", a->name);
	return err_hint(a->err, "start it with its memory in that file, and stopped");
}

static int register_all(struct adoption *a)
{
	for (unsigned i = 0; i < a->n; i++)
		if (catch_uffd_register(&a->guest->uffd, a->regions[i].address, a->regions[i].len,
					a->name, a->err))
			return -1;
	return 0;
}

static int empty_files(struct catch_watch *w, struct error *err)
{
	for (unsigned i = 0; i < w->files.n; i++) {
		uint64_t mask = w->files.v[i].page - 1;

		if (fallocate(w->fds[i], FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
			      (off_t)((w->files.v[i].size + mask) & ~mask)))
			return err_sys(err, ST_FILE, errno, "cannot empty IMAGE");
	}
	return 0;
}

/* ---- all ---- */

static int make_uffd(struct adoption *a, struct catch_visit *v, pid_t pid)
{
	struct catch_watch *w = a->w;

	a->guest = &w->guests[0];
	if (catch_uffd_make(v, pid, a->name, &a->guest->uffd, a->err))
		return -1;
	a->guest->pid = pid;
	w->nguests = 1;
	return 0;
}

/* Nothing of it stays: a range would wait for ever for pages. */
static void undo(struct adoption *a, struct catch_visit *v)
{
	uint64_t args[6] = { (uint64_t)a->guest->uffd.number };
	long ignored;

	catch_visit_call(v, SYS_close, args, &ignored);
	close(a->guest->uffd.fd);
	a->w->nguests = 0;
}

/* With a thread of it that can make calls. */
static int visit(struct adoption *a, pid_t pid)
{
	struct catch_visit v;
	int rc;

	if (catch_visit_begin_anywhere(&v, pid))
		return catch_visit_failed(errno, a->name, a->err);
	rc = make_uffd(a, &v, pid);
	if (!rc && !a->guest->uffd.forks)
		rc = err_set(a->err, ST_UNSUPPORTED,
			     "what %s forks could not be served: that takes CAP_SYS_PTRACE",
			     a->name);
	if (!rc)
		rc = register_all(a);
	if (rc && a->w->nguests)
		undo(a, &v);
	if (catch_visit_end(&v) && !rc)
		rc = err_set(a->err, ST_COMMAND, "%s has ended", a->name);
	return rc;
}

/* That of who is gone. What it sees of forks is not known, so what is mapped later is not
 * inherited. */
static int find_uffd(struct adoption *a, pid_t pid)
{
	struct catch_guest *g = &a->w->guests[0];
	struct catch_armed armed;
	uint64_t from, len;
	int pidfd = -1, rc = catch_armed_read(pid, &armed);

	if (rc)
		err_sys(a->err, ST_UNSUPPORTED, errno, "cannot look into %s", a->name);
	for (unsigned i = 0; !rc && i < a->n; i++)
		rc = catch_armed_part(&armed, a->regions[i].address, a->regions[i].len, &from,
				      &len);
	catch_armed_free(&armed);
	if (!rc)
		err_set(a->err, ST_COMMAND, "%s does not wait for pages of IMAGE", a->name);
	if (rc <= 0)
		return -1;
	g->uffd.fd = catch_found_uffd(pid, from, len, a->name, &pidfd, a->err);
	if (pidfd >= 0)
		close(pidfd);
	if (g->uffd.fd < 0)
		return -1;
	a->guest = g;
	g->pid = pid;
	a->w->nguests = 1;
	return register_all(a);
}

static void report_all(struct adoption *a, pid_t pid)
{
	struct catch_report r = { .kind = CATCH_SPACE, .pid = pid };

	catch_report(a->w, &r, a->guest->uffd.fd);
	r.kind = CATCH_REGION;
	for (unsigned i = 0; i < a->n; i++) {
		r.region = a->regions[i];
		catch_report(a->w, &r, -1);
	}
	r = (struct catch_report){ .kind = CATCH_RUNS, .pid = pid };
	catch_report(a->w, &r, -1);
}

int catch_adopt(struct catch_watch *w, pid_t pid, struct error *err)
{
	struct adoption a = { .w = w, .err = err };
	char comm[32], name[64];

	catch_proc_name(pid, comm);
	snprintf(name, sizeof(name), "%s (process %ld)", comm, (long)pid);
	a.name = name;
	if (stop_all(w, pid, err) || find_mappings(&a, pid) || catch_nobody_else(w, err))
		return -1;
	if (w->plan->resume ? find_uffd(&a, pid) : visit(&a, pid) || empty_files(w, err))
		return -1;
	w->root = pid;
	w->runs = w->runs_guest = true;
	w->guests[0].agreed = true;
	report_all(&a, pid);
	if (w->plan->resume)
		return 0;
	for (unsigned i = 0; i < w->nthreads; i++)
		catch_ptrace_go(w->threads[i].tid, 0);
	return 0;
}
