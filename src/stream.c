// SPDX-License-Identifier: GPL-2.0-or-later
#include "stream.h"

#include "byteorder.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* From here on a copy through the buffer costs more than the calls that it saves. */
#define DIRECT	      65536
#define SENDFILE_STEP 1048576	  /* between two looks at the pacer and the cancel token */
#define IOV_BATCH     1024	  /* what the kernel takes at once */
#define KEEP_MAX      (16u << 20) /* a batch of large pages is half of that */

_Static_assert(IOV_BATCH <= IOV_MAX, "a batch of iovecs is one system call");

int stream_open(struct stream *s, struct transport *t, size_t rcap, size_t wcap, struct error *err)
{
	memset(s, 0, sizeof(*s));
	s->t = t;
	s->rcap = s->readahead = rcap;
	s->wcap = wcap;
	s->rbuf = rcap ? malloc(rcap) : NULL;
	s->wbuf = wcap ? malloc(wcap) : NULL;
	if ((!rcap || s->rbuf) && (!wcap || s->wbuf))
		return 0;
	stream_close(s);
	return err_set(err, ST_NOMEM, "out of memory for the buffers of %s", t->name);
}

void stream_close(struct stream *s)
{
	free(s->rbuf);
	free(s->wbuf);
	free(s->kept);
	s->rbuf = s->wbuf = s->kept = NULL;
	s->nkept = 0;
	s->rpos = s->rend = s->rcap = s->wlen = s->wcap = 0;
}

static void count(struct stream *s, _Atomic uint64_t *counter, uint64_t n)
{
	atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
	if (s->activity)
		atomic_fetch_add_explicit(s->activity, n, memory_order_relaxed);
}

/* --- reading --- */

static ssize_t read_counted(struct stream *s, void *buf, size_t n, struct error *err)
{
	ssize_t got = transport_read(s->t, buf, n, err);

	if (got > 0)
		count(s, &s->bytes_in, (uint64_t)got);
	return got;
}

static int ended(struct stream *s, size_t got, size_t want, struct error *err)
{
	const char *what = s->t->end_status == ST_DATA ? "" : "the connection to ";

	if (!got)
		return err_set(err, s->t->end_status, "%s%s ended where %zu byte%s expected", what,
			       s->t->name, want, want == 1 ? " was" : "s were");
	return err_set(err, s->t->end_status, "%s%s ended %zu bytes into an item of %zu", what,
		       s->t->name, got, want);
}

/* Reads until n bytes are buffered. 1, 0: the stream ended before, -1. */
static int fill(struct stream *s, size_t n, struct error *err)
{
	if (s->rpos == s->rend)
		s->rpos = s->rend = 0;
	if (s->rcap - s->rpos < n) {
		memmove(s->rbuf, s->rbuf + s->rpos, s->rend - s->rpos);
		s->rend -= s->rpos;
		s->rpos = 0;
	}
	while (s->rend - s->rpos < n) {
		size_t room = s->rcap - s->rend, most = n + s->readahead;
		ssize_t got = read_counted(s, s->rbuf + s->rend, room < most ? room : most, err);

		if (got <= 0)
			return (int)got;
		s->rend += (size_t)got;
	}
	return 1;
}

int stream_peek(struct stream *s, size_t n, const uint8_t **p, struct error *err)
{
	int rc = 1;

	if (n > s->rcap)
		return err_set(err, ST_PROTOCOL, "an item of %zu bytes exceeds the buffer of %zu",
			       n, s->rcap);
	if (s->rend - s->rpos < n)
		rc = fill(s, n, err);
	if (rc == 0)
		return ended(s, s->rend - s->rpos, n, err);
	if (rc < 0)
		return -1;
	*p = s->rbuf + s->rpos;
	return 0;
}

void stream_skip(struct stream *s, size_t n)
{
	size_t have = s->rend - s->rpos;

	s->rpos += n < have ? n : have;
}

size_t stream_buffered(const struct stream *s)
{
	return s->rend - s->rpos + (s->t->unread_end - s->t->unread_at);
}

static size_t take_buffered(struct stream *s, void *buf, size_t max)
{
	size_t n = s->rend - s->rpos;

	if (n > max)
		n = max;
	if (n) /* there may be no buffer */
		memcpy(buf, s->rbuf + s->rpos, n);
	s->rpos += n;
	return n;
}

int stream_read(struct stream *s, void *buf, size_t n, struct error *err)
{
	size_t got = take_buffered(s, buf, n);
	size_t direct = s->rcap < DIRECT ? s->rcap : DIRECT;

	while (got < n) {
		size_t left = n - got;
		ssize_t rc;

		if (left < direct) {
			rc = fill(s, left, err);
			got += take_buffered(s, (uint8_t *)buf + got, left);
		} else {
			rc = read_counted(s, (uint8_t *)buf + got, left, err);
			got += rc > 0 ? (size_t)rc : 0;
		}
		if (rc < 0)
			return -1;
		if (rc == 0)
			return ended(s, got, n, err);
	}
	return 0;
}

