// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The fault thread: reads what the kernel tells of the guest's address spaces, and answers faults.
 * It alone reads events, so a page that it places itself cannot be overtaken by the guest dropping
 * it: the kernel lets the guest go on only when the event was read.
 */
#include "pager-internal.h"

#include "log.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define FULL_MS 100
/* More than threads can have waited for what was unmapped under them. */
#define STRAYS_MAX 4096

/* ---- counting; with the lock ---- */

static void opened(struct pager *p, uint64_t now)
{
	p->stats.faults++;
	if (!p->open_faults++)
		p->blocked_since = now;
}

static void count_closed(struct pager *p, const struct fault *f)
{
	uint64_t now = pager_clock();

	pthread_mutex_lock(&p->lock);
	fault_closed(p, f, now);
	pthread_mutex_unlock(&p->lock);
}

/* ---- answering ---- */

enum answer { ANSWERED, WAITS, AGAIN, NO_MEMORY };

static enum answer answer_of(struct pager *p, struct space *s, enum uffd_result r)
{
	struct error err;

	switch (r) {
	case UFFD_BUSY:
		return AGAIN;
	case UFFD_FULL:
		say_full(p);
		return NO_MEMORY;
	case UFFD_DEAD:
		gate_enter(p, true);
		space_gone(p, s);
		gate_leave(p, true);
		return ANSWERED;
	case UFFD_FAILED:
		err_sys(&err, ST_UNSUPPORTED, errno, "cannot place a page of the guest's memory");
		pager_fail(p, &err);
		return WAITS;
	default:
		return ANSWERED;
	}
}

/* The content is on this host: fetched and placed at once. */
static enum answer read_page(struct pager *p, struct space *s, const struct view *v,
			     uint64_t address)
{
	size_t i = view_index(v, address);
	uint64_t offset = v->r.offset + (address - v->r.address);
	enum uffd_result r;
	struct error err;
	bool zero = false;

	if (p->o.source.read(p->o.source.arg, v->r.block, offset, p->buf, v->r.page, &zero, &err)) {
		pager_fail(p, &err);
		return WAITS;
	}
	atomic_store(&p->in_hand, true);
	if (zero) {
		r = place_zero(p, s, v, address);
		if (r == UFFD_DONE)
			bitmap_set_atomic(&v->pages->done, i, 1);
	} else {
		r = place_in_view(p, s, v, i, 1, p->buf, true);
	}
	atomic_store(&p->in_hand, false);
	/* it may have come meanwhile, by another region than the one where somebody waits */
	if (p->shared && r == UFFD_DONE)
		uffd_wake(s->uffd, address, v->r.page);
	return answer_of(p, s, r);
}

static enum answer read_near(struct pager *p, struct space *s, const struct view *v,
			     uint64_t address)
{
	enum answer a = read_page(p, s, v, address);

	if (a == ANSWERED)
		around_note(p, s, v, address);
	return a;
}

static void note_need(struct pager *p, const struct view *v, uint64_t address)
{
	if (p->o.first_need)
		p->o.first_need(p->o.need_arg, v->r.block, v->r.offset + (address - v->r.address));
}

/* The content is elsewhere: it comes by pager_arrived*(). */
static enum answer ask(struct pager *p, const struct fault *f, const struct view *v, size_t i)
{
	struct error err;
	int rc = fault_ask(p, f, v, i, &err);

	if (rc > 0)
		return answer_of(p, f->space, place_zero(p, f->space, v, f->address));
	if (rc < 0)
		pager_fail(p, &err);
	return WAITS;
}

/*
 * No view is there. Most likely it was unmapped meanwhile: who waits looks again, and gets a
 * signal, or what is mapped there now. Who comes back always touches what mremap() has added to a
 * region, and nobody has said what belongs there: he waits, with the reason, and gets no zeros.
 */
static enum answer stray(struct pager *p, struct fault *f)
{
	struct error err;

	if (f->space->gone)
		return ANSWERED;
	if (f->space->strays++ < STRAYS_MAX) {
		uffd_wake(f->space->uffd, f->address & ~((uint64_t)p->page - 1), p->page);
		return ANSWERED;
	}
	err_set(&err, ST_UNSUPPORTED,
		"the guest waits for a page at 0x%" PRIx64
		", and it is not known what belongs there",
		f->address);
	err_hint(&err, "its memory must not grow (mremap) before all of it has come");
	pager_fail(p, &err);
	return WAITS;
}

static enum answer answer(struct pager *p, struct fault *f)
{
	struct view *v = f->space->gone ? NULL : space_find(f->space, f->address);
	size_t i;

	if (!v)
		return stray(p, f);
	f->address -= (f->address - v->r.address) % v->r.page;
	i = view_index(v, f->address);
	/*
	 * Not by the event: between that and the drop the page may be placed once more. What has to
	 * be asked for was kept in the file when it came.
	 */
	if (p->o.drops_come_again && !p->shared && p->o.source.read)
		bitmap_clear_atomic(&v->pages->done, i, 1);
	if (bitmap_test(&v->pages->done, i) || bitmap_test(&v->pages->dropped, i))
		return answer_of(p, f->space, place_zero(p, f->space, v, f->address));
	if (p->o.source.request)
		return ask(p, f, v, i);
	note_need(p, v, f->address);
	return read_near(p, f->space, v, f->address);
}

