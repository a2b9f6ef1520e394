// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What the worker gives up, in this order:
 *
 * - descriptors that it inherited and does not need;
 * - core dumps, and being looked into (PR_SET_DUMPABLE): it holds a guest's memory, perhaps keys;
 * - all capabilities, from the bounding set too, and gaining any by exec (no-new-privs);
 * - landlock without any rule: no path can be opened, made, removed or renamed, no TCP port bound
 *   or connected to, no process outside signalled, as far as this kernel's landlock goes. Before
 *   Linux 5.13, or where it is switched off, there is none: then only the next stands there. That
 *   alone denies the same things; landlock is the second lock on the same doors;
 * - seccomp, an allow-list: a call that is not on it is not made.
 *
 * What the filter lets through was judged by what a taken-over worker could do with it, arguments
 * included. Some are less obvious than open: F_SETOWN with F_SETSIG signals any process of ours, so
 * fcntl has a list; TIOCSTI types into the terminal, so has ioctl; MSG_FASTOPEN connects a socket
 * whose connection failed to anywhere; a pair of datagram sockets sends to any socket that has a
 * name, /dev/log's and a service manager's; fchmod could make IMAGE a set-user-id program, or its
 * directory everybody's; clone3 has its flags in memory, where a filter cannot look, so it does not
 * exist (ENOSYS) and libc falls back to clone.
 *
 * Every other call traps (SECCOMP_RET_TRAP): it is not carried out, and our handler for SIGSYS,
 * which the filter does not let anybody replace, decides how loudly. What libc and other libraries
 * merely try (a locale file, isatty) fails with EPERM. fstatat of an open descriptor, which is how
 * libc makes fstat, is done as fstat: the filter cannot see that its path is empty. Anything else
 * ends the program with ST_SANDBOX, and the broker names the call. Where SIGSYS is blocked the
 * kernel kills the process.
 *
 * Sanitizers need more: they open files in /proc and for their reports, and the leak check stops
 * our threads by ptrace from a process of its own. That is allowed in their builds alone.
 */
#include "sandbox.h"

#include "broker.h"
#include "log.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/fs.h>
#include <linux/landlock.h>
#include <linux/userfaultfd.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#ifndef MIGTOOL_SANITIZED
#define MIGTOOL_SANITIZED 0
#endif

#define INT_MASK       0xffffffffu /* an int's bits in a register */
#define SOCK_TYPE_MASK 0xfu	   /* the rest are flags */

static const char how_to_do_without[] = "--no-sandbox runs without it, which is for peers that "
					"you trust";

static int missing(struct error *err, int errnum, const char *what)
{
	err_sys(err, ST_UNSUPPORTED, errnum, "the sandbox cannot be set up: %s", what);
	return err_hint(err, "%s", how_to_do_without);
}

/* ---- descriptors, limits, capabilities ---- */

static bool is_kept(int fd, const int *keep, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		if (keep[i] == fd)
			return true;
	return false;
}

void sandbox_close_inherited(const int *keep, unsigned n)
{
	int dir = broker_open("/proc/self/fd", O_RDONLY | O_DIRECTORY, 0);
	DIR *d = dir < 0 ? NULL : fdopendir(dir);
	struct dirent *e;

	/* without /proc they stay open, which matters little: they were given to us */
	while (d && (e = readdir(d))) {
		int fd = atoi(e->d_name), flags = fcntl(fd, F_GETFD);

		/* ours are all close-on-exec */
		if (fd > 2 && fd != dir && flags >= 0 && !(flags & FD_CLOEXEC) &&
		    !is_kept(fd, keep, n))
			close(fd);
	}
	if (d)
		closedir(d);
	else if (dir >= 0)
		close(dir);
}

static void drop_limits(void)
{
	struct rlimit none = { 0, 0 }, all = { RLIM_INFINITY, RLIM_INFINITY };

	setrlimit(RLIMIT_CORE, &none);
	/* zero-copy sends pin pages: what CAP_IPC_LOCK allows goes with it */
	setrlimit(RLIMIT_MEMLOCK, &all);
	if (!MIGTOOL_SANITIZED)
		prctl(PR_SET_DUMPABLE, 0);
}

