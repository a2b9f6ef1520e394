// SPDX-License-Identifier: GPL-2.0-or-later
/* The guest is this process: its memory is a file whose content comes when it is touched. */
#include "cancel.h"
#include "pager.h"
#include "test.h"
#include "uffd.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PAGE  4096u
#define PAGES 64u
#define SIZE  (PAGES * PAGE)

static int file = -1;
static unsigned stored;	 /* how many bytes went into the file past the mappings */
static unsigned no_room; /* so often */
static struct cancel cancel;

static unsigned char content(uint64_t page)
{
	return (unsigned char)(page + 1);
}

static int read_page(void *arg, unsigned block, uint64_t offset, void *buf, size_t len, bool *zero,
		     struct error *err)
{
	(void)arg;
	(void)block;
	(void)err;
	*zero = false;
	for (size_t i = 0; i < len; i += PAGE)
		memset((char *)buf + i, content((offset + i) / PAGE), PAGE);
	return 0;
}

static int store(void *arg, unsigned block, uint64_t offset, const void *buf, size_t len,
		 struct error *err)
{
	(void)arg;
	(void)block;
	if (no_room) {
		no_room--;
		return err_sys(err, ST_FILE, ENOSPC, "cannot write");
	}
	stored += (unsigned)len;
	if (pwrite(file, buf, len, (off_t)offset) == (ssize_t)len)
		return 0;
	return err_sys(err, ST_FILE, errno, "cannot write");
}

static int new_uffd(uint64_t features)
{
	struct uffdio_api api = { .api = UFFD_API, .features = features };
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);

	if (fd >= 0 && ioctl(fd, UFFDIO_API, &api)) {
		close(fd);
		return -1;
	}
	return fd;
}

static bool missing(int fd, const void *at, size_t len)
{
	struct uffdio_register reg = { .range = { (uintptr_t)at, len },
				       .mode = UFFDIO_REGISTER_MODE_MISSING };

	return !ioctl(fd, UFFDIO_REGISTER, &reg);
}

/* A part of the file, registered, and in what the pager is told of. */
static unsigned char *map_part(struct guest_memory *g, unsigned first, unsigned n)
{
	struct guest_space *s = &g->spaces[0];
	unsigned char *p =
		mmap(NULL, n * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, file, (off_t)first * PAGE);
	struct guest_region r = { (uintptr_t)p, n * PAGE, 0, first * PAGE, PAGE, 0, 0 };
	struct error err;

	if (p == MAP_FAILED || !missing(s->uffd, p, n * PAGE) || guestmem_add_region(s, &r, &err))
		return NULL;
	return p;
}

static bool guest_new(struct guest_memory *g, uint64_t features)
{
	struct error err;
	int fd = new_uffd(features);

	guestmem_init(g);
	g->shared = true;
	file = memfd_create("guest", MFD_CLOEXEC);
	stored = 0;
	return fd >= 0 && guestmem_add_space(g, fd, getpid(), &err) && file >= 0 &&
	       !ftruncate(file, SIZE) && !cancel_init(&cancel, &err);
}

static struct pager *start(struct guest_memory *g, struct error *err)
{
	static const uint64_t size = SIZE;
	struct pager_options o = { .cancel = &cancel,
				   .source = { .read = read_page },
				   .sizes = &size,
				   .nblocks = 1,
				   .store = store };

	return pager_start(g, &o, err);
}

static void end(struct pager *p)
{
	pager_stop(p);
	cancel_destroy(&cancel);
	close(file);
}

/* All of the content comes, as the push brings it. */
static bool push(struct pager *p, struct error *err)
{
	/* static: malloc() might map it where a guest that moves about has just been */
	static unsigned char all[SIZE];
	bool zero;

	return !read_page(NULL, 0, 0, all, SIZE, &zero, err) &&
	       !pager_arrived(p, 0, 0, all, SIZE, err) && !pager_complete(p, err);
}

/* The file has the source's pages, but for those from `first` on, which the guest has written. */
static unsigned wrong_pages(unsigned first, unsigned n)
{
	unsigned char buf[PAGE];
	unsigned wrong = 0;

	for (unsigned i = 0; i < PAGES; i++) {
		unsigned char want = i >= first && i - first < n ? 0xee : content(i);

		if (pread(file, buf, PAGE, (off_t)i * PAGE) != PAGE || buf[0] != want ||
		    buf[PAGE - 1] != want)
			wrong++;
	}
	return wrong;
}

