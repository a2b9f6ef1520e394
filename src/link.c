// SPDX-License-Identifier: GPL-2.0-or-later
#include "link.h"

#include "byteorder.h"
#include "log.h"
#include "remote.h"
#include "units.h"
#include "wire-multifd.h"
#include "wire.h"
#include "zero.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PATIENCE_MS 600000
#define SLOW_DISK   (50u << 20) /* bytes a second */

int64_t link_timeout_ms(const struct session *ss)
{
	int64_t s = ss->cfg->timeout < 0 ? 60 : ss->cfg->timeout;

	return s ? s * 1000 : -1;
}

uint64_t link_patience_ms(const struct session *ss)
{
	return PATIENCE_MS + stat_get(&ss->stats.total) / (SLOW_DISK / 1000);
}

uint64_t link_deadline(int64_t ms)
{
	return ms < 0 ? UINT64_MAX : stats_now() + (uint64_t)ms;
}

int link_left_ms(uint64_t deadline)
{
	uint64_t now = stats_now();

	if (deadline == UINT64_MAX)
		return -1;
	if (deadline <= now)
		return 0;
	return deadline - now < INT_MAX ? (int)(deadline - now) : INT_MAX;
}

bool link_multi_channel(const struct session *ss)
{
	/* a listening descriptor too gives as many as are dialled */
	return ss->cfg->far || uri_multi_channel(&ss->uri) || listener_possible(&ss->uri);
}

bool link_copies(const struct session *ss)
{
	/* at the far end of ssh: a command's pipes and sockets */
	return ss->cfg->far || !uri_zero_copy(&ss->uri);
}

int link_open_stream(struct session *ss, struct error *err)
{
	struct stream *s = &ss->stream;

	if (ss->cfg->one_way)
		ss->main->two_way = false;
	if (stream_open(s, ss->main, LINK_STREAM_BUFFER, LINK_STREAM_BUFFER, err))
		return -1;
	s->pacer = ss->role == ROLE_SOURCE && ss->pacer.rate ? &ss->pacer : NULL;
	s->activity = &ss->stats.activity;
	return 0;
}

int link_end_main(struct session *ss, struct error *err)
{
	struct transport *t;

	pthread_mutex_lock(&ss->lock);
	t = ss->main;
	ss->main = NULL;
	pthread_mutex_unlock(&ss->lock);
	if (!t)
		return 0;
	stream_close(&ss->stream);
	return transport_close(t, err);
}

void link_drop_main(struct session *ss)
{
	struct error ignored;

	link_end_main(ss, &ignored);
}

#define STEP_MS 250 /* how often the main connection is looked at meanwhile */

/* ---- dialling ---- */

static struct transport *dial(struct session *ss, bool extra, struct error *err)
{
	bool writer = ss->role == ROLE_SOURCE;
	int ms = (int)link_timeout_ms(ss);

	if (ss->uri.scheme != SCHEME_SSH)
		return transport_dial(&ss->uri, writer, ms, &ss->cancel, err);
	if (!extra || ss->join[0])
		return remote_dial(ss->cfg, &ss->uri, writer, extra ? ss->join : NULL, ms,
				   &ss->login, &ss->cancel, err);
	err_set(err, ST_PROTOCOL, "the far migtool takes no further connections");
	err_hint(err, "use the same release on both hosts, or leave multifd off");
	return NULL;
}

static struct transport *dial_secured(struct session *ss, bool extra, struct error *err)
{
	struct transport *t = dial(ss, extra, err);

	return t && ss->tls ? link_secure(ss, t, err) : t;
}

int link_dial_main(struct session *ss, struct error *err)
{
	ss->main = dial_secured(ss, false, err);
	if (!ss->main)
		return -1;
	return ss->tls ? link_await_objection(ss, err) : 0;
}

struct transport *link_dial_extra(struct session *ss, struct error *err)
{
	return dial_secured(ss, true, err);
}

/* ---- the first packet ---- */

void link_uuid(const struct session *ss, uint8_t out[16])
{
	if (!ss->uuid[0] || uuid_parse(ss->uuid, out))
		memset(out, 0, 16);
}

int link_put_hello(struct session *ss, struct stream *s, unsigned channel, struct error *err)
{
	struct multifd_init init = { .channel = (uint8_t)channel };
	uint8_t bytes[MULTIFD_INIT_LEN];

	if (ss->role == ROLE_DESTINATION || ss->dialect.migtool) {
		init.version = MULTIFD_VERSION_OURS;
		memcpy(init.id, ss->id, sizeof(init.id));
	} else {
		init.version = MULTIFD_VERSION;
		link_uuid(ss, init.id);
	}
	multifd_init_pack(&init, bytes);
	if (stream_write(s, bytes, sizeof(bytes), err))
		return -1;
	return stream_flush(s, err);
}

