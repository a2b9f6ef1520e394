/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Every act that wants a privilege: open, connect, accept, fork, exec, rename. Nobody else calls
 * these (a lint test checks it). Without a sandbox a request is carried out at once; with one it is
 * a message to a second process, the broker, which carries it out if the run's policy (policy.h)
 * has it, and else says EPERM. So arguments are plain values and results are descriptors.
 *
 * All descriptors come back close-on-exec. Any thread may ask; nobody waits for another's request.
 */
#ifndef MIGTOOL_BROKER_H
#define MIGTOOL_BROKER_H

#include "cancel.h"
#include "error.h"
#include "policy.h"

#include <stdint.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/types.h>

/* Each returns a descriptor or -1 (0 or -1) with errno set; the caller knows what to say. */
int broker_open(const char *path, int flags, mode_t mode);
int broker_rename(const char *from, const char *to, unsigned flags); /* renameat2's flags */
int broker_link(const char *from, const char *to); /* of a symbolic link: the link itself */
int broker_unlink(const char *path);
int broker_mkdir(const char *path, mode_t mode);
int broker_rmdir(const char *path);
/*
 * Sets or clears the sticky bit of a file or directory that may be read, which marks a complete
 * .part. EOPNOTSUPP: the file system keeps none.
 */
int broker_mark(const char *path, bool on);
/* stat, or (follow: false) lstat. */
int broker_stat(const char *path, bool follow, struct stat *st);
/* May files be made in that directory, with our effective rights? */
int broker_may_write(const char *dir);
/* What a symbolic link leads to in the end, to be freed. With a sandbox: as it was at the start. */
char *broker_realpath(const char *path);

/*
 * Addresses of a host, in the order in which they are to be tried, at most `max`. An empty host is
 * loopback, or, to listen on (`passive`), any address: IPv6's, which takes IPv4 too, before IPv4's.
 * Returns how many (> 0), or getaddrinfo's error (< 0; EAI_SYSTEM: and errno, ECANCELED once
 * `cancel` was fired). May wait for the resolver, whose own limits bound that, and with a sandbox
 * `cancel` (or NULL); numbers never wait.
 */
#define BROKER_ADDRS_MAX 16

struct broker_addr {
	struct sockaddr_storage sa;
	socklen_t len;
};
int broker_resolve(const char *host, uint16_t port, bool passive, struct cancel *cancel,
		   struct broker_addr *out, int max);

/*
 * A stream socket, non-blocking. The connection may still be in progress: wait until it is
 * writable, then SO_ERROR says how it went. unix: EAGAIN while the listener's queue is full.
 */
int broker_socket_connect(const struct sockaddr *sa, socklen_t len);
int broker_socket_listen(const struct sockaddr *sa, socklen_t len, int backlog); /* non-blocking */
/* Of a listening socket: nobody can connect to it any more. */
void broker_listener_close(int listener);
/*
 * Message sockets of this host (SOCK_SEQPACKET) with a name and no file: the one waits, the other
 * comes, blocking. Whoever is at the other end is for the caller to ask (SO_PEERCRED). With a
 * sandbox a name is BROKER_LOCAL and POLICY_FILL hex digits.
 */
#define BROKER_LOCAL "migtool-join-"
int broker_local_listen(const char *name);
int broker_local_connect(const char *name);
int broker_accept(int listener, struct sockaddr_storage *sa, socklen_t *len); /* non-blocking */
int broker_socketpair(int fds[2]);					      /* both blocking */

/* What a child becomes the leader of. It outlives a Ctrl-C on our terminal either way. */
enum spawn_group {
	SPAWN_GROUP,   /* a process group in our session: we end it when we end */
	SPAWN_SESSION, /* a session: it lives on without us */
};

/*
 * Starts argv[0] (PATH is searched) with the descriptors given for 0, 1, 2 (-1: ours), all others
 * closed, default signal dispositions, nothing blocked, outside any sandbox. Returns the pid, or
 * -1 with errno, of the exec too.
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

/* ---- the second process ---- */

/*
 * Called by the broker when the worker was stopped by its sandbox: over the system call of that
 * number. It tells people; then the broker ends.
 */
typedef void broker_obituary(int number, void *arg);

/*
 * Starts the broker; from now on every request above goes to it. To be called while the process
 * has one thread; the policy has to outlive it. The broker keeps none of our descriptors but 0, 1,
 * 2 and the policy's listeners. ST_NOMEM, ST_UNSUPPORTED.
 */
int broker_start(const struct policy *policy, broker_obituary *died, void *arg, struct error *err);

/* Readable, and at its end, when the broker is gone; -1: there is none. */
int broker_fd(void);

/*
 * Lets the broker end. Acts are carried out here again, as far as we still can. Without a broker:
 * nothing.
 */
void broker_stop(void);

/*
 * For the sandbox's signal handler, so async-signal-safe: the broker is told of the system call,
 * and when this returns it has passed that on.
 */
void broker_report_violation(int number);

#endif
