// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The return path's messages. Input: a byte that says how many bytes a read gives at most, then
 * what the destination says.
 */
#include "fuzz_memory.h"

#include "wire-return.h"
#include "wire.h"

static void judge_text(const char *text)
{
	for (; *text; text++)
		FUZZ_CHECK((unsigned char)*text >= 0x20 && *text != 0x7f);
}

static void judge(const struct rp_message *m)
{
	struct wire_digest d;
	uint8_t digest[WIRE_DIGEST_LEN], bytes[WIRE_FAILED_MAX];
	struct error why;
	size_t len;

	FUZZ_CHECK(m->len <= RP_PAYLOAD_MAX && strcmp(rp_name(m->type), "unknown"));
	if (m->type == RP_READY) {
		wire_digest_unpack(m->payload, &d);
		wire_digest_pack(&d, digest);
		FUZZ_CHECK(!memcmp(digest, m->payload, sizeof(digest)));
	}
	if (m->type != RP_FAILED)
		return;
	wire_failed_unpack(m->payload, m->len, "the peer", &why);
	FUZZ_CHECK(why.status != ST_OK && status_info(why.status));
	FUZZ_CHECK(!strncmp(why.msg, "the peer: ", 10));
	judge_text(why.msg);
	judge_text(why.hint);
	len = wire_failed_pack(&why, bytes);
	FUZZ_CHECK(len >= 4 && len <= sizeof(bytes));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct cancel token;
	struct rp_message *m = malloc(sizeof(*m));
	struct error err = { 0 };
	struct fuzz_said said;
	struct transport *t;
	struct stream s;
	int rc;

	FUZZ_CHECK(m && (token.fd || !cancel_init(&token, &err)));
	if (size >= 1) {
		said = (struct fuzz_said){ data + 1, size - 1, data[0] };
		t = fuzz_memory(&said, true, &token);
		FUZZ_CHECK(!stream_open(&s, t, 64, 0, &err));
		while ((rc = rp_get(&s, m, &err)) > 0)
			judge(m);
		FUZZ_CHECK(rc == 0 ? !said.left : err.status == ST_DATA && err.msg[0]);
		stream_close(&s);
		transport_close(t, &err);
	}
	free(m);
	return 0;
}
