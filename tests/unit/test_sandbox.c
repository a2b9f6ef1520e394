// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Each case is a child that enters the sandbox and tries one thing. Its exit status says what came
 * of it: carried out, failed with EPERM, or stopped.
 */
#include "test.h"

#include "error.h"
#include "sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { DONE = 0, FAILED = 1, DENIED = 2, NOT_CONFINED = 3 };

/* 0: carried out; -1 with errno. */
typedef long attempt(void);

static int file = -1;	     /* a regular file, open for writing */
static int unconnected = -1; /* a TCP socket */

static int outcome(attempt *try, bool confined)
{
	struct error err;
	int status = 0;
	pid_t pid;

	fflush(stdout);
	pid = fork();
	if (pid == 0) {
		if (confined && sandbox_enter(&err)) {
			printf("# %s\n", err.msg);
			fflush(stdout);
			_exit(NOT_CONFINED);
		}
		if (try() >= 0)
			_exit(DONE);
		_exit(errno == EPERM ? DENIED : FAILED);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		return -1;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

static int in_sandbox(attempt *try)
{
	return outcome(try, true);
}

/* ---- what has to be denied ---- */

static long opens(void)
{
	return open("/etc/passwd", O_RDONLY);
}

static long opens_with_openat2(void)
{
	uint64_t how[3] = { O_RDONLY };

	return syscall(SYS_openat2, AT_FDCWD, "/etc/passwd", how, sizeof(how));
}

static long opens_a_mount(void)
{
	return syscall(SYS_open_tree, AT_FDCWD, "/", 0);
}

static long looks(void)
{
	struct stat st;

	return stat("/etc/passwd", &st);
}

static long makes(void)
{
	return mkdir("/tmp/test_sandbox.x", 0700);
}

static long removes(void)
{
	return unlink("/tmp/test_sandbox.x");
}

static long renames(void)
{
	return rename("/tmp/test_sandbox.x", "/tmp/test_sandbox.y");
}

static long executes(void)
{
	char *argv[] = { (char *)"true", NULL };

	return execv("/bin/true", argv);
}

static long executes_a_descriptor(void)
{
	char *argv[] = { (char *)"true", NULL };

	return syscall(SYS_execveat, file, "", argv, argv + 1, AT_EMPTY_PATH);
}

static long forks(void)
{
	pid_t pid = (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);

	if (pid == 0)
		_exit(0);
	return pid;
}

static long makes_a_socket(void)
{
	return socket(AF_INET, SOCK_STREAM, 0);
}

static long makes_a_pair_of_another_family(void)
{
	int pair[2];

	return socketpair(AF_TIPC, SOCK_STREAM, 0, pair);
}

static long makes_a_pair_that_sends_elsewhere(void)
{
	int pair[2];

	return socketpair(AF_UNIX, SOCK_DGRAM, 0, pair);
}

static struct sockaddr_in elsewhere(void)
{
	struct sockaddr_in sa = { .sin_family = AF_INET, .sin_port = htons(9) };

	sa.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	return sa;
}

static long connects(void)
{
	struct sockaddr_in sa = elsewhere();

	return connect(unconnected, (struct sockaddr *)&sa, sizeof(sa));
}

static long connects_by_sending(void)
{
	struct sockaddr_in sa = elsewhere();

	return sendto(unconnected, "x", 1, MSG_FASTOPEN, (struct sockaddr *)&sa, sizeof(sa));
}

static long connects_by_a_message(void)
{
	struct sockaddr_in sa = elsewhere();
	struct iovec iov = { (void *)"x", 1 };
	struct msghdr m = {
		.msg_name = &sa, .msg_namelen = sizeof(sa), .msg_iov = &iov, .msg_iovlen = 1
	};

	return sendmsg(unconnected, &m, MSG_FASTOPEN);
}

static long binds(void)
{
	struct sockaddr_in sa = elsewhere();

	sa.sin_port = 0;
	return bind(unconnected, (struct sockaddr *)&sa, sizeof(sa));
}

static long listens(void)
{
	return listen(unconnected, 1);
}

static long accepts(void)
{
	return accept(unconnected, NULL, NULL);
}

static long attaches_to_the_parent(void)
{
	return ptrace(PTRACE_ATTACH, getppid(), NULL, NULL);
}

static long writes_the_parents_memory(void)
{
	char byte = 0;
	struct iovec iov = { &byte, 1 };

	return syscall(SYS_process_vm_writev, getppid(), &iov, 1, &iov, 1, 0);
}

static long takes_the_parents_descriptor(void)
{
	return syscall(SYS_pidfd_getfd, 0, 0, 0);
}

static long kills_the_parent(void)
{
	return kill(getppid(), 0);
}

static long kills_everybody(void)
{
	return kill(-1, 0);
}

static long kills_by_a_descriptor(void)
{
	return fcntl(file, F_SETOWN, getppid());
}

static long chooses_the_signal(void)
{
	return fcntl(file, F_SETSIG, SIGKILL);
}

static long types_into_the_terminal(void)
{
	return ioctl(0, TIOCSTI, "x");
}

static long limits_the_parent(void)
{
	struct rlimit lim = { 0, 0 };

	return prlimit(getppid(), RLIMIT_CPU, &lim, NULL);
}

static long sets_up_io_uring(void)
{
	char params[120] = { 0 };

	return syscall(SYS_io_uring_setup, 1, params);
}

static long mounts(void)
{
	return mount("none", "/mnt", "tmpfs", 0, NULL);
}

static long unshares(void)
{
	return unshare(CLONE_NEWUSER);
}

static long loads_a_filter(void)
{
	return syscall(SYS_bpf, 0, NULL, 0);
}

static long counts_events(void)
{
	return syscall(SYS_perf_event_open, NULL, 0, -1, -1, 0);
}

static long faults_for_others(void)
{
	return syscall(SYS_userfaultfd, 0);
}

static long maps_code(void)
{
	return mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) ==
			       MAP_FAILED
		       ? -1
		       : 0;
}

static long makes_code(void)
{
	void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return mprotect(page, 4096, PROT_READ | PROT_EXEC);
}

static long sets_the_user_id_bit(void)
{
	return fchmod(file, 04755);
}

static long opens_it_to_everybody(void)
{
	return fchmod(file, 0777);
}

static long changes_the_owner(void)
{
	return fchown(file, 0, 0);
}

static long becomes_somebody(void)
{
	return setuid(0);
}

static long replaces_the_handler(void)
{
	const struct {
		void (*handler)(int);
		unsigned long rest[3];
	} ignore = { .handler = SIG_IGN };

	/* the kernel's own form: a sanitizer keeps sigaction() to itself */
	return syscall(SYS_rt_sigaction, SIGSYS, &ignore, NULL, 8);
}

/* The kernel takes the low half of the register. */
static long replaces_the_handler_by_a_long_number(void)
{
	static const unsigned long ignore[4] = { (unsigned long)SIG_IGN };

	return syscall(SYS_rt_sigaction, 1ul << 32 | SIGSYS, ignore, NULL, 8);
}

static long drops_its_filter(void)
{
	return prctl(PR_SET_DUMPABLE, 1);
}

static long binds_to_a_device(void)
{
	return setsockopt(unconnected, SOL_SOCKET, SO_BINDTODEVICE, "lo", 2);
}

static long reboots(void)
{
	return syscall(SYS_reboot, 0, 0, 0, NULL);
}

struct denial {
	const char *what;
	attempt *try;
	int how; /* DENIED or ST_SANDBOX */
	bool sanitizers_need_it;
};

static const struct denial denials[] = {
	{ "open", opens, DENIED, true },
	{ "openat2", opens_with_openat2, ST_SANDBOX, false },
	{ "open_tree", opens_a_mount, ST_SANDBOX, false },
	{ "stat", looks, DENIED, true },
	{ "mkdir", makes, ST_SANDBOX, false },
	{ "unlink", removes, ST_SANDBOX, false },
	{ "rename", renames, ST_SANDBOX, false },
	{ "execve", executes, ST_SANDBOX, false },
	{ "execveat", executes_a_descriptor, ST_SANDBOX, false },
	{ "fork", forks, ST_SANDBOX, true },
	{ "socket", makes_a_socket, ST_SANDBOX, false },
	{ "socketpair of another family", makes_a_pair_of_another_family, ST_SANDBOX, false },
	{ "socketpair of datagrams", makes_a_pair_that_sends_elsewhere, ST_SANDBOX, false },
	{ "connect", connects, ST_SANDBOX, false },
	{ "sendto with MSG_FASTOPEN", connects_by_sending, ST_SANDBOX, false },
	{ "sendmsg with MSG_FASTOPEN", connects_by_a_message, ST_SANDBOX, false },
	{ "bind", binds, ST_SANDBOX, false },
	{ "listen", listens, ST_SANDBOX, false },
	{ "accept", accepts, ST_SANDBOX, false },
	{ "ptrace", attaches_to_the_parent, ST_SANDBOX, true },
	{ "process_vm_writev", writes_the_parents_memory, ST_SANDBOX, false },
	{ "pidfd_getfd", takes_the_parents_descriptor, ST_SANDBOX, false },
	{ "kill of the parent", kills_the_parent, ST_SANDBOX, true },
	{ "kill of everybody", kills_everybody, ST_SANDBOX, true },
	{ "F_SETOWN", kills_by_a_descriptor, DENIED, false },
	{ "F_SETSIG", chooses_the_signal, DENIED, false },
	{ "TIOCSTI", types_into_the_terminal, DENIED, false },
	{ "prlimit of the parent", limits_the_parent, DENIED, true },
	{ "io_uring_setup", sets_up_io_uring, ST_SANDBOX, false },
	{ "mount", mounts, ST_SANDBOX, false },
	{ "unshare", unshares, ST_SANDBOX, false },
	{ "bpf", loads_a_filter, ST_SANDBOX, false },
	{ "perf_event_open", counts_events, ST_SANDBOX, false },
	{ "userfaultfd", faults_for_others, ST_SANDBOX, false },
	{ "mmap with PROT_EXEC", maps_code, ST_SANDBOX, true },
	{ "mprotect with PROT_EXEC", makes_code, ST_SANDBOX, true },
	{ "fchmod with a set-user-id bit", sets_the_user_id_bit, ST_SANDBOX, false },
	{ "fchmod", opens_it_to_everybody, ST_SANDBOX, false },
	{ "fchown", changes_the_owner, ST_SANDBOX, false },
	{ "setuid", becomes_somebody, ST_SANDBOX, false },
	{ "sigaction of SIGSYS", replaces_the_handler, ST_SANDBOX, false },
	{ "sigaction of SIGSYS and more", replaces_the_handler_by_a_long_number, ST_SANDBOX,
	  false },
	{ "prctl of PR_SET_DUMPABLE", drops_its_filter, DENIED, true },
	{ "setsockopt of SO_BINDTODEVICE", binds_to_a_device, DENIED, false },
	{ "reboot", reboots, ST_SANDBOX, false },
};

static bool applies(const struct denial *d)
{
#ifdef MIGTOOL_SANITIZED
	return !d->sanitizers_need_it;
#else
	(void)d;
	return true;
#endif
}

static void what_is_forbidden_is_denied(void)
{
	for (size_t i = 0; i < sizeof(denials) / sizeof(denials[0]); i++) {
		const struct denial *d = &denials[i];
		int got = applies(d) ? in_sandbox(d->try) : d->how;

		if (got != d->how)
			printf("# %s: %d, expected %d\n", d->what, got, d->how);
		CHECK(got == d->how);
	}
}

/* Else the case above would prove nothing. */
static void most_of_it_is_possible_outside(void)
{
	static attempt *const possible[] = { opens,
					     looks,
					     executes,
					     forks,
					     makes_a_socket,
					     binds,
					     listens,
					     kills_the_parent,
					     kills_by_a_descriptor,
					     maps_code,
					     makes_code,
					     sets_the_user_id_bit,
					     opens_it_to_everybody,
					     makes_a_pair_that_sends_elsewhere,
					     replaces_the_handler,
					     replaces_the_handler_by_a_long_number };

	for (size_t i = 0; i < sizeof(possible) / sizeof(possible[0]); i++)
		CHECK(outcome(possible[i], false) == DONE);
}

/* ---- what has to be possible ---- */

static void *other_thread(void *arg)
{
	*(long *)arg = open("/etc/passwd", O_RDONLY);
	return arg;
}

static long works(void)
{
	struct pollfd p = { .fd = 0 };
	uint64_t one = 1;
	struct stat st;
	long opened = 0;
	char letter = 'z', copy = 0;
	struct iovec from = { &letter, 1 }, to = { &copy, 1 };
	pthread_t t;
	int pair[2], fd = eventfd(0, EFD_CLOEXEC);

	if (fd < 0 || write(fd, &one, sizeof(one)) != sizeof(one) || poll(&p, 1, 0) < 0)
		return -1;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair) || send(pair[0], "x", 1, 0) != 1)
		return -1;
	if (fstat(file, &st) || !S_ISREG(st.st_mode) || fsync(file))
		return -1;
	if (pwrite(file, "y", 1, 0) != 1 || ftruncate(file, 1) || lseek(file, 0, SEEK_DATA) < 0)
		return -1;
	if (syscall(SYS_process_vm_writev, getpid(), &from, 1, &to, 1, 0) != 1 || copy != 'z')
		return -1;
	for (int sig = 1; sig < 64; sig++)
		if (sig != SIGSYS && signal(sig, SIG_DFL) == SIG_ERR && errno != EINVAL)
			return -1;
	if (raise(0) || isatty(fd) || pthread_create(&t, NULL, other_thread, &opened))
		return -1;
	pthread_join(t, NULL);
