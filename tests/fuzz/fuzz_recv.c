// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A whole `recv`, driven through what a source may say: the input is decoded as a grammar, so that
 * every mutation of it is again a conversation that reaches deep. Input: a byte of enum fuzz_mode,
 * one of enum more, then steps of an opcode and its operands (see steps[]); an operand that is not
 * there is 0.
 *
 * Beside the stream a model of the memory is kept. So two things are known besides "no crash": a
 * conversation without a wrong word must be received, and whatever is received must be the model.
 */
#include "fuzz_recv.h"

#include "codec.h"
#include "digest.h"
#include "wire-multifd.h"
#include "xbzrle.h"
#include "zero.h"

#include <fcntl.h>

enum more {
	MORE_MULTIFD = 1,
	MORE_RETURN = 2, /* a QEMU opens its return path */
	MORE_ODD = 4,	 /* the greeting, or the configuration, has one of odd[] */
	MORE_BYTEWISE = 8,
};

#define CHANNELS 2
#define NBLOCKS	 2

static const char *const block_names[NBLOCKS] = { "pc.ram", "rom" };
static const uint64_t block_sizes[NBLOCKS] = { FUZZ_RAM_SIZE, FUZZ_ROM_SIZE };

/* What has been said, and what memory that made. */
struct world {
	const uint8_t *in;
	size_t left;
	unsigned mode;
	bool multifd, ours; /* ours: version 2 packets and runs may be said */
	uint32_t page;
	struct fuzz_text main, channel[CHANNELS];
	bool cut[1 + CHANNELS];
	bool wrong;  /* something was said that may be refused */
	bool unsure; /* two may have written a page at once: nobody knows what is there */
	bool ended;  /* the last section was said */
	uint8_t *memory[NBLOCKS];
	unsigned written[NBLOCKS][FUZZ_RAM_SIZE / 4096]; /* the epoch in which it last was */
	unsigned epoch;
	struct codec *encoder[CHANNELS];
	const struct codec_ops *ops;
	struct page_zlib *zlib;
	uint8_t packet_num;
	struct digest_stream *state;
	uint64_t state_size;
};

static uint8_t take(struct world *w)
{
	if (!w->left)
		return 0;
	w->left--;
	return *w->in++;
}

static void say(struct world *w, unsigned to, const void *bytes, size_t len)
{
	if (!w->cut[to])
		fuzz_say(to ? &w->channel[to - 1] : &w->main, bytes, len);
}

static void say_be32(struct world *w, unsigned to, uint32_t v)
{
	uint8_t b[4];

	put_be32(b, v);
	say(w, to, b, sizeof(b));
}

static void say_be64(struct world *w, unsigned to, uint64_t v)
{
	uint8_t b[8];

	put_be64(b, v);
	say(w, to, b, sizeof(b));
}

#define SAY(w, literal) say(w, 0, literal, sizeof(literal) - 1)

/* ---- the model ---- */

static bool inside(const struct world *w, unsigned block, uint64_t offset, uint64_t len)
{
	return !(offset % w->page) && !(len % w->page) && len && len <= block_sizes[block] &&
	       offset <= block_sizes[block] - len;
}

/* From here on the memory has this there. `bytes`: one page, repeated; NULL: zeros. */
static void model(struct world *w, unsigned block, uint64_t offset, uint64_t len,
		  const uint8_t *bytes)
{
	if (!inside(w, block, offset, len) || w->ended) {
		w->wrong = true;
		return;
	}
	for (uint64_t o = offset; o < offset + len; o += w->page) {
		unsigned *when = &w->written[block][o / w->page];

		if (*when == w->epoch)
			w->unsure = true;
		*when = w->epoch;
		if (bytes)
			memcpy(w->memory[block] + o, bytes, w->page);
		else
			memset(w->memory[block] + o, 0, w->page);
	}
}

static struct digest model_digest(const struct world *w)
{
	struct digest sum = { 0, 0 };

	for (unsigned i = 0; i < NBLOCKS; i++) {
		struct digest_block b;

		digest_block_init(&b, block_names[i]);
		for (uint64_t o = 0; o < block_sizes[i]; o += DIGEST_PAGE)
			if (!zero_is(w->memory[i] + o, DIGEST_PAGE))
				digest_add(&sum, digest_page(&b, o, w->memory[i] + o, DIGEST_PAGE));
	}
	return sum;
}

/* ---- operands ---- */

