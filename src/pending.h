/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Accepted connections of which it is not known yet what they are. Several wait side by side for
 * their first bytes, so a port scanner or a silent peer does not keep the real one out. One that
 * stays silent or closes is dropped with one warning. One thread uses it.
 *
 * A QEMU with many channels opens all of them before the first one speaks. So when all places are
 * taken the oldest is dropped only after it had a second to speak; until then others stay in the
 * listener's queue. In a flood of silent ones everybody would wait there for minutes, so behind
 * PENDING_FLOOD of them the oldest is dropped at once. Where descriptors or memory are short, the
 * oldest makes room too; with none to drop the queue waits a second.
 *
 * Who says who he is in more than a packet is not waited for alone either: with `whole` his bytes
 * are gathered here until all is there by which he is judged, a greeting's 1 MiB at most.
 *
 * With TLS a connection shakes hands here, all of them side by side, and its first bytes are those
 * inside. Who is refused is told why (an alert, or `refuse_plain`), and a little of
 * what he says is read for a second more, so that a reset does not destroy the answer. Only a
 * little: a QEMU without a return path listens to nobody, and a reset is all that it notices.
 */
#ifndef MIGTOOL_PENDING_H
#define MIGTOOL_PENDING_H

#include "tls.h"
#include "transport.h"

#define PENDING_MAX   64		/* places */
#define PENDING_FLOOD (2 * PENDING_MAX) /* so many were dropped for others, and nobody spoke */

enum pending_state {
	PENDING_SPEECH,	   /* its first bytes are awaited */
	PENDING_GATHERING, /* the rest of what it says of itself is */
	PENDING_TLS,	   /* its first byte is, which tells TLS from anything else */
	PENDING_HANDSHAKE, /* of TLS */
	PENDING_PARTING,   /* it was refused, and may still be listening to why */
};

struct pending {
	struct listener *l;    /* not owned */
	struct cancel *cancel; /* not owned */
	struct tls_creds *tls; /* not owned; NULL: none. The next two are for the caller to set */
	bool client;	       /* ours is TLS's client, who begins */
	/*
	 * Is that all by which a connection is judged? At least its first 8 bytes, or QEVM; not
	 * asked of channels. NULL: these are enough. What is too long or wrong is whole, too. The
	 * caller's to set
	 */
	bool (*whole)(const uint8_t *said, size_t len);
	/*
	 * Answers who speaks no TLS although we want it; `first` is what he said. False: there is
	 * nothing to be said to him. May be NULL
	 */
	bool (*refuse_plain)(struct transport *t, const uint8_t first[8]);
	/*
	 * Who has got in may say nothing for as long as he likes, and end so; he keeps his place,
	 * and no warning is about him. A QEMU's postcopy-preempt is like that. The caller's to set
	 */
	bool quiet;
	int silence_ms;	     /* how long a connection may say nothing: 10 s */
	int grace_ms;	     /* how long it has its place for certain: 1 s */
	unsigned evicted;    /* dropped for others since somebody spoke */
	int64_t short_until; /* monotonic ms: nothing is accepted before; 0: no shortage */
	int n;
	struct pending_one {
		struct transport *t;
		enum pending_state state;
		int fd; /* of a handshake: what it waits for */
		short events;
		int64_t since; /* monotonic ms, as the next */
		int64_t deadline;
		size_t refused; /* bytes read since he was refused */
		uint8_t *said;	/* gathered; owned */
		size_t len, cap;
		bool partial; /* it said something, not enough to judge by */
		bool fresh;   /* its bytes may be here where poll() does not see them */
	} one[PENDING_MAX];   /* the oldest first */
};

/* NULL: out of memory. Listener and token have to outlive it. */
struct pending *pending_new(struct listener *l, struct cancel *cancel, struct error *err);
/* Closes what still waits, not the listener. NULL is accepted. */
void pending_free(struct pending *p);

/*
 * Waits for a connection that has shown its first 8 bytes, or the 4 of QEMU's "QEVM" (the rest of
 * `first` may be 0 then); one that begins with multifd's magic, the 64 of a channel's first packet,
 * so that who reads that need not wait; with `whole` all that it asks for. They are not taken from
 * it. 1: *t is the caller's, 0:
 * timeout_ms (-1: no limit) are over, -1: cancelled, or listening failed (ST_SOCKET).
 */
int pending_next(struct pending *p, int timeout_ms, uint8_t first[8], struct transport **t,
		 struct error *err);

#endif
