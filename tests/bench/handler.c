// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The smallest page-fault handlers there can be, for comparing times: one thread, one region, 4 KiB
 * pages, nothing in the background, no end but the guest's.
 *
 *   handler image SOCKET FILE    a fault is read, its page too (pread), and placed
 *   handler net SOCKET PORT      the page is asked for over TCP, on loopback
 *   handler pages FILE           the other end: prints its port, answers one connection
 *   handler ticks                prints how often the time stamp counter counts in a microsecond
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096u

static char page[PAGE];

static _Noreturn void die(const char *what)
{
	fprintf(stderr, "handler: %s: %s\n", what, strerror(errno));
	exit(2);
}

/* ---- where pages come from ---- */

static int image = -1, sock = -1;

static void from_image(uint64_t offset)
{
	if (pread(image, page, PAGE, (off_t)offset) != PAGE)
		die("pread");
}

static void from_net(uint64_t offset)
{
	if (send(sock, &offset, sizeof(offset), 0) != sizeof(offset) ||
	    recv(sock, page, PAGE, MSG_WAITALL) != PAGE)
		die("page");
}

static int tcp(uint16_t port, struct sockaddr_in *a)
{
	int s = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;

	*a = (struct sockaddr_in){ .sin_family = AF_INET,
				   .sin_port = htons(port),
				   .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	if (s < 0 || setsockopt(s, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)))
		die("socket");
	return s;
}

static int serve_pages(const char *file)
{
	struct sockaddr_in a;
	socklen_t len = sizeof(a);
	int l = tcp(0, &a), one = 1;
	uint64_t offset;

	image = open(file, O_RDONLY);
	if (image < 0 || bind(l, (struct sockaddr *)&a, len) || listen(l, 1) ||
	    getsockname(l, (struct sockaddr *)&a, &len))
		die(file);
	printf("%u\n", ntohs(a.sin_port));
	fflush(stdout);
	sock = accept(l, NULL, NULL);
	if (sock < 0 || setsockopt(sock, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)))
		die("accept");
	while (recv(sock, &offset, sizeof(offset), MSG_WAITALL) == sizeof(offset)) {
		from_image(offset);
		if (send(sock, page, PAGE, MSG_NOSIGNAL) != PAGE)
			break;
	}
	return 0;
}

/* ---- the guest ---- */

static int receive_uffd(int vmm, uint64_t *base)
{
	static char text[1 << 16];
	char control[CMSG_SPACE(sizeof(int))];
	struct iovec iov = { text, sizeof(text) - 1 };
	struct msghdr msg = { .msg_iov = &iov,
			      .msg_iovlen = 1,
			      .msg_control = control,
			      .msg_controllen = sizeof(control) };
	const char *p;
	int fd;

	if (recvmsg(vmm, &msg, 0) <= 0 || !CMSG_FIRSTHDR(&msg))
		die("recvmsg");
	memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&msg)), sizeof(fd));
	p = strstr(text, "addr\":");
	*base = p ? strtoull(p + 6, NULL, 10) : 0;
	return fd;
}

static int serve_guest(const char *path, void (*get)(uint64_t offset))
{
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	int l = socket(AF_UNIX, SOCK_STREAM, 0), vmm;
	struct pollfd p[2];
	uint64_t base;

	strncpy(un.sun_path, path, sizeof(un.sun_path) - 1);
	unlink(path);
	if (bind(l, (struct sockaddr *)&un, sizeof(un)) || listen(l, 1))
		die(path);
	printf("ready\n");
	fflush(stdout);
	vmm = accept(l, NULL, NULL);
	p[0] = (struct pollfd){ .fd = receive_uffd(vmm, &base), .events = POLLIN };
	p[1] = (struct pollfd){ .fd = vmm, .events = POLLIN };
	while (poll(p, 2, -1) > 0 && !p[1].revents) {
		struct uffd_msg m;
		struct uffdio_copy c = { .src = (uintptr_t)page, .len = PAGE };

		if (read(p[0].fd, &m, sizeof(m)) != sizeof(m) || m.event != UFFD_EVENT_PAGEFAULT)
			continue;
		c.dst = m.arg.pagefault.address & ~(uint64_t)(PAGE - 1);
		get(c.dst - base);
		ioctl(p[0].fd, UFFDIO_COPY, &c);
	}
	return 0;
}

/* ---- for the probe under QEMU ---- */

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec * 1e6 + (double)ts.tv_nsec / 1000;
}

static int ticks(void)
{
	double start = now();
	uint64_t from = __builtin_ia32_rdtsc();

	usleep(200000);
	printf("%.3f\n", (double)(__builtin_ia32_rdtsc() - from) / (now() - start));
	return 0;
}

int main(int argc, char **argv)
{
	struct sockaddr_in a;

	if (argc == 2 && !strcmp(argv[1], "ticks"))
		return ticks();
	if (argc == 3 && !strcmp(argv[1], "pages"))
		return serve_pages(argv[2]);
	if (argc == 4 && !strcmp(argv[1], "image")) {
		image = open(argv[3], O_RDONLY);
		if (image < 0)
			die(argv[3]);
		return serve_guest(argv[2], from_image);
	}
	if (argc == 4 && !strcmp(argv[1], "net")) {
		sock = tcp((uint16_t)atoi(argv[3]), &a);
		if (connect(sock, (struct sockaddr *)&a, sizeof(a)))
			die("connect");
		return serve_guest(argv[2], from_net);
	}
	fprintf(stderr, "handler: see the head of its source\n");
	return 2;
}
