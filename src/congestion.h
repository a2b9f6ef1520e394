/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef MIGTOOL_CONGESTION_H
#define MIGTOOL_CONGESTION_H

/*
 * Which congestion control a TCP connection of ours gets: the system's choice, except that BBR is
 * kept to long paths. None of these fails: a connection works with any of them.
 */

/* Learns the system's choice; before the sandbox, inside which no socket can be made. Once is
 * enough, and who forgets it gets it at the first use. Any thread. */
void congestion_remember(void);

/* For a socket that will connect or listen; before it does. */
void congestion_prepare(int fd);

/* For the connection that came of a prepared socket, as soon as it stands. */
void congestion_settle(int fd);

/* A TCP connection's round trip in microseconds: its handshake's, if nothing was sent yet. 0: not
 * known. */
unsigned congestion_rtt_us(int fd);

#endif
