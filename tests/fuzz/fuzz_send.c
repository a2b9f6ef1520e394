// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A whole `send` against a destination that says what it likes, when it likes. Input: a byte of
 * enum send_mode, then steps of an opcode and its operands; an operand that is not there is 0. A
 * destination that says only what is right, in order, has to be believed; no other may ever own.
 */
#include "fuzz_memory.h"

#include "byteorder.h"
#include "link.h"
#include "log.h"
#include "source.h"
#include "transport-io.h"
#include "wire-greet.h"
#include "wire-return.h"

#include <poll.h>
#include <unistd.h>

enum send_mode {
	SEND_MIGTOOL = 1,
	SEND_MULTIFD = 2,
	SEND_COMPRESS = 4, /* without SEND_MULTIFD */
	SEND_RETURN = 8,   /* a QEMU's return path */
	SEND_STATE = 16,   /* a device state */
	SEND_ZSTD = 32,
	SEND_BYTEWISE = 64,
};

/* When the next piece can be read. */
enum when { AT_ONCE, AFTER_ALL, AFTER_COMMIT };

#define PIECES 64

struct piece {
	enum when when;
	uint8_t *bytes;
	size_t len;
};

struct script {
	struct session *ss;
	pthread_t stages; /* the thread that nothing may wait for */
	struct piece piece[PIECES];
	unsigned n, next;
	size_t at, step;
};

/* ---- a transport ---- */

static bool may_come(const struct script *s, enum when when)
{
	if (when == AT_ONCE || pthread_equal(pthread_self(), s->stages))
		return true;
	return when == AFTER_ALL ? s->ss->stream_over : s->ss->committed;
}

static ssize_t script_read(struct transport *t, void *buf, size_t len, struct error *err)
{
	struct script *s = t->priv;
	struct piece *p = &s->piece[s->next];

	if (io_stopped(t, err))
		return -1;
	if (s->next == s->n)
		return err_set(err, ST_DATA, "it says no more");
	while (!may_come(s, p->when)) {
		struct pollfd stop = { .fd = t->cancel->fd, .events = POLLIN };

		poll(&stop, 1, 1);
		if (io_stopped(t, err))
			return -1;
	}
	len = len < p->len - s->at ? len : p->len - s->at;
	if (s->step && len > s->step)
		len = s->step;
	memcpy(buf, p->bytes + s->at, len);
	s->at += len;
	if (s->at == p->len) {
		s->at = 0;
		s->next++;
	}
	return (ssize_t)len;
}

static const struct transport_ops script_ops = {
	.scheme = "script",
	.read = script_read,
	.writev = fuzz_memory_writev,
	.shutdown_write = fuzz_memory_shutdown,
	.close = io_close,
};

/* ---- the image ---- */

static char dir[64], image[80], state[80];

static void remove_image(void)
{
	unlink(image);
	unlink(state);
	rmdir(dir);
}

/* Data, a hole, zeros that are stored: 80 pages. */
static void make_image(void)
{
	uint8_t page[4096];
	int fd;

	strcpy(dir, "/dev/shm/migtool-fuzz.XXXXXX");
	FUZZ_CHECK(mkdtemp(dir));
	snprintf(image, sizeof(image), "%s/image", dir);
	snprintf(state, sizeof(state), "%s/state", dir);
	fd = open(image, O_RDWR | O_CREAT, 0600);
	FUZZ_CHECK(fd >= 0 && !ftruncate(fd, 80 * 4096));
	for (unsigned i = 0; i < 40; i++) {
		memset(page, i % 8 ? (int)i : 0, sizeof(page));
		FUZZ_CHECK(pwrite(fd, page, sizeof(page), (i < 20 ? i : i + 30) * 4096) == 4096);
	}
	close(fd);
	fd = open(state, O_RDWR | O_CREAT, 0600);
	FUZZ_CHECK(fd >= 0 && write(fd, "state", 5) == 5);
	close(fd);
	atexit(remove_image);
	log_init(LOG_ANSWER, "fuzz");
}

