// SPDX-License-Identifier: GPL-2.0-or-later
#include "session.h"

#include "broker.h"
#include "command.h"
#include "commands.h"
#include "link.h"
#include "log.h"
#include "progress.h"
#include "remote.h"
#include "session-retry.h"
#include "signals.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <unistd.h>

#define TICK_MS 250

/*
 * A dry run ends after `greet`, towards a QEMU before it connects. `device` is QEMU's word for the
 * switchover, when the guest is stopped for good.
 */
struct stage {
	const char *name;
	enum migration_status status;
	int (*source)(struct session *ss, struct error *err);
	int (*target)(struct session *ss, struct error *err);
	bool last_of_dry_run;
};

static const struct stage stages[] = {
	{ "open", MIG_NONE, source_open, target_open, false },
	{ "connect", MIG_SETUP, source_connect, target_accept, true },
	{ "greet", MIG_SETUP, source_greet, target_greet, true },
	{ "channels", MIG_SETUP, source_channels, target_channels, false },
	{ "compare", MIG_ACTIVE, source_compare, target_compare, false },
	{ "setup", MIG_ACTIVE, source_setup, target_setup, false },
	{ "precopy", MIG_ACTIVE, source_precopy, target_precopy, false },
	{ "switchover-ack", MIG_NONE, source_ack, NULL, false },
	{ "pre-switchover", MIG_NONE, source_pause, NULL, false },
	{ "switchover", MIG_DEVICE, source_switchover, target_switchover, false },
	{ "postcopy", MIG_NONE, source_postcopy, NULL, false },
	{ "finish", MIG_DEVICE, source_finish, target_finish, false },
	{ .name = NULL },
};

/* With an image on this host as the source there is no peer. */
static const struct stage lazy_stages[] = {
	{ "open", MIG_NONE, NULL, lazy_open, false },
	{ "connect", MIG_SETUP, NULL, lazy_accept, false },
	{ "serve", MIG_POSTCOPY_ACTIVE, NULL, lazy_serve, false },
	{ .name = NULL },
};

/* What the main thread and the migration thread share beside the session. */
struct run {
	struct session *ss;
	int done; /* eventfd: the migration thread is at its end */
	int rc;
	struct error err;
};

/* ---- failing ---- */

/* Only words that explain nothing wait for better ones. */
static bool explains(const struct error *err)
{
	return err->status != ST_SOCKET;
}

int session_peer_failed(struct session *ss, const struct error *err)
{
	pthread_mutex_lock(&ss->lock);
	if (!ss->failed || !explains(&ss->why)) {
		ss->failed = true;
		ss->why = *err;
	}
	pthread_mutex_unlock(&ss->lock);
	cancel_fire(&ss->cancel, err);
	return -1;
}

int session_fail(struct session *ss, const struct error *err)
{
	struct error ignored;
	bool listen_to_peer = ss->dialect.migtool && ss->main && ss->main->two_way;

	if (!explains(err) && listen_to_peer && !cancel_fired(&ss->cancel))
		cancel_wait(&ss->cancel, -1, 0, 1000, &ignored);
	return session_peer_failed(ss, err);
}

/* The first reason, which may be another thread's than the one that noticed. */
static void first_reason(struct session *ss, struct error *err)
{
	pthread_mutex_lock(&ss->lock);
	if (ss->failed && ss->why.status != ST_OK)
		*err = ss->why;
	pthread_mutex_unlock(&ss->lock);
}

int session_commit(struct session *ss, struct error *err)
{
	int rc = 0;

	pthread_mutex_lock(&ss->lock);
	if (ss->failed) {
		*err = ss->why;
		rc = -1;
	} else {
		ss->committed = true;
	}
	pthread_mutex_unlock(&ss->lock);
	return rc;
}

