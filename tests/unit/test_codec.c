// SPDX-License-Identifier: GPL-2.0-or-later
/* multifd's methods: both framings against themselves, and against the libraries' own calls used as
 * QEMU uses them. */
#include "test.h"

#include "codec.h"

#include <stdlib.h>
#include <zlib.h>
#include <zstd.h>

#define PACKET	 (128u * 4096u)
#define MAX_IOV	 128
#define OUT_SIZE (2 * PACKET)

static uint8_t pages[2 * PACKET], back[2 * PACKET], out[OUT_SIZE];
static struct error err;

enum content { TEXT, RANDOM, ONES, CONTENTS };

static void fill(uint8_t *p, size_t len, enum content what, unsigned seed)
{
	static const char words[] = "all work and no play makes a dull page; ";
	unsigned x = seed * 2654435761u + 1;

	for (size_t i = 0; i < len; i++) {
		x = x * 1103515245 + 12345;
		p[i] = what == ONES	? 1
		       : what == RANDOM ? (uint8_t)(x >> 16)
					: (uint8_t)words[(i + (x >> 16) % 3) % 40];
	}
}

/* n pages in one piece or, scattered, every second one from the end to the start. */
static int layout(struct iovec *iov, uint8_t *mem, int n, size_t page, bool scattered)
{
	for (int i = 0; i < n; i++)
		iov[i] = (struct iovec){ mem + (size_t)(scattered ? 2 * (n - 1 - i) : i) * page,
					 page };
	return n;
}

static bool same(const struct iovec *a, const struct iovec *b, int n)
{
	for (int i = 0; i < n; i++)
		if (memcmp(a[i].iov_base, b[i].iov_base, a[i].iov_len))
			return false;
	return true;
}

/* Packets of several sizes through one pair of contexts. */
static void there_and_back(const struct codec_ops *ops, int level, bool continuous, size_t page)
{
	int counts[] = { 1, (int)(PACKET / page), 3, 2, 1 };
	struct codec *e = ops->open_encode(level, continuous, PACKET, &err);
	struct codec *d = ops->open_decode(continuous, PACKET, &err);
	struct iovec from[MAX_IOV], to[MAX_IOV];

	REQUIRE(e && d);
	for (unsigned i = 0; i < 5 * CONTENTS * 2; i++) {
		int n = layout(from, pages, counts[i % 5], page, i & 1);
		ssize_t len;

		layout(to, back, n, page, i & 2);
		fill(pages, 2 * (size_t)n * page, (enum content)(i % CONTENTS), i);
		memset(back, 0xee, sizeof(back));
		len = ops->encode(e, from, n, out, ops->bound((size_t)n * page), &err);
		REQUIRE(len > 0);
		REQUIRE(ops->decode(d, out, (size_t)len, to, n, &err) == 0);
		CHECK(same(from, to, n));
	}
	ops->close(e);
	ops->close(d);
}

static void every_method_goes_there_and_back(void)
{
	static const size_t page_sizes[] = { 4096, 16384, 65536 };

	for (int i = 0; i < 3; i++) {
		there_and_back(&codec_none, 0, true, page_sizes[i]);
		there_and_back(&codec_none, 0, false, page_sizes[i]);
		there_and_back(&codec_zlib, 1, true, page_sizes[i]);
		there_and_back(&codec_zlib, 1, false, page_sizes[i]);
		there_and_back(&codec_zstd, 1, true, page_sizes[i]);
		there_and_back(&codec_zstd, 1, false, page_sizes[i]);
	}
}

static void every_level_goes_there_and_back(void)
{
	static const int zlib_levels[] = { 0, 6, 9 }, zstd_levels[] = { 0, 3, 9 };

	for (int i = 0; i < 3; i++) {
		there_and_back(&codec_zlib, zlib_levels[i], i & 1, 4096);
		there_and_back(&codec_zstd, zstd_levels[i], i & 1, 4096);
	}
}

