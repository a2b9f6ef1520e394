// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A source that compares its image with an old copy, of which the destination says what it likes.
 * Input: a byte, 1 if the old copy may be complete; then steps of an opcode and its operands; an
 * operand that is not there is 0. What is not said in the end is said rightly.
 *
 * Whatever was said and taken: exactly those pages travel that differ from what the destination
 * says to have (and, if it may have a part only, such as are zero at both ends), and the others
 * are accounted for.
 */
#include "fuzz_image.h"

#include "../unit/delta_fixture.h"

#include "log.h"

#define NBLOCKS 2
#define PAGES	(5 * DELTA_PAGES + 2)
#define PAGE	DIGEST_PAGE
#define CHUNKS	6

static const char *const names[NBLOCKS] = { "large", "small" };
static const unsigned pages[NBLOCKS] = { PAGES, DELTA_PAGES };
static uint8_t *memory[NBLOCKS];

/* What the destination says of a page or of a chunk. */
enum claim { CLAIM_ZERO, CLAIM_RIGHT, CLAIM_OTHER };

struct chunk {
	uint32_t block;
	uint64_t offset;
};

struct talk {
	const uint8_t *in;
	size_t left;
	struct delta_end e;
	struct delta_compare *c;
	struct digest claim[NBLOCKS][PAGES];
	struct chunk asked[NBLOCKS * CHUNKS];
	unsigned nasked, nanswered, nexpected; /* WANTs that came, were answered, have to come */
	bool over, failed;
	uint64_t bytes;
	int rc; /* delta_compare_run's */
};

/* ---- the image ---- */

static void free_memory(void)
{
	for (unsigned i = 0; i < NBLOCKS; i++)
		free(memory[i]);
}

/* Chunks with data, holes, and both; zeros that are stored. */
static enum fuzz_page page_kind(unsigned page)
{
	unsigned chunk = page / DELTA_PAGES;

	if (chunk == 1 || (chunk == 2 && page % 4))
		return FUZZ_PAGE_HOLE;
	return chunk == 3 ? FUZZ_PAGE_ZEROS : FUZZ_PAGE_DATA;
}

static void make_image(void)
{
	char path[128];

	fuzz_make_dir();
	snprintf(path, sizeof(path), "%s/ram", fuzz_dir);
	FUZZ_CHECK(!mkdir(path, 0700));
	for (unsigned i = 0; i < NBLOCKS; i++)
		memory[i] = fuzz_make_block(fuzz_dir, names[i], pages[i], page_kind);
	atexit(free_memory);
	log_init(LOG_ANSWER, "fuzz");
}

/* ---- what is said ---- */

static uint8_t take(struct talk *k)
{
	if (!k->left)
		return 0;
	k->left--;
	return *k->in++;
}

static bool deliver(struct talk *k, uint16_t type, const void *payload, size_t len)
{
	static struct rp_message m;
	struct error err = { 0 };

	if (k->failed)
		return false;
	m.type = type;
	m.len = (uint32_t)len;
	memcpy(m.payload, payload, len);
	if (!delta_compare_take(k->c, &m, &err))
		return true;
	FUZZ_CHECK(err.status == ST_DATA && err.msg[0]);
	k->failed = true;
	session_peer_failed(&k->e.ss, &err);
	return false;
}

static bool deliver_list(struct talk *k, uint16_t type, const struct delta_list *l)
{
	uint8_t bytes[DELTA_LIST_LEN];

	return deliver(k, type, bytes, delta_list_pack(l, bytes));
}

static struct digest claimed(enum claim how, struct digest ours)
{
	struct digest zero = { 0, 0 }, other = { 1, 1 };

	return how == CLAIM_ZERO ? zero : how == CLAIM_RIGHT ? ours : other;
}

static const struct block *block_of(struct talk *k, uint32_t block)
{
	return &k->e.src.img->blocks[block];
}

