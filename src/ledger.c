// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The file: a head of one page, then pieces that are appended, each at a page's boundary and mapped
 * on its own. A piece is a pair of bitmaps, a layout, or what is known of a source on another host.
 * The head names the layout that is valid, the source, and the first of a chain of pairs; each
 * pair's own head leads to the next. Whatever is appended gets
 * valid by one store of 64 bits, when it is complete, and order matters only within this process:
 * a process that is killed loses no store that it has made.
 *
 * There are two places for layouts, used in turn; one that has become too small is left behind.
 *
 * Of a file that was found each number is read once, checked, and kept here: whoever has it open
 * could change it after the check.
 */
#include "ledger.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAGIC	   "migtool guest 4"
#define PIECE	   4096u
#define SPACES_MAX 4096u
#define VIEWS_MAX  (1u << 20)
#define PAIRS_MAX  (1u << 20)
#define LAYOUT_MIN (16u << 10)
#define TARGET_MAX (64u << 10) /* a source's page */

struct head {
	char magic[16];
	uint32_t shared, page, nblocks, complete;
	uint64_t layout; /* where the valid one is; 0: none yet */
	uint64_t pairs;	 /* where the first pair is; 0: none */
	uint64_t source; /* where that is; 0: there is none */
	struct ledger_file from;
	uint64_t sizes[LEDGER_BLOCKS_MAX];
	struct ledger_space reading; /* whose messages are in the inbox */
	uint8_t inbox[LEDGER_INBOX];
};
_Static_assert(sizeof(struct head) <= PIECE, "the head is one page");

/* Before the bits of a pair, a piece of its own kind: as long as the words, twice. */
struct pair_head {
	uint64_t bits;
	uint64_t next; /* where the next pair is; 0: none */
};

/* Before the bits of what has come. */
struct source_head {
	char block[256];
	uint32_t page, unit;
	uint64_t units;
	uint8_t session[16];
	struct digest files;
	uint32_t has_files;
	uint32_t handed_over; /* makes session and files valid */
};

struct layout_head {
	uint32_t nspaces, nviews;
	uint64_t room; /* bytes, with this head */
};

/* A piece as it is mapped here. */
struct piece {
	void *at;
	uint64_t where;
	size_t len;
	size_t bits; /* of a pair */
};

struct ledger {
	int fd;
	pthread_mutex_t lock; /* of the next: its source is added by another thread than the rest */
	uint64_t end;	      /* of the file */
	struct head *head;
	struct ledger_guest guest;
	uint64_t sizes[LEDGER_BLOCKS_MAX];
	struct piece *pairs;
	unsigned npairs;
	struct piece source;
	struct ledger_source from_afar;
	struct piece layouts[2];
	unsigned in_force; /* of the two */
	struct ledger_layout layout;
	struct ledger_space left_of;
	uint64_t left[LEDGER_INBOX / sizeof(uint64_t)];
};

static int no_memory(struct error *err)
{
	return err_set(err, ST_NOMEM, "no memory for the list of the guest's pages");
}

static uint64_t up(uint64_t n)
{
	return (n + PIECE - 1) & ~((uint64_t)PIECE - 1);
}

/* ---- pieces ---- */

static int map_piece(struct ledger *l, uint64_t where, uint64_t len, struct piece *out,
		     struct error *err)
{
	out->at = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, l->fd, (off_t)where);
	if (out->at == MAP_FAILED) {
		out->at = NULL;
		return err_sys(err, ST_NOMEM, errno, "cannot map the list of the guest's pages");
	}
	out->where = where;
	out->len = (size_t)len;
	return 0;
}

static void unmap_piece(struct piece *p)
{
	if (p->at)
		munmap(p->at, p->len);
	p->at = NULL;
}

