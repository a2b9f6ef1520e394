// SPDX-License-Identifier: GPL-2.0-or-later
#include "test.h"

#include "base64.h"
#include "ssh-keyfile.h"

/* The head of a key that ssh-keygen -t ed25519 made. */
#define PLAIN_HEAD                                                                             \
	"b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAABAAAAMwAAAAtzc2gtZWQyNTUxOQAAACBM" \
	"ChEM08EJTXF/zJJn6vMMH28xUFQJps65Pn24gfb8TA"

static struct keyfile k;

static void parse(const char *text)
{
	keyfile_parse(&k, text, strlen(text));
}

/* An OpenSSH key with this cipher and public blob, its private part left out. */
static const char *made(const char *cipher, const char *blob, size_t bloblen)
{
	static char text[16384];
	unsigned char raw[8192] = "openssh-key-v1";
	size_t n = 15, c = strlen(cipher);
	char *p = text;

	memcpy(raw + n, (unsigned char[]){ 0, 0, 0, (unsigned char)c }, 4);
	memcpy(raw + n + 4, cipher, c);
	n += 4 + c;
	memcpy(raw + n, "\0\0\0\4none\0\0\0\0\0\0\0\1", 16);
	n += 16;
	memcpy(raw + n, (unsigned char[]){ 0, 0, bloblen >> 8 & 0xff, bloblen & 0xff }, 4);
	memcpy(raw + n + 4, blob, bloblen);
	n += 4 + bloblen;
	p += sprintf(p, "-----BEGIN OPENSSH PRIVATE KEY-----\n");
	base64_encode(p, raw, n, true);
	strcat(p, "\n-----END OPENSSH PRIVATE KEY-----\n");
	return text;
}

static void a_real_key_s_public_part_is_seen(void)
{
	parse("-----BEGIN OPENSSH PRIVATE KEY-----\n" PLAIN_HEAD
	      "==\n-----END OPENSSH PRIVATE KEY-----\n");
	CHECK(k.kind == KEYFILE_OPENSSH);
	CHECK(!k.encrypted);
	CHECK_STR(k.type, "ssh-ed25519");
	CHECK(k.len == 51);
}

static void a_key_with_a_passphrase_is_told(void)
{
	parse(made("aes256-ctr", "\0\0\0\13ssh-ed25519\0\0\0\1x", 20));
	CHECK(k.kind == KEYFILE_OPENSSH);
	CHECK(k.encrypted);
	CHECK_STR(k.type, "ssh-ed25519");
	CHECK(k.len == 20);
	parse(made("none", "\0\0\0\13ssh-ed25519\0\0\0\1x", 20));
	CHECK(!k.encrypted);
}

static void older_forms_are_told_by_their_first_line(void)
{
	parse("-----BEGIN RSA PRIVATE KEY-----\nAAAA\n-----END RSA PRIVATE KEY-----\n");
	CHECK(k.kind == KEYFILE_PEM && !k.encrypted && !k.len);
	CHECK_STR(k.type, "ssh-rsa");
	parse("-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES\n\nAAAA\n");
	CHECK(k.kind == KEYFILE_PEM && k.encrypted);
	CHECK_STR(k.type, "ecdsa");
	parse("-----BEGIN PRIVATE KEY-----\nAAAA\n");
	CHECK(k.kind == KEYFILE_PKCS8 && !k.encrypted);
	CHECK_STR(k.type, "");
	parse("some comment\r\n-----BEGIN ENCRYPTED PRIVATE KEY-----\r\nAAAA\r\n");
	CHECK(k.kind == KEYFILE_PKCS8 && k.encrypted);
}

static void a_public_key_is_told(void)
{
	parse("ssh-ed25519 AAAA comment\n");
	CHECK(k.kind == KEYFILE_PUBLIC);
	parse("ecdsa-sha2-nistp256 AAAA comment\n");
	CHECK(k.kind == KEYFILE_PUBLIC);
}

static void what_is_no_key_is_none(void)
{
	static const char *const none[] = {
		"",
		"x",
		"ssh",
		"-----BEGIN ",
		"-----BEGIN OPENSSH PRIVATE KEY-----",
		"-----BEGIN OPENSSH PRIVATE KEY-----\n",
		"-----BEGIN OPENSSH PRIVATE KEY-----\n!!!!\n",
		"-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEA\n",
		"-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEA/////w==\n",
		"-----BEGIN CERTIFICATE-----\nAAAA\n",
	};

	for (size_t i = 0; i < sizeof(none) / sizeof(none[0]); i++) {
		parse(none[i]);
		CHECK(k.kind == KEYFILE_NONE);
		CHECK(!k.len);
	}
}

static void lengths_that_lie_are_not_followed(void)
{
	char text[4096];

	/* cut at every place: never more is seen than is there */
	for (size_t n = 0; n < 140; n++) {
		int len = snprintf(text, sizeof(text),
				   "-----BEGIN OPENSSH PRIVATE KEY-----\n%.*s\n", (int)n,
				   PLAIN_HEAD "==");

		keyfile_parse(&k, text, (size_t)len);
		CHECK(k.len == 0 || k.len == 51);
		CHECK(k.kind == KEYFILE_NONE || k.kind == KEYFILE_OPENSSH);
	}
	parse(made("none", "\0\0\0\377ssh-ed25519", 15)); /* the type's */
	CHECK(k.kind == KEYFILE_OPENSSH && !k.len);
}

static const struct test_case cases[] = {
	{ "a real key's public part is seen", a_real_key_s_public_part_is_seen },
	{ "a key with a passphrase is told", a_key_with_a_passphrase_is_told },
	{ "older forms are told by their first line", older_forms_are_told_by_their_first_line },
	{ "a public key is told", a_public_key_is_told },
	{ "what is no key is none", what_is_no_key_is_none },
	{ "lengths that lie are not followed", lengths_that_lie_are_not_followed },
};

TEST_MAIN(cases)
