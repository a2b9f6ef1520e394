// SPDX-License-Identifier: GPL-2.0-or-later
#include "options-table.h"

#include "units.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#define BIT(command) (1u << CMD_##command)
#define SEND	     BIT(SEND)
#define RECV	     BIT(RECV)
#define CHECK	     BIT(CHECK)
#define MOVE	     (SEND | RECV)
#define ALL	     (((1u << CMD__MAX) - 1) & ~BIT(JOIN))

#define TEXT_FIELD(cfg, row) (*(const char **)((char *)(cfg) + (row)->field))
#define FLAG_FIELD(cfg, row) (*(bool *)((char *)(cfg) + (row)->field))

const struct command_info command_table[CMD__MAX] = {
	[CMD_SEND] = { "send", "IMAGE URI", 2, 2, true, "send the memory image IMAGE to URI",
		       false },
	[CMD_RECV] = { "recv", "URI [IMAGE] [-- COMMAND [ARG]...]", 1, 2, true,
		       "receive a memory image from URI into IMAGE; then start COMMAND", false },
	[CMD_CHECK] = { "check", "[URI]", 0, 1, true,
			"probe this host and check what is asked for; move nothing", false },
	[CMD_CAPS] = { "caps", "", 0, 0, true, "list the capabilities and what each does here",
		       false },
	[CMD_PARAMS] = { "params", "", 0, 0, true, "list the parameters and their values", false },
	[CMD_JOIN] = { .name = "join",
		       .operands = "ID",
		       .min = 1,
		       .max = 1,
		       .built = true,
		       .hidden = true,
		       .help = "hand one more connection to a migtool on this host" },
	[CMD_PSK] = { "psk", "FILE", 1, 1, true, "make a pre-shared key file for TLS", false },
};

static int bad_value(const struct option_row *row, const char *value, const char *expected,
		     struct error *err)
{
	err_set(err, ST_USAGE, "option %s cannot be \"%s\"", option_name(row), value);
	return err_hint(err, "it takes %s", expected);
}

static int set_flag(struct config *cfg, const struct option_row *row, const char *value,
		    struct error *err)
{
	(void)value;
	(void)err;
	FLAG_FIELD(cfg, row) = true;
	return 0;
}

/* A path or a name: anything that is not empty. */
static int set_text(struct config *cfg, const struct option_row *row, const char *value,
		    struct error *err)
{
	if (!value[0])
		return bad_value(row, value, "a name that is not empty", err);
	TEXT_FIELD(cfg, row) = value;
	return 0;
}

/* What the stream carries with a length of one byte. */
static int set_name(struct config *cfg, const struct option_row *row, const char *value,
		    struct error *err)
{
	if (!value[0] || strlen(value) > 255)
		return bad_value(row, value, "a name of 1 to 255 bytes", err);
	TEXT_FIELD(cfg, row) = value;
	return 0;
}

static int set_cap(struct config *cfg, const struct option_row *row, const char *value,
		   struct error *err)
{
	(void)row;
	return cap_parse(&cfg->caps, value, err);
}

static int set_param(struct config *cfg, const struct option_row *row, const char *value,
		     struct error *err)
{
	(void)row;
	return param_parse(&cfg->params, value, err);
}

static int set_bwlimit(struct config *cfg, const struct option_row *row, const char *value,
		       struct error *err)
{
	uint64_t v;

	if (units_parse_size(value, &v))
		return bad_value(row, value, "bytes a second, like 100M; 0: no limit", err);
	return param_set(&cfg->params, PARAM_MAX_BANDWIDTH, value, err);
}

static int set_uuid(struct config *cfg, const struct option_row *row, const char *value,
		    struct error *err)
{
	uint8_t uuid[16];

	if (uuid_parse(value, uuid))
		return bad_value(row, value, "01234567-89ab-cdef-0123-456789abcdef", err);
	cfg->uuid = value;
	return 0;
}

static int set_page_size(struct config *cfg, const struct option_row *row, const char *value,
			 struct error *err)
{
	uint64_t v;

