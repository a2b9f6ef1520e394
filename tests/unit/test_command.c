// SPDX-License-Identifier: GPL-2.0-or-later
#include "test.h"

#include "command.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

/* What a shell script prints that is started with our stdout. */
static char *output_of(const char *script, pid_t *pid)
{
	char sh[] = "sh", c[] = "-c", *text = strdup(script);
	char *const argv[] = { sh, c, text, NULL };
	static char buf[2000];
	int saved = dup(STDOUT_FILENO), p[2];
	struct error e;
	ssize_t n = 0, got;

	fflush(stdout);
	*pid = -1;
	if (pipe2(p, O_CLOEXEC)) {
		free(text);
		return NULL;
	}
	dup2(p[1], STDOUT_FILENO);
	if (command_start(argv, "x.img", pid, &e))
		*pid = -1;
	dup2(saved, STDOUT_FILENO);
	close(saved);
	close(p[1]);
	while ((got = read(p[0], buf + n, sizeof(buf) - 1 - (size_t)n)) > 0)
		n += got;
	buf[n] = '\0';
	close(p[0]);
	free(text);
	return buf;
}

static void it_has_our_stdio_and_its_own_session(void)
{
	static const char script[] = "read -r _ _ _ _ _ sid _ </proc/self/stat; echo $$ $sid";
	long self = 0, sid = 0;
	int status;
	char *out;
	pid_t pid;

	out = output_of(script, &pid);
	REQUIRE(pid > 0 && out != NULL);
	CHECK(sscanf(out, "%ld %ld", &self, &sid) == 2);
	CHECK(self == pid && sid == pid && sid != getsid(0));
	CHECK(waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void its_signals_are_as_new(void)
{
	/* SIGPIPE ignored and SIGTERM blocked here must not be so there. Signals 32 and 33 are
	 * libc's own: whoever was started by posix_spawn, as by make, ignores them. */
	static const char script[] = "grep -E '^Sig(Blk|Ign)' /proc/self/status |"
				     " sed -E 's/[01][08]0{7}$/000000000/'";
	sigset_t set, old;
	pid_t pid;
	char *out;

	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigprocmask(SIG_BLOCK, &set, &old);
	out = output_of(script, &pid);
	sigprocmask(SIG_SETMASK, &old, NULL);
	signal(SIGPIPE, SIG_DFL);
	REQUIRE(pid > 0);
	CHECK_STR(out, "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n");
	waitpid(pid, NULL, 0);
}

static void other_descriptors_stay_here(void)
{
	static const char script[] = "[ ! -e /proc/self/fd/77 ]; echo $?";
	int null = open("/dev/null", O_RDONLY); /* not close-on-exec, on purpose */
	pid_t pid;

	REQUIRE(null >= 0 && dup2(null, 77) == 77);
	CHECK_STR(output_of(script, &pid), "0\n");
	waitpid(pid, NULL, 0);
	close(77);
	close(null);
}

static void what_cannot_start_leaves_the_image(void)
{
	char absent[] = "/nonexistent/vmm", device[] = "/dev/null";
	char *const none[] = { absent, NULL }, *const data[] = { device, NULL };
	struct error e;
	pid_t pid;

	CHECK(command_start(none, "x.img", &pid, &e) == -1 && e.status == ST_COMMAND);
	CHECK_STR(e.msg, "cannot start the command '/nonexistent/vmm': No such file or directory");
	CHECK(strstr(e.hint, "x.img") != NULL);
	CHECK(command_start(data, "x.img", NULL, &e) == -1);
	CHECK(strstr(e.msg, "Permission denied") != NULL);
}

static void who_does_not_ask_gets_no_pid(void)
{
	char name[] = "true";
	char *const argv[] = { name, NULL };
	struct error e;

	CHECK(command_start(argv, "x.img", NULL, &e) == 0);
	CHECK(wait(NULL) > 0);
}

static const struct test_case cases[] = {
	{ "it has our stdio and a session of its own", it_has_our_stdio_and_its_own_session },
	{ "its signals are as new", its_signals_are_as_new },
	{ "other descriptors stay here", other_descriptors_stay_here },
	{ "who does not ask gets no pid", who_does_not_ask_gets_no_pid },
	{ "what cannot start is told, and the image stays", what_cannot_start_leaves_the_image },
};
TEST_MAIN(cases)
