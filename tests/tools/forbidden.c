// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A library to be preloaded: a migtool that was taken over. It makes the call that FORBIDDEN names
 * when it first makes the one that FORBIDDEN_AT names: getsockopt (a listener asks who came; this,
 * if none is named), fsync (a destination that has all), shutdown (a source that was told DONE).
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

static void misbehave(const char *what)
{
	char *argv[] = { (char *)"touch", (char *)"taken", NULL };

	if (!strcmp(what, "execve"))
		execv("/usr/bin/touch", argv);
	else if (!strcmp(what, "socket"))
		socket(AF_INET, SOCK_STREAM, 0);
	else if (!strcmp(what, "ptrace"))
		ptrace(PTRACE_ATTACH, getppid(), NULL, NULL);
	fprintf(stderr, "%s came back\n", what);
}

static void misbehave_at(const char *call)
{
	const char *what = getenv("FORBIDDEN"), *at = getenv("FORBIDDEN_AT");
	static int done; /* it is stopped by calls of its own */

	if (what && !strcmp(at ? at : "getsockopt", call) && !done++)
		misbehave(what);
}

/* What a listener asks of each connection, whatever its kind. */
__attribute__((visibility("default"))) int getsockopt(int fd, int level, int option, void *value,
						      socklen_t *len)
{
	if (level == SOL_SOCKET && option == SO_PEERCRED)
		misbehave_at("getsockopt");
	return (int)syscall(SYS_getsockopt, fd, level, option, value, len);
}

__attribute__((visibility("default"))) int fsync(int fd)
{
	misbehave_at("fsync");
	return (int)syscall(SYS_fsync, fd);
}

__attribute__((visibility("default"))) int shutdown(int fd, int how)
{
	misbehave_at("shutdown");
	return (int)syscall(SYS_shutdown, fd, how);
}
