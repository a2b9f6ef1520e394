// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * argv to struct config, in four steps.
 *
 * 1. split: what stands behind the first `--` is COMMAND's and never looked at.
 * 2. sort: options with their values, in order, apart from operands.
 * 3. popt judges the options: is each known, does it get a value, may it have one?
 * 4. each row's setter takes its value; the config is checked as a whole.
 *
 * popt does not get argv as it is, for it would
 * - drop the `--` that parts our operands from COMMAND;
 * - take the next word as an optional value (`--progress IMAGE`);
 * - stop at the first operand under POSIXLY_CORRECT, and treat what follows as operands;
 * - replace "!#:+" inside a value by the word behind it.
 * So it gets the options alone and a stand-in for each value; the values wait in a list.
 */
#include "options.h"

#include "options-table.h"
#include "suggest.h"

#include <popt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STAND_IN "value"

/* Steps 2 and 3. All strings are argv's or constants. */
struct words {
	const char **options; /* for popt: its argv[0], flags and stand-ins, NULL */
	int n_options;
	const char **values; /* one for each option with a value, in order */
	int n_values, next_value;
	const char **operands;
	int n_operands;
};

static size_t row_count(void)
{
	size_t n = 0;

	while (option_table[n].flag || option_table[n].letter)
		n++;
	return n;
}

static const struct option_row *find_flag(const char *word, size_t len)
{
	for (const struct option_row *r = option_table; r->flag || r->letter; r++)
		if (r->flag && strlen(r->flag) == len && !strncmp(r->flag, word, len))
			return r;
	return NULL;
}

static const struct option_row *find_letter(char letter)
{
	for (const struct option_row *r = option_table; r->flag || r->letter; r++)
		if (r->letter && r->letter[1] == letter)
			return r;
	return NULL;
}

static void words_free(struct words *w)
{
	free(w->options);
	free(w->values);
	free(w->operands);
}

static int words_alloc(struct words *w, int argc, char **argv, struct error *err)
{
	size_t n = 2;

	/* A cluster of letters becomes one word a letter, each with a stand-in at most. */
	for (int i = 0; i < argc; i++)
		n += 2 * (strlen(argv[i]) + 1);
	memset(w, 0, sizeof(*w));
	w->options = calloc(n, sizeof(*w->options));
	w->values = calloc(n, sizeof(*w->values));
	w->operands = calloc(n, sizeof(*w->operands));
	if (!w->options || !w->values || !w->operands) {
		words_free(w);
		return err_set(err, ST_NOMEM, "out of memory for the command line");
	}
	w->options[w->n_options++] = "migtool";
	return 0;
}

static void add_value(struct words *w, const char *value)
{
	w->options[w->n_options++] = STAND_IN;
	w->values[w->n_values++] = value;
}

/*
 * One word that begins with "--". `next` is the word behind it, or NULL. Returns how many words
 * were used. What is wrong goes to popt as it is, so that popt says so.
 */
static int sort_long(struct words *w, const char *word, const char *next)
{
	const char *eq = strchr(word, '=');
	const struct option_row *row = find_flag(word, eq ? (size_t)(eq - word) : strlen(word));

	if (!row || (row->arg == ARG_NONE && eq)) {
		w->options[w->n_options++] = word;
		return 1;
	}
	w->options[w->n_options++] = row->flag;
	if (eq) {
		add_value(w, eq + 1);
		return 1;
	}
	if (row->arg == ARG_REQUIRED && next) {
		add_value(w, next);
		return 2;
	}
	if (row->arg == ARG_OPTIONAL)
		add_value(w, NULL);
	return 1;
}

/* One word that begins with "-" and a letter, as sort_long. "-oVALUE" and "-o=VALUE" are one. */
static int sort_letters(struct words *w, const char *word, const char *next)
{
	for (const char *p = word + 1; *p; p++) {
		const struct option_row *row = find_letter(*p);

		if (!row) {
			w->options[w->n_options++] = word;
			return 1;
		}
		w->options[w->n_options++] = row->letter;
		if (row->arg != ARG_REQUIRED)
			continue;
		if (p[1]) {
			add_value(w, p + 1 + (p[1] == '='));
			return 1;
		}
		if (next) {
			add_value(w, next);
			return 2;
		}
	}
	return 1;
}

