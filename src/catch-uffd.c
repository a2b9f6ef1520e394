// SPDX-License-Identifier: GPL-2.0-or-later
#include "catch-uffd.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef USERFAULTFD_IOC_NEW
#define USERFAULTFD_IOC_NEW 0xaa00
#endif

static const char device[] = "/dev/userfaultfd";

#define FLAGS (O_CLOEXEC | O_NONBLOCK)
#define SCRATCH                                                                          \
	512 /* below the stack pointer, and below what the ABI lets a function use there \
	     */

static int broke(const char *name, struct error *err)
{
	return err_sys(err, ST_COMMAND, errno, "%s ended while its mapping was caught", name);
}

int catch_visit_failed(int why, const char *name, struct error *err)
{
	if (why == EACCES) {
		err_set(err, ST_UNSUPPORTED,
			"%s has a seccomp filter, which could end it for the calls of userfaultfd",
			name);
		return err_hint(err, "run recv with CAP_SYS_ADMIN, which may suspend the filter");
	}
	return err_sys(err, ST_UNSUPPORTED, why, "cannot make a userfaultfd in %s", name);
}

static int refused(long why, const char *name, struct error *err)
{
	if (why == -EPERM || why == -EACCES) {
		err_set(err, ST_UNSUPPORTED, "%s may not use userfaultfd", name);
		if (access(device, F_OK) == 0)
			return err_hint(err, "as root: setfacl -m u:USER:rw %s", device);
		return err_hint(err, "as root: sysctl vm.unprivileged_userfaultfd=1");
	}
	return err_sys(err, ST_UNSUPPORTED, (int)-why, "%s cannot make a userfaultfd", name);
}

/* By the device's permissions: opened by the guest's thread, with its rights, in its root. */
static int from_device(struct catch_visit *v, long *result)
{
	uint64_t at = (regs_sp(&v->saved) - SCRATCH) & ~UINT64_C(15);
	uint64_t open_args[6] = { (uint64_t)AT_FDCWD, at, O_RDWR | O_CLOEXEC };
	uint64_t ioctl_args[6] = { 0, USERFAULTFD_IOC_NEW, FLAGS };
	uint64_t close_args[6] = { 0 };
	char kept[sizeof(device)];
	long fd, ignored;
	int rc;

	if (catch_peek(v->tid, at, kept, sizeof(kept)) ||
	    catch_poke(v->tid, at, device, sizeof(device)))
		return -1;
	rc = catch_visit_call(v, SYS_openat, open_args, &fd);
	if (rc || catch_poke(v->tid, at, kept, sizeof(kept)))
		return -1;
	if (fd < 0) {
		*result = fd == -ENOENT ? -EPERM : fd;
		return 0;
	}
	ioctl_args[0] = close_args[0] = (uint64_t)fd;
	if (catch_visit_call(v, SYS_ioctl, ioctl_args, result))
		return -1;
	return catch_visit_call(v, SYS_close, close_args, &ignored);
}

static int make(struct catch_visit *v, long *result)
{
	uint64_t args[6] = { FLAGS };

	if (catch_visit_call(v, SYS_userfaultfd, args, result))
		return -1;
	return *result == -EPERM || *result == -EACCES ? from_device(v, result) : 0;
}

static int fetch(pid_t pid, int number, struct error *err)
{
	int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	int fd = pidfd < 0 ? -1 : (int)syscall(SYS_pidfd_getfd, pidfd, number, 0);
	int why = errno;

	if (pidfd >= 0)
		close(pidfd);
	if (fd >= 0)
		return fd;
	if (why == ENOSYS)
		return err_set(err, ST_UNSUPPORTED,
			       "this kernel cannot hand over a userfaultfd; Linux 5.6 can");
	return err_sys(err, ST_UNSUPPORTED, why, "cannot fetch the userfaultfd of process %ld",
		       (long)pid);
}

/*
 * To see forks takes CAP_SYS_PTRACE. Without it a child must not inherit the memory: its missing
 * pages would read as zeros.
 */
static int switch_on(struct catch_uffd *u, struct error *err)
{
	const uint64_t always = UFFD_FEATURE_EVENT_REMAP | UFFD_FEATURE_EVENT_REMOVE |
				UFFD_FEATURE_EVENT_UNMAP | UFFD_FEATURE_MISSING_SHMEM |
				UFFD_FEATURE_MISSING_HUGETLBFS | UFFD_FEATURE_THREAD_ID;
	struct uffdio_api api = { .api = UFFD_API, .features = always | UFFD_FEATURE_EVENT_FORK };

	u->forks = !ioctl(u->fd, UFFDIO_API, &api);
	if (u->forks)
		return 0;
	api = (struct uffdio_api){ .api = UFFD_API, .features = always };
	if (!ioctl(u->fd, UFFDIO_API, &api))
		return 0;
	return err_sys(
		err, ST_UNSUPPORTED, errno,
		"this kernel's userfaultfd cannot catch what postcopy needs; Linux 4.14 can");
}

int catch_uffd_make(struct catch_visit *v, pid_t pid, const char *name, struct catch_uffd *out,
		    struct error *err)
{
	long fd;

	if (make(v, &fd))
		return broke(name, err);
	if (fd < 0)
		return refused(fd, name, err);
	out->number = (int)fd;
	out->fd = fetch(pid, out->number, err);
	if (out->fd < 0)
		return -1;
	if (!switch_on(out, err))
		return 0;
	close(out->fd);
	return -1;
}

int catch_uffd_register(const struct catch_uffd *u, uint64_t start, uint64_t len, const char *name,
			struct error *err)
{
	struct uffdio_register reg = { .range = { start, len },
				       .mode = UFFDIO_REGISTER_MODE_MISSING };

	if (!ioctl(u->fd, UFFDIO_REGISTER, &reg))
		return 0;
	if (errno == EPERM) {
		err_set(err, ST_UNSUPPORTED,
			"%s maps IMAGE shared, from a descriptor that is open for reading only",
			name);
		return err_hint(err,
				"pages can be served to a mapping of a descriptor that is open "
				"for writing, or to a private one");
	}
	if (errno == EBUSY)
		return err_set(err, ST_UNSUPPORTED,
			       "the mapping of IMAGE in %s has a userfaultfd already", name);
	return err_sys(err, ST_UNSUPPORTED, errno, "cannot catch the faults of %s in IMAGE", name);
}
