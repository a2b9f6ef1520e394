// SPDX-License-Identifier: GPL-2.0-or-later
#include "wire-greet.h"

#include "jsonbound.h"
#include "jsonread.h"
#include "jsonline.h"
#include "log.h"
#include "stats.h"
#include "units.h"
#include "wire-ram.h"
#include "wire.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
	enum feature feature;
	const char *name;
} feature_names[] = {
	{ FEATURE_RUNS, "page-runs" },	      { FEATURE_MULTIFD2, "multifd-2" },
	{ FEATURE_DELTA, "page-digests" },    { FEATURE_POSTCOPY, "postcopy" },
	{ FEATURE_URGENT, "urgent-channel" }, { FEATURE_AHEAD, "pages-ahead" },
};

/* A greeting with all blocks that there may be is far from it. */
#define VALUES_MAX 32768u
#define LEVELS_MAX 16u

#define NFEATURES (sizeof(feature_names) / sizeof(feature_names[0]))

static const char *const method_names[] = { "none", "zlib", "zstd" };
static const char *const found_names[] = {
	"nothing", "part", "complete", "done", "guest", "ready"
};

#define NFOUND (sizeof(found_names) / sizeof(found_names[0]))

/* ---- frames ---- */

static int put_frame(struct stream *s, json_t *j, struct error *err)
{
	char *text = j ? json_dumps(j, JSON_COMPACT) : NULL;
	size_t len = text ? strlen(text) : 0;
	int rc = -1;

	if (!text)
		err_set(err, ST_NOMEM, "no memory for a greeting");
	else if (len > GREET_MAX)
		err_set(err, ST_UNSUPPORTED, "the greeting has %zu bytes, at most %u allowed", len,
			GREET_MAX);
	else if (!stream_write(s, GREET_MAGIC, GREET_MAGIC_LEN, err) &&
		 !stream_put_be32(s, (uint32_t)len, err) && !stream_write(s, text, len, err))
		rc = stream_flush(s, err);
	free(text);
	json_decref(j);
	return rc;
}

static char *get_frame(struct stream *s, size_t *len, struct error *err)
{
	char magic[GREET_MAGIC_LEN], shown[64];
	uint32_t n;
	char *text;

	if (stream_read(s, magic, sizeof(magic), err))
		return NULL;
	if (memcmp(magic, GREET_MAGIC, sizeof(magic))) {
		err_set(err, ST_PROTOCOL, "the peer is no migtool: it says \"%s\"",
			log_escape(shown, sizeof(shown), magic, sizeof(magic)));
		return NULL;
	}
	if (stream_get_be32(s, &n, err))
		return NULL;
	if (n > GREET_MAX) {
		err_set(err, ST_DATA, "a greeting of %u bytes, at most %u allowed", n, GREET_MAX);
		return NULL;
	}
	text = malloc(n + 1);
	if (!text) {
		err_set(err, ST_NOMEM, "no memory for a greeting of %u bytes", n);
		return NULL;
	}
	if (stream_read(s, text, n, err)) {
		free(text);
		return NULL;
	}
	*len = n;
	return text;
}

/* ---- typed, bounded access to what the peer's JSON says ---- */

static int get_string(const json_t *o, const char *key, char *out, size_t cap, struct error *err)
{
	const json_t *v = json_object_get(o, key);

	out[0] = '\0';
	if (!v || json_is_null(v))
		return 0;
	if (!json_is_string(v) || json_string_length(v) >= cap)
		return err_set(err, ST_DATA, "greeting: %s is no string of less than %zu bytes",
			       key, cap);
	memcpy(out, json_string_value(v), json_string_length(v) + 1);
	return 0;
}

/* Integers are JSON integers up to 2^63-1; a missing one is `def`. */
static int get_int(const json_t *o, const char *key, uint64_t def, uint64_t max, uint64_t *out,
		   struct error *err)
{
	const json_t *v = json_object_get(o, key);

	*out = def;
	if (!v || json_is_null(v))
		return 0;
	if (!json_is_integer(v) || json_integer_value(v) < 0 ||
	    (uint64_t)json_integer_value(v) > max)
		return err_set(err, ST_DATA, "greeting: %s is no integer from 0 to %llu", key,
			       (unsigned long long)max);
	*out = (uint64_t)json_integer_value(v);
	return 0;
}

