// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A destination that offers an old copy's digests, and a source that wants what it likes. Input: a
 * byte, 1 if it asks before all was said; then WANTs: a length, and so many bytes of payload that
 * stand for block and chunks in short (see take_want), or, with 0x80 in the length, as they are.
 *
 * What is said is right, in order and whole; a WANT of something that is there is answered once all
 * was said; the old copy is in the new image.
 */
#include "fuzz_image.h"

#include "../unit/delta_fixture.h"

#include "log.h"

#define NBLOCKS 3 /* the last one is new */
#define PAGES	(70 * DELTA_PAGES + 3)
#define PAGE	DIGEST_PAGE

static const char *const names[NBLOCKS] = { "large", "small", "new" };
static const unsigned pages[NBLOCKS] = { PAGES, 3, 20 };
static uint8_t *memory[NBLOCKS];
static char old_path[80], new_path[80];

struct talk {
	struct delta_end e;
	struct delta_offer *o;
	unsigned nwanted, nanswered; /* chunks of WANTs that were taken; PAGE_DIGESTS */
	uint32_t block;		     /* of the DIGESTS: where the last one ended */
	uint64_t at;
	bool over;
	struct digest sum;
};

/* ---- the old copy ---- */

static void free_memory(void)
{
	for (unsigned i = 0; i < NBLOCKS; i++)
		free(memory[i]);
}

static enum fuzz_page page_kind(unsigned page)
{
	unsigned chunk = page / DELTA_PAGES;

	if (chunk % 8 == 3 || (chunk > 10 && chunk < 60) || (chunk % 8 == 4 && page % 5))
		return FUZZ_PAGE_HOLE;
	return chunk % 8 == 5 ? FUZZ_PAGE_ZEROS : FUZZ_PAGE_DATA;
}

static void make_old(void)
{
	char path[128];

	fuzz_make_dir();
	snprintf(old_path, sizeof(old_path), "%s/old", fuzz_dir);
	snprintf(new_path, sizeof(new_path), "%s/new/", fuzz_dir);
	snprintf(path, sizeof(path), "%s/ram", old_path);
	FUZZ_CHECK(!mkdir(old_path, 0700) && !mkdir(path, 0700));
	for (unsigned i = 0; i < NBLOCKS - 1; i++)
		memory[i] = fuzz_make_block(old_path, names[i], pages[i], page_kind);
	memory[NBLOCKS - 1] = calloc(pages[NBLOCKS - 1], PAGE);
	FUZZ_CHECK(memory[NBLOCKS - 1]);
	atexit(free_memory);
	log_init(LOG_ANSWER, "fuzz");
}

static struct image *make_new(struct error *err)
{
	struct image_layout l = { .nblocks = NBLOCKS };
	struct block blocks[NBLOCKS];

	memset(blocks, 0, sizeof(blocks));
	for (unsigned i = 0; i < NBLOCKS; i++) {
		snprintf(blocks[i].name, sizeof(blocks[i].name), "%s", names[i]);
		blocks[i].size = (uint64_t)pages[i] * PAGE;
	}
	l.blocks = blocks;
	return image_create(new_path, &l, err);
}

/* ---- what the source says ---- */

/* In short: a byte for the block, one a chunk. */
static size_t take_want(const uint8_t *in, size_t len, uint8_t out[DELTA_WANT_LEN])
{
	struct delta_want w = { .block = len ? in[0] % 4 : 0 };

	for (size_t i = 1; i < len && w.n < DELTA_WANT_MAX; i++)
		w.offset[w.n++] = (uint64_t)in[i] * DELTA_CHUNK;
	return delta_want_pack(&w, out);
}

static bool possible(const struct delta_want *w)
{
	for (unsigned i = 0; i < w->n; i++)
		if (w->block >= NBLOCKS || w->offset[i] >= (uint64_t)pages[w->block] * PAGE)
			return false;
	return true;
}

static void want(struct talk *k, const uint8_t *in, size_t len, bool raw, bool all_said)
{
	uint8_t bytes[DELTA_WANT_LEN];
	struct error err = { 0 };
	struct delta_want w;
	int rc;

	if (!raw)
		len = take_want(in, len, bytes);
	if (delta_want_unpack(raw ? in : bytes, len, &w, &err))
		return;
	rc = delta_offer_pages(k->o, &w, &err);
	FUZZ_CHECK(!rc || (err.status == ST_DATA && err.msg[0]));
	FUZZ_CHECK(rc || possible(&w));
	if (all_said)
		FUZZ_CHECK(!rc == possible(&w));
	k->nwanted += rc ? 0 : w.n;
}

