// SPDX-License-Identifier: GPL-2.0-or-later
#include "test.h"

#include "options.h"
#include "options-table.h"

#include <stdlib.h>

#define MAX_WORDS 32

static struct config cfg;
static struct error err;

/* Parses "send a b": words apart by one space each, so that two spaces make an empty word. */
static int parse(const char *line)
{
	static char copy[512];
	static char *argv[MAX_WORDS + 2];
	int argc = 0;
	char *rest = copy;

	options_free(&cfg);
	err_clear(&err);
	snprintf(copy, sizeof(copy), "%s", line);
	argv[argc++] = (char *)"migtool";
	while (rest && argc < MAX_WORDS)
		argv[argc++] = strsep(&rest, " ");
	argv[argc] = NULL;
	return options_parse(&cfg, argc, argv, &err);
}

#define FAILS(line, want_status, want_msg, want_hint)               \
	do {                                                        \
		CHECK(parse(line) == -1);                           \
		CHECK_ERROR(err, want_status, want_msg, want_hint); \
	} while (0)

static void operands_follow_the_command(void)
{
	REQUIRE(parse("send guest.mem tcp:h:1") == 0);
	CHECK(cfg.command == CMD_SEND);
	CHECK_STR(cfg.image, "guest.mem");
	CHECK_STR(cfg.uri, "tcp:h:1");
	CHECK(!cfg.argv);
	REQUIRE(parse("recv tcp::1 guest/") == 0);
	CHECK(cfg.command == CMD_RECV);
	CHECK_STR(cfg.image, "guest/");
	CHECK_STR(cfg.uri, "tcp::1");
	REQUIRE(parse("check") == 0);
	CHECK(cfg.command == CMD_CHECK && !cfg.uri);
	REQUIRE(parse("check tcp:h:1") == 0);
	CHECK_STR(cfg.uri, "tcp:h:1");
	REQUIRE(parse("caps") == 0);
	CHECK(cfg.command == CMD_CAPS);
	REQUIRE(parse("params") == 0);
	CHECK(cfg.command == CMD_PARAMS);
}

static void what_is_not_given_has_its_default(void)
{
	REQUIRE(parse("send a b") == 0);
	CHECK(!cfg.block_name && !cfg.machine && !cfg.uuid && cfg.page_size == 0);
	CHECK(cfg.peer == PEER_UNSET && !cfg.peer_version);
	CHECK(!cfg.listen && !cfg.connect && !cfg.one_way && !cfg.device_state && !cfg.base);
	CHECK(!cfg.delta && !cfg.force && !cfg.in_place && !cfg.dry_run && !cfg.json);
	CHECK(cfg.progress == PROGRESS_AUTO && cfg.verbosity == 0);
	CHECK(cfg.timeout == -1 && cfg.ready_fd == -1 && cfg.continue_fd == -1 &&
	      !cfg.replay_dirty);
	CHECK(params_multifd_channels(&cfg.params) == 2);
	CHECK(params_max_bandwidth(&cfg.params) == 0);
	for (int i = 0; i < CAP__MAX; i++)
		CHECK(!cfg.caps.on[i] && !cfg.caps.given[i]);
}

static void options_stand_anywhere_before_the_dashes(void)
{
	REQUIRE(parse("--cap multifd send -v guest.mem --timeout 5 tcp:h:1 --json") == 0);
	CHECK(cfg.command == CMD_SEND && cfg.json && cfg.timeout == 5 && cfg.verbosity == 1);
	CHECK(cfg.caps.on[CAP_MULTIFD]);
	CHECK_STR(cfg.image, "guest.mem");
	CHECK_STR(cfg.uri, "tcp:h:1");
}

static void posixly_correct_changes_nothing(void)
{
	setenv("POSIXLY_CORRECT", "1", 1);
	options_stand_anywhere_before_the_dashes();
	unsetenv("POSIXLY_CORRECT");
}