/* Of a session: 32 lower-case hexadecimal digits. */
static void id_hex(const uint8_t id[16], char out[33])
{
	for (size_t i = 0; i < 16; i++)
		snprintf(out + 2 * i, 3, "%02x", id[i]);
}

static int id_from_hex(const char *text, uint8_t id[16], struct error *err)
{
	if (strlen(text) != 32 || strspn(text, "0123456789abcdef") != 32)
		return err_set(err, ST_DATA, "greeting: the session id is no 32 hex digits");
	for (int i = 0; i < 16; i++, text += 2) {
		const char digits[3] = { text[0], text[1] };

		id[i] = (uint8_t)strtoul(digits, NULL, 16);
	}
	return 0;
}

static bool get_bool(const json_t *o, const char *key)
{
	return json_is_true(json_object_get(o, key));
}

/* It becomes a word of a command line: hex digits, or nothing. */
static int get_join(const json_t *o, char join[33], struct error *err)
{
	if (get_string(o, "join", join, 33, err))
		return -1;
	if (join[0] && (strlen(join) != 32 || strspn(join, "0123456789abcdef") != 32))
		return err_set(err, ST_DATA, "greeting: join is no 32 hex digits");
	return 0;
}

/* An array of strings, each judged by `each`; the count is bounded. */
static int get_names(const json_t *o, const char *key,
		     int (*each)(const char *name, void *to, struct error *err), void *to,
		     struct error *err)
{
	const json_t *list = json_object_get(o, key), *v;
	size_t i;

	if (!list)
		return 0;
	if (!json_is_array(list) || json_array_size(list) > 256)
		return err_set(err, ST_DATA, "greeting: %s is no list of at most 256 names", key);
	json_array_foreach(list, i, v)
	{
		if (!json_is_string(v))
			return err_set(err, ST_DATA, "greeting: %s[%zu] is no string", key, i);
		if (each(json_string_value(v), to, err))
			return -1;
	}
	return 0;
}

static json_t *features_to_json(unsigned features)
{
	json_t *list = json_array();

	for (size_t i = 0; i < NFEATURES; i++)
		if (features & feature_names[i].feature)
			json_array_append_new(list, json_string(feature_names[i].name));
	return list;
}

static int take_feature(const char *name, void *to, struct error *err)
{
	unsigned *features = to;

	(void)err;
	for (size_t i = 0; i < NFEATURES; i++)
		if (!strcmp(name, feature_names[i].name))
			*features |= feature_names[i].feature;
	return 0; /* an unknown one is simply not used */
}

/* What a destination has to know beyond version 1; nothing so far. */
static int take_need(const char *name, void *to, struct error *err)
{
	char shown[256];

	(void)to;
	err_set(err, ST_PROTOCOL, "the source needs '%s', which this migtool (%s) does not know",
		log_escape(shown, sizeof(shown), name, strlen(name)), MIGTOOL_VERSION);
	return err_hint(err, "use a newer migtool on the destination");
}

static int take_cap(const char *name, void *to, struct error *err)
{
	struct cap_set *caps = to;
	int cap = cap_find(name);
	char shown[256];

	if (cap < 0)
		return err_set(
			err, ST_PROTOCOL,
			"the source uses capability '%s', which this migtool (%s) does not know",
			log_escape(shown, sizeof(shown), name, strlen(name)), MIGTOOL_VERSION);
	caps->on[cap] = true;
	return 0;
}

/* ---- the greeting ---- */

static json_t *block_to_json(const struct greet_block *b)
{
	json_t *o = json_pack("{s:s, s:I, s:I}", "name", b->name, "size", (json_int_t)b->size,
			      "page-size", (json_int_t)b->page_size);
	char digest[33];

	/* a guest-physical address may have its top bit set; JSON integers may not */
	if (o && b->has_gpa) {
		char hex[19];

		snprintf(hex, sizeof(hex), "0x%llx", (unsigned long long)b->gpa);
		json_object_set_new(o, "gpa", json_string(hex));
	}
	if (o && b->shared)
		json_object_set_new(o, "shared", json_true());
	if (o && b->has_digest)
		json_object_set_new(o, "digest", json_string(digest_hex(b->digest, digest)));
	return o;
}

