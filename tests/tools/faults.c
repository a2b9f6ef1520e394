// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A library to be preloaded: calls of the kernel fail, or do less than they were asked for. Tests
 * alone use it (tests/faults.py).
 *
 * FAULTS is a list of CLASS:WHICH:HOW, separated by commas. CLASS is one of the names in classes[];
 * WHICH is N (the Nth call of the class, from 1 on) or ~P (about every Pth, by FAULTS_SEED); HOW is
 * an errno's name, or SHORT. FAULTS_STATE names a file that is shared by all processes of one
 * program: it counts the calls of each class, and the faults, as 64-bit numbers in the order of
 * classes[], the faults behind them.
 *
 * What a descriptor is decides the class: what happens to a socket cannot happen to a file. stderr
 * and event descriptors are left alone.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define API __attribute__((visibility("default")))

enum class {
	FILE_READ,
	FILE_WRITE,
	LINK_READ,
	LINK_WRITE,
	SENDFILE,
	SPACE,
	SYNC,
	NAME,
	MAP,
	PLACE,
	OPEN,
	DESCRIPTOR,
	CONNECT,
	ACCEPT,
	POLL,
	THREAD,
	MEMORY,
	CLASSES,
	NONE
};

static const char *const classes[CLASSES] = {
	"file-read", "file-write", "link-read", "link-write", "sendfile", "space",
	"sync",	     "name",	   "map",	"place",      "open",	  "descriptor",
	"connect",   "accept",	   "poll",	"thread",     "memory",
};

static const struct {
	const char *name;
	int number;
} errors[] = {
	{ "EINTR", EINTR },
	{ "EIO", EIO },
	{ "ENOSPC", ENOSPC },
	{ "ENOMEM", ENOMEM },
	{ "ECONNRESET", ECONNRESET },
	{ "EPIPE", EPIPE },
	{ "EMFILE", EMFILE },
	{ "EAGAIN", EAGAIN },
	{ "EOPNOTSUPP", EOPNOTSUPP },
	{ "EACCES", EACCES },
	{ "EDQUOT", EDQUOT },
	{ "ECONNABORTED", ECONNABORTED },
	{ "ECONNREFUSED", ECONNREFUSED },
	{ "SHORT", -1 },
};

static struct rule {
	uint64_t nth, every;
	int error; /* -1: short */
} rules[CLASSES];

static struct state {
	_Atomic uint64_t calls[CLASSES], faults;
} * state;

static uint64_t seed;

/* ---- set-up ---- */

static void bad(const char *what)
{
	fprintf(stderr, "faults: %s\n", what);
	_exit(99);
}

static void parse_one(char *text)
{
	char *which = strchr(text, ':'), *how = which ? strchr(which + 1, ':') : NULL;
	struct rule *r = NULL;

	if (!how)
		bad("CLASS:WHICH:HOW expected");
	*which++ = *how++ = '\0';
	for (int i = 0; i < CLASSES; i++)
		if (!strcmp(text, classes[i]))
			r = &rules[i];
	if (!r)
		bad("no such class");
	*(*which == '~' ? &r->every : &r->nth) = strtoull(which + (*which == '~'), NULL, 10);
	for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++)
		if (!strcmp(how, errors[i].name))
			r->error = errors[i].number;
	if (!r->error || (!r->nth && !r->every))
		bad("no such fault");
}

__attribute__((constructor)) static void set_up(void)
{
	const char *list = getenv("FAULTS"), *path = getenv("FAULTS_STATE");
	const char *number = getenv("FAULTS_SEED");
	char *copy = list ? strdup(list) : NULL, *rest, *one;
	struct state *shared;
	int fd = path ? open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600) : -1;

	if (fd < 0 || ftruncate(fd, sizeof(*state)))
		bad("FAULTS_STATE cannot be used");
	shared = mmap(NULL, sizeof(*state), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (shared == MAP_FAILED)
		bad("FAULTS_STATE cannot be mapped");
	close(fd);
	seed = number ? strtoull(number, NULL, 0) : 0;
	for (one = copy ? strtok_r(copy, ",", &rest) : NULL; one; one = strtok_r(NULL, ",", &rest))
		parse_one(one);
	free(copy);
	memset(shared, 0, sizeof(*shared));
	state = shared;
}

/* ---- deciding ---- */

