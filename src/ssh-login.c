// SPDX-License-Identifier: GPL-2.0-or-later
#include "ssh-login.h"

#include "broker.h"
#include "log.h"

#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#define KEY_MAX	  (64u << 10)
#define KNOWN_MAX (16u << 20)

/* A regular file of at most `max` bytes, with a NUL behind it. NULL with errno. */
static char *read_file(const char *path, size_t max, size_t *len)
{
	int fd = broker_open(path, O_RDONLY | O_NONBLOCK, 0);
	char *text = NULL;
	struct stat st;
	size_t n = 0;

	if (fd < 0)
		return NULL;
	if (fstat(fd, &st) == 0 && (!S_ISREG(st.st_mode) || st.st_size > (off_t)max))
		errno = S_ISDIR(st.st_mode) ? EISDIR : EFBIG;
	else if ((text = malloc((size_t)st.st_size + 1)))
		for (;;) {
			ssize_t got = read(fd, text + n, (size_t)st.st_size - n);

			if (got < 0 && errno == EINTR)
				continue;
			if (got <= 0)
				break;
			n += (size_t)got;
		}
	close(fd);
	if (text)
		text[n] = '\0';
	*len = n;
	return text;
}

/* ~/ and %d are the home; nothing else is special. */
static void expand(char *out, size_t size, const char *path)
{
	const char *home = getenv("HOME");

	if (!home || !*home) {
		struct passwd *pw = getpwuid(getuid());

		home = pw ? pw->pw_dir : "";
	}
	if (!strncmp(path, "~/", 2))
		snprintf(out, size, "%s/%s", home, path + 2);
	else if (!strncmp(path, "%d/", 3))
		snprintf(out, size, "%s/%s", home, path + 3);
	else
		snprintf(out, size, "%s", path);
}

/* ---- options ---- */

/* As in ssh_config: files apart by blanks; "none" is none. */
static int take_known_files(struct ssh_login *g, const char *value, struct error *err)
{
	char copy[1024], *rest = copy, *word;

	if (strlen(value) >= sizeof(copy))
		return err_set(err, ST_USAGE, "-o UserKnownHostsFile: the value is too long");
	strcpy(copy, value);
	g->nfiles = 0;
	while ((word = strsep(&rest, " \t"))) {
		if (!*word || !strcmp(word, "none"))
			continue;
		if (g->nfiles == LOGIN_FILES_MAX - LOGIN_SYSTEM_FILES)
			return err_set(err, ST_USAGE, "-o UserKnownHostsFile: too many files");
		expand(g->files[g->nfiles], sizeof(g->files[0]), word);
		g->nfiles++;
	}
	return 0;
}

static int take_option(struct ssh_login *g, const char *option, struct error *err)
{
	const char *eq = strchr(option, '=');
	size_t n = eq ? (size_t)(eq - option) : strlen(option);

	if (eq && n == 18 && !strncasecmp(option, "UserKnownHostsFile", n))
		return take_known_files(g, eq + 1, err);
	if (eq && n == 21 && !strncasecmp(option, "StrictHostKeyChecking", n)) {
		if (!strcasecmp(eq + 1, "yes"))
			return 0;
		err_set(err, ST_USAGE, "-o %s: only yes is possible", option);
		return err_hint(err, "a host key that is unknown is refused, with the command that "
				     "accepts it");
	}
	err_set(err, ST_USAGE,
		"-o %s: the ssh library takes only UserKnownHostsFile=FILE and "
		"StrictHostKeyChecking=yes",
		option);
	return err_hint(err, "the OpenSSH client takes the others: --rsh 'ssh -o %s'", option);
}

/* A new account has no ~/.ssh yet; a command that adds to a file in it has to make it. */
static void look_for_directory(struct ssh_login *g)
{
	char dir[512];
	int fd;

	expand(dir, sizeof(dir), "~/.ssh");
	if (g->nfiles == LOGIN_SYSTEM_FILES || strncmp(g->files[0], dir, strlen(dir)) ||
	    g->files[0][strlen(dir)] != '/')
		return;
	fd = broker_open(dir, O_PATH | O_DIRECTORY, 0);
	if (fd >= 0)
		close(fd);
	g->no_directory = fd < 0 && errno == ENOENT;
}

static int read_known_files(struct ssh_login *g, struct error *err)
{
	for (unsigned i = 0; i < g->nfiles; i++) {
		size_t len = 0;
		char *text = read_file(g->files[i], KNOWN_MAX, &len);
		int rc;

		if (!text) {
			/* fail closed: what may say @revoked has to be read if it is there */
			if (errno == ENOENT || errno == ENOTDIR)
				continue;
			return err_sys(err, ST_FILE, errno, "cannot read %s", g->files[i]);
		}
		rc = known_add(&g->known, g->files[i], text, len, g->host, g->port, err);
		free(text);
		if (rc)
			return -1;
	}
	return 0;
}