/* Another level may be set between two packets that are units. */
static void the_level_changes_on_the_way(void)
{
	static const int levels[] = { 1, -5, 1, -1, 3 };
	struct codec *e = codec_zstd.open_encode(1, false, PACKET, &err);
	struct codec *d = codec_zstd.open_decode(false, PACKET, &err);
	struct iovec from = { pages, PACKET }, to = { back, PACKET };
	ssize_t len[5];

	REQUIRE(e && d);
	fill(pages, PACKET, TEXT, 1);
	for (int i = 0; i < 5; i++) {
		codec_zstd.set_level(e, levels[i]);
		memset(back, 0xee, PACKET);
		len[i] = codec_zstd.encode(e, &from, 1, out, OUT_SIZE, &err);
		REQUIRE(len[i] > 0);
		REQUIRE(codec_zstd.decode(d, out, (size_t)len[i], &to, 1, &err) == 0);
		CHECK(same(&from, &to, 1));
	}
	CHECK(len[1] > len[0] && len[2] == len[0]);
	codec_zstd.close(e);
	codec_zstd.close(d);
}

/* Level 20 uses the widest window that decoders have to accept. */
static void widest_window(void)
{
	struct codec *e = codec_zstd.open_encode(20, true, PACKET, &err);
	struct codec *d = codec_zstd.open_decode(true, PACKET, &err);
	struct iovec from = { pages, 8192 }, to = { back, 8192 };
	ssize_t len;

	REQUIRE(e && d);
	fill(pages, 8192, TEXT, 1);
	len = codec_zstd.encode(e, &from, 1, out, OUT_SIZE, &err);
	REQUIRE(len > 0);
	CHECK(codec_zstd.decode(d, out, (size_t)len, &to, 1, &err) == 0 && same(&from, &to, 1));
	codec_zstd.close(e);
	codec_zstd.close(d);
}

static void methods_are_found(void)
{
	CHECK(codec_find(METHOD_NONE) == &codec_none && codec_none.wire_flags == 0);
	CHECK(codec_find(METHOD_ZLIB) == &codec_zlib && codec_zlib.wire_flags == 2);
	CHECK(codec_find(METHOD_ZSTD) == &codec_zstd && codec_zstd.wire_flags == 4);
	CHECK(codec_find((enum multifd_method)17) == NULL);
	for (int i = 0; i < 3; i++)
		codec_find((enum multifd_method)i)->close(NULL);
}

/* What QEMU's receiver does with a packet, page by page. */
static bool qemu_inflates(z_stream *zs, uint8_t *in, size_t len, int n)
{
	zs->next_in = in;
	zs->avail_in = (uInt)len;
	for (int i = 0; i < n; i++) {
		uLong start = zs->total_out;
		int ret;

		zs->next_out = back + i * 4096;
		zs->avail_out = 4096;
		do {
			ret = inflate(zs, i == n - 1 ? Z_SYNC_FLUSH : Z_NO_FLUSH);
		} while (ret == Z_OK && zs->avail_in && zs->total_out - start < 4096);
		if (ret != Z_OK || zs->total_out - start != 4096)
			return false;
	}
	return true;
}

static void qemu_reads_our_zlib(void)
{
	struct codec *e = codec_zlib.open_encode(1, true, PACKET, &err);
	struct iovec iov[MAX_IOV];
	z_stream zs = { 0 };

	REQUIRE(e && inflateInit(&zs) == Z_OK);
	for (unsigned i = 0; i < 12; i++) {
		int n = layout(iov, pages, i % 2 ? 128 : 5, 4096, false);
		ssize_t len;

		fill(pages, PACKET, (enum content)(i % CONTENTS), i);
		len = codec_zlib.encode(e, iov, n, out, OUT_SIZE, &err);
		REQUIRE(len > 6);
		CHECK((out[0] == 0x78 && out[1] == 0x01) == (i == 0));
		CHECK(!memcmp(out + len - 4, "\0\0\xff\xff", 4));
		REQUIRE(qemu_inflates(&zs, out, (size_t)len, n));
		CHECK(!memcmp(pages, back, (size_t)n * 4096));
	}
	inflateEnd(&zs);
	codec_zlib.close(e);
}

