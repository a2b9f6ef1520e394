// SPDX-License-Identifier: GPL-2.0-or-later
#include "test.h"

#include "broker.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char dir[] = "/tmp/test_broker.XXXXXX";

/* Waits for the child without a limit: a hang is the runner's to see. */
static int wait_status(pid_t pid)
{
	int fd = broker_child_fd(pid), status = -1;
	struct pollfd p = { .fd = fd, .events = POLLIN };

	while (poll(&p, 1, -1) < 0 && errno == EINTR)
		;
	close(fd);
	return broker_reap(pid, &status) == 1 ? status : -1;
}

/* Runs a shell command with its output into a pipe and returns what it printed. */
static const char *shell_output(const char *command, enum spawn_group group)
{
	char *argv[] = { (char *)"sh", (char *)"-c", (char *)command, NULL };
	static char out[4096];
	size_t len = 0;
	ssize_t n;
	int p[2];
	pid_t pid;

	out[0] = '\0';
	if (pipe2(p, O_CLOEXEC))
		return "no pipe";
	pid = broker_spawn(argv, (int[3]){ -1, p[1], -1 }, group);
	close(p[1]);
	while (pid > 0 && (n = read(p[0], out + len, sizeof(out) - 1 - len)) > 0)
		len += (size_t)n;
	close(p[0]);
	out[len] = '\0';
	return pid > 0 && wait_status(pid) == 0 ? out : "failed";
}

