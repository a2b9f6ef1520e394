// SPDX-License-Identifier: GPL-2.0-or-later
/* Every kind of transport, both of its ends in this process or a child. */
#include "test.h"

#include "transport.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static struct cancel token;
static struct error e;
static char dir[] = "/tmp/test_transport.XXXXXX";

/* --- helpers --- */

static char *in_dir(const char *scheme, const char *name)
{
	static char buf[4][128];
	static unsigned next;
	char *s = buf[next++ % 4];

	snprintf(s, sizeof(buf[0]), "%s%s/%s", scheme, dir, name);
	return s;
}

__attribute__((format(printf, 3, 4))) static struct transport *dial(bool writer, int timeout_ms,
								    const char *fmt, ...)
{
	struct transport *t;
	char text[256];
	struct uri u;
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	err_clear(&e);
	if (uri_parse(&u, text, &e))
		return NULL;
	t = transport_dial(&u, writer, timeout_ms, &token, &e);
	uri_free(&u);
	return t;
}

static struct listener *open_listener(const char *text)
{
	struct listener *l;
	struct uri u;

	err_clear(&e);
	if (uri_parse(&u, text, &e))
		return NULL;
	l = listener_open(&u, &token, &e);
	uri_free(&u);
	return l;
}

static bool write_text(struct transport *t, const char *text)
{
	struct iovec iov = { (void *)text, strlen(text) };

	return transport_writev(t, &iov, 1, &e) == (ssize_t)iov.iov_len;
}

/* Reads as many bytes as `text` has, in whatever pieces they come. */
static bool reads_text(struct transport *t, const char *text)
{
	char buf[256];
	size_t got = 0;

	while (got < strlen(text)) {
		ssize_t n = transport_read(t, buf + got, strlen(text) - got, &e);

		if (n <= 0)
			return false;
		got += (size_t)n;
	}
	return !memcmp(buf, text, got);
}

static bool at_end(struct transport *t)
{
	char c;

	return transport_read(t, &c, 1, &e) == 0;
}

/* Both directions, then each side's end. */
static void check_two_way(struct transport *a, struct transport *b)
{
	CHECK(a->two_way && b->two_way);
	CHECK(write_text(a, "ping") && reads_text(b, "ping"));
	CHECK(write_text(b, "pong") && reads_text(a, "pong"));
	CHECK(transport_shutdown_write(a, &e) == 0 && at_end(b));
	CHECK(transport_shutdown_write(a, &e) == 0);
	CHECK(write_text(b, "last") && reads_text(a, "last"));
	CHECK(transport_close(b, &e) == 0);
	CHECK(at_end(a));
	CHECK(transport_close(a, &e) == 0);
}

static char *slurp(const char *path)
{
	static char buf[256];
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, buf, sizeof(buf) - 1);

	if (fd >= 0)
		close(fd);
	buf[n < 0 ? 0 : n] = '\0';
	return n < 0 ? NULL : buf;
}

static bool spew(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	bool ok = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);

	close(fd);
	return ok;
}

/* --- tcp --- */

static int socket_option(int fd, int level, int name)
{
	int v = -1;
	socklen_t len = sizeof(v);

	return getsockopt(fd, level, name, &v, &len) ? -1 : v;
}

static void tcp_pair(const char *listen_on, const char *host)
{
	struct listener *l = open_listener(listen_on);
	struct transport *a, *b;
	unsigned port;

	REQUIRE(l != NULL);
	port = (unsigned)atoi(strrchr(listener_uri(l), ':') + 1);
	CHECK(port > 0 && !strncmp(listener_uri(l), listen_on, strlen(listen_on) - 1));
	a = dial(true, 5000, "tcp:%s:%u", host, port);
	REQUIRE(a != NULL);
	b = listener_accept(l, 5000, &e);
	REQUIRE(b != NULL);
	for (int i = 0; i < 2; i++) {
		int fd = transport_raw_wfd(i ? a : b);

		REQUIRE(fd >= 0);
		CHECK(fcntl(fd, F_GETFL) & O_NONBLOCK && fcntl(fd, F_GETFD) & FD_CLOEXEC);
		CHECK(socket_option(fd, IPPROTO_TCP, TCP_NODELAY) == 1);
		CHECK(socket_option(fd, SOL_SOCKET, SO_KEEPALIVE) == 1);
	}
	if (host[0])
		CHECK(strstr(a->name, host) != NULL);
	if (strchr(host, '1')) { /* no name, an address, which the other end sees too */
		CHECK(!strncmp(b->name, a->name, strlen("tcp:") + strlen(host) + 1));
	}
	check_two_way(a, b);
	listener_close(l);
}

/* A machine without IPv6 has to say so; everything else is tested without it. */
static bool has_ipv6(void)
{
	struct listener *l = open_listener("tcp:[::1]:0");
	bool has = l != NULL;

	CHECK(has || (e.status == ST_SOCKET && strstr(e.msg, "cannot listen on tcp:[::1]:0: ")));
	listener_close(l);
	return has;
}

