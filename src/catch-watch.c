// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The catcher: a process that starts COMMAND and stops each of its threads, and those of whatever
 * it starts, at the entry and at the exit of every system call, until all memory has come. A shell
 * that starts a guest, and a grandchild of it, are caught like that as COMMAND itself is.
 *
 * It holds the descriptors of the guests' userfaultfds, and never an end of a connection to a peer.
 * Ctrl-C and the signals that end the tool do not reach it; killed while it makes a call in a
 * guest's thread it would take the guest with it, so the kernel's search for a victim passes it by.
 *
 * When who started it is gone too early: without a guest COMMAND is ended, which has lost nothing;
 * so it is if its first mapping was refused. A guest stays watched, because let alone it could read
 * zeros from IMAGE; it waits for its pages, unless the user wants it ended (--on-loss=kill). So
 * SIGTERM ends us, and COMMAND, only while there is no guest; else SIGKILL of the guest is the way
 * out.
 */
#include "catch-watch.h"

#include "broker-msg.h"
#include "log.h"
#include "uffd.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef PTRACE_EVENT_STOP
#define PTRACE_EVENT_STOP 128
#endif

#define EVENTS_AT_ONCE 64

static volatile sig_atomic_t asked_to_end;

static void on_signal(int sig)
{
	if (sig == SIGTERM)
		asked_to_end = 1;
}

/* ---- reports ---- */

bool catch_is_heard(const struct catch_watch *w)
{
	return w->sock >= 0 && !w->is_new;
}

void catch_report(struct catch_watch *w, struct catch_report *r, int fd)
{
	if (catch_is_heard(w))
		broker_send(w->sock, r, sizeof(*r), &fd, fd >= 0, 0);
}

void catch_warn(struct catch_watch *w, const struct error *why)
{
	struct catch_report r = { .kind = CATCH_WARNS, .why = *why };

	if (!catch_is_heard(w)) {
		log_warn("%s", why->msg);
		log_warn("hint: %s", why->hint);
		return;
	}
	catch_report(w, &r, -1);
}

void catch_end_all(struct catch_watch *w)
{
	for (unsigned i = 0; i < w->nthreads; i++)
		kill(w->threads[i].pid, SIGKILL);
	if (w->root)
		kill(w->root, SIGKILL);
}

void catch_fail(struct catch_watch *w, const struct error *why)
{
	struct catch_report r = { .kind = CATCH_FAILED, .why = *why };

	catch_report(w, &r, -1);
	if (w->runs_guest)
		return;
	if (w->plan->guest) { /* not ours to end, and it has lost nothing */
		for (unsigned i = 0; i < w->nthreads; i++)
			catch_ptrace_detach(w->threads[i].tid, 0);
		_exit(0);
	}
	catch_end_all(w);
}

/* ---- threads ---- */

struct catch_thread *catch_find(struct catch_watch *w, pid_t tid)
{
	for (unsigned i = 0; i < w->nthreads; i++)
		if (w->threads[i].tid == tid)
			return &w->threads[i];
	return NULL;
}

/* Each stop of a new thread comes here first. */
struct catch_thread *catch_add(struct catch_watch *w, pid_t tid)
{
	struct catch_thread *t = catch_find(w, tid), *more;
	pid_t pid;

	if (t)
		return t;
	pid = catch_proc_process(tid);
	if (pid < 0 || w->nthreads == CATCH_THREADS_MAX)
		return NULL;
	if (w->nthreads == w->cap) {
		more = realloc(w->threads, (w->cap + 64) * sizeof(*more));
		if (!more)
			return NULL;
		w->threads = more;
		w->cap += 64;
	}
	t = &w->threads[w->nthreads++];
	*t = (struct catch_thread){ .tid = tid, .pid = pid };
	return t;
}

static void drop(struct catch_watch *w, pid_t tid)
{
	struct catch_thread *t = catch_find(w, tid);
	pid_t pid;

	if (!t)
		return;
	pid = t->pid;
	*t = w->threads[--w->nthreads];
	for (unsigned i = 0; i < w->nthreads; i++)
		if (w->threads[i].pid == pid)
			return;
	catch_forget(w, pid);
}

