// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A guest that runs before its memory is there, and the source without a peer: an image on this
 * host (image:PATH). Pages that the guest touches come at once; with --push=on the rest follows in
 * the background, in the order of --prefetch first. Where the source is on another host,
 * target-pull.c takes its place.
 *
 * The guest runs from the moment that its VMM has connected. So from then on nothing ends this
 * side lightly: the guest would wait for ever.
 */
#include "lazy.h"

#include "again.h"
#include "broker.h"
#include "handoff.h"
#include "log.h"
#include "takeup.h"
#include "warden.h"
#include "zero.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PUSH_BUFFER (256u << 10)
#define FULL_MS	    100
#define LOOK_MS	    250 /* at a source, while a VMM is waited for */

/* ---- open ---- */

static int announce(struct session *ss, struct error *err)
{
	const char *uri = listener_uri(ss->vmms);

	log_info("waiting for a VMM on %s", uri);
	/* else that line is the other host's */
	if (ss->uri.scheme == SCHEME_IMAGE && ss->cfg->ready_fd >= 0 &&
	    dprintf(ss->cfg->ready_fd, "%s\n", uri) < 0)
		return err_sys(err, ST_FILE, errno, "cannot write to --ready-fd %d",
			       ss->cfg->ready_fd);
	return 0;
}

static int open_image(struct lazy *l, struct error *err)
{
	struct session *ss = l->ss;
	struct image_source_opts opts = { .block_name = ss->cfg->block_name };
	uint64_t data;

	l->img = image_open(ss->uri.path, &opts, err);
	if (!l->img)
		return -1;
	if (l->img->nblocks != 1) {
		err_set(err, ST_UNSUPPORTED, "%s has %u blocks, and a VMM has one memory file",
			ss->uri.path, l->img->nblocks);
		return err_hint(err, "name one of the files in %s/ram", ss->uri.path);
	}
	/* a guest would read zeros of what somebody else gives back */
	if (image_hold(l->img, err) || image_data_bytes(l->img, &data, err))
		return -1;
	stat_set(&ss->stats.total, l->img->blocks[0].size);
	stat_set(&ss->stats.to_travel, data);
	stat_set(&ss->stats.holes, l->img->blocks[0].size - data);
	return 0;
}

int lazy_listen(struct session *ss, struct error *err)
{
	struct uri uri;
	char *text;
	int rc;

	if (asprintf(&text, "unix:%s", ss->cfg->uffd_socket) < 0)
		return err_set(err, ST_NOMEM, "no memory for serving a guest");
	rc = uri_parse(&uri, text, err);
	free(text);
	if (rc)
		return -1;
	ss->vmms = listener_open(&uri, &ss->cancel, err);
	uri_free(&uri);
	return ss->vmms ? announce(ss, err) : -1;
}

int lazy_open(struct session *ss, struct error *err)
{
	struct lazy *l = calloc(1, sizeof(*l));

	if (!l)
		return err_set(err, ST_NOMEM, "no memory for serving a guest");
	l->ss = ss;
	l->cancel = &ss->cancel;
	l->ledger_fd = takeup_fd();
	ss->lazy = l;
	ss->adopted = ss->cfg->resume;
	if (open_image(l, err) ||
	    (ss->cfg->prefetch && faultlog_read(&l->wanted, ss->cfg->prefetch, l->img, err)) ||
	    (ss->cfg->record && faultlog_check(ss->cfg->record, ss->cfg->force, err)))
		return -1;
	if (ss->cfg->uffd_socket)
		return ss->adopted ? 0 : lazy_listen(ss, err);
	if (caught_open(l, err))
		return -1;
	return caught_check(l, l->img->blocks[0].size, err);
}

/* ---- the guest ---- */

const char *lazy_source(const struct lazy *l)
{
	return l->pull ? "the source's image" : l->ss->uri.path;
}

static int read_page(void *arg, unsigned block, uint64_t offset, void *buf, size_t len, bool *zero,
		     struct error *err)
{
	const struct lazy *l = arg;

	if (image_read(l->img, &l->img->blocks[block], offset, buf, len, err))
		return -1;
	*zero = zero_is(buf, len);
	return 0;
}

