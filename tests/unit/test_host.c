// SPDX-License-Identifier: GPL-2.0-or-later
#include "test.h"

#include "check.h"

#include <dirent.h>
#include <sys/resource.h>

static unsigned open_descriptors(void)
{
	DIR *d = opendir("/proc/self/fd");
	unsigned n = 0;

	while (d && readdir(d))
		n++;
	if (d)
		closedir(d);
	return n;
}

static void facts_are_complete_whatever_was_there(void)
{
	struct host_facts f;

	memset(&f, 0xff, sizeof(f));
	host_probe(&f, false);
	CHECK(!f.postcopy_host);
	CHECK_STR(f.postcopy_reason, "this host was not checked for postcopy");
	CHECK(f.zero_copy); /* Linux 4.14 */
	CHECK(f.write_tracking <= TRACKING_COMPATIBLE);
}

static void postcopy_works_or_there_is_a_reason(void)
{
	struct host_facts f;

	host_probe(&f, true);
	CHECK(f.postcopy_host == !f.postcopy_reason[0]);
	printf("# postcopy: %s; write tracking: %d; dirty ring: %d\n",
	       f.postcopy_host ? "yes" : f.postcopy_reason, (int)f.write_tracking,
	       f.kvm_dirty_ring);
}

static void a_probe_leaves_nothing_open(void)
{
	struct host_facts f;
	unsigned before = open_descriptors();

	for (int i = 0; i < 20; i++)
		host_probe(&f, true);
	CHECK(before > 0 && open_descriptors() == before);
}

static void a_process_without_descriptors_gets_reasons_and_no_crash(void)
{
	struct rlimit old, none;
	struct host_facts f;

	REQUIRE(getrlimit(RLIMIT_NOFILE, &old) == 0);
	none = old;
	none.rlim_cur = 3;
	REQUIRE(setrlimit(RLIMIT_NOFILE, &none) == 0);
	host_probe(&f, true);
	CHECK(setrlimit(RLIMIT_NOFILE, &old) == 0);
	CHECK(!f.zero_copy && !f.kvm_dirty_ring && f.write_tracking == TRACKING_ABSENT);
	CHECK(!f.postcopy_host && f.postcopy_reason[0]);
}

static const struct test_case cases[] = {
	{ "facts are complete, whatever was there before", facts_are_complete_whatever_was_there },
	{ "postcopy works, or there is a reason", postcopy_works_or_there_is_a_reason },
	{ "a probe leaves nothing open", a_probe_leaves_nothing_open },
	{ "a process without descriptors gets reasons and no crash",
	  a_process_without_descriptors_gets_reasons_and_no_crash },
};

TEST_MAIN(cases)
