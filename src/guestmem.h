/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A guest's memory as who serves its faults sees it: where the RAM blocks of an image lie in the
 * guest's processes, and through which userfaultfd each is reached. Whoever gets hold of a guest (a
 * VMM that hands its userfaultfd over, a process whose mapping was caught) fills this in; the pager
 * (pager.h) takes it over and serves it.
 *
 * A space is one address space with one userfaultfd. There is one at first; a fork adds another, as
 * does a second process that maps the same file. All descriptors are ours, close-on-exec, and the
 * guest's process keeps a copy of its userfaultfd: when all of ours are closed, by our death too,
 * it waits, and never goes on with zeros.
 */
#ifndef MIGTOOL_GUESTMEM_H
#define MIGTOOL_GUESTMEM_H

#include "error.h"
#include "ledger.h"

#include <stdint.h>
#include <sys/types.h>

#define GUEST_REGIONS_MAX 4096 /* in one space */
#define GUEST_SPACES_MAX  64

/* A run of one block, mapped and registered for missing pages. */
struct guest_region {
	uint64_t address; /* in the guest's process */
	uint64_t len;
	unsigned block;	 /* index of the RAM block in the image */
	uint64_t offset; /* of the region's first byte in that block */
	uint32_t page;	 /* bytes: what is placed at a time, and what a fault asks for */
	/* of a guest that somebody else has served (ledger.h): 1 + the number of its pages there */
	unsigned known;
	uint64_t first; /* with known: which of these is the region's first */
};

struct guest_space {
	int uffd;
	pid_t pid;		      /* whose; 0: unknown */
	uint64_t process;	      /* guestmem_process() of it */
	unsigned serial;	      /* of a forked child: the how manieth (ledger.h) */
	struct guest_region *regions; /* by address, once guestmem_check() was content */
	unsigned nregions;
};

struct guest_memory {
	struct guest_space spaces[GUEST_SPACES_MAX];
	unsigned nspaces;
	/*
	 * Regions are shared mappings of the image's own files: a page that is placed in one space
	 * is there in all of them, and in the file. Else each has pages of its own.
	 */
	bool shared;
	/*
	 * Of a guest that is served on: userfaultfds of forked children of which its ledger does
	 * not know, but its inbox, by the number that who read it had for each.
	 */
	struct {
		int uffd;
		uint32_t number;
	} children[GUEST_SPACES_MAX];
	unsigned nchildren;
	int pidfd; /* readable when the guest's (first) process has ended; -1: not known */
	int peer;  /* the socket to who handed it over; it ends when he closes it; -1: none */
};

/* Nothing is in it; descriptors are -1. */
void guestmem_init(struct guest_memory *g);
/* Closes all descriptors: a guest that is not complete waits for ever, or for somebody else. */
void guestmem_free(struct guest_memory *g);

/*
 * A number that no two processes have from the machine's start to its end, by a pidfd; 0: this
 * kernel (before 6.9) has none.
 */
uint64_t guestmem_process(int pidfd);

/* Takes over the descriptor, also on failure. NULL: ST_NOMEM, ST_DATA (too many). */
struct guest_space *guestmem_add_space(struct guest_memory *g, int uffd, pid_t pid,
				       struct error *err);
int guestmem_add_region(struct guest_space *s, const struct guest_region *r, struct error *err);

/*
 * A space that an opened ledger knows, with its regions; the descriptor is taken over, also on
 * failure. One without regions is left out. ST_NOMEM, ST_DATA.
 */
int guestmem_resume(struct guest_memory *g, const struct ledger *l, unsigned space, int uffd,
		    struct error *err);

/* There is a child of which nobody knows where its memory lies: ST_UNSUPPORTED, with a way out. */
int guestmem_orphan(struct error *err);

/*
 * Sorts the regions and checks what was said about them: page sizes are powers of two from 4 KiB to
 * 1 GiB; addresses, lengths and offsets are multiples of them; nothing overlaps or wraps; each lies
 * in one of the blocks, whose sizes are given. ST_DATA.
 */
int guestmem_check(struct guest_memory *g, const uint64_t *sizes, unsigned nblocks,
		   struct error *err);

/* The region that the address lies in, or NULL. Only after guestmem_check(). */
struct guest_region *guestmem_find(const struct guest_space *s, uint64_t address);

/* The largest page of all regions, 0 without any; and their length together. */
uint32_t guestmem_page(const struct guest_memory *g);
uint64_t guestmem_bytes(const struct guest_memory *g);

#endif
