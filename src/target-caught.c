// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * COMMAND, or a process that runs already, is the guest: it maps IMAGE, a file of holes, and what
 * it touches comes from the image that is the source. The catcher (catch.h) tells of mappings; each
 * is given to the pager before the thread that made it goes on. A thread of this file listens to it
 * while the migration thread pushes.
 *
 * A private mapping has pages of its own, and they never reach the file; so what is pushed is
 * written there, too, for a process that maps it later.
 */
#include "lazy.h"

#include "again.h"
#include "broker.h"
#include "catch.h"
#include "image-file.h"
#include "log.h"
#include "uffd.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define LISTEN_MS 200
#define EARLY_MS  2000
#define READY_MS  10
#define HELD_MAX  256 /* threads that map IMAGE before COMMIT; each waits with its first one */

struct caught {
	struct lazy *l;
	struct image_file file;
	bool made;	    /* by us: without a guest it goes again */
	bool runs;	    /* COMMAND was started, and nobody has said that it ended */
	bool owns;	    /* somebody may have seen memory: it is the guest, whatever fails */
	bool lets;	    /* before COMMIT it goes on behind a mapping, to its first page */
	atomic_bool ready;  /* with lets: it has said READY=1 */
	bool known, shared; /* of the first mapping, and so of all */
	struct {
		pid_t pid;
		int uffd;
		bool served; /* the pager has one of its own */
		bool is_new; /* of a guest that is served on: the ledger does not mean this one */
	} spaces[GUEST_SPACES_MAX];
	unsigned nspaces;
	uint32_t held[HELD_MAX]; /* whose mappings are served, and who wait for COMMIT */
	unsigned nheld;		 /* with owns under the lock, where there is a source to wait for */
	struct {
		int uffd;
		unsigned serial;
		uint32_t number;      /* of it, at who served before */
		bool noted;	      /* the ledger knows it */
	} children[GUEST_SPACES_MAX]; /* forked ones of a guest that is served on */
	unsigned nchildren;
	bool taking_up; /* what comes was there before */

	pthread_t thread;
	bool listens;
	atomic_bool stop;	 /* listen no more */
	atomic_bool leaving;	 /* only to the last word, and not longer than the session */
	atomic_bool ended, left; /* what the catcher has said last */
	int wstatus;		 /* with ended */

	pthread_mutex_t lock;
	bool over; /* all has come: a new mapping needs nobody; under the lock */
};

static const char *what(const struct caught *c)
{
	return c->l->ss->cfg->guest ? "the guest" : "COMMAND";
}

/* ---- the file ---- */

/* Its size and its holes come from the catcher, which sees first that nobody maps it. */
static int check_file(struct caught *c, uint64_t size, struct error *err)
{
	const char *path = c->l->ss->cfg->image;
	uint32_t page;

	if (catch_check_file(c->file.fd, path, &page, err))
		return -1;
	if (size % page) {
		err_set(err, ST_UNSUPPORTED,
			"%s has 0x%" PRIx64 " bytes, and %s has pages of 0x%x bytes",
			lazy_source(c->l), size, path, page);
		return err_hint(err, "let IMAGE lie where pages are smaller: /dev/shm");
	}
	if (c->l->ss->cfg->guest && c->file.size != size) {
		err_set(err, ST_UNSUPPORTED,
			"%s has 0x%" PRIx64 " bytes, and the source has 0x%" PRIx64, path,
			c->file.size, size);
		return err_hint(err, "start the guest with a memory of that size");
	}
	return 0;
}

/* --force takes away what is in IMAGE, which must not be the only copy. */
static int check_not_source(const struct caught *c, struct error *err)
{
	const struct session *ss = c->l->ss;
	struct stat st;

	if (fstat(c->l->img->blocks[0].fd, &st))
		return err_sys(err, ST_FILE, errno, "cannot look at %s", ss->uri.path);
	if (st.st_dev != c->file.dev || st.st_ino != c->file.ino)
		return 0;
	err_set(err, ST_FILE, "%s is the source itself", ss->cfg->image);
	return err_hint(err, "name another file: the source is only read, and IMAGE is emptied");
}