static void note_need(void *arg, unsigned block, uint64_t offset)
{
	struct lazy *l = arg;

	faultlog_add(&l->needs, block, offset);
}

const struct ledger_file lazy_lost_file = { UINT64_MAX, UINT64_MAX, UINT64_MAX, INT64_MAX };

/* Of a file on another host its source says it. */
static struct ledger_file from_file(const struct lazy *l)
{
	struct image_identity id;

	if (l->pull)
		return l->ss->adopted ? lazy_lost_file : (struct ledger_file){ 0 };
	id = image_identity(&l->img->blocks[0]);
	return (struct ledger_file){ id.dev, id.ino, id.size, id.mtime };
}

static int make_ledger(struct lazy *l, const struct guest_memory *g, struct error *err)
{
	struct ledger_guest about = { .from = from_file(l),
				      .shared = g->shared,
				      .page = guestmem_page(g),
				      .sizes = &l->img->blocks[0].size,
				      .nblocks = 1 };
	int fd = l->caught ? caught_ledger(err) : fcntl(l->ledger_fd, F_DUPFD_CLOEXEC, 3);

	if (fd < 0)
		return l->caught ? -1
				 : err_sys(err, ST_NOMEM, errno, "no descriptor for the guest");
	l->ledger = ledger_new(fd, &about, err);
	return l->ledger ? 0 : -1;
}

/* Pages of two images make no guest, and nobody would see it. */
static int check_from(const struct lazy *l, struct error *err)
{
	static const struct ledger_file unknown;
	const struct ledger_file *was = &ledger_guest(l->ledger)->from, now = from_file(l);
	bool same = was->dev == now.dev && was->ino == now.ino && was->size == now.size;

	if (l->pull || !memcmp(was, &unknown, sizeof(*was)) || l->ss->cfg->force ||
	    (same && was->mtime == now.mtime))
		return 0;
	err_set(err, ST_UNSUPPORTED, "%s %s", l->ss->uri.path,
		same ? "was written to since the guest has memory of it"
		     : "is another file than the one that the guest has memory of");
	return err_hint(err, "it is served on from the image that it was begun with; --force takes "
			     "this one, whose bytes have to be the same");
}

static int check_ledger(const struct lazy *l, const struct guest_memory *g, struct error *err)
{
	const struct ledger_guest *was = ledger_guest(l->ledger);
	uint64_t size = l->img->blocks[0].size;

	if (was->nblocks == 1 && was->sizes[0] == size && was->page == guestmem_page(g))
		return check_from(l, err);
	err_set(err, ST_UNSUPPORTED,
		"the guest's memory has 0x%" PRIx64
		" bytes in pages of 0x%x, and %s has 0x%" PRIx64,
		was->sizes[0], was->page, l->ss->uri.path, size);
	return err_hint(err, "it is served on from the image that it was begun with");
}

int lazy_start_pager(struct lazy *l, struct guest_memory *g, struct error *err)
{
	bool known = l->ledger != NULL;
	uint64_t size, bytes = guestmem_bytes(g);
	struct pager_options o = { .cancel = l->cancel,
				   .bringer = &l->ss->cancel,
				   .source = { .read = l->pull ? NULL : read_page,
					       .request = l->pull ? pull_request : NULL,
					       .arg = l },
				   .store = l->caught ? caught_store : NULL,
				   .store_arg = l,
				   .watched = l->caught,
				   .drops_come_again = l->caught,
				   .forked = l->caught ? caught_forked : NULL,
				   .sizes = &size,
				   .nblocks = 1,
				   .first_need = l->ss->cfg->record ? note_need : NULL,
				   .need_arg = l };

	if (l->pull && !l->img && pull_learn(l, err)) {
		guestmem_free(g);
		return -1;
	}
	size = l->img->blocks[0].size;
	l->page = guestmem_page(g);
	l->buf_len = l->page > PUSH_BUFFER ? l->page : PUSH_BUFFER;
	if (!l->caught && !known && bytes != size) {
		guestmem_free(g);
		return err_set(err, ST_DATA,
			       "its memory has 0x%" PRIx64 " bytes, and %s has 0x%" PRIx64, bytes,
			       lazy_source(l), size);
	}
	if (known ? check_ledger(l, g, err) : make_ledger(l, g, err)) {
		guestmem_free(g);
		return -1;
	}
	o.ledger = l->ledger;
	l->pager = pager_start(g, &o, err);
	if (l->pager)
		return 0;
	if (!known) {
		ledger_close(l->ledger);
		l->ledger = NULL;
	}
	return -1;
}

