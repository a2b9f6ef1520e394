// SPDX-License-Identifier: GPL-2.0-or-later
/* wire-*: every put is read back by its get; what a hostile peer may say is refused. */
#include "test.h"

#include "byteorder.h"
#include "wire-greet.h"
#include "wire-multifd.h"
#include "wire-postcopy.h"
#include "wire-ram.h"
#include "wire-return.h"
#include "wire.h"

#include <stdlib.h>
#include <sys/socket.h>

/* Two streams over a socket pair: what one writes the other reads. */
static struct pipe {
	struct cancel cancel;
	struct transport *a, *b;
	struct stream w, r;
} io;

static bool open_pipe(void)
{
	struct error e;
	int fd[2];

	if (socketpair(AF_UNIX, SOCK_STREAM, 0, fd) || cancel_init(&io.cancel, &e))
		return false;
	io.a = transport_from_fd(fd[0], fd[0], "a", &io.cancel, &e);
	io.b = transport_from_fd(fd[1], fd[1], "b", &io.cancel, &e);
	return io.a && io.b && !stream_open(&io.w, io.a, 0, 1 << 16, &e) &&
	       !stream_open(&io.r, io.b, 1 << 16, 0, &e);
}

static void close_pipe(void)
{
	struct error e;

	stream_close(&io.w);
	stream_close(&io.r);
	transport_close(io.a, &e);
	transport_close(io.b, &e);
	cancel_destroy(&io.cancel);
}

/* Puts bytes and the end of the stream where the reader finds them. */
static bool feed(const void *bytes, size_t n)
{
	struct error e;

	return open_pipe() && !stream_write(&io.w, bytes, n, &e) && !stream_flush(&io.w, &e) &&
	       !transport_shutdown_write(io.a, &e);
}

static void a_configuration_comes_back(void)
{
	struct wire_config c = { .machine = "pc-i440fx-7.2",
				 .page_bits = 16,
				 .ignore_shared = true,
				 .has_uuid = true,
				 .uuid = { 1, 2, 3 } };
	struct wire_config got;
	struct error e;
	uint8_t type;

	REQUIRE(open_pipe());
	CHECK(!wire_put_header(&io.w, &e) && !wire_put_config(&io.w, &c, &e) &&
	      !stream_put_u8(&io.w, WIRE_EOF, &e) && !stream_flush(&io.w, &e));
	CHECK(!wire_get_header(&io.r, &e) && !stream_get_u8(&io.r, &type, &e) &&
	      type == WIRE_CONFIGURATION);
	REQUIRE(!wire_get_config(&io.r, &got, &e));
	CHECK_STR(got.machine, c.machine);
	CHECK(got.page_bits == 16 && got.ignore_shared && got.has_uuid);
	CHECK(!memcmp(got.uuid, c.uuid, 16));
	close_pipe();
}

static void the_documents_header_is_read(void)
{
	/* qemu-wire 10.2, byte for byte */
	static const uint8_t bytes[] = "QEVM\0\0\0\3\7\0\0\0\15pc-i440fx-7.2"
				       "\1\0\0\0\2\3ram\0\0\0\0\0\0\0\4";
	struct wire_section sec = { .type = WIRE_SECTION_START };
	struct wire_config c;
	struct error e;
	uint8_t type;

	REQUIRE(feed(bytes, sizeof(bytes) - 1));
	CHECK(!wire_get_header(&io.r, &e) && !stream_get_u8(&io.r, &type, &e));
	REQUIRE(!wire_get_config(&io.r, &c, &e));
	CHECK_STR(c.machine, "pc-i440fx-7.2");
	CHECK(!stream_get_u8(&io.r, &type, &e) && type == WIRE_SECTION_START);
	REQUIRE(!wire_get_section(&io.r, &sec, &e));
	CHECK(sec.id == 2 && sec.instance == 0 && sec.version == 4);
	CHECK_STR(sec.idstr, "ram");
	close_pipe();
}

static void refused(const char *what, const void *bytes, size_t n, enum status status)
{
	struct wire_config c;
	struct error e = { 0 };

	REQUIRE(feed(bytes, n));
	if (wire_get_config(&io.r, &c, &e) != -1 || e.status != status) {
		test_bad++;
		printf("# %s: status %d, %s\n", what, e.status, e.msg);
	}
	close_pipe();
}

static void bad_configurations_are_refused(void)
{
	refused("long machine", "\0\0\1\0", 4, ST_DATA);
	refused("cut machine", "\0\0\0\5pc", 6, ST_SOCKET);
	refused("NUL in machine", "\0\0\0\3p\0c\0", 8, ST_DATA);
	refused("unknown subsection", "\0\0\0\2pc\5\15configuration\0\0\0\1", 26, ST_UNSUPPORTED);
	refused("unknown capability",
		"\0\0\0\2pc\5\32configuration/capabilities\0\0\0\1\0\0\0\1\4blub", 47,
		ST_UNSUPPORTED);
	refused("page bits", "\0\0\0\2pc\5\36configuration/target-page-bits\0\0\0\1\0\0\0\50", 46,
		ST_DATA);
}