/* Most are good offsets; some are what a hostile source would try. */
static uint64_t operand_offset(struct world *w, unsigned block)
{
	static const uint64_t odd[] = { 1,
					0x400,
					UINT64_C(1) << 63,
					~UINT64_C(0) << 12,
					UINT64_C(1) << 32,
					FUZZ_RAM_SIZE,
					FUZZ_ROM_SIZE,
					4096 };
	uint8_t c = take(w);

	if (c >= 0xf8)
		return odd[c - 0xf8];
	return c % (block_sizes[block] / w->page) * w->page;
}

static void operand_page(struct world *w, uint8_t *page)
{
	uint8_t fill = take(w), at = take(w);

	memset(page, fill, w->page);
	page[(size_t)at * 16] ^= 0x5a; /* never all zero but by chance */
}

static void say_record(struct world *w, unsigned block, uint64_t offset, uint32_t flags)
{
	uint8_t len = (uint8_t)strlen(block_names[block]);

	say_be64(w, 0, offset | flags);
	if (flags & RAM_CONTINUE)
		return;
	say(w, 0, &len, 1);
	say(w, 0, block_names[block], len);
}

static unsigned operand_block(struct world *w)
{
	return take(w) & 1;
}

/* ---- steps: records ---- */

static void step_page(struct world *w)
{
	unsigned block = operand_block(w);
	uint64_t offset = operand_offset(w, block);
	uint8_t page[16384];

	operand_page(w, page);
	say_record(w, block, offset, RAM_PAGE);
	say(w, 0, page, w->page);
	model(w, block, offset, w->page, page);
}

static void step_zero(struct world *w)
{
	unsigned block = operand_block(w);
	uint64_t offset = operand_offset(w, block);

	say_record(w, block, offset, RAM_ZERO);
	SAY(w, "\0");
	model(w, block, offset, w->page, NULL);
}

static void step_run(struct world *w)
{
	unsigned block = operand_block(w);
	uint64_t offset = operand_offset(w, block);
	unsigned n = take(w) % 20;
	uint8_t page[16384];

	operand_page(w, page);
	say_record(w, block, offset, RAM_RUN);
	say_be32(w, 0, n);
	for (unsigned i = 0; i < n; i++)
		say(w, 0, page, w->page);
	w->wrong |= !w->ours;
	model(w, block, offset, (uint64_t)n * w->page, page);
}

static void step_zero_run(struct world *w)
{
	unsigned block = operand_block(w);
	uint64_t offset = operand_offset(w, block), len = (uint64_t)take(w) * w->page;

	say_record(w, block, offset, RAM_ZERO_RUN);
	say_be64(w, 0, len);
	w->wrong |= !w->ours;
	model(w, block, offset, len, NULL);
}

/* A delta against what the model has. */
static void step_xbzrle(struct world *w)
{
	unsigned block = operand_block(w);
	uint64_t offset = operand_offset(w, block);
	static const uint8_t none[16384];
	const uint8_t *old = inside(w, block, offset, w->page) ? w->memory[block] + offset : none;
	uint8_t page[16384], delta[16384];
	int len;

	memcpy(page, old, w->page);
	for (unsigned n = take(w) % 4; n > 0; n--)
		page[take(w) * 16u + 1] ^= take(w);
	len = xbzrle_encode(old, page, w->page, delta, w->page);
	if (len < 0)
		return;
	say_record(w, block, offset, RAM_XBZRLE);
	SAY(w, "\1");
	say(w, 0, (const uint8_t[]){ (uint8_t)(len >> 8), (uint8_t)len }, 2);
	say(w, 0, delta, (size_t)len);
	model(w, block, offset, w->page, page);
}

static void step_compressed(struct world *w)
{
	unsigned block = operand_block(w);
	uint64_t offset = operand_offset(w, block);
	uint8_t page[16384], out[17000];
	ssize_t len;

	operand_page(w, page);
	len = page_zlib_encode(w->zlib, page, w->page, out, sizeof(out));
	FUZZ_CHECK(len > 0);
	say_record(w, block, offset, RAM_COMPRESS_PAGE);
	say_be32(w, 0, (uint32_t)len);
	say(w, 0, out, (size_t)len);
	w->wrong |= !(w->mode & FUZZ_COMPRESS);
	model(w, block, offset, w->page, page);
}

/* ---- steps: channels ---- */