static void tcp_speaks_ipv4_and_ipv6(void)
{
	tcp_pair("tcp:127.0.0.1:0", "127.0.0.1");
	tcp_pair("tcp:localhost:0", "localhost");
	tcp_pair("tcp:127.0.0.1:0", "localhost"); /* of which ::1 may be tried first */
	if (has_ipv6())
		tcp_pair("tcp:[::1]:0", "[::1]");
}

static void any_address_takes_ipv4_and_ipv6(void)
{
	tcp_pair("tcp::0", "127.0.0.1");
	tcp_pair("tcp::0", "");
	tcp_pair("tcp:0:0", "127.0.0.1");
	if (has_ipv6())
		tcp_pair("tcp::0", "[::1]");
}

static void a_taken_port_is_refused(void)
{
	struct listener *l = open_listener("tcp:127.0.0.1:0"), *again;
	char text[128];

	REQUIRE(l != NULL);
	snprintf(text, sizeof(text), "%s", listener_uri(l));
	again = open_listener(text);
	CHECK(!again && e.status == ST_SOCKET && e.sys == EADDRINUSE);
	CHECK(strstr(e.msg, text) && strstr(e.hint, "port 0"));
	listener_close(l);
	l = open_listener(text); /* SO_REUSEADDR: at once */
	CHECK(l != NULL);
	listener_close(l);
}

static void nobody_listening_is_said_with_a_hint(void)
{
	struct listener *l = open_listener("tcp:127.0.0.1:0");
	char text[128], want[256];

	REQUIRE(l != NULL);
	snprintf(text, sizeof(text), "%s", listener_uri(l));
	listener_close(l);
	CHECK(!dial(true, 5000, "%s", text) && e.status == ST_CONNECT);
	snprintf(want, sizeof(want), "cannot connect to %s: Connection refused", text);
	CHECK_STR(e.msg, want);
	CHECK_STR(e.hint, "is `migtool recv` listening there?");
	CHECK(!dial(false, -1, "%s", text) && strstr(e.hint, "migtool send --listen"));
	CHECK(!dial(true, 5000, "tcp:127.0.0.1:0") && e.status == ST_USAGE);
	CHECK(!dial(true, 5000, "tcp:256.0.0.1.invalid:1") && e.status == ST_CONNECT);
	CHECK(strstr(e.msg, "cannot connect to tcp:256.0.0.1.invalid:1") != NULL);
	CHECK(!dial(true, 5000, "%s", in_dir("unix:", "none")) && e.status == ST_CONNECT);
	CHECK(e.sys == ENOENT && strstr(e.hint, "migtool recv"));
}

static void nobody_connecting_ends_in_a_time_out(void)
{
	struct listener *l = open_listener("tcp:127.0.0.1:0");

	REQUIRE(l != NULL);
	CHECK(!listener_accept(l, 20, &e) && e.status == ST_OK);
	listener_close(l);
}

/* --- unix --- */

static void unix_sockets_connect(void)
{
	char *uri = in_dir("unix:", "sock");
	struct listener *l = open_listener(uri);
	struct transport *a, *b;

	REQUIRE(l != NULL);
	CHECK_STR(listener_uri(l), uri);
	a = dial(true, 5000, "%s", uri);
	REQUIRE(a != NULL);
	b = listener_accept(l, 5000, &e);
	REQUIRE(b != NULL);
	CHECK(!strncmp(b->name, uri, strlen(uri)) && strstr(b->name, "process"));
	check_two_way(a, b);
	listener_close(l);
	CHECK(access(uri + 5, F_OK) == -1);
}

static void only_a_dead_socket_file_is_replaced(void)
{
	char *uri = in_dir("unix:", "sock"), *path = uri + 5;
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct listener *l;

	snprintf(un.sun_path, sizeof(un.sun_path), "%s", path);
	REQUIRE(bind(fd, (struct sockaddr *)&un, sizeof(un)) == 0 && listen(fd, 1) == 0);
	CHECK(!open_listener(uri) && e.status == ST_SOCKET && e.sys == EADDRINUSE && e.hint[0]);
	close(fd); /* and the file stays, as after a kill */
	l = open_listener(uri);
	REQUIRE(l != NULL);
	CHECK(!open_listener(uri) && e.sys == EADDRINUSE);
	/* Somebody else's file under the name is not ours to remove. */
	CHECK(unlink(path) == 0 && spew(path, "mine"));
	listener_close(l);
	CHECK_STR(slurp(path), "mine");
	CHECK(!open_listener(uri) && e.sys == EADDRINUSE);
	CHECK_STR(slurp(path), "mine");
	unlink(path);
	CHECK(!open_listener("unix:/nonexistent/sock") && e.sys == ENOENT);
}

