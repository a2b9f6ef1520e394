// SPDX-License-Identifier: GPL-2.0-or-later
#include "zerocopy.h"

#include "log.h"

#include <errno.h>
#include <linux/errqueue.h>
#include <netinet/in.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>

int zerocopy_open(struct zerocopy *z, struct transport *t, struct session *ss, struct error *err)
{
	int one = 1;

	memset(z, 0, sizeof(*z));
	z->fd = transport_raw_wfd(t);
	z->ss = ss;
	if (z->fd < 0 || setsockopt(z->fd, SOL_SOCKET, SO_ZEROCOPY, &one, sizeof(one))) {
		err_set(err, ST_UNSUPPORTED, "zero-copy-send: %s has no MSG_ZEROCOPY", t->name);
		return err_hint(err, "it needs tcp and Linux 4.14; leave zero-copy-send off");
	}
	z->on = true;
	return 0;
}

/* One sendmsg; ENOBUFS means that too much memory is pinned: wait for completions. */
static ssize_t send_some(struct zerocopy *z, struct iovec *iov, int n)
{
	struct msghdr m = { .msg_iov = iov, .msg_iovlen = (size_t)n };
	ssize_t r = sendmsg(z->fd, &m, MSG_ZEROCOPY | MSG_NOSIGNAL | MSG_DONTWAIT);

	if (r >= 0) {
		z->sent++;
	} else if (errno == ENOBUFS) {
		/* the limit is net.core.optmem_max; this part goes by a copy */
		r = sendmsg(z->fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
		stat_add(&z->ss->stats.zero_copy_missed, 1);
	}
	return r;
}

/* Takes completions off the error queue. */
static void reap(struct zerocopy *z)
{
	char control[256];
	struct msghdr m = { .msg_control = control, .msg_controllen = sizeof(control) };

	while (recvmsg(z->fd, &m, MSG_ERRQUEUE | MSG_DONTWAIT) >= 0) {
		for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c)) {
			struct sock_extended_err e;

			if ((c->cmsg_level != SOL_IP || c->cmsg_type != IP_RECVERR) &&
			    (c->cmsg_level != SOL_IPV6 || c->cmsg_type != IPV6_RECVERR))
				continue;
			memcpy(&e, CMSG_DATA(c), sizeof(e));
			if (e.ee_origin != SO_EE_ORIGIN_ZEROCOPY)
				continue;
			/* a range of call numbers, ee_info to ee_data; ranges may be merged */
			z->completed += e.ee_data - e.ee_info + 1;
			stat_add(&z->ss->stats.zero_copy_sent, e.ee_data - e.ee_info + 1);
			if (e.ee_code & SO_EE_CODE_ZEROCOPY_COPIED)
				stat_add(&z->ss->stats.zero_copy_missed, e.ee_data - e.ee_info + 1);
		}
		m.msg_controllen = sizeof(control);
	}
}

static void skip_iov(struct iovec **iov, int *n, size_t done)
{
	while (*n > 0 && done >= (*iov)->iov_len) {
		done -= (*iov)->iov_len;
		(*iov)++;
		(*n)--;
	}
	if (*n > 0) {
		(*iov)->iov_base = (char *)(*iov)->iov_base + done;
		(*iov)->iov_len -= done;
	}
}

int zerocopy_send(struct zerocopy *z, struct stream *s, struct iovec *iov, int n, struct error *err)
{
	uint64_t total = 0;

	for (int i = 0; i < n; i++)
		total += iov[i].iov_len;
	if (stream_pace(s, total, err))
		return -1;
	while (n > 0) {
		ssize_t r = send_some(z, iov, n);

		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0 && errno == EAGAIN) {
			reap(z);
			if (cancel_wait(&z->ss->cancel, z->fd, POLLOUT, -1, err) < 0)
				return -1;
			continue;
		}
		if (r < 0)
			return err_sys(err, ST_SOCKET, errno, "cannot send to %s", s->t->name);
		stream_count_out(s, (uint64_t)r);
		skip_iov(&iov, &n, (size_t)r);
	}
	return 0;
}

int zerocopy_queue(struct zerocopy *z, void *item, zerocopy_done done, void *arg, struct error *err)
{
	unsigned at = (z->head + z->len) % ZEROCOPY_INFLIGHT;

	z->inflight[at].item = item;
	z->inflight[at].after = z->sent;
	z->len++;
	return zerocopy_wait(z, ZEROCOPY_INFLIGHT - 1, done, arg, err);
}

int zerocopy_wait(struct zerocopy *z, unsigned left, zerocopy_done done, void *arg,
		  struct error *err)
{
	while (z->on && z->len > 0) {
		reap(z);
		/* call numbers wrap */
		while (z->len > 0 && (int32_t)(z->completed - z->inflight[z->head].after) >= 0) {
			done(z->inflight[z->head].item, arg);
			z->head = (z->head + 1) % ZEROCOPY_INFLIGHT;
			z->len--;
		}
		if (z->len <= left)
			break;
		/* POLLERR, which a completion raises, is always polled for */
		if (cancel_wait(&z->ss->cancel, z->fd, 0, 1000, err) < 0)
			return -1;
	}
	return 0;
}

void zerocopy_close(struct zerocopy *z)
{
	z->on = false;
	z->len = 0;
}
