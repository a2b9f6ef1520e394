// SPDX-License-Identifier: GPL-2.0-or-later
#include "policy.h"

#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifndef RENAME_NOREPLACE
#define RENAME_NOREPLACE (1 << 0)
#define RENAME_EXCHANGE	 (1 << 1)
#endif

/* What may be asked of open beside the access mode. */
#define LOOK_FLAGS (O_NOCTTY | O_PATH | O_NOFOLLOW | O_DIRECTORY | O_NONBLOCK | O_CLOEXEC)
#define MAKE_FLAGS (O_NOCTTY | O_CREAT | O_EXCL | O_TRUNC | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC)

static const char *const leaves[LEAF__MAX] = {
	[LEAF_SELF] = "",
	[LEAF_MANIFEST] = "/manifest.json",
	[LEAF_MANIFEST_PART] = "/manifest.json.part",
	[LEAF_STATE] = "/device-state",
	[LEAF_STATE_PART] = "/device-state.part",
	[LEAF_RAM] = "/ram",
	[LEAF_SESSION] = ".session",
	[LEAF_BLOCK] = "/ram/",
};

static int no_memory(struct error *err)
{
	return err_set(err, ST_NOMEM, "no memory for what this run may do");
}

static int full(struct error *err)
{
	return err_set(err, ST_NOMEM, "more files, hosts or commands than one run may use");
}

/* ---- making it ---- */

static struct policy_root *find_root(struct policy *p, const char *path)
{
	for (unsigned i = 0; i < p->nroots; i++)
		if (!strcmp(p->roots[i].path, path))
			return &p->roots[i];
	return NULL;
}

int policy_add_root(struct policy *p, const char *path, unsigned rights, struct error *err)
{
	struct policy_root *r = find_root(p, path);
	char *copy;

	if (r) {
		r->rights |= rights;
		return 0;
	}
	if (p->nroots == POLICY_ROOTS)
		return full(err);
	r = &p->roots[p->nroots++];
	r->path = strdup(path);
	r->part = malloc(strlen(path) + sizeof(".part"));
	copy = strdup(path); /* dirname writes into it */
	r->parent = copy ? strdup(dirname(copy)) : NULL;
	free(copy);
	r->rights = rights;
	if (!r->path || !r->part || !r->parent)
		return no_memory(err);
	sprintf(r->part, "%s.part", path);
	return 0;
}

int policy_set_real(struct policy *p, const char *path, const char *real, struct error *err)
{
	struct policy_root *r = find_root(p, path);

	if (!r || r->real)
		return 0;
	r->real = strdup(real);
	return r->real ? 0 : no_memory(err);
}

int policy_add_host(struct policy *p, const char *name, uint16_t port, bool passive,
		    struct error *err)
{
	struct policy_host *h;

	if (p->nhosts == POLICY_HOSTS)
		return full(err);
	h = &p->hosts[p->nhosts++];
	h->name = strdup(name);
	h->port = port;
	h->passive = passive;
	return h->name ? 0 : no_memory(err);
}

int policy_add_address(struct policy *p, const void *sa, socklen_t len, unsigned use,
		       struct error *err)
{
	struct policy_address *a;

	if (p->naddresses == POLICY_ADDRESSES || len > sizeof(a->sa))
		return full(err);
	a = &p->addresses[p->naddresses++];
	memcpy(&a->sa, sa, len);
	a->len = len;
	a->use = use;
	return 0;
}

void policy_free_argv(char **argv)
{
	for (char **a = argv; a && *a; a++)
		free(*a);
	free(argv);
}

static char **copy_argv(char *const argv[])
{
	size_t n = 0;
	char **copy;

	while (argv[n])
		n++;
	copy = calloc(n + 1, sizeof(*copy));
	for (size_t i = 0; copy && i < n; i++) {
		copy[i] = strdup(argv[i]);
		if (!copy[i]) {
			policy_free_argv(copy);
			return NULL;
		}
	}
	return copy;
}

int policy_add_command(struct policy *p, char *const argv[], const struct policy_command *how,
		       struct error *err)
{
	struct policy_command *c;

	if (p->ncommands == POLICY_COMMANDS)
		return full(err);
	c = &p->commands[p->ncommands++];
	*c = *how;
	c->argv = copy_argv(argv);
	return c->argv ? 0 : no_memory(err);
}

int policy_add_listener(struct policy *p, int fd, struct error *err)
{
	if (p->nlisteners == POLICY_LISTENERS)
		return full(err);
	p->listeners[p->nlisteners++] = fd;
	return 0;
}

void policy_free(struct policy *p)
{
	for (unsigned i = 0; i < p->nroots; i++) {
		free(p->roots[i].path);
		free(p->roots[i].part);
		free(p->roots[i].parent);
		free(p->roots[i].real);
	}
	for (unsigned i = 0; i < p->nhosts; i++)
		free(p->hosts[i].name);
	for (unsigned i = 0; i < p->ncommands; i++)
		policy_free_argv(p->commands[i].argv);
	memset(p, 0, sizeof(*p));
}

/* ---- names ---- */

