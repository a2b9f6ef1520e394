/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Names of a destination: what IMAGE is now, and the .part beside it that nobody else may be
 * writing. Private to image*.c.
 */
#ifndef MIGTOOL_IMAGE_PART_H
#define MIGTOOL_IMAGE_PART_H

#include "error.h"

#include <stdbool.h>

enum existing_kind { EXISTS_NOT, EXISTS_FILE, EXISTS_DIRECTORY, EXISTS_DEVICE };

struct existing {
	char *path; /* IMAGE without final slashes, a symbolic link resolved; owned */
	enum existing_kind kind;
	bool wants_directory; /* the name ended in '/' */
	bool empty;	      /* no bytes, only holes, no entries; false for a device */
};

/* Looks at IMAGE. ST_FILE, ST_UNSUPPORTED for what cannot be an image. */
int part_examine(const char *image, struct existing *ex, struct error *err);

/* May it be written? The rules of image_create that need no blocks. */
int part_allowed(const struct existing *ex, bool force, bool in_place, struct error *err);

/*
 * Makes `part`, which must not be in use, as a file or a directory; a leftover is removed before
 * unless it is complete (ST_FILE).
 * *lock: its descriptor, locked.
 */
int part_claim(const char *part, bool directory, int *lock, struct error *err);

/*
 * Opens and locks what is there of an earlier try, a file or a directory as wanted. *complete: it
 * has been through image_sync. ST_FILE.
 */
int part_reopen(const char *part, bool directory, int *lock, bool *complete, struct error *err);

/* Is there a `part` that nobody has? 1, and whether it is complete; 0: none; -1. */
int part_probe(const char *part, bool *complete, struct error *err);

/* Is `part` free to be claimed, or a leftover that can be removed? Changes nothing. */
int part_free(const char *part, struct error *err);

/* Opens and locks what is there already, for writing in place; frozen: for reading. */
int part_lock_in_place(const char *path, enum existing_kind kind, bool frozen, int *lock,
		       struct error *err);

/* The directory that `path` is in, opened. -1: ST_FILE. */
int part_open_parent(const char *path, struct error *err);

/* May a file be made where `path` is? 0, or -1 with errno. */
int part_may_make(const char *path);

/*
 * Gives `part` its final name, which `existed` (or not) when we began. ST_FILE if somebody made or
 * filled that meanwhile; force: it is replaced, a directory by an exchange of the two and removal
 * of the old one.
 */
int part_rename(const char *part, const char *final, bool existed, bool force, struct error *err);

#endif
