// SPDX-License-Identifier: GPL-2.0-or-later
#include "options-table.h"
#include "text.h"
#include "uri.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#define INDENT 26

static const char *const group_titles[GROUP__MAX] = {
	[GROUP_TRAVEL] = "What travels",
	[GROUP_NAMES] = "What QEMU calls it",
	[GROUP_PEER] = "The other end",
	[GROUP_IMAGE] = "The image at the destination",
	[GROUP_GUEST] = "A guest that runs before its memory is there",
	[GROUP_SSH] = "Over SSH",
	[GROUP_OUTPUT] = "Output",
	[GROUP_HELP] = "Help",
};

static const struct {
	const char *what, *line;
	unsigned commands;
} examples[] = {
	{ "Receive on one host, then send from the other one:", "migtool recv tcp::4444 guest.mem",
	  1u << CMD_RECV },
	{ NULL, "migtool send guest.mem tcp:HOST:4444", 1u << CMD_SEND },
	{ "The same, compressed on four connections:",
	  "migtool send --cap multifd --param multifd-channels=4 \\\n"
	  "        --param multifd-compression=zstd guest.mem tcp:HOST:4444",
	  1u << CMD_SEND },
	{ "To a host where only sshd runs, and from one:",
	  "migtool send --rsh ssh guest.mem ssh://HOST/srv/guest.mem", 1u << CMD_SEND },
	{ NULL, "migtool recv --rsh 'ssh -J JUMP' ssh://USER@HOST/~/guest.mem guest.mem",
	  1u << CMD_RECV },
	{ "Take a guest from QEMU (there: migrate tcp:HOST:4444):", "migtool recv tcp::4444 guest/",
	  1u << CMD_RECV },
	{ "Give it to a QEMU 7.2 that waits with -incoming tcp::4444:",
	  "migtool send --peer qemu:7.2 guest/ tcp:HOST:4444", 1u << CMD_SEND },
	{ "Make a key for TLS, to be copied to the other host:", "migtool psk keys.psk",
	  1u << CMD_PSK },
	{ "Encrypted with it, as the destination has to be:",
	  "migtool send --param tls-creds=keys.psk guest.mem tcp:HOST:4444", 1u << CMD_SEND },
	{ "Ask whether this host can do it:", "migtool check --cap multifd --cap zero-copy-send",
	  1u << CMD_CHECK },
};

static bool concerns(unsigned commands, int command)
{
	return command < 0 || commands >> command & 1;
}

static void print_forms(int command)
{
	const char *lead = "Usage:";

	for (int i = 0; i < CMD__MAX; i++) {
		const struct command_info *c = &command_table[i];

		if (!command_shown(c) || !concerns(1u << i, command))
			continue;
		printf("%-6s migtool %s [OPTION]...%s%s\n", lead, c->name,
		       c->operands[0] ? " " : "", c->operands);
		lead = "";
	}
}

/* "-n, --dry-run", "    --progress[=auto|tty|json|none]" */
static void print_option(const struct option_row *row)
{
	char left[80];

	snprintf(left, sizeof(left), "%s%s%s%s%s%s", row->letter ? row->letter : "    ",
		 row->letter && row->flag ? ", " : "", row->flag ? row->flag : "",
		 row->arg == ARG_OPTIONAL   ? "[="
		 : row->arg == ARG_REQUIRED ? "="
					    : "",
		 row->arg ? row->metavar : "", row->arg == ARG_OPTIONAL ? "]" : "");
	text_row(stdout, 2, INDENT, left, row->help);
}

static void print_group(enum option_group group, int command)
{
	bool title = false;

	for (const struct option_row *r = option_table; r->flag || r->letter; r++) {
		if (r->group != group || !concerns(r->commands, command))
			continue;
		if (!title)
			printf("\n%s:\n", group_titles[group]);
		title = true;
		print_option(r);
	}
}