static int drop_capabilities(struct error *err)
{
	struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct none[2] = { 0 };

	/* ends at the first that the kernel does not know; without CAP_SETPCAP there are none */
	for (unsigned long cap = 0; !prctl(PR_CAPBSET_DROP, cap, 0, 0, 0); cap++)
		;
	prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
	if (syscall(SYS_capset, &head, none))
		return missing(err, errno, "cannot drop capabilities");
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		return missing(err, errno, "this kernel has no no-new-privs");
	return 0;
}

/* ---- landlock ---- */

/* The headers of a current kernel's; 6.1's have only the first. */
struct ruleset {
	uint64_t fs, net, scoped;
};

static int confine_paths(struct error *err)
{
	long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
	/* by the version that brought the last of them; the first had 13 rights */
	unsigned bits = abi >= 5 ? 16 : abi >= 3 ? 15 : abi >= 2 ? 14 : 13;
	struct ruleset rules = { (UINT64_C(1) << bits) - 1, 3, 3 };
	size_t len = abi >= 6 ? 24 : abi >= 4 ? 16 : 8;
	int fd;

	if (abi < 0 && (errno == ENOSYS || errno == EOPNOTSUPP)) {
		log_verbose("this kernel has no landlock: the sandbox is seccomp's alone");
		return 0;
	}
	if (MIGTOOL_SANITIZED)
		return 0;
	fd = abi < 1 ? -1 : (int)syscall(SYS_landlock_create_ruleset, &rules, len, 0);
	if (fd < 0 || syscall(SYS_landlock_restrict_self, fd, 0))
		return missing(err, errno, "landlock fails");
	close(fd);
	return 0;
}

/* ---- the filter's calls ---- */

