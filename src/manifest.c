// SPDX-License-Identifier: GPL-2.0-or-later
#include "manifest.h"

#include "digest.h"
#include "jsonread.h"
#include "log.h"
#include "units.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TEXT_MAX  (16u << 20)
#define BLOCK_MAX 65536u
#define CAP_MAX	  1024u

/* ---- file names ---- */

static bool plain(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
	       c == '-' || c == '.' || c == '_' || c == '~';
}

char *manifest_file_name(const char *block, char *out, size_t len)
{
	size_t o = 0;

	for (size_t i = 0; block[i] && o + 4 <= len; i++) {
		if (plain(block[i]) && (i || block[i] != '.'))
			out[o++] = block[i];
		else
			o += (size_t)snprintf(out + o, len - o, "%%%02X", (unsigned char)block[i]);
	}
	out[o] = '\0';
	return out;
}

int manifest_block_name(const char *file, char *name, size_t len)
{
	char again[MANIFEST_FILE_NAME_MAX + 1];
	size_t o = 0;

	for (const char *s = file; *s; s++) {
		char c = *s;

		if (o + 1 >= len || o >= MANIFEST_FILE_NAME_MAX / 3)
			return -1;
		if (c == '%') {
			int hi = hex_digit(s[1]), lo = hi < 0 ? -1 : hex_digit(s[2]);

			if (lo < 0 || (hi == 0 && lo == 0))
				return -1;
			c = (char)(hi << 4 | lo);
			s += 2;
		}
		name[o++] = c;
	}
	name[o] = '\0';
	/* one name has one file name: 'a' written as %61 is somebody else's file */
	return o && !strcmp(manifest_file_name(name, again, sizeof(again)), file) ? 0 : -1;
}

/* ---- memory ---- */

struct manifest *manifest_new(void)
{
	return calloc(1, sizeof(struct manifest));
}

void manifest_free(struct manifest *m)
{
	if (!m)
		return;
	for (char **c = m->capabilities; c && *c; c++)
		free(*c);
	free(m->capabilities);
	free(m->blocks);
	json_decref(m->unknown);
	free(m);
}

/* ---- reading: a key that is absent leaves its field as it is ---- */

static int wrong(struct error *err, const char *where, const char *key, const char *expected)
{
	return err_set(err, ST_FILE, "%s%s is not %s", where, key, expected);
}

/* Text that can be printed and sent as it is. */
static bool text_ok(const char *s, size_t cap)
{
	char shown[4 * 512 + 1];

	return strlen(s) < cap && !strcmp(log_escape(shown, sizeof(shown), s, strlen(s)), s);
}

static int get_text(const json_t *obj, const char *where, const char *key, char *out, size_t cap,
		    struct error *err)
{
	const json_t *v = json_object_get(obj, key);
	char expected[64];

	if (!v)
		return 0;
	if (!json_is_string(v) || !text_ok(json_string_value(v), cap)) {
		snprintf(expected, sizeof(expected), "printable text of at most %zu bytes",
			 cap - 1);
		return wrong(err, where, key, expected);
	}
	strcpy(out, json_string_value(v));
	return 0;
}

static int get_u64(const json_t *obj, const char *where, const char *key, uint64_t max,
		   uint64_t *out, struct error *err)
{
	const json_t *v = json_object_get(obj, key);
	char expected[64];

	if (!v)
		return 0;
	if (!json_is_integer(v) || json_integer_value(v) < 0 ||
	    (uint64_t)json_integer_value(v) > max) {
		snprintf(expected, sizeof(expected), "a number from 0 to %" PRIu64, max);
		return wrong(err, where, key, expected);
	}
	*out = (uint64_t)json_integer_value(v);
	return 0;
}

static int get_page_size(const json_t *obj, const char *where, uint32_t *out, struct error *err)
{
	uint64_t v = 0;

	if (get_u64(obj, where, "page-size", UINT32_MAX, &v, err) < 0)
		return -1;
	if (v & (v - 1))
		return wrong(err, where, "page-size", "a power of two");
	*out = (uint32_t)v;
	return 0;
}

