// SPDX-License-Identifier: GPL-2.0-or-later
#include "handoff.h"
#include "test.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#define ONE "{\"base_host_virt_addr\":4096,\"size\":8192,\"offset\":0,\"page_size\":4096}"

static int parse(const char *text, size_t n, struct guest_memory *g, struct error *err)
{
	struct guest_space *s;

	guestmem_init(g);
	s = guestmem_add_space(g, -1, 0, err);
	return s ? handoff_parse(text, n, s, err) : -1;
}

static void a_message_is_taken_when_it_is_whole(void)
{
	static const char text[] = " [" ONE ",\n{\"base_host_virt_addr\":1048576,\"size\":4096,"
				   "\"offset\":8192,\"page_size_kib\":4096,\"new\":[\"]\"]}]";
	struct guest_memory g;
	struct error err;

	for (size_t n = 0; n < sizeof(text) - 1; n++) {
		CHECK(parse(text, n, &g, &err) == 0);
		guestmem_free(&g);
	}
	REQUIRE(parse(text, sizeof(text) - 1, &g, &err) == 1);
	REQUIRE(g.spaces[0].nregions == 2);
	CHECK(g.spaces[0].regions[0].address == 4096 && g.spaces[0].regions[0].len == 8192);
	CHECK(g.spaces[0].regions[1].offset == 8192 && g.spaces[0].regions[1].page == 4096);
	guestmem_free(&g);
}

static void each_process_has_its_number(void)
{
	int ours = (int)syscall(SYS_pidfd_open, getpid(), 0), file = memfd_create("none", 0);
	int again = (int)syscall(SYS_pidfd_open, getpid(), 0);
	int other = (int)syscall(SYS_pidfd_open, getppid(), 0);
	uint64_t n = guestmem_process(ours);

	CHECK(ours >= 0 && other >= 0 && file >= 0);
	CHECK(guestmem_process(again) == n);
	CHECK(!n || guestmem_process(other) != n);
	CHECK(!guestmem_process(file) && !guestmem_process(-1));
	close(ours);
	close(again);
	close(other);
	close(file);
}

static void bad(const char *text, const char *word)
{
	struct guest_memory g;
	struct error err = { 0 };

	CHECK(parse(text, strlen(text), &g, &err) == -1);
	CHECK(err.status == ST_DATA);
	if (!strstr(err.msg, word))
		CHECK_STR(err.msg, word);
	guestmem_free(&g);
}

static void what_is_no_message(void)
{
	char *many = malloc(GUEST_REGIONS_MAX * 100 + 100);
	size_t n = 0;

	bad("{}", "no JSON array");
	bad("GET /", "no JSON array");
	bad("[]", "no region");
	bad("[1]", "no object");
	bad("[}", "expected");
	bad("[{\"size\":1,\"offset\":0,\"page_size\":1}]", "base_host_virt_addr");
	bad("[{\"base_host_virt_addr\":-1,\"size\":1,\"offset\":0,\"page_size\":1}]",
	    "base_host_virt_addr");
	bad("[{\"base_host_virt_addr\":1,\"offset\":0,\"page_size\":1}]", "size");
	bad("[{\"base_host_virt_addr\":1,\"size\":1.5,\"offset\":0,\"page_size\":1}]", "size");
	bad("[{\"base_host_virt_addr\":1,\"size\":1,\"page_size\":1}]", "offset");
	bad("[{\"base_host_virt_addr\":1,\"size\":1,\"offset\":0}]", "page_size");
	bad("[{\"base_host_virt_addr\":1,\"size\":1,\"offset\":0,\"page_size\":99999999999}]",
	    "page_size");
	bad("[[[[[[[1]]]]]]]", "more values");
	REQUIRE(many);
	many[n++] = '[';
	for (int i = 0; i <= GUEST_REGIONS_MAX; i++)
		n += (size_t)sprintf(many + n, "%s" ONE, i ? "," : "");
	strcpy(many + n, "]");
	bad(many, "4096 regions");
	free(many);
}

/* A message with descriptors that are none, through a socket. */
static void descriptors_that_are_no_userfaultfd(void)
{
	char control[CMSG_SPACE(sizeof(int))] = { 0 };
	struct iovec iov = { (void *)"[" ONE "]", sizeof("[" ONE "]") - 1 };
	struct msghdr msg = { .msg_iov = &iov,
			      .msg_iovlen = 1,
			      .msg_control = control,
			      .msg_controllen = sizeof(control) };
	struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
	int pair[2], fd = memfd_create("no uffd", MFD_CLOEXEC), before, after;
	struct guest_memory g;
	struct cancel cancel;
	struct error err;

	REQUIRE(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair));
	REQUIRE(!cancel_init(&cancel, &err));
	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(fd));
	memcpy(CMSG_DATA(c), &fd, sizeof(fd));
	REQUIRE(sendmsg(pair[0], &msg, 0) > 0);
	before = dup(0);
	close(before);
	CHECK(handoff_take(pair[1], &cancel, &g, &err) == -1);
	CHECK(err.status == ST_DATA && strstr(err.msg, "is a userfaultfd"));
	CHECK(g.nspaces == 0 && g.peer < 0);
	after = dup(0);
	CHECK(after == before); /* nothing was left open */
	close(after);
	close(pair[0]);
	close(pair[1]);
	close(fd);
	cancel_destroy(&cancel);
}

static const struct test_case cases[] = {
	{ "each process has a number of its own", each_process_has_its_number },
	{ "a message is taken when it is whole", a_message_is_taken_when_it_is_whole },
	{ "what is no message is refused", what_is_no_message },
	{ "descriptors that are no userfaultfd are refused and closed",
	  descriptors_that_are_no_userfaultfd },
};

TEST_MAIN(cases)
