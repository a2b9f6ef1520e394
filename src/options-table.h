/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The option table and the command table. Parsing, the check which command takes which option,
 * --help, --usage, the completions' listings and the manual's test are all fed from these two.
 */
#ifndef MIGTOOL_OPTIONS_TABLE_H
#define MIGTOOL_OPTIONS_TABLE_H

#include "config.h"

#include <stddef.h>

enum option_arg { ARG_NONE, ARG_REQUIRED, ARG_OPTIONAL };

enum option_group {
	GROUP_TRAVEL,
	GROUP_NAMES,
	GROUP_PEER,
	GROUP_IMAGE,
	GROUP_GUEST,
	GROUP_SSH,
	GROUP_OUTPUT,
	GROUP_HELP,
	GROUP__MAX,
	GROUP_HIDDEN = GROUP__MAX, /* listings, test switches */
};

struct option_row {
	const char *flag;   /* "--cap", or NULL */
	const char *letter; /* "-n", or NULL */
	enum option_arg arg;
	const char *metavar; /* what to write for the value; words apart by | are all there are */
	unsigned commands;   /* who takes it, bits of enum command */
	enum option_group group;
	const char *help;
	/* Takes the value (NULL for ARG_NONE) into the config. NULL: it answers by itself */
	int (*set)(struct config *cfg, const struct option_row *row, const char *value,
		   struct error *err);
	size_t field; /* offset in struct config, for set */
	void (*answer)(const struct option_row *row, int command); /* command: -1 for none */
};

/* Ends with a row that has neither flag nor letter. */
extern const struct option_row option_table[];

struct command_info {
	const char *name;
	const char *operands; /* for the synopsis */
	int min, max;	      /* how many operands */
	bool built;
	const char *help;
	bool hidden; /* not for people: in no listing */
};

/* What listings show. */
static inline bool command_shown(const struct command_info *c)
{
	return c->built && !c->hidden;
}

/* By enum command. */
extern const struct command_info command_table[CMD__MAX];

/* "--dry-run", else "-i": how messages call an option. */
static inline const char *option_name(const struct option_row *row)
{
	return row->flag ? row->flag : row->letter;
}

/* What --help, --usage, --version and the hidden listings print, on stdout. */
void answer_help(const struct option_row *row, int command);
void answer_usage(const struct option_row *row, int command);
void answer_version(const struct option_row *row, int command);
void answer_list_options(const struct option_row *row, int command);
void answer_list_commands(const struct option_row *row, int command);
void answer_list_caps(const struct option_row *row, int command);
void answer_list_params(const struct option_row *row, int command);
void answer_list_schemes(const struct option_row *row, int command);
void answer_list_statuses(const struct option_row *row, int command);

#endif
