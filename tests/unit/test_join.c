// SPDX-License-Identifier: GPL-2.0-or-later
#include "test.h"

#include "broker.h"
#include "join.h"
#include "pending.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

static struct cancel token;
static struct error e;
static struct listener *l;
static struct pending *p;
static char id[33];

static const char hello[JOIN_FIRST] = "\x11\x22\x33\x44\0\0\0\1the first packet";

/* A `migtool join` whose stdin and stdout are `fds`; its exit status is join_hand_over's. */
static pid_t join_with(const int fds[2], const char *name)
{
	pid_t pid;

	fflush(stdout); /* the thread sanitizer's _exit() writes it out, and 1 is the peer's there
			 */
	pid = fork();
	if (pid == 0) {
		struct error why;

		dup2(fds[0], 0);
		dup2(fds[1], 1);
		for (int fd = 3; fd < 64; fd++)
			close(fd);
		_exit(join_hand_over(name, &why) ? (int)why.status : 0);
	}
	return pid;
}

static int status_of(pid_t pid)
{
	int w = -1;

	waitpid(pid, &w, 0);
	return WIFEXITED(w) ? WEXITSTATUS(w) : -1;
}

static bool runs(pid_t pid)
{
	return waitpid(pid, NULL, WNOHANG) == 0;
}

/* Both directions work, the first packet is read again, and join lasts as long as the transport. */
static void hand_over(const int theirs[2], int my_out, int my_in)
{
	pid_t pid = join_with(theirs, id);
	struct iovec iov = { (void *)"back", 4 };
	uint8_t first[8], got[JOIN_FIRST + 5];
	struct transport *t = NULL;
	size_t n = 0;

	close(theirs[0]);
	if (theirs[1] != theirs[0])
		close(theirs[1]);
	CHECK(write(my_out, hello, sizeof(hello)) == sizeof(hello));
	CHECK(write(my_out, "pages", 5) == 5);
	CHECK(pending_next(p, 5000, first, &t, &e) == 1);
	REQUIRE(t);
	CHECK(t->two_way && !memcmp(first, hello, 8));
	while (n < sizeof(got)) {
		ssize_t r = transport_read(t, got + n, sizeof(got) - n, &e);

		REQUIRE(r > 0);
		n += (size_t)r;
	}
	CHECK(!memcmp(got, hello, sizeof(hello)) && !memcmp(got + JOIN_FIRST, "pages", 5));
	CHECK(transport_writev(t, &iov, 1, &e) == 4);
	CHECK(read(my_in, got, sizeof(got)) == 4 && !memcmp(got, "back", 4));
	CHECK(runs(pid));
	transport_close(t, &e);
	CHECK(status_of(pid) == 0);
	CHECK(read(my_in, got, sizeof(got)) == 0); /* nobody else holds it */
}

static void a_connection_is_handed_over(void)
{
	int pair[2], there[2], back[2];

	REQUIRE(!broker_socketpair(pair));
	hand_over((int[2]){ pair[1], pair[1] }, pair[0], pair[0]);
	close(pair[0]);
	/* some sshds give pipes */
	REQUIRE(!pipe2(there, O_CLOEXEC) && !pipe2(back, O_CLOEXEC));
	hand_over((int[2]){ there[0], back[1] }, there[1], back[0]);
	close(there[1]);
	close(back[0]);
}

static void one_that_ends_before_its_first_packet_is_not(void)
{
	int pair[2];
	pid_t pid;

	REQUIRE(!broker_socketpair(pair));
	pid = join_with((int[2]){ pair[1], pair[1] }, id);
	close(pair[1]);
	CHECK(write(pair[0], hello, 63) == 63);
	close(pair[0]);
	CHECK(status_of(pid) == ST_SOCKET);
}

static void a_name_that_nobody_has_is_an_error(void)
{
	int pair[2];
	pid_t pid;

	REQUIRE(!broker_socketpair(pair));
	pid = join_with((int[2]){ pair[1], pair[1] }, "00000000000000000000000000000000");
	close(pair[1]);
	CHECK(write(pair[0], hello, sizeof(hello)) == sizeof(hello));
	CHECK(status_of(pid) == ST_SOCKET);
	close(pair[0]);
}

static int connect_to_it(void)
{
	char name[64];

	snprintf(name, sizeof(name), "migtool-join-%s", id);
	return broker_local_connect(name);
}

