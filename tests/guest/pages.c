// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What checks its own memory inside a guest that runs Linux.
 *
 *	pages MIB
 *
 * It fills so many MiB: a page holds its number, a generation and a checksum of all that. Then,
 *again and again, it looks at every page, in another order each time, and writes one in three anew.
 *A line for each such pass counts from the beginning: `pass N: P pages, W wrong, Z zero`; what is
 *zero is wrong, too. It says `page N ...` of the first few, and goes on.
 */
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define PAGE  4096u
#define MAGIC 0x5041474553544553ull
#define TOLD  8

struct page {
	uint64_t magic, number, generation;
	uint64_t filler[508];
	uint64_t sum;
};

static struct page *pages;
static uint32_t *generations; /* of each page; memory of the guest as they are */
static uint64_t npages, seen, wrong, zero;

static uint64_t mix(uint64_t x)
{
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
	return x ^ (x >> 31);
}

static uint64_t sum_of(const struct page *p)
{
	const uint64_t *w = (const uint64_t *)p;
	uint64_t s = 0;

	for (size_t i = 0; i < PAGE / 8 - 1; i++)
		s = (s ^ w[i]) * 0x100000001b3ull;
	return s;
}

static void fill(uint64_t n)
{
	struct page *p = &pages[n];
	uint64_t x = mix(n + 1) + ++generations[n];

	p->magic = MAGIC;
	p->number = n;
	p->generation = generations[n];
	for (size_t i = 0; i < 508; i++)
		p->filler[i] = x += 0x9e3779b97f4a7c15ull;
	p->sum = sum_of(p);
}

static bool all_zero(const struct page *p)
{
	const uint64_t *w = (const uint64_t *)p;

	for (size_t i = 0; i < PAGE / 8; i++)
		if (w[i])
			return false;
	return true;
}

static void look(uint64_t n)
{
	const struct page *p = &pages[n];
	bool is_zero;

	seen++;
	if (p->magic == MAGIC && p->number == n && p->generation == generations[n] &&
	    p->sum == sum_of(p))
		return;
	is_zero = all_zero(p);
	zero += is_zero;
	if (wrong++ < TOLD)
		printf("page %llu is %s\n", (unsigned long long)n, is_zero ? "zero" : "wrong");
}

/* Every page once: a step that has no divisor in common with a power of two, from anywhere. */
static void pass(uint64_t round)
{
	uint64_t n = mix(round), step = mix(round + 77) | 1, size = 1;

	while (size < npages)
		size *= 2;
	for (uint64_t i = 0; i < size; i++, n += step) {
		uint64_t at = n & (size - 1);

		if (at >= npages)
			continue;
		look(at);
		if (mix(n ^ round) % 3 == 0)
			fill(at);
	}
}

int main(int argc, char **argv)
{
	uint64_t mib = argc == 2 ? strtoull(argv[1], NULL, 10) : 0;

	setvbuf(stdout, NULL, _IOLBF, 0);
	npages = mib << 8;
	pages = mmap(NULL, mib << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	generations = calloc(npages, sizeof(*generations));
	if (!mib || pages == MAP_FAILED || !generations) {
		printf("pages: %s\n", mib ? strerror(errno) : "how many MiB?");
		return 2;
	}
	for (uint64_t n = 0; n < npages; n++)
		fill(n);
	printf("filled\n");
	for (uint64_t round = 1;; round++) {
		pass(round);
		printf("pass %llu: %llu pages, %llu wrong, %llu zero\n", (unsigned long long)round,
		       (unsigned long long)seen, (unsigned long long)wrong,
		       (unsigned long long)zero);
	}
}