void answer_help(const struct option_row *row, int command)
{
	bool title = false;

	(void)row;
	print_forms(command);
	printf("\n");
	text_wrap(stdout, 0, 0,
		  command < 0 ? "Moves a guest's memory image between hosts, and to and from a "
				"QEMU, whose migration stream it speaks."
			      : command_table[command].help);
	if (command < 0) {
		printf("\nCommands:\n");
		for (int i = 0; i < CMD__MAX; i++)
			if (command_shown(&command_table[i]))
				text_row(stdout, 2, INDENT, command_table[i].name,
					 command_table[i].help);
	}
	for (int g = 0; g < GROUP__MAX; g++)
		print_group((enum option_group)g, command);
	printf("\nExit status:\n");
	for (const struct status_info *s = status_table; s->code; s++) {
		char number[16];

		snprintf(number, sizeof(number), "%5d", (int)s->status);
		text_row(stdout, 0, 7, number, s->text);
	}
	for (size_t i = 0; i < sizeof(examples) / sizeof(examples[0]); i++) {
		if (!concerns(examples[i].commands, command))
			continue;
		if (!title)
			printf("\nExamples:\n");
		title = true;
		if (examples[i].what)
			printf("  %s\n", examples[i].what);
		printf("    %s\n", examples[i].line);
	}
	printf("\nmigtool(1) has the rest.\n");
}

void answer_usage(const struct option_row *row, int command)
{
	(void)row;
	print_forms(command);
}

void answer_version(const struct option_row *row, int command)
{
	(void)row;
	(void)command;
	printf("migtool %s\n", MIGTOOL_VERSION);
}

/*
 * Listings: a line each, fields apart by tabs, "-" for an empty one. Options: flag, letter, value
 * ("=X": has one, "[=X]": may have one), commands, help.
 */
void answer_list_options(const struct option_row *row, int command)
{
	(void)row;
	for (const struct option_row *r = option_table; r->flag || r->letter; r++) {
		if (r->group == GROUP_HIDDEN || !concerns(r->commands, command))
			continue;
		printf("%s\t%s\t", r->flag ? r->flag : "-", r->letter ? r->letter : "-");
		if (r->arg)
			printf(r->arg == ARG_OPTIONAL ? "[=%s]" : "=%s", r->metavar);
		else
			printf("-");
		for (int i = 0, n = 0; i < CMD__MAX; i++)
			if (command_shown(&command_table[i]) && r->commands >> i & 1)
				printf("%c%s", n++ ? ',' : '\t', command_table[i].name);
		printf("\t%s\n", r->help);
	}
}

/* Name, operands, help. */
void answer_list_commands(const struct option_row *row, int command)
{
	(void)row;
	(void)command;
	for (int i = 0; i < CMD__MAX; i++)
		if (command_shown(&command_table[i]))
			printf("%s\t%s\t%s\n", command_table[i].name,
			       command_table[i].operands[0] ? command_table[i].operands : "-",
			       command_table[i].help);
}

/* Name, effect, what it does. */
void answer_list_caps(const struct option_row *row, int command)
{
	(void)row;
	(void)command;
	for (int i = 0; i < CAP__MAX; i++)
		printf("%s\t%s\t%s\n", cap_table[i].name, effect_name(cap_table[i].effect),
		       cap_table[i].what);
}

/* Name, effect, the values if they can be counted ("on,off"), what it does. */
void answer_list_params(const struct option_row *row, int command)
{
	(void)row;
	(void)command;
	for (int i = 0; i < PARAM__MAX; i++) {
		const struct param_info *p = &param_table[i];

		printf("%s\t%s\t%s", p->name, effect_name(p->effect),
		       p->type == PT_BOOL ? "on,off"
		       : p->values	  ? ""
					  : "-");
		for (int v = 0; p->values && p->values[v]; v++)
			printf("%s%s", v ? "," : "", p->values[v]);
		printf("\t%s\n", p->what);
	}
}

/* How URIs begin, the colon too; what is known and not built is left out. */
void answer_list_schemes(const struct option_row *row, int command)
{
	(void)row;
	(void)command;
	for (int i = 0; i <= SCHEME_IMAGE; i++)
		printf("%s:\n", uri_scheme_name((enum scheme)i));
}

/* Number, the JSON's error-code, what it means. */
void answer_list_statuses(const struct option_row *row, int command)
{
	(void)row;
	(void)command;
	for (const struct status_info *s = status_table; s->code; s++)
		printf("%d\t%s\t%s\n", (int)s->status, s->code, s->text);
}
