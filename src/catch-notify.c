// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What COMMAND says of itself: datagrams of lines NAME=VALUE to the socket in its NOTIFY_SOCKET, as
 * sd_notify(3) sends them. READY=1 is all that matters here.
 *
 * The socket has no file, so nothing is left of it; but then each process of this host can send
 * there. Only one of our user's, root's, or one that we watch is listened to.
 */
#include "catch-watch.h"

#include "broker-act.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define DATAGRAM_MAX 4096

int catch_notify_open(struct catch_watch *w, struct error *err)
{
	char name[BROKER_NOTIFY_NAME];

	if (!w->notifies)
		return 0;
	w->notify = broker_notify_open(name);
	if (w->notify >= 0 && !setenv("NOTIFY_SOCKET", name, 1))
		return 0;
	return err_sys(err, ST_NOMEM, errno, "no socket for COMMAND to say that it is ready");
}

static bool is_ours(const struct catch_watch *w, const struct ucred *who)
{
	if (who->uid == geteuid() || who->uid == 0)
		return true;
	for (unsigned i = 0; i < w->nthreads; i++)
		if (w->threads[i].pid == who->pid)
			return true;
	return false;
}

static bool says_ready(const char *text)
{
	static const char word[] = "READY=1";
	size_t n = sizeof(word) - 1;

	for (const char *line = text; line; line = strchr(line, '\n')) {
		line += *line == '\n';
		if (!strncmp(line, word, n) && (!line[n] || line[n] == '\n'))
			return true;
	}
	return false;
}

/* 1: a datagram, and who has sent it, 0: one of nobody, -1: none (now). */
static int receive(int fd, char text[DATAGRAM_MAX], struct ucred *who)
{
	union {
		char room[CMSG_SPACE(sizeof(struct ucred))];
		struct cmsghdr align;
	} control;
	struct iovec iov = { text, DATAGRAM_MAX - 1 };
	/* there is room for nothing else, so descriptors that come with it are closed */
	struct msghdr m = { .msg_iov = &iov,
			    .msg_iovlen = 1,
			    .msg_control = control.room,
			    .msg_controllen = sizeof(control.room) };
	ssize_t n = recvmsg(fd, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	struct cmsghdr *c;

	if (n < 0)
		return -1;
	text[n] = '\0';
	c = CMSG_FIRSTHDR(&m);
	if (!c || c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_CREDENTIALS)
		return 0;
	memcpy(who, CMSG_DATA(c), sizeof(*who));
	return 1;
}

void catch_notify_take(struct catch_watch *w)
{
	struct catch_report r = { .kind = CATCH_READY, .pid = w->root };
	char text[DATAGRAM_MAX];
	struct ucred who;
	int rc;

	while ((rc = receive(w->notify, text, &who)) >= 0) {
		if (!rc || w->ready || !is_ours(w, &who) || !says_ready(text))
			continue;
		w->ready = true;
		catch_report(w, &r, -1);
	}
}
