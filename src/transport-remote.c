// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What the two ways of starting a command on another host share: its stderr and its end.
 *
 * stderr. A thread reads it to its end and prints each line as "HOST: line". A far migtool says
 * twice why it fails: to us over the stream, and in its last line of stderr, "migtool recv: error:
 * ...". That line (and its hint) is held back. If the connection ends without another reason it
 * becomes ours, with the far process's exit status; at the end it is printed only if our own
 * message does not hold it already.
 *
 * The end. When the stream ends, what ended it is mostly known a moment later: the command's
 * status, ssh's complaint. So a read or write that finds the stream's end waits that moment.
 */
#include "remote.h"

#include "far.h"
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
#include <sys/socket.h>
#include <unistd.h>

#define LINE_MAX_BYTES 512
#define ENDED_MS       2000  /* between the stream's end and what ended it */
#define CANCELLED_MS   500   /* the same when we ended it */
#define TAIL_MS	       60000 /* for a command to end after the end of a complete stream */
#define STDERR_MS      500   /* stderr may be held open by what the command left running */

struct remote {
	struct remote_conn c;
	char host[80];
	bool writer, extra;
	atomic_bool complete; /* the writer said that all was written */
	char *command;

	pthread_t reader;
	int reader_stop; /* eventfd: the reader has to end now */
	int reader_done; /* eventfd: it has read all */

	pthread_mutex_t lock; /* guards what follows, and c.said and c.heard */
	char error[LINE_MAX_BYTES + 1], hint[LINE_MAX_BYTES + 1]; /* held back, escaped */
	char shell[LINE_MAX_BYTES + 1];				  /* likewise, what ssh says last */
	bool told;						  /* it is in our own message */
	bool judged;						  /* how it ended is known: */
	struct error why; /* ST_OK: well, or we ended it ourselves */
};

/* ---- stderr ---- */

/* "migtool recv: error: disk full" -> "disk full"; NULL: it is no such line. */
static const char *error_text(const char *line)
{
	static const char *const heads[] = { "migtool recv: error: ", "migtool send: error: ",
					     "migtool join: error: ", "migtool: error: " };

	for (size_t i = 0; i < sizeof(heads) / sizeof(heads[0]); i++)
		if (!strncmp(line, heads[i], strlen(heads[i])))
			return line + strlen(heads[i]);
	return NULL;
}

/* What OpenSSH's client says before it ends with 255. */
static bool ends_ssh(const char *line)
{
	return !strncmp(line, "ssh: ", 5) || strstr(line, "Permission denied") ||
	       strstr(line, "Host key verification failed");
}

/* True: held back. The lock is held. */
static bool hold_back(struct remote *r, const char *line)
{
	static const char hint[] = "  hint: ";
	const char *text = error_text(line);

	if (text && !r->error[0]) {
		snprintf(r->error, sizeof(r->error), "%s", text);
		return true;
	}
	if (r->error[0] && !r->hint[0] && !strncmp(line, hint, strlen(hint))) {
		snprintf(r->hint, sizeof(r->hint), "%s", line + strlen(hint));
		return true;
	}
	return false;
}

static void take_line(struct remote *r, const char *bytes, size_t len)
{
	char line[LINE_MAX_BYTES + 1], before[LINE_MAX_BYTES + 1];
	bool held;

	if (len && bytes[len - 1] == '\r')
		len--;
	log_escape(line, sizeof(line), bytes, len);
	pthread_mutex_lock(&r->lock);
	held = hold_back(r, line);
	if (!held && strncmp(line, "migtool ", 8))
		memcpy(r->c.said, line, sizeof(r->c.said));
	memcpy(before, r->shell, sizeof(before));
	r->shell[0] = '\0';
	if (!held && ends_ssh(line)) {
		held = true;
		memcpy(r->shell, line, sizeof(r->shell));
	}
	pthread_mutex_unlock(&r->lock);
	if (before[0])
		log_far(r->host, before);
	if (!held)
		log_far(r->host, line);
}

/* Lines from what was read; what is too long for one is cut. */
struct lines {
	char buf[LINE_MAX_BYTES];
	size_t n;
	bool cut; /* the rest of the line is dropped */
};

static void split(struct remote *r, struct lines *l, const char *p, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		if (p[i] == '\n') {
			if (!l->cut)
				take_line(r, l->buf, l->n);
			l->n = 0;
			l->cut = false;
		} else if (!l->cut) {
			l->buf[l->n++] = p[i];
			if (l->n == sizeof(l->buf)) {
				take_line(r, l->buf, l->n);
				l->cut = true;
			}
		}
	}
}