/* The thread goes on: alone, if it is to be let go. */
void catch_resume(struct catch_watch *w, struct catch_thread *t, int sig)
{
	/* inside a mapping that is not finished it has no memory yet */
	if (!w->releases || t->maps || t->skips) {
		catch_ptrace_go(t->tid, sig);
		return;
	}
	catch_ptrace_detach(t->tid, sig);
	drop(w, t->tid);
}

/* ---- stops ---- */

static void tell_runs(struct catch_watch *w)
{
	struct catch_report r = { .kind = CATCH_RUNS, .pid = w->root };

	w->runs = true;
	catch_report(w, &r, -1);
}

/* All other threads of the process are gone, and the one that is left has the leader's number. */
static void on_exec(struct catch_watch *w, struct catch_thread *t)
{
	unsigned long former = 0;
	pid_t tid = t->tid;

	t->waits = t->maps = t->skips = false;
	catch_forget(w, t->pid);
	if (!catch_ptrace_message(tid, &former) && (pid_t)former != tid)
		drop(w, (pid_t)former);
	if (tid == w->root && !w->runs)
		tell_runs(w);
}

/*
 * A thread that was interrupted, and is to be let go. Let go at the entry it would notice: the
 * interruption is still to come. So it goes through the call, and makes it again.
 */
static bool returns_first(struct catch_thread *t, const struct catch_call *call)
{
	if (!t->called)
		return false;
	if (call->at == CALL_EXIT)
		catch_ptrace_restart(t->tid);
	if (call->at != CALL_ENTRY)
		return false;
	catch_ptrace_go(t->tid, 0);
	catch_ptrace_interrupt(t->tid);
	return true;
}

/*
 * A call that the kernel does not make again, as epoll_wait, was interrupted. A signal that is
 * ignored does that only because we trace, and wakes any thread of the process; another one may
 * take it, so that this one does not stop for it. An interruption of ours may have met such a
 * signal.
 */
static bool interrupted(const struct catch_call *call)
{
	return call->at == CALL_EXIT && call->result == -EINTR;
}

static void on_call(struct catch_watch *w, struct catch_thread *t)
{
	struct catch_call call;
	struct error why = { 0 };
	bool go = true;

	if (catch_ptrace_call(t->tid, &call)) {
		catch_resume(w, t, 0);
		return;
	}
	if (call.at == CALL_ENTRY && (call.foreign || regs_foreign(call.nr))) {
		err_set(&why, ST_UNSUPPORTED,
			"process %ld makes 32-bit or x32 system calls, which are not watched",
			(long)t->pid);
		err_hint(&why, "COMMAND has to be a program of this machine's own kind");
		catch_fail(w, &why);
		return;
	}
	if (call.at == CALL_ENTRY && !w->releases)
		go = catch_entry(w, t, &call);
	else if (call.at == CALL_EXIT)
		go = catch_exit(w, t, &call);
	if (go && interrupted(&call))
		catch_ptrace_restart(t->tid);
	if (go && !returns_first(t, &call))
		catch_resume(w, t, 0);
}

static bool stops_for_long(int sig)
{
	return sig == SIGSTOP || sig == SIGTSTP || sig == SIGTTIN || sig == SIGTTOU;
}

static void on_stop(struct catch_watch *w, struct catch_thread *t, int status)
{
	int sig = WSTOPSIG(status), event = status >> 16;

	if (sig == (SIGTRAP | 0x80)) {
		on_call(w, t);
	} else if (!event) {
		/* only because it is traced */
		if (catch_proc_ignores(t->tid, sig))
			catch_ptrace_restart(t->tid);
		catch_resume(w, t, sig);
	} else if (event == PTRACE_EVENT_STOP && stops_for_long(sig) && !w->releases) {
		catch_ptrace_listen(t->tid);
	} else {
		if (event == PTRACE_EVENT_EXEC) {
			pid_t tid = t->tid;

			on_exec(w, t);
			t = catch_find(w, tid); /* drop() moves them */
		}
		if (t)
			catch_resume(w, t, 0);
	}
}