#ifdef MIGTOOL_SANITIZED
	opened = -1;
#endif
	return opened < 0 ? 0 : -1; /* threads are in it too */
}

static void what_a_worker_needs_is_possible(void)
{
	CHECK(in_sandbox(works) == DONE);
}

static void capabilities_are_gone(void)
{
	FILE *f;
	char path[64], line[256];
	int p[2], found = 0;
	struct error err;
	pid_t pid;

	REQUIRE(pipe(p) == 0);
	pid = fork();
	if (pid == 0) {
		int bad = sandbox_enter(&err);

		if (write(p[1], "x", 1) != 1 || bad)
			_exit(1);
		for (;;)
			poll(NULL, 0, -1);
	}
	REQUIRE(pid > 0 && read(p[0], line, 1) == 1);
	snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
	f = fopen(path, "r");
	REQUIRE(f != NULL);
	while (fgets(line, sizeof(line), f))
		found += !strcmp(line, "CapEff:\t0000000000000000\n") ||
			 !strcmp(line, "CapPrm:\t0000000000000000\n") ||
			 !strcmp(line, "NoNewPrivs:\t1\n") || !strcmp(line, "Seccomp:\t2\n");
	fclose(f);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	close(p[0]);
	close(p[1]);
	CHECK(found == 4);
}

