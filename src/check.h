/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The compatibility check: a pure function over (old set, new set, host facts, role, parameters).
 * Every rule is a row of one table, in the order in which QEMU 8.1 evaluates its own (first failure
 * is reported), ours marked as ours.
 */
#ifndef MIGTOOL_CHECK_H
#define MIGTOOL_CHECK_H

#include "caps.h"
#include "params.h"

enum role { ROLE_SOURCE, ROLE_DESTINATION };

/* Write tracking (userfaultfd write-protect): absent from the kernel, there, or usable on this RAM */
enum write_tracking { TRACKING_ABSENT, TRACKING_AVAILABLE, TRACKING_COMPATIBLE };

struct host_facts {
	enum write_tracking write_tracking;
	bool postcopy_host;	     /* result of the host's postcopy check ... */
	char postcopy_reason[256];   /* ... and why not */
	bool kvm_dirty_ring;
	bool zero_copy;		     /* MSG_ZEROCOPY is there */
};

struct check_input {
	const struct cap_set *old; /* in force; NULL: all off */
	const struct cap_set *new; /* the resulting set */
	const struct params *params;
	const struct host_facts *host;
	enum role role;
	bool incoming_started;	 /* a listener waits already */
	bool migration_running;	 /* nothing can be set */
	bool multi_channel;	 /* the transport can open more than one channel */
	bool peer_qemu;		 /* the other end is a real QEMU; false: a migtool or not known */
};

/* 0, or -1 with the reason (ST_UNSUPPORTED; its text names the capabilities) and the hint. */
int check_caps(const struct check_input *in, struct error *err);

/*
 * Sets all of `wanted` or nothing: checks, then copies into *set. Writes the names of inert
 * capabilities that are on, one `-v` line each.
 */
int check_apply(struct cap_set *set, const struct check_input *in, struct error *err);

/* Asks this kernel. The host's postcopy check is made only when `with_postcopy` is set. */
void host_probe(struct host_facts *facts, bool with_postcopy);

#endif
