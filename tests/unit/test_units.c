// SPDX-License-Identifier: GPL-2.0-or-later
#include "test.h"

#include "units.h"

static void sizes_are_read(void)
{
	static const struct {
		const char *text;
		uint64_t value;
	} good[] = {
		{ "0", 0 },
		{ "4096", 4096 },
		{ "64K", 65536 },
		{ "64k", 65536 },
		{ "10m", 10 << 20 },
		{ "1GiB", 1ULL << 30 },
		{ "1gib", 1ULL << 30 },
		{ "3T", 3ULL << 40 },
		{ "2PiB", 2ULL << 50 },
		{ "16383P", 16383ULL << 50 },
		{ "18446744073709551615", UINT64_MAX },
	};

	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		uint64_t v = 1;

		CHECK(units_parse_size(good[i].text, &v) == 0);
		CHECK(v == good[i].value);
	}
}

static void what_is_no_size_is_refused(void)
{
	static const char *const bad[] = {
		"",	  "K",	 "-1",	   "+1", " 1",	 "1 ",	  "1.5G",
		"1KB",	  "1Ki", "1iB",	   "1E", "0x10", "1KK",	  "1KiBs",
		"16384P", "1e3", "1k\xc0", "1B", "12a",	 "1,000", "18446744073709551616"
	};

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		uint64_t v = 77;

		if (units_parse_size(bad[i], &v) != -1 || v != 77)
			printf("# accepted: \"%s\"\n", bad[i]);
		CHECK(units_parse_size(bad[i], &v) == -1);
		CHECK(v == 77);
	}
}

static void integers_are_read_whole_or_not_at_all(void)
{
	uint64_t v = 5;

	CHECK(units_parse_u64("18446744073709551615", &v) == 0 && v == UINT64_MAX);
	CHECK(units_parse_u64("007", &v) == 0 && v == 7);
	CHECK(units_parse_u64("18446744073709551616", &v) == -1);
	CHECK(units_parse_u64("1K", &v) == -1);
	CHECK(units_parse_u64("", &v) == -1);
	CHECK(units_parse_u64("-1", &v) == -1);
	CHECK(v == 7);
}

static void sizes_are_cut_not_rounded(void)
{
	char b[32];

	CHECK_STR(units_format_size(0, b, sizeof(b)), "0 B");
	CHECK_STR(units_format_size(1023, b, sizeof(b)), "1023 B");
	CHECK_STR(units_format_size(1024, b, sizeof(b)), "1.00 KiB");
	CHECK_STR(units_format_size((1 << 20) - 1, b, sizeof(b)), "1023.99 KiB");
	CHECK_STR(units_format_size(3ULL << 29, b, sizeof(b)), "1.50 GiB");
	CHECK_STR(units_format_size(UINT64_MAX, b, sizeof(b)), "15.99 EiB");
}

static void exact_sizes_are_read_back_as_they_were(void)
{
	static const uint64_t values[] = { 0,	     1,		 1000,	     1024,	1025,
					   64 << 20, 3ULL << 29, 1ULL << 63, UINT64_MAX };
	char b[32];

	for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
		uint64_t v = 1;

		CHECK(units_parse_size(units_format_exact(values[i], b, sizeof(b)), &v) == 0);
		CHECK(v == values[i]);
	}
	CHECK_STR(units_format_exact(64 << 20, b, sizeof(b)), "64MiB");
	CHECK_STR(units_format_exact(1000, b, sizeof(b)), "1000");
	CHECK_STR(units_format_exact(0, b, sizeof(b)), "0");
}

static void times_are_written_for_people(void)
{
	char b[32];

	CHECK_STR(units_format_ms(0, b, sizeof(b)), "0 ms");
	CHECK_STR(units_format_ms(999, b, sizeof(b)), "999 ms");
	CHECK_STR(units_format_ms(4250, b, sizeof(b)), "4.2 s");
	CHECK_STR(units_format_ms(59999, b, sizeof(b)), "59.9 s");
	CHECK_STR(units_format_ms(60000, b, sizeof(b)), "1:00");
	CHECK_STR(units_format_ms(3723000, b, sizeof(b)), "1:02:03");
}

static void a_hexadecimal_digit_has_a_value(void)
{
	CHECK(hex_digit('0') == 0 && hex_digit('9') == 9);
	CHECK(hex_digit('a') == 10 && hex_digit('f') == 15);
	CHECK(hex_digit('A') == 10 && hex_digit('F') == 15);
	for (const char *c = "/:@G`g \xb0"; *c; c++)
		CHECK(hex_digit(*c) == -1);
	CHECK(hex_digit('\0') == -1);
}

static void a_uuid_goes_both_ways(void)
{
	const char *text = "01234567-89ab-cdef-0123-456789abcdef";
	uint8_t u[16];
	char b[37];

	REQUIRE(uuid_parse(text, u) == 0);
	CHECK(u[0] == 0x01 && u[7] == 0xef && u[15] == 0xef);
	CHECK_STR(uuid_format(u, b), text);
	REQUIRE(uuid_parse("01234567-89AB-CDEF-0123-456789ABCDEF", u) == 0);
	CHECK_STR(uuid_format(u, b), text);
}

static void what_is_no_uuid_is_refused(void)
{
	static const char *const bad[] = {
		"",
		"01234567",
		"0123456789abcdef0123456789abcdef",
		"01234567-89ab-cdef-0123-456789abcde",
		"01234567-89ab-cdef-0123-456789abcdef0",
		"01234567-89ab-cdef-0123-456789abcdeg",
		"0123456-789ab-cdef-0123-456789abcdef",
		"01234567089ab-cdef-0123-456789abcdef",
	};
	uint8_t u[16] = { 9 };

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		CHECK(uuid_parse(bad[i], u) == -1 && u[0] == 9);
}

static const struct test_case cases[] = {
	{ "sizes are read", sizes_are_read },
	{ "what is no size is refused", what_is_no_size_is_refused },
	{ "integers are read whole or not at all", integers_are_read_whole_or_not_at_all },
	{ "sizes are cut, not rounded", sizes_are_cut_not_rounded },
	{ "exact sizes are read back as they were", exact_sizes_are_read_back_as_they_were },
	{ "times are written for people", times_are_written_for_people },
	{ "a hexadecimal digit has a value", a_hexadecimal_digit_has_a_value },
	{ "a uuid goes both ways", a_uuid_goes_both_ways },
	{ "what is no uuid is refused", what_is_no_uuid_is_refused },
};

TEST_MAIN(cases)
