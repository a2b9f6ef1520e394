// SPDX-License-Identifier: GPL-2.0-or-later
/* `migtool psk FILE`: makes a file with a key for TLS, and says how both ends use it. */
#include "broker.h"
#include "commands.h"
#include "psk.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

static int write_key(int fd, const char *path, const char *line, size_t len, struct error *err)
{
	while (len > 0) {
		ssize_t n = write(fd, line, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_sys(err, ST_FILE, errno, "cannot write %s", path);
		line += n;
		len -= (size_t)n;
	}
	return fsync(fd) ? err_sys(err, ST_FILE, errno, "cannot write %s", path) : 0;
}

static int make_file(const char *path, const char *line, size_t len, struct error *err)
{
	/* never through what is there already, a symbolic link neither */
	int fd = broker_open(path, O_WRONLY | O_CREAT | O_EXCL, 0600), rc;

	if (fd < 0 && errno == EEXIST) {
		err_set(err, ST_FILE, "%s exists: a key is never overwritten", path);
		return err_hint(err, "use that one, or remove it at both ends first");
	}
	if (fd < 0)
		return err_sys(err, ST_FILE, errno, "cannot make %s", path);
	/* whatever the umask left: QEMU and we have to read it */
	rc = fchmod(fd, 0600) ? err_sys(err, ST_FILE, errno, "cannot make %s private", path)
			      : write_key(fd, path, line, len, err);
	close(fd);
	if (rc)
		broker_unlink(path);
	return rc;
}

static void say_how(const char *path)
{
	const char *slash = strrchr(path, '/');
	const char *name = slash ? slash + 1 : path;
	int dir_len = slash ? (int)(slash - path) : 1;

	printf("%s holds a new key for the user %s. Copy it to the other host by a safe way:\n"
	       "    scp -p %s OTHER-HOST:\n"
	       "and give both ends of the migration\n"
	       "    --param tls-creds=%s\n",
	       path, PSK_DEFAULT_USER, path, path);
	if (strcmp(name, "keys.psk")) {
		printf("A QEMU wants it under the name keys.psk, in a directory.\n");
		return;
	}
	printf("A QEMU that is the destination (endpoint=client: the source):\n"
	       "    -object tls-creds-psk,id=tls0,endpoint=server,dir=%.*s\n"
	       "and its migration parameter tls-creds is tls0.\n",
	       slash == path ? 1 : dir_len, slash ? path : ".");
}

int cmd_psk(const struct config *cfg, struct error *err)
{
	uint8_t key[PSK_KEY_NEW];
	char line[PSK_LINE_MAX];
	size_t len;
	int rc;

	if (getrandom(key, sizeof(key), 0) != (ssize_t)sizeof(key))
		return err_sys(err, ST_UNSUPPORTED, errno, "no random bytes for a key");
	len = psk_line(line, PSK_DEFAULT_USER, key, sizeof(key));
	rc = make_file(cfg->image, line, len, err);
	explicit_bzero(key, sizeof(key));
	explicit_bzero(line, sizeof(line));
	if (!rc)
		say_how(cfg->image);
	return rc;
}