/* ---- keys ---- */

static int add_key(struct ssh_login *g, const char *path, bool wanted, struct error *err)
{
	struct login_key *k = &g->keys[g->nkeys];

	if (g->nkeys == CONFIG_LIST_MAX)
		return 0;
	expand(k->path, sizeof(k->path), path);
	k->text = read_file(k->path, KEY_MAX, &k->len);
	if (!k->text) {
		if (!wanted)
			return 0;
		return err_sys(err, ST_FILE, errno, "cannot read the key %s", k->path);
	}
	keyfile_parse(&k->seen, k->text, k->len);
	if (k->seen.kind == KEYFILE_NONE || k->seen.kind == KEYFILE_PUBLIC) {
		err_set(err, ST_FILE, "%s is no private key", k->path);
		if (k->seen.kind == KEYFILE_PUBLIC)
			err_hint(err, "it is the public one; the private one is usually the same "
				      "name without .pub");
		explicit_bzero(k->text, k->len);
		free(k->text);
		k->text = NULL;
		return wanted ? -1 : 0;
	}
	g->nkeys++;
	return 0;
}

static int read_keys(struct ssh_login *g, const struct remote_how *how, struct error *err)
{
	static const char *const usual[] = { "~/.ssh/id_ed25519", "~/.ssh/id_ecdsa",
					     "~/.ssh/id_rsa" };

	g->chosen = how->identities && how->identities->n;
	if (g->chosen) {
		for (unsigned i = 0; i < how->identities->n; i++)
			if (add_key(g, how->identities->v[i], true, err))
				return -1;
		return 0;
	}
	for (size_t i = 0; i < sizeof(usual) / sizeof(usual[0]); i++)
		if (add_key(g, usual[i], false, err))
			return -1;
	return 0;
}

/* ---- all of it ---- */

static int take_user(struct ssh_login *g, const struct remote_how *how, struct error *err)
{
	struct passwd *pw = how->uri->user ? NULL : getpwuid(getuid());
	const char *user = how->uri->user ? how->uri->user : pw ? pw->pw_name : getenv("USER");

	if (!user || !*user || strlen(user) >= sizeof(g->user)) {
		err_set(err, ST_USAGE, "%s: nobody to log in as", how->uri->text);
		return err_hint(err, "ssh://USER@HOST/PATH names one");
	}
	strcpy(g->user, user);
	return 0;
}

static int fill(struct ssh_login *g, const struct remote_how *how, struct error *err)
{
	if (strlen(how->uri->host) >= sizeof(g->host))
		return err_set(err, ST_USAGE, "%s: the host's name is too long", how->uri->text);
	strcpy(g->host, how->uri->host);
	snprintf(g->text, sizeof(g->text), "%s", how->uri->text);
	g->port = how->uri->port ? how->uri->port : how->port ? how->port : SSH_PORT;
	if (take_user(g, how, err) || take_known_files(g,
						       "~/.ssh/known_hosts "
						       "~/.ssh/known_hosts2",
						       err))
		return -1;
	for (unsigned i = 0; how->ssh_options && i < how->ssh_options->n; i++)
		if (take_option(g, how->ssh_options->v[i], err))
			return -1;
	strcpy(g->files[g->nfiles++], "/etc/ssh/ssh_known_hosts");
	strcpy(g->files[g->nfiles++], "/etc/ssh/ssh_known_hosts2");
	look_for_directory(g);
	if (read_known_files(g, err))
		return -1;
	return read_keys(g, how, err);
}

struct ssh_login *ssh_login_new(const struct remote_how *how, struct error *err)
{
	struct ssh_login *g = calloc(1, sizeof(*g));

	if (!g) {
		err_set(err, ST_NOMEM, "no memory for ssh");
		return NULL;
	}
	pthread_mutex_init(&g->lock, NULL);
	if (fill(g, how, err) == 0)
		return g;
	ssh_login_free(g);
	return NULL;
}

void ssh_login_free(struct ssh_login *g)
{
	if (!g)
		return;
	for (unsigned i = 0; i < g->nkeys; i++) {
		explicit_bzero(g->keys[i].text, g->keys[i].len);
		free(g->keys[i].text);
	}
	known_free(&g->known);
	pthread_mutex_destroy(&g->lock);
	explicit_bzero(g, sizeof(*g));
	free(g);
}
