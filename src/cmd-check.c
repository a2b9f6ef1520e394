// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * `migtool check [URI]`: what this host can do, whether the capabilities and parameters given may
 * be set on it, and, with a URI, whether the migtool there would take them. Moves nothing.
 */
#include "check.h"
#include "commands.h"
#include "jsonline.h"
#include "log.h"
#include "remote.h"
#include "tls.h"
#include "wire-greet.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>

#define ANSWER_MS 10000

static const char *tracking_name(enum write_tracking t)
{
	static const char *const names[] = { "absent", "available", "compatible" };

	return names[t];
}

static int check_roles(const struct config *cfg, const struct host_facts *host,
		       const struct uri *uri, struct error *err)
{
	struct check_input in = { .new = &cfg->caps,
				  .params = &cfg->params,
				  .host = host,
				  .peer_qemu = cfg->peer == PEER_QEMU,
				  .multi_channel = !uri || uri_multi_channel(uri),
				  .copies = uri && !uri_zero_copy(uri),
				  .one_way = cfg->one_way };

	in.role = ROLE_SOURCE;
	if (check_caps(&in, err))
		return err_prefix(err, "as a source");
	in.role = ROLE_DESTINATION;
	if (check_caps(&in, err))
		return err_prefix(err, "as a destination");
	return 0;
}

/* ---- the other end ---- */

/* quiet_ms: how long the other end may say nothing at all. */
static int exchange(const struct config *cfg, struct stream *s, int quiet_ms,
		    struct greet_answer *a, struct error *err)
{
	struct greeting g = { .dry_run = true, .page_size = 4096, .features = FEATURES_ALL };
	int r;

	snprintf(g.program, sizeof(g.program), "migtool %s", MIGTOOL_VERSION);
	g.caps = cfg->caps;
	g.multifd_channels = params_multifd_channels(&cfg->params);
	g.multifd_compression = params_multifd_compression(&cfg->params);
	if (cfg->uuid)
		snprintf(g.uuid, sizeof(g.uuid), "%s", cfg->uuid);
	if (cfg->machine)
		snprintf(g.machine, sizeof(g.machine), "%s", cfg->machine);
	if (cfg->page_size)
		g.page_size = cfg->page_size;
	if (greet_put(s, &g, err))
		return -1;
	r = transport_poll_in(s->t, quiet_ms, err);
	if (r == 0) {
		err_set(err, ST_TIMEOUT, "%s does not answer within %d s", s->t->name,
			quiet_ms / 1000);
		return err_hint(err, "is a `migtool recv` listening there?");
	}
	return r < 0 ? -1 : greet_answer_get(s, ANSWER_MS, a, err);
}

/* The exchange's deadline: a peer that stops in the middle of its answer is waited for by nobody.
 */
struct deadline {
	pthread_t thread;
	struct cancel over; /* the exchange is */
	struct cancel *cancel;
	const char *name;
	int ms;
};

static void *deadline_main(void *arg)
{
	struct deadline *d = arg;
	struct error why;

	if (cancel_wait(&d->over, -1, 0, d->ms, &why))
		return NULL;
	err_set(&why, ST_TIMEOUT, "%s has not given a whole answer within %d s", d->name,
		d->ms / 1000);
	err_hint(&why, "--timeout SECONDS, 0 for never");
	cancel_fire(d->cancel, &why);
	return NULL;
}

/* As exchange, for `ms` (-1: no limit). */
static int exchange_in_time(const struct config *cfg, struct stream *s, int ms, int quiet_ms,
			    struct greet_answer *a, struct error *err)
{
	struct deadline d = { .cancel = s->t->cancel, .name = s->t->name, .ms = ms };
	struct error ignored = { .status = ST_CANCELLED };
	int e, rc = -1;

	if (cancel_init(&d.over, err))
		return -1;
	e = pthread_create(&d.thread, NULL, deadline_main, &d);
	if (e) {
		err_sys(err, ST_NOMEM, e, "cannot start a thread");
	} else {
		rc = exchange(cfg, s, quiet_ms, a, err);
		cancel_fire(&d.over, &ignored);
		pthread_join(d.thread, NULL);
	}
	cancel_destroy(&d.over);
	return rc;
}

/* A source's half of TLS, if it is asked for. */
static struct transport *dial(const struct uri *uri, int ms, struct tls_creds *tls,
			      struct cancel *cancel, struct error *err)
{
	struct transport *t = transport_dial(uri, true, ms, cancel, err);
	struct error ignored;

	if (!t || !tls)
		return t;
	t = tls_wrap(tls, t, err);
	if (t && tls_handshake(t, TLS_HANDSHAKE_MS, err)) {
		transport_close(t, &ignored);
		t = NULL;
	}
	return t;
}

