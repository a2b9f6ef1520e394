/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Getting and keeping the connections of a session, for both roles: streams, extra channels and the
 * first packet that binds them to the session, last words.
 */
#ifndef MIGTOOL_LINK_H
#define MIGTOOL_LINK_H

#include "image.h"
#include "session.h"

#define LINK_SILENCE_MS	    10000  /* a peer that says nothing at all, before it is known */
#define LINK_RETURN_MS	    120000 /* --retry: how long a source is waited for that was here */
#define LINK_STREAM_BUFFER  (256u << 10)
#define LINK_URGENT_CHANNEL 0xfe /* that of postcopy's requested pages */
#define LINK_MAIN_CHANNEL                                                      \
	0xff /* the channel number of a dialling destination's main connection \
	      */

/* --timeout in milliseconds, -1: never. 60 s when it was not given. */
int64_t link_timeout_ms(const struct session *ss);

/*
 * A stage's one deadline, on stats_now()'s clock: link_timeout_ms from now (UINT64_MAX: never), and
 * what is left of it as poll() wants it. Who is dropped meanwhile does not set it back.
 */
uint64_t link_deadline(int64_t ms);
int link_left_ms(uint64_t deadline);

/* Dials ss->main; an ssh: URI's far process is started. */
int link_dial_main(struct session *ss, struct error *err);

/*
 * How long a peer may be busy with something of which it only says that it goes on: 10 minutes, and
 * as long as a slow disk takes for all of the memory.
 */
uint64_t link_patience_ms(const struct session *ss);

/* Who waits for channels: has the main connection ended meanwhile? -1: it has. */
int link_check_main(struct session *ss, struct error *err);

/* Can there be more than the main connection? */
bool link_multi_channel(const struct session *ss);
/* Is it known that no connection has MSG_ZEROCOPY? */
bool link_copies(const struct session *ss);

/* Opens ss->stream over ss->main, counting into the session's statistics. */
int link_open_stream(struct session *ss, struct error *err);

/* Closes main and its stream, for the next one to come. */
void link_drop_main(struct session *ss);

/*
 * The same at the end of a transfer, with the transport's last word: what a command exited with.
 * Where the peer confirms nothing this is asked before anything is called done. main may be gone.
 */
int link_end_main(struct session *ss, struct error *err);

/*
 * One more connection: dialled to where the main one goes, or, on the listening side, accepted (its
 * first packet is still to be read by link_take_hello). NULL: ST_CONNECT, ST_TIMEOUT.
 */
struct transport *link_dial_extra(struct session *ss, struct error *err);

/*
 * The extra channel `id` of a source: dialled and its first packet sent, or, where the source
 * listens, accepted. s is opened over it, for writing.
 */
struct transport *link_source_channel(struct session *ss, unsigned id, struct stream *s,
				      struct error *err);

/*
 * Between migtools, either role: the connection on which pages are asked for and answered. s is
 * opened over it, both ways. The session's own are dialled by who dialled the main one.
 */
struct transport *link_urgent_channel(struct session *ss, struct stream *s, struct error *err);

/*
 * A channel's first packet. put flushes. take checks that it belongs to this session (a QEMU's has
 * the VM's uuid instead): ST_REFUSED for a stranger, who is to be dropped.
 */
int link_put_hello(struct session *ss, struct stream *s, unsigned channel, struct error *err);
int link_take_hello(struct session *ss, struct stream *s, unsigned *channel, struct error *err);

/* The first packet of a destination that dials, on its main connection. */
int link_take_main_hello(struct stream *s, struct error *err);

/*
 * The next connection that begins like a channel, all of its first packet there to be read; others
 * are dropped with a warning. 1: *t is the caller's, 0: the deadline (link_deadline) is over, -1.
 */
int link_next_channel(struct session *ss, uint64_t deadline, struct transport **t,
		      struct error *err);

/* The guest's uuid in binary, zero if it has none. */
void link_uuid(const struct session *ss, uint8_t out[16]);

/* Machine and uuid from the options, else from the image's manifest. */
int link_source_identity(struct session *ss, const struct image *img, struct error *err);

/* Reads a source image's data, or a block's, and gives its digest; until cancelled (NULL: never).
 */
int link_block_digest(const struct image *img, const struct block *b, struct cancel *cancel,
		      struct digest *out, struct error *err);
int link_image_digest(const struct image *img, struct cancel *cancel, struct digest *out,
		      struct error *err);

/*
 * Says last words over the main connection although the token was fired: sends the bytes,
 * half-closes, and reads until the peer closes, a second at most, so that a reset does not destroy
 * them on their way.
 */
void link_last_words(struct session *ss, const void *buf, size_t len);

/* The far end of an ssh: URI: listens for `migtool join`, by the name that ss->join becomes. */
int link_listen_joins(struct session *ss, struct error *err);

/* Listens, and says where: to people, to --ready-fd. */
int link_listen(struct session *ss, struct error *err);

/*
 * With tls-creds (ss->tls). link_secure wraps a connection that was dialled and shakes hands; it is
 * taken over, NULL: it was closed. link_secure_pending does so for those that will be accepted.
 */
struct transport *link_secure(struct session *ss, struct transport *t, struct error *err);
void link_secure_pending(struct session *ss);

/*
 * The main connection towards a QEMU: waits a moment, for a QEMU that does not accept what we are
 * says nothing and closes. ST_REFUSED.
 */
int link_await_objection(struct session *ss, struct error *err);

/* A warning if there is no TLS and `uri`, where we listen, can be reached from other hosts. */
void link_warn_open(struct session *ss, const char *uri);

#endif