static void a_block_list_comes_back(void)
{
	struct ram_block_info in[2] = { { .name = "pc.ram", .length = 1 << 20, .gpa = 0 },
					{ .name = "/rom@etc/acpi/tables",
					  .length = 0x20000,
					  .gpa = UINT64_C(0xfffc000000000000) } };
	struct ram_block_info *out;
	struct error e;
	uint64_t word;
	unsigned n;

	REQUIRE(open_pipe());
	CHECK(!ram_put_block_list(&io.w, in, 2, true, &e) && !stream_flush(&io.w, &e));
	CHECK(!stream_get_be64(&io.r, &word, &e) && word == (0x120000 | RAM_MEM_SIZE));
	REQUIRE(!ram_get_block_list(&io.r, word & ~0xfffull, 4096, 0, true, &out, &n, &e));
	REQUIRE(n == 2);
	CHECK_STR(out[1].name, in[1].name);
	CHECK(out[1].length == 0x20000 && out[1].gpa == in[1].gpa);
	free(out);
	close_pipe();
}

/* QEMU tells of huge pages only: nothing says where, and what follows the list may be the next. */
static void huge_pages_in_a_block_list_are_found(void)
{
	struct ram_block_info in[3] = { { .name = "huge", .length = 4 << 20, .host_page = 2 << 20 },
					{ .name = "small", .length = 4096 },
					{ .name = "last", .length = 2 << 20 } };
	struct ram_block_info *out;
	struct error e;
	uint64_t word;
	unsigned n;

	for (unsigned last_is_huge = 0; last_is_huge < 2; last_is_huge++) {
		in[2].host_page = last_is_huge ? 2 << 20 : 0;
		REQUIRE(open_pipe());
		CHECK(!ram_put_block_list(&io.w, in, 3, false, &e) &&
		      !stream_put_be64(&io.w, RAM_EOS, &e) && !stream_flush(&io.w, &e));
		CHECK(!stream_get_be64(&io.r, &word, &e));
		REQUIRE(!ram_get_block_list(&io.r, word & ~0xfffull, 4096, 0x201000, false, &out,
					    &n, &e));
		REQUIRE(n == 3);
		for (unsigned i = 0; i < 3; i++)
			CHECK(out[i].host_page == in[i].host_page && out[i].length == in[i].length);
		CHECK(!stream_get_be64(&io.r, &word, &e) && word == RAM_EOS);
		free(out);
		close_pipe();
	}
}

static void bad_list(const char *bytes, size_t n, uint64_t total, const char *words)
{
	struct ram_block_info *out;
	struct error e = { 0 };
	unsigned count;

	REQUIRE(feed(bytes, n));
	CHECK(ram_get_block_list(&io.r, total, 4096, 0, false, &out, &count, &e) == -1);
	CHECK(e.status == ST_DATA && strstr(e.msg, words));
	close_pipe();
}

static void bad_block_lists_are_refused(void)
{
	bad_list("\1a\0\0\0\0\0\0\x20\0", 10, 4096, "left of the total");
	bad_list("\1a\0\0\0\0\0\0\x08\0", 10, 4096, "multiple of the page");
	bad_list("\1a\0\0\0\0\0\0\0\0", 10, 4096, "multiple of the page");
	bad_list("\0\0\0\0\0\0\0\x10\0", 9, 4096, "empty name");
	bad_list("\1a\0\0\0\0\0\0\x10\0\1a\0\0\0\0\0\0\x10\0", 20, 8192, "twice");
}

static void a_version_1_header_is_1344_bytes(void)
{
	struct multifd_header h = { .flags = MULTIFD_SYNC | MULTIFD_METHOD_ZLIB,
				    .normal = 2,
				    .payload = 77,
				    .packet_num = 5,
				    .block = "pc.ram",
				    .offset = { 0x1000, 0x6000 } };
	struct multifd_header got = { 0 };
	uint8_t bytes[1344];
	struct error e;

	CHECK(multifd_header_len(4096) == 1344 && multifd_header_len(65536) == 384);
	multifd_header_pack(&h, 4096, bytes);
	REQUIRE(!multifd_header_unpack(bytes, 4096, &got, &e));
	CHECK(got.flags == h.flags && got.normal == 2 && got.payload == 77 && got.packet_num == 5);
	CHECK(got.offset[1] == 0x6000);
	CHECK_STR(got.block, "pc.ram");
	/* stale: without pages nothing follows, whatever next_packet_size says */
	put_be32(bytes + 16, 0);
	REQUIRE(!multifd_header_unpack(bytes, 4096, &got, &e));
	CHECK(got.payload == 0);
	put_be32(bytes + 16, 129);
	CHECK(multifd_header_unpack(bytes, 4096, &got, &e) == -1 && e.status == ST_DATA);
	put_be32(bytes + 16, 100);
	put_be32(bytes + 32, 29);
	CHECK(multifd_header_unpack(bytes, 4096, &got, &e) == -1);
	put_be32(bytes + 32, 0);
	put_be32(bytes + 20, (1 << 20) + 1);
	CHECK(multifd_header_unpack(bytes, 4096, &got, &e) == -1);
	put_be32(bytes + 20, 77);
	memset(bytes + 64, 'x', 256);
	CHECK(multifd_header_unpack(bytes, 4096, &got, &e) == -1);
	bytes[0] = 0;
	CHECK(multifd_header_unpack(bytes, 4096, &got, &e) == -1);
}