/* A JSON number where one can hold it, else "0x...": jansson's integers are signed. */
static int get_gpa(const json_t *obj, const char *where, struct manifest_block *b,
		   struct error *err)
{
	const json_t *v = json_object_get(obj, "gpa");
	const char *s;
	char *end;

	b->has_gpa = v != NULL;
	if (!json_is_string(v))
		return get_u64(obj, where, "gpa", INT64_MAX, &b->gpa, err);
	s = json_string_value(v);
	errno = 0;
	b->gpa = strtoull(s, &end, 16);
	if (strncmp(s, "0x", 2) != 0 || strlen(s) > 18 || end != s + strlen(s) || end == s + 2 ||
	    errno)
		return wrong(err, where, "gpa", "an address");
	return 0;
}

static int get_bool(const json_t *obj, const char *where, const char *key, bool *out,
		    struct error *err)
{
	const json_t *v = json_object_get(obj, key);

	if (v && !json_is_boolean(v))
		return wrong(err, where, key, "true or false");
	*out = json_is_true(v);
	return 0;
}

static int get_digest(const json_t *obj, const char *where, char out[33], struct error *err)
{
	struct digest d;

	if (get_text(obj, where, "digest", out, 33, err) < 0)
		return -1;
	if (out[0] && digest_from_hex(out, &d) < 0)
		return wrong(err, where, "digest", "32 hexadecimal digits");
	return 0;
}

static int parse_block(const json_t *obj, unsigned index, struct manifest_block *b,
		       struct error *err)
{
	char where[32];

