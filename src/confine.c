// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * From the command line to what the worker may ask for. Everything that a run will open, connect
 * to, start or rename later has to be foreseen here.
 */
#include "confine.h"

#include "broker.h"
#include "catch.h"
#include "check.h"
#include "congestion.h"
#include "image.h"
#include "jsonline.h"
#include "log.h"
#include "remote.h"
#include "report.h"
#include "sandbox.h"
#include "takeup.h"
#include "tls.h"
#include "transport.h"
#include "warden.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* As long as the process: the worker has to find its names, the broker to judge them. */
static struct policy policy;

/* Is the guest COMMAND, which starts before its memory is there, or a process that runs? */
static bool catches(const struct config *cfg)
{
	return config_has_guest(cfg) && !cfg->uffd_socket;
}

/* ---- what may be asked for ---- */

static int no_memory(struct error *err)
{
	return err_set(err, ST_NOMEM, "no memory for what this run may do");
}

/* Something that is written beside its name and renamed. A name that cannot be is left out. */
static int allow_target(const char *path, unsigned rights, bool force, struct error *err)
{
	char *final = image_final_name(path, err), *given = strdup(path);
	size_t len = strlen(path);
	int rc;

	if (!final || !given) {
		rc = given && err->status != ST_NOMEM && err->sys != ENOMEM ? 0 : no_memory(err);
		free(final);
		free(given);
		return rc;
	}
	while (len > 1 && given[len - 1] == '/')
		given[--len] = '\0';
	if (force)
		rights |= POLICY_REPLACE;
	rc = policy_add_root(&policy, final, POLICY_LOOK | POLICY_PARENT | rights, err);
	if (!rc)
		rc = policy_add_root(&policy, path, POLICY_LOOK | POLICY_MEMBERS, err);
	if (!rc)
		rc = policy_add_root(&policy, given, POLICY_LOOK | POLICY_MEMBERS, err);
	if (!rc && strcmp(given, final) != 0)
		rc = policy_set_real(&policy, given, final, err);
	free(given);
	free(final);
	return rc;
}

static int allow_read(const char *path, unsigned rights, struct error *err)
{
	return path ? policy_add_root(&policy, path, POLICY_LOOK | rights, err) : 0;
}

static int allow_source(const struct config *cfg, struct error *err)
{
	unsigned release = cfg->caps.on[CAP_RELEASE_RAM] ? POLICY_WRITE : 0;

	if (allow_read(cfg->image, POLICY_MEMBERS | release, err) ||
	    allow_read(cfg->base, POLICY_MEMBERS, err) || allow_read(cfg->device_state, 0, err) ||
	    allow_read(cfg->replay_dirty, 0, err))
		return -1;
	return 0;
}

/* Made before; it goes when the guest needs nobody any more. */
static int allow_ledger(const struct config *cfg, struct error *err)
{
	char *path = takeup_path(cfg->uffd_socket);
	int rc = path ? policy_add_root(&policy, path, POLICY_UNLINK, err) : no_memory(err);

	free(path);
	return rc;
}

/* Whose faults are served: the socket on which its VMM comes, and the lists of what it needed. */
static int allow_guest(const struct config *cfg, struct error *err)
{
	struct uri sock = { .scheme = SCHEME_UNIX, .path = (char *)cfg->uffd_socket };

	if (cfg->uffd_socket &&
	    (allow_ledger(cfg, err) || transport_policy(&policy, &sock, true, false, err)))
		return -1;
	if (allow_read(cfg->prefetch, 0, err))
		return -1;
	return cfg->record ? allow_target(cfg->record, POLICY_PART, cfg->force, err) : 0;
}

static int allow_destination(const struct config *cfg, struct error *err)
{
	struct policy_command how = { .max = 1, .session = true };
	bool force = cfg->force || cfg->delta || cfg->resume || cfg->caps.on[CAP_X_IGNORE_SHARED];

	if (allow_guest(cfg, err))
		return -1;
	/* a guest finds it before it is ours, and then it may have to go again */
	if (cfg->device_state &&
	    allow_target(cfg->device_state,
			 POLICY_PART | (config_has_guest(cfg) ? POLICY_UNLINK : 0), cfg->force,
			 err))
		return -1;
	if (!cfg->image)
		return 0;
	if (allow_target(cfg->image,
			 POLICY_MEMBERS |
				 (cfg->in_place || catches(cfg) ? POLICY_IN_PLACE : POLICY_PART),
			 force, err))
		return -1;
	/* in postcopy the catcher starts it */
	if (catches(cfg))
		return 0;
	return cfg->argv ? policy_add_command(&policy, cfg->argv, &how, err) : 0;
}

/* A URI that is none says so itself, later. */
static int allow_peer(const struct config *cfg, const struct uri *uri, struct error *err)
{
	bool sends = cfg->command != CMD_RECV;
	bool listens = cfg->command == CMD_SEND ? cfg->listen
						: cfg->command == CMD_RECV && !cfg->connect;

	policy.joins = cfg->far;
	if (params_tls(&cfg->params) && tls_policy(&policy, params_tls_creds(&cfg->params), err))
		return -1;
	if (uri->scheme == SCHEME_IMAGE)
		return allow_read(uri->path, POLICY_MEMBERS, err);
	if (uri->scheme == SCHEME_SSH)
		return remote_policy(&policy, cfg, uri, sends, err);
	return transport_policy(&policy, uri, listens, sends, err);
}

