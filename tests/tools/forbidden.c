// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A library to be preloaded: a migtool that was taken over. When it first asks for the name of a
 * socket's other end (a listener does, of who came), it makes the call that FORBIDDEN names.
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

/* What a listener asks of each connection, whatever its kind. */
__attribute__((visibility("default"))) int getsockopt(int fd, int level, int option, void *value,
						      socklen_t *len)
{
	const char *what = getenv("FORBIDDEN");

	if (what && level == SOL_SOCKET && option == SO_PEERCRED)
		misbehave(what);
	return (int)syscall(SYS_getsockopt, fd, level, option, value, len);
}
