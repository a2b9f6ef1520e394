// SPDX-License-Identifier: GPL-2.0-or-later
#include "wire.h"

#include "byteorder.h"
#include "log.h"

#include <string.h>

int wire_put_header(struct stream *s, struct error *err)
{
	if (stream_put_be32(s, WIRE_MAGIC, err))
		return -1;
	return stream_put_be32(s, WIRE_VERSION, err);
}

int wire_get_header(struct stream *s, struct error *err)
{
	uint32_t magic, version;

	if (stream_get_be32(s, &magic, err) || stream_get_be32(s, &version, err))
		return err_prefix(err, "stream header");
	if (magic != WIRE_MAGIC)
		return err_set(err, ST_PROTOCOL,
			       "stream header: magic is 0x%08x, expected 0x%08x (QEVM)", magic,
			       WIRE_MAGIC);
	if (version != WIRE_VERSION)
		return err_set(err, ST_PROTOCOL, "stream header: version is %u, expected %u",
			       version, WIRE_VERSION);
	return 0;
}

int wire_put_cstr(struct stream *s, const char *str, struct error *err)
{
	size_t n = strlen(str);

	if (stream_put_u8(s, (uint8_t)n, err))
		return -1;
	return stream_write(s, str, n, err);
}

static int get_string(struct stream *s, char out[256], size_t n, struct error *err)
{
	if (stream_read(s, out, n, err))
		return -1;
	out[n] = '\0';
	if (memchr(out, '\0', n))
		return err_set(err, ST_DATA, "a name of %zu bytes has a NUL byte in it", n);
	return 0;
}

int wire_get_cstr(struct stream *s, char out[256], struct error *err)
{
	uint8_t n;

	if (stream_get_u8(s, &n, err))
		return -1;
	return get_string(s, out, n, err);
}

/* What is printed, compared and kept in a manifest: UTF-8 without control characters. */
int wire_check_text(const char *what, const char *text, struct error *err)
{
	char shown[4 * 255 + 1];

	log_escape(shown, sizeof(shown), text, strlen(text));
	if (!strcmp(shown, text))
		return 0;
	return err_set(err, ST_DATA, "%s '%s' is no printable text", what, shown);
}

/* ---- configuration ---- */

static int put_subsection(struct stream *s, const char *name, struct error *err)
{
	if (stream_put_u8(s, WIRE_SUBSECTION, err) || wire_put_cstr(s, name, err))
		return -1;
	return stream_put_be32(s, 1, err);
}

int wire_put_config(struct stream *s, const struct wire_config *c, struct error *err)
{
	size_t n = strlen(c->machine);

	if (stream_put_u8(s, WIRE_CONFIGURATION, err) || stream_put_be32(s, (uint32_t)n, err) ||
	    stream_write(s, c->machine, n, err))
		return -1;
	if (c->page_bits && (put_subsection(s, "configuration/target-page-bits", err) ||
			     stream_put_be32(s, c->page_bits, err)))
		return -1;
	if (c->ignore_shared &&
	    (put_subsection(s, "configuration/capabilities", err) || stream_put_be32(s, 1, err) ||
	     wire_put_cstr(s, "x-ignore-shared", err)))
		return -1;
	if (c->has_uuid && (put_subsection(s, "configuration/uuid", err) ||
			    stream_write(s, c->uuid, sizeof(c->uuid), err)))
		return -1;
	return 0;
}

/* QEMU validates x-ignore-shared and, from 9.0, mapped-ram; other names are known or fatal there.
 */
static int get_config_caps(struct stream *s, struct wire_config *c, struct error *err)
{
	char name[256], shown[520];
	uint32_t count;

	if (stream_get_be32(s, &count, err))
		return -1;
	if (count > 64)
		return err_set(err, ST_DATA, "%u capabilities are listed, at most 64 expected",
			       count);
	while (count--) {
		if (wire_get_cstr(s, name, err))
			return -1;
		if (!strcmp(name, "x-ignore-shared"))
			c->ignore_shared = true;
		else
			return err_set(err, ST_UNSUPPORTED,
				       "the source validates capability '%s', which this migtool "
				       "cannot take",
				       log_escape(shown, sizeof(shown), name, strlen(name)));
	}
	return 0;
}