ssize_t stream_read_some(struct stream *s, void *buf, size_t max, struct error *err)
{
	size_t n = take_buffered(s, buf, max);

	return n ? (ssize_t)n : read_counted(s, buf, max, err);
}

int stream_at_eof(struct stream *s, bool *eof, struct error *err)
{
	int rc = s->rend > s->rpos ? 1 : fill(s, 1, err);

	*eof = rc == 0;
	return rc < 0 ? -1 : 0;
}

/* Takes n bytes (n <= rcap); they stay where they are until the next call. NULL: an error. */
static const uint8_t *get(struct stream *s, size_t n, struct error *err)
{
	const uint8_t *p = NULL;

	if (stream_peek(s, n, &p, err))
		return NULL;
	s->rpos += n;
	return p;
}

int stream_get_u8(struct stream *s, uint8_t *v, struct error *err)
{
	const uint8_t *p = get(s, 1, err);

	if (!p)
		return -1;
	*v = *p;
	return 0;
}

int stream_get_be16(struct stream *s, uint16_t *v, struct error *err)
{
	const uint8_t *p = get(s, 2, err);

	if (!p)
		return -1;
	*v = get_be16(p);
	return 0;
}

int stream_get_be32(struct stream *s, uint32_t *v, struct error *err)
{
	const uint8_t *p = get(s, 4, err);

	if (!p)
		return -1;
	*v = get_be32(p);
	return 0;
}

int stream_get_be64(struct stream *s, uint64_t *v, struct error *err)
{
	const uint8_t *p = get(s, 8, err);

	if (!p)
		return -1;
	*v = get_be64(p);
	return 0;
}

/* --- writing --- */

void stream_count_out(struct stream *s, uint64_t n)
{
	count(s, &s->bytes_out, n);
}

int stream_pace(struct stream *s, uint64_t n, struct error *err)
{
	return s->pacer ? pacer_take(s->pacer, n, s->t->cancel, err) : 0;
}

static size_t pace_chunk(const struct stream *s)
{
	return s->pacer ? pacer_chunk(s->pacer) : SIZE_MAX;
}

/*
 * The first iovecs that have at most max bytes together: how many, and the bytes. The last one is
 * shortened by *cut, which is its caller's to undo.
 */
static int iov_head(struct iovec *iov, int n, size_t max, size_t *bytes, size_t *cut)
{
	int k = 0;

	*bytes = *cut = 0;
	while (k < n && k < IOV_BATCH && *bytes < max)
		*bytes += iov[k++].iov_len;
	if (*bytes > max) {
		*cut = *bytes - max;
		iov[k - 1].iov_len -= *cut;
		*bytes = max;
	}
	return k;
}

/* Drops `done` bytes from the front; returns how many iovecs are used up. */
static int iov_advance(struct iovec *iov, int n, size_t done)
{
	int k = 0;

	while (k < n && done >= iov[k].iov_len)
		done -= iov[k++].iov_len;
	if (k < n) {
		iov[k].iov_base = (uint8_t *)iov[k].iov_base + done;
		iov[k].iov_len -= done;
	}
	return k;
}

/* Instead of sending it. */
static int keep(struct stream *s, const struct iovec *iov, int n, struct error *err)
{
	size_t more = 0;
	uint8_t *kept;

	for (int i = 0; i < n; i++)
		more += iov[i].iov_len;
	kept = more <= KEEP_MAX - s->nkept ? realloc(s->kept, s->nkept + more + 1) : NULL;
	if (!kept) {
		s->torn = true;
		return cancel_reason(s->t->cancel, err);
	}
	s->kept = kept;
	for (int i = 0; i < n; i++) {
		if (iov[i].iov_len)
			memcpy(s->kept + s->nkept, iov[i].iov_base, iov[i].iov_len);
		s->nkept += iov[i].iov_len;
	}
	return 0;
}

/* err says why. */
static int not_sent(struct stream *s, const struct iovec *iov, int n, struct error *err)
{
	if (s->keeps && !s->torn && cancel_fired(s->t->cancel))
		return keep(s, iov, n, err);
	s->torn = true;
	return -1;
}

/* Sends all of iov, which it modifies. `more`: other bytes follow at once. */
static int send_all(struct stream *s, struct iovec *iov, int n, bool more, struct error *err)
{
	size_t chunk = pace_chunk(s), paid = 0;
	int k = iov_advance(iov, n, 0); /* empty ones would look like no progress */

	for (iov += k, n -= k; n > 0; iov += k, n -= k) {
		size_t bytes, cut;
		ssize_t done = 0;
		int head = iov_head(iov, n, chunk, &bytes, &cut);

		if (s->nkept || (bytes > paid && stream_pace(s, bytes - paid, err)))
			done = -1;
		else if (bytes > paid)
			paid = bytes;
		if (!done)
			done = s->t->ops->writev(s->t, iov, head, more || cut || head < n, err);
		iov[head - 1].iov_len += cut;
		if (done < 0)
			return not_sent(s, iov, n, err);
		stream_count_out(s, (uint64_t)done);
		paid -= (size_t)done;
		k = iov_advance(iov, n, (size_t)done);
	}
	return 0;
}

