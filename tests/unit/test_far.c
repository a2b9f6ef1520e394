// SPDX-License-Identifier: GPL-2.0-or-later
#include "test.h"

#include "far.h"
#include "options.h"

#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static struct config cfg;
static struct error e;

/* The far command of a line like "send i ssh://h/p"; freed by the next call. */
static const char *far_of(const char *line)
{
	static char *command, copy[512]; /* cfg goes on pointing into it */
	char *rest = copy, *argv[32] = { (char *)"migtool" };
	struct uri u;
	int n = 1;

	free(command);
	command = NULL;
	options_free(&cfg);
	snprintf(copy, sizeof(copy), "%s", line);
	while (rest)
		argv[n++] = strsep(&rest, " ");
	if (options_parse(&cfg, n, argv, &e))
		return e.msg;
	if (uri_parse(&u, cfg.uri, &e))
		return e.msg;
	command =
		far_command(&cfg, &u, cfg.command == CMD_RECV ? ROLE_DESTINATION : ROLE_SOURCE, &e);
	uri_free(&u);
	return command ? command : e.msg;
}

static void a_push_runs_recv_a_pull_runs_send(void)
{
	CHECK_STR(far_of("send i ssh://h/p"), "migtool recv --far -q stdio: /p");
	CHECK_STR(far_of("recv ssh://h/~/p i"), "migtool send --far -q p stdio:");
	CHECK_STR(far_of("send i ssh://h/~/-p"), "migtool recv --far -q stdio: ./-p");
}

static void what_the_far_side_has_to_know_goes_with_it(void)
{
	CHECK_STR(far_of("send -v i ssh://h/p"), "migtool recv --far stdio: /p");
	CHECK_STR(far_of("send -vvv i ssh://h/p"), "migtool recv --far -v -v stdio: /p");
	CHECK_STR(far_of("send -q i ssh://h/p"), "migtool recv --far -q -q stdio: /p");
	CHECK_STR(far_of("send --force --in-place --timeout 7 i ssh://h/p"),
		  "migtool recv --far -q --timeout=7 --force --in-place stdio: /p");
	CHECK_STR(far_of("send --base b i ssh://h/p"), "migtool recv --far -q --delta stdio: /p");
	CHECK_STR(far_of("send --delta --resume i ssh://h/p"),
		  "migtool recv --far -q --resume --delta stdio: /p");
	/* this side's own */
	CHECK_STR(far_of("recv --force --in-place --delta ssh://h/p i"),
		  "migtool send --far -q /p stdio:");
	CHECK_STR(far_of("recv --block-name b --machine m --page-size 8K ssh://h/p i"),
		  "migtool send --far -q --block-name=b --machine=m --page-size=8192 /p stdio:");
	CHECK_STR(far_of("recv --cap multifd --cap events --cap xbzrle=off "
			 "--param multifd-channels=4 --param max-bandwidth=10M ssh://h/p i"),
		  "migtool send --far -q --cap=xbzrle=off --cap=multifd=on "
		  "--param=max-bandwidth=10MiB --param=multifd-channels=4 /p stdio:");
}

static void an_extra_connection_joins_by_its_name(void)
{
	const char *id = "0123456789abcdef0123456789abcdef";
	char *command;

	far_of("send --remote-command x i ssh://h/p");
	command = far_join_command(&cfg, id, &e);
	REQUIRE(command);
	CHECK_STR(command, "x join 0123456789abcdef0123456789abcdef");
	free(command);
	CHECK(far_is_id(id));
	CHECK(!far_is_id("") && !far_is_id("0123456789abcdef0123456789abcde"));
	CHECK(!far_is_id("0123456789abcdef0123456789abcdefa"));
	CHECK(!far_is_id("0123456789ABCDEF0123456789abcdef"));
	CHECK(!far_is_id("0123456789abcdef;123456789abcdef"));
}

static void the_remote_command_is_the_users_own_words(void)
{
	CHECK_STR(far_of("send --remote-command=sudo\t'x' i ssh://h/p"),
		  "sudo\t'x' recv --far -q stdio: /p");
	CHECK_STR(far_of("send --remote-command=\t i ssh://h/p"),
		  "--remote-command is no line for a shell");
	CHECK_STR(far_of("send --remote-command=a\nb i ssh://h/p"),
		  "--remote-command is no line for a shell");
}

