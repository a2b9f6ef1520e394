// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * multifd's headers. Input: a byte (low bits: the page; 0x10: version 2; 0x20: a first packet), the
 * header. What was taken is within its bounds, and packed again it is the same as far as it counts.
 */
#include "fuzz.h"

#include "wire-multifd.h"

static void version_1(const uint8_t *in, uint32_t page)
{
	struct multifd_header *h = malloc(sizeof(*h)), *again = malloc(sizeof(*again));
	uint8_t *out = malloc(multifd_header_len(page));
	uint32_t most = MULTIFD_PACKET_BYTES / page;
	struct error err = { 0 };

	FUZZ_CHECK(h && again && out);
	if (multifd_header_unpack(in, page, h, &err)) {
		FUZZ_CHECK(err.status == ST_DATA && err.msg[0]);
	} else {
		FUZZ_CHECK(h->normal + h->zero <= most && h->payload <= 2 * MULTIFD_PACKET_BYTES);
		FUZZ_CHECK(h->normal || !h->payload);
		FUZZ_CHECK(!(h->normal + h->zero) || memchr(h->block, '\0', sizeof(h->block)));
	}
	/* what is packed has no zero pages */
	if (!err.status && h->normal && !h->zero && strlen(h->block) < 256) {
		multifd_header_pack(h, page, out);
		FUZZ_CHECK(!multifd_header_unpack(out, page, again, &err));
		FUZZ_CHECK(again->flags == h->flags && again->normal == h->normal);
		FUZZ_CHECK(again->payload == h->payload && again->packet_num == h->packet_num);
		FUZZ_CHECK(!strcmp(again->block, h->block));
		FUZZ_CHECK(!memcmp(again->offset, h->offset, h->normal * sizeof(*h->offset)));
	}
	free(h);
	free(again);
	free(out);
}

static void version_2(const uint8_t *in, size_t size, uint32_t page)
{
	static uint8_t out[MULTIFD2_FIXED_LEN + MULTIFD2_RUNS_MAX * MULTIFD2_RUN_LEN];
	struct multifd2_header *h = malloc(sizeof(*h));
	struct error err = { 0 };
	uint64_t raw = 0;
	size_t len;

	FUZZ_CHECK(h);
	if (multifd2_fixed_unpack(in, h, &err) ||
	    size < MULTIFD2_FIXED_LEN + (size_t)h->nruns * MULTIFD2_RUN_LEN ||
	    multifd2_runs_unpack(in + MULTIFD2_FIXED_LEN, page, h, &err)) {
		FUZZ_CHECK(!err.status || (err.status == ST_DATA && err.msg[0]));
		free(h);
		return;
	}
	for (uint32_t i = 0; i < h->nruns; i++) {
		FUZZ_CHECK(h->runs[i].pages && h->runs[i].offset % page == 0);
		raw += h->runs[i].zero ? 0 : (uint64_t)h->runs[i].pages * page;
	}
	FUZZ_CHECK(raw == h->raw && raw <= MULTIFD_PACKET_BYTES && h->payload <= raw);
	len = multifd2_header_pack(h, out);
	FUZZ_CHECK(len == MULTIFD2_FIXED_LEN + (size_t)h->nruns * MULTIFD2_RUN_LEN);
	FUZZ_CHECK(!memcmp(out, in, MULTIFD2_FIXED_LEN - 4));
	FUZZ_CHECK(!memcmp(out + MULTIFD2_FIXED_LEN, in + MULTIFD2_FIXED_LEN,
			   len - MULTIFD2_FIXED_LEN));
	free(h);
}

static void first_packet(const uint8_t *in)
{
	uint8_t out[MULTIFD_INIT_LEN];
	struct multifd_init m;
	struct error err = { 0 };

	if (multifd_init_unpack(in, &m, &err)) {
		FUZZ_CHECK(err.status == ST_PROTOCOL && err.msg[0]);
		return;
	}
	multifd_init_pack(&m, out);
	FUZZ_CHECK(!memcmp(out, in, 25));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint32_t page;
	size_t need;
	uint8_t *in;

	if (size < 1)
		return 0;
	page = 4096u << 2 * (data[0] % 3);
	need = data[0] & 0x20	? MULTIFD_INIT_LEN
	       : data[0] & 0x10 ? MULTIFD2_FIXED_LEN
				: multifd_header_len(page);
	if (size - 1 < need)
		return 0;
	in = fuzz_copy(data + 1, size - 1);
	if (data[0] & 0x20)
		first_packet(in);
	else if (data[0] & 0x10)
		version_2(in, size - 1, page);
	else
		version_1(in, page);
	free(in);
	return 0;
}
