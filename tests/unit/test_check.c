// SPDX-License-Identifier: GPL-2.0-or-later
#include "test.h"

#include "check.h"
#include "log.h"

#include <stdlib.h>
#include <unistd.h>

static struct cap_set old_set, new_set;
static struct params params;
static struct host_facts host;
static struct check_input in;
static struct error err;

/* A source whose host can do everything, nothing in force, nothing wanted. */
static void fresh(void)
{
	params_free(&params);
	params_init(&params);
	memset(&old_set, 0, sizeof(old_set));
	memset(&new_set, 0, sizeof(new_set));
	host = (struct host_facts){ .write_tracking = TRACKING_COMPATIBLE,
				    .postcopy_host = true,
				    .kvm_dirty_ring = true,
				    .zero_copy = true };
	in = (struct check_input){ .old = &old_set,
				   .new = &new_set,
				   .params = &params,
				   .host = &host,
				   .role = ROLE_SOURCE,
				   .multi_channel = true };
	err_clear(&err);
}

/* The rule that is broken first: its number, 0 for ours, -1 for none. */
static int first(void)
{
	const char *said;
	const struct check_rule *r = check_first(&in, &said);

	return r ? r->qemu : -1;
}

#define SAYS(msg_, hint_)                                      \
	do {                                                   \
		CHECK(check_caps(&in, &err) == -1);            \
		CHECK_ERROR(err, ST_UNSUPPORTED, msg_, hint_); \
	} while (0)

static void nothing_wanted_is_accepted(void)
{
	fresh();
	CHECK(check_caps(&in, &err) == 0);
	in.old = NULL;
	CHECK(check_caps(&in, &err) == 0);
}

static void nothing_is_set_while_a_migration_runs(void)
{
	fresh();
	in.migration_running = true;
	SAYS("a migration runs: capabilities cannot be set", "wait for its end");
}

static void acting_and_inert_ones_are_accepted_alone(void)
{
	for (int i = 0; i < CAP__MAX; i++) {
		fresh();
		new_set.on[i] = true;
		if (i == CAP_ZERO_COPY_SEND)
			new_set.on[CAP_MULTIFD] = true;
		if (i == CAP_POSTCOPY_PREEMPT)
			new_set.on[CAP_POSTCOPY_RAM] = true;
		if (i == CAP_SWITCHOVER_ACK)
			new_set.on[CAP_RETURN_PATH] = true;
		CHECK((check_caps(&in, &err) == 0) == (cap_table[i].effect != EFFECT_REFUSED));
	}
}

static void refused_ones_say_that_they_are_not_built_yet(void)
{
	fresh();
	new_set.on[CAP_DIRTY_BITMAPS] = true;
	SAYS("capability dirty-bitmaps is not built yet: block devices' dirty bitmaps",
	     "--cap dirty-bitmaps=off");
	/* Each of them has its row, and no other capability has one. */
	for (int i = 0; i < CAP__MAX; i++) {
		int rows = 0;

		for (const struct check_rule *r = check_rules; r->kind != RULE_ALWAYS || r->test;
		     r++)
			rows += r->kind == RULE_NOT_BUILT && r->cap == (enum cap)i;
		CHECK(rows == (cap_table[i].effect == EFFECT_REFUSED));
	}
}

static void a_conflict_is_named_before_what_is_not_built(void)
{
	fresh();
	new_set.on[CAP_POSTCOPY_RAM] = new_set.on[CAP_MULTIFD] = true;
	CHECK(first() == 5);
	SAYS("capabilities postcopy-ram and multifd exclude each other: multifd writes into "
	     "memory, postcopy has to place whole pages",
	     "--cap postcopy-ram=off, or --cap multifd=off");
}