	snprintf(where, sizeof(where), "blocks[%u].", index);
	if (get_text(obj, where, "name", b->name, sizeof(b->name), err) < 0)
		return -1;
	if (!b->name[0])
		return wrong(err, where, "name", "there");
	if (!json_object_get(obj, "size"))
		return wrong(err, where, "size", "there");
	if (get_u64(obj, where, "size", INT64_MAX, &b->size, err) < 0 ||
	    get_page_size(obj, where, &b->page_size, err) < 0 || get_gpa(obj, where, b, err) < 0 ||
	    get_bool(obj, where, "shared", &b->shared, err) < 0 ||
	    get_digest(obj, where, b->digest, err) < 0)
		return -1;
	return 0;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static int check_unique(const struct manifest *m, struct error *err)
{
	const char **names = calloc(m->nblocks + 1, sizeof(*names));
	int r = 0;

	if (!names)
		return err_set(err, ST_NOMEM, "out of memory");
	for (unsigned i = 0; i < m->nblocks; i++)
		names[i] = m->blocks[i].name;
	qsort(names, m->nblocks, sizeof(*names), by_name);
	for (unsigned i = 1; i < m->nblocks && !r; i++)
		if (!strcmp(names[i - 1], names[i]))
			r = err_set(err, ST_FILE, "blocks lists %s twice", names[i]);
	free(names);
	return r;
}

static int parse_blocks(struct manifest *m, const json_t *root, struct error *err)
{
	const json_t *list = json_object_get(root, "blocks");

	if (!json_is_array(list) || json_array_size(list) == 0 || json_array_size(list) > BLOCK_MAX)
		return wrong(err, "", "blocks", "a list of at least one block");
	m->blocks = calloc(json_array_size(list), sizeof(*m->blocks));
	if (!m->blocks)
		return err_set(err, ST_NOMEM, "out of memory");
	m->nblocks = (unsigned)json_array_size(list);
	for (unsigned i = 0; i < m->nblocks; i++)
		if (parse_block(json_array_get(list, i), i, &m->blocks[i], err) < 0)
			return -1;
	return check_unique(m, err);
}

static int parse_capabilities(struct manifest *m, const json_t *root, struct error *err)
{
	const json_t *list = json_object_get(root, "capabilities");
	size_t n = json_array_size(list);

	if (!list)
		return 0;
	if (!json_is_array(list) || n > CAP_MAX)
		return wrong(err, "", "capabilities", "a list of names");
	m->capabilities = calloc(n + 1, sizeof(*m->capabilities));
	if (!m->capabilities)
		return err_set(err, ST_NOMEM, "out of memory");
	for (size_t i = 0; i < n; i++) {
		const json_t *v = json_array_get(list, i);

		if (!json_is_string(v) || !text_ok(json_string_value(v), 128))
			return wrong(err, "", "capabilities", "a list of names");
		m->capabilities[i] = strdup(json_string_value(v));
		if (!m->capabilities[i])
			return err_set(err, ST_NOMEM, "out of memory");
	}
	return 0;
}

static int parse_state(struct manifest *m, const json_t *root, struct error *err)
{
	const json_t *obj = json_object_get(root, "device-state");

	if (!obj)
		return 0;
	if (!json_is_object(obj) || !json_object_get(obj, "size"))
		return wrong(err, "", "device-state", "an object with a size");
	m->has_device_state = true;
	if (get_u64(obj, "device-state.", "size", INT64_MAX, &m->device_state_size, err) < 0 ||
	    get_digest(obj, "device-state.", m->device_state_digest, err) < 0)
		return -1;
	return 0;
}

static int parse_root(struct manifest *m, const json_t *root, struct error *err)
{
	const json_t *version = json_object_get(root, "version");
	uint8_t uuid[16];

	if (!json_is_integer(version))
		return wrong(err, "", "version", "a number");
	if (json_integer_value(version) != MANIFEST_VERSION)
		return err_set(err, ST_UNSUPPORTED,
			       "version %" JSON_INTEGER_FORMAT " is not the %d that is known here",
			       json_integer_value(version), MANIFEST_VERSION);
	if (get_text(root, "", "machine", m->machine, sizeof(m->machine), err) < 0 ||
	    get_text(root, "", "uuid", m->uuid, sizeof(m->uuid), err) < 0 ||
	    get_page_size(root, "", &m->page_size, err) < 0 ||
	    get_text(root, "", "target-arch", m->target_arch, sizeof(m->target_arch), err) < 0 ||
	    get_text(root, "", "source", m->source, sizeof(m->source), err) < 0 ||
	    get_text(root, "", "run-state", m->run_state, sizeof(m->run_state), err) < 0 ||
	    get_bool(root, "", "postcopy", &m->postcopy, err) < 0)
		return -1;
	if (m->uuid[0] && uuid_parse(m->uuid, uuid) < 0)
		return wrong(err, "", "uuid", "a UUID");
	if (parse_capabilities(m, root, err) < 0 || parse_blocks(m, root, err) < 0 ||
	    parse_state(m, root, err) < 0)
		return -1;
	return 0;
}

struct manifest *manifest_parse(const char *text, size_t len, struct error *err)
{
	struct manifest *m;
	json_error_t why;
	json_t *root;

