// SPDX-License-Identifier: GPL-2.0-or-later
#include "check.h"

#include "log.h"

#include <string.h>

static bool newly_on(const struct check_input *in, enum cap cap)
{
	return in->new->on[cap] && !(in->old && in->old->on[cap]);
}

static const char *nothing_runs(const struct check_input *in)
{
	return in->migration_running ? "a migration runs: capabilities cannot be set" : NULL;
}

/* Only when newly set: the check costs, and what runs already has passed it. */
static const char *postcopy_host(const struct check_input *in)
{
	if (in->role != ROLE_DESTINATION || in->stores || !newly_on(in, CAP_POSTCOPY_RAM))
		return NULL;
	return in->host->postcopy_host ? NULL : in->host->postcopy_reason;
}

static const char *write_tracking(const struct check_input *in)
{
	switch (in->host->write_tracking) {
	case TRACKING_ABSENT:
		return "this kernel cannot track writes (userfaultfd write-protect)";
	case TRACKING_AVAILABLE:
		return "this kernel tracks writes, but not to this kind of memory";
	case TRACKING_COMPATIBLE:
		break;
	}
	return NULL;
}

static const char *zero_copy_compression(const struct check_input *in)
{
	return params_multifd_compression(in->params) == METHOD_NONE
		       ? NULL
		       : "parameter multifd-compression has to be none: a compressed packet is a "
			 "copy already";
}

static const char *zero_copy_tls(const struct check_input *in)
{
	return params_tls(in->params)
		       ? "parameter tls-creds has to be empty: what is encrypted is a copy already"
		       : NULL;
}

static const char *preempt_in_time(const struct check_input *in)
{
	return in->incoming_started && newly_on(in, CAP_POSTCOPY_PREEMPT)
		       ? "it has to be set before the destination listens"
		       : NULL;
}

static const char *multifd_in_time(const struct check_input *in)
{
	return in->incoming_started && newly_on(in, CAP_MULTIFD)
		       ? "it has to be set before the destination listens"
		       : NULL;
}

static const char *dirty_ring(const struct check_input *in)
{
	return in->host->kvm_dirty_ring ? NULL : "it needs KVM with a dirty ring on this host";
}

static const char *multi_channel(const struct check_input *in)
{
	return in->multi_channel ? NULL
				 : "this transport is one connection, and it needs more of them";
}

static const char *back_channel(const struct check_input *in)
{
	return in->one_way && in->peer_qemu ? "this transport carries nothing back" : NULL;
}

/* What is given back is gone: only the destination's word allows it. */
static const char *acknowledged(const struct check_input *in)
{
	const struct cap_set *s = in->new;

	if (in->role == ROLE_DESTINATION)
		return NULL;
	if (in->one_way)
		return "this transport carries nothing back, and memory that may not have arrived "
		       "is kept";
	return in->peer_qemu && !s->on[CAP_RETURN_PATH] && !s->on[CAP_POSTCOPY_RAM]
		       ? "without a return path a QEMU does not say that it has the memory"
		       : NULL;
}

static const char *answers(const struct check_input *in)
{
	return in->one_way ? "this transport carries nothing back" : NULL;
}

static const char *zero_copy_kernel(const struct check_input *in)
{
	return in->role == ROLE_DESTINATION || in->host->zero_copy
		       ? NULL
		       : "this kernel has no MSG_ZEROCOPY";
}

static const char *zero_copy_transport(const struct check_input *in)
{
	return in->role == ROLE_SOURCE && in->copies
		       ? "this transport copies whatever it sends (no MSG_ZEROCOPY)"
		       : NULL;
}

#define NEEDS(row, a, b, why_, ...)                                                             \
	{                                                                                       \
		.qemu = row, .kind = RULE_NEEDS, .cap = CAP_##a, .other = CAP_##b, .why = why_, \
		__VA_ARGS__                                                                     \
	}
#define EXCLUDES(row, a, b, why_, ...)                                                             \
	{                                                                                          \
		.qemu = row, .kind = RULE_EXCLUDES, .cap = CAP_##a, .other = CAP_##b, .why = why_, \
		__VA_ARGS__                                                                        \
	}
#define TEST(row, a, test_, hint_)                                                           \
	{                                                                                    \
		.qemu = row, .kind = RULE_TEST, .cap = CAP_##a, .test = test_, .hint = hint_ \
	}