static void signal_event(int fd)
{
	uint64_t one = 1;

	while (write(fd, &one, sizeof(one)) < 0 && errno == EINTR)
		;
}

static void *read_stderr(void *arg)
{
	struct remote *r = arg;
	struct lines l = { .n = 0 };
	struct pollfd p[] = { { .fd = r->c.err_fd, .events = POLLIN },
			      { .fd = r->reader_stop, .events = POLLIN } };

	for (;;) {
		char buf[4096];
		ssize_t n;

		if (poll(p, 2, -1) < 0 && errno != EINTR)
			break;
		if (!p[0].revents && p[1].revents)
			break;
		if (!p[0].revents)
			continue;
		n = read(r->c.err_fd, buf, sizeof(buf));
		if (n > 0)
			split(r, &l, buf, (size_t)n);
		else if (n == 0 || (errno != EINTR && errno != EAGAIN))
			break;
	}
	if (l.n && !l.cut)
		take_line(r, l.buf, l.n);
	signal_event(r->reader_done);
	return NULL;
}

/* ---- the end ---- */

/* The far shell's own statuses, and a migtool's. The lock is held. */
static void judge_status(struct remote *r, int status)
{
	struct error *why = &r->why;
	const struct status_info *s = status_table;

	while (s->code && (int)s->status != status)
		s++;
	if (r->error[0]) {
		/* a migtool's last words; its number if we know it */
		err_set(why, s->code && status && !r->extra ? s->status : ST_SOCKET, "%s: %s",
			r->host, r->error);
		if (strstr(r->error, "unknown option") || strstr(r->error, "unknown command"))
			err_hint(why, "the migtool there is of another version: use the same "
				      "release on both hosts");
		else if (r->hint[0])
			err_hint(why, "%s", r->hint);
		r->told = true;
	} else if (status == 127 || status == 126) {
		err_set(why, ST_NO_REMOTE, "%s %s: the far shell ended with %d for \"%.200s\"",
			r->host, status == 127 ? "has no migtool" : "cannot run its migtool",
			status, r->command);
		err_hint(why, "install it there, or say where it is: --remote-command "
			      "/path/to/migtool");
	} else if (r->extra) {
		return;
	} else if (status) {
		err_set(why, s->code ? s->status : ST_SOCKET,
			"%s: the far command ended with status %d%s%s", r->host, status,
			s->code ? ": " : "", s->code ? s->text : "");
	} else if (!r->c.heard && !r->complete) {
		err_set(why, ST_PROTOCOL, "%s: the far command ended well and said nothing",
			r->host);
		err_hint(why, "what --remote-command names has to be a migtool");
	}
}

static bool wait_for(int fd, int ms)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	int64_t deadline = io_deadline(ms);
	int n;

	do
		n = poll(&p, 1, io_left_ms(deadline));
	while (n < 0 && errno == EINTR);
	return n > 0;
}

/* Waits for the end, at most `ms`; then r->why says how it was. False: it goes on. */
static bool ended(struct remote *r, int ms)
{
	int status = 0;

	if (!wait_for(r->c.end_fd, ms))
		return false;
	wait_for(r->reader_done, STDERR_MS);
	pthread_mutex_lock(&r->lock);
	if (!r->judged) {
		r->judged = true;
		if (!r->c.ops->status(&r->c, &status, &r->why))
			judge_status(r, status);
		else if (strstr(r->why.msg, r->shell))
			r->shell[0] = '\0';
	}
	pthread_mutex_unlock(&r->lock);
	return true;
}

/* The stream ended or broke: 0, or -1 and why if that is known. */
static int explain_end(struct transport *t, struct error *err)
{
	struct remote *r = t->priv;
	int rc = 0;

	if (!ended(r, ENDED_MS))
		return 0;
	pthread_mutex_lock(&r->lock);
	if (r->why.status != ST_OK) {
		*err = r->why;
		rc = -1;
	}
	pthread_mutex_unlock(&r->lock);
	return rc;
}

/* ---- the transport ---- */

static ssize_t remote_read(struct transport *t, void *buf, size_t len, struct error *err)
{
	struct remote *r = t->priv;
	ssize_t n = io_read(t, buf, len, err);

	if (n > 0 && !r->c.heard) {
		pthread_mutex_lock(&r->lock);
		r->c.heard = true;
		pthread_mutex_unlock(&r->lock);
	}
	if (n > 0 || io_stopped(t, err))
		return n > 0 ? n : -1;
	return explain_end(t, err) ? -1 : n;
}

