// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Who served the guest is gone, and another one comes. He finds us as the tracer of the guest's
 * process, by a name that has our pid, and sees from the socket that we are that process; we see
 * that he is our user, or root. He is told that he may come, or why not. He names the files, which
 * have to be the guest's, and then gets all that the first one had: the userfaultfds, the ledger,
 * and the mappings that wait for somebody who agrees to serve them.
 */
#include "catch-watch.h"

#include "again.h"
#include "broker-act.h"
#include "broker-msg.h"
#include "log.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define KEEPER_MS 10000

void catch_listen(struct catch_watch *w)
{
	char name[64];

	snprintf(name, sizeof(name), CATCH_NAME, (long)getpid());
	w->listener = broker_acts.local_listen(name);
}

static pid_t a_guest(const struct catch_watch *w)
{
	return w->nguests ? w->guests[0].pid : w->root;
}

void catch_say_again(struct catch_watch *w)
{
	pid_t pid = a_guest(w);
	char *again = w->plan->cfg ? lazy_again(w->plan->cfg, pid) : NULL;

	log_warn("recv is gone; process %ld waits for its memory", (long)pid);
	if (w->listener >= 0 && again)
		log_warn("hint: %s", again);
	free(again);
}

/* ---- who comes ---- */

static bool is_ours(int fd)
{
	struct ucred who;
	socklen_t len = sizeof(who);

	return !getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &len) &&
	       (who.uid == 0 || who.uid == geteuid());
}

static void refuse(int fd, const char *why, uint32_t token)
{
	struct catch_report r = { .kind = CATCH_FAILED, .token = token };

	err_set(&r.why, ST_UNSUPPORTED, "%s", why);
	broker_send(fd, &r, sizeof(r), NULL, 0, MSG_DONTWAIT);
	close(fd);
}

static bool is_gone(int sock)
{
	struct ucred who = { 0 };
	socklen_t len = sizeof(who);
	struct pollfd p = { .events = POLLIN };
	bool gone;

	if (getsockopt(sock, SOL_SOCKET, SO_PEERCRED, &who, &len))
		return false;
	p.fd = (int)syscall(SYS_pidfd_open, who.pid, 0);
	if (p.fd < 0)
		return errno == ESRCH;
	gone = poll(&p, 1, 0) > 0;
	close(p.fd);
	return gone;
}

/*
 * What somebody has left behind who is gone is read before the next one counts; and what his keeper
 * has to say, who on a busy machine comes to that later than the next one to his.
 */
static void hear_the_last(struct catch_watch *w)
{
	struct pollfd p = { .fd = w->sock, .events = POLLIN };
	int ms = w->sock >= 0 && is_gone(w->sock) ? KEEPER_MS : 0;

	while (w->sock >= 0 && poll(&p, 1, ms) > 0)
		catch_take_order(w);
}

void catch_take_new(struct catch_watch *w)
{
	struct sockaddr_storage sa;
	socklen_t len = sizeof(sa);
	struct catch_report hello = { .kind = CATCH_RUNS, .pid = w->root };
	int fd = broker_acts.accept(w->listener, &sa, &len);

	if (fd < 0)
		return;
	hear_the_last(w);
	if (!is_ours(fd)) {
		close(fd);
	} else if (w->sock >= 0) {
		refuse(fd, "the guest is served by another recv", CATCH_SERVED);
	} else if (w->releases || !w->runs_guest) {
		refuse(fd, "the guest needs nobody", 0);
	} else {
		fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK);
		w->sock = fd;
		w->is_new = true;
		w->nnew = 0;
		w->other = false;
		broker_send(fd, &hello, sizeof(hello), NULL, 0, 0);
	}
}

/* ---- what he gets ---- */

static void report_spaces(struct catch_watch *w)
{
	struct catch_report r = { .kind = CATCH_SPACE };

	for (unsigned i = 0; i < w->nguests; i++) {
		r.pid = w->guests[i].pid;
		r.token = !w->guests[i].agreed;
		catch_report(w, &r, w->guests[i].uffd.fd);
	}
	r.pid = 0;
	for (unsigned i = 0; i < w->nkept; i++) {
		r.token = w->kept[i].serial;
		r.wstatus = (int32_t)w->kept[i].number;
		catch_report(w, &r, w->kept[i].fd);
	}
}

struct telling {
	struct catch_watch *w;
	pid_t pid;
};

static bool is_waiting(const struct catch_watch *w, pid_t pid, uint64_t address)
{
	for (unsigned i = 0; i < w->nthreads; i++)
		if (w->threads[i].waits && w->threads[i].pid == pid && w->threads[i].at == address)
			return true;
	return false;
}

static int report_mapping(void *arg, const struct catch_mapping *m)
{
	struct telling *t = arg;
	struct catch_report r = { .kind = CATCH_REGION,
				  .pid = t->pid,
				  .region = catch_clip(&t->w->files, m) };

	if (r.region.len && !is_waiting(t->w, t->pid, m->address))
		catch_report(t->w, &r, -1);
	return 0;
}

/* Nobody has written down what lies where, so nobody has served anything. */
static void report_mappings(struct catch_watch *w)
{
	for (unsigned i = 0; i < w->nguests; i++) {
		struct telling t = { w, w->guests[i].pid };

		catch_proc_mappings(t.pid, &w->files, report_mapping, &t);
	}
}

static void report_waiting(struct catch_watch *w)
{
	for (unsigned i = 0; i < w->nthreads; i++) {
		const struct catch_thread *t = &w->threads[i];
		struct catch_report r = { .kind = CATCH_REGION,
					  .pid = t->pid,
					  .token = (uint32_t)t->tid };

		if (!t->waits)
			continue;
		r.region = catch_waiting(w, t);
		catch_report(w, &r, -1);
	}
}

static void report_all(struct catch_watch *w)
{
	struct catch_report r = { .kind = CATCH_LEDGER, .pid = w->root };

	report_spaces(w);
	if (w->ledger >= 0)
		catch_report(w, &r, w->ledger);
	else
		report_mappings(w);
	report_waiting(w);
	r.kind = CATCH_RUNS;
	catch_report(w, &r, -1);
}

static bool is_block(const struct catch_watch *w, uint64_t size, int fd)
{
	const struct catch_file *f = &w->files.v[w->nnew];
	struct stat st;

	return fd >= 0 && !fstat(fd, &st) && st.st_dev == f->dev && st.st_ino == f->ino &&
	       size == f->size;
}

void catch_hear_new(struct catch_watch *w, const struct catch_order *o, int fd)
{
	if (o->op == CATCH_OP_BLOCK) {
		if (w->nnew >= w->files.n || !is_block(w, o->size, fd))
			w->other = true;
		else
			w->nnew++;
		return;
	}
	if (o->op != CATCH_OP_GO)
		return;
	w->is_new = false;
	if (!w->other && w->nnew == w->files.n) {
		w->kills = o->token;
		report_all(w);
		return;
	}
	refuse(w->sock, "the guest maps another IMAGE, or one of another size", 0);
	w->sock = -1;
}