static void sort_words(struct words *w, int argc, char **argv)
{
	for (int i = 0; i < argc;) {
		const char *next = i + 1 < argc ? argv[i + 1] : NULL;

		if (!strncmp(argv[i], "--", 2))
			i += sort_long(w, argv[i], next);
		else if (argv[i][0] == '-' && argv[i][1])
			i += sort_letters(w, argv[i], next);
		else
			w->operands[w->n_operands++] = argv[i++];
	}
}

static int bad_option(poptContext ctx, int code, struct error *err)
{
	const char *word = poptBadOption(ctx, POPT_BADOPTION_NOALIAS);
	char name[64];
	struct suggest near;

	snprintf(name, sizeof(name), "%.*s", (int)strcspn(word, "="), word);
	if (code == POPT_ERROR_NOARG)
		return err_set(err, ST_USAGE, "option %s has no value", name);
	if (code == POPT_ERROR_UNWANTEDARG)
		return err_set(err, ST_USAGE, "option %s takes no value", name);
	if (code != POPT_ERROR_BADOPT)
		return err_set(err, ST_USAGE, "option %s: %s", name, poptStrerror(code));
	err_set(err, ST_USAGE, "unknown option %s", name);
	suggest_init(&near, name);
	for (const struct option_row *r = option_table; r->flag || r->letter; r++)
		if (r->flag && r->group != GROUP_HIDDEN)
			suggest_offer(&near, r->flag);
	/* "-cap": with one dash popt looked at letters */
	if (near.best)
		return err_hint(err, "did you mean %s?", near.best);
	return err_hint(err, "migtool --help lists the options");
}

static int find_command(const char *word, struct error *err)
{
	struct suggest near;

	suggest_init(&near, word);
	for (int i = 0; i < CMD__MAX; i++) {
		if (!strcmp(word, command_table[i].name))
			return i;
		if (command_shown(&command_table[i]))
			suggest_offer(&near, command_table[i].name);
	}
	err_set(err, ST_USAGE, "unknown command \"%s\"", word);
	if (near.best)
		return err_hint(err, "did you mean %s?", near.best);
	return err_hint(err, "migtool --help lists the commands");
}

/* Which commands take the option, "send, recv". */
static const char *takers(const struct option_row *row, char *buf, size_t len)
{
	size_t n = 0;

	buf[0] = '\0';
	for (int i = 0; i < CMD__MAX && n < len; i++)
		if (row->commands >> i & 1)
			n += (size_t)snprintf(buf + n, len - n, "%s%s", n ? ", " : "",
					      command_table[i].name);
	return buf;
}

static int take_option(struct config *cfg, const struct option_row *row, const char *value,
		       struct error *err)
{
	unsigned bit = 1u << cfg->command;
	char buf[80];

	if (!(row->commands & bit)) {
		err_set(err, ST_USAGE, "%s does not take the option %s",
			command_table[cfg->command].name, option_name(row));
		if (!row->commands)
			return -1;
		return err_hint(err, "it belongs to: %s", takers(row, buf, sizeof(buf)));
	}
	return row->set(cfg, row, value, err);
}

/*
 * Step 3 and 4 for the options. The first pass (cfg NULL) only judges and finds the first option
 * that answers by itself; the second one sets. -1, or 0.
 */
static int walk_options(struct words *w, const struct poptOption *table, struct config *cfg,
			const struct option_row **answers, struct error *err)
{
	poptContext ctx = poptGetContext(NULL, w->n_options, w->options, table, 0);
	int code, r = 0;

	if (!ctx)
		return err_set(err, ST_NOMEM, "out of memory for the command line");
	w->next_value = 0;
	while (!r && (code = poptGetNextOpt(ctx)) > 0) {
		const struct option_row *row = &option_table[code - 1];
		const char *value = NULL;

		if (row->arg != ARG_NONE) {
			free(poptGetOptArg(ctx));
			value = w->values[w->next_value++];
		}
		if (cfg)
			r = take_option(cfg, row, value, err);
		else if (row->answer && !*answers)
			*answers = row;
	}
	if (!r && code < -1)
		r = bad_option(ctx, code, err);
	poptFreeContext(ctx);
	return r;
}