static bool broke(const struct error *err)
{
	return err->sys == EPIPE || err->sys == ECONNRESET;
}

static ssize_t remote_writev(struct transport *t, const struct iovec *iov, int n, bool more,
			     struct error *err)
{
	ssize_t done = io_writev(t, iov, n, more, err);

	if (done < 0 && broke(err))
		explain_end(t, err);
	return done;
}

static ssize_t remote_sendfile(struct transport *t, int fd, uint64_t offset, size_t len,
			       struct error *err)
{
	ssize_t done = io_sendfile(t, fd, offset, len, err);

	if (done < 0 && broke(err))
		explain_end(t, err);
	return done;
}

static int remote_waiting(struct transport *t, struct error *err)
{
	struct remote *r = t->priv;

	return r->c.ops->waiting ? r->c.ops->waiting(&r->c, err) : 0;
}

static int remote_shutdown_write(struct transport *t, struct error *err)
{
	((struct remote *)t->priv)->complete = true;
	return io_shutdown_write(t, err);
}

/*
 * Lets the command end by itself: it reads the end of its input. Its status says something then;
 * else the connection is ended, which is no failure of the command's.
 */
static void settle(struct transport *t)
{
	struct remote *r = t->priv;
	bool stopped = cancel_fired(t->cancel) || atomic_load(&t->aborted);
	int ms = r->extra ? ENDED_MS : TAIL_MS;

	if (stopped)
		ms = r->extra ? 0 : CANCELLED_MS; /* its end explains nothing */
	else if (!r->complete || !r->writer)
		ms = ENDED_MS;
	shutdown(t->wfd, SHUT_WR);
	if (io_drain(t, r->c.end_fd, ms)) {
		ended(r, 0);
		return;
	}
	pthread_mutex_lock(&r->lock);
	r->judged = true;
	pthread_mutex_unlock(&r->lock);
	r->c.ops->stop(&r->c);
}

static void say_held_words(struct remote *r)
{
	char line[LINE_MAX_BYTES + 32];

	if (r->shell[0])
		log_far(r->host, r->shell);
	if (!r->error[0] || r->told)
		return;
	snprintf(line, sizeof(line), "migtool: error: %s", r->error);
	log_far(r->host, line);
	if (r->hint[0]) {
		snprintf(line, sizeof(line), "  hint: %s", r->hint);
		log_far(r->host, line);
	}
	r->told = true;
}

static void stop_reader(struct remote *r)
{
	signal_event(r->reader_stop);
	pthread_join(r->reader, NULL);
}

static void remote_free(struct remote *r)
{
	if (r->reader_stop >= 0)
		close(r->reader_stop);
	if (r->reader_done >= 0)
		close(r->reader_done);
	pthread_mutex_destroy(&r->lock);
	free(r->command);
	free(r);
}

static int remote_close(struct transport *t, struct error *err)
{
	struct remote *r = t->priv;
	bool stopped = cancel_fired(t->cancel) || atomic_load(&t->aborted);
	int rc = 0;

	settle(t);
	stop_reader(r);
	if (!stopped && r->why.status != ST_OK) {
		*err = r->why;
		rc = -1;
	}
	say_held_words(r);
	r->c.ops->close(&r->c);
	io_free(t);
	remote_free(r);
	return rc;
}

static const struct transport_ops remote_ops = {
	.scheme = "ssh",
	.read = remote_read,
	.writev = remote_writev,
	.sendfile = remote_sendfile,
	.waiting = remote_waiting,
	.shutdown_write = remote_shutdown_write,
	.close = remote_close,
};

/* Is it the same thing, said by one side to the other? What was cut on its way still is. */
static bool same_words(const char *a, const char *b)
{
	char start[201];

	snprintf(start, sizeof(start), "%.200s", a);
	if (strstr(b, start))
		return true;
	snprintf(start, sizeof(start), "%.200s", b);
	return strstr(a, start) != NULL;
}

void remote_explain(struct transport *t, struct error *err)
{
	struct remote *r;
	bool first;

	if (!t || t->ops != &remote_ops)
		return;
	r = t->priv;
	/* what it says after we closed is about that */
	first = wait_for(r->c.end_fd, 0);
	settle(t);
	pthread_mutex_lock(&r->lock);
	if (r->error[0] && (!first || same_words(r->error, err->msg)))
		r->told = true;
	if (first && err->status == ST_SOCKET && r->why.status != ST_OK)
		*err = r->why;
	if (err->status == ST_PROTOCOL && !err->hint[0])
		err_hint(err, "does the far login print something by itself? its shell's start-up "
			      "files must not, unless for a terminal");
	pthread_mutex_unlock(&r->lock);
}

