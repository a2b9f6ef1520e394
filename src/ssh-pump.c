// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * One thread owns the session: libssh2 allows no more. Between it and the rest of the program are a
 * socket pair (the command's stdin and stdout), another one (its stderr) and two eventfds (stop;
 * ended). The thread moves what can be moved, in this order, and sleeps in one poll when nothing
 * can:
 *
 *	socket -> l->in -> libssh2 -> down -> pair          stdout
 *	                           -> err  -> err pair      stderr
 *	pair -> up -> libssh2 -> l->out -> socket           stdin
 *
 * A buffer that is full is the back-pressure: a reader that is slow lets `down` stand, so the
 * channel is not read, so its window is not opened again, so the far side stops. On a long path a
 * channel moves one window a round trip, so the window grows with the round trip; it is opened
 *again by libssh2 when a quarter is used up. It is not larger than it has to be: OpenSSH's sshd
 *reads a whole window ahead of what it sends, into a buffer that it copies for every 16 KiB that it
 *grows; with 16 MiB that costs it more than all else. The window in the other direction is the far
 * sshd's (2 MiB in OpenSSH): several connections are the way around it.
 *
 * While bytes are waiting to be written, the socket is read even if `down` is full: among what
 * comes is the far side's leave to go on.
 *
 * The order of the end: stdout's end is passed on when the channel says so; the far command's
 * status comes after it, with the channel's end. If the connection is lost the reason is kept
 * before the pair is closed, so whoever reads the end can ask for it.
 */
#include "ssh-pump.h"

#include "broker.h"
#include "log.h"
#include "transport-io.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define WINDOW_MIN  (2u << 20) /* OpenSSH's own */
#define WINDOW_MAX  (8u << 20)
#define WINDOW_RATE 160	  /* bytes in a microsecond of round trip */
#define PACKET	    32768 /* the most that OpenSSH sends; libssh2 takes none above 40000 */
#define BUFFER	    (256u << 10)
#define DOWN_BUFFER (1u << 20) /* so that this thread decrypts while its reader catches up */
#define ERR_BUFFER  4096
#define KEEPALIVE_S 30
#define GOODBYE_MS  1000

struct buffer {
	uint8_t *p;
	size_t at, end, size;
};

struct pump {
	struct ssh_link *l;
	LIBSSH2_CHANNEL *ch;
	char name[128];
	ssh_connect *connect_to; /* NULL: l is there from the beginning */
	struct ssh_login *g;
	int timeout_ms;
	char *command;
	struct cancel stop; /* fired by whoever wants the end now */
	int fd, err_fd;	    /* the thread's ends */
	int end_fd;	    /* eventfd: it has ended */
	pthread_t thread;
	struct buffer up, down, err;
	bool up_eof;	  /* stdin is at its end here, */
	bool up_eof_sent; /* and the far side knows */
	bool far_eof;	  /* stdout's and stderr's end were passed on */

	pthread_mutex_t lock; /* guards what status() asks for */
	bool ended;
	int status;	  /* the far command's, if why.status is ST_OK */
	struct error why; /* why there is none */
};

static bool empty(const struct buffer *b)
{
	return b->at == b->end;
}

/* Worth reading into: in pieces that are too small it would cost more than it moves. */
static bool roomy(const struct buffer *b)
{
	return b->end - b->at <= b->size / 2;
}

/* ---- one step of each kind: 1 moved, 0 could not, -1 the connection is lost ---- */

static int lost(struct pump *p, int rc)
{
	return ssh_link_failed(p->l, rc, "", ST_SOCKET, &p->why);
}

/* From the channel's stream (0: stdout, 1: stderr) behind what is in the buffer. */
static int from_channel(struct pump *p, int stream, struct buffer *b)
{
	ssize_t n;

	if (b->at && b->end > b->size / 2) {
		memmove(b->p, b->p + b->at, b->end - b->at);
		b->end -= b->at;
		b->at = 0;
	}
	n = libssh2_channel_read_ex(p->ch, stream, (char *)b->p + b->end, b->size - b->end);
	if (n == LIBSSH2_ERROR_EAGAIN || n == 0)
		return 0;
	if (n < 0)
		return lost(p, (int)n);
	b->end += (size_t)n;
	return 1;
}

/* To a descriptor of ours. Who does not listen any more gets nothing: what comes is dropped. */
static int to_fd(int fd, struct buffer *b)
{
	ssize_t n = send(fd, b->p + b->at, b->end - b->at, MSG_DONTWAIT | MSG_NOSIGNAL);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	b->at += n < 0 ? b->end - b->at : (size_t)n;
	if (empty(b))
		b->at = b->end = 0;
	return 1;
}

