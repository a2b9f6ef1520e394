// SPDX-License-Identifier: GPL-2.0-or-later
#include "check.h"
#include "commands.h"
#include "jsonline.h"
#include "text.h"

#include <stdio.h>
#include <unistd.h>

#define INDENT 40

static json_t *json_related(enum cap cap, enum rule_kind kind)
{
	enum cap related[CAP__MAX];
	unsigned n = check_related(cap, kind, related);
	json_t *list = json_array();

	for (unsigned i = 0; list && i < n; i++) {
		if (json_array_append_new(list, json_string(cap_table[related[i]].name))) {
			json_decref(list);
			list = NULL;
		}
	}
	return list;
}

static int print_json(const struct cap_set *set, struct error *err)
{
	json_t *list = json_array();

	for (int i = 0; list && i < CAP__MAX; i++) {
		const struct cap_info *c = &cap_table[i];
		json_t *o = json_pack("{s:s, s:b, s:s, s:s, s:o, s:o, s:s}", "name", c->name,
				      "state", set->on[i], "effect", effect_name(c->effect),
				      "since", c->since, "needs",
				      json_related((enum cap)i, RULE_NEEDS), "conflicts",
				      json_related((enum cap)i, RULE_EXCLUDES), "what", c->what);

		if (json_array_append_new(list, o)) {
			json_decref(list);
			list = NULL;
		}
	}
	return jsonline_write(STDOUT_FILENO, list, err);
}

/* "needs: a", "conflicts: a, b", if there are any. */
static void print_related(const char *word, enum cap cap, enum rule_kind kind)
{
	enum cap related[CAP__MAX];
	unsigned n = check_related(cap, kind, related);
	char names[CAP__MAX * 32];
	size_t len = 0;

	if (!n)
		return;
	for (unsigned i = 0; i < n && len < sizeof(names); i++)
		len += (size_t)snprintf(names + len, sizeof(names) - len, "%s%s", i ? ", " : word,
					cap_table[related[i]].name);
	printf("%*s", INDENT, "");
	text_wrap(stdout, INDENT, INDENT, names);
}

static void print_table(const struct cap_set *set)
{
	char left[INDENT + 1];

	text_row(stdout, 0, INDENT, "NAME                     STATE HERE", "WHAT IT DOES HERE");
	for (int i = 0; i < CAP__MAX; i++) {
		snprintf(left, sizeof(left), "%-24s %-5s %s", cap_table[i].name,
			 set->on[i] ? "on" : "off", effect_name(cap_table[i].effect));
		text_row(stdout, 0, INDENT, left, cap_table[i].what);
		print_related("needs: ", (enum cap)i, RULE_NEEDS);
		print_related("conflicts: ", (enum cap)i, RULE_EXCLUDES);
	}
}

int cmd_caps(const struct config *cfg, struct error *err)
{
	if (cfg->json)
		return print_json(&cfg->caps, err);
	print_table(&cfg->caps);
	return 0;
}