static void we_read_qemus_zlib(void)
{
	struct codec *d = codec_zlib.open_decode(true, PACKET, &err);
	struct iovec iov[MAX_IOV];
	z_stream zs = { 0 };

	REQUIRE(d && deflateInit(&zs, 1) == Z_OK);
	for (unsigned i = 0; i < 12; i++) {
		int n = layout(iov, back, i % 2 ? 128 : 1, 4096, i % 3);

		fill(pages, PACKET, (enum content)(i % CONTENTS), i);
		zs.next_out = out;
		zs.avail_out = OUT_SIZE;
		for (int p = 0; p < n; p++) {
			zs.next_in = pages + p * 4096;
			zs.avail_in = 4096;
			REQUIRE(deflate(&zs, p == n - 1 ? Z_SYNC_FLUSH : Z_NO_FLUSH) == Z_OK);
		}
		REQUIRE(codec_zlib.decode(d, out, OUT_SIZE - zs.avail_out, iov, n, &err) == 0);
		for (int p = 0; p < n; p++)
			CHECK(!memcmp(pages + p * 4096, iov[p].iov_base, 4096));
	}
	deflateEnd(&zs);
	codec_zlib.close(d);
}

static const uint8_t zstd_magic[4] = { 0x28, 0xb5, 0x2f, 0xfd };

static void qemu_reads_our_zstd(void)
{
	struct codec *e = codec_zstd.open_encode(1, true, PACKET, &err);
	ZSTD_DCtx *dctx = ZSTD_createDCtx();
	struct iovec iov[MAX_IOV];

	REQUIRE(e && dctx);
	for (unsigned i = 0; i < 12; i++) {
		int n = layout(iov, pages, i % 2 ? 128 : 5, 4096, false);
		ZSTD_inBuffer in = { out, 0, 0 };
		ssize_t len;

		fill(pages, PACKET, (enum content)(i % CONTENTS), i);
		len = codec_zstd.encode(e, iov, n, out, OUT_SIZE, &err);
		REQUIRE(len > 3);
		CHECK(!memcmp(out, zstd_magic, 4) == (i == 0));
		in.size = (size_t)len;
		for (int p = 0; p < n; p++) {
			ZSTD_outBuffer to = { back + p * 4096, 4096, 0 };
			size_t ret;

			do {
				ret = ZSTD_decompressStream(dctx, &to, &in);
			} while (!ZSTD_isError(ret) && in.pos < in.size && to.pos < to.size);
			REQUIRE(!ZSTD_isError(ret) && ret != 0 && to.pos == 4096);
		}
		CHECK(in.pos == in.size && !memcmp(pages, back, (size_t)n * 4096));
	}
	ZSTD_freeDCtx(dctx);
	codec_zstd.close(e);
}

static void we_read_qemus_zstd(void)
{
	struct codec *d = codec_zstd.open_decode(true, PACKET, &err);
	ZSTD_CCtx *cctx = ZSTD_createCCtx();
	struct iovec iov[MAX_IOV];

	REQUIRE(d && cctx);
	ZSTD_CCtx_setParameter(cctx, ZSTD_c_compressionLevel, 1);
	for (unsigned i = 0; i < 12; i++) {
		int n = layout(iov, back, i % 2 ? 128 : 1, 4096, i % 3);
		ZSTD_outBuffer to = { out, OUT_SIZE, 0 };

		fill(pages, PACKET, (enum content)(i % CONTENTS), i);
		for (int p = 0; p < n; p++) {
			ZSTD_inBuffer in = { pages + p * 4096, 4096, 0 };
			ZSTD_EndDirective end = p == n - 1 ? ZSTD_e_flush : ZSTD_e_continue;
			size_t left;

			do {
				left = ZSTD_compressStream2(cctx, &to, &in, end);
				REQUIRE(!ZSTD_isError(left));
			} while (in.pos < in.size || (end == ZSTD_e_flush && left));
		}
		REQUIRE(codec_zstd.decode(d, out, to.pos, iov, n, &err) == 0);
		for (int p = 0; p < n; p++)
			CHECK(!memcmp(pages + p * 4096, iov[p].iov_base, 4096));
	}
	ZSTD_freeCCtx(cctx);
	codec_zstd.close(d);
}