/* Each at most once, or they would have no end. */
static int seen_before(const char *name, unsigned bit, unsigned *seen, struct error *err)
{
	if (*seen & bit)
		return err_set(err, ST_DATA, "subsection '%s' comes twice", name);
	*seen |= bit;
	return 0;
}

static int get_subsection(struct stream *s, struct wire_config *c, unsigned *seen,
			  struct error *err)
{
	char name[256], shown[520];
	uint32_t version;

	if (wire_get_cstr(s, name, err) || stream_get_be32(s, &version, err))
		return -1;
	if (version != 1)
		return err_set(err, ST_UNSUPPORTED, "subsection '%s' has version %u, expected 1",
			       log_escape(shown, sizeof(shown), name, strlen(name)), version);
	if (!strcmp(name, "configuration/target-page-bits")) {
		if (seen_before(name, 1, seen, err) || stream_get_be32(s, &c->page_bits, err))
			return -1;
		if (c->page_bits < 12 || c->page_bits > 16)
			return err_set(err, ST_DATA, "target page bits are %u, expected 12 to 16",
				       c->page_bits);
		return 0;
	}
	if (!strcmp(name, "configuration/capabilities"))
		return seen_before(name, 2, seen, err) ? -1 : get_config_caps(s, c, err);
	if (!strcmp(name, "configuration/uuid")) {
		c->has_uuid = true;
		return seen_before(name, 4, seen, err)
			       ? -1
			       : stream_read(s, c->uuid, sizeof(c->uuid), err);
	}
	return err_set(err, ST_UNSUPPORTED, "unknown subsection '%s'",
		       log_escape(shown, sizeof(shown), name, strlen(name)));
}

int wire_get_config(struct stream *s, struct wire_config *c, struct error *err)
{
	const uint8_t *next;
	unsigned seen = 0;
	uint32_t n;

	memset(c, 0, sizeof(*c));
	if (stream_get_be32(s, &n, err))
		goto bad;
	if (n >= sizeof(c->machine)) {
		err_set(err, ST_DATA, "the machine name has %u bytes, at most 255 expected", n);
		goto bad;
	}
	if (get_string(s, c->machine, n, err) ||
	    wire_check_text("the machine name", c->machine, err))
		goto bad;
	for (;;) {
		/* no top-level element is 0x05, so a look at the next byte decides */
		if (stream_peek(s, 1, &next, err))
			goto bad;
		if (*next != WIRE_SUBSECTION)
			return 0;
		stream_skip(s, 1);
		if (get_subsection(s, c, &seen, err))
			goto bad;
	}
bad:
	return err_prefix(err, "configuration");
}

/* ---- sections ---- */

int wire_put_section(struct stream *s, const struct wire_section *sec, struct error *err)
{
	if (stream_put_u8(s, (uint8_t)sec->type, err) || stream_put_be32(s, sec->id, err))
		return -1;
	if (sec->type != WIRE_SECTION_START && sec->type != WIRE_SECTION_FULL)
		return 0;
	if (wire_put_cstr(s, sec->idstr, err) || stream_put_be32(s, sec->instance, err))
		return -1;
	return stream_put_be32(s, sec->version, err);
}

int wire_get_section(struct stream *s, struct wire_section *sec, struct error *err)
{
	sec->idstr[0] = '\0';
	if (stream_get_be32(s, &sec->id, err))
		return err_prefix(err, "section header");
	if (sec->type != WIRE_SECTION_START && sec->type != WIRE_SECTION_FULL)
		return 0;
	if (wire_get_cstr(s, sec->idstr, err) || stream_get_be32(s, &sec->instance, err) ||
	    stream_get_be32(s, &sec->version, err))
		return err_prefix(err, "section header");
	return 0;
}

int wire_put_footer(struct stream *s, uint32_t id, struct error *err)
{
	if (stream_put_u8(s, WIRE_FOOTER, err))
		return -1;
	return stream_put_be32(s, id, err);
}

