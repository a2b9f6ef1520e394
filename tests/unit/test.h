/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Unit tests are plain programs: a function a case, a table of them, TEST_MAIN. The closing line is
 * "N passed, N failed"; the status is 0 iff none failed. CHECK goes on, REQUIRE ends the case. SKIP
 * ends it too, and the runner counts it: for what this machine lacks.
 */
#ifndef MIGTOOL_TEST_H
#define MIGTOOL_TEST_H

#include <stdio.h>
#include <string.h>

struct test_case {
	const char *name;
	void (*run)(void);
};

static int test_bad;
static const char *test_skipped;

#define CHECK(cond)                                                                \
	do {                                                                       \
		if (!(cond)) {                                                     \
			test_bad++;                                                \
			printf("# %s:%d: CHECK(%s)\n", __FILE__, __LINE__, #cond); \
		}                                                                  \
	} while (0)

#define REQUIRE(cond)                                                                \
	do {                                                                         \
		if (!(cond)) {                                                       \
			test_bad++;                                                  \
			printf("# %s:%d: REQUIRE(%s)\n", __FILE__, __LINE__, #cond); \
			return;                                                      \
		}                                                                    \
	} while (0)

#define SKIP(why)                     \
	do {                          \
		test_skipped = (why); \
		return;               \
	} while (0)

#define CHECK_STR(got, want)                                                                   \
	do {                                                                                   \
		const char *g_ = (got), *w_ = (want);                                          \
		if (strcmp(g_, w_)) {                                                          \
			test_bad++;                                                            \
			printf("# %s:%d: %s is \"%s\", expected \"%s\"\n", __FILE__, __LINE__, \
			       #got, g_, w_);                                                  \
		}                                                                              \
	} while (0)

/* Of a struct error. */
#define CHECK_ERROR(err, want_status, want_msg, want_hint) \
	do {                                               \
		CHECK((err).status == (want_status));      \
		CHECK_STR((err).msg, want_msg);            \
		CHECK_STR((err).hint, want_hint);          \
	} while (0)

#define TEST_MAIN(cases)                                                                          \
	int main(void)                                                                            \
	{                                                                                         \
		int passed = 0, failed = 0;                                                       \
		for (size_t i_ = 0; i_ < sizeof(cases) / sizeof(cases[0]); i_++) {                \
			test_bad = 0;                                                             \
			test_skipped = NULL;                                                      \
			cases[i_].run();                                                          \
			printf("%s %s%s%s\n", test_bad ? "not ok" : "ok", cases[i_].name,         \
			       test_skipped ? " # skip " : "", test_skipped ? test_skipped : ""); \
			test_bad ? failed++ : passed++;                                           \
		}                                                                                 \
		printf("%d passed, %d failed\n", passed, failed);                                 \
		return failed != 0;                                                               \
	}

#endif