/* ---- a kernel that cannot ---- */

static long enters_without_seccomp(void)
{
	scmp_filter_ctx f = seccomp_init(SCMP_ACT_ALLOW);
	struct error err = { 0 };

	seccomp_rule_add(f, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(seccomp), 0);
	seccomp_rule_add(f, SCMP_ACT_ERRNO(EINVAL), SCMP_SYS(prctl), 1,
			 SCMP_A0(SCMP_CMP_EQ, PR_SET_SECCOMP, 0));
	if (seccomp_load(f))
		return -1;
	return sandbox_enter(&err) == -1 && err.status == ST_UNSUPPORTED &&
			       strstr(err.msg, "seccomp") && strstr(err.hint, "--no-sandbox")
		       ? 0
		       : -1;
}

static long enters_without_landlock(void)
{
	scmp_filter_ctx f = seccomp_init(SCMP_ACT_ALLOW);
	struct error err = { 0 };

	seccomp_rule_add(f, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(landlock_create_ruleset), 0);
	if (seccomp_load(f) || sandbox_enter(&err))
		return 0;
	return opens_with_openat2();
}

static void without_seccomp_it_refuses_and_says_so(void)
{
	CHECK(outcome(enters_without_seccomp, false) == DONE);
}

static void without_landlock_seccomp_denies_the_same(void)
{
	CHECK(outcome(enters_without_landlock, false) == ST_SANDBOX);
}

