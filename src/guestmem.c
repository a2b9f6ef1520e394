// SPDX-License-Identifier: GPL-2.0-or-later
#include "guestmem.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#ifndef PID_FS_MAGIC
#define PID_FS_MAGIC 0x50494446 /* Linux 6.9 */
#endif

#define PAGE_MIN (4u << 10)
#define PAGE_MAX (1u << 30)

void guestmem_init(struct guest_memory *g)
{
	memset(g, 0, sizeof(*g));
	g->pidfd = g->peer = -1;
}

static void close_if(int fd)
{
	if (fd >= 0)
		close(fd);
}

void guestmem_free(struct guest_memory *g)
{
	for (unsigned i = 0; i < g->nspaces; i++) {
		close_if(g->spaces[i].uffd);
		free(g->spaces[i].regions);
	}
	while (g->nchildren)
		close(g->children[--g->nchildren].uffd);
	close_if(g->pidfd);
	close_if(g->peer);
	guestmem_init(g);
}

uint64_t guestmem_process(int pidfd)
{
	struct statfs fs;
	struct stat st;

	/* before there was that file system, all had one inode together */
	if (fstatfs(pidfd, &fs) || fs.f_type != PID_FS_MAGIC || fstat(pidfd, &st))
		return 0;
	return st.st_ino;
}

struct guest_space *guestmem_add_space(struct guest_memory *g, int uffd, pid_t pid,
				       struct error *err)
{
	struct guest_space *s = &g->spaces[g->nspaces];

	if (g->nspaces == GUEST_SPACES_MAX) {
		close_if(uffd);
		err_set(err, ST_DATA, "the guest has more than %d processes with its memory",
			GUEST_SPACES_MAX);
		return NULL;
	}
	g->nspaces++;
	*s = (struct guest_space){ .uffd = uffd, .pid = pid };
	return s;
}

int guestmem_add_region(struct guest_space *s, const struct guest_region *r, struct error *err)
{
	struct guest_region *grown;

	if (s->nregions == GUEST_REGIONS_MAX)
		return err_set(err, ST_DATA, "the guest's memory has more than %d regions",
			       GUEST_REGIONS_MAX);
	grown = realloc(s->regions, (s->nregions + 1) * sizeof(*grown));
	if (!grown)
		return err_set(err, ST_NOMEM, "no memory for the guest's regions");
	s->regions = grown;
	s->regions[s->nregions++] = *r;
	return 0;
}

int guestmem_orphan(struct error *err)
{
	err_set(err, ST_UNSUPPORTED,
		"a forked child waits whose parent has ended, and who served them was killed "
		"before he "
		"noted it: it is not known where its memory lies");
	return err_hint(err, "end that child, which maps IMAGE; then the others can be served on");
}

int guestmem_resume(struct guest_memory *g, const struct ledger *l, unsigned space, int uffd,
		    struct error *err)
{
	const struct ledger_layout *known = ledger_layout(l);
	struct guest_space *s = NULL;

	for (unsigned i = 0; i < known->nviews; i++) {
		const struct ledger_view *v = &known->views[i];
		struct guest_region r = { .address = v->address,
					  .len = v->len,
					  .block = v->block,
					  .offset = v->offset,
					  .page = v->page,
					  .known = v->pages + 1,
					  .first = v->first };

		if (v->space != space)
			continue;
		if (!s) {
			s = guestmem_add_space(g, uffd, known->spaces[space].pid, err);
			if (!s)
				return -1;
			s->process = known->spaces[space].process;
			s->serial = known->spaces[space].serial;
		}
		if (guestmem_add_region(s, &r, err))
			return -1;
	}
	if (!s)
		close_if(uffd);
	g->shared = ledger_guest(l)->shared;
	return 0;
}

/* ---- what was said about them ---- */

static int by_address(const void *a, const void *b)
{
	const struct guest_region *x = a, *y = b;

	return x->address < y->address ? -1 : x->address > y->address;
}

static int bad(const struct guest_region *r, const char *what, struct error *err)
{
	return err_set(err, ST_DATA,
		       "the guest's region of 0x%" PRIx64 " bytes at 0x%" PRIx64 ": %s", r->len,
		       r->address, what);
}

static int check_region(const struct guest_region *r, const uint64_t *sizes, unsigned nblocks,
			struct error *err)
{
	uint64_t mask = (uint64_t)r->page - 1;

	if (r->page < PAGE_MIN || r->page > PAGE_MAX || (r->page & mask))
		return err_set(err, ST_DATA,
			       "the guest's region at 0x%" PRIx64 " has pages of %" PRIu32
			       " bytes, expected a power of two from %u to %u",
			       r->address, r->page, PAGE_MIN, PAGE_MAX);
	if (!r->len || ((r->address | r->len | r->offset) & mask))
		return bad(r, "its address, length or offset is no multiple of its page", err);
	if (r->address + r->len < r->address)
		return bad(r, "it reaches beyond the address space", err);
	if (r->block >= nblocks)
		return bad(r, "it belongs to no block of the image", err);
	if (r->offset > sizes[r->block] || r->len > sizes[r->block] - r->offset)
		return err_set(err, ST_DATA,
			       "the guest's region of 0x%" PRIx64 " bytes at 0x%" PRIx64
			       " reaches from 0x%" PRIx64 " of a block that has 0x%" PRIx64
			       " bytes beyond its end",
			       r->len, r->address, r->offset, sizes[r->block]);
	return 0;
}

int guestmem_check(struct guest_memory *g, const uint64_t *sizes, unsigned nblocks,
		   struct error *err)
{
	for (unsigned i = 0; i < g->nspaces; i++) {
		struct guest_space *s = &g->spaces[i];

		if (!s->nregions)
			return err_set(err, ST_DATA, "the guest's memory has no region");
		for (unsigned j = 0; j < s->nregions; j++)
			if (check_region(&s->regions[j], sizes, nblocks, err))
				return -1;
		qsort(s->regions, s->nregions, sizeof(*s->regions), by_address);
		for (unsigned j = 1; j < s->nregions; j++)
			if (s->regions[j].address - s->regions[j - 1].address <
			    s->regions[j - 1].len)
				return bad(&s->regions[j], "it overlaps another", err);
	}
	return 0;
}

struct guest_region *guestmem_find(const struct guest_space *s, uint64_t address)
{
	unsigned low = 0, high = s->nregions;

	while (low < high) {
		unsigned mid = low + (high - low) / 2;
		struct guest_region *r = &s->regions[mid];

		if (address < r->address)
			high = mid;
		else if (address - r->address >= r->len)
			low = mid + 1;
		else
			return r;
	}
	return NULL;
}

uint32_t guestmem_page(const struct guest_memory *g)
{
	uint32_t page = 0;

	for (unsigned i = 0; i < g->nspaces; i++)
		for (unsigned j = 0; j < g->spaces[i].nregions; j++)
			if (g->spaces[i].regions[j].page > page)
				page = g->spaces[i].regions[j].page;
	return page;
}

uint64_t guestmem_bytes(const struct guest_memory *g)
{
	uint64_t bytes = 0;

	for (unsigned i = 0; i < g->nspaces; i++)
		for (unsigned j = 0; j < g->spaces[i].nregions; j++)
			bytes += g->spaces[i].regions[j].len;
	return bytes;
}