/* The rows in popt's form; popt returns the row's index plus one. */
static struct poptOption *popt_table(struct error *err)
{
	size_t n = row_count();
	struct poptOption *table = calloc(n + 1, sizeof(*table));

	if (!table) {
		err_set(err, ST_NOMEM, "out of memory for the command line");
		return NULL;
	}
	for (size_t i = 0; i < n; i++) {
		const struct option_row *row = &option_table[i];

		table[i].longName = row->flag ? row->flag + 2 : NULL;
		table[i].shortName = row->letter ? row->letter[1] : '\0';
		table[i].argInfo = row->arg == ARG_NONE ? POPT_ARG_NONE : POPT_ARG_STRING;
		table[i].val = (int)i + 1;
	}
	return table;
}

static int take_operands(struct config *cfg, const struct words *w, struct error *err)
{
	const struct command_info *c = &command_table[cfg->command];
	int n = w->n_operands - 1;
	const char *const *o = w->operands + 1;

	if (n < c->min || n > c->max) {
		if (n > c->max)
			err_set(err, ST_USAGE, "%s: unexpected \"%s\"", c->name, o[c->max]);
		else
			err_set(err, ST_USAGE, "%s: %s", c->name,
				n ? "an operand is missing" : "operands are missing");
		return err_hint(err, "migtool %s [OPTION]...%s%s", c->name,
				c->operands[0] ? " " : "", c->operands);
	}
	for (int i = 0; i < n; i++)
		if (!o[i][0])
			return err_set(err, ST_USAGE, "%s: an operand is empty", c->name);
	switch (cfg->command) {
	case CMD_SEND:
		cfg->image = o[0];
		cfg->uri = o[1];
		break;
	case CMD_RECV:
		cfg->uri = o[0];
		cfg->image = n > 1 ? o[1] : NULL;
		break;
	case CMD_CHECK:
		cfg->uri = n ? o[0] : NULL;
		break;
	case CMD_JOIN:
	case CMD_PSK:
		cfg->image = o[0];
		break;
	default:
		break;
	}
	return 0;
}

static bool is_image(const struct config *cfg)
{
	return cfg->uri && !strncmp(cfg->uri, "image:", 6);
}

/* The first option given that wants a peer or an IMAGE to write, or NULL. */
static const char *transfer_option(const struct config *cfg)
{
	const struct {
		bool given;
		const char *name;
	} all[] = {
		{ cfg->connect, "--connect" },
		{ cfg->one_way, "--one-way" },
		{ cfg->peer != PEER_UNSET, "--peer" },
		{ cfg->delta, "--delta" },
		{ cfg->resume && cfg->argv,
		  "--resume with a COMMAND, which runs already: --guest PID" },
		{ cfg->retry != 0, "--retry" },
		{ cfg->in_place, "--in-place" },
		{ cfg->device_state != NULL, "--device-state" },
		{ cfg->dry_run, "--dry-run" },
		{ cfg->notify, "--notify" },
		{ cfg->uffd_socket && cfg->image, "an IMAGE to write" },
	};

	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
		if (all[i].given)
			return all[i].name;
	return NULL;
}

/* What does not go with a guest whose memory comes from another host, or NULL. */
static const char *guest_conflict(const struct config *cfg)
{
	const struct {
		bool given;
		const char *name;
	} all[] = {
		{ cfg->one_way, "--one-way" },
		{ cfg->peer == PEER_QEMU, "--peer qemu" },
		{ cfg->delta, "--delta" },
		{ cfg->resume && cfg->argv,
		  "--resume with a COMMAND, which runs already: --guest PID" },
		{ cfg->resume && cfg->uffd_socket && cfg->image,
		  "--resume with an IMAGE to write" },
		{ cfg->caps.given[CAP_POSTCOPY_RAM] && !cfg->caps.on[CAP_POSTCOPY_RAM],
		  "--cap postcopy-ram=off" },
		{ cfg->uffd_socket && cfg->image && cfg->push_off, "an IMAGE with --push=off" },
	};

	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
		if (all[i].given)
			return all[i].name;
	return NULL;
}

