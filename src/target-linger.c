// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * After DONE, with --retry: a source that has not heard it comes back and asks. It is told that all
 * is done by what this process knows; the image itself may be in a guest's hands by now.
 */
#include "target.h"

#include "byteorder.h"
#include "link.h"
#include "log.h"
#include "signals.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GREET_MS 5000
#define SOON_MS	 20000
#define CLOSE_MS 10000 /* for a source that has heard DONE to close */

/* HEARD has 7 bytes; whoever has said it closes. */
static bool was_heard(struct session *ss)
{
	uint64_t end = link_deadline(CLOSE_MS);
	struct wire_command c = { 0 };
	struct error ignored;
	uint8_t got[7];
	size_t have = 0;

	while (have < sizeof(got)) {
		ssize_t n;

		if (!stream_buffered(&ss->stream) && cancel_wait(&ss->cancel, ss->main->rfd, POLLIN,
								 link_left_ms(end), &ignored) <= 0)
			return false;
		n = stream_read_some(&ss->stream, got + have, sizeof(got) - have, &ignored);
		if (n <= 0)
			return false;
		have += (size_t)n;
	}
	c.cmd = get_be16(got + 1);
	c.len = get_be32(got + 3);
	return got[0] == WIRE_COMMAND && c.cmd == MIG_CMD_HEARD && !c.len;
}

/* What has come so far: does it begin a greeting, and how long is that? -1: it does not. */
static ssize_t greeting_len(const uint8_t *buf, size_t have)
{
	size_t head = GREET_MAGIC_LEN + 4;

	if (have < head)
		return (ssize_t)head;
	if (memcmp(buf, GREET_MAGIC, GREET_MAGIC_LEN) ||
	    get_be32(buf + GREET_MAGIC_LEN) > GREET_MAX)
		return -1;
	return (ssize_t)(head + get_be32(buf + GREET_MAGIC_LEN));
}

/*
 * A whole greeting within a deadline of its own: the main thread is here, so nobody watches. Each
 * read takes what there is, so that nothing is left behind a descriptor that looks idle (TLS).
 */
static int get_greeting(struct session *ss, struct greeting *g, struct error *err)
{
	size_t have = 0, head = GREET_MAGIC_LEN + 4, cap = head + GREET_MAX;
	ssize_t want = (ssize_t)head;
	uint64_t end = link_deadline(GREET_MS);
	uint8_t *buf = malloc(cap);
	int rc = buf ? 0 : err_set(err, ST_NOMEM, "no memory for a greeting");

	while (!rc && want > (ssize_t)have) {
		int left = link_left_ms(end);
		ssize_t n = -1;

		if (stream_buffered(&ss->stream) ||
		    (left && cancel_wait(&ss->cancel, ss->main->rfd, POLLIN, left, err) > 0))
			n = stream_read_some(&ss->stream, buf + have, cap - have, err);
		rc = n > 0 ? 0 : err_set(err, ST_SOCKET, "no whole greeting");
		have += n > 0 ? (size_t)n : 0;
		want = greeting_len(buf, have);
		if (want < 0)
			rc = err_set(err, ST_PROTOCOL, "no greeting");
	}
	if (!rc)
		rc = greet_parse((char *)buf + head, (size_t)want - head, g, err);
	free(buf);
	return rc;
}

/* True: it was the source, and is told. */
static bool answer(struct session *ss, struct error *err)
{
	struct greet_answer a = { .take = true, .multifd_channels = 1, .found = FOUND_DONE };
	struct greeting g = { .nblocks = 0 };
	bool told = false;

	snprintf(a.program, sizeof(a.program), "migtool %s", MIGTOOL_VERSION);
	memcpy(a.session, ss->first, sizeof(a.session));
	if (!get_greeting(ss, &g, err)) {
		told = g.resume && g.knows_session && !memcmp(g.resumed, ss->first, 16);
		if (!told) {
			a.take = false;
			err_set(&a.why, ST_UNSUPPORTED, "another session has just ended here");
		}
		if (greet_answer_put(&ss->stream, &a, err))
			told = false;
		told = told && was_heard(ss);
	}
	greet_free(&g);
	return told;
}

/* One connection, if one comes. 1: the source was told, 0: not yet, -1: somebody ends us. */
static int attend_one(struct session *ss, int ms)
{
	struct error err;
	enum signal_request req;
	uint8_t first[8];
	int rc;

	while ((req = signals_next()) != SIGNAL_NONE)
		if (signals_is_cancel(req))
			return -1;
	rc = pending_next(ss->pending, ms, first, &ss->main, &err);
	if (rc <= 0)
		return rc;
	rc = link_open_stream(ss, &err) ? 0 : answer(ss, &err);
	link_drop_main(ss);
	return rc;
}

void target_linger(struct session *ss)
{
	uint64_t since = stats_now(), end;
	int rc = 0;

	/* nobody came in this process, but to one that was killed */
	if (ss->main ? was_heard(ss) : !ss->adopted)
		return;
	/* where the link's end was seen here, it is seen there, and the next try comes soon */
	end = link_deadline(ss->main && stats_now() - since < CLOSE_MS ? SOON_MS : LINK_RETURN_MS);
	log_warn("the source may not know that %s: waiting for it to come back",
		 ss->served ? "the guest has all" : "the image arrived");
	link_drop_main(ss);
	while (!rc && link_left_ms(end) > 0)
		rc = attend_one(ss, 250);
	if (rc <= 0)
		log_warn("the source did not come back");
}