static int ask_peer(const struct config *cfg, const struct uri *uri, struct tls_creds *tls,
		    struct greet_answer *a, struct error *err)
{
	int64_t ms = cfg->timeout < 0 ? 60000 : cfg->timeout ? cfg->timeout * 1000 : -1;
	bool ssh = uri->scheme == SCHEME_SSH; /* who logs in first, and may be asked to */
	struct cancel cancel;
	struct transport *t;
	struct stream s;
	struct error ignored;
	int rc = -1;

	if (cancel_init(&cancel, err))
		return -1;
	t = ssh ? remote_dial(cfg, uri, true, NULL, (int)ms, NULL, &cancel, err)
		: dial(uri, (int)ms, tls, &cancel, err);
	if (t && !t->two_way)
		err_set(err, ST_USAGE, "check: %s carries no answer back", uri->text);
	else if (t && !stream_open(&s, t, 64 << 10, 64 << 10, err)) {
		rc = exchange_in_time(cfg, &s, (int)ms, ssh ? -1 : ANSWER_MS, a, err);
		stream_close(&s);
	}
	if (rc)
		remote_explain(t, err);
	transport_close(t, &ignored);
	cancel_destroy(&cancel);
	if (!rc && !a->take) {
		*err = a->why;
		rc = -1;
	}
	return rc;
}

/*
 * The credentials of a source, which is what asks; without anybody to ask, a destination's do too.
 * A QEMU's name in its certificate is looked for, too.
 */
static int open_tls(const struct config *cfg, const struct uri *uri, struct tls_creds **tls,
		    struct error *err)
{
	struct tls_options o = { .creds = params_tls_creds(&cfg->params),
				 .hostname = params_tls_hostname(&cfg->params),
				 .authz = params_tls_authz(&cfg->params),
				 .uri = uri };
	struct error why;

	*tls = tls_creds_open(&o, err);
	o.server = true;
	if (!*tls && !uri)
		*tls = tls_creds_open(&o, &why);
	return *tls ? 0 : -1;
}

/* ---- what is printed ---- */

static int print_json(const struct host_facts *h, const struct greet_answer *a,
		      const struct error *bad)
{
	struct utsname u;
	json_t *o;

	uname(&u);
	o = json_pack("{s:s, s:{s:s, s:s, s:b, s:s, s:b, s:b}, s:b}", "version", MIGTOOL_VERSION,
		      "host", "kernel", u.release, "write-tracking",
		      tracking_name(h->write_tracking), "postcopy", (int)h->postcopy_host,
		      "postcopy-reason", h->postcopy_reason, "kvm-dirty-ring",
		      (int)h->kvm_dirty_ring, "zero-copy", (int)h->zero_copy, "ok", bad == NULL);
	if (bad) {
		json_object_set_new(o, "error-code", json_string(status_info(bad->status)->code));
		json_object_set_new(o, "error-desc", jsonline_string(bad->msg));
	}
	if (a)
		json_object_set_new(o, "peer", jsonline_string(a->program));
	json_dumpf(o, stdout, JSON_COMPACT);
	putchar('\n');
	json_decref(o);
	return bad ? -1 : 0;
}

static void print_people(const struct host_facts *h, const struct greet_answer *a,
			 const struct config *cfg)
{
	struct utsname u;

	uname(&u);
	printf("this host      %s %s, migtool %s\n", u.sysname, u.release, MIGTOOL_VERSION);
	printf("write tracking %s\n", tracking_name(h->write_tracking));
	printf("postcopy       %s%s\n", h->postcopy_host ? "possible" : "not possible: ",
	       h->postcopy_host ? "" : h->postcopy_reason);
	printf("zero copy      %s\n", h->zero_copy ? "possible" : "not possible");
	printf("capabilities   can be set here\n");
	if (a)
		printf("the other end  %s, takes them\n", a->program);
	else if (cfg->peer == PEER_QEMU)
		printf("the other end  a QEMU, which a connection would use up: not asked\n");
}

int cmd_check(const struct config *cfg, struct error *err)
{
	bool ask = cfg->uri && cfg->peer != PEER_QEMU;
	struct greet_answer answer;
	struct host_facts host;
	struct tls_creds *tls = NULL;
	struct uri uri = { 0 };
	int rc = 0;

	host_probe(&host, true);
	if (cfg->uri && uri_parse(&uri, cfg->uri, err))
		return -1;
	rc = check_roles(cfg, &host, cfg->uri ? &uri : NULL, err);
	if (!rc && params_tls(&cfg->params))
		rc = open_tls(cfg, cfg->uri ? &uri : NULL, &tls, err);
	if (!rc && ask)
		rc = ask_peer(cfg, &uri, tls, &answer, err);
	tls_creds_close(tls);
	if (cfg->json)
		rc = print_json(&host, !rc && ask ? &answer : NULL, rc ? err : NULL);
	else if (!rc)
		print_people(&host, ask ? &answer : NULL, cfg);
	uri_free(&uri);
	return rc;
}
