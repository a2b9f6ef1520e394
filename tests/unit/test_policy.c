// SPDX-License-Identifier: GPL-2.0-or-later
#include "test.h"

#include "policy.h"

#include <fcntl.h>
#include <stdlib.h>

#ifndef RENAME_NOREPLACE
#define RENAME_NOREPLACE (1 << 0)
#define RENAME_EXCHANGE	 (1 << 1)
#endif

static struct policy p;

/* The first name of that path, or one that is none. */
static struct policy_name name(const char *path)
{
	struct policy_name n;

	if (!policy_find(&p, path, 0, &n))
		memset(&n, 0xff, sizeof(n));
	return n;
}

static bool may_open(const char *path, int flags)
{
	struct policy_name n = name(path);

	return policy_may_open(&p, &n, flags);
}

static bool may_unlink(const char *path)
{
	struct policy_name n = name(path);

	return policy_may_unlink(&p, &n);
}

static bool may_rename(const char *from, const char *to, unsigned flags, bool occupied)
{
	struct policy_name a = name(from), b = name(to);

	return policy_may_rename(&p, &a, &b, flags, occupied);
}

static void start(const char *path, unsigned rights)
{
	struct error err;

	policy_free(&p);
	REQUIRE(policy_add_root(&p, path, rights, &err) == 0);
}

static void names_lead_back_to_their_paths(void)
{
	static const char *const paths[] = { "d/img",
					     "d/img.part",
					     "d",
					     "d/img/ram",
					     "d/img/ram/pc.ram",
					     "d/img.part/ram/a%2Fb",
					     "d/img/manifest.json",
					     "d/img.part/manifest.json.part",
					     "d/img/device-state",
					     "d/img.part/device-state.part",
					     "d/img.part.session" };

	start("d/img", POLICY_LOOK | POLICY_MEMBERS | POLICY_PART | POLICY_PARENT);
	for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
		struct policy_name n;
		char *path;

		REQUIRE(policy_find(&p, paths[i], 0, &n));
		CHECK(policy_name_valid(&p, &n));
		path = policy_path(&p, &n);
		CHECK_STR(path, paths[i]);
		free(path);
	}
}

static void other_paths_have_no_name(void)
{
	static const char *const paths[] = { "",
					     "d/im",
					     "d/imgs",
					     "d/img/",
					     "d/img/x",
					     "d/img/ram/",
					     "d/img/ram/..",
					     "d/img/ram/.hidden",
					     "d/img/ram/a/b",
					     "d/img/../x",
					     "/etc/passwd",
					     "d/img.part.part",
					     "d/./img",
					     "d/img/ram/a b",
					     "d/img/ram/\xff",
					     "d/img/manifest.json/",
					     "d/img.session",
					     "d/img.part.session/ram" };
	struct policy_name n;

	start("d/img", ~0u);
	for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++)
		CHECK(!policy_find(&p, paths[i], 0, &n));
}

static void bytes_that_are_no_name_are_none(void)
{
	struct policy_name good, n;

	start("img", ~0u);
	REQUIRE(policy_find(&p, "img/ram/a", 0, &good));
	CHECK(policy_name_valid(&p, &good));
	n = good;
	n.root = 1;
	CHECK(!policy_name_valid(&p, &n));
	n = good;
	n.base = BASE__MAX;
	CHECK(!policy_name_valid(&p, &n));
	n = good;
	n.base = BASE_PARENT;
	CHECK(!policy_name_valid(&p, &n));
	n = good;
	n.leaf = LEAF__MAX;
	CHECK(!policy_name_valid(&p, &n));
	n = good;
	n.leaf = LEAF_SELF; /* has no block */
	CHECK(!policy_name_valid(&p, &n));
	n = good;
	strcpy(n.block, "../x");
	CHECK(!policy_name_valid(&p, &n));
	n = good;
	memset(n.block, 'a', sizeof(n.block)); /* without an end */
	CHECK(!policy_name_valid(&p, &n) && !policy_may_open(&p, &n, O_RDONLY));
	n = good;
	n.block[0] = '\0';
	CHECK(!policy_name_valid(&p, &n));
}

