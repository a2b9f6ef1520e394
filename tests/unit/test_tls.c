// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A TLS transport against GnuTLS itself as the peer, which can do what a migtool never would: end
 * without a goodbye, change keys in the middle, cut a record in two.
 */
#include "test.h"

#include "psk.h"
#include "tls.h"

#include <errno.h>
#include <fcntl.h>
#include <gnutls/gnutls.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

static struct cancel token;
static struct error e;
static char dir[] = "/tmp/migtool-tls-XXXXXX", path[64];
static uint8_t key[32];

/* One connection: our transport, and a session of GnuTLS at the other end of a socket pair. */
struct pair {
	struct tls_creds *creds;
	struct transport *t;
	int fd;
	gnutls_session_t peer;
	gnutls_psk_client_credentials_t client;
};

static void *shake(void *arg)
{
	struct pair *p = arg;
	int r;

	do
		r = gnutls_handshake(p->peer);
	while (r < 0 && !gnutls_error_is_fatal(r));
	return r ? p : NULL;
}

/* We are the server, as a destination is. `size`: of the socket's buffers, 0: as it is. */
static bool connect_pair(struct pair *p, int size)
{
	struct tls_options o = { .creds = path, .server = true };
	gnutls_datum_t k = { key, sizeof(key) };
	pthread_t thread;
	void *bad;
	int fds[2], rc;

	memset(p, 0, sizeof(*p));
	p->creds = tls_creds_open(&o, &e);
	if (!p->creds || socketpair(AF_UNIX, SOCK_STREAM, 0, fds))
		return false;
	for (int i = 0; size && i < 2; i++)
		if (setsockopt(fds[i], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size)))
			return false;
	p->fd = fds[1];
	p->t = transport_from_fd(fds[0], fds[0], "test", &token, &e);
	p->t = p->t ? tls_wrap(p->creds, p->t, &e) : NULL;
	if (!p->t || gnutls_init(&p->peer, GNUTLS_CLIENT))
		return false;
	gnutls_psk_allocate_client_credentials(&p->client);
	gnutls_psk_set_client_credentials(p->client, "qemu", &k, GNUTLS_PSK_KEY_RAW);
	gnutls_credentials_set(p->peer, GNUTLS_CRD_PSK, p->client);
	gnutls_priority_set_direct(p->peer, "NORMAL:+ECDHE-PSK", NULL);
	gnutls_transport_set_int(p->peer, p->fd);
	if (pthread_create(&thread, NULL, shake, p))
		return false;
	rc = tls_handshake(p->t, 5000, &e);
	pthread_join(thread, &bad);
	return !rc && !bad;
}

static void close_pair(struct pair *p)
{
	transport_close(p->t, &e);
	gnutls_deinit(p->peer);
	gnutls_psk_free_client_credentials(p->client);
	close(p->fd);
	tls_creds_close(p->creds);
}

static bool say(struct pair *p, const char *text)
{
	return gnutls_record_send(p->peer, text, strlen(text)) == (ssize_t)strlen(text);
}

static void an_announced_end_is_one(void)
{
	struct pair p;
	char buf[8];

	REQUIRE(connect_pair(&p, 0));
	CHECK(say(&p, "abc") && !gnutls_bye(p.peer, GNUTLS_SHUT_WR));
	CHECK(transport_read(p.t, buf, sizeof(buf), &e) == 3 && !memcmp(buf, "abc", 3));
	CHECK(transport_read(p.t, buf, sizeof(buf), &e) == 0);
	CHECK(transport_read(p.t, buf, sizeof(buf), &e) == 0);
	close_pair(&p);
}

static void an_end_that_nobody_announced_is_an_error(void)
{
	struct pair p;
	char buf[8];

	REQUIRE(connect_pair(&p, 0));
	CHECK(say(&p, "abc"));
	shutdown(p.fd, SHUT_WR);
	CHECK(transport_read(p.t, buf, sizeof(buf), &e) == 3);
	CHECK(transport_read(p.t, buf, sizeof(buf), &e) == -1 && e.status == ST_SOCKET);
	CHECK_STR(e.msg, "the connection to test ended without TLS's goodbye");
	CHECK(transport_read(p.t, buf, sizeof(buf), &e) == -1);
	close_pair(&p);
}

