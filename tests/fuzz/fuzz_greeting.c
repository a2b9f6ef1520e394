// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The greeting's JSON, and the answer's. Input: 'g' or 'a', then the text. What was taken is within
 * its bounds, and written and read again it is the same.
 */
#include "fuzz_memory.h"

#include "wire-greet.h"
#include "wire-ram.h"

/* What was written, as what is read. */
struct echo {
	uint8_t bytes[GREET_MAX + 64];
	struct fuzz_said said;
};

static ssize_t echo_writev(struct transport *t, const struct iovec *iov, int n, bool more,
			   struct error *err)
{
	struct echo *e = t->priv;
	size_t all = 0;

	(void)more;
	(void)err;
	for (int i = 0; i < n; i++) {
		FUZZ_CHECK(e->said.left + iov[i].iov_len <= sizeof(e->bytes));
		memcpy(e->bytes + e->said.left, iov[i].iov_base, iov[i].iov_len);
		e->said.left += iov[i].iov_len;
		all += iov[i].iov_len;
	}
	return (ssize_t)all;
}

static ssize_t echo_read(struct transport *t, void *buf, size_t len, struct error *err)
{
	struct echo *e = t->priv;
	struct transport as = { .priv = &e->said, .cancel = t->cancel };

	if (!e->said.bytes)
		e->said.bytes = e->bytes;
	return fuzz_memory_read(&as, buf, len, err);
}

static const struct transport_ops echo_ops = {
	.scheme = "echo", .read = echo_read, .writev = echo_writev, .close = io_close
};

static struct cancel token;
static struct echo echo;
static struct transport *wire;
static struct stream stream;

static void open_echo(void)
{
	struct error err;

	FUZZ_CHECK(token.fd || !cancel_init(&token, &err));
	wire = io_new(&echo_ops, "echo", &token, &err);
	FUZZ_CHECK(wire);
	wire->priv = &echo;
	echo.said = (struct fuzz_said){ 0 };
	FUZZ_CHECK(!stream_open(&stream, wire, 4096, 4096, &err));
}

static void close_echo(void)
{
	struct error err;

	stream_close(&stream);
	transport_close(wire, &err);
}

static void judge_blocks(const struct greeting *g)
{
	uint64_t total = 0;

	FUZZ_CHECK(g->nblocks <= RAM_BLOCKS_MAX);
	for (unsigned i = 0; i < g->nblocks; i++) {
		const struct greet_block *b = &g->blocks[i];

		FUZZ_CHECK(b->name[0] && memchr(b->name, '\0', sizeof(b->name)));
		FUZZ_CHECK(b->size && b->size % g->page_size == 0);
		FUZZ_CHECK(b->page_size >= 4096 && !(b->page_size & (b->page_size - 1)));
		FUZZ_CHECK(b->size <= (uint64_t)INT64_MAX - total);
		total += b->size;
		for (unsigned k = 0; k < i; k++)
			FUZZ_CHECK(strcmp(b->name, g->blocks[k].name));
	}
}

static void same(const struct greeting *a, const struct greeting *b)
{
	FUZZ_CHECK(!strcmp(a->program, b->program) && !strcmp(a->machine, b->machine));
	FUZZ_CHECK(!strcmp(a->uuid, b->uuid) && !strcmp(a->target_arch, b->target_arch));
	FUZZ_CHECK(!strcmp(a->run_state, b->run_state) && !memcmp(a->session, b->session, 16));
	FUZZ_CHECK(!memcmp(&a->caps.on, &b->caps.on, sizeof(a->caps.on)));
	FUZZ_CHECK(a->dry_run == b->dry_run && a->one_way == b->one_way);
	FUZZ_CHECK(a->multifd_channels == b->multifd_channels);
	FUZZ_CHECK(a->multifd_compression == b->multifd_compression);
	FUZZ_CHECK(a->page_size == b->page_size && a->features == b->features);
	FUZZ_CHECK(a->has_base == b->has_base && digest_equal(a->base, b->base));
	FUZZ_CHECK(a->has_device_state == b->has_device_state && a->data_bytes == b->data_bytes);
	FUZZ_CHECK(a->resume == b->resume && a->knows_session == b->knows_session);
	FUZZ_CHECK(a->retries == b->retries && !memcmp(a->resumed, b->resumed, 16));
	FUZZ_CHECK(a->nblocks == b->nblocks);
	for (unsigned i = 0; i < a->nblocks; i++) {
		const struct greet_block *x = &a->blocks[i], *y = &b->blocks[i];

		FUZZ_CHECK(!strcmp(x->name, y->name) && x->size == y->size);
		FUZZ_CHECK(x->page_size == y->page_size && x->shared == y->shared);
		FUZZ_CHECK(x->has_gpa == y->has_gpa && x->gpa == y->gpa);
		FUZZ_CHECK(x->has_digest == y->has_digest && digest_equal(x->digest, y->digest));
	}
}

static void greeting(const char *text, size_t len)
{
	struct greeting g, again;
	struct error err = { 0 };

	if (greet_parse(text, len, &g, &err)) {
		FUZZ_CHECK(err.msg[0] && (err.status == ST_DATA || err.status == ST_PROTOCOL));
		greet_free(&g);
		return;
	}
	judge_blocks(&g);
	FUZZ_CHECK(g.page_size >= 4096 && g.page_size <= 65536);
	FUZZ_CHECK(g.multifd_channels >= 1 && g.multifd_channels <= 255);
	open_echo();
	if (!greet_put(&stream, &g, &err)) {
		FUZZ_CHECK(!greet_get(&stream, &again, &err));
		same(&g, &again);
		greet_free(&again);
	}
	close_echo();
	greet_free(&g);
}

static void answer(const char *text, size_t len)
{
	struct greet_answer a, again;
	struct error err = { 0 };
	bool wait;

	if (greet_answer_parse(text, len, &a, &wait, &err)) {
		FUZZ_CHECK(err.msg[0] && (err.status == ST_DATA || err.status == ST_PROTOCOL));
		return;
	}
	if (wait)
		return;
	FUZZ_CHECK(a.multifd_channels >= 1 && a.multifd_channels <= 255);
	FUZZ_CHECK(!a.take == (a.why.status != ST_OK));
	FUZZ_CHECK(!a.take == !!a.why.msg[0]);
	open_echo();
	FUZZ_CHECK(!greet_wait_put(&stream, &err) && !greet_answer_put(&stream, &a, &err));
	FUZZ_CHECK(!greet_answer_get(&stream, 60000, &again, &err));
	FUZZ_CHECK(a.take == again.take && !strcmp(a.program, again.program));
	if (a.take)
		FUZZ_CHECK(a.features == again.features &&
			   a.multifd_channels == again.multifd_channels && a.found == again.found);
	else
		FUZZ_CHECK(a.why.status == again.why.status);
	close_echo();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text;

	if (size < 1)
		return 0;
	text = (char *)fuzz_copy(data + 1, size - 1);
	if (data[0] == 'g')
		greeting(text, size - 1);
	else
		answer(text, size - 1);
	free(text);
	return 0;
}
