// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What the two ends say about an old copy. Input: 'l' (a list of digests) or 'w' (WANT), then the
 * payload. What was taken is within its bounds, and packed again it is the same.
 */
#include "fuzz.h"

#include "wire-delta.h"

static void list(const uint8_t *data, size_t size)
{
	uint8_t again[DELTA_LIST_LEN];
	struct delta_list l;
	struct error err;

	if (delta_list_unpack(data, size, &l, &err)) {
		FUZZ_CHECK(err.status == ST_DATA);
		return;
	}
	FUZZ_CHECK(l.n <= DELTA_LIST_MAX && l.offset % DELTA_CHUNK == 0);
	FUZZ_CHECK(delta_list_pack(&l, again) == size && !memcmp(again, data, size));
	for (uint64_t block = 4096; block; block <<= 4) {
		if (delta_check_range(block, l.offset, l.n, DELTA_CHUNK, &err))
			continue;
		FUZZ_CHECK(l.offset <= block);
		FUZZ_CHECK(!l.n || l.offset + (uint64_t)(l.n - 1) * DELTA_CHUNK < block);
	}
}

static void want(const uint8_t *data, size_t size)
{
	uint8_t again[DELTA_WANT_LEN];
	struct delta_want w;
	struct error err;

	if (delta_want_unpack(data, size, &w, &err)) {
		FUZZ_CHECK(err.status == ST_DATA);
		return;
	}
	FUZZ_CHECK(w.n && w.n <= DELTA_WANT_MAX);
	for (unsigned i = 1; i < w.n; i++)
		FUZZ_CHECK(w.offset[i] > w.offset[i - 1]);
	FUZZ_CHECK(delta_want_pack(&w, again) == size && !memcmp(again, data, size));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t *payload;

	if (size < 1)
		return 0;
	payload = fuzz_copy(data + 1, size - 1);
	if (data[0] == 'l')
		list(payload, size - 1);
	else
		want(payload, size - 1);
	free(payload);
	return 0;
}