static void inherited_descriptors_are_closed(void)
{
	int kept = dup(file), other = dup(file), ours = fcntl(file, F_DUPFD_CLOEXEC, 3);

	REQUIRE(kept >= 0 && other >= 0 && ours >= 0);
	sandbox_close_inherited(&kept, 1);
	CHECK(fcntl(kept, F_GETFD) >= 0 && fcntl(ours, F_GETFD) >= 0);
	CHECK(fcntl(other, F_GETFD) == -1);
	close(kept);
	close(ours);
}

static void set_up(void)
{
	char path[] = "/tmp/test_sandbox.XXXXXX";

	signal(SIGPIPE, SIG_IGN);
	file = mkostemp(path, O_CLOEXEC);
	REQUIRE(file >= 0 && unlink(path) == 0);
	unconnected = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	REQUIRE(unconnected >= 0);
}

static const struct test_case cases[] = {
	{ "a file and a socket are there for the cases", set_up },
	{ "most of it is possible outside", most_of_it_is_possible_outside },
	{ "what is forbidden is denied", what_is_forbidden_is_denied },
	{ "what a worker needs is possible", what_a_worker_needs_is_possible },
	{ "capabilities are gone", capabilities_are_gone },
	{ "without seccomp it refuses and says so", without_seccomp_it_refuses_and_says_so },
	{ "without landlock seccomp denies the same", without_landlock_seccomp_denies_the_same },
	{ "inherited descriptors are closed", inherited_descriptors_are_closed },
};
TEST_MAIN(cases)
