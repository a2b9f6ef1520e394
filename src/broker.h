/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Every act that wants a privilege: open, connect, accept, fork, exec, rename. No other file calls
 * these (a lint test checks it). Today a request is a function call; with the sandbox it becomes a
 * message to a second process, so arguments are plain values and results are descriptors.
 * All descriptors come back close-on-exec.
 */
#ifndef MIGTOOL_BROKER_H
#define MIGTOOL_BROKER_H

#include "error.h"

#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>

/* Each returns a descriptor or -1 with errno set; the caller knows what to say. */
int broker_open(const char *path, int flags, mode_t mode);
int broker_openat(int dirfd, const char *path, int flags, mode_t mode);
int broker_socket_connect(const struct sockaddr *sa, socklen_t len); /* may be EINPROGRESS: fd >= 0 */
int broker_socket_listen(const struct sockaddr *sa, socklen_t len, int backlog);
int broker_accept(int listener, struct sockaddr_storage *sa, socklen_t *len); /* non-blocking fd */
int broker_rename(const char *from, const char *to, unsigned flags); /* renameat2's flags */
int broker_unlink(const char *path);
int broker_mkdir(const char *path, mode_t mode);
int broker_rmdir(const char *path);

/*
 * Starts argv[0] (PATH is searched) with the descriptors given for 0, 1, 2 (-1: ours), all others
 * closed, default signal dispositions, nothing blocked. new_session: setsid first. Returns the pid,
 * or -1 with errno, of the exec too.
 */
pid_t broker_spawn(char *const argv[], const int fds[3], bool new_session);

#endif