int caught_open(struct lazy *l, struct error *err)
{
	const struct config *cfg = l->ss->cfg;
	struct caught *c = calloc(1, sizeof(*c));

	if (!c)
		return err_set(err, ST_NOMEM, "no memory for a guest");
	c->l = l;
	c->file.fd = -1;
	pthread_mutex_init(&c->lock, NULL);
	l->caught = c;
	if (image_file_open(&c->file, cfg->image, O_RDWR, 0, err)) {
		if (err->sys != ENOENT || cfg->guest)
			return -1;
		if (image_file_open(&c->file, cfg->image, O_RDWR | O_CREAT | O_EXCL, 0600, err))
			return -1;
		c->made = true;
	}
	if (!l->pull && check_not_source(c, err))
		return -1;
	if (!cfg->force && !cfg->resume && !image_file_empty(&c->file)) {
		err_set(err, ST_FILE, "%s is there and not empty", cfg->image);
		return err_hint(err, "--force takes its content away");
	}
	return 0;
}

uint64_t caught_size(const struct lazy *l)
{
	return l->caught->file.size;
}

int caught_check(struct lazy *l, uint64_t size, struct error *err)
{
	return check_file(l->caught, size, err);
}

static int write_file(struct caught *c, uint64_t offset, const void *buf, size_t len,
		      struct error *err)
{
	if (c->file.kind == FILE_HUGE)
		return err_set(err, ST_UNSUPPORTED,
			       "%s maps a part of IMAGE only, or maps it private, on hugetlbfs",
			       what(c));
	if (!image_file_write(&c->file, offset, buf, len))
		return 0;
	return err_sys(err, ST_FILE, errno, "cannot write to %s", c->l->ss->cfg->image);
}

/*
 * What whoever served before has stored without noting it is the guest's, who may have written to
 * it since.
 */
static int store_missing(struct caught *c, uint64_t offset, const uint8_t *buf, size_t len,
			 struct error *err)
{
	uint64_t end = offset + len, start, until;

	for (uint64_t at = offset; at < end; at = until) {
		if (image_file_next_data(&c->file, c->l->ss->cfg->image, at, &start, &until, err))
			return -1;
		if (start > end)
			start = end;
		if (start > at && write_file(c, at, buf + (at - offset), start - at, err))
			return -1;
		if (start == end)
			return 0;
	}
	return 0;
}

int caught_store(void *arg, unsigned block, uint64_t offset, const void *buf, size_t len,
		 struct error *err)
{
	struct lazy *l = arg;

	(void)block;
	if (l->ss->adopted && l->caught->file.kind == FILE_REGULAR)
		return store_missing(l->caught, offset, buf, len, err);
	return write_file(l->caught, offset, buf, len, err);
}

int caught_keep(struct lazy *l, uint64_t offset, const void *buf, size_t len, struct error *err)
{
	if (!l->caught || l->caught->shared)
		return 0;
	return write_file(l->caught, offset, buf, len, err);
}

void caught_forked(void *arg, int uffd, unsigned serial)
{
	struct error err;

	(void)arg;
	if (catch_keep(uffd, serial, &err))
		log_warn("a forked child would read zeros if this process were killed: %s",
			 err.msg);
}

int caught_ledger(struct error *err)
{
	int fd = memfd_create("migtool-guest", MFD_CLOEXEC);

	if (fd < 0)
		return err_sys(err, ST_NOMEM, errno, "no memory for the list of the guest's pages");
	if (!catch_ledger(fd, err))
		return fd;
	close(fd);
	return -1;
}

/* ---- mappings ---- */

static int find_space(const struct caught *c, pid_t pid)
{
	for (unsigned i = c->nspaces; i-- > 0;)
		if (c->spaces[i].pid == pid)
			return (int)i;
	return -1;
}

/* A pid's second one: it has called exec, or the number has come again. */
static int add_space(struct caught *c, const struct catch_event *e, struct error *err)
{
	int at = find_space(c, e->pid);

	if (at < 0 && c->nspaces == GUEST_SPACES_MAX) {
		close(e->uffd);
		return err_set(err, ST_UNSUPPORTED, "more than %d processes map IMAGE",
			       GUEST_SPACES_MAX);
	}
	if (at >= 0)
		close(c->spaces[at].uffd);
	else
		at = (int)c->nspaces++;
	c->spaces[at].pid = e->pid;
	c->spaces[at].uffd = e->uffd;
	c->spaces[at].served = false;
	c->spaces[at].is_new = e->token != 0;
	return 0;
}

