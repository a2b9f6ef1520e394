// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * COMMAND is a small static guest (tests/guest/maps.c) that looks at every page of an image in
 * which there is nothing but holes; its faults are served from here, by hand.
 */
#include "huge_pool.h"
#include "test.h"

#include "catch.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE  4096u
#define PAGES 40u
#define SIZE  ((size_t)PAGES * PAGE)

struct space {
	int uffd;
	pid_t pid;
	struct catch_region regions[8];
	unsigned n;
};

/* What came of one COMMAND. */
struct run {
	int fd; /* the image */
	uint64_t size;
	uint32_t page;
	char path[64];
	struct space spaces[8];
	unsigned nspaces, nregions, faults, forks;
	bool ended, failed, runs, left;
	int wstatus;
	pid_t pid;	  /* with `runs` */
	struct error why; /* of a failure or a warning */
	unsigned warnings;
	unsigned unkept; /* how often there was nobody to keep a descriptor */
	bool stall;	 /* faults are read and not answered */
	bool keep;	 /* children's userfaultfds are the catcher's alone */
	bool complete;	 /* let it go once everything is mapped */
	bool refuse;	 /* mappings are not agreed to */
	bool dies;	 /* when it is told of a child */
};

/* What scripts call the guest and the image. */
static void name_things(const struct run *r)
{
	char self[PATH_MAX] = "", guest[PATH_MAX + 32];
	char *slash;

	if (readlink("/proc/self/exe", self, sizeof(self) - 1) > 0 && (slash = strrchr(self, '/')))
		*slash = '\0';
	snprintf(guest, sizeof(guest), "%s/../guest/maps", self);
	setenv("G", guest, 1);
	setenv("I", r->path, 1);
}

static uint64_t value(uint64_t page)
{
	return (page + 1) * UINT64_C(0x9e3779b97f4a7c15);
}

static void fill(uint64_t *buf, uint64_t offset, size_t len)
{
	for (size_t i = 0; i < len / 8; i++)
		buf[i] = value((offset + i * 8) / PAGE);
}

/* ---- serving ---- */

static struct catch_region *region_at(struct space *s, uint64_t address)
{
	for (unsigned i = 0; i < s->n; i++)
		if (address - s->regions[i].address < s->regions[i].len)
			return &s->regions[i];
	return NULL;
}

static void serve_fault(struct run *r, struct space *s, uint64_t address)
{
	struct catch_region *g = region_at(s, address);
	uint64_t in = g ? (address - g->address) & ~(uint64_t)(g->page - 1) : 0;
	struct uffdio_copy copy = { .dst = g ? g->address + in : 0, .len = g ? g->page : 0 };
	struct uffdio_range wake = { copy.dst, copy.len };
	void *buf = g ? malloc(g->page) : NULL;

	CHECK(g != NULL);
	r->faults++;
	if (!buf || r->stall) {
		free(buf);
		return;
	}
	fill(buf, g->offset + in, g->page);
	copy.src = (uintptr_t)buf;
	if (ioctl(s->uffd, UFFDIO_COPY, &copy) && errno == EEXIST)
		ioctl(s->uffd, UFFDIO_WAKE, &wake);
	free(buf);
}

static void add_child(struct run *r, const struct space *parent, int uffd)
{
	struct space *s = &r->spaces[r->nspaces];

	struct error err;

	r->forks++;
	if (r->dies)
		kill(getpid(), SIGKILL);
	if (r->nspaces == 8 || r->keep) {
		r->unkept += r->keep && catch_keep(uffd, 1, &err);
		close(uffd);
		return;
	}
	*s = *parent;
	s->uffd = uffd;
	s->pid = 0;
	r->nspaces++;
}

static void serve(struct run *r, struct space *s)
{
	struct uffd_msg m;

	while (read(s->uffd, &m, sizeof(m)) == sizeof(m)) {
		if (m.event == UFFD_EVENT_PAGEFAULT) {
			serve_fault(r, s, m.arg.pagefault.address);
		} else if (m.event == UFFD_EVENT_FORK) {
			add_child(r, s, (int)m.arg.fork.ufd);
		} else if (m.event == UFFD_EVENT_REMAP) {
			struct catch_region *g = region_at(s, m.arg.remap.from);

			CHECK(g != NULL);
			if (g)
				g->address = m.arg.remap.to;
		}
	}
}

static void take(struct run *r, const struct catch_event *e)
{
	struct space *s = NULL;
	struct error err;

	for (unsigned i = 0; i < r->nspaces; i++)
		if (r->spaces[i].pid == e->pid)
			s = &r->spaces[i];
	switch (e->kind) {
	case CATCH_RUNS:
		r->runs = true;
		r->pid = e->pid;
		break;
	case CATCH_SPACE:
		CHECK(r->nspaces < 8 && e->uffd >= 0);
		r->spaces[r->nspaces++] = (struct space){ .uffd = e->uffd, .pid = e->pid };
		break;
	case CATCH_REGION:
		CHECK(s && s->n < 8 && e->region.page == r->page);
		if (s)
			s->regions[s->n++] = e->region;
		r->nregions++;
		if (r->complete)
			CHECK(!catch_complete(&err));
		else if (!r->refuse)
			CHECK(!catch_ack(e->token, &err));
		break;
	case CATCH_ENDED:
		r->ended = true;
		r->wstatus = e->wstatus;
		break;
	case CATCH_WARNS:
		r->warnings++;
		r->why = e->why;
		break;
	case CATCH_FAILED:
		r->failed = true;
		r->why = e->why;
		break;
	default:
		r->left = true;
	}
}