/* What a right READY says: learnt from the digest's own functions, not from the session. */
static void ready_payload(unsigned mode, uint8_t out[WIRE_DIGEST_LEN])
{
	struct image_source_opts opts = { 0 };
	struct wire_digest d = { 0 };
	struct digest_stream *s = digest_stream_new();
	struct error err;
	struct image *img = image_open(image, &opts, &err);

	FUZZ_CHECK(img && s && !link_image_digest(img, NULL, &d.memory, &err));
	if (mode & SEND_STATE) {
		digest_stream_update(s, "state", 5);
		d.device = digest_stream_get(s);
		d.device_size = 5;
	}
	wire_digest_pack(&d, out);
	digest_stream_free(s);
	image_close(img, false);
}

/* ---- what the destination says ---- */

struct talk {
	const uint8_t *in;
	size_t left;
	unsigned mode;
	struct script *s;
	/* how far the right conversation has come, and whether it is one still */
	bool answered, ready, done, shut, wrong;
};

static uint8_t take(struct talk *k)
{
	if (!k->left)
		return 0;
	k->left--;
	return *k->in++;
}

static void say(struct talk *k, enum when when, const void *bytes, size_t len)
{
	/* there is no COMMIT to wait for if no right READY was said */
	if (when == AFTER_COMMIT && (k->wrong || !k->ready))
		when = AFTER_ALL;
	if (k->s->n < PIECES && len)
		k->s->piece[k->s->n++] = (struct piece){ when, fuzz_copy(bytes, len), len };
	else if (len)
		k->wrong = true;
}

static void say_frame(struct talk *k, const char *text, size_t len)
{
	uint8_t bytes[GREET_MAGIC_LEN + 4 + 512];

	len = len < 512 ? len : 512;
	memcpy(bytes, GREET_MAGIC, GREET_MAGIC_LEN);
	put_be32(bytes + GREET_MAGIC_LEN, (uint32_t)len);
	memcpy(bytes + GREET_MAGIC_LEN + 4, text, len);
	say(k, AT_ONCE, bytes, GREET_MAGIC_LEN + 4 + len);
	k->wrong |= !(k->mode & SEND_MIGTOOL);
}

static void say_message(struct talk *k, enum when when, uint16_t type, const void *payload,
			uint32_t len)
{
	uint8_t bytes[6 + 2048];
	size_t head = type >= 0x4000 ? 6 : 4;

	put_be16(bytes, type);
	if (type >= 0x4000)
		put_be32(bytes + 2, len);
	else
		put_be16(bytes + 2, (uint16_t)len);
	if (len)
		memcpy(bytes + head, payload, len);
	say(k, when, bytes, head + len);
}

static void step_answer(struct talk *k)
{
	static const char *const right[] = {
		"{\"version\":1,\"take\":true,\"features\":[\"page-runs\",\"multifd-2\"]}",
		"{\"version\":1,\"take\":true}",
		"{\"version\":1,\"take\":true,\"features\":[\"x\",\"multifd-2\"],\"new\":[{}]}",
		"{\"version\":1,\"take\":true,\"parameters\":{\"multifd-channels\":255}}",
	};
	const char *text = right[take(k) % 4];

	k->wrong |= k->answered;
	k->answered = true;
	say_frame(k, text, strlen(text));
}

static void step_other_answer(struct talk *k)
{
	static const char *const other[] = {
		"{\"version\":2,\"take\":true}",
		"{\"version\":1,\"take\":false,\"status\":13,\"reason\":\"\\u001b[2J\"}",
		"{\"version\":1,\"take\":false,\"hint\":\"x\"}",
		"{\"version\":1}",
		"[]",
		"{\"version\":1,\"take\":true,\"parameters\":{\"multifd-channels\":0}}",
		"{\"version\":1,\"take\":true,\"features\":\"all\"}",
		"{\"version\":1,\"take\":true,\"program\":[[[[[[1]]]]]]}",
	};
	const char *text = other[take(k) % 8];

	k->wrong = true;
	say_frame(k, text, strlen(text));
}

