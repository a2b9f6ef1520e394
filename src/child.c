// SPDX-License-Identifier: GPL-2.0-or-later
#include "child.h"

#include "broker.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>

int child_start(struct child *c, char *const argv[], int err_fd, int *fd, int *end_fd)
{
	int pair[2], e;

	if (broker_socketpair(pair))
		return -1;
	pthread_mutex_init(&c->lock, NULL);
	c->pid = broker_spawn(argv, (int[3]){ pair[1], pair[1], err_fd }, SPAWN_GROUP);
	e = errno;
	close(pair[1]);
	if (c->pid > 0) {
		*end_fd = broker_child_fd(c->pid);
		if (*end_fd >= 0) {
			*fd = pair[0];
			return 0;
		}
		e = errno;
		child_signal(c, SIGKILL);
		while (!child_reap(c))
			poll(NULL, 0, 1);
	}
	close(pair[0]);
	child_free(c);
	errno = e;
	return -1;
}

bool child_reap(struct child *c)
{
	bool gone;

	pthread_mutex_lock(&c->lock);
	if (c->pid && broker_reap(c->pid, &c->wstatus) != 0)
		c->pid = 0;
	gone = !c->pid;
	pthread_mutex_unlock(&c->lock);
	return gone;
}

void child_signal(struct child *c, int sig)
{
	pthread_mutex_lock(&c->lock);
	if (c->pid)
		broker_kill(c->pid, sig);
	pthread_mutex_unlock(&c->lock);
}

bool child_wants_terminal(struct child *c)
{
	int sig = 0;

	pthread_mutex_lock(&c->lock);
	if (c->pid)
		sig = broker_stopped(c->pid);
	pthread_mutex_unlock(&c->lock);
	return sig == SIGTTIN || sig == SIGTTOU;
}

void child_free(struct child *c)
{
	pthread_mutex_destroy(&c->lock);
}
