// SPDX-License-Identifier: GPL-2.0-or-later
/* What is found in a process that was served by somebody who is gone. */
#include "catch-found.h"

#include "test.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define LEN (16u * 4096)

static atomic_bool dropped;

static void *drop(void *memory)
{
	madvise(memory, LEN, MADV_DONTNEED);
	dropped = true;
	return NULL;
}

/* Memory under a userfaultfd that tells of what is dropped, whose one page is there. */
static void *arm(int fd)
{
	struct uffdio_api api = { .api = UFFD_API, .features = UFFD_FEATURE_EVENT_REMOVE };
	struct uffdio_register r = { .mode = UFFDIO_REGISTER_MODE_MISSING };
	struct uffdio_zeropage z = { .mode = 0 };
	void *m = mmap(NULL, LEN, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	r.range.start = z.range.start = (uintptr_t)m;
	r.range.len = LEN;
	z.range.len = 4096;
	if (fd < 0 || m == MAP_FAILED || ioctl(fd, UFFDIO_API, &api) ||
	    ioctl(fd, UFFDIO_REGISTER, &r) || ioctl(fd, UFFDIO_ZEROPAGE, &z))
		_exit(1);
	return m;
}

/* Its thread waits until the event is read, although nothing is registered any more. */
static void wait_for_reader(int say)
{
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	char *m = arm(fd);
	struct uffdio_range all = { (uintptr_t)m, LEN };
	pthread_t t;

	alarm(20);
	if (pthread_create(&t, NULL, drop, m))
		_exit(1);
	/* as long as the event is unread nothing can be placed */
	for (;;) {
		struct uffdio_zeropage z = { .range = { (uintptr_t)m + 4096, 4096 } };

		if (ioctl(fd, UFFDIO_ZEROPAGE, &z) && z.zeropage == -EAGAIN)
			break;
		madvise(m + 4096, 4096, MADV_NORMAL);
	}
	ioctl(fd, UFFDIO_UNREGISTER, &all);
	if (dropped || write(say, "x", 1) != 1)
		_exit(1);
	pthread_join(t, NULL);
	_exit(dropped ? 0 : 1);
}

static void a_thread_whose_event_nobody_read(void)
{
	int p[2], status = -1;
	pid_t pid;
	char c;

	REQUIRE(!pipe(p));
	pid = fork();
	if (pid == 0)
		wait_for_reader(p[1]);
	close(p[1]);
	REQUIRE(pid > 0 && read(p[0], &c, 1) == 1);
	CHECK(waitpid(pid, &status, WNOHANG) == 0);
	catch_found_drain(pid);
	CHECK(waitpid(pid, &status, 0) == pid && WIFEXITED(status) && !WEXITSTATUS(status));
	close(p[0]);
	catch_found_drain(pid); /* one that has ended: nothing */
}

static const struct test_case cases[] = {
	{ "a thread whose event nobody has read goes on", a_thread_whose_event_nobody_read },
};

TEST_MAIN(cases)
