// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The records of a PART. Input: a byte of enum fuzz_mode, one that says how many bytes a read gives
 * at most, the records without EOS. All that comes before and after is as it should be, but for a
 * migtool's digest: that is right only if no page has anything in it.
 */
#include "fuzz_recv.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_text text = { 0 };
	struct fuzz_said said;
	unsigned mode;

	if (size < 2)
		return 0;
	mode = data[0] & ~(unsigned)FUZZ_RAW;
	fuzz_say_head(&text, mode, false);
	FUZZ_SAY(&text, "\2\0\0\0\2");
	fuzz_say(&text, data + 2, size - 2);
	fuzz_say_eos(&text);
	fuzz_say_tail(&text, mode);
	said = (struct fuzz_said){ fuzz_copy(text.p, text.len), text.len, data[1] };
	free(text.p);
	text.p = (uint8_t *)said.bytes;
	fuzz_clean(fuzz_recv(mode, &said, NULL, 0));
	free(text.p);
	return 0;
}