static void a_qemu_may_end_without_a_word_between_records(void)
{
	struct pair p;
	char buf[8];

	REQUIRE(connect_pair(&p, 0));
	p.t->lax_end = true;
	CHECK(say(&p, "abc"));
	shutdown(p.fd, SHUT_WR);
	CHECK(transport_read(p.t, buf, sizeof(buf), &e) == 3);
	CHECK(transport_read(p.t, buf, sizeof(buf), &e) == 0);
	close_pair(&p);
}

static void nobody_may_end_inside_a_record(void)
{
	static const uint8_t half[] = { 23, 3, 3, 0, 40, 1, 2, 3 };
	struct pair p;
	char buf[8];

	REQUIRE(connect_pair(&p, 0));
	p.t->lax_end = true;
	CHECK(write(p.fd, half, sizeof(half)) == sizeof(half));
	shutdown(p.fd, SHUT_WR);
	CHECK(transport_read(p.t, buf, sizeof(buf), &e) == -1 && e.status == ST_SOCKET);
	close_pair(&p);
}

static void what_was_changed_on_the_way_is_wrong_data(void)
{
	uint8_t forged[5 + 64] = { 23, 3, 3, 0, 64 };
	struct pair p;
	char buf[8];
	int r;

	REQUIRE(connect_pair(&p, 0));
	CHECK(write(p.fd, forged, sizeof(forged)) == sizeof(forged));
	CHECK(transport_read(p.t, buf, sizeof(buf), &e) == -1 && e.status == ST_DATA);
	/* and the peer is told */
	r = (int)gnutls_record_recv(p.peer, buf, sizeof(buf));
	CHECK(r == GNUTLS_E_FATAL_ALERT_RECEIVED);
	CHECK(gnutls_alert_get(p.peer) == GNUTLS_A_BAD_RECORD_MAC);
	close_pair(&p);
}

static void peeking_takes_nothing_and_waiting_sees_it(void)
{
	struct pair p;
	char buf[16];

	REQUIRE(connect_pair(&p, 0));
	CHECK(transport_peek(p.t, buf, 8, &e) == 0);
	CHECK(transport_poll_in(p.t, 20, &e) == 0);
	CHECK(say(&p, "abc"));
	CHECK(transport_poll_in(p.t, 5000, &e) == 1);
	CHECK(transport_peek(p.t, buf, 8, &e) == 3);
	CHECK(say(&p, "defgh"));
	CHECK(transport_poll_in(p.t, 0, &e) == 1);
	for (int i = 0; i < 500 && transport_peek(p.t, buf, 16, &e) < 8; i++)
		usleep(1000);
	CHECK(transport_peek(p.t, buf, 16, &e) == 8 && !memcmp(buf, "abcdefgh", 8));
	CHECK(transport_peek(p.t, buf, 4, &e) == 4);
	CHECK(transport_read(p.t, buf, 2, &e) == 2 && !memcmp(buf, "ab", 2));
	CHECK(transport_peek(p.t, buf, 16, &e) == 6 && !memcmp(buf, "cdefgh", 6));
	CHECK(transport_read(p.t, buf, 16, &e) == 6);
	gnutls_bye(p.peer, GNUTLS_SHUT_WR);
	CHECK(transport_poll_in(p.t, 5000, &e) == 1);
	CHECK(transport_peek(p.t, buf, 16, &e) == -1);
	close_pair(&p);
}

static void no_descriptor_is_given_out_to_write_to(void)
{
	struct pair p;

	REQUIRE(connect_pair(&p, 0));
	CHECK(transport_raw_wfd(p.t) == -1 && !p.t->ops->sendfile && p.t->two_way);
	close_pair(&p);
}

/* ---- both ways at once, through small buffers, while keys change ---- */

#define MUCH (8u << 20)

static uint8_t pattern(size_t at)
{
	return (uint8_t)(at * 31 + (at >> 13));
}

