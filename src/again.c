// SPDX-License-Identifier: GPL-2.0-or-later
#include "again.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* As a shell has to read it. */
static void put_text(FILE *f, const char *word)
{
	static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
				    "0123456789-._/:=,@%+";

	if (*word && !word[strspn(word, plain)]) {
		fputs(word, f);
		return;
	}
	fputc('\'', f);
	for (; *word; word++) {
		if (*word == '\'')
			fputs("'\\'", f);
		fputc(*word, f);
	}
	fputc('\'', f);
}

static void put_word(FILE *f, const char *word)
{
	fputc(' ', f);
	put_text(f, word);
}

static bool is_far(const struct config *cfg)
{
	return strncmp(cfg->uri, "image:", 6) != 0;
}

static void put_param(FILE *f, const char *name, const char *value)
{
	if (!value)
		return;
	fprintf(f, " --param %s=", name);
	put_text(f, value);
}

/* Both ends'. Without the names of whom to believe any holder of a certificate would be let in. */
static void put_far_options(FILE *f, const struct config *cfg)
{
	if (cfg->retry)
		fprintf(f, " --retry %u", cfg->retry);
	put_param(f, "tls-creds", params_tls_creds(&cfg->params));
	put_param(f, "tls-hostname", params_tls_hostname(&cfg->params));
	put_param(f, "tls-authz", params_tls_authz(&cfg->params));
	if (cfg->listen)
		fputs(" --listen", f);
	if (cfg->connect)
		fputs(" --connect", f);
}

char *lazy_again(const struct config *cfg, pid_t pid)
{
	char *text = NULL;
	size_t len;
	FILE *f = open_memstream(&text, &len);

	if (!f)
		return NULL;
	fputs("migtool recv --resume", f);
	if (is_far(cfg))
		put_far_options(f, cfg);
	if (cfg->push_off)
		fputs(" --push=off", f);
	if (cfg->kill_on_loss)
		fputs(" --on-loss=kill", f);
	if (cfg->uffd_socket) {
		fputs(" --uffd-socket", f);
		put_word(f, cfg->uffd_socket);
	} else {
		fprintf(f, " --guest %ld", (long)pid);
	}
	put_word(f, cfg->uri);
	/* one that was kept beside a VMM's memory is begun once */
	if (cfg->image && !cfg->uffd_socket)
		put_word(f, cfg->image);
	fputs(" takes it up again", f);
	if (!fclose(f))
		return text;
	free(text);
	return NULL;
}

char *send_again(const struct config *cfg)
{
	char *text = NULL;
	size_t len;
	FILE *f = open_memstream(&text, &len);

	if (!f)
		return NULL;
	fputs("migtool send --resume --cap postcopy-ram=on", f);
	put_far_options(f, cfg);
	put_word(f, cfg->image);
	put_word(f, cfg->uri);
	fputs(" goes on with it, when it is waited for there", f);
	if (!fclose(f))
		return text;
	free(text);
	return NULL;
}
