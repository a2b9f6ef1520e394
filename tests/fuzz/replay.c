// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Feeds files to a fuzz target, one by one and each of their beginnings too: replay DIRECTORY.
 * Output and status as a unit test's.
 */
#include "fuzz.h"

#include <dirent.h>

#define MAX_FILE 65536

static void run(const uint8_t *data, size_t size)
{
	uint8_t *copy = fuzz_copy(data, size);

	LLVMFuzzerTestOneInput(copy, size);
	free(copy);
}

static int replay(const char *path)
{
	static uint8_t data[MAX_FILE];
	FILE *f = fopen(path, "rb");
	size_t size;

	if (!f)
		return -1;
	size = fread(data, 1, sizeof(data), f);
	fclose(f);
	/* Long files: the beginnings of their heads, then longer steps. */
	for (size_t n = 0; n < size; n += n < 64 ? 1 : 1 + size / 32)
		run(data, n);
	run(data, size);
	return 0;
}

int main(int argc, char **argv)
{
	DIR *dir = argc == 2 ? opendir(argv[1]) : NULL;
	int files = 0, bad = 0;
	struct dirent *e;
	char path[4096];

	while (dir && (e = readdir(dir))) {
		if (e->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "%s/%s", argv[1], e->d_name);
		/* Before it runs: a crash tells its file. */
		printf("# %s\n", path);
		fflush(stdout);
		bad |= replay(path);
		files++;
	}
	if (dir)
		closedir(dir);
	bad |= files == 0;
	printf("%s every file of the corpus is handled (%d files)\n", bad ? "not ok" : "ok", files);
	printf("%d passed, %d failed\n", !bad, !!bad);
	return bad != 0;
}