	if (units_parse_size(value, &v) || v < 4096 || v > 65536 || (v & (v - 1)))
		return bad_value(row, value, "a power of two from 4K to 64K", err);
	cfg->page_size = (uint32_t)v;
	return 0;
}

/* 7.2: digits, a dot, digits */
static bool is_version(const char *s)
{
	size_t major = strspn(s, "0123456789");
	size_t minor = s[major] == '.' ? strspn(s + major + 1, "0123456789") : 0;

	return major && minor && major < 4 && minor < 4 && !s[major + 1 + minor];
}

static int set_peer(struct config *cfg, const struct option_row *row, const char *value,
		    struct error *err)
{
	cfg->peer_version = NULL;
	if (!strcmp(value, "migtool")) {
		cfg->peer = PEER_MIGTOOL;
	} else if (!strcmp(value, "qemu")) {
		cfg->peer = PEER_QEMU;
	} else if (!strncmp(value, "qemu:", 5) && is_version(value + 5)) {
		cfg->peer = PEER_QEMU;
		cfg->peer_version = value + 5;
	} else {
		return bad_value(row, value, "migtool, qemu, or qemu:VERSION, like qemu:7.2", err);
	}
	return 0;
}

static int set_timeout(struct config *cfg, const struct option_row *row, const char *value,
		       struct error *err)
{
	uint64_t v;

	/* In milliseconds it has to fit into poll's int. */
	if (units_parse_u64(value, &v) || v > INT_MAX / 1000)
		return bad_value(row, value, "seconds, 0 for never", err);
	cfg->timeout = (int64_t)v;
	return 0;
}

static int set_retry(struct config *cfg, const struct option_row *row, const char *value,
		     struct error *err)
{
	uint64_t v;

	if (units_parse_u64(value, &v) || v > 1000000)
		return bad_value(row, value, "a number of tries", err);
	cfg->retry = (unsigned)v;
	return 0;
}

static int set_postcopy_after(struct config *cfg, const struct option_row *row, const char *value,
			      struct error *err)
{
	uint64_t v;

	if (units_parse_u64(value, &v) || v > 100)
		return bad_value(row, value, "per cent of the memory, 0 to 100", err);
	cfg->postcopy_after = (unsigned)v;
	return 0;
}

static int set_fd(struct config *cfg, const struct option_row *row, const char *value,
		  struct error *err)
{
	uint64_t v;

	if (units_parse_u64(value, &v) || v > INT_MAX)
		return bad_value(row, value, "the number of an open descriptor", err);
	*(int *)((char *)cfg + row->field) = (int)v;
	return 0;
}

static int set_progress(struct config *cfg, const struct option_row *row, const char *value,
			struct error *err)
{
	static const char *const words[] = { "auto", "tty", "json", "none" };

	/* --progress alone: show it, terminal or not. */
	if (!value) {
		cfg->progress = PROGRESS_TTY;
		return 0;
	}
	for (int i = 0; i < 4; i++) {
		if (!strcmp(words[i], value)) {
			cfg->progress = (enum progress_mode)i;
			return 0;
		}
	}
	return bad_value(row, value, "auto, tty, json or none, as --progress=WORD", err);
}

static int set_guest(struct config *cfg, const struct option_row *row, const char *value,
		     struct error *err)
{
	char *end;
	long pid = strtol(value, &end, 10);

	if (end == value || *end || pid < 2 || pid > INT_MAX)
		return bad_value(row, value, "the number of a process", err);
	cfg->guest = (pid_t)pid;
	return 0;
}

static int set_push(struct config *cfg, const struct option_row *row, const char *value,
		    struct error *err)
{
	bool on;

	if (switch_parse(value, &on))
		return bad_value(row, value, "on or off", err);
	cfg->push_off = !on;
	cfg->push_given = true;
	return 0;
}

static int set_verbose(struct config *cfg, const struct option_row *row, const char *value,
		       struct error *err)
{
	(void)value;
	(void)err;
	cfg->verbosity += row->letter[1] == 'v' ? 1 : -1;
	return 0;
}

static int set_port(struct config *cfg, const struct option_row *row, const char *value,
		    struct error *err)
{
	uint64_t v;