static void a_full_queue_is_waited_for(void)
{
	char *uri = in_dir("unix:", "full");
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), s;
	struct transport *first, *second, *third;

	snprintf(un.sun_path, sizeof(un.sun_path), "%s", uri + 5);
	REQUIRE(bind(fd, (struct sockaddr *)&un, sizeof(un)) == 0 && listen(fd, 0) == 0);
	first = dial(true, 0, "%s", uri);
	second = dial(true, 0, "%s", uri);
	CHECK(first && !second && e.status == ST_CONNECT && e.sys == ETIMEDOUT);
	s = accept(fd, NULL, NULL);
	third = dial(true, 5000, "%s", uri);
	CHECK(third != NULL);
	transport_close(first, &e);
	transport_close(second, &e);
	transport_close(third, &e);
	close(s);
	close(fd);
	unlink(uri + 5);
}

/* --- vsock: only with the loopback device can two ends meet on one machine --- */

static void vsock_connects_or_says_what_is_missing(void)
{
	struct listener *l = open_listener("vsock:1:0");
	struct transport *a, *b;

	if (!l) {
		CHECK(e.status == ST_SOCKET && strstr(e.msg, "vsock:1:0"));
		CHECK(strstr(e.hint, "vsock") != NULL);
		CHECK(!dial(true, 100, "vsock:1:1") && e.status == ST_CONNECT);
		CHECK(strstr(e.msg, "vsock:1:1") && strstr(e.hint, "vsock"));
		return;
	}
	CHECK(!strncmp(listener_uri(l), "vsock:1:", 8) && strcmp(listener_uri(l), "vsock:1:0"));
	a = dial(true, 5000, "%s", listener_uri(l));
	b = a ? listener_accept(l, 5000, &e) : NULL;
	REQUIRE(a && b);
	CHECK(!strncmp(b->name, "vsock:1:", 8));
	check_two_way(a, b);
	listener_close(l);
}

/* --- fd --- */

static void a_socket_as_fd_is_two_way_and_keeps_its_flags(void)
{
	struct transport *a, *b;
	int p[2], copy;

	REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, p) == 0);
	copy = dup(p[0]);
	a = dial(true, -1, "fd:%d", p[0]);
	b = dial(false, -1, "fd:%d", p[1]);
	REQUIRE(a && b);
	CHECK(transport_raw_wfd(a) == -1);
	CHECK(!(fcntl(copy, F_GETFL) & O_NONBLOCK));
	close(copy);
	check_two_way(a, b);
	CHECK(fcntl(p[0], F_GETFD) == -1 && fcntl(p[1], F_GETFD) == -1);
}

static void a_pipe_as_fd_has_a_direction(void)
{
	struct transport *a, *b;
	int p[2];

	REQUIRE(pipe(p) == 0);
	CHECK(!dial(false, -1, "fd:%d", p[1]) && e.status == ST_USAGE);
	CHECK(strstr(e.msg, "open for writing only") != NULL);
	CHECK(!dial(true, -1, "fd:%d", p[0]) && e.status == ST_USAGE);
	CHECK(strstr(e.msg, "open for reading only") != NULL);
	a = dial(true, -1, "fd:%d", p[1]);
	b = dial(false, -1, "fd:%d", p[0]);
	REQUIRE(a && b);
	CHECK(!a->two_way && !b->two_way && b->end_status == ST_SOCKET);
	CHECK(!(fcntl(p[0], F_GETFL) & O_NONBLOCK) && !(fcntl(p[1], F_GETFL) & O_NONBLOCK));
	CHECK(write_text(a, "ping") && reads_text(b, "ping"));
	CHECK(transport_peek(b, p, 1, &e) == -1 && e.status == ST_UNSUPPORTED);
	CHECK(transport_shutdown_write(a, &e) == 0 && at_end(b));
	transport_close(a, &e);
	transport_close(b, &e);
}

/* More than the pipe holds: the writer has to wait without O_NONBLOCK, in each of the ways. */
static void *drain(void *arg)
{
	struct transport *t = arg;
	static char buf[65536];
	struct error mine;
	size_t sum = 0;
	ssize_t n;

	while ((n = transport_read(t, buf, sizeof(buf), &mine)) > 0)
		sum += (size_t)n;
	return (void *)(n < 0 ? (size_t)0 : sum);
}

static void pass_through_pipe(enum io_kind kind)
{
	static char data[1000000];
	size_t left = sizeof(data);
	struct transport *a, *b;
	pthread_t th;
	void *sum;
	int p[2];

	REQUIRE(pipe(p) == 0);
	a = dial(true, -1, "fd:%d", p[1]);
	b = dial(false, -1, "fd:%d", p[0]);
	REQUIRE(a && b);
	CHECK(a->wkind == IO_SHARED && b->rkind == IO_SHARED);
	a->wkind = b->rkind = kind;
	REQUIRE(pthread_create(&th, NULL, drain, b) == 0);
	while (left) {
		struct iovec iov[2] = { { data, 0 }, { data, left } };
		ssize_t n = transport_writev(a, iov, 2, &e);

		CHECK(n > 0);
		if (n <= 0)
			break;
		left -= (size_t)n;
	}
	CHECK(transport_shutdown_write(a, &e) == 0);
	pthread_join(th, &sum);
	CHECK((size_t)sum == sizeof(data));
	transport_close(a, &e);
	transport_close(b, &e);
}

