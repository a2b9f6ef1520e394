// SPDX-License-Identifier: GPL-2.0-or-later
/* stream and pacer, over socket pairs, pipes and files. */
#include "test.h"

#include "stream.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static struct cancel token;
static struct error e;

/* A writing stream on one end and a reading one on the other. */
struct link {
	struct transport *wt, *rt;
	struct stream w, r;
};

static int link_fds(struct link *l, int rfd, int wfd, size_t rcap, size_t wcap)
{
	memset(l, 0, sizeof(*l));
	l->wt = transport_from_fd(-1, wfd, "writer", &token, &e);
	l->rt = transport_from_fd(rfd, -1, "reader", &token, &e);
	return !l->wt || !l->rt || stream_open(&l->w, l->wt, 0, wcap, &e) ||
	       stream_open(&l->r, l->rt, rcap, 0, &e);
}

static int link_sockets(struct link *l, size_t rcap, size_t wcap)
{
	int p[2];

	return socketpair(AF_UNIX, SOCK_STREAM, 0, p) ? -1 : link_fds(l, p[0], p[1], rcap, wcap);
}

static int link_pipe(struct link *l, size_t rcap, size_t wcap)
{
	int p[2];

	return pipe(p) ? -1 : link_fds(l, p[0], p[1], rcap, wcap);
}

static void link_end_writer(struct link *l)
{
	stream_close(&l->w);
	CHECK(transport_close(l->wt, &e) == 0);
	l->wt = NULL;
}

static void link_close(struct link *l)
{
	if (l->wt)
		link_end_writer(l);
	stream_close(&l->r);
	CHECK(transport_close(l->rt, &e) == 0);
}

static uint8_t pattern(uint64_t i)
{
	return (uint8_t)(i * 7 + (i >> 8) * 13 + (i >> 16));
}

/* Reads `total` bytes in requests of many sizes and compares them with the pattern. */
struct consumer {
	struct stream *s;
	uint64_t total;
	bool ok;
};

static void *consume(void *arg)
{
	static const size_t sizes[] = { 1, 8, 4096, 100000, 3, 65536, 1 << 20, 4104, 65535 };
	struct consumer *c = arg;
	uint8_t *buf = malloc(1 << 20);
	struct error mine;
	uint64_t at = 0;

	c->ok = buf != NULL;
	for (unsigned k = 0; at < c->total && c->ok; k++) {
		size_t n = sizes[k % (sizeof(sizes) / sizeof(sizes[0]))];

		if (n > c->total - at)
			n = (size_t)(c->total - at);
		c->ok = stream_read(c->s, buf, n, &mine) == 0;
		for (size_t i = 0; i < n && c->ok; i++)
			c->ok = buf[i] == pattern(at + i);
		at += n;
	}
	free(buf);
	return NULL;
}

static void integers_travel_big_endian(void)
{
	struct link l;
	uint8_t raw[15], b;
	uint16_t h;
	uint32_t w;
	uint64_t d;

	REQUIRE(link_sockets(&l, 64, 64) == 0);
	for (int round = 0; round < 2; round++) {
		CHECK(stream_put_u8(&l.w, 0x01, &e) == 0);
		CHECK(stream_put_be16(&l.w, 0x0203, &e) == 0);
		CHECK(stream_put_be32(&l.w, 0x04050607, &e) == 0);
		CHECK(stream_put_be64(&l.w, 0x08090a0b0c0d0e0f, &e) == 0);
	}
	CHECK(l.w.bytes_out == 0);
	CHECK(stream_flush(&l.w, &e) == 0);
	CHECK(l.w.bytes_out == 30);
	CHECK(stream_read(&l.r, raw, 15, &e) == 0);
	for (unsigned i = 0; i < 15; i++)
		CHECK(raw[i] == i + 1);
	CHECK(stream_buffered(&l.r) == 15 && l.r.bytes_in == 30);
	CHECK(stream_get_u8(&l.r, &b, &e) == 0 && b == 0x01);
	CHECK(stream_get_be16(&l.r, &h, &e) == 0 && h == 0x0203);
	CHECK(stream_get_be32(&l.r, &w, &e) == 0 && w == 0x04050607);
	CHECK(stream_get_be64(&l.r, &d, &e) == 0 && d == 0x08090a0b0c0d0e0f);
	link_close(&l);
}