static int add_child(struct caught *c, const struct catch_event *e)
{
	/* the list of who served had no more */
	if (c->nchildren == GUEST_SPACES_MAX) {
		close(e->uffd);
		return 0;
	}
	c->children[c->nchildren].uffd = e->uffd;
	c->children[c->nchildren].noted = false;
	c->children[c->nchildren].number = (uint32_t)e->wstatus;
	c->children[c->nchildren++].serial = e->token;
	return 0;
}

/* ---- a guest that is served on ---- */

/* A descriptor for a space of the ledger; -1: it has ended meanwhile. */
static int uffd_of(struct caught *c, const struct ledger_space *s)
{
	int at = s->pid ? find_space(c, s->pid) : -1;

	if (at >= 0 && !c->spaces[at].is_new) {
		c->spaces[at].served = true;
		return fcntl(c->spaces[at].uffd, F_DUPFD_CLOEXEC, 3);
	}
	for (unsigned i = 0; !s->pid && i < c->nchildren; i++)
		if (c->children[i].serial == s->serial) {
			c->children[i].noted = true;
			return fcntl(c->children[i].uffd, F_DUPFD_CLOEXEC, 3);
		}
	return -1;
}

/* Who served before was killed when they had just begun. Those that have ended are noted no more.
 */
static void give_unnoted(struct caught *c, struct guest_memory *g)
{
	const uint64_t anywhere = 1u << 20;

	for (unsigned i = 0; i < c->nchildren; i++)
		if (!c->children[i].noted &&
		    !uffd_gone(c->children[i].uffd, anywhere, (uint32_t)sysconf(_SC_PAGESIZE))) {
			g->children[g->nchildren].uffd = c->children[i].uffd;
			g->children[g->nchildren++].number = c->children[i].number;
			c->children[i--] = c->children[--c->nchildren];
		}
}

static void close_children(struct caught *c)
{
	while (c->nchildren)
		close(c->children[--c->nchildren].uffd);
}

static int take_up(struct caught *c, int fd, struct error *err)
{
	const struct ledger_layout *known;
	struct guest_memory g;
	int rc = 0;

	/* the first descriptor of it was the tool's that is gone; a second one would be a mistake
	 */
	if (fd < 0 || c->l->ledger) {
		close(fd);
		return err_set(err, ST_COMMAND, "the catcher has two lists of the guest's pages");
	}
	guestmem_init(&g);
	c->l->ledger = ledger_open(fd, err);
	if (!c->l->ledger)
		return -1;
	c->shared = ledger_guest(c->l->ledger)->shared;
	c->known = c->taking_up = true;
	known = ledger_layout(c->l->ledger);
	for (unsigned i = 0; !rc && i < known->nspaces; i++) {
		int uffd = uffd_of(c, &known->spaces[i]);

		if (uffd >= 0)
			rc = guestmem_resume(&g, c->l->ledger, i, uffd, err);
	}
	give_unnoted(c, &g);
	close_children(c);
	if (!rc && g.nspaces)
		return lazy_start_pager(c->l, &g, err);
	if (!rc && g.nchildren)
		rc = guestmem_orphan(err);
	guestmem_free(&g);
	return rc;
}

/* It waits for our agreement, and whoever is gone has noted it before he could agree. */
static bool is_known(const struct caught *c, const struct catch_event *e)
{
	const struct ledger_layout *known;
	int at = find_space(c, e->pid);

	if (!c->taking_up || at < 0 || c->spaces[at].is_new)
		return false;
	known = ledger_layout(c->l->ledger);
	for (unsigned i = 0; i < known->nviews; i++)
		if (known->spaces[known->views[i].space].pid == e->pid &&
		    known->views[i].address == e->region.address &&
		    known->views[i].len == e->region.len)
			return true;
	return false;
}

/* ---- mappings of it ---- */

static int first_mapping(struct caught *c, const struct guest_region *r, int uffd, pid_t pid,
			 struct error *err)
{
	struct guest_memory g;
	struct guest_space *s;

	guestmem_init(&g);
	g.shared = c->shared;
	s = guestmem_add_space(&g, uffd, pid, err);
	if (s && !guestmem_add_region(s, r, err))
		return lazy_start_pager(c->l, &g, err);
	guestmem_free(&g);
	return -1;
}