static int move_out(struct pump *p, int stream, struct buffer *b, int fd)
{
	int moved = empty(b) ? 0 : to_fd(fd, b), r;

	if (!roomy(b))
		return moved;
	r = from_channel(p, stream, b);
	if (r > 0)
		to_fd(fd, b);
	return r < 0 ? -1 : moved | r;
}

static int take_up(struct pump *p)
{
	ssize_t n;

	if (!empty(&p->up) || p->up_eof)
		return 0;
	n = recv(p->fd, p->up.p, p->up.size, MSG_DONTWAIT);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (n <= 0) {
		p->up_eof = true;
		return 1;
	}
	p->up.at = 0;
	p->up.end = (size_t)n;
	return 1;
}

static int send_eof(struct pump *p)
{
	int rc;

	if (!p->up_eof || p->up_eof_sent || !empty(&p->up) || !ssh_link_room(p->l))
		return 0;
	rc = libssh2_channel_send_eof(p->ch);
	if (rc == LIBSSH2_ERROR_EAGAIN)
		return 0;
	if (rc)
		return lost(p, rc);
	p->up_eof_sent = true;
	return 1;
}

static int move_up(struct pump *p)
{
	int moved = take_up(p);

	while (!empty(&p->up) && ssh_link_room(p->l)) {
		ssize_t n = libssh2_channel_write_ex(p->ch, 0, (char *)p->up.p + p->up.at,
						     p->up.end - p->up.at);

		if (n == LIBSSH2_ERROR_EAGAIN || n == 0)
			break;
		if (n == LIBSSH2_ERROR_CHANNEL_CLOSED || n == LIBSSH2_ERROR_CHANNEL_EOF_SENT) {
			p->up.at = p->up.end; /* the command is gone: its status says why */
			p->up_eof = p->up_eof_sent = true;
			return 1;
		}
		if (n < 0)
			return lost(p, (int)n);
		p->up.at += (size_t)n;
		moved = 1;
	}
	return moved | send_eof(p);
}

/* The ends of stdout and stderr, once all of both was passed on. */
static void pass_end(struct pump *p)
{
	if (p->far_eof || !libssh2_channel_eof(p->ch) || !empty(&p->down) || !empty(&p->err))
		return;
	p->far_eof = true;
	shutdown(p->fd, SHUT_WR);
	shutdown(p->err_fd, SHUT_WR);
}

/* ---- the end ---- */

static void take_status(struct pump *p)
{
	char *sig = NULL;
	size_t len = 0;

	p->status = libssh2_channel_get_exit_status(p->ch) & 0xff;
	libssh2_channel_get_exit_signal(p->ch, &sig, &len, NULL, NULL, NULL, NULL);
	if (sig && len)
		err_set(&p->why, ST_SOCKET, "the command on %s was killed by SIG%.*s", p->name,
			(int)(len > 16 ? 16 : len), sig);
	libssh2_free(p->l->s, sig);
}

/* 1: the channel's end has come, and the status with it. */
static int ended(struct pump *p)
{
	int rc;

	if (!p->far_eof)
		return 0;
	rc = libssh2_channel_wait_closed(p->ch);
	if (rc == LIBSSH2_ERROR_EAGAIN)
		return 0;
	if (rc)
		return lost(p, rc);
	take_status(p);
	return 1;
}

/* Whether what comes is wanted now. */
static bool reads(const struct pump *p)
{
	return (roomy(&p->down) || !empty(&p->up)) && !ssh_link_unread(p->l);
}

/* 1 at the end, 0, -1 lost. *moved: it is worth another round. */
static int round_of(struct pump *p, bool *moved)
{
	int r[5], done;

	/* `in` that stands is what libssh2 did not need to see yet */
	r[0] = reads(p) ? ssh_link_fill(p->l) : 0;
	if (r[0] < 0)
		return lost(p, LIBSSH2_ERROR_SOCKET_RECV);
	r[1] = r[2] = r[3] = 0;
	if (ssh_link_room(p->l)) {
		r[1] = move_out(p, 0, &p->down, p->fd);
		r[2] = r[1] < 0 ? -1 : move_out(p, SSH_EXTENDED_DATA_STDERR, &p->err, p->err_fd);
		r[3] = r[2] < 0 ? -1 : move_up(p);
		if (r[3] < 0)
			return -1;
		pass_end(p);
	}
	done = ended(p);
	r[4] = ssh_link_flush(p->l);
	if (done)
		return done;
	if (r[4] < 0)
		return lost(p, LIBSSH2_ERROR_SOCKET_SEND);
	*moved = r[0] || r[1] || r[2] || r[3] || r[4];
	if (!*moved && p->l->in_eof && empty(&p->down))
		return lost(p, LIBSSH2_ERROR_SOCKET_DISCONNECT);
	return 0;
}