static int check_hello(struct session *ss, const struct multifd_init *init, struct error *err)
{
	static const uint8_t unset[16];
	uint8_t uuid[16];
	char text[37], ours[37];

	if (ss->dialect.migtool) {
		if (init->version == MULTIFD_VERSION_OURS && !memcmp(init->id, ss->id, 16))
			return 0;
		return err_set(err, ST_REFUSED, "its first packet names another session");
	}
	if (init->version != MULTIFD_VERSION)
		return err_set(err, ST_REFUSED, "its first packet has version %u, expected %u",
			       init->version, MULTIFD_VERSION);
	/* a QEMU may say its uuid nowhere else; its channels have to agree */
	if (!ss->uuid[0] && memcmp(init->id, unset, 16))
		uuid_format(init->id, ss->uuid);
	link_uuid(ss, uuid);
	if (!memcmp(init->id, uuid, 16))
		return 0;
	return err_set(err, ST_REFUSED, "its first packet has uuid %s, expected %s",
		       uuid_format(init->id, text), uuid_format(uuid, ours));
}

static int get_hello(struct stream *s, struct multifd_init *init, struct error *err)
{
	uint8_t bytes[MULTIFD_INIT_LEN];

	if (stream_read(s, bytes, sizeof(bytes), err))
		return -1;
	return multifd_init_unpack(bytes, init, err);
}

int link_take_main_hello(struct stream *s, struct error *err)
{
	struct multifd_init init;

	if (get_hello(s, &init, err))
		return -1;
	/* a main connection comes before there is a session whose id it could name */
	if (init.channel == LINK_MAIN_CHANNEL && init.version == MULTIFD_VERSION_OURS)
		return 0;
	return err_set(err, ST_REFUSED, "its first packet is that of a channel");
}

int link_take_hello(struct session *ss, struct stream *s, unsigned *channel, struct error *err)
{
	struct multifd_init init;

	if (get_hello(s, &init, err) || check_hello(ss, &init, err))
		return -1;
	if (channel)
		*channel = init.channel;
	return 0;
}

/* Whoever waits for channels reads nothing from the main connection, and its end would go by. */
int link_check_main(struct session *ss, struct error *err)
{
	struct pollfd p = { .fd = ss->main ? ss->main->rfd : -1, .events = POLLRDHUP };

	if (poll(&p, 1, 0) <= 0)
		return 0;
	return err_set(err, ST_SOCKET, "the connection to %s ended meanwhile", ss->main->name);
}

static int next_channel(struct session *ss, uint64_t deadline, struct transport **t,
			struct error *err)
{
	uint8_t first[8];

	for (;;) {
		int left = link_left_ms(deadline), r;
		struct error ignored;

		r = pending_next(ss->pending, left < 0 || left > STEP_MS ? STEP_MS : left, first, t,
				 err);
		if (r == 0 && link_check_main(ss, err))
			return err_set(err, ST_SOCKET,
				       "the connection to %s ended before all channels came",
				       ss->main->name);
		if (r == 0 && link_left_ms(deadline))
			continue;
		if (r <= 0 || get_be32(first) == MULTIFD_MAGIC)
			return r;
		log_warn("dropped %s: it is no multifd channel", (*t)->name);
		transport_close(*t, &ignored);
	}
}

/* Whoever is no channel is known by his first bytes: his greeting is not waited for. */
int link_next_channel(struct session *ss, uint64_t deadline, struct transport **t,
		      struct error *err)
{
	bool (*whole)(const uint8_t *, size_t) = ss->pending->whole;
	int rc;

	ss->pending->whole = NULL;
	rc = next_channel(ss, deadline, t, err);
	ss->pending->whole = whole;
	return rc;
}

/* Accepts until a channel of this session comes; strangers are dropped with a warning. */
static struct transport *accept_extra(struct session *ss, struct error *err)
{
	uint64_t deadline = link_deadline(link_timeout_ms(ss));

