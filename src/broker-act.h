/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The acts themselves, in whatever process they are called. broker.h says what each does; private
 * to broker*.c.
 */
#ifndef MIGTOOL_BROKER_ACT_H
#define MIGTOOL_BROKER_ACT_H

#include "broker.h"

struct broker_acts {
	int (*open)(const char *path, int flags, mode_t mode);
	int (*rename)(const char *from, const char *to, unsigned flags);
	int (*link)(const char *from, const char *to);
	int (*unlink)(const char *path);
	int (*mkdir)(const char *path, mode_t mode);
	int (*rmdir)(const char *path);
	int (*mark)(const char *path, bool on);
	int (*may_write)(const char *dir);
	/* 1: something is there that is not empty, 0: not, or nothing, -1: errno */
	int (*occupied)(const char *path);
	int (*resolve)(const char *host, uint16_t port, bool passive, struct broker_addr *out,
		       int max);
	int (*connect)(const struct sockaddr *sa, socklen_t len);
	int (*listen)(const struct sockaddr *sa, socklen_t len, int backlog);
	int (*local_listen)(const char *name);
	int (*accept)(int listener, struct sockaddr_storage *sa, socklen_t *len);
	pid_t (*spawn)(char *const argv[], const int fds[3], enum spawn_group group);
	int (*child_fd)(pid_t pid);
	int (*reap)(pid_t pid, int *wstatus);
	int (*stopped)(pid_t pid);
	int (*kill)(pid_t pid, int sig);
};

extern const struct broker_acts broker_acts;

/* Closes every descriptor from `first` on but the n in `keep`, which are in ascending order. */
void broker_close_but(unsigned first, const int *keep, unsigned n);

/*
 * fork without exec, of a process with one thread. The child is like us.
 */
pid_t broker_fork(void);
/* The same, but the child has no table of descriptors of its own: ours is its, as long as one of us
 * lives. Of a process with one thread. */
pid_t broker_fork_sharing(void);

/*
 * A datagram socket with a name that the kernel picks and no file, non-blocking, which is told who
 * sends. *name: what finds it, as NOTIFY_SOCKET has it. -1 with errno.
 */
#define BROKER_NOTIFY_NAME 120
int broker_notify_open(char name[BROKER_NOTIFY_NAME]);

/*
 * As spawn with SPAWN_SESSION and our 0, 1, 2, but the child waits for a byte in *gate before its
 * exec; if that end is closed instead, it ends. *report: an int, errno, if the exec failed, else
 * nothing. Both are the caller's to close.
 */
pid_t broker_spawn_held(char *const argv[], int *gate, int *report);

#endif
