// SPDX-License-Identifier: GPL-2.0-or-later
#include "test.h"

#include "dialect.h"

static struct error err;

static void check(const char *machine, const char *version, bool flush_word)
{
	struct dialect d;

	memset(&d, 0xff, sizeof(d));
	if (dialect_for_qemu(&d, machine, version, &err)) {
		test_bad++;
		printf("# %s: %s\n", machine, err.msg);
		return;
	}
	if (d.flush_word != flush_word)
		printf("# %s %s\n", machine, version ? version : "");
	CHECK(d.flush_word == flush_word);
	CHECK(!d.migtool && !d.runs && !d.multifd2);
}

static void by_machine(void)
{
	check("pc-i440fx-7.2", NULL, false);
	check("pc-i440fx-2.12", NULL, false);
	check("pc-q35-8.0", NULL, false);
	check("pc-q35-8.1", NULL, true);
	check("virt-9.2", NULL, true);
	check("pc-q35-10.0", NULL, true);
	check("7.2", NULL, false);
}

static void by_version(void)
{
	check("pc", "8.2", true);
	check("microvm", "7.2", false);
	check("", "10.1", true);
	/* a newer QEMU runs an older machine in the older way */
	check("pc-i440fx-7.2", "9.0", false);
	check("pc-i440fx-8.1", "7.2", true);
}

static void neither(void)
{
	static const char *const bad[] = { "",	       "pc",	     "q35",	   "pc-i440fx",
					   "pc-7",     "pc-7.",	     "pc-7.2a",	   "pc-7.2.1",
					   "pc-7.100", "pc-100.0",   "pc-i440fx-", "pc-.2",
					   "-",	       "pc-7.2-rhel" };
	struct dialect d;

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		err_clear(&err);
		if (!dialect_for_qemu(&d, bad[i], NULL, &err))
			printf("# %s\n", bad[i]);
		CHECK(err.status == ST_USAGE && strstr(err.hint, "--machine"));
	}
	CHECK(dialect_for_qemu(&d, "pc", "new", &err) && err.status == ST_USAGE);
}

static const struct test_case cases[] = {
	{ "the machine's name says how its QEMU has its barrier", by_machine },
	{ "the version counts where the name has none", by_version },
	{ "an alias alone is refused with a hint", neither },
};

TEST_MAIN(cases)
