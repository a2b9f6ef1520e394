// SPDX-License-Identifier: GPL-2.0-or-later
/* manifest.json and the file names of blocks: what is read, refused, kept. */
#include "test.h"

#include "manifest.h"

#include <jansson.h>
#include <stdlib.h>

static void block_names_become_file_names_and_back(void)
{
	static const struct {
		const char *block, *file;
	} cases[] = {
		{ "pc.ram", "pc.ram" },
		{ "/rom@etc/acpi/tables", "%2From%40etc%2Facpi%2Ftables" },
		{ "0000:00:02.0/vga.vram", "0000%3A00%3A02.0%2Fvga.vram" },
		{ ".", "%2E" },
		{ "..", "%2E." },
		{ ".hidden", "%2Ehidden" },
		{ "a.b-c_d~e", "a.b-c_d~e" },
		{ "100%", "100%25" },
		{ "%2e", "%252e" },
		{ "r\xc3\xa9gion \x7f", "r%C3%A9gion%20%7F" },
	};
	char file[MANIFEST_FILE_NAME_MAX + 1], name[256];

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		CHECK_STR(manifest_file_name(cases[i].block, file, sizeof(file)), cases[i].file);
		CHECK(manifest_block_name(cases[i].file, name, sizeof(name)) == 0);
		CHECK_STR(name, cases[i].block);
	}
}

static void every_byte_survives_the_file_name(void)
{
	char file[MANIFEST_FILE_NAME_MAX + 1], name[256], all[256];

	for (int i = 1; i < 256; i++)
		all[i - 1] = (char)i;
	all[255] = '\0';
	manifest_file_name(all, file, sizeof(file));
	CHECK(!strchr(file, '/') && file[0] != '.');
	CHECK(manifest_block_name(file, name, sizeof(name)) == 0);
	CHECK_STR(name, all);
	memset(all, '/', 255);
	CHECK(strlen(manifest_file_name(all, file, sizeof(file))) == MANIFEST_FILE_NAME_MAX);
	CHECK(manifest_block_name(file, name, sizeof(name)) == 0);
	CHECK(manifest_block_name(file, name, 255) == -1);
}

static void other_file_names_are_no_blocks(void)
{
	static const char *const bad[] = { "",	    ".",    "..",  ".x",      "a%",  "a%2",
					   "a%zz",  "%2e",  "%61", "a%00",    "a:b", "a@b",
					   "a%2fb", "%41b", "%",   "x%2",     "x y", "\xff",
					   "a%2E",  "%%",   "%2G", "pc.ram\n" };
	char name[256], longest[300];

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		CHECK(manifest_block_name(bad[i], name, sizeof(name)) == -1);
	memset(longest, 'x', 299);
	longest[255] = '\0';
	CHECK(manifest_block_name(longest, name, sizeof(name)) == 0);
	longest[255] = 'x';
	longest[256] = '\0';
	CHECK(manifest_block_name(longest, name, sizeof(name)) == -1);
}

#define BLOCKS "\"blocks\":[{\"name\":\"pc.ram\",\"size\":4096}]"

static const char full[] =
	"{\"version\":1,\"machine\":\"pc-i440fx-7.2\",\"colour\":[1,{\"deep\":null}],"
	"\"uuid\":\"123e4567-e89b-12d3-a456-426614174000\",\"page-size\":4096,"
	"\"target-arch\":\"x86_64\",\"source\":\"qemu\",\"capabilities\":[\"multifd\",\"events\"],"
	"\"run-state\":\"paused\",\"postcopy\":true,\"blocks\":[{\"name\":\"pc.ram\",\"size\":"
	"1073741824,"
	"\"page-size\":2097152,\"gpa\":0,\"shared\":true,\"taste\":\"sour\","
	"\"digest\":\"00112233445566778899aabbccddeeff\"},"
	"{\"name\":\"top\",\"size\":0,\"gpa\":\"0xffffffffffffffff\"}],"
	"\"device-state\":{\"size\":77,\"digest\":\"ffeeddccbbaa99887766554433221100\","
	"\"note\":\"kept\"}}";

static struct manifest *parse(const char *text, struct error *err)
{
	return manifest_parse(text, strlen(text), err);
}