/* At the file's end, all zero, and with room on its disk. */
static int append_piece(struct ledger *l, uint64_t len, struct piece *out, struct error *err)
{
	uint64_t where;
	int e;

	len = up(len);
	pthread_mutex_lock(&l->lock);
	where = l->end;
	do
		e = posix_fallocate(l->fd, (off_t)where, (off_t)len);
	while (e == EINTR);
	if (!e)
		l->end += len;
	pthread_mutex_unlock(&l->lock);
	if (e)
		return err_sys(err, ST_FILE, e, "no room for the list of the guest's pages");
	return map_piece(l, where, len, out, err);
}

/* Of a file that was found: does the piece lie in it? */
static bool inside(const struct ledger *l, uint64_t where, uint64_t len)
{
	return where >= PIECE && where % PIECE == 0 && where <= l->end && len <= l->end - where;
}

/* ---- pairs ---- */

static uint64_t words_of(uint64_t bits)
{
	return bits / 64 + 1;
}

static uint64_t pair_len(uint64_t bits)
{
	return up(sizeof(struct pair_head) + 2 * words_of(bits) * sizeof(uint64_t));
}

void ledger_pages(const struct ledger *l, unsigned i, struct bitmap *done, struct bitmap *dropped)
{
	const struct piece *p = &l->pairs[i];
	uint64_t *words = (uint64_t *)((struct pair_head *)p->at + 1);

	*done = (struct bitmap){ .bits = p->bits, .words = words };
	*dropped = (struct bitmap){ .bits = p->bits, .words = words + words_of(p->bits) };
}

unsigned ledger_npages(const struct ledger *l)
{
	return l->npairs;
}

static struct piece *new_pair(struct ledger *l, struct error *err)
{
	struct piece *grown = realloc(l->pairs, (l->npairs + 1) * sizeof(*grown));

	if (!grown) {
		no_memory(err);
		return NULL;
	}
	l->pairs = grown;
	return &grown[l->npairs];
}

int ledger_add_pages(struct ledger *l, size_t n, struct bitmap *done, struct bitmap *dropped,
		     struct error *err)
{
	struct piece *p = new_pair(l, err);
	struct pair_head *h;
	uint64_t *link = &l->head->pairs;

	if (!p || append_piece(l, pair_len(n), p, err))
		return -1;
	h = p->at;
	h->bits = p->bits = n;
	if (l->npairs)
		link = &((struct pair_head *)l->pairs[l->npairs - 1].at)->next;
	__atomic_store_n(link, p->where, __ATOMIC_RELEASE);
	ledger_pages(l, l->npairs++, done, dropped);
	return 0;
}

/* ---- a source on another host ---- */

static uint64_t units_of(const struct ledger *l, uint32_t unit)
{
	return (l->sizes[0] + unit - 1) / unit;
}

static uint64_t source_len(uint64_t units)
{
	return up(sizeof(struct source_head) + words_of(units) * sizeof(uint64_t));
}

static void take_source(struct ledger *l, const struct source_head *h)
{
	struct ledger_source *s = &l->from_afar;

	memcpy(s->block, h->block, sizeof(s->block));
	s->page = h->page;
	s->unit = h->unit;
	s->handed_over = h->handed_over != 0;
	memcpy(s->session, h->session, sizeof(s->session));
	s->has_files = h->has_files != 0;
	s->files = h->files;
	l->source.bits = (size_t)h->units;
}

int ledger_add_source(struct ledger *l, const struct ledger_source *s, struct error *err)
{
	uint64_t units = units_of(l, s->unit);
	struct source_head *h;

	if (append_piece(l, source_len(units), &l->source, err))
		return -1;
	h = l->source.at;
	memcpy(h->block, s->block, sizeof(h->block));
	h->page = s->page;
	h->unit = s->unit;
	h->units = units;
	take_source(l, h);
	__atomic_store_n(&l->head->source, l->source.where, __ATOMIC_RELEASE);
	return 0;
}

const struct ledger_source *ledger_source(const struct ledger *l)
{
	return l->source.at ? &l->from_afar : NULL;
}

