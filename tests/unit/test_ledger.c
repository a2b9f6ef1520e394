// SPDX-License-Identifier: GPL-2.0-or-later
#include "ledger.h"
#include "test.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define PAGE 4096u

static const uint64_t sizes[] = { 100 * PAGE, 7 * PAGE };

/* Another descriptor of the file, as another process has one. */
static int again(const struct ledger *l)
{
	return fcntl(ledger_fd(l), F_DUPFD_CLOEXEC, 3);
}

static struct ledger *make(void)
{
	struct ledger_guest g = {
		.from = { 5, 6, 7, 8 }, .shared = true, .page = PAGE, .sizes = sizes, .nblocks = 2
	};
	struct error err;

	return ledger_new(memfd_create("ledger", MFD_CLOEXEC), &g, &err);
}

static struct ledger_space spaces[] = { { 4711, 0, 99 }, { 0, 3, 0 } };
static struct ledger_view views[] = {
	{ 0x10000, 100 * PAGE, 0, 0, PAGE, 0, 0, 0 },
	{ 0x90000, 2 * PAGE, 5 * PAGE, 1, PAGE, 0, 1, 5 },
	{ 0x90000, 2 * PAGE, 5 * PAGE, 1, PAGE, 1, 2, 0 },
};

/* Two blocks' pages and a child's own, and all that lies somewhere. */
static bool fill(struct ledger *l)
{
	struct ledger_layout now = { spaces, 2, views, 3 };
	static const size_t bits[] = { 100, 7, 2 };
	struct bitmap done, dropped;
	struct error err;

	for (unsigned i = 0; i < 3; i++) {
		if (ledger_add_pages(l, bits[i], &done, &dropped, &err))
			return false;
		bitmap_set_atomic(&done, i, 2);
		bitmap_set_atomic(&dropped, bits[i] - 1, 1);
	}
	return !ledger_note(l, &now, &err);
}

static void found_again(void)
{
	struct ledger *l = make(), *found;
	struct bitmap done, dropped;
	struct error err;

	CHECK(l && !ledger_used(ledger_fd(l)));
	CHECK(l && fill(l) && ledger_used(ledger_fd(l)));
	found = ledger_open(again(l), &err);
	CHECK(found);
	if (found) {
		const struct ledger_guest *g = ledger_guest(found);
		const struct ledger_layout *lay = ledger_layout(found);

		CHECK(g->shared && g->page == PAGE && g->nblocks == 2);
		CHECK(g->sizes[1] == sizes[1]);
		CHECK(g->from.dev == 5 && g->from.ino == 6 && g->from.size == 7);
		CHECK(g->from.mtime == 8);
		CHECK(lay->nspaces == 2 && lay->nviews == 3);
		CHECK(!memcmp(lay->spaces, spaces, sizeof(spaces)));
		CHECK(!memcmp(lay->views, views, sizeof(views)));
		CHECK(ledger_npages(found) == 3);
		for (unsigned i = 0; i < 3; i++) {
			ledger_pages(found, i, &done, &dropped);
			CHECK(bitmap_count(&done) == 2);
			CHECK(bitmap_test(&done, i) && bitmap_test(&dropped, done.bits - 1));
			CHECK(bitmap_count(&dropped) == 1);
		}
		CHECK(!ledger_complete(found));
		ledger_set_complete(l);
		CHECK(ledger_complete(found));
	}
	ledger_close(found);
	ledger_close(l);
}

