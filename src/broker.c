// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Two processes. The *worker* reads what the peer sends: it parses, decrypts, moves pages, and can
 * do nothing else (sandbox.c). The *broker* reads no byte of a peer; it opens, connects, accepts,
 * starts and renames what the worker asks for, as far as that was decided before the peer was known
 * (policy.c), and hands the descriptor over. Pages never touch it.
 *
 * Which of them is the parent? The worker is the process that the user started, the broker its
 * child. So everything that is done to a pid does to the work what it always did: SIGINT, SIGUSR1,
 * but also SIGSTOP, SIGKILL, taskset, a debugger, LISTEN_PID. After `kill -9`
 * and wait() the locks and connections are gone, and not some time later, as they would be if a
 * parent were killed and the worker followed. Nothing needs to be forwarded. The price is that the
 * broker cannot see how the worker ends; so a worker that its sandbox stops says so itself, in a
 * page that both share, and ends when the broker has told people.
 *
 * Each ends with the other. The worker's end of the socket closes with it, however it ends, and
 * PR_SET_PDEATHSIG ends a broker that hangs in some act. When the broker is gone the worker's main
 * thread sees it (broker_fd), and every request fails with EPIPE.
 *
 * A request carries a socket of its own for the answer. So threads need no lock, an answer cannot
 * come to the wrong one, and who is cancelled just goes away.
 */
#include "broker-msg.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netdb.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

/* What the worker writes when its sandbox stops it. */
struct shared {
	atomic_bool stopped;
	atomic_int number; /* of the system call */
};

static struct {
	int sock; /* -1: no broker, acts are carried out here */
	pid_t pid;
	const struct policy *policy;
	struct shared *shared;
	pthread_mutex_t lock; /* of the next */
	struct listening {
		int fd; /* -1: free; else ours, of the broker's listener of that number */
	} listeners[BROKER_LISTENERS];
} broker = { .sock = -1, .lock = PTHREAD_MUTEX_INITIALIZER };

static bool here(void)
{
	return broker.sock < 0;
}

static int set_errno(int errnum)
{
	errno = errnum;
	return -1;
}

/* ---- asking ---- */

/* 0, or -1 with errno: ECANCELED, EPIPE. */
static int await_answer(int sock, struct cancel *cancel)
{
	struct pollfd p[2] = { { .fd = sock, .events = POLLIN },
			       { .fd = cancel ? cancel->fd : -1, .events = POLLIN } };

	for (;;) {
		int n = poll(p, 2, -1);

		if (n < 0 && errno != EINTR)
			return -1;
		if (n > 0 && p[0].revents)
			return 0;
		if (n > 0 && p[1].revents)
			return set_errno(ECANCELED);
	}
}

static int receive_answer(int sock, struct cancel *cancel, struct broker_answer *a, int *fd)
{
	unsigned nfds = 0;
	ssize_t n;

	*fd = -1;
	if (await_answer(sock, cancel))
		return -1;
	n = broker_receive(sock, a, sizeof(*a), fd, 1, &nfds);
	if (n == sizeof(*a))
		return 0;
	if (nfds) {
		close(*fd);
		*fd = -1;
	}
	/* closed unread: the broker is gone */
	return n < 0 ? -1 : set_errno(EPIPE);
}

/* 0: answered; -1 with errno: it was not. Descriptors of a child may go with it. */
static int ask(const struct broker_request *r, const int *fds, struct cancel *cancel,
	       struct broker_answer *a, int *fd)
{
	int pair[2], send[BROKER_FDS_MAX], e, rc;
	unsigned n = 0;

	*fd = -1;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
		return -1;
	send[n++] = pair[1];
	for (int i = 0; fds && i < 3; i++)
		if (r->given & 1u << i)
			send[n++] = fds[i];
	rc = broker_send(broker.sock, r, sizeof(*r), send, n, 0);
	e = errno;
	close(pair[1]); /* so that the broker's is the only one left */
	if (!rc) {
		rc = receive_answer(pair[0], cancel, a, fd);
		e = errno;
	}
	close(pair[0]);
	errno = e;
	return rc;
}

