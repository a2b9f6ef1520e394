// SPDX-License-Identifier: GPL-2.0-or-later
/* A connection's pages on their way into the guest: who says of one that it has come. */
#include "test.h"

#include "lazy.h"
#include "pull.h"
#include "wire-ram.h"

#include <sys/socket.h>

#define PG 4096u

/* What is done with a page, in order: Arrived, Won or lost, Stored, Came. */
static char did[64];
static bool first; /* no other lane has brought it */
static bool full;  /* it cannot be stored */

static void note(char c)
{
	size_t n = strlen(did);

	if (n + 1 < sizeof(did))
		did[n] = c;
}

int lazy_keep(struct lazy *l, uint64_t offset, const void *buf, size_t len, struct error *e)
{
	(void)l, (void)offset, (void)buf, (void)len, (void)e;
	return 0;
}

int pager_arrived(struct pager *p, unsigned b, uint64_t offset, const void *buf, size_t len,
		  struct error *e)
{
	(void)p, (void)b, (void)offset, (void)buf, (void)len, (void)e;
	note('a');
	return 0;
}

int pager_arrived_zero(struct pager *p, unsigned b, uint64_t offset, uint64_t len, struct error *e)
{
	(void)p, (void)b, (void)offset, (void)len, (void)e;
	note('a');
	return 0;
}

int pager_arrived_asked(struct pager *p, unsigned b, uint64_t offset, const void *buf, size_t len,
			struct error *e)
{
	return pager_arrived(p, b, offset, buf, len, e);
}

void pull_placing(struct pull *p, bool now)
{
	(void)p, (void)now;
}

size_t pull_win(struct pull *p, uint64_t offset, size_t len)
{
	(void)p, (void)offset;
	note(first ? 'w' : 'l');
	return first ? len : 0;
}

int pull_store(struct pull *p, struct block *b, uint64_t offset, const void *buf, size_t len,
	       struct error *e)
{
	(void)p, (void)b, (void)offset, (void)buf, (void)len;
	note('s');
	return full ? err_set(e, ST_FILE, "no space") : 0;
}

void pull_came(struct pull *p, const struct block *b, uint64_t offset, uint64_t len)
{
	(void)p, (void)b;
	note(offset == PG && len == PG ? 'c' : '?');
}

int ahead_drop(struct ahead *a, const struct block *b, uint64_t offset, uint64_t len,
	       struct digest *sum, struct error *e)
{
	(void)a, (void)b, (void)offset, (void)len, (void)sum;
	return err_set(e, ST_DATA, "nothing comes ahead here");
}

uint8_t *ahead_room(struct ahead *a, const struct block *b, uint64_t offset)
{
	(void)a, (void)b, (void)offset;
	return NULL;
}

int ahead_took(struct ahead *a, struct block *b, uint64_t offset, const uint8_t *buf, size_t len,
	       struct digest *sum, uint64_t *zeros, struct error *e)
{
	(void)buf, (void)zeros;
	return ahead_drop(a, b, offset, len, sum, e);
}

int ahead_took_zero(struct ahead *a, struct block *b, uint64_t offset, uint64_t len,
		    struct digest *sum, struct error *e)
{
	return ahead_drop(a, b, offset, len, sum, e);
}

/* ---- one page over a connection ---- */

/* The block's second page, of which RAM_CONTINUE says the block. 0: it is placed. */
static int bring(struct pull_lane *lane, struct cancel *token, struct error *e)
{
	struct transport *wt, *rt;
	struct stream w, r;
	uint8_t page[PG];
	int p[2], rc = -2;

	memset(page, 7, sizeof(page));
	memset(did, 0, sizeof(did));
	if (socketpair(AF_UNIX, SOCK_STREAM, 0, p))
		return -2;
	wt = transport_from_fd(-1, p[1], "writer", token, e);
	rt = transport_from_fd(p[0], -1, "reader", token, e);
	if (!wt || !rt || stream_open(&w, wt, 0, 4 * PG, e) || stream_open(&r, rt, 4 * PG, 0, e))
		return -2;
	lane->s = &r;
	if (!stream_write(&w, page, PG, e) && !stream_flush(&w, e))
		rc = pull_lane_record(lane, PG | RAM_PAGE | RAM_CONTINUE, e);
	stream_close(&w);
	stream_close(&r);
	return transport_close(wt, e) || transport_close(rt, e) ? -2 : rc;
}

static void who_is_first_says_that_it_has_come(void)
{
	static struct session ss;
	static struct target t;
	static struct lazy lazy;
	struct block b = { .name = "a", .size = 4 * PG, .page_size = PG };
	struct pull_lane lane;
	struct cancel token;
	struct error e;

	t.ss = &ss;
	ss.lazy = &lazy;
	t.img = image_of_blocks(&b, 1, PG, &e);
	REQUIRE(t.img && !cancel_init(&token, &e));
	REQUIRE(!pull_lane_open(&lane, &t, NULL, PG, true, &e));
	lane.block = &t.img->blocks[0];
	first = true;
	CHECK(bring(&lane, &token, &e) == 0);
	CHECK_STR(did, "awsc");
	/* the other one may still be storing it */
	first = false;
	CHECK(bring(&lane, &token, &e) == 0);
	CHECK_STR(did, "al");
	first = full = true;
	CHECK(bring(&lane, &token, &e) == -1 && e.status == ST_FILE);
	CHECK_STR(did, "aws");
	pull_lane_close(&lane);
	cancel_destroy(&token);
	image_close(t.img, false);
}

static const struct test_case cases[] = {
	{ "who is the first to bring a page says that it has come",
	  who_is_first_says_that_it_has_come },
};

TEST_MAIN(cases)