/* Waits for whatever can move something. 1: go on, 0: told to stop. */
static int wait_for_more(struct pump *p)
{
	struct pollfd f[] = {
		{ .fd = p->l->tcp->rfd,
		  .events = (short)((reads(p) && !p->l->in_eof ? POLLIN : 0) |
				    (ssh_link_unsent(p->l) ? POLLOUT : 0)) },
		{ .fd = empty(&p->up) && !p->up_eof ? p->fd : -1, .events = POLLIN },
		{ .fd = empty(&p->down) ? -1 : p->fd, .events = POLLOUT },
		{ .fd = empty(&p->err) ? -1 : p->err_fd, .events = POLLOUT },
		{ .fd = p->stop.fd, .events = POLLIN },
	};
	int n, next;

	if (!f[0].events)
		f[0].fd = -1;
	n = poll(f, 5, KEEPALIVE_S * 1000);
	/* Silence: the path's boxes are to keep the connection, and TCP to find out if it is dead.
	 */
	if (n == 0 && ssh_link_room(p->l))
		libssh2_keepalive_send(p->l->s, &next);
	return !f[4].revents;
}

static void tell(int fd)
{
	uint64_t one = 1;

	while (write(fd, &one, sizeof(one)) < 0 && errno == EINTR)
		;
}

static void finish(struct pump *p, int end)
{
	pthread_mutex_lock(&p->lock);
	if (!end)
		cancel_reason(&p->stop, &p->why);
	p->ended = true;
	pthread_mutex_unlock(&p->lock);
	tell(p->end_fd);
	shutdown(p->fd, SHUT_RDWR);
	shutdown(p->err_fd, SHUT_RDWR);
}

/* ---- the beginning ---- */

static unsigned window_for(unsigned rtt_us)
{
	if (rtt_us >= WINDOW_MAX / WINDOW_RATE)
		return WINDOW_MAX;
	return rtt_us < WINDOW_MIN / WINDOW_RATE ? WINDOW_MIN : rtt_us * WINDOW_RATE;
}

static int open_channel(struct pump *p, struct error *err)
{
	unsigned window = window_for(p->l->rtt_us);
	int rc;

	do {
		p->ch = libssh2_channel_open_ex(p->l->s, "session", 7, window, PACKET, NULL, 0);
		rc = p->ch ? 0 : libssh2_session_last_errno(p->l->s);
	} while (rc == LIBSSH2_ERROR_EAGAIN && ssh_link_turn(p->l, err) == 0);
	if (rc)
		return ssh_link_failed(p->l, rc, "no channel for the command", ST_REFUSED, err);
	SSH_LINK_RUN(p->l, rc,
		     libssh2_channel_process_startup(p->ch, "exec", 4, p->command,
						     (unsigned)strlen(p->command)),
		     err);
	if (rc == LIBSSH2_ERROR_CHANNEL_REQUEST_DENIED || rc == LIBSSH2_ERROR_CHANNEL_FAILURE)
		return err_set(err, ST_REFUSED, "%s starts no commands for this login", p->name);
	if (rc)
		return ssh_link_failed(p->l, rc, "cannot start the command", ST_REFUSED, err);
	libssh2_keepalive_config(p->l->s, 0, KEEPALIVE_S);
	return 0;
}

static int begin(struct pump *p)
{
	if (!p->connect_to)
		return 0;
	p->l = p->connect_to(p->g, p->timeout_ms, &p->stop, &p->why);
	return p->l ? open_channel(p, &p->why) : -1;
}

static void *run(void *arg)
{
	struct pump *p = arg;
	int end = begin(p);

	while (!end) {
		bool moved = false;

		end = round_of(p, &moved);
		if (end || (!moved && !wait_for_more(p)))
			break;
	}
	finish(p, end);
	return NULL;
}

/* ---- the back end's half, for any thread ---- */

static int pump_status(struct remote_conn *c, int *status, struct error *err)
{
	struct pump *p = c->priv;
	int rc = 0;

	pthread_mutex_lock(&p->lock);
	if (!p->ended)
		rc = err_set(err, ST_SOCKET, "the command on %s has not ended", p->name);
	else if (p->why.status != ST_OK) {
		*err = p->why;
		rc = -1;
	} else {
		*status = p->status;
	}
	pthread_mutex_unlock(&p->lock);
	return rc;
}