static const char *peer_sends(struct pair *p)
{
	static uint8_t buf[16000];
	size_t at = 0, changes = 0;

	while (at < MUCH) {
		size_t n = MUCH - at < sizeof(buf) ? MUCH - at : sizeof(buf);
		ssize_t r;

		for (size_t i = 0; i < n; i++)
			buf[i] = pattern(at + i);
		r = gnutls_record_send(p->peer, buf, n);
		if (r < 0)
			return "cannot send";
		at += (size_t)r;
		/* more often than GnuTLS' limit of eight a second would be an attack */
		if (at / (MUCH / 4) > changes) {
			changes++;
			if (gnutls_session_key_update(p->peer, GNUTLS_KU_PEER))
				return "cannot change keys";
		}
	}
	return gnutls_bye(p->peer, GNUTLS_SHUT_WR) ? "cannot end" : NULL;
}

static const char *we_receive(struct pair *p)
{
	static uint8_t buf[50000];
	size_t at = 0;
	struct error err;

	for (;;) {
		ssize_t n = transport_read(p->t, buf, sizeof(buf), &err);

		if (n <= 0)
			return n || at != MUCH ? "ended too soon" : NULL;
		for (ssize_t i = 0; i < n; i++)
			if (buf[i] != pattern(at++))
				return "wrong bytes";
	}
}

/* Pieces of all sizes, so that records are put together from some and are parts of others. */
static const char *we_send(struct pair *p)
{
	static uint8_t all[MUCH];
	size_t at = 0;
	unsigned seed = 7;
	struct error err;

	for (size_t i = 0; i < MUCH; i++)
		all[i] = pattern(i);
	while (at < MUCH) {
		struct iovec iov[9];
		size_t sum = 0;
		int n = 0;

		for (; n < 9 && at + sum < MUCH; n++) {
			size_t len = rand_r(&seed) % (n % 3 ? 5000 : 60000);

			if (len > MUCH - at - sum)
				len = MUCH - at - sum;
			iov[n] = (struct iovec){ all + at + sum, len };
			sum += len;
		}
		if (transport_writev(p->t, iov, n, &err) != (ssize_t)sum)
			return "cannot write";
		at += sum;
	}
	return transport_shutdown_write(p->t, &err) ? "cannot end" : NULL;
}

static const char *peer_receives(struct pair *p)
{
	static uint8_t buf[16384];
	size_t at = 0;

	for (;;) {
		ssize_t n = gnutls_record_recv(p->peer, buf, sizeof(buf));

		if (n == GNUTLS_E_AGAIN) /* new keys came, and nothing else */
			continue;
		if (n <= 0)
			return n || at != MUCH ? "the peer's ended too soon" : NULL;
		for (ssize_t i = 0; i < n; i++)
			if (buf[i] != pattern(at++))
				return "the peer's wrong bytes";
	}
}

struct job {
	struct pair *p;
	const char *(*work)(struct pair *p);
	const char *wrong;
};

static void *do_job(void *arg)
{
	struct job *j = arg;

	j->wrong = j->work(j->p);
	return NULL;
}

/*
 * The peer, being GnuTLS without our lock, must not do both at once while keys change: it sends
 * all, changing keys, with our sender at work and blocked; what we send it reads afterwards.
 */
static void keys_change_while_both_ends_talk(void)
{
	struct pair p;
	struct job jobs[2] = { { &p, we_receive, NULL }, { &p, we_send, NULL } };
	const char *wrong;
	pthread_t thread[2];

	REQUIRE(connect_pair(&p, 65536));
	for (int i = 0; i < 2; i++)
		REQUIRE(!pthread_create(&thread[i], NULL, do_job, &jobs[i]));
	wrong = peer_sends(&p);
	CHECK_STR(wrong ? wrong : "", "");
	wrong = peer_receives(&p);
	CHECK_STR(wrong ? wrong : "", "");
	if (wrong) /* nobody waits for it */
		shutdown(p.fd, SHUT_RDWR);
	for (int i = 0; i < 2; i++) {
		pthread_join(thread[i], NULL);
		CHECK_STR(jobs[i].wrong ? jobs[i].wrong : "", "");
	}
	close_pair(&p);
}