static void what_the_guest_wrote_stays_beside_what_nobody_maps(void)
{
	struct guest_memory g;
	struct error err;
	struct pager *p;
	unsigned char *at;

	/* the piece begins and ends in the middle of what is placed at a time */
	REQUIRE(guest_new(&g, 0));
	at = map_part(&g, 3, 20);
	REQUIRE(at);
	p = start(&g, &err);
	REQUIRE(p);
	memset(at + 2 * PAGE, 0xee, 9 * PAGE);
	CHECK(push(p, &err));
	CHECK(wrong_pages(5, 9) == 0);
	CHECK(stored == (PAGES - 20) * PAGE);
	munmap(at, 20 * PAGE);
	end(p);
}

static void what_the_guest_wrote_stays_when_it_unmaps_a_page(void)
{
	struct guest_memory g;
	struct error err;
	struct pager *p;
	unsigned char *at;

	REQUIRE(guest_new(&g, UFFD_FEATURE_EVENT_UNMAP));
	at = map_part(&g, 0, PAGES);
	REQUIRE(at);
	p = start(&g, &err);
	REQUIRE(p);
	memset(at + 4 * PAGE, 0xee, 3 * PAGE);
	/* one that it wrote, and one that has never come */
	CHECK(!munmap(at + 5 * PAGE, PAGE));
	CHECK(!munmap(at + 10 * PAGE, PAGE));
	CHECK(push(p, &err));
	CHECK(wrong_pages(4, 3) == 0);
	CHECK(stored == PAGE);
	munmap(at, SIZE);
	end(p);
}

static void a_range_mapped_twice_covers_no_other(void)
{
	struct guest_memory g;
	struct error err;
	struct pager *p;
	unsigned char *at, *again;

	REQUIRE(guest_new(&g, 0));
	at = map_part(&g, 0, PAGES / 2);
	again = map_part(&g, 0, PAGES / 2);
	REQUIRE(at && again);
	p = start(&g, &err);
	REQUIRE(p);
	memset(at + PAGE, 0xee, 2 * PAGE);
	CHECK(again[PAGE] == 0xee);
	CHECK(push(p, &err));
	CHECK(wrong_pages(1, 2) == 0);
	CHECK(stored == SIZE / 2);
	munmap(at, SIZE / 2);
	munmap(again, SIZE / 2);
	end(p);
}

static void no_room_in_the_file_is_waited_for(void)
{
	struct guest_memory g;
	struct error err;
	struct pager *p;
	unsigned char *at;

	REQUIRE(guest_new(&g, 0));
	at = map_part(&g, 0, 1);
	REQUIRE(at);
	p = start(&g, &err);
	REQUIRE(p);
	no_room = 2;
	CHECK(push(p, &err));
	CHECK(no_room == 0);
	CHECK(wrong_pages(0, 0) == 0);
	munmap(at, PAGE);
	end(p);
}

static void *look_at(void *at)
{
	*(volatile unsigned char *)at;
	return NULL;
}

/* Whoever looks there would else wait for ever, and nobody would know. */
static void what_a_region_grew_by_is_no_silent_wait(void)
{
	struct guest_memory g;
	struct error err;
	struct pager *p;
	unsigned char *at;
	pthread_t thread;

	REQUIRE(guest_new(&g, UFFD_FEATURE_EVENT_REMAP));
	at = map_part(&g, 0, 4);
	REQUIRE(at);
	p = start(&g, &err);
	REQUIRE(p);
	at = mremap(at, 4 * PAGE, 8 * PAGE, MREMAP_MAYMOVE);
	REQUIRE(at != MAP_FAILED);
	CHECK(at[3 * PAGE] == content(3));
	REQUIRE(!pthread_create(&thread, NULL, look_at, at + 6 * PAGE));
	CHECK(pager_wait(p, 30000, &err) < 0);
	CHECK(err.status == ST_UNSUPPORTED && strstr(err.msg, "what belongs there"));
	end(p); /* the last descriptor: the thread goes on */
	pthread_join(thread, NULL);
	munmap(at, 8 * PAGE);
}

static unsigned char *moving;
static atomic_bool enough;

static void *move_about(void *arg)
{
	unsigned char *place = arg;

	while (!enough) {
		void *p = mremap(moving, SIZE, SIZE, MREMAP_MAYMOVE | MREMAP_FIXED, place);

		place = moving;
		moving = p;
	}
	return NULL;
}