int session_lost(struct session *ss, struct error *err, const char *what, const char *hint)
{
	session_fail(ss, err);
	first_reason(ss, err);
	err->status = ST_LOST;
	err_prefix(err, "%s", what);
	if (hint)
		err_hint(err, "%s", hint);
	pthread_mutex_lock(&ss->lock);
	ss->why = *err;
	pthread_mutex_unlock(&ss->lock);
	return -1;
}

/*
 * Once nobody else has the guest: the first is refused. The second, with a guest that runs and
 * waits for pages, leaves it waiting.
 */
static void cancel_late(struct session *ss, const struct error *why)
{
	if (ss->serving && ss->cancelled_late) {
		ss->left = true;
		cancel_fire(&ss->cancel, why);
		return;
	}
	ss->cancelled_late = true;
	if (ss->serving)
		log_warn("not %s: the guest runs and needs its pages; once more, and it is left "
			 "waiting for them",
			 why->msg);
	else
		log_warn("too late to be %s: the guest has been handed over", why->msg);
}

/* Unless the guest has been given up. Nothing may come between the two. */
static void cancel_session(struct session *ss, const struct error *why)
{
	bool late;

	pthread_mutex_lock(&ss->lock);
	/* a guest that waits already is left at once */
	if (ss->serving && ss->paused)
		ss->left = true;
	late = ss->committed && !ss->left;
	if (!late && (!ss->failed || !explains(&ss->why))) {
		ss->failed = true;
		ss->why = *why;
	}
	pthread_mutex_unlock(&ss->lock);
	if (late) {
		cancel_late(ss, why);
		return;
	}
	if (!ss->left)
		events_status(&ss->events, MIG_CANCELLING);
	cancel_fire(&ss->cancel, why);
}

/* ---- the migration thread ---- */

static int run_stage(struct session *ss, const struct stage *st, struct error *err)
{
	log_debug("stage %s", st->name);
	/* to people, postcopy is one thing from the switch on */
	atomic_store(&ss->phase, ss->postcopy ? "postcopy" : st->name);
	/* postcopy takes the place of all that follows, and says itself how far it is */
	if (!ss->postcopy && st->status != MIG_NONE)
		events_status(&ss->events, st->status);
	if ((st->status == MIG_ACTIVE || st->status == MIG_POSTCOPY_ACTIVE) &&
	    !stat_get(&ss->stats.t_setup_done))
		stat_set(&ss->stats.t_setup_done, stats_now());
	if (ss->role == ROLE_SOURCE)
		return st->source(ss, err);
	return st->target ? st->target(ss, err) : 0;
}

static int run_stages(struct session *ss, struct error *err)
{
	const struct stage *st = ss->uri.scheme == SCHEME_IMAGE ? lazy_stages : stages;

	for (; st->name; st++) {
		if (run_stage(ss, st, err)) {
			session_fail(ss, err);
			first_reason(ss, err);
			return -1;
		}
		if (st->last_of_dry_run && (ss->dry_run_done || ss->done_before))
			return 0;
	}
	return 0;
}

static void *migrate(void *arg)
{
	struct run *r = arg;
	struct session *ss = r->ss;
	uint64_t one = 1;

	if (!ss->tries)
		stat_set(&ss->stats.t_start, stats_now());
	r->rc = run_stages(ss, &r->err);
	stat_set(&ss->stats.t_end, stats_now());
	while (write(r->done, &one, sizeof(one)) < 0 && errno == EINTR)
		;
	return NULL;
}

/* ---- the main thread ---- */