/* Until COMMAND has ended, `enough` says so, or 20 s are over. Of one that is taken up all regions
 * are known first. */
static void attend(struct run *r, bool (*enough)(const struct run *r))
{
	struct cancel cancel;
	struct error err;

	if (cancel_init(&cancel, &err))
		return;
	for (int ms = 0; ms < 20000 && !r->ended && !r->failed && !r->left; ms++) {
		struct pollfd p[8];
		struct catch_event e;
		unsigned n = r->nspaces;
		int got = catch_next(&cancel, 1, &e, &err);

		if (got < 0)
			break;
		for (unsigned i = 0; i < n; i++)
			p[i] = (struct pollfd){ .fd = r->spaces[i].uffd, .events = POLLIN };
		if (poll(p, n, 0) || got)
			ms = 0;
		for (unsigned i = 0; i < n; i++)
			if (p[i].revents & POLLIN && r->runs)
				serve(r, &r->spaces[i]);
		if (got)
			take(r, &e);
		if (enough && enough(r))
			break;
	}
	cancel_destroy(&cancel);
}

/* ---- images ---- */

enum kind { TMPFS, MEMFD, HUGE, DISK };

static bool make_image(struct run *r, enum kind kind)
{
	char name[64];

	memset(r, 0, sizeof(*r));
	r->size = SIZE;
	if (kind == TMPFS || kind == DISK) {
		snprintf(name, sizeof(name), "%s/migtool-catch-XXXXXX",
			 kind == TMPFS ? "/dev/shm" : "/var/tmp");
		r->fd = mkostemp(name, O_CLOEXEC);
		snprintf(r->path, sizeof(r->path), "%s", name);
	} else {
		r->fd = memfd_create("migtool-catch",
				     MFD_CLOEXEC | (kind == HUGE ? MFD_HUGETLB : 0));
		if (kind == HUGE)
			r->size = 8u << 20;
		snprintf(r->path, sizeof(r->path), "/proc/%d/fd/%d", getpid(), r->fd);
	}
	return r->fd >= 0 && !ftruncate(r->fd, (off_t)r->size);
}

static void drop_image(struct run *r)
{
	catch_stop();
	for (unsigned i = 0; i < r->nspaces; i++)
		close(r->spaces[i].uffd);
	if (strncmp(r->path, "/proc/", 6) != 0)
		unlink(r->path);
	close(r->fd);
	/* the catcher is our child */
	while (waitpid(-1, NULL, WNOHANG) > 0)
		;
}

/* Puts content into the first pages, as they would come. */
static void fill_pages(struct run *r, unsigned n)
{
	uint64_t buf[PAGE / 8];

	for (unsigned i = 0; i < n; i++) {
		fill(buf, (uint64_t)i * PAGE, PAGE);
		CHECK(pwrite(r->fd, buf, PAGE, (off_t)i * PAGE) == (ssize_t)PAGE);
	}
}

static bool is_filled(const struct run *r)
{
	uint64_t want[PAGE / 8], buf[PAGE / 8];

	for (unsigned i = 0; i < PAGES; i++) {
		fill(want, (uint64_t)i * PAGE, PAGE);
		if (pread(r->fd, buf, PAGE, (off_t)i * PAGE) != (ssize_t)PAGE ||
		    memcmp(buf, want, PAGE) != 0)
			return false;
	}
	return true;
}

/* Starts `script` under the catcher; $G is the guest, $I the image. 0 or -1. */
static int begin(struct run *r, const char *script)
{
	char sh[] = "sh", c[] = "-c", *text = strdup(script);
	char *argv[] = { sh, c, text, NULL };
	struct catch_plan plan = { .argv = argv };
	struct catch_block block = { r->fd, r->size };
	struct error err = { 0 };
	int rc;

	name_things(r);
	rc = catch_start(&plan, &err);
	free(text);
	if (!rc)
		rc = catch_check_file(r->fd, r->path, &r->page, &err) || catch_go(&block, 1, &err)
			     ? -1
			     : 0;
	if (rc)
		r->why = err;
	return rc;
}

/* The same with a standard input and output of its own; -1: ours. */
static int begin_with(struct run *r, const char *script, int in, int out)
{
	int given[2] = { in, out }, saved[2] = { dup(0), dup(1) }, rc;

	fflush(stdout);
	for (int i = 0; i < 2; i++)
		if (given[i] >= 0)
			dup2(given[i], i);
	rc = begin(r, script);
	for (int i = 0; i < 2; i++) {
		dup2(saved[i], i);
		close(saved[i]);
	}
	return rc;
}

/* A COMMAND on tmpfs that does what it does until `enough`. */
static bool begun(struct run *r, const char *script, bool (*enough)(const struct run *r))
{
	int rc = begin(r, script);

	CHECK(!rc);
	if (!rc)
		attend(r, enough);
	return !rc && enough(r);
}