int wire_get_footer(struct stream *s, uint32_t id, struct error *err)
{
	uint8_t type;
	uint32_t got;

	if (stream_get_u8(s, &type, err))
		return err_prefix(err, "section footer");
	if (type != WIRE_FOOTER)
		return err_set(err, ST_DATA,
			       "section %u ends with byte 0x%02x, expected a footer 0x7e", id,
			       type);
	if (stream_get_be32(s, &got, err))
		return err_prefix(err, "section footer");
	if (got != id)
		return err_set(err, ST_DATA, "the footer of section %u names section %u", id, got);
	return 0;
}

/* ---- commands ---- */

int wire_put_command(struct stream *s, uint16_t cmd, const void *payload, uint32_t len,
		     struct error *err)
{
	if (stream_put_u8(s, WIRE_COMMAND, err) || stream_put_be16(s, cmd, err))
		return -1;
	if (cmd >= WIRE_OURS ? stream_put_be32(s, len, err)
			     : stream_put_be16(s, (uint16_t)len, err))
		return -1;
	return stream_write(s, payload, len, err);
}

int wire_put_ping(struct stream *s, uint32_t value, struct error *err)
{
	uint8_t bytes[4];

	put_be32(bytes, value);
	return wire_put_command(s, MIG_CMD_PING, bytes, sizeof(bytes), err);
}

int wire_get_command(struct stream *s, struct wire_command *c, struct error *err)
{
	uint16_t len;

	if (stream_get_be16(s, &c->cmd, err))
		return err_prefix(err, "command");
	if (c->cmd >= WIRE_OURS) {
		if (stream_get_be32(s, &c->len, err))
			return err_prefix(err, "command");
		if (c->len > WIRE_PIECE)
			return err_set(err, ST_DATA, "command %s has %u bytes, at most %u allowed",
				       wire_command_name(c->cmd), c->len, WIRE_PIECE);
		return 0;
	}
	if (stream_get_be16(s, &len, err))
		return err_prefix(err, "command");
	c->len = len;
	return 0;
}

const char *wire_command_name(uint16_t cmd)
{
	static const char *const names[] = {
		[MIG_CMD_OPEN_RETURN_PATH] = "OPEN_RETURN_PATH",
		[MIG_CMD_PING] = "PING",
		[MIG_CMD_POSTCOPY_ADVISE] = "POSTCOPY_ADVISE",
		[MIG_CMD_POSTCOPY_LISTEN] = "POSTCOPY_LISTEN",
		[MIG_CMD_POSTCOPY_RUN] = "POSTCOPY_RUN",
		[MIG_CMD_POSTCOPY_RAM_DISCARD] = "POSTCOPY_RAM_DISCARD",
		[MIG_CMD_PACKAGED] = "PACKAGED",
		[MIG_CMD_ENABLE_COLO] = "ENABLE_COLO",
		[MIG_CMD_POSTCOPY_RESUME] = "POSTCOPY_RESUME",
		[MIG_CMD_RECV_BITMAP] = "RECV_BITMAP",
		[MIG_CMD_SWITCHOVER_START] = "SWITCHOVER_START",
	};
	static const char *const ours[] = {
		[MIG_CMD_DEVICE_STATE - WIRE_OURS] = "DEVICE_STATE",
		[MIG_CMD_DIGEST - WIRE_OURS] = "DIGEST",
		[MIG_CMD_COMMIT - WIRE_OURS] = "COMMIT",
		[MIG_CMD_FAILED - WIRE_OURS] = "FAILED",
		[MIG_CMD_KEEPALIVE - WIRE_OURS] = "KEEPALIVE",
		[MIG_CMD_WANT - WIRE_OURS] = "WANT",
		[MIG_CMD_COMPARED - WIRE_OURS] = "COMPARED",
		[MIG_CMD_HEARD - WIRE_OURS] = "HEARD",
		[MIG_CMD_PAUSED - WIRE_OURS] = "PAUSED",
		[MIG_CMD_LISTEN - WIRE_OURS] = "LISTEN",
	};

	if (cmd < sizeof(names) / sizeof(names[0]) && names[cmd])
		return names[cmd];
	if (cmd > WIRE_OURS && cmd - WIRE_OURS < (int)(sizeof(ours) / sizeof(ours[0])))
		return ours[cmd - WIRE_OURS];
	return "unknown";
}