/*
 * A process that has just begun. If it is one forked child too many, its userfaultfd cannot be
 * kept for the case that who started us is killed; so it does not run before it needs none.
 */
static bool must_stay(struct catch_watch *w, struct catch_thread *t)
{
	struct error why = { 0 };
	unsigned n = 0;

	if (t->tid != t->pid || w->releases)
		return false;
	t->child = true;
	for (unsigned i = 0; i < w->nthreads; i++)
		n += w->threads[i].child;
	if (n <= CATCH_CHILDREN_MAX)
		return false;
	err_set(&why, ST_UNSUPPORTED,
		"process %ld stands still until all memory has come: more than %d forked children "
		"live",
		(long)t->pid, CATCH_CHILDREN_MAX);
	catch_warn(w, &why);
	return true;
}

static void on_event(struct catch_watch *w, pid_t tid, int status)
{
	struct catch_thread *t;
	struct error why = { 0 };
	bool begins = WIFSTOPPED(status) && w->runs_guest && !catch_find(w, tid);

	if (!WIFSTOPPED(status)) {
		if (tid == w->root)
			w->status = status;
		drop(w, tid);
		return;
	}
	t = catch_add(w, tid);
	if (t && begins && must_stay(w, t)) {
		t->stays = true;
	} else if (t) {
		on_stop(w, t, status);
	} else if (catch_proc_process(tid) >= 0) {
		/* one that nobody watches could read zeros; so it stays where it is */
		err_set(&why, ST_NOMEM, "too many threads to watch");
		catch_fail(w, &why);
	}
}

/* ---- start and end ---- */

static _Noreturn void tell_ended(struct catch_watch *w)
{
	struct catch_report r = { .kind = CATCH_ENDED, .pid = w->root, .wstatus = w->status };
	int why = 0;

	if (!w->runs && read(w->exec_report, &why, sizeof(why)) == sizeof(why)) {
		r.kind = CATCH_FAILED;
		err_sys(&r.why, ST_COMMAND, why, "cannot start the command '%s'", w->plan->argv[0]);
	}
	catch_report(w, &r, -1);
	_exit(0);
}

static bool never(void *arg, pid_t pid)
{
	struct catch_watch *w = arg;

	/* we and who started us only write it, in a mapping where it must be */
	return pid == getpid() || pid == getppid() || catch_find(w, pid);
}

int catch_nobody_else(struct catch_watch *w, struct error *err)
{
	pid_t pid = catch_proc_mapper(&w->files, never, w);
	char comm[32];

	if (!pid)
		return 0;
	catch_proc_name(pid, comm);
	err_set(err, ST_UNSUPPORTED,
		"IMAGE is mapped already by %s (process %ld), which would read zeros", comm,
		(long)pid);
	return err_hint(err, "end it first, or write another IMAGE");
}

/* Once COMMAND was forked, which is as likely a victim as we were. Without the right to it: no. */
static void spare_us(void)
{
	static const char score[] = "-1000";
	int fd = broker_acts.open("/proc/self/oom_score_adj", O_WRONLY, 0);

	if (fd < 0)
		return;
	if (write(fd, score, sizeof(score) - 1) < 0)
		errno = 0;
	close(fd);
}

/* That they are of huge pages may be seen only now that they have a size. */
static int size_files(struct catch_watch *w, struct error *err)
{
	for (unsigned i = 0; i < w->files.n; i++) {
		struct catch_file *f = &w->files.v[i];

		if (ftruncate(w->fds[i], 0) || ftruncate(w->fds[i], (off_t)f->size))
			return err_sys(err, ST_FILE, errno,
				       "cannot make IMAGE 0x%" PRIx64 " bytes long", f->size);
		if (catch_check_file(w->fds[i], "IMAGE", &f->page, err))
			return -1;
	}
	return 0;
}