static void peeking_takes_nothing(void)
{
	const uint8_t *p;
	uint8_t buf[8];
	struct link l;
	bool eof;

	REQUIRE(link_sockets(&l, 8, 64) == 0);
	CHECK(stream_write(&l.w, "abcdefghijkl", 12, &e) == 0 && stream_flush(&l.w, &e) == 0);
	CHECK(stream_peek(&l.r, 4, &p, &e) == 0 && !memcmp(p, "abcd", 4));
	CHECK(stream_peek(&l.r, 8, &p, &e) == 0 && !memcmp(p, "abcdefgh", 8));
	stream_skip(&l.r, 6);
	/* The buffer's end is reached: what is left moves to the front. */
	CHECK(stream_peek(&l.r, 6, &p, &e) == 0 && !memcmp(p, "ghijkl", 6));
	CHECK(stream_peek(&l.r, 9, &p, &e) == -1 && e.status == ST_PROTOCOL);
	CHECK(stream_at_eof(&l.r, &eof, &e) == 0 && !eof);
	CHECK(stream_read_some(&l.r, buf, 2, &e) == 2 && !memcmp(buf, "gh", 2));
	CHECK(stream_read_some(&l.r, buf, 8, &e) == 4 && !memcmp(buf, "ijkl", 4));
	link_end_writer(&l);
	CHECK(stream_at_eof(&l.r, &eof, &e) == 0 && eof);
	CHECK(stream_read_some(&l.r, buf, 8, &e) == 0);
	link_close(&l);
}

static void an_early_end_says_how_far_it_came(void)
{
	uint8_t big[100];
	uint64_t d;
	struct link l;

	REQUIRE(link_sockets(&l, 64, 64) == 0);
	CHECK(stream_write(&l.w, "abc", 3, &e) == 0 && stream_flush(&l.w, &e) == 0);
	link_end_writer(&l);
	CHECK(stream_get_be64(&l.r, &d, &e) == -1 && e.status == ST_SOCKET);
	CHECK_STR(e.msg, "the connection to reader ended 3 bytes into an item of 8");
	CHECK(stream_read(&l.r, big, sizeof(big), &e) == -1 && e.status == ST_SOCKET);
	CHECK_STR(e.msg, "the connection to reader ended 3 bytes into an item of 100");
	CHECK(stream_read(&l.r, big, sizeof(big), &e) == -1);
	CHECK_STR(e.msg, "the connection to reader ended where 100 bytes were expected");
	l.rt->end_status = ST_DATA;
	CHECK(stream_read(&l.r, big, 1, &e) == -1 && e.status == ST_DATA);
	CHECK_STR(e.msg, "reader ended where 1 byte was expected");
	link_close(&l);
}

static void run_pattern(int (*make)(struct link *, size_t, size_t), size_t rcap, size_t wcap)
{
	static const size_t sizes[] = { 5, 4096, 16, 70000, 1, 300000 };
	uint64_t total = 6000000, at = 0;
	uint8_t *buf = malloc(300000);
	struct consumer c;
	pthread_t th;
	struct link l;

	REQUIRE(buf && make(&l, rcap, wcap) == 0);
	c = (struct consumer){ &l.r, total, false };
	REQUIRE(pthread_create(&th, NULL, consume, &c) == 0);
	for (unsigned k = 0; at < total; k++) {
		size_t n = sizes[k % 6];

		if (n > total - at)
			n = (size_t)(total - at);
		for (size_t i = 0; i < n; i++)
			buf[i] = pattern(at + i);
		CHECK(stream_write(&l.w, buf, n, &e) == 0);
		at += n;
	}
	CHECK(stream_flush(&l.w, &e) == 0);
	pthread_join(th, NULL);
	CHECK(c.ok);
	CHECK(l.w.bytes_out == total && l.r.bytes_in == total);
	link_close(&l);
	free(buf);
}