/* It was taken: from now on the destination has this there, or has to be asked. */
static void note_chunk(struct talk *k, uint32_t block, uint64_t offset, enum claim how)
{
	struct digest terms[DELTA_PAGES], none = { 0, 0 };
	unsigned n;
	struct digest ours =
		delta_model_terms(block_of(k, block), memory[block], offset, terms, &n);

	k->nexpected += how == CLAIM_OTHER && !digest_equal(ours, none);
	for (unsigned i = 0; i < n; i++)
		k->claim[block][offset / PAGE + i] = claimed(how, terms[i]);
}

static void step_chunks(struct talk *k)
{
	struct delta_list l = { .block = take(k) % 3 };
	unsigned chunk = take(k) % 8, n = take(k) % 5;
	enum claim how[4];

	l.offset = (uint64_t)chunk * DELTA_CHUNK;
	l.n = n;
	for (unsigned i = 0; i < n; i++) {
		uint64_t offset = l.offset + (uint64_t)i * DELTA_CHUNK;
		struct digest terms[DELTA_PAGES], ours = { 7, 7 };
		unsigned ignored;

		how[i] = take(k) % 3;
		if (l.block < NBLOCKS && offset < block_of(k, l.block)->size)
			ours = delta_model_terms(block_of(k, l.block), memory[l.block], offset,
						 terms, &ignored);
		l.digest[i] = claimed(how[i], ours);
		/* what is right of zeros is zero */
		if (digest_equal(l.digest[i], (struct digest){ 0, 0 }))
			how[i] = CLAIM_ZERO;
	}
	if (!deliver_list(k, RP_DIGESTS, &l))
		return;
	k->over |= !n;
	for (unsigned i = 0; i < n; i++)
		note_chunk(k, l.block, l.offset + (uint64_t)i * DELTA_CHUNK, how[i]);
}

/* What has been asked so far. */
static void hear(struct talk *k)
{
	uint8_t payload[DELTA_LIST_LEN];
	struct delta_want w;
	struct error err;
	uint16_t type;
	uint32_t len;

	while (delta_end_next(&k->e, &type, payload, &len)) {
		if (type == MIG_CMD_COMPARED)
			FUZZ_CHECK(len == 8 && k->over);
		if (type != MIG_CMD_WANT)
			continue;
		FUZZ_CHECK(!delta_want_unpack(payload, len, &w, &err));
		for (unsigned i = 0; i < w.n; i++) {
			FUZZ_CHECK(k->nasked < k->nexpected);
			k->asked[k->nasked++] = (struct chunk){ w.block, w.offset[i] };
		}
	}
}

/* The oldest WANT that is open. False: none will come as things are. */
static bool wait_for_want(struct talk *k, struct chunk *c)
{
	hear(k);
	while (!k->failed && k->nanswered == k->nasked && k->nasked < k->nexpected) {
		pthread_mutex_lock(&k->e.lock);
		if (k->e.taken == k->e.len)
			pthread_cond_wait(&k->e.changed, &k->e.lock);
		pthread_mutex_unlock(&k->e.lock);
		hear(k);
	}
	if (k->failed || k->nanswered == k->nasked)
		return false;
	*c = k->asked[k->nanswered];
	return true;
}

static void answer(struct talk *k, const struct chunk *c, unsigned how, unsigned more)
{
	struct delta_list l = { .block = c->block, .offset = c->offset };
	struct digest terms[DELTA_PAGES];

	delta_model_terms(block_of(k, c->block), memory[c->block], c->offset, terms, &l.n);
	for (unsigned i = 0; i < l.n; i++)
		l.digest[i] = claimed((how >> i % 8 & 1) + 1, terms[i]);
	l.n += more;
	if (!deliver_list(k, RP_PAGE_DIGESTS, &l))
		return;
	k->nanswered++;
	for (unsigned i = 0; i < l.n; i++)
		k->claim[c->block][c->offset / PAGE + i] = l.digest[i];
}

static void step_pages(struct talk *k)
{
	unsigned how = take(k), more = take(k);
	struct chunk c;

	if (wait_for_want(k, &c))
		answer(k, &c, how, more == 0xff);
}