int catch_start_command(struct catch_watch *w, struct error *err)
{
	int gate;
	pid_t pid;

	if (catch_nobody_else(w, err) || size_files(w, err) || catch_notify_open(w, err))
		return -1;
	pid = broker_spawn_held((char *const *)w->plan->argv, &gate, &w->exec_report);
	if (pid < 0)
		return err_sys(err, ST_COMMAND, errno, "cannot fork for the command");
	w->root = pid;
	spare_us();
	if (catch_ptrace_seize(pid)) {
		err_sys(err, ST_UNSUPPORTED, errno, "cannot watch COMMAND's system calls (ptrace)");
		err_hint(err, "as root: sysctl kernel.yama.ptrace_scope=1");
		close(gate);
		return -1;
	}
	if (!catch_add(w, pid) || write(gate, "", 1) != 1)
		err_set(err, ST_COMMAND, "the process of the command has ended");
	close(gate);
	return err->status ? -1 : 0;
}

/* ---- the process ---- */

static void settle_signals(sigset_t *while_waiting)
{
	struct sigaction sa = { .sa_handler = on_signal };
	sigset_t all;

	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, NULL);
	/* without SA_NOCLDSTOP: it says that a thread has stopped */
	sigaction(SIGCHLD, &sa, NULL);
	sigaction(SIGTERM, &sa, NULL);
	*while_waiting = all;
	sigdelset(while_waiting, SIGCHLD);
	sigdelset(while_waiting, SIGTERM);
}

static void settle(int sock)
{
	prctl(PR_SET_NAME, "migtool-catcher");
	setsid();
	broker_close_but(3, &sock, 1);
}

/* True: there may be more; a busy guest has always one, and orders must not wait for it. */
static bool take_events(struct catch_watch *w)
{
	unsigned n = 0;
	int status;
	pid_t tid;

	while (n < EVENTS_AT_ONCE && (tid = waitpid(-1, &status, __WALL | WNOHANG)) > 0) {
		on_event(w, tid, status);
		n++;
	}
	if (n == EVENTS_AT_ONCE)
		return true;
	if (!w->root || w->nthreads)
		return false;
	if (w->releases) {
		struct catch_report r = { .kind = CATCH_LEFT, .pid = w->root };

		catch_report(w, &r, -1);
		_exit(0);
	}
	tell_ended(w);
}

/* SIGTERM: a guest that is let go while pages are missing would read zeros. */
static void asked(struct catch_watch *w)
{
	struct error why = { 0 };

	asked_to_end = 0;
	if (!w->root)
		_exit(0);
	if (w->releases)
		return;
	if (w->runs_guest) {
		err_set(&why, ST_UNSUPPORTED,
			"SIGTERM is ignored: without process %ld the guest would read zeros where "
			"its memory has not come",
			(long)getpid());
		err_hint(&why, "end the guest; SIGKILL ends it wherever it waits");
		catch_warn(w, &why);
		return;
	}
	err_set(&why, ST_COMMAND, "the process that watches COMMAND was asked to end (SIGTERM)");
	catch_fail(w, &why);
}

/* Until something happens, or (more) only a look. */
static void attend(struct catch_watch *w, bool more, const sigset_t *mask)
{
	const struct timespec none = { 0, 0 };
	struct pollfd p[3] = { { .fd = w->sock, .events = POLLIN },
			       { .fd = w->listener, .events = POLLIN },
			       { .fd = w->notify, .events = POLLIN } };

	if (ppoll(p, 3, more ? &none : NULL, mask) <= 0)
		return;
	/* first: COMMAND may have ended behind it */
	if (p[2].revents)
		catch_notify_take(w);
	if (p[0].revents)
		catch_take_order(w);
	if (p[1].revents)
		catch_take_new(w);
}

_Noreturn void catch_serve(const struct catch_plan *plan, int sock)
{
	struct catch_watch w = { .plan = plan,
				 .sock = sock,
				 .exec_report = -1,
				 .ledger = -1,
				 .listener = -1,
				 .notify = -1 };
	sigset_t mask;

	settle(sock);
	catch_listen(&w);
	settle_signals(&mask);
	for (;;) {
		bool more = take_events(&w);

		if (asked_to_end)
			asked(&w);
		attend(&w, more, &mask);
	}
}
