// SPDX-License-Identifier: GPL-2.0-or-later
#include "broker-act.h"

#include "congestion.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- files ---- */

static int act_open(const char *path, int flags, mode_t mode)
{
	int fd;

	do
		fd = open(path, flags | O_CLOEXEC, mode);
	while (fd < 0 && errno == EINTR);
	return fd;
}

static int act_rename(const char *from, const char *to, unsigned flags)
{
	return renameat2(AT_FDCWD, from, AT_FDCWD, to, flags);
}

static int act_link(const char *from, const char *to)
{
	return linkat(AT_FDCWD, from, AT_FDCWD, to, 0);
}

/* The bit is asked for again: some file systems make up modes of their own, and say nothing. */
static int set_sticky(int fd, bool on)
{
	struct stat st;
	mode_t mode;

	if (fstat(fd, &st))
		return -1;
	mode = (st.st_mode & 07777 & ~(mode_t)S_ISVTX) | (on ? S_ISVTX : 0);
	if (mode == (st.st_mode & 07777))
		return 0;
	if (fchmod(fd, mode) || fstat(fd, &st))
		return -1;
	if (!(st.st_mode & S_ISVTX) == !on)
		return 0;
	errno = EOPNOTSUPP;
	return -1;
}

static int close_keeping_errno(int fd)
{
	int e = errno;

	close(fd);
	errno = e;
	return -1;
}

static int act_mark(const char *path, bool on)
{
	int fd = act_open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK, 0);

	if (fd < 0 || set_sticky(fd, on))
		return fd < 0 ? -1 : close_keeping_errno(fd);
	return close(fd);
}

static int act_may_write(const char *dir)
{
	return faccessat(AT_FDCWD, dir, W_OK, AT_EACCESS);
}

static int directory_occupied(const char *path)
{
	DIR *d = opendir(path);
	int n = 0;

	if (!d)
		return -1;
	while (n < 3 && readdir(d)) /* . and .. */
		n++;
	closedir(d);
	return n > 2;
}

static int act_occupied(const char *path)
{
	struct stat st;

	if (lstat(path, &st))
		return errno == ENOENT ? 0 : -1;
	if (S_ISDIR(st.st_mode))
		return directory_occupied(path);
	/* a file that is all hole has nothing to lose */
	return !S_ISREG(st.st_mode) || (st.st_size > 0 && st.st_blocks > 0);
}

/* ---- sockets ---- */

static int resolve_any(uint16_t port, struct broker_addr *out, int max)
{
	struct sockaddr_in6 v6 = { .sin6_family = AF_INET6, .sin6_port = htons(port) };
	struct sockaddr_in v4 = { .sin_family = AF_INET, .sin_port = htons(port) };

	v6.sin6_addr = in6addr_any;
	v4.sin_addr.s_addr = htonl(INADDR_ANY);
	if (max < 2)
		return EAI_MEMORY;
	memcpy(&out[0].sa, &v6, sizeof(v6));
	out[0].len = sizeof(v6);
	memcpy(&out[1].sa, &v4, sizeof(v4));
	out[1].len = sizeof(v4);
	return 2;
}

static int act_resolve(const char *host, uint16_t port, bool passive, struct broker_addr *out,
		       int max)
{
	struct addrinfo want = { .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM };
	struct addrinfo *list, *a;
	char service[8];
	int n = 0, rc;

	/* getaddrinfo's own order for "any" begins with IPv4, which would leave IPv6 out. */
	if (passive && !host[0])
		return resolve_any(port, out, max);
	want.ai_flags = AI_NUMERICSERV;
	snprintf(service, sizeof(service), "%u", port);
	rc = getaddrinfo(host[0] ? host : NULL, service, &want, &list);
	if (rc)
		return rc;
	for (a = list; a && n < max; a = a->ai_next) {
		if (a->ai_addrlen > sizeof(out[n].sa))
			continue;
		memcpy(&out[n].sa, a->ai_addr, a->ai_addrlen);
		out[n++].len = a->ai_addrlen;
	}
	freeaddrinfo(list);
	return n ? n : EAI_NONAME;
}

static int act_connect(const struct sockaddr *sa, socklen_t len)
{
	int fd = socket(sa->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0)
		return -1;
	if (sa->sa_family == AF_INET || sa->sa_family == AF_INET6)
		congestion_prepare(fd);
	/* An interrupted connect goes on by itself, as one in progress does. */
	if (connect(fd, sa, len) && errno != EINPROGRESS && errno != EINTR)
		return close_keeping_errno(fd);
	return fd;
}