static bool is_running(const struct run *r)
{
	return r->runs;
}

static bool maps_it(const struct run *r)
{
	return r->nregions > 0;
}

static bool waits_for_a_page(const struct run *r)
{
	return r->faults > 0;
}

/* One that waits for a page that never comes. */
static bool stalled(struct run *r, const char *script)
{
	bool ok = make_image(r, TMPFS);

	r->stall = true;
	return ok && begun(r, script, waits_for_a_page) && r->nspaces == 1;
}

/* One COMMAND from start to end, on tmpfs. */
static void run(struct run *r, const char *script)
{
	if (!make_image(r, TMPFS) || begin(r, script))
		CHECK(!"cannot begin");
	else
		attend(r, NULL);
	drop_image(r);
}

static bool exited(const struct run *r, int status)
{
	if (r->ended && WIFEXITED(r->wstatus) && WEXITSTATUS(r->wstatus) == status)
		return true;
	printf("# ended %d failed %d status 0x%x faults %u: %s\n", r->ended, r->failed, r->wstatus,
	       r->faults, r->why.msg);
	return false;
}

/* ---- without any rule ---- */

/* Each of these guests sees zeros when nobody watches it: else the cases below would say nothing.
 */
static void unwatched_guests_read_zeros(void)
{
	static const char *const scripts[] = {
		"$G $I map check",
		"$G $I populate map check",
		"$G $I private map check",
		"$G $I read",
		"$G $I pread",
		"$G $I readv",
		"$G $I preadv",
		"$G $I sendfile",
		"$G $I splice",
		"$G $I copy_file_range",
		"$G $I io_submit",
		"$G $I mlockall map check",
		"$G $I map fork",
		"sh -c '$G $I map check'",
	};

	for (size_t i = 0; i < sizeof(scripts) / sizeof(scripts[0]); i++) {
		char command[256];
		struct run r;
		int status;

		if (!make_image(&r, TMPFS)) {
			CHECK(!"no image");
			continue;
		}
		name_things(&r);
		snprintf(command, sizeof(command), "(%s) 2>/dev/null", scripts[i]);
		status = system(command);
		CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 1);
		if (status != 0x100)
			printf("# %s: 0x%x\n", scripts[i], status);
		drop_image(&r);
	}
}

/* ---- mappings ---- */

static void a_command_is_served(void)
{
	struct run r;

	run(&r, "exec $G $I map check");
	CHECK(exited(&r, 0) && r.runs);
	CHECK(r.faults == PAGES && r.nregions == 1 && r.nspaces == 1);
	CHECK(r.spaces[0].regions[0].shared);
}

static void a_shell_and_a_grandchild_are_served(void)
{
	struct run r;

	run(&r, "$G $I map check; exit $?");
	CHECK(exited(&r, 0) && r.faults == PAGES);
	run(&r, "true; (sh -c '$G $I map check; exit $?'; exit $?) & wait $!");
	CHECK(exited(&r, 0) && r.faults == PAGES);
	run(&r, "$G $I map check && $G $I map check");
	CHECK(exited(&r, 0) && r.nspaces == 2);
}

static void nothing_is_filled_at_once(void)
{
	struct run r;

	run(&r, "exec $G $I populate map check");
	CHECK(exited(&r, 0) && r.faults == PAGES);
	run(&r, "exec $G $I locked map check");
	CHECK(exited(&r, 0) && r.faults == PAGES);
}

static void a_private_mapping_is_served(void)
{
	struct run r;

	run(&r, "exec $G $I private map check");
	CHECK(exited(&r, 0) && r.faults == PAGES && !r.spaces[0].regions[0].shared);
	run(&r, "exec $G $I readonly map check");
	CHECK(exited(&r, 0) && r.faults == PAGES);
}

static void each_piece_of_it_is_served(void)
{
	struct run r;

	run(&r, "exec $G $I halves check");
	CHECK(exited(&r, 0) && r.faults == PAGES && r.nregions == 2 && r.nspaces == 1);
	run(&r, "exec $G $I thread check");
	CHECK(exited(&r, 0) && r.faults == PAGES);
}

static void a_forked_child_is_served(void)
{
	struct run r;

	run(&r, "exec $G $I map fork check");
	CHECK(exited(&r, 0) && r.forks == 1 && r.faults == PAGES);
	run(&r, "exec $G $I private map fork check");
	CHECK(exited(&r, 0) && r.forks == 1 && r.faults == 2 * PAGES);
}

static void a_mapping_may_move_and_shrink(void)
{
	struct run r;

	run(&r, "exec $G $I map move check");
	CHECK(exited(&r, 0) && r.faults == PAGES);
	run(&r, "exec $G $I map drop check");
	CHECK(exited(&r, 0) && r.faults == PAGES - 1);
}

/* ---- calls that go past a mapping ---- */

static void reading_the_image_ends_it(void)
{
	static const char *const calls[] = { "read",	 "pread",  "readv",	      "preadv",
					     "sendfile", "splice", "copy_file_range", "pwrite",
					     "io_submit" };

	for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++) {
		char script[64];
		struct run r;

		snprintf(script, sizeof(script), "$G $I %s; exit $?", calls[i]);
		run(&r, script);
		CHECK(r.failed && r.why.status == ST_UNSUPPORTED);
		CHECK(strstr(r.why.msg, calls[i]) && strstr(r.why.msg, "zeros"));
		if (!r.failed)
			printf("# %s: 0x%x\n", calls[i], r.wstatus);
	}
}

