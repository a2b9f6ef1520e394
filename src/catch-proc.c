// SPDX-License-Identifier: GPL-2.0-or-later
#include "catch-proc.h"

#include "broker-act.h"

#include <dirent.h>
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

pid_t catch_proc_process(pid_t tid)
{
	FILE *f = open_file(tid, "status");
	char line[256];
	long pid = -1;

	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "Tgid: %ld", &pid) == 1)
			break;
	if (f)
		fclose(f);
	return (pid_t)pid;
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

static bool maps(pid_t pid, const struct catch_files *files)
{
	FILE *f = open_file(pid, "maps");
	char line[512];
	bool found = false, begins = true;

	while (f && !found && fgets(line, sizeof(line), f)) {
		unsigned major, minor;
		unsigned long ino;

		/* a long path fills several */
		if (begins && sscanf(line, "%*s %*s %*s %x:%x %lu", &major, &minor, &ino) == 3)
			found = ino && find(files, makedev(major, minor), ino) >= 0;
		begins = strchr(line, '\n') != NULL;
	}
	if (f)
		fclose(f);
	return found;
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