static void every_option_reaches_its_field(void)
{
	REQUIRE(parse("send --block-name b --machine pc-q35-7.2 --base old --device-state d "
		      "--one-way --listen -n --bwlimit 10M i u") == 0);
	CHECK_STR(cfg.block_name, "b");
	CHECK_STR(cfg.machine, "pc-q35-7.2");
	CHECK_STR(cfg.base, "old");
	CHECK_STR(cfg.device_state, "d");
	CHECK(cfg.one_way && cfg.listen && cfg.dry_run);
	CHECK(params_max_bandwidth(&cfg.params) == 10 << 20);
	CHECK(cfg.params.given[PARAM_MAX_BANDWIDTH]);
	REQUIRE(parse("recv --connect --force --in-place --delta --ready-fd 7 --page-size 16K "
		      "--uuid 01234567-89ab-cdef-0123-456789abcdef u i") == 0);
	CHECK(cfg.connect && cfg.force && cfg.in_place && cfg.delta);
	CHECK(cfg.ready_fd == 7 && cfg.page_size == 16384);
	CHECK_STR(cfg.uuid, "01234567-89ab-cdef-0123-456789abcdef");
	REQUIRE(parse("send --cap pause-before-switchover --continue-fd 5 i u") == 0);
	CHECK(cfg.continue_fd == 5);
	REQUIRE(parse("send --x-replay-dirty=f i u") == 0);
	CHECK_STR(cfg.replay_dirty, "f");
}

static void capabilities_and_parameters_are_collected(void)
{
	REQUIRE(parse("send --cap multifd --cap=xbzrle=on --cap multifd=off "
		      "--param multifd-channels=4 --param=multifd-compression=zstd i u") == 0);
	CHECK(!cfg.caps.on[CAP_MULTIFD] && cfg.caps.given[CAP_MULTIFD]);
	CHECK(cfg.caps.on[CAP_XBZRLE]);
	CHECK(params_multifd_channels(&cfg.params) == 4);
	CHECK(params_multifd_compression(&cfg.params) == METHOD_ZSTD);
}

static void everything_behind_the_first_dashes_is_the_commands(void)
{
	REQUIRE(parse("recv u i -- qemu --cap x -- --help") == 0);
	REQUIRE(cfg.argv != NULL);
	CHECK_STR(cfg.argv[0], "qemu");
	CHECK_STR(cfg.argv[1], "--cap");
	CHECK_STR(cfg.argv[2], "x");
	CHECK_STR(cfg.argv[3], "--");
	CHECK_STR(cfg.argv[4], "--help");
	CHECK(!cfg.argv[5]);
	CHECK_STR(cfg.uri, "u");
	CHECK_STR(cfg.image, "i");
}

static void dashes_need_a_command_of_recv(void)
{
	FAILS("recv u i --", ST_USAGE, "no COMMAND behind --", "");
	FAILS("recv u i -- ", ST_USAGE, "no COMMAND behind --", "");
	FAILS("send i u -- x", ST_USAGE, "send takes nothing behind --", "recv starts a COMMAND");
	FAILS("caps --", ST_USAGE, "caps takes nothing behind --", "recv starts a COMMAND");
	/* operands behind it are not ours */
	FAILS("recv -- u i", ST_USAGE, "recv: operands are missing",
	      "migtool recv [OPTION]... URI [IMAGE] [-- COMMAND [ARG]...]");
	/* nor is it an option's value */
	FAILS("recv u i --device-state -- x", ST_USAGE, "option --device-state has no value", "");
}

static void an_optional_value_needs_an_equals_sign(void)
{
	REQUIRE(parse("send --progress i u") == 0);
	CHECK(cfg.progress == PROGRESS_TTY);
	CHECK_STR(cfg.image, "i");
	REQUIRE(parse("send --progress=json i u") == 0);
	CHECK(cfg.progress == PROGRESS_JSON);
	REQUIRE(parse("send i u --progress") == 0);
	CHECK(cfg.progress == PROGRESS_TTY);
	REQUIRE(parse("send --progress --progress=none i --cap multifd u") == 0);
	CHECK(cfg.progress == PROGRESS_NONE && cfg.caps.on[CAP_MULTIFD]);
	FAILS("send --progress= i u", ST_USAGE, "option --progress cannot be \"\"",
	      "it takes auto, tty, json or none, as --progress=WORD");
	/* "json" is an operand here, one too many */
	FAILS("send --progress json i u", ST_USAGE, "send: unexpected \"u\"",
	      "migtool send [OPTION]... IMAGE URI");
}

