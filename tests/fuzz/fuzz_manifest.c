// SPDX-License-Identifier: GPL-2.0-or-later
/* manifest.json. What was taken is within its bounds, and written and read again it is the same. */
#include "fuzz.h"

#include "manifest.h"

static void judge(const struct manifest *m)
{
	char file[MANIFEST_FILE_NAME_MAX + 1], name[256];

	for (unsigned i = 0; i < m->nblocks; i++) {
		const struct manifest_block *b = &m->blocks[i];

		FUZZ_CHECK(b->name[0] && memchr(b->name, '\0', sizeof(b->name)));
		FUZZ_CHECK(!b->digest[0] || strlen(b->digest) == 32);
		/* the file's name leads nowhere else, and back */
		manifest_file_name(b->name, file, sizeof(file));
		FUZZ_CHECK(file[0] && file[0] != '.' && !strchr(file, '/'));
		FUZZ_CHECK(!manifest_block_name(file, name, sizeof(name)) &&
			   !strcmp(name, b->name));
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = (char *)fuzz_copy(data, size), *first, *second;
	struct error err = { 0 };
	struct manifest *m = manifest_parse(text, size, &err), *again;

	free(text);
	if (!m) {
		FUZZ_CHECK(err.msg[0] && (err.status == ST_FILE || err.status == ST_UNSUPPORTED));
		return 0;
	}
	judge(m);
	first = manifest_format(m);
	FUZZ_CHECK(first);
	again = manifest_parse(first, strlen(first), &err);
	FUZZ_CHECK(again && again->nblocks == m->nblocks);
	second = manifest_format(again);
	FUZZ_CHECK(second && !strcmp(first, second));
	free(first);
	free(second);
	manifest_free(again);
	manifest_free(m);
	return 0;
}