/* The payload of `n` times the page; returns its length. */
static uint32_t encode(struct world *w, unsigned channel, const uint8_t *page, unsigned n,
		       uint8_t *out, size_t cap)
{
	struct iovec iov[8];
	struct error err;
	ssize_t len;

	for (unsigned i = 0; i < n; i++)
		iov[i] = (struct iovec){ (void *)page, w->page };
	if (!w->encoder[channel]) {
		for (unsigned i = 0; i < n; i++)
			memcpy(out + (size_t)i * w->page, page, w->page);
		return n * w->page;
	}
	len = w->ops->encode(w->encoder[channel], iov, (int)n, out, cap, &err);
	FUZZ_CHECK(len > 0);
	return (uint32_t)len;
}

static void packet_v1(struct world *w, unsigned channel, unsigned block, uint64_t offset,
		      unsigned n, const uint8_t *page, uint8_t *out, size_t cap)
{
	struct multifd_header h = { .flags = w->ops->wire_flags, .normal = n };
	uint8_t bytes[2048];

	h.packet_num = w->packet_num++;
	for (unsigned i = 0; i < n; i++)
		h.offset[i] = offset + (uint64_t)i * w->page;
	strcpy(h.block, block_names[block]);
	h.payload = encode(w, channel, page, n, out, cap);
	multifd_header_pack(&h, w->page, bytes);
	say(w, 1 + channel, bytes, multifd_header_len(w->page));
	say(w, 1 + channel, out, h.payload);
}

static void packet_v2(struct world *w, unsigned channel, unsigned block, uint64_t offset,
		      unsigned n, const uint8_t *page, uint8_t *out, size_t cap)
{
	struct multifd2_header h = { .block = block, .nruns = 1, .raw = n * w->page };
	uint8_t bytes[256];

	h.packet_num = w->packet_num++;
	h.runs[0] = (struct multifd2_run){ offset, n, false };
	h.payload = encode(w, channel, page, n, out, cap);
	if (h.payload < h.raw) {
		h.flags = w->ops->wire_flags;
	} else {
		h.payload = h.raw;
		for (unsigned i = 0; i < n; i++)
			memcpy(out + (size_t)i * w->page, page, w->page);
	}
	say(w, 1 + channel, bytes, multifd2_header_pack(&h, bytes));
	say(w, 1 + channel, out, h.payload);
}

static void step_packet(struct world *w)
{
	unsigned channel = take(w) % CHANNELS, block = operand_block(w);
	uint64_t offset = operand_offset(w, block);
	unsigned n = take(w) % 8 + 1;
	static uint8_t out[MULTIFD_PACKET_BYTES];
	uint8_t page[16384];

	if (!w->multifd)
		return;
	operand_page(w, page);
	if (w->mode & FUZZ_MIGTOOL && w->mode & FUZZ_FEATURES)
		packet_v2(w, channel, block, offset, n, page, out, sizeof(out));
	else
		packet_v1(w, channel, block, offset, n, page, out, sizeof(out));
	model(w, block, offset, (uint64_t)n * w->page, page);
}

static void step_zero_packet(struct world *w)
{
	unsigned channel = take(w) % CHANNELS, block = operand_block(w);
	struct multifd2_header h = { .block = block, .nruns = 1 };
	uint64_t offset = operand_offset(w, block);
	uint8_t bytes[256], n = take(w);

	if (!w->multifd)
		return;
	h.runs[0] = (struct multifd2_run){ offset, n, true };
	say(w, 1 + channel, bytes, multifd2_header_pack(&h, bytes));
	w->wrong |= !(w->mode & FUZZ_MIGTOOL) || !(w->mode & FUZZ_FEATURES);
	model(w, block, offset, (uint64_t)n * w->page, NULL);
}

static void say_sync(struct world *w, unsigned channel)
{
	struct multifd2_header two = { .flags = MULTIFD_SYNC };
	struct multifd_header one = { .flags = MULTIFD_SYNC | w->ops->wire_flags };
	uint8_t bytes[2048];

	if (w->mode & FUZZ_MIGTOOL && w->mode & FUZZ_FEATURES) {
		say(w, 1 + channel, bytes, multifd2_header_pack(&two, bytes));
	} else {
		multifd_header_pack(&one, w->page, bytes);
		say(w, 1 + channel, bytes, multifd_header_len(w->page));
	}
}

/* ---- steps: the rest ---- */

