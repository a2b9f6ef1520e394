// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A try is a whole session over a connection of its own, from `open` to `finish`. What goes from
 * one to the next: the session's first id, who owns the guest, a listener and who knocked there
 * meanwhile, and what the destination has kept. Nothing that was in flight is trusted: the next try
 * compares digests.
 */
#include "session-retry.h"

#include "link.h"
#include "log.h"
#include "signals.h"

#include <poll.h>
#include <string.h>
#include <sys/random.h>

#define PAUSE_MS     200
#define PAUSE_MAX_MS 30000

bool session_link_died(const struct error *why)
{
	return why->status == ST_SOCKET || why->status == ST_TIMEOUT || why->status == ST_CONNECT ||
	       why->status == ST_LOST;
}

/*
 * With a guest at the destination that waits. What the other end did wrong, or was told to do, is
 * no reason to leave it: another one may come. The listening destination's patience has no end.
 */
static bool guest_tries_again(const struct session *ss, const struct error *why)
{
	bool here = ss->role == ROLE_DESTINATION;

	if (!ss->cfg->retry || ss->left)
		return false;
	if (!(here && ss->listener) && ss->tries >= ss->cfg->retry)
		return false;
	return why->status == ST_SOCKET || why->status == ST_TIMEOUT || why->status == ST_CONNECT ||
	       why->status == ST_DATA || why->status == ST_CANCELLED ||
	       (here && why->status == ST_REFUSED);
}

bool session_tries_again(const struct session *ss, const struct error *why)
{
	/* behind a QEMU's switch to postcopy nobody comes with all of the guest again, only with
	 * the rest of it */
	bool switched = ss->role == ROLE_DESTINATION && ss->committed && !ss->parked;

	if (ss->serving)
		return guest_tries_again(ss, why);
	return ss->tries < ss->cfg->retry && session_link_died(why) && !switched &&
	       ss->owner != OWNER_DESTINATION;
}

int session_check_retry(const struct session *ss, struct error *err)
{
	const struct config *cfg = ss->cfg;
	enum scheme scheme = ss->uri.scheme;
	bool once = scheme == SCHEME_STDIO || (scheme == SCHEME_FD && !ss->listener);

	if (!cfg->retry && !cfg->resume)
		return 0;
	if (cfg->one_way || scheme == SCHEME_FILE || scheme == SCHEME_NULL)
		return err_set(err, ST_USAGE,
			       "--%s needs a transport with two ways, and %s has one",
			       cfg->resume ? "resume" : "retry", ss->uri.text);
	if (cfg->peer == PEER_QEMU && (cfg->retry || !cfg->caps.on[CAP_POSTCOPY_RAM])) {
		err_set(err, ST_USAGE, "--%s: a QEMU cannot go on with what it has",
			cfg->retry ? "retry" : "resume");
		return err_hint(err, "it can in postcopy: --resume --cap postcopy-ram");
	}
	if (cfg->retry && once) {
		err_set(err, ST_USAGE, "--retry: %s cannot be connected to again", ss->uri.text);
		return err_hint(err, "start both ends again, with --resume");
	}
	return 0;
}

/* How long before the next try. A listener just waits for the other end. */
static int pause_ms(const struct session *ss)
{
	int ms = PAUSE_MS;

	if (ss->listener)
		return 0;
	for (unsigned i = 1; i < ss->tries && ms < PAUSE_MAX_MS; i++)
		ms *= 2;
	return ms < PAUSE_MAX_MS ? ms : PAUSE_MAX_MS;
}

/* A sleep that a signal ends. */
static int wait_attentively(int ms, struct error *err)
{
	uint64_t end = link_deadline(ms);
	struct pollfd p = { .fd = signals_fd(), .events = POLLIN };

	do {
		enum signal_request req;

		poll(&p, 1, link_left_ms(end));
		while ((req = signals_next()) != SIGNAL_NONE)
			if (signals_is_cancel(req))
				return err_set(err, ST_CANCELLED, "cancelled by %s",
					       signals_name(req));
	} while (link_left_ms(end) > 0);
	return 0;
}

/* Where a guest goes on at the destination nothing takes that back. */
static void forget_switch(struct session *ss)
{
	ss->committed = ss->postcopy = false;
	ss->phase = "open";
	stat_set(&ss->stats.travelled, 0);
	stat_set(&ss->stats.t_setup_done, 0);
	stat_set(&ss->stats.t_switchover, 0);
}

/* Everything that belongs to one connection. */
static int forget_try(struct session *ss, struct error *err)
{
	struct transport *t;
	struct error ignored;

	while ((t = session_stashed(ss)))
		transport_close(t, &ignored);
	ss->moved_before +=
		ss->stream.bytes_in + ss->stream.bytes_out + stat_get(&ss->stats.urgent_bytes);
	stat_set(&ss->stats.urgent_bytes, 0);
	link_drop_main(ss);
	/* listener and pending connections keep the token's address */
	cancel_destroy(&ss->cancel);
	if (cancel_init(&ss->cancel, err))
		return -1;
	memset(&ss->dialect, 0, sizeof(ss->dialect));
	memset(&ss->stream, 0, sizeof(ss->stream));
	ss->failed = false;
	err_clear(&ss->why);
	ss->watched = ss->stream_over = ss->parked = false;
	ss->complete = ss->digest_known = ss->digest_verified = ss->unheard = false;
	if (!ss->serving)
		forget_switch(ss);
	if (getrandom(ss->id, sizeof(ss->id), 0) != (ssize_t)sizeof(ss->id))
		return err_set(err, ST_UNSUPPORTED, "no random session id");
	return 0;
}

/* Who waits for what, and what this end does about it. */
static void say_paused(struct session *ss, const struct error *why, int ms)
{
	const char *where = ss->role == ROLE_SOURCE ? "at the destination " : "";

	ss->paused = true;
	events_status(&ss->events, MIG_POSTCOPY_PAUSED);
	if (ss->listener)
		log_warn("the guest %swaits for its memory: %s; waiting for %s to come back", where,
			 why->msg, ss->role == ROLE_SOURCE ? "it" : "the source");
	else
		log_warn("the guest %swaits for its memory: %s; trying again in %d.%d s (try %u of "
			 "%u)",
			 where, why->msg, ms / 1000, ms % 1000 / 100, ss->tries, ss->cfg->retry);
}

bool session_prepare_again(struct session *ss, struct error *err)
{
	struct error why;
	int ms;

	if (!session_tries_again(ss, err))
		return false;
	ss->tries++;
	ms = pause_ms(ss);
	if (ss->serving)
		say_paused(ss, err, ms);
	else if (ss->listener)
		log_warn("%s; waiting for the other end to come back (try %u of %u)", err->msg,
			 ss->tries, ss->cfg->retry);
	else
		log_warn("%s; trying again in %d.%d s (try %u of %u)", err->msg, ms / 1000,
			 ms % 1000 / 100, ss->tries, ss->cfg->retry);
	if (wait_attentively(ms, &why) || forget_try(ss, &why)) {
		ss->left = true;
		*err = why;
		return false;
	}
	ss->again = true;
	return true;
}