static void fill_report(struct session *ss, const struct run *r, struct stats_snapshot *snap,
			struct report *rep)
{
	memset(rep, 0, sizeof(*rep));
	stats_snapshot(&ss->stats, snap);
	rep->role = ss->role;
	rep->status = events_current(&ss->events);
	rep->stats = snap;
	rep->caps = &ss->caps;
	rep->params = &ss->cfg->params;
	rep->err = r && r->rc ? &r->err : NULL;
	rep->blocked = rep->err && snap->t_setup_done == 0 && rep->err->status == ST_UNSUPPORTED;
	if (r) { /* the migration thread was joined: its result can be read */
		rep->owner = ss->owner;
		rep->complete = ss->complete;
		rep->digest = ss->digest_known ? &ss->digest : NULL;
		rep->digest_verified = ss->digest_verified;
		rep->one_way = ss->unheard;
		rep->peer = ss->peer[0] ? ss->peer : NULL;
	}
	rep->digest_recovered = ss->recovered;
	if (rep->complete && !ss->digest_verified)
		rep->digest_why = ss->dialect.migtool ? "a one-way transport"
						      : "a QEMU knows no digest";
	rep->socket_address = ss->socket_address[0] ? ss->socket_address : NULL;
	rep->image = ss->uri.scheme == SCHEME_IMAGE ? ss->uri.path : ss->cfg->image;
	if (ss->served && ss->uri.scheme != SCHEME_IMAGE)
		rep->image = "the source's image";
	if (ss->served && stat_get(&ss->stats.t_setup_done)) {
		rep->faults = &ss->faults;
		rep->blocked_ms = ss->blocked_ms;
		rep->around = ss->around;
		rep->waiting = ss->waiting;
		rep->since_recovery = ss->adopted;
		rep->threads = &ss->threads;
	}
	rep->page_size = ss->page_size;
}

/* Bytes on the wire, all channels. */
static void count_transferred(struct session *ss)
{
	if (ss->uri.scheme == SCHEME_IMAGE)
		return;
	stat_set(&ss->stats.transferred,
		 ss->moved_before + ss->stream.bytes_in + ss->stream.bytes_out +
			 stat_get(&ss->stats.multifd_bytes) + stat_get(&ss->stats.urgent_bytes));
}

static void print_statistics(struct session *ss)
{
	struct stats_snapshot snap;
	struct report rep;

	count_transferred(ss);
	fill_report(ss, NULL, &snap, &rep);
	report_statistics(&rep);
}

static void take_signal(struct session *ss, enum signal_request req)
{
	struct error why;

	if (req == SIGNAL_HUP && ss->serving) {
		log_verbose("SIGHUP: ignored, for the guest needs its pages");
	} else if (signals_is_cancel(req)) {
		err_set(&why, ST_CANCELLED, "cancelled by %s", signals_name(req));
		cancel_session(ss, &why);
	} else if (req == SIGNAL_STATS) {
		print_statistics(ss);
	} else if (req == SIGNAL_STEP && !(ss->role == ROLE_SOURCE && source_step(ss))) {
		log_answer("SIGUSR2: no step is pending");
	}
}

/* What is done is done; what is not cannot be finished without it. */
static void lost_broker(struct session *ss)
{
	struct error why;

	err_set(&why, ST_SANDBOX, "stopped: the process that opens files for this one is gone");
	err_hint(&why, "was it killed?");
	cancel_session(ss, &why);
}

struct watchdog {
	uint64_t last, since; /* activity, and when it was seen to change */
};

/* Nothing moved either way once a peer is known. */
static void watch(struct session *ss, struct watchdog *w)
{
	uint64_t now = stats_now(), seen = stat_get(&ss->stats.activity);
	int64_t limit = link_timeout_ms(ss);
	struct error why;

	if (seen != w->last || !ss->watched) {
		w->last = seen;
		w->since = now;
	} else if (limit > 0 && now - w->since > (uint64_t)limit) {
		err_set(&why, ST_TIMEOUT, "nothing moved either way for %lld s (stage %s)",
			(long long)limit / 1000, atomic_load(&ss->phase));
		err_hint(&why, "--timeout SECONDS, 0 for never");
		session_peer_failed(ss, &why);
	}
}

static void tick(struct session *ss, struct progress *p, struct watchdog *w)
{
	struct stats_snapshot snap;

	if (ss->target)
		target_tick(ss);
	watch(ss, w);
	if (!stat_get(&ss->stats.t_setup_done))
		return;
	stats_snapshot(&ss->stats, &snap);
	progress_tick(p, &snap, atomic_load(&ss->phase));
}