static void what_moves_while_all_has_come_is_let_go_of(void)
{
	for (unsigned i = 0; i < 20; i++) {
		struct guest_memory g;
		struct error err;
		struct pager_stats st;
		struct pager *p;
		pthread_t thread;
		void *other = mmap(NULL, SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		REQUIRE(guest_new(&g, UFFD_FEATURE_EVENT_REMAP | UFFD_FEATURE_EVENT_UNMAP));
		moving = map_part(&g, 0, PAGES);
		p = moving && other != MAP_FAILED ? start(&g, &err) : NULL;
		REQUIRE(p);
		enough = false;
		REQUIRE(!pthread_create(&thread, NULL, move_about, other));
		CHECK(push(p, &err));
		enough = true;
		pthread_join(thread, NULL);
		/* no longer registered: else this would be a fault that nobody knows of */
		CHECK(!fallocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, SIZE));
		CHECK(moving[SIZE - 1] == 0);
		pager_get_stats(p, &st);
		CHECK(st.faults == 0);
		munmap(moving, SIZE);
		end(p);
	}
}

/* ---- a source that is asked, and answers some time ---- */

static atomic_uint requests;
static atomic_ullong requested, requested_len; /* the last one's */

static int request(void *arg, unsigned block, uint64_t offset, size_t len, struct error *err)
{
	(void)arg;
	(void)block;
	(void)err;
	requested = offset;
	requested_len = len;
	requests++;
	return 0;
}

static struct pager *start_far(struct guest_memory *g, struct error *err)
{
	static const uint64_t size = SIZE;
	struct pager_options o = { .cancel = &cancel,
				   .source = { .request = request },
				   .sizes = &size,
				   .nblocks = 1,
				   .store = store };

	requests = 0;
	return pager_start(g, &o, err);
}

/* Until so many faults are open, or so many requests were made: half a minute at most. */
static bool reaches(struct pager *p, uint64_t faults, unsigned asked)
{
	struct pager_stats st;

	for (int i = 0; i < 30000; i++) {
		pager_get_stats(p, &st);
		if (st.faults >= faults && requests >= asked)
			return true;
		usleep(1000);
	}
	return false;
}

static bool arrives(struct pager *p, unsigned page, bool asked)
{
	unsigned char buf[PAGE];
	struct error err;

	memset(buf, content(page), PAGE);
	if (asked)
		return !pager_arrived_asked(p, 0, (uint64_t)page * PAGE, buf, PAGE, &err);
	return !pager_arrived(p, 0, (uint64_t)page * PAGE, buf, PAGE, &err);
}

static void *read_byte(void *at)
{
	return (void *)(uintptr_t) * (volatile unsigned char *)at;
}

static bool sees(pthread_t thread, unsigned char want)
{
	void *got;

	return !pthread_join(thread, &got) && (uintptr_t)got == want;
}

static void a_page_is_asked_for_once_however_many_wait(void)
{
	struct guest_memory g;
	struct pager_stats st;
	struct error err;
	struct pager *p;
	unsigned char *at;
	pthread_t a, b;

	REQUIRE(guest_new(&g, 0));
	at = map_part(&g, 0, PAGES);
	REQUIRE(at);
	p = start_far(&g, &err);
	REQUIRE(p);
	REQUIRE(!pthread_create(&a, NULL, read_byte, at + 7 * PAGE));
	REQUIRE(!pthread_create(&b, NULL, read_byte, at + 7 * PAGE + 9));
	CHECK(reaches(p, 2, 1));
	CHECK(requested == 7 * PAGE);
	CHECK(arrives(p, 6, false) && arrives(p, 7, true));
	CHECK(sees(a, content(7)) && sees(b, content(7)));
	CHECK(requests == 1);
	pager_get_stats(p, &st);
	CHECK(st.latency.count == 2);
	munmap(at, SIZE);
	end(p);
}

static void what_comes_by_another_mapping_ends_the_wait(void)
{
	struct guest_memory g;
	struct error err;
	struct pager *p;
	unsigned char *at, *again;
	pthread_t a;

	REQUIRE(guest_new(&g, 0));
	at = map_part(&g, 0, PAGES);
	again = map_part(&g, 0, PAGES);
	REQUIRE(at && again);
	p = start_far(&g, &err);
	REQUIRE(p);
	for (unsigned i = 1; i < 9; i++) {
		REQUIRE(!pthread_create(&a, NULL, read_byte, (i % 2 ? at : again) + i * PAGE));
		CHECK(reaches(p, 1, i));
		CHECK(arrives(p, i, i % 3));
		CHECK(sees(a, content(i)));
	}
	munmap(at, SIZE);
	munmap(again, SIZE);
	end(p);
}

