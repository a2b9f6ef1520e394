// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The back end that is a remote shell: OpenSSH's client with whatever the user gave it, or anything
 * that takes the same arguments (child.h).
 */
#include "child.h"
#include "remote.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
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
	struct child child;
	const char *command; /* the user's --rsh, for messages */
	const char *host;
};

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

	if (!child_reap(&r->child))
		return err_set(err, ST_SOCKET, "%.200s has not ended", r->command);
	if (WIFSIGNALED(r->child.wstatus))
		return err_set(err, ST_SOCKET,
			       "the connection to %s broke: %.200s was killed by signal %d (%s)",
			       r->host, r->command, WTERMSIG(r->child.wstatus),
			       strsignal(WTERMSIG(r->child.wstatus)));
	*status = WEXITSTATUS(r->child.wstatus);
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

	if (!child_wants_terminal(&r->child))
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

	child_signal(&r->child, SIGTERM);
	child_signal(&r->child, SIGCONT); /* a stopped one would not notice */
	if (poll(&p, 1, POLITE_MS) == 0)
		child_signal(&r->child, SIGKILL);
}

static void rsh_close(struct remote_conn *c)
{
	struct rsh *r = c->priv;
	struct pollfd p = { .fd = c->end_fd, .events = POLLIN };

	if (!child_reap(&r->child)) {
		rsh_stop(c);
		poll(&p, 1, POLITE_MS);
		child_reap(&r->child); /* what not even SIGKILL ends is left to init */
	}
	close(c->end_fd);
	close(c->err_fd);
	child_free(&r->child);
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

/* Starts the child; c's descriptors are our ends. 0, or -1 with errno. */
static int spawn(const char **argv, struct rsh *r, struct remote_conn *c)
{
	int errs[2], rc, e;

	if (pipe2(errs, O_CLOEXEC))
		return -1;
	rc = child_start(&r->child, (char *const *)argv, errs[1], &c->fd, &c->end_fd);
	e = errno;
	close(errs[1]);
	if (rc)
		close(errs[0]);
	else
		c->err_fd = errs[0];
	errno = e;
	return rc;
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
	free(r);
	return -1;
}