static void rules_are_in_qemus_order(void)
{
	/* Everything on breaks every rule that needs nothing to be off. */
	fresh();
	for (int i = 0; i < CAP__MAX; i++)
		new_set.on[i] = true;
	CHECK(first() == 1);
	new_set.on[CAP_BLOCK] = false;
	CHECK(first() == 2);
	new_set.on[CAP_X_COLO] = false;
	in.role = ROLE_DESTINATION;
	host.postcopy_host = false;
	CHECK(first() == 3);
	host.postcopy_host = true;
	CHECK(first() == 4);
	new_set.on[CAP_X_IGNORE_SHARED] = false;
	CHECK(first() == 5);
	new_set.on[CAP_POSTCOPY_RAM] = false;
	host.write_tracking = TRACKING_ABSENT;
	CHECK(first() == 6);
	host.write_tracking = TRACKING_COMPATIBLE;
	CHECK(first() == 7);
	new_set.on[CAP_BACKGROUND_SNAPSHOT] = false;
	CHECK(first() == 8);
	new_set.on[CAP_ZERO_COPY_SEND] = false;
	CHECK(first() == 10);
	new_set.on[CAP_POSTCOPY_RAM] = true;
	new_set.on[CAP_MULTIFD] = false;
	CHECK(first() == 11);
	new_set.on[CAP_COMPRESS] = false;
	in.incoming_started = true;
	CHECK(first() == 12);
	new_set.on[CAP_POSTCOPY_PREEMPT] = new_set.on[CAP_POSTCOPY_RAM] = false;
	new_set.on[CAP_MULTIFD] = new_set.on[CAP_COMPRESS] = true;
	CHECK(first() == 13);
	new_set.on[CAP_COMPRESS] = false;
	CHECK(first() == 14);
	in.incoming_started = false;
	new_set.on[CAP_RETURN_PATH] = false;
	CHECK(first() == 15);
	new_set.on[CAP_RETURN_PATH] = true;
	CHECK(first() == 16);
	new_set.on[CAP_AUTO_CONVERGE] = false;
	host.kvm_dirty_ring = false;
	CHECK(first() == 16);
	host.kvm_dirty_ring = true;
	in.multi_channel = false;
	CHECK(first() == 9);
	in.multi_channel = true;
	CHECK(first() == 0);
}

static void the_hosts_postcopy_check_is_for_a_destination_that_turns_it_on(void)
{
	fresh();
	host.postcopy_host = false;
	snprintf(host.postcopy_reason, sizeof(host.postcopy_reason), "no userfaultfd");
	new_set.on[CAP_POSTCOPY_RAM] = true;
	in.peer_qemu = true;
	CHECK(first() == -1); /* a source */
	in.role = ROLE_DESTINATION;
	in.stores = true;
	CHECK(first() == -1); /* nothing faults there */
	in.stores = false;
	CHECK(first() == 3);
	SAYS("capability postcopy-ram: no userfaultfd", "--cap postcopy-ram=off");
	in.old = NULL;
	CHECK(first() == 3);
	in.old = &old_set;
	old_set.on[CAP_POSTCOPY_RAM] = true;
	CHECK(first() == -1);
}

static void memory_is_given_back_only_to_who_says_that_he_has_it(void)
{
	static const char hint[] = "use a transport with two ways; towards a QEMU --cap "
				   "return-path=on";

	fresh();
	new_set.on[CAP_RELEASE_RAM] = true;
	CHECK(check_caps(&in, &err) == 0);
	in.one_way = true;
	SAYS("capability release-ram: this transport carries nothing back, and memory that may "
	     "not have arrived is kept",
	     hint);
	in.one_way = false;
	in.peer_qemu = true;
	SAYS("capability release-ram: without a return path a QEMU does not say that it has the "
	     "memory",
	     hint);
	new_set.on[CAP_RETURN_PATH] = true;
	CHECK(check_caps(&in, &err) == 0);
	new_set.on[CAP_RETURN_PATH] = false;
	new_set.on[CAP_POSTCOPY_RAM] = true;
	CHECK(check_caps(&in, &err) == 0);
	new_set.on[CAP_POSTCOPY_RAM] = false;
	in.role = ROLE_DESTINATION; /* it gives nothing back */
	CHECK(check_caps(&in, &err) == 0);
}