static void standard_input_is_a_descriptor_too(void)
{
	struct run r;

	run(&r, "cat <$I >/dev/null");
	CHECK(r.failed && strstr(r.why.msg, "cat (process "));
}

static void reading_it_behind_a_mapping_fails(void)
{
	struct run r;

	run(&r, "exec $G $I map may-fail check");
	CHECK(exited(&r, 0) && r.warnings == 1 && strstr(r.why.msg, "pread"));
}

static void writing_to_it_by_another_call_fails(void)
{
	struct run r;

	run(&r, "exec $G $I map sendfile-to splice-to copy-to remap check");
	CHECK(exited(&r, 0) && r.warnings == 4 && r.faults == PAGES);
	run(&r, "exec $G $I splice-to");
	CHECK(r.failed && strstr(r.why.msg, "splice"));
}

/* The refused call has a number that a list of allowed ones has. */
static void a_filter_does_not_see_the_refusal(void)
{
	struct run r;

	run(&r, "exec $G $I map filter may-fail check");
	CHECK(exited(&r, 0) && r.warnings == 1 && r.faults == PAGES);
}

#if defined(__x86_64__)
static void another_numbering_ends_it(void)
{
	struct run r;

	run(&r, "exec $G $I x32");
	CHECK(r.failed && strstr(r.why.msg, "x32"));
}
#endif

static void locking_all_memory_ends_it(void)
{
	struct run r;

	run(&r, "exec $G $I mlockall map check");
	CHECK(r.failed && strstr(r.why.msg, "mlockall"));
	run(&r, "exec $G $I map mlockall check");
	CHECK(exited(&r, 0) && r.faults == PAGES);
}

static void a_mapping_that_cannot_be_served_ends_it(void)
{
	struct run r;

	run(&r, "exec $G $I readonly reopen map check");
	CHECK(r.failed && strstr(r.why.msg, "reading only"));
}

/* Somebody who maps the image and has nothing to do with the catcher. */
static pid_t start_mapper(const struct run *r)
{
	int ready[2];
	pid_t pid;
	char c;

	if (pipe(ready))
		return -1;
	pid = fork();
	if (pid == 0) {
		mmap(NULL, SIZE, PROT_READ, MAP_SHARED, r->fd, 0);
		if (write(ready[1], "", 1) != 1)
			_exit(1);
		for (;;)
			pause();
	}
	CHECK(read(ready[0], &c, 1) == 1);
	close(ready[0]);
	close(ready[1]);
	return pid;
}

static void end_mapper(pid_t pid)
{
	CHECK(pid > 0 && !kill(pid, SIGKILL));
	waitpid(pid, NULL, 0);
}

static void who_maps_it_already_is_named(void)
{
	struct run r;
	pid_t pid;

	REQUIRE(make_image(&r, TMPFS));
	fill_pages(&r, PAGES);
	pid = start_mapper(&r);
	CHECK(!begin(&r, "exec $G $I map check"));
	attend(&r, NULL);
	CHECK(r.failed && strstr(r.why.msg, "mapped already by test_catch"));
	CHECK(is_filled(&r));
	end_mapper(pid);
	drop_image(&r);
}

/* ---- files ---- */

static void a_memfd_is_served(void)
{
	struct run r;

	REQUIRE(make_image(&r, MEMFD) && !begin(&r, "$G $I map check; exit $?"));
	attend(&r, NULL);
	CHECK(exited(&r, 0) && r.faults == PAGES);
	drop_image(&r);
}

static void hugetlbfs_is_served(void)
{
	struct huge_pool pool;
	struct run r;

	if (!huge_pool_grow(&pool, 8))
		SKIP("no huge pages, or no memory for them");
	if (!make_image(&r, HUGE)) {
		huge_pool_end(&pool);
		SKIP("no huge pages");
	}
	CHECK(!begin(&r, "$G $I map check; exit $?"));
	attend(&r, NULL);
	CHECK(exited(&r, 0) && r.faults == 4 && r.page == 2u << 20);
	drop_image(&r);
	huge_pool_end(&pool);
}

static void a_disk_is_refused(void)
{
	struct run r;

	REQUIRE(make_image(&r, DISK));
	CHECK(begin(&r, "true") && r.why.status == ST_UNSUPPORTED);
	CHECK(strstr(r.why.msg, "tmpfs, memfd or hugetlbfs, and /var/tmp/"));
	CHECK(strstr(r.why.hint, "/dev/shm"));
	drop_image(&r);
}

/* ---- ends ---- */

static void a_command_that_cannot_be_started_is_named(void)
{
	char none[] = "/nowhere/to/be/found";
	char *argv[] = { none, NULL };
	struct catch_plan plan = { .argv = argv };
	struct catch_block block;
	struct error err;
	struct run r;

	REQUIRE(make_image(&r, TMPFS));
	block = (struct catch_block){ r.fd, SIZE };
	CHECK(!catch_start(&plan, &err) && !catch_go(&block, 1, &err));
	attend(&r, NULL);
	CHECK(r.failed && r.why.status == ST_COMMAND);
	CHECK(strstr(r.why.msg, "cannot start the command '/nowhere/to/be/found'"));
	drop_image(&r);
}