static void what_nobody_heard_is_asked_for_again(void)
{
	struct guest_memory g;
	struct error err;
	struct pager *p;
	unsigned char *at;
	pthread_t a, b;

	REQUIRE(guest_new(&g, 0));
	at = map_part(&g, 0, PAGES);
	REQUIRE(at);
	p = start_far(&g, &err);
	REQUIRE(p);
	REQUIRE(!pthread_create(&a, NULL, read_byte, at + PAGE));
	REQUIRE(!pthread_create(&b, NULL, read_byte, at + 9 * PAGE));
	CHECK(reaches(p, 2, 2));
	CHECK(!pager_ask_again(p, &err) && requests == 4);
	CHECK(arrives(p, 1, true));
	CHECK(sees(a, content(1)));
	CHECK(!pager_ask_again(p, &err) && requests == 5 && requested == 9 * PAGE);
	CHECK(arrives(p, 9, true));
	/* twice does no harm */
	CHECK(arrives(p, 9, true));
	CHECK(sees(b, content(9)));
	CHECK(!pager_ask_again(p, &err) && requests == 5);
	munmap(at, SIZE);
	end(p);
}

static void who_walks_has_the_next_pages_asked_for(void)
{
	struct guest_memory g;
	struct pager_stats st;
	struct error err;
	struct pager *p;
	unsigned char *at;
	pthread_t a;

	REQUIRE(guest_new(&g, 0));
	at = map_part(&g, 0, PAGES);
	REQUIRE(at);
	p = start_far(&g, &err);
	REQUIRE(p);
	REQUIRE(!pthread_create(&a, NULL, read_byte, at + 16 * PAGE));
	CHECK(reaches(p, 1, 1) && requested == 16 * PAGE && requested_len == PAGE);
	CHECK(arrives(p, 16, true) && sees(a, content(16)));
	REQUIRE(!pthread_create(&a, NULL, read_byte, at + 17 * PAGE));
	/* 16 and 17 are the window, and of these nothing else is missing */
	CHECK(reaches(p, 2, 2) && requested == 17 * PAGE);
	CHECK(arrives(p, 17, true) && sees(a, content(17)));
	REQUIRE(!pthread_create(&a, NULL, read_byte, at + 18 * PAGE));
	CHECK(reaches(p, 3, 4) && requested == 18 * PAGE && requested_len == 2 * PAGE);
	CHECK(arrives(p, 18, true) && arrives(p, 19, true) && sees(a, content(18)));
	pager_get_stats(p, &st);
	CHECK(st.around == 1 && requests == 4);
	munmap(at, SIZE);
	end(p);
}

static void zeros_that_come_end_the_wait(void)
{
	struct guest_memory g;
	struct error err;
	struct pager *p;
	unsigned char *at;
	pthread_t a;

	REQUIRE(guest_new(&g, 0));
	at = map_part(&g, 0, PAGES);
	REQUIRE(at);
	p = start_far(&g, &err);
	REQUIRE(p);
	REQUIRE(!pthread_create(&a, NULL, read_byte, at + PAGE));
	CHECK(reaches(p, 1, 1));
	CHECK(!pager_arrived_asked(p, 0, PAGE, NULL, PAGE, &err));
	CHECK(sees(a, 0));
	REQUIRE(!pthread_create(&a, NULL, read_byte, at + 9 * PAGE));
	CHECK(reaches(p, 2, 2));
	CHECK(!pager_arrived_zero(p, 0, 8 * PAGE, 8 * PAGE, &err));
	CHECK(sees(a, 0));
	munmap(at, SIZE);
	end(p);
}

/* In a shared file the page still has to come; only who waits has to look again. */
static void who_waits_where_the_guest_drops_pages_asks_again(void)
{
	struct guest_memory g;
	struct error err;
	struct pager *p;
	unsigned char *at;
	pthread_t a;

	REQUIRE(guest_new(&g, UFFD_FEATURE_EVENT_REMOVE));
	at = map_part(&g, 0, PAGES);
	REQUIRE(at);
	p = start_far(&g, &err);
	REQUIRE(p);
	REQUIRE(!pthread_create(&a, NULL, read_byte, at + 5 * PAGE));
	CHECK(reaches(p, 1, 1));
	CHECK(!madvise(at + 4 * PAGE, 4 * PAGE, MADV_DONTNEED));
	CHECK(reaches(p, 2, 2));
	CHECK(arrives(p, 5, true));
	CHECK(sees(a, content(5)));
	munmap(at, SIZE);
	end(p);
}

static void *drop_page(void *at)
{
	return madvise(at, PAGE, MADV_DONTNEED) ? at : NULL;
}

