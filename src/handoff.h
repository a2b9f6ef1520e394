/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How a VMM hands its userfaultfd over: Firecracker's page-fault handler protocol (mem_backend
 * Uffd). The VMM connects to a unix socket and sends one message, a JSON array that tells where its
 * memory lies, with the userfaultfd beside it; then nothing is said any more, and the socket ends
 * when the VMM does.
 *
 *   [{"base_host_virt_addr":140737488351232,"size":8589934592,"offset":0,"page_size":4096}]
 *
 * `offset` is the place in the memory file. Page sizes are bytes; an older VMM says page_size_kib
 * and means bytes too. There may be a second descriptor (some VMMs add a memfd): it is closed.
 */
#ifndef MIGTOOL_HANDOFF_H
#define MIGTOOL_HANDOFF_H

#include "cancel.h"
#include "guestmem.h"

/*
 * Reads the message from `sock`, connected and non-blocking, and fills *guest: one space, its
 * regions in block 0, pid, pidfd where the kernel gives one, and `sock` as the peer. On failure the
 * socket stays the caller's and *guest is empty. ST_DATA: it is something else (the reason),
 * ST_TIMEOUT: it did not come whole in 10 s, ST_SOCKET: it ended.
 */
int handoff_take(int sock, struct cancel *cancel, struct guest_memory *guest, struct error *err);

/* The JSON alone, n bytes: 1: taken, 0: it is not whole yet, -1: it will never be. */
int handoff_parse(const char *text, size_t n, struct guest_space *s, struct error *err);

#endif