static int check_guest(const struct config *cfg, struct error *err)
{
	const char *other = guest_conflict(cfg);
	const char *both = cfg->uffd_socket && cfg->argv ? "a COMMAND with --uffd-socket"
			   : cfg->uffd_socket && cfg->guest && !cfg->resume
				   ? "--guest with --uffd-socket, but for --resume"
			   : cfg->guest && cfg->argv ? "a COMMAND with --guest"
						     : NULL;

	if (cfg->notify && !cfg->argv) {
		err_set(err, ST_USAGE,
			"--notify needs a COMMAND, which is to say that it is ready");
		return err_hint(err, "a VMM is ready when it has handed its userfaultfd over");
	}
	if (both)
		return err_set(err, ST_USAGE, "%s: only one of them can be the guest", both);
	if (is_image(cfg) || !other)
		return 0;
	return err_set(err, ST_USAGE,
		       "%s does not go with a guest that runs before its memory has arrived",
		       other);
}

/* What serves a guest's faults, and what does not go with it. */
static int check_lazy(const struct config *cfg, struct error *err)
{
	const char *other = transfer_option(cfg);
	const char *guests = cfg->push_given	 ? "--push"
			     : cfg->record	 ? "--record"
			     : cfg->prefetch	 ? "--prefetch"
			     : cfg->kill_on_loss ? "--on-loss"
			     : cfg->notify	 ? "--notify"
						 : NULL;

	if (is_image(cfg) && cfg->command != CMD_RECV) {
		err_set(err, ST_USAGE,
			"image: is for recv: an image on this host has no other end");
		return err_hint(err, "migtool recv --uffd-socket PATH image:IMAGE");
	}
	if (is_image(cfg) && !cfg->uffd_socket && !cfg->argv && !cfg->guest) {
		err_set(err, ST_USAGE, "image: needs a guest to serve");
		return err_hint(err,
				"a COMMAND that maps IMAGE, --guest PID, or --uffd-socket PATH "
				"for a VMM that hands its userfaultfd over");
	}
	if (guests && !config_has_guest(cfg)) {
		err_set(err, ST_USAGE, "%s needs a guest to serve", guests);
		return err_hint(err, "--uffd-socket PATH, --guest PID, or a COMMAND with --cap "
				     "postcopy-ram=on");
	}
	if (config_has_guest(cfg) && check_guest(cfg, err))
		return -1;
	if (is_image(cfg) && other)
		return err_set(err, ST_USAGE,
			       "%s does not go with image:, which is served where "
			       "it is",
			       other);
	return 0;
}

static bool is_ssh(const struct config *cfg)
{
	return cfg->uri && !strncmp(cfg->uri, "ssh:", 4);
}

static int only_ssh(const char *option, struct error *err)
{
	err_set(err, ST_USAGE, "%s needs an ssh: URI", option);
	return err_hint(err, "migtool send IMAGE ssh://[USER@]HOST/PATH");
}

/* What is about the far side's login, and what a sender can tell the far side's recv. */
static int check_ssh(const struct config *cfg, struct error *err)
{
	bool ssh = is_ssh(cfg), send = cfg->command == CMD_SEND, force;

	if (ssh && (cfg->listen || cfg->connect || cfg->one_way || cfg->peer == PEER_QEMU)) {
		err_set(err, ST_USAGE, "%s does not go with an ssh: URI",
			cfg->listen    ? "--listen"
			: cfg->connect ? "--connect"
			: cfg->one_way ? "--one-way"
				       : "--peer qemu");
		return err_hint(err, "at its far end a migtool is started, which answers");
	}
	if (ssh && params_tls(&cfg->params)) {
		err_set(err, ST_USAGE, "tls-creds does not go with an ssh: URI");
		return err_hint(err, "ssh encrypts and knows both ends already");
	}
	if (cfg->far && strcmp(cfg->uri, "stdio:"))
		return err_set(err, ST_USAGE, "--far is for the far end of an ssh: URI");
	if (ssh)
		return 0;
	if (cfg->rsh || cfg->remote_command)
		return only_ssh(cfg->rsh ? "--rsh" : "--remote-command", err);
	if (cfg->ssh_port || cfg->identities.n || cfg->ssh_options.n)
		return only_ssh(cfg->ssh_port	    ? "--port"
				: cfg->identities.n ? "--identity"
						    : "--ssh-option",
				err);
	force = cfg->force && !cfg->caps.on[CAP_RELEASE_RAM] &&
		!(cfg->resume && cfg->caps.on[CAP_POSTCOPY_RAM]);
	if (!send || (!force && !cfg->in_place && !cfg->delta))
		return 0;
	err_set(err, ST_USAGE, "%s is for the destination to say, unless it is an ssh: URI's",
		force		? "--force"
		: cfg->in_place ? "--in-place"
				: "--delta");
	return err_hint(err, "give it to `migtool recv`");
}