static void a_value_may_look_like_anything(void)
{
	/* like an option, like popt's own escapes, with another equals sign in it */
	REQUIRE(parse("send --base --progress i u") == 0);
	CHECK_STR(cfg.base, "--progress");
	CHECK(cfg.progress == PROGRESS_AUTO);
	REQUIRE(parse("send --base=a!#:+b i u") == 0);
	CHECK_STR(cfg.base, "a!#:+b");
	CHECK_STR(cfg.image, "i");
	REQUIRE(parse("send --base !#:+ i u") == 0);
	CHECK_STR(cfg.base, "!#:+");
	REQUIRE(parse("send --base=a=b --device-state value i u") == 0);
	CHECK_STR(cfg.base, "a=b");
	CHECK_STR(cfg.device_state, "value");
	REQUIRE(parse("recv - -") == 0);
	CHECK_STR(cfg.image, "-");
}

static void letters_may_stand_together(void)
{
	REQUIRE(parse("send -nvv i -q u") == 0);
	CHECK(cfg.dry_run && cfg.verbosity == 1);
	REQUIRE(parse("caps -qq") == 0);
	CHECK(cfg.verbosity == -2);
	FAILS("send -nz i u", ST_USAGE, "unknown option -nz", "migtool --help lists the options");
	FAILS("send -v=3 i u", ST_USAGE, "option -v takes no value", "");
}

static void peers_are_told_apart(void)
{
	REQUIRE(parse("send --peer migtool i u") == 0);
	CHECK(cfg.peer == PEER_MIGTOOL && !cfg.peer_version);
	REQUIRE(parse("send --peer=qemu i u") == 0);
	CHECK(cfg.peer == PEER_QEMU && !cfg.peer_version);
	REQUIRE(parse("send --peer qemu:7.2 i u") == 0);
	CHECK(cfg.peer == PEER_QEMU);
	CHECK_STR(cfg.peer_version, "7.2");
	/* the last one counts, all of it */
	REQUIRE(parse("send --peer qemu:7.2 --peer migtool i u") == 0);
	CHECK(cfg.peer == PEER_MIGTOOL && !cfg.peer_version);
}

static void wrong_values_are_refused(void)
{
	static const char *const lines[] = {
		"send --peer xen i u",
		"send --peer qemu: i u",
		"send --peer qemu:7 i u",
		"send --peer qemu:7.2x i u",
		"send --peer qemu:.2 i u",
		"send --peer qemu:1234567.2 i u",
		"send --page-size 1000 i u",
		"send --page-size 2048 i u",
		"send --page-size 128K i u",
		"send --page-size 0 i u",
		"send --uuid x i u",
		"send --timeout -1 i u",
		"send --timeout 1.5 i u",
		"send --timeout 2147484 i u",
		"send --ready-fd x i u",
		"send --ready-fd 2147483648 i u",
		"send --continue-fd 5 i u",
		"send --continue-fd 5 --cap pause-before-switchover i fd:5",
		"send --continue-fd 0 --cap pause-before-switchover i stdio:",
		"send --continue-fd x --cap pause-before-switchover i u",
		"send --bwlimit fast i u",
		"send --progress=yes i u",
		"send --base= i u",
		"send --block-name= i u",
		"send --machine= i u",
		"send --cap= i u",
		"send --cap bogus i u",
		"send --param bogus=1 i u",
		"send --param multifd-channels=0 i u",
		"send --param cpu-throttle-initial=50 --param max-cpu-throttle=40 i u",
		"send --page-size 64K --param xbzrle-cache-size=32K i u",
	};

	for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
		if (parse(lines[i]) != -1 || err.status != ST_USAGE)
			printf("# accepted: %s\n", lines[i]);
		CHECK(parse(lines[i]) == -1 && err.status == ST_USAGE && err.msg[0]);
	}
	FAILS("send --timeout x i u", ST_USAGE, "option --timeout cannot be \"x\"",
	      "it takes seconds, 0 for never");
}

static void a_name_of_256_bytes_does_not_fit_the_stream(void)
{
	char line[400] = "send --block-name=";
	size_t n = strlen(line);

	memset(line + n, 'b', 255);
	snprintf(line + n + 255, sizeof(line) - n - 255, " i u");
	CHECK(parse(line) == 0);
	memset(line + n, 'b', 256);
	snprintf(line + n + 256, sizeof(line) - n - 256, " i u");
	CHECK(parse(line) == -1 && err.status == ST_USAGE);
}