	if (units_parse_u64(value, &v) || !v || v > 65535)
		return bad_value(row, value, "a port, 1 to 65535", err);
	cfg->ssh_port = (unsigned)v;
	return 0;
}

static int add_text(struct config *cfg, const struct option_row *row, const char *value,
		    struct error *err)
{
	struct config_list *list = (struct config_list *)((char *)cfg + row->field);

	if (!value[0])
		return bad_value(row, value, "a word that is not empty", err);
	if (list->n == CONFIG_LIST_MAX)
		return err_set(err, ST_USAGE, "option %s stands more than %d times",
			       option_name(row), CONFIG_LIST_MAX);
	list->v[list->n++] = value;
	return 0;
}

/* ssh's own form; which options there are is for who takes them to say. */
static int add_ssh_option(struct config *cfg, const struct option_row *row, const char *value,
			  struct error *err)
{
	const char *eq = strchr(value, '=');

	if (!eq || eq == value)
		return bad_value(row, value, "OPT=VALUE, like StrictHostKeyChecking=yes", err);
	return add_text(cfg, row, value, err);
}

static int set_on_loss(struct config *cfg, const struct option_row *row, const char *value,
		       struct error *err)
{
	cfg->kill_on_loss = !strcmp(value, "kill");
	if (!cfg->kill_on_loss && strcmp(value, "freeze") != 0)
		return bad_value(row, value, "freeze or kill", err);
	return 0;
}

#define FIELD(name) .field = offsetof(struct config, name)