static void every_size_of_request_gives_the_same_bytes(void)
{
	run_pattern(link_sockets, 262144, 262144);
	run_pattern(link_pipe, 262144, 65536);
	run_pattern(link_sockets, 16, 16);
}

static void writev_keeps_the_order(void)
{
	enum { N = 2500, EACH = 100 };
	static struct iovec iov[N];
	uint8_t *buf = malloc(N * EACH + 10);
	struct consumer c;
	pthread_t th;
	struct link l;

	REQUIRE(buf && link_sockets(&l, 65536, 4096) == 0);
	for (size_t i = 0; i < N * EACH + 10; i++)
		buf[i] = pattern(i);
	for (size_t i = 0; i < N; i++) /* some are empty, the first and the last too */
		iov[i] = (struct iovec){ buf + 10 + i * EACH, i % 50 && i != N - 1 ? EACH : 0 };
	for (size_t i = 1; i < N; i++) /* what an empty one leaves out the next takes */
		if (!iov[i - 1].iov_len && iov[i].iov_len) {
			iov[i].iov_base = (uint8_t *)iov[i].iov_base - EACH;
			iov[i].iov_len += EACH;
		}
	c = (struct consumer){ &l.r, 10 + (N - 1) * EACH, false };
	REQUIRE(pthread_create(&th, NULL, consume, &c) == 0);
	CHECK(stream_write(&l.w, buf, 10, &e) == 0);
	CHECK(stream_writev(&l.w, iov, N, &e) == 0);
	CHECK(stream_writev(&l.w, iov, 0, &e) == 0);
	pthread_join(th, NULL);
	CHECK(c.ok && l.w.bytes_out == c.total);
	link_close(&l);
	free(buf);
}

static int pattern_file(uint64_t size, uint64_t first)
{
	int fd = memfd_create("pattern", MFD_CLOEXEC);
	uint8_t *m;

	if (fd < 0 || ftruncate(fd, (off_t)size))
		return -1;
	m = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (m == MAP_FAILED)
		return -1;
	for (uint64_t i = 0; i < size; i++)
		m[i] = i < first ? 0xff : pattern(i - first + 3);
	munmap(m, size);
	return fd;
}

/* Three bytes, then a file's from `skip` on. */
static void send_file(struct link *l, uint64_t skip)
{
	uint64_t size = 5000000;
	uint8_t head[3] = { pattern(0), pattern(1), pattern(2) };
	int fd = pattern_file(size, skip);
	struct consumer c = { &l->r, 3 + size - skip, false };
	pthread_t th;

	REQUIRE(fd >= 0);
	REQUIRE(pthread_create(&th, NULL, consume, &c) == 0);
	CHECK(stream_write(&l->w, head, 3, &e) == 0);
	CHECK(stream_sendfile(&l->w, fd, skip, (size_t)(size - skip), &e) == 0);
	CHECK(stream_flush(&l->w, &e) == 0);
	pthread_join(th, NULL);
	CHECK(c.ok && l->w.bytes_out == c.total);
	CHECK(stream_sendfile(&l->w, fd, size - 10, 11, &e) == -1);
	CHECK(e.status == ST_UNSUPPORTED && strstr(e.msg, "ended at 5000000"));
	close(fd);
}

