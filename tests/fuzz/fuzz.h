/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A fuzz target is tests/fuzz/fuzz_<name>.c with the one function below; its seeds are the files of
 * tests/fuzz/corpus/<name>. `make fuzz` links it with libFuzzer, `make unit` with replay.c, so that
 * the corpus is part of the suite with every compiler and sanitizer. A crash that was found and
 * fixed becomes a file of the corpus.
 */
#ifndef MIGTOOL_FUZZ_H
#define MIGTOOL_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Returns 0. Must not depend on earlier calls. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What has to be true of any input. */
#define FUZZ_CHECK(cond)                                                           \
	do {                                                                       \
		if (!(cond)) {                                                     \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #cond); \
			abort();                                                   \
		}                                                                  \
	} while (0)

/*
 * A copy in memory of exactly its size, so that the address sanitizer sees one byte too many.
 * The caller frees it.
 */
static inline uint8_t *fuzz_copy(const void *data, size_t size)
{
	uint8_t *p = calloc(1, size ? size : 1);

	FUZZ_CHECK(p);
	if (size)
		memcpy(p, data, size);
	return p;
}

#endif