/* From here on it waits when we fail, or is ended. */
static int serve_vmm(struct lazy *l, struct guest_memory *g, struct error *err)
{
	int rc = 0;

	l->vmm = g->nspaces ? g->spaces[0].pid : 0;
	if (l->ss->cfg->kill_on_loss)
		rc = warden_guard(g->spaces[0].pid, g->pidfd, err);
	if (rc)
		guestmem_free(g);
	else
		rc = lazy_start_pager(l, g, err);
	/* with a source on another host COMMIT is still to come */
	if (!rc && !l->pull)
		l->ss->serving = true;
	return rc;
}

int lazy_take_up(struct lazy *l, struct error *err)
{
	struct session *ss = l->ss;
	struct guest_memory g;

	if (takeup_guest(&g, &l->ledger, err)) {
		guestmem_free(&g);
		return -1;
	}
	snprintf(ss->peer, sizeof(ss->peer), "process %ld", g.nspaces ? (long)g.spaces[0].pid : 0L);
	return serve_vmm(l, &g, err);
}

/* One VMM. 1: it is served, 0: it was none (a warning said why), -1. */
static int take_vmm(struct lazy *l, struct transport *t, struct error *err)
{
	struct guest_memory g;
	int sock = fcntl(t->rfd, F_DUPFD_CLOEXEC, 3);
	int rc = sock < 0 ? err_sys(err, ST_SOCKET, errno, "no descriptor for the VMM's socket")
			  : handoff_take(sock, &l->ss->cancel, &g, err);

	if (rc && sock >= 0)
		close(sock);
	if (!rc)
		rc = serve_vmm(l, &g, err);
	if (!rc)
		return 1;
	if (cancel_fired(&l->ss->cancel))
		return -1;
	log_warn("dropped %s: %s; still waiting for a VMM", t->name, err->msg);
	err_clear(err);
	return 0;
}

/* The next that comes; NULL: err says why. A source that leaves is noticed meanwhile. */
static struct transport *next_vmm(struct lazy *l, struct error *err)
{
	struct transport *t;

	do {
		t = listener_accept(l->ss->vmms, l->pull ? LOOK_MS : -1, err);
		if (!t && (err->status != ST_OK || (l->pull && pull_check(l->pull, err))))
			return NULL;
	} while (!t);
	return t;
}

static int accept_vmm(struct lazy *l, struct error *err)
{
	struct session *ss = l->ss;
	struct error ignored;
	int rc = 0;

	if (takeup_complete())
		return 0;
	if (ss->adopted)
		rc = lazy_take_up(l, err) ? -1 : 1;
	while (!rc) {
		struct transport *t = next_vmm(l, err);

		if (!t)
			return -1;
		rc = take_vmm(l, t, err);
		if (rc > 0)
			log_info("%s runs; its memory comes from %s", t->name, lazy_source(l));
		if (rc > 0 && !l->pull)
			snprintf(ss->peer, sizeof(ss->peer), "%s", t->name);
		transport_close(t, &ignored);
	}
	if (rc < 0)
		return -1;
	listener_close(ss->vmms); /* one guest; the name is free again */
	ss->vmms = NULL;
	return 0;
}

int lazy_ready(struct lazy *l, struct error *err)
{
	return l->caught ? caught_ready(l, err) : accept_vmm(l, err);
}

int lazy_accept(struct session *ss, struct error *err)
{
	if (lazy_ready(ss->lazy, err))
		return -1;
	ss->served = true;
	if (ss->lazy->caught)
		return 0;
	ss->owner = OWNER_DESTINATION;
	if (takeup_complete())
		log_info("the guest had all of its memory before");
	else if (ss->adopted)
		log_info("%s is taken up again; its memory comes from %s", ss->peer,
			 lazy_source(ss->lazy));
	return session_commit(ss, err);
}

