/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One codec in one framing. Input: packets of a byte that says how many pages (less one) the packet
 * has, be16 length, and the payload. A context that decodes into one piece and one that decodes
 * into scattered pages have to agree about verdict and bytes.
 */
#ifndef MIGTOOL_FUZZ_CODEC_H
#define MIGTOOL_FUZZ_CODEC_H

#include "fuzz.h"

#include "byteorder.h"
#include "codec.h"

#define FUZZ_PAGE  4096u
#define FUZZ_PAGES 8

struct fuzz_pair {
	const struct codec_ops *ops;
	struct codec *piece, *scattered;
};

/* Decodes one packet with both; returns whether it was good. */
static inline int fuzz_packet(struct fuzz_pair *p, const uint8_t *in, size_t len, int n)
{
	uint8_t *flat = calloc((size_t)n, FUZZ_PAGE);
	struct iovec piece = { flat, (size_t)n * FUZZ_PAGE }, iov[FUZZ_PAGES];
	struct error err = { 0 };
	int good, also;

	for (int i = 0; i < n; i++)
		iov[i] = (struct iovec){ calloc(1, FUZZ_PAGE), FUZZ_PAGE };
	good = p->ops->decode(p->piece, in, len, &piece, 1, &err) == 0;
	FUZZ_CHECK(good || (err.status == ST_DATA && err.msg[0]));
	also = p->ops->decode(p->scattered, in, len, iov, n, &err) == 0;
	FUZZ_CHECK(good == also);
	for (int i = 0; i < n; i++) {
		if (good)
			FUZZ_CHECK(
				!memcmp(flat + (size_t)i * FUZZ_PAGE, iov[i].iov_base, FUZZ_PAGE));
		free(iov[i].iov_base);
	}
	free(flat);
	return good;
}

static inline void fuzz_codec(const struct codec_ops *ops, bool continuous, const uint8_t *data,
			      size_t size)
{
	struct fuzz_pair p = { .ops = ops };
	struct error err;
	int good = 1;

	p.piece = ops->open_decode(continuous, FUZZ_PAGES * FUZZ_PAGE, &err);
	p.scattered = ops->open_decode(continuous, FUZZ_PAGES * FUZZ_PAGE, &err);
	FUZZ_CHECK(p.piece && p.scattered);
	while (size > 3 && (good || !continuous)) {
		size_t len = get_be16(data + 1);
		uint8_t *in;

		len = len < size - 3 ? len : size - 3;
		in = fuzz_copy(data + 3, len);
		good = fuzz_packet(&p, in, len, data[0] % FUZZ_PAGES + 1);
		free(in);
		data += 3 + len;
		size -= 3 + len;
	}
	ops->close(p.piece);
	ops->close(p.scattered);
}

#endif