static int make_policy(const struct config *cfg, const struct uri *uri, struct error *err)
{
	if (cfg->command == CMD_SEND && allow_source(cfg, err))
		return -1;
	if (cfg->command == CMD_RECV && allow_destination(cfg, err))
		return -1;
	return allow_peer(cfg, uri, err);
}

/* ---- the end of a worker that was stopped ---- */

static void report_failure(const struct config *cfg, const struct error *why)
{
	struct stats_snapshot none;
	struct error ignored;
	struct report r = { .role = cfg->command == CMD_SEND ? ROLE_SOURCE : ROLE_DESTINATION,
			    .status = MIG_FAILED,
			    .stats = &none,
			    .caps = &cfg->caps,
			    .params = &cfg->params,
			    .err = why,
			    .owner = OWNER_UNKNOWN,
			    .image = cfg->image,
			    .page_size = 4096 };

	memset(&none, 0, sizeof(none));
	report_json(&r, policy.stdio_taken ? STDERR_FILENO : STDOUT_FILENO, &ignored);
}

/* In the broker. Nobody knows how far the worker came, so nobody knows who owns the guest. */
static void obituary(int number, void *arg)
{
	const struct config *cfg = arg;
	char *name = sandbox_syscall_name(number);
	struct error why;

	err_set(&why, ST_SANDBOX, "the worker was stopped by its sandbox: system call %d (%s)",
		number, name ? name : "without a name");
	free(name);
	log_error("%s", why.msg);
	log_error("either migtool has a bug, or the peer tried to take it over");
	if (cfg->command != CMD_CHECK)
		log_error("who owns the memory is not known: neither end may run the guest before "
			  "you know which one owns it; between migtools `recv --resume` and `send "
			  "--resume` find it out");
	if (cfg->json && cfg->command != CMD_CHECK)
		report_failure(cfg, &why);
}

/* ---- COMMAND in postcopy, or the guest that runs already ---- */

static int start_catcher(const struct config *cfg, struct error *err)
{
	static struct catch_plan plan;

	if (!catches(cfg))
		return 0;
	plan.argv = cfg->argv;
	plan.guest = cfg->guest;
	plan.kill = cfg->kill_on_loss;
	plan.resume = cfg->resume;
	plan.cfg = cfg;
	return catch_start(&plan, err);
}

/* What wants rights that are given up: a VMM's guest that waits, and whoever may end it. */
static int prepare_guest(const struct config *cfg, struct error *err)
{
	if (cfg->command != CMD_RECV || !cfg->uffd_socket)
		return 0;
	if (cfg->kill_on_loss && warden_start(err))
		return -1;
	return takeup_prepare(cfg, err);
}

/* ---- all ---- */

/*
 * Asked before anything is opened: later a descriptor that the shell had closed may be one of ours.
 * What a library opened before main() is close-on-exec, and what was inherited cannot be.
 */
static int check_given(const char *option, int fd, struct error *err)
{
	int flags = fd < 0 ? 0 : fcntl(fd, F_GETFD);

	if (flags >= 0 && !(flags & FD_CLOEXEC))
		return 0;
	err_set(err, ST_USAGE, "%s %d is not an open descriptor", option, fd);
	return err_hint(err, "the shell passes a file as descriptor %d by %d<>FILE", fd, fd);
}

static int start(const struct config *cfg, const struct uri *uri, struct error *err)
{
	int keep[] = { cfg->ready_fd, cfg->continue_fd, uri->scheme == SCHEME_FD ? uri->fd : -1 };

	if (make_policy(cfg, uri, err))
		return -1;
	sandbox_close_inherited(keep, sizeof(keep) / sizeof(keep[0]));
	host_remember(cfg->command == CMD_CHECK || cfg->caps.on[CAP_POSTCOPY_RAM]);
	congestion_remember();
	jsonline_seed();
	if (broker_start(&policy, obituary, (void *)cfg, err))
		return -1;
	if (sandbox_enter(err)) {
		broker_stop();
		return -1;
	}
	return 0;
}

int confine(const struct config *cfg, struct error *err)
{
	struct uri uri = { .scheme = SCHEME_NULL };
	int rc;

	if (!cfg->uri ||
	    (cfg->command != CMD_SEND && cfg->command != CMD_RECV && cfg->command != CMD_CHECK))
		return 0;
	if (check_given("--ready-fd", cfg->ready_fd, err) ||
	    check_given("--continue-fd", cfg->continue_fd, err))
		return -1;
	if (start_catcher(cfg, err) || prepare_guest(cfg, err))
		return -1;
	if (cfg->no_sandbox) {
		log_warn("--no-sandbox: a peer that finds a bug in migtool can do all that you can "
			 "do here");
		return 0;
	}
	if (uri_parse(&uri, cfg->uri, err)) {
		if (err->status == ST_NOMEM)
			return -1;
		err_clear(err);
		uri.scheme = SCHEME_NULL;
	}
	rc = start(cfg, &uri, err);
	uri_free(&uri);
	return rc;
}
