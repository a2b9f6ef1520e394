// SPDX-License-Identifier: GPL-2.0-or-later
#include "delta.h"

#include <string.h>

int delta_adopt(struct image *img, const char *path, struct error *err)
{
	/* a raw file's block has whatever name the source gave its own */
	struct image_source_opts opts = { .block_name = img->blocks[0].name,
					  .page_size = img->target_page };
	struct image *old = image_open(path, &opts, err);
	int rc = old ? 0 : err_prefix(err, "the old copy");

	for (unsigned i = 0; !rc && i < img->nblocks; i++) {
		struct block *to = &img->blocks[i];
		struct block *from = image_find(old, to->name, strlen(to->name));

		if (from && from->size == to->size && !image_block_here(to))
			rc = image_adopt(img, to, old, from, err);
	}
	image_close(old, false);
	return rc;
}
