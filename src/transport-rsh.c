// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The back end that is a remote shell: OpenSSH's client with whatever the user gave it, or anything
 * that takes the same arguments. It runs in a process group of its own, as exec:'s command does and
 * for the same reasons.
 */
#include "broker.h"
#include "remote.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define SSH_FAILED 255	   /* ssh(1): "or 255 if an error occurred" */
#define SHELL_NAME "--rsh" /* what our shell calls itself when it complains */
#define POLITE_MS  500	   /* between SIGTERM and SIGKILL */

struct rsh {
	pthread_mutex_t lock; /* guards pid and wstatus */
	pid_t pid;	      /* 0: reaped */
	int wstatus;
	const char *command; /* the user's --rsh, for messages */
	const char *host;
};

static bool reap(struct rsh *r)
{
	bool gone;

	pthread_mutex_lock(&r->lock);
	if (r->pid && broker_reap(r->pid, &r->wstatus) != 0)
		r->pid = 0;
	gone = !r->pid;
	pthread_mutex_unlock(&r->lock);
	return gone;
}

static void signal_group(struct rsh *r, int sig)
{
	pthread_mutex_lock(&r->lock);
	if (r->pid)
		broker_kill(r->pid, sig);
	pthread_mutex_unlock(&r->lock);
}

/* OpenSSH says in words alone whether it was refused or could not connect. */
static bool refused(const char *said)
{
	static const char *const words[] = { "Permission denied", "Host key verification failed",
					     "Too many authentication failures",
					     "No supported authentication" };

	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
		if (strstr(said, words[i]))
			return true;
	return false;
}

static int failed(const struct remote_conn *c, const struct rsh *r, struct error *err)
{
	/* it said that line itself, and it was printed */
	if (c->heard) {
		err_set(err, ST_SOCKET, "the connection to %s broke (%.200s exited with 255)",
			r->host, r->command);
	} else if (refused(c->said)) {
		err_set(err, ST_REFUSED, "%s does not let us in: %.300s", r->host, c->said);
		err_hint(err,
			 "does `%.200s %s true` log in by itself? a key that needs a "
			 "passphrase has to be in an agent",
			 r->command, r->host);
	} else {
		err_set(err, ST_CONNECT, "cannot connect to %s%s%.300s", r->host,
			c->said[0] ? ": " : "", c->said);
	}
	return -1;
}

static int rsh_status(struct remote_conn *c, int *status, struct error *err)
{
	struct rsh *r = c->priv;

	if (!reap(r))
		return err_set(err, ST_SOCKET, "%.200s has not ended", r->command);
	if (WIFSIGNALED(r->wstatus))
		return err_set(err, ST_SOCKET,
			       "the connection to %s broke: %.200s was killed by signal %d (%s)",
			       r->host, r->command, WTERMSIG(r->wstatus),
			       strsignal(WTERMSIG(r->wstatus)));
	*status = WEXITSTATUS(r->wstatus);
	if (*status == SSH_FAILED)
		return failed(c, r, err);
	/* our own shell's complaint, which must not pass for the far shell's */
	if (!strncmp(c->said, SHELL_NAME ": ", strlen(SHELL_NAME ": ")))
		return err_set(err, ST_CONNECT, "cannot start --rsh %.300s: %.300s", r->command,
			       c->said + strlen(SHELL_NAME ": "));
	return 0;
}

/* Stopped at the terminal it would never answer. */
static int rsh_waiting(struct remote_conn *c, struct error *err)
{
	struct rsh *r = c->priv;
	int sig = 0;

	pthread_mutex_lock(&r->lock);
	if (r->pid)
		sig = broker_stopped(r->pid);
	pthread_mutex_unlock(&r->lock);
	if (sig != SIGTTIN && sig != SIGTTOU)
		return 0;
	err_set(err, ST_REFUSED,
		"%.200s wants to ask something on the terminal, which it cannot have", r->command);
	return err_hint(err, "a key in ssh-agent lets it log in by itself; without --rsh migtool "
			     "asks for passphrases and passwords itself");
}

static void rsh_stop(struct remote_conn *c)
{
	struct rsh *r = c->priv;
	struct pollfd p = { .fd = c->end_fd, .events = POLLIN };

	signal_group(r, SIGTERM);
	signal_group(r, SIGCONT); /* a stopped one would not notice */
	if (poll(&p, 1, POLITE_MS) == 0)
		signal_group(r, SIGKILL);
}

