// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A guest as small as can be: it maps its memory and looks at every page.
 *
 *	maps FILE WORD...
 *
 * The words are done in order; exec starts this program anew, with those that follow. Page n of
 *FILE is expected to hold the value of n in each of its words of 64 bits. Status 0: all is right;
 *1: a page, or what a call returned, is zero; 2: something else is wrong in it; 3: a call failed.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096u

static const char *path;
static int fd = -1;
static size_t size;
static char *mem[2];
static size_t len[2], starts[2]; /* starts: of the first byte in FILE */
static unsigned nmem;
static int flags = MAP_SHARED, prot = PROT_READ | PROT_WRITE;

static volatile sig_atomic_t signalled;

static void on_signal(int sig)
{
	signalled = sig;
}

static _Noreturn void fail(const char *what)
{
	fprintf(stderr, "maps: %s: %s\n", what, strerror(errno));
	_exit(3);
}

static uint64_t value(uint64_t page)
{
	return (page + 1) * UINT64_C(0x9e3779b97f4a7c15);
}

static void look(const uint64_t *p, uint64_t page)
{
	for (unsigned i = 0; i < PAGE / 8; i++) {
		if (p[i] == value(page))
			continue;
		fprintf(stderr, "maps: page %llu is %s\n", (unsigned long long)page,
			p[i] ? "wrong" : "zero");
		_exit(p[i] ? 2 : 1);
	}
}

static void check(void)
{
	for (unsigned m = 0; m < nmem; m++)
		for (size_t i = 0; i < len[m]; i += PAGE)
			look((const uint64_t *)(mem[m] + i), (starts[m] + i) / PAGE);
}

static void map_part(size_t from, size_t n)
{
	char *p = mmap(NULL, n, prot, flags, fd, (off_t)from);

	if (p == MAP_FAILED)
		fail("mmap");
	mem[nmem] = p;
	starts[nmem] = from;
	len[nmem++] = n;
}

/* What a call brought: the first page, or nothing. */
static void got(ssize_t n, const void *buf)
{
	if (n < 0)
		fail("call");
	if (n == PAGE)
		look(buf, 0);
}

static void copy_through(const char *word)
{
	static char buf[PAGE];
	int p[2], to = open("/dev/shm", O_TMPFILE | O_RDWR, 0600);
	off_t at = 0;
	ssize_t n = -1;

	if (to < 0 || pipe(p))
		fail("pipe");
	if (!strcmp(word, "sendfile"))
		n = sendfile(to, fd, &at, PAGE);
	else if (!strcmp(word, "copy_file_range"))
		n = copy_file_range(fd, &at, to, NULL, PAGE, 0);
	else if (!strcmp(word, "splice"))
		n = splice(fd, &at, p[1], NULL, PAGE, 0);
	if (n < 0)
		fail(word);
	n = !strcmp(word, "splice") ? read(p[0], buf, PAGE) : pread(to, buf, PAGE, 0);
	got(n, buf);
}

static void read_submitted(void)
{
	static char buf[PAGE];
	struct iocb cb = { .aio_lio_opcode = IOCB_CMD_PREAD,
			   .aio_fildes = (uint32_t)fd,
			   .aio_buf = (uintptr_t)buf,
			   .aio_nbytes = PAGE },
		    *list = &cb;
	struct io_event done;
	aio_context_t ctx = 0;

	if (syscall(SYS_io_setup, 1, &ctx) || syscall(SYS_io_submit, ctx, 1, &list) != 1 ||
	    syscall(SYS_io_getevents, ctx, 1, 1, &done, NULL) != 1)
		fail("io_submit");
	got((ssize_t)done.res, buf);
}

/* One byte into the image. Refused it is status 0. */
static void copy_into(const char *word)
{
	int p[2], from = open("/dev/zero", O_RDONLY);
	int file = open("/dev/shm", O_TMPFILE | O_RDWR, 0600);
	off_t at = 0;
	ssize_t n;

	if (from < 0 || file < 0 || pipe(p) || write(p[1], "x", 1) != 1 || write(file, "x", 1) != 1)
		fail("pipe");
	if (!strcmp(word, "sendfile-to"))
		n = sendfile(fd, file, &at, 1);
	else if (!strcmp(word, "splice-to"))
		n = splice(p[0], NULL, fd, &at, 1, 0);
	else
		n = copy_file_range(file, &at, fd, NULL, 1, 0);
	if (n >= 0 || errno != EIO)
		_exit(1);
}

/* A call of a number that there is not ends it. */
static void filter_numbers(void)
{
	struct sock_filter f[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, 0x40000000, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog prog = { 4, f };

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
	    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog))
		fail("seccomp");
}

/* late: it says who it is, and looks when it has read a byte. */
static void in_child(bool late)
{
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		char c;

		if (late && (printf("%d\n", getpid()) < 0 || fflush(stdout) || read(0, &c, 1) != 1))
			fail("stdin");
		check();
		_exit(0);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		fail("fork");
	if (status)
		_exit(WIFEXITED(status) ? WEXITSTATUS(status) : 2);
}