static void step_frame(struct talk *k)
{
	size_t len = take(k) * 2u;

	len = len < k->left ? len : k->left;
	k->wrong = true;
	say_frame(k, (const char *)k->in, len);
	k->in += len;
	k->left -= len;
}

static void step_wait(struct talk *k)
{
	static const char text[] = "{\"version\":1,\"wait\":true}";

	k->wrong |= k->answered;
	say_frame(k, text, sizeof(text) - 1);
}

static void step_keepalive(struct talk *k)
{
	uint8_t placed[8] = { 0 };

	placed[7] = take(k);
	k->wrong |= !(k->mode & SEND_MIGTOOL) || !k->answered;
	say_message(k, k->ready ? AFTER_COMMIT : AT_ONCE, RP_KEEPALIVE, placed, sizeof(placed));
}

static void step_ready(struct talk *k)
{
	uint8_t bytes[WIRE_DIGEST_LEN];
	uint8_t how = take(k);

	ready_payload(k->mode, bytes);
	if (how >= 0x80)
		bytes[how % WIRE_DIGEST_LEN] ^= 1;
	k->wrong |= !k->answered || k->ready || how >= 0x40;
	k->ready = true;
	say_message(k, how & 0x40 ? AT_ONCE : AFTER_ALL, RP_READY, bytes, sizeof(bytes));
}

static void step_done(struct talk *k)
{
	bool early = take(k) & 1;

	k->wrong |= !k->ready || k->done || early;
	k->done = true;
	say_message(k, early ? AT_ONCE : AFTER_COMMIT, RP_DONE, NULL, 0);
}

static void step_failed(struct talk *k)
{
	uint8_t bytes[260] = { 0 };
	size_t len = 4 + (size_t)take(k), when = take(k);

	bytes[3] = take(k);
	for (size_t i = 4; i < len; i++)
		bytes[i] = take(k);
	k->wrong |= !k->done;
	say_message(k, when % 3, RP_FAILED, bytes, (uint32_t)len);
}

static void step_pong(struct talk *k)
{
	static const uint8_t one[4] = { 0, 0, 0, 1 };

	k->wrong |= k->mode & SEND_MIGTOOL;
	say_message(k, AT_ONCE, RP_PONG, one, sizeof(one));
}

static void step_shut(struct talk *k)
{
	uint8_t status[4] = { 0 };
	bool early;

	status[3] = take(k);
	early = take(k) & 1;
	k->wrong |= k->mode & SEND_MIGTOOL || status[3] || early;
	k->shut = true;
	say_message(k, early ? AT_ONCE : AFTER_ALL, RP_SHUT, status, sizeof(status));
}

static void step_message(struct talk *k)
{
	uint8_t bytes[256];
	uint16_t type = (uint16_t)(take(k) << 8);
	uint8_t len;

	type |= take(k);
	len = take(k);
	for (unsigned i = 0; i < len; i++)
		bytes[i] = take(k);
	k->wrong = true;
	say_message(k, AT_ONCE, type, bytes, len);
}

static void step_raw(struct talk *k)
{
	enum when when = take(k) % 3;
	size_t n = take(k);

	n = n < k->left ? n : k->left;
	k->wrong |= n != 0;
	say(k, when, k->in, n);
	k->in += n;
	k->left -= n;
}

static void step_corrupt(struct talk *k)
{
	unsigned back = take(k), mask = take(k);
	struct piece *p = k->s->n ? &k->s->piece[k->s->n - 1] : NULL;

	if (!p || back >= p->len || !mask)
		return;
	p->bytes[p->len - 1 - back] ^= (uint8_t)mask;
	k->wrong = true;
}

static void (*const steps[])(struct talk *) = {
	step_answer,  step_other_answer, step_frame,   step_wait, step_keepalive,
	step_ready,   step_done,	 step_failed,  step_pong, step_shut,
	step_message, step_raw,		 step_corrupt,
};

/* ---- the source ---- */

