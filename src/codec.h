/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The compression methods of multifd: interchangeable, hence an ops table. A context belongs to one
 * channel and one thread. Its memory is allocated by open, but for a decoder's window, whose size
 * the first packet tells (at most 32 KiB for zlib, 2^25 bytes for zstd).
 *
 * Two framings. QEMU's (`continuous`): one zlib stream or zstd frame per channel for the whole
 * migration, flushed after each packet and never finished. Ours (multifd header version 2): each
 * packet is a unit of its own, one complete zlib stream or one complete zstd frame whose header
 * states the content's size, so that it can be made by any thread and a lost context costs nothing.
 *
 * After an error a continuous context is useless: what follows would be taken for something else.
 * A unit context goes on with the next packet.
 */
#ifndef MIGTOOL_CODEC_H
#define MIGTOOL_CODEC_H

#include "error.h"
#include "params.h"

#include <stdint.h>
#include <sys/uio.h>

/* Each method has its own. */
struct codec;

struct codec_ops {
	const char *name;
	enum multifd_method method;
	uint32_t wire_flags; /* QEMU's method bits: 0, 2, 4 */
	/* level: the method's; max_in: the most bytes one packet has before compression */
	struct codec *(*open_encode)(int level, bool continuous, size_t max_in, struct error *err);
	struct codec *(*open_decode)(bool continuous, size_t max_out, struct error *err);
	void (*close)(struct codec *c); /* NULL is accepted */
	/* Another level from the next packet on; units only. NULL: the method does not */
	void (*set_level)(struct codec *c, int level);
	/* The most bytes that a decoder takes, whatever is sent to it. */
	size_t (*decoder_memory)(bool continuous, size_t max_out);
	/* The most bytes `in` bytes can become. */
	size_t (*bound)(size_t in);
	/*
	 * All of iov's bytes (1 to max_in, no entry empty) as one packet's payload into out (cap >=
	 * bound). Returns the payload's length, or -1: ST_DATA (never seen).
	 */
	ssize_t (*encode)(struct codec *c, const struct iovec *iov, int n, uint8_t *out, size_t cap,
			  struct error *err);
	/*
	 * One packet's payload into exactly the bytes of iov (1 to max_out): more or fewer is
	 * ST_DATA, and so is input that is left over. What iov points to is undefined then.
	 */
	int (*decode)(struct codec *c, const uint8_t *in, size_t len, const struct iovec *iov,
		      int n, struct error *err);
};

extern const struct codec_ops codec_none, codec_zlib, codec_zstd;

/* NULL: no such method. */
const struct codec_ops *codec_find(enum multifd_method method);

/* The bytes of iov, all entries together. */
size_t codec_iov_len(const struct iovec *iov, int n);

/* Do iov's entries follow each other in memory without a gap? */
bool codec_iov_contiguous(const struct iovec *iov, int n);

/*
 * The `compress` capability's pages: one complete zlib stream a page.
 * encode: the length, or -1 (does not fit into cap). decode: exactly `page_len` bytes from exactly
 * `len` bytes, or -1 (the page is undefined then). A context belongs to one thread.
 */
struct page_zlib;
struct page_zlib *page_zlib_new(bool encode, int level, struct error *err);
void page_zlib_free(struct page_zlib *z); /* NULL is accepted */
ssize_t page_zlib_encode(struct page_zlib *z, const uint8_t *page, size_t page_len, uint8_t *out,
			 size_t cap);
int page_zlib_decode(struct page_zlib *z, const uint8_t *in, size_t len, uint8_t *page,
		     size_t page_len);
size_t page_zlib_bound(size_t page_len); /* zlib's compressBound: 4110 for 4096 */

#endif
