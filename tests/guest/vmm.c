// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A guest that checks its own memory, and the VMM around it, as who serves page faults sees them:
 * it maps memory, hands its userfaultfd over as Firecracker does, and looks at every page.
 *
 *   vmm make FILE MIB            writes the memory file: a page in four is a hole
 *   vmm run [OPTION]... SOCKET MIB
 *   vmm alone [OPTION]... FILE MIB  the memory file mapped, served by nobody but the kernel
 *
 * A page that is no hole holds its number, a generation and a checksum of all that. run touches
 * pages in random order from two threads, writes some of them anew, says "touched", waits for a
 * line (or the end) of stdin, and then checks all pages and says how many are wrong, and how many
 * of these are zero. Its status is 0 if none is.
 *
 *   --regions N     the memory in so many mappings        --huge      hugetlbfs, 2 MiB
 *   --old-field     page_size_kib instead of page_size    --two-fds   a memfd as a second
 * descriptor
 *   --pieces        the message in three pieces           --touch PERCENT  (100)
 *   --remove        drops pages while they are served     --seed N
 *   --latency       one thread; prints what touching took, as JSON, in microseconds, and when
 *                   the first page was there, in seconds of CLOCK_MONOTONIC
 *   --count N       with --latency: so many pages, which were missing until then
 *   --close         closes the socket, and lives on       --lie-size  says it has a page more
 *   --walk          with --latency: one page after the other
 *   --threads       the kernel says which thread waits
 *
 *   --file shared|private   it maps the file SOCKET, which somebody has caught, and says its pid
 *   --forks N       so many children look at all pages of their own copy while the memory comes
 *   --slow USEC     between two pages                     --wait   for a line, when it has mapped
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PAGE  4096u
#define HUGE  (2u << 20)
#define MAGIC 0x4d47505545535421ull

struct page {
	uint64_t magic, number, generation;
	uint64_t filler[508];
	uint64_t sum;
};

static struct {
	unsigned regions, touch, seed, count, forks, slow;
	const char *file; /* how it is mapped */
	bool huge, old_field, two_fds, pieces, removes, latency, closes, lies, threads, walks,
		waits;
	uint64_t npages;
	uint8_t **base;	     /* of each region */
	uint64_t per_region; /* pages */
	_Atomic uint8_t *written, *removed;
	int uffd, sock;
} vm = { .regions = 1, .touch = 100, .seed = 1 };

static _Noreturn void die(const char *what)
{
	fprintf(stderr, "vmm: %s: %s\n", what, strerror(errno));
	exit(2);
}

static uint64_t mix(uint64_t x)
{
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
	return x ^ (x >> 31);
}

/* ---- pages ---- */

/* Sixteen pages are one or the other, so that holes are holes to a file system. */
static bool is_hole(uint64_t n)
{
	return mix(n / 16 + 77) % 4 == 0;
}

static uint64_t sum_of(const struct page *p)
{
	const uint64_t *w = (const uint64_t *)p;
	uint64_t s = 0;

	for (size_t i = 0; i < PAGE / 8 - 1; i++)
		s = (s ^ w[i]) * 0x100000001b3ull;
	return s;
}

