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

/* Each returns a descriptor or -1 (0 or -1) with errno set; the caller knows what to say. */
int broker_open(const char *path, int flags, mode_t mode);
int broker_openat(int dirfd, const char *path, int flags, mode_t mode);
int broker_rename(const char *from, const char *to, unsigned flags); /* renameat2's flags */
int broker_link(const char *from, const char *to); /* of a symbolic link: the link itself */
int broker_unlink(const char *path);
int broker_mkdir(const char *path, mode_t mode);
int broker_rmdir(const char *path);

/*
 * Addresses of a host, in the order in which they are to be tried, at most `max`. An empty host is
 * loopback, or, to listen on (`passive`), any address: IPv6's, which takes IPv4 too, before IPv4's.
 * Returns how many (> 0), or getaddrinfo's error (< 0; EAI_SYSTEM: and errno). May wait for the
 * resolver, whose own limits bound that; numbers never wait.
 */
struct broker_addr {
	struct sockaddr_storage sa;
	socklen_t len;
};
int broker_resolve(const char *host, uint16_t port, bool passive, struct broker_addr *out, int max);

/*
 * A stream socket, non-blocking. The connection may still be in progress: wait until it is
 * writable, then SO_ERROR says how it went. unix: EAGAIN while the listener's queue is full.
 */
int broker_socket_connect(const struct sockaddr *sa, socklen_t len);
int broker_socket_listen(const struct sockaddr *sa, socklen_t len, int backlog); /* non-blocking */
/*
 * Message sockets of this host (SOCK_SEQPACKET) with a name and no file: the one waits, the other
 * comes, blocking. Whoever is at the other end is for the caller to ask (SO_PEERCRED).
 */
int broker_local_listen(const char *name);
int broker_local_connect(const char *name);
int broker_socketpair(int fds[2]);					      /* both blocking */
int broker_accept(int listener, struct sockaddr_storage *sa, socklen_t *len); /* non-blocking */

/* What a child becomes the leader of. It outlives a Ctrl-C on our terminal either way. */
enum spawn_group {
	SPAWN_GROUP,   /* a process group in our session: we end it when we end */
	SPAWN_SESSION, /* a session: it lives on without us */
};

/*
 * Starts argv[0] (PATH is searched) with the descriptors given for 0, 1, 2 (-1: ours), all others
 * closed, default signal dispositions, nothing blocked. Returns the pid, or -1 with errno, of the
 * exec too.
 */
pid_t broker_spawn(char *const argv[], const int fds[3], enum spawn_group group);
/* A descriptor that is readable once the child has ended. */
int broker_child_fd(pid_t pid);
/* 1 and waitpid's status if the child has ended (its pid is free from then on), 0 if it has not. */
int broker_reap(pid_t pid, int *wstatus);
/* The signal that stopped the child, 0 if it is not stopped. */
int broker_stopped(pid_t pid);
/* Signals the child and everything in its group. 0 or -1. */
int broker_kill(pid_t pid, int sig);

#endif