/* An act whose result is a number. */
static int ask_number(const struct broker_request *r, struct broker_answer *a)
{
	int fd;

	if (ask(r, NULL, NULL, a, &fd))
		return -1;
	if (fd >= 0)
		close(fd);
	return a->rc < 0 ? set_errno(a->errnum) : a->rc;
}

/* An act whose result is a descriptor. */
static int ask_fd(const struct broker_request *r, struct broker_answer *a)
{
	int fd;

	if (ask(r, NULL, NULL, a, &fd))
		return -1;
	return a->rc < 0 ? set_errno(a->errnum) : fd < 0 ? set_errno(EPROTO) : fd;
}

/* ---- files ---- */

typedef bool may_fn(const struct policy *p, const struct policy_name *n);

/* The name by which this may be done. One that is too long for any file is no breach of policy. */
static int find_name(const char *path, may_fn *may, struct policy_name *out)
{
	for (unsigned i = 0; policy_find(broker.policy, path, i, out); i++)
		if (may(broker.policy, out))
			return 0;
	return set_errno(strlen(path) > NAME_MAX && strlen(strrchr(path, '/') ?: path) > NAME_MAX
				 ? ENAMETOOLONG
				 : EPERM);
}

int broker_open(const char *path, int flags, mode_t mode)
{
	struct broker_request r = { .op = OP_OPEN, .flags = (uint32_t)flags, .mode = mode };
	struct broker_answer a;

	if (here())
		return broker_acts.open(path, flags, mode);
	for (unsigned i = 0; policy_find(broker.policy, path, i, &r.name); i++)
		if (policy_may_open(broker.policy, &r.name, flags))
			return ask_fd(&r, &a);
	return find_name(path, policy_name_valid, &r.name) ? -1 : set_errno(EPERM);
}

/* The two names of a rename or a link, of the same root. */
static int ask_two(struct broker_request *r, const char *from, const char *to)
{
	struct broker_answer a;

	for (unsigned i = 0; policy_find(broker.policy, from, i, &r->name); i++)
		for (unsigned j = 0; policy_find(broker.policy, to, j, &r->other); j++)
			if (r->op == OP_LINK ? policy_may_link(broker.policy, &r->name, &r->other)
					     : policy_may_rename(broker.policy, &r->name, &r->other,
								 r->flags, false))
				return ask_number(r, &a);
	return set_errno(EPERM);
}

int broker_rename(const char *from, const char *to, unsigned flags)
{
	struct broker_request r = { .op = OP_RENAME, .flags = flags };

	return here() ? broker_acts.rename(from, to, flags) : ask_two(&r, from, to);
}

int broker_link(const char *from, const char *to)
{
	struct broker_request r = { .op = OP_LINK };

	return here() ? broker_acts.link(from, to) : ask_two(&r, from, to);
}

static int ask_name(enum broker_op op, const char *path, may_fn *may)
{
	struct broker_request r = { .op = op };
	struct broker_answer a;

	return find_name(path, may, &r.name) ? -1 : ask_number(&r, &a);
}

int broker_unlink(const char *path)
{
	return here() ? broker_acts.unlink(path) : ask_name(OP_UNLINK, path, policy_may_unlink);
}

int broker_mkdir(const char *path, mode_t mode)
{
	return here() ? broker_acts.mkdir(path, mode) : ask_name(OP_MKDIR, path, policy_may_mkdir);
}

int broker_rmdir(const char *path)
{
	return here() ? broker_acts.rmdir(path) : ask_name(OP_RMDIR, path, policy_may_mkdir);
}

static bool may_mark(const struct policy *p, const struct policy_name *n)
{
	return policy_may_mark(p, n, true);
}