void ledger_came(const struct ledger *l, struct bitmap *came)
{
	*came = (struct bitmap){ .bits = l->source.bits,
				 .words = (uint64_t *)((struct source_head *)l->source.at + 1) };
}

void ledger_hand_over(struct ledger *l, const uint8_t session[16], const struct digest *files)
{
	struct source_head *h = l->source.at;

	memcpy(h->session, session, sizeof(h->session));
	h->has_files = files != NULL;
	if (files)
		h->files = *files;
	__atomic_store_n(&h->handed_over, 1, __ATOMIC_RELEASE);
	take_source(l, h);
}

/* ---- layouts ---- */

static uint64_t layout_len(uint64_t nspaces, uint64_t nviews)
{
	return sizeof(struct layout_head) + nspaces * sizeof(struct ledger_space) +
	       nviews * sizeof(struct ledger_view);
}

static struct ledger_space *spaces_in(const struct piece *p)
{
	return (struct ledger_space *)((struct layout_head *)p->at + 1);
}

static struct ledger_view *views_in(const struct piece *p, unsigned nspaces)
{
	return (struct ledger_view *)(spaces_in(p) + nspaces);
}

/* The place that is not in force, large enough. */
static int make_room(struct ledger *l, uint64_t len, struct piece **out, struct error *err)
{
	struct piece *p = &l->layouts[!l->in_force];

	*out = p;
	if (p->at && p->len >= len)
		return 0;
	unmap_piece(p);
	return append_piece(l, len < LAYOUT_MIN / 2 ? LAYOUT_MIN : 2 * len, p, err);
}

int ledger_note(struct ledger *l, const struct ledger_layout *now, struct error *err)
{
	uint64_t len = layout_len(now->nspaces, now->nviews);
	struct layout_head *h;
	struct piece *p;

	if (make_room(l, len, &p, err))
		return -1;
	h = p->at;
	h->nspaces = now->nspaces;
	h->nviews = now->nviews;
	h->room = p->len;
	memcpy(spaces_in(p), now->spaces, now->nspaces * sizeof(*now->spaces));
	memcpy(views_in(p, now->nspaces), now->views, now->nviews * sizeof(*now->views));
	__atomic_store_n(&l->head->layout, p->where, __ATOMIC_RELEASE);
	l->in_force = !l->in_force;
	return 0;
}

void *ledger_inbox(struct ledger *l, const struct ledger_space *of)
{
	l->head->reading = *of;
	return l->head->inbox;
}

const void *ledger_left(const struct ledger *l, struct ledger_space *of)
{
	*of = l->left_of;
	return l->left;
}

void ledger_set_complete(struct ledger *l)
{
	__atomic_store_n(&l->head->complete, 1, __ATOMIC_RELEASE);
}

bool ledger_complete(const struct ledger *l)
{
	return l->head->complete;
}

/* ---- a new one ---- */

static struct ledger *alloc_ledger(int fd, struct error *err)
{
	struct ledger *l = calloc(1, sizeof(*l));

	if (!l) {
		close(fd);
		no_memory(err);
		return NULL;
	}
	l->fd = fd;
	pthread_mutex_init(&l->lock, NULL);
	return l;
}

static void take_head(struct ledger *l, const struct head *h)
{
	memcpy(l->sizes, h->sizes, sizeof(l->sizes));
	memcpy(l->left, h->inbox, sizeof(l->left));
	l->left_of = h->reading;
	l->guest = (struct ledger_guest){ .from = h->from,
					  .shared = h->shared != 0,
					  .page = h->page,
					  .sizes = l->sizes,
					  .nblocks = h->nblocks };
}

struct ledger *ledger_new(int fd, const struct ledger_guest *g, struct error *err)
{
	struct ledger *l = alloc_ledger(fd, err);
	struct piece head;

