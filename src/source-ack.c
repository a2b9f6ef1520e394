// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * switchover-ack: the guest goes on here until the destination has said that its side is ready. A
 * migtool says so by LISTENING, when its guest has the device state, and waits for memory; without
 * a guest it has nothing to get ready. A QEMU has a message for it, and there has to be told to
 * send it.
 */
#include "source.h"

#include "link.h"
#include "log.h"

static int await_qemu(struct source *src, struct error *err)
{
	struct session *ss = src->ss;
	int64_t limit = link_timeout_ms(ss);
	int rc;

	/* silence is explained until then */
	ss->watched = false;
	rc = limit > 0 ? returnpath_wait_ms(&src->rp, RP_WAIT_ACK, (int)limit, err)
		       : returnpath_wait(&src->rp, RP_WAIT_ACK, err);
	ss->watched = true;
	if (rc < 0)
		return -1;
	if (limit <= 0 || rc)
		return 0;
	err_set(err, ST_TIMEOUT, "the destination has not acknowledged the switchover within %d s",
		(int)(limit / 1000));
	return err_hint(err, "switchover-ack has to be on in that QEMU (8.1 or later), too");
}

int source_ack(struct session *ss, struct error *err)
{
	struct source *src = ss->source;

	if (!ss->caps.on[CAP_SWITCHOVER_ACK] || src->recovers || src->guest_waits)
		return 0;
	atomic_store(&ss->phase, "switchover-ack");
	if (!ss->dialect.migtool)
		return await_qemu(src, err);
	if (ss->postcopy)
		return source_guest_ready(src, err);
	log_verbose("switchover-ack: the destination has no guest to get ready");
	return 0;
}