/* Memory of its own, which nobody serves yet, as the ledger knows it. */
static unsigned char *own_memory(struct ledger *l, int fd)
{
	unsigned char *at =
		mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct ledger_space space = { .pid = getpid() };
	struct ledger_view view = { .address = (uintptr_t)at, .len = SIZE, .page = PAGE };
	struct ledger_layout now = { &space, 1, &view, 1 };
	struct bitmap done, dropped;
	struct error err;

	if (at == MAP_FAILED || !missing(fd, at, SIZE) ||
	    ledger_add_pages(l, PAGES, &done, &dropped, &err) || ledger_note(l, &now, &err))
		return NULL;
	return at;
}

/* The one who served reads that the guest drops a page, and is killed before he does anything. */
static bool read_and_die(struct ledger *his, int fd, unsigned char *page)
{
	struct uffd_event e[UFFD_EVENTS_MAX];
	struct pollfd poll_fd = { .fd = fd, .events = POLLIN };
	struct ledger_space of = { .pid = getpid() };
	void *failed, *room = ledger_inbox(his, &of);
	pthread_t guest;

	if (pthread_create(&guest, NULL, drop_page, page) || poll(&poll_fd, 1, 10000) != 1 ||
	    uffd_read(fd, room, e) != 1 || e[0].kind != UFFD_REMOVE || pthread_join(guest, &failed))
		return false;
	return !failed;
}

static void what_somebody_had_read_who_was_killed_counts(void)
{
	static const uint64_t size = SIZE;
	struct ledger_guest of = { .page = PAGE, .sizes = &size, .nblocks = 1 };
	int fd = new_uffd(UFFD_FEATURE_EVENT_REMOVE), copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	struct pager_options o = {
		.cancel = &cancel, .source = { .read = read_page }, .sizes = &size, .nblocks = 1
	};
	struct error err;
	struct ledger *his = ledger_new(memfd_create("ledger", MFD_CLOEXEC), &of, &err);
	struct guest_memory g;
	unsigned char *at;
	struct pager *p;

	REQUIRE(his && fd >= 0 && !cancel_init(&cancel, &err));
	at = own_memory(his, fd);
	REQUIRE(at && read_and_die(his, fd, at + 5 * PAGE));
	o.ledger = ledger_open(fcntl(ledger_fd(his), F_DUPFD_CLOEXEC, 3), &err);
	guestmem_init(&g);
	REQUIRE(o.ledger && !guestmem_resume(&g, o.ledger, 0, fd, &err));
	p = pager_start(&g, &o, &err);
	REQUIRE(p);
	CHECK(at[5 * PAGE] == 0);
	CHECK(at[4 * PAGE] == content(4) && at[6 * PAGE] == content(6));
	/* that is done, and no message of today's is another's tomorrow */
	CHECK(!madvise(at + 4 * PAGE, PAGE, MADV_DONTNEED) && at[4 * PAGE] == 0);
	munmap(at, SIZE);
	pager_stop(p);
	ledger_close(o.ledger);
	ledger_close(his);
	close(copy);
	cancel_destroy(&cancel);
}

static const struct test_case cases[] = {
	{ "what the guest wrote stays, beside what nobody maps",
	  what_the_guest_wrote_stays_beside_what_nobody_maps },
	{ "what the guest wrote stays when it unmaps a page",
	  what_the_guest_wrote_stays_when_it_unmaps_a_page },
	{ "a range mapped twice covers no other", a_range_mapped_twice_covers_no_other },
	{ "no room in the file is waited for", no_room_in_the_file_is_waited_for },
	{ "what a region grew by is no silent wait", what_a_region_grew_by_is_no_silent_wait },
	{ "what moves while all has come is let go of",
	  what_moves_while_all_has_come_is_let_go_of },
	{ "a page is asked for once, however many wait",
	  a_page_is_asked_for_once_however_many_wait },
	{ "what comes by another mapping ends the wait",
	  what_comes_by_another_mapping_ends_the_wait },
	{ "what nobody heard is asked for again", what_nobody_heard_is_asked_for_again },
	{ "who walks has the next pages asked for", who_walks_has_the_next_pages_asked_for },
	{ "zeros that come end the wait", zeros_that_come_end_the_wait },
	{ "who waits where the guest drops pages asks again",
	  who_waits_where_the_guest_drops_pages_asks_again },
	{ "what somebody had read who was killed counts",
	  what_somebody_had_read_who_was_killed_counts },
};

TEST_MAIN(cases)
