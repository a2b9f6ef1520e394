// SPDX-License-Identifier: GPL-2.0-or-later
#include "fuzz_codec.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	fuzz_codec(&codec_zlib, false, data, size);
	return 0;
}