static void set_if(json_t *o, const char *key, const char *value)
{
	if (value[0])
		json_object_set_new(o, key, json_string(value));
}

static json_t *caps_to_json(const struct cap_set *caps)
{
	json_t *list = json_array();

	for (int i = 0; i < CAP__MAX; i++)
		if (caps->on[i])
			json_array_append_new(list, json_string(cap_table[i].name));
	return list;
}

/* JSON is UTF-8; a name on a file system or a command line may be anything. */
static int check_utf8(const char *what, const char *text, struct error *err)
{
	json_t *j;

	errno = 0;
	j = json_string(text);
	if (!j && errno == ENOMEM)
		return err_set(err, ST_NOMEM, "no memory for a greeting");
	if (!j)
		return err_set(err, ST_UNSUPPORTED,
			       "%s '%s' is not UTF-8, and cannot be greeted with", what, text);
	json_decref(j);
	return 0;
}

static int check_texts(const struct greeting *g, struct error *err)
{
	for (unsigned i = 0; i < g->nblocks; i++)
		if (check_utf8("the block name", g->blocks[i].name, err))
			return -1;
	if (check_utf8("the machine name", g->machine, err) ||
	    check_utf8("the architecture", g->target_arch, err))
		return -1;
	return check_utf8("the run state", g->run_state, err);
}

/*
 * Where memory was short a list or an object merely lacks what could not be added, so errno, which
 * was 0 before, has to tell. NULL then.
 */
static json_t *complete(json_t *o)
{
	if (errno != ENOMEM)
		return o;
	json_decref(o);
	return NULL;
}

int greet_put(struct stream *s, const struct greeting *g, struct error *err)
{
	json_t *o, *blocks;
	char session[33], hex[33];

	if (check_texts(g, err))
		return -1;
	errno = 0;
	blocks = json_array();
	id_hex(g->session, session);
	for (unsigned i = 0; i < g->nblocks; i++)
		json_array_append_new(blocks, block_to_json(&g->blocks[i]));
	o = json_pack(
		"{s:i, s:s, s:s, s:[], s:o, s:o, s:{s:i, s:s}, s:I, s:o, s:I, s:b, s:b, s:b}",
		"version", GREET_VERSION, "program", g->program, "session", session, "needs",
		"features", features_to_json(g->features), "capabilities", caps_to_json(&g->caps),
		"parameters", "multifd-channels", (int)g->multifd_channels, "multifd-compression",
		method_names[g->multifd_compression], "page-size", (json_int_t)g->page_size,
		"blocks", blocks, "data-bytes", (json_int_t)g->data_bytes, "device-state",
		(int)g->has_device_state, "dry-run", (int)g->dry_run, "one-way", (int)g->one_way);
	if (o) {
		set_if(o, "machine", g->machine);
		set_if(o, "uuid", g->uuid);
		set_if(o, "target-arch", g->target_arch);
		set_if(o, "run-state", g->run_state);
		set_if(o, "join", g->join);
		id_hex(g->resumed, session);
		if (g->resume)
			set_if(o, "resume", g->knows_session ? session : "any");
		if (g->retries)
			json_object_set_new(o, "retry", json_true());
		if (g->has_base)
			json_object_set_new(o, "base", json_string(digest_hex(g->base, hex)));
		if (g->has_image)
			json_object_set_new(o, "image", json_string(digest_hex(g->image, hex)));
	}
	return put_frame(s, complete(o), err);
}

static int parse_gpa(const char *text, struct greet_block *b, struct error *err)
{
	size_t digits = strncmp(text, "0x", 2) ? 0 : strspn(text + 2, "0123456789abcdefABCDEF");

	if (!digits || digits > 16 || text[2 + digits])
		return err_set(err, ST_DATA,
			       "greeting: a block's gpa is not 0x and 1 to 16 hex digits");
	b->gpa = strtoull(text, NULL, 16);
	b->has_gpa = true;
	return 0;
}

