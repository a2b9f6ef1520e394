// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The source of a guest that runs at another migtool and has lost its connection: whether it may go
 * on, and what is said when it cannot.
 *
 * The image must be the one that the guest has a part of. Within a process that is checked here, of
 * a new one by the destination, which was told what the files are (image in the greeting). Nobody
 * reads all of it again: the digest at the end is of what came since.
 */
#include "source.h"

#include "again.h"
#include "log.h"

#include <stdlib.h>
#include <string.h>

int source_guest_open(struct source *src, struct error *err)
{
	const struct session *ss = src->ss;

	image_identity_digest(src->img, &src->identity);
	src->has_identity = true;
	if (!ss->serving || !ss->knows_image || digest_equal(ss->image, src->identity))
		return 0;
	return err_set(err, ST_UNSUPPORTED,
		       "%s was replaced, or written to, while the guest waited for the rest of it",
		       src->img->path);
}

/* Nobody there waits for this memory: was it ever given away? */
static int found_none(struct source *src, struct error *err)
{
	struct session *ss = src->ss;

	if (!ss->again || (ss->owner == OWNER_SOURCE && !ss->serving)) {
		ss->owner = OWNER_SOURCE;
		return 0;
	}
	err_set(err, ST_REFUSED, "no guest at the destination waits for this memory");
	return err_hint(err, "if it runs nowhere, begin anew, without --resume");
}

static int found_guest(struct source *src, struct error *err)
{
	struct session *ss = src->ss;

	if (!ss->again)
		return err_set(err, ST_DATA, "the answer: a guest waits, and nobody asked for one");
	if (ss->knows_first && memcmp(src->answer.session, ss->first, sizeof(ss->first)) != 0)
		return err_set(err, ST_DATA, "the answer: a guest of another session");
	if (session_commit(ss, err))
		return -1;
	memcpy(ss->first, src->answer.session, sizeof(ss->first));
	ss->knows_first = true;
	src->guest_waits = true;
	ss->owner = OWNER_DESTINATION;
	ss->serving = ss->postcopy = ss->recovered = true;
	ss->paused = false;
	events_status(&ss->events, MIG_POSTCOPY_RECOVER);
	log_info("the guest waits at the destination: going on with session %02x%02x%02x%02x",
		 ss->first[0], ss->first[1], ss->first[2], ss->first[3]);
	return 0;
}

int source_guest_found(struct source *src, struct error *err)
{
	struct session *ss = src->ss;

	if (!ss->again) {
		memcpy(ss->first, ss->id, sizeof(ss->first));
		ss->knows_first = true;
	}
	switch (src->answer.found) {
	case FOUND_GUEST:
		return found_guest(src, err);
	case FOUND_READY:
		if (ss->serving)
			return found_none(src, err);
		ss->owner = OWNER_SOURCE; /* COMMIT was never taken */
		return 0;
	case FOUND_NOTHING:
		return found_none(src, err);
	default:
		return err_set(err, ST_DATA, "the answer: an image, and a guest is to run there");
	}
}

void source_guest_leave(struct session *ss, struct error *err)
{
	char *again = send_again(ss->cfg);

	session_lost(ss, err, "the guest runs at the destination, and waits there for memory",
		     again ? again : "send --resume goes on with it");
	free(again);
}
