// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Two hands put pages into the guest: the fault thread those that somebody waits for (if they are
 * on this host), and whoever calls pager_arrived() what comes. A page is placed by UFFDIO_COPY, as
 * a whole and only if it is missing, so neither can spoil what the other, or the guest, has done.
 *
 * The guest drops pages, and then they are zero, not what the image has: a balloon's, say. The
 * kernel tells of it by an event, makes every call fail (EAGAIN) until the event was read, and then
 * drops them. From the moment it was read nobody may place these pages any more, or the guest would
 * see old content. So reading, and noting what was dropped, excludes placing: both are done inside
 * the gate, a lock that the fault thread gets first. Whoever fills the background goes through it
 * 64 KiB at a time, and the fault thread waits for no more than that. Its own pages need no gate,
 * because nobody else reads events.
 *
 * A missing page that is done already was dropped without an event, by somebody else, or a second
 * thread asked for it just before it came. A page of zeros is right in the first case, and in the
 * second the kernel says that the page is there; done is set only after the page is.
 *
 * In a private mapping of a file a page that was dropped is the file's again. It may not have come
 * there, so it is fetched anew whenever it is missing, done or not.
 *
 * How it ends. pager_complete(): what is missing still is zero, so the ranges are unregistered and
 * the kernel's own zeros are right. In every other case our descriptors are closed, and since the
 * guest's process has its own copy, its threads wait. (A forked child has none; see the manual.)
 */
#include "pager-internal.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