static bool alive(pid_t pid)
{
	return kill(pid, 0) == 0;
}

static void complete_lets_it_go(void)
{
	struct run r;
	pid_t pid;
	char line[64] = "";
	int out[2];
	ssize_t n;

	REQUIRE(make_image(&r, TMPFS) && !pipe2(out, O_CLOEXEC));
	r.complete = true;
	CHECK(!begin_with(&r, "exec $G $I map say=alone sleep", -1, out[1]));
	close(out[1]);
	attend(&r, NULL);
	CHECK(r.left && r.nspaces == 1);
	pid = r.spaces[0].pid;
	n = read(out[0], line, sizeof(line) - 1);
	CHECK(n == 6 && !strcmp(line, "alone\n"));
	CHECK(alive(pid));
	kill(pid, SIGKILL);
	close(out[0]);
	drop_image(&r);
}

/* Nobody may wait for the pid of a guest that is no child of ours. */
static bool ends_soon(pid_t pid)
{
	for (int i = 0; i < 1000; i++) {
		if (!alive(pid))
			return true;
		usleep(10000);
	}
	return false;
}

static void before_its_mapping_it_ends_with_us(void)
{
	struct run r;

	REQUIRE(make_image(&r, TMPFS) && begun(&r, "sleep 1000", is_running));
	catch_stop();
	CHECK(ends_soon(r.pid));
	drop_image(&r);
}

/* Nobody has said that the mapping would be served, so nobody has seen anything. */
static void a_first_mapping_that_is_refused_ends_it(void)
{
	struct run r;
	pid_t pid;

	REQUIRE(make_image(&r, TMPFS));
	r.refuse = true;
	REQUIRE(begun(&r, "$G $I map check; $G $I map check", maps_it));
	pid = r.spaces[0].pid;
	catch_stop();
	CHECK(ends_soon(pid));
	drop_image(&r);
}

/* Its page never comes: it stays where it is, and does not read zeros. */
static void behind_its_mapping_it_waits_without_us(void)
{
	struct run r;
	pid_t pid;

	REQUIRE(stalled(&r, "exec $G $I map check"));
	pid = r.spaces[0].pid;
	catch_stop();
	close(r.spaces[0].uffd);
	r.nspaces = 0;
	usleep(100000);
	CHECK(alive(pid));
	kill(pid, SIGKILL);
	CHECK(ends_soon(pid));
	drop_image(&r);
}

static pid_t tracer_of(pid_t pid)
{
	char path[64], line[128];
	long tracer = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%ld/status", (long)pid);
	f = fopen(path, "re");
	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "TracerPid: %ld", &tracer) == 1)
			break;
	if (f)
		fclose(f);
	return (pid_t)tracer;
}

static bool warned(const struct run *r)
{
	return r->warnings > 0;
}

/* Let go it would read zeros: the catcher stays, with us and without us. */
static void a_guest_is_not_let_go_by_sigterm(void)
{
	pid_t pid, catcher;
	struct run r;

	REQUIRE(stalled(&r, "exec $G $I map check"));
	pid = r.spaces[0].pid;
	catcher = tracer_of(pid);
	REQUIRE(catcher > 0);
	CHECK(!kill(catcher, SIGTERM));
	attend(&r, warned);
	CHECK(r.warnings == 1 && strstr(r.why.msg, "SIGTERM is ignored") && !r.left);
	catch_stop();
	CHECK(!kill(catcher, SIGTERM));
	usleep(100000);
	CHECK(tracer_of(pid) == catcher);
	kill(pid, SIGKILL);
	CHECK(ends_soon(pid));
	drop_image(&r);
}

static void sigterm_before_a_mapping_ends_the_command(void)
{
	struct run r;

	REQUIRE(make_image(&r, TMPFS) && begun(&r, "sleep 1000", is_running));
	CHECK(!kill(tracer_of(r.pid), SIGTERM));
	attend(&r, NULL);
	CHECK(r.failed && strstr(r.why.msg, "asked to end"));
	CHECK(ends_soon(r.pid));
	drop_image(&r);
}

static bool all_are_forked(const struct run *r)
{
	return r->forks == 70;
}

static bool six_warnings(const struct run *r)
{
	return r->warnings == 6;
}

/* How many bytes come, up to n, before nothing does for a while. */
static unsigned count_bytes(int fd, unsigned n, int ms)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	unsigned got = 0;
	char c;

	while (got < n && poll(&p, 1, ms) > 0 && read(fd, &c, 1) == 1)
		got++;
	return got;
}