static void a_version_2_header_comes_back(void)
{
	struct multifd2_header h = { .flags = MULTIFD_METHOD_ZSTD,
				     .block = 3,
				     .nruns = 2,
				     .payload = 100,
				     .raw = 3 * 4096,
				     .packet_num = 9,
				     .runs = { { 0x1000, 3, false }, { 0x10000, 7, true } } };
	struct multifd2_header got;
	uint8_t bytes[MULTIFD2_FIXED_LEN + 2 * MULTIFD2_RUN_LEN];
	struct error e;

	CHECK(multifd2_header_pack(&h, bytes) == sizeof(bytes));
	REQUIRE(!multifd2_fixed_unpack(bytes, &got, &e));
	REQUIRE(!multifd2_runs_unpack(bytes + MULTIFD2_FIXED_LEN, 4096, &got, &e));
	CHECK(got.block == 3 && got.nruns == 2 && got.raw == 3 * 4096 && got.payload == 100);
	CHECK(!got.runs[0].zero && got.runs[0].pages == 3);
	CHECK(got.runs[1].zero && got.runs[1].pages == 7 && got.runs[1].offset == 0x10000);
	/* runs that do not add up, unaligned, empty */
	put_be32(bytes + MULTIFD2_FIXED_LEN + 8, 4);
	CHECK(multifd2_runs_unpack(bytes + MULTIFD2_FIXED_LEN, 4096, &got, &e) == -1);
	put_be32(bytes + MULTIFD2_FIXED_LEN + 8, 0);
	CHECK(multifd2_runs_unpack(bytes + MULTIFD2_FIXED_LEN, 4096, &got, &e) == -1);
	put_be32(bytes + MULTIFD2_FIXED_LEN + 8, 3);
	put_be64(bytes + MULTIFD2_FIXED_LEN, 0x1001);
	CHECK(multifd2_runs_unpack(bytes + MULTIFD2_FIXED_LEN, 4096, &got, &e) == -1);
	put_be32(bytes + 20, 3 * 4096 + 1); /* a payload that is larger than its pages */
	CHECK(multifd2_fixed_unpack(bytes, &got, &e) == -1);
	put_be32(bytes + 20, 0);
	CHECK(multifd2_fixed_unpack(bytes, &got, &e) == -1);
	put_be32(bytes + 16, MULTIFD2_RUNS_MAX + 1);
	CHECK(multifd2_fixed_unpack(bytes, &got, &e) == -1);
}

static void return_messages_come_back(void)
{
	struct wire_digest d = { { 1, 2 }, { 3, 4 }, 5 }, got;
	uint8_t bytes[WIRE_DIGEST_LEN];
	struct rp_message m;
	struct error e;

	REQUIRE(open_pipe());
	wire_digest_pack(&d, bytes);
	CHECK(!rp_put_u32(&io.w, RP_PONG, 7, &e) && !rp_put(&io.w, RP_READY, bytes, 40, &e));
	CHECK(!transport_shutdown_write(io.a, &e));
	CHECK(rp_get(&io.r, &m, &e) == 1 && m.type == RP_PONG && get_be32(m.payload) == 7);
	CHECK(rp_get(&io.r, &m, &e) == 1 && m.type == RP_READY);
	wire_digest_unpack(m.payload, &got);
	CHECK(!memcmp(&d, &got, sizeof(d)));
	CHECK(rp_get(&io.r, &m, &e) == 0);
	close_pipe();
}

