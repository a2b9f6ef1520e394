// SPDX-License-Identifier: GPL-2.0-or-later
/* Packets are the pages' bytes; both framings are the same. */
#include "codec.h"

#include <string.h>

struct codec {
	char nothing;
};

/* Without state, one does for all channels. */
static struct codec only;

static struct codec *open_encode(int level, bool continuous, size_t max_in, struct error *err)
{
	(void)level;
	(void)continuous;
	(void)max_in;
	(void)err;
	return &only;
}

static struct codec *open_decode(bool continuous, size_t max_out, struct error *err)
{
	return open_encode(0, continuous, max_out, err);
}

static void close_codec(struct codec *c)
{
	(void)c;
}

static size_t bound(size_t in)
{
	return in;
}

static ssize_t encode(struct codec *c, const struct iovec *iov, int n, uint8_t *out, size_t cap,
		      struct error *err)
{
	size_t done = 0, in = codec_iov_len(iov, n);

	(void)c;
	if (in > cap)
		return err_set(err, ST_DATA, "none: %zu bytes do not fit into %zu", in, cap);
	for (int i = 0; i < n; i++) {
		memcpy(out + done, iov[i].iov_base, iov[i].iov_len);
		done += iov[i].iov_len;
	}
	return (ssize_t)done;
}

static int decode(struct codec *c, const uint8_t *in, size_t len, const struct iovec *iov, int n,
		  struct error *err)
{
	size_t want = codec_iov_len(iov, n);

	(void)c;
	if (len != want)
		return err_set(err, ST_DATA,
			       "none: a packet's pages have %zu bytes, its payload has %zu", want,
			       len);
	for (int i = 0; i < n; i++) {
		memcpy(iov[i].iov_base, in, iov[i].iov_len);
		in += iov[i].iov_len;
	}
	return 0;
}

static size_t decoder_memory(bool continuous, size_t max_out)
{
	(void)continuous;
	(void)max_out;
	return 0;
}

const struct codec_ops codec_none = {
	.name = "none",
	.method = METHOD_NONE,
	.wire_flags = 0,
	.open_encode = open_encode,
	.open_decode = open_decode,
	.close = close_codec,
	.decoder_memory = decoder_memory,
	.bound = bound,
	.encode = encode,
	.decode = decode,
};