static uint64_t mixed(uint64_t n)
{
	n = (n + seed) * UINT64_C(0x9e3779b97f4a7c15);
	return n ^ n >> 29;
}

/* What happens to this call: 0: nothing, an errno, or -1: it is a short one. */
static int fault(enum class c)
{
	const struct rule *r;
	uint64_t n;

	if (!state || c == NONE)
		return 0;
	r = &rules[c];
	n = atomic_fetch_add(&state->calls[c], 1) + 1;
	if (!(r->nth && n == r->nth) && !(r->every && mixed(n) % r->every == 0))
		return 0;
	atomic_fetch_add(&state->faults, 1);
	return r->error;
}

/* Packets to and from our own other process are never short, and lead to no peer. */
static bool is_broker(int fd, mode_t mode)
{
	socklen_t len = sizeof(int);
	int type = 0;

	return S_ISSOCK(mode) && !getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) &&
	       type == SOCK_SEQPACKET;
}

/* The call fails: true, and errno is set. */
static bool fails(enum class c)
{
	int f = fault(c);

	if (f > 0)
		errno = f;
	return f > 0;
}

static enum class of_fd(int fd, enum class file, enum class link) {
	struct stat st;

	if (fd == STDERR_FILENO || fstat(fd, &st)) return NONE;
	if (S_ISREG(st.st_mode)) return fd == STDOUT_FILENO ? NONE : file;
	if (is_broker(fd, st.st_mode)) return NONE;
	return S_ISSOCK(st.st_mode) || S_ISFIFO(st.st_mode) ? link : NONE;
}

/* As fails(); a short one gets a smaller *len. */
static bool fails_or_short(enum class c, size_t *len)
{
	int f = fault(c);

	if (f > 0)
		errno = f;
	else if (f < 0 && *len > 1)
		*len = 1 + mixed(*len) % (*len - 1);
	return f > 0;
}

/* The first of the pieces, cut short, into *cut; or all of them. */
static bool fails_or_first(enum class c, const struct iovec **iov, int *n, struct iovec *cut)
{
	int f = fault(c), i = 0;

	if (f > 0)
		errno = f;
	if (f >= 0)
		return f > 0;
	while (i < *n - 1 && !(*iov)[i].iov_len)
		i++;
	*cut = (*iov)[i];
	if (cut->iov_len > 1)
		cut->iov_len = 1 + mixed(cut->iov_len) % (cut->iov_len - 1);
	*iov = cut;
	*n = 1;
	return false;
}

