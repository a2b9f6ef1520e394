// SPDX-License-Identifier: GPL-2.0-or-later
#include "takeup.h"

#include "broker.h"
#include "catch-found.h"
#include "catch-proc.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define LOCK_MS 2000 /* a process that was killed is not gone at once */

static struct {
	int fd, uffd, pidfd;
	unsigned space;
	struct ledger *ledger;
	bool complete;
} kept = { .fd = -1, .uffd = -1, .pidfd = -1 };

char *takeup_path(const char *socket)
{
	char *path;

	return asprintf(&path, "%s.guest", socket) < 0 ? NULL : path;
}

/* ---- the file ---- */

/* Nobody works on it but us. */
static int lock(int fd, const char *path, struct error *err)
{
	for (int ms = 0; flock(fd, LOCK_EX | LOCK_NB); ms += 10) {
		if (errno != EWOULDBLOCK && errno != EINTR)
			return err_sys(err, ST_FILE, errno, "cannot lock %s", path);
		if (ms >= LOCK_MS) {
			err_set(err, ST_FILE, "%s belongs to a guest that another recv serves",
				path);
			return err_hint(err, "use another --uffd-socket for another guest");
		}
		usleep(10000);
	}
	return 0;
}

/*
 * Whoever could write it could have us place pages wherever he likes, in a process of which he has
 * no right to a byte.
 */
static int check_owner(int fd, const char *path, struct error *err)
{
	struct stat st;

	if (fstat(fd, &st))
		return err_sys(err, ST_FILE, errno, "cannot look at %s", path);
	if (!S_ISREG(st.st_mode))
		return err_set(err, ST_FILE, "%s is no regular file", path);
	if (st.st_uid != geteuid()) {
		err_set(err, ST_FILE, "%s belongs to user %ld, and this recv is run by user %ld",
			path, (long)st.st_uid, (long)geteuid());
		return err_hint(err, "run recv as the user who has served the guest, with its "
				     "socket in a directory that nobody else may write");
	}
	if (st.st_nlink != 1)
		return err_set(err, ST_FILE, "%s has %ld names, expected one", path,
			       (long)st.st_nlink);
	if (!(st.st_mode & (S_IWGRP | S_IWOTH)))
		return 0;
	err_set(err, ST_FILE, "%s has mode %04o: others may write it", path,
		(unsigned)(st.st_mode & 07777));
	return err_hint(err, "it says where a guest's memory is; recv makes it with mode 0600");
}

static int open_file(const char *path, bool make, struct error *err)
{
	int fd = broker_open(path, O_RDWR | O_NOFOLLOW | O_CLOEXEC | (make ? O_CREAT : 0), 0600);

	if (fd < 0 && errno == ENOENT && !make) {
		err_set(err, ST_FILE, "there is no %s, which a recv leaves whose guest waits",
			path);
		return err_hint(err, "without --resume a VMM is waited for");
	}
	if (fd < 0)
		return err_sys(err, ST_FILE, errno, "cannot open %s", path);
	if (!check_owner(fd, path, err) && !lock(fd, path, err))
		return fd;
	close(fd);
	return -1;
}

/* ---- the guest ---- */

/* The first space that has a pid is the VMM's: a userfaultfd that is handed over sees no forks. */
static pid_t vmm_of(const struct ledger *l, unsigned *space)
{
	const struct ledger_layout *known = ledger_layout(l);

	for (*space = 0; *space < known->nspaces; (*space)++)
		if (known->spaces[*space].pid > 0)
			return known->spaces[*space].pid;
	return 0;
}

/* A pid is given away again when its process has ended. */
static bool is_another(pid_t pid, const struct ledger *l, unsigned space)
{
	uint64_t was = ledger_layout(l)->spaces[space].process, is = 0;
	int pidfd = was ? (int)syscall(SYS_pidfd_open, pid, 0) : -1;

	if (pidfd >= 0) {
		is = guestmem_process(pidfd);
		close(pidfd);
	}
	return was && is && was != is;
}

/*
 * Where the process waits for pages, as the ledger says: *from and *len. What was let go of already
 * is left out. 0: nowhere, -1: errno.
 */
