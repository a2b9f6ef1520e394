// SPDX-License-Identifier: GPL-2.0-or-later
/* A page is a whole stream, so all of it is one call; the state is reset, not made anew. */
#include "codec.h"

#include <stdlib.h>
#include <zlib.h>

struct page_zlib {
	z_stream zs;
	bool encoder;
};

struct page_zlib *page_zlib_new(bool encode, int level, struct error *err)
{
	struct page_zlib *z = calloc(1, sizeof(*z));
	int ret = Z_MEM_ERROR;

	if (z) {
		z->encoder = encode;
		ret = encode ? deflateInit(&z->zs, level) : inflateInit(&z->zs);
	}
	if (ret == Z_OK)
		return z;
	err_set(err, ret == Z_MEM_ERROR ? ST_NOMEM : ST_USAGE,
		"compress: cannot start zlib at level %d: %s", level, zError(ret));
	free(z);
	return NULL;
}

void page_zlib_free(struct page_zlib *z)
{
	if (!z)
		return;
	if (z->encoder)
		deflateEnd(&z->zs);
	else
		inflateEnd(&z->zs);
	free(z);
}

static void set_buffers(z_stream *zs, const uint8_t *in, size_t in_len, uint8_t *out, size_t cap)
{
	zs->next_in = (uint8_t *)in;
	zs->avail_in = (uInt)in_len;
	zs->next_out = out;
	zs->avail_out = (uInt)cap;
}

ssize_t page_zlib_encode(struct page_zlib *z, const uint8_t *page, size_t page_len, uint8_t *out,
			 size_t cap)
{
	if (page_len > INT32_MAX || cap > INT32_MAX)
		return -1;
	deflateReset(&z->zs);
	set_buffers(&z->zs, page, page_len, out, cap);
	if (deflate(&z->zs, Z_FINISH) != Z_STREAM_END)
		return -1;
	return z->zs.next_out - out;
}

int page_zlib_decode(struct page_zlib *z, const uint8_t *in, size_t len, uint8_t *page,
		     size_t page_len)
{
	if (page_len > INT32_MAX || len > INT32_MAX)
		return -1;
	inflateReset(&z->zs);
	set_buffers(&z->zs, in, len, page, page_len);
	if (inflate(&z->zs, Z_FINISH) != Z_STREAM_END || z->zs.avail_in || z->zs.avail_out)
		return -1;
	return 0;
}

size_t page_zlib_bound(size_t page_len)
{
	return compressBound(page_len);
}