static void fill_page(struct page *p, uint64_t n, uint64_t generation)
{
	p->magic = MAGIC;
	p->number = n;
	p->generation = generation;
	for (size_t i = 0; i < 508; i++)
		p->filler[i] = mix(n * 512 + i + generation);
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

static struct page *page_at(uint64_t n)
{
	return (struct page *)(vm.base[n / vm.per_region] + n % vm.per_region * PAGE);
}

/* 0: as it has to be, 1: something else, 2: zeros that have no business there. */
static int judge(uint64_t n)
{
	const struct page *p = page_at(n);

	if (vm.written[n]) {
		if (all_zero(p))
			return 2;
		return p->magic != MAGIC || p->number != n || p->generation != 2 ||
		       p->sum != sum_of(p);
	}
	if (vm.removed[n] || is_hole(n))
		return !all_zero(p);
	if (all_zero(p))
		return 2;
	return p->magic != MAGIC || p->number != n || p->generation != 1 || p->sum != sum_of(p);
}

static int make_file(const char *path, uint64_t mib)
{
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
	static struct page p;

	if (fd < 0 || ftruncate(fd, (off_t)(mib << 20)))
		die(path);
	for (uint64_t n = 0; n < mib << 20 >> 12; n++) {
		if (is_hole(n))
			continue;
		fill_page(&p, n, 1);
		if (pwrite(fd, &p, PAGE, (off_t)(n * PAGE)) != PAGE)
			die(path);
	}
	close(fd);
	return 0;
}

/* ---- the VMM ---- */

static void map_file(const char *path, uint64_t mib)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);
	int flags = strcmp(vm.file, "shared") ? MAP_PRIVATE : MAP_SHARED;

	vm.npages = vm.per_region = mib << 20 >> 12;
	vm.base = calloc(1, sizeof(*vm.base));
	vm.written = calloc(vm.npages, 1);
	vm.removed = calloc(vm.npages, 1);
	vm.base[0] = mmap(NULL, mib << 20, PROT_READ | PROT_WRITE, flags, fd, 0);
	if (fd < 0 || vm.base[0] == MAP_FAILED)
		die(path);
	printf("pid %d\n", getpid());
	fflush(stdout);
}

static void map_memory(uint64_t mib)
{
	struct uffdio_api api = { .api = UFFD_API, .features = UFFD_FEATURE_EVENT_REMOVE };
	int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | (vm.huge ? MAP_HUGETLB : 0);

	if (vm.threads)
		api.features |= UFFD_FEATURE_THREAD_ID;
	vm.npages = mib << 20 >> 12;
	vm.per_region = vm.npages / vm.regions;
	vm.base = calloc(vm.regions, sizeof(*vm.base));
	vm.written = calloc(vm.npages, 1);
	vm.removed = calloc(vm.npages, 1);
	vm.uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	if (vm.uffd < 0 || ioctl(vm.uffd, UFFDIO_API, &api))
		die("userfaultfd");
	for (unsigned i = 0; i < vm.regions; i++) {
		size_t len = vm.per_region * PAGE;
		struct uffdio_register reg = { .mode = UFFDIO_REGISTER_MODE_MISSING };

		vm.base[i] = mmap(NULL, len, PROT_READ | PROT_WRITE, flags, -1, 0);
		if (vm.base[i] == MAP_FAILED)
			die("mmap");
		reg.range.start = (uintptr_t)vm.base[i];
		reg.range.len = len;
		if (ioctl(vm.uffd, UFFDIO_REGISTER, &reg))
			die("UFFDIO_REGISTER");
	}
}

static size_t message(char *out, size_t room)
{
	uint64_t page = vm.huge ? HUGE : PAGE;
	size_t n = 0;

	n += (size_t)snprintf(out + n, room - n, "[");
	for (unsigned i = 0; i < vm.regions; i++)
		n += (size_t)snprintf(
			out + n, room - n,
			"%s{\"base_host_virt_addr\":%llu,\"size\":%llu,\"offset\":%llu,\"%s\":%"
			"llu}",
			i ? "," : "", (unsigned long long)(uintptr_t)vm.base[i],
			(unsigned long long)(vm.per_region * PAGE + (vm.lies ? page : 0)),
			(unsigned long long)(i * vm.per_region * PAGE),
			vm.old_field ? "page_size_kib" : "page_size", (unsigned long long)page);
	n += (size_t)snprintf(out + n, room - n, "]");
	return n;
}

static void send_with_fds(const void *buf, size_t len, const int *fds, unsigned nfds)
{
	char control[CMSG_SPACE(2 * sizeof(int))] = { 0 };
	struct iovec iov = { (void *)buf, len };
	struct msghdr msg = { .msg_iov = &iov,
			      .msg_iovlen = 1,
			      .msg_control = control,
			      .msg_controllen = CMSG_SPACE(nfds * sizeof(int)) };
	struct cmsghdr *c = CMSG_FIRSTHDR(&msg);

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(nfds * sizeof(int));
	memcpy(CMSG_DATA(c), fds, nfds * sizeof(int));
	if (sendmsg(vm.sock, &msg, MSG_NOSIGNAL) != (ssize_t)len)
		die("sendmsg");
}