/* One shot of the library takes a unit for what it is. */
static void units_are_whole(void)
{
	struct codec *z = codec_zlib.open_encode(1, false, PACKET, &err);
	struct codec *s = codec_zstd.open_encode(1, false, PACKET, &err);
	struct iovec iov[MAX_IOV];

	REQUIRE(z && s);
	for (unsigned i = 0; i < 6; i++) {
		int n = layout(iov, pages, 64, 4096, false);
		uLongf got = PACKET;
		ssize_t len;

		fill(pages, PACKET, (enum content)(i % CONTENTS), i);
		len = codec_zlib.encode(z, iov, n, out, OUT_SIZE, &err);
		REQUIRE(len > 0 && uncompress(back, &got, out, (uLong)len) == Z_OK);
		CHECK(got == 64 * 4096 && !memcmp(pages, back, got));
		len = codec_zstd.encode(s, iov, n, out, OUT_SIZE, &err);
		REQUIRE(len > 0 && ZSTD_getFrameContentSize(out, (size_t)len) == 64 * 4096);
		CHECK(ZSTD_decompress(back, PACKET, out, (size_t)len) == 64 * 4096);
		CHECK(!memcmp(pages, back, 64 * 4096));
	}
	codec_zlib.close(z);
	codec_zstd.close(s);
}

/* 4096 times "a": by Python's zlib at level 6, by the command zstd 1.5.4 at level 1. */
static void vectors_of_others(void)
{
	static const uint8_t by_python[] = { 0x78, 0x9c, 0xed, 0xc1, 0x01, 0x0d, 0x00,
					     0x00, 0x00, 0xc2, 0xa0, 0xac, 0xef, 0x5f,
					     0xc2, 0x1e, 0x0e, 0x28, 0x00, 0x00, 0x00,
					     0xe0, 0xdd, 0x00, 0xef, 0xcb, 0x10, 0x5b };
	static const uint8_t by_command[] = { 0x28, 0xb5, 0x2f, 0xfd, 0x64, 0x00, 0x0f, 0x4d,
					      0x00, 0x00, 0x10, 0x61, 0x61, 0x01, 0x00, 0xfb,
					      0xf7, 0x01, 0x16, 0x03, 0x16, 0x2c, 0x89 };
	struct codec *z = codec_zlib.open_decode(false, 4096, &err);
	struct codec *s = codec_zstd.open_decode(false, 4096, &err);
	struct iovec iov = { back, 4096 };

	REQUIRE(z && s);
	memset(pages, 'a', 4096);
	memset(back, 0, 4096);
	CHECK(codec_zlib.decode(z, by_python, sizeof(by_python), &iov, 1, &err) == 0);
	CHECK(!memcmp(pages, back, 4096));
	memset(back, 0, 4096);
	CHECK(codec_zstd.decode(s, by_command, sizeof(by_command), &iov, 1, &err) == 0);
	CHECK(!memcmp(pages, back, 4096));
	codec_zlib.close(z);
	codec_zstd.close(s);
}

/* Decodes once with a fresh context; the error has to be ST_DATA and to mention `word`. */
static void check_refused(const struct codec_ops *ops, bool continuous, const uint8_t *in,
			  size_t len, size_t want, const char *word)
{
	struct codec *d = ops->open_decode(continuous, PACKET, &err);
	struct iovec iov[2] = { { back, want / 2 }, { back + PACKET, want - want / 2 } };

	REQUIRE(d);
	err_clear(&err);
	CHECK(ops->decode(d, in, len, iov, 2, &err) == -1);
	CHECK(err.status == ST_DATA);
	if (!strstr(err.msg, word)) {
		printf("# \"%s\" does not say \"%s\"\n", err.msg, word);
		CHECK(!"the message says what is wrong");
	}
	/* In one piece, too. */
	iov[0].iov_len = want;
	ops->close(d);
	d = ops->open_decode(continuous, PACKET, &err);
	REQUIRE(d);
	CHECK(ops->decode(d, in, len, iov, 1, &err) == -1 && err.status == ST_DATA);
	ops->close(d);
}

