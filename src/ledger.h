/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What is known of the memory of a guest that is served: where it lies in which process, and which
 * of its pages have come. It is kept in a file, mapped shared, that outlives whoever serves: the
 * pager works on the bitmaps in there, so that at any moment at which it may be killed another
 * process finds what was done, and serves on (recv --resume).
 *
 * A bit may be late: the page is there, and its bit not yet set. Placing it again does no harm. It
 * is never early.
 *
 * A page that the guest throws away is told of once, and the kernel lets the guest go on before who
 * serves has seen the message. So the kernel writes it into this file: the call that reads it
 * cannot be ended in its middle, and what a process that was killed had read and not yet done is
 * found.
 *
 * Where things lie changes seldom. It is written as a whole beside what is valid, and becomes valid
 * by one store. One thread changes a ledger, but for its source; the bits are anybody's (bitmap.h).
 */
#ifndef MIGTOOL_LEDGER_H
#define MIGTOOL_LEDGER_H

#include "bitmap.h"
#include "digest.h"
#include "error.h"

#include <sys/types.h>

struct ledger;

/* A process that has memory of the guest. */
struct ledger_space {
	int32_t pid;	 /* 0: unknown; it is a forked child */
	uint32_t serial; /* of a forked child: the how manieth of this guest, from 1; else 0 */
	/* which process of all that had or will have this pid (guestmem.h); 0: not known */
	uint64_t process;
};

/* A run of one block in a space, and where its pages are known. */
struct ledger_view {
	uint64_t address, len, offset;
	uint32_t block, page;
	uint32_t space; /* index */
	uint32_t pages; /* number of the bitmaps, from 0 */
	uint64_t first; /* in these: the view's first page */
};

struct ledger_layout {
	struct ledger_space *spaces;
	unsigned nspaces;
	struct ledger_view *views;
	unsigned nviews;
};

/* The file that the memory comes from, and when it was last written (ns); all zero: not known. */
struct ledger_file {
	uint64_t dev, ino, size;
	int64_t mtime;
};

/*
 * A source on another host: what whoever brings the rest of the memory has to agree with. Such a
 * guest has one block.
 */
struct ledger_source {
	char block[256]; /* its name */
	uint32_t page;	 /* the source's, */
	uint32_t unit;	 /* and what is placed at once: powers of two */
	/* since the guest was handed over, which is for good: */
	bool handed_over;
	uint8_t session[16];
	bool has_files;
	struct digest files; /* the greeting's `image` */
};

/* What never changes. */
struct ledger_guest {
	struct ledger_file from;
	bool shared;   /* its memory is the files' own (guestmem.h) */
	uint32_t page; /* the largest */
	const uint64_t *sizes;
	unsigned nblocks;
};

#define LEDGER_BLOCKS_MAX 64
#define LEDGER_INBOX	  2048 /* bytes */

/*
 * A new one in the file (taken over, also on failure), whose content goes. Its room is allocated as
 * it is needed, so that nobody is killed for a full disk. ST_FILE, ST_NOMEM, ST_UNSUPPORTED.
 */
struct ledger *ledger_new(int fd, const struct ledger_guest *g, struct error *err);

/* Has anything been noted in that file? A new one that no guest came for: no. */
bool ledger_used(int fd);

/* What a file (taken over, also on failure) says; each of its numbers was checked. ST_DATA: it is
 * none, ST_FILE, ST_NOMEM. */
struct ledger *ledger_open(int fd, struct error *err);

/* Only our view of it goes. NULL is accepted. */
void ledger_close(struct ledger *l);

/* Where it is kept; the ledger's own. */
int ledger_fd(const struct ledger *l);

const struct ledger_guest *ledger_guest(const struct ledger *l);
/* Of one that was opened. Ours to read until ledger_close(). */
const struct ledger_layout *ledger_layout(const struct ledger *l);

/* How many pairs of bitmaps there are, and one of them. The words are the ledger's. */
unsigned ledger_npages(const struct ledger *l);
void ledger_pages(const struct ledger *l, unsigned i, struct bitmap *done, struct bitmap *dropped);

/* One more pair, of n bits, all clear; its number is the former ledger_npages(). ST_FILE, ST_NOMEM.
 */
int ledger_add_pages(struct ledger *l, size_t n, struct bitmap *done, struct bitmap *dropped,
		     struct error *err);

/* Before the first ledger_note(), of a new one. The source's first three are kept. ST_FILE,
 * ST_NOMEM. */
int ledger_add_source(struct ledger *l, const struct ledger_source *s, struct error *err);
/* NULL: the memory does not come from another host. The ledger's own. */
const struct ledger_source *ledger_source(const struct ledger *l);
/* With a source: which units of the block have come, whoever has a mapping of them. */
void ledger_came(const struct ledger *l, struct bitmap *came);
/* The guest is ours, by this session; files NULL: not known. */
void ledger_hand_over(struct ledger *l, const uint8_t session[16], const struct digest *files);

/* All that is not zero has come: what is missing is zero. For good. */
void ledger_set_complete(struct ledger *l);
bool ledger_complete(const struct ledger *l);

/*
 * Where the kernel's messages of that space are read to: LEDGER_INBOX bytes, the ledger's, all zero
 * but for what was read and not yet done. Whoever has done it makes it zero.
 */
void *ledger_inbox(struct ledger *l, const struct ledger_space *of);
/* Of one that was opened: what its inbox had, and of which space. Ours to read until
 * ledger_close(). */
const void *ledger_left(const struct ledger *l, struct ledger_space *of);

/* Where everything lies from now on. ST_FILE, ST_NOMEM: the former layout stays valid. */
int ledger_note(struct ledger *l, const struct ledger_layout *now, struct error *err);

#endif