/* ---- opening ---- */

static struct remote *remote_new(const struct remote_how *how, const char *command,
				 struct error *err)
{
	struct remote *r = calloc(1, sizeof(*r));
	char name[512];

	if (!r) {
		err_set(err, ST_NOMEM, "no memory for a connection to %s", how->uri->host);
		return NULL;
	}
	far_name(how->uri, name, sizeof(name));
	log_escape(r->host, sizeof(r->host), name, strlen(name));
	r->writer = how->writer;
	r->extra = how->extra;
	pthread_mutex_init(&r->lock, NULL);
	r->command = strdup(command);
	r->reader_stop = eventfd(0, EFD_CLOEXEC);
	r->reader_done = eventfd(0, EFD_CLOEXEC);
	if (r->command && r->reader_stop >= 0 && r->reader_done >= 0)
		return r;
	err_sys(err, ST_NOMEM, errno, "no memory or descriptor for a connection to %s",
		how->uri->host);
	remote_free(r);
	return NULL;
}

static int start(struct remote *r, const struct remote_how *how, const char *command,
		 struct cancel *cancel, struct error *err)
{
	int e;

	log_verbose("%s runs: %s", r->host, command);
	if (how->rsh ? rsh_start(how, command, &r->c, cancel, err)
		     : ssh_start(how, command, &r->c, cancel, err))
		return -1;
	fcntl(r->c.fd, F_SETFL, fcntl(r->c.fd, F_GETFL) | O_NONBLOCK);
	e = pthread_create(&r->reader, NULL, read_stderr, r);
	if (!e)
		return 0;
	r->c.ops->close(&r->c);
	close(r->c.fd);
	return err_sys(err, ST_NOMEM, e, "cannot start a thread for %s", r->host);
}

struct transport *remote_open(const struct remote_how *how, const char *command,
			      struct cancel *cancel, struct error *err)
{
	struct remote *r = remote_new(how, command, err);
	struct transport *t;

	if (!r)
		return NULL;
	t = io_new(&remote_ops, how->uri->text, cancel, err);
	if (!t || start(r, how, command, cancel, err)) {
		if (t)
			io_free(t);
		remote_free(r);
		return NULL;
	}
	t->priv = r;
	t->rfd = t->wfd = r->c.fd;
	t->rkind = t->wkind = IO_SOCKET;
	t->two_way = true;
	return t;
}

struct transport *remote_dial(const struct config *cfg, const struct uri *uri, bool writer,
			      const char *join, int timeout_ms, struct ssh_login **login,
			      struct cancel *cancel, struct error *err)
{
	struct remote_how how = { .uri = uri,
				  .rsh = cfg->rsh,
				  .port = cfg->ssh_port,
				  .identities = &cfg->identities,
				  .ssh_options = &cfg->ssh_options,
				  .timeout_ms = timeout_ms,
				  .writer = writer,
				  .extra = join,
				  .login = login };
	char *command = join ? far_join_command(cfg, join, err)
			     : far_command(cfg, uri, writer ? ROLE_SOURCE : ROLE_DESTINATION, err);
	struct transport *t = command ? remote_open(&how, command, cancel, err) : NULL;

	free(command);
	return t;
}

int remote_policy(struct policy *p, const struct config *cfg, const struct uri *uri, bool writer,
		  struct error *err)
{
	struct remote_how how = { .uri = uri,
				  .rsh = cfg->rsh,
				  .port = cfg->ssh_port,
				  .identities = &cfg->identities,
				  .ssh_options = &cfg->ssh_options,
				  .writer = writer };
	struct error ignored; /* a command line that cannot be says so when it is needed */
	char *first = far_command(cfg, uri, writer ? ROLE_SOURCE : ROLE_DESTINATION, &ignored);
	char *joins = far_join_command(cfg, POLICY_HOLE, &ignored);
	int rc = cfg->rsh ? 0 : ssh_policy(p, &how, err);

	if (first && cfg->rsh)
		rc = rsh_policy(p, &how, first, err);
	how.extra = true;
	if (!rc && joins && cfg->rsh)
		rc = rsh_policy(p, &how, joins, err);
	free(first);
	free(joins);
	return rc;
}
