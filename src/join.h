/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Further connections on the far host of an ssh: URI. Each ends in a process of its own, `migtool
 * join ID`, started by sshd; it hands its stdin and stdout, and the channel's first packet, which
 * it has read from there, to the one process that moves the image, and waits until that is done.
 *
 * The two meet at a socket in the abstract name space: it needs no directory, so nothing is left of
 * it however the process ends. Its name is 128 random bits, told through ssh alone; and because
 * others may see it in /proc/net/unix, each end asks the kernel who is at the other one and has
 * nothing to do with another user's process.
 */
#ifndef MIGTOOL_JOIN_H
#define MIGTOOL_JOIN_H

#include "transport.h"

#define JOIN_FIRST 64 /* a channel's first packet */

/* A new socket with a new name: its descriptor, or -1 (ST_SOCKET). */
int join_listen(char id[33], struct error *err);

/*
 * What came on an accepted connection, which is taken over: a transport that reads the first packet
 * again. NULL with err->status ST_OK: a stranger or nonsense, dropped with a warning.
 */
struct transport *join_take(int fd, struct cancel *cancel, struct error *err);

/* `migtool join ID`: hands over descriptors 0 and 1, and returns when they are not used any more.
 */
int join_hand_over(const char *id, struct error *err);

#endif
