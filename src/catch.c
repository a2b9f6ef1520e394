// SPDX-License-Identifier: GPL-2.0-or-later
#include "catch.h"

#include "broker-msg.h"
#include "broker.h"
#include "catch-keeper.h"
#include "catch-msg.h"
#include "catch-proc.h"

#include <errno.h>
#include <linux/magic.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#define HELLO_MS  10000
#define SERVED_MS 2000

static int sock = -1;
static pid_t catcher;
static bool adopts;	  /* a process that runs already */
static atomic_bool stays; /* it watches a guest: it ends with that, not with us */
static bool kills;	  /* it ends the guest with us */

/* 1: it takes us, 0: it is gone, -1: it does not; *served: because somebody else serves. */
static int hear_hello(bool *served, struct error *err)
{
	struct pollfd p = { .fd = sock, .events = POLLIN };
	struct catch_report r;
	unsigned nfds = 0;
	int fd = -1;

	if (poll(&p, 1, HELLO_MS) <= 0 ||
	    broker_receive(sock, &r, sizeof(r), &fd, 1, &nfds) != sizeof(r))
		return 0;
	if (r.kind != CATCH_FAILED)
		return 1;
	*err = r.why;
	*served = r.token == CATCH_SERVED;
	return -1;
}

/* The catcher of somebody who is gone. 1: we have it, 0: there is none. */
static int go_once(pid_t guest, bool *served, struct error *err)
{
	long tracer = catch_proc_status(guest, "TracerPid");
	struct ucred who = { .pid = 0 };
	socklen_t len = sizeof(who);
	char name[64];
	int rc;

	if (tracer < 0)
		return err_set(err, ST_COMMAND, "--guest: there is no process %ld", (long)guest);
	if (!tracer)
		return 0;
	snprintf(name, sizeof(name), CATCH_NAME, tracer);
	sock = broker_local_connect(name);
	if (sock < 0)
		return 0; /* somebody else traces it, and that will be said */
	if (!getsockopt(sock, SOL_SOCKET, SO_PEERCRED, &who, &len) && who.pid == tracer)
		rc = hear_hello(served, err);
	else
		rc = err_set(err, ST_UNSUPPORTED, "process %ld is not what it says it is", tracer);
	if (rc > 0)
		return rc;
	close(sock);
	sock = -1;
	return rc;
}

/* A process that was killed is not gone at once. */
static int go_to(pid_t guest, struct error *err)
{
	bool served = false;
	int rc;

	for (int ms = 0;; ms += 10) {
		err_clear(err);
		rc = go_once(guest, &served, err);
		if (rc >= 0 || !served || ms >= SERVED_MS)
			return rc;
		usleep(10000);
	}
}

static int with_keeper(struct error *err)
{
	if (!keeper_start(sock, err))
		return 0;
	catch_stop();
	return -1;
}

int catch_start(const struct catch_plan *plan, struct error *err)
{
	int pair[2];
	pid_t pid;
	int there = plan->resume ? go_to(plan->guest, err) : 0;

	kills = plan->kill;
	catcher = 0;
	stays = there;
	adopts = true;
	if (there)
		return there < 0 ? -1 : with_keeper(err);
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
		return err_sys(err, ST_NOMEM, errno,
			       "no socket to the process that starts COMMAND");
	pid = broker_fork();
	if (pid == 0)
		catch_serve(plan, pair[1]);
	close(pair[1]);
	if (pid < 0) {
		close(pair[0]);
		return err_sys(err, ST_NOMEM, errno, "cannot fork the process that starts COMMAND");
	}
	sock = pair[0];
	catcher = pid;
	adopts = plan->guest != 0;
	stays = false;
	return with_keeper(err);
}

/* ---- files ---- */

static const char *file_system(long type)
{
	static const struct {
		long type;
		const char *name;
	} known[] = {
		{ EXT4_SUPER_MAGIC, "ext4" },	{ 0x58465342, "xfs" },
		{ BTRFS_SUPER_MAGIC, "btrfs" }, { NFS_SUPER_MAGIC, "nfs" },
		{ 0x794c7630, "overlayfs" },
	};

	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
		if (known[i].type == type)
			return known[i].name;
	return "a disk";
}

/* A page that is written to a huge one makes its neighbours present, as zeros. */
static int check_small_pages(int fd, const char *name, uint32_t page, struct error *err)
{
	struct stat st;

	if (fstat(fd, &st))
		return err_sys(err, ST_FILE, errno, "cannot look at %s", name);
	if ((uint64_t)st.st_blksize <= page)
		return 0;
	err_set(err, ST_UNSUPPORTED,
		"%s is on a tmpfs with huge pages, where a page that comes would bring zeros "
		"beside it",
		name);
	return err_hint(err, "let IMAGE lie on a tmpfs with huge=never or huge=advise; of a memfd, "
			     "/sys/kernel/mm/transparent_hugepage/shmem_enabled decides");
}

