// SPDX-License-Identifier: GPL-2.0-or-later
#include "commands.h"
#include "jsonline.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define VALUE_MAX 160

/* jansson's integers are signed. */
static json_t *json_number(uint64_t v)
{
	return v <= INT64_MAX ? json_integer((json_int_t)v) : json_real((double)v);
}

static json_t *json_value(const struct params *p, enum param which)
{
	char text[VALUE_MAX];

	switch (param_table[which].type) {
	case PT_INT:
	case PT_SIZE:
		return json_number(p->num[which]);
	case PT_BOOL:
		return json_boolean(p->num[which]);
	case PT_ENUM:
		return json_string(param_format(p, which, text, sizeof(text)));
	case PT_STR:
		break;
	}
	return jsonline_string(p->str[which] ? p->str[which] : "");
}

static json_t *json_values(const struct param_info *info)
{
	json_t *list = json_array();

	for (int i = 0; list && info->values[i]; i++) {
		if (json_array_append_new(list, json_string(info->values[i]))) {
			json_decref(list);
			list = NULL;
		}
	}
	return list;
}

/* The range as numbers where it is one: an absent max means that there is none. */
static int add_range(json_t *o, const struct param_info *info)
{
	if (info->type == PT_ENUM)
		return json_object_set_new(o, "values", json_values(info));
	if (info->type != PT_INT && info->type != PT_SIZE)
		return 0;
	if (json_object_set_new(o, "min", json_number(info->min)))
		return -1;
	return info->max == UINT64_MAX ? 0 : json_object_set_new(o, "max", json_number(info->max));
}

static json_t *json_param(const struct params *p, const struct params *defaults, enum param which)
{
	const struct param_info *info = &param_table[which];
	char range[VALUE_MAX];
	json_t *o = json_pack("{s:s, s:o, s:o, s:s, s:s, s:s, s:s, s:s, s:s*}", "name", info->name,
			      "value", json_value(p, which), "default", json_value(defaults, which),
			      "unit", info->unit, "range", param_range(which, range, sizeof(range)),
			      "effect", effect_name(info->effect), "since", info->since, "what",
			      info->what, "differs", info->differs);

	if (o && add_range(o, info)) {
		json_decref(o);
		o = NULL;
	}
	return o;
}

static int print_json(const struct params *p, const struct params *defaults, struct error *err)
{
	json_t *list = json_array();

	for (int i = 0; list && i < PARAM__MAX; i++) {
		if (json_array_append_new(list, json_param(p, defaults, (enum param)i))) {
			json_decref(list);
			list = NULL;
		}
	}
	return jsonline_write(STDOUT_FILENO, list, err);
}

static void print_table(const struct params *p, const struct params *defaults)
{
	static const char row[] = "%-27s %-8s %-9s %-9s %-8s %s\n";
	char value[VALUE_MAX], def[VALUE_MAX], range[VALUE_MAX];

	printf(row, "NAME", "HERE", "VALUE", "DEFAULT", "UNIT", "RANGE");
	for (int i = 0; i < PARAM__MAX; i++) {
		const struct param_info *info = &param_table[i];

		param_format(p, (enum param)i, value, sizeof(value));
		param_format(defaults, (enum param)i, def, sizeof(def) - 1);
		if (info->differs)
			strcat(def, "*");
		printf(row, info->name, effect_name(info->effect), value[0] ? value : "-",
		       def[0] ? def : "-", info->unit[0] ? info->unit : "-",
		       param_range((enum param)i, range, sizeof(range)));
	}
	printf("\n");
	for (int i = 0; i < PARAM__MAX; i++)
		if (param_table[i].differs)
			printf("* %s: %s\n", param_table[i].name, param_table[i].differs);
}

int cmd_params(const struct config *cfg, struct error *err)
{
	struct params defaults;
	int r = 0;

	params_init(&defaults);
	if (cfg->json)
		r = print_json(&cfg->params, &defaults, err);
	else
		print_table(&cfg->params, &defaults);
	params_free(&defaults);
	return r;
}