/* No descriptors, too few bytes, nothing at all: each is dropped, and the next one is taken. */
static void what_is_no_handing_over_is_dropped(void)
{
	int bare = connect_to_it(), few = connect_to_it(), gone = connect_to_it(), pair[2];
	struct transport *t = NULL;
	uint8_t first[8];
	pid_t pid;

	REQUIRE(bare >= 0 && few >= 0 && gone >= 0 && !broker_socketpair(pair));
	CHECK(write(bare, hello, sizeof(hello)) == sizeof(hello));
	CHECK(write(few, hello, 3) == 3);
	close(gone);
	pid = join_with((int[2]){ pair[1], pair[1] }, id);
	close(pair[1]);
	CHECK(write(pair[0], hello, sizeof(hello)) == sizeof(hello));
	CHECK(pending_next(p, 5000, first, &t, &e) == 1);
	REQUIRE(t);
	transport_close(t, &e);
	CHECK(status_of(pid) == 0);
	CHECK(read(bare, first, 1) == 0 && read(few, first, 1) == 0);
	close(bare);
	close(few);
	close(pair[0]);
}

static int as_nobody(const char *name)
{
	int pair[2];
	pid_t pid;

	if (broker_socketpair(pair) || write(pair[0], hello, sizeof(hello)) != sizeof(hello))
		return -1;
	pid = fork();
	if (pid == 0) {
		struct error why;

		dup2(pair[1], 0);
		dup2(pair[1], 1);
		if (setgid(65534) || setuid(65534))
			_exit(99);
		_exit(join_hand_over(name, &why) ? (int)why.status : 0);
	}
	close(pair[0]);
	close(pair[1]);
	return status_of(pid);
}

static void another_users_process_gets_nothing_and_gives_nothing(void)
{
	struct transport *t = NULL;
	uint8_t first[8];
	char name[64];
	int fd;

	if (geteuid() != 0) /* nobody else to be: what follows is root's to try */
		return;
	/* it sees that this is not its own user's, and says nothing */
	CHECK(as_nobody(id) == ST_REFUSED);
	/* and what it does say is not listened to */
	snprintf(name, sizeof(name), "migtool-join-%s", id);
	if (fork() == 0) {
		if (setgid(65534) || setuid(65534))
			_exit(99);
		fd = broker_local_connect(name);
		_exit(fd < 0 || write(fd, hello, sizeof(hello)) != sizeof(hello));
	}
	CHECK(pending_next(p, 300, first, &t, &e) == 0 && !t);
	CHECK(wait(NULL) > 0);
}

static void a_cancel_ends_the_wait_for_a_message(void)
{
	struct error why = { .status = ST_CANCELLED };
	struct transport *t = NULL;
	uint8_t first[8];
	int fd = connect_to_it();

	REQUIRE(fd >= 0);
	cancel_fire(&token, &why);
	CHECK(pending_next(p, 5000, first, &t, &e) == -1 && e.status == ST_CANCELLED);
	close(fd);
}

static void setup(void)
{
	char other[33];
	struct listener *second;

	REQUIRE(!cancel_init(&token, &e));
	l = listener_open_joins(id, &token, &e);
	REQUIRE(l != NULL);
	p = pending_new(l, &token, &e);
	REQUIRE(p != NULL);
	CHECK(strlen(id) == 32 && strspn(id, "0123456789abcdef") == 32);
	second = listener_open_joins(other, &token, &e);
	CHECK(second && strcmp(id, other));
	listener_close(second);
}

static void teardown(void)
{
	pending_free(p);
	listener_close(l);
	cancel_destroy(&token);
	CHECK(connect_to_it() < 0);
}

static const struct test_case cases[] = {
	{ "a join socket is there for the cases", setup },
	{ "a connection is handed over", a_connection_is_handed_over },
	{ "one that ends before its first packet is not",
	  one_that_ends_before_its_first_packet_is_not },
	{ "a name that nobody has is an error", a_name_that_nobody_has_is_an_error },
	{ "what is no handing over is dropped", what_is_no_handing_over_is_dropped },
	{ "another user's process gets nothing and gives nothing",
	  another_users_process_gets_nothing_and_gives_nothing },
	{ "a cancel ends the wait for a message", a_cancel_ends_the_wait_for_a_message },
	{ "all is closed", teardown },
};
TEST_MAIN(cases)