/* Each child says so when it runs; those whose userfaultfd nobody could keep do not. */
static void a_child_too_many_stands_still(void)
{
	struct error err;
	struct run r;
	int out[2];

	REQUIRE(make_image(&r, TMPFS) && !pipe2(out, O_CLOEXEC));
	r.keep = true;
	CHECK(!begin_with(&r, "exec $G $I map children=70 sleep", -1, out[1]));
	close(out[1]);
	attend(&r, all_are_forked);
	attend(&r, six_warnings);
	CHECK(r.forks == 70 && !r.unkept && r.warnings > 0 && strstr(r.why.msg, "stands still"));
	CHECK(count_bytes(out[0], 64, 20000) == 64);
	CHECK(count_bytes(out[0], 6, 100) == 0);
	CHECK(!catch_complete(&err));
	attend(&r, NULL);
	CHECK(r.left && r.warnings == 6);
	CHECK(count_bytes(out[0], 6, 20000) == 6);
	if (r.nspaces)
		kill(r.spaces[0].pid, SIGKILL);
	close(out[0]);
	drop_image(&r);
}

/* One after the other there may be any number. */
static void children_that_end_make_room(void)
{
	struct run r;

	REQUIRE(make_image(&r, TMPFS));
	r.keep = true;
	CHECK(!begin(&r, "exec $G $I map short-children=200"));
	attend(&r, NULL);
	CHECK(exited(&r, 0) && r.forks == 200 && !r.warnings);
	drop_image(&r);
}

static int new_uffd(void)
{
	struct uffdio_api api = { .api = UFFD_API };
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);

	return fd >= 0 && ioctl(fd, UFFDIO_API, &api) ? -1 : fd;
}

/* Each is one of its own. */
static int keep(unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		int uffd = new_uffd(), rc;
		struct error err;

		rc = uffd < 0 ? -1 : catch_keep(uffd, i + 1, &err);
		close(uffd);
		if (rc)
			return -1;
	}
	return 0;
}

static void what_cannot_be_kept_is_told(void)
{
	struct error err;
	struct run r;

	REQUIRE(stalled(&r, "exec $G $I map check"));
	/* one may be named anew, as often as one likes */
	for (unsigned i = 1; i < 200; i++)
		CHECK(!catch_keep(r.spaces[0].uffd, i, &err));
	CHECK(!keep(127));
	CHECK(!catch_keep(r.spaces[0].uffd, 1, &err) && !keep(1));
	attend(&r, warned);
	CHECK(r.warnings == 1 && strstr(r.why.msg, "could not be kept"));
	kill(r.spaces[0].pid, SIGKILL);
	attend(&r, NULL);
	CHECK(r.ended && r.warnings == 1);
	drop_image(&r);
}

/* Says whom it serves, and is gone as soon as it is told of a child. */
static _Noreturn void serve_and_die(struct run *r, int to)
{
	r->dies = true;
	if (begin(r, "exec $G $I map fork check"))
		_exit(1);
	attend(r, maps_it);
	if (write(to, &r->pid, sizeof(r->pid)) != sizeof(r->pid))
		_exit(1);
	attend(r, NULL);
	_exit(2);
}

/* The guest's next server: it knows of its child what it knows of the guest. */
static int serve_on(struct run *r, pid_t guest)
{
	struct catch_plan plan = { .guest = guest, .resume = true };
	struct catch_block block = { r->fd, r->size };
	struct error err;

	if (catch_check_file(r->fd, r->path, &r->page, &err) || catch_start(&plan, &err) ||
	    catch_go(&block, 1, &err))
		return -1;
	attend(r, is_running);
	if (!r->runs || r->nspaces != 2 || r->spaces[1].pid)
		return -1;
	memcpy(r->spaces[1].regions, r->spaces[0].regions, sizeof(r->spaces[0].regions));
	r->spaces[1].n = r->spaces[0].n;
	return 0;
}

static void a_child_that_nobody_could_pass_on_waits(void)
{
	struct run r;
	int ready[2], status = 0;
	pid_t server, guest = 0;

	REQUIRE(make_image(&r, TMPFS) && !pipe2(ready, O_CLOEXEC));
	fflush(stdout);
	server = fork();
	if (server == 0)
		serve_and_die(&r, ready[1]);
	CHECK(read(ready[0], &guest, sizeof(guest)) == sizeof(guest));
	CHECK(waitpid(server, &status, 0) == server && WIFSIGNALED(status) &&
	      WTERMSIG(status) == SIGKILL);
	CHECK(guest && !serve_on(&r, guest));
	attend(&r, NULL);
	CHECK(exited(&r, 0) && r.faults >= PAGES);
	if (guest && !r.ended)
		kill(guest, SIGKILL);
	close(ready[0]);
	close(ready[1]);
	drop_image(&r);
}

/* Its n threads sleep in their calls. */
static bool all_sleep(pid_t pid, unsigned n)
{
	for (int ms = 0; ms < 20000; ms++) {
		char path[288], state;
		unsigned asleep = 0;
		struct dirent *e;
		DIR *d;

		snprintf(path, sizeof(path), "/proc/%ld/task", (long)pid);
		d = opendir(path);
		while (d && (e = readdir(d))) {
			FILE *f = NULL;

			snprintf(path, sizeof(path), "/proc/%ld/task/%s/stat", (long)pid,
				 e->d_name);
			if (e->d_name[0] != '.')
				f = fopen(path, "re");
			asleep += f && fscanf(f, "%*d %*s %c", &state) == 1 && state == 'S';
			if (f)
				fclose(f);
		}
		if (d)
			closedir(d);
		if (asleep == n)
			return true;
		usleep(1000);
	}
	return false;
}

