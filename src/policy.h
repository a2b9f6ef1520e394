/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a run may ask the broker for, decided from the command line before any byte of a peer is
 * read. The worker names things by numbers of this table and never by a path, an address or a
 * command of its own; both processes have a copy, and the broker's is the one that counts.
 *
 * A root is a name that the user gave (IMAGE, a key file, the path of a unix socket). Beside it and
 * below it stand the names that an image's files have, and no others: IMAGE.part, the directory
 * that IMAGE is in, and in either of the first two ram/<block>, device-state, manifest.json and the
 * two .part of these; and IMAGE.part.session.
 */
#ifndef MIGTOOL_POLICY_H
#define MIGTOOL_POLICY_H

#include "error.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

/* What may be done with a root. */
enum policy_right {
	POLICY_LOOK = 1 << 0,	 /* look at it and read it */
	POLICY_MEMBERS = 1 << 1, /* likewise what an image's directory holds */
	POLICY_PARENT = 1 << 2,	 /* open the directory that it is in, for fsync */
	POLICY_WRITE = 1 << 3,	 /* open it for writing if it is there (a device, a FIFO), and, with
				    POLICY_MEMBERS, an image's blocks */
	POLICY_PART = 1 << 4,	 /* make, write and remove its .part, and rename that to it */
	POLICY_REPLACE = 1 << 5, /* with POLICY_PART: also when something is there */
	POLICY_IN_PLACE = 1 << 6, /* make, write and remove it and its members */
	POLICY_UNLINK = 1 << 7,	  /* remove it (the file of a unix socket) */
};

enum policy_base { BASE_FINAL, BASE_PART, BASE_PARENT, BASE__MAX };
enum policy_leaf {
	LEAF_SELF,
	LEAF_MANIFEST,
	LEAF_MANIFEST_PART,
	LEAF_STATE,
	LEAF_STATE_PART,
	LEAF_RAM,
	LEAF_SESSION, /* IMAGE.part.session: whose .part it is */
	LEAF_BLOCK,   /* ram/<block> */
	LEAF__MAX
};

#define POLICY_BLOCK_MAX 255

/* What the far end of a connection calls itself: so many hex digits. */
#define POLICY_FILL 32
#define POLICY_HOLE "00000000000000000000000000000000"

/* A name of the table. It may come from the worker as it is: policy_name_valid first. */
struct policy_name {
	uint8_t root, base, leaf;
	char block[POLICY_BLOCK_MAX + 1]; /* LEAF_BLOCK: the file's name in ram/, else empty */
};

struct policy_root {
	char *path, *part, *parent; /* part: path.part */
	char *real; /* what the symbolic link of that name led to at the start, or NULL */
	unsigned rights;
};

/* A host whose addresses may be asked for, and then be connected to, or listened on (passive). */
struct policy_host {
	char *name;
	uint16_t port;
	bool passive;
};

enum policy_use { POLICY_CONNECT = 1 << 0, POLICY_LISTEN = 1 << 1 };

struct policy_address {
	struct sockaddr_storage sa;
	socklen_t len;
	unsigned use;
};

/* A command that may be started, and how many of it at a time. */
struct policy_command {
	char **argv;
	unsigned max;
	bool session;	  /* SPAWN_SESSION */
	bool given_stdio; /* its 0, 1, 2 may be the worker's; else they are ours */
	bool hole;	  /* its last word holds POLICY_HOLE, which stands for other hex digits */
};

#define POLICY_ROOTS	 32
#define POLICY_HOSTS	 4
#define POLICY_ADDRESSES 8
#define POLICY_COMMANDS	 4
#define POLICY_LISTENERS 4

struct policy {
	struct policy_root roots[POLICY_ROOTS];
	struct policy_host hosts[POLICY_HOSTS];
	struct policy_address addresses[POLICY_ADDRESSES];
	struct policy_command commands[POLICY_COMMANDS];
	int listeners[POLICY_LISTENERS]; /* inherited listening sockets */
	unsigned nroots, nhosts, naddresses, ncommands, nlisteners;
	bool joins;	  /* the worker may listen on a local name (broker_local_listen) */
	bool stdio_taken; /* 0 and 1 are the connection to the peer: no command gets them */
};

/* ---- making it; ST_NOMEM, also when the table is full ---- */

/* The same path twice: one root with the rights of both. */
int policy_add_root(struct policy *p, const char *path, unsigned rights, struct error *err);
/* Of a root that is there already: it is a symbolic link that leads to `real`. */
int policy_set_real(struct policy *p, const char *path, const char *real, struct error *err);
int policy_add_host(struct policy *p, const char *name, uint16_t port, bool passive,
		    struct error *err);
int policy_add_address(struct policy *p, const void *sa, socklen_t len, unsigned use,
		       struct error *err);
/* argv is copied. */
int policy_add_command(struct policy *p, char *const argv[], const struct policy_command *how,
		       struct error *err);
int policy_add_listener(struct policy *p, int fd, struct error *err);
void policy_free(struct policy *p);

/* ---- asking it ---- */

/*
 * The nth name (from 0) that stands for this path: two roots may give the same one. False: no more.
 */
bool policy_find(const struct policy *p, const char *path, unsigned nth, struct policy_name *out);

/* Is it a name of the table at all? Whatever the bytes in it are. */
bool policy_name_valid(const struct policy *p, const struct policy_name *n);

/* The path, to be freed; NULL: out of memory. Only of a valid name. */
char *policy_path(const struct policy *p, const struct policy_name *n);

/* All of these also say no to a name that is none. */
bool policy_may_open(const struct policy *p, const struct policy_name *n, int flags);
bool policy_may_unlink(const struct policy *p, const struct policy_name *n);
bool policy_may_mkdir(const struct policy *p, const struct policy_name *n); /* and rmdir */
/* The mark of a complete .part: set on that alone, cleared also when it has IMAGE's name. */
bool policy_may_mark(const struct policy *p, const struct policy_name *n, bool on);
bool policy_may_link(const struct policy *p, const struct policy_name *from,
		     const struct policy_name *to);
/* May it write new names into this directory? Asks for no more than an answer. */
bool policy_may_access(const struct policy *p, const struct policy_name *n);
/* `occupied`: there is something at `to` that is not empty. */
bool policy_may_rename(const struct policy *p, const struct policy_name *from,
		       const struct policy_name *to, unsigned flags, bool occupied);

/* The number of a host or a command, -1: none. */
int policy_find_host(const struct policy *p, const char *name, uint16_t port, bool passive);
/* fill: what stands in its hole, or "". */
int policy_find_command(const struct policy *p, char *const argv[], char fill[POLICY_FILL + 1]);

/* Are they so many hex digits, and a NUL? */
bool policy_fill_valid(const char fill[POLICY_FILL + 1]);

/* The command with its hole filled, to be freed (with policy_free_argv); NULL: out of memory. */
char **policy_argv(const struct policy_command *c, const char *fill);
void policy_free_argv(char **argv);

bool policy_may_use(const struct policy_address *list, unsigned n, const void *sa, socklen_t len,
		    enum policy_use use);

#endif
