// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What the command on a far host says: its answer on stdout, its words on stderr, and how it ends,
 * through the way that they take in a session. Input: flags, the exit status, the length of stderr
 * (two bytes), stderr, stdout. Whatever they are: an answer is taken or there is one error, what is
 * printed comes in lines that cannot steer a terminal, and nothing is left open.
 *
 * The back end is this file's own, in ssh's place; and what is printed goes where it can be read.
 */
#include "fuzz_memory.h"

#include "remote.h"
#include "wire-greet.h"

#include <dirent.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

static int printed;
#undef STDERR_FILENO
#define STDERR_FILENO printed
#include "log.c"

enum {
	WRITER = 1,	 /* this side is the source */
	EXTRA = 2,	 /* a further connection */
	NO_STATUS = 4,	 /* the connection broke before the command ended */
	SHUT_BEFORE = 8, /* all was written when it ends */
	UNHEARD = 16,	 /* stdout is not read at all */
};

static struct {
	uint8_t flags, status;
	const uint8_t *err, *out;
	size_t err_len, out_len;
} far;

static int far_status(struct remote_conn *c, int *status, struct error *err)
{
	(void)c;
	if (far.flags & NO_STATUS)
		return err_set(err, ST_SOCKET, "the connection broke");
	*status = far.status;
	return 0;
}

static void far_stop(struct remote_conn *c)
{
	(void)c;
}

static void far_close(struct remote_conn *c)
{
	close(c->err_fd);
	close(c->end_fd);
}

static const struct remote_ops far_ops = { .status = far_status,
					   .stop = far_stop,
					   .close = far_close };

/* Its end of a pair says all that it has to say, and nothing more. */
static int says(const uint8_t *bytes, size_t len)
{
	int pair[2];

	FUZZ_CHECK(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair));
	FUZZ_CHECK(send(pair[1], bytes, len, MSG_DONTWAIT) == (ssize_t)len);
	close(pair[1]);
	return pair[0];
}

int ssh_start(const struct remote_how *how, const char *command, struct remote_conn *c,
	      struct cancel *cancel, struct error *err)
{
	(void)how;
	(void)command;
	(void)cancel;
	(void)err;
	c->ops = &far_ops;
	c->fd = says(far.out, far.out_len);
	c->err_fd = says(far.err, far.err_len);
	c->end_fd = eventfd(1, EFD_CLOEXEC);
	FUZZ_CHECK(c->end_fd >= 0);
	return 0;
}

int ssh_policy(struct policy *p, const struct remote_how *how, struct error *err)
{
	(void)p;
	(void)how;
	(void)err;
	return 0;
}

void ssh_policy_end(void)
{
}

void ssh_login_free(struct ssh_login *g)
{
	(void)g;
}

static unsigned open_files(void)
{
	DIR *d = opendir("/proc/self/fd");
	unsigned n = 0;

	FUZZ_CHECK(d);
	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

/* Lines of "far: WORDS" and of our own. */
static void judge_printed(void)
{
	static char text[1 << 20];
	ssize_t n = pread(printed, text, sizeof(text) - 1, 0);

	FUZZ_CHECK(n >= 0 && n < (ssize_t)sizeof(text) - 1);
	for (char *line = text, *end; line < text + n; line = end + 1) {
		end = memchr(line, '\n', (size_t)(text + n - line));
		FUZZ_CHECK(end && end - line < 2400);
		FUZZ_CHECK(!strncmp(line, "far: ", 5) || !strncmp(line, "migtool", 7));
		for (const char *p = line; p < end; p++)
			FUZZ_CHECK((unsigned char)*p >= ' ' && *p != 0x7f);
	}
	FUZZ_CHECK(!ftruncate(printed, 0) && !lseek(printed, 0, SEEK_SET));
}

static void judge(const struct error *err)
{
	FUZZ_CHECK(err->status != ST_OK && err->msg[0]);
	FUZZ_CHECK(memchr(err->msg, '\0', sizeof(err->msg)));
	FUZZ_CHECK(memchr(err->hint, '\0', sizeof(err->hint)));
	for (const char *p = err->msg; *p; p++)
		FUZZ_CHECK((unsigned char)*p >= ' ' && *p != 0x7f);
	for (const char *p = err->hint; *p; p++)
		FUZZ_CHECK((unsigned char)*p >= ' ' && *p != 0x7f);
}

/* As a source does that has greeted: an answer, or why there is none. */
static int get_answer(struct transport *t, struct error *err)
{
	struct greet_answer a;
	struct stream s;
	int rc = stream_open(&s, t, 4096, 4096, err);

	FUZZ_CHECK(!rc);
	rc = greet_answer_get(&s, 60000, &a, err);
	stream_close(&s);
	return rc;
}

static void session(struct cancel *token)
{
	char text[] = "ssh://far/x", host[] = "far";
	struct uri uri = { .scheme = SCHEME_SSH, .text = text, .host = host, .fd = -1 };
	struct remote_how how = { .uri = &uri,
				  .writer = far.flags & WRITER,
				  .extra = far.flags & EXTRA };
	struct error err = { 0 };
	struct transport *t = remote_open(&how, "migtool recv --far stdio: /x", token, &err);
	int rc = 0;

	FUZZ_CHECK(t);
	if (!(far.flags & UNHEARD))
		rc = get_answer(t, &err);
	if (rc) {
		judge(&err);
		remote_explain(t, &err);
		judge(&err);
	} else if (far.flags & SHUT_BEFORE) {
		transport_shutdown_write(t, &err);
	}
	if (transport_close(t, &err))
		judge(&err);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct cancel token;
	static bool ready;
	struct error err;
	unsigned before;

	if (!ready) {
		printed = memfd_create("printed", MFD_CLOEXEC);
		FUZZ_CHECK(printed >= 0 && !cancel_init(&token, &err));
		ready = true;
	}
	if (size < 4)
		return 0;
	far.flags = data[0];
	far.status = data[1];
	far.err_len = (size_t)data[2] << 8 | data[3];
	if (far.err_len > size - 4)
		far.err_len = size - 4;
	far.err = data + 4;
	far.out = far.err + far.err_len;
	far.out_len = size - 4 - far.err_len;
	before = open_files();
	session(&token);
	judge_printed();
	FUZZ_CHECK(open_files() == before);
	return 0;
}
