// SPDX-License-Identifier: GPL-2.0-or-later
#include "catch-found.h"

#include "broker-act.h"
#include "catch-uffd.h"
#include "uffd.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* ---- what waits ---- */

static int add_range(struct catch_armed *a, uint64_t from, uint64_t to)
{
	void *grown;

	if (a->n && a->v[a->n - 1].to == from) {
		a->v[a->n - 1].to = to;
		return 0;
	}
	grown = realloc(a->v, (a->n + 1) * sizeof(*a->v));
	if (!grown)
		return -1;
	a->v = grown;
	a->v[a->n].from = from;
	a->v[a->n++].to = to;
	return 0;
}

static bool has_flag(const char *line, const char *flag)
{
	size_t n = strlen(flag);

	for (const char *p = strchr(line, ':'); p && (p = strstr(p, flag)); p += n)
		if (p[-1] == ' ' && (p[n] == ' ' || p[n] == '\n'))
			return true;
	return false;
}

/* A mapping's first line has its addresses, one of the next its flags. */
static int read_smaps(FILE *f, struct catch_armed *out)
{
	unsigned long from = 0, to = 0;
	char line[1024];
	bool begins = true;

	while (fgets(line, sizeof(line), f)) {
		if (begins && !strncmp(line, "VmFlags:", 8)) {
			if (has_flag(line, "um") && add_range(out, from, to))
				return -1;
		} else if (begins) {
			sscanf(line, "%lx-%lx ", &from, &to);
		}
		begins = strchr(line, '\n') != NULL;
	}
	return 0;
}

int catch_armed_read(pid_t pid, struct catch_armed *out)
{
	char path[64];
	FILE *f;
	int fd, rc;

	*out = (struct catch_armed){ .v = NULL };
	snprintf(path, sizeof(path), "/proc/%ld/smaps", (long)pid);
	fd = broker_acts.open(path, O_RDONLY, 0);
	f = fd < 0 ? NULL : fdopen(fd, "r");
	if (!f) {
		if (fd >= 0)
			close(fd);
		return -1;
	}
	rc = read_smaps(f, out);
	fclose(f);
	if (rc)
		errno = ENOMEM;
	return rc;
}

int catch_armed_part(const struct catch_armed *a, uint64_t address, uint64_t len, uint64_t *from,
		     uint64_t *n)
{
	for (unsigned i = 0; i < a->n; i++) {
		uint64_t start = a->v[i].from, end = a->v[i].to;

		if (start < address)
			start = address;
		if (end > address + len)
			end = address + len;
		if (start >= end)
			continue;
		*from = start;
		*n = end - start;
		return 1;
	}
	return 0;
}

void catch_armed_free(struct catch_armed *a)
{
	free(a->v);
	*a = (struct catch_armed){ .v = NULL };
}

/* ---- its userfaultfd ---- */

static int no_right(int why, const char *name, struct error *err)
{
	if (why == ESRCH || why == ENOENT)
		return err_set(err, ST_COMMAND, "%s has ended", name);
	if (why == ENOSYS)
		return err_set(err, ST_UNSUPPORTED,
			       "this kernel cannot hand over a userfaultfd; Linux 5.6 can");
	err_sys(err, ST_UNSUPPORTED, why, "cannot fetch the userfaultfd of %s", name);
	if (why == EPERM || why == EACCES)
		err_hint(err, "run recv as root, or as its user with kernel.yama.ptrace_scope=0");
	return -1;
}

static bool is_uffd(DIR *d, const char *entry)
{
	char to[64];
	ssize_t n = readlinkat(dirfd(d), entry, to, sizeof(to) - 1);

	if (n < 0)
		return false;
	to[n] = '\0';
	return !strcmp(to, "anon_inode:[userfaultfd]");
}

/* A range can be registered again with the same one, which changes nothing, and with no other. */
static bool is_the_one(int fd, uint64_t address, uint64_t len)
{
	struct catch_uffd u = { .fd = fd };
	struct error ignored;

	return uffd_valid(fd) && !catch_uffd_register(&u, address, len, "it", &ignored);
}

static int look_through(DIR *d, int pidfd, uint64_t address, uint64_t len, const char *name,
			struct error *err)
{
	struct dirent *e;

	while ((e = readdir(d))) {
		int fd;

		if (!is_uffd(d, e->d_name))
			continue;
		fd = (int)syscall(SYS_pidfd_getfd, pidfd, atoi(e->d_name), 0);
		if (fd < 0)
			return no_right(errno, name, err);
		if (is_the_one(fd, address, len))
			return fd;
		close(fd);
	}
	return err_set(err, ST_COMMAND, "%s has no userfaultfd for its memory any more", name);
}

DIR *catch_found_fds(pid_t pid)
{
	char path[64];
	DIR *d;
	int fd;

	snprintf(path, sizeof(path), "/proc/%ld/fd", (long)pid);
	fd = broker_acts.open(path, O_RDONLY | O_DIRECTORY, 0);
	d = fd < 0 ? NULL : fdopendir(fd);
	if (!d && fd >= 0)
		close(fd);
	return d;
}

int catch_found_uffd(pid_t pid, uint64_t address, uint64_t len, const char *name, int *pidfd,
		     struct error *err)
{
	DIR *d;
	int fd;

	*pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	if (*pidfd < 0)
		return no_right(errno, name, err);
	d = catch_found_fds(pid);
	if (!d)
		return no_right(errno, name, err);
	fd = look_through(d, *pidfd, address, len, name, err);
	closedir(d);
	return fd;
}

/* ---- what it has not been relieved of ---- */

static void drain(int fd)
{
	struct uffd_event events[UFFD_EVENTS_MAX];
	int n, flags = fcntl(fd, F_GETFL);

	if (flags < 0 || !(flags & O_NONBLOCK))
		return;
	while ((n = uffd_read(fd, NULL, events)) > 0)
		for (int i = 0; i < n; i++)
			if (events[i].child >= 0)
				close(events[i].child);
}

void catch_found_drain(pid_t pid)
{
	int pidfd = (int)syscall(SYS_pidfd_open, pid, 0), one = -1, n = 0, fd;
	DIR *d = pidfd < 0 ? NULL : catch_found_fds(pid);
	struct dirent *e;

	while (d && (e = readdir(d)))
		if (is_uffd(d, e->d_name)) {
			one = atoi(e->d_name);
			n++;
		}
	fd = n == 1 ? (int)syscall(SYS_pidfd_getfd, pidfd, one, 0) : -1;
	if (fd >= 0) {
		drain(fd);
		close(fd);
	}
	if (d)
		closedir(d);
	if (pidfd >= 0)
		close(pidfd);
}
