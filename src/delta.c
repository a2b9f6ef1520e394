// SPDX-License-Identifier: GPL-2.0-or-later
#include "delta.h"

#include <stdlib.h>
#include <string.h>

#define PIECE (512u << 10)

static int copy_extent(struct image *img, struct block *to, const struct image *old,
		       const struct block *from, struct extent e, uint8_t *buf, struct error *err)
{
	while (e.len > 0) {
		size_t n = e.len < PIECE ? (size_t)e.len : PIECE;

		if (image_read(old, from, e.offset, buf, n, err) ||
		    image_place(img, to, e.offset, buf, n, err))
			return -1;
		e.offset += n;
		e.len -= n;
	}
	return 0;
}

static int copy_block(struct image *img, struct block *to, const struct image *old,
		      const struct block *from, uint8_t *buf, struct error *err)
{
	struct extent e = { 0, 0 };

	do {
		if (image_next_data(old, from, e.offset + e.len, &e, err) ||
		    copy_extent(img, to, old, from, e, buf, err))
			return -1;
	} while (e.len);
	return 0;
}

int delta_adopt(struct image *img, const char *path, struct error *err)
{
	/* a raw file's block has whatever name the source gave its own */
	struct image_source_opts opts = { .block_name = img->blocks[0].name,
					  .page_size = img->target_page };
	struct image *old = image_open(path, &opts, err);
	uint8_t *buf = malloc(PIECE);
	int rc = 0;

	if (!old || !buf) {
		rc = old ? err_set(err, ST_NOMEM, "no memory to copy %s", path)
			 : err_prefix(err, "the old copy");
	}
	for (unsigned i = 0; !rc && i < img->nblocks; i++) {
		struct block *to = &img->blocks[i];
		struct block *from = image_find(old, to->name, strlen(to->name));

		if (from && from->size == to->size)
			rc = copy_block(img, to, old, from, buf, err);
	}
	free(buf);
	image_close(old, false);
	return rc;
}
