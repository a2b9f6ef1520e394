// SPDX-License-Identifier: GPL-2.0-or-later
#include "test.h"

#include "caps.h"

static void the_table_is_qemu_8_1_in_its_order(void)
{
	static const char *const names[] = {
		"xbzrle",
		"rdma-pin-all",
		"auto-converge",
		"zero-blocks",
		"compress",
		"events",
		"postcopy-ram",
		"x-colo",
		"release-ram",
		"block",
		"return-path",
		"pause-before-switchover",
		"multifd",
		"dirty-bitmaps",
		"postcopy-blocktime",
		"late-block-activate",
		"x-ignore-shared",
		"validate-uuid",
		"background-snapshot",
		"zero-copy-send",
		"postcopy-preempt",
		"switchover-ack",
		"dirty-limit",
		"mapped-ram",
	};

	REQUIRE(sizeof(names) / sizeof(names[0]) == CAP__MAX);
	for (int i = 0; i < CAP__MAX; i++) {
		CHECK_STR(cap_table[i].name, names[i]);
		CHECK(cap_find(names[i]) == i);
		CHECK(cap_table[i].since && cap_table[i].what);
	}
	CHECK(cap_find("") == -1);
	CHECK(cap_find("multi") == -1);
}

static void effects_are_as_promised(void)
{
	static const char *const words[CAP__MAX] = {
		[CAP_XBZRLE] = "act",
		[CAP_COMPRESS] = "act",
		[CAP_MULTIFD] = "act",
		[CAP_ZERO_COPY_SEND] = "act",
		[CAP_RETURN_PATH] = "act",
		[CAP_VALIDATE_UUID] = "act",
		[CAP_X_IGNORE_SHARED] = "act",
		[CAP_EVENTS] = "act",
		[CAP_POSTCOPY_RAM] = "act",
		[CAP_POSTCOPY_PREEMPT] = "act",
		[CAP_POSTCOPY_BLOCKTIME] = "act",
		[CAP_RELEASE_RAM] = "act",
		[CAP_PAUSE_BEFORE_SWITCHOVER] = "act",
		[CAP_SWITCHOVER_ACK] = "act",
		[CAP_AUTO_CONVERGE] = "inert",
		[CAP_DIRTY_LIMIT] = "inert",
		[CAP_LATE_BLOCK_ACTIVATE] = "inert",
		[CAP_ZERO_BLOCKS] = "inert",
		[CAP_RDMA_PIN_ALL] = "inert",
	};

	for (int i = 0; i < CAP__MAX; i++) {
		CHECK_STR(effect_name(cap_table[i].effect), words[i] ? words[i] : "refused");
		/* A refusal says so in the same words everywhere. */
		CHECK(!strncmp(cap_table[i].what, "not built yet: ", 15) == !words[i]);
	}
}

static void a_capability_is_switched(void)
{
	struct cap_set s = { 0 };
	struct error err;

	CHECK(cap_parse(&s, "multifd", &err) == 0);
	CHECK(s.on[CAP_MULTIFD] && s.given[CAP_MULTIFD]);
	CHECK(cap_parse(&s, "xbzrle=on", &err) == 0);
	CHECK(s.on[CAP_XBZRLE]);
	CHECK(cap_parse(&s, "multifd=off", &err) == 0);
	CHECK(!s.on[CAP_MULTIFD] && s.given[CAP_MULTIFD]);
	CHECK(!s.given[CAP_EVENTS]);
}

static void refused(const char *arg, const char *msg, const char *hint)
{
	struct cap_set s = { 0 }, none = { 0 };
	struct error err;

	err_clear(&err);
	CHECK(cap_parse(&s, arg, &err) == -1);
	CHECK_ERROR(err, ST_USAGE, msg, hint);
	CHECK(!memcmp(&s, &none, sizeof(s)));
}

static void wrong_names_and_values_are_refused(void)
{
	refused("mulitfd=on", "unknown capability \"mulitfd\"", "did you mean multifd?");
	refused("multifd=yes", "capability multifd is on or off, not \"yes\"", "--cap multifd=on");
	refused("multifd=", "capability multifd is on or off, not \"\"", "--cap multifd=on");
	refused("", "unknown capability \"\"", "migtool caps lists them");
	refused("=on", "unknown capability \"\"", "migtool caps lists them");
	refused("Multifd=ON", "unknown capability \"Multifd\"", "did you mean multifd?");
}

static void a_very_long_name_is_unknown_not_cut(void)
{
	struct cap_set s = { 0 };
	struct error err;
	char arg[200];

	memset(arg, 'm', sizeof(arg) - 1);
	arg[sizeof(arg) - 1] = '\0';
	CHECK(cap_parse(&s, arg, &err) == -1);
	CHECK(err.status == ST_USAGE);
}

static void postcopy_is_either_of_two(void)
{
	struct cap_set s = { 0 };

	CHECK(!caps_postcopy(&s));
	s.on[CAP_DIRTY_BITMAPS] = true;
	CHECK(caps_postcopy(&s));
	s.on[CAP_DIRTY_BITMAPS] = false;
	s.on[CAP_POSTCOPY_RAM] = true;
	CHECK(caps_postcopy(&s));
}

static const struct test_case cases[] = {
	{ "the table is QEMU 8.1's in its order, later ones behind it",
	  the_table_is_qemu_8_1_in_its_order },
	{ "each capability acts, is inert or is refused as promised", effects_are_as_promised },
	{ "a capability is switched", a_capability_is_switched },
	{ "wrong names and values are refused and change nothing",
	  wrong_names_and_values_are_refused },
	{ "a very long name is unknown, not cut to a known one",
	  a_very_long_name_is_unknown_not_cut },
	{ "postcopy is either of two capabilities", postcopy_is_either_of_two },
};

TEST_MAIN(cases)