/* A file's name as manifest_file_name() encodes a block's: one component, and no hidden one. */
static bool block_valid(const char *s, size_t len)
{
	static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
				    "0123456789-._~%";

	return len > 0 && len <= POLICY_BLOCK_MAX && s[0] != '.' && strspn(s, plain) == len;
}

bool policy_name_valid(const struct policy *p, const struct policy_name *n)
{
	size_t len = strnlen(n->block, sizeof(n->block));

	if (n->root >= p->nroots || n->base >= BASE__MAX || n->leaf >= LEAF__MAX)
		return false;
	if (n->base == BASE_PARENT && n->leaf != LEAF_SELF)
		return false;
	if (n->leaf == LEAF_SESSION && n->base != BASE_PART)
		return false;
	if (len == sizeof(n->block))
		return false;
	return n->leaf == LEAF_BLOCK ? block_valid(n->block, len) : len == 0;
}

char *policy_path(const struct policy *p, const struct policy_name *n)
{
	const struct policy_root *r = &p->roots[n->root];
	const char *base = n->base == BASE_PARENT ? r->parent
			   : n->base == BASE_PART ? r->part
						  : r->path;
	char *path;

	return asprintf(&path, "%s%s%s", base, leaves[n->leaf], n->block) < 0 ? NULL : path;
}

/* Which leaf stands behind the base's name? */
static bool find_leaf(const char *rest, struct policy_name *out)
{
	size_t head = strlen(leaves[LEAF_BLOCK]);

	for (int i = 0; i < LEAF_BLOCK; i++) {
		if (i == LEAF_SESSION && out->base != BASE_PART)
			continue;
		if (!strcmp(rest, leaves[i])) {
			out->leaf = (uint8_t)i;
			return true;
		}
	}
	if (strncmp(rest, leaves[LEAF_BLOCK], head) != 0 ||
	    !block_valid(rest + head, strlen(rest + head)))
		return false;
	out->leaf = LEAF_BLOCK;
	memcpy(out->block, rest + head, strlen(rest + head));
	return true;
}

static bool find_in(const struct policy_root *r, const char *path, enum policy_base base,
		    struct policy_name *out)
{
	const char *name = base == BASE_PARENT ? r->parent : base == BASE_PART ? r->part : r->path;
	size_t len = strlen(name);

	memset(out, 0, sizeof(*out));
	out->base = (uint8_t)base;
	if (base == BASE_PARENT)
		return !strcmp(path, name);
	return !strncmp(path, name, len) && find_leaf(path + len, out);
}

bool policy_find(const struct policy *p, const char *path, unsigned nth, struct policy_name *out)
{
	for (unsigned i = 0; i < p->nroots; i++)
		for (int base = 0; base < BASE__MAX; base++)
			if (find_in(&p->roots[i], path, (enum policy_base)base, out) && !nth--) {
				out->root = (uint8_t)i;
				return true;
			}
	return false;
}

/* ---- what may be done ---- */

/* Rights of the root, 0 for a name that is none. */
static unsigned rights_of(const struct policy *p, const struct policy_name *n)
{
	return policy_name_valid(p, n) ? p->roots[n->root].rights : 0;
}

/* May what this name stands for be made, written, removed? */
static bool ours_to_change(const struct policy *p, const struct policy_name *n)
{
	unsigned rights = rights_of(p, n);

	/* in place too a transfer that breaks leaves word of itself */
	if (n->leaf == LEAF_SESSION)
		return (rights & (POLICY_PART | POLICY_IN_PLACE)) != 0;
	if (n->leaf != LEAF_SELF && !(rights & POLICY_MEMBERS))
		return false;
	return n->base == BASE_PART    ? (rights & POLICY_PART) != 0
	       : n->base == BASE_FINAL ? (rights & POLICY_IN_PLACE) != 0
				       : false;
}

static bool may_look(const struct policy *p, const struct policy_name *n, int flags)
{
	unsigned rights = rights_of(p, n);

	if (flags & ~LOOK_FLAGS)
		return false;
	if (n->base == BASE_PARENT)
		return (rights & POLICY_PARENT) && (flags & O_DIRECTORY);
	if (n->leaf == LEAF_SESSION)
		return ours_to_change(p, n);
	if (n->base == BASE_PART && !(rights & POLICY_PART))
		return false;
	return n->leaf == LEAF_SELF ? (rights & POLICY_LOOK) != 0 : (rights & POLICY_MEMBERS) != 0;
}

bool policy_may_open(const struct policy *p, const struct policy_name *n, int flags)
{
	int access = flags & O_ACCMODE, rest = flags & ~O_ACCMODE;

	if (access == O_RDONLY && !(rest & (O_CREAT | O_TRUNC | O_EXCL)))
		return may_look(p, n, rest);
	/* O_EXCL alone: a block device that nobody else may have */
	if ((access != O_RDWR && access != O_WRONLY) || (rest & ~MAKE_FLAGS))
		return false;
	if (ours_to_change(p, n))
		return n->leaf != LEAF_RAM;
	return (rights_of(p, n) & POLICY_WRITE) && n->base == BASE_FINAL &&
	       (n->leaf == LEAF_SELF ||
		(n->leaf == LEAF_BLOCK && (rights_of(p, n) & POLICY_MEMBERS))) &&
	       !(rest & (O_CREAT | O_TRUNC));
}