/*
 * Who is interrupted to be let go does not see it, nor that a signal came that it ignores. There
 * are many of these: one that wakes a thread may be taken by another one.
 */
static void an_interrupted_call_is_made_again(void)
{
	struct error err;
	struct run r;
	int in[2], out[2];
	char c;

	REQUIRE(make_image(&r, TMPFS) && !pipe2(in, O_CLOEXEC) && !pipe2(out, O_CLOEXEC));
	CHECK(!begin_with(&r, "exec $G $I map waits say=all", in[0], out[1]));
	close(out[1]);
	attend(&r, maps_it);
	REQUIRE(r.nspaces == 1);
	CHECK(all_sleep(r.pid, 4));
	for (unsigned i = 0; i < 500; i++) {
		CHECK(!kill(r.pid, SIGWINCH));
		usleep(i % 7 * 10);
	}
	CHECK(all_sleep(r.pid, 4) && !catch_complete(&err));
	attend(&r, NULL);
	CHECK(r.left && write(in[1], "", 1) == 1);
	CHECK(read(out[0], &c, 1) == 1 && c == 'a');
	close(in[0]);
	close(in[1]);
	close(out[0]);
	drop_image(&r);
}

/* Threads that make calls without end: the order comes through. */
static void a_busy_guest_hears_that_all_has_come(void)
{
	struct run r;
	pid_t pid;

	REQUIRE(make_image(&r, TMPFS));
	r.complete = true;
	CHECK(!begin(&r, "exec $G $I busy map sleep"));
	attend(&r, NULL);
	CHECK(r.left && r.nspaces == 1);
	pid = r.nspaces ? r.spaces[0].pid : 0;
	if (pid)
		kill(pid, SIGKILL);
	CHECK(pid && ends_soon(pid));
	drop_image(&r);
}

/* ---- a process that runs already ---- */

/* Starts the guest alone, and returns when it has said something. */
static pid_t start_alone(struct run *r, const char *words, int *to)
{
	int in[2], out[2];
	char script[128], c;
	pid_t pid;

	name_things(r);
	snprintf(script, sizeof(script), "exec $G $I %s", words);
	if (pipe2(in, O_CLOEXEC) || pipe2(out, O_CLOEXEC))
		return -1;
	fflush(stdout);
	pid = fork();
	if (pid == 0) {
		dup2(in[0], 0);
		dup2(out[1], 1);
		execl("/bin/sh", "sh", "-c", script, NULL);
		_exit(127);
	}
	close(in[0]);
	close(out[1]);
	if (read(out[0], &c, 1) != 1)
		printf("# the guest said nothing\n");
	close(out[0]);
	*to = in[1];
	return pid;
}

static int adopt(struct run *r, pid_t pid)
{
	struct catch_plan plan = { .guest = pid };
	struct catch_block block = { r->fd, r->size };
	struct error err;

	if (catch_check_file(r->fd, r->path, &r->page, &err) || catch_start(&plan, &err) ||
	    catch_go(&block, 1, &err))
		return -1;
	return 0;
}

/* How the guest ended, seen by who watches it; it is our child. */
static bool guest_exits(pid_t pid, int status)
{
	int st = -1;

	if (waitpid(pid, &st, 0) == pid && WIFEXITED(st) && WEXITSTATUS(st) == status)
		return true;
	printf("# the guest's status: 0x%x\n", st);
	return false;
}

static void a_running_process_is_served(void)
{
	static const char *const words[] = { "map touch say=ready byte check",
					     "map touch say=ready waits check",
					     "map touch say=ready spin check",
					     "halves touch say=ready byte check" };

	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
		struct run r;
		pid_t pid;
		int to;

		REQUIRE(make_image(&r, TMPFS));
		if (!strncmp(words[i], "halves", 6)) /* it looks at its first page */
			fill_pages(&r, 1);
		pid = start_alone(&r, words[i], &to);
		if (strstr(words[i], "waits"))
			CHECK(all_sleep(pid, 4));
		CHECK(!adopt(&r, pid));
		attend(&r, is_running);
		CHECK(r.runs && r.nregions > 0);
		if (!r.runs)
			printf("# %s\n", r.why.msg);
		if (strstr(words[i], "spin"))
			kill(pid, SIGUSR1);
		else
			CHECK(write(to, "", 1) == 1);
		attend(&r, NULL);
		CHECK(exited(&r, 0) && r.faults == PAGES);
		CHECK(guest_exits(pid, 0));
		close(to);
		drop_image(&r);
	}
}

static void a_running_process_keeps_the_rules(void)
{
	struct run r;
	pid_t pid;
	int to;

	REQUIRE(make_image(&r, TMPFS));
	pid = start_alone(&r, "map say=ready byte may-fail fork check", &to);
	CHECK(!adopt(&r, pid));
	attend(&r, is_running);
	CHECK(write(to, "", 1) == 1);
	attend(&r, NULL);
	CHECK(exited(&r, 0) && r.faults == PAGES && r.forks == 1 && r.warnings == 1);
	CHECK(guest_exits(pid, 0));
	close(to);
	drop_image(&r);
}