static void a_source_is_only_read(void)
{
	start("img", POLICY_LOOK | POLICY_MEMBERS);
	CHECK(may_open("img", O_RDONLY) && may_open("img", O_PATH | O_NOFOLLOW));
	CHECK(may_open("img/ram", O_RDONLY | O_DIRECTORY) && may_open("img/ram/a", O_RDONLY));
	CHECK(!may_open("img", O_RDWR) && !may_open("img", O_WRONLY));
	CHECK(!may_open("img", O_RDONLY | O_TRUNC) && !may_open("img", O_RDONLY | O_CREAT));
	CHECK(!may_open("img/ram/a", O_RDWR) && !may_open("img.part", O_RDONLY));
	CHECK(!may_open("img.part", O_RDWR | O_CREAT) && !may_open(".", O_RDONLY | O_DIRECTORY));
	CHECK(!may_unlink("img") && !may_unlink("img/ram/a") && !may_unlink("img.part"));
	CHECK(!may_rename("img.part", "img", 0, false));
}

static void of_a_source_that_is_emptied_the_blocks_are_written(void)
{
	start("img", POLICY_LOOK | POLICY_MEMBERS | POLICY_WRITE);
	CHECK(may_open("img", O_RDWR) && may_open("img/ram/a", O_RDWR));
	CHECK(!may_open("img", O_RDWR | O_CREAT) && !may_open("img/ram/a", O_RDWR | O_TRUNC));
	CHECK(!may_open("img/manifest.json", O_RDWR) && !may_open("img/device-state", O_RDWR));
	CHECK(!may_open("img.part", O_RDWR) && !may_open("img.part/ram/a", O_RDWR));
	CHECK(!may_unlink("img") && !may_unlink("img/ram/a"));
}

static void a_key_has_no_members(void)
{
	start("key", POLICY_LOOK);
	CHECK(may_open("key", O_RDONLY));
	CHECK(!may_open("key/ram", O_RDONLY) && !may_open("key/manifest.json", O_RDONLY));
}

static void a_destination_is_written_beside_its_name(void)
{
	struct policy_name part, ram;

	start("img", POLICY_LOOK | POLICY_MEMBERS | POLICY_PARENT | POLICY_PART);
	part = name("img.part");
	ram = name("img.part/ram");
	CHECK(may_open("img.part", O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW));
	CHECK(may_open("img.part/ram/a", O_RDWR | O_CREAT | O_EXCL));
	CHECK(may_open(".", O_RDONLY | O_DIRECTORY) && !may_open(".", O_RDONLY));
	CHECK(policy_may_mkdir(&p, &part) && policy_may_mkdir(&p, &ram));
	CHECK(may_unlink("img.part") && may_unlink("img.part/ram/a"));
	CHECK(!may_open("img", O_RDWR) && !may_open("img/ram/a", O_RDWR | O_CREAT));
	CHECK(!may_unlink("img") && !may_unlink("img/ram/a"));
	CHECK(!may_open("img.part", O_RDWR | O_APPEND) && !may_open("img.part", O_RDWR | O_SYNC));
	CHECK(!may_open("img.part", O_RDWR | O_TMPFILE));
}

static void nothing_is_replaced_without_consent(void)
{
	start("img", POLICY_LOOK | POLICY_PART);
	CHECK(may_rename("img.part", "img", RENAME_NOREPLACE, true)); /* the kernel says no */
	CHECK(may_rename("img.part", "img", 0, false));
	CHECK(!may_rename("img.part", "img", 0, true));
	CHECK(!may_rename("img.part", "img", RENAME_EXCHANGE, false));
	CHECK(!may_rename("img", "img.part", 0, false));
	start("img", POLICY_LOOK | POLICY_PART | POLICY_REPLACE);
	CHECK(may_rename("img.part", "img", 0, true));
	CHECK(may_rename("img.part", "img", RENAME_EXCHANGE, true));
	CHECK(!may_rename("img.part", "img", 1 << 2, true));
}

static void a_manifest_replaces_its_own_only(void)
{
	start("img", POLICY_LOOK | POLICY_MEMBERS | POLICY_PART);
	CHECK(may_rename("img.part/manifest.json.part", "img.part/manifest.json", 0, true));
	CHECK(!may_rename("img.part/manifest.json.part", "img/manifest.json", 0, true));
	CHECK(!may_rename("img/manifest.json.part", "img/manifest.json", 0, true));
	CHECK(!may_rename("img.part/ram/a", "img.part/ram/b", 0, true));
	CHECK(!may_rename("img.part/ram/a", "img", 0, true));
}