static void hand_over(const char *path)
{
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	size_t room = vm.regions * 160 + 16, len, part;
	char *text = malloc(room);
	int fds[2] = { vm.uffd, -1 };

	vm.sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	strncpy(un.sun_path, path, sizeof(un.sun_path) - 1);
	if (vm.sock < 0 || connect(vm.sock, (struct sockaddr *)&un, sizeof(un)))
		die(path);
	if (vm.two_fds)
		fds[1] = memfd_create("second", MFD_CLOEXEC);
	len = message(text, room);
	part = vm.pieces ? len / 3 : len;
	send_with_fds(text, part, fds, vm.two_fds ? 2 : 1);
	while (part < len) {
		size_t n = len - part < len / 3 ? len - part : len / 3;

		usleep(20000);
		if (send(vm.sock, text + part, n, MSG_NOSIGNAL) != (ssize_t)n)
			die("send");
		part += n;
	}
	free(text);
	if (vm.closes)
		close(vm.sock);
}

/* ---- the guest ---- */

static _Atomic unsigned long wrong, zeros;

static void look(uint64_t n)
{
	int v = judge(n);

	if (v)
		atomic_fetch_add(&wrong, 1);
	if (v == 2)
		atomic_fetch_add(&zeros, 1);
}

/* One of two threads; each has every other group of pages, so that nobody writes what is read. */
static void *touch(void *arg)
{
	uint64_t me = (uintptr_t)arg, group = vm.huge ? HUGE / PAGE : 4;
	uint64_t rounds = vm.npages / 2 * vm.touch / 100;

	for (uint64_t i = 0; i < rounds; i++) {
		uint64_t r = mix(vm.seed * 1000003ull + i * 2 + me), n = r % vm.npages;

		if (n / group % 2 != me)
			continue;
		if (vm.slow)
			usleep(vm.slow);
		if (vm.removes && !vm.huge && r >> 40 & 1 && (r >> 41) % 8 == 0) {
			vm.removed[n] = 1;
			vm.written[n] = 0;
			if (madvise(page_at(n), PAGE, MADV_DONTNEED))
				die("madvise");
		}
		look(n);
		if ((r >> 44) % 8 == 0) {
			fill_page(page_at(n), n, 2);
			vm.written[n] = 1;
		}
	}
	return NULL;
}

/* Each begins somewhere else. Its status says whether a page was wrong. */
static void fork_children(pid_t *pids)
{
	for (unsigned i = 0; i < vm.forks; i++) {
		pids[i] = fork();
		if (pids[i] < 0)
			die("fork");
		if (pids[i])
			continue;
		for (uint64_t n = 0; n < vm.npages; n++)
			look((n + i * vm.npages / vm.forks) % vm.npages);
		_exit(zeros ? 2 : wrong != 0);
	}
}

static void await_children(const pid_t *pids)
{
	for (unsigned i = 0; i < vm.forks; i++) {
		int status;

		if (waitpid(pids[i], &status, 0) != pids[i])
			die("waitpid");
		wrong += status != 0;
		zeros += WIFEXITED(status) && WEXITSTATUS(status) == 2;
	}
}

