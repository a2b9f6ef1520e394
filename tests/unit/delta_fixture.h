/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One end of the comparison of digests, without the other one: a session over a transport that
 * keeps what is said. For the unit tests and the fuzz targets of delta-offer.c and delta-compare.c.
 */
#ifndef MIGTOOL_DELTA_FIXTURE_H
#define MIGTOOL_DELTA_FIXTURE_H

#include "byteorder.h"
#include "delta-compare.h"
#include "delta-offer.h"
#include "delta.h"
#include "link.h"
#include "source.h"
#include "target.h"
#include "transport-io.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

struct delta_end {
	struct session ss;
	struct config cfg;
	struct source src; /* of a source */
	struct target t;   /* of a destination */

	pthread_mutex_t lock; /* of what was said */
	pthread_cond_t changed;
	uint8_t *said;
	size_t len, cap, taken;
};

static inline ssize_t delta_end_writev(struct transport *t, const struct iovec *iov, int n,
				       bool more, struct error *err)
{
	struct delta_end *e = t->priv;
	size_t all = 0;

	(void)more;
	if (io_stopped(t, err))
		return -1;
	pthread_mutex_lock(&e->lock);
	for (int i = 0; i < n; i++) {
		if (e->len + iov[i].iov_len > e->cap) {
			e->cap = 2 * (e->len + iov[i].iov_len);
			e->said = realloc(e->said, e->cap);
			if (!e->said)
				abort();
		}
		if (iov[i].iov_len)
			memcpy(e->said + e->len, iov[i].iov_base, iov[i].iov_len);
		e->len += iov[i].iov_len;
		all += iov[i].iov_len;
	}
	pthread_cond_broadcast(&e->changed);
	pthread_mutex_unlock(&e->lock);
	return (ssize_t)all;
}

static inline int delta_end_shutdown(struct transport *t, struct error *err)
{
	(void)t;
	(void)err;
	return 0;
}

static const struct transport_ops delta_end_ops = {
	.scheme = "kept",
	.writev = delta_end_writev,
	.shutdown_write = delta_end_shutdown,
	.close = io_close,
};

/* 0, or -1: no memory, no descriptor. */
static inline int delta_end_open(struct delta_end *e, enum role role)
{
	struct error err;

	memset(e, 0, sizeof(*e));
	pthread_mutex_init(&e->lock, NULL);
	pthread_cond_init(&e->changed, NULL);
	pthread_mutex_init(&e->ss.lock, NULL);
	pthread_mutex_init(&e->t.rp_lock, NULL);
	e->ss.cfg = &e->cfg;
	e->ss.role = role;
	e->src.ss = e->t.ss = &e->ss;
	if (cancel_init(&e->ss.cancel, &err))
		return -1;
	e->ss.main = io_new(&delta_end_ops, "kept", &e->ss.cancel, &err);
	if (!e->ss.main)
		return -1;
	e->ss.main->priv = e;
	e->ss.main->two_way = true;
	return link_open_stream(&e->ss, &err);
}

/* After the threads that use it. Images are the caller's. */
static inline void delta_end_close(struct delta_end *e)
{
	link_drop_main(&e->ss);
	cancel_destroy(&e->ss.cancel);
	pthread_mutex_destroy(&e->t.rp_lock);
	pthread_mutex_destroy(&e->ss.lock);
	pthread_cond_destroy(&e->changed);
	pthread_mutex_destroy(&e->lock);
	free(e->said);
}

/*
 * The next thing that was said: a source's command, a destination's message. False: none yet.
 * `payload` has room for DELTA_LIST_LEN bytes.
 */
static inline bool delta_end_next(struct delta_end *e, uint16_t *type, uint8_t *payload,
				  uint32_t *len)
{
	size_t head = e->ss.role == ROLE_SOURCE ? 7 : 6;
	const uint8_t *p;
	bool there;

	pthread_mutex_lock(&e->lock);
	there = e->len - e->taken >= head;
	if (there) {
		p = e->said + e->taken;
		*type = get_be16(p + head - 6);
		*len = get_be32(p + head - 4);
		if (*len > DELTA_LIST_LEN || *len > e->len - e->taken - head)
			abort(); /* it is written as a whole */
		memcpy(payload, p + head, *len);
		e->taken += head + *len;
	}
	pthread_mutex_unlock(&e->lock);
	return there;
}

/* The digests of a chunk's pages in a model of the memory; returns their sum. */
static inline struct digest delta_model_terms(const struct block *b, const uint8_t *memory,
					      uint64_t offset, struct digest *terms, unsigned *n)
{
	uint64_t left = b->size - offset;
	struct digest sum = { 0, 0 };

	*n = delta_terms(b, offset, memory + offset,
			 left < DELTA_CHUNK ? (size_t)left : DELTA_CHUNK, terms);
	for (unsigned i = 0; i < *n; i++)
		digest_add(&sum, terms[i]);
	return sum;
}

#endif
