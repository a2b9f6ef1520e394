// SPDX-License-Identifier: GPL-2.0-or-later
#include "congestion.h"
#include "transport-io.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define MAX_ADDRS 16

const struct transport_ops tcp_ops = {
	.scheme = "tcp",
	.read = io_read,
	.writev = io_writev,
	.sendfile = io_sendfile,
	.shutdown_write = io_shutdown_write,
	.close = io_close,
};

/*
 * Buffer sizes are left alone: setting them turns the kernel's autotuning off. Keepalive finds a
 * peer's host that vanished while neither side sends; two minutes, instead of the default's two
 * hours. These options cannot fail on a TCP socket, and the transfer works without them.
 */
void tcp_tune(int fd)
{
	int on = 1, idle = 60, interval = 10, count = 6;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof(interval));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof(count));
}

void tcp_name(const struct sockaddr_storage *sa, char *name, size_t len)
{
	char host[INET6_ADDRSTRLEN] = "?";
	struct sockaddr_in6 v6;
	struct sockaddr_in v4;

	if (sa->ss_family == AF_INET) {
		memcpy(&v4, sa, sizeof(v4));
		inet_ntop(AF_INET, &v4.sin_addr, host, sizeof(host));
		snprintf(name, len, "tcp:%s:%u", host, ntohs(v4.sin_port));
		return;
	}
	memcpy(&v6, sa, sizeof(v6));
	if (IN6_IS_ADDR_V4MAPPED(&v6.sin6_addr)) {
		inet_ntop(AF_INET, &v6.sin6_addr.s6_addr[12], host, sizeof(host));
		snprintf(name, len, "tcp:%s:%u", host, ntohs(v6.sin6_port));
		return;
	}
	inet_ntop(AF_INET6, &v6.sin6_addr, host, sizeof(host));
	snprintf(name, len, "tcp:[%s]:%u", host, ntohs(v6.sin6_port));
}

static int resolve(const struct uri *uri, bool passive, struct cancel *cancel,
		   struct broker_addr *addrs, enum status status, struct error *err)
{
	const char *what = passive ? "listen on" : "connect to";
	int n = broker_resolve(uri->host, (uint16_t)uri->port, passive, cancel, addrs, MAX_ADDRS);

	if (n < 0 && cancel && cancel_fired(cancel))
		cancel_reason(cancel, err);
	else if (n == EAI_SYSTEM)
		err_sys(err, status, errno, "cannot %s %s", what, uri->text);
	else if (n < 0)
		err_set(err, status, "cannot %s %s: %s", what, uri->text, gai_strerror(n));
	return n;
}

struct transport *tcp_dial(const struct uri *uri, bool writer, int timeout_ms,
			   struct cancel *cancel, struct error *err)
{
	int64_t deadline = io_deadline(timeout_ms);
	struct broker_addr addrs[MAX_ADDRS];
	int n, fd = -1;

	if (!uri->port) {
		err_set(err, ST_USAGE, "cannot connect to %s: port 0 is for listening", uri->text);
		return NULL;
	}
	n = resolve(uri, false, cancel, addrs, ST_CONNECT, err);
	for (int i = 0; i < n && fd < 0; i++) {
		/* An address that swallows packets must not eat the others' time. */
		int64_t end = timeout_ms < 0 ? -1 : io_deadline(io_left_ms(deadline) / (n - i));

		fd = io_connect((struct sockaddr *)&addrs[i].sa, addrs[i].len, uri->text, writer,
				end, cancel, err);
		if (fd < 0 && err->status != ST_CONNECT)
			return NULL;
	}
	if (fd < 0)
		return NULL;
	tcp_tune(fd);
	congestion_settle(fd);
	return io_new_socket(&tcp_ops, uri->text, fd, cancel, err);
}

static uint32_t bound_port(int fd)
{
	struct sockaddr_storage sa = { 0 };
	struct sockaddr_in6 v6;
	struct sockaddr_in v4;
	socklen_t len = sizeof(sa);

	if (getsockname(fd, (struct sockaddr *)&sa, &len))
		return 0;
	memcpy(&v6, &sa, sizeof(v6));
	memcpy(&v4, &sa, sizeof(v4));
	return ntohs(sa.ss_family == AF_INET ? v4.sin_port : v6.sin6_port);
}

int tcp_listen(const struct uri *uri, char *text, size_t len, struct error *err)
{
	bool v6 = strchr(uri->host, ':');
	struct broker_addr addrs[MAX_ADDRS];
	int n = resolve(uri, true, NULL, addrs, ST_SOCKET, err);

	for (int i = 0; i < n; i++) {
		int fd = broker_socket_listen((struct sockaddr *)&addrs[i].sa, addrs[i].len,
					      SOMAXCONN);

		if (fd >= 0) {
			snprintf(text, len, v6 ? "tcp:[%s]:%u" : "tcp:%s:%u", uri->host,
				 bound_port(fd));
			return fd;
		}
		err_sys(err, ST_SOCKET, errno, "cannot listen on %s", uri->text);
		if (err->sys == EADDRINUSE) {
			err_hint(err, "another process listens there; port 0 picks a free port");
			return -1;
		}
	}
	return -1;
}
