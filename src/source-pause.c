// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * pause-before-switchover: all of precopy was sent, and the source waits for its user before it
 * gives the guest up (in postcopy: before the DISCARDs). The user says so with SIGUSR2, or with a
 * byte or the end of the file on --continue-fd.
 *
 * The stream stands between two elements meanwhile, so a migtool is told by PAUSED, again and
 * again, that this takes as long as it takes, and FAILED may stand there if the user cancels. A
 * QEMU waits for ever.
 */
#include "source.h"

#include "log.h"

#include <errno.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define ALIVE_MS 500

int source_pause_open(struct source *src, struct error *err)
{
	src->pause.wake = -1;
	if (!src->ss->caps.on[CAP_PAUSE_BEFORE_SWITCHOVER] || src->ss->cfg->dry_run)
		return 0;
	src->pause.wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (src->pause.wake < 0)
		return err_sys(err, ST_NOMEM, errno, "cannot make an eventfd");
	return 0;
}

void source_pause_close(struct source *src)
{
	if (src->pause.wake >= 0)
		close(src->pause.wake);
	src->pause.wake = -1;
}

bool source_pause_leave(struct source *src)
{
	uint64_t one = 1;

	if (!atomic_exchange(&src->pause.waits, false))
		return false;
	if (write(src->pause.wake, &one, sizeof(one)) < 0)
		log_debug("the pause was left already");
	return true;
}

/* What we say into a dead link is no sign of life: the watchdog must not see it. */
static int say_paused(struct session *ss, struct error *err)
{
	uint64_t before = ss->stream.bytes_out;
	int rc;

	if (!ss->dialect.migtool)
		return 0;
	rc = wire_put_command(&ss->stream, MIG_CMD_PAUSED, NULL, 0, err);
	if (!rc)
		rc = stream_flush(&ss->stream, err);
	stat_add(&ss->stats.activity, before - ss->stream.bytes_out);
	return rc;
}

/* 1: a byte or the end, 0: nothing yet, -1 */
static int read_word(int fd, struct error *err)
{
	uint8_t word;
	ssize_t n = read(fd, &word, 1);

	if (n >= 0)
		return 1;
	if (errno == EINTR || errno == EAGAIN)
		return 0;
	return err_sys(err, ST_FILE, errno, "cannot read --continue-fd %d", fd);
}

/* 1: the user wants us to go on, 0: not within ALIVE_MS, -1 */
static int await_word(struct source *src, struct error *err)
{
	struct session *ss = src->ss;
	struct pollfd fds[] = { { .fd = ss->cancel.fd, .events = POLLIN },
				{ .fd = src->pause.wake, .events = POLLIN },
				{ .fd = ss->cfg->continue_fd, .events = POLLIN } };

	if (poll(fds, 3, ALIVE_MS) < 0 && errno != EINTR)
		return err_sys(err, ST_SOCKET, errno, "cannot wait");
	if (cancel_fired(&ss->cancel))
		return cancel_reason(&ss->cancel, err);
	if (fds[2].revents)
		return read_word(ss->cfg->continue_fd, err);
	return !atomic_load(&src->pause.waits);
}

static int wait_for_user(struct source *src, struct error *err)
{
	int rc = 0;

	while (!rc) {
		if (say_paused(src->ss, err))
			return -1;
		rc = await_word(src, err);
	}
	return rc < 0 ? -1 : 0;
}

static void say_how(const struct session *ss)
{
	if (ss->cfg->continue_fd >= 0)
		log_info("paused before the switchover: a byte on descriptor %d, or SIGUSR2, lets "
			 "it go on",
			 ss->cfg->continue_fd);
	else
		log_info("paused before the switchover: SIGUSR2 lets it go on");
}

int source_pause(struct session *ss, struct error *err)
{
	struct source *src = ss->source;
	bool answers = ss->dialect.migtool && ss->main->two_way;
	int rc;

	if (!ss->caps.on[CAP_PAUSE_BEFORE_SWITCHOVER] || src->recovers || ss->continued)
		return 0;
	/* before it is announced: who waits for that may be quick */
	atomic_store(&src->pause.waits, true);
	atomic_store(&ss->phase, "pre-switchover");
	events_status(&ss->events, MIG_PRE_SWITCHOVER);
	say_how(ss);
	ss->watched = answers;
	rc = wait_for_user(src, err);
	atomic_store(&src->pause.waits, false);
	if (rc)
		return -1;
	ss->watched = true;
	ss->continued = true;
	return 0;
}