#define NOT_BUILT(row, a)                                           \
	{                                                           \
		.qemu = row, .kind = RULE_NOT_BUILT, .cap = CAP_##a \
	}
#define OURS	     0
#define WHY_SNAPSHOT "a snapshot's pages leave once, whole, and nobody answers"
#define SNAPSHOT(b)  EXCLUDES(7, BACKGROUND_SNAPSHOT, b, WHY_SNAPSHOT)

const struct check_rule check_rules[] = {
	{ .qemu = OURS, .kind = RULE_ALWAYS, .test = nothing_runs, .hint = "wait for its end" },

	/* QEMU 8.1's, numbered in its order */
	NOT_BUILT(1, BLOCK),
	NOT_BUILT(2, X_COLO),
	TEST(3, POSTCOPY_RAM, postcopy_host, NULL),
	EXCLUDES(4, POSTCOPY_RAM, X_IGNORE_SHARED,
		 "memory that is not sent could not be asked for either"),
	EXCLUDES(5, POSTCOPY_RAM, MULTIFD,
		 "multifd writes into memory, postcopy has to place whole pages"),
	TEST(6, BACKGROUND_SNAPSHOT, write_tracking, NULL),
	SNAPSHOT(POSTCOPY_RAM),
	SNAPSHOT(DIRTY_BITMAPS),
	SNAPSHOT(POSTCOPY_BLOCKTIME),
	SNAPSHOT(LATE_BLOCK_ACTIVATE),
	SNAPSHOT(RETURN_PATH),
	SNAPSHOT(MULTIFD),
	SNAPSHOT(PAUSE_BEFORE_SWITCHOVER),
	SNAPSHOT(AUTO_CONVERGE),
	SNAPSHOT(RELEASE_RAM),
	SNAPSHOT(RDMA_PIN_ALL),
	SNAPSHOT(COMPRESS),
	SNAPSHOT(XBZRLE),
	SNAPSHOT(X_COLO),
	SNAPSHOT(VALIDATE_UUID),
	SNAPSHOT(ZERO_COPY_SEND),
	NEEDS(8, ZERO_COPY_SEND, MULTIFD, "only its channels send without copying"),
	EXCLUDES(8, ZERO_COPY_SEND, COMPRESS, "a compressed page is a copy already"),
	EXCLUDES(8, ZERO_COPY_SEND, XBZRLE, "a delta is a copy already"),
	TEST(8, ZERO_COPY_SEND, zero_copy_compression, "--param multifd-compression=none"),
	TEST(8, ZERO_COPY_SEND, zero_copy_tls, "--param tls-creds="),
	NEEDS(10, POSTCOPY_PREEMPT, POSTCOPY_RAM, "it is how asked-for pages overtake others"),
	EXCLUDES(11, POSTCOPY_PREEMPT, COMPRESS, "workers would hold asked-for pages back"),
	TEST(12, POSTCOPY_PREEMPT, preempt_in_time, "set it when you start the destination"),
	EXCLUDES(13, MULTIFD, COMPRESS, "each compresses in its own way",
		 .hint = "--cap compress=off --param multifd-compression=zlib"),
	TEST(14, MULTIFD, multifd_in_time, "set it when you start the destination"),
	NEEDS(15, SWITCHOVER_ACK, RETURN_PATH, "the acknowledgement comes back on it"),
	EXCLUDES(16, DIRTY_LIMIT, AUTO_CONVERGE, "they are two ways to slow down the same vCPUs"),
	TEST(16, DIRTY_LIMIT, dirty_ring, "--cap dirty-limit=off; auto-converge is the other way"),

	/* QEMU 8.1 finds this out when it migrates; 7.2 asked here, as its ninth */
	TEST(9, MULTIFD, multi_channel, "use tcp:, unix:, vsock: or ssh:"),
	TEST(9, POSTCOPY_PREEMPT, multi_channel, "use tcp:, unix:, vsock: or ssh:"),

	/* ours. QEMU refuses the first one from 8.2 on; 8.1 takes it and makes no deltas */
	EXCLUDES(OURS, MULTIFD, XBZRLE, "pages on multifd's channels are never deltas"),
	TEST(OURS, RETURN_PATH, back_channel, "leave it off, or use a transport with two ways"),
	TEST(OURS, RELEASE_RAM, acknowledged,
	     "use a transport with two ways; towards a QEMU "
	     "--cap return-path=on"),
	TEST(OURS, POSTCOPY_RAM, answers, "use a transport with two ways"),
	TEST(OURS, SWITCHOVER_ACK, answers, "use a transport with two ways"),
	TEST(OURS, ZERO_COPY_SEND, zero_copy_kernel, "--cap zero-copy-send=off"),
	TEST(OURS, ZERO_COPY_SEND, zero_copy_transport, "use tcp:, or leave it off"),
	NOT_BUILT(OURS, DIRTY_BITMAPS),
	NOT_BUILT(OURS, BACKGROUND_SNAPSHOT),
	NOT_BUILT(OURS, MAPPED_RAM),
	{ .kind = RULE_ALWAYS },
};