/* Harmless whatever their arguments are, on descriptors that we have. */
static const int plain[] = {
	/* bytes */
	SCMP_SYS(read),
	SCMP_SYS(readv),
	SCMP_SYS(pread64),
	SCMP_SYS(preadv),
	SCMP_SYS(preadv2),
	SCMP_SYS(write),
	SCMP_SYS(writev),
	SCMP_SYS(pwrite64),
	SCMP_SYS(pwritev),
	SCMP_SYS(pwritev2),
	SCMP_SYS(recvfrom),
	SCMP_SYS(recvmsg),
	SCMP_SYS(recvmmsg),
	SCMP_SYS(sendfile),
	SCMP_SYS(splice),
	SCMP_SYS(tee),
	SCMP_SYS(vmsplice),
	SCMP_SYS(copy_file_range),
	/* files */
	SCMP_SYS(close),
	SCMP_SYS(close_range),
	SCMP_SYS(lseek),
	SCMP_SYS(fstat),
	SCMP_SYS(fstatfs),
	SCMP_SYS(fsync),
	SCMP_SYS(fdatasync),
	SCMP_SYS(sync_file_range),
	SCMP_SYS(ftruncate),
	SCMP_SYS(fallocate),
	SCMP_SYS(fadvise64),
	SCMP_SYS(readahead),
	SCMP_SYS(flock),
	SCMP_SYS(getdents64),
	SCMP_SYS(dup),
	SCMP_SYS(dup2),
	SCMP_SYS(dup3),
	SCMP_SYS(pipe),
	SCMP_SYS(pipe2),
	SCMP_SYS(eventfd2),
	SCMP_SYS(signalfd4),
	SCMP_SYS(memfd_create),
	SCMP_SYS(timerfd_create),
	SCMP_SYS(timerfd_settime),
	SCMP_SYS(timerfd_gettime),
	/* sockets */
	SCMP_SYS(shutdown),
	SCMP_SYS(getsockopt),
	SCMP_SYS(getsockname),
	SCMP_SYS(getpeername),
	/* waiting */
	SCMP_SYS(poll),
	SCMP_SYS(ppoll),
	SCMP_SYS(select),
	SCMP_SYS(pselect6),
	SCMP_SYS(epoll_create1),
	SCMP_SYS(epoll_ctl),
	SCMP_SYS(epoll_wait),
	SCMP_SYS(epoll_pwait),
	SCMP_SYS(futex),
	SCMP_SYS(nanosleep),
	SCMP_SYS(clock_nanosleep),
	SCMP_SYS(sched_yield),
	SCMP_SYS(restart_syscall),
	SCMP_SYS(wait4),
	/* memory; nothing executable, see below */
	SCMP_SYS(brk),
	SCMP_SYS(munmap),
	SCMP_SYS(mremap),
	SCMP_SYS(madvise),
	SCMP_SYS(mincore),
	SCMP_SYS(msync),
	SCMP_SYS(mlock),
	SCMP_SYS(mlock2),
	SCMP_SYS(munlock),
	/* threads, signals, the end */
	SCMP_SYS(set_robust_list),
	SCMP_SYS(rseq),
	SCMP_SYS(set_tid_address),
	SCMP_SYS(membarrier),
	SCMP_SYS(sched_getaffinity),
	SCMP_SYS(getpriority),
	SCMP_SYS(getcpu),
	SCMP_SYS(rt_sigprocmask),
	SCMP_SYS(rt_sigreturn),
	SCMP_SYS(rt_sigtimedwait),
	SCMP_SYS(rt_sigpending),
	SCMP_SYS(sigaltstack),
	SCMP_SYS(exit),
	SCMP_SYS(exit_group),
	/* knowing */
	SCMP_SYS(clock_gettime),
	SCMP_SYS(clock_getres),
	SCMP_SYS(gettimeofday),
	SCMP_SYS(time),
	SCMP_SYS(times),
	SCMP_SYS(getrandom),
	SCMP_SYS(getpid),
	SCMP_SYS(getppid),
	SCMP_SYS(gettid),
	SCMP_SYS(getuid),
	SCMP_SYS(geteuid),
	SCMP_SYS(getgid),
	SCMP_SYS(getegid),
	SCMP_SYS(getrusage),
	SCMP_SYS(getrlimit),
	SCMP_SYS(sysinfo),
	SCMP_SYS(uname),
#if MIGTOOL_SANITIZED
	SCMP_SYS(open),
	SCMP_SYS(openat),
	SCMP_SYS(stat),
	SCMP_SYS(lstat),
	SCMP_SYS(getdents),
	SCMP_SYS(access),
	SCMP_SYS(ptrace),
	SCMP_SYS(clone),
	SCMP_SYS(fork),
	SCMP_SYS(readlink),
	SCMP_SYS(readlinkat),
	SCMP_SYS(newfstatat),
	SCMP_SYS(mmap),
	SCMP_SYS(mprotect),
	SCMP_SYS(prctl),
	SCMP_SYS(prlimit64),
	SCMP_SYS(tgkill),
	SCMP_SYS(kill),
	SCMP_SYS(process_vm_readv),
	SCMP_SYS(personality),
#endif
};