static int by_value(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static uint64_t now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

static bool is_there(uint64_t n)
{
	unsigned char there = 0;

	if (mincore(page_at(n), PAGE, &there))
		die("mincore");
	return there & 1;
}

/* --count is of pages that are still missing: the others tell nothing of faults. */
static void measure(void)
{
	uint64_t room = vm.count ? vm.count : vm.npages * vm.touch / 100, count = 0, first = 0;
	uint64_t *took = calloc(room + 1, sizeof(*took));

	for (uint64_t i = 0; count < room && i < 4 * vm.npages; i++) {
		uint64_t n = (vm.walks ? i : mix(vm.seed * 1000003ull + i)) % vm.npages, from;

		if (is_hole(n) || (vm.count ? vm.sock >= 0 && is_there(n) : vm.written[n]))
			continue;
		from = now();
		(void)*(volatile uint64_t *)page_at(n);
		took[count] = now() - from;
		if (!count++)
			first = from + took[0];
		wrong += page_at(n)->number != n;
		if (!vm.count)
			vm.written[n] = 1;
	}
	qsort(took, count, sizeof(*took), by_value);
	printf("{\"faults\":%llu,\"p50\":%.1f,\"p90\":%.1f,\"p99\":%.1f,\"max\":%.1f,"
	       "\"first\":%.6f}\n",
	       (unsigned long long)count, (double)took[count / 2] / 1000,
	       (double)took[count * 9 / 10] / 1000, (double)took[count * 99 / 100] / 1000,
	       (double)took[count ? count - 1 : 0] / 1000, (double)first / 1e9);
	fflush(stdout);
	free(took);
}

static void touch_all(void)
{
	pid_t children[64];
	pthread_t threads[2];
	char line[8];

	fork_children(children);
	for (uintptr_t i = 0; i < 2; i++)
		if (pthread_create(&threads[i], NULL, touch, (void *)i))
			die("pthread_create");
	for (int i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	await_children(children);
	printf("touched\n");
	fflush(stdout);
	if (read(0, line, sizeof(line)) < 0)
		die("stdin");
	for (uint64_t n = 0; n < vm.npages; n++)
		look(n);
	printf("%llu pages, %lu wrong, %lu zero\n", (unsigned long long)vm.npages, wrong, zeros);
}

static int run(const char *path, uint64_t mib)
{
	char line[8];

	if (vm.file) {
		map_file(path, mib);
		if (vm.waits && read(0, line, sizeof(line)) < 0)
			die("stdin");
	} else {
		map_memory(mib);
		hand_over(path);
	}
	if (vm.latency)
		measure();
	else
		touch_all();
	return wrong != 0;
}

static int alone(const char *path, uint64_t mib)
{
	uint8_t *base;
	int fd = open(path, O_RDONLY);

	vm.npages = vm.per_region = mib << 20 >> 12;
	base = mmap(NULL, mib << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE, fd, 0);
	if (fd < 0 || base == MAP_FAILED)
		die(path);
	vm.base = &base;
	vm.written = calloc(vm.npages, 1);
	vm.sock = -1;
	measure();
	return wrong != 0;
}

static bool is(const char *word, const char *option)
{
	return !strcmp(word, option);
}

int main(int argc, char **argv)
{
	int i = 2;

	if (argc == 4 && is(argv[1], "make"))
		return make_file(argv[2], strtoull(argv[3], NULL, 10));
	for (; i < argc && !strncmp(argv[i], "--", 2); i++) {
		vm.huge |= is(argv[i], "--huge");
		vm.old_field |= is(argv[i], "--old-field");
		vm.two_fds |= is(argv[i], "--two-fds");
		vm.pieces |= is(argv[i], "--pieces");
		vm.removes |= is(argv[i], "--remove");
		vm.latency |= is(argv[i], "--latency");
		vm.closes |= is(argv[i], "--close");
		vm.walks |= is(argv[i], "--walk");
		vm.threads |= is(argv[i], "--threads");
		vm.lies |= is(argv[i], "--lie-size");
		vm.waits |= is(argv[i], "--wait");
		if (is(argv[i], "--regions"))
			vm.regions = (unsigned)atoi(argv[++i]);
		else if (is(argv[i], "--touch"))
			vm.touch = (unsigned)atoi(argv[++i]);
		else if (is(argv[i], "--seed"))
			vm.seed = (unsigned)atoi(argv[++i]);
		else if (is(argv[i], "--count"))
			vm.count = (unsigned)atoi(argv[++i]);
		else if (is(argv[i], "--slow"))
			vm.slow = (unsigned)atoi(argv[++i]);
		else if (is(argv[i], "--forks"))
			vm.forks = (unsigned)atoi(argv[++i]) % 64;
		else if (is(argv[i], "--file"))
			vm.file = argv[++i];
	}
	if (argc == i + 2 && is(argv[1], "alone"))
		return alone(argv[i], strtoull(argv[i + 1], NULL, 10));
	if (argc != i + 2 || !is(argv[1], "run")) {
		fprintf(stderr, "vmm: see the head of its source\n");
		return 2;
	}
	return run(argv[i], strtoull(argv[i + 1], NULL, 10));
}