static void a_shared_pipe_never_blocks(void)
{
	pass_through_pipe(IO_SHARED);
	pass_through_pipe(IO_POLLED);
}

static void a_missing_fd_is_named(void)
{
	char pid[32];

	CHECK(!dial(true, -1, "fd:999") && e.status == ST_USAGE);
	CHECK_STR(e.msg, "fd:999: descriptor 999 was not passed to this process");
	/* one of our own, which a child would not have inherited */
	CHECK(!dial(true, -1, "fd:%d", token.fd) && e.status == ST_USAGE);
	snprintf(pid, sizeof(pid), "%d", (int)getpid());
	setenv("LISTEN_FDS", "1", 1);
	setenv("LISTEN_PID", pid, 1);
	CHECK(!open_listener("fd:999") && strstr(e.hint, "LISTEN_FDS=1"));
	setenv("LISTEN_PID", "1", 1);
	CHECK(!open_listener("fd:999") && strstr(e.hint, "process 1,"));
	unsetenv("LISTEN_FDS");
	unsetenv("LISTEN_PID");
}

static void a_listening_fd_is_listened_on(void)
{
	struct sockaddr_in in = { .sin_family = AF_INET };
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	struct transport *a, *b;
	struct listener *l;
	char text[32];
	struct uri u;

	in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	snprintf(text, sizeof(text), "fd:%d", fd);
	REQUIRE(bind(fd, (struct sockaddr *)&in, sizeof(in)) == 0);
	REQUIRE(uri_parse(&u, text, &e) == 0);
	CHECK(!listener_possible(&u) && !open_listener(text) && e.status == ST_USAGE);
	CHECK(!dial(true, -1, "%s", text) && strstr(e.msg, "not connected"));
	REQUIRE(listen(fd, 1) == 0);
	CHECK(listener_possible(&u));
	CHECK(!dial(true, -1, "%s", text) && strstr(e.msg, "listening socket"));
	uri_free(&u);
	l = open_listener(text);
	REQUIRE(l != NULL);
	CHECK(!strncmp(listener_uri(l), "tcp:127.0.0.1:", 14));
	a = dial(true, 5000, "%s", listener_uri(l));
	b = a ? listener_accept(l, 5000, &e) : NULL;
	REQUIRE(a && b);
	check_two_way(a, b);
	listener_close(l);
}

static void a_file_as_fd_ends_as_data(void)
{
	int fd = memfd_create("f", 0);
	struct transport *t;

	REQUIRE(fd >= 0 && write(fd, "abc", 3) == 3 && lseek(fd, 0, SEEK_SET) == 0);
	t = dial(false, -1, "fd:%d", fd);
	REQUIRE(t != NULL);
	CHECK(t->end_status == ST_DATA && reads_text(t, "abc") && at_end(t));
	transport_close(t, &e);
}

/* --- exec --- */

static void a_command_is_spoken_with(void)
{
	struct transport *t = dial(true, -1, "exec:cat; echo end");

	REQUIRE(t != NULL);
	CHECK(t->two_way);
	CHECK(write_text(t, "ping") && reads_text(t, "ping"));
	CHECK(transport_shutdown_write(t, &e) == 0);
	CHECK(reads_text(t, "end\n") && at_end(t));
	CHECK(transport_close(t, &e) == 0);
}

static void a_failed_command_gives_its_status(void)
{
	struct transport *t = dial(false, -1, "exec:echo x; exit 3");
	char c;

	REQUIRE(t != NULL);
	CHECK(reads_text(t, "x\n"));
	CHECK(transport_read(t, &c, 1, &e) == -1 && e.status == ST_SOCKET);
	CHECK_STR(e.msg, "echo x; exit 3 exited with status 3");
	err_clear(&e);
	CHECK(transport_close(t, &e) == -1 && e.status == ST_SOCKET);
	CHECK_STR(e.msg, "echo x; exit 3 exited with status 3");
	t = dial(true, -1, "exec:cat >/dev/null; kill -15 $$");
	REQUIRE(t != NULL);
	CHECK(write_text(t, "data") && transport_shutdown_write(t, &e) == 0);
	CHECK(transport_close(t, &e) == -1 && strstr(e.msg, "killed by signal 15"));
}

static void a_command_finishes_its_work_after_the_end(void)
{
	char *path = in_dir("", "out");
	struct transport *t =
		dial(true, -1, "exec:cat >%s.tmp; sleep .2; mv %s.tmp %s", path, path, path);

	REQUIRE(t != NULL);
	CHECK(write_text(t, "data") && transport_shutdown_write(t, &e) == 0);
	CHECK(transport_close(t, &e) == 0);
	CHECK_STR(slurp(path), "data");
	unlink(path);
}