/* Until the migration thread is at its end. */
static void attend(struct session *ss, struct run *r, struct progress *p)
{
	struct pollfd fds[3] = { { .fd = r->done, .events = POLLIN },
				 { .fd = signals_fd(), .events = POLLIN },
				 { .fd = broker_fd(), .events = POLLIN } };
	struct watchdog w = { 0, stats_now() };

	for (;;) {
		enum signal_request req;

		if (poll(fds, 3, TICK_MS) > 0 && fds[0].revents)
			return;
		if (fds[2].revents) {
			fds[2].fd = -1;
			lost_broker(ss);
		}
		while ((req = signals_next()) != SIGNAL_NONE)
			take_signal(ss, req);
		tick(ss, p, &w);
	}
}

static enum migration_status final_status(const struct run *r)
{
	/* the guest waits for memory, and somebody can come with it */
	if (r->rc && (r->ss->serving || (r->ss->postcopy && r->err.status == ST_LOST)))
		return MIG_POSTCOPY_PAUSED;
	return !r->rc ? MIG_COMPLETED : r->err.status == ST_CANCELLED ? MIG_CANCELLED : MIG_FAILED;
}

static int run_threads(struct session *ss, struct run *r, struct error *err)
{
	struct progress progress;
	struct stats_snapshot snap;
	pthread_t thread;
	int e;

	progress_init(&progress, ss->cfg->progress, ss->cfg->verbosity < 0, ss->out_fd);
	e = pthread_create(&thread, NULL, migrate, r);
	if (e)
		return err_sys(err, ST_NOMEM, e, "cannot start the migration thread");
	attend(ss, r, &progress);
	pthread_join(thread, NULL);
	/* here and not in the thread: tick() looks at the roles until now */
	if (r->rc)
		source_explain(ss, &r->err);
	source_end(ss, r->rc ? &r->err : NULL);
	lazy_pause(ss);
	target_end(ss, r->rc ? &r->err : NULL);
	count_transferred(ss);
	stats_snapshot(&ss->stats, &snap);
	progress_end(&progress, &snap, atomic_load(&ss->phase), ss->complete);
	return 0;
}

/* Who gave the guest up without an answer has to know that until somebody says otherwise. */
static void remain_unknown(struct session *ss, struct run *r)
{
	if (!r->rc || !ss->tries || ss->role != ROLE_SOURCE || ss->owner != OWNER_UNKNOWN ||
	    r->err.status == ST_LOST)
		return;
	r->err.status = ST_LOST;
	err_prefix(&r->err, "the guest was given up and nobody has said who owns it");
	err_hint(&r->err, "ask: `recv --resume` there, then `send --resume` here");
}

/* Where it is served nobody serves it any more; it waits. */
static void leave_guest(struct session *ss, struct run *r)
{
	if (r->rc && ss->serving && r->err.status != ST_LOST) {
		if (ss->role == ROLE_SOURCE)
			source_guest_leave(ss, &r->err);
		else
			lazy_leave(ss, &r->err);
	}
	lazy_end(ss);
}

/* Try after try. */
static int run_tries(struct session *ss, struct run *r, struct error *err)
{
	uint64_t gone;

	do {
		if (run_threads(ss, r, err)) {
			lazy_end(ss);
			return -1;
		}
		if (read(r->done, &gone, sizeof(gone)) < 0)
			log_debug("the migration thread said no end");
		if (r->rc)
			remote_explain(ss->main, &r->err);
	} while (r->rc && session_prepare_again(ss, &r->err));
	remain_unknown(ss, r);
	leave_guest(ss, r);
	if (!ss->dry_run_done)
		events_status(&ss->events, final_status(r));
	return 0;
}

/* ---- set-up ---- */