/* What lets a pause end, and does not carry the stream too. */
static int check_pause(const struct config *cfg, struct error *err)
{
	char stream[32];

	if (cfg->continue_fd < 0)
		return 0;
	if (!cfg->caps.on[CAP_PAUSE_BEFORE_SWITCHOVER]) {
		err_set(err, ST_USAGE, "--continue-fd lets a pause end, and there is none");
		return err_hint(err, "--cap pause-before-switchover=on");
	}
	snprintf(stream, sizeof(stream), "fd:%d", cfg->continue_fd);
	if (strcmp(cfg->uri, stream) && (strcmp(cfg->uri, "stdio:") || cfg->continue_fd > 1))
		return 0;
	return err_set(err, ST_USAGE, "--continue-fd %d: the stream is there", cfg->continue_fd);
}

/* What only makes sense, or does not, together. */
static int check_config(const struct config *cfg, struct error *err)
{
	if (cfg->argv && cfg->command != CMD_RECV) {
		err_set(err, ST_USAGE, "%s takes nothing behind --",
			command_table[cfg->command].name);
		return err_hint(err, "recv starts a COMMAND");
	}
	if (cfg->argv && (!cfg->argv[0] || !cfg->argv[0][0]))
		return err_set(err, ST_USAGE, "no COMMAND behind --");
	if (check_ssh(cfg, err) || check_lazy(cfg, err) || check_pause(cfg, err))
		return -1;
	if (cfg->command == CMD_RECV && !cfg->image && !cfg->uffd_socket) {
		err_set(err, ST_USAGE, "recv: an operand is missing");
		return err_hint(err, "migtool recv [OPTION]... URI IMAGE [-- COMMAND [ARG]...]");
	}
	return params_check(&cfg->params, cfg->page_size ? cfg->page_size : 4096, err);
}

static int parse_words(struct config *cfg, struct words *w, struct error *err)
{
	struct poptOption *table = popt_table(err);
	const struct option_row *answers = NULL;
	int command = -1, r = -1;

	if (!table || walk_options(w, table, NULL, &answers, err))
		goto out;
	if (w->n_operands) {
		command = find_command(w->operands[0], err);
		if (command < 0)
			goto out;
	}
	if (answers) {
		answers->answer(answers, command);
		r = 1;
		goto out;
	}
	if (command < 0) {
		err_set(err, ST_USAGE, "no command");
		err_hint(err, "migtool --help lists the commands");
		goto out;
	}
	cfg->command = (enum command)command;
	if (!command_table[command].built) {
		err_set(err, ST_UNSUPPORTED, "command %s is not built yet",
			command_table[command].name);
		goto out;
	}
	if (walk_options(w, table, cfg, NULL, err) || take_operands(cfg, w, err) ||
	    check_config(cfg, err))
		goto out;
	r = 0;
out:
	free(table);
	return r;
}

int options_parse(struct config *cfg, int argc, char **argv, struct error *err)
{
	struct words w;
	int n = 0, r;

	memset(cfg, 0, sizeof(*cfg));
	params_init(&cfg->params);
	cfg->timeout = -1;
	cfg->ready_fd = cfg->continue_fd = -1;
	if (argc > 0) {
		argv++;
		argc--;
	}
	while (n < argc && strcmp(argv[n], "--"))
		n++;
	if (n < argc)
		cfg->argv = argv + n + 1;
	if (words_alloc(&w, n, argv, err))
		return -1;
	sort_words(&w, n, argv);
	r = parse_words(cfg, &w, err);
	words_free(&w);
	return r;
}

void options_free(struct config *cfg)
{
	params_free(&cfg->params);
}