static void wants(struct talk *k, const uint8_t *in, size_t left, bool all_said)
{
	while (left > 0) {
		size_t len = in[0] & 0x7f;
		bool raw = in[0] & 0x80;

		in++;
		left--;
		len = len < left ? len : left;
		want(k, in, len, raw, all_said);
		in += len;
		left -= len;
	}
}

/* ---- what the destination said ---- */

static void judge_digests(struct talk *k, const struct delta_list *l)
{
	struct digest terms[DELTA_PAGES], ours;
	unsigned n;

	FUZZ_CHECK(!k->over);
	k->over = !l->n;
	if (!l->n)
		return;
	FUZZ_CHECK(l->block < NBLOCKS &&
		   (l->block > k->block || (l->block == k->block && l->offset >= k->at)));
	for (unsigned i = 0; i < l->n; i++) {
		ours = delta_model_terms(&k->e.t.img->blocks[l->block], memory[l->block],
					 l->offset + (uint64_t)i * DELTA_CHUNK, terms, &n);
		FUZZ_CHECK(digest_equal(ours, l->digest[i]));
		digest_add(&k->sum, ours);
	}
	k->block = l->block;
	k->at = l->offset + (uint64_t)l->n * DELTA_CHUNK;
}

static void judge_pages(struct talk *k, const struct delta_list *l)
{
	struct digest terms[DELTA_PAGES];
	unsigned n;

	FUZZ_CHECK(l->block < NBLOCKS && l->offset < (uint64_t)pages[l->block] * PAGE);
	delta_model_terms(&k->e.t.img->blocks[l->block], memory[l->block], l->offset, terms, &n);
	FUZZ_CHECK(n == l->n && !memcmp(terms, l->digest, n * sizeof(terms[0])));
	k->nanswered++;
}

/* A WANT with something impossible behind what is possible is answered as far as that. */
static void judge(struct talk *k)
{
	struct digest sum = { 0, 0 }, got;
	uint8_t payload[DELTA_LIST_LEN];
	struct delta_list l;
	struct error err;
	uint16_t type;
	uint32_t len;

	while (delta_end_next(&k->e, &type, payload, &len)) {
		FUZZ_CHECK(!delta_list_unpack(payload, len, &l, &err));
		if (type == RP_DIGESTS)
			judge_digests(k, &l);
		else
			judge_pages(k, &l);
	}
	FUZZ_CHECK(k->over && k->nanswered >= k->nwanted);
	image_digest(k->e.t.img, &got);
	for (unsigned i = 0; i < NBLOCKS; i++)
		for (uint64_t at = 0; at < (uint64_t)pages[i] * PAGE; at += DELTA_CHUNK) {
			struct digest terms[DELTA_PAGES];
			unsigned n;

			digest_add(&sum, delta_model_terms(&k->e.t.img->blocks[i], memory[i], at,
							   terms, &n));
		}
	FUZZ_CHECK(digest_equal(sum, got) && digest_equal(sum, k->sum));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct talk k;
	struct image *old;
	struct error err;
	bool early;

	if (size < 1)
		return 0;
	if (!fuzz_dir[0])
		make_old();
	memset(&k, 0, sizeof(k));
	early = data[0] & 1;
	FUZZ_CHECK(!delta_end_open(&k.e, ROLE_DESTINATION));
	k.e.t.img = make_new(&err);
	FUZZ_CHECK(k.e.t.img);
	old = delta_open(k.e.t.img, old_path, &err);
	FUZZ_CHECK(old);
	k.o = delta_offer_start(&k.e.t, old, true, &err);
	FUZZ_CHECK(k.o && (early || !delta_offer_wait(k.o, &err)));
	wants(&k, data + 1, size - 1, !early);
	FUZZ_CHECK(!delta_offer_wait(k.o, &err));
	judge(&k);
	delta_offer_free(k.o);
	image_close(k.e.t.img, false);
	delta_end_close(&k.e);
	return 0;
}
