// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What this kernel can do, found out by doing it on a few pages and sockets of our own. A feature
 * bit alone is not believed: filters and policies refuse later calls.
 */
#include "check.h"

#include "broker.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <linux/userfaultfd.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef KVM_CAP_DIRTY_LOG_RING_ACQ_REL
#define KVM_CAP_DIRTY_LOG_RING_ACQ_REL 223 /* Linux 6.1 */
#endif
#ifndef USERFAULTFD_IOC_NEW
#define USERFAULTFD_IOC_NEW _IO(0xaa, 0x00) /* Linux 6.1 */
#endif

/* Some guest memory: pages of a tmpfs file, mapped, and a userfaultfd. */
struct area {
	int uffd;
	int file;
	char *mem;
	size_t page, len;
};

static bool probe_zero_copy(void)
{
	static const int families[] = { AF_INET, AF_INET6 };
	bool can = false;

	for (int i = 0; i < 2 && !can; i++) {
		int one = 1, fd = socket(families[i], SOCK_STREAM | SOCK_CLOEXEC, 0);

		if (fd < 0)
			continue;
		can = !setsockopt(fd, SOL_SOCKET, SO_ZEROCOPY, &one, sizeof(one));
		close(fd);
	}
	return can;
}

static bool probe_dirty_ring(void)
{
	int fd = broker_open("/dev/kvm", O_RDWR, 0);
	bool can;

	if (fd < 0)
		return false;
	can = ioctl(fd, KVM_CHECK_EXTENSION, KVM_CAP_DIRTY_LOG_RING) > 0 ||
	      ioctl(fd, KVM_CHECK_EXTENSION, KVM_CAP_DIRTY_LOG_RING_ACQ_REL) > 0;
	close(fd);
	return can;
}

/* A userfaultfd that sees kernel accesses too, which a guest under KVM makes. -1 with errno. */
static int uffd_open(void)
{
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	int dev, why;

	if (fd >= 0 || errno != EPERM)
		return fd;
	dev = broker_open("/dev/userfaultfd", O_RDWR, 0);
	if (dev < 0) {
		errno = EPERM;
		return -1;
	}
	fd = ioctl(dev, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK);
	why = errno;
	close(dev);
	errno = why;
	return fd;
}

/* All features that this kernel has into *features; -1 with errno if there is no userfaultfd. */
static int uffd_features(uint64_t *features)
{
	struct uffdio_api api = { .api = UFFD_API };
	int fd = uffd_open();
	int r, why;

	if (fd < 0)
		return -1;
	r = ioctl(fd, UFFDIO_API, &api);
	why = errno;
	close(fd);
	errno = why;
	*features = api.features;
	return r;
}

static void area_close(struct area *a)
{
	if (a->mem != MAP_FAILED)
		munmap(a->mem, a->len);
	if (a->file >= 0)
		close(a->file);
	if (a->uffd >= 0)
		close(a->uffd);
}

/* Two pages with nothing in them, and a userfaultfd with these features. -1 with errno. */
static int area_open(struct area *a, uint64_t features)
{
	struct uffdio_api api = { .api = UFFD_API, .features = features };

	a->page = (size_t)sysconf(_SC_PAGESIZE);
	a->len = 2 * a->page;
	a->mem = MAP_FAILED;
	a->uffd = uffd_open();
	a->file = memfd_create("migtool-probe", MFD_CLOEXEC);
	if (a->uffd < 0 || a->file < 0 || ftruncate(a->file, (off_t)a->len))
		return -1;
	a->mem = mmap(NULL, a->len, PROT_READ | PROT_WRITE, MAP_SHARED, a->file, 0);
	return a->mem == MAP_FAILED ? -1 : ioctl(a->uffd, UFFDIO_API, &api);
}

/* Registers the area; returns the ioctls that it then allows, 0 for none, with errno. */
static uint64_t area_register(struct area *a, uint64_t mode)
{
	struct uffdio_register reg = {
		.range = { .start = (uintptr_t)a->mem, .len = a->len },
		.mode = mode,
	};

	return ioctl(a->uffd, UFFDIO_REGISTER, &reg) ? 0 : reg.ioctls;
}

