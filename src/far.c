// SPDX-License-Identifier: GPL-2.0-or-later
#include "far.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The words so far. A failed allocation is remembered, and asked for once at the end. */
struct line {
	char *text;
	size_t len, cap;
	bool failed;
	bool broken; /* a word has a line break in it */
};

static void put(struct line *l, const char *s, size_t n)
{
	if (!l->failed && l->len + n + 1 > l->cap) {
		size_t cap = 2 * (l->len + n) + 256;
		char *more = realloc(l->text, cap);

		if (more)
			l->text = more;
		else
			l->failed = true;
		l->cap = cap;
	}
	if (l->failed)
		return;
	memcpy(l->text + l->len, s, n);
	l->len += n;
	l->text[l->len] = '\0';
}

/*
 * One more word, quoted where a shell could see anything but a word in it. The login's shell need
 * not be one that POSIX would call so: between apostrophes fish sees a backslash, and csh a
 * history's !, so these stand outside, each behind a backslash, as an apostrophe does. A line break
 * is one in csh wherever it stands, and what follows it another command: it is refused.
 */
static void add(struct line *l, const char *word)
{
	static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
				    "-_./:,+@%=";

	put(l, " ", 1);
	/* zsh takes =word for a command's path */
	if (*word && *word != '=' && strspn(word, plain) == strlen(word)) {
		put(l, word, strlen(word));
		return;
	}
	l->broken = l->broken || strchr(word, '\n');
	put(l, "'", 1);
	for (; *word; word++) {
		const char outside[] = { '\'', '\\', *word, '\'' };

		if (strchr("'\\!", *word))
			put(l, outside, sizeof(outside));
		else
			put(l, word, 1);
	}
	put(l, "'", 1);
}

static void add_option(struct line *l, const char *flag, const char *value)
{
	char text[1024];

	if (!value)
		return;
	if (snprintf(text, sizeof(text), "%s=%s", flag, value) >= (int)sizeof(text))
		l->failed = true;
	else
		add(l, text);
}

static void add_caps(struct line *l, const struct cap_set *caps)
{
	char text[80];

	for (int i = 0; i < CAP__MAX; i++) {
		if (!caps->given[i] || i == CAP_EVENTS) /* lines on our own stdout */
			continue;
		snprintf(text, sizeof(text), "%s=%s", cap_table[i].name,
			 caps->on[i] ? "on" : "off");
		add_option(l, "--cap", text);
	}
}

static void add_params(struct line *l, const struct params *p)
{
	char text[600], value[512];

	for (int i = 0; i < PARAM__MAX; i++) {
		/* a text names something on this host */
		if (!p->given[i] || param_table[i].type == PT_STR)
			continue;
		snprintf(text, sizeof(text), "%s=%s", param_table[i].name,
			 param_format(p, (enum param)i, value, sizeof(value)));
		add_option(l, "--param", text);
	}
}

/* One level less than here: what goes well, this side says. */
static void add_verbosity(struct line *l, int verbosity)
{
	for (int v = verbosity - 1; v; v += v < 0 ? 1 : -1)
		add(l, v < 0 ? "-q" : "-v");
}

static void add_number(struct line *l, const char *flag, int64_t n)
{
	char text[32];

	snprintf(text, sizeof(text), "%lld", (long long)n);
	add_option(l, flag, text);
}

/* What the source of a pull has to know: it is there, the user is here. */
static void add_for_source(struct line *l, const struct config *cfg)
{
	/* a guest here wants it there, whether or not the user has said so */
	if (config_has_guest(cfg) && !cfg->caps.given[CAP_POSTCOPY_RAM])
		add_option(l, "--cap", "postcopy-ram=on");
	add_option(l, "--block-name", cfg->block_name);
	add_option(l, "--machine", cfg->machine);
	add_option(l, "--uuid", cfg->uuid);
	if (cfg->page_size)
		add_number(l, "--page-size", cfg->page_size);
}

static void add_for_destination(struct line *l, const struct config *cfg)
{
	if (cfg->force)
		add(l, "--force");
	if (cfg->in_place)
		add(l, "--in-place");
	if (cfg->delta || cfg->base)
		add(l, "--delta");
}

static int start(struct line *l, const struct config *cfg, struct error *err)
{
	const char *command = cfg->remote_command ? cfg->remote_command : "migtool";

	memset(l, 0, sizeof(*l));
	if (command[strspn(command, " \t\n")] == '\0' || strpbrk(command, "\n\r"))
		return err_set(err, ST_USAGE, "--remote-command is no line for a shell");
	put(l, command, strlen(command));
	return 0;
}

static char *finish(struct line *l, struct error *err)
{
	if (!l->failed && !l->broken)
		return l->text;
	free(l->text);
	if (!l->failed) {
		err_set(err, ST_USAGE,
			"a line break in what the far side is told: its login's shell may take "
			"what follows for a command");
		return err_hint(err, "name the image by a path without one"), NULL;
	}
	err_set(err, ST_NOMEM, "no memory for the far side's command line");
	return NULL;
}

char *far_command(const struct config *cfg, const struct uri *uri, enum role role,
		  struct error *err)
{
	bool push = role == ROLE_SOURCE;
	struct line l;

	if (start(&l, cfg, err))
		return NULL;
	add(&l, push ? "recv" : "send");
	add(&l, "--far");
	add_verbosity(&l, cfg->verbosity);
	add_caps(&l, &cfg->caps);
	add_params(&l, &cfg->params);
	if (cfg->timeout >= 0)
		add_number(&l, "--timeout", cfg->timeout);
	if (cfg->no_sandbox)
		add(&l, "--no-sandbox");
	if (cfg->resume || cfg->retry) /* each try is a process of its own there */
		add(&l, "--resume");
	if (push)
		add_for_destination(&l, cfg);
	else
		add_for_source(&l, cfg);
	if (push)
		add(&l, "stdio:");
	add(&l, uri->path);
	if (!push)
		add(&l, "stdio:");
	return finish(&l, err);
}

char *far_join_command(const struct config *cfg, const char *id, struct error *err)
{
	struct line l;

	if (start(&l, cfg, err))
		return NULL;
	add(&l, "join");
	add(&l, id);
	return finish(&l, err);
}

char *far_name(const struct uri *uri, char *buf, size_t len)
{
	snprintf(buf, len, "%s%s%s", uri->user ? uri->user : "", uri->user ? "@" : "", uri->host);
	return buf;
}

bool far_is_id(const char *id)
{
	return strspn(id, "0123456789abcdef") == FAR_ID_LEN && !id[FAR_ID_LEN];
}