const struct option_row option_table[] = {
	/* what travels */
	{ "--cap", NULL, ARG_REQUIRED, "NAME[=on|off]", MOVE | CHECK | BIT(CAPS), GROUP_TRAVEL,
	  "switch a capability; repeatable, and all are checked together", .set = set_cap },
	{ "--param", NULL, ARG_REQUIRED, "NAME=VALUE", MOVE | CHECK | BIT(PARAMS), GROUP_TRAVEL,
	  "set a parameter; repeatable", .set = set_param },
	{ "--bwlimit", NULL, ARG_REQUIRED, "RATE", SEND, GROUP_TRAVEL,
	  "send at most RATE bytes a second, like 100M; --param max-bandwidth=RATE",
	  .set = set_bwlimit },
	{ "--base", NULL, ARG_REQUIRED, "FILE", SEND, GROUP_TRAVEL,
	  "send deltas against FILE, an older copy that the destination has too", .set = set_text,
	  FIELD(base) },
	{ "--delta", NULL, ARG_NONE, NULL, MOVE, GROUP_TRAVEL,
	  "let IMAGE be an older copy: only what differs from it travels", .set = set_flag,
	  FIELD(delta) },
	{ "--resume", NULL, ARG_NONE, NULL, MOVE, GROUP_TRAVEL,
	  "go on with a transfer that broke, on both ends; recv: or serve a guest that waits",
	  .set = set_flag, FIELD(resume) },
	{ "--retry", NULL, ARG_REQUIRED, "N", MOVE, GROUP_TRAVEL,
	  "when the link dies, go on by itself, at most N times", .set = set_retry, FIELD(retry) },
	{ "--postcopy-after", NULL, ARG_REQUIRED, "PERCENT", SEND, GROUP_TRAVEL,
	  "with postcopy-ram: let the guest go on there once so much was sent (0), or on SIGUSR2",
	  .set = set_postcopy_after },
	{ "--continue-fd", NULL, ARG_REQUIRED, "N", SEND, GROUP_TRAVEL,
	  "with pause-before-switchover: go on at a byte, or the end, on descriptor N",
	  .set = set_fd, FIELD(continue_fd) },
	{ "--device-state", NULL, ARG_REQUIRED, "FILE", MOVE, GROUP_TRAVEL,
	  "an opaque file that travels beside the memory", .set = set_text, FIELD(device_state) },
	{ "--dry-run", "-n", ARG_NONE, NULL, SEND, GROUP_TRAVEL,
	  "connect, check both ends, print the plan, move nothing", .set = set_flag,
	  FIELD(dry_run) },

	/* names */
	{ "--block-name", NULL, ARG_REQUIRED, "NAME", MOVE, GROUP_NAMES,
	  "what QEMU calls the RAM block of a raw file (pc.ram)", .set = set_name,
	  FIELD(block_name) },
	{ "--machine", NULL, ARG_REQUIRED, "NAME", MOVE | CHECK, GROUP_NAMES,
	  "the guest's versioned machine name, like pc-i440fx-7.2", .set = set_name,
	  FIELD(machine) },
	{ "--uuid", NULL, ARG_REQUIRED, "UUID", MOVE | CHECK, GROUP_NAMES, "the guest's UUID",
	  .set = set_uuid },
	{ "--page-size", NULL, ARG_REQUIRED, "SIZE", MOVE | CHECK, GROUP_NAMES,
	  "the guest's page size (4096)", .set = set_page_size },

	/* the other end */
	{ "--peer", NULL, ARG_REQUIRED, "migtool|qemu[:VERSION]", MOVE | CHECK, GROUP_PEER,
	  "who is at the other end", .set = set_peer },
	{ "--listen", NULL, ARG_NONE, NULL, SEND, GROUP_PEER, "wait for the destination to connect",
	  .set = set_flag, FIELD(listen) },
	{ "--connect", NULL, ARG_NONE, NULL, RECV, GROUP_PEER, "dial a source that listens",
	  .set = set_flag, FIELD(connect) },
	{ "--one-way", NULL, ARG_NONE, NULL, MOVE | CHECK, GROUP_PEER,
	  "nothing comes back from the destination", .set = set_flag, FIELD(one_way) },
	{ "--timeout", NULL, ARG_REQUIRED, "SECONDS", MOVE | CHECK, GROUP_PEER,
	  "give up when nothing moved for so long (60); 0: never", .set = set_timeout },
	{ "--no-sandbox", NULL, ARG_NONE, NULL, MOVE | CHECK, GROUP_PEER,
	  "let the part that reads the peer do all that you may", .set = set_flag,
	  FIELD(no_sandbox) },
	{ "--ready-fd", NULL, ARG_REQUIRED, "N", MOVE, GROUP_PEER,
	  "write the URI and a newline to descriptor N once listening", .set = set_fd,
	  FIELD(ready_fd) },

	/* the image */
	{ "--force", NULL, ARG_NONE, NULL, MOVE, GROUP_IMAGE,
	  "replace an IMAGE that exists and is not empty; send: release-ram on a disk, too",
	  .set = set_flag, FIELD(force) },
	{ "--in-place", NULL, ARG_NONE, NULL, MOVE, GROUP_IMAGE,
	  "write into IMAGE itself, not IMAGE.part (block devices need it)", .set = set_flag,
	  FIELD(in_place) },

	/* a guest that runs before its memory is there */
	{ "--guest", NULL, ARG_REQUIRED, "PID", RECV, GROUP_GUEST,
	  "serve the page faults of a process that runs already and maps IMAGE", .set = set_guest },
	{ "--uffd-socket", NULL, ARG_REQUIRED, "PATH", RECV, GROUP_GUEST,
	  "serve the page faults of a VMM that hands its userfaultfd over on PATH", .set = set_text,
	  FIELD(uffd_socket) },
	{ "--push", NULL, ARG_REQUIRED, "on|off", RECV, GROUP_GUEST,
	  "whether the rest of its memory follows by itself (on)", .set = set_push },
	{ "--notify", NULL, ARG_NONE, NULL, RECV, GROUP_GUEST,
	  "COMMAND is ready when it says READY=1 on NOTIFY_SOCKET, and not before", .set = set_flag,
	  FIELD(notify) },
	{ "--on-loss", NULL, ARG_REQUIRED, "freeze|kill", RECV, GROUP_GUEST,
	  "what becomes of it when it cannot be served on (freeze)", .set = set_on_loss },
	{ "--record", NULL, ARG_REQUIRED, "FILE", RECV, GROUP_GUEST,
	  "write the order in which it first needed its pages to FILE", .set = set_text,
	  FIELD(record) },
	{ "--prefetch", NULL, ARG_REQUIRED, "FILE", RECV, GROUP_GUEST,
	  "bring the pages that --record wrote to FILE first, in that order", .set = set_text,
	  FIELD(prefetch) },

	/* over ssh */
	{ "--port", "-p", ARG_REQUIRED, "PORT", MOVE | CHECK, GROUP_SSH,
	  "where sshd listens, if the URI does not say it (22)", .set = set_port },
	{ "--identity", "-i", ARG_REQUIRED, "FILE", MOVE | CHECK, GROUP_SSH,
	  "a private key to log in with; repeatable", .set = add_text, FIELD(identities) },
	{ "--ssh-option", "-o", ARG_REQUIRED, "OPT=VALUE", MOVE | CHECK, GROUP_SSH,
	  "an option of ssh_config; without --rsh: UserKnownHostsFile=FILE, "
	  "StrictHostKeyChecking=yes",
	  .set = add_ssh_option, FIELD(ssh_options) },
	{ "--rsh", NULL, ARG_REQUIRED, "CMD", MOVE | CHECK, GROUP_SSH,
	  "the remote shell to use instead, like 'ssh -J jump'", .set = set_text, FIELD(rsh) },
	{ "--remote-command", NULL, ARG_REQUIRED, "CMD", MOVE | CHECK, GROUP_SSH,
	  "what starts migtool on the far host (migtool)", .set = set_text, FIELD(remote_command) },

	/* output */
	{ "--json", NULL, ARG_NONE, NULL, ALL & ~BIT(PSK), GROUP_OUTPUT, "print the result as JSON",
	  .set = set_flag, FIELD(json) },
	{ "--progress", NULL, ARG_OPTIONAL, "auto|tty|json|none", MOVE, GROUP_OUTPUT,
	  "show progress: auto is a line on a terminal, json a line an event; alone: tty",
	  .set = set_progress },
	{ "--quiet", "-q", ARG_NONE, NULL, ALL, GROUP_OUTPUT,
	  "say less: warnings and errors; -qq: errors only", .set = set_verbose },
	{ "--verbose", "-v", ARG_NONE, NULL, ALL, GROUP_OUTPUT, "say more; -vv: still more",
	  .set = set_verbose },

	/* help */
	{ "--help", "-h", ARG_NONE, NULL, ALL, GROUP_HELP,
	  "print this; behind a command: what concerns it", .answer = answer_help },
	{ "--usage", NULL, ARG_NONE, NULL, ALL, GROUP_HELP, "print the commands' forms",
	  .answer = answer_usage },
	{ "--version", "-V", ARG_NONE, NULL, ALL, GROUP_HELP, "print the version",
	  .answer = answer_version },

	/* for the completions and for tests */
	{ .flag = "--list-options",
	  .commands = ALL,
	  .group = GROUP_HIDDEN,
	  .answer = answer_list_options },
	{ .flag = "--list-commands",
	  .commands = ALL,
	  .group = GROUP_HIDDEN,
	  .answer = answer_list_commands },
	{ .flag = "--list-caps",
	  .commands = ALL,
	  .group = GROUP_HIDDEN,
	  .answer = answer_list_caps },
	{ .flag = "--list-params",
	  .commands = ALL,
	  .group = GROUP_HIDDEN,
	  .answer = answer_list_params },
	{ .flag = "--list-schemes",
	  .commands = ALL,
	  .group = GROUP_HIDDEN,
	  .answer = answer_list_schemes },
	{ .flag = "--list-statuses",
	  .commands = ALL,
	  .group = GROUP_HIDDEN,
	  .answer = answer_list_statuses },
	{ "--far", NULL, ARG_NONE, NULL, MOVE, GROUP_HIDDEN,
	  "started by the other end through a remote shell", .set = set_flag, FIELD(far) },
	{ "--x-replay-dirty", NULL, ARG_REQUIRED, "FILE", SEND, GROUP_HIDDEN,
	  "replay a recorded sequence of dirty rounds", .set = set_text, FIELD(replay_dirty) },
	{ .flag = NULL },
};