void stream_keep(struct stream *s, bool on)
{
	s->keeps = s->t->lenient = on;
}

uint8_t *stream_unsent(struct stream *s, size_t *n)
{
	uint8_t *all = NULL;

	if (!s->torn && s->wlen <= SIZE_MAX - s->nkept)
		all = realloc(s->kept, s->nkept + s->wlen + 1);
	s->torn = true;
	if (!all)
		return NULL;
	memcpy(all + s->nkept, s->wbuf, s->wlen);
	*n = s->nkept + s->wlen;
	s->kept = NULL;
	s->nkept = s->wlen = 0;
	return all;
}

static int flush_more(struct stream *s, bool more, struct error *err)
{
	struct iovec iov = { s->wbuf, s->wlen };

	if (!s->wlen)
		return 0;
	s->wlen = 0; /* after a failure nobody knows what was sent: none of it is sent again */
	return send_all(s, &iov, 1, more, err);
}

int stream_flush(struct stream *s, struct error *err)
{
	return flush_more(s, false, err);
}

int stream_write(struct stream *s, const void *buf, size_t n, struct error *err)
{
	struct iovec iov = { (void *)buf, n };

	if (!n)
		return 0; /* buf may be NULL, which memcpy must not see */
	if (n > s->wcap - s->wlen) {
		if (n >= s->wcap)
			return stream_writev(s, &iov, 1, err);
		if (flush_more(s, true, err))
			return -1;
	}
	memcpy(s->wbuf + s->wlen, buf, n);
	s->wlen += n;
	return 0;
}

int stream_put_u8(struct stream *s, uint8_t v, struct error *err)
{
	return stream_write(s, &v, 1, err);
}

int stream_put_be16(struct stream *s, uint16_t v, struct error *err)
{
	uint8_t b[2];

	put_be16(b, v);
	return stream_write(s, b, sizeof(b), err);
}

int stream_put_be32(struct stream *s, uint32_t v, struct error *err)
{
	uint8_t b[4];

	put_be32(b, v);
	return stream_write(s, b, sizeof(b), err);
}

int stream_put_be64(struct stream *s, uint64_t v, struct error *err)
{
	uint8_t b[8];

	put_be64(b, v);
	return stream_write(s, b, sizeof(b), err);
}

int stream_writev(struct stream *s, struct iovec *iov, int n, struct error *err)
{
	struct iovec first[IOV_BATCH];
	int k;

	if (!s->wlen)
		return send_all(s, iov, n, false, err);
	k = n < IOV_BATCH - 1 ? n : IOV_BATCH - 1;
	first[0] = (struct iovec){ s->wbuf, s->wlen };
	if (k > 0)
		memcpy(first + 1, iov, (size_t)k * sizeof(*iov));
	s->wlen = 0;
	if (send_all(s, first, k + 1, k < n, err))
		return -1;
	return send_all(s, iov + k, n - k, false, err);
}

static int file_ended(struct stream *s, uint64_t offset, struct error *err)
{
	return err_set(err, ST_UNSUPPORTED, "the file sent to %s ended at %llu", s->t->name,
		       (unsigned long long)offset);
}

/* Through the buffer, behind what is in it. */
static int copy_file(struct stream *s, int fd, uint64_t offset, size_t len, struct error *err)
{
	while (len) {
		size_t room = s->wcap - s->wlen;
		ssize_t n;

		if (!room) {
			if (flush_more(s, true, err))
				return -1;
			continue;
		}
		n = pread(fd, s->wbuf + s->wlen, len < room ? len : room, (off_t)offset);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_sys(err, ST_FILE, errno, "cannot read what is sent to %s",
				       s->t->name);
		if (n == 0)
			return file_ended(s, offset, err);
		s->wlen += (size_t)n;
		offset += (uint64_t)n;
		len -= (size_t)n;
	}
	return 0;
}

int stream_sendfile(struct stream *s, int fd, uint64_t offset, size_t len, struct error *err)
{
	size_t chunk = pace_chunk(s), paid = 0;

	if (!s->t->ops->sendfile)
		return copy_file(s, fd, offset, len, err);
	if (chunk > SENDFILE_STEP)
		chunk = SENDFILE_STEP;
	if (flush_more(s, len > 0, err))
		return -1;
	while (len) {
		size_t step = len < chunk ? len : chunk;
		ssize_t n;

		if (step > paid && stream_pace(s, step - paid, err))
			return -1;
		paid = step;
		n = s->t->ops->sendfile(s->t, fd, offset, step, err);
		if (n < 0 && err->sys == EOPNOTSUPP)
			return copy_file(s, fd, offset, len, err);
		if (n < 0)
			return -1;
		if (n == 0)
			return file_ended(s, offset, err);
		stream_count_out(s, (uint64_t)n);
		paid -= (size_t)n;
		offset += (uint64_t)n;
		len -= (size_t)n;
	}
	return 0;
}
