/* SPDX-License-Identifier: GPL-2.0-or-later */
/* manifest.json of a directory image: what the image says of itself. Unknown keys are kept. */
#ifndef MIGTOOL_MANIFEST_H
#define MIGTOOL_MANIFEST_H

#include "error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MANIFEST_VERSION       1
#define MANIFEST_FILE_NAME_MAX (3 * 255)

struct manifest_block {
	char name[256];
	uint64_t size;	    /* bytes */
	uint32_t page_size; /* of the host that the guest ran on; 0: unknown */
	bool has_gpa, shared;
	uint64_t gpa;
	char digest[33]; /* hex, or "" */
};

struct manifest {
	char machine[256]; /* "" where unknown, likewise below */
	char uuid[37];
	uint32_t page_size; /* the target's; 0: unknown */
	char target_arch[32];
	char source[64]; /* "qemu" or "migtool" */
	char run_state[104];
	char **capabilities; /* NULL-terminated, or NULL; owned */
	struct manifest_block *blocks;
	unsigned nblocks;
	uint64_t device_state_size;
	char device_state_digest[33];
	bool has_device_state;
	bool postcopy; /* the guest was given up for it, and its memory is not all here */
	void *unknown; /* json_t of the whole file as read, for the keys kept; owned */
};

/*
 * Parses text of at most 16 MiB; every name and number is checked. ST_FILE, with the key; a
 * version that is not ours: ST_UNSUPPORTED.
 */
struct manifest *manifest_parse(const char *text, size_t len, struct error *err);
/* JSON text, to be freed by the caller. NULL: out of memory. */
char *manifest_format(const struct manifest *m);
struct manifest *manifest_new(void); /* NULL: out of memory */
void manifest_free(struct manifest *m);

/*
 * A block's file name inside ram/: all but letters, digits and - . _ ~ percent-encoded, and a
 * leading dot too. `len` has to be over MANIFEST_FILE_NAME_MAX. Returns out.
 */
char *manifest_file_name(const char *block, char *out, size_t len);

/* Back: 0, or -1 if it is not what manifest_file_name gives for any name of at most len - 1. */
int manifest_block_name(const char *file, char *name, size_t len);

#endif