bool policy_may_unlink(const struct policy *p, const struct policy_name *n)
{
	if (ours_to_change(p, n))
		return n->leaf != LEAF_RAM;
	return (rights_of(p, n) & POLICY_UNLINK) && n->base == BASE_FINAL && n->leaf == LEAF_SELF;
}

bool policy_may_mkdir(const struct policy *p, const struct policy_name *n)
{
	return ours_to_change(p, n) && (n->leaf == LEAF_SELF || n->leaf == LEAF_RAM) &&
	       (rights_of(p, n) & POLICY_MEMBERS);
}

bool policy_may_mark(const struct policy *p, const struct policy_name *n, bool on)
{
	return (rights_of(p, n) & POLICY_PART) && n->leaf == LEAF_SELF &&
	       (n->base == BASE_PART || (n->base == BASE_FINAL && !on));
}

bool policy_may_link(const struct policy *p, const struct policy_name *from,
		     const struct policy_name *to)
{
	return may_look(p, from, 0) && ours_to_change(p, to) && from->root == to->root &&
	       from->base == BASE_FINAL && to->base == BASE_PART && from->leaf == LEAF_BLOCK &&
	       to->leaf == LEAF_BLOCK && !strcmp(from->block, to->block);
}

bool policy_may_access(const struct policy *p, const struct policy_name *n)
{
	return may_look(p, n, O_DIRECTORY);
}

/* IMAGE.part becomes IMAGE. */
static bool may_commit(unsigned rights, unsigned flags, bool occupied)
{
	if (!(rights & POLICY_PART))
		return false;
	if (flags == RENAME_NOREPLACE)
		return true;
	if (flags != 0 && flags != RENAME_EXCHANGE)
		return false;
	return (rights & POLICY_REPLACE) || (flags == 0 && !occupied);
}

bool policy_may_rename(const struct policy *p, const struct policy_name *from,
		       const struct policy_name *to, unsigned flags, bool occupied)
{
	if (!rights_of(p, from) || !rights_of(p, to) || from->root != to->root)
		return false;
	if (from->leaf == LEAF_SELF && to->leaf == LEAF_SELF)
		return from->base == BASE_PART && to->base == BASE_FINAL &&
		       may_commit(rights_of(p, from), flags, occupied);
	return from->leaf == LEAF_MANIFEST_PART && to->leaf == LEAF_MANIFEST &&
	       from->base == to->base && flags == 0 && ours_to_change(p, to);
}

int policy_find_host(const struct policy *p, const char *name, uint16_t port, bool passive)
{
	for (unsigned i = 0; i < p->nhosts; i++) {
		const struct policy_host *h = &p->hosts[i];

		if (!strcmp(h->name, name) && h->port == port && h->passive == passive)
			return (int)i;
	}
	return -1;
}

bool policy_fill_valid(const char fill[POLICY_FILL + 1])
{
	return fill[POLICY_FILL] == '\0' && strspn(fill, "0123456789abcdef") == POLICY_FILL;
}

/* Is it our word, but for what stands in the hole? */
static bool same_but_hole(const char *ours, const char *word, char fill[POLICY_FILL + 1])
{
	const char *hole = strstr(ours, POLICY_HOLE);
	size_t before = hole ? (size_t)(hole - ours) : 0;

	if (!hole || strlen(word) != strlen(ours) || strncmp(word, ours, before) != 0 ||
	    strcmp(word + before + POLICY_FILL, hole + POLICY_FILL) != 0)
		return false;
	memcpy(fill, word + before, POLICY_FILL);
	fill[POLICY_FILL] = '\0';
	return policy_fill_valid(fill);
}

static bool same_argv(const struct policy_command *c, char *const *b, char fill[POLICY_FILL + 1])
{
	char *const *a = c->argv;

	fill[0] = '\0';
	for (; *a && *b; a++, b++) {
		if (c->hole && !a[1] ? !same_but_hole(*a, *b, fill) : strcmp(*a, *b) != 0)
			return false;
	}
	return !*a && !*b;
}

int policy_find_command(const struct policy *p, char *const argv[], char fill[POLICY_FILL + 1])
{
	for (unsigned i = 0; i < p->ncommands; i++)
		if (same_argv(&p->commands[i], argv, fill))
			return (int)i;
	return -1;
}

char **policy_argv(const struct policy_command *c, const char *fill)
{
	char **argv = copy_argv(c->argv), **last = argv, *hole;

	while (last && *last && last[1])
		last++;
	hole = c->hole && last && *last ? strstr(*last, POLICY_HOLE) : NULL;
	if (hole)
		memcpy(hole, fill, POLICY_FILL);
	return argv;
}

bool policy_may_use(const struct policy_address *list, unsigned n, const void *sa, socklen_t len,
		    enum policy_use use)
{
	for (unsigned i = 0; i < n; i++)
		if (list[i].len == len && (list[i].use & use) && !memcmp(&list[i].sa, sa, len))
			return true;
	return false;
}