static void pump_stop(struct remote_conn *c)
{
	struct pump *p = c->priv;
	struct error why;

	err_set(&why, ST_SOCKET, "the ssh connection to %s was ended here", p->name);
	cancel_fire(&p->stop, &why);
}

static void close_fd(int fd)
{
	if (fd >= 0)
		close(fd);
}

/* Everything but the thread. */
static void pump_free(struct pump *p)
{
	if (p->ch)
		libssh2_channel_free(p->ch);
	ssh_link_close(p->l);
	close_fd(p->fd);
	close_fd(p->err_fd);
	cancel_destroy(&p->stop);
	free(p->command);
	close_fd(p->end_fd);
	free(p->up.p);
	free(p->down.p);
	free(p->err.p);
	pthread_mutex_destroy(&p->lock);
	free(p);
}

static void pump_close(struct remote_conn *c)
{
	struct pump *p = c->priv;

	pump_stop(c);
	pthread_join(p->thread, NULL);
	pump_free(p);
	close_fd(c->err_fd);
	c->err_fd = c->end_fd = -1;
	c->priv = NULL;
}

static const struct remote_ops pump_ops = {
	.status = pump_status,
	.stop = pump_stop,
	.close = pump_close,
};

/* ---- starting ---- */

static bool buffer_init(struct buffer *b, size_t size)
{
	b->size = size;
	b->p = malloc(size);
	return b->p;
}

/* Takes the link, if there is one, on failure too. */
static struct pump *pump_new(struct ssh_link *l, const char *name, const char *command,
			     struct error *err)
{
	struct pump *p = calloc(1, sizeof(*p));

	if (!p || cancel_init(&p->stop, err)) {
		ssh_link_close(l);
		free(p);
		err_set(err, ST_NOMEM, "no memory or descriptors for ssh");
		return NULL;
	}
	p->l = l;
	p->fd = p->err_fd = -1;
	snprintf(p->name, sizeof(p->name), "%s", name);
	pthread_mutex_init(&p->lock, NULL);
	p->end_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	p->command = strdup(command);
	if (p->end_fd >= 0 && p->command && buffer_init(&p->up, BUFFER) &&
	    buffer_init(&p->down, DOWN_BUFFER) && buffer_init(&p->err, ERR_BUFFER))
		return p;
	err_set(err, ST_NOMEM, "no memory or descriptors for ssh");
	pump_free(p);
	return NULL;
}

/* Both ends of both pairs: ours into p, the other ones into c. */
static int open_pairs(struct pump *p, struct remote_conn *c, struct error *err)
{
	int pair[2], err_pair[2];

	if (broker_socketpair(pair))
		return err_sys(err, ST_NOMEM, errno, "no socket pair for ssh");
	if (broker_socketpair(err_pair)) {
		close(pair[0]);
		close(pair[1]);
		return err_sys(err, ST_NOMEM, errno, "no socket pair for ssh");
	}
	shutdown(err_pair[0], SHUT_RD);
	p->fd = pair[0];
	p->err_fd = err_pair[0];
	c->fd = pair[1];
	c->err_fd = err_pair[1];
	c->end_fd = p->end_fd;
	return 0;
}

/* Starts the thread; p is gone on failure. */
static int start(struct pump *p, struct remote_conn *c, struct error *err)
{
	int rc;

	if (open_pairs(p, c, err)) {
		pump_free(p);
		return -1;
	}
	c->ops = &pump_ops;
	c->priv = p;
	rc = pthread_create(&p->thread, NULL, run, p);
	if (!rc)
		return 0;
	pump_free(p);
	close(c->fd);
	close(c->err_fd);
	return err_sys(err, ST_NOMEM, rc, "no thread for ssh");
}

int ssh_pump_start(struct ssh_link *l, const char *command, struct remote_conn *c,
		   struct error *err)
{
	struct pump *p = pump_new(l, l->name, command, err);

	if (!p)
		return -1;
	if (!open_channel(p, err))
		return start(p, c, err);
	pump_free(p);
	return -1;
}

int ssh_pump_start_later(ssh_connect *connect_to, struct ssh_login *g, int timeout_ms,
			 const char *name, const char *command, struct remote_conn *c,
			 struct error *err)
{
	struct pump *p = pump_new(NULL, name, command, err);

	if (!p)
		return -1;
	p->connect_to = connect_to;
	p->g = g;
	p->timeout_ms = timeout_ms;
	return start(p, c, err);
}