/* ---- the push ---- */

/* The guest runs: that there is no room is no reason to leave it. */
int lazy_keep(struct lazy *l, uint64_t offset, const void *buf, size_t len, struct error *err)
{
	while (caught_keep(l, offset, buf, len, err)) {
		if (!pager_full(err))
			return -1;
		if (!l->full_said)
			log_warn("%s: it waits until there is room", err->msg);
		l->full_said = true;
		if (cancel_wait(&l->ss->cancel, -1, 0, FULL_MS, err) < 0)
			return -1;
	}
	return 0;
}

static int push_run(struct lazy *l, const struct block *b, uint64_t offset, uint64_t len,
		    struct error *err)
{
	struct stats *st = &l->ss->stats;

	for (uint64_t at = offset, end = offset + len; at < end;) {
		size_t n = end - at < l->buf_len ? (size_t)(end - at) : l->buf_len;

		if (image_read(l->img, b, at, l->buf, n, err))
			return -1;
		if (zero_is(l->buf, n)
			    ? pager_arrived_zero(l->pager, b->index, at, n, err)
			    : lazy_keep(l, at, l->buf, n, err) ||
				      pager_arrived(l->pager, b->index, at, l->buf, n, err))
			return -1;
		stat_add(&st->travelled, n);
		stat_add(&st->activity, n);
		stat_add(&st->normal, n / l->ss->page_size);
		at += n;
		if (pager_guest_ended(l->pager))
			return 0;
	}
	return 0;
}

/* What the guest needed the last time, first. */
static int push_wanted(struct lazy *l, struct error *err)
{
	uint64_t mask = ~((uint64_t)l->page - 1);

	for (size_t i = 0; i < l->wanted.n && !pager_guest_ended(l->pager); i++) {
		const struct faultlog_page *p = &l->wanted.pages[i];
		const struct block *b = &l->img->blocks[p->block];
		uint64_t at = p->offset & mask;

		if (pager_next_missing(l->pager, p->block, at) != at)
			continue;
		if (push_run(l, b, at, l->page, err))
			return -1;
	}
	return 0;
}

/* All data. Outwards to the guest's pages, which may be larger than the image's extents. */
static int push_all(struct lazy *l, struct error *err)
{
	const struct block *b = &l->img->blocks[0];
	uint64_t mask = (uint64_t)l->page - 1, at = 0;
	struct extent e;

	while (!pager_guest_ended(l->pager)) {
		uint64_t end;

		if (image_next_data(l->img, b, at, &e, err))
			return -1;
		if (!e.len)
			return 0;
		end = (e.offset + e.len + mask) & ~mask;
		e.offset &= ~mask;
		if (e.offset < at)
			e.offset = at;
		if (end > b->size)
			end = b->size;
		if (end > e.offset && push_run(l, b, e.offset, end - e.offset, err))
			return -1;
		at = end;
	}
	return 0;
}

static int push(struct lazy *l, struct error *err)
{
	if (push_wanted(l, err) || (!l->ss->cfg->push_off && push_all(l, err)))
		return -1;
	if (l->ss->cfg->push_off || pager_guest_ended(l->pager))
		return pager_wait(l->pager, -1, err) < 0 ? -1 : 0;
	if (image_check_at_rest(l->img, err) || caught_complete(l, err))
		return -1;
	l->ss->complete = l->caught || !pager_guest_ended(l->pager);
	return 0;
}

void lazy_take_stats(struct lazy *l)
{
	struct pager_stats st;

	if (!l->pager)
		return;
	pager_halt(l->pager); /* what was answered last is counted, and nobody adds to `needs` */
	pager_get_stats(l->pager, &st);
	l->ss->faults = st.latency;
	l->ss->threads = st.threads;
	l->ss->around = st.around;
	l->ss->waiting = st.waiting;
	stat_set(&l->ss->stats.placed, st.placed);
	l->ss->blocked_ms = st.blocked_ns / 1000000;
	stat_set(&l->ss->stats.postcopy_requests, st.faults);
	if (l->pull)
		return;
	stat_set(&l->ss->stats.transferred, st.placed);
	stat_set(&l->ss->stats.postcopy_bytes, st.placed);
}