static int parse_block(const json_t *o, struct greet_block *b, struct error *err)
{
	char gpa[20], digest[33];
	uint64_t page;

	memset(b, 0, sizeof(*b));
	if (get_string(o, "name", b->name, sizeof(b->name), err) ||
	    get_int(o, "size", 0, INT64_MAX, &b->size, err) ||
	    get_int(o, "page-size", 4096, 1u << 30, &page, err) ||
	    get_string(o, "gpa", gpa, sizeof(gpa), err) ||
	    get_string(o, "digest", digest, sizeof(digest), err))
		return -1;
	if (!b->name[0] || !b->size || page < 4096 || page & (page - 1))
		return err_set(err, ST_DATA,
			       "greeting: a block without a name, a size or a page size that is a "
			       "power of two");
	if (wire_check_text("greeting: the block name", b->name, err))
		return -1;
	b->page_size = (uint32_t)page;
	b->shared = get_bool(o, "shared");
	b->has_digest = digest[0];
	if (b->has_digest && digest_from_hex(digest, &b->digest))
		return err_set(err, ST_DATA, "greeting: a block's digest is no 32 hex digits");
	return gpa[0] ? parse_gpa(gpa, b, err) : 0;
}

static int parse_blocks(const json_t *o, struct greeting *g, struct error *err)
{
	const json_t *list = json_object_get(o, "blocks"), *v;
	uint64_t total = 0;
	size_t i;

	if (!json_is_array(list) || json_array_size(list) > RAM_BLOCKS_MAX)
		return err_set(err, ST_DATA, "greeting: blocks is no list of at most %d",
			       RAM_BLOCKS_MAX);
	g->blocks = calloc(json_array_size(list) + 1, sizeof(*g->blocks));
	if (!g->blocks)
		return err_set(err, ST_NOMEM, "no memory for %zu blocks", json_array_size(list));
	json_array_foreach(list, i, v)
	{
		struct greet_block *b = &g->blocks[i];

		if (parse_block(v, b, err))
			return -1;
		if (b->size % g->page_size || b->size > INT64_MAX - total)
			return err_set(
				err, ST_DATA,
				"greeting: block %zu has %llu bytes, expected a multiple of the "
				"page (%u)",
				i, (unsigned long long)b->size, g->page_size);
		total += b->size;
		for (size_t k = 0; k < i; k++)
			if (!strcmp(g->blocks[k].name, b->name))
				return err_set(err, ST_DATA, "greeting: block %zu stands twice", i);
		g->nblocks++;
	}
	return 0;
}

static int parse_parameters(const json_t *o, struct greeting *g, struct error *err)
{
	const json_t *p = json_object_get(o, "parameters");
	uint64_t channels;
	char method[32];

	if (get_int(p, "multifd-channels", 2, 255, &channels, err) ||
	    get_string(p, "multifd-compression", method, sizeof(method), err))
		return -1;
	if (!channels)
		return err_set(err, ST_DATA, "greeting: multifd-channels is 0");
	g->multifd_channels = (unsigned)channels;
	if (!method[0])
		return 0;
	for (int i = 0; i < 3; i++) {
		if (!strcmp(method, method_names[i])) {
			g->multifd_compression = (enum multifd_method)i;
			return 0;
		}
	}
	return err_set(err, ST_PROTOCOL,
		       "the source compresses with '%s', which this migtool does not know", method);
}