#define REAL(type, name, ...)             \
	static type (*real)(__VA_ARGS__); \
	if (!real)                        \
	real = (type(*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

/* ---- bytes ---- */

API ssize_t read(int fd, void *buf, size_t len)
{
	REAL(ssize_t, "read", int, void *, size_t);
	return fails_or_short(of_fd(fd, FILE_READ, LINK_READ), &len) ? -1 : real(fd, buf, len);
}

API ssize_t recv(int fd, void *buf, size_t len, int flags)
{
	REAL(ssize_t, "recv", int, void *, size_t, int);
	/* who looks without taking may see less at any time, and has to look again */
	return fails_or_short(flags & MSG_PEEK ? NONE : of_fd(fd, LINK_READ, LINK_READ), &len)
		       ? -1
		       : real(fd, buf, len, flags);
}

API ssize_t pread(int fd, void *buf, size_t len, off_t at)
{
	REAL(ssize_t, "pread64", int, void *, size_t, off_t);
	return fails_or_short(of_fd(fd, FILE_READ, NONE), &len) ? -1 : real(fd, buf, len, at);
}

API ssize_t preadv2(int fd, const struct iovec *iov, int n, off_t at, int flags)
{
	struct iovec cut;

	REAL(ssize_t, "preadv64v2", int, const struct iovec *, int, off_t, int);
	return fails_or_first(of_fd(fd, FILE_READ, LINK_READ), &iov, &n, &cut)
		       ? -1
		       : real(fd, iov, n, at, flags);
}

API ssize_t write(int fd, const void *buf, size_t len)
{
	REAL(ssize_t, "write", int, const void *, size_t);
	return fails_or_short(of_fd(fd, FILE_WRITE, LINK_WRITE), &len) ? -1 : real(fd, buf, len);
}

API ssize_t writev(int fd, const struct iovec *iov, int n)
{
	struct iovec cut;

	REAL(ssize_t, "writev", int, const struct iovec *, int);
	return fails_or_first(of_fd(fd, FILE_WRITE, LINK_WRITE), &iov, &n, &cut) ? -1
										 : real(fd, iov, n);
}

API ssize_t pwrite(int fd, const void *buf, size_t len, off_t at)
{
	REAL(ssize_t, "pwrite64", int, const void *, size_t, off_t);
	return fails_or_short(of_fd(fd, FILE_WRITE, NONE), &len) ? -1 : real(fd, buf, len, at);
}

API ssize_t pwritev2(int fd, const struct iovec *iov, int n, off_t at, int flags)
{
	struct iovec cut;

	REAL(ssize_t, "pwritev64v2", int, const struct iovec *, int, off_t, int);
	return fails_or_first(of_fd(fd, FILE_WRITE, LINK_WRITE), &iov, &n, &cut)
		       ? -1
		       : real(fd, iov, n, at, flags);
}

API ssize_t sendmsg(int fd, const struct msghdr *msg, int flags)
{
	struct msghdr m = *msg;
	const struct iovec *iov = m.msg_iov;
	struct iovec cut;
	int n = (int)m.msg_iovlen;

	REAL(ssize_t, "sendmsg", int, const struct msghdr *, int);
	/* descriptors on their way are another matter */
	if (fails_or_first(m.msg_controllen ? NONE : of_fd(fd, LINK_WRITE, LINK_WRITE), &iov, &n,
			   &cut))
		return -1;
	m.msg_iov = (struct iovec *)iov;
	m.msg_iovlen = (size_t)n;
	return real(fd, &m, flags);
}

API ssize_t sendfile(int out, int in, off_t *at, size_t len)
{
	REAL(ssize_t, "sendfile64", int, int, off_t *, size_t);
	return fails_or_short(SENDFILE, &len) ? -1 : real(out, in, at, len);
}

API ssize_t splice(int in, off64_t *at_in, int out, off64_t *at_out, size_t len, unsigned flags)
{
	REAL(ssize_t, "splice", int, off64_t *, int, off64_t *, size_t, unsigned);
	return fails_or_short(SENDFILE, &len) ? -1 : real(in, at_in, out, at_out, len, flags);
}

API ssize_t process_vm_writev(pid_t pid, const struct iovec *from, unsigned long nfrom,
			      const struct iovec *to, unsigned long nto, unsigned long flags)
{
	REAL(ssize_t, "process_vm_writev", pid_t, const struct iovec *, unsigned long,
	     const struct iovec *, unsigned long, unsigned long);
	return fails(PLACE) ? -1 : real(pid, from, nfrom, to, nto, flags);
}

/* ---- files ---- */

API int fallocate(int fd, int mode, off_t at, off_t len)
{
	REAL(int, "fallocate64", int, int, off_t, off_t);
	return fails(SPACE) ? -1 : real(fd, mode, at, len);
}

API int ftruncate(int fd, off_t len)
{
	REAL(int, "ftruncate64", int, off_t);
	return fails(SPACE) ? -1 : real(fd, len);
}

API int fsync(int fd)
{
	REAL(int, "fsync", int);
	return fails(SYNC) ? -1 : real(fd);
}

API int renameat2(int d1, const char *p1, int d2, const char *p2, unsigned flags)
{
	REAL(int, "renameat2", int, const char *, int, const char *, unsigned);
	return fails(NAME) ? -1 : real(d1, p1, d2, p2, flags);
}

API int linkat(int d1, const char *p1, int d2, const char *p2, int flags)
{
	REAL(int, "linkat", int, const char *, int, const char *, int);
	return fails(NAME) ? -1 : real(d1, p1, d2, p2, flags);
}

API int mkdir(const char *path, mode_t mode)
{
	REAL(int, "mkdir", const char *, mode_t);
	return fails(NAME) ? -1 : real(path, mode);
}

API int openat(int dir, const char *path, int flags, ...)
{
	va_list ap;
	mode_t mode;

	REAL(int, "openat64", int, const char *, int, ...);
	va_start(ap, flags);
	mode = va_arg(ap, mode_t);
	va_end(ap);
	return fails(OPEN) ? -1 : real(dir, path, flags, mode);
}

API void *mmap(void *addr, size_t len, int prot, int flags, int fd, off_t at)
{
	REAL(void *, "mmap64", void *, size_t, int, int, int, off_t);
	return fails(MAP) ? MAP_FAILED : real(addr, len, prot, flags, fd, at);
}

/* ---- descriptors, threads ---- */

API int eventfd(unsigned n, int flags)
{
	REAL(int, "eventfd", unsigned, int);
	return fails(DESCRIPTOR) ? -1 : real(n, flags);
}

API int pipe2(int fd[2], int flags)
{
	REAL(int, "pipe2", int *, int);
	return fails(DESCRIPTOR) ? -1 : real(fd, flags);
}

API int socket(int domain, int type, int protocol)
{
	REAL(int, "socket", int, int, int);
	return fails(DESCRIPTOR) ? -1 : real(domain, type, protocol);
}

API int accept4(int fd, struct sockaddr *sa, socklen_t *len, int flags)
{
	REAL(int, "accept4", int, struct sockaddr *, socklen_t *, int);
	return fails(ACCEPT) ? -1 : real(fd, sa, len, flags);
}

API int connect(int fd, const struct sockaddr *sa, socklen_t len)
{
	REAL(int, "connect", int, const struct sockaddr *, socklen_t);
	return fails(CONNECT) ? -1 : real(fd, sa, len);
}

API int poll(struct pollfd *p, nfds_t n, int ms)
{
	REAL(int, "poll", struct pollfd *, nfds_t, int);
	return fails(POLL) ? -1 : real(p, n, ms);
}

/* With _FORTIFY_SOURCE the call is this one. */
API int __poll_chk(struct pollfd *p, nfds_t n, int ms, size_t room);
API int __poll_chk(struct pollfd *p, nfds_t n, int ms, size_t room)
{
	if (n > room / sizeof(*p))
		bad("poll reads beyond its array");
	return poll(p, n, ms);
}

API int pthread_create(pthread_t *t, const pthread_attr_t *a, void *(*f)(void *), void *arg)
{
	int e = fault(THREAD);

	REAL(int, "pthread_create", pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
	return e > 0 ? e : real(t, a, f, arg);
}

/* ---- memory ---- */

/* A sanitizer has an allocator of its own, which must not be passed by. */
#ifndef FAULTS_WITHOUT_MEMORY
void *__libc_malloc(size_t);
void *__libc_calloc(size_t, size_t);
void *__libc_realloc(void *, size_t);
void *__libc_memalign(size_t, size_t);

static uintptr_t exempt, exempt_end; /* libseccomp */

static int find_exempt(struct dl_phdr_info *info, size_t size, void *arg)
{
	(void)size;
	(void)arg;
	if (!strstr(info->dlpi_name, "/libseccomp."))
		return 0;
	exempt = info->dlpi_addr;
	for (int i = 0; i < info->dlpi_phnum; i++) {
		uintptr_t end =
			info->dlpi_addr + info->dlpi_phdr[i].p_vaddr + info->dlpi_phdr[i].p_memsz;

		if (info->dlpi_phdr[i].p_type == PT_LOAD && end > exempt_end)
			exempt_end = end;
	}
	return 1;
}

__attribute__((constructor)) static void remember_exempt(void)
{
	dl_iterate_phdr(find_exempt, NULL);
}

/*
 * libseccomp does not survive a lack of memory: it crashes, or leaves a rule out. It is asked
 * before there is a peer, and what it leaves out is denied, so its calls are not what is tested.
 */
static enum class of_caller(const void *caller) {
	uintptr_t at = (uintptr_t)caller;

	return at >= exempt && at < exempt_end ? NONE : MEMORY;
}

API void *malloc(size_t n)
{
	return fails(of_caller(__builtin_return_address(0))) ? NULL : __libc_malloc(n);
}

API void *calloc(size_t n, size_t size)
{
	return fails(of_caller(__builtin_return_address(0))) ? NULL : __libc_calloc(n, size);
}

API void *realloc(void *p, size_t n)
{
	return fails(of_caller(__builtin_return_address(0))) ? NULL : __libc_realloc(p, n);
}

API void *aligned_alloc(size_t align, size_t n)
{
	return fails(of_caller(__builtin_return_address(0))) ? NULL : __libc_memalign(align, n);
}
#endif