static void a_file_goes_out_by_sendfile_or_without(void)
{
	struct link l;

	REQUIRE(link_sockets(&l, 262144, 65536) == 0);
	send_file(&l, 0);
	link_close(&l);
	REQUIRE(link_pipe(&l, 262144, 65536) == 0);
	send_file(&l, 4097);
	link_close(&l);
	REQUIRE(link_sockets(&l, 262144, 65536) == 0);
	l.wt->inherited = true; /* flags not ours to set, so sendfile would block */
	send_file(&l, 1);
	link_close(&l);
}

static void the_watchdog_sees_every_byte(void)
{
	_Atomic uint64_t activity = 0;
	uint8_t buf[64];
	struct link l;

	REQUIRE(link_sockets(&l, 64, 64) == 0);
	l.w.activity = l.r.activity = &activity;
	CHECK(stream_write(&l.w, "0123456789", 10, &e) == 0);
	CHECK(activity == 0);
	CHECK(stream_flush(&l.w, &e) == 0 && activity == 10);
	CHECK(stream_read(&l.r, buf, 1, &e) == 0 && activity == 20);
	stream_count_out(&l.w, 5);
	CHECK(activity == 25 && l.w.bytes_out == 15);
	link_close(&l);
}

static double seconds(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec * 1e-9;
}

struct paced {
	struct pacer *pacer;
	struct link l;
	int fd;
	bool ok;
};

static void *send_paced(void *arg)
{
	static uint8_t zeros[50000];
	struct paced *p = arg;
	struct error mine;
	struct iovec iov[2] = { { zeros, 20000 }, { zeros, 30000 } };

	p->l.w.pacer = p->pacer;
	p->ok = stream_write(&p->l.w, zeros, 10, &mine) == 0 &&
		stream_writev(&p->l.w, iov, 2, &mine) == 0 &&
		stream_sendfile(&p->l.w, p->fd, 0, 50000, &mine) == 0 &&
		stream_flush(&p->l.w, &mine) == 0;
	return NULL;
}

/* Only that it does not go faster is tested: a loaded machine may always be slower. */
static void streams_share_one_rate(void)
{
	struct paced p[2];
	struct pacer pacer;
	pthread_t th[2];
	double start;

	pacer_init(&pacer, 1000000);
	CHECK(pacer_chunk(&pacer) == 50000);
	for (int i = 0; i < 2; i++) {
		p[i] = (struct paced){ .pacer = &pacer, .fd = pattern_file(50000, 0) };
		REQUIRE(p[i].fd >= 0 && link_pipe(&p[i].l, 262144, 4096) == 0);
		REQUIRE(fcntl(p[i].l.wt->wfd, F_SETPIPE_SZ, 262144) >= 0);
	}
	start = seconds();
	for (int i = 0; i < 2; i++)
		REQUIRE(pthread_create(&th[i], NULL, send_paced, &p[i]) == 0);
	for (int i = 0; i < 2; i++)
		pthread_join(th[i], NULL);
	/* 200,020 bytes less a burst of 50,000; what is below a millisecond is never slept */
	CHECK(seconds() - start >= 0.140);
	for (int i = 0; i < 2; i++) {
		CHECK(p[i].ok && p[i].l.w.bytes_out == 100010);
		close(p[i].fd);
		link_close(&p[i].l);
	}
	pacer_destroy(&pacer);
}

static void no_rate_is_no_limit(void)
{
	struct pacer pacer;

	pacer_init(&pacer, 0);
	CHECK(pacer_chunk(&pacer) == SIZE_MAX);
	CHECK(pacer_take(&pacer, UINT64_MAX, &token, &e) == 0);
	pacer_destroy(&pacer);
}

static void *fire_soon(void *arg)
{
	struct error why;

	poll(NULL, 0, 30);
	err_set(&why, ST_CANCELLED, "the test cancels");
	cancel_fire(arg, &why);
	return NULL;
}