static void last_words_are_heard_although_the_token_was_fired(void)
{
	struct error why;
	struct pair p;
	char buf[64];

	err_set(&why, ST_CANCELLED, "enough");
	REQUIRE(connect_pair(&p, 0));
	CHECK(say(&p, "more and more"));
	cancel_fire(&token, &why);
	CHECK(transport_read(p.t, buf, sizeof(buf), &e) == -1 && e.status == ST_CANCELLED);
	fcntl(p.fd, F_SETFL, O_NONBLOCK);
	transport_last_words(p.t, "farewell", 8);
	CHECK(gnutls_record_recv(p.peer, buf, sizeof(buf)) == 8 && !memcmp(buf, "farewell", 8));
	CHECK(gnutls_record_recv(p.peer, buf, sizeof(buf)) == 0);
	close_pair(&p);
	cancel_destroy(&token);
	CHECK(!cancel_init(&token, &e));
}

static void who_failed_does_not_say_goodbye(void)
{
	struct error why;
	struct pair p;
	char abc[] = "abc";
	struct iovec iov = { abc, 3 };
	char buf[64];

	err_set(&why, ST_CANCELLED, "enough");
	REQUIRE(connect_pair(&p, 0));
	CHECK(transport_writev(p.t, &iov, 1, &e) == 3);
	cancel_fire(&token, &why);
	transport_close(p.t, &e);
	CHECK(gnutls_record_recv(p.peer, buf, sizeof(buf)) == 3);
	CHECK(gnutls_record_recv(p.peer, buf, sizeof(buf)) == GNUTLS_E_PREMATURE_TERMINATION);
	p.t = NULL;
	close_pair(&p);
	cancel_destroy(&token);
	CHECK(!cancel_init(&token, &e));
}

static void one_way_has_no_tls(void)
{
	struct tls_options o = { .creds = path, .server = true };
	struct tls_creds *c = tls_creds_open(&o, &e);
	struct transport *t;
	int fds[2];

	REQUIRE(c && !pipe(fds));
	t = transport_from_fd(fds[0], -1, "pipe", &token, &e);
	CHECK(t && !tls_wrap(c, t, &e) && e.status == ST_UNSUPPORTED);
	CHECK_STR(e.msg, "pipe: TLS needs both ways, and this one has one");
	close(fds[1]);
	tls_creds_close(c);
}

static const struct test_case cases[] = {
	{ "an announced end is one", an_announced_end_is_one },
	{ "an end that nobody announced is an error", an_end_that_nobody_announced_is_an_error },
	{ "a QEMU may end without a word, between records",
	  a_qemu_may_end_without_a_word_between_records },
	{ "nobody may end inside a record", nobody_may_end_inside_a_record },
	{ "what was changed on the way is wrong data", what_was_changed_on_the_way_is_wrong_data },
	{ "peeking takes nothing, and waiting sees it", peeking_takes_nothing_and_waiting_sees_it },
	{ "no descriptor is given out to write to", no_descriptor_is_given_out_to_write_to },
	{ "keys change while both ends talk", keys_change_while_both_ends_talk },
	{ "last words are heard although the token was fired",
	  last_words_are_heard_although_the_token_was_fired },
	{ "who failed does not say goodbye", who_failed_does_not_say_goodbye },
	{ "one way has no TLS", one_way_has_no_tls },
};

static bool make_key_file(void)
{
	char line[PSK_LINE_MAX];
	size_t n;
	int fd;

	for (size_t i = 0; i < sizeof(key); i++)
		key[i] = (uint8_t)(i * 7 + 1);
	n = psk_line(line, "qemu", key, sizeof(key));
	if (!mkdtemp(dir))
		return false;
	snprintf(path, sizeof(path), "%s/keys.psk", dir);
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0)
		return false;
	n -= (size_t)write(fd, line, n);
	return !close(fd) && !n;
}

#define main run_cases
int run_cases(void);
TEST_MAIN(cases)
#undef main

int main(void)
{
	int rc = 1;

	if (!cancel_init(&token, &e) && make_key_file())
		rc = run_cases();
	unlink(path);
	rmdir(dir);
	cancel_destroy(&token);
	return rc;
}