static enum write_tracking probe_write_tracking(void)
{
	enum write_tracking result = TRACKING_AVAILABLE;
	uint64_t features;
	struct area a;

	if (uffd_features(&features) || !(features & UFFD_FEATURE_PAGEFAULT_FLAG_WP))
		return TRACKING_ABSENT;
	features &= UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_WP_HUGETLBFS_SHMEM;
	if (!area_open(&a, features) &&
	    area_register(&a, UFFDIO_REGISTER_MODE_WP) & 1ULL << _UFFDIO_WRITEPROTECT)
		result = TRACKING_COMPATIBLE;
	area_close(&a);
	return result;
}

static void why_not(struct host_facts *f, const char *what)
{
	if (errno == EPERM)
		snprintf(f->postcopy_reason, sizeof(f->postcopy_reason),
			 "this process may not use userfaultfd: set vm.unprivileged_userfaultfd=1, "
			 "or give it access to /dev/userfaultfd");
	else
		snprintf(f->postcopy_reason, sizeof(f->postcopy_reason), "%s: %s", what,
			 strerror(errno));
}

/* Places a page of data and a zero page, and looks at both. */
static bool place_pages(struct area *a, struct host_facts *f)
{
	char *data =
		mmap(NULL, a->page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct uffdio_copy copy = { .dst = (uintptr_t)a->mem,
				    .src = (uintptr_t)data,
				    .len = a->page };
	struct uffdio_zeropage zero = { .range = { .start = (uintptr_t)a->mem + a->page,
						   .len = a->page } };
	struct uffdio_range all = { .start = (uintptr_t)a->mem, .len = a->len };
	bool ok = false;

	if (data == MAP_FAILED) {
		why_not(f, "no memory for a test page");
		return false;
	}
	memset(data, 0x5a, a->page);
	if (ioctl(a->uffd, UFFDIO_COPY, &copy))
		why_not(f, "this kernel cannot place a page (UFFDIO_COPY)");
	else if (ioctl(a->uffd, UFFDIO_ZEROPAGE, &zero))
		why_not(f, "this kernel cannot place a zero page (UFFDIO_ZEROPAGE)");
	else if (ioctl(a->uffd, UFFDIO_WAKE, &all))
		why_not(f, "this kernel cannot wake a waiting thread (UFFDIO_WAKE)");
	else if (memcmp(a->mem, data, a->page) || a->mem[a->page] || a->mem[a->len - 1])
		snprintf(f->postcopy_reason, sizeof(f->postcopy_reason),
			 "this kernel placed another page than it was given");
	else
		ok = true;
	munmap(data, a->page);
	return ok;
}

static void probe_postcopy(struct host_facts *f)
{
	uint64_t features;
	struct area a;

	f->postcopy_reason[0] = '\0';
	if (uffd_features(&features)) {
		why_not(f, "this kernel has no userfaultfd");
		return;
	}
	if (!(features & UFFD_FEATURE_MISSING_SHMEM)) {
		snprintf(f->postcopy_reason, sizeof(f->postcopy_reason),
			 "this kernel cannot catch faults in files on tmpfs; Linux 4.11 can");
		return;
	}
	if (area_open(&a, UFFD_FEATURE_MISSING_SHMEM))
		why_not(f, "cannot set up a test area");
	else if (!area_register(&a, UFFDIO_REGISTER_MODE_MISSING))
		why_not(f, "cannot register a test area");
	else
		f->postcopy_host = place_pages(&a, f);
	area_close(&a);
}

static struct host_facts remembered;
static bool remembers;

void host_remember(bool with_postcopy)
{
	host_probe(&remembered, with_postcopy);
	remembers = true;
}

void host_probe(struct host_facts *facts, bool with_postcopy)
{
	if (remembers) {
		*facts = remembered;
		return;
	}
	memset(facts, 0, sizeof(*facts));
	facts->zero_copy = probe_zero_copy();
	facts->kvm_dirty_ring = probe_dirty_ring();
	facts->write_tracking = probe_write_tracking();
	if (with_postcopy)
		probe_postcopy(facts);
	else
		snprintf(facts->postcopy_reason, sizeof(facts->postcopy_reason),
			 "this host was not checked for postcopy");
}
