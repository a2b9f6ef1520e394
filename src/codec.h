/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The compression methods of multifd: interchangeable, hence an ops table. A context belongs to one
 * channel and one thread; all its memory is allocated by open.
 *
 * Two framings. QEMU's (`continuous`): one zlib stream or zstd frame per channel for the whole
 * migration, flushed after each packet. Ours (multifd header version 2): each packet is a unit of
 * its own, so that it can be made by any thread and a lost context costs nothing.
 */
#ifndef MIGTOOL_CODEC_H
#define MIGTOOL_CODEC_H

#include "error.h"
#include "params.h"

#include <stdint.h>
#include <sys/uio.h>

struct codec;

struct codec_ops {
	const char *name;
	enum multifd_method method;
	uint32_t wire_flags; /* QEMU's method bits: 0, 2, 4 */
	/* level: the method's; max_in: the most bytes one packet has before compression */
	struct codec *(*open_encode)(int level, bool continuous, size_t max_in, struct error *err);
	struct codec *(*open_decode)(bool continuous, size_t max_out, struct error *err);
	void (*close)(struct codec *c); /* NULL is accepted */
	/* The most bytes `in` bytes can become. */
	size_t (*bound)(size_t in);
	/* All of iov's bytes as one packet's payload into out (>= bound). -1: ST_DATA (never seen) */
	ssize_t (*encode)(struct codec *c, const struct iovec *iov, int n, uint8_t *out, size_t cap,
			  struct error *err);
	/*
	 * One packet's payload into exactly the bytes of iov: more or fewer is ST_DATA, and so is
	 * input that is left over. zstd's window is at most 2^25.
	 */
	int (*decode)(struct codec *c, const uint8_t *in, size_t len, const struct iovec *iov, int n,
		      struct error *err);
};

extern const struct codec_ops codec_none, codec_zlib, codec_zstd;

const struct codec_ops *codec_find(enum multifd_method method);

/*
 * The `compress` capability's pages: one complete zlib stream a page.
 * encode: the length, or -1 (does not fit into cap). decode: exactly `page` bytes or -1.
 */
struct page_zlib;
struct page_zlib *page_zlib_new(bool encode, int level, struct error *err);
void page_zlib_free(struct page_zlib *z);
ssize_t page_zlib_encode(struct page_zlib *z, const uint8_t *page, size_t page_len, uint8_t *out,
			 size_t cap);
int page_zlib_decode(struct page_zlib *z, const uint8_t *in, size_t len, uint8_t *page,
		     size_t page_len);
size_t page_zlib_bound(size_t page_len); /* zlib's compressBound: 4110 for 4096 */

#endif