/* The section ends, with a barrier over all channels. */
static void say_section_end(struct world *w)
{
	if (w->multifd)
		say_be64(w, 0, RAM_MULTIFD_FLUSH);
	for (unsigned i = 0; w->multifd && i < CHANNELS; i++)
		say_sync(w, i);
	say_be64(w, 0, RAM_EOS);
	SAY(w, "\x7e\0\0\0\2");
	w->epoch++;
}

static void step_section(struct world *w)
{
	if (w->ended)
		return;
	say_section_end(w);
	SAY(w, "\2\0\0\0\2");
}

/* A command between two sections. */
static void step_command(struct world *w)
{
	static const struct {
		const char *bytes;
		size_t len;
		bool right;
	} commands[] = {
		{ "\x08\x40\5\0\0\0\0", 7, true }, /* KEEPALIVE */
		{ "\x08\0\2\0\4\0\0\0\7", 9, false },
		{ "\x08\0\1\0\0", 5, false },
		{ "\x08\0\x0b\0\0", 5, true },
		{ "\x08\0\3\0\0", 5, false },
		{ "\x08\x40\4\0\0\0\x09\0\0\0\x0bwhy\0x", 16, false },
		{ "\x08\x40\3\0\0\0\0", 7, false },
		{ "\x08\x40\2\0\0\0\x28", 7, false },
		{ "\x08\x40\x09\0\0\0\0", 7, false },
	};
	unsigned which = take(w) % (sizeof(commands) / sizeof(commands[0]));

	if (w->ended)
		return;
	say_section_end(w);
	say(w, 0, commands[which].bytes, commands[which].len);
	if (!commands[which].right || (which == 0 && !(w->mode & FUZZ_MIGTOOL)))
		w->wrong = true;
	SAY(w, "\2\0\0\0\2");
}

static void step_raw(struct world *w)
{
	unsigned to = take(w) % (1 + CHANNELS);
	size_t n = take(w);

	n = n < w->left ? n : w->left;
	if (n && (!to || w->multifd))
		w->wrong = true;
	say(w, to, w->in, n);
	w->in += n;
	w->left -= n;
}

/* One byte of what has been said lately becomes another one. */
static void step_corrupt(struct world *w)
{
	unsigned to = take(w) % (1 + CHANNELS), back = take(w);
	struct fuzz_text *text = to ? &w->channel[to - 1] : &w->main;
	uint8_t mask = take(w);

	if (back >= text->len || !mask)
		return;
	text->p[text->len - 1 - back] ^= mask;
	w->wrong = true;
}

static void step_cut(struct world *w)
{
	unsigned to = take(w) % (1 + CHANNELS);

	w->wrong |= !to || w->multifd;
	w->cut[to] = true;
}

static void step_device_state(struct world *w)
{
	uint8_t piece[256];
	size_t n = take(w);

	if (!(w->mode & FUZZ_MIGTOOL) || w->ended)
		return;
	w->wrong |= !n; /* a second empty piece */
	memset(piece, take(w), sizeof(piece));
	say_section_end(w);
	SAY(w, "\3\0\0\0\2");
	say_be64(w, 0, RAM_EOS);
	SAY(w, "\x7e\0\0\0\2");
	w->ended = true;
	for (int i = 0; i < 2; i++) {
		SAY(w, "\x08\x40\1");
		say_be32(w, 0, (uint32_t)n);
		say(w, 0, piece, n);
		digest_stream_update(w->state, piece, n);
		w->state_size += n;
	}
}

static void (*const steps[])(struct world *) = {
	step_page,    step_zero,	 step_run,    step_zero_run, step_xbzrle,
	step_page,    step_compressed,	 step_packet, step_packet,   step_zero_packet,
	step_section, step_command,	 step_raw,    step_corrupt,  step_cut,
	step_zero,    step_device_state,
};

/* ---- beginning and end ---- */