static void *in_thread(void *arg)
{
	map_part(0, size);
	check();
	return arg;
}

/* n children that say one byte and stay, or end, as the word wants it. */
static void many_children(const char *word)
{
	bool ends = word[0] == 's';

	for (int n = atoi(strchr(word, '=') + 1); n > 0; n--) {
		pid_t pid = fork();

		if (pid < 0)
			fail("fork");
		if (pid == 0 && ends)
			_exit(0);
		if (pid == 0) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			if (write(1, "c", 1) != 1)
				_exit(3);
			for (;;)
				pause();
		}
		if (ends && waitpid(pid, NULL, 0) != pid)
			fail("waitpid");
	}
}

/* Each of these waits for standard input, and for nothing else. */
static void *wait_in_epoll(void *arg)
{
	struct epoll_event ev = { .events = EPOLLIN };
	int ep = epoll_create1(0);

	if (ep < 0 || epoll_ctl(ep, EPOLL_CTL_ADD, 0, &ev) || epoll_wait(ep, &ev, 1, -1) != 1)
		fail("epoll_wait");
	return arg;
}

static void *wait_in_poll(void *arg)
{
	struct pollfd p = { .fd = 0, .events = POLLIN };

	if (poll(&p, 1, 1000000) != 1)
		fail("poll");
	return arg;
}

static void *wait_in_select(void *arg)
{
	fd_set set;

	FD_ZERO(&set);
	FD_SET(0, &set);
	if (select(1, &set, NULL, NULL, NULL) != 1)
		fail("select");
	return arg;
}

static void wait_in_threads(void)
{
	static void *(*const ways[])(void *) = { wait_in_epoll, wait_in_poll, wait_in_select };
	pthread_t threads[3];

	for (unsigned i = 0; i < 3; i++)
		if (pthread_create(&threads[i], NULL, ways[i], NULL))
			fail("thread");
	for (unsigned i = 0; i < 3; i++)
		if (pthread_join(threads[i], NULL))
			fail("join");
}

/* As many calls as it can. */
static void *calls(void *arg)
{
	for (;;)
		getppid();
	return arg;
}

static void moved(void)
{
	void *p = mremap(mem[0], len[0], len[0], MREMAP_MAYMOVE | MREMAP_FIXED,
			 mmap(NULL, len[0], PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));

	if (p == MAP_FAILED)
		fail("mremap");
	mem[0] = p;
}

/* Words to whoever started it, as sd_notify(3) sends them. */
static void notify(const char *text)
{
	const char *name = getenv("NOTIFY_SOCKET");
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	int s = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	size_t n = name ? strlen(name) : 0;

	if (s < 0 || !n || n >= sizeof(un.sun_path))
		fail("NOTIFY_SOCKET");
	memcpy(un.sun_path, name, n);
	if (name[0] == '@')
		un.sun_path[0] = '\0';
	if (sendto(s, text, strlen(text), 0, (struct sockaddr *)&un,
		   (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n)) < 0)
		fail("sendto");
	close(s);
}

/* Devices take their time: some ns a byte. */
static void load_state(const char *file)
{
	static uint8_t buf[1 << 16];
	uint64_t sum = 0xcbf29ce484222325;
	int from = open(file, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	if (from < 0)
		fail(file);
	while ((n = read(from, buf, sizeof(buf))) > 0)
		for (ssize_t i = 0; i < n; i++)
			for (int k = 0; k < 4; k++)
				sum = (sum ^ buf[i]) * 0x100000001b3;
	close(from);
	if (n < 0 || !sum)
		fail(file);
}

/* Its own clock: so many ns. */
static void say_now(const char *word)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	printf("%s %lld%09ld\n", word, (long long)t.tv_sec, t.tv_nsec);
	fflush(stdout);
}

/* Calls on the descriptor that would go past the mapping. */
static int do_call(const char *word)
{
	static char buf[PAGE];
	struct iovec iov = { buf, PAGE };

	if (!strcmp(word, "read"))
		got(read(fd, buf, PAGE), buf);
	else if (!strcmp(word, "pread"))
		got(pread(fd, buf, PAGE, 0), buf);
	else if (!strcmp(word, "readv"))
		got(readv(fd, &iov, 1), buf);
	else if (!strcmp(word, "preadv"))
		got(preadv(fd, &iov, 1, 0), buf);
	else if (!strcmp(word, "pwrite"))
		got(pwrite(fd, "x", 1, 100) - 1, buf);
	else if (!strcmp(word, "sendfile") || !strcmp(word, "splice") ||
		 !strcmp(word, "copy_file_range"))
		copy_through(word);
	else if (!strcmp(word, "sendfile-to") || !strcmp(word, "splice-to") ||
		 !strcmp(word, "copy-to"))
		copy_into(word);
	else if (!strcmp(word, "io_submit"))
		read_submitted();
	else if (!strcmp(word, "x32"))
		syscall(0x40000000 | SYS_getpid);
	else
		return -1;
	return 0;
}

