// SPDX-License-Identifier: GPL-2.0-or-later
#include "terminal.h"

#include "broker.h"
#include "log.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

static void say(int tty, const char *s)
{
	char safe[1024];
	size_t n, len;
	ssize_t done;

	log_escape(safe, sizeof(safe), s, strlen(s));
	len = strlen(safe);
	for (n = 0; n < len; n += (size_t)done) {
		done = write(tty, safe + n, len - n);
		if (done < 0 && errno == EINTR)
			done = 0;
		if (done < 0)
			return;
	}
}

/* The terminal gives whole lines; a long one comes in pieces. */
static int read_line(int tty, char *buf, size_t size, struct cancel *cancel, struct error *err)
{
	size_t n = 0;

	for (;;) {
		char piece[256];
		ssize_t got;
		char *end;

		if (cancel_wait(cancel, tty, POLLIN, -1, err) < 0)
			return -1;
		got = read(tty, piece, sizeof(piece));
		if (got < 0 && (errno == EINTR || errno == EAGAIN))
			continue;
		if (got <= 0)
			return err_set(err, ST_UNSUPPORTED, "nothing was typed");
		end = memchr(piece, '\n', (size_t)got);
		if (end)
			got = end - piece;
		for (ssize_t i = 0; i < got && n < size - 1; i++)
			buf[n++] = piece[i];
		explicit_bzero(piece, sizeof(piece));
		buf[n] = '\0';
		if (end)
			return 0;
	}
}

int terminal_ask(const char *prompt, bool echo, char *buf, size_t size, struct cancel *cancel,
		 struct error *err)
{
	int tty = broker_open("/dev/tty", O_RDWR | O_NOCTTY, 0), rc;
	struct termios was, silent;

	if (tty < 0 || tcgetattr(tty, &was)) {
		if (tty >= 0)
			close(tty);
		return err_set(err, ST_UNSUPPORTED, "no terminal to ask on");
	}
	silent = was;
	if (!echo)
		silent.c_lflag &= ~(tcflag_t)(ECHO | ECHOE | ECHOK | ECHONL);
	tcsetattr(tty, TCSAFLUSH, &silent);
	say(tty, prompt);
	rc = read_line(tty, buf, size, cancel, err);
	tcsetattr(tty, TCSAFLUSH, &was);
	if (!echo && write(tty, "\n", 1) < 0)
		rc = rc ? rc : 0; /* a terminal that is gone shows nothing */
	close(tty);
	if (rc)
		explicit_bzero(buf, size);
	return rc;
}