static void bad_return_messages_are_refused(void)
{
	static const struct {
		const char *bytes;
		size_t n;
		enum status status;
	} bad[] = {
		{ "\0\11\0\0", 4, ST_DATA },		  /* type 9 */
		{ "\0\1\0\5", 4, ST_DATA },		  /* SHUT of 5 bytes */
		{ "\0\1\0\4\0", 5, ST_SOCKET },		  /* cut */
		{ "\0", 1, ST_SOCKET },			  /* cut in the type */
		{ "\x40\1\0\0\0\x29", 6, ST_DATA },	  /* READY of 41 bytes */
		{ "\x40\2\xff\xff\xff\xff", 6, ST_DATA }, /* FAILED of 4 GiB */
	};
	struct rp_message m;
	struct error e;

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		REQUIRE(feed(bad[i].bytes, bad[i].n));
		CHECK(rp_get(&io.r, &m, &e) == -1);
		CHECK(e.status == bad[i].status);
		close_pipe();
	}
}

static void a_reason_travels_with_its_hint(void)
{
	struct error why, got;
	uint8_t bytes[WIRE_FAILED_MAX];
	size_t len;

	err_set(&why, ST_FILE, "disk full\n\x1b[2J");
	err_hint(&why, "make room");
	len = wire_failed_pack(&why, bytes);
	wire_failed_unpack(bytes, len, "the destination failed", &got);
	CHECK(got.status == ST_FILE);
	CHECK_STR(got.msg, "the destination failed: disk full\\x0a\\x1b[2J");
	CHECK_STR(got.hint, "make room");
	put_be32(bytes, ST_LOST); /* the owner is not theirs to name */
	wire_failed_unpack(bytes, len, "x", &got);
	CHECK(got.status == ST_REFUSED);
	put_be32(bytes, 9999); /* a status that is none of ours */
	wire_failed_unpack(bytes, 4, "x", &got);
	CHECK(got.status == ST_REFUSED);
	put_be32(bytes, 0); /* success is no reason */
	wire_failed_unpack(bytes, 4, "x", &got);
	CHECK(got.status == ST_REFUSED);
}

static void a_greeting_comes_back(void)
{
	struct greet_block blocks[2] = { { .name = "pc.ram", .size = 1 << 30, .page_size = 4096 },
					 { .name = "m\"0",
					   .size = 1 << 21,
					   .page_size = 1 << 21,
					   .has_gpa = true,
					   .gpa = UINT64_MAX,
					   .shared = true } };
	struct greeting g = { .program = "migtool x",
			      .session = { 0xab, 1 },
			      .page_size = 4096,
			      .multifd_channels = 7,
			      .multifd_compression = METHOD_ZSTD,
			      .machine = "pc-q35-7.2",
			      .features = FEATURE_RUNS,
			      .has_device_state = true,
			      .blocks = blocks,
			      .nblocks = 2,
			      .has_base = true,
			      .base = { 5, 6 } };
	struct greeting got;
	struct error e;

	g.caps.on[CAP_MULTIFD] = true;
	REQUIRE(open_pipe());
	CHECK(!greet_put(&io.w, &g, &e));
	REQUIRE(!greet_get(&io.r, &got, &e));
	CHECK(!memcmp(got.session, g.session, 16) && got.multifd_channels == 7);
	CHECK(got.multifd_compression == METHOD_ZSTD && got.caps.on[CAP_MULTIFD]);
	CHECK(!got.caps.on[CAP_XBZRLE] && got.features == FEATURE_RUNS && got.has_device_state);
	CHECK(!got.dry_run && !got.one_way && got.has_base && got.base.low == 6);
	REQUIRE(got.nblocks == 2);
	CHECK_STR(got.blocks[1].name, "m\"0");
	CHECK(got.blocks[1].has_gpa && got.blocks[1].gpa == UINT64_MAX && got.blocks[1].shared);
	CHECK(!got.blocks[0].has_gpa && got.blocks[0].size == 1 << 30);
	greet_free(&got);
	close_pipe();
}

static void bad_greeting(const char *json, enum status status, const char *words)
{
	struct greeting g;
	struct error e = { 0 };

	if (greet_parse(json, strlen(json), &g, &e) != -1 || e.status != status ||
	    !strstr(e.msg, words)) {
		test_bad++;
		printf("# %s: status %d, %s\n", json, e.status, e.msg);
	}
	greet_free(&g);
}

#define ID "\"version\":1,\"session\":\"00112233445566778899aabbccddeeff\""