static const struct {
	const char *from, *to;
} odd[] = {
	{ "\"version\":1", "\"version\":2" },
	{ "\"pc.ram\",\"size\":262144", "\"pc.ram\",\"size\":9223372036854775807" },
	{ "\"pc.ram\",\"size\":262144", "\"pc.ram\",\"size\":262145" },
	{ "\"pc.ram\"", "\"\"" },
	{ "\"pc.ram\"", "\"rom\"" },
	{ "\"rom\"", "\"..\"" },
	{ "\"rom\"", "\"../../x\"" },
	{ "\"page-size\":", "\"needs\":[\"y\"],\"page-size\":" },
	{ "\"page-size\":", "\"dry-run\":true,\"page-size\":" },
	{ "\"page-size\":", "\"base\":\"00000000000000000000000000000000\",\"page-size\":" },
	{ "\"page-size\":", "\"machine\":\"a\\u0007b\",\"page-size\":" },
	{ "\"page-size\":", "\"run-state\":\"\\n\",\"target-arch\":\"\\u001b\",\"page-size\":" },
	{ "\"page-size\":", "\"x\":[[[[{\"y\":{}}]]]],\"page-size\":" },
	{ "\"multifd-channels\":2", "\"multifd-channels\":255" },
	{ "\"multifd-channels\":2", "\"multifd-channels\":1" },
	{ "\"device-state\":true", "\"device-state\":false" },
	{ "\"rom\",", "\"rom\",\"shared\":true,\"digest\":\"0\"," },
	{ "\"xbzrle\"", "\"x-ignore-shared\"" },
	{ "\"xbzrle\"", "\"validate-uuid\"" },
	{ "\"multifd\"", "\"postcopy-ram\"" },
};

/* A greeting in which one thing is another. */
static void say_odd_greeting(struct world *w, unsigned which)
{
	struct fuzz_text right = { 0 };
	const char *from = odd[which % (sizeof(odd) / sizeof(odd[0]))].from;
	const char *to = odd[which % (sizeof(odd) / sizeof(odd[0]))].to;
	const uint8_t *json, *at;
	size_t len, before;

	fuzz_say_greeting(&right, w->mode, w->multifd ? CHANNELS : 0);
	json = right.p + GREET_MAGIC_LEN + 4;
	len = right.len - GREET_MAGIC_LEN - 4;
	at = memmem(json, len, from, strlen(from));
	if (at)
		len += strlen(to) - strlen(from);
	SAY(w, GREET_MAGIC);
	say_be32(w, 0, (uint32_t)len);
	if (!at) {
		say(w, 0, json, len);
	} else {
		before = (size_t)(at - json);
		say(w, 0, json, before);
		say(w, 0, to, strlen(to));
		say(w, 0, at + strlen(from), len - before - strlen(to));
		w->wrong = true;
	}
	free(right.p);
}

static void say_hello(struct world *w, unsigned channel)
{
	struct multifd_init init = { .channel = (uint8_t)channel };
	uint8_t bytes[MULTIFD_INIT_LEN];

	init.version = w->mode & FUZZ_MIGTOOL ? MULTIFD_VERSION_OURS : MULTIFD_VERSION;
	multifd_init_pack(&init, bytes);
	say(w, 1 + channel, bytes, sizeof(bytes));
}

static void say_begin(struct world *w, uint8_t more)
{
	struct fuzz_text head = { 0 };

	if (w->mode & FUZZ_MIGTOOL && more & MORE_ODD)
		say_odd_greeting(w, take(w));
	else if (w->mode & FUZZ_MIGTOOL)
		fuzz_say_greeting(&w->main, w->mode, w->multifd ? CHANNELS : 0);
	SAY(w, "QEVM\0\0\0\3\7\0\0\0\2pc");
	if (w->mode & FUZZ_PAGE_16K)
		SAY(w, "\5\x1e"
		       "configuration/target-page-bits\0\0\0\1\0\0\0\x0e");
	if (more & MORE_ODD && !(w->mode & FUZZ_MIGTOOL)) {
		SAY(w, "\5\x12"
		       "configuration/uuid\0\0\0\1"
		       "0123456789abcdef");
		w->wrong |= w->multifd; /* its channels say that it has none */
	}
	if (more & MORE_RETURN && !(w->mode & FUZZ_MIGTOOL))
		SAY(w, "\x08\0\1\0\0\x08\0\2\0\4\0\0\0\1");
	w->wrong |= more & MORE_RETURN && !(w->mode & FUZZ_MIGTOOL) && w->mode & FUZZ_ONE_WAY;
	fuzz_say_start(&head, w->multifd);
	say(w, 0, head.p, head.len);
	free(head.p);
	for (unsigned i = 0; w->multifd && i < CHANNELS; i++) {
		say_hello(w, i);
		say_sync(w, i);
	}
	SAY(w, "\2\0\0\0\2");
	w->epoch = 1;
}