static void postcopy_needs_an_answer(void)
{
	fresh();
	new_set.on[CAP_POSTCOPY_RAM] = true;
	CHECK(check_caps(&in, &err) == 0);
	in.one_way = true;
	SAYS("capability postcopy-ram: this transport carries nothing back",
	     "use a transport with two ways");
	in.peer_qemu = true;
	SAYS("capability postcopy-ram: this transport carries nothing back",
	     "use a transport with two ways");
}

static void write_tracking_has_three_states(void)
{
	fresh();
	new_set.on[CAP_BACKGROUND_SNAPSHOT] = true;
	host.write_tracking = TRACKING_ABSENT;
	SAYS("capability background-snapshot: this kernel cannot track writes (userfaultfd "
	     "write-protect)",
	     "--cap background-snapshot=off");
	host.write_tracking = TRACKING_AVAILABLE;
	SAYS("capability background-snapshot: this kernel tracks writes, but not to this kind of "
	     "memory",
	     "--cap background-snapshot=off");
	host.write_tracking = TRACKING_COMPATIBLE;
	CHECK(first() == 0);
}

static void a_snapshot_excludes_fifteen_others(void)
{
	static const enum cap excluded[] = {
		CAP_POSTCOPY_RAM,
		CAP_DIRTY_BITMAPS,
		CAP_POSTCOPY_BLOCKTIME,
		CAP_LATE_BLOCK_ACTIVATE,
		CAP_RETURN_PATH,
		CAP_MULTIFD,
		CAP_PAUSE_BEFORE_SWITCHOVER,
		CAP_AUTO_CONVERGE,
		CAP_RELEASE_RAM,
		CAP_RDMA_PIN_ALL,
		CAP_COMPRESS,
		CAP_XBZRLE,
		CAP_VALIDATE_UUID,
		CAP_ZERO_COPY_SEND,
	};
	enum cap related[CAP__MAX];

	for (size_t i = 0; i < sizeof(excluded) / sizeof(excluded[0]); i++) {
		fresh();
		new_set.on[CAP_BACKGROUND_SNAPSHOT] = new_set.on[excluded[i]] = true;
		CHECK(first() == 7);
	}
	/* x-colo is the fifteenth, but this build refuses it first */
	fresh();
	new_set.on[CAP_BACKGROUND_SNAPSHOT] = new_set.on[CAP_X_COLO] = true;
	CHECK(first() == 2);
	CHECK(check_related(CAP_BACKGROUND_SNAPSHOT, RULE_EXCLUDES, related) == 15);
}

static void zero_copy_wants_plain_multifd(void)
{
	fresh();
	new_set.on[CAP_ZERO_COPY_SEND] = true;
	SAYS("capability zero-copy-send needs multifd: only its channels send without copying",
	     "--cap multifd=on");
	new_set.on[CAP_MULTIFD] = true;
	CHECK(check_caps(&in, &err) == 0);
	new_set.on[CAP_COMPRESS] = true;
	SAYS("capabilities zero-copy-send and compress exclude each other: a compressed page is a "
	     "copy already",
	     "--cap zero-copy-send=off, or --cap compress=off");
	new_set.on[CAP_COMPRESS] = false;
	new_set.on[CAP_XBZRLE] = true;
	SAYS("capabilities zero-copy-send and xbzrle exclude each other: a delta is a copy already",
	     "--cap zero-copy-send=off, or --cap xbzrle=off");
	new_set.on[CAP_XBZRLE] = false;
	CHECK(param_parse(&params, "multifd-compression=zlib", &err) == 0);
	SAYS("capability zero-copy-send: parameter multifd-compression has to be none: a "
	     "compressed packet is a copy already",
	     "--param multifd-compression=none");
	CHECK(param_parse(&params, "multifd-compression=none", &err) == 0);
	params.str[PARAM_TLS_CREDS] = strdup("tls0");
	SAYS("capability zero-copy-send: parameter tls-creds has to be empty: what is encrypted "
	     "is a copy already",
	     "--param tls-creds=");
}

