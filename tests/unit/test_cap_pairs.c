// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Walks every capability alone and every pair of them, on a source whose host can do everything,
 * and compares the verdict, whose rule it is and the message with tests/golden/cap-pairs.txt.
 * With --regenerate it prints that table; review what changed before it is committed.
 */
#include "check.h"

#include <stdio.h>
#include <string.h>

#define GOLDEN "tests/golden/cap-pairs.txt"

static void judge(enum cap a, enum cap b, char *line, size_t len)
{
	static const struct host_facts able = { .write_tracking = TRACKING_COMPATIBLE,
						.postcopy_host = true,
						.kvm_dirty_ring = true,
						.zero_copy = true };
	struct params params;
	struct cap_set set = { 0 };
	struct check_input in = { .new = &set,
				  .params = &params,
				  .host = &able,
				  .role = ROLE_SOURCE,
				  .peer_qemu = true,
				  .multi_channel = true };
	struct error err = { 0 };
	const struct check_rule *rule;
	const char *said;
	char pair[64], whose[16] = "-";

	params_init(&params);
	set.on[a] = set.on[b] = true;
	rule = check_first(&in, &said);
	if (a == b)
		snprintf(pair, sizeof(pair), "%s", cap_table[a].name);
	else
		snprintf(pair, sizeof(pair), "%s + %s", cap_table[a].name, cap_table[b].name);
	if (check_caps(&in, &err) == 0)
		snprintf(err.msg, sizeof(err.msg), "accepted");
	else if (rule && rule->qemu)
		snprintf(whose, sizeof(whose), "qemu %d", rule->qemu);
	else if (rule)
		snprintf(whose, sizeof(whose), "ours");
	snprintf(line, len, "%-45s | %-7s | %s\n", pair, whose, err.msg);
	params_free(&params);
}

static int compare(FILE *golden)
{
	char want[1400], got[1400];
	int wrong = 0, lines = 0;

	for (int a = 0; a < CAP__MAX; a++) {
		for (int b = a; b < CAP__MAX; b++) {
			judge((enum cap)a, (enum cap)b, got, sizeof(got));
			lines++;
			if (!fgets(want, sizeof(want), golden))
				want[0] = '\0';
			if (strcmp(got, want)) {
				wrong++;
				printf("# expected: %s# got:      %s", want[0] ? want : "nothing\n",
				       got);
			}
		}
	}
	if (fgets(want, sizeof(want), golden)) {
		wrong++;
		printf("# left over: %s", want);
	}
	printf("# %d lines compared\n", lines);
	return wrong;
}

int main(int argc, char **argv)
{
	char line[1400];
	FILE *golden;
	int wrong;

	if (argc > 1 && !strcmp(argv[1], "--regenerate")) {
		for (int a = 0; a < CAP__MAX; a++) {
			for (int b = a; b < CAP__MAX; b++) {
				judge((enum cap)a, (enum cap)b, line, sizeof(line));
				fputs(line, stdout);
			}
		}
		return 0;
	}
	golden = fopen(GOLDEN, "r");
	if (!golden) {
		printf("not ok every pair of capabilities is judged as the table says\n"
		       "# cannot open " GOLDEN "; run from the top of the tree\n");
		printf("0 passed, 1 failed\n");
		return 1;
	}
	wrong = compare(golden);
	fclose(golden);
	printf("%s every pair of capabilities is judged as the table says\n",
	       wrong ? "not ok" : "ok");
	printf("%d passed, %d failed\n", !wrong, !!wrong);
	return !!wrong;
}