static void unknown_words_get_the_nearest_known_one(void)
{
	FAILS("sned i u", ST_USAGE, "unknown command \"sned\"", "did you mean send?");
	FAILS("frobnicate", ST_USAGE, "unknown command \"frobnicate\"",
	      "migtool --help lists the commands");
	FAILS("send --jsno i u", ST_USAGE, "unknown option --jsno", "did you mean --json?");
	FAILS("send --timout=3 i u", ST_USAGE, "unknown option --timout",
	      "did you mean --timeout?");
	FAILS("send -json i u", ST_USAGE, "unknown option -json", "did you mean --json?");
	FAILS("send --cap mulitfd i u", ST_USAGE, "unknown capability \"mulitfd\"",
	      "did you mean multifd?");
	FAILS("send --param downtime_limit=1 i u", ST_USAGE, "unknown parameter \"downtime_limit\"",
	      "did you mean downtime-limit?");
	FAILS("", ST_USAGE, "unknown command \"\"", "migtool --help lists the commands");
}

static void operands_are_counted(void)
{
	FAILS("send", ST_USAGE, "send: operands are missing", "migtool send [OPTION]... IMAGE URI");
	FAILS("send i", ST_USAGE, "send: an operand is missing",
	      "migtool send [OPTION]... IMAGE URI");
	FAILS("send i u x", ST_USAGE, "send: unexpected \"x\"",
	      "migtool send [OPTION]... IMAGE URI");
	FAILS("caps x", ST_USAGE, "caps: unexpected \"x\"", "migtool caps [OPTION]...");
	FAILS("send  u", ST_USAGE, "send: an operand is empty", "");
}

static void options_belong_to_commands(void)
{
	FAILS("recv --base x u i", ST_USAGE, "recv does not take the option --base",
	      "it belongs to: send");
	FAILS("caps --peer qemu", ST_USAGE, "caps does not take the option --peer",
	      "it belongs to: send, recv, check");
	FAILS("send --json=1 i u", ST_USAGE, "option --json takes no value", "");
	FAILS("send i u --base", ST_USAGE, "option --base has no value", "");
}

static void ssh_options_are_collected_and_need_an_ssh_uri(void)
{
	const char *hint = "migtool send IMAGE ssh://[USER@]HOST/PATH";

	REQUIRE(parse("send -p 2222 -i a -ib --identity=c -o A=b -oC=d=e --rsh x --remote-command "
		      "y i ssh://h/p") == 0);
	CHECK(cfg.ssh_port == 2222 && cfg.identities.n == 3 && cfg.ssh_options.n == 2);
	CHECK_STR(cfg.identities.v[0], "a");
	CHECK_STR(cfg.identities.v[1], "b");
	CHECK_STR(cfg.identities.v[2], "c");
	CHECK_STR(cfg.ssh_options.v[1], "C=d=e");
	CHECK_STR(cfg.rsh, "x");
	CHECK_STR(cfg.remote_command, "y");
	FAILS("send -p 22 i u", ST_USAGE, "--port needs an ssh: URI", hint);
	FAILS("recv -i a u i", ST_USAGE, "--identity needs an ssh: URI", hint);
	FAILS("recv -o a=b u i", ST_USAGE, "--ssh-option needs an ssh: URI", hint);
	FAILS("check --rsh ssh", ST_USAGE, "--rsh needs an ssh: URI", hint);
	FAILS("send -p 0 i ssh://h/p", ST_USAGE, "option --port cannot be \"0\"",
	      "it takes a port, 1 to 65535");
	FAILS("send -o ab i ssh://h/p", ST_USAGE, "option --ssh-option cannot be \"ab\"",
	      "it takes OPT=VALUE, like StrictHostKeyChecking=yes");
	CHECK(parse("send -ia -ia -ia -ia -ia -ia -ia -ia -ia -ia -ia -ia -ia -ia -ia -ia i "
		    "ssh://h/p") == 0);
	FAILS("send -ia -ia -ia -ia -ia -ia -ia -ia -ia -ia -ia -ia -ia -ia -ia -ia -ia i "
	      "ssh://h/p",
	      ST_USAGE, "option --identity stands more than 16 times", "");
}