uint64_t pager_clock(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

static void wake_waiters(struct pager *p)
{
	pthread_mutex_lock(&p->lock);
	pthread_cond_broadcast(&p->changed);
	pthread_mutex_unlock(&p->lock);
}

void pager_fail(struct pager *p, const struct error *why)
{
	pthread_mutex_lock(&p->lock);
	if (!p->failed)
		p->why = *why;
	p->failed = true;
	pthread_cond_broadcast(&p->changed);
	pthread_mutex_unlock(&p->lock);
}

void pager_set_ended(struct pager *p)
{
	atomic_store(&p->ended, true);
	wake_waiters(p);
}

bool pager_guest_ended(const struct pager *p)
{
	return atomic_load(&p->ended);
}

/* ---- the start ---- */

static int alloc_pager(struct pager *p, struct error *err)
{
	pthread_condattr_t attr;

	pthread_mutex_init(&p->gate, NULL);
	pthread_cond_init(&p->open, NULL);
	pthread_mutex_init(&p->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&p->changed, &attr);
	pthread_condattr_destroy(&attr);
	p->pidfd = p->peer = -1;
	p->stop_fd = eventfd(0, EFD_CLOEXEC);
	p->more_fd = eventfd(0, EFD_CLOEXEC);
	p->sizes = calloc(p->o.nblocks, sizeof(*p->sizes));
	if (p->stop_fd < 0 || p->more_fd < 0 || !p->sizes)
		return err_set(err, ST_NOMEM, "no memory for serving the guest's faults");
	memcpy(p->sizes, p->o.sizes, p->o.nblocks * sizeof(*p->sizes));
	return 0;
}

static int run_thread(struct pager *p, struct error *err)
{
	int e;

	p->buf = mmap(NULL, p->page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	p->around.buf = malloc(FAULTAROUND_BYTES);
	if (p->buf == MAP_FAILED || !p->around.buf) {
		p->buf = p->buf == MAP_FAILED ? NULL : p->buf;
		return err_set(err, ST_NOMEM, "no memory for a page of the guest");
	}
	e = pthread_create(&p->thread, NULL, pager_fault_thread, p);
	if (e)
		return err_sys(err, ST_NOMEM, e, "cannot start the fault thread");
	p->running = true;
	return 0;
}

struct pager *pager_start(struct guest_memory *guest, const struct pager_options *o,
			  struct error *err)
{
	struct pager *p = calloc(1, sizeof(*p));
	int rc = p ? 0 : err_set(err, ST_NOMEM, "no memory for serving the guest's faults");

	if (p) {
		p->o = *o;
		if (!p->o.bringer)
			p->o.bringer = p->o.cancel;
		rc = alloc_pager(p, err);
	}
	if (!rc)
		rc = guestmem_check(guest, o->sizes, o->nblocks, err);
	if (!rc)
		rc = pager_take_spaces(p, guest, err);
	if (!rc)
		rc = run_thread(p, err);
	guestmem_free(guest);
	if (!rc)
		return p;
	pager_stop(p);
	return NULL;
}

/* ---- the end ---- */

/* Page by page: something else has been mapped in between. */
static void unregister_pages(const struct space *s, const struct guest_region *r)
{
	for (uint64_t at = 0; at < r->len; at += r->page)
		uffd_unregister(s->uffd, r->address + at, r->page);
}

static int unregister_space(struct pager *p, struct space *s, struct error *err)
{
	for (unsigned i = 0; i < s->n; i++) {
		const struct guest_region *r = &s->views[i].r;

		switch (uffd_unregister(s->uffd, r->address, r->len)) {
		case UFFD_DONE:
			break;
		case UFFD_NOWHERE:
			unregister_pages(s, r);
			break;
		case UFFD_DEAD:
			space_gone(p, s);
			return 0;
		default:
			return err_sys(err, ST_UNSUPPORTED, errno,
				       "cannot let go of the guest's memory");
		}
	}
	return 0;
}

/*
 * With the gate. 1: an event is still to be read, and what it tells of may have been let go of at
 * its old place only: again, when it was.
 */
static int unregister_all(struct pager *p, struct error *err)
{
	uint64_t done;
	int busy = 0;

	for (unsigned i = 0; i < p->nspaces; i++) {
		struct space *s = &p->spaces[i];

		if (!s->gone && unregister_space(p, s, err))
			return -1;
	}
	for (unsigned i = 0; i < p->nspaces; i++) {
		const struct space *s = &p->spaces[i];
		const struct guest_region *r = s->n ? &s->views[0].r : NULL;

		if (r && !s->gone && uffd_zero(s->uffd, r->address, r->page, &done) == UFFD_BUSY)
			busy = 1;
	}
	return busy;
}

static int failure(struct pager *p, struct error *err)
{
	int rc = 0;

	pthread_mutex_lock(&p->lock);
	if (p->failed) {
		*err = p->why;
		rc = -1;
	}
	pthread_mutex_unlock(&p->lock);
	return rc;
}

int pager_complete(struct pager *p, struct error *err)
{
	for (;;) {
		int rc = failure(p, err);

		if (!rc) {
			if (p->o.ledger)
				ledger_set_complete(p->o.ledger);
			gate_enter(p, false);
			rc = unregister_all(p, err);
			gate_leave(p, false);
		}
		if (rc < 0)
			return -1;
		if (!rc || atomic_load(&p->ended))
			return 0;
		if (cancel_wait(p->o.bringer, -1, 0, 1, err) < 0)
			return -1;
	}
}

static void deadline_in(int ms, struct timespec *ts)
{
	clock_gettime(CLOCK_MONOTONIC, ts);
	ts->tv_sec += ms / 1000;
	ts->tv_nsec += ms % 1000 * 1000000L;
	if (ts->tv_nsec >= 1000000000L) {
		ts->tv_sec++;
		ts->tv_nsec -= 1000000000L;
	}
}

int pager_wait(struct pager *p, int timeout_ms, struct error *err)
{
	struct timespec until;
	int rc = 0, e = 0;

	deadline_in(timeout_ms < 0 ? 0 : timeout_ms, &until);
	pthread_mutex_lock(&p->lock);
	while (!p->failed && !atomic_load(&p->ended) && !e)
		e = timeout_ms < 0 ? pthread_cond_wait(&p->changed, &p->lock)
				   : pthread_cond_timedwait(&p->changed, &p->lock, &until);
	if (p->failed) {
		*err = p->why;
		rc = -1;
	} else if (atomic_load(&p->ended)) {
		rc = 1;
	}
	pthread_mutex_unlock(&p->lock);
	return rc;
}

uint64_t pager_next_missing(struct pager *p, unsigned block, uint64_t from)
{
	uint64_t best = p->sizes[block];

	gate_enter(p, false);
	for (unsigned i = 0; i < p->nspaces; i++) {
		for (unsigned j = 0; j < p->spaces[i].n; j++) {
			const struct view *v = &p->spaces[i].views[j];
			uint64_t at = from > v->r.offset ? from - v->r.offset : 0;
			size_t end = v->first + v->r.len / v->r.page, k;

			if (v->r.block != block || at >= v->r.len || v->r.offset >= best)
				continue;
			k = v->first + at / v->r.page;
			do
				k = bitmap_next_clear(&v->pages->done, k, end);
			while (k < end && bitmap_test(&v->pages->dropped, k) && ++k);
			at = v->r.offset + (k - v->first) * v->r.page;
			if (k < end && at < best)
				best = at;
		}
	}
	gate_leave(p, false);
	return best;
}

void pager_begins(struct pager *p)
{
	pthread_mutex_lock(&p->lock);
	p->begun = p->blocked_since = pager_clock();
	pthread_mutex_unlock(&p->lock);
}

void pager_get_stats(struct pager *p, struct pager_stats *out)
{
	pthread_mutex_lock(&p->lock);
	*out = p->stats;
	out->waiting = p->open_faults;
	if (p->open_faults)
		out->blocked_ns += pager_clock() - p->blocked_since;
	pthread_mutex_unlock(&p->lock);
}

void pager_halt(struct pager *p)
{
	uint64_t one = 1;
	struct error err;

	if (!p->running)
		return;
	while (write(p->stop_fd, &one, sizeof(one)) < 0 && errno == EINTR)
		;
	pthread_join(p->thread, NULL);
	p->running = false;
	/* nobody takes it now */
	err_set(&err, ST_COMMAND, "the guest is served no more");
	pager_fail(p, &err);
}

void pager_stop(struct pager *p)
{
	if (!p)
		return;
	pager_halt(p);
	pager_free_spaces(p);
	if (p->stop_fd >= 0)
		close(p->stop_fd);
	if (p->more_fd >= 0)
		close(p->more_fd);
	if (p->buf)
		munmap(p->buf, p->page);
	free(p->work.v);
	free(p->asked.v);
	free(p->around.buf);
	free(p->sizes);
	pthread_cond_destroy(&p->changed);
	pthread_cond_destroy(&p->open);
	pthread_mutex_destroy(&p->lock);
	pthread_mutex_destroy(&p->gate);
	free(p);
}
