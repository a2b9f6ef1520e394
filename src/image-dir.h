/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The names inside a directory image: ram/, device-state, manifest.json. Private to image*.c. */
#ifndef MIGTOOL_IMAGE_DIR_H
#define MIGTOOL_IMAGE_DIR_H

#include "error.h"
#include "manifest.h"

#include <stdbool.h>

/* The names of the blocks that have a file in <dir>/ram, sorted. */
struct image_dir_list {
	char **names;
	unsigned n;
};

/* A file in ram/ whose name is no block's encoded name: ST_UNSUPPORTED. No ram/ at all: n is 0. */
int image_dir_list(const char *dir, struct image_dir_list *list, struct error *err);
void image_dir_list_free(struct image_dir_list *list);
bool image_dir_has(const struct image_dir_list *list, const char *block);

/* <dir>/ram/<encoded block name>, to be freed. */
char *image_dir_block_path(const char *dir, const char *block, struct error *err);

/* Reads <dir>/manifest.json; *out is NULL if there is none. */
int image_dir_manifest(const char *dir, struct manifest **out, struct error *err);

/* Does it hold nothing at all? */
int image_dir_empty(const char *dir, bool *empty, struct error *err);

/* Does it hold nothing, but for ram/ and what is in there? */
int image_dir_bare(const char *dir, bool *bare, struct error *err);

/*
 * Does it hold nothing but what an image consists of? -1 with ST_FILE names the first thing that is
 * none: such a directory must not be removed.
 */
int image_dir_only_image(const char *dir, struct error *err);

/* Removes it with everything that an image consists of, and nothing else. 0, or -1 with errno. */
int image_dir_remove(const char *dir);

#endif
