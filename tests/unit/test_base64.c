// SPDX-License-Identifier: GPL-2.0-or-later
#include "test.h"

#include "base64.h"

static const struct {
	const char *plain, *padded, *bare;
} vectors[] = {
	/* RFC 4648, 10 */
	{ "", "", "" },
	{ "f", "Zg==", "Zg" },
	{ "fo", "Zm8=", "Zm8" },
	{ "foo", "Zm9v", "Zm9v" },
	{ "foob", "Zm9vYg==", "Zm9vYg" },
	{ "fooba", "Zm9vYmE=", "Zm9vYmE" },
	{ "foobar", "Zm9vYmFy", "Zm9vYmFy" },
	{ "\xfb\xff\xbf", "+/+/", "+/+/" },
};

static void the_vectors_are_encoded(void)
{
	char out[16];

	for (size_t i = 0; i < sizeof(vectors) / sizeof(vectors[0]); i++) {
		size_t n = strlen(vectors[i].plain);

		CHECK_STR(base64_encode(out, vectors[i].plain, n, true), vectors[i].padded);
		CHECK_STR(base64_encode(out, vectors[i].plain, n, false), vectors[i].bare);
	}
}

static void the_vectors_are_decoded(void)
{
	for (size_t i = 0; i < sizeof(vectors) / sizeof(vectors[0]); i++) {
		size_t n = strlen(vectors[i].plain);
		char out[16] = "";

		CHECK(base64_decode(out, sizeof(out), vectors[i].padded,
				    strlen(vectors[i].padded)) == (long)n);
		CHECK(!memcmp(out, vectors[i].plain, n));
	}
}

static void line_ends_are_passed_over(void)
{
	char out[8];

	CHECK(base64_decode(out, sizeof(out), "Zm9v\r\nYm\nFy\n", 12) == 6);
	CHECK(!memcmp(out, "foobar", 6));
}

static void what_is_none_is_refused(void)
{
	static const char *const bad[] = {
		"Z",	"Zg",	"Zg=",	"Zm9vY", "Zm9v Yg==", "Zg==Zg==",
		"====", "Z===", "Zm9-", "=Zm9",	 "Zg=x",      "\x80m9v"
	};
	char out[16];

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		CHECK(base64_decode(out, sizeof(out), bad[i], strlen(bad[i])) == -1);
	CHECK(base64_decode(out, sizeof(out), "Zg=\0", 4) == -1);
}

static void no_more_than_fits_is_written(void)
{
	char out[8] = "-------";

	CHECK(base64_decode(out, 5, "Zm9vYmFy", 8) == -1);
	CHECK(out[5] == '-');
	CHECK(base64_decode(out, 6, "Zm9vYmFy", 8) == 6);
	CHECK(out[6] == '-');
}

static const struct test_case cases[] = {
	{ "the vectors of the RFC are encoded", the_vectors_are_encoded },
	{ "the vectors of the RFC are decoded", the_vectors_are_decoded },
	{ "line ends are passed over", line_ends_are_passed_over },
	{ "what is no base64 is refused", what_is_none_is_refused },
	{ "no more than fits is written", no_more_than_fits_is_written },
};

TEST_MAIN(cases)