/* Argument `arg` of `nr` has to be one of these. */
static const struct {
	int nr;
	unsigned arg;
	unsigned value;
} listed[] = {
	{ SCMP_SYS(fcntl), 1, F_DUPFD },
	{ SCMP_SYS(fcntl), 1, F_DUPFD_CLOEXEC },
	{ SCMP_SYS(fcntl), 1, F_GETFD },
	{ SCMP_SYS(fcntl), 1, F_SETFD },
	{ SCMP_SYS(fcntl), 1, F_GETFL },
	{ SCMP_SYS(fcntl), 1, F_SETFL },
	{ SCMP_SYS(fcntl), 1, F_GETPIPE_SZ },
	{ SCMP_SYS(fcntl), 1, F_SETPIPE_SZ },
	{ SCMP_SYS(ioctl), 1, FICLONE },
	{ SCMP_SYS(ioctl), 1, FICLONERANGE },
	{ SCMP_SYS(ioctl), 1, BLKGETSIZE64 },
	{ SCMP_SYS(ioctl), 1, BLKZEROOUT },
	{ SCMP_SYS(ioctl), 1, BLKSSZGET },
	{ SCMP_SYS(ioctl), 1, FIONREAD },
	{ SCMP_SYS(ioctl), 1, FIONBIO },
	{ SCMP_SYS(ioctl), 1, TIOCOUTQ },
	{ SCMP_SYS(ioctl), 1, TIOCGWINSZ },
	/* a passphrase is asked for on the terminal */
	{ SCMP_SYS(ioctl), 1, TCGETS },
	{ SCMP_SYS(ioctl), 1, TCSETS },
	{ SCMP_SYS(ioctl), 1, TCSETSW },
	{ SCMP_SYS(ioctl), 1, TCSETSF },
	/* a guest's faults; making a userfaultfd is not on the list */
	{ SCMP_SYS(ioctl), 1, UFFDIO_COPY },
	{ SCMP_SYS(ioctl), 1, UFFDIO_ZEROPAGE },
	{ SCMP_SYS(ioctl), 1, UFFDIO_WAKE },
	{ SCMP_SYS(ioctl), 1, UFFDIO_UNREGISTER },
	{ SCMP_SYS(prctl), 0, PR_SET_NAME },
	{ SCMP_SYS(prctl), 0, PR_GET_NAME },
	{ SCMP_SYS(prctl), 0, PR_GET_DUMPABLE },
};

/* Options that change nothing but the speed and the patience of our own connections. */
static const struct {
	int level, option;
} options[] = {
	{ SOL_SOCKET, SO_KEEPALIVE },	 { SOL_SOCKET, SO_ZEROCOPY },
	{ SOL_SOCKET, SO_RCVBUF },	 { SOL_SOCKET, SO_SNDBUF },
	{ SOL_SOCKET, SO_RCVLOWAT },	 { SOL_SOCKET, SO_LINGER },
	{ SOL_SOCKET, SO_RCVTIMEO },	 { SOL_SOCKET, SO_SNDTIMEO },
	{ SOL_SOCKET, SO_BUSY_POLL },	 { SOL_SOCKET, SO_INCOMING_CPU },
	{ IPPROTO_TCP, TCP_NODELAY },	 { IPPROTO_TCP, TCP_CORK },
	{ IPPROTO_TCP, TCP_KEEPIDLE },	 { IPPROTO_TCP, TCP_KEEPINTVL },
	{ IPPROTO_TCP, TCP_KEEPCNT },	 { IPPROTO_TCP, TCP_USER_TIMEOUT },
	{ IPPROTO_TCP, TCP_QUICKACK },	 { IPPROTO_TCP, TCP_NOTSENT_LOWAT },
	{ IPPROTO_TCP, TCP_CONGESTION }, { IPPROTO_TCP, TCP_WINDOW_CLAMP },
};

/* What libraries try, and can do without: EPERM, and no alarm. */
static bool is_probe(int nr)
{
	switch (nr) {
#ifdef SYS_open
	case SYS_open:
	case SYS_access:
	case SYS_readlink:
	case SYS_stat:
	case SYS_lstat:
#endif
	case SYS_openat:
	case SYS_faccessat:
#ifdef SYS_faccessat2
	case SYS_faccessat2:
#endif
	case SYS_readlinkat:
	case SYS_newfstatat:
	case SYS_statx:
	case SYS_statfs:
	case SYS_getcwd:
	case SYS_ioctl:
	case SYS_fcntl:
	case SYS_setsockopt:
	case SYS_prctl:
	case SYS_prlimit64:
	case SYS_mlockall:
	case SYS_sched_setaffinity:
		return true;
	}
	return false;
}

/* ---- building the filter ---- */

static int allow_plain(scmp_filter_ctx f)
{
	int rc = 0;

	for (size_t i = 0; !rc && i < sizeof(plain) / sizeof(plain[0]); i++)
		rc = seccomp_rule_add(f, SCMP_ACT_ALLOW, plain[i], 0);
	return rc;
}