static bool may_clear(const struct policy *p, const struct policy_name *n)
{
	return policy_may_mark(p, n, false);
}

int broker_mark(const char *path, bool on)
{
	struct broker_request r = { .op = OP_MARK, .flags = on };
	struct broker_answer a;

	if (here())
		return broker_acts.mark(path, on);
	return find_name(path, on ? may_mark : may_clear, &r.name) ? -1 : ask_number(&r, &a);
}

int broker_may_write(const char *dir)
{
	return here() ? broker_acts.may_write(dir) : ask_name(OP_MAY_WRITE, dir, policy_may_access);
}

int broker_stat(const char *path, bool follow, struct stat *st)
{
	int fd = broker_open(path, O_PATH | (follow ? 0 : O_NOFOLLOW), 0), rc, e;

	if (fd < 0)
		return -1;
	rc = fstat(fd, st);
	e = errno;
	close(fd);
	errno = e;
	return rc;
}

char *broker_realpath(const char *path)
{
	struct policy_name n;

	if (here())
		return realpath(path, NULL);
	for (unsigned i = 0; policy_find(broker.policy, path, i, &n); i++)
		if (n.base == BASE_FINAL && n.leaf == LEAF_SELF &&
		    broker.policy->roots[n.root].real)
			return strdup(broker.policy->roots[n.root].real);
	errno = EPERM;
	return NULL;
}

/* ---- sockets ---- */

static int take_addresses(const struct broker_answer *a, struct broker_addr *out, int max)
{
	int n = a->naddrs < BROKER_ADDRS_MAX ? (int)a->naddrs : BROKER_ADDRS_MAX;

	if (a->rc < 0) {
		errno = a->errnum;
		return a->rc;
	}
	n = n < max ? n : max;
	memcpy(out, a->addrs, (size_t)n * sizeof(*out));
	return n ? n : EAI_NONAME;
}

int broker_resolve(const char *host, uint16_t port, bool passive, struct cancel *cancel,
		   struct broker_addr *out, int max)
{
	struct broker_request r = { .op = OP_RESOLVE };
	struct broker_answer a;
	int number, fd;

	if (here())
		return broker_acts.resolve(host, port, passive, out, max);
	number = policy_find_host(broker.policy, host, port, passive);
	r.number = (uint32_t)number;
	if (number < 0)
		errno = EPERM;
	if (number < 0 || ask(&r, NULL, cancel, &a, &fd))
		return EAI_SYSTEM;
	if (fd >= 0)
		close(fd);
	return take_addresses(&a, out, max);
}

static int set_address(struct broker_request *r, const struct sockaddr *sa, socklen_t len)
{
	if (len > sizeof(r->sa))
		return set_errno(EINVAL);
	memcpy(&r->sa, sa, len);
	r->salen = len;
	return 0;
}

int broker_socket_connect(const struct sockaddr *sa, socklen_t len)
{
	struct broker_request r = { .op = OP_CONNECT };
	struct broker_answer a;

	if (here())
		return broker_acts.connect(sa, len);
	return set_address(&r, sa, len) ? -1 : ask_fd(&r, &a);
}

/* The broker's number for this descriptor of ours, -1 with EPERM. `forget`: it is closed. */
static int listener_number(int fd, bool forget)
{
	int number = -1;

	pthread_mutex_lock(&broker.lock);
	for (int i = 0; i < BROKER_LISTENERS; i++) {
		if (broker.listeners[i].fd == fd && fd >= 0) {
			number = i;
			if (forget)
				broker.listeners[i].fd = -1;
		}
	}
	pthread_mutex_unlock(&broker.lock);
	return number < 0 ? set_errno(EPERM) : number;
}