static bool broken(const struct check_rule *r, const struct check_input *in, const char **said)
{
	const struct cap_set *s = in->new;

	switch (r->kind) {
	case RULE_NEEDS:
		return s->on[r->cap] && !s->on[r->other];
	case RULE_EXCLUDES:
		return s->on[r->cap] && s->on[r->other];
	case RULE_NOT_BUILT:
		return s->on[r->cap];
	case RULE_TEST:
		if (!s->on[r->cap])
			return false;
		break;
	case RULE_ALWAYS:
		break;
	}
	*said = r->test(in);
	return *said;
}

const struct check_rule *check_first(const struct check_input *in, const char **said)
{
	*said = NULL;
	for (const struct check_rule *r = check_rules; r->kind != RULE_ALWAYS || r->test; r++)
		if (broken(r, in, said))
			return r;
	return NULL;
}

int check_caps(const struct check_input *in, struct error *err)
{
	const char *said;
	const struct check_rule *r = check_first(in, &said);
	const char *cap, *other;

	if (!r)
		return 0;
	cap = cap_table[r->cap].name;
	other = cap_table[r->other].name;
	switch (r->kind) {
	case RULE_NEEDS:
		err_set(err, ST_UNSUPPORTED, "capability %s needs %s: %s", cap, other, r->why);
		err_hint(err, "--cap %s=on", other);
		break;
	case RULE_EXCLUDES:
		err_set(err, ST_UNSUPPORTED, "capabilities %s and %s exclude each other: %s", cap,
			other, r->why);
		err_hint(err, "--cap %s=off, or --cap %s=off", cap, other);
		break;
	case RULE_TEST:
		err_set(err, ST_UNSUPPORTED, "capability %s: %s", cap, said);
		err_hint(err, "--cap %s=off", cap);
		break;
	case RULE_NOT_BUILT:
		err_set(err, ST_UNSUPPORTED, "capability %s is %s", cap, cap_table[r->cap].what);
		err_hint(err, "--cap %s=off", cap);
		break;
	case RULE_ALWAYS:
		err_set(err, ST_UNSUPPORTED, "%s", said);
		break;
	}
	return r->hint ? err_hint(err, "%s", r->hint) : -1;
}

int check_apply(struct cap_set *set, const struct check_input *in, struct error *err)
{
	if (check_caps(in, err))
		return -1;
	*set = *in->new;
	for (int i = 0; i < CAP__MAX; i++)
		if (set->on[i] && cap_table[i].effect == EFFECT_INERT)
			log_verbose("capability %s has no effect here: %s", cap_table[i].name,
				    cap_table[i].what);
	for (int i = 0; i < PARAM__MAX; i++)
		if (in->params->given[i] && param_table[i].effect == EFFECT_INERT)
			log_verbose("parameter %s has no effect here: %s", param_table[i].name,
				    param_table[i].what);
	return 0;
}

unsigned check_related(enum cap cap, enum rule_kind kind, enum cap related[CAP__MAX])
{
	bool is[CAP__MAX] = { false };
	unsigned n = 0;

	for (const struct check_rule *r = check_rules; r->kind != RULE_ALWAYS || r->test; r++) {
		if (r->kind != kind)
			continue;
		if (r->cap == cap)
			is[r->other] = true;
		if (kind == RULE_EXCLUDES && r->other == cap)
			is[r->cap] = true;
	}
	for (int i = 0; i < CAP__MAX; i++)
		if (is[i])
			related[n++] = (enum cap)i;
	return n;
}