	for (;;) {
		struct stream hello;
		struct transport *t = NULL;
		struct error why, ignored;
		int r = link_next_channel(ss, deadline, &t, err);

		if (r < 0)
			return NULL;
		if (!r) {
			err_set(err, ST_TIMEOUT, "no further channel came from the other end");
			return NULL;
		}
		r = stream_open(&hello, t, MULTIFD_INIT_LEN, 0, &why);
		if (!r)
			r = link_take_hello(ss, &hello, NULL, &why);
		stream_close(&hello);
		if (!r)
			return t;
		log_warn("dropped %s: %s", t->name, why.msg);
		transport_close(t, &ignored);
	}
}

struct transport *link_source_channel(struct session *ss, unsigned id, struct stream *s,
				      struct error *err)
{
	struct transport *t = ss->pending ? accept_extra(ss, err) : link_dial_extra(ss, err);
	struct error ignored;

	if (!t)
		return NULL;
	if (!stream_open(s, t, 0, 64 << 10, err)) {
		s->pacer = ss->pacer.rate ? &ss->pacer : NULL;
		s->activity = &ss->stats.activity;
		if (ss->pending || !link_put_hello(ss, s, id, err))
			return t;
		stream_close(s);
	}
	transport_close(t, &ignored);
	return NULL;
}

#define URGENT_BUF (64u << 10) /* more than a page and its head: one read takes both */

struct transport *link_urgent_channel(struct session *ss, struct stream *s, struct error *err)
{
	struct transport *t = ss->pending ? accept_extra(ss, err) : link_dial_extra(ss, err);
	struct error ignored;

	if (t && !stream_open(s, t, URGENT_BUF, URGENT_BUF, err)) {
		s->activity = &ss->stats.activity;
		transport_be_patient(t);
		if (ss->pending || !link_put_hello(ss, s, LINK_URGENT_CHANNEL, err))
			return t;
		stream_close(s);
	}
	if (t)
		transport_close(t, &ignored);
	err_prefix(err, "the connection for requested pages");
	return NULL;
}

/* ---- identity ---- */

/* Shared blocks of a QEMU are not in its image; towards a QEMU each block needs its address. */
static int check_shared(const struct config *cfg, const struct image *img, struct error *err)
{
	bool ignore = cfg->caps.on[CAP_X_IGNORE_SHARED];
	bool from_qemu = img->manifest && !strcmp(img->manifest->source, "qemu");

	for (unsigned i = 0; i < img->nblocks; i++) {
		const struct block *b = &img->blocks[i];

		if (!ignore && from_qemu && b->shared) {
			err_set(err, ST_UNSUPPORTED,
				"block %s is shared memory, which %s does not hold", b->name,
				img->path);
			return err_hint(err, "--cap x-ignore-shared=on, with a destination that "
					     "reaches that memory by itself");
		}
		if (ignore && cfg->peer == PEER_QEMU && !b->has_gpa)
			return err_set(
				err, ST_UNSUPPORTED,
				"x-ignore-shared towards a QEMU needs the address of block %s, "
				"which the manifest of %s does not say (gpa)",
				b->name, img->path);
	}
	return 0;
}

int link_source_identity(struct session *ss, const struct image *img, struct error *err)
{
	const struct config *cfg = ss->cfg;
	const struct manifest *m = img->manifest;
	const char *machine = cfg->machine ? cfg->machine : m ? m->machine : "";
	const char *uuid = cfg->uuid ? cfg->uuid : m ? m->uuid : "";

	snprintf(ss->machine, sizeof(ss->machine), "%s", machine);
	snprintf(ss->uuid, sizeof(ss->uuid), "%s", uuid);
	if (m && !strcmp(m->source, "qemu") && cfg->peer == PEER_UNSET) {
		err_set(err, ST_USAGE, "%s came from a QEMU: say whether it goes to one",
			img->path);
		return err_hint(err, "--peer qemu (into `qemu -incoming`) or --peer migtool");
	}
	if (cfg->peer == PEER_QEMU && !machine[0]) {
		err_set(err, ST_USAGE, "a QEMU wants to know the machine, and %s does not say it",
			img->path);
		return err_hint(err, "--machine with the class name, as pc-i440fx-7.2");
	}
	return check_shared(cfg, img, err);
}

/* ---- digest of an image at rest ---- */

static int add_extent(const struct image *img, const struct block *b, struct extent e, uint8_t *buf,
		      size_t cap, struct cancel *cancel, struct digest *sum, struct error *err)
{
	while (e.len > 0) {
		size_t n = e.len < cap ? (size_t)e.len : cap;

		if (cancel && cancel_fired(cancel))
			return cancel_reason(cancel, err);
		if (image_read(img, b, e.offset, buf, n, err))
			return -1;
		for (size_t o = 0; o < n; o += DIGEST_PAGE)
			if (!zero_is(buf + o, DIGEST_PAGE))
				digest_add(sum, digest_page(&b->digest, e.offset + o, buf + o,
							    DIGEST_PAGE));
		e.offset += n;
		e.len -= n;
	}
	return 0;
}

