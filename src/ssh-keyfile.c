// SPDX-License-Identifier: GPL-2.0-or-later
#include "ssh-keyfile.h"

#include "base64.h"
#include "byteorder.h"
#include "ssh-known.h"

#include <string.h>

#define BEGIN	 "-----BEGIN "
#define HEAD_MAX 8192 /* of an OpenSSH key, decoded: what stands before its private part */

static bool has(const char *text, size_t len, const char *what)
{
	return memmem(text, len, what, strlen(what)) != NULL;
}

/* Skips a string of the head; its start and length through s and n. */
static int head_string(const uint8_t **p, size_t *left, const uint8_t **s, uint32_t *n)
{
	if (*left < 4)
		return -1;
	*n = get_be32(*p);
	if (*n > *left - 4)
		return -1;
	*s = *p + 4;
	*p += 4 + *n;
	*left -= 4 + *n;
	return 0;
}

/* openssh's PROTOCOL.key */
static void parse_openssh(struct keyfile *k, const char *body, size_t len)
{
	static const char magic[] = "openssh-key-v1"; /* and its NUL */
	uint8_t head[HEAD_MAX];
	const uint8_t *p = head + sizeof(magic), *cipher, *s;
	uint32_t ncipher, n;
	size_t left, take = 0;
	long got;

	/* whole groups of four characters, as many as fit */
	for (size_t i = 0, chars = 0; i < len; i++) {
		if (body[i] == '-' || chars == HEAD_MAX / 3 * 4)
			break;
		chars += body[i] != '\n' && body[i] != '\r';
		if (chars % 4 == 0)
			take = i + 1;
	}
	got = base64_decode(head, sizeof(head), body, take);
	if (got < (long)sizeof(magic) || memcmp(head, magic, sizeof(magic)))
		return;
	left = (size_t)got - sizeof(magic);
	if (head_string(&p, &left, &cipher, &ncipher) || head_string(&p, &left, &s, &n) ||
	    head_string(&p, &left, &s, &n) || left < 4)
		return;
	k->kind = KEYFILE_OPENSSH;
	k->encrypted = ncipher != 4 || memcmp(cipher, "none", 4);
	p += 4;
	left -= 4;
	if (head_string(&p, &left, &s, &n) || n > sizeof(k->blob) || known_blob_type(s, n, k->type))
		return;
	memcpy(k->blob, s, n);
	k->len = n;
}

void keyfile_parse(struct keyfile *k, const char *text, size_t len)
{
	const char *end = text + len, *line, *body;

	memset(k, 0, sizeof(*k));
	if (len > 4 && (!memcmp(text, "ssh-", 4) || !memcmp(text, "ecds", 4) ||
			!memcmp(text, "sk-s", 4) || !memcmp(text, "sk-e", 4))) {
		k->kind = KEYFILE_PUBLIC;
		return;
	}
	line = memmem(text, len, BEGIN, strlen(BEGIN));
	body = line ? memchr(line, '\n', (size_t)(end - line)) : NULL;
	if (!body)
		return;
	line += strlen(BEGIN);
	len = (size_t)(body - line);
	if (has(line, len, "OPENSSH PRIVATE KEY-----")) {
		parse_openssh(k, body + 1, (size_t)(end - body) - 1);
		return;
	}
	if (!has(line, len, "PRIVATE KEY-----"))
		return;
	k->kind = KEYFILE_PEM;
	if (!memcmp(line, "RSA", 3))
		strcpy(k->type, "ssh-rsa");
	else if (!memcmp(line, "EC ", 3))
		strcpy(k->type, "ecdsa");
	else if (!memcmp(line, "DSA", 3))
		strcpy(k->type, "ssh-dss");
	else
		k->kind = KEYFILE_PKCS8;
	k->encrypted = !memcmp(line, "ENC", 3) ||
		       has(body, (size_t)(end - body), "Proc-Type: 4,ENCRYPTED");
}
