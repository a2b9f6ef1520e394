// SPDX-License-Identifier: GPL-2.0-or-later
#include "caps.h"

#include "suggest.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>

const struct cap_info cap_table[CAP__MAX] = {
	[CAP_XBZRLE] = { "xbzrle", "1.2", EFFECT_ACT,
			 "pages that changed travel as deltas to an older copy; a static image has "
			 "one with --base" },
	[CAP_RDMA_PIN_ALL] = { "rdma-pin-all", "2.0", EFFECT_INERT,
			       "there is no RDMA transport whose memory could be pinned" },
	[CAP_AUTO_CONVERGE] = { "auto-converge", "1.6", EFFECT_INERT,
				"a static image has no vCPUs to slow down" },
	[CAP_ZERO_BLOCKS] = { "zero-blocks", "1.6", EFFECT_INERT,
			      "concerns block devices, of which none travels" },
	[CAP_COMPRESS] = { "compress", "2.4", EFFECT_ACT,
			   "each page travels as a zlib stream of its own (QEMU dropped it in "
			   "9.1)" },
	[CAP_EVENTS] = { "events", "2.4", EFFECT_ACT,
			 "MIGRATION and MIGRATION_PASS are printed as lines of JSON" },
	[CAP_POSTCOPY_RAM] = { "postcopy-ram", "2.6", EFFECT_ACT,
			       "the guest goes on before its memory has arrived, and asks for it" },
	[CAP_X_COLO] = { "x-colo", "2.8", EFFECT_REFUSED,
			 "not built yet: replication to a second, running guest" },
	[CAP_RELEASE_RAM] = { "release-ram", "2.9", EFFECT_ACT,
			      "the source's memory is given back once the destination has said "
			      "that it has it" },
	[CAP_BLOCK] = { "block", "2.10", EFFECT_REFUSED,
			"not built yet: block devices in the stream (QEMU dropped it in 9.1)" },
	[CAP_RETURN_PATH] = { "return-path", "2.10", EFFECT_ACT,
			      "QEMU's own back channel, with a QEMU at the other end" },
	[CAP_PAUSE_BEFORE_SWITCHOVER] = { "pause-before-switchover", "2.11", EFFECT_ACT,
					  "the source waits for SIGUSR2 or --continue-fd before "
					  "it gives the guest up" },
	[CAP_MULTIFD] = { "multifd", "4.0", EFFECT_ACT,
			  "pages travel on connections of their own, compressed or not" },
	[CAP_DIRTY_BITMAPS] = { "dirty-bitmaps", "2.12", EFFECT_REFUSED,
				"not built yet: block devices' dirty bitmaps" },
	[CAP_POSTCOPY_BLOCKTIME] = { "postcopy-blocktime", "3.0", EFFECT_ACT,
				     "a destination that serves a guest says for how long each of "
				     "its threads waited" },
	[CAP_LATE_BLOCK_ACTIVATE] = { "late-block-activate", "3.0", EFFECT_INERT,
				      "there are no block devices to activate" },
	[CAP_X_IGNORE_SHARED] = { "x-ignore-shared", "4.0", EFFECT_ACT,
				  "memory that both ends can reach is compared, not sent" },
	[CAP_VALIDATE_UUID] = { "validate-uuid", "4.2", EFFECT_ACT,
				"the guest's UUID travels and has to match at the destination" },
	[CAP_BACKGROUND_SNAPSHOT] = { "background-snapshot", "6.0", EFFECT_REFUSED,
				      "not built yet: a snapshot of a guest that runs on" },
	[CAP_ZERO_COPY_SEND] = { "zero-copy-send", "7.1", EFFECT_ACT,
				 "multifd's pages are sent from where they lie (MSG_ZEROCOPY)" },
	[CAP_POSTCOPY_PREEMPT] = { "postcopy-preempt", "7.1", EFFECT_ACT,
				   "pages that the guest asks for have a connection of their own" },
	[CAP_SWITCHOVER_ACK] = { "switchover-ack", "8.1", EFFECT_ACT,
				 "the source waits until the destination's guest is ready" },
	[CAP_DIRTY_LIMIT] = { "dirty-limit", "8.1", EFFECT_INERT,
			      "a static image has no vCPUs to slow down" },
	[CAP_MAPPED_RAM] = { "mapped-ram", "9.0", EFFECT_REFUSED,
			     "not built yet: pages at fixed offsets in a file (QEMU 9.0)" },
};

const char *effect_name(enum effect effect)
{
	static const char *const names[] = { "act", "inert", "refused" };

	return names[effect];
}

int cap_find(const char *name)
{
	for (int i = 0; i < CAP__MAX; i++)
		if (!strcmp(cap_table[i].name, name))
			return i;
	return -1;
}

int switch_parse(const char *value, bool *on)
{
	*on = !strcmp(value, "on");
	return *on || !strcmp(value, "off") ? 0 : -1;
}

static int unknown(const char *name, struct error *err)
{
	struct suggest near;

	suggest_init(&near, name);
	for (int i = 0; i < CAP__MAX; i++)
		suggest_offer(&near, cap_table[i].name);
	err_set(err, ST_USAGE, "unknown capability \"%s\"", name);
	if (near.best)
		return err_hint(err, "did you mean %s?", near.best);
	return err_hint(err, "migtool caps lists them");
}

int cap_parse(struct cap_set *set, const char *arg, struct error *err)
{
	const char *eq = strchr(arg, '=');
	char name[64];
	bool on = true;
	int cap;

	/* A name that is cut is longer than any known one, so it stays unknown. */
	snprintf(name, sizeof(name), "%.*s", (int)(eq ? eq - arg : (ptrdiff_t)strlen(arg)), arg);
	cap = cap_find(name);
	if (cap < 0)
		return unknown(name, err);
	if (eq && switch_parse(eq + 1, &on)) {
		err_set(err, ST_USAGE, "capability %s is on or off, not \"%s\"", name, eq + 1);
		return err_hint(err, "--cap %s=on", name);
	}
	set->on[cap] = on;
	set->given[cap] = true;
	return 0;
}