static int parse_identity(const json_t *o, struct greeting *g, struct error *err)
{
	char session[33], resume[33], base[33], image[33];
	uint64_t page;

	if (get_string(o, "session", session, sizeof(session), err) ||
	    get_string(o, "program", g->program, sizeof(g->program), err) ||
	    get_string(o, "machine", g->machine, sizeof(g->machine), err) ||
	    get_string(o, "uuid", g->uuid, sizeof(g->uuid), err) ||
	    get_string(o, "target-arch", g->target_arch, sizeof(g->target_arch), err) ||
	    get_string(o, "run-state", g->run_state, sizeof(g->run_state), err) ||
	    get_string(o, "base", base, sizeof(base), err) ||
	    get_string(o, "image", image, sizeof(image), err) || get_join(o, g->join, err) ||
	    get_string(o, "resume", resume, sizeof(resume), err) ||
	    get_int(o, "page-size", 4096, 65536, &page, err) ||
	    get_int(o, "data-bytes", 0, INT64_MAX, &g->data_bytes, err))
		return -1;
	if (wire_check_text("greeting: machine", g->machine, err) ||
	    wire_check_text("greeting: target-arch", g->target_arch, err) ||
	    wire_check_text("greeting: run-state", g->run_state, err))
		return -1;
	if (id_from_hex(session, g->session, err))
		return -1;
	g->resume = resume[0];
	g->knows_session = g->resume && strcmp(resume, "any") != 0;
	if (g->knows_session && id_from_hex(resume, g->resumed, err))
		return -1;
	if (page < 4096 || page & (page - 1))
		return err_set(err, ST_DATA,
			       "greeting: the page size %llu is none of 4096 to 65536",
			       (unsigned long long)page);
	g->page_size = (uint32_t)page;
	if (g->uuid[0] && uuid_parse(g->uuid, (uint8_t[16]){ 0 }))
		return err_set(err, ST_DATA, "greeting: the uuid is none");
	g->has_base = base[0];
	if (g->has_base && digest_from_hex(base, &g->base))
		return err_set(err, ST_DATA, "greeting: the base's digest is no 32 hex digits");
	g->has_image = image[0];
	if (g->has_image && digest_from_hex(image, &g->image))
		return err_set(err, ST_DATA, "greeting: image is no 32 hex digits");
	return 0;
}

static int check_version(const json_t *o, struct error *err)
{
	uint64_t version;

	if (get_int(o, "version", 0, INT64_MAX, &version, err))
		return -1;
	if (version != GREET_VERSION) {
		err_set(err, ST_PROTOCOL, "the peer greets with version %llu, expected %d",
			(unsigned long long)version, GREET_VERSION);
		return err_hint(err, "use the same release of migtool on both hosts");
	}
	return 0;
}

/* An object, or NULL. `what` is "greeting" or "answer". */
static json_t *load(const char *text, size_t len, const char *what, struct error *err)
{
	json_error_t why;
	json_t *o;

	if (!json_within(text, len, VALUES_MAX, LEVELS_MAX)) {
		err_set(err, ST_DATA, "the %s has more than %u values, or more than %u levels",
			what, VALUES_MAX, LEVELS_MAX);
		return NULL;
	}
	o = json_read(text, len, &why);
	if (json_is_object(o))
		return o;
	if (errno == ENOMEM)
		err_set(err, ST_NOMEM, "no memory for the %s", what);
	else
		err_set(err, ST_PROTOCOL, "the %s is no JSON object (at byte %d)", what,
			o ? 0 : why.position);
	json_decref(o);
	return NULL;
}

int greet_parse(const char *text, size_t len, struct greeting *g, struct error *err)
{
	json_t *o = load(text, len, "greeting", err);
	int rc = -1;

	memset(g, 0, sizeof(*g));
	if (!o)
		return -1;
	if (!check_version(o, err) && !get_names(o, "needs", take_need, NULL, err) &&
	    !get_names(o, "capabilities", take_cap, &g->caps, err) &&
	    !get_names(o, "features", take_feature, &g->features, err) &&
	    !parse_identity(o, g, err) && !parse_parameters(o, g, err) && !parse_blocks(o, g, err))
		rc = 0;
	g->dry_run = get_bool(o, "dry-run");
	g->retries = get_bool(o, "retry");
	g->one_way = get_bool(o, "one-way");
	g->has_device_state = get_bool(o, "device-state");
	json_decref(o);
	return rc;
}

int greet_get(struct stream *s, struct greeting *g, struct error *err)
{
	size_t len;
	char *text;
	int rc;

	memset(g, 0, sizeof(*g));
	text = get_frame(s, &len, err);
	if (!text)
		return -1;
	rc = greet_parse(text, len, g, err);
	free(text);
	return rc;
}

void greet_free(struct greeting *g)
{
	free(g->blocks);
	g->blocks = NULL;
	g->nblocks = 0;
}

/* ---- the answer ---- */