static int choose_sides(struct session *ss, struct error *err)
{
	const struct config *cfg = ss->cfg;
	bool can_listen = listener_possible(&ss->uri);
	bool listens = ss->role == ROLE_SOURCE ? cfg->listen : !cfg->connect && can_listen;

	if (cfg->listen && !can_listen)
		return err_set(err, ST_USAGE, "--listen: %s cannot be listened on", ss->uri.text);
	if (cfg->listen && cfg->peer == PEER_QEMU)
		return err_set(err, ST_USAGE, "--listen: a QEMU never dials its source");
	/* before anybody hears that we listen */
	if (cfg->uffd_socket && !cfg->resume && ss->uri.scheme != SCHEME_IMAGE &&
	    lazy_listen(ss, err))
		return -1;
	if (cfg->far)
		return link_listen_joins(ss, err);
	return listens ? link_listen(ss, err) : 0;
}

/* Who serves no guest has nobody to measure. */
static void say_unmeasured(const struct session *ss)
{
	const struct config *cfg = ss->cfg;
	bool serves = config_has_guest(cfg);

	if (ss->caps.on[CAP_POSTCOPY_BLOCKTIME] && !serves)
		log_verbose("capability postcopy-blocktime has no effect here: %s",
			    ss->role == ROLE_SOURCE ? "it is the destination's guest that waits"
						    : "no guest waits for its pages at this end");
}

static int apply_caps(struct session *ss, struct error *err)
{
	const struct config *cfg = ss->cfg;
	struct host_facts host;
	struct check_input in = { .new = &cfg->caps,
				  .params = &cfg->params,
				  .host = &host,
				  .role = ss->role,
				  .stores = true,
				  .peer_qemu = cfg->peer == PEER_QEMU,
				  .multi_channel = link_multi_channel(ss),
				  .copies = link_copies(ss),
				  .one_way = cfg->one_way };

	host_probe(&host, cfg->caps.on[CAP_POSTCOPY_RAM]);
	if (check_apply(&ss->caps, &in, err))
		return -1;
	say_unmeasured(ss);
	return 0;
}

/* Before anything is connected to: bad credentials are our own fault alone. */
static int open_tls(struct session *ss, struct error *err)
{
	const struct params *p = &ss->cfg->params;
	struct tls_options o = { .creds = params_tls_creds(p),
				 .hostname = params_tls_hostname(p),
				 .authz = params_tls_authz(p),
				 .server = ss->role == ROLE_DESTINATION,
				 .uri = &ss->uri,
				 .listens = ss->cfg->listen };
	enum scheme sc = ss->uri.scheme;

	if (!params_tls(p))
		return 0;
	if (sc == SCHEME_SSH) {
		err_set(err, ST_UNSUPPORTED, "tls-creds: %s is encrypted already", ss->uri.text);
		return err_hint(err, "leave tls-creds away");
	}
	if (sc == SCHEME_FILE || sc == SCHEME_NULL || sc == SCHEME_IMAGE) {
		err_set(err, ST_UNSUPPORTED, "tls-creds: %s has nobody at its other end",
			ss->uri.text);
		return err_hint(err, "leave tls-creds away");
	}
	ss->tls = tls_creds_open(&o, err);
	return ss->tls ? 0 : -1;
}

static int session_init(struct session *ss, const struct config *cfg, enum role role,
			struct error *err)
{
	memset(ss, 0, sizeof(*ss));
	ss->cfg = cfg;
	ss->role = role;
	ss->again = cfg->resume;
	/* what an earlier process did is not known until the destination was asked */
	ss->owner = cfg->resume && role == ROLE_SOURCE ? OWNER_UNKNOWN : OWNER_SOURCE;
	ss->page_size = 4096;
	ss->phase = "open";
	/* a failure below is reported, too; with stdio: stdout is the stream */
	ss->out_fd = strncmp(cfg->uri, "stdio:", 6) ? STDOUT_FILENO : STDERR_FILENO;
	pthread_mutex_init(&ss->lock, NULL);
	pacer_init(&ss->pacer, params_max_bandwidth(&cfg->params));
	events_init(&ss->events, cfg->caps.on[CAP_EVENTS], ss->out_fd);
	if (cancel_init(&ss->cancel, err))
		return -1;
	if (getrandom(ss->id, sizeof(ss->id), 0) != (ssize_t)sizeof(ss->id))
		return err_sys(err, ST_UNSUPPORTED, errno, "no random session id");
	return uri_parse(&ss->uri, cfg->uri, err);
}