static void check_full(const struct manifest *m)
{
	CHECK_STR(m->machine, "pc-i440fx-7.2");
	CHECK_STR(m->uuid, "123e4567-e89b-12d3-a456-426614174000");
	CHECK_STR(m->target_arch, "x86_64");
	CHECK_STR(m->source, "qemu");
	CHECK_STR(m->run_state, "paused");
	CHECK(m->page_size == 4096 && m->nblocks == 2);
	REQUIRE(m->nblocks == 2 && m->capabilities);
	CHECK_STR(m->capabilities[0], "multifd");
	CHECK_STR(m->capabilities[1], "events");
	CHECK(!m->capabilities[2]);
	CHECK_STR(m->blocks[0].name, "pc.ram");
	CHECK(m->blocks[0].size == 1073741824 && m->blocks[0].page_size == 2097152);
	CHECK(m->blocks[0].has_gpa && m->blocks[0].gpa == 0 && m->blocks[0].shared);
	CHECK_STR(m->blocks[0].digest, "00112233445566778899aabbccddeeff");
	CHECK(m->blocks[1].has_gpa && m->blocks[1].gpa == UINT64_MAX && !m->blocks[1].shared);
	CHECK(m->blocks[1].size == 0 && m->blocks[1].page_size == 0 && !m->blocks[1].digest[0]);
	CHECK(m->postcopy && m->has_device_state && m->device_state_size == 77);
	CHECK_STR(m->device_state_digest, "ffeeddccbbaa99887766554433221100");
}

static void what_is_written_can_be_read(void)
{
	struct error e;
	struct manifest *m = parse(full, &e), *again;
	char *text;

	REQUIRE(m);
	check_full(m);
	text = manifest_format(m);
	REQUIRE(text);
	again = parse(text, &e);
	REQUIRE(again);
	check_full(again);
	manifest_free(again);
	manifest_free(m);
	free(text);
}

static void unknown_keys_are_kept_and_known_ones_changed(void)
{
	struct error e;
	struct manifest *m = parse(full, &e);
	json_t *root, *b;
	char *text;

	REQUIRE(m);
	strcpy(m->machine, "q35");
	m->run_state[0] = '\0';
	m->blocks[0].has_gpa = m->blocks[0].shared = false;
	m->blocks[0].size = 8192;
	m->device_state_size = 78;
	m->postcopy = false;
	m->nblocks = 1;
	text = manifest_format(m);
	manifest_free(m);
	REQUIRE(text);
	root = json_loads(text, 0, NULL);
	free(text);
	REQUIRE(root);
	CHECK(json_object_get(json_array_get(json_object_get(root, "colour"), 1), "deep"));
	CHECK_STR(json_string_value(json_object_get(root, "machine")), "q35");
	CHECK(!json_object_get(root, "run-state") && !json_object_get(root, "postcopy"));
	CHECK(json_array_size(json_object_get(root, "blocks")) == 1);
	b = json_array_get(json_object_get(root, "blocks"), 0);
	CHECK_STR(json_string_value(json_object_get(b, "taste")), "sour");
	CHECK(json_integer_value(json_object_get(b, "size")) == 8192);
	CHECK(!json_object_get(b, "gpa") && !json_object_get(b, "shared"));
	b = json_object_get(root, "device-state");
	CHECK_STR(json_string_value(json_object_get(b, "note")), "kept");
	CHECK(json_integer_value(json_object_get(b, "size")) == 78);
	json_decref(root);
}

static void a_new_one_says_only_what_is_known(void)
{
	struct manifest *m = manifest_new();
	char *text;

	REQUIRE(m);
	m->blocks = calloc(1, sizeof(*m->blocks));
	m->nblocks = 1;
	strcpy(m->blocks[0].name, "pc.ram");
	m->blocks[0].size = 4096;
	text = manifest_format(m);
	REQUIRE(text);
	CHECK_STR(text,
		  "{\n  \"version\": 1,\n  \"blocks\": [\n    {\n      \"name\": \"pc.ram\",\n"
		  "      \"size\": 4096\n    }\n  ]\n}");
	free(text);
	manifest_free(m);
}