static size_t make(const struct codec_ops *ops, bool continuous, enum content what, size_t len)
{
	struct codec *e = ops->open_encode(1, continuous, PACKET, &err);
	struct iovec iov = { pages, len };
	ssize_t got = -1;

	fill(pages, len, what, 3);
	if (e)
		got = ops->encode(e, &iov, 1, out, OUT_SIZE, &err);
	ops->close(e);
	CHECK(got > 0);
	return got > 0 ? (size_t)got : 0;
}

static void wrong_sizes(const struct codec_ops *ops, bool continuous, enum content what)
{
	bool sized = ops == &codec_zstd && !continuous;
	size_t len = make(ops, continuous, what, 8192);

	check_refused(ops, continuous, out, len, 8192 - 1, sized ? "have 8191" : "more than");
	check_refused(ops, continuous, out, len, 4096, sized ? "have 4096" : "more than");
	check_refused(ops, continuous, out, len, 8192 + 1, sized ? "have 8193" : "fewer than");
	check_refused(ops, continuous, out, len, 65536, sized ? "have 65536" : "fewer than");
	check_refused(ops, continuous, out, 0, 8192, "");
	/* Every truncation, but for the empty blocks at a flush's end that carry nothing. */
	for (size_t cut = len - (continuous ? 6 : 1); cut > 0; cut--)
		if (cut < 100 || cut % 37 == 0)
			check_refused(ops, continuous, out, cut, 8192, "");
	memset(out + len, 0, 8);
	if (!continuous)
		check_refused(ops, continuous, out, len + 1, 8192, "left over");
}

static void wrong_sizes_are_refused(void)
{
	for (int what = 0; what < CONTENTS; what++) {
		wrong_sizes(&codec_zlib, true, (enum content)what);
		wrong_sizes(&codec_zlib, false, (enum content)what);
		wrong_sizes(&codec_zstd, true, (enum content)what);
		wrong_sizes(&codec_zstd, false, (enum content)what);
	}
	check_refused(&codec_none, true, pages, 8191, 8192, "8191");
	check_refused(&codec_none, false, pages, 8193, 8192, "8193");
}

static void left_over_input(void)
{
	size_t len = make(&codec_zlib, true, TEXT, 4096);
	static const uint8_t stored_x[] = { 0, 1, 0, 0xfe, 0xff, 'x' };

	/* A block more, and a byte that begins none. */
	memcpy(out + len, stored_x, sizeof(stored_x));
	check_refused(&codec_zlib, true, out, len + sizeof(stored_x), 4096, "more than");
	out[len] = 0x07;
	check_refused(&codec_zlib, true, out, len + 1, 4096, "broken");
	len = make(&codec_zstd, true, TEXT, 4096);
	out[len] = 1 << 3;
	out[len + 1] = out[len + 2] = 0;
	out[len + 3] = 'x';
	check_refused(&codec_zstd, true, out, len + 4, 4096, "more than");
	out[len] = 3 << 1; /* reserved block type */
	check_refused(&codec_zstd, true, out, len + 3, 4096, "broken");
}

/* The end of a stream or frame is an error in QEMU's framing. */
static void finished_streams(void)
{
	size_t len = make(&codec_zlib, false, TEXT, 8192);

	check_refused(&codec_zlib, true, out, len, 8192, "ends within");
	len = make(&codec_zstd, false, TEXT, 8192);
	check_refused(&codec_zstd, true, out, len, 8192, "ends within");
	/* and its absence is one in ours */
	len = make(&codec_zlib, true, TEXT, 8192);
	check_refused(&codec_zlib, false, out, len, 8192, "no end");
	len = make(&codec_zstd, true, TEXT, 8192);
	check_refused(&codec_zstd, false, out, len, 8192, "no whole frame");
}

static void two_units_are_not_one(void)
{
	size_t len = make(&codec_zlib, false, TEXT, 4096);

	memcpy(out + len, out, len);
	check_refused(&codec_zlib, false, out, 2 * len, 8192, "fewer than");
	check_refused(&codec_zlib, false, out, 2 * len, 4096, "left over");
	len = make(&codec_zstd, false, TEXT, 4096);
	memcpy(out + len, out, len);
	check_refused(&codec_zstd, false, out, 2 * len, 8192, "frame 4096");
	check_refused(&codec_zstd, false, out, 2 * len, 4096, "left over");
}

