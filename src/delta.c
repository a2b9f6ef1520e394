// SPDX-License-Identifier: GPL-2.0-or-later
#include "delta.h"

#include "zero.h"

#include <string.h>

struct image *delta_open(const struct image *img, const char *path, struct error *err)
{
	/* a raw file's block has whatever name the source gave its own */
	struct image_source_opts opts = { .block_name = img->blocks[0].name,
					  .page_size = img->target_page };
	struct image *old = image_open(path, &opts, err);

	if (!old)
		err_prefix(err, "the old copy");
	return old;
}

const struct block *delta_block(const struct image *old, const struct block *b)
{
	const struct block *from = image_find(old, b->name, strlen(b->name));

	return from && from->size == b->size ? from : NULL;
}

unsigned delta_terms(const struct block *b, uint64_t offset, const uint8_t *buf, size_t len,
		     struct digest out[DELTA_PAGES])
{
	unsigned n = 0;

	for (size_t at = 0; at < len; at += DIGEST_PAGE, n++) {
		if (zero_is(buf + at, DIGEST_PAGE))
			out[n] = (struct digest){ 0, 0 };
		else
			out[n] = digest_page(&b->digest, offset + at, buf + at, DIGEST_PAGE);
	}
	return n;
}