static void what_recv_is_told_send_takes_for_ssh_alone(void)
{
	static const char *const for_recv[] = { "--delta", "--force", "--in-place" };
	const char *answers = "at its far end a migtool is started, which answers";
	char line[64], msg[128];

	REQUIRE(parse("send --force --in-place --delta i ssh://h/p") == 0);
	CHECK(cfg.force && cfg.in_place && cfg.delta);
	for (size_t i = 0; i < sizeof(for_recv) / sizeof(for_recv[0]); i++) {
		snprintf(line, sizeof(line), "send %s i tcp:h:1", for_recv[i]);
		snprintf(msg, sizeof(msg),
			 "%s is for the destination to say, unless it is an ssh: URI's",
			 for_recv[i]);
		FAILS(line, ST_USAGE, msg, "give it to `migtool recv`");
	}
	FAILS("send --listen i ssh://h/p", ST_USAGE, "--listen does not go with an ssh: URI",
	      answers);
	FAILS("recv --connect ssh://h/p i", ST_USAGE, "--connect does not go with an ssh: URI",
	      answers);
	FAILS("send --peer qemu i ssh://h/p", ST_USAGE, "--peer qemu does not go with an ssh: URI",
	      answers);
	FAILS("send --param tls-creds=d i ssh://h/p", ST_USAGE,
	      "tls-creds does not go with an ssh: URI", "ssh encrypts and knows both ends already");
	FAILS("recv --far tcp::1 i", ST_USAGE, "--far is for the far end of an ssh: URI", "");
	CHECK(parse("recv --far stdio: i") == 0 && cfg.far);
}

static void a_thousand_words_are_no_trouble(void)
{
	char *argv[1004];
	int n = 0;

	options_free(&cfg);
	argv[n++] = (char *)"migtool";
	argv[n++] = (char *)"send";
	while (n < 1001)
		argv[n++] = (char *)"-vvvvvvvv";
	argv[n++] = (char *)"i";
	argv[n++] = (char *)"u";
	argv[n] = NULL;
	REQUIRE(options_parse(&cfg, n, argv, &err) == 0);
	CHECK(cfg.verbosity == 999 * 8);
	CHECK_STR(cfg.uri, "u");
}

static void no_words_at_all_is_an_error(void)
{
	char *argv[] = { NULL };

	options_free(&cfg);
	CHECK(options_parse(&cfg, 0, argv, &err) == -1);
	CHECK(err.status == ST_USAGE);
	CHECK_STR(err.msg, "no command");
}

static void the_table_is_sound(void)
{
	for (const struct option_row *a = option_table; a->flag || a->letter; a++) {
		CHECK(!a->flag || !strncmp(a->flag, "--", 2));
		CHECK(!a->letter || (a->letter[0] == '-' && strlen(a->letter) == 2));
		CHECK(!a->commands || a->set || a->answer);
		CHECK(a->group == GROUP_HIDDEN || (a->help && a->commands));
		CHECK((a->group == GROUP_HIDDEN || !a->arg) || a->metavar);
		for (const struct option_row *b = option_table; b < a; b++) {
			CHECK(!a->flag || !b->flag || strcmp(a->flag, b->flag));
			CHECK(!a->letter || !b->letter || strcmp(a->letter, b->letter));
		}
	}
}

static const struct test_case cases[] = {
	{ "operands follow the command", operands_follow_the_command },
	{ "what is not given has its default", what_is_not_given_has_its_default },
	{ "options stand anywhere before the first --", options_stand_anywhere_before_the_dashes },
	{ "POSIXLY_CORRECT changes nothing", posixly_correct_changes_nothing },
	{ "every option reaches its field", every_option_reaches_its_field },
	{ "capabilities and parameters are collected", capabilities_and_parameters_are_collected },
	{ "everything behind the first -- is COMMAND's",
	  everything_behind_the_first_dashes_is_the_commands },
	{ "-- needs a COMMAND, and recv", dashes_need_a_command_of_recv },
	{ "an optional value needs an equals sign", an_optional_value_needs_an_equals_sign },
	{ "a value may look like anything", a_value_may_look_like_anything },
	{ "letters may stand together", letters_may_stand_together },
	{ "peers are told apart", peers_are_told_apart },
	{ "wrong values are refused", wrong_values_are_refused },
	{ "a name of 256 bytes does not fit the stream",
	  a_name_of_256_bytes_does_not_fit_the_stream },
	{ "unknown words get the nearest known one", unknown_words_get_the_nearest_known_one },
	{ "operands are counted", operands_are_counted },
	{ "options belong to commands", options_belong_to_commands },
	{ "ssh options are collected, and need an ssh URI",
	  ssh_options_are_collected_and_need_an_ssh_uri },
	{ "what recv is told, send takes for ssh alone",
	  what_recv_is_told_send_takes_for_ssh_alone },
	{ "a thousand words are no trouble", a_thousand_words_are_no_trouble },
	{ "no words at all is an error", no_words_at_all_is_an_error },
	{ "the table is sound", the_table_is_sound },
};

TEST_MAIN(cases)