static int run_stages(struct session *ss, struct script *s, struct error *err)
{
	int (*const stages[])(struct session *, struct error *) = {
		source_greet,	source_channels,   source_setup,
		source_precopy, source_switchover, source_finish,
	};

	if (source_open(ss, err))
		return -1;
	ss->main = io_new(&script_ops, "script", &ss->cancel, err);
	FUZZ_CHECK(ss->main);
	ss->main->priv = s;
	ss->main->two_way = true;
	ss->main->end_status = ST_DATA;
	ss->main->rfd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	if (link_open_stream(ss, err))
		return -1;
	for (size_t i = 0; i < sizeof(stages) / sizeof(stages[0]); i++)
		if (stages[i](ss, err))
			return -1;
	return 0;
}

static void configure(struct config *cfg, unsigned mode)
{
	params_init(&cfg->params);
	cfg->params.num[PARAM_MULTIFD_CHANNELS] = 2;
	cfg->params.num[PARAM_COMPRESS_THREADS] = 2;
	cfg->params.num[PARAM_MULTIFD_COMPRESSION] = mode & SEND_ZSTD ? METHOD_ZSTD : METHOD_NONE;
	cfg->device_state = mode & SEND_STATE ? state : NULL;
	cfg->caps.on[CAP_MULTIFD] = mode & SEND_MULTIFD;
	cfg->caps.on[CAP_COMPRESS] = mode & SEND_COMPRESS && !(mode & SEND_MULTIFD);
	cfg->caps.on[CAP_RETURN_PATH] = mode & SEND_RETURN;
	if (mode & SEND_MIGTOOL)
		return;
	cfg->peer = PEER_QEMU;
	cfg->machine = "pc-i440fx-7.2";
}

static int send_to(struct script *s, unsigned mode)
{
	static struct session ss;
	struct config cfg = { .image = image, .timeout = -1, .ready_fd = -1 };
	struct error err = { 0 }, why;
	bool whole;
	int rc;

	configure(&cfg, mode);
	memset(&ss, 0, sizeof(ss));
	s->ss = &ss;
	s->stages = pthread_self();
	pthread_mutex_init(&ss.lock, NULL);
	pacer_init(&ss.pacer, 0);
	events_init(&ss.events, false, STDERR_FILENO);
	FUZZ_CHECK(!cancel_init(&ss.cancel, &why) && !uri_parse(&ss.uri, "null:", &why));
	ss.cfg = &cfg;
	ss.role = ROLE_SOURCE;
	ss.owner = OWNER_SOURCE;
	ss.caps = cfg.caps;
	rc = run_stages(&ss, s, &err);
	FUZZ_CHECK(!rc == ss.complete && (!rc || (err.status && err.msg[0])));
	FUZZ_CHECK(!rc == (ss.owner == OWNER_DESTINATION));
	FUZZ_CHECK(ss.committed || !rc || ss.owner == OWNER_SOURCE);
	whole = !rc;
	if (rc)
		session_fail(&ss, &err);
	source_explain(&ss, &err);
	source_end(&ss, rc ? &err : NULL);
	link_drop_main(&ss);
	uri_free(&ss.uri);
	params_free(&cfg.params);
	pacer_destroy(&ss.pacer);
	events_destroy(&ss.events);
	cancel_destroy(&ss.cancel);
	pthread_mutex_destroy(&ss.lock);
	return whole ? 0 : -1;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct script s = { 0 };
	struct talk k = { .s = &s };
	bool right;
	int rc;

	if (size < 1)
		return 0;
	if (!dir[0])
		make_image();
	k.in = data + 1;
	k.left = size - 1;
	k.mode = data[0];
	s.step = data[0] & SEND_BYTEWISE ? 1 : 0;
	while (k.left)
		steps[take(&k) % (sizeof(steps) / sizeof(steps[0]))](&k);
	rc = send_to(&s, k.mode);
	right = k.mode & SEND_MIGTOOL ? k.answered && k.ready && k.done : k.shut;
	/* a QEMU without a return path cannot say anything */
	if (right && !k.wrong)
		FUZZ_CHECK(!rc);
	if (!rc && k.mode & SEND_MIGTOOL)
		FUZZ_CHECK(k.wrong || right);
	for (unsigned i = 0; i < s.n; i++)
		free(s.piece[i].bytes);
	return 0;
}
