// SPDX-License-Identifier: GPL-2.0-or-later
#include "catch-proc.h"

#include "broker-act.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

static int find(const struct catch_files *files, dev_t dev, ino_t ino)
{
	for (unsigned i = 0; i < files->n; i++)
		if (files->v[i].dev == dev && files->v[i].ino == ino)
			return (int)i;
	return -1;
}

int catch_proc_file(pid_t tid, int fd, const struct catch_files *files)
{
	char path[64];
	struct stat st;

	snprintf(path, sizeof(path), "/proc/%ld/fd/%d", (long)tid, fd);
	return stat(path, &st) ? -1 : find(files, st.st_dev, st.st_ino);
}

static FILE *open_file(pid_t pid, const char *name)
{
	char path[64];
	FILE *f;
	int fd;

	snprintf(path, sizeof(path), "/proc/%ld/%s", (long)pid, name);
	fd = broker_acts.open(path, O_RDONLY, 0);
	f = fd < 0 ? NULL : fdopen(fd, "r");
	if (!f && fd >= 0)
		close(fd);
	return f;
}

/* The value of a line of /proc/TID/status. False: there is none. */
static bool status_line(pid_t tid, const char *key, char value[256])
{
	FILE *f = open_file(tid, "status");
	size_t n = strlen(key);
	bool found = false;
	char line[256];

	while (f && !found && fgets(line, sizeof(line), f))
		found = !strncmp(line, key, n) && line[n] == ':';
	if (f)
		fclose(f);
	if (found)
		strcpy(value, line + n + 1);
	return found;
}

long catch_proc_status(pid_t tid, const char *key)
{
	char value[256];

	return status_line(tid, key, value) ? atol(value) : -1;
}

static uint64_t signals(pid_t tid, const char *key)
{
	char value[256];

	return status_line(tid, key, value) ? strtoull(value, NULL, 16) : 0;
}

/* Those of which nothing comes, as a set. */
static uint64_t ignored(pid_t tid)
{
	static const int quiet[] = { SIGCHLD, SIGCONT, SIGURG, SIGWINCH };
	uint64_t set = 0;

	for (size_t i = 0; i < sizeof(quiet) / sizeof(quiet[0]); i++)
		set |= UINT64_C(1) << (quiet[i] - 1);
	return signals(tid, "SigIgn") | (set & ~signals(tid, "SigCgt"));
}

bool catch_proc_signalled(pid_t tid)
{
	return (signals(tid, "SigPnd") | signals(tid, "ShdPnd")) & ~signals(tid, "SigBlk") &
	       ~ignored(tid);
}

bool catch_proc_ignores(pid_t tid, int sig)
{
	return ignored(tid) & (UINT64_C(1) << (sig - 1));
}

pid_t catch_proc_process(pid_t tid)
{
	return (pid_t)catch_proc_status(tid, "Tgid");
}

void catch_proc_name(pid_t pid, char name[32])
{
	FILE *f = open_file(pid, "comm");

	if (!f || !fgets(name, 32, f))
		strcpy(name, "?");
	name[strcspn(name, "\n")] = '\0';
	if (f)
		fclose(f);
}

/* A line of /proc/PID/maps. False: it is none of the files. */
static bool parse_mapping(const char *line, const struct catch_files *files,
			  struct catch_mapping *m)
{
	unsigned major, minor;
	unsigned long from, to, offset, ino;
	char perms[5];
	int block;

	if (sscanf(line, "%lx-%lx %4s %lx %x:%x %lu", &from, &to, perms, &offset, &major, &minor,
		   &ino) != 7 ||
	    !ino)
		return false;
	block = find(files, makedev(major, minor), ino);
	*m = (struct catch_mapping){ .address = from,
				     .len = to - from,
				     .offset = offset,
				     .block = (unsigned)block,
				     .shared = perms[3] == 's' };
	return block >= 0;
}

int catch_proc_mappings(pid_t pid, const struct catch_files *files,
			int (*each)(void *arg, const struct catch_mapping *m), void *arg)
{
	FILE *f = open_file(pid, "maps");
	char line[512];
	bool begins = true;
	int rc = f ? 0 : -1;

	while (!rc && fgets(line, sizeof(line), f)) {
		struct catch_mapping m;

		/* a long path fills several */
		if (begins && parse_mapping(line, files, &m))
			rc = each(arg, &m);
		begins = strchr(line, '\n') != NULL;
	}
	if (f)
		fclose(f);
	return rc;
}

int catch_proc_vdso(pid_t pid, uint64_t *start, uint64_t *end)
{
	FILE *f = open_file(pid, "maps");
	char line[512];
	int rc = -1;

	while (f && rc && fgets(line, sizeof(line), f)) {
		unsigned long from, to;

		if (strstr(line, "[vdso]") && sscanf(line, "%lx-%lx", &from, &to) == 2) {
			*start = from;
			*end = to;
			rc = 0;
		}
	}
	if (f)
		fclose(f);
	return rc;
}

struct catch_region catch_clip(const struct catch_files *files, const struct catch_mapping *m)
{
	const struct catch_file *f = &files->v[m->block];
	uint64_t mask = f->page - 1, end = (f->size + mask) & ~mask;
	struct catch_region r = { .address = m->address,
				  .len = (m->len + mask) & ~mask,
				  .offset = m->offset,
				  .block = m->block,
				  .page = f->page,
				  .shared = m->shared };

	if (r.offset >= end)
		r.len = 0;
	else if (r.len > end - r.offset)
		r.len = end - r.offset;
	return r;
}

static int found_one(void *arg, const struct catch_mapping *m)
{
	(void)arg;
	(void)m;
	return -1;
}

static bool maps(pid_t pid, const struct catch_files *files)
{
	errno = 0;
	return catch_proc_mappings(pid, files, found_one, NULL) < 0 && !errno;
}

pid_t catch_proc_mapper(const struct catch_files *files, bool (*ours)(void *arg, pid_t pid),
			void *arg)
{
	int fd = broker_acts.open("/proc", O_RDONLY | O_DIRECTORY, 0);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *e;
	pid_t found = 0;

	while (d && !found && (e = readdir(d))) {
		pid_t pid = (pid_t)atol(e->d_name);

		if (pid > 0 && !ours(arg, pid) && maps(pid, files))
			found = pid;
	}
	if (d)
		closedir(d);
	else if (fd >= 0)
		close(fd);
	return found;
}
