/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the kinds of transport share: reading and writing descriptors of every sort without ever
 * blocking in the kernel, and connecting. Private to transport*.c, listener.c and pending.c.
 */
#ifndef MIGTOOL_TRANSPORT_IO_H
#define MIGTOOL_TRANSPORT_IO_H

#include "broker.h"
#include "transport.h"

/* The ops of everything that is nothing but descriptors. */
ssize_t io_read(struct transport *t, void *buf, size_t len, struct error *err);
ssize_t io_writev(struct transport *t, const struct iovec *iov, int n, bool more,
		  struct error *err);
ssize_t io_sendfile(struct transport *t, int fd, uint64_t offset, size_t len, struct error *err);
int io_shutdown_write(struct transport *t, struct error *err);
int io_close(struct transport *t, struct error *err);

/*
 * One attempt, as the descriptors' kinds want it: bytes, or -1 with errno (EAGAIN: not now). Never
 * waits, never looks at the token; for transports that wrap another one.
 */
ssize_t io_try_readv(struct transport *t, const struct iovec *iov, int n);
ssize_t io_try_writev(struct transport *t, const struct iovec *iov, int n, bool more);

/*
 * A transport without descriptors: rfd and wfd are -1, kinds IO_NONE. The name is cut to fit.
 * NULL: out of memory or descriptors.
 */
struct transport *io_new(const struct transport_ops *ops, const char *name, struct cancel *cancel,
			 struct error *err);
/* The same for a connected socket, which is closed on failure. */
struct transport *io_new_socket(const struct transport_ops *ops, const char *name, int fd,
				struct cancel *cancel, struct error *err);
/* Closes the descriptors and frees t, without ops->close. */
void io_free(struct transport *t);

/* transport_poll_in for what a descriptor says; and -1 if t says that nothing will come. */
int io_poll_in(struct transport *t, int timeout_ms, struct error *err);

/*
 * Reads and drops what still comes, so that the process at the other end can end, until end_fd is
 * readable; for at most `ms`, and only while the session is not cancelled (one that was is bounded
 * by `ms` alone). True: it is readable.
 */
bool io_drain(struct transport *t, int end_fd, int ms);

/* -1 with the reason if the session was cancelled or t aborted. */
int io_stopped(struct transport *t, struct error *err);

/* What a failed read or write of t means: the cancel's reason, ST_SOCKET or ST_FILE. -1. */
int io_failed(struct transport *t, bool reading, int errnum, struct error *err);

/* Monotonic milliseconds; a deadline from a time-out, and what is left of it (-1: no limit). */
int64_t io_now_ms(void);
int64_t io_deadline(int timeout_ms);
int io_left_ms(int64_t deadline);

/*
 * Connects a stream socket. `name` is what messages call the address, `writer` chooses the hint.
 * A descriptor, or -1: ST_CONNECT with err->sys, or the cancel's reason.
 */
int io_connect(const struct sockaddr *sa, socklen_t len, const char *name, bool writer,
	       int64_t deadline, struct cancel *cancel, struct error *err);

/* The kinds' constructors behind transport_dial. */
typedef struct transport *(io_dial)(const struct uri *uri, bool writer, int timeout_ms,
				    struct cancel *cancel, struct error *err);
io_dial tcp_dial, unix_dial, vsock_dial, fd_dial, exec_dial, file_dial, stdio_dial, null_dial;

extern const struct transport_ops tcp_ops, unix_ops, vsock_ops, fd_ops;

/* Options of a connected TCP socket: no delay, keepalive. */
void tcp_tune(int fd);
/* "tcp:10.0.0.1:4444", "tcp:[::1]:4444"; IPv4 in IPv6 as IPv4. */
void tcp_name(const struct sockaddr_storage *sa, char *name, size_t len);
/* "vsock:3:4444", "vsock::4444" for any CID. */
void vsock_name(const struct sockaddr_storage *sa, char *name, size_t len);
/* Where a vsock URI leads to, or what is bound to. */
void vsock_address(const struct uri *uri, bool listens, struct broker_addr *out);
/* Fills a unix address; 0 or -1 (ST_USAGE: too long). */
int unix_address(const char *path, struct broker_addr *out, struct error *err);

/*
 * The kinds' listening sockets behind listener_open: a descriptor, or -1: ST_SOCKET. `text` is
 * given the URI that the other side dials, with the real port.
 */
typedef int(io_listen)(const struct uri *uri, char *text, size_t len, struct error *err);
io_listen tcp_listen, unix_listen, vsock_listen, fd_listen;

bool fd_is_listening(int fd);

#endif