/* For a chunk that nobody may have asked about. */
static void step_other_pages(struct talk *k)
{
	struct chunk c = { take(k) % 3, (uint64_t)(take(k) % 8) * DELTA_CHUNK };
	struct delta_list l = { .block = c.block, .offset = c.offset, .n = take(k) % 20 };

	hear(k);
	for (unsigned i = k->nanswered; i < k->nasked; i++)
		if (k->asked[i].block == c.block && k->asked[i].offset == c.offset)
			return;
	/* it may be asked at any moment */
	if (k->nasked < k->nexpected)
		return;
	if (deliver_list(k, RP_PAGE_DIGESTS, &l))
		FUZZ_CHECK(!"taken, and not asked for");
}

static void step_raw(struct talk *k)
{
	uint16_t type = take(k) & 1 ? RP_DIGESTS : RP_PAGE_DIGESTS;
	size_t len = take(k);

	len = len < k->left ? len : k->left;
	if (len < DELTA_LIST_HEAD) /* a whole one is the other steps' */
		deliver(k, type, k->in, len);
	k->in += len;
	k->left -= len;
}

static void (*const steps[])(struct talk *) = { step_chunks, step_pages, step_chunks,
						step_other_pages, step_raw };

static void finish_talk(struct talk *k)
{
	struct delta_list end = { 0 };
	struct chunk c;

	if (!k->over && deliver_list(k, RP_DIGESTS, &end))
		k->over = true;
	while (wait_for_want(k, &c))
		answer(k, &c, 0, 0);
}

/* ---- the source ---- */

static void *run(void *arg)
{
	struct talk *k = arg;
	struct error err = { 0 };

	k->rc = delta_compare_run(k->c, &k->bytes, &err);
	FUZZ_CHECK(!k->rc == !err.status);
	return NULL;
}

/* What travels, and the account of what does not. */
static void judge(struct talk *k)
{
	struct digest sum = { 0, 0 }, got = k->e.src.digest.sum;
	uint64_t marked = 0;

	for (unsigned i = 0; i < NBLOCKS; i++) {
		const struct block *b = block_of(k, i);
		const struct bitmap *map = delta_compare_map(k->c, b);

		for (unsigned p = 0; p < pages[i]; p++) {
			struct digest term[DELTA_PAGES]; /* one of them */
			bool sent = bitmap_test(map, p), same;

			delta_terms(b, (uint64_t)p * PAGE, memory[i] + (size_t)p * PAGE, PAGE,
				    term);
			same = digest_equal(*term, k->claim[i][p]);
			FUZZ_CHECK(sent || same);
			if (sent && same)
				FUZZ_CHECK(k->e.src.answer.found != FOUND_COMPLETE &&
					   digest_equal(*term, (struct digest){ 0, 0 }));
			marked += sent;
			if (!sent)
				digest_add(&sum, *term);
		}
	}
	FUZZ_CHECK(k->bytes == marked * PAGE);
	FUZZ_CHECK(digest_equal(sum, got));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct talk k;
	struct image_source_opts opts = { 0 };
	struct error err;
	pthread_t thread;

	if (size < 1)
		return 0;
	if (!fuzz_dir[0])
		make_image();
	memset(&k, 0, sizeof(k));
	k.in = data + 1;
	k.left = size - 1;
	FUZZ_CHECK(!delta_end_open(&k.e, ROLE_SOURCE));
	k.e.src.img = image_open(fuzz_dir, &opts, &err);
	FUZZ_CHECK(k.e.src.img && !sent_digest_init(&k.e.src.digest, k.e.src.img, false, &err));
	k.e.src.answer.found = data[0] & 1 ? FOUND_COMPLETE : FOUND_PART;
	k.c = delta_compare_open(&k.e.src, &err);
	FUZZ_CHECK(k.c && !pthread_create(&thread, NULL, run, &k));
	while (k.left)
		steps[take(&k) % (sizeof(steps) / sizeof(steps[0]))](&k);
	finish_talk(&k);
	pthread_join(thread, NULL);
	/* what is wrong may come behind COMPARED */
	FUZZ_CHECK(!k.rc || k.failed);
	if (!k.rc)
		judge(&k);
	delta_compare_free(k.c);
	sent_digest_destroy(&k.e.src.digest, k.e.src.img);
	image_close(k.e.src.img, false);
	delta_end_close(&k.e);
	return 0;
}