/* All that can be answered now. How long to wait before the rest is tried again, -1: there is none.
 */
static int answer_all(struct pager *p)
{
	int wait = -1;

	for (size_t i = 0; i < p->work.n;) {
		switch (answer(p, &p->work.v[i])) {
		case ANSWERED:
			count_closed(p, &p->work.v[i]);
			fault_drop(&p->work, i);
			break;
		case WAITS:
			fault_drop(&p->work, i);
			break;
		case AGAIN:
			wait = 0;
			i++;
			break;
		case NO_MEMORY:
			wait = wait < 0 ? FULL_MS : wait;
			i++;
			break;
		}
	}
	return wait;
}

void faults_forget(struct pager *p, const struct space *s)
{
	around_forget(p, s);
	for (size_t i = 0; i < p->work.n;) {
		if (p->work.v[i].space != s) {
			i++;
			continue;
		}
		count_closed(p, &p->work.v[i]);
		fault_drop(&p->work, i);
	}
	faults_moved(p, s, 0, UINT64_MAX);
}

/* ---- reading ---- */

static int take_fault(struct pager *p, struct space *s, const struct uffd_event *e, uint64_t now)
{
	struct fault f = { .space = s, .address = e->start, .since = now, .thread = e->thread };

	if (fault_add(&p->work, &f))
		return -1;
	pthread_mutex_lock(&p->lock);
	opened(p, now);
	pthread_mutex_unlock(&p->lock);
	return 0;
}

/* A fault may stand before what happened earlier: all else comes first. How many there were. */
static int read_events(struct pager *p, struct space *s)
{
	struct uffd_event e[UFFD_EVENTS_MAX];
	void *room = pager_inbox(p, s);
	struct error err, why;
	uint64_t now;
	int n, rc = 0;

	gate_enter(p, true);
	n = uffd_read(s->uffd, room, e);
	for (int i = 0; i < n; i++) {
		if (e[i].kind != UFFD_FAULT) {
			s->strays = 0;
			if (pager_event(p, s, &e[i], rc ? &why : &err))
				rc = -1;
		}
		if (room && !rc)
			uffd_heeded(room, (unsigned)i);
	}
	gate_leave(p, true);
	now = pager_clock();
	for (int i = 0; i < n && !rc; i++)
		if (e[i].kind == UFFD_FAULT && take_fault(p, s, &e[i], now))
			rc = err_set(&err, ST_NOMEM, "no memory for the guest's faults");
	if (n < 0)
		rc = err_sys(&err, ST_UNSUPPORTED, errno, "cannot read the guest's faults");
	if (rc)
		pager_fail(p, &err);
	return n;
}

/* Nothing is said on that connection: it only ends. */
static void look_at_peer(struct pager *p)
{
	char ignored[64];
	ssize_t n = recv(p->peer, ignored, sizeof(ignored), MSG_DONTWAIT);

	if (n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR)))
		return;
	close(p->peer);
	p->peer = -1;
	/* a process that closes it and lives on still needs its pages */
	if (p->pidfd < 0)
		pager_set_ended(p);
}

enum { AT_STOP, AT_MORE, AT_CANCEL, AT_PEER, AT_PID, AT_SPACES };

static unsigned prepare_poll(struct pager *p, struct pollfd *fds)
{
	fds[AT_STOP] = (struct pollfd){ .fd = p->stop_fd, .events = POLLIN };
	fds[AT_MORE] = (struct pollfd){ .fd = p->more_fd, .events = POLLIN };
	fds[AT_CANCEL] = (struct pollfd){ .fd = p->o.cancel->fd, .events = POLLIN };
	fds[AT_PEER] = (struct pollfd){ .fd = p->peer, .events = POLLIN };
	fds[AT_PID] = (struct pollfd){ .fd = p->pidfd, .events = POLLIN };
	for (unsigned i = 0; i < p->nspaces; i++)
		fds[AT_SPACES + i] =
			(struct pollfd){ .fd = p->spaces[i].gone ? -1 : p->spaces[i].uffd,
					 .events = POLLIN };
	return AT_SPACES + p->nspaces;
}

/* False: the end. */
static bool look_around(struct pager *p, const struct pollfd *fds)
{
	struct error err;

	if (fds[AT_STOP].revents)
		return false;
	if (fds[AT_CANCEL].revents) {
		cancel_reason(p->o.cancel, &err);
		pager_fail(p, &err);
		return false;
	}
	if (fds[AT_MORE].revents)
		pager_take_more(p);
	if (fds[AT_PEER].revents)
		look_at_peer(p);
	if (fds[AT_PID].revents)
		pager_set_ended(p);
	return !atomic_load(&p->ended);
}

void *pager_fault_thread(void *arg)
{
	struct pager *p = arg;
	struct pollfd fds[AT_SPACES + GUEST_SPACES_MAX];
	int wait = -1;

	for (;;) {
		unsigned n = prepare_poll(p, fds);

		if (poll(fds, n, wait) < 0 && errno != EINTR)
			continue;
		if (!look_around(p, fds))
			return NULL;
		for (unsigned i = AT_SPACES; i < n; i++)
			if (fds[i].fd >= 0 && fds[i].revents &&
			    read_events(p, &p->spaces[i - AT_SPACES]) < 0)
				return NULL;
		if (!wait)
			sched_yield();
		wait = answer_all(p);
		if (wait < 0)
			around_bring(p);
	}
}
