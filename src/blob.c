// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The end is EOF (00), 06, be32 length and a JSON object of just that length; the same bytes can
 * stand anywhere inside a device's data. So each 00 06 .... 7b begins a candidate, which lives as
 * long as it reads like JSON. No control character does: the 00 of the next candidate ends all that
 * began before it, up to those whose heads overlap. The heads are two control characters each, six
 * bytes before the JSON, so no more than three can live at a time.
 */
#include "blob.h"

#include "wire.h"

#include <string.h>

#define DESCRIPTION_HEAD 6 /* EOF, 06, be32 length */
#define DESCRIPTION_MAX	 (32u << 20)
#define DEPTH_MAX	 64

/* idstr, instance 0, version 1; be32 size and the name, NUL-padded to 100 bytes, stand behind it */
static const char state_head[] = "\x0bglobalstate\0\0\0\0\0\0\0\1";

#define STATE_HEAD (sizeof(state_head) - 1)
#define STATE_LEN  (STATE_HEAD + 4 + 100)

_Static_assert(sizeof(((struct blob *)0)->carry) == STATE_LEN - 1,
	       "what may have begun a run state is kept");

/* ---- the description ---- */

static bool open_level(struct blob_description *d, bool array)
{
	if (d->depth == DEPTH_MAX)
		return false;
	d->kinds = d->kinds << 1 | array;
	d->depth++;
	return true;
}

static bool close_level(struct blob_description *d, bool array)
{
	bool right = (d->kinds & 1) == array;

	d->kinds >>= 1;
	d->depth--;
	return right;
}

/* One more byte of the JSON; false if it cannot be any. */
static bool description_takes(struct blob_description *d, uint8_t c)
{
	if (d->depth == 0 || (c < 0x20 && c != '\t' && c != '\n' && c != '\r'))
		return false;
	if (d->escape) {
		d->escape = false;
		return true;
	}
	if (d->string) {
		d->escape = c == '\\';
		d->string = c != '"';
		return true;
	}
	switch (c) {
	case '"':
		d->string = true;
		return true;
	case '{':
	case '[':
		return open_level(d, c == '[');
	case '}':
	case ']':
		return close_level(d, c == ']');
	}
	return true;
}

static void take_candidates(struct blob *b, uint8_t c)
{
	unsigned kept = 0;

	for (unsigned i = 0; i < b->n; i++)
		if (b->len <= b->one[i].end && description_takes(&b->one[i], c))
			b->one[kept++] = b->one[i];
	b->n = kept;
}

static void begin_candidate(struct blob *b)
{
	uint32_t len = (uint32_t)(b->last >> 8);

	if (len > DESCRIPTION_MAX || b->n == sizeof(b->one) / sizeof(b->one[0]))
		return;
	b->one[b->n++] = (struct blob_description){ .start = b->len - DESCRIPTION_HEAD - 1,
						    .end = b->len - 1 + len,
						    .depth = 1 };
}

static void take_byte(struct blob *b, uint8_t c)
{
	b->last = b->last << 8 | c;
	b->len++;
	if (b->n)
		take_candidates(b, c);
	/* 00 06, the length, an opening brace */
	if (c == '{' && (b->last >> 40 & 0xffff) == WIRE_VMDESCRIPTION && b->len >= 7)
		begin_candidate(b);
	/* more than one can be near: a section's id may hold what begins a footer */
	b->eofs =
		(uint8_t)(b->eofs << 1 | (c == WIRE_EOF && (b->last >> 40 & 0xff) == WIRE_FOOTER));
}

/* An empty one counts only behind a footer, or six zero-ish bytes would do. */
static bool ends_with_empty(const struct blob *b)
{
	return b->eofs >> 5 & 1 && (b->last & UINT64_C(0xffffffffff)) == UINT64_C(0x0600000000);
}

static const struct blob_description *description(const struct blob *b)
{
	for (unsigned i = 0; i < b->n; i++)
		if (b->one[i].end == b->len && b->one[i].depth == 0)
			return &b->one[i];
	return NULL;
}

bool blob_complete(const struct blob *b)
{
	return description(b) || ends_with_empty(b);
}

uint64_t blob_sections(const struct blob *b)
{
	const struct blob_description *d = description(b);

	if (d)
		return d->start;
	if (ends_with_empty(b))
		return b->len - DESCRIPTION_HEAD;
	return blob_ends_with_eof(b) ? b->len - 1 : 0;
}

bool blob_ends_with_eof(const struct blob *b)
{
	return b->eofs & 1;
}

/* ---- the run state ---- */

static void keep_run_state(struct blob *b, const uint8_t *name)
{
	memcpy(b->run_state, name, 100);
	b->run_state[100] = '\0';
	for (const char *c = b->run_state; *c; c++) {
		if ((*c < 'a' || *c > 'z') && *c != '-') {
			b->run_state[0] = '\0';
			return;
		}
	}
}

/* Looks for it in the next bytes, together with those before them. */
static void find_run_state(struct blob *b, const uint8_t *p, size_t len)
{
	uint8_t joined[sizeof(b->carry) + 4096];

	while (len > 0 && !b->run_state[0]) {
		size_t n = len < 4096 ? len : 4096, all = b->ncarry + n;
		const uint8_t *at;

		memcpy(joined, b->carry, b->ncarry);
		memcpy(joined + b->ncarry, p, n);
		at = memmem(joined, all, state_head, STATE_HEAD);
		if (at && (size_t)(joined + all - at) >= STATE_LEN)
			keep_run_state(b, at + STATE_HEAD + 4);
		b->ncarry = all < sizeof(b->carry) ? all : sizeof(b->carry);
		memcpy(b->carry, joined + all - b->ncarry, b->ncarry);
		p += n;
		len -= n;
	}
}

void blob_run_state(const struct blob *b, char out[104])
{
	memcpy(out, b->run_state, sizeof(b->run_state));
}

/* ---- all ---- */

int blob_feed(struct blob *b, const void *buf, size_t len, struct error *err)
{
	const uint8_t *p = buf;

	if (len > BLOB_MAX - b->len)
		return err_set(err, ST_DATA, "more than %u MiB of device state", BLOB_MAX >> 20);
	for (size_t i = 0; i < len; i++)
		take_byte(b, p[i]);
	find_run_state(b, p, len);
	return 0;
}