static void foreign_bytes(void)
{
	static const uint8_t skippable[] = { 0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, 1, 2, 3, 4 };

	fill(pages, 4096, RANDOM, 9);
	for (int continuous = 0; continuous < 2; continuous++) {
		check_refused(&codec_zlib, continuous, pages, 4096, 4096, "broken");
		check_refused(&codec_zstd, continuous, pages, 4096, 4096, "does not begin");
		check_refused(&codec_zstd, continuous, skippable, sizeof(skippable), 4096,
			      "does not begin");
	}
}

static void dictionaries(void)
{
	z_stream zs = { 0 };
	ZSTD_CCtx *cctx = ZSTD_createCCtx();
	size_t len;
	static const uint8_t frame[] = { 0x28, 0xb5, 0x2f, 0xfd, 0x61, 7,
					 0x00, 0x0f, 0x03, 0x80, 0x00, 0x61 };

	REQUIRE(cctx && deflateInit(&zs, 1) == Z_OK);
	fill(pages, 4096, TEXT, 1);
	deflateSetDictionary(&zs, pages, 100);
	zs.next_in = pages;
	zs.avail_in = 4096;
	zs.next_out = out;
	zs.avail_out = OUT_SIZE;
	REQUIRE(deflate(&zs, Z_FINISH) == Z_STREAM_END);
	check_refused(&codec_zlib, false, out, zs.total_out, 4096, "dictionary");
	check_refused(&codec_zlib, true, out, zs.total_out, 4096, "dictionary");
	deflateEnd(&zs);
	/* A frame that names dictionary 7: RLE block of 4096 bytes. */
	check_refused(&codec_zstd, false, frame, sizeof(frame), 4096, "ictionary");
	check_refused(&codec_zstd, true, frame, sizeof(frame), 4096, "ictionary");
	/* A dictionary of plain content is not named: what it gives is found missing. */
	fill(pages, 4096, RANDOM, 1);
	memcpy(back, pages, 4096);
	len = ZSTD_compress_usingDict(cctx, out, OUT_SIZE, pages, 4096, back, 4096, 1);
	REQUIRE(!ZSTD_isError(len) && len < 100);
	check_refused(&codec_zstd, false, out, len, 4096, "broken");
	ZSTD_freeCCtx(cctx);
}

/* A frame header may ask for any window; beyond 32 MiB nobody gets memory. */
static void wide_windows(void)
{
	static const uint8_t of_2_25[] = { 0x28,	   0xb5, 0x2f, 0xfd, 0,
					   (25 - 10) << 3, 0x02, 0x80, 0x00, 'a' };
	uint8_t frame[sizeof(of_2_25)];
	struct codec *d = codec_zstd.open_decode(true, PACKET, &err);
	struct iovec iov = { back, 4096 };

	/* An RLE block of 4096 bytes that is not the last one. */
	REQUIRE(d);
	CHECK(codec_zstd.decode(d, of_2_25, sizeof(of_2_25), &iov, 1, &err) == 0);
	CHECK(back[0] == 'a' && back[4095] == 'a');
	codec_zstd.close(d);
	memcpy(frame, of_2_25, sizeof(frame));
	frame[5] = (25 - 10) << 3 | 1;
	check_refused(&codec_zstd, true, frame, sizeof(frame), 4096, "broken");
	frame[5] = (31 - 10) << 3;
	check_refused(&codec_zstd, true, frame, sizeof(frame), 4096, "broken");
}

/* Units have no memory: after a bad one the next is read. */
static void units_survive_errors(const struct codec_ops *ops)
{
	struct codec *d = ops->open_decode(false, PACKET, &err);
	struct iovec iov = { back, 8192 }, longer = { back, 8193 };
	size_t len = make(ops, false, TEXT, 8192);

	REQUIRE(d);
	for (size_t cut = 0; cut < len; cut += 5) {
		CHECK(ops->decode(d, out, cut, &iov, 1, &err) == -1);
		CHECK(ops->decode(d, out, len, &longer, 1, &err) == -1);
		memset(back, 0, 8192);
		CHECK(ops->decode(d, out, len, &iov, 1, &err) == 0);
		CHECK(!memcmp(pages, back, 8192));
	}
	ops->close(d);
}

