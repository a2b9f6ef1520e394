/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The compatibility check: a pure function over (old set, new set, host facts, role, parameters).
 *
 * Every rule is a row of one table. QEMU 8.1's come first, in the order in which it evaluates them,
 * so that the first failure, which is what gets reported, is the one that QEMU reports; block and
 * x-colo count as options that this build lacks, which QEMU asks first too. What QEMU only finds
 * out when it migrates follows, then our own rules, and last what is not built yet: who asks for
 * postcopy-ram and multifd learns that they exclude each other before he learns that one of them
 * has to wait.
 */
#ifndef MIGTOOL_CHECK_H
#define MIGTOOL_CHECK_H

#include "caps.h"
#include "params.h"

enum role { ROLE_SOURCE, ROLE_DESTINATION };

/* Write tracking (userfaultfd write-protect): absent from the kernel, there, or usable on this RAM
 */
enum write_tracking { TRACKING_ABSENT, TRACKING_AVAILABLE, TRACKING_COMPATIBLE };

struct host_facts {
	enum write_tracking write_tracking;
	bool postcopy_host;	   /* result of the host's postcopy check ... */
	char postcopy_reason[256]; /* ... and why not */
	bool kvm_dirty_ring;
	bool zero_copy; /* MSG_ZEROCOPY is there */
};

struct check_input {
	const struct cap_set *old; /* in force; NULL: all off */
	const struct cap_set *new; /* the resulting set */
	const struct params *params;
	const struct host_facts *host;
	enum role role;
	bool incoming_started;	/* a listener waits already */
	bool migration_running; /* nothing can be set */
	bool multi_channel;	/* the transport can open more than one connection */
	bool copies;		/* the transport has no MSG_ZEROCOPY */
	bool one_way;		/* the transport carries nothing back */
	bool stores;		/* a destination where nothing runs: memory is only kept */
	bool peer_qemu;		/* the other end is a real QEMU; false: a migtool or not known */
};

enum rule_kind {
	RULE_NEEDS,	/* `cap` needs `other` */
	RULE_EXCLUDES,	/* `cap` and `other` exclude each other */
	RULE_TEST,	/* `test` says whether `cap` can be on */
	RULE_NOT_BUILT, /* `cap` has to wait */
	RULE_ALWAYS,	/* `test`, whatever is on */
};

struct check_rule {
	unsigned char qemu; /* which of QEMU's rules, in its order; 0: ours */
	enum rule_kind kind;
	enum cap cap, other;
	/* What is wrong, or NULL. The text lives as long as the input */
	const char *(*test)(const struct check_input *in);
	const char *why;  /* for RULE_NEEDS and RULE_EXCLUDES */
	const char *hint; /* how to fix it; NULL: what the kind suggests */
};

/* Ends with a row whose kind is RULE_ALWAYS and whose test is NULL. */
extern const struct check_rule check_rules[];

/* The first rule that is broken and, for a test, what it said; NULL: none. */
const struct check_rule *check_first(const struct check_input *in, const char **said);

/* 0, or -1 with the reason (ST_UNSUPPORTED; its text names the capabilities) and the hint. */
int check_caps(const struct check_input *in, struct error *err);

/*
 * Sets all of in->new or nothing: checks, then copies it into *set. Then one -v line for each
 * capability that is on and each parameter that was given, if it has no effect here.
 */
int check_apply(struct cap_set *set, const struct check_input *in, struct error *err);

/*
 * What `cap` needs (RULE_NEEDS) or excludes (RULE_EXCLUDES, whichever side the rule names first),
 * from the rules, in the order of capabilities. Returns how many.
 */
unsigned check_related(enum cap cap, enum rule_kind kind, enum cap related[CAP__MAX]);

/*
 * Asks this kernel, never a guest. Postcopy's check creates, fills and drops a few pages, so it is
 * made only when `with_postcopy` is set. Without it postcopy_host is false, and the reason says so.
 */
void host_probe(struct host_facts *facts, bool with_postcopy);

/*
 * Asks it now, and lets host_probe give that answer from now on: for a process that soon may not
 * ask any more. Before threads start.
 */
void host_remember(bool with_postcopy);

#endif
