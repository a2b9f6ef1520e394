/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * MSG_ZEROCOPY: the kernel sends from our buffers, which therefore stay untouched until it says
 * (on the socket's error queue) that it is done. Items queued here are given back then.
 *
 * Source: Linux Documentation/networking/msg_zerocopy.rst. Completions are counted per successful
 * send call; SO_EE_CODE_ZEROCOPY_COPIED says that the kernel copied after all, as on loopback.
 */
#ifndef MIGTOOL_ZEROCOPY_H
#define MIGTOOL_ZEROCOPY_H

#include "session.h"

#define ZEROCOPY_INFLIGHT 4 /* batches of 512 KiB; a long link wants more than one */

struct zerocopy {
	bool on;
	int fd;
	struct session *ss;
	uint32_t sent;	    /* zero-copy calls so far */
	uint32_t completed; /* of these; all before are complete */
	struct {
		void *item;
		uint32_t after; /* done when completed reaches this */
	} inflight[ZEROCOPY_INFLIGHT];
	unsigned head, len;
};

typedef void (*zerocopy_done)(void *item, void *arg);

/* ST_UNSUPPORTED: the kernel or this kind of socket has no MSG_ZEROCOPY. */
int zerocopy_open(struct zerocopy *z, struct transport *t, struct session *ss, struct error *err);

/* Sends all of iov, whose bytes must not change until the item queued next is given back. */
int zerocopy_send(struct zerocopy *z, struct stream *s, struct iovec *iov, int n,
		  struct error *err);

/* Queues the owner of the bytes just sent; waits for the oldest if too many are in flight. */
int zerocopy_queue(struct zerocopy *z, void *item, zerocopy_done done, void *arg,
		   struct error *err);

/* Waits until at most `left` items are in flight. Does nothing when off. */
int zerocopy_wait(struct zerocopy *z, unsigned left, zerocopy_done done, void *arg,
		  struct error *err);

void zerocopy_close(struct zerocopy *z);

#endif