static void bad_values_are_refused_with_their_key(void)
{
	static const struct {
		const char *text, *says;
		enum status status;
	} bad[] = {
		{ "", "line 1", ST_FILE },
		{ "[]", "not a JSON object", ST_FILE },
		{ "{\"version\":1," BLOCKS "} x", "line 1", ST_FILE },
		{ "{\"version\":1,\"version\":1," BLOCKS "}", "line 1", ST_FILE },
		{ "{" BLOCKS "}", "version is not a number", ST_FILE },
		{ "{\"version\":2," BLOCKS "}", "version 2 is not the 1", ST_UNSUPPORTED },
		{ "{\"version\":\"1\"," BLOCKS "}", "version is not", ST_FILE },
		{ "{\"version\":1}", "blocks is not a list", ST_FILE },
		{ "{\"version\":1,\"blocks\":[]}", "blocks is not a list", ST_FILE },
		{ "{\"version\":1,\"blocks\":{}}", "blocks is not a list", ST_FILE },
		{ "{\"version\":1,\"blocks\":[7]}", "blocks[0].name is not there", ST_FILE },
		{ "{\"version\":1,\"blocks\":[{\"size\":1}]}", "blocks[0].name", ST_FILE },
		{ "{\"version\":1,\"blocks\":[{\"name\":\"\",\"size\":1}]}", "[0].name", ST_FILE },
		{ "{\"version\":1,\"blocks\":[{\"name\":\"a\\nb\",\"size\":1}]}", "printable",
		  ST_FILE },
		{ "{\"version\":1,\"blocks\":[{\"name\":\"a\"}]}", "blocks[0].size is not there",
		  ST_FILE },
		{ "{\"version\":1,\"blocks\":[{\"name\":\"a\",\"size\":-1}]}", "[0].size",
		  ST_FILE },
		{ "{\"version\":1,\"blocks\":[{\"name\":\"a\",\"size\":1.5}]}", "[0].size",
		  ST_FILE },
		{ "{\"version\":1,\"blocks\":[{\"name\":\"a\",\"size\":\"1\"}]}", "[0].size",
		  ST_FILE },
		{ "{\"version\":1,\"blocks\":[{\"name\":\"a\",\"size\":99999999999999999999}]}",
		  "line 1", ST_FILE },
		{ "{\"version\":1,\"blocks\":[{\"name\":\"a\",\"size\":1},{\"name\":\"a\","
		  "\"size\":1}]}",
		  "blocks lists a twice", ST_FILE },
		{ "{\"version\":1,\"blocks\":[{\"name\":\"a\",\"size\":1,\"page-size\":3}]}",
		  "blocks[0].page-size is not a power of two", ST_FILE },
		{ "{\"version\":1,\"blocks\":[{\"name\":\"a\",\"size\":1,\"page-size\":"
		  "4294967296}]}",
		  "page-size", ST_FILE },
		{ "{\"version\":1,\"blocks\":[{\"name\":\"a\",\"size\":1,\"gpa\":\"12\"}]}",
		  "[0].gpa", ST_FILE },
		{ "{\"version\":1,\"blocks\":[{\"name\":\"a\",\"size\":1,\"gpa\":\"0x\"}]}",
		  "[0].gpa", ST_FILE },
		{ "{\"version\":1,\"blocks\":[{\"name\":\"a\",\"size\":1,\"gpa\":\"0x-1\"}]}",
		  "[0].gpa", ST_FILE },
		{ "{\"version\":1,\"blocks\":[{\"name\":\"a\",\"size\":1,\"gpa\":-1}]}", "[0].gpa",
		  ST_FILE },
		{ "{\"version\":1,\"blocks\":[{\"name\":\"a\",\"size\":1,\"gpa\":"
		  "\"0x10000000000000000\"}]}",
		  "[0].gpa", ST_FILE },
		{ "{\"version\":1,\"blocks\":[{\"name\":\"a\",\"size\":1,\"shared\":1}]}",
		  "[0].shared", ST_FILE },
		{ "{\"version\":1,\"blocks\":[{\"name\":\"a\",\"size\":1,\"digest\":\"12\"}]}",
		  "[0].digest", ST_FILE },
		{ "{\"version\":1,\"machine\":5," BLOCKS "}", "machine is not printable", ST_FILE },
		{ "{\"version\":1,\"machine\":\"\\u001b[2J\"," BLOCKS "}", "machine", ST_FILE },
		{ "{\"version\":1,\"machine\":\"a\\u0000b\"," BLOCKS "}", "line 1", ST_FILE },
		{ "{\"version\":1,\"uuid\":\"12\"," BLOCKS "}", "uuid is not a UUID", ST_FILE },
		{ "{\"version\":1,\"page-size\":5000," BLOCKS "}", "page-size", ST_FILE },
		{ "{\"version\":1,\"capabilities\":\"x\"," BLOCKS "}", "capabilities", ST_FILE },
		{ "{\"version\":1,\"capabilities\":[1]," BLOCKS "}", "capabilities", ST_FILE },
		{ "{\"version\":1,\"device-state\":7," BLOCKS "}", "device-state", ST_FILE },
		{ "{\"version\":1,\"device-state\":{}," BLOCKS "}", "device-state", ST_FILE },
		{ "{\"version\":1,\"device-state\":{\"size\":-5}," BLOCKS "}",
		  "device-state.size is not a number", ST_FILE },
	};

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct error e = { 0 };
		struct manifest *m = parse(bad[i].text, &e);

		CHECK(!m && e.status == bad[i].status);
		if (m || !strstr(e.msg, bad[i].says)) {
			CHECK(!"the message");
			printf("# %s: %s\n", bad[i].text, e.msg);
		}
		manifest_free(m);
	}
}