static int serve(struct caught *c, unsigned at, const struct guest_region *r, struct error *err)
{
	int uffd = -1;

	if (!c->spaces[at].served) {
		uffd = fcntl(c->spaces[at].uffd, F_DUPFD_CLOEXEC, 3);
		if (uffd < 0)
			return err_sys(err, ST_NOMEM, errno, "no descriptor for the guest");
		c->spaces[at].served = true;
	}
	if (!c->l->pager)
		return first_mapping(c, r, uffd, c->spaces[at].pid, err);
	return pager_add(c->l->pager, uffd, c->spaces[at].pid, r, err);
}

/* From here on the guest waits when we fail. */
static int own(struct caught *c, struct error *err)
{
	struct session *ss = c->l->ss;

	if (c->owns)
		return 0;
	if (c->l->pull) { /* who has given it up so far says COMMIT */
		c->owns = ss->cfg->guest;
		return 0;
	}
	if (session_commit(ss, err))
		return -1;
	c->owns = true;
	ss->serving = true;
	ss->postcopy = true;
	ss->owner = OWNER_DESTINATION;
	return 0;
}

/* Before COMMIT nobody goes on with the memory: COMMAND can still be ended as if it had none. */
static int hold(struct caught *c, uint32_t token, bool *held, struct error *err)
{
	int rc = 0;

	pthread_mutex_lock(&c->lock);
	*held = !c->owns;
	if (*held && !c->lets && c->nheld == HELD_MAX)
		rc = err_set(err, ST_UNSUPPORTED, "more than %d threads map IMAGE at once",
			     HELD_MAX);
	else if (*held && !c->lets)
		c->held[c->nheld++] = token;
	pthread_mutex_unlock(&c->lock);
	return rc;
}

static int check_kind(const struct caught *c, bool shared, struct error *err)
{
	if (c->known && c->shared != shared)
		return err_set(err, ST_UNSUPPORTED, "%s maps IMAGE both shared and private",
			       what(c));
	/* what is pushed could not be kept for a process that maps it later */
	if (c->file.kind != FILE_HUGE || shared)
		return 0;
	err_set(err, ST_UNSUPPORTED, "%s maps IMAGE private, on hugetlbfs", what(c));
	return err_hint(err, "let it map IMAGE shared (QEMU: share=on), or use /dev/shm");
}

static int take_region(struct caught *c, const struct catch_event *e, struct error *err)
{
	struct guest_region r = { .address = e->region.address,
				  .len = e->region.len,
				  .block = e->region.block,
				  .offset = e->region.offset,
				  .page = e->region.page };
	int at = find_space(c, e->pid), rc;
	bool held;

	if (at < 0)
		return err_set(err, ST_COMMAND, "a mapping of nobody");
	pthread_mutex_lock(&c->lock);
	if (c->over) {
		uffd_unregister(c->spaces[at].uffd, r.address, r.len);
		rc = 0;
	} else {
		rc = check_kind(c, e->region.shared, err);
		if (!rc && !c->known) /* later the push reads it */
			c->shared = e->region.shared;
		c->known = true;
		if (!rc && !is_known(c, e))
			rc = serve(c, (unsigned)at, &r, err);
	}
	pthread_mutex_unlock(&c->lock);
	if (rc || own(c, err) || hold(c, e->token, &held, err))
		return -1;
	if (held && !c->lets)
		return 0;
	/* gone: what comes next says so */
	held ? catch_let(e->token, err) : catch_ack(e->token, err);
	err_clear(err);
	return 0;
}

/* ---- what the catcher says ---- */

static int take_left(struct caught *c, struct error *err)
{
	bool over;

	pthread_mutex_lock(&c->lock);
	over = c->over;
	pthread_mutex_unlock(&c->lock);
	if (!over)
		return err_set(err, ST_COMMAND, "%s goes on without its memory, which is not there",
			       what(c));
	c->left = true;
	return 0;
}

static int take_ended(struct caught *c, int wstatus, struct error *err)
{
	bool early;

	c->wstatus = wstatus;
	c->ended = true;
	c->runs = false;
	if (c->l->pager)
		pager_end(c->l->pager);
	pthread_mutex_lock(&c->lock);
	early = c->l->pull && !c->owns;
	pthread_mutex_unlock(&c->lock);
	/* else it is nobody's failure: it needs no more */
	return early ? caught_early(c->l, err) : 0;
}

