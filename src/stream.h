/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Buffered reading and writing over a transport: the one bounded reader of everything a peer says.
 * One thread reads, one thread writes. Buffers are allocated by stream_open; later only
 * stream_keep's.
 */
#ifndef MIGTOOL_STREAM_H
#define MIGTOOL_STREAM_H

#include "pacer.h"
#include "transport.h"

struct stream {
	struct transport *t; /* not owned */
	struct pacer *pacer; /* not owned; NULL: none. It counts what is written */
	size_t readahead;    /* how much more than asked one read may buffer: rcap by default */
	uint8_t *rbuf, *wbuf;
	size_t rpos, rend, rcap;	      /* the reader's */
	size_t wlen, wcap;		      /* the writer's */
	_Atomic uint64_t bytes_in, bytes_out; /* on the wire; any thread may read them */
	_Atomic uint64_t *activity; /* grows by every byte moved; the watchdog's; may be NULL */
	bool keeps, torn;	    /* stream_keep; something is lost of what was written */
	uint8_t *kept;
	size_t nkept;
};

/*
 * rcap, wcap: buffer sizes in bytes, 0: that direction is not used. pacer and activity are NULL
 * and may be set before the first byte.
 */
int stream_open(struct stream *s, struct transport *t, size_t rcap, size_t wcap, struct error *err);
/* Frees the buffers; what was not flushed is lost. Harmless on a zeroed or closed one. */
void stream_close(struct stream *s);

/*
 * Reading. The end of the stream in the middle is ST_SOCKET ("the connection to ... ended"; a file
 * or stdin that ends early: ST_DATA). peek: at least n bytes (n <= rcap) contiguous, not taken yet;
 * the pointer is good until the next call.
 */
int stream_peek(struct stream *s, size_t n, const uint8_t **p, struct error *err);
void stream_skip(struct stream *s, size_t n); /* n <= what is buffered */
int stream_read(struct stream *s, void *buf, size_t n, struct error *err);
/* What is buffered already, else one read of the transport: > 0, 0 at the end, -1. */
ssize_t stream_read_some(struct stream *s, void *buf, size_t max, struct error *err);
/* True if not one more byte comes. Waits for a byte or the end. */
int stream_at_eof(struct stream *s, bool *eof, struct error *err);
/* How much can be read without a wait though the descriptor may look idle: here, or unread. */
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
/*
 * The buffer and then `iov`, without copying the latter; all of it, in one system call where one
 * takes it all. Any n. iov may be modified.
 */
int stream_writev(struct stream *s, struct iovec *iov, int n, struct error *err);
/*
 * The buffer and then `len` bytes of the file `fd` at `offset`, without a copy in user space where
 * transport and file can, else through the buffer, in which some of it may stay. A file that ends
 * early is ST_UNSUPPORTED ("changed while it was read" is the caller's to say), one that cannot be
 * read ST_FILE; what was sent before stays sent.
 */
int stream_sendfile(struct stream *s, int fd, uint64_t offset, size_t len, struct error *err);
/*
 * While it is on, writing does not fail because the token was fired: what is not sent then is kept,
 * so that what was begun can be ended in words that the peer understands. Not for stream_sendfile.
 */
void stream_keep(struct stream *s, bool on);
/*
 * All that was written and not sent, *n bytes, for transport_last_words; the caller frees it. The
 * stream has sent its last. NULL: not all of it is there, or no memory.
 */
uint8_t *stream_unsent(struct stream *s, size_t *n);
/*
 * For who writes to transport_raw_wfd himself: call before n bytes go out, for the pacer, and
 * after, for the counters. The buffer has to be flushed first.
 */
int stream_pace(struct stream *s, uint64_t n, struct error *err);
void stream_count_out(struct stream *s, uint64_t n);

#endif
