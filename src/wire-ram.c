// SPDX-License-Identifier: GPL-2.0-or-later
#include "wire-ram.h"

#include "byteorder.h"
#include "log.h"
#include "wire.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HUGE_MAX (UINT64_C(1) << 30)

int ram_put_record(struct stream *s, uint64_t offset, uint32_t flags, const char *name,
		   struct error *err)
{
	if (stream_put_be64(s, offset | flags, err))
		return -1;
	return flags & RAM_CONTINUE || !name ? 0 : wire_put_cstr(s, name, err);
}

int ram_put_block_list(struct stream *s, const struct ram_block_info *blocks, unsigned n,
		       bool with_gpa, struct error *err)
{
	uint64_t total = 0;

	for (unsigned i = 0; i < n; i++)
		total += blocks[i].length;
	if (stream_put_be64(s, total | RAM_MEM_SIZE, err))
		return -1;
	for (unsigned i = 0; i < n; i++) {
		if (wire_put_cstr(s, blocks[i].name, err) ||
		    stream_put_be64(s, blocks[i].length, err))
			return -1;
		if (blocks[i].host_page && stream_put_be64(s, blocks[i].host_page, err))
			return -1;
		if (with_gpa && stream_put_be64(s, blocks[i].gpa, err))
			return -1;
	}
	return 0;
}

/*
 * Only a block of huge pages has one, and nothing says which these are. But what else may stand
 * there is no such size: a name begins with its length, a record's word has flags in its low bits.
 */
static int get_host_page(struct stream *s, uint32_t page, uint64_t sizes, uint64_t *out,
			 struct error *err)
{
	const uint8_t *next;
	uint64_t size;

	if (!(sizes & ~(uint64_t)page))
		return 0;
	if (stream_peek(s, 8, &next, err))
		return -1;
	size = get_be64(next);
	if (size <= page || size > HUGE_MAX || size & (size - 1) || !(size & sizes))
		return 0;
	return stream_get_be64(s, out, err);
}

static int get_entry(struct stream *s, struct ram_block_info *b, uint64_t left, uint32_t page,
		     uint64_t host_pages, bool with_gpa, struct error *err)
{
	char shown[520];

	memset(b, 0, sizeof(*b));
	if (wire_get_cstr(s, b->name, err) || stream_get_be64(s, &b->length, err))
		return -1;
	log_escape(shown, sizeof(shown), b->name, strlen(b->name));
	if (!b->name[0])
		return err_set(err, ST_DATA, "a block has an empty name");
	if (wire_check_text("the block name", b->name, err))
		return -1;
	if (!b->length || b->length % page || b->length > left)
		return err_set(
			err, ST_DATA,
			"block '%s' has 0x%llx bytes: expected a multiple of the page (%u) and "
			"at most the 0x%llx left of the total",
			shown, (unsigned long long)b->length, page, (unsigned long long)left);
	if (get_host_page(s, page, host_pages, &b->host_page, err))
		return -1;
	b->has_gpa = with_gpa;
	return with_gpa ? stream_get_be64(s, &b->gpa, err) : 0;
}

static bool has_name(const struct ram_block_info *list, unsigned n, const char *name)
{
	for (unsigned i = 0; i < n; i++)
		if (!strcmp(list[i].name, name))
			return true;
	return false;
}

int ram_get_block_list(struct stream *s, uint64_t total, uint32_t page, uint64_t host_pages,
		       bool with_gpa, struct ram_block_info **blocks, unsigned *n,
		       struct error *err)
{
	struct ram_block_info *list = NULL, *more;
	uint64_t left = total;
	unsigned count = 0, room = 0;

	while (left > 0) {
		if (count == RAM_BLOCKS_MAX) {
			err_set(err, ST_DATA, "more than %d blocks", RAM_BLOCKS_MAX);
			goto bad;
		}
		if (count == room) {
			room += 16;
			more = realloc(list, room * sizeof(*list));
			if (!more) {
				err_set(err, ST_NOMEM, "no memory for %u blocks", room);
				goto bad;
			}
			list = more;
		}
		if (get_entry(s, &list[count], left, page, host_pages, with_gpa, err))
			goto bad;
		if (has_name(list, count, list[count].name)) {
			char shown[520];

			err_set(err, ST_DATA, "block '%s' is listed twice",
				log_escape(shown, sizeof(shown), list[count].name,
					   strlen(list[count].name)));
			goto bad;
		}
		left -= list[count++].length;
	}
	*blocks = list;
	*n = count;
	return 0;
bad:
	free(list);
	return err_prefix(err, "block list");
}

char *ram_flags_name(uint32_t flags, char *buf, size_t len)
{
	static const struct {
		uint32_t flag;
		const char *name;
	} names[] = {
		{ 0x001, "FULL" },
		{ RAM_ZERO, "ZERO" },
		{ RAM_MEM_SIZE, "MEM_SIZE" },
		{ RAM_PAGE, "PAGE" },
		{ RAM_EOS, "EOS" },
		{ RAM_XBZRLE, "XBZRLE" },
		{ RAM_HOOK, "HOOK" },
		{ RAM_COMPRESS_PAGE, "COMPRESS_PAGE" },
		{ RAM_MULTIFD_FLUSH, "MULTIFD_FLUSH" },
		{ RAM_RUN, "RUN" },
		{ RAM_ZERO_RUN, "ZERO_RUN" },
		{ RAM_CONTINUE, "CONTINUE" },
	};
	size_t o = 0;

	if (len)
		buf[0] = '\0';
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]) && o < len; i++)
		if (flags & names[i].flag)
			o += (size_t)snprintf(buf + o, len - o, "%s%s", o ? "|" : "",
					      names[i].name);
	if (!o)
		snprintf(buf, len, "none");
	return buf;
}