static void say_end(struct world *w)
{
	struct wire_digest d = { .memory = model_digest(w), .device_size = w->state_size };
	uint8_t bytes[WIRE_DIGEST_LEN];

	if (w->ended)
		d.device = digest_stream_get(w->state);
	if (!w->ended) {
		say_section_end(w);
		SAY(w, "\3\0\0\0\2");
		say_be64(w, 0, RAM_EOS);
		SAY(w, "\x7e\0\0\0\2");
	}
	if (w->mode & FUZZ_MIGTOOL) {
		SAY(w, "\x08\x40\x02\0\0\0\x28");
		wire_digest_pack(&d, bytes);
		say(w, 0, bytes, sizeof(bytes));
	}
	SAY(w, "\0\6\0\0\0\0");
	if (w->mode & FUZZ_MIGTOOL)
		SAY(w, "\x08\x40\3\0\0\0\0");
}

static void world_open(struct world *w, const uint8_t *data, size_t size)
{
	struct error err;
	bool unit;

	w->in = data + 2;
	w->left = size - 2;
	w->mode = data[0] & ~(unsigned)FUZZ_RAW;
	w->multifd = data[1] & MORE_MULTIFD;
	/* channels need a way back, and no QEMU has both */
	if (w->multifd)
		w->mode &= ~(unsigned)(FUZZ_ONE_WAY | FUZZ_COMPRESS);
	else
		w->mode &= ~(unsigned)(FUZZ_ZLIB | FUZZ_ZSTD);
	w->ours = w->mode & FUZZ_MIGTOOL && w->mode & FUZZ_FEATURES;
	w->page = w->mode & FUZZ_PAGE_16K ? 16384 : 4096;
	for (unsigned i = 0; i < NBLOCKS; i++)
		FUZZ_CHECK((w->memory[i] = calloc(1, block_sizes[i])));
	w->ops = codec_find(w->mode & FUZZ_ZSTD	  ? METHOD_ZSTD
			    : w->mode & FUZZ_ZLIB ? METHOD_ZLIB
						  : METHOD_NONE);
	unit = w->mode & FUZZ_MIGTOOL && w->mode & FUZZ_FEATURES;
	for (unsigned i = 0; w->ops->method != METHOD_NONE && i < CHANNELS; i++)
		FUZZ_CHECK((w->encoder[i] =
				    w->ops->open_encode(1, !unit, MULTIFD_PACKET_BYTES, &err)));
	FUZZ_CHECK((w->zlib = page_zlib_new(true, 1, &err)));
	FUZZ_CHECK((w->state = digest_stream_new()));
}

static void world_close(struct world *w)
{
	for (unsigned i = 0; i < CHANNELS; i++) {
		w->ops->close(w->encoder[i]);
		free(w->channel[i].p);
	}
	for (unsigned i = 0; i < NBLOCKS; i++)
		free(w->memory[i]);
	page_zlib_free(w->zlib);
	digest_stream_free(w->state);
	free(w->main.p);
}

/* What is there now is what was said. */
static void compare(const struct world *w)
{
	char path[128];

	for (unsigned i = 0; i < NBLOCKS; i++) {
		uint8_t *there = malloc(block_sizes[i]);
		int fd;

		snprintf(path, sizeof(path), "%s/ram/%s", fuzz_image(), block_names[i]);
		fd = open(path, O_RDONLY);
		FUZZ_CHECK(there && fd >= 0);
		FUZZ_CHECK(read(fd, there, block_sizes[i]) == (ssize_t)block_sizes[i]);
		FUZZ_CHECK(!memcmp(there, w->memory[i], block_sizes[i]));
		close(fd);
		free(there);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct world w = { 0 };
	struct fuzz_said said, channels[CHANNELS];
	int rc;

	if (size < 2)
		return 0;
	world_open(&w, data, size);
	say_begin(&w, data[1]);
	while (w.left)
		steps[take(&w) % (sizeof(steps) / sizeof(steps[0]))](&w);
	say_end(&w);
	said = (struct fuzz_said){ w.main.p, w.main.len, data[1] & MORE_BYTEWISE ? 1 : 0 };
	for (unsigned i = 0; i < CHANNELS; i++)
		channels[i] = (struct fuzz_said){ w.channel[i].p, w.channel[i].len, 0 };
	rc = fuzz_recv(w.mode, &said, channels, w.multifd ? CHANNELS : 0);
	if (!w.wrong && !w.unsure)
		FUZZ_CHECK(!rc);
	if (!rc && !w.wrong && !w.unsure)
		compare(&w);
	fuzz_clean(rc);
	world_close(&w);
	return 0;
}
