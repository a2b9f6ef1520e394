// SPDX-License-Identifier: GPL-2.0-or-later
/* What the catcher is told by whoever serves the guest, and what it does when he is gone. */
#include "catch-watch.h"

#include "broker-msg.h"
#include "uffd.h"

#include <fcntl.h>
#include <linux/kcmp.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static void take_block(struct catch_watch *w, const struct catch_order *o, int fd)
{
	struct catch_file *f = &w->files.v[w->files.n];
	struct error why = { 0 };
	struct stat st;

	if (fd < 0 || w->root || w->files.n == CATCH_BLOCKS_MAX || fstat(fd, &st))
		return;
	if (catch_check_file(fd, "IMAGE", &f->page, &why)) {
		catch_fail(w, &why);
		_exit(1);
	}
	f->dev = st.st_dev;
	f->ino = st.st_ino;
	f->size = o->size;
	w->fds[w->files.n++] = fcntl(fd, F_DUPFD_CLOEXEC, 3);
}

static void take_go(struct catch_watch *w)
{
	struct error why = { 0 };

	if (w->root)
		return;
	w->kills = w->plan->kill;
	if (w->plan->guest ? !catch_adopt(w, w->plan->guest, &why) : !catch_start_command(w, &why))
		return;
	catch_fail(w, &why);
	_exit(1);
}

/* ours: there is a guest from now on. */
static void take_ack(struct catch_watch *w, uint32_t token, bool ours)
{
	struct catch_thread *t = catch_find(w, (pid_t)token);

	if (!t || !t->waits)
		return;
	t->waits = false;
	w->served |= ours;
	for (unsigned i = 0; i < w->nguests; i++)
		if (w->guests[i].pid == t->pid)
			w->guests[i].agreed = true;
	catch_resume(w, t, 0);
}

static void release_all(struct catch_watch *w)
{
	w->releases = true;
	for (unsigned i = w->nthreads; i-- > 0;) {
		struct catch_thread *t = &w->threads[i];

		if (!t->waits && !t->stays) {
			t->called = true;
			catch_ptrace_interrupt(t->tid);
			continue;
		}
		t->waits = t->stays = false;
		catch_resume(w, t, 0);
	}
}

/*
 * Who serves has ended, or was ended. A mapping that nobody has agreed to serve is no guest.
 * Threads that wait for an agreement go on waiting, for whoever comes next.
 */
static void left_alone(struct catch_watch *w)
{
	bool guest = w->plan->guest ? w->runs_guest : w->served;
	bool was_new = w->is_new;

	close(w->sock);
	w->sock = -1;
	w->is_new = false;
	if (w->releases)
		return;
	if (!guest || w->kills) {
		catch_end_all(w);
		_exit(0);
	}
	if (!w->left && !was_new)
		catch_say_again(w);
	w->left = false;
}

/* A forked child whose memory has gone needs its userfaultfd no more. */
static void drop_kept(struct catch_watch *w)
{
	const uint64_t anywhere = 1u << 20;

	for (unsigned i = 0; i < w->nkept; i++)
		if (uffd_gone(w->kept[i].fd, anywhere, (uint32_t)sysconf(_SC_PAGESIZE))) {
			close(w->kept[i].fd);
			w->kept[i--] = w->kept[--w->nkept];
		}
}

/* Two descriptors of one open file? A kernel that does not tell knows of no two. */
static bool same(int a, int b)
{
	return !syscall(SYS_kcmp, getpid(), getpid(), KCMP_FILE, a, b);
}

static struct catch_kept *find_kept(struct catch_watch *w, int fd)
{
	for (unsigned i = 0; fd >= 0 && i < w->nkept; i++)
		if (same(w->kept[i].fd, fd))
			return &w->kept[i];
	return NULL;
}

/* It is sent, and not asked for, so a refusal is a warning. Takes the descriptor over. */
static void take_keep(struct catch_watch *w, int fd, uint32_t serial)
{
	struct catch_kept *known = find_kept(w, fd);
	struct error why = { 0 };

	if (known) {
		known->serial = serial;
		close(fd);
		return;
	}
	if (w->nkept >= CATCH_CHILDREN_MAX)
		drop_kept(w);
	if (fd >= 0 && w->nkept < sizeof(w->kept) / sizeof(w->kept[0])) {
		w->kept[w->nkept++] = (struct catch_kept){ fd, serial, 0 };
		return;
	}
	if (fd >= 0)
		close(fd);
	err_set(&why, ST_UNSUPPORTED,
		"the userfaultfd of a forked child could not be kept: if this process were killed "
		"before all memory has come the child would read zeros");
	err_hint(&why, fd < 0 ? "allow more open files (ulimit -n)" : "too many children live");
	catch_warn(w, &why);
}

/*
 * Of who is gone: a child's that he had not passed on, or not yet noted, or one that we have
 * anyway. Of a kernel without kcmp() they look all new, and too many could not be told from one.
 */
static void take_found(struct catch_watch *w, int fd, uint32_t number)
{
	bool known = fd < 0 || !same(fd, fd) || find_kept(w, fd);
	struct catch_kept *kept = find_kept(w, fd);

	for (unsigned i = 0; !known && i < w->nguests; i++)
		known = same(w->guests[i].uffd.fd, fd);
	if (!known) {
		take_keep(w, fd, CATCH_UNNOTED);
		kept = find_kept(w, fd);
	} else if (fd >= 0) {
		close(fd);
	}
	if (kept)
		kept->number = number;
}

static void take_ledger(struct catch_watch *w, int fd)
{
	if (w->ledger >= 0)
		close(w->ledger);
	w->ledger = fd;
}

void catch_take_order(struct catch_watch *w)
{
	struct catch_order o;
	unsigned nfds = 0;
	int fd = -1;
	ssize_t n = broker_receive(w->sock, &o, sizeof(o), &fd, 1, &nfds);

	if (n <= 0) {
		left_alone(w);
		return;
	}
	fd = nfds ? fd : -1;
	if (n == sizeof(o) && o.op == CATCH_OP_KEEP) {
		take_keep(w, fd, o.token);
		return;
	}
	if (n == sizeof(o) && o.op == CATCH_OP_FOUND) {
		take_found(w, fd, o.token);
		return;
	}
	if (n == sizeof(o) && o.op == CATCH_OP_LEDGER && fd >= 0) {
		take_ledger(w, fd);
		return;
	}
	if (n == sizeof(o) && w->is_new)
		catch_hear_new(w, &o, fd);
	else if (n == sizeof(o) && o.op == CATCH_OP_BLOCK)
		take_block(w, &o, fd);
	else if (n == sizeof(o) && o.op == CATCH_OP_GO)
		take_go(w);
	else if (n == sizeof(o) && o.op == CATCH_OP_ACK)
		take_ack(w, o.token, true);
	else if (n == sizeof(o) && o.op == CATCH_OP_LET)
		take_ack(w, o.token, false);
	else if (n == sizeof(o) && o.op == CATCH_OP_OURS)
		w->served = true;
	else if (n == sizeof(o) && o.op == CATCH_OP_NOTIFY)
		w->notifies = true;
	else if (n == sizeof(o) && o.op == CATCH_OP_COMPLETE)
		release_all(w);
	else if (n == sizeof(o) && o.op == CATCH_OP_LEAVE)
		w->left = true;
	if (fd >= 0)
		close(fd);
}
