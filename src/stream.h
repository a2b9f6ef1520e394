/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Buffered reading and writing over a transport: the one bounded reader of everything a peer says.
 * One thread reads, one thread writes. Buffers are allocated by stream_open, none later.
 */
#ifndef MIGTOOL_STREAM_H
#define MIGTOOL_STREAM_H

#include "transport.h"

/* A token bucket that several streams share: `rate` bytes a second, 0: no limit. */
struct pacer {
	pthread_mutex_t lock;
	uint64_t rate;
	double tokens; /* bytes that may be sent now; negative: a debt */
	uint64_t last_ns;
};

void pacer_init(struct pacer *p, uint64_t rate);
void pacer_destroy(struct pacer *p);
/* Accounts for n bytes and sleeps (cancellable) until they were allowed. */
int pacer_take(struct pacer *p, uint64_t n, struct cancel *c, struct error *err);

struct stream {
	struct transport *t; /* not owned */
	struct pacer *pacer; /* not owned; NULL: none */
	uint8_t *rbuf, *wbuf;
	size_t rpos, rend, rcap;
	size_t wlen, wcap;
	_Atomic uint64_t bytes_in, bytes_out; /* on the wire; any thread may read them */
	_Atomic uint64_t *activity; /* bumped by every byte moved; the watchdog's; may be NULL */
};

/* rcap, wcap: buffer sizes in bytes, 0: that direction is not used. */
int stream_open(struct stream *s, struct transport *t, size_t rcap, size_t wcap, struct error *err);
void stream_close(struct stream *s); /* frees buffers; what was not flushed is lost */

/*
 * Reading. The end of the stream in the middle is ST_SOCKET ("the connection ended ..."; a file or
 * stdin that ends early: ST_DATA). peek: at least n bytes (n <= rcap) contiguous, not taken yet.
 */
int stream_peek(struct stream *s, size_t n, const uint8_t **p, struct error *err);
void stream_skip(struct stream *s, size_t n); /* n <= what was peeked */
int stream_read(struct stream *s, void *buf, size_t n, struct error *err);
/* What is buffered already, else one read of the transport: > 0, 0 at the end, -1. */
ssize_t stream_read_some(struct stream *s, void *buf, size_t max, struct error *err);
/* True if not one more byte comes. Waits for a byte or the end. */
int stream_at_eof(struct stream *s, bool *eof, struct error *err);
size_t stream_buffered(const struct stream *s);
int stream_get_u8(struct stream *s, uint8_t *v, struct error *err);
int stream_get_be16(struct stream *s, uint16_t *v, struct error *err);
int stream_get_be32(struct stream *s, uint32_t *v, struct error *err);
int stream_get_be64(struct stream *s, uint64_t *v, struct error *err);

/* Writing into the buffer, which is sent when full and by stream_flush. */
int stream_write(struct stream *s, const void *buf, size_t n, struct error *err);
int stream_put_u8(struct stream *s, uint8_t v, struct error *err);
int stream_put_be16(struct stream *s, uint16_t v, struct error *err);
int stream_put_be32(struct stream *s, uint32_t v, struct error *err);
int stream_put_be64(struct stream *s, uint64_t v, struct error *err);
int stream_flush(struct stream *s, struct error *err);
/* The buffer and then `iov`, without copying the latter; all of it. iov may be modified. */
int stream_writev(struct stream *s, struct iovec *iov, int n, struct error *err);
/*
 * The buffer and then `len` bytes of the file `fd` at `offset`, without a copy in user space where
 * the transport has a raw descriptor (sendfile), else through a bounce buffer. A file that ends
 * early is ST_UNSUPPORTED: "changed while it was read" is the caller's to say.
 */
int stream_sendfile(struct stream *s, int fd, uint64_t offset, size_t len, struct error *err);

#endif
