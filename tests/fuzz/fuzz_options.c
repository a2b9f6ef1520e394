// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The command line. Input: the words behind the program's name, a newline behind each. Whatever
 * they are, there is a config in which every value is in its range, an answer on stdout, or an
 * error with words and one of two statuses.
 */
#include "fuzz.h"

#include "options.h"
#include "options-table.h"

#define MAX_WORDS 64

/* Cuts the text into words; the last one may lack its newline. */
static int cut(char *text, char *argv[MAX_WORDS + 2])
{
	static char program[] = "migtool";
	int argc = 0;
	char *end;

	argv[argc++] = program;
	while (*text && argc <= MAX_WORDS) {
		argv[argc++] = text;
		end = strchr(text, '\n');
		if (!end)
			break;
		*end = '\0';
		text = end + 1;
	}
	argv[argc] = NULL;
	return argc;
}

static void judge_params(const struct params *p)
{
	char text[64];
	struct error err;
	struct params again;

	for (int i = 0; i < PARAM__MAX; i++) {
		const struct param_info *info = &param_table[i];

		FUZZ_CHECK(info->type == PT_STR || p->num[i] >= info->min);
		FUZZ_CHECK(info->type == PT_STR || p->num[i] <= info->max);
		FUZZ_CHECK(!p->given[i] || info->effect != EFFECT_REFUSED);
		if (info->effect == EFFECT_REFUSED)
			continue;
		/* what is printed is what can be typed */
		params_init(&again);
		param_format(p, (enum param)i, text, sizeof(text));
		FUZZ_CHECK(param_set(&again, (enum param)i, text, &err) == 0);
		FUZZ_CHECK(again.num[i] == p->num[i]);
		params_free(&again);
	}
}

static void judge(const struct config *cfg)
{
	FUZZ_CHECK(cfg->command < CMD__MAX && command_table[cfg->command].built);
	FUZZ_CHECK(cfg->command > CMD_RECV || (cfg->image && *cfg->image && cfg->uri && *cfg->uri));
	FUZZ_CHECK(!(cfg->page_size & (cfg->page_size - 1)) && cfg->page_size <= 65536);
	FUZZ_CHECK(cfg->timeout >= -1 && cfg->timeout <= 2147483 && cfg->ready_fd >= -1);
	FUZZ_CHECK(!cfg->uuid || strlen(cfg->uuid) == 36);
	FUZZ_CHECK(!cfg->machine || strlen(cfg->machine) <= 255);
	FUZZ_CHECK(!cfg->peer_version || cfg->peer == PEER_QEMU);
	FUZZ_CHECK(!cfg->argv || (cfg->command == CMD_RECV && cfg->argv[0]));
	for (int i = 0; i < CAP__MAX; i++)
		FUZZ_CHECK(!cfg->caps.on[i] || cfg->caps.given[i]);
	judge_params(&cfg->params);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static FILE *nowhere;
	char *argv[MAX_WORDS + 2], *text = calloc(1, size + 1);
	struct error err = { 0 };
	struct config cfg;
	int argc, r;

	FUZZ_CHECK(text);
	if (size)
		memcpy(text, data, size);
	/* --help and its like print; the target's own lines are on the real stdout */
	if (!nowhere)
		nowhere = fopen("/dev/null", "w");
	FUZZ_CHECK(nowhere);
	argc = cut(text, argv);
	{
		FILE *saved = stdout;

		stdout = nowhere;
		r = options_parse(&cfg, argc, argv, &err);
		stdout = saved;
	}
	if (r == 0)
		judge(&cfg);
	else
		FUZZ_CHECK(r == 1 || (err.msg[0] &&
				      (err.status == ST_USAGE || err.status == ST_UNSUPPORTED)));
	options_free(&cfg);
	free(text);
	return 0;
}
