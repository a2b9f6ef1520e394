// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A request of the worker, which may be anything: is it in the policy? Then it is carried out, on
 * what the broker itself knows by that name or number, and nothing that came is used as a path, a
 * pid, a command or a descriptor of ours.
 */
#include "broker-msg.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void broker_init(struct broker *b, const struct policy *policy, const struct broker_acts *acts)
{
	memset(b, 0, sizeof(*b));
	b->policy = policy;
	b->acts = acts;
	for (unsigned i = 0; i < BROKER_LISTENERS; i++)
		b->listeners[i] = i < policy->nlisteners ? policy->listeners[i] : -1;
}

static int refused(void)
{
	errno = EPERM;
	return -1;
}

/* ---- files ---- */

/*
 * Shared blocks are links in IMAGE.part, symbolic ones or to IMAGE's own: what they lead to is
 * read, and never written, nor cut short by being opened.
 */
static int open_part(struct broker *b, const char *path, int flags, mode_t mode)
{
	int fd = b->acts->open(path, (flags | O_NOFOLLOW) & ~O_TRUNC, mode);
	struct stat st;

	if (fd < 0)
		return -1;
	if (fstat(fd, &st) || (S_ISREG(st.st_mode) && st.st_nlink > 1)) {
		close(fd);
		return refused();
	}
	if (!(flags & O_TRUNC) || !ftruncate(fd, 0))
		return fd;
	close(fd);
	errno = EIO;
	return -1;
}

static int judge_open(struct broker *b, const struct broker_request *r, const char *path)
{
	int flags = (int)r->flags;
	mode_t mode = r->mode & 0666;

	if (!policy_may_open(b->policy, &r->name, flags))
		return refused();
	if (r->name.base == BASE_PART && (flags & O_ACCMODE) != O_RDONLY)
		return open_part(b, path, flags, mode);
	return b->acts->open(path, flags, mode);
}

static int judge_rename(struct broker *b, const struct broker_request *r, const char *from,
			const char *to)
{
	int occupied = 1;

	/* asked only where the answer counts: no listing of what is somebody else's */
	if (policy_may_rename(b->policy, &r->name, &r->other, r->flags, false))
		occupied = b->acts->occupied(to);
	if (occupied < 0)
		return -1;
	if (!policy_may_rename(b->policy, &r->name, &r->other, r->flags, occupied))
		return refused();
	return b->acts->rename(from, to, r->flags);
}

static int judge_name(struct broker *b, const struct broker_request *r, const char *path,
		      const char *other)
{
	const struct policy *p = b->policy;

	switch (r->op) {
	case OP_OPEN:
		return judge_open(b, r, path);
	case OP_RENAME:
		return judge_rename(b, r, path, other);
	case OP_LINK:
		return policy_may_link(p, &r->name, &r->other) ? b->acts->link(path, other)
							       : refused();
	case OP_UNLINK:
		return policy_may_unlink(p, &r->name) ? b->acts->unlink(path) : refused();
	case OP_MKDIR:
		return policy_may_mkdir(p, &r->name) ? b->acts->mkdir(path, 0700) : refused();
	case OP_RMDIR:
		return policy_may_mkdir(p, &r->name) ? b->acts->rmdir(path) : refused();
	case OP_MARK:
		return policy_may_mark(p, &r->name, r->flags) ? b->acts->mark(path, r->flags)
							      : refused();
	case OP_MAY_WRITE:
		return policy_may_access(p, &r->name) ? b->acts->may_write(path) : refused();
	}
	return refused();
}

static int judge_names(struct broker *b, const struct broker_request *r)
{
	bool two = r->op == OP_RENAME || r->op == OP_LINK;
	char *path, *other = NULL;
	int rc = -1, e;

	if (!policy_name_valid(b->policy, &r->name) ||
	    (two && !policy_name_valid(b->policy, &r->other)))
		return refused();
	path = policy_path(b->policy, &r->name);
	if (two)
		other = policy_path(b->policy, &r->other);
	errno = ENOMEM;
	if (path && (other || !two))
		rc = judge_name(b, r, path, other);
	e = errno;
	free(path);
	free(other);
	errno = e;
	return rc;
}