static void names_of_any_length_are_bounded(void)
{
	char text[1024], name[300];
	struct error e;
	struct manifest *m;

	memset(name, 'n', sizeof(name));
	name[255] = '\0';
	snprintf(text, sizeof(text), "{\"version\":1,\"blocks\":[{\"name\":\"%s\",\"size\":1}]}",
		 name);
	m = parse(text, &e);
	CHECK(m && strlen(m->blocks[0].name) == 255);
	manifest_free(m);
	name[255] = 'n';
	name[256] = '\0';
	snprintf(text, sizeof(text), "{\"version\":1,\"blocks\":[{\"name\":\"%s\",\"size\":1}]}",
		 name);
	CHECK(!parse(text, &e) && e.status == ST_FILE);
	CHECK(!manifest_parse(text, (16u << 20) + 1, &e));
	CHECK(strstr(e.msg, "16777217 bytes are more than") != NULL);
}

/* Every prefix and every changed byte either parses or says why; nothing else happens. */
static void damaged_text_is_parsed_or_refused(void)
{
	char text[sizeof(full)];
	struct error e;

	for (size_t n = 0; n < sizeof(full) - 1; n++) {
		struct manifest *m = manifest_parse(full, n, &e);

		CHECK(!m && e.msg[0]);
		manifest_free(m);
	}
	for (size_t i = 0; i < sizeof(full) - 1; i++) {
		static const char put[] = { '"', '0', '-', '\0', '}', '9', (char)0x80 };

		for (size_t k = 0; k < sizeof(put); k++) {
			struct manifest *m;

			memcpy(text, full, sizeof(full));
			text[i] = put[k];
			err_clear(&e);
			m = manifest_parse(text, sizeof(full) - 1, &e);
			CHECK(m || e.msg[0]);
			if (m)
				free(manifest_format(m));
			manifest_free(m);
		}
	}
}

static const struct test_case cases[] = {
	{ "block names become file names and back", block_names_become_file_names_and_back },
	{ "every byte survives the file name", every_byte_survives_the_file_name },
	{ "other file names are no blocks", other_file_names_are_no_blocks },
	{ "what is written can be read", what_is_written_can_be_read },
	{ "unknown keys are kept and known ones changed",
	  unknown_keys_are_kept_and_known_ones_changed },
	{ "a new one says only what is known", a_new_one_says_only_what_is_known },
	{ "bad values are refused with their key", bad_values_are_refused_with_their_key },
	{ "names of any length are bounded", names_of_any_length_are_bounded },
	{ "damaged text is parsed or refused", damaged_text_is_parsed_or_refused },
};

TEST_MAIN(cases)
