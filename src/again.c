// SPDX-License-Identifier: GPL-2.0-or-later
#include "again.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* One word of a shell's. */
static void put_word(FILE *f, const char *word)
{
	static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
				    "0123456789-._/:=,@%+";

	fputc(' ', f);
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

char *lazy_again(const struct config *cfg, pid_t pid)
{
	bool here = !strncmp(cfg->uri, "image:", 6);
	char *text = NULL;
	size_t len;
	FILE *f = open_memstream(&text, &len);

	if (!f)
		return NULL;
	fputs("migtool recv --resume", f);
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
	if (here)
		put_word(f, cfg->uri);
	else
		fputs(" image:IMAGE", f);
	if (cfg->image)
		put_word(f, cfg->image);
	fputs(here ? " takes it up again"
		   : " takes it up again, IMAGE being the source's, on this host",
	      f);
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
	if (cfg->listen)
		fputs(" --listen", f);
	put_word(f, cfg->image);
	put_word(f, cfg->uri);
	fputs(" goes on with it, when it is waited for there", f);
	if (!fclose(f))
		return text;
	free(text);
	return NULL;
}