int link_block_digest(const struct image *img, const struct block *b, struct cancel *cancel,
		      struct digest *out, struct error *err)
{
	size_t cap = 512 << 10;
	uint8_t *buf = malloc(cap);
	struct extent e = { 0, 0 };
	int rc = 0;

	memset(out, 0, sizeof(*out));
	if (!buf)
		return err_set(err, ST_NOMEM, "no memory to read %s", img->path);
	do {
		rc = image_next_data(img, b, e.offset + e.len, &e, err);
		if (!rc && e.len)
			rc = add_extent(img, b, e, buf, cap, cancel, out, err);
	} while (!rc && e.len);
	free(buf);
	return rc;
}

int link_image_digest(const struct image *img, struct cancel *cancel, struct digest *out,
		      struct error *err)
{
	memset(out, 0, sizeof(*out));
	for (unsigned i = 0; i < img->nblocks; i++) {
		struct digest sum;

		if (link_block_digest(img, &img->blocks[i], cancel, &sum, err))
			return -1;
		digest_add(out, sum);
	}
	return 0;
}

/* ---- ends ---- */

void link_last_words(struct session *ss, const void *buf, size_t len)
{
	if (ss->main)
		transport_last_words(ss->main, buf, len);
}

int link_listen_joins(struct session *ss, struct error *err)
{
	ss->joins = listener_open_joins(ss->join, &ss->cancel, err);
	if (!ss->joins)
		return -1;
	ss->pending = pending_new(ss->joins, &ss->cancel, err);
	return ss->pending ? 0 : -1;
}

/* ---- listening ---- */

static ssize_t no_more(struct transport *t, void *buf, size_t len, struct error *err)
{
	(void)t;
	(void)buf;
	(void)len;
	(void)err;
	return 0;
}

/* A QEMU's header and configuration, by whose end it is known: as the reader finds it. */
static bool head_is_whole(const uint8_t *said, size_t len)
{
	static const struct transport_ops ops = { .scheme = "memory", .read = no_more };
	struct transport t = { .ops = &ops, .end_status = ST_SOCKET };
	struct wire_config config;
	struct stream s;
	struct error err;
	uint8_t type;
	int rc;

	transport_unread(&t, (uint8_t *)said, len);
	if (stream_open(&s, &t, 4096, 0, &err))
		return true; /* who reads it has no more memory, and says so */
	rc = wire_get_header(&s, &err) || stream_get_u8(&s, &type, &err) ||
	     (type == WIRE_CONFIGURATION && wire_get_config(&s, &config, &err));
	stream_close(&s);
	return !rc || err.status != ST_SOCKET;
}

/* Has a source said who it is? Nobody who stops in the middle of that keeps others waiting. */
static bool is_introduced(const uint8_t *said, size_t len)
{
	uint32_t n;

	if (get_be32(said) == WIRE_MAGIC)
		return head_is_whole(said, len);
	if (memcmp(said, GREET_MAGIC, GREET_MAGIC_LEN))
		return true;
	if (len < GREET_MAGIC_LEN + 4)
		return false;
	n = get_be32(said + GREET_MAGIC_LEN);
	return n > GREET_MAX || len - GREET_MAGIC_LEN - 4 >= n;
}

int link_listen(struct session *ss, struct error *err)
{
	const char *uri;

	ss->listener = listener_open(&ss->uri, &ss->cancel, err);
	if (!ss->listener)
		return -1;
	ss->pending = pending_new(ss->listener, &ss->cancel, err);
	if (!ss->pending)
		return -1;
	link_secure_pending(ss);
	if (ss->role == ROLE_DESTINATION)
		ss->pending->whole = is_introduced;
	uri = listener_uri(ss->listener);
	snprintf(ss->socket_address, sizeof(ss->socket_address), "%s", uri);
	log_info("listening on %s", uri);
	link_warn_open(ss, uri);
	if (ss->cfg->ready_fd >= 0 && dprintf(ss->cfg->ready_fd, "%s\n", uri) < 0)
		return err_sys(err, ST_FILE, errno, "cannot write to --ready-fd %d",
			       ss->cfg->ready_fd);
	return 0;
}