/* As sshd starts a login's shell: SHELL -c COMMAND. What it prints. */
static FILE *login(const char *shell, const char *command)
{
	int out[2];
	pid_t pid;

	if (pipe(out))
		return NULL;
	pid = fork();
	if (pid == 0) {
		dup2(out[1], 1);
		close(out[0]);
		close(out[1]);
		execlp(shell, shell, "-c", command, (char *)NULL);
		_exit(127);
	}
	close(out[1]);
	return pid > 0 ? fdopen(out[0], "r") : NULL;
}

/* What a real shell makes of the command's last words: "printf" prints its operands. */
static bool shell_sees(const char *shell, const char *path)
{
	struct uri u = { .scheme = SCHEME_SSH, .path = (char *)path };
	char got[512] = "", *command;
	size_t n;
	FILE *f;

	cfg.remote_command = "printf %s/";
	command = far_command(&cfg, &u, ROLE_SOURCE, &e);
	f = command ? login(shell, command) : NULL;
	free(command);
	if (!f)
		return false;
	n = fread(got, 1, sizeof(got) - 1, f);
	fclose(f);
	wait(NULL);
	/* "recv/--far/-q/stdio:/PATH/" */
	return n > 21 && !memcmp(got, "recv/--far/-q/stdio:/", 21) && n == 21 + strlen(path) + 1 &&
	       !memcmp(got + 21, path, strlen(path));
}

static void check_shell(const char *shell, const char *path)
{
	bool right = shell_sees(shell, path);

	if (!right)
		printf("# %s: %s\n", shell, path);
	CHECK(right);
}

/* Mostly what shells know, of `len` bytes and no line break. */
static const char *any_path(unsigned *seed, size_t len)
{
	static const char special[] = "'\\!\"$`;&|<>(){}[]*?~#%^=@ ,a";
	static char path[40];

	path[0] = '/';
	for (size_t i = 1; i < len; i++) {
		*seed = *seed * 1103515245 + 12345;
		path[i] = *seed >> 30 ? special[(*seed >> 16) % (sizeof(special) - 1)]
				      : (char)(1 + (*seed >> 16) % 127);
		if (path[i] == '\n')
			path[i] = 'n';
	}
	path[len] = '\0';
	return path;
}

static void no_path_becomes_anything_else_in_a_shell(void)
{
	static const char *const paths[] = {
		"/a b",	      "/$(touch x)",
		"/`touch x`", "/'",
		"/''",	      "/a'b\"c",
		"/\\",	      "/*",
		"/~root",     "~root",
		"/#",	      "/!",
		"/a!b!!",     "/x\\';touch x;\\'",
		"/;",	      "/&",
		"/|",	      "/<",
		"/${HOME",    "/a\tb",
		"/{a,b}",     "/?",
		"=x",	      "/\xff\x01\x7f",
	};
	/* bash's and ksh's quotes are sh's */
	static const char *const shells[] = { "sh", "zsh", "fish", "tcsh" };
	unsigned seed = 1;

	options_free(&cfg);
	far_of("send i ssh://h/p");
	for (size_t s = 0; s < sizeof(shells) / sizeof(shells[0]); s++) {
		for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++)
			check_shell(shells[s], paths[i]);
		for (size_t i = 0; i < 100; i++)
			check_shell(shells[s], any_path(&seed, 1 + i % 38));
	}
}

static void no_line_break_reaches_a_shell(void)
{
	struct uri u = { .scheme = SCHEME_SSH, .path = (char *)"/a\ntouch x" };

	far_of("send i ssh://h/p");
	CHECK(!far_command(&cfg, &u, ROLE_SOURCE, &e));
	CHECK(e.status == ST_USAGE && strstr(e.msg, "a line break"));
	cfg.block_name = "a\nb";
	u.path = (char *)"/a";
	CHECK(!far_command(&cfg, &u, ROLE_DESTINATION, &e) && e.status == ST_USAGE);
	cfg.block_name = NULL;
}

static const struct test_case cases[] = {
	{ "a push runs recv, a pull runs send", a_push_runs_recv_a_pull_runs_send },
	{ "what the far side has to know goes with it",
	  what_the_far_side_has_to_know_goes_with_it },
	{ "an extra connection joins by its name", an_extra_connection_joins_by_its_name },
	{ "the remote command is the user's own words", the_remote_command_is_the_users_own_words },
	{ "no path becomes anything else in a shell", no_path_becomes_anything_else_in_a_shell },
	{ "no line break reaches a shell", no_line_break_reaches_a_shell },
};
TEST_MAIN(cases)