static void a_reader_may_leave_a_command_early(void)
{
	struct transport *t = dial(false, -1, "exec:yes 2>/dev/null");

	REQUIRE(t != NULL);
	CHECK(reads_text(t, "y\ny\n"));
	CHECK(transport_close(t, &e) == 0);
}

/* What is incomplete must not end like what is complete: the command is ended, not its input. */
static void a_command_does_not_see_the_end_of_a_failed_stream(void)
{
	char *path = in_dir("", "out");
	struct transport *t = dial(true, -1, "exec:cat >/dev/null; echo done >%s", path);

	REQUIRE(t != NULL);
	CHECK(write_text(t, "data"));
	CHECK(transport_close(t, &e) == 0);
	CHECK(slurp(path) == NULL);
}

static void an_aborted_command_is_ended_with_its_children(void)
{
	struct transport *t = dial(true, -1, "exec:trap '' TERM; echo $$; sleep 1000 | sleep 1000");
	char buf[32] = "";
	pid_t pid;
	int rc = 0;

	REQUIRE(t && transport_read(t, buf, sizeof(buf) - 1, &e) > 0);
	pid = atoi(buf);
	CHECK(pid > 0 && kill(-pid, 0) == 0);
	transport_abort(t);
	CHECK(transport_close(t, &e) == 0);
	for (int i = 0; i < 500 && !rc; i++) { /* orphans are reaped by init, in its time */
		rc = kill(-pid, 0);
		poll(NULL, 0, rc ? 0 : 10);
	}
	CHECK(kill(pid, 0) == -1);
}

/* In a session with a terminal of its own: what went wrong, on fd 1's pipe. */
static _Noreturn void ask_the_terminal(int pty, int out)
{
	struct transport *t;
	char c;

	setsid();
	ioctl(open(ptsname(pty), O_RDWR | O_CLOEXEC), TIOCSCTTY, 0);
	t = dial(false, -1, "exec:cat </dev/tty");
	if (t && transport_read(t, &c, 1, &e) < 0)
		dprintf(out, "%s", e.msg);
	if (t)
		transport_close(t, &e);
	_exit(0);
}

static void a_command_that_needs_the_terminal_is_noticed(void)
{
	int pty = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC), out[2];
	char buf[256] = "";
	size_t len = 0;
	ssize_t n;
	pid_t pid;

	REQUIRE(pty >= 0 && !grantpt(pty) && !unlockpt(pty) && !pipe2(out, O_CLOEXEC));
	fflush(stdout);
	pid = fork();
	if (pid == 0)
		ask_the_terminal(pty, out[1]);
	close(out[1]);
	while ((n = read(out[0], buf + len, sizeof(buf) - 1 - len)) > 0)
		len += (size_t)n;
	CHECK_STR(buf,
		  "cat </dev/tty wants to ask something on the terminal, which it cannot have");
	CHECK(waitpid(pid, NULL, 0) == pid);
	close(out[0]);
	close(pty);
}

/* --- file --- */

static void a_file_gets_its_name_when_it_is_complete(void)
{
	char *uri = in_dir("file:", "out"), *path = uri + 5, *part = in_dir("", "out.part");
	struct transport *t = dial(true, -1, "%s", uri);

	REQUIRE(t != NULL);
	CHECK(!t->two_way);
	CHECK(write_text(t, "data") && access(path, F_OK) == -1);
	CHECK_STR(slurp(part), "data");
	CHECK(transport_shutdown_write(t, &e) == 0);
	CHECK(access(part, F_OK) == -1);
	CHECK_STR(slurp(path), "data");
	CHECK(transport_close(t, &e) == 0);
	t = dial(false, -1, "%s", uri);
	REQUIRE(t != NULL);
	CHECK(t->end_status == ST_DATA && reads_text(t, "data") && at_end(t));
	transport_close(t, &e);
	CHECK(!dial(true, -1, "%s", uri) && e.status == ST_FILE && e.hint[0]);
	CHECK(strstr(e.msg, "exists and is not empty") != NULL);
	CHECK_STR(slurp(path), "data");
	unlink(path);
}

static void an_incomplete_file_leaves_nothing(void)
{
	char *uri = in_dir("file:", "out"), *path = uri + 5, *part = in_dir("", "out.part");
	struct transport *t = dial(true, -1, "%s", uri);

	REQUIRE(t != NULL);
	CHECK(write_text(t, "data"));
	CHECK(transport_close(t, &e) == 0);
	CHECK(access(path, F_OK) == -1 && access(part, F_OK) == -1);
	t = dial(true, -1, "%s", uri);
	REQUIRE(t && write_text(t, "data"));
	transport_abort(t);
	CHECK(transport_shutdown_write(t, &e) == -1 && e.status == ST_SOCKET);
	transport_close(t, &e);
	CHECK(access(path, F_OK) == -1 && access(part, F_OK) == -1);
}

