// SPDX-License-Identifier: GPL-2.0-or-later
#include "codec.h"

static const struct codec_ops *const methods[] = { &codec_none, &codec_zlib, &codec_zstd };

const struct codec_ops *codec_find(enum multifd_method method)
{
	for (size_t i = 0; i < sizeof(methods) / sizeof(methods[0]); i++)
		if (methods[i]->method == method)
			return methods[i];
	return NULL;
}

size_t codec_iov_len(const struct iovec *iov, int n)
{
	size_t sum = 0;

	for (int i = 0; i < n; i++)
		sum += iov[i].iov_len;
	return sum;
}

bool codec_iov_contiguous(const struct iovec *iov, int n)
{
	for (int i = 1; i < n; i++)
		if ((const uint8_t *)iov[i - 1].iov_base + iov[i - 1].iov_len != iov[i].iov_base)
			return false;
	return true;
}