static void bad_greetings_are_refused(void)
{
	bad_greeting("[]", ST_PROTOCOL, "no JSON object");
	bad_greeting("{\"version\":2}", ST_PROTOCOL, "version 2, expected 1");
	bad_greeting("{\"version\":1,\"blocks\":[]}", ST_DATA, "session");
	bad_greeting("{" ID "}", ST_DATA, "blocks");
	bad_greeting("{" ID ",\"needs\":[\"wings\"],\"blocks\":[]}", ST_PROTOCOL, "wings");
	bad_greeting("{" ID ",\"capabilities\":[\"wings\"],\"blocks\":[]}", ST_PROTOCOL, "wings");
	bad_greeting("{" ID ",\"page-size\":5000,\"blocks\":[]}", ST_DATA, "page size");
	bad_greeting("{" ID ",\"blocks\":[{\"name\":\"a\",\"size\":5000}]}", ST_DATA, "multiple");
	bad_greeting("{" ID ",\"blocks\":[{\"name\":\"a\",\"size\":-4096}]}", ST_DATA, "size");
	bad_greeting("{" ID ",\"blocks\":[{\"name\":\"a\",\"size\":4096},"
		     "{\"name\":\"a\",\"size\":4096}]}",
		     ST_DATA, "twice");
	bad_greeting("{" ID ",\"blocks\":[{\"name\":\"a\",\"size\":9223372036854771712},"
		     "{\"name\":\"b\",\"size\":9223372036854771712}]}",
		     ST_DATA, "multiple");
	bad_greeting("{" ID ",\"parameters\":{\"multifd-channels\":256},\"blocks\":[]}", ST_DATA,
		     "multifd-channels");
	bad_greeting("{" ID ",\"parameters\":{\"multifd-compression\":\"lz4\"},\"blocks\":[]}",
		     ST_PROTOCOL, "lz4");
	bad_greeting("{" ID ",\"uuid\":\"zz\",\"blocks\":[]}", ST_DATA, "uuid");
}

static void unknown_keys_are_ignored(void)
{
	static const char text[] = "{" ID ",\"colour\":\"red\",\"features\":[\"teleport\"],"
				   "\"blocks\":[{\"name\":\"a\",\"size\":4096,\"taste\":1}]}";
	struct greeting g;
	struct error e;

	CHECK(!greet_parse(text, sizeof(text) - 1, &g, &e));
	CHECK(g.nblocks == 1 && g.features == 0 && g.multifd_channels == 2);
	greet_free(&g);
}

static void a_refusal_brings_its_reason(void)
{
	struct greet_answer a = { .program = "migtool y" }, got;
	struct error e;

	err_set(&a.why, ST_FILE, "no room");
	err_hint(&a.why, "delete something");
	REQUIRE(open_pipe());
	CHECK(!greet_wait_put(&io.w, &e) && !greet_answer_put(&io.w, &a, &e));
	REQUIRE(!greet_answer_get(&io.r, 60000, &got, &e));
	CHECK(!got.take && got.why.status == ST_REFUSED);
	CHECK_STR(got.why.msg, "the destination refused: no room");
	CHECK_STR(got.why.hint, "delete something");
	a.why.status = ST_DIGEST; /* the base's: the same at both ends */
	CHECK(!greet_answer_put(&io.w, &a, &e) && !greet_answer_get(&io.r, 60000, &got, &e));
	CHECK(!got.take && got.why.status == ST_DIGEST);
	a.take = true;
	a.features = FEATURES_ALL;
	a.multifd_channels = 3;
	CHECK(!greet_answer_put(&io.w, &a, &e) && !greet_answer_get(&io.r, 60000, &got, &e));
	CHECK(got.take && got.features == FEATURES_ALL && got.multifd_channels == 3);
	/* a wait when the time is over */
	CHECK(!greet_wait_put(&io.w, &e) && !greet_answer_put(&io.w, &a, &e));
	CHECK(greet_answer_get(&io.r, 0, &got, &e) == -1 && e.status == ST_TIMEOUT);
	close_pipe();
}

static void names_need_not_be_utf8(void)
{
	struct greet_block block = { .name = "a\xff", .size = 4096, .page_size = 4096 };
	struct greeting g = { .page_size = 4096, .blocks = &block, .nblocks = 1 };
	struct greet_answer a = { .program = "migtool y" }, got;
	struct error e;

	REQUIRE(open_pipe());
	/* a message names a file, and is cut in the middle of a character */
	err_set(&a.why, ST_FILE, "cannot create /x/\xff%1003s\u00e9", "");
	CHECK(strlen(a.why.msg) == sizeof(a.why.msg) - 1);
	err_hint(&a.why, "another name than \xfe");
	CHECK(!greet_answer_put(&io.w, &a, &e) && !greet_answer_get(&io.r, 60000, &got, &e));
	CHECK(!got.take && strstr(got.why.msg, "cannot create /x/\\xff"));
	CHECK_STR(got.why.hint, "another name than \\xfe");
	/* a block has to have just its name */
	CHECK(greet_put(&io.w, &g, &e) == -1 && e.status == ST_UNSUPPORTED);
	CHECK(strstr(e.msg, "block name"));
	block.name[1] = '\0';
	snprintf(g.machine, sizeof(g.machine), "pc\x80");
	CHECK(greet_put(&io.w, &g, &e) == -1 && strstr(e.msg, "machine"));
	close_pipe();
}

