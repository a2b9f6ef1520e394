/* SPDX-License-Identifier: GPL-2.0-or-later */
/* digest.c's hash in versions: the same result, other instructions. */
#ifndef MIGTOOL_DIGEST_HASH_H
#define MIGTOOL_DIGEST_HASH_H

#include "digest.h"

/* XXH3_128 with DIGEST_SEED; x86-64 only, and only where the processor has AVX2. */
struct digest digest_hash_avx2(const void *buf, size_t len);

#endif