/* Refused, and the process goes on with what it had. */
static void refused(const char *words, const char *why)
{
	struct run r;
	pid_t pid;
	int to;

	REQUIRE(make_image(&r, TMPFS));
	fill_pages(&r, PAGES);
	pid = start_alone(&r, words, &to);
	CHECK(!adopt(&r, pid));
	attend(&r, NULL);
	CHECK(r.failed && strstr(r.why.msg, why));
	if (r.failed && !strstr(r.why.msg, why))
		printf("# %s\n", r.why.msg);
	CHECK(write(to, "", 1) == 1);
	CHECK(guest_exits(pid, 0));
	close(to);
	drop_image(&r);
}

static void one_that_cannot_be_served_goes_on(void)
{
	refused("say=ready byte map check", "does not map IMAGE");
	refused("private map say=ready byte check", "maps IMAGE private");
	refused("map readonly reopen map say=ready byte check", "reading only");
}

static void one_that_shares_its_memory_goes_on(void)
{
	pid_t other;
	struct run r;
	pid_t pid;
	int to;

	REQUIRE(make_image(&r, TMPFS));
	fill_pages(&r, PAGES);
	pid = start_alone(&r, "map say=ready byte check", &to);
	other = start_mapper(&r);
	CHECK(!adopt(&r, pid));
	attend(&r, NULL);
	CHECK(r.failed && strstr(r.why.msg, "mapped already by test_catch"));
	CHECK(write(to, "", 1) == 1);
	CHECK(guest_exits(pid, 0));
	end_mapper(other);
	close(to);
	drop_image(&r);
}

static void a_process_that_is_not_there_is_named(void)
{
	struct run r;
	pid_t pid = fork();

	if (pid == 0)
		_exit(0);
	waitpid(pid, NULL, 0);
	REQUIRE(make_image(&r, TMPFS));
	CHECK(!adopt(&r, pid));
	attend(&r, NULL);
	CHECK(r.failed && strstr(r.why.msg, "there is no process"));
	drop_image(&r);
}

static void an_early_end_is_told(void)
{
	struct run r;

	run(&r, "exit 7");
	CHECK(exited(&r, 7) && r.nregions == 0);
}

static const struct test_case cases[] = {
	{ "unwatched guests read zeros", unwatched_guests_read_zeros },
	{ "a command is served", a_command_is_served },
	{ "a shell and a grandchild are served", a_shell_and_a_grandchild_are_served },
	{ "nothing is filled at once", nothing_is_filled_at_once },
	{ "a private mapping is served", a_private_mapping_is_served },
	{ "each piece of it is served", each_piece_of_it_is_served },
	{ "a forked child is served", a_forked_child_is_served },
	{ "a mapping may move and shrink", a_mapping_may_move_and_shrink },
	{ "reading the image ends it", reading_the_image_ends_it },
	{ "standard input is a descriptor too", standard_input_is_a_descriptor_too },
	{ "reading it behind a mapping fails", reading_it_behind_a_mapping_fails },
	{ "writing to it by another call fails", writing_to_it_by_another_call_fails },
	{ "a filter does not see the refusal", a_filter_does_not_see_the_refusal },
#if defined(__x86_64__)
	{ "another numbering ends it", another_numbering_ends_it },
#endif
	{ "locking all memory ends it", locking_all_memory_ends_it },
	{ "a mapping that cannot be served ends it", a_mapping_that_cannot_be_served_ends_it },
	{ "who maps it already is named", who_maps_it_already_is_named },
	{ "a memfd is served", a_memfd_is_served },
	{ "hugetlbfs is served", hugetlbfs_is_served },
	{ "a disk is refused", a_disk_is_refused },
	{ "a command that cannot be started is named", a_command_that_cannot_be_started_is_named },
	{ "complete lets it go", complete_lets_it_go },
	{ "before its mapping it ends with us", before_its_mapping_it_ends_with_us },
	{ "a first mapping that is refused ends it", a_first_mapping_that_is_refused_ends_it },
	{ "behind its mapping it waits without us", behind_its_mapping_it_waits_without_us },
	{ "a guest is not let go by SIGTERM", a_guest_is_not_let_go_by_sigterm },
	{ "SIGTERM before a mapping ends the command", sigterm_before_a_mapping_ends_the_command },
	{ "a child too many stands still", a_child_too_many_stands_still },
	{ "children that end make room", children_that_end_make_room },
	{ "what cannot be kept is told", what_cannot_be_kept_is_told },
	{ "a child that nobody could pass on waits", a_child_that_nobody_could_pass_on_waits },
	{ "an interrupted call is made again", an_interrupted_call_is_made_again },
	{ "a busy guest hears that all has come", a_busy_guest_hears_that_all_has_come },
	{ "an early end is told", an_early_end_is_told },
	{ "a running process is served", a_running_process_is_served },
	{ "a running process keeps the rules", a_running_process_keeps_the_rules },
	{ "one that cannot be served goes on", one_that_cannot_be_served_goes_on },
	{ "one that shares its memory goes on", one_that_shares_its_memory_goes_on },
	{ "a process that is not there is named", a_process_that_is_not_there_is_named },
};

TEST_MAIN(cases)