static int take_event(struct caught *c, const struct catch_event *e, struct error *err)
{
	switch (e->kind) {
	case CATCH_RUNS:
		log_verbose("%s runs, process %ld", what(c), (long)e->pid);
		c->runs = true;
		c->taking_up = false;
		return 0;
	case CATCH_LEDGER:
		return take_up(c, e->uffd, err);
	case CATCH_SPACE:
		if (!e->pid)
			return add_child(c, e);
		/* what a process that ran before had in its memory is gone */
		return add_space(c, e, err) || (c->l->ss->cfg->guest && own(c, err)) ? -1 : 0;
	case CATCH_REGION:
		return take_region(c, e, err);
	case CATCH_WARNS:
		log_warn("%s", e->why.msg);
		if (e->why.hint[0])
			log_warn("hint: %s", e->why.hint);
		return 0;
	case CATCH_ENDED:
		return take_ended(c, e->wstatus, err);
	case CATCH_LEFT:
		return take_left(c, err);
	case CATCH_READY:
		log_verbose("%s says that it is ready", what(c));
		c->ready = true;
		return 0;
	case CATCH_FAILED:
	default:
		c->runs = false;
		*err = e->why;
		return -1;
	}
}

static void *listen_to_it(void *arg)
{
	struct caught *c = arg;
	struct session *ss = c->l->ss;
	struct catch_event e;
	struct error err = { 0 };
	int rc = 0;

	while (rc >= 0 && !c->ended && !c->left && !c->stop &&
	       !(c->leaving && cancel_fired(&ss->cancel))) {
		rc = catch_next(c->l->cancel, LISTEN_MS, &e, &err);
		if (rc > 0 && take_event(c, &e, &err))
			rc = -1;
	}
	if (rc < 0)
		lazy_fail(c->l, &err);
	return NULL;
}

static void end_listening(struct caught *c)
{
	if (c->listens)
		pthread_join(c->thread, NULL);
	c->listens = false;
}

/* ---- the stages ---- */

int caught_early(struct lazy *l, struct error *err)
{
	struct caught *c = l->caught;
	const char *who = what(c);

	/* that its memory is gone may be seen first */
	for (int ms = 0; c->listens && !c->ended && ms < EARLY_MS; ms += 10)
		usleep(10000);
	if (!c->ended)
		return err_set(err, ST_COMMAND,
			       "%s goes on without its memory, which was not complete", who);
	if (WIFSIGNALED(c->wstatus))
		return err_set(err, ST_COMMAND,
			       "%s was ended by signal %d before its memory was complete", who,
			       WTERMSIG(c->wstatus));
	return err_set(err, ST_COMMAND, "%s ended with status %d before its memory was complete",
		       who, WEXITSTATUS(c->wstatus));
}

/* The next event; a source that leaves is noticed meanwhile. */
static int next_event(struct lazy *l, struct catch_event *e, struct error *err)
{
	int rc;

	do {
		rc = catch_next(&l->ss->cancel, l->pull ? LISTEN_MS : -1, e, err);
		if (!rc && pull_check(l->pull, err))
			return -1;
	} while (!rc);
	return rc < 0 ? -1 : 0;
}

/* Until the first mapping is served. */
static int await_mapping(struct caught *c, struct error *err)
{
	struct session *ss = c->l->ss;
	/* of a guest that is taken up the source is not known yet */
	struct catch_block block = { c->file.fd,
				     c->l->img ? c->l->img->blocks[0].size : c->file.size };
	struct catch_event e;

	/* a process that runs already is not asked whether it may be stopped in the middle */
	if (ss->cfg->guest && !c->l->pull && session_commit(ss, err))
		return -1;
	c->lets = c->l->pull && !ss->cfg->guest &&
		  (ss->cfg->notify || ss->caps.on[CAP_SWITCHOVER_ACK]);
	if ((c->lets && catch_notify(err)) || catch_go(&block, 1, err))
		return -1;
	while (!c->l->pager) {
		if (next_event(c->l, &e, err) || take_event(c, &e, err))
			return -1;
		if (c->ended)
			return caught_early(c->l, err);
	}
	return 0;
}

static int say_lost(struct lazy *l, struct error *err)
{
	return l->pull && !l->ss->committed ? -1 : caught_lost(l, err);
}