static void zero_copy_wants_a_transport_that_can_at_the_source(void)
{
	fresh();
	new_set.on[CAP_MULTIFD] = new_set.on[CAP_ZERO_COPY_SEND] = true;
	in.copies = true;
	SAYS("capability zero-copy-send: this transport copies whatever it sends (no MSG_ZEROCOPY)",
	     "use tcp:, or leave it off");
	in.role = ROLE_DESTINATION;
	CHECK(check_caps(&in, &err) == 0);
}

static void zero_copy_wants_a_kernel_that_can_at_the_source(void)
{
	fresh();
	new_set.on[CAP_ZERO_COPY_SEND] = new_set.on[CAP_MULTIFD] = true;
	host.zero_copy = false;
	SAYS("capability zero-copy-send: this kernel has no MSG_ZEROCOPY",
	     "--cap zero-copy-send=off");
	in.role = ROLE_DESTINATION;
	CHECK(check_caps(&in, &err) == 0);
}

static void channels_are_set_before_anybody_listens(void)
{
	fresh();
	in.role = ROLE_DESTINATION;
	in.incoming_started = true;
	new_set.on[CAP_MULTIFD] = true;
	SAYS("capability multifd: it has to be set before the destination listens",
	     "set it when you start the destination");
	/* only when newly set: what is on may stay on, and others may change */
	old_set.on[CAP_MULTIFD] = true;
	new_set.on[CAP_EVENTS] = true;
	CHECK(check_caps(&in, &err) == 0);
}

static void one_connection_is_not_enough_for_multifd(void)
{
	fresh();
	in.multi_channel = false;
	new_set.on[CAP_MULTIFD] = true;
	SAYS("capability multifd: this transport is one connection, and it needs more of them",
	     "use tcp:, unix:, vsock: or ssh:");
	new_set.on[CAP_MULTIFD] = false;
	new_set.on[CAP_COMPRESS] = true;
	CHECK(check_caps(&in, &err) == 0);
}

static void a_qemu_cannot_answer_on_a_one_way_transport(void)
{
	fresh();
	in.one_way = true;
	new_set.on[CAP_RETURN_PATH] = true;
	CHECK(check_caps(&in, &err) == 0);
	in.peer_qemu = true;
	SAYS("capability return-path: this transport carries nothing back",
	     "leave it off, or use a transport with two ways");
	in.one_way = false;
	CHECK(check_caps(&in, &err) == 0);
}

static void a_set_is_set_whole_or_not_at_all(void)
{
	struct cap_set set = { 0 }, before = { 0 };

	fresh();
	set.on[CAP_EVENTS] = before.on[CAP_EVENTS] = true;
	new_set.on[CAP_VALIDATE_UUID] = new_set.on[CAP_MULTIFD] = new_set.on[CAP_COMPRESS] = true;
	CHECK(check_apply(&set, &in, &err) == -1);
	CHECK(!memcmp(&set, &before, sizeof(set)));
	new_set.on[CAP_COMPRESS] = false;
	CHECK(check_apply(&set, &in, &err) == 0);
	CHECK(set.on[CAP_VALIDATE_UUID] && set.on[CAP_MULTIFD] && !set.on[CAP_EVENTS]);
}

/* What check_apply says on stderr at -v. */
static char *said(void)
{
	static char text[2000];
	struct cap_set set;
	int saved = dup(STDERR_FILENO), pipes[2];
	ssize_t n;

	if (saved < 0 || pipe(pipes))
		abort();
	dup2(pipes[1], STDERR_FILENO);
	close(pipes[1]);
	log_init(LOG_VERBOSE, "send");
	CHECK(check_apply(&set, &in, &err) == 0);
	dup2(saved, STDERR_FILENO);
	close(saved);
	n = read(pipes[0], text, sizeof(text) - 1);
	close(pipes[0]);
	text[n < 0 ? 0 : n] = '\0';
	return text;
}