static void what_is_no_greeting_is_quoted(void)
{
	struct greeting g;
	struct error e = { 0 };

	REQUIRE(feed("SSH-2.0-OpenSSH\r\n", 17));
	CHECK(greet_get(&io.r, &g, &e) == -1 && e.status == ST_PROTOCOL);
	CHECK(strstr(e.msg, "SSH-2.0-"));
	close_pipe();
	REQUIRE(feed("migtool\n\xff\xff\xff\xff", 12));
	CHECK(greet_get(&io.r, &g, &e) == -1 && e.status == ST_DATA);
	close_pipe();
}

static size_t read_command(struct wire_command *c, uint8_t *payload, size_t max)
{
	struct error err;
	uint8_t type;

	CHECK(!stream_flush(&io.w, &err) && !stream_get_u8(&io.r, &type, &err) &&
	      type == WIRE_COMMAND && !wire_get_command(&io.r, c, &err));
	CHECK(c->len <= max && !stream_read(&io.r, payload, c->len, &err));
	return c->len;
}

static void postcopys_commands_come_back(void)
{
	static const struct extent ranges[] = { { 0x10000, 0x60000 }, { 0xfb6000, 0x4a000 } };
	static const uint8_t bytes[] = "\0\6pc.ram\0\0\0\0\0\0\1\0\0\0\0\0\0\0\6\0\0"
				       "\0\0\0\0\0\xfb\x60\0\0\0\0\0\0\4\xa0\0";
	struct postcopy_advice a = { 0x201000, 4096 }, b;
	struct postcopy_discard d;
	struct wire_command c;
	struct error err;
	uint8_t p[512];
	size_t len;

	REQUIRE(open_pipe());
	CHECK(!postcopy_put_advise(&io.w, &a, &err));
	len = read_command(&c, p, sizeof(p));
	CHECK(c.cmd == MIG_CMD_POSTCOPY_ADVISE && !postcopy_advise_unpack(p, len, &b, &err));
	CHECK(b.host_pages == 0x201000 && b.target_page == 4096);
	CHECK(!postcopy_put_discard(&io.w, "pc.ram", ranges, 2, &err));
	len = read_command(&c, p, sizeof(p));
	CHECK(c.cmd == MIG_CMD_POSTCOPY_RAM_DISCARD && len == 0x29);
	CHECK(len == sizeof(bytes) - 1 && !memcmp(p, bytes, len)); /* as a QEMU says it */
	REQUIRE(!postcopy_discard_unpack(p, len, &d, &err));
	CHECK_STR(d.block, "pc.ram");
	CHECK(d.n == 2 && postcopy_discard_range(&d, 1).offset == 0xfb6000 &&
	      postcopy_discard_range(&d, 1).len == 0x4a000);
	CHECK(!postcopy_put_packaged(&io.w, 0x346b, &err));
	len = read_command(&c, p, sizeof(p));
	CHECK(c.cmd == MIG_CMD_PACKAGED && len == 4 && get_be32(p) == 0x346b);
	close_pipe();
}

static void bad_commands_of_postcopy_are_refused(void)
{
	uint8_t p[64] = { 0, 6, 'p', 'c', '.', 'r', 'a', 'm', 0 };
	struct postcopy_discard d;
	struct postcopy_advice a;
	struct error err;

	CHECK(!postcopy_discard_unpack(p, 25, &d, &err));
	CHECK(postcopy_discard_unpack(p, 24, &d, &err) == -1 && err.status == ST_DATA);
	CHECK(postcopy_discard_unpack(p, 9, &d, &err) == -1);
	CHECK(postcopy_discard_unpack(p, 0, &d, &err) == -1);
	p[8] = 'x';
	CHECK(postcopy_discard_unpack(p, 25, &d, &err) == -1);
	p[8] = 0;
	p[3] = 0;
	CHECK(postcopy_discard_unpack(p, 25, &d, &err) == -1);
	p[3] = 'c';
	p[0] = 1;
	CHECK(postcopy_discard_unpack(p, 25, &d, &err) == -1);
	p[0] = 0;
	p[1] = 255;
	CHECK(postcopy_discard_unpack(p, 25, &d, &err) == -1);
	p[1] = 0; /* an empty name */
	CHECK(postcopy_discard_unpack(p + 6, 0, &d, &err) == -1);
	put_be64(p, 4096);
	put_be64(p + 8, 4096);
	CHECK(!postcopy_advise_unpack(p, 16, &a, &err));
	CHECK(postcopy_advise_unpack(p, 15, &a, &err) == -1);
	put_be64(p + 8, 4097);
	CHECK(postcopy_advise_unpack(p, 16, &a, &err) == -1);
	put_be64(p + 8, 4096);
	put_be64(p, 0);
	CHECK(postcopy_advise_unpack(p, 16, &a, &err) == -1);
}

