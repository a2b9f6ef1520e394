// SPDX-License-Identifier: GPL-2.0-or-later
#include "codec.h"

#include <stdlib.h>
#include <zlib.h>

struct codec {
	z_stream zs;
	bool encoder, continuous;
	size_t max; /* bytes of one packet before compression */
};

/* zlib counts in unsigned ints; packets are at most a few MiB. */
static int check_size(size_t max, struct error *err)
{
	if (max <= INT32_MAX)
		return 0;
	return err_set(err, ST_USAGE, "zlib: packets of %zu bytes, at most %d are possible", max,
		       INT32_MAX);
}

static struct codec *open_codec(bool encoder, int level, bool continuous, size_t max,
				struct error *err)
{
	struct codec *c;
	int ret;

	if (check_size(max, err))
		return NULL;
	c = calloc(1, sizeof(*c));
	if (!c) {
		err_set(err, ST_NOMEM, "zlib: out of memory");
		return NULL;
	}
	c->encoder = encoder;
	c->continuous = continuous;
	c->max = max;
	ret = encoder ? deflateInit(&c->zs, level) : inflateInit(&c->zs);
	if (ret == Z_OK)
		return c;
	err_set(err, ret == Z_MEM_ERROR ? ST_NOMEM : ST_USAGE, "zlib: cannot start at level %d: %s",
		level, zError(ret));
	free(c);
	return NULL;
}

static struct codec *open_encode(int level, bool continuous, size_t max_in, struct error *err)
{
	return open_codec(true, level, continuous, max_in, err);
}

static struct codec *open_decode(bool continuous, size_t max_out, struct error *err)
{
	return open_codec(false, 0, continuous, max_out, err);
}

static void close_codec(struct codec *c)
{
	if (!c)
		return;
	if (c->encoder)
		deflateEnd(&c->zs);
	else
		inflateEnd(&c->zs);
	free(c);
}

/* compressBound is made for one whole stream; 16 more for a sync flush's empty block. */
static size_t bound(size_t in)
{
	return compressBound(in) + 16;
}

static int check_packet(const struct codec *c, size_t len, struct error *err)
{
	if (len <= c->max)
		return 0;
	return err_set(err, ST_DATA, "zlib: a packet of %zu bytes, at most %zu are agreed", len,
		       c->max);
}

static ssize_t encode(struct codec *c, const struct iovec *iov, int n, uint8_t *out, size_t cap,
		      struct error *err)
{
	int end = c->continuous ? Z_SYNC_FLUSH : Z_FINISH;
	z_stream *zs = &c->zs;

	if (check_packet(c, codec_iov_len(iov, n), err))
		return -1;
	if (!c->continuous)
		deflateReset(zs);
	zs->next_out = out;
	zs->avail_out = cap > INT32_MAX ? INT32_MAX : (uInt)cap;
	for (int i = 0; i < n; i++) {
		int flush = i + 1 < n ? Z_NO_FLUSH : end, ret;

		zs->next_in = iov[i].iov_base;
		zs->avail_in = (uInt)iov[i].iov_len;
		ret = deflate(zs, flush);
		/* Output space that is left over is what says that a flush is complete. */
		if (zs->avail_in || !zs->avail_out || (ret != Z_OK && ret != Z_STREAM_END) ||
		    (flush == Z_FINISH && ret != Z_STREAM_END))
			return err_set(err, ST_DATA, "zlib: %zu bytes do not compress into %zu: %s",
				       codec_iov_len(iov, n), cap, zError(ret));
	}
	return zs->next_out - out;
}

/*
 * After the last byte that is wanted: is the payload at its end too? inflate has read on as far as
 * it can without giving a byte, so one byte of room tells whether there would be more.
 */
static int check_end(struct codec *c, int ret, size_t want, struct error *err)
{
	z_stream *zs = &c->zs;
	uint8_t spare;

	if (ret != Z_STREAM_END) {
		zs->next_out = &spare;
		zs->avail_out = 1;
		ret = inflate(zs, Z_SYNC_FLUSH);
		if (!zs->avail_out)
			return err_set(err, ST_DATA,
				       "zlib: a packet's payload decodes to more than the %zu "
				       "bytes of its pages",
				       want);
		if (ret != Z_OK && ret != Z_BUF_ERROR && ret != Z_STREAM_END)
			return err_set(err, ST_DATA, "zlib: broken data: %s",
				       zs->msg ? zs->msg : zError(ret));
	}
	if (c->continuous && ret == Z_STREAM_END)
		return err_set(err, ST_DATA, "zlib: the stream ends within the migration");
	if (!c->continuous && ret != Z_STREAM_END)
		return err_set(err, ST_DATA, "zlib: a packet's stream has no end");
	if (zs->avail_in)
		return err_set(err, ST_DATA, "zlib: %u bytes left over after a packet's pages",
			       zs->avail_in);
	return 0;
}

static int decode(struct codec *c, const uint8_t *in, size_t len, const struct iovec *iov, int n,
		  struct error *err)
{
	size_t want = codec_iov_len(iov, n);
	z_stream *zs = &c->zs;
	int ret = Z_OK;

	if (check_packet(c, want, err))
		return -1;
	if (len > INT32_MAX)
		return err_set(err, ST_DATA, "zlib: a payload of %zu bytes", len);
	if (!c->continuous)
		inflateReset(zs);
	zs->next_in = (uint8_t *)in;
	zs->avail_in = (uInt)len;
	for (int i = 0; i < n; i++) {
		zs->next_out = iov[i].iov_base;
		zs->avail_out = (uInt)iov[i].iov_len;
		while (zs->avail_out && ret == Z_OK)
			ret = inflate(zs, Z_SYNC_FLUSH);
		if (!zs->avail_out)
			continue;
		if (ret == Z_BUF_ERROR || ret == Z_STREAM_END)
			return err_set(err, ST_DATA,
				       "zlib: a packet's payload of %zu bytes decodes to fewer "
				       "than the %zu bytes of its pages",
				       len, want);
		return err_set(err, ret == Z_MEM_ERROR ? ST_NOMEM : ST_DATA,
			       "zlib: broken data: %s", zs->msg ? zs->msg : zError(ret));
	}
	return check_end(c, ret, want, err);
}

/* zconf.h: a window of 32 KiB, and about 7 KiB for the tables. */
static size_t decoder_memory(bool continuous, size_t max_out)
{
	(void)continuous;
	(void)max_out;
	return 48u << 10;
}

const struct codec_ops codec_zlib = {
	.name = "zlib",
	.method = METHOD_ZLIB,
	.wire_flags = 2,
	.open_encode = open_encode,
	.open_decode = open_decode,
	.close = close_codec,
	.decoder_memory = decoder_memory,
	.bound = bound,
	.encode = encode,
	.decode = decode,
};
