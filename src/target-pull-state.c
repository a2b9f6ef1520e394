// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The device state of a guest whose memory is still to come. It comes before LISTEN, which has its
 * digest; then it is under its name, whole, before COMMAND starts, or a VMM is waited for. The
 * guest may have read it from then on. So a further try, with a guest that was not handed over, has
 * to bring the same again, or none as well; and to a guest that was handed over none comes.
 *
 * Without COMMIT there is no guest here, and it is removed with all else.
 */
#include "pull.h"

#include "byteorder.h"

#include <inttypes.h>
#include <string.h>

int pull_judge_state(const struct target *t, struct error *err)
{
	const struct session *ss = t->ss;

	/* a guest that was handed over has it */
	if (!t->greeting.has_device_state || ss->serving)
		return 0;
	if (ss->adopted) {
		err_set(err, ST_UNSUPPORTED,
			"the guest here was not handed over, and may have read another device "
			"state");
		return err_hint(err, "end it, and begin anew, without --resume");
	}
	if (ss->cfg->device_state)
		return 0;
	err_set(err, ST_UNSUPPORTED,
		"the source sends a device state, and the guest here has to find it somewhere");
	return err_hint(err, "say where it goes: --device-state FILE");
}

int pull_judge_begun(const struct target *t, struct error *err)
{
	const struct pull *p = t->ss->lazy->pull;
	bool has = image_device_state_placed(p->img);

	if (t->ss->serving || !p->listened || has == t->greeting.has_device_state)
		return 0;
	err_set(err, ST_UNSUPPORTED,
		"the guest here has begun %s a device state, and the source sends %s",
		has ? "with" : "without", has ? "none" : "one");
	return err_hint(err,
			"it waits for the source that it began with; for another one, begin anew");
}

int pull_open_state(struct target *t, struct error *err)
{
	const struct config *cfg = t->ss->cfg;

	if (!t->greeting.has_device_state)
		return 0;
	if (!pull_keeps(t))
		return image_take_device_state(t->img, cfg->device_state, cfg->force, err);
	if (!t->img->directory)
		return 0;
	err_set(err, ST_UNSUPPORTED,
		"%s is a directory, and a guest's device state goes into a file of its own",
		cfg->image);
	return err_hint(err, "let IMAGE be a file");
}

int pull_check_state(const struct target *t, struct error *err)
{
	if (t->start_done && t->postcopy == POSTCOPY_NONE && t->found != FOUND_GUEST)
		return 0;
	return err_set(err, ST_DATA, "device state %s",
		       t->found == FOUND_GUEST	      ? "for a guest that has it"
		       : t->postcopy != POSTCOPY_NONE ? "behind LISTEN"
						      : "before the list of blocks");
}

int pull_put_state(struct target *t, bool first, const void *buf, size_t len, struct error *err)
{
	/* what the guest may have read stays; LISTEN says whether it is the same */
	if (image_device_state_placed(t->img))
		return 0;
	/* a try before may have broken in the middle */
	if (first && image_reset_device_state(t->img, err))
		return -1;
	return image_put_device_state(t->img, buf, len, err);
}

static int compare(const struct target *t, const struct wire_digest *theirs, struct error *err)
{
	struct wire_digest own;

	image_device_state_digest(t->img, &own.device, &own.device_size);
	if (own.device_size == theirs->device_size && digest_equal(own.device, theirs->device))
		return 0;
	return err_set(err, ST_DIGEST,
		       "the device state %s (%" PRIu64 " bytes) differs from what the source sent "
		       "(%" PRIu64 " bytes)",
		       image_device_state_placed(t->img) ? "that the guest has" : "that arrived",
		       own.device_size, theirs->device_size);
}

int pull_listen_state(struct target *t, uint32_t len, struct error *err)
{
	bool wanted = t->greeting.has_device_state && t->found != FOUND_GUEST;
	uint8_t bytes[WIRE_DIGEST_LEN] = { 0 };
	struct wire_digest d;

	if (wanted != t->have_state || len != (t->have_state ? WIRE_STATE_LEN : 0))
		return err_set(err, ST_DATA, "LISTEN of %u bytes, and %s device state", len,
			       t->have_state ? "there was a"
			       : wanted	     ? "there was no"
					     : "there is no");
	if (!t->have_state)
		return 0;
	if (stream_read(&t->ss->stream, bytes + WIRE_DIGEST_LEN - WIRE_STATE_LEN, WIRE_STATE_LEN,
			err))
		return -1;
	wire_digest_unpack(bytes, &d);
	if (compare(t, &d, err))
		return -1;
	return image_place_device_state(t->img, err);
}

int pull_verify_state(const struct target *t, struct error *err)
{
	const struct wire_digest *d = &t->digest;

	if (t->have_state)
		return compare(t, d, err);
	if (!d->device_size && !d->device.high && !d->device.low)
		return 0;
	return err_set(err, ST_DATA, "DIGEST tells of a device state that did not come");
}