	if (!l)
		return NULL;
	if (g->nblocks > LEDGER_BLOCKS_MAX) {
		err_set(err, ST_UNSUPPORTED, "a guest that is served has at most %d blocks",
			LEDGER_BLOCKS_MAX);
	} else if (ftruncate(fd, 0)) {
		err_sys(err, ST_FILE, errno, "cannot empty the list of the guest's pages");
	} else if (!append_piece(l, PIECE, &head, err)) {
		l->head = head.at;
		l->head->from = g->from;
		l->head->shared = g->shared;
		l->head->page = g->page;
		l->head->nblocks = g->nblocks;
		memcpy(l->head->sizes, g->sizes, g->nblocks * sizeof(*g->sizes));
		memcpy(l->head->magic, MAGIC, sizeof(MAGIC));
		take_head(l, l->head);
		return l;
	}
	ledger_close(l);
	return NULL;
}

/* ---- one that was found ---- */

static int bad(struct error *err, const char *what)
{
	return err_set(err, ST_DATA, "the list of the guest's pages is bad: %s", what);
}

bool ledger_used(int fd)
{
	struct head h;

	return pread(fd, &h, sizeof(h), 0) == (ssize_t)sizeof(h) &&
	       !memcmp(h.magic, MAGIC, sizeof(MAGIC)) && h.layout;
}

static int open_head(struct ledger *l, struct error *err)
{
	struct piece head;
	struct stat st;
	struct head h;

	if (fstat(l->fd, &st))
		return err_sys(err, ST_FILE, errno, "cannot look at the list of the guest's pages");
	if (!S_ISREG(st.st_mode) || st.st_size < (off_t)PIECE || st.st_size % PIECE)
		return bad(err, "its length");
	l->end = (uint64_t)st.st_size;
	if (map_piece(l, 0, PIECE, &head, err))
		return -1;
	l->head = head.at;
	if (pread(l->fd, &h, sizeof(h), 0) != (ssize_t)sizeof(h) ||
	    memcmp(h.magic, MAGIC, sizeof(MAGIC)) != 0)
		return bad(err, "it does not begin as one");
	if (!h.nblocks || h.nblocks > LEDGER_BLOCKS_MAX || h.page < PIECE ||
	    (h.page & (h.page - 1)))
		return bad(err, "its blocks or its page");
	take_head(l, &h);
	return 0;
}

static int open_pairs(struct ledger *l, struct error *err)
{
	for (uint64_t where = __atomic_load_n(&l->head->pairs, __ATOMIC_RELAXED), last = 0;
	     where;) {
		struct piece *p = new_pair(l, err);
		struct pair_head h;

		if (!p)
			return -1;
		if (where <= last || !inside(l, where, PIECE) || l->npairs == PAIRS_MAX ||
		    pread(l->fd, &h, sizeof(h), (off_t)where) != (ssize_t)sizeof(h) ||
		    h.bits > l->end * 8 || !inside(l, where, pair_len(h.bits)))
			return bad(err, "its pages");
		if (map_piece(l, where, pair_len(h.bits), p, err))
			return -1;
		p->bits = (size_t)h.bits;
		l->npairs++;
		last = where;
		where = h.next;
	}
	return 0;
}

static bool is_power(uint32_t n)
{
	return n >= PIECE && !(n & (n - 1));
}

static bool source_fits(const struct ledger *l, const struct source_head *h)
{
	return l->guest.nblocks == 1 && memchr(h->block, '\0', sizeof(h->block)) &&
	       is_power(h->page) && h->page <= TARGET_MAX && is_power(h->unit) &&
	       h->unit >= h->page && l->sizes[0] <= UINT64_MAX - h->unit &&
	       h->units == units_of(l, h->unit);
}