static int waits(pid_t pid, const struct ledger *l, unsigned space, uint64_t *from, uint64_t *len)
{
	const struct ledger_layout *known = ledger_layout(l);
	struct catch_armed armed;
	int rc = catch_armed_read(pid, &armed);

	for (unsigned i = 0; !rc && i < known->nviews; i++) {
		const struct ledger_view *v = &known->views[i];

		if (v->space == space)
			rc = catch_armed_part(&armed, v->address, v->len, from, len);
	}
	catch_armed_free(&armed);
	return rc;
}

/* An old file goes, but not when its guest still needs it. */
static int check_old(const struct config *cfg, int fd, const char *path, struct error *err)
{
	struct error ignored;
	uint64_t from, len;
	struct ledger *l;
	unsigned space;
	pid_t pid;
	bool needed;

	if (cfg->force || !ledger_used(fd))
		return 0;
	fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	l = fd < 0 ? NULL : ledger_open(fd, &ignored);
	if (!l)
		return 0;
	pid = vmm_of(l, &space);
	needed = pid && !is_another(pid, l, space) && waits(pid, l, space, &from, &len) > 0;
	ledger_close(l);
	if (!needed)
		return 0;
	err_set(err, ST_FILE, "process %ld still waits for its memory, as %s says", (long)pid,
		path);
	return err_hint(err, "--resume serves it on; --force forgets it, and it waits for ever");
}

static int fetch(pid_t pid, uint64_t from, uint64_t len, struct error *err)
{
	char comm[32], name[64];

	catch_proc_name(pid, comm);
	snprintf(name, sizeof(name), "%s (process %ld)", comm, (long)pid);
	kept.uffd = catch_found_uffd(pid, from, len, name, &kept.pidfd, err);
	return kept.uffd < 0 ? -1 : 0;
}

static int take_up(const struct config *cfg, int fd, const char *path, struct error *err)
{
	uint64_t from, len;
	pid_t pid;

	kept.ledger = ledger_open(fd, err);
	if (!kept.ledger) {
		err_prefix(err, "%s", path);
		return -1;
	}
	pid = vmm_of(kept.ledger, &kept.space);
	if (!pid || (cfg->guest && cfg->guest != pid))
		return err_set(err, ST_UNSUPPORTED, "%s is not about process %ld", path,
			       (long)cfg->guest);
	if (is_another(pid, kept.ledger, kept.space))
		return err_set(
			err, ST_COMMAND,
			"process %ld, of which %s tells, has ended, and another has its number",
			(long)pid, path);
	switch (waits(pid, kept.ledger, kept.space, &from, &len)) {
	case 1:
		return fetch(pid, from, len, err);
	case 0:
		kept.complete = ledger_complete(kept.ledger);
		if (kept.complete) {
			catch_found_drain(pid);
			return 0;
		}
		return err_set(err, ST_COMMAND,
			       "process %ld does not wait for the memory of which %s tells",
			       (long)pid, path);
	default:
		if (errno == ENOENT || errno == ESRCH)
			return err_set(err, ST_COMMAND, "process %ld, of which %s tells, has ended",
				       (long)pid, path);
		err_sys(err, ST_UNSUPPORTED, errno, "cannot look into process %ld", (long)pid);
		return err_hint(err, "run recv as root or as its user");
	}
}

int takeup_prepare(const struct config *cfg, struct error *err)
{
	char *path = takeup_path(cfg->uffd_socket);
	int fd = path ? open_file(path, !cfg->resume, err)
		      : err_set(err, ST_NOMEM, "no memory for a name");
	int rc = fd < 0 ? -1 : 0;

	if (!rc && cfg->resume)
		rc = take_up(cfg, fd, path, err);
	else if (!rc) {
		rc = check_old(cfg, fd, path, err);
		if (rc)
			close(fd);
		else
			kept.fd = fd;
	}
	free(path);
	return rc;
}

/* ---- asked for ---- */

int takeup_fd(void)
{
	int fd = kept.fd;

	kept.fd = -1;
	return fd;
}

bool takeup_complete(void)
{
	return kept.complete;
}

const struct ledger *takeup_known(void)
{
	return kept.ledger;
}

int takeup_guest(struct guest_memory *g, struct ledger **l, struct error *err)
{
	int uffd = kept.uffd;

	guestmem_init(g);
	g->pidfd = kept.pidfd;
	*l = kept.ledger;
	kept.uffd = kept.pidfd = -1;
	kept.ledger = NULL;
	return guestmem_resume(g, *l, kept.space, uffd, err);
}
