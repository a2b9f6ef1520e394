// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A unit is compressed and decompressed in one shot, which wants its bytes in one piece: pages that
 * lie apart go through `flat`. That costs no more than the streaming calls, which copy as well.
 */
#include "codec.h"

#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#define WINDOW_LOG_MAX 25 /* level 20's */

struct codec {
	ZSTD_CCtx *cctx; /* one of the two */
	ZSTD_DCtx *dctx;
	bool continuous;
	bool begun;    /* continuous: a packet came through */
	uint8_t *flat; /* unit framing only */
	size_t flat_len;
};

static void close_codec(struct codec *c)
{
	if (!c)
		return;
	ZSTD_freeCCtx(c->cctx);
	ZSTD_freeDCtx(c->dctx);
	free(c->flat);
	free(c);
}

/* NULL if there is no memory. */
static struct codec *new_codec(bool continuous, size_t flat_len)
{
	struct codec *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	c->continuous = continuous;
	if (continuous)
		return c;
	c->flat_len = flat_len;
	c->flat = calloc(1, flat_len + 1);
	if (c->flat)
		return c;
	free(c);
	return NULL;
}

/*
 * zstd allocates its tables with the first packet: one that is thrown away makes it happen here.
 * Returns zstd's result.
 */
static size_t warm_up(struct codec *c)
{
	size_t cap = ZSTD_compressBound(c->flat_len + 1), ret;
	ZSTD_inBuffer in = { "", 1, 0 };
	ZSTD_outBuffer out = { malloc(cap), cap, 0 };

	if (!out.dst)
		return (size_t)-1;
	if (c->continuous)
		ret = ZSTD_compressStream2(c->cctx, &out, &in, ZSTD_e_flush);
	else
		ret = ZSTD_compress2(c->cctx, out.dst, cap, c->flat, c->flat_len);
	free(out.dst);
	if (!ZSTD_isError(ret))
		ret = ZSTD_CCtx_reset(c->cctx, ZSTD_reset_session_only);
	return ret;
}

static struct codec *open_encode(int level, bool continuous, size_t max_in, struct error *err)
{
	struct codec *c = new_codec(continuous, max_in);

	if (c)
		c->cctx = ZSTD_createCCtx();
	if (!c || !c->cctx ||
	    ZSTD_isError(ZSTD_CCtx_setParameter(c->cctx, ZSTD_c_compressionLevel, level)) ||
	    ZSTD_isError(warm_up(c))) {
		err_set(err, ST_NOMEM, "zstd: no memory to compress at level %d", level);
		close_codec(c);
		return NULL;
	}
	return c;
}

static struct codec *open_decode(bool continuous, size_t max_out, struct error *err)
{
	struct codec *c = new_codec(continuous, max_out);

	if (c)
		c->dctx = ZSTD_createDCtx();
	if (!c || !c->dctx ||
	    ZSTD_isError(ZSTD_DCtx_setParameter(c->dctx, ZSTD_d_windowLogMax, WINDOW_LOG_MAX))) {
		err_set(err, ST_NOMEM, "zstd: no memory to decompress");
		close_codec(c);
		return NULL;
	}
	return c;
}

/* The tables of lower levels are smaller: what level it was opened with had memory for them. */
static void set_level(struct codec *c, int level)
{
	ZSTD_CCtx_setParameter(c->cctx, ZSTD_c_compressionLevel, level);
}

/* ZSTD_compressBound is made for one whole frame; 16 more for what flushes add. */
static size_t bound(size_t in)
{
	return ZSTD_compressBound(in) + 16;
}

static int fail_encode(size_t ret, size_t in, size_t cap, struct error *err)
{
	return err_set(err, ST_DATA, "zstd: %zu bytes do not compress into %zu: %s", in, cap,
		       ZSTD_isError(ret) ? ZSTD_getErrorName(ret) : "no room");
}

static ssize_t encode_unit(struct codec *c, const struct iovec *iov, int n, uint8_t *out,
			   size_t cap, struct error *err)
{
	size_t in = codec_iov_len(iov, n), at = 0, ret;
	const uint8_t *src = c->flat;

	if (in > c->flat_len)
		return err_set(err, ST_DATA, "zstd: a packet of %zu bytes, at most %zu are agreed",
			       in, c->flat_len);
	if (codec_iov_contiguous(iov, n)) {
		src = iov[0].iov_base;
	} else {
		for (int i = 0; i < n; i++) {
			memcpy(c->flat + at, iov[i].iov_base, iov[i].iov_len);
			at += iov[i].iov_len;
		}
	}
	ret = ZSTD_compress2(c->cctx, out, cap, src, in);
	return ZSTD_isError(ret) ? fail_encode(ret, in, cap, err) : (ssize_t)ret;
}

static ssize_t encode(struct codec *c, const struct iovec *iov, int n, uint8_t *out, size_t cap,
		      struct error *err)
{
	ZSTD_outBuffer to = { out, cap, 0 };

	if (!c->continuous)
		return encode_unit(c, iov, n, out, cap, err);
	for (int i = 0; i < n; i++) {
		ZSTD_EndDirective end = i + 1 < n ? ZSTD_e_continue : ZSTD_e_flush;
		ZSTD_inBuffer from = { iov[i].iov_base, iov[i].iov_len, 0 };
		size_t left;

		/* e_continue may take less than it is given, and says nothing about it. */
		do {
			left = ZSTD_compressStream2(c->cctx, &to, &from, end);
			if (ZSTD_isError(left) ||
			    (to.pos == to.size && (left || from.pos < from.size)))
				return fail_encode(left, codec_iov_len(iov, n), cap, err);
		} while (from.pos < from.size || (end == ZSTD_e_flush && left));
	}
	return (ssize_t)to.pos;
}