static void rsh_close(struct remote_conn *c)
{
	struct rsh *r = c->priv;
	struct pollfd p = { .fd = c->end_fd, .events = POLLIN };

	if (!reap(r)) {
		rsh_stop(c);
		poll(&p, 1, POLITE_MS);
		reap(r); /* what not even SIGKILL ends is left to init */
	}
	close(c->end_fd);
	close(c->err_fd);
	pthread_mutex_destroy(&r->lock);
	free(r);
}

static const struct remote_ops rsh_ops = {
	.status = rsh_status,
	.waiting = rsh_waiting,
	.stop = rsh_stop,
	.close = rsh_close,
};

/*
 * sh -c 'CMD "$@"' NAME [-l USER] [-p PORT] [-i FILE]... [-o OPT]... HOST COMMAND: the user's words
 * are read by his own shell, ours are not read by any.
 */
#define ARGS_MAX (10 + 4 * CONFIG_LIST_MAX)

static void fill_args(const struct remote_how *how, const char *script, const char *command,
		      char *port, size_t len, const char **argv)
{
	unsigned n = 0, number = how->uri->port ? how->uri->port : how->port;

	argv[n++] = "/bin/sh";
	argv[n++] = "-c";
	argv[n++] = script;
	argv[n++] = SHELL_NAME;
	if (how->uri->user) {
		argv[n++] = "-l";
		argv[n++] = how->uri->user;
	}
	if (number) {
		snprintf(port, len, "%u", number);
		argv[n++] = "-p";
		argv[n++] = port;
	}
	for (unsigned i = 0; i < how->identities->n; i++) {
		argv[n++] = "-i";
		argv[n++] = how->identities->v[i];
	}
	for (unsigned i = 0; i < how->ssh_options->n; i++) {
		argv[n++] = "-o";
		argv[n++] = how->ssh_options->v[i];
	}
	argv[n++] = how->uri->host;
	argv[n++] = command;
	argv[n] = NULL;
}

/* Starts the child on one end of each pair; the others are c's. 0, or -1 with errno. */
static int spawn(const char **argv, struct rsh *r, struct remote_conn *c)
{
	int io[2], errs[2], e;

	if (broker_socketpair(io))
		return -1;
	if (pipe2(errs, O_CLOEXEC)) {
		e = errno;
		close(io[0]);
		close(io[1]);
		errno = e;
		return -1;
	}
	r->pid = broker_spawn((char *const *)argv, (int[3]){ io[1], io[1], errs[1] }, SPAWN_GROUP);
	e = errno;
	close(io[1]);
	close(errs[1]);
	c->fd = io[0];
	c->err_fd = errs[0];
	c->end_fd = r->pid > 0 ? broker_child_fd(r->pid) : -1;
	if (c->end_fd >= 0)
		return 0;
	e = r->pid > 0 ? errno : e;
	if (r->pid > 0)
		broker_kill(r->pid, SIGKILL);
	while (r->pid > 0 && !reap(r))
		poll(NULL, 0, 1);
	close(c->fd);
	close(c->err_fd);
	errno = e;
	return -1;
}

int rsh_policy(struct policy *p, const struct remote_how *how, const char *command,
	       struct error *err)
{
	/* channels, and tries */
	struct policy_command take = { .max = 256, .given_stdio = true, .hole = how->extra };
	const char *argv[ARGS_MAX];
	char *script, port[12];
	int rc;

	if (asprintf(&script, "%s \"$@\"", how->rsh) < 0)
		return err_set(err, ST_NOMEM, "no memory for %s", how->rsh);
	fill_args(how, script, command, port, sizeof(port), argv);
	rc = policy_add_command(p, (char *const *)argv, &take, err);
	free(script);
	return rc;
}

int rsh_start(const struct remote_how *how, const char *command, struct remote_conn *c,
	      struct cancel *cancel, struct error *err)
{
	size_t len = strlen(how->rsh) + 8;
	struct rsh *r = calloc(1, sizeof(*r));
	char *script = malloc(len), port[12];
	const char *argv[ARGS_MAX];
	int rc = -1;

	(void)cancel; /* starting a process waits for nothing */
	if (!r || !script) {
		err_set(err, ST_NOMEM, "no memory for %s", how->rsh);
	} else {
		snprintf(script, len, "%s \"$@\"", how->rsh);
		r->command = how->rsh;
		r->host = how->uri->host;
		pthread_mutex_init(&r->lock, NULL);
		fill_args(how, script, command, port, sizeof(port), argv);
		rc = spawn(argv, r, c);
		if (rc)
			err_sys(err, ST_CONNECT, errno, "cannot start %s", how->rsh);
	}
	free(script);
	if (!rc) {
		c->ops = &rsh_ops;
		c->priv = r;
		return 0;
	}
	if (r)
		free(r);
	return -1;
}