int greet_answer_put(struct stream *s, const struct greet_answer *a, struct error *err)
{
	static const uint8_t unknown[16];
	char session[33];
	json_t *o;

	errno = 0;
	id_hex(a->session, session);
	if (!memcmp(a->session, unknown, sizeof(unknown)))
		session[0] = '\0';
	if (a->take) {
		o = json_pack("{s:i, s:s, s:b, s:o, s:{s:i}}", "version", GREET_VERSION, "program",
			      a->program, "take", 1, "features", features_to_json(a->features),
			      "parameters", "multifd-channels", (int)a->multifd_channels);
		if (o)
			set_if(o, "join", a->join);
	} else { /* the words name files, and may have been cut inside a character */
		o = json_pack("{s:i, s:s, s:b, s:i, s:o, s:o}", "version", GREET_VERSION, "program",
			      a->program, "take", 0, "status", (int)a->why.status, "reason",
			      jsonline_string(a->why.msg), "hint", jsonline_string(a->why.hint));
	}
	if (o && a->take && a->found != FOUND_NOTHING) {
		set_if(o, "found", found_names[a->found]);
		set_if(o, "session", session);
	}
	return put_frame(s, complete(o), err);
}

int greet_wait_put(struct stream *s, struct error *err)
{
	return put_frame(s, json_pack("{s:i, s:b}", "version", GREET_VERSION, "wait", 1), err);
}

static int parse_found(const json_t *o, struct greet_answer *a, struct error *err)
{
	char found[32], session[33];
	size_t i = 0;

	if (get_string(o, "found", found, sizeof(found), err) ||
	    get_string(o, "session", session, sizeof(session), err))
		return -1;
	if (found[0])
		while (i < NFOUND && strcmp(found, found_names[i]))
			i++;
	if (i == NFOUND)
		return err_set(err, ST_DATA, "the answer: found is none of its words");
	a->found = (enum greet_found)i;
	return session[0] ? id_from_hex(session, a->session, err) : 0;
}

static void parse_refusal(const json_t *o, struct greet_answer *a)
{
	const char *reason = json_string_value(json_object_get(o, "reason"));
	const char *hint = json_string_value(json_object_get(o, "hint"));
	json_int_t status = json_integer_value(json_object_get(o, "status"));
	char shown[2100];

	err_set(&a->why, ST_REFUSED, "the destination refused: %.900s",
		log_escape(shown, sizeof(shown), reason ? reason : "no reason given",
			   reason ? strlen(reason) : 15));
	/* a refusal is one whatever was wrong over there, but for what both ends found together */
	if (status == ST_DIGEST || status == ST_PROTOCOL)
		a->why.status = (enum status)status;
	if (hint && hint[0])
		err_hint(&a->why, "%.500s", log_escape(shown, sizeof(shown), hint, strlen(hint)));
}

int greet_answer_parse(const char *text, size_t len, struct greet_answer *a, bool *wait,
		       struct error *err)
{
	json_t *o = load(text, len, "answer", err);
	uint64_t channels;
	int rc = -1;

	memset(a, 0, sizeof(*a));
	*wait = get_bool(o, "wait");
	if (!o)
		return -1;
	if (*wait) {
		rc = 0;
	} else if (!check_version(o, err) &&
		   !get_string(o, "program", a->program, sizeof(a->program), err) &&
		   !get_names(o, "features", take_feature, &a->features, err) &&
		   !get_join(o, a->join, err) &&
		   !get_int(json_object_get(o, "parameters"), "multifd-channels", 1, 255, &channels,
			    err) &&
		   !parse_found(o, a, err)) {
		a->take = get_bool(o, "take");
		a->multifd_channels = (unsigned)channels;
		if (!a->take)
			parse_refusal(o, a);
		rc = a->multifd_channels
			     ? 0
			     : err_set(err, ST_DATA, "the answer is 0 multifd channels");
	}
	json_decref(o);
	return rc;
}

int greet_answer_get(struct stream *s, uint64_t wait_ms, struct greet_answer *a, struct error *err)
{
	uint64_t since = stats_now();
	bool wait = true;

	while (wait) {
		size_t len;
		char *text = get_frame(s, &len, err);
		int rc;

		if (!text)
			return -1;
		rc = greet_answer_parse(text, len, a, &wait, err);
		free(text);
		if (rc)
			return -1;
		if (wait && stats_now() - since >= wait_ms)
			return err_set(err, ST_TIMEOUT,
				       "the destination still asks to wait after %llu s",
				       (unsigned long long)(stats_now() - since) / 1000);
	}
	return 0;
}