static bool is_plain(int nr)
{
	for (size_t i = 0; i < sizeof(plain) / sizeof(plain[0]); i++)
		if (plain[i] == nr)
			return true;
	return false;
}

/* One more way in which a call is allowed; n conditions have to hold. */
static int allow(scmp_filter_ctx f, int nr, unsigned n, struct scmp_arg_cmp a,
		 struct scmp_arg_cmp b)
{
	struct scmp_arg_cmp both[2] = { a, b };

	return is_plain(nr) ? 0 : seccomp_rule_add_array(f, SCMP_ACT_ALLOW, nr, n, both);
}

static struct scmp_arg_cmp masked(unsigned arg, uint64_t mask, uint64_t value)
{
	return (struct scmp_arg_cmp){ arg, SCMP_CMP_MASKED_EQ, mask, value };
}

static struct scmp_arg_cmp equal(unsigned arg, unsigned value)
{
	return masked(arg, INT_MASK, value);
}

static int allow_listed(scmp_filter_ctx f)
{
	struct scmp_arg_cmp none = { 0 };
	int rc = 0;

	for (size_t i = 0; !rc && i < sizeof(listed) / sizeof(listed[0]); i++)
		rc = allow(f, listed[i].nr, 1, equal(listed[i].arg, listed[i].value), none);
	for (size_t i = 0; !rc && i < sizeof(options) / sizeof(options[0]); i++)
		rc = allow(f, SCMP_SYS(setsockopt), 2, equal(1, (unsigned)options[i].level),
			   equal(2, (unsigned)options[i].option));
	return rc;
}

/*
 * A handler for any signal but SIGSYS. Only the low half of a register is the number, and there is
 * no "unequal" of a half: so every bit in which it may differ is a way of its own.
 */
static int allow_handlers(scmp_filter_ctx f)
{
	struct scmp_arg_cmp none = { 0 };
	int rc = 0;

	for (unsigned bit = 1; !rc && bit < _NSIG; bit <<= 1)
		rc = allow(f, SCMP_SYS(rt_sigaction), 1, masked(0, bit, ~(unsigned)SIGSYS & bit),
			   none);
	return rc;
}

static int allow_checked(scmp_filter_ctx f)
{
	/* those that are connected to each other for good */
	static const unsigned pairs[] = { SOCK_STREAM, SOCK_SEQPACKET };
	const uint64_t thread = CLONE_THREAD | CLONE_VM | CLONE_SIGHAND;
	const uint64_t spaces = CLONE_NEWNS | CLONE_NEWUSER | CLONE_NEWNET | CLONE_NEWPID |
				CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP;
	unsigned self = (unsigned)getpid();
	struct scmp_arg_cmp none = { 0 };
	int rc = seccomp_rule_add(f, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);

	rc = rc ? rc : allow(f, SCMP_SYS(clone), 1, masked(0, thread | spaces, thread), none);
	rc = rc ? rc : allow(f, SCMP_SYS(mmap), 1, masked(2, PROT_EXEC, 0), none);
	rc = rc ? rc : allow(f, SCMP_SYS(mprotect), 1, masked(2, PROT_EXEC, 0), none);
	rc = rc ? rc : allow(f, SCMP_SYS(sendto), 1, masked(3, MSG_FASTOPEN, 0), none);
	rc = rc ? rc : allow(f, SCMP_SYS(sendmsg), 1, masked(2, MSG_FASTOPEN, 0), none);
	rc = rc ? rc : allow(f, SCMP_SYS(kill), 1, equal(0, self), none);
	rc = rc ? rc : allow(f, SCMP_SYS(tgkill), 1, equal(0, self), none);
	/* the calling thread's own */
	rc = rc ? rc : allow(f, SCMP_SYS(setpriority), 2, equal(0, PRIO_PROCESS), equal(1, 0));
	/* our own memory, where a copy that faults is an error and no signal */
	rc = rc ? rc : allow(f, SCMP_SYS(process_vm_writev), 1, equal(0, self), none);
	rc = rc ? rc : allow(f, SCMP_SYS(prlimit64), 2, equal(0, 0), masked(2, UINT64_MAX, 0));
	for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++)
		rc = rc ? rc
			: allow(f, SCMP_SYS(socketpair), 2, equal(0, AF_UNIX),
				masked(1, SOCK_TYPE_MASK, pairs[i]));
	return rc ? rc : allow_handlers(f);
}