static void what_is_inert_is_said_once_a_line(void)
{
	fresh();
	new_set.on[CAP_AUTO_CONVERGE] = new_set.on[CAP_EVENTS] = true;
	CHECK(param_parse(&params, "downtime-limit=1", &err) == 0);
	CHECK(param_parse(&params, "multifd-channels=4", &err) == 0);
	CHECK_STR(said(), "migtool send: capability auto-converge has no effect here: a static "
			  "image has no vCPUs to slow down\n"
			  "migtool send: parameter downtime-limit has no effect here: a static "
			  "image has no guest to slow down, stop or announce\n");
	fresh();
	new_set.on[CAP_XBZRLE] = true;
	CHECK_STR(said(), "");
}

static void relations_are_derived_from_the_rules(void)
{
	enum cap r[CAP__MAX];

	CHECK(check_related(CAP_ZERO_COPY_SEND, RULE_NEEDS, r) == 1 && r[0] == CAP_MULTIFD);
	CHECK(check_related(CAP_MULTIFD, RULE_NEEDS, r) == 0);
	/* both ways, whichever the rule names first, in the order of the capabilities */
	CHECK(check_related(CAP_MULTIFD, RULE_EXCLUDES, r) == 4);
	CHECK(r[0] == CAP_XBZRLE && r[1] == CAP_COMPRESS && r[2] == CAP_POSTCOPY_RAM &&
	      r[3] == CAP_BACKGROUND_SNAPSHOT);
	CHECK(check_related(CAP_EVENTS, RULE_EXCLUDES, r) == 0);
}

static const struct test_case cases[] = {
	{ "nothing wanted is accepted", nothing_wanted_is_accepted },
	{ "nothing is set while a migration runs", nothing_is_set_while_a_migration_runs },
	{ "acting and inert ones are accepted alone, refused ones are not",
	  acting_and_inert_ones_are_accepted_alone },
	{ "refused ones say that they are not built yet",
	  refused_ones_say_that_they_are_not_built_yet },
	{ "a conflict is named before what is not built",
	  a_conflict_is_named_before_what_is_not_built },
	{ "rules are in QEMU's order", rules_are_in_qemus_order },
	{ "the host's postcopy check is for a destination that turns it on",
	  the_hosts_postcopy_check_is_for_a_destination_that_turns_it_on },
	{ "memory is given back only to who says that he has it",
	  memory_is_given_back_only_to_who_says_that_he_has_it },
	{ "postcopy needs an answer", postcopy_needs_an_answer },
	{ "write tracking has three states", write_tracking_has_three_states },
	{ "a snapshot excludes fifteen others", a_snapshot_excludes_fifteen_others },
	{ "zero copy wants plain multifd", zero_copy_wants_plain_multifd },
	{ "zero copy wants a transport that can at the source",
	  zero_copy_wants_a_transport_that_can_at_the_source },
	{ "zero copy wants a kernel that can, at the source",
	  zero_copy_wants_a_kernel_that_can_at_the_source },
	{ "channels are set before anybody listens", channels_are_set_before_anybody_listens },
	{ "one connection is not enough for multifd", one_connection_is_not_enough_for_multifd },
	{ "a QEMU cannot answer on a one-way transport",
	  a_qemu_cannot_answer_on_a_one_way_transport },
	{ "a set is set whole or not at all", a_set_is_set_whole_or_not_at_all },
	{ "what is inert is said, once a line", what_is_inert_is_said_once_a_line },
	{ "relations are derived from the rules", relations_are_derived_from_the_rules },
};

TEST_MAIN(cases)