static void a_file_replaces_only_what_is_empty(void)
{
	char *uri = in_dir("file:", "out"), *path = uri + 5, *part = in_dir("", "out.part");
	struct transport *t, *other;

	CHECK(spew(path, "") && spew(part, "left over by a killed run"));
	t = dial(true, -1, "%s", uri);
	REQUIRE(t != NULL);
	other = dial(true, -1, "%s", uri);
	CHECK(!other && e.status == ST_FILE && strstr(e.msg, "another process"));
	CHECK(write_text(t, "new") && transport_shutdown_write(t, &e) == 0);
	transport_close(t, &e);
	CHECK_STR(slurp(path), "new");
	unlink(path);
	/* It appears while we write. */
	t = dial(true, -1, "%s", uri);
	REQUIRE(t && write_text(t, "ours") && spew(path, "theirs"));
	CHECK(transport_shutdown_write(t, &e) == -1 && e.status == ST_FILE && e.sys == EEXIST);
	CHECK_STR(slurp(path), "theirs");
	transport_close(t, &e);
	CHECK(access(part, F_OK) == -1);
	unlink(path);
	CHECK(!dial(true, -1, "file:/nonexistent/x") && e.status == ST_FILE && e.sys == ENOENT);
	CHECK(!dial(false, -1, "file:/nonexistent/x") && e.status == ST_FILE && e.sys == ENOENT);
	CHECK(!dial(false, -1, "file:%s", dir) && e.sys == EISDIR);
	CHECK(!dial(true, -1, "file:%s", dir) && e.sys == EISDIR);
	t = dial(true, -1, "file:/dev/full");
	REQUIRE(t != NULL);
	CHECK(!write_text(t, "x") && e.sys == ENOSPC && strstr(e.msg, "/dev/full"));
	transport_close(t, &e);
	CHECK(access("/dev/full.part", F_OK) == -1);
}

struct opener {
	const char *uri;
	bool writer;
	struct transport *t;
};

static void *open_later(void *arg)
{
	struct opener *o = arg;
	struct error mine;
	struct uri u;

	poll(NULL, 0, 30);
	if (!uri_parse(&u, o->uri, &mine)) {
		o->t = transport_dial(&u, o->writer, 5000, &token, &mine);
		uri_free(&u);
	}
	return NULL;
}

static void a_fifo_waits_for_its_other_end(void)
{
	char *uri = in_dir("file:", "fifo");
	struct transport *r, *w;

	REQUIRE(mkfifo(uri + 5, 0600) == 0);
	CHECK(!dial(true, 20, "%s", uri) && e.status == ST_CONNECT);
	CHECK(!dial(false, 20, "%s", uri) && e.status == ST_CONNECT);
	for (int i = 0; i < 2; i++) {
		struct opener o = { uri, true, NULL };
		pthread_t th;

		/* A reader's dial waits for the first byte, so here it is the reader that is there.
		 */
		int rfd = open(uri + 5, O_RDONLY | O_NONBLOCK | O_CLOEXEC);

		REQUIRE(rfd >= 0 && pthread_create(&th, NULL, open_later, &o) == 0);
		pthread_join(th, NULL);
		w = o.t;
		REQUIRE(w && write_text(w, "x"));
		r = dial(false, 5000, "%s", uri);
		close(rfd);
		REQUIRE(r && reads_text(r, "x"));
		CHECK(transport_shutdown_write(w, &e) == 0 && at_end(r));
		transport_close(w, &e);
		transport_close(r, &e);
	}
	unlink(uri + 5);
}

/* --- stdio, null --- */

struct saved {
	int in, out;
};

static struct saved replace_stdio(int in, int out)
{
	struct saved s = { fcntl(0, F_DUPFD_CLOEXEC, 3), fcntl(1, F_DUPFD_CLOEXEC, 3) };

	fflush(stdout);
	dup2(in, 0);
	dup2(out, 1);
	return s;
}

static void restore_stdio(struct saved s)
{
	fflush(stdout);
	dup2(s.in, 0);
	dup2(s.out, 1);
	close(s.in);
	close(s.out);
}

static void stdio_is_moved_away(void)
{
	int in[2], out[2], null = open("/dev/null", O_RDWR | O_CLOEXEC);
	struct transport *two, *one, *file;
	struct saved s;
	char buf[8] = "";

	REQUIRE(pipe2(in, O_CLOEXEC) == 0 && pipe2(out, O_CLOEXEC) == 0);
	s = replace_stdio(in[0], out[1]);
	two = dial(true, -1, "stdio:");
	printf("stray\n");
	fflush(stdout);
	dup2(null, 0);
	dup2(out[1], 1);
	one = dial(true, -1, "stdio:");
	dup2(in[1], 0); /* a pipe's wrong end */
	file = dial(false, -1, "stdio:");
	restore_stdio(s);
	REQUIRE(two && one);
	CHECK(!file && e.status == ST_USAGE && strstr(e.msg, "standard input"));
	CHECK(two->two_way && !one->two_way && two->end_status == ST_DATA);
	close(in[0]);
	close(out[1]);
	CHECK(write(in[1], "ping", 4) == 4 && reads_text(two, "ping"));
	CHECK(write_text(two, "pong") && write_text(one, "!"));
	CHECK(transport_close(two, &e) == 0 && transport_close(one, &e) == 0);
	CHECK(read(out[0], buf, sizeof(buf) - 1) == 5);
	CHECK_STR(buf, "pong!");
	close(in[1]);
	close(out[0]);
	close(null);
}

