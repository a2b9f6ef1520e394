// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What comes over the only multifd channel, behind its first packet. Input: a byte of enum
 * fuzz_mode, one that says how many bytes a read gives at most, the packets. The main connection
 * has two barriers.
 */
#include "fuzz_recv.h"

static void say_first_packet(struct fuzz_text *to, unsigned mode)
{
	static const uint8_t rest[64 - 8];

	fuzz_say_be32(to, MULTIFD_MAGIC);
	fuzz_say_be32(to, mode & FUZZ_MIGTOOL ? MULTIFD_VERSION_OURS : MULTIFD_VERSION);
	fuzz_say(to, rest, sizeof(rest));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_text main = { 0 }, packets = { 0 };
	struct fuzz_said said, channel;
	unsigned mode;

	if (size < 2)
		return 0;
	mode = data[0] & ~(unsigned)(FUZZ_RAW | FUZZ_ONE_WAY | FUZZ_COMPRESS);
	fuzz_say_head(&main, mode, true);
	FUZZ_SAY(&main, "\2\0\0\0\2");
	fuzz_say_be64(&main, RAM_MULTIFD_FLUSH);
	fuzz_say_eos(&main);
	fuzz_say_tail(&main, mode);
	say_first_packet(&packets, mode);
	fuzz_say(&packets, data + 2, size - 2);
	said = (struct fuzz_said){ main.p, main.len, 0 };
	channel = (struct fuzz_said){ packets.p, packets.len, data[1] };
	fuzz_clean(fuzz_recv(mode, &said, &channel, 1));
	free(main.p);
	free(packets.p);
	return 0;
}