int lazy_lost(struct lazy *l, const char *who, const char *hint, struct error *err)
{
	struct session *ss = l->ss;
	char text[80];

	session_fail(ss, err);
	if (!ss->cfg->kill_on_loss) {
		snprintf(text, sizeof(text), "%s waits for its memory", who);
		return session_lost(ss, err, text, hint);
	}
	ss->serving = ss->postcopy = false;
	l->over = true;
	if (!l->caught)
		warden_act();
	snprintf(text, sizeof(text), "%s was ended (--on-loss=kill)", who);
	return session_lost(ss, err, text, NULL);
}

void lazy_fail(struct lazy *l, const struct error *err)
{
	if (l->pull)
		pull_fail(l->pull, err);
	else
		session_fail(l->ss, err);
}

void lazy_leave(struct session *ss, struct error *err)
{
	if (ss->lazy)
		lazy_left_waiting(ss->lazy, err);
}

int lazy_left_waiting(struct lazy *l, struct error *err)
{
	char *again;

	if (l->caught)
		return caught_lost(l, err);
	again = lazy_again(l->ss->cfg, 0);
	lazy_lost(l, "the guest", again ? again : "recv --resume takes it up again", err);
	free(again);
	return -1;
}

int lazy_serve(struct session *ss, struct error *err)
{
	struct lazy *l = ss->lazy;
	bool early;
	int rc;

	if (takeup_complete()) {
		ss->complete = l->over = true;
		return 0;
	}
	ss->serving = true;
	l->buf = malloc(l->buf_len);
	rc = l->buf ? push(l, err) : err_set(err, ST_NOMEM, "no memory to read the image with");
	early = !rc && !ss->complete && l->caught && !ss->cfg->push_off;
	if (early)
		caught_early(l, err);
	caught_stop(l);
	lazy_take_stats(l);
	if (rc)
		return lazy_left_waiting(l, err);
	ss->serving = false;
	l->over = true;
	if (early)
		return -1;
	if (!ss->complete)
		log_info("the guest has ended%s", ss->cfg->push_off ? "" : " before it had all");
	return ss->cfg->record ? faultlog_write(&l->needs, ss->cfg->record, l->img, err) : 0;
}

/* What is known of its pages goes when nobody needs it any more. */
static void end_vmm(struct lazy *l)
{
	struct session *ss = l->ss;
	bool waits = !l->over && (ss->serving || ss->adopted);
	/* it has connected, and the source never gave its guest up */
	bool bereft = l->pull && l->pager && !ss->committed;
	char *path = waits ? NULL : takeup_path(ss->cfg->uffd_socket);

	if ((ss->serving || bereft) && ss->cfg->kill_on_loss)
		warden_act();
	else
		warden_release();
	if (bereft && !ss->cfg->kill_on_loss)
		log_warn("the VMM (process %ld) waits for memory that does not come: end it; the "
			 "source still has the guest",
			 (long)l->vmm);
	if (path && broker_unlink(path) && errno != ENOENT)
		log_warn("cannot remove %s: %s", path, strerror(errno));
	free(path);
	if (l->ledger_fd >= 0)
		close(l->ledger_fd);
}

void lazy_end(struct session *ss)
{
	struct lazy *l = ss->lazy;
	struct error ignored;

	if (!l)
		return;
	if (l->pull)
		lazy_take_stats(l);
	pager_stop(l->pager);
	if (!l->caught)
		end_vmm(l);
	ledger_close(l->ledger);
	if (ss->serving && ss->cfg->record)
		faultlog_write(&l->needs, ss->cfg->record, l->img, &ignored);
	faultlog_free(&l->needs);
	faultlog_free(&l->wanted);
	caught_close(l);
	if (!l->pull)
		image_close(l->img, false);
	pull_close(l->pull, ss);
	free(l->buf);
	free(l);
	ss->lazy = NULL;
}
