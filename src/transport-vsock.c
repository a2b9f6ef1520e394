// SPDX-License-Identifier: GPL-2.0-or-later
#include "transport-io.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <linux/vm_sockets.h>

const struct transport_ops vsock_ops = {
	.scheme = "vsock",
	.read = io_read,
	.writev = io_writev,
	.sendfile = io_sendfile,
	.shutdown_write = io_shutdown_write,
	.close = io_close,
};

void vsock_address(const struct uri *uri, bool listens, struct broker_addr *out)
{
	struct sockaddr_vm vm = { .svm_family = AF_VSOCK,
				  .svm_cid = uri->cid,
				  .svm_port = uri->port };

	/* As for tcp, nothing in place of a host is this machine. */
	if (!listens && uri->cid == VMADDR_CID_ANY)
		vm.svm_cid = VMADDR_CID_LOCAL;
	if (listens && !uri->port)
		vm.svm_port = VMADDR_PORT_ANY;
	memcpy(&out->sa, &vm, sizeof(vm));
	out->len = sizeof(vm);
}

static void explain(struct error *err)
{
	if (err->sys == EAFNOSUPPORT)
		err_hint(err, "this kernel has no vsock");
	else if (err->sys == ENODEV || err->sys == EADDRNOTAVAIL || err->sys == ETIMEDOUT)
		err_hint(err, "no vsock device leads there: in a guest load "
			      "vmw_vsock_virtio_transport, on a host vhost_vsock, for CID 1 "
			      "vsock_loopback");
}

struct transport *vsock_dial(const struct uri *uri, bool writer, int timeout_ms,
			     struct cancel *cancel, struct error *err)
{
	struct broker_addr addr;
	int fd;

	vsock_address(uri, false, &addr);
	fd = io_connect((struct sockaddr *)&addr.sa, addr.len, uri->text, writer,
			io_deadline(timeout_ms), cancel, err);
	if (fd < 0) {
		explain(err);
		return NULL;
	}
	return io_new_socket(&vsock_ops, uri->text, fd, cancel, err);
}

void vsock_name(const struct sockaddr_storage *sa, char *name, size_t len)
{
	struct sockaddr_vm vm;

	memcpy(&vm, sa, sizeof(vm));
	if (vm.svm_cid == VMADDR_CID_ANY)
		snprintf(name, len, "vsock::%u", vm.svm_port);
	else
		snprintf(name, len, "vsock:%u:%u", vm.svm_cid, vm.svm_port);
}

int vsock_listen(const struct uri *uri, char *text, size_t len, struct error *err)
{
	struct sockaddr_storage bound;
	struct broker_addr addr;
	socklen_t salen = sizeof(bound);
	int fd;

	vsock_address(uri, true, &addr);
	fd = broker_socket_listen((struct sockaddr *)&addr.sa, addr.len, SOMAXCONN);
	if (fd < 0) {
		err_sys(err, ST_SOCKET, errno, "cannot listen on %s", uri->text);
		explain(err);
		return -1;
	}
	snprintf(text, len, "%s", uri->text);
	if (!getsockname(fd, (struct sockaddr *)&bound, &salen))
		vsock_name(&bound, text, len);
	return fd;
}