static void descriptors_are_close_on_exec(void)
{
	char path[64], other[64];
	int fd, pair[2];

	snprintf(path, sizeof(path), "%s/a", dir);
	snprintf(other, sizeof(other), "%s/b", dir);
	fd = broker_open(path, O_CREAT | O_WRONLY, 0600);
	REQUIRE(fd >= 0);
	CHECK(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	close(fd);
	CHECK(broker_open("/nonexistent/x", O_RDONLY, 0) == -1 && errno == ENOENT);
	CHECK(broker_rename(path, other, RENAME_NOREPLACE) == 0 && access(other, F_OK) == 0);
	CHECK(broker_unlink(other) == 0 && access(other, F_OK) == -1);
	CHECK(broker_mkdir(path, 0700) == 0 && broker_mkdir(path, 0700) == -1);
	CHECK(broker_rmdir(path) == 0);
	REQUIRE(broker_socketpair(pair) == 0);
	CHECK(fcntl(pair[0], F_GETFD) & FD_CLOEXEC && fcntl(pair[1], F_GETFD) & FD_CLOEXEC);
	close(pair[0]);
	close(pair[1]);
}

static void listening_anywhere_takes_both_families(void)
{
	struct broker_addr a[4];
	struct sockaddr_in6 v6;
	struct sockaddr_in v4 = { .sin_family = AF_INET };
	socklen_t len = sizeof(v6);
	struct sockaddr_storage from;
	int l, c, s;
	struct pollfd p;

	REQUIRE(broker_resolve("", 0, true, NULL, a, 4) == 2);
	REQUIRE(a[0].sa.ss_family == AF_INET6 && a[1].sa.ss_family == AF_INET);
	l = broker_socket_listen((struct sockaddr *)&a[0].sa, a[0].len, 8);
	if (l < 0 && errno == EAFNOSUPPORT) /* a machine without IPv6 takes the next */
		l = broker_socket_listen((struct sockaddr *)&a[1].sa, a[1].len, 8);
	REQUIRE(l >= 0);
	REQUIRE(getsockname(l, (struct sockaddr *)&v6, &len) == 0); /* the port is in one place */
	v4.sin_port = v6.sin6_port;
	v4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	CHECK(broker_accept(l, &from, &len) == -1 && errno == EAGAIN);
	c = broker_socket_connect((struct sockaddr *)&v4, sizeof(v4));
	REQUIRE(c >= 0);
	p = (struct pollfd){ .fd = l, .events = POLLIN };
	CHECK(poll(&p, 1, 5000) == 1);
	s = broker_accept(l, &from, &len);
	CHECK(s >= 0 && fcntl(s, F_GETFL) & O_NONBLOCK && fcntl(s, F_GETFD) & FD_CLOEXEC);
	close(s);
	close(c);
	close(l);
}

static void hosts_become_addresses(void)
{
	struct broker_addr a[4];

	CHECK(broker_resolve("127.0.0.1", 1, false, NULL, a, 4) == 1 &&
	      a[0].sa.ss_family == AF_INET);
	CHECK(broker_resolve("::1", 1, false, NULL, a, 4) == 1 && a[0].sa.ss_family == AF_INET6);
	CHECK(broker_resolve("", 1, false, NULL, a, 4) >= 1);
	CHECK(broker_resolve("256.1.1.1.invalid", 1, false, NULL, a, 4) < 0);
}

static void a_child_has_only_its_three_descriptors(void)
{
	int extra = open("/dev/null", O_RDONLY); /* not close-on-exec, as one that we inherited */
	const char *out = shell_output("for i in 3 4 5 6 7 8 9; do"
				       " [ -e /proc/self/fd/$i ] && echo $i; done; echo end",
				       SPAWN_GROUP);

	CHECK(extra >= 3);
	CHECK_STR(out, "end\n");
	close(extra);
}

static void a_child_has_its_own_group_or_session(void)
{
	const char *field = "set -- $(cat /proc/$$/stat); echo $(($1 == $5)) $(($1 == $6))";

	CHECK_STR(shell_output(field, SPAWN_GROUP), "1 0\n");
	CHECK_STR(shell_output(field, SPAWN_SESSION), "1 1\n");
}

static void a_child_has_default_signals(void)
{
	sigset_t set, old;
	const char *out;

	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigprocmask(SIG_BLOCK, &set, &old);
	/* Signals 32 and 33 are libc's own: whoever was started by posix_spawn, as by make, ignores
	 * them. */
	out = shell_output("exec grep -cE 'Sig(Blk|Ign):.0{7}[01][08]0{7}' /proc/self/status",
			   SPAWN_GROUP);
	CHECK_STR(out, "2\n");
	sigprocmask(SIG_SETMASK, &old, &set);
	CHECK(sigismember(&set, SIGUSR1)); /* ours are as they were */
}

static void descriptors_may_be_given_in_any_order(void)
{
	char *argv[] = { (char *)"sh", (char *)"-c", (char *)"echo out; echo err >&2", NULL };
	int keep1 = dup(1), keep2 = dup(2), a[2], b[2];
	char got_a[16] = "", got_b[16] = "";
	pid_t pid;

	REQUIRE(pipe2(a, O_CLOEXEC) == 0 && pipe2(b, O_CLOEXEC) == 0);
	fflush(stdout);
	dup2(a[1], 1);
	dup2(b[1], 2);
	pid = broker_spawn(argv, (int[3]){ -1, 2, 1 }, SPAWN_GROUP); /* crossed */
	dup2(keep1, 1);
	dup2(keep2, 2);
	REQUIRE(pid > 0 && wait_status(pid) == 0);
	CHECK(read(a[0], got_a, sizeof(got_a) - 1) == 4);
	CHECK(read(b[0], got_b, sizeof(got_b) - 1) == 4);
	CHECK_STR(got_a, "err\n");
	CHECK_STR(got_b, "out\n");
	for (int i = 0; i < 2; i++) {
		close(a[i]);
		close(b[i]);
	}
	close(keep1);
	close(keep2);
}

static void a_command_that_is_none_is_an_errno(void)
{
	char *none[] = { (char *)"/nonexistent/command", NULL };
	char *denied[] = { dir, NULL };
	int fds[3] = { -1, -1, -1 };

	CHECK(broker_spawn(none, fds, SPAWN_SESSION) == -1 && errno == ENOENT);
	CHECK(broker_spawn(denied, fds, SPAWN_GROUP) == -1 && errno == EACCES);
	CHECK(waitpid(-1, NULL, WNOHANG) == -1 && errno == ECHILD);
}

static void a_child_is_waited_for_and_ended_with_its_group(void)
{
	char *argv[] = { (char *)"sh", (char *)"-c",
			 (char *)"echo x; sleep 100 | sleep 100; :", NULL };
	int status = 0, p[2];
	struct pollfd ended;
	char c;
	pid_t pid;

	REQUIRE(pipe2(p, O_CLOEXEC) == 0);
	pid = broker_spawn(argv, (int[3]){ -1, p[1], -1 }, SPAWN_GROUP);
	close(p[1]);
	REQUIRE(pid > 0);
	CHECK(read(p[0], &c, 1) == 1);
	CHECK(broker_reap(pid, &status) == 0);
	CHECK(broker_stopped(pid) == 0);
	CHECK(broker_kill(pid, SIGTSTP) == 0);
	for (int i = 0; i < 500 && !broker_stopped(pid); i++)
		poll(NULL, 0, 10);
	CHECK(broker_stopped(pid) == SIGTSTP);
	CHECK(broker_kill(pid, SIGKILL) == 0);
	status = wait_status(pid);
	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	/* Both sleeps held the pipe's other end. */
	ended = (struct pollfd){ .fd = p[0], .events = POLLIN };
	CHECK(read(p[0], &c, 1) == 1 && c == '\n');
	CHECK(poll(&ended, 1, 5000) == 1 && read(p[0], &c, 1) == 0);
	close(p[0]);
}

static void make_dir(void)
{
	REQUIRE(mkdtemp(dir) != NULL);
}

static void remove_dir(void)
{
	REQUIRE(rmdir(dir) == 0);
}

static const struct test_case cases[] = {
	{ "a directory is there for the cases", make_dir },
	{ "descriptors are close-on-exec", descriptors_are_close_on_exec },
	{ "listening anywhere takes both families", listening_anywhere_takes_both_families },
	{ "hosts become addresses", hosts_become_addresses },
	{ "a child has only its three descriptors", a_child_has_only_its_three_descriptors },
	{ "a child has its own group or session", a_child_has_its_own_group_or_session },
	{ "a child has default signals", a_child_has_default_signals },
	{ "descriptors may be given in any order", descriptors_may_be_given_in_any_order },
	{ "a command that is none is an errno", a_command_that_is_none_is_an_errno },
	{ "a child is waited for and ended with its group",
	  a_child_is_waited_for_and_ended_with_its_group },
	{ "nothing is left behind", remove_dir },
};
TEST_MAIN(cases)