static void put_bitmap(uint64_t size, const uint8_t *bits, size_t n, uint64_t mark)
{
	struct error err;

	CHECK(!stream_put_be64(&io.w, size, &err) && !stream_write(&io.w, bits, n, &err) &&
	      !stream_put_be64(&io.w, mark, &err) && !stream_flush(&io.w, &err));
}

static void a_bitmap_of_what_came(void)
{
	static const uint8_t bits[16] = { 0x05, 0x80, [8] = 0x21 };
	const uint64_t mark = UINT64_C(0x0123456789abcdef);
	struct wire_command c;
	struct bitmap map;
	struct error err;
	uint8_t p[256];

	REQUIRE(open_pipe() && !bitmap_init(&map, 69));
	CHECK(!postcopy_put_recv_bitmap(&io.w, "pc.ram", &err));
	CHECK(read_command(&c, p, sizeof(p)) == 7 && c.cmd == MIG_CMD_RECV_BITMAP);
	CHECK(!memcmp(p, "\6pc.ram", 7));
	put_bitmap(16, bits, 16, mark);
	CHECK(!postcopy_get_bitmap(&io.r, &map, &err));
	/* bit 69 is none */
	CHECK(bitmap_count(&map) == 4 && bitmap_test(&map, 0) && bitmap_test(&map, 2) &&
	      bitmap_test(&map, 15) && bitmap_test(&map, 64));
	put_bitmap(16, bits, 16, mark + 1);
	CHECK(postcopy_get_bitmap(&io.r, &map, &err) == -1 && err.status == ST_DATA);
	put_bitmap(8, bits, 8, mark);
	CHECK(postcopy_get_bitmap(&io.r, &map, &err) == -1 && err.status == ST_DATA);
	bitmap_free(&map);
	close_pipe();
}

static void what_came_is_answered_as_it_is_read(void)
{
	const size_t set[] = { 0, 7, 8, 63, 64, 68 };
	const char *name = NULL;
	struct bitmap map, back;
	struct rp_message m;
	struct error err;
	char block[256];

	REQUIRE(open_pipe() && !bitmap_init(&map, 69) && !bitmap_init(&back, 69));
	for (size_t i = 0; i < sizeof(set) / sizeof(set[0]); i++)
		bitmap_set(&map, set[i], 1);
	CHECK(!postcopy_put_bitmap(&io.w, "pc.ram", &map, &err));
	CHECK(rp_get(&io.r, &m, &err) == 1 && m.type == RP_RECV_BITMAP && m.len == 7);
	CHECK(!memcmp(m.payload, "\6pc.ram", 7));
	CHECK(!postcopy_get_bitmap(&io.r, &back, &err) && bitmap_count(&back) == 6);
	for (size_t i = 0; i < sizeof(set) / sizeof(set[0]); i++)
		CHECK(bitmap_test(&back, set[i]));
	name = "\6pc.ram";
	CHECK(!postcopy_recv_bitmap_unpack((const uint8_t *)name, 7, block, &err));
	CHECK_STR(block, "pc.ram");
	CHECK(postcopy_recv_bitmap_unpack((const uint8_t *)name, 6, block, &err) == -1);
	CHECK(postcopy_recv_bitmap_unpack((const uint8_t *)"", 1, block, &err) == -1);
	bitmap_free(&map);
	bitmap_free(&back);
	close_pipe();
}

static void requests_for_pages_come_back(void)
{
	struct rp_message m = { .type = RP_REQ_PAGES };
	struct page_request r = { 0 };
	struct error err;

	m.len = (uint32_t)page_request_pack(NULL, 0x57000, 4096, m.payload);
	CHECK(m.len == 12);
	CHECK(page_request_unpack(&m, &r, &err) == -1 && err.status == ST_DATA);
	m.type = RP_REQ_PAGES_ID;
	m.len = (uint32_t)page_request_pack("pc.ram", 0xc1000, 8192, m.payload);
	CHECK(m.len == 0x13 && !page_request_unpack(&m, &r, &err));
	CHECK_STR(r.block, "pc.ram");
	CHECK(r.offset == 0xc1000 && r.len == 8192);
	m.len--;
	CHECK(page_request_unpack(&m, &r, &err) == -1);
	m.type = RP_REQ_PAGES;
	m.len = (uint32_t)page_request_pack(NULL, 0x57000, 4096, m.payload);
	CHECK(!page_request_unpack(&m, &r, &err) && r.offset == 0x57000 && r.len == 4096);
	CHECK_STR(r.block, "pc.ram");
	m.type = RP_REQ_PAGES_ID;
	m.len = (uint32_t)page_request_pack("p\x1b[31m", 0, 4096, m.payload);
	CHECK(page_request_unpack(&m, &r, &err) == -1);
}

