/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What worker and broker say to each other. A request is one packet of fixed size on the one
 * socket, with the descriptor of a socket of its own for the answer, and up to three for a child's
 * 0, 1, 2. Everything in a request is to be doubted; an answer is believed.
 */
#ifndef MIGTOOL_BROKER_MSG_H
#define MIGTOOL_BROKER_MSG_H

#include "broker-act.h"

enum broker_op {
	OP_OPEN = 1,
	OP_RENAME,
	OP_LINK,
	OP_UNLINK,
	OP_MKDIR,
	OP_RMDIR,
	OP_MAY_WRITE,
	OP_RESOLVE,
	OP_CONNECT,
	OP_LISTEN,
	OP_LOCAL_LISTEN,
	OP_UNLISTEN,
	OP_ACCEPT,
	OP_SPAWN,
	OP_CHILD_FD,
	OP_REAP,
	OP_STOPPED,
	OP_KILL,
	OP_MARK,
	OP__MAX
};

#define BROKER_FDS_MAX 4 /* the answer's socket, and a child's three */

struct broker_request {
	uint32_t op;
	struct policy_name name, other; /* other: what is renamed or linked to */
	uint32_t flags;			/* of open, rename; mark: 1, or 0 to clear it */
	uint32_t mode;
	uint32_t number; /* of a host, a command, a listener; a backlog, a signal */
	int32_t pid;	 /* of a child */
	uint32_t given;	 /* spawn: a bit for each of 0, 1, 2 whose descriptor is with it */
	char fill[POLICY_FILL + 1]; /* of a command's hole, a local name; or empty */
	uint32_t salen;
	struct sockaddr_storage sa;
};

struct broker_answer {
	int32_t rc;	/* the act's result; a descriptor comes beside it */
	int32_t errnum; /* with rc < 0 */
	int32_t wstatus;
	uint32_t naddrs; /* resolve: rc, of these; accept: 1 */
	struct broker_addr addrs[BROKER_ADDRS_MAX];
};

/* Sends a packet with descriptors; 0 or -1 with errno. flags: send's. */
int broker_send(int sock, const void *buf, size_t len, const int *fds, unsigned nfds, int flags);
/*
 * Receives one: its length (0: the other end is gone), or -1. Descriptors are close-on-exec; more
 * than `max` are closed, and so is what comes with a packet that was cut: EMSGSIZE.
 */
ssize_t broker_receive(int sock, void *buf, size_t len, int *fds, unsigned max, unsigned *nfds);

/* ---- the broker's side: broker-serve.c ---- */

#define BROKER_CHILDREN	 300 /* a login for each of 255 channels */
#define BROKER_LISTENERS 8
#define BROKER_KNOWN	 64

struct broker {
	const struct policy *policy;
	const struct broker_acts *acts;
	struct policy_address known[BROKER_KNOWN]; /* what hosts' names have stood for */
	unsigned nknown;
	int listeners[BROKER_LISTENERS]; /* -1: free */
	struct broker_child {
		pid_t pid; /* 0: free */
		unsigned command;
	} children[BROKER_CHILDREN];
};

void broker_init(struct broker *b, const struct policy *policy, const struct broker_acts *acts);

/*
 * Judges one request and carries it out. `len` bytes came, whatever is in them, and the descriptors
 * of a child (-1: none); all stay the caller's. Fills the answer; *out is a descriptor for it, to
 * be closed, or -1. Returns OP_RESOLVE's host number if the request is a good one of these (the
 * caller answers it, because that may take long), else -1.
 */
int broker_judge(struct broker *b, const void *msg, size_t len, const int fds[3],
		 struct broker_answer *answer, int *out);

/* Takes over what a host's name stands for. */
void broker_learn(struct broker *b, const struct policy_host *h, const struct broker_answer *a);

/* Serves until the worker's end of the socket is closed. */
void broker_serve(struct broker *b, int sock);

#endif
