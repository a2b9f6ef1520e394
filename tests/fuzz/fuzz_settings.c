// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Arguments of --cap and of --param, a line each, all into one set. Whatever they are, every value
 * stays in its range, and a bad argument changes nothing.
 */
#include "fuzz.h"

#include "caps.h"
#include "params.h"

static void try_cap(const char *arg)
{
	struct cap_set set = { 0 }, none = { 0 };
	struct error err = { 0 };

	if (cap_parse(&set, arg, &err))
		FUZZ_CHECK(err.status == ST_USAGE && err.msg[0] &&
			   !memcmp(&set, &none, sizeof(set)));
	else
		FUZZ_CHECK(memcmp(&set, &none, sizeof(set)));
}

static void try_param(struct params *p, const char *arg)
{
	struct params before = *p;
	struct error err = { 0 };

	if (param_parse(p, arg, &err)) {
		FUZZ_CHECK(err.msg[0] && (err.status == ST_USAGE || err.status == ST_UNSUPPORTED));
		FUZZ_CHECK(!memcmp(before.num, p->num, sizeof(p->num)));
		FUZZ_CHECK(!memcmp(before.given, p->given, sizeof(p->given)));
	}
	for (int i = 0; i < PARAM__MAX; i++)
		FUZZ_CHECK(param_table[i].type == PT_STR ||
			   (p->num[i] >= param_table[i].min && p->num[i] <= param_table[i].max));
	params_check(p, 4096, &err);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = malloc(size + 1), *rest, *line;
	struct params p;

	FUZZ_CHECK(text);
	if (size)
		memcpy(text, data, size);
	text[size] = '\0';
	params_init(&p);
	for (line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
		char *arg = strdup(line);

		FUZZ_CHECK(arg);
		try_cap(arg);
		try_param(&p, arg);
		free(arg);
	}
	params_free(&p);
	free(text);
	return 0;
}
