// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The broker's process: one thread that waits for requests, judges and answers them one after the
 * other. None of them takes long but one: asking a resolver. That is done by a child of its own, so
 * that a name server that is silent holds up nothing else, and the process ends without it. Whoever
 * asks for the same host meanwhile waits for the same answer: a transfer's channels all ask at
 * once.
 *
 * The broker lives as long as the worker has its end of the socket.
 */
#include "broker-msg.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define REPLIES 512 /* more than a transfer has connections */

/* One for each host: a child that asks for it, whose answer comes through the pipe. */
struct resolver {
	pid_t pid; /* 0: nobody asks */
	int pipe;
	int replies[REPLIES]; /* who waits for the answer */
	unsigned n;
};

int broker_send(int sock, const void *buf, size_t len, const int *fds, unsigned nfds, int flags)
{
	union {
		struct cmsghdr align;
		char buf[CMSG_SPACE(BROKER_FDS_MAX * sizeof(int))];
	} control = { 0 };
	struct iovec iov = { (void *)buf, len };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1 };
	ssize_t n;

	if (nfds) {
		struct cmsghdr *c = &control.align;

		m.msg_control = control.buf;
		m.msg_controllen = CMSG_SPACE(nfds * sizeof(int));
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(nfds * sizeof(int));
		memcpy(CMSG_DATA(c), fds, nfds * sizeof(int));
	}
	do
		n = sendmsg(sock, &m, MSG_NOSIGNAL | flags);
	while (n < 0 && errno == EINTR);
	return n < 0 ? -1 : 0;
}

/* Takes the descriptors of one control message; those that nobody expects are closed. */
static void take_fds(const struct cmsghdr *c, int *fds, unsigned max, unsigned *nfds)
{
	size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);

	if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
		return;
	for (size_t i = 0; i < n; i++) {
		int fd;

		memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(fd));
		if (*nfds < max)
			fds[(*nfds)++] = fd;
		else
			close(fd);
	}
}

static void close_all(const int *fds, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		if (fds[i] >= 0)
			close(fds[i]);
}

ssize_t broker_receive(int sock, void *buf, size_t len, int *fds, unsigned max, unsigned *nfds)
{
	union {
		struct cmsghdr align;
		char buf[CMSG_SPACE(BROKER_FDS_MAX * sizeof(int))];
	} control;
	struct iovec iov = { buf, len };
	struct msghdr m = { .msg_iov = &iov,
			    .msg_iovlen = 1,
			    .msg_control = control.buf,
			    .msg_controllen = sizeof(control.buf) };
	ssize_t n;

	*nfds = 0;
	/* ECONNRESET comes once, from who has gone without reading all; his last words are behind
	 * it
	 */
	do
		n = recvmsg(sock, &m, MSG_CMSG_CLOEXEC);
	while (n < 0 && (errno == EINTR || errno == ECONNRESET));
	if (n < 0)
		return -1;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c))
		take_fds(c, fds, max, nfds);
	if (!(m.msg_flags & (MSG_TRUNC | MSG_CTRUNC)))
		return n;
	close_all(fds, *nfds);
	*nfds = 0;
	errno = EMSGSIZE;
	return -1;
}

/* ---- resolving ---- */

static _Noreturn void answer_resolved(int fd, const struct broker *b, const struct policy_host *h)
{
	struct broker_answer a;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	memset(&a, 0, sizeof(a));
	a.rc = b->acts->resolve(h->name, h->port, h->passive, a.addrs, BROKER_ADDRS_MAX);
	a.errnum = errno;
	a.naddrs = a.rc > 0 ? (uint32_t)a.rc : 0;
	/* less than PIPE_BUF: whole or not at all */
	if (write(fd, &a, sizeof(a)) != sizeof(a))
		_exit(1);
	_exit(0);
}

static int start_resolver(const struct broker *b, struct resolver *r, const struct policy_host *h)
{
	int p[2];

	if (pipe2(p, O_CLOEXEC))
		return -1;
	r->pid = broker_fork();
	if (r->pid == 0) {
		/* or the worker would not see that the broker is gone */
		broker_close_but(3, &p[1], 1);
		answer_resolved(p[1], b, h);
	}
	close(p[1]);
	if (r->pid < 0) {
		close(p[0]);
		r->pid = 0;
		return -1;
	}
	r->pipe = p[0];
	r->n = 0;
	return 0;
}