int caught_ready(struct lazy *l, struct error *err)
{
	struct caught *c = l->caught;
	struct session *ss = l->ss;
	int rc = await_mapping(c, err);

	if (rc && c->owns)
		return say_lost(l, err);
	if (rc)
		return -1;
	if (!l->pull)
		snprintf(ss->peer, sizeof(ss->peer), "%s", ss->uri.path);
	if (ss->adopted)
		log_info("%s is taken up again; its memory comes from %s", what(c), lazy_source(l));
	else
		log_info("%s has mapped %s; its memory comes from %s", what(c), ss->cfg->image,
			 lazy_source(l));
	rc = pthread_create(&c->thread, NULL, listen_to_it, c);
	if (rc) {
		err_sys(err, ST_NOMEM, rc, "cannot start a thread");
		return say_lost(l, err);
	}
	c->listens = true;
	return 0;
}

/* Who can do no more without his memory does not say so. */
static bool is_ready(const struct caught *c)
{
	struct pager_stats st;

	if (!c->lets || c->owns || c->ready)
		return true;
	if (c->l->ss->cfg->notify)
		return false;
	pager_get_stats(c->l->pager, &st);
	return st.faults > 0;
}

/* It may have a thread beside that gets ready, or wait for ever. */
static bool is_stuck(const struct caught *c)
{
	struct pager_stats st;

	pager_get_stats(c->l->pager, &st);
	return st.waiting > 0;
}

int caught_await(struct lazy *l, struct error *err)
{
	const struct caught *c = l->caught;
	bool said = false;

	if (!is_ready(c))
		log_verbose("waiting for %s to be ready (READY=1 on its NOTIFY_SOCKET)", what(c));
	while (!is_ready(c)) {
		if (!said && is_stuck(c)) {
			said = true;
			log_warn("%s waits for its memory and has not said READY=1: nothing is "
				 "handed over before it does (--notify)",
				 what(c));
		}
		if (cancel_wait(&l->ss->cancel, -1, 0, READY_MS, err) < 0 ||
		    pull_check(l->pull, err))
			return -1;
	}
	return 0;
}

void caught_commit(struct lazy *l)
{
	struct caught *c = l->caught;
	struct error ignored;

	pthread_mutex_lock(&c->lock);
	c->owns = true;
	if (c->lets)
		catch_ours(&ignored);
	for (unsigned i = 0; i < c->nheld; i++)
		catch_ack(c->held[i], &ignored);
	c->nheld = 0;
	pthread_mutex_unlock(&c->lock);
}

int caught_lost(struct lazy *l, struct error *err)
{
	const struct caught *c = l->caught;
	long pid = c->nspaces ? (long)c->spaces[0].pid : (long)l->ss->cfg->guest;
	char *again = lazy_again(l->ss->cfg, (pid_t)pid), text[64];

	snprintf(text, sizeof(text), "%s (process %ld)", what(c), pid);
	lazy_lost(l, text, again ? again : "recv --resume takes it up again", err);
	free(again);
	return -1;
}

int caught_complete(struct lazy *l, struct error *err)
{
	struct caught *c = l->caught;
	int rc;

	if (!c)
		return pager_complete(l->pager, err);
	pthread_mutex_lock(&c->lock);
	rc = pager_complete(l->pager, err);
	c->over = !rc;
	pthread_mutex_unlock(&c->lock);
	if (rc)
		return -1;
	/* one that has ended meanwhile does not hear it; its last word is still to be read */
	catch_complete(err);
	err_clear(err);
	c->leaving = true;
	end_listening(c);
	if (c->ended || c->left)
		return 0;
	return cancel_fired(&l->ss->cancel) ? cancel_reason(&l->ss->cancel, err)
					    : err_set(err, ST_COMMAND, "the catcher is gone");
}

void caught_stop(struct lazy *l)
{
	if (!l->caught)
		return;
	l->caught->stop = true;
	end_listening(l->caught);
}

void caught_close(struct lazy *l)
{
	struct caught *c = l->caught;

	if (!c)
		return;
	caught_stop(l);
	if (c->runs && !c->owns && !l->ss->cfg->guest)
		log_info("COMMAND is ended: it has seen nothing of its memory");
	catch_stop();
	for (unsigned i = 0; i < c->nspaces; i++)
		close(c->spaces[i].uffd);
	close_children(c);
	if (c->made && !c->owns)
		broker_unlink(l->ss->cfg->image);
	image_file_close(&c->file);
	pthread_mutex_destroy(&c->lock);
	free(c);
	l->caught = NULL;
}