/*
 * The library may have been built to decode formats older than zstd's first release, too; nobody
 * sends these.
 */
static int check_magic(const uint8_t *in, size_t len, struct error *err)
{
	static const uint8_t magic[4] = { 0x28, 0xb5, 0x2f, 0xfd };

	if (len >= sizeof(magic) && !memcmp(in, magic, sizeof(magic)))
		return 0;
	return err_set(err, ST_DATA, "zstd: a packet's payload does not begin with a zstd frame");
}

static int decode_unit(struct codec *c, const uint8_t *in, size_t len, const struct iovec *iov,
		       int n, struct error *err)
{
	size_t want = codec_iov_len(iov, n), frame = ZSTD_findFrameCompressedSize(in, len), ret;
	unsigned long long content = ZSTD_getFrameContentSize(in, len);
	bool flat = codec_iov_contiguous(iov, n);
	const uint8_t *from = c->flat;

	if (want > c->flat_len)
		return err_set(err, ST_DATA, "zstd: a packet of %zu bytes, at most %zu are agreed",
			       want, c->flat_len);
	if (check_magic(in, len, err))
		return -1;
	if (ZSTD_isError(frame) || content == ZSTD_CONTENTSIZE_ERROR)
		return err_set(err, ST_DATA, "zstd: a packet's payload is no whole frame");
	if (content == ZSTD_CONTENTSIZE_UNKNOWN)
		return err_set(err, ST_DATA, "zstd: a packet's frame does not state its size");
	if (content != want)
		return err_set(err, ST_DATA,
			       "zstd: a packet's pages have %zu bytes, its frame %llu", want,
			       content);
	if (frame != len)
		return err_set(err, ST_DATA, "zstd: %zu bytes left over after a packet's pages",
			       len - frame);
	ret = ZSTD_decompressDCtx(c->dctx, flat ? iov[0].iov_base : c->flat, want, in, len);
	if (ZSTD_isError(ret) || ret != want)
		return err_set(err, ST_DATA, "zstd: broken data: %s",
			       ZSTD_isError(ret) ? ZSTD_getErrorName(ret) : "too short");
	for (int i = 0; !flat && i < n; i++) {
		memcpy(iov[i].iov_base, from, iov[i].iov_len);
		from += iov[i].iov_len;
	}
	return 0;
}

/* After the last byte that is wanted: is the payload at its end too? */
static int check_end(struct codec *c, ZSTD_inBuffer *from, size_t want, struct error *err)
{
	uint8_t spare;
	ZSTD_outBuffer to = { &spare, 1, 0 };
	size_t ret = ZSTD_decompressStream(c->dctx, &to, from);

	if (to.pos)
		return err_set(err, ST_DATA,
			       "zstd: a packet's payload decodes to more than the %zu bytes of its "
			       "pages",
			       want);
	if (ZSTD_isError(ret))
		return err_set(err, ST_DATA, "zstd: broken data: %s", ZSTD_getErrorName(ret));
	if (ret == 0)
		return err_set(err, ST_DATA, "zstd: the frame ends within the migration");
	if (from->pos < from->size)
		return err_set(err, ST_DATA, "zstd: %zu bytes left over after a packet's pages",
			       from->size - from->pos);
	return 0;
}

static int decode(struct codec *c, const uint8_t *in, size_t len, const struct iovec *iov, int n,
		  struct error *err)
{
	size_t want = codec_iov_len(iov, n);
	ZSTD_inBuffer from = { in, len, 0 };

	if (!c->continuous)
		return decode_unit(c, in, len, iov, n, err);
	if (!c->begun && check_magic(in, len, err))
		return -1;
	c->begun = true;
	for (int i = 0; i < n; i++) {
		ZSTD_outBuffer to = { iov[i].iov_base, iov[i].iov_len, 0 };

		while (to.pos < to.size) {
			size_t in_was = from.pos, out_was = to.pos;
			size_t ret = ZSTD_decompressStream(c->dctx, &to, &from);

			if (ZSTD_isError(ret))
				return err_set(err, ST_DATA, "zstd: broken data: %s",
					       ZSTD_getErrorName(ret));
			if (ret == 0)
				return err_set(err, ST_DATA,
					       "zstd: the frame ends within the migration");
			if (from.pos == in_was && to.pos == out_was)
				return err_set(err, ST_DATA,
					       "zstd: a packet's payload of %zu bytes decodes to "
					       "fewer than the %zu bytes of its pages",
					       len, want);
		}
	}
	return check_end(c, &from, want, err);
}

/* Continuous: the window, a block on either side of it, and tables. Else the packet is the window.
 */
static size_t decoder_memory(bool continuous, size_t max_out)
{
	size_t tables = 256u << 10, block = 128u << 10;

	return continuous ? (1u << WINDOW_LOG_MAX) + 2 * block + tables : max_out + 1 + tables;
}

const struct codec_ops codec_zstd = {
	.name = "zstd",
	.method = METHOD_ZSTD,
	.wire_flags = 4,
	.open_encode = open_encode,
	.open_decode = open_decode,
	.close = close_codec,
	.set_level = set_level,
	.decoder_memory = decoder_memory,
	.bound = bound,
	.encode = encode,
	.decode = decode,
};