/* Takes over `reply`. */
static int resolve(const struct broker *b, struct resolver *all, unsigned host, int reply)
{
	struct resolver *r = &all[host];

	if (!r->pid && start_resolver(b, r, &b->policy->hosts[host]))
		return -1;
	if (r->n == REPLIES) {
		errno = EAGAIN;
		return -1;
	}
	r->replies[r->n++] = reply;
	return 0;
}

static void finish_resolver(struct broker *b, struct resolver *r, const struct policy_host *h)
{
	struct broker_answer a;
	ssize_t n = read(r->pipe, &a, sizeof(a));

	if (n != sizeof(a)) {
		memset(&a, 0, sizeof(a));
		a.rc = EAI_SYSTEM;
		a.errnum = EIO;
	}
	broker_learn(b, h, &a);
	for (unsigned i = 0; i < r->n; i++) {
		broker_send(r->replies[i], &a, sizeof(a), NULL, 0, MSG_DONTWAIT);
		close(r->replies[i]);
	}
	close(r->pipe);
	while (waitpid(r->pid, NULL, 0) < 0 && errno == EINTR)
		;
	r->pid = 0;
}

/* ---- serving ---- */

/* The child's descriptors stand behind the reply's socket, one for each bit. */
static void child_fds(const struct broker_request *req, const int *fds, unsigned nfds, int out[3])
{
	unsigned next = 1;

	for (unsigned i = 0; i < 3; i++)
		out[i] = (req->given & 1u << i) && next < nfds ? fds[next++] : -1;
}

static void serve_one(struct broker *b, struct resolver *resolvers, const void *msg, size_t len,
		      const int *fds, unsigned nfds, bool *taken)
{
	struct broker_answer a;
	int given[3] = { -1, -1, -1 }, out, host;

	*taken = false;
	if (len == sizeof(struct broker_request))
		child_fds(msg, fds, nfds, given);
	host = broker_judge(b, msg, len, given, &a, &out);
	if (host >= 0) {
		*taken = resolve(b, resolvers, (unsigned)host, fds[0]) == 0;
		if (*taken)
			return;
		a.rc = EAI_SYSTEM;
		a.errnum = errno;
	}
	/* who does not listen for the answer, or cannot take it, goes without */
	broker_send(fds[0], &a, sizeof(a), &out, out >= 0, MSG_DONTWAIT);
	if (out >= 0)
		close(out);
}

/* False: the worker is gone. */
static bool serve_request(struct broker *b, int sock, struct resolver *resolvers)
{
	struct broker_request req;
	int fds[BROKER_FDS_MAX];
	unsigned nfds;
	ssize_t n = broker_receive(sock, &req, sizeof(req), fds, BROKER_FDS_MAX, &nfds);
	bool taken = false;

	if (n == 0 || (n < 0 && errno != EMSGSIZE && errno != EAGAIN))
		return false;
	if (n > 0 && nfds > 0)
		serve_one(b, resolvers, &req, (size_t)n, fds, nfds, &taken);
	close_all(fds + taken, nfds - taken);
	return true;
}

void broker_serve(struct broker *b, int sock)
{
	struct resolver resolvers[POLICY_HOSTS] = { 0 };
	struct pollfd p[POLICY_HOSTS + 1];

	for (;;) {
		p[POLICY_HOSTS] = (struct pollfd){ .fd = sock, .events = POLLIN };
		for (unsigned i = 0; i < POLICY_HOSTS; i++)
			p[i] = (struct pollfd){ .fd = resolvers[i].pid ? resolvers[i].pipe : -1,
						.events = POLLIN };
		if (poll(p, POLICY_HOSTS + 1, -1) < 0)
			continue;
		for (unsigned i = 0; i < POLICY_HOSTS; i++)
			if (p[i].revents)
				finish_resolver(b, &resolvers[i], &b->policy->hosts[i]);
		if (p[POLICY_HOSTS].revents && !serve_request(b, sock, resolvers))
			break;
	}
}
