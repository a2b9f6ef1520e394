// SPDX-License-Identifier: GPL-2.0-or-later
#include "image-internal.h"

#include "log.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* QEMU's targets have pages of 1 KiB to 64 KiB; the digest's grain is 4 KiB. */
#define PAGE_MIN DIGEST_PAGE
#define PAGE_MAX (64u << 10)

char *image_format(struct error *err, const char *fmt, ...)
{
	va_list ap;
	char *s;
	int n;

	va_start(ap, fmt);
	n = vasprintf(&s, fmt, ap);
	va_end(ap);
	if (n < 0) {
		err_set(err, ST_NOMEM, "out of memory");
		return NULL;
	}
	return s;
}

bool image_frozen(const struct image *img)
{
	return image_priv(img)->target && image_priv(img)->target->frozen;
}

struct image *image_new(const char *path, struct error *err)
{
	struct image *img = calloc(1, sizeof(*img));
	struct image_priv *p = calloc(1, sizeof(*p));
	char *copy = strdup(path);

	if (!img || !p || !copy) {
		free(img);
		free(p);
		free(copy);
		err_set(err, ST_NOMEM, "out of memory");
		return NULL;
	}
	p->state.fd = -1;
	img->priv = p;
	img->path = copy;
	return img;
}

int image_add_blocks(struct image *img, unsigned n, struct error *err)
{
	img->blocks = calloc(n ? n : 1, sizeof(*img->blocks));
	if (!img->blocks)
		return err_set(err, ST_NOMEM, "out of memory");
	for (unsigned i = 0; i < n; i++) {
		struct block_priv *p = calloc(1, sizeof(*p));

		if (!p)
			return err_set(err, ST_NOMEM, "out of memory");
		p->file.fd = -1;
		pthread_mutex_init(&p->lock, NULL);
		img->blocks[i].priv = p;
		img->blocks[i].fd = -1;
		img->blocks[i].index = i;
		img->nblocks = i + 1;
	}
	return 0;
}

int image_name_block(struct block *b, const char *name, struct error *err)
{
	char shown[4 * BLOCK_NAME_MAX + 1];
	size_t len = strlen(name);

	if (len == 0 || len > BLOCK_NAME_MAX)
		return err_set(err, ST_DATA, "a block's name has %zu bytes, expected 1 to %d", len,
			       BLOCK_NAME_MAX);
	/* what can be printed as it is can also stand in JSON */
	log_escape(shown, sizeof(shown), name, len);
	if (strcmp(shown, name) != 0)
		return err_set(err, ST_DATA, "a block's name is not printable UTF-8: %s", shown);
	memcpy(b->name, name, len + 1);
	digest_block_init(&b->digest, b->name);
	return 0;
}

struct image *image_of_blocks(const struct block *blocks, unsigned n, uint32_t target_page,
			      struct error *err)
{
	struct image *img = image_new("the guest's memory", err);
	int rc = img ? image_add_blocks(img, n, err) : -1;

	for (unsigned i = 0; !rc && i < n; i++) {
		struct block *b = &img->blocks[i];

		rc = image_name_block(b, blocks[i].name, err);
		b->size = blocks[i].size;
		b->page_size = blocks[i].page_size;
	}
	if (!rc) {
		img->target_page = target_page;
		return img;
	}
	image_close(img, false);
	return NULL;
}

struct block *image_find(const struct image *img, const char *name, size_t len)
{
	for (unsigned i = 0; i < img->nblocks; i++) {
		struct block *b = &img->blocks[i];

		if (strlen(b->name) == len && !memcmp(b->name, name, len))
			return b;
	}
	return NULL;
}

int image_check_page(uint32_t page, struct error *err)
{
	if (page < PAGE_MIN || page > PAGE_MAX || (page & (page - 1)))
		return err_set(err, ST_UNSUPPORTED,
			       "page size %" PRIu32 " is not a power of two from %u to %u", page,
			       PAGE_MIN, PAGE_MAX);
	return 0;
}

int image_check_range(const struct image *img, const struct block *b, uint64_t offset, uint64_t len,
		      struct error *err)
{
	if ((offset | len) & (img->target_page - 1))
		return err_set(err, ST_DATA,
			       "block %s: offset 0x%" PRIx64 " or length 0x%" PRIx64
			       " is not aligned to the page of %" PRIu32,
			       b->name, offset, len, img->target_page);
	if (offset > b->size || len > b->size - offset)
		return err_set(err, ST_DATA,
			       "block %s: 0x%" PRIx64 " bytes at 0x%" PRIx64
			       " reach beyond its 0x%" PRIx64 " bytes",
			       b->name, len, offset, b->size);
	return 0;
}

int image_device_state_fd(const struct image *img, uint64_t *size)
{
	struct image_priv *p = image_priv(img);

	*size = p->state.fd < 0 ? 0 : p->state_size;
	return p->state.fd;
}

void image_device_state_digest(const struct image *img, struct digest *out, uint64_t *size)
{
	struct image_priv *p = image_priv(img);

	*size = p->state_size;
	memset(out, 0, sizeof(*out));
	if (p->state_digest)
		*out = digest_stream_get(p->state_digest);
}

void image_close(struct image *img, bool keep_part)
{
	struct image_priv *p;

	if (!img)
		return;
	p = image_priv(img);
	target_close(img, keep_part);
	for (unsigned i = 0; i < img->nblocks; i++) {
		struct block *b = &img->blocks[i];

		place_close(b);
		image_file_close(&block_priv(b)->file);
		image_release_close(b);
		pthread_mutex_destroy(&block_priv(b)->lock);
		free(b->priv);
	}
	image_file_close(&p->state);
	digest_stream_free(p->state_digest);
	manifest_free(img->manifest);
	free(img->blocks);
	free(img->path);
	free(p);
	free(img);
}