static int ask_listener(const struct broker_request *r)
{
	struct broker_answer a;
	int fd = ask_fd(r, &a);

	if (fd < 0)
		return -1;
	pthread_mutex_lock(&broker.lock);
	if (a.rc < BROKER_LISTENERS)
		broker.listeners[a.rc].fd = fd;
	pthread_mutex_unlock(&broker.lock);
	return fd;
}

int broker_socket_listen(const struct sockaddr *sa, socklen_t len, int backlog)
{
	struct broker_request r = { .op = OP_LISTEN, .number = (uint32_t)backlog };

	if (here())
		return broker_acts.listen(sa, len, backlog);
	return set_address(&r, sa, len) ? -1 : ask_listener(&r);
}

int broker_local_listen(const char *name)
{
	struct broker_request r = { .op = OP_LOCAL_LISTEN };
	size_t head = strlen(BROKER_LOCAL);

	if (here())
		return broker_acts.local_listen(name);
	if (strncmp(name, BROKER_LOCAL, head) != 0 || strlen(name + head) != POLICY_FILL)
		return set_errno(EPERM);
	memcpy(r.fill, name + head, POLICY_FILL);
	return ask_listener(&r);
}

void broker_listener_close(int listener)
{
	struct broker_request r = { .op = OP_UNLISTEN };
	struct broker_answer a;
	int number = here() ? -1 : listener_number(listener, true);

	if (number >= 0) {
		r.number = (uint32_t)number;
		ask_number(&r, &a);
	}
	close(listener);
}

int broker_accept(int listener, struct sockaddr_storage *sa, socklen_t *len)
{
	struct broker_request r = { .op = OP_ACCEPT };
	struct broker_answer a;
	int number, fd;

	if (here())
		return broker_acts.accept(listener, sa, len);
	number = listener_number(listener, false);
	if (number < 0)
		return -1;
	r.number = (uint32_t)number;
	fd = ask_fd(&r, &a);
	if (fd >= 0) {
		*sa = a.addrs[0].sa;
		*len = a.addrs[0].len;
	}
	return fd;
}

int broker_socketpair(int fds[2])
{
	return socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds);
}

/* ---- children ---- */

pid_t broker_spawn(char *const argv[], const int fds[3], enum spawn_group group)
{
	struct broker_request r = { .op = OP_SPAWN };
	struct broker_answer a;
	int number, fd;

	if (here())
		return broker_acts.spawn(argv, fds, group);
	number = policy_find_command(broker.policy, argv, r.fill);
	if (number < 0)
		return set_errno(EPERM);
	r.number = (uint32_t)number;
	for (unsigned i = 0; i < 3; i++)
		if (fds[i] >= 0)
			r.given |= 1u << i;
	if (ask(&r, fds, NULL, &a, &fd))
		return -1;
	if (fd >= 0)
		close(fd);
	return a.rc < 0 ? set_errno(a.errnum) : a.rc;
}

int broker_child_fd(pid_t pid)
{
	struct broker_request r = { .op = OP_CHILD_FD, .pid = pid };
	struct broker_answer a;

	return here() ? broker_acts.child_fd(pid) : ask_fd(&r, &a);
}

int broker_reap(pid_t pid, int *wstatus)
{
	struct broker_request r = { .op = OP_REAP, .pid = pid };
	struct broker_answer a;
	int rc;

	if (here())
		return broker_acts.reap(pid, wstatus);
	rc = ask_number(&r, &a);
	if (rc > 0)
		*wstatus = a.wstatus;
	return rc;
}

int broker_stopped(pid_t pid)
{
	struct broker_request r = { .op = OP_STOPPED, .pid = pid };
	struct broker_answer a;
	int rc = here() ? broker_acts.stopped(pid) : ask_number(&r, &a);

	return rc < 0 ? 0 : rc;
}

int broker_kill(pid_t pid, int sig)
{
	struct broker_request r = { .op = OP_KILL, .pid = pid, .number = (uint32_t)sig };
	struct broker_answer a;

	return here() ? broker_acts.kill(pid, sig) : ask_number(&r, &a);
}