static void null_takes_everything(void)
{
	struct iovec iov[2] = { { (void *)"ab", 2 }, { (void *)"cde", 3 } };
	struct transport *a = dial(true, -1, "null:"), *b = dial(true, -1, "null:");

	REQUIRE(a && b);
	CHECK(!a->two_way && transport_raw_wfd(a) == -1);
	CHECK(transport_writev(a, iov, 2, &e) == 5 && transport_writev(b, iov, 1, &e) == 2);
	CHECK(transport_read(a, iov, 1, &e) == -1 && e.status == ST_UNSUPPORTED);
	transport_abort(a);
	CHECK(transport_writev(a, iov, 2, &e) == -1);
	CHECK(transport_shutdown_write(b, &e) == 0);
	transport_close(a, &e);
	transport_close(b, &e);
	CHECK(!dial(false, -1, "null:") && e.status == ST_USAGE);
}

/* --- stopping --- */

struct stopped {
	struct transport *t;
	bool writer;
	int rc;
	struct error why;
};

static void *stuck(void *arg)
{
	static char data[65536];
	struct stopped *s = arg;
	struct iovec iov = { data, sizeof(data) };

	do
		s->rc = (int)(s->writer ? transport_writev(s->t, &iov, 1, &s->why)
					: transport_read(s->t, data, sizeof(data), &s->why));
	while (s->rc > 0);
	return NULL;
}

/* A thread that waits on each kind of descriptor is stopped, and says why. */
static void stop_one(bool writer, bool use_socket, bool abort_it)
{
	struct error why;
	struct cancel mine;
	struct stopped s = { .writer = writer };
	pthread_t th;
	int p[2];

	REQUIRE(cancel_init(&mine, &e) == 0);
	REQUIRE((use_socket ? socketpair(AF_UNIX, SOCK_STREAM, 0, p) : pipe(p)) == 0);
	s.t = transport_from_fd(writer ? -1 : p[0], writer ? p[1] : -1, "stuck", &mine, &e);
	REQUIRE(s.t && pthread_create(&th, NULL, stuck, &s) == 0);
	poll(NULL, 0, 20);
	if (abort_it) {
		transport_abort(s.t);
		transport_abort(s.t);
	} else {
		err_set(&why, ST_CANCELLED, "interrupted");
		cancel_fire(&mine, &why);
	}
	pthread_join(th, NULL);
	CHECK(s.rc == -1 && s.why.status == (abort_it ? ST_SOCKET : ST_CANCELLED));
	CHECK_STR(s.why.msg, abort_it ? "the connection to stuck was given up" : "interrupted");
	CHECK(transport_read(s.t, p, 1, &e) == -1);
	transport_close(s.t, &e);
	close(p[writer ? 0 : 1]);
	cancel_destroy(&mine);
}

static void abort_and_cancel_end_what_waits(void)
{
	for (int i = 0; i < 8; i++)
		stop_one(i & 1, i & 2, i & 4);
}

static void a_socket_that_blocks_can_be_stopped(void)
{
	struct listener *l = open_listener("tcp:127.0.0.1:0");
	struct transport *a, *b;
	struct stopped s = { 0 };
	pthread_t th;

	REQUIRE(l != NULL);
	a = dial(true, 5000, "%s", listener_uri(l));
	b = listener_accept(l, 5000, &e);
	REQUIRE(a && b);
	transport_be_patient(a);
	CHECK(!(fcntl(a->rfd, F_GETFL) & O_NONBLOCK) && transport_raw_wfd(a) == -1);
	CHECK(write_text(a, "ping") && reads_text(b, "ping"));
	CHECK(write_text(b, "pong") && reads_text(a, "pong"));
	s.t = a;
	REQUIRE(pthread_create(&th, NULL, stuck, &s) == 0);
	poll(NULL, 0, 120); /* it has looked for a stop by then */
	transport_abort(a);
	pthread_join(th, NULL);
	CHECK(s.rc == -1 && s.why.status == ST_SOCKET);
	transport_close(a, &e);
	transport_be_patient(b);
	CHECK(transport_shutdown_write(b, &e) == 0 && at_end(b));
	transport_close(b, &e);
	listener_close(l);
}