static void units_go_on_after_errors(void)
{
	units_survive_errors(&codec_zlib);
	units_survive_errors(&codec_zstd);
}

/* zlib has a checksum: what is accepted is right. */
static void flipped_bits(void)
{
	struct codec *d = codec_zlib.open_decode(false, PACKET, &err);
	struct iovec iov = { back, 4096 };
	size_t len = make(&codec_zlib, false, TEXT, 4096);

	REQUIRE(d);
	for (size_t bit = 0; bit < len * 8; bit++) {
		out[bit / 8] ^= (uint8_t)(1 << bit % 8);
		if (codec_zlib.decode(d, out, len, &iov, 1, &err) == 0)
			CHECK(!memcmp(pages, back, 4096));
		out[bit / 8] ^= (uint8_t)(1 << bit % 8);
	}
	codec_zlib.close(d);
}

static void limits_are_kept(void)
{
	static const struct codec_ops *const both[] = { &codec_zlib, &codec_zstd };
	struct iovec iov = { pages, 8192 };

	for (int i = 0; i < 2; i++) {
		struct codec *e = both[i]->open_encode(1, false, 4096, &err);
		struct codec *d = both[i]->open_decode(false, 4096, &err);

		REQUIRE(e && d);
		CHECK(both[i]->encode(e, &iov, 1, out, OUT_SIZE, &err) == -1);
		CHECK(strstr(err.msg, "at most 4096"));
		CHECK(both[i]->decode(d, out, 100, &iov, 1, &err) == -1);
		CHECK(strstr(err.msg, "at most 4096"));
		iov.iov_len = 4096;
		fill(pages, 4096, RANDOM, 1);
		CHECK(both[i]->encode(e, &iov, 1, out, 4000, &err) == -1);
		CHECK(err.status == ST_DATA && strstr(err.msg, "4000"));
		both[i]->close(e);
		both[i]->close(d);
		iov.iov_len = 8192;
	}
	iov.iov_len = 4096;
	CHECK(codec_none.encode(codec_none.open_encode(0, true, 4096, &err), &iov, 1, out, 4095,
				&err) == -1);
	CHECK(codec_zlib.open_encode(1, true, SIZE_MAX, &err) == NULL && err.status == ST_USAGE);
	CHECK(codec_zlib.open_encode(10, true, 4096, &err) == NULL && err.status == ST_USAGE);
}

static const struct test_case cases[] = {
	{ "the level changes on the way", the_level_changes_on_the_way },
	{ "every method, framing and page size goes there and back",
	  every_method_goes_there_and_back },
	{ "every level goes there and back", every_level_goes_there_and_back },
	{ "zstd's level 20 is within the window decoders accept", widest_window },
	{ "methods are found by number", methods_are_found },
	{ "QEMU's receiver reads our zlib", qemu_reads_our_zlib },
	{ "we read the zlib of QEMU's sender", we_read_qemus_zlib },
	{ "QEMU's receiver reads our zstd", qemu_reads_our_zstd },
	{ "we read the zstd of QEMU's sender", we_read_qemus_zstd },
	{ "a unit is a whole stream or frame", units_are_whole },
	{ "what other programs compressed is read", vectors_of_others },
	{ "more or less than the pages is refused, and every truncation", wrong_sizes_are_refused },
	{ "input that is left over is refused", left_over_input },
	{ "a stream that ends, or does not, is refused", finished_streams },
	{ "two units are not one", two_units_are_not_one },
	{ "foreign bytes are refused", foreign_bytes },
	{ "dictionaries are refused", dictionaries },
	{ "windows beyond 2^25 bytes are refused", wide_windows },
	{ "units go on after an error", units_go_on_after_errors },
	{ "no flipped bit gives wrong bytes from zlib's units", flipped_bits },
	{ "sizes beyond what was agreed are refused", limits_are_kept },
};
TEST_MAIN(cases)
