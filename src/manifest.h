/* SPDX-License-Identifier: GPL-2.0-or-later */
/* manifest.json of a directory image: what the image says of itself. Unknown keys are kept. */
#ifndef MIGTOOL_MANIFEST_H
#define MIGTOOL_MANIFEST_H

#include "error.h"

#include <stdint.h>

struct manifest_block {
	char name[256];
	uint64_t size;
	uint32_t page_size;
	bool has_gpa, shared;
	uint64_t gpa;
	char digest[33]; /* hex, or "" */
};

struct manifest {
	char machine[256]; /* "" where unknown, likewise below */
	char uuid[37];
	uint32_t page_size;
	char target_arch[32];
	char source[64];      /* "qemu" or "migtool" */
	char run_state[104];
	char **capabilities;  /* NULL-terminated, or NULL */
	struct manifest_block *blocks;
	unsigned nblocks;
	uint64_t device_state_size;
	char device_state_digest[33];
	bool has_device_state;
	void *unknown; /* json_t of the whole file as read, for the keys kept */
};

/* Parses text of at most 16 MiB; every name and number is checked. ST_FILE, with the key. */
struct manifest *manifest_parse(const char *text, size_t len, struct error *err);
/* JSON text, to be freed by the caller. NULL: out of memory. */
char *manifest_format(const struct manifest *m);
struct manifest *manifest_new(void);
void manifest_free(struct manifest *m);

/* A block's file name inside ram/: percent-encoded, a leading dot too. out holds 3 * 255 + 1. */
char *manifest_file_name(const char *block, char *out, size_t len);

#endif
