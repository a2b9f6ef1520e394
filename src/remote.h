/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A command on another host, as a transport. Two back ends start it there: a remote shell that the
 * user names (--rsh, transport-rsh.c), and libssh2 (transport-ssh.c). Each gives the same: a socket
 * that is the command's stdin and stdout, a descriptor that is its stderr, and how it ended. What
 * is common (passing stderr on, what a status means, ending it) is in transport-remote.c.
 */
#ifndef MIGTOOL_REMOTE_H
#define MIGTOOL_REMOTE_H

#include "config.h"
#include "transport.h"

/* Whom to connect to, and how. All of it outlives the connections. */
struct remote_how {
	const struct uri *uri;		       /* ssh:, for host, user, port */
	const char *rsh;		       /* the remote shell, NULL: the library */
	unsigned port;			       /* -p, 0: not given; the URI's port goes first */
	const struct config_list *identities;  /* -i */
	const struct config_list *ssh_options; /* -o OPT=VALUE */
	int timeout_ms;			       /* for connecting and logging in; -1: no limit */
	bool writer;			       /* this side sends the memory */
	bool extra; /* a further connection: its end explains nothing that the first does not */
	/*
	 * What the library keeps between connections (keys, what was typed), made by the first, for
	 * ssh_login_free. NULL: it keeps nothing.
	 */
	struct ssh_login **login;
};

struct ssh_login;
void ssh_login_free(struct ssh_login *g);

struct remote_conn;

struct remote_ops {
	/*
	 * Called once end_fd is readable. 0 and the far command's exit status (0 to 255), or -1:
	 * there is none, for the connection could not be made (ST_CONNECT, ST_REFUSED), or ended
	 * before the command did (ST_SOCKET). A remote shell's 255 is such a -1.
	 */
	int (*status)(struct remote_conn *c, int *status, struct error *err);
	/* Called once a second while something waits; -1 ends the wait. NULL: nothing */
	int (*waiting)(struct remote_conn *c, struct error *err);
	/* Ends the connection now, whatever the command does; end_fd is readable soon. Any thread.
	 */
	void (*stop)(struct remote_conn *c);
	/* Joins threads, closes all three descriptors but fd (the transport's), frees priv. */
	void (*close)(struct remote_conn *c);
};

/* A back end's half. `start` fills it; descriptors are close-on-exec. */
struct remote_conn {
	const struct remote_ops *ops;
	/*
	 * A stream socket: what is written is the command's stdin, what is read its stdout. Its end
	 * is the end of stdout; shutdown(SHUT_WR) is the end of stdin. Becomes the transport's.
	 */
	int fd;
	int err_fd; /* read end: its stderr, at its end when there will be no more */
	int end_fd; /* readable once the command's end is known (and stays so) */
	void *priv;

	/* What transport-remote.c has seen, for status(). */
	bool heard;	/* something came from the far command's stdout */
	char said[513]; /* the last line of stderr that is no migtool's, escaped */
};

/*
 * The two back ends. Start `command` (words for the far login's shell, quoted already) on the far
 * host. May return before the connection is there: a failure is then what status() says. 0 or -1.
 */
int rsh_start(const struct remote_how *how, const char *command, struct remote_conn *c,
	      struct cancel *cancel, struct error *err);
int rsh_policy(struct policy *p, const struct remote_how *how, const char *command,
	       struct error *err);
/*
 * The library's reads the files that it needs at once, and keeps them for the first ssh_start; what
 * is wrong with them that one says. ssh_policy_end forgets them if there was none.
 */
int ssh_policy(struct policy *p, const struct remote_how *how, struct error *err);
void ssh_policy_end(void);
int ssh_start(const struct remote_how *how, const char *command, struct remote_conn *c,
	      struct cancel *cancel, struct error *err);

/*
 * Starts it with the back end that `how` asks for. Its stderr is logged line by line as
 * "HOST: ...", cut to 512 bytes, control characters escaped. A read or write that fails, and
 * transport_close, say why the command ended: its own words and status where it is a migtool's,
 * ST_NO_REMOTE where the far shell found none, the back end's reason where there was no connection.
 */
struct transport *remote_open(const struct remote_how *how, const char *command,
			      struct cancel *cancel, struct error *err);

/*
 * Dials an ssh: URI as the command line says: its far process (far.h), or, with its name in `join`,
 * a further connection to the one that runs. `login` may be NULL. NULL: with the error.
 */
struct transport *remote_dial(const struct config *cfg, const struct uri *uri, bool writer,
			      const char *join, int timeout_ms, struct ssh_login **login,
			      struct cancel *cancel, struct error *err);

/*
 * After a failure, when nothing else happens with t any more: takes what the far side says about it
 * into *err if err explains less, and prints its last words if they say something else. Does
 * nothing to other transports.
 */
void remote_explain(struct transport *t, struct error *err);

/* Puts into the policy what all this will ask the broker for. ST_NOMEM. */
int remote_policy(struct policy *p, const struct config *cfg, const struct uri *uri, bool writer,
		  struct error *err);

#endif
