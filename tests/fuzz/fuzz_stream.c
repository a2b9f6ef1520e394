// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The stream's elements. Input: a byte of enum fuzz_mode, one that says how many bytes a read gives
 * at most, and what the source says behind its blocks; with FUZZ_RAW from its first byte on.
 */
#include "fuzz_recv.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_text text = { 0 };
	struct fuzz_said said;

	if (size < 2)
		return 0;
	if (!(data[0] & FUZZ_RAW))
		fuzz_say_head(&text, data[0], false);
	fuzz_say(&text, data + 2, size - 2);
	said = (struct fuzz_said){ fuzz_copy(text.p, text.len), text.len, data[1] };
	free(text.p);
	text.p = (uint8_t *)said.bytes;
	fuzz_clean(fuzz_recv(data[0], &said, NULL, 0));
	free(text.p);
	return 0;
}
