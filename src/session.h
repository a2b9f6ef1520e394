/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One migration, seen from one end.
 *
 * Threads. The main thread moves no stream bytes: it polls signals, prints progress and enforces
 * --timeout. A migration thread runs the stages below in order; it may have helpers (channels,
 * compression workers, placing workers, a return-path reader), which it starts and joins. Whoever
 * fails reports to session_fail(); that fires the cancel token, every wait in the program ends, and
 * the first error is the one the user sees.
 *
 * Grace. When one end fails the other mostly notices a broken connection before it reads why. So a
 * thread whose error is a mere socket error waits a second for the peer's own words
 * (session_fail's job), and a failing end sends them before it closes (source.c, target.c).
 *
 * Stages are one table, source and target side by side; errors gain the stage's name.
 */
#ifndef MIGTOOL_SESSION_H
#define MIGTOOL_SESSION_H

#include "blocktime.h"
#include "check.h"
#include "config.h"
#include "dialect.h"
#include "events.h"
#include "latency.h"
#include "pending.h"
#include "report.h"
#include "stats.h"
#include "stream.h"
#include "wire-greet.h"
#include "wire-return.h"

struct source;
struct target;
struct lazy;

struct session {
	const struct config *cfg;
	enum role role;
	struct cap_set caps; /* in force; on a destination also what the source announced */
	struct uri uri;
	struct cancel cancel;
	struct stats stats;
	struct events events;
	struct pacer pacer;
	struct dialect dialect;
	uint8_t id[16];	   /* the greeting's session id: a try's */
	uint8_t first[16]; /* the session that goes on: its first try's id */
	bool again;	   /* this is not the first try, in this process or with --resume */
	bool knows_first;
	unsigned tries;	       /* that have failed in this process */
	uint64_t moved_before; /* bytes on the main connections of those */
	char machine[256];     /* "" where unknown; destination: what the source says */
	char uuid[37];
	uint32_t page_size; /* target page in force */
	unsigned channels;  /* multifd: how many, and how compressed, in force */
	enum multifd_method method;

	struct tls_creds *tls;	   /* NULL: none */
	struct listener *listener; /* NULL: this side dials */
	struct listener *vmms;	   /* --uffd-socket: where the guest comes; or NULL */
	struct listener *joins;	   /* the far end of an ssh: URI: where its channels come in */
	struct pending *pending;   /* of either; NULL: this side dials channels too */
	char join[33];		   /* the far end's name for `migtool join`; "": none (yet) */
	struct ssh_login *login;   /* what logins to an ssh: URI share (remote.h) */
	struct transport *main;
	struct transport *stash[255]; /* multifd channels that came before the main one */
	unsigned nstash;
	struct stream stream;	     /* over main */
	_Atomic(const char *) phase; /* for progress and errors: a stage's name */
	atomic_bool watched;	     /* a peer is known: --timeout counts */
	atomic_bool stream_over; /* all was sent; or received: channels say nothing that matters */
	atomic_bool postcopy;	 /* the guest runs, or is about to, before its memory is there */
	atomic_bool committed;	 /* COMMIT was sent or taken: a cancel is refused */
	bool adopted;		 /* a guest that another process has served before */
	bool recovered;		 /* its source came back, over another connection */
	atomic_bool paused;	 /* with serving: there is no source (destination) now */
	bool knows_image; /* postcopy's source: what its files are, since the guest was given up: */
	struct digest image;
	bool left;	     /* the user wants the guest to be left waiting */
	atomic_bool serving; /* a guest runs and waits for its pages: ending leaves it so */
	bool continued;	     /* the user has let it leave pre-switchover, maybe in another try */
	bool cancelled_late; /* the main thread's: a cancel was refused already */

	pthread_mutex_t lock; /* guards what follows until the next blank line */
	bool failed;
	struct error why;

	struct source *_Atomic source; /* made by the migration thread, freed by the main one */
	struct target *_Atomic target;
	struct lazy *_Atomic lazy;

	/* the result; written by the migration thread, read after it was joined */
	enum owner owner;
	bool complete, digest_known, digest_verified, dry_run_done;
	bool done_before;  /* an earlier try had handed the guest over, its last word came now */
	bool unheard;	   /* nobody hears this destination's verdict */
	bool peer_retries; /* a source that says HEARD, or comes back */
	bool kept;	   /* a failed destination has something to go on with */
	bool parked;	   /* a link broke, and what there is waits for the rest of the memory */
	struct digest digest;
	atomic_bool served;	  /* this side has served a guest: */
	struct latency faults;	  /* of a guest that was served */
	uint64_t around;	  /* pages that came beside those that it needed */
	uint64_t waiting;	  /* faults without an answer */
	uint64_t blocked_ms;	  /* for how long it waited for pages, */
	struct blocktime threads; /* and each of its threads */
	char socket_address[160];
	char peer[128]; /* the other end's name */
	int out_fd;	/* where events and the final object go */
};

/* Runs the migration that cfg describes, prints its result. 0, or -1 with the error. */
int session_run(const struct config *cfg, enum role role, struct error *err);

/*
 * Reports a failure from any thread, and returns -1. A socket error waits up to a second for the
 * peer's reason first. Then the cancel token fires and everybody stops.
 */
int session_fail(struct session *ss, const struct error *err);

/* As session_fail, with the peer's own words: these win over a socket error that is waiting. */
int session_peer_failed(struct session *ss, const struct error *err);

/*
 * The point from which a cancel is refused. -1, and nothing has changed: something failed before.
 */
int session_commit(struct session *ss, struct error *err);

/*
 * A failure after which nobody knows who owns the guest: what went wrong first becomes ST_LOST,
 * with `what` before it and a hint (or NULL), whatever other threads say later. Returns -1.
 */
int session_lost(struct session *ss, struct error *err, const char *what, const char *hint);

/* Is it that a link died, here or as the other end says; no refusal, and nothing that we did? */
bool session_link_died(const struct error *why);

/* Will there be another try after this failure (--retry)? */
bool session_tries_again(const struct session *ss, const struct error *why);

/* The next channel that came too early, or NULL. */
struct transport *session_stashed(struct session *ss);

/* The table of stages is session.c's; these are its functions, in its order. */
int source_open(struct session *ss, struct error *err);
int source_connect(struct session *ss, struct error *err);
int source_greet(struct session *ss, struct error *err);
int source_channels(struct session *ss, struct error *err);
int source_compare(struct session *ss, struct error *err);
int source_setup(struct session *ss, struct error *err);
int source_precopy(struct session *ss, struct error *err);
/* With switchover-ack: until the destination is ready. */
int source_ack(struct session *ss, struct error *err);
/* With pause-before-switchover: until the user says so. */
int source_pause(struct session *ss, struct error *err);
int source_switchover(struct session *ss, struct error *err);
/* With ss->postcopy. */
int source_postcopy(struct session *ss, struct error *err);
int source_finish(struct session *ss, struct error *err);
/* After the last try, the guest being at the destination and not complete: ST_LOST. */
void source_guest_leave(struct session *ss, struct error *err);
/* SIGUSR2, by the main thread: the next step that waits for somebody. False: there is none. */
bool source_step(struct session *ss);
/* After a failure, before source_end: a digest that differs may mean that our image changed. */
void source_explain(struct session *ss, struct error *err);
/* By the main thread, the migration thread being joined: frees all. why: NULL after success. */
void source_end(struct session *ss, const struct error *why);

int target_open(struct session *ss, struct error *err);
int target_accept(struct session *ss, struct error *err);
int target_greet(struct session *ss, struct error *err);
int target_channels(struct session *ss, struct error *err);
int target_compare(struct session *ss, struct error *err);
int target_setup(struct session *ss, struct error *err);
int target_precopy(struct session *ss, struct error *err);
int target_switchover(struct session *ss, struct error *err);
int target_finish(struct session *ss, struct error *err);
/* The same; a waiting source is told why. */
void target_end(struct session *ss, const struct error *why);
/* After success, with --retry, on a listening side: for a source that has not heard DONE. */
void target_linger(struct session *ss);
/* A destination whose source is an image on this host (image:), for a VMM's faults. */
/* Listens on --uffd-socket, for both. */
int lazy_listen(struct session *ss, struct error *err);
int lazy_open(struct session *ss, struct error *err);
int lazy_accept(struct session *ss, struct error *err);
int lazy_serve(struct session *ss, struct error *err);
/* A try is over: nothing of it is used any more, and the guest waits. Before target_end(). */
void lazy_pause(struct session *ss);
/* After the last one: the guest is left, as the user wants it (ST_LOST). */
void lazy_leave(struct session *ss, struct error *err);
void lazy_end(struct session *ss);

/* Called by the main thread four times a second while the migration runs. */
void target_tick(struct session *ss);

#endif