static int do_flag(const char *word)
{
	if (!strcmp(word, "populate"))
		flags |= MAP_POPULATE;
	else if (!strcmp(word, "locked"))
		flags |= MAP_LOCKED;
	else if (!strcmp(word, "private"))
		flags = (flags & ~MAP_TYPE) | MAP_PRIVATE;
	else if (!strcmp(word, "readonly"))
		prot = PROT_READ;
	else
		return -1;
	return 0;
}

static void do_word(const char *word)
{
	pthread_t thread;

	if (!strcmp(word, "map")) {
		map_part(0, size);
	} else if (!strcmp(word, "halves")) {
		map_part(0, size / 2);
		look((const uint64_t *)mem[0], 0);
		map_part(size / 2, size - size / 2);
	} else if (!strcmp(word, "check")) {
		check();
	} else if (!strcmp(word, "fork")) {
		in_child(false);
	} else if (!strcmp(word, "forks")) {
		for (unsigned i = 0; i < 100; i++)
			in_child(false);
	} else if (!strcmp(word, "fork-late")) {
		in_child(true);
	} else if (!strcmp(word, "move")) {
		moved();
	} else if (!strcmp(word, "drop")) {
		if (munmap(mem[0] + len[0] - PAGE, PAGE))
			fail("munmap");
		len[0] -= PAGE;
	} else if (!strcmp(word, "forget")) {
		for (unsigned m = 0; m < nmem; m++)
			if (madvise(mem[m], len[m], MADV_DONTNEED))
				fail("madvise");
	} else if (!strcmp(word, "thread")) {
		if (pthread_create(&thread, NULL, in_thread, NULL) || pthread_join(thread, NULL))
			fail("thread");
	} else if (!strcmp(word, "waits")) {
		wait_in_threads();
	} else if (!strcmp(word, "filter")) {
		filter_numbers();
	} else if (!strcmp(word, "busy")) {
		for (int i = 0; i < 32; i++)
			if (pthread_create(&thread, NULL, calls, NULL))
				fail("thread");
	} else if (!strcmp(word, "mlockall")) {
		if (mlockall(MCL_CURRENT | MCL_FUTURE))
			fail("mlockall");
	} else if (!strcmp(word, "reopen")) {
		close(fd);
		fd = open(path, O_RDONLY);
	} else if (!strcmp(word, "may-fail")) {
		/* the call that comes next is expected to be refused */
		static char buf[PAGE];

		if (pread(fd, buf, PAGE, 0) >= 0 || errno != EIO)
			_exit(1);
	} else if (!strcmp(word, "remap")) {
		if (remap_file_pages(mem[0], PAGE, 0, 1, 0) >= 0 || errno != EIO)
			_exit(1);
	} else if (!strcmp(word, "byte")) {
		char c;

		if (read(0, &c, 1) != 1)
			fail("stdin");
	} else if (!strcmp(word, "spin")) {
		while (!signalled)
			;
	} else if (!strcmp(word, "fill")) {
		for (size_t i = 0; i < len[0] / 8; i++)
			((uint64_t *)mem[0])[i] = value(i * 8 / PAGE);
	} else if (!strcmp(word, "touch")) {
		for (size_t i = 0; i < len[0]; i += PAGE)
			*(volatile char *)(mem[0] + i) = 1;
	} else if (!strcmp(word, "sleep")) {
		for (;;)
			pause();
	} else if (strstr(word, "children=")) {
		many_children(word);
	} else if (!strncmp(word, "notify=", 7)) {
		notify(word + 7);
	} else if (!strncmp(word, "state=", 6)) {
		load_state(word + 6);
	} else if (!strncmp(word, "now=", 4)) {
		say_now(word + 4);
	} else if (!strcmp(word, "first")) {
		look((const uint64_t *)mem[0], starts[0] / PAGE);
	} else if (!strncmp(word, "say=", 4)) {
		puts(word + 4);
		fflush(stdout);
	} else if (do_flag(word) && do_call(word)) {
		fprintf(stderr, "maps: what is %s?\n", word);
		_exit(3);
	}
}

int main(int argc, char **argv)
{
	struct stat st;

	if (argc < 2)
		return 3;
	path = argv[1];
	signal(SIGUSR1, on_signal);
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st))
		fail(path);
	size = (size_t)st.st_size;
	for (int i = 2; i < argc; i++) {
		if (!strcmp(argv[i], "exec")) {
			argv[i] = argv[1];
			argv[i - 1] = argv[0];
			execv("/proc/self/exe", argv + i - 1);
			fail("exec");
		}
		do_word(argv[i]);
	}
	return 0;
}