static void the_last_layout(void)
{
	struct ledger *l = make(), *found;
	struct ledger_view *many = calloc(3000, sizeof(*many));
	struct error err;

	CHECK(l && many && fill(l));
	for (unsigned n = 1; n <= 3000; n = n * 3 / 2 + 1) {
		struct ledger_layout now = { spaces, 1, many, n };

		for (unsigned i = 0; i < n; i++)
			many[i] = (struct ledger_view){
				(uint64_t)i * 2 * PAGE, PAGE, 0, 0, PAGE, 0, 0, i % 100
			};
		CHECK(!ledger_note(l, &now, &err));
		found = ledger_open(again(l), &err);
		CHECK(found && ledger_layout(found)->nviews == n && ledger_npages(found) == 3);
		/* it goes on from there, as often as it likes */
		if (found) {
			CHECK(ledger_layout(found)->views[n - 1].first == (n - 1) % 100);
			CHECK(!ledger_note(found, &now, &err));
			CHECK(!ledger_note(found, &now, &err));
			CHECK(ledger_layout(found)->views[n - 1].first == (n - 1) % 100);
		}
		ledger_close(found);
		ledger_close(l);
		l = make();
		CHECK(l && fill(l));
	}
	free(many);
	ledger_close(l);
}

/* What was read and not yet done, with whose it was; and only until it is done. */
static void what_is_left(void)
{
	static const char word[] = "a message";
	struct ledger *l = make(), *found;
	struct ledger_space of;
	struct error err;
	char *inbox;

	CHECK(l && fill(l));
	inbox = ledger_inbox(l, &spaces[1]);
	memcpy(inbox + LEDGER_INBOX - sizeof(word), word, sizeof(word));
	found = ledger_open(again(l), &err);
	CHECK(found);
	if (found) {
		const char *left = ledger_left(found, &of);

		CHECK(!memcmp(&of, &spaces[1], sizeof(of)));
		memset(ledger_inbox(found, &spaces[0]), 0, LEDGER_INBOX);
		CHECK(!memcmp(left + LEDGER_INBOX - sizeof(word), word, sizeof(word)));
		CHECK(!inbox[LEDGER_INBOX - sizeof(word)]);
	}
	ledger_close(found);
	ledger_close(l);
}

/* A guest of one block, whose memory comes from another host. */
static struct ledger *make_afar(uint64_t size)
{
	struct ledger_guest g = { .page = PAGE, .sizes = &size, .nblocks = 1 };
	struct ledger_source s = { .block = "pc.ram", .page = PAGE, .unit = 2 * PAGE };
	struct ledger *l;
	struct error err;

	l = ledger_new(memfd_create("ledger", MFD_CLOEXEC), &g, &err);
	if (!l || (!ledger_source(l) && !ledger_add_source(l, &s, &err)))
		return l;
	ledger_close(l);
	return NULL;
}

static bool note_one(struct ledger *l)
{
	static struct ledger_view v = { 0x10000, 7 * PAGE, 0, 0, PAGE, 0, 0, 0 };
	struct ledger_layout now = { spaces, 1, &v, 1 };
	struct bitmap done, dropped;
	struct error err;

	return !ledger_add_pages(l, 7, &done, &dropped, &err) && !ledger_note(l, &now, &err);
}

static void source_found_again(void)
{
	static const uint8_t session[16] = "a session's id";
	static const struct digest files = { 7, 8 };
	struct ledger *l = make_afar(7 * PAGE), *found;
	struct bitmap came;
	struct error err;

	CHECK(l && note_one(l));
	if (!l)
		return;
	ledger_came(l, &came);
	CHECK(came.bits == 4);
	bitmap_set_atomic(&came, 1, 3);
	for (int handed_over = 0; handed_over < 2; handed_over++) {
		const struct ledger_source *s;

		found = ledger_open(again(l), &err);
		s = found ? ledger_source(found) : NULL;
		CHECK(s && !strcmp(s->block, "pc.ram") && s->page == PAGE && s->unit == 2 * PAGE);
		CHECK(s && s->handed_over == handed_over && s->has_files == handed_over);
		if (handed_over)
			CHECK(s && !memcmp(s->session, session, 16) && s->files.low == 8);
		if (s) {
			ledger_came(found, &came);
			CHECK(came.bits == 4 && bitmap_count(&came) == 3 && !bitmap_test(&came, 0));
		}
		ledger_close(found);
		ledger_hand_over(l, session, &files);
	}
	ledger_close(l);
	l = make();
	CHECK(l && fill(l) && !ledger_source(l));
	found = l ? ledger_open(again(l), &err) : NULL;
	CHECK(found && !ledger_source(found));
	ledger_close(found);
	ledger_close(l);
}