static void a_shared_block_is_linked_to_its_own_name(void)
{
	struct policy_name from, to, other;

	start("img", POLICY_LOOK | POLICY_MEMBERS | POLICY_PART);
	from = name("img/ram/a");
	to = name("img.part/ram/a");
	other = name("img.part/ram/b");
	CHECK(policy_may_link(&p, &from, &to));
	CHECK(!policy_may_link(&p, &from, &other) && !policy_may_link(&p, &to, &from));
}

static void a_path_given_twice_has_both_rights(void)
{
	struct error err;

	start("img", POLICY_LOOK);
	REQUIRE(policy_add_root(&p, "img", POLICY_MEMBERS, &err) == 0 && p.nroots == 1);
	CHECK(may_open("img/ram/a", O_RDONLY));
}

static void a_table_that_is_full_says_so(void)
{
	struct error err;
	char path[8];

	policy_free(&p);
	for (int i = 0; i < POLICY_ROOTS; i++) {
		snprintf(path, sizeof(path), "r%d", i);
		REQUIRE(policy_add_root(&p, path, POLICY_LOOK, &err) == 0);
	}
	CHECK(policy_add_root(&p, "one more", POLICY_LOOK, &err) == -1);
	CHECK(err.status == ST_NOMEM);
	policy_free(&p);
}

static void commands_and_hosts_are_found_by_all_of_them(void)
{
	char *argv[] = { (char *)"a", (char *)"b", NULL };
	char *more[] = { (char *)"a", (char *)"b", (char *)"c", NULL };
	char *ours[] = { (char *)"a", (char *)"x '" POLICY_HOLE "'", NULL };
	char *joins[] = { (char *)"a", (char *)"x '0123456789abcdef0123456789abcdef'", NULL };
	char *evil[] = { (char *)"a", (char *)"x '0123456789abcdef0123456789abcd;;'", NULL };
	struct policy_command how = { .max = 1 }, hole = { .max = 1, .hole = true };
	char fill[POLICY_FILL + 1], **argv2;
	struct error err;

	policy_free(&p);
	REQUIRE(policy_add_command(&p, argv, &how, &err) == 0);
	REQUIRE(policy_add_host(&p, "h", 5, false, &err) == 0);
	REQUIRE(policy_add_command(&p, ours, &hole, &err) == 0);
	CHECK(policy_find_command(&p, argv, fill) == 0 && !fill[0]);
	CHECK(policy_find_command(&p, argv + 1, fill) == -1);
	CHECK(policy_find_command(&p, more, fill) == -1);
	CHECK(policy_find_command(&p, evil, fill) == -1);
	CHECK(policy_find_command(&p, joins, fill) == 1);
	argv2 = policy_argv(&p.commands[1], fill);
	REQUIRE(argv2 != NULL);
	CHECK_STR(argv2[1], joins[1]);
	policy_free_argv(argv2);
	CHECK(policy_find_host(&p, "h", 5, false) == 0);
	CHECK(policy_find_host(&p, "h", 6, false) == -1 &&
	      policy_find_host(&p, "h", 5, true) == -1);
	policy_free(&p);
}

static const struct test_case cases[] = {
	{ "names lead back to their paths", names_lead_back_to_their_paths },
	{ "other paths have no name", other_paths_have_no_name },
	{ "bytes that are no name are none", bytes_that_are_no_name_are_none },
	{ "a source is only read", a_source_is_only_read },
	{ "of a source that is emptied the blocks are written",
	  of_a_source_that_is_emptied_the_blocks_are_written },
	{ "a key has no members", a_key_has_no_members },
	{ "a destination is written beside its name", a_destination_is_written_beside_its_name },
	{ "nothing is replaced without consent", nothing_is_replaced_without_consent },
	{ "a manifest replaces its own only", a_manifest_replaces_its_own_only },
	{ "a shared block is linked to its own name", a_shared_block_is_linked_to_its_own_name },
	{ "a path given twice has both rights", a_path_given_twice_has_both_rights },
	{ "a table that is full says so", a_table_that_is_full_says_so },
	{ "commands and hosts are found by all of them",
	  commands_and_hosts_are_found_by_all_of_them },
};
TEST_MAIN(cases)