int catch_check_file(int fd, const char *name, uint32_t *page, struct error *err)
{
	struct statfs fs;

	if (fstatfs(fd, &fs))
		return err_sys(err, ST_FILE, errno, "cannot look at the file system of %s", name);
	if ((unsigned long)fs.f_type == TMPFS_MAGIC) {
		*page = (uint32_t)sysconf(_SC_PAGESIZE);
		return check_small_pages(fd, name, *page, err);
	}
	if ((unsigned long)fs.f_type == HUGETLBFS_MAGIC) {
		*page = (uint32_t)fs.f_bsize;
		return 0;
	}
	err_set(err, ST_UNSUPPORTED,
		"postcopy needs memory on tmpfs, memfd or hugetlbfs, and %s is on %s", name,
		file_system((long)fs.f_type));
	return err_hint(err, "its missing pages cannot be caught there; let IMAGE lie in /dev/shm");
}

/* ---- orders ---- */

static int order(const struct catch_order *o, int fd, struct error *err)
{
	if (!broker_send(sock, o, sizeof(*o), &fd, fd >= 0, 0))
		return 0;
	return err_sys(err, ST_COMMAND, errno, "the process that watches COMMAND is gone");
}

int catch_go(const struct catch_block *blocks, unsigned n, struct error *err)
{
	struct catch_order o = { .op = CATCH_OP_BLOCK };

	if (n > CATCH_BLOCKS_MAX)
		return err_set(err, ST_UNSUPPORTED, "postcopy serves at most %d blocks, not %u",
			       CATCH_BLOCKS_MAX, n);
	for (unsigned i = 0; i < n; i++) {
		o.size = blocks[i].size;
		if (order(&o, blocks[i].fd, err))
			return -1;
	}
	o.op = CATCH_OP_GO;
	o.token = kills;
	return order(&o, -1, err);
}

int catch_ack(uint32_t token, struct error *err)
{
	struct catch_order o = { .op = CATCH_OP_ACK, .token = token };

	if (order(&o, -1, err))
		return -1;
	stays = true;
	return 0;
}

int catch_let(uint32_t token, struct error *err)
{
	struct catch_order o = { .op = CATCH_OP_LET, .token = token };

	return order(&o, -1, err);
}

int catch_ours(struct error *err)
{
	struct catch_order o = { .op = CATCH_OP_OURS };

	if (order(&o, -1, err))
		return -1;
	stays = true;
	return 0;
}

int catch_notify(struct error *err)
{
	struct catch_order o = { .op = CATCH_OP_NOTIFY };

	return order(&o, -1, err);
}

int catch_ledger(int fd, struct error *err)
{
	struct catch_order o = { .op = CATCH_OP_LEDGER };

	return order(&o, fd, err);
}

int catch_keep(int uffd, unsigned serial, struct error *err)
{
	struct catch_order o = { .op = CATCH_OP_KEEP, .token = serial };

	return order(&o, uffd, err);
}

int catch_complete(struct error *err)
{
	struct catch_order o = { .op = CATCH_OP_COMPLETE };

	return order(&o, -1, err);
}

/* ---- events ---- */

static int gone(struct error *err)
{
	return err_set(err, ST_COMMAND, "the process that watches COMMAND is gone");
}

static void take(struct catch_event *out, const struct catch_report *r, int fd)
{
	memset(out, 0, sizeof(*out));
	out->kind = (enum catch_kind)r->kind;
	out->pid = r->pid;
	out->uffd = fd;
	out->token = r->token;
	out->region = r->region;
	out->wstatus = r->wstatus;
	out->why = r->why;
}

int catch_next(struct cancel *cancel, int ms, struct catch_event *out, struct error *err)
{
	struct catch_report r;
	unsigned nfds = 0;
	int fd = -1, n;
	ssize_t got;

	if (sock < 0)
		return gone(err);
	n = cancel_wait(cancel, sock, POLLIN, ms, err);
	if (n <= 0)
		return n;
	got = broker_receive(sock, &r, sizeof(r), &fd, 1, &nfds);
	if (got != sizeof(r) || r.kind >= CATCH__MAX) {
		if (nfds)
			close(fd);
		return gone(err);
	}
	take(out, &r, nfds ? fd : -1);
	if (adopts && out->kind == CATCH_SPACE)
		stays = true;
	if (out->kind == CATCH_ENDED || out->kind == CATCH_LEFT)
		stays = false;
	return 1;
}

void catch_stop(void)
{
	struct catch_order o = { .op = CATCH_OP_LEAVE };
	struct error ignored;

	if (sock < 0)
		return;
	order(&o, -1, &ignored);
	close(sock);
	sock = -1;
	keeper_stop();
	while (catcher && waitpid(catcher, NULL, stays && !kills ? WNOHANG : 0) < 0 &&
	       errno == EINTR)
		;
}