static int open_source(struct ledger *l, struct error *err)
{
	uint64_t where = __atomic_load_n(&l->head->source, __ATOMIC_RELAXED);
	struct source_head h;

	if (!where)
		return 0;
	if (!inside(l, where, PIECE) ||
	    pread(l->fd, &h, sizeof(h), (off_t)where) != (ssize_t)sizeof(h) ||
	    !source_fits(l, &h) || h.units > l->end * 8 || !inside(l, where, source_len(h.units)))
		return bad(err, "its source");
	if (map_piece(l, where, source_len(h.units), &l->source, err))
		return -1;
	take_source(l, &h);
	return 0;
}

static bool view_fits(const struct ledger *l, const struct ledger_view *v, unsigned nspaces)
{
	size_t bits;

	if (v->space >= nspaces || v->pages >= l->npairs || !v->page || (v->page & (v->page - 1)) ||
	    v->block >= l->guest.nblocks)
		return false;
	bits = l->pairs[v->pages].bits;
	return v->first <= bits && v->len / v->page <= bits - v->first;
}

/*
 * What is valid is copied: the next layout but one takes its place, and who looks at the first
 * would see that.
 */
static int keep_layout(struct ledger *l, const struct layout_head *h, struct error *err)
{
	const struct piece *p = &l->layouts[l->in_force];
	size_t spaces = h->nspaces * sizeof(*l->layout.spaces);
	size_t views = h->nviews * sizeof(*l->layout.views);

	l->layout = (struct ledger_layout){ .spaces = malloc(spaces + 1),
					    .nspaces = h->nspaces,
					    .views = malloc(views + 1),
					    .nviews = h->nviews };
	if (!l->layout.spaces || !l->layout.views)
		return no_memory(err);
	memcpy(l->layout.spaces, spaces_in(p), spaces);
	memcpy(l->layout.views, views_in(p, h->nspaces), views);
	return 0;
}

static int open_layout(struct ledger *l, struct error *err)
{
	struct piece *p = &l->layouts[0];
	uint64_t where = __atomic_load_n(&l->head->layout, __ATOMIC_RELAXED);
	struct layout_head h;

	if (!where)
		return bad(err, "no guest is in it");
	if (!inside(l, where, PIECE) ||
	    pread(l->fd, &h, sizeof(h), (off_t)where) != (ssize_t)sizeof(h) ||
	    h.nspaces > SPACES_MAX || h.nviews > VIEWS_MAX || h.room % PIECE ||
	    !inside(l, where, h.room) || layout_len(h.nspaces, h.nviews) > h.room)
		return bad(err, "its layout");
	if (map_piece(l, where, h.room, p, err))
		return -1;
	l->in_force = 0;
	if (keep_layout(l, &h, err))
		return -1;
	for (unsigned i = 0; i < h.nviews; i++)
		if (!view_fits(l, &l->layout.views[i], h.nspaces))
			return bad(err, "a part of its layout");
	return 0;
}

struct ledger *ledger_open(int fd, struct error *err)
{
	struct ledger *l = alloc_ledger(fd, err);

	if (!l)
		return NULL;
	if (!open_head(l, err) && !open_pairs(l, err) && !open_source(l, err) &&
	    !open_layout(l, err))
		return l;
	ledger_close(l);
	return NULL;
}

void ledger_close(struct ledger *l)
{
	if (!l)
		return;
	for (unsigned i = 0; i < l->npairs; i++)
		unmap_piece(&l->pairs[i]);
	for (unsigned i = 0; i < 2; i++)
		unmap_piece(&l->layouts[i]);
	unmap_piece(&l->source);
	if (l->head)
		munmap(l->head, PIECE);
	free(l->layout.spaces);
	free(l->layout.views);
	free(l->pairs);
	close(l->fd);
	pthread_mutex_destroy(&l->lock);
	free(l);
}

int ledger_fd(const struct ledger *l)
{
	return l->fd;
}

const struct ledger_guest *ledger_guest(const struct ledger *l)
{
	return &l->guest;
}

const struct ledger_layout *ledger_layout(const struct ledger *l)
{
	return &l->layout;
}