static void session_destroy(struct session *ss)
{
	struct error ignored;
	struct transport *t;

	while ((t = session_stashed(ss)))
		transport_close(t, &ignored);
	link_drop_main(ss);
	pending_free(ss->pending);
	listener_close(ss->listener);
	listener_close(ss->joins);
	listener_close(ss->vmms);
	ssh_login_free(ss->login);
	tls_creds_close(ss->tls);
	uri_free(&ss->uri);
	pacer_destroy(&ss->pacer);
	events_destroy(&ss->events);
	cancel_destroy(&ss->cancel);
	pthread_mutex_destroy(&ss->lock);
}

static int say_result(struct session *ss, const struct run *r, struct error *err)
{
	struct stats_snapshot snap;
	struct report rep;
	struct error why;

	fill_report(ss, r, &snap, &rep);
	if (ss->dry_run_done)
		log_info(ss->cfg->peer == PEER_QEMU
				 ? "dry run: this side could send it; a QEMU cannot be asked "
				   "without "
				   "using it up"
				 : "dry run: the destination would take it; nothing was moved");
	else
		report_summary(&rep);
	if (!ss->cfg->json || !report_json(&rep, ss->out_fd, &why))
		return 0;
	return r->rc ? 0 : (*err = why, -1);
}

/* Behind the rename: the guest's process, in its own session. */
static int run_command(struct session *ss, struct error *err)
{
	if (ss->role != ROLE_DESTINATION || !ss->cfg->argv || !ss->complete ||
	    config_has_guest(ss->cfg))
		return 0;
	return command_start(ss->cfg->argv, ss->cfg->image, NULL, err);
}

static int finish_run(struct session *ss, struct run *r)
{
	bool linger = !r->rc && ss->role == ROLE_DESTINATION && ss->cfg->retry && ss->listener &&
		      ss->complete && ss->peer_retries && !ss->unheard;
	struct error err;

	/* both ends know that it is done: what a command says now changes nothing */
	if (!r->rc && !linger && link_end_main(ss, &err))
		log_warn("all is done, but %s", err.msg);
	if (!r->rc && run_command(ss, &err)) {
		r->rc = -1;
		r->err = err;
	}
	if (say_result(ss, r, &r->err))
		r->rc = -1;
	if (linger)
		target_linger(ss);
	return r->rc;
}

int session_run(const struct config *cfg, enum role role, struct error *err)
{
	struct session ss;
	struct run r = { .ss = &ss, .done = -1, .rc = -1 };
	int rc = session_init(&ss, cfg, role, err);

	if (!rc && (apply_caps(&ss, err) || signals_init(err) || open_tls(&ss, err) ||
		    choose_sides(&ss, err) || session_check_retry(&ss, err)))
		rc = -1;
	if (!rc) {
		r.done = eventfd(0, EFD_CLOEXEC);
		if (r.done < 0)
			rc = err_sys(err, ST_NOMEM, errno, "cannot make an eventfd");
	}
	if (!rc)
		rc = run_tries(&ss, &r, err);
	if (rc) {
		r.rc = -1;
		r.err = *err;
	}
	rc = finish_run(&ss, &r);
	*err = r.err;
	if (r.done >= 0)
		close(r.done);
	session_destroy(&ss);
	signals_close();
	return rc;
}

int cmd_send(const struct config *cfg, struct error *err)
{
	return session_run(cfg, ROLE_SOURCE, err);
}

int cmd_recv(const struct config *cfg, struct error *err)
{
	return session_run(cfg, ROLE_DESTINATION, err);
}
