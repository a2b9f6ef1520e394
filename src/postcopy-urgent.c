// SPDX-License-Identifier: GPL-2.0-or-later
#include "postcopy-urgent.h"

#include "link.h"
#include "postcopy-lane.h"
#include "wire-postcopy.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MOMENT_NS 20000
#define MOMENTS	  8 /* the timer's grain makes half a millisecond of that */

struct urgent {
	struct source *src;
	struct pagesource *pages;
	struct transport *t;
	struct stream stream;
	struct lane lane;
	pthread_t thread;
	bool running;
	pthread_mutex_t lock; /* of writing, and of the next */
	bool finished;
	atomic_bool over;      /* its end is no failure */
	atomic_bool answering; /* a request was read */
};

int urgent_judge(const struct source *src, const struct pagesource *pages,
		 const struct rp_message *m, struct page_run *run, struct error *err)
{
	struct page_want w;
	struct block *b;
	uint64_t unit, end;

	page_want_unpack(m->payload, &w);
	if (w.block >= src->img->nblocks)
		return err_set(err, ST_DATA, "a request for pages of block %u, and there are %u",
			       w.block, src->img->nblocks);
	b = &src->img->blocks[w.block];
	unit = pagesource_unit(pages, b);
	end = w.offset + w.len;
	if (!w.len || w.offset % unit || w.len > b->size || w.offset > b->size - w.len ||
	    (w.len % unit && end != b->size))
		return err_set(err, ST_DATA,
			       "a request for %u bytes at 0x%llx of block %s, which has 0x%llx "
			       "bytes in pages of %llu",
			       w.len, (unsigned long long)w.offset, b->name,
			       (unsigned long long)b->size, (unsigned long long)unit);
	*run = (struct page_run){ b, w.offset, w.len };
	return 0;
}

struct urgent *urgent_open(struct source *src, struct pagesource *pages, struct error *err)
{
	struct urgent *u = calloc(1, sizeof(*u));

	if (!u) {
		err_set(err, ST_NOMEM, "no memory for postcopy");
		return NULL;
	}
	u->src = src;
	u->pages = pages;
	pthread_mutex_init(&u->lock, NULL);
	u->t = link_urgent_channel(src->ss, &u->stream, err);
	if (u->t && !lane_open(&u->lane, src, &u->stream, err))
		return u;
	urgent_close(u);
	return NULL;
}

/*
 * What of it nobody has sent. A page alone, that somebody waits for, also if it is on its way in
 * the background: what goes before it there may take longer than all that he should wait.
 */
static int answer(struct urgent *u, const struct page_run *asked, struct error *err)
{
	struct page_run run;
	int rc = 0;

	pthread_mutex_lock(&u->lock);
	if (!u->finished && pagesource_again(u->pages, asked->block, asked->offset, asked->len))
		rc = lane_send_again(&u->lane, asked, err);
	while (!rc && !u->finished &&
	       pagesource_take(u->pages, asked->block, asked->offset, asked->len, &run))
		rc = lane_send(&u->lane, &run, err);
	stat_set(&u->src->ss->stats.urgent_bytes, u->stream.bytes_out + u->stream.bytes_in);
	pthread_mutex_unlock(&u->lock);
	return rc;
}

static int take(struct urgent *u, const struct rp_message *m, struct error *err)
{
	struct page_run asked;

	if (m->type != RP_REQUEST)
		return err_set(err, ST_DATA, "%s on the connection for requested pages",
			       rp_name(m->type));
	if (urgent_judge(u->src, u->pages, m, &asked, err))
		return -1;
	stat_add(&u->src->ss->stats.postcopy_requests, 1);
	return answer(u, &asked, err);
}

static void *serve(void *arg)
{
	struct urgent *u = arg;
	struct rp_message m;
	struct error err;
	int rc;

	while ((rc = rp_get(&u->stream, &m, &err)) > 0) {
		u->answering = true;
		if (take(u, &m, &err)) {
			rc = -1;
			break;
		}
		u->answering = false;
	}
	if (!rc)
		err_set(&err, ST_SOCKET,
			"the destination closed the connection for requested pages");
	if (!u->over)
		session_fail(u->src->ss, &err);
	return NULL;
}

int urgent_start(struct urgent *u, struct error *err)
{
	int e = pthread_create(&u->thread, NULL, serve, u);

	if (e)
		return err_sys(err, ST_NOMEM, e, "cannot start the thread for requested pages");
	u->running = true;
	return 0;
}

static bool asked_for(const struct urgent *u)
{
	struct pollfd fd = { .fd = u->t->rfd, .events = POLLIN };

	return u->answering || (poll(&fd, 1, 0) > 0 && fd.revents & POLLIN);
}

void urgent_make_way(struct urgent *u)
{
	const struct timespec moment = { 0, MOMENT_NS };

	for (int i = 0; i < MOMENTS && asked_for(u); i++)
		nanosleep(&moment, NULL);
}

int urgent_finish(struct urgent *u, struct error *err)
{
	int rc = 0;

	pthread_mutex_lock(&u->lock);
	u->over = true;
	if (!u->finished &&
	    (stream_put_be64(&u->stream, RAM_EOS, err) || stream_flush(&u->stream, err)))
		rc = -1;
	u->finished = true;
	pthread_mutex_unlock(&u->lock);
	return rc;
}

void urgent_close(struct urgent *u)
{
	struct error ignored;

	if (!u)
		return;
	u->over = true;
	if (u->running) {
		transport_abort(u->t);
		pthread_join(u->thread, NULL);
	}
	lane_close(&u->lane);
	if (u->t) {
		stream_close(&u->stream);
		transport_close(u->t, &ignored);
	}
	pthread_mutex_destroy(&u->lock);
	free(u);
}
