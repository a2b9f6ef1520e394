// SPDX-License-Identifier: GPL-2.0-or-later
#include "test.h"

#include "sha1.h"

static const char *hex(const uint8_t digest[SHA1_SIZE])
{
	static char out[2 * SHA1_SIZE + 1];

	for (unsigned i = 0; i < SHA1_SIZE; i++)
		snprintf(out + 2 * i, 3, "%02x", digest[i]);
	return out;
}

static void digests_are_those_of_the_standard(void)
{
	static const char *const fips[][2] = {
		{ "", "da39a3ee5e6b4b0d3255bfef95601890afd80709" },
		{ "abc", "a9993e364706816aba3e25717850c26c9cd0d89d" },
		{ "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
		  "84983e441c3bd26ebaae4aa1f95129e5e54670f1" },
		{ "0123456701234567012345670123456701234567012345670123456701234567",
		  "e0c094e867ef46c350ef54a7f59dd60bed92ae83" },
	};
	uint8_t out[SHA1_SIZE];

	for (size_t i = 0; i < sizeof(fips) / sizeof(fips[0]); i++) {
		sha1(out, fips[i][0], strlen(fips[i][0]));
		CHECK_STR(hex(out), fips[i][1]);
	}
}

static void every_length_around_a_block_is_padded_right(void)
{
	uint8_t text[130], chain[SHA1_SIZE], one[SHA1_SIZE];

	memset(text, 'a', sizeof(text));
	memset(chain, 0, sizeof(chain));
	for (size_t n = 0; n <= sizeof(text); n++) {
		sha1(one, text, n);
		for (unsigned i = 0; i < SHA1_SIZE; i++)
			chain[i] ^= one[i];
	}
	/* python3: the same loop over hashlib.sha1 */
	CHECK_STR(hex(chain), "bb427ff52cac0ef00e1b05092434d3ec3fdd8a67");
}

static void keyed_digests_are_those_of_the_rfc(void)
{
	uint8_t key[80], out[SHA1_SIZE];

	/* RFC 2202, cases 1, 2, 6 */
	memset(key, 0x0b, 20);
	sha1_hmac(out, key, 20, "Hi There", 8);
	CHECK_STR(hex(out), "b617318655057264e28bc0b6fb378c8ef146be00");
	sha1_hmac(out, "Jefe", 4, "what do ya want for nothing?", 28);
	CHECK_STR(hex(out), "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79");
	memset(key, 0xaa, 80);
	sha1_hmac(out, key, 80, "Test Using Larger Than Block-Size Key - Hash Key First", 54);
	CHECK_STR(hex(out), "aa4ae5e15272d00e95705637ce8a3b55ed402112");
}

static const struct test_case cases[] = {
	{ "digests are those of the standard", digests_are_those_of_the_standard },
	{ "every length around a block is padded right",
	  every_length_around_a_block_is_padded_right },
	{ "keyed digests are those of the RFC", keyed_digests_are_those_of_the_rfc },
};

TEST_MAIN(cases)