static int act_listen(const struct sockaddr *sa, socklen_t len, int backlog)
{
	int fd = socket(sa->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int on = 1, off = 0;

	if (fd < 0)
		return -1;
	if (sa->sa_family == AF_INET || sa->sa_family == AF_INET6) {
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
		congestion_prepare(fd);
	}
	if (sa->sa_family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
	if (bind(fd, sa, len) || listen(fd, backlog))
		return close_keeping_errno(fd);
	return fd;
}

/* The name in the abstract name space, which ends with its socket. */
static int local_socket(const char *name, int flags, struct sockaddr_un *un, socklen_t *len)
{
	size_t n = strlen(name);

	memset(un, 0, sizeof(*un));
	un->sun_family = AF_UNIX;
	if (n > sizeof(un->sun_path) - 1) {
		errno = ENAMETOOLONG;
		return -1;
	}
	memcpy(un->sun_path + 1, name, n);
	*len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + n);
	return socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | flags, 0);
}

static int act_local_listen(const char *name)
{
	struct sockaddr_un un;
	socklen_t len;
	int fd = local_socket(name, SOCK_NONBLOCK, &un, &len);

	if (fd < 0)
		return -1;
	if (bind(fd, (struct sockaddr *)&un, len) || listen(fd, SOMAXCONN))
		return close_keeping_errno(fd);
	return fd;
}

int broker_notify_open(char name[BROKER_NOTIFY_NAME])
{
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	socklen_t len = sizeof(un.sun_family);
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), on = 1;
	const size_t head = offsetof(struct sockaddr_un, sun_path) + 1;

	if (fd < 0)
		return -1;
	if (bind(fd, (struct sockaddr *)&un, len) ||
	    setsockopt(fd, SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)))
		return close_keeping_errno(fd);
	len = sizeof(un);
	if (getsockname(fd, (struct sockaddr *)&un, &len) || len <= head)
		return close_keeping_errno(fd);
	snprintf(name, BROKER_NOTIFY_NAME, "@%.*s", (int)(len - head), un.sun_path + 1);
	return fd;
}

int broker_local_connect(const char *name)
{
	struct sockaddr_un un;
	socklen_t len;
	int fd = local_socket(name, 0, &un, &len);

	if (fd < 0)
		return -1;
	if (connect(fd, (struct sockaddr *)&un, len))
		return close_keeping_errno(fd);
	return fd;
}

static int act_accept(int listener, struct sockaddr_storage *sa, socklen_t *len)
{
	int fd;

	do {
		*len = sizeof(*sa);
		fd = accept4(listener, (struct sockaddr *)sa, len, SOCK_CLOEXEC | SOCK_NONBLOCK);
	} while (fd < 0 && errno == EINTR);
	return fd;
}

/* ---- children ---- */

static void close_from_to(unsigned first, unsigned last)
{
	struct rlimit lim;

	if (first > last || !syscall(SYS_close_range, first, last, 0))
		return;
	/* A kernel before 5.9. Reading /proc/self/fd would allocate, which a child must not. */
	if (getrlimit(RLIMIT_NOFILE, &lim) || lim.rlim_cur > last)
		lim.rlim_cur = last;
	for (unsigned fd = first; fd <= lim.rlim_cur; fd++)
		close((int)fd);
}

void broker_close_but(unsigned first, const int *keep, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		if (keep[i] < (int)first)
			continue;
		close_from_to(first, (unsigned)keep[i] - 1);
		first = (unsigned)keep[i] + 1;
	}
	close_from_to(first, ~0U);
}

/* Only calls that are safe between fork and exec in a process with threads. */
static int child_prepare(const int fds[3], enum spawn_group group, int report)
{
	struct sigaction dfl = { .sa_handler = SIG_DFL };
	sigset_t none;
	int from[3];

	if (group == SPAWN_SESSION ? setsid() < 0 : setpgid(0, 0) < 0)
		return -1;
	/* First out of the way of 0, 1, 2: a source may be another one's target. */
	for (int i = 0; i < 3; i++) {
		from[i] = fds[i] < 0 ? -1 : fcntl(fds[i], F_DUPFD_CLOEXEC, 3);
		if (fds[i] >= 0 && from[i] < 0)
			return -1;
	}
	for (int i = 0; i < 3; i++)
		if (from[i] >= 0 && dup2(from[i], i) < 0)
			return -1;
	broker_close_but(3, &report, 1);
	for (int sig = 1; sig < NSIG; sig++)
		sigaction(sig, &dfl, NULL); /* fails for SIGKILL, SIGSTOP and libc's own */
	sigemptyset(&none);
	return sigprocmask(SIG_SETMASK, &none, NULL);
}