	if (len > TEXT_MAX) {
		err_set(err, ST_FILE, "%zu bytes are more than a manifest's %u", len, TEXT_MAX);
		return NULL;
	}
	root = json_read(text, len, &why);
	if (!json_is_object(root)) {
		if (root)
			err_set(err, ST_FILE, "not a JSON object");
		else if (errno == ENOMEM)
			err_set(err, ST_NOMEM, "out of memory");
		else
			err_set(err, ST_FILE, "line %d: %s", why.line, why.text);
		json_decref(root);
		return NULL;
	}
	m = manifest_new();
	if (!m) {
		json_decref(root);
		err_set(err, ST_NOMEM, "out of memory");
		return NULL;
	}
	m->unknown = root;
	if (parse_root(m, root, err) < 0) {
		manifest_free(m);
		return NULL;
	}
	return m;
}

/* ---- writing: each returns 0, or -1 when memory is short ---- */

static int put_text(json_t *obj, const char *key, const char *value)
{
	if (value[0])
		return json_object_set_new(obj, key, json_string(value));
	json_object_del(obj, key);
	return 0;
}

static int put_u64(json_t *obj, const char *key, uint64_t value)
{
	char hex[24];

	if (value <= INT64_MAX)
		return json_object_set_new(obj, key, json_integer((json_int_t)value));
	snprintf(hex, sizeof(hex), "0x%" PRIx64, value);
	return json_object_set_new(obj, key, json_string(hex));
}

static int put_page_size(json_t *obj, uint32_t value)
{
	if (value)
		return put_u64(obj, "page-size", value);
	json_object_del(obj, "page-size");
	return 0;
}

static int put_block(json_t *obj, const struct manifest_block *b)
{
	int r = put_text(obj, "name", b->name) | put_u64(obj, "size", b->size) |
		put_page_size(obj, b->page_size) | put_text(obj, "digest", b->digest);

	if (b->has_gpa)
		r |= put_u64(obj, "gpa", b->gpa);
	else
		json_object_del(obj, "gpa");
	if (b->shared)
		r |= json_object_set_new(obj, "shared", json_true());
	else
		json_object_del(obj, "shared");
	return r;
}

/* What was read of the block of that name, for the keys that we do not know; else an empty one. */
static json_t *old_block(const struct manifest *m, const char *name)
{
	const json_t *list = json_object_get(m->unknown, "blocks");
	size_t n = json_array_size(list);

	for (size_t i = 0; i < n; i++) {
		const json_t *b = json_array_get(list, i);
		const char *s = json_string_value(json_object_get(b, "name"));

		if (s && !strcmp(s, name))
			return json_deep_copy(b);
	}
	return json_object();
}

static int put_blocks(json_t *root, const struct manifest *m)
{
	json_t *list = json_array();
	int r = 0;

	for (unsigned i = 0; i < m->nblocks; i++) {
		json_t *b = old_block(m, m->blocks[i].name);

		r |= put_block(b, &m->blocks[i]);
		r |= json_array_append_new(list, b);
	}
	return r | json_object_set_new(root, "blocks", list);
}

static int put_capabilities(json_t *root, const struct manifest *m)
{
	json_t *list;
	int r = 0;

	if (!m->capabilities) {
		json_object_del(root, "capabilities");
		return 0;
	}
	list = json_array();
	for (char **c = m->capabilities; *c; c++)
		r |= json_array_append_new(list, json_string(*c));
	return r | json_object_set_new(root, "capabilities", list);
}

static int put_state(json_t *root, const struct manifest *m)
{
	json_t *state = json_object_get(root, "device-state");

	if (!m->has_device_state) {
		json_object_del(root, "device-state");
		return 0;
	}
	state = state ? json_incref(state) : json_object();
	return put_u64(state, "size", m->device_state_size) |
	       put_text(state, "digest", m->device_state_digest) |
	       json_object_set_new(root, "device-state", state);
}

static int put_postcopy(json_t *root, const struct manifest *m)
{
	if (m->postcopy)
		return json_object_set_new(root, "postcopy", json_true());
	json_object_del(root, "postcopy");
	return 0;
}

char *manifest_format(const struct manifest *m)
{
	json_t *root = m->unknown ? json_deep_copy(m->unknown) : json_object();
	char *text = NULL;

	if (!(put_u64(root, "version", MANIFEST_VERSION) | put_text(root, "machine", m->machine) |
	      put_text(root, "uuid", m->uuid) | put_page_size(root, m->page_size) |
	      put_text(root, "target-arch", m->target_arch) | put_text(root, "source", m->source) |
	      put_capabilities(root, m) | put_text(root, "run-state", m->run_state) |
	      put_blocks(root, m) | put_state(root, m) | put_postcopy(root, m)))
		text = json_dumps(root, JSON_INDENT(2));
	json_decref(root);
	return text;
}