static void what_a_guest_is_ready_for_comes_back(void)
{
	struct guest_ready r = { .asks_all = true, .unit = 2 << 20 };
	struct page_want w = { .block = 3, .len = 8192, .offset = UINT64_C(0x123456789000) };
	uint8_t bytes[GUEST_READY_LEN], want[PAGE_WANT_LEN];
	struct error err;

	guest_ready_pack(&r, bytes);
	memset(&r, 0, sizeof(r));
	CHECK(!guest_ready_unpack(bytes, &r, &err) && r.asks_all && r.unit == 2 << 20);
	bytes[3] = 3;
	CHECK(guest_ready_unpack(bytes, &r, &err) == -1 && err.status == ST_DATA);
	for (uint32_t bad = 0; bad < 3; bad++) {
		r = (struct guest_ready){ .unit = (uint32_t[]){ 2048, 12288, 1u << 31 }[bad] };
		guest_ready_pack(&r, bytes);
		CHECK(guest_ready_unpack(bytes, &r, &err) == -1 && err.status == ST_DATA);
	}
	page_want_pack(&w, want);
	memset(&w, 0, sizeof(w));
	page_want_unpack(want, &w);
	CHECK(w.block == 3 && w.len == 8192 && w.offset == UINT64_C(0x123456789000));
}

static void what_a_guest_has_comes_back(void)
{
	struct pages_came c = { .block = 1, .unit = 4096, .first = 3, .n = 11 }, got;
	uint8_t bytes[PAGES_CAME_HEAD + PAGES_CAME_BITS / 8];
	struct bitmap map;
	struct error err;
	size_t len;

	CHECK(!bitmap_init(&map, 64));
	bitmap_set(&map, 3, 2);
	bitmap_set(&map, 13, 1);
	len = pages_came_pack(&c, &map, bytes);
	CHECK(len == PAGES_CAME_HEAD + 2 && !pages_came_unpack(bytes, len, &got, &err));
	CHECK(got.block == 1 && got.unit == 4096 && got.first == 3 && got.n == 11);
	CHECK(got.bits && got.bits[0] == 3 && got.bits[1] == 4);
	CHECK(pages_came_unpack(bytes, len - 1, &got, &err) == -1 && err.status == ST_DATA);
	CHECK(pages_came_unpack(bytes, len + 1, &got, &err) == -1);
	c.n = UINT64_MAX; /* a run has no bits, and its block tells whether it fits */
	len = pages_came_pack(&c, NULL, bytes);
	CHECK(len == PAGES_CAME_HEAD && !pages_came_unpack(bytes, len, &got, &err) && !got.bits);
	CHECK(pages_came_unpack(bytes, len + 1, &got, &err) == -1);
	c.n = 0;
	pages_came_pack(&c, NULL, bytes);
	CHECK(pages_came_unpack(bytes, len, &got, &err) == -1);
	c = (struct pages_came){ .unit = 12288, .n = 1 };
	pages_came_pack(&c, NULL, bytes);
	CHECK(pages_came_unpack(bytes, len, &got, &err) == -1);
	bitmap_free(&map);
}

static const struct test_case cases[] = {
	{ "what a guest has comes back", what_a_guest_has_comes_back },
	{ "what a guest is ready for comes back", what_a_guest_is_ready_for_comes_back },
	{ "a configuration comes back", a_configuration_comes_back },
	{ "the document's header is read", the_documents_header_is_read },
	{ "bad configurations are refused", bad_configurations_are_refused },
	{ "a block list comes back", a_block_list_comes_back },
	{ "huge pages in a block list are found", huge_pages_in_a_block_list_are_found },
	{ "bad block lists are refused", bad_block_lists_are_refused },
	{ "a version 1 header is 1344 bytes", a_version_1_header_is_1344_bytes },
	{ "a version 2 header comes back", a_version_2_header_comes_back },
	{ "return messages come back", return_messages_come_back },
	{ "bad return messages are refused", bad_return_messages_are_refused },
	{ "postcopy's commands come back", postcopys_commands_come_back },
	{ "bad commands of postcopy are refused", bad_commands_of_postcopy_are_refused },
	{ "a bitmap of what came, in its order of bytes", a_bitmap_of_what_came },
	{ "what came is answered as it is read", what_came_is_answered_as_it_is_read },
	{ "requests for pages come back", requests_for_pages_come_back },
	{ "a reason travels with its hint", a_reason_travels_with_its_hint },
	{ "a greeting comes back", a_greeting_comes_back },
	{ "bad greetings are refused", bad_greetings_are_refused },
	{ "unknown keys are ignored", unknown_keys_are_ignored },
	{ "a refusal brings its reason", a_refusal_brings_its_reason },
	{ "a refusal is told whatever it names, a greeting is not", names_need_not_be_utf8 },
	{ "what is no greeting is quoted", what_is_no_greeting_is_quoted },
};
TEST_MAIN(cases)