/* ---- sockets ---- */

static bool may_use(const struct broker *b, const struct broker_request *r, enum policy_use use)
{
	if (r->salen < sizeof(sa_family_t) || r->salen > sizeof(r->sa))
		return false;
	return policy_may_use(b->policy->addresses, b->policy->naddresses, &r->sa, r->salen, use) ||
	       policy_may_use(b->known, b->nknown, &r->sa, r->salen, use);
}

void broker_learn(struct broker *b, const struct policy_host *h, const struct broker_answer *a)
{
	unsigned use = h->passive ? POLICY_LISTEN : POLICY_CONNECT;

	for (unsigned i = 0; i < a->naddrs && b->nknown < BROKER_KNOWN; i++) {
		const struct broker_addr *from = &a->addrs[i];

		if (policy_may_use(b->known, b->nknown, &from->sa, from->len, (enum policy_use)use))
			continue;
		b->known[b->nknown].sa = from->sa;
		b->known[b->nknown].len = from->len;
		b->known[b->nknown++].use = use;
	}
}

static int local_listen(const struct broker *b, const struct broker_request *r)
{
	char name[sizeof(BROKER_LOCAL) + POLICY_FILL];

	if (!b->policy->joins || !policy_fill_valid(r->fill))
		return refused();
	snprintf(name, sizeof(name), BROKER_LOCAL "%s", r->fill);
	return b->acts->local_listen(name);
}

static int listen_to(const struct broker *b, const struct broker_request *r)
{
	int backlog = r->number > SOMAXCONN ? SOMAXCONN : (int)r->number;

	if (r->op == OP_LOCAL_LISTEN)
		return local_listen(b, r);
	if (!may_use(b, r, POLICY_LISTEN))
		return refused();
	return b->acts->listen((const struct sockaddr *)&r->sa, r->salen, backlog);
}

/* The number of the new listener; its descriptor for the worker is *out. */
static int judge_listen(struct broker *b, const struct broker_request *r, int *out)
{
	int fd, free_one = -1;

	for (int i = BROKER_LISTENERS - 1; i >= 0; i--)
		if (b->listeners[i] < 0)
			free_one = i;
	if (free_one < 0)
		return refused();
	fd = listen_to(b, r);
	if (fd < 0)
		return -1;
	*out = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	if (*out < 0) {
		close(fd);
		return -1;
	}
	b->listeners[free_one] = fd;
	return free_one;
}

static int judge_listener(struct broker *b, const struct broker_request *r, struct broker_answer *a)
{
	if (r->number >= BROKER_LISTENERS || b->listeners[r->number] < 0)
		return refused();
	if (r->op == OP_ACCEPT) {
		a->naddrs = 1;
		return b->acts->accept(b->listeners[r->number], &a->addrs[0].sa, &a->addrs[0].len);
	}
	close(b->listeners[r->number]);
	b->listeners[r->number] = -1;
	return 0;
}

/* ---- children ---- */

static struct broker_child *find_child(struct broker *b, pid_t pid)
{
	for (unsigned i = 0; i < BROKER_CHILDREN; i++)
		if (b->children[i].pid == pid)
			return &b->children[i];
	return NULL;
}

static unsigned running(const struct broker *b, unsigned command)
{
	unsigned n = 0;

	for (unsigned i = 0; i < BROKER_CHILDREN; i++)
		n += b->children[i].pid && b->children[i].command == command;
	return n;
}

