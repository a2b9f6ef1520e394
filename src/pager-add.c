// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * More of the guest's memory, while it is served: another mapping of a process, or another process.
 * The fault thread alone changes what lies where; so whoever brings a mapping hands it over and
 * waits until that thread has it.
 */
#include "pager-internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct space *find_space(struct pager *p, pid_t pid)
{
	for (unsigned i = 0; i < p->nspaces; i++)
		if (p->spaces[i].pid == pid && !p->spaces[i].gone)
			return &p->spaces[i];
	return NULL;
}

static int add_view(struct pager *p, struct space *s, const struct guest_region *r,
		    struct error *err)
{
	struct view *v = realloc(s->views, (s->n + 1) * sizeof(*v));
	unsigned at = s->n;

	if (!v)
		return err_set(err, ST_NOMEM, "no memory for what is known of the guest's pages");
	s->views = v;
	while (at && v[at - 1].r.address > r->address)
		at--;
	memmove(&v[at + 1], &v[at], (s->n - at) * sizeof(*v));
	s->n++;
	return pager_view_init(p, &v[at], r, err);
}

/* By the fault thread, with the gate. */
static int take(struct pager *p, struct pager_more *m)
{
	struct space *s = find_space(p, m->pid), *before = s;
	const struct guest_region *r = &m->region;

	if (r->block >= p->o.nblocks || r->len > p->sizes[r->block] ||
	    r->offset > p->sizes[r->block] - r->len)
		return err_set(m->err, ST_DATA, "the guest maps what its memory does not have");
	if (m->region.page != p->page)
		return err_set(m->err, ST_UNSUPPORTED,
			       "the guest maps its memory with pages of %u "
			       "and of %u bytes",
			       m->region.page, p->page);
	if (m->uffd < 0 && !s)
		return err_set(m->err, ST_COMMAND, "a mapping of nobody");
	if (m->uffd >= 0) {
		s = space_new(p, m->uffd, m->pid, NULL, m->err);
		if (!s)
			return -1;
		m->uffd = -1;
		/* the process has called exec, or the number belongs to another one now */
		if (before && before != s)
			space_gone(p, before);
	}
	if (add_view(p, s, &m->region, m->err) || pager_note(p, m->err))
		return -1;
	/* a thread of the guest may have been there before us, and been passed over */
	uffd_wake(s->uffd, m->region.address, m->region.len);
	return 0;
}

void pager_take_more(struct pager *p)
{
	struct pager_more *m;
	uint64_t n;
	int rc;

	if (read(p->more_fd, &n, sizeof(n)) < 0)
		return;
	pthread_mutex_lock(&p->lock);
	m = p->more;
	p->more = NULL;
	pthread_mutex_unlock(&p->lock);
	if (!m)
		return;
	gate_enter(p, true);
	rc = take(p, m);
	gate_leave(p, true);
	pthread_mutex_lock(&p->lock);
	m->rc = rc;
	m->done = true;
	pthread_cond_broadcast(&p->changed);
	pthread_mutex_unlock(&p->lock);
}

int pager_add(struct pager *p, int uffd, pid_t pid, const struct guest_region *r, struct error *err)
{
	struct pager_more m = { .uffd = uffd, .pid = pid, .region = *r, .err = err };
	uint64_t one = 1;

	pthread_mutex_lock(&p->lock);
	p->more = &m;
	while (write(p->more_fd, &one, sizeof(one)) < 0 && errno == EINTR)
		;
	/* who has taken it says so in any case */
	while (!m.done && !(p->more && (p->failed || atomic_load(&p->ended))))
		pthread_cond_wait(&p->changed, &p->lock);
	if (!m.done) {
		p->more = NULL;
		m.rc = p->failed ? (*err = p->why, -1)
				 : err_set(err, ST_COMMAND, "the guest has ended");
	}
	pthread_mutex_unlock(&p->lock);
	if (m.uffd >= 0)
		close(m.uffd);
	return m.rc;
}

void pager_end(struct pager *p)
{
	uint64_t one = 1;

	pager_set_ended(p);
	while (write(p->more_fd, &one, sizeof(one)) < 0 && errno == EINTR)
		;
}