static _Noreturn void child(char *const argv[], const int fds[3], enum spawn_group group,
			    int report)
{
	int e;
	int high = fcntl(report, F_DUPFD_CLOEXEC, 3);

	if (high >= 0 && child_prepare(fds, group, high) == 0)
		execvp(argv[0], argv);
	e = errno;
	if (write(high >= 0 ? high : report, &e, sizeof(e)) != sizeof(e))
		_exit(126);
	_exit(127);
}

/* Signals are blocked over the fork: our handlers must not run in the child. */
static pid_t fork_child(char *const argv[], const int fds[3], enum spawn_group group, int report)
{
	sigset_t all, old;
	pid_t pid;
	int e;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	pid = fork();
	if (pid == 0)
		child(argv, fds, group, report);
	e = errno;
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	errno = e;
	return pid;
}

static pid_t act_spawn(char *const argv[], const int fds[3], enum spawn_group group)
{
	int report[2], child_errno, e;
	ssize_t n = 0;
	pid_t pid;

	if (pipe2(report, O_CLOEXEC))
		return -1;
	pid = fork_child(argv, fds, group, report[1]);
	e = errno;
	close(report[1]);
	if (pid > 0) { /* end of file: the exec succeeded and closed it */
		do
			n = read(report[0], &child_errno, sizeof(child_errno));
		while (n < 0 && errno == EINTR);
	}
	close(report[0]);
	if (pid > 0 && n == sizeof(child_errno)) {
		while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
			;
		pid = -1;
		e = child_errno;
	}
	errno = e;
	return pid;
}

static _Noreturn void held_child(char *const argv[], int gate, int report)
{
	static const int ours[3] = { -1, -1, -1 };
	char go;

	if (read(gate, &go, 1) != 1)
		_exit(127);
	child(argv, ours, SPAWN_SESSION, report);
}

pid_t broker_spawn_held(char *const argv[], int *gate, int *report)
{
	int g[2], r[2] = { -1, -1 };
	pid_t pid = -1;

	if (pipe2(g, O_CLOEXEC))
		return -1;
	if (!pipe2(r, O_CLOEXEC))
		pid = fork();
	if (pid == 0) {
		close(g[1]); /* or it would not see that ours is closed */
		held_child(argv, g[0], r[1]);
	}
	close(g[0]);
	if (r[1] >= 0)
		close(r[1]);
	*gate = g[1];
	*report = r[0];
	if (pid > 0)
		return pid;
	close(g[1]);
	if (r[0] >= 0)
		close(r[0]);
	return -1;
}

static int act_child_fd(pid_t pid)
{
	return (int)syscall(SYS_pidfd_open, pid, 0); /* always close-on-exec */
}

static int act_reap(pid_t pid, int *wstatus)
{
	pid_t p;

	do
		p = waitpid(pid, wstatus, WNOHANG);
	while (p < 0 && errno == EINTR);
	return p < 0 ? -1 : p == pid;
}

static int act_stopped(pid_t pid)
{
	siginfo_t si = { 0 };

	if (waitid(P_PID, (id_t)pid, &si, WSTOPPED | WNOHANG | WNOWAIT) || !si.si_pid)
		return 0;
	return si.si_status;
}

static int act_kill(pid_t pid, int sig)
{
	return kill(-pid, sig);
}

pid_t broker_fork(void)
{
	return fork();
}

/* The C library has no word for it that needs no new stack. */
pid_t broker_fork_sharing(void)
{
	return (pid_t)syscall(SYS_clone, CLONE_FILES | SIGCHLD, NULL, NULL, NULL, 0);
}

const struct broker_acts broker_acts = {
	.open = act_open,
	.rename = act_rename,
	.link = act_link,
	.unlink = unlink,
	.mkdir = mkdir,
	.rmdir = rmdir,
	.mark = act_mark,
	.may_write = act_may_write,
	.occupied = act_occupied,
	.resolve = act_resolve,
	.connect = act_connect,
	.listen = act_listen,
	.local_listen = act_local_listen,
	.accept = act_accept,
	.spawn = act_spawn,
	.child_fd = act_child_fd,
	.reap = act_reap,
	.stopped = act_stopped,
	.kill = act_kill,
};