static int build(scmp_filter_ctx *out)
{
	scmp_filter_ctx f = seccomp_init(SCMP_ACT_TRAP);
	int rc = f ? 0 : -ENOMEM;

	*out = f;
	/* a tree instead of a chain: the page path's calls meet few comparisons */
	if (!rc)
		rc = seccomp_attr_set(f, SCMP_FLTATR_CTL_OPTIMIZE, 2);
	if (!rc)
		rc = allow_plain(f);
	if (!rc)
		rc = allow_listed(f);
	if (!rc)
		rc = allow_checked(f);
	return rc;
}

static int confine_calls(struct error *err)
{
	scmp_filter_ctx f = NULL;
	int rc = build(&f);

	if (!rc)
		rc = seccomp_load(f);
	if (f)
		seccomp_release(f);
	if (rc == -ENOMEM)
		return err_sys(err, ST_NOMEM, ENOMEM, "the sandbox cannot be set up");
	return rc ? missing(err, -rc, "this kernel takes no seccomp filter (CONFIG_SECCOMP_FILTER)")
		  : 0;
}

/* ---- the call that trapped ---- */

static long argument(const ucontext_t *uc, int n)
{
#if defined(__x86_64__)
	static const int at[] = { REG_RDI, REG_RSI, REG_RDX, REG_R10 };

	return (long)uc->uc_mcontext.gregs[at[n]];
#elif defined(__aarch64__)
	return (long)uc->uc_mcontext.regs[n];
#else
#error "how does a system call take its arguments here?"
#endif
}

static void set_result(ucontext_t *uc, long result)
{
#if defined(__x86_64__)
	uc->uc_mcontext.gregs[REG_RAX] = result;
#elif defined(__aarch64__)
	uc->uc_mcontext.regs[0] = (unsigned long long)result;
#endif
}

/* fstatat(fd, "", st, AT_EMPTY_PATH) */
static bool is_fstat(int nr, const ucontext_t *uc)
{
	return nr == SYS_newfstatat && (argument(uc, 3) & AT_EMPTY_PATH) &&
	       !*(const char *)argument(uc, 1);
}

static void on_trap(int sig, siginfo_t *si, void *context)
{
	ucontext_t *uc = context;
	int saved = errno;
	long rc;

	(void)sig;
	if (si->si_code <= 0) /* somebody's kill(), no system call */
		return;
	if (is_fstat(si->si_syscall, uc)) {
		rc = syscall(SYS_fstat, (int)argument(uc, 0), argument(uc, 2));
		set_result(uc, rc ? -errno : 0);
	} else if (is_probe(si->si_syscall)) {
		set_result(uc, -EPERM);
	} else {
		broker_report_violation(si->si_syscall);
		syscall(SYS_exit_group, ST_SANDBOX);
	}
	errno = saved;
}

static int catch_traps(struct error *err)
{
	struct sigaction sa = { .sa_flags = SA_SIGINFO | SA_RESTART };
	sigset_t set;

	sa.sa_sigaction = on_trap;
	sigemptyset(&set);
	sigaddset(&set, SIGSYS);
	if (sigaction(SIGSYS, &sa, NULL) || sigprocmask(SIG_UNBLOCK, &set, NULL))
		return missing(err, errno, "cannot catch SIGSYS");
	return 0;
}

int sandbox_enter(struct error *err)
{
	drop_limits();
	if (drop_capabilities(err) || confine_paths(err) || catch_traps(err))
		return -1;
	return confine_calls(err);
}

char *sandbox_syscall_name(int number)
{
	return seccomp_syscall_resolve_num_arch(SCMP_ARCH_NATIVE, number);
}