/* ---- the second process ---- */

/* What was meant for the worker is not for the broker: it ends when the worker does. */
static void leave_signals(void)
{
	static const int signals[] = {
		SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGPIPE
	};

	for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
		signal(signals[i], SIG_IGN);
}

static int by_number(const void *a, const void *b)
{
	return *(const int *)a - *(const int *)b;
}

/* A descriptor that the broker holds too would not end when the worker closes it. */
static void leave_descriptors(const struct policy *p, int sock)
{
	int keep[POLICY_LISTENERS + 1], null;
	unsigned n = 0;

	keep[n++] = sock;
	for (unsigned i = 0; i < p->nlisteners; i++) {
		fcntl(p->listeners[i], F_SETFD, FD_CLOEXEC);
		keep[n++] = p->listeners[i];
	}
	qsort(keep, n, sizeof(keep[0]), by_number);
	broker_close_but(3, keep, n);
	null = p->stdio_taken ? broker_acts.open("/dev/null", O_RDWR, 0) : -1;
	if (null >= 0) {
		dup2(null, 0);
		dup2(null, 1);
		close(null);
	}
}

static _Noreturn void be_broker(const struct policy *policy, int sock, pid_t worker,
				struct shared *shared, broker_obituary *died, void *arg)
{
	struct broker b;

	prctl(PR_SET_NAME, "migtool-broker");
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	prctl(PR_SET_DUMPABLE, 0);
	if (getppid() != worker)
		_exit(0);
	leave_signals();
	broker_init(&b, policy, &broker_acts);
	leave_descriptors(policy, sock);
	broker_serve(&b, sock);
	if (atomic_load(&shared->stopped))
		died(atomic_load(&shared->number), arg);
	_exit(0);
}

static void remember(const struct policy *policy)
{
	broker.policy = policy;
	for (unsigned i = 0; i < BROKER_LISTENERS; i++)
		broker.listeners[i].fd = i < policy->nlisteners ? policy->listeners[i] : -1;
}

int broker_start(const struct policy *policy, broker_obituary *died, void *arg, struct error *err)
{
	pid_t worker = getpid();
	int pair[2];

	broker.shared = mmap(NULL, sizeof(*broker.shared), PROT_READ | PROT_WRITE,
			     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (broker.shared == MAP_FAILED)
		return err_sys(err, ST_NOMEM, errno, "no memory for the broker");
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
		return err_sys(err, ST_NOMEM, errno, "no socket for the broker");
	remember(policy);
	broker.pid = broker_fork();
	if (broker.pid == 0) {
		close(pair[0]);
		be_broker(policy, pair[1], worker, broker.shared, died, arg);
	}
	close(pair[1]);
	if (broker.pid < 0) {
		close(pair[0]);
		return err_sys(err, ST_UNSUPPORTED, errno, "cannot start the broker");
	}
	broker.sock = pair[0];
	return 0;
}

int broker_fd(void)
{
	return broker.sock;
}

void broker_stop(void)
{
	struct pollfd p = { .fd = broker.sock };
	int n;

	if (here())
		return;
	shutdown(broker.sock, SHUT_WR);
	/* one that hangs in an act ends with us (PR_SET_PDEATHSIG) */
	while ((n = poll(&p, 1, 1000)) < 0 && errno == EINTR)
		;
	while (waitpid(broker.pid, NULL, n > 0 ? 0 : WNOHANG) < 0 && errno == EINTR)
		;
	close(broker.sock);
	broker.sock = -1;
}

void broker_report_violation(int number)
{
	if (!broker.shared)
		return;
	if (!atomic_exchange(&broker.shared->stopped, true))
		atomic_store(&broker.shared->number, number);
	shutdown(broker.sock, SHUT_WR);
	while (waitpid(broker.pid, NULL, 0) < 0 && errno == EINTR)
		;
}