static void a_cancel_ends_a_paced_sleep(void)
{
	struct cancel mine;
	struct pacer pacer;
	pthread_t th;

	REQUIRE(cancel_init(&mine, &e) == 0);
	pacer_init(&pacer, 1);
	REQUIRE(pthread_create(&th, NULL, fire_soon, &mine) == 0);
	CHECK(pacer_take(&pacer, 1 << 30, &mine, &e) == -1);
	CHECK_STR(e.msg, "the test cancels");
	pthread_join(th, NULL);
	pacer_destroy(&pacer);
	cancel_destroy(&mine);
}

/* Nobody reads: the socket takes what it can, and the token is fired when it is full. */
static void what_a_cancel_interrupts_is_kept(void)
{
	uint8_t piece[3000], *rest;
	struct cancel mine;
	struct link l;
	pthread_t thread;
	uint64_t at = 0, sent = 0;
	size_t n = 0;

	REQUIRE(cancel_init(&mine, &e) == 0 && link_sockets(&l, 1 << 20, 1024) == 0);
	l.wt->cancel = &mine;
	stream_keep(&l.w, true);
	REQUIRE(pthread_create(&thread, NULL, fire_soon, &mine) == 0);
	for (unsigned i = 0; i < 500; i++) {
		size_t len = 1 + i * 6 % sizeof(piece);
		struct iovec iov[] = { { piece, len / 2 }, { piece + len / 2, len - len / 2 } };

		for (size_t k = 0; k < len; k++)
			piece[k] = pattern(at++);
		CHECK((i % 3 ? stream_write(&l.w, piece, len, &e)
			     : stream_writev(&l.w, iov, 2, &e)) == 0);
	}
	pthread_join(thread, NULL);
	rest = stream_unsent(&l.w, &n);
	REQUIRE(rest && !stream_unsent(&l.w, &n));
	link_end_writer(&l);
	while (stream_read(&l.r, piece, 1, &e) == 0)
		CHECK(*piece == pattern(sent++));
	CHECK(sent > 1000 && n > 100000 && sent + n == at);
	for (size_t k = 0; k < n; k++)
		CHECK(rest[k] == pattern(sent + k));
	free(rest);
	link_close(&l);
	cancel_destroy(&mine);
}

static void setup(void)
{
	signal(SIGPIPE, SIG_IGN);
	REQUIRE(cancel_init(&token, &e) == 0);
}

static void a_reader_that_is_gone_is_an_error(void)
{
	static uint8_t zeros[100000];
	struct link l;

	for (int i = 0; i < 2; i++) {
		REQUIRE((i ? link_pipe : link_sockets)(&l, 64, 64) == 0);
		stream_close(&l.r);
		transport_close(l.rt, &e);
		CHECK(stream_write(&l.w, zeros, sizeof(zeros), &e) == -1);
		CHECK(e.status == ST_SOCKET && e.sys == EPIPE);
		CHECK_STR(e.msg, "the connection to writer ended: Broken pipe");
		link_end_writer(&l);
	}
}

static void teardown(void)
{
	cancel_destroy(&token);
}

static const struct test_case cases[] = {
	{ "a token is there for the cases", setup },
	{ "integers travel big-endian", integers_travel_big_endian },
	{ "peeking takes nothing", peeking_takes_nothing },
	{ "an early end says how far it came", an_early_end_says_how_far_it_came },
	{ "every size of request gives the same bytes",
	  every_size_of_request_gives_the_same_bytes },
	{ "writev keeps the order", writev_keeps_the_order },
	{ "a file goes out by sendfile or without", a_file_goes_out_by_sendfile_or_without },
	{ "the watchdog sees every byte", the_watchdog_sees_every_byte },
	{ "a reader that is gone is an error", a_reader_that_is_gone_is_an_error },
	{ "streams share one rate", streams_share_one_rate },
	{ "no rate is no limit", no_rate_is_no_limit },
	{ "a cancel ends a paced sleep", a_cancel_ends_a_paced_sleep },
	{ "what a cancel interrupts can be kept", what_a_cancel_interrupts_is_kept },
	{ "the token is gone", teardown },
};
TEST_MAIN(cases)