static int judge_spawn(struct broker *b, const struct broker_request *r, const int fds[3])
{
	struct broker_child *child = find_child(b, 0);
	bool given = fds[0] >= 0 || fds[1] >= 0 || fds[2] >= 0;
	const struct policy_command *c;
	char **argv;
	int e;

	if (r->number >= b->policy->ncommands || !child)
		return refused();
	c = &b->policy->commands[r->number];
	if (running(b, r->number) >= c->max || (given && !c->given_stdio))
		return refused();
	if (c->hole && !policy_fill_valid(r->fill))
		return refused();
	argv = policy_argv(c, r->fill);
	if (!argv) {
		errno = ENOMEM;
		return -1;
	}
	child->pid = b->acts->spawn(argv, fds, c->session ? SPAWN_SESSION : SPAWN_GROUP);
	child->command = r->number;
	e = errno;
	policy_free_argv(argv);
	errno = e;
	if (child->pid > 0)
		return child->pid;
	child->pid = 0;
	return -1;
}

static bool may_signal(int sig)
{
	return sig == SIGTERM || sig == SIGCONT || sig == SIGKILL || sig == SIGINT || sig == SIGHUP;
}

static int judge_child(struct broker *b, const struct broker_request *r, struct broker_answer *a)
{
	struct broker_child *child = r->pid > 0 ? find_child(b, r->pid) : NULL;
	int status = 0, rc;

	if (!child)
		return refused();
	switch (r->op) {
	case OP_CHILD_FD:
		return b->acts->child_fd(child->pid);
	case OP_STOPPED:
		return b->acts->stopped(child->pid);
	case OP_KILL:
		if (b->policy->commands[child->command].session || !may_signal((int)r->number))
			return refused();
		return b->acts->kill(child->pid, (int)r->number);
	}
	rc = b->acts->reap(child->pid, &status);
	a->wstatus = status;
	if (rc)
		child->pid = 0;
	return rc;
}

/* ---- all ---- */

static int carry_out(struct broker *b, const struct broker_request *r, const int fds[3],
		     struct broker_answer *a, int *out)
{
	int rc;

	switch (r->op) {
	case OP_OPEN:
		*out = judge_names(b, r);
		return *out < 0 ? -1 : 0;
	case OP_RENAME:
	case OP_LINK:
	case OP_UNLINK:
	case OP_MKDIR:
	case OP_RMDIR:
	case OP_MARK:
	case OP_MAY_WRITE:
		return judge_names(b, r);
	case OP_CONNECT:
		*out = may_use(b, r, POLICY_CONNECT)
			       ? b->acts->connect((const struct sockaddr *)&r->sa, r->salen)
			       : refused();
		return *out < 0 ? -1 : 0;
	case OP_LISTEN:
	case OP_LOCAL_LISTEN:
		return judge_listen(b, r, out);
	case OP_ACCEPT:
		*out = judge_listener(b, r, a);
		return *out < 0 ? -1 : 0;
	case OP_UNLISTEN:
		return judge_listener(b, r, a);
	case OP_SPAWN:
		return judge_spawn(b, r, fds);
	case OP_CHILD_FD:
		rc = judge_child(b, r, a);
		*out = rc;
		return rc < 0 ? -1 : 0;
	case OP_REAP:
	case OP_STOPPED:
	case OP_KILL:
		return judge_child(b, r, a);
	}
	return refused();
}

int broker_judge(struct broker *b, const void *msg, size_t len, const int fds[3],
		 struct broker_answer *answer, int *out)
{
	struct broker_request r;

	memset(answer, 0, sizeof(*answer));
	*out = -1;
	if (len != sizeof(r)) {
		answer->rc = -1;
		answer->errnum = EBADMSG;
		return -1;
	}
	memcpy(&r, msg, sizeof(r));
	if (r.op == OP_RESOLVE && r.number < b->policy->nhosts)
		return (int)r.number;
	answer->rc = carry_out(b, &r, fds, answer, out);
	answer->errnum = answer->rc < 0 ? errno : 0;
	return -1;
}
