/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Between migtools: the connection on which a guest's pages are asked for is the one on which they
 * go. Its one thread reads a request, reads the page and sends it, so nobody is woken in between.
 */
#ifndef MIGTOOL_POSTCOPY_URGENT_H
#define MIGTOOL_POSTCOPY_URGENT_H

#include "pagesource.h"
#include "source.h"

struct urgent;

/*
 * REQUEST's payload: is it for pages that there are, in whole units? ST_DATA. *run is what it asks
 * for.
 */
int urgent_judge(const struct source *src, const struct pagesource *pages,
		 const struct rp_message *m, struct page_run *run, struct error *err);

/* Opens the connection. NULL: ST_CONNECT and so on. */
struct urgent *urgent_open(struct source *src, struct pagesource *pages, struct error *err);
/* From here on requests are answered; a failure is the session's. */
int urgent_start(struct urgent *u, struct error *err);
/*
 * Between two pieces of the background: sleeps a little if somebody asks, so that its thread gets a
 * core (pager-way.c says why).
 */
void urgent_make_way(struct urgent *u);
/* Every page was given out, or none is needed any more: what is asked for now goes unanswered. */
int urgent_finish(struct urgent *u, struct error *err);
/* Ends the thread, closes. NULL is accepted. */
void urgent_close(struct urgent *u);

#endif