static void connecting_can_be_cancelled(void)
{
	char *uri = in_dir("unix:", "full");
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct transport *first, *second;
	struct error why;
	struct cancel mine;
	struct uri u;

	snprintf(un.sun_path, sizeof(un.sun_path), "%s", uri + 5);
	REQUIRE(bind(fd, (struct sockaddr *)&un, sizeof(un)) == 0 && listen(fd, 0) == 0);
	REQUIRE(cancel_init(&mine, &e) == 0 && uri_parse(&u, uri, &e) == 0);
	first = dial(true, 0, "%s", uri);
	err_set(&why, ST_CANCELLED, "interrupted");
	cancel_fire(&mine, &why);
	second = transport_dial(&u, true, -1, &mine, &e);
	CHECK(first && !second && e.status == ST_CANCELLED);
	transport_close(first, &e);
	uri_free(&u);
	cancel_destroy(&mine);
	close(fd);
	unlink(uri + 5);
}

static void a_peek_leaves_the_bytes(void)
{
	char buf[8];
	struct transport *a, *b;
	int p[2];

	REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, p) == 0);
	a = transport_from_fd(p[0], p[0], "a", &token, &e);
	b = transport_from_fd(p[1], p[1], "b", &token, &e);
	REQUIRE(a && b);
	CHECK(transport_peek(b, buf, 8, &e) == 0);
	CHECK(write_text(a, "abc"));
	CHECK(transport_peek(b, buf, 8, &e) == 3 && !memcmp(buf, "abc", 3));
	CHECK(transport_peek(b, buf, 2, &e) == 2);
	CHECK(reads_text(b, "abc"));
	transport_close(a, &e);
	CHECK(transport_peek(b, buf, 8, &e) == -1 && e.status == ST_SOCKET);
	transport_close(b, &e);
}

static void long_names_are_cut(void)
{
	char text[400];
	struct transport *t;

	memset(text, 'x', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	t = transport_from_fd(-1, -1, text, &token, &e);
	REQUIRE(t != NULL);
	CHECK(strlen(t->name) == sizeof(t->name) - 1 && strstr(t->name, "xx..."));
	transport_close(t, &e);
	CHECK(transport_close(NULL, &e) == 0);
	listener_close(NULL);
}

static void setup(void)
{
	signal(SIGPIPE, SIG_IGN);
	REQUIRE(cancel_init(&token, &e) == 0 && mkdtemp(dir) != NULL);
}

static void teardown(void)
{
	cancel_destroy(&token);
	CHECK(rmdir(dir) == 0);
}

static const struct test_case cases[] = {
	{ "a token and a directory are there for the cases", setup },
	{ "tcp speaks IPv4 and IPv6", tcp_speaks_ipv4_and_ipv6 },
	{ "any address takes IPv4 and IPv6", any_address_takes_ipv4_and_ipv6 },
	{ "a taken port is refused", a_taken_port_is_refused },
	{ "nobody listening is said with a hint", nobody_listening_is_said_with_a_hint },
	{ "nobody connecting ends in a time-out", nobody_connecting_ends_in_a_time_out },
	{ "unix sockets connect", unix_sockets_connect },
	{ "only a dead socket file is replaced", only_a_dead_socket_file_is_replaced },
	{ "a full queue is waited for", a_full_queue_is_waited_for },
	{ "vsock connects or says what is missing", vsock_connects_or_says_what_is_missing },
	{ "a socket as fd is two-way and keeps its flags",
	  a_socket_as_fd_is_two_way_and_keeps_its_flags },
	{ "a pipe as fd has a direction", a_pipe_as_fd_has_a_direction },
	{ "a shared pipe never blocks", a_shared_pipe_never_blocks },
	{ "a missing fd is named", a_missing_fd_is_named },
	{ "a listening fd is listened on", a_listening_fd_is_listened_on },
	{ "a file as fd ends as data", a_file_as_fd_ends_as_data },
	{ "a command is spoken with", a_command_is_spoken_with },
	{ "a failed command gives its status", a_failed_command_gives_its_status },
	{ "a command finishes its work after the end", a_command_finishes_its_work_after_the_end },
	{ "a reader may leave a command early", a_reader_may_leave_a_command_early },
	{ "a command does not see the end of a failed stream",
	  a_command_does_not_see_the_end_of_a_failed_stream },
	{ "an aborted command is ended with its children",
	  an_aborted_command_is_ended_with_its_children },
	{ "a command that needs the terminal is noticed",
	  a_command_that_needs_the_terminal_is_noticed },
	{ "a file gets its name when it is complete", a_file_gets_its_name_when_it_is_complete },
	{ "an incomplete file leaves nothing", an_incomplete_file_leaves_nothing },
	{ "a file replaces only what is empty", a_file_replaces_only_what_is_empty },
	{ "a FIFO waits for its other end", a_fifo_waits_for_its_other_end },
	{ "stdio is moved away", stdio_is_moved_away },
	{ "null takes everything", null_takes_everything },
	{ "abort and cancel end what waits", abort_and_cancel_end_what_waits },
	{ "a socket that blocks can be stopped", a_socket_that_blocks_can_be_stopped },
	{ "connecting can be cancelled", connecting_can_be_cancelled },
	{ "a peek leaves the bytes", a_peek_leaves_the_bytes },
	{ "long names are cut", long_names_are_cut },
	{ "the directory is empty again", teardown },
};
TEST_MAIN(cases)