/* Any word of it may be anything: it is refused, or all that is said of it lies in it. */
static void look_outside(struct ledger *l)
{
	static const uint64_t bad[] = {
		1, PAGE, UINT32_MAX, UINT64_MAX, UINT64_MAX - 4095, UINT64_C(1) << 63, 3 * PAGE
	};
	unsigned refused = 0;
	struct stat st;

	CHECK(l && !fstat(ledger_fd(l), &st));
	for (off_t at = 0; l && at < st.st_size; at += 8) {
		uint64_t was;

		if (pread(ledger_fd(l), &was, 8, at) != 8 || (!was && at > 1024))
			continue;
		for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
			struct bitmap done, dropped;
			struct ledger *found;
			struct error err;

			CHECK(pwrite(ledger_fd(l), &bad[i], 8, at) == 8);
			found = ledger_open(again(l), &err);
			refused += !found;
			for (unsigned n = 0; found && n < ledger_npages(found); n++) {
				ledger_pages(found, n, &done, &dropped);
				bitmap_count(&done);
				bitmap_count(&dropped);
			}
			if (found && ledger_source(found)) {
				CHECK(strlen(ledger_source(found)->block) < 256);
				ledger_came(found, &done);
				bitmap_count(&done);
			}
			ledger_close(found);
		}
		CHECK(pwrite(ledger_fd(l), &was, 8, at) == 8);
	}
	CHECK(refused > 50);
	ledger_close(l);
}

static void nothing_leads_outside(void)
{
	struct ledger *l = make();

	CHECK(l && fill(l));
	look_outside(l);
	l = make_afar(7 * PAGE);
	CHECK(l && note_one(l));
	look_outside(l);
}

/* Whoever has the file open writes into it while it is in use. */
static void numbers_are_read_once(void)
{
	struct ledger *l = make(), *found;
	uint64_t huge = UINT64_C(1) << 40;
	struct bitmap done, dropped;
	struct error err;

	CHECK(l && fill(l));
	found = l ? ledger_open(again(l), &err) : NULL;
	CHECK(found);
	if (!found)
		return;
	ledger_pages(found, 0, &done, &dropped);
	CHECK(done.bits == 100);
	/* of the first pair, which is the first piece behind the head */
	CHECK(pwrite(ledger_fd(l), &huge, 8, PAGE) == 8);
	for (off_t at = 16; at < (off_t)PAGE; at += 8)
		CHECK(pwrite(ledger_fd(l), &huge, 8, at) == 8);
	ledger_pages(found, 0, &done, &dropped);
	CHECK(done.bits == 100 && dropped.bits == 100);
	CHECK(dropped.words == done.words + 2);
	CHECK(bitmap_count(&done) == 2 && bitmap_count(&dropped) == 1);
	CHECK(ledger_guest(found)->sizes[1] == sizes[1] && ledger_guest(found)->page == PAGE);
	ledger_close(found);
	ledger_close(l);
}

static void something_else(void)
{
	struct error err;
	int fd = memfd_create("other", MFD_CLOEXEC);

	CHECK(!ledger_used(fd) && !ledger_open(fcntl(fd, F_DUPFD_CLOEXEC, 3), &err));
	CHECK(err.status == ST_DATA);
	CHECK(!ftruncate(fd, 2 * PAGE) && !ledger_used(fd));
	CHECK(!ledger_open(fcntl(fd, F_DUPFD_CLOEXEC, 3), &err));
	CHECK(err.status == ST_DATA);
	close(fd);
}

static const struct test_case cases[] = {
	{ "what was noted is found again", found_again },
	{ "so is a source on another host, and what has come of it", source_found_again },
	{ "the last layout is in force, however large they get", the_last_layout },
	{ "what was read and not yet heeded is found", what_is_left },
	{ "no number in it leads outside", nothing_leads_outside },
	{ "no number is read again after its check", numbers_are_read_once },
	{ "something else is refused", something_else },
};
TEST_MAIN(cases)
