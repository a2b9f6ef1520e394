// SPDX-License-Identifier: GPL-2.0-or-later
#include "test.h"

#include "base64.h"
#include "ssh-known.h"

#define ED "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEwKEQzTwQlNcX/Mkmfq8wwfbzFQVAmmzrk+fbiB9vxM"
#define EC                                                                                         \
	"ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBB4r011fRsg3fvVP" \
	"C2u4jSZeUsZQ5llrQmDtontSIHI2tG1JkudLiijqUhxrwGPgNoRMCNLb2nnSeAJbetvoTRs="
/* One bit of ED's last byte is another. */
#define ED2 "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEwKEQzTwQlNcX/Mkmfq8wwfbzFQVAmmzrk+fbiB9vxN"

/* As `ssh-keygen -H` made them, of example.org and of [10.0.0.7]:2222. */
#define HASHED_NAME "|1|li6hZvNHxa5rVJTKZ2MAYyInbUc=|P9wQFi/jyhVpW7yhf0GxV0tYtG4="
#define HASHED_PORT "|1|o8Rj/IZlvN7bAGHFll4tDojQCq8=|rLgHaz4iSzwEp3CqDmakP85kJWk="

static unsigned decided_at; /* the line, 0: none */

/* What the text says of a key (of its TYPE BASE64 form) that host:port shows. */
static enum known_verdict judge(const char *text, const char *host, unsigned port, const char *key)
{
	const char *base64 = strchr(key, ' ') + 1;
	struct known_hosts k = { 0 };
	const struct known_key *which;
	struct error err = { 0 };
	enum known_verdict v;
	uint8_t blob[1024];
	long len = base64_decode(blob, sizeof(blob), base64, strlen(base64));

	CHECK(len > 0);
	CHECK(known_add(&k, "file", text, strlen(text), host, port, &err) == 0);
	v = known_judge(&k, blob, (size_t)len, &which);
	decided_at = which ? which->line : 0;
	known_free(&k);
	return v;
}

static void a_plain_name_is_found(void)
{
	const char *text = "# comment\n\nother " EC "\nexample.org,10.0.0.7 " ED " root@example\n";

	CHECK(judge(text, "example.org", 22, ED) == KNOWN_YES);
	CHECK(decided_at == 4);
	CHECK(judge(text, "10.0.0.7", 22, ED) == KNOWN_YES);
	CHECK(judge(text, "Example.ORG", 22, ED) == KNOWN_YES);
	CHECK(judge(text, "example.or", 22, ED) == KNOWN_NO);
	CHECK(judge(text, "xexample.org", 22, ED) == KNOWN_NO);
}

static void hashed_names_are_found(void)
{
	const char *text = HASHED_NAME " " ED "\n" HASHED_PORT " " ED "\n";

	CHECK(judge(text, "example.org", 22, ED) == KNOWN_YES);
	CHECK(judge(text, "EXAMPLE.org", 22, ED) == KNOWN_YES);
	CHECK(decided_at == 1);
	CHECK(judge(text, "10.0.0.7", 2222, ED) == KNOWN_YES);
	CHECK(decided_at == 2);
	CHECK(judge(text, "10.0.0.7", 22, ED) == KNOWN_NO);
	CHECK(judge(text, "example.com", 22, ED) == KNOWN_NO);
}

static void another_port_is_another_host(void)
{
	CHECK(judge("[h]:2222 " ED "\n", "h", 2222, ED) == KNOWN_YES);
	CHECK(judge("[h]:2222 " ED "\n", "h", 22, ED) == KNOWN_NO);
	CHECK(judge("[h]:2222 " ED "\n", "h", 222, ED) == KNOWN_NO);
	CHECK(judge("h " ED "\n", "h", 2222, ED) == KNOWN_NO);
	CHECK(judge("[::1]:2222 " ED "\n", "::1", 2222, ED) == KNOWN_YES);
	CHECK(judge("::1 " ED "\n", "::1", 22, ED) == KNOWN_YES);
}

static void patterns_match_and_exclude(void)
{
	const char *text = "*.example.org,!bad.example.org " ED "\n";

	CHECK(judge(text, "a.example.org", 22, ED) == KNOWN_YES);
	CHECK(judge(text, "a.b.example.org", 22, ED) == KNOWN_YES);
	CHECK(judge(text, "example.org", 22, ED) == KNOWN_NO);
	CHECK(judge(text, "bad.example.org", 22, ED) == KNOWN_NO);
	CHECK(judge("!bad*,* " ED "\n", "bad1", 22, ED) == KNOWN_NO);
	CHECK(judge("h?st " ED "\n", "host", 22, ED) == KNOWN_YES);
	CHECK(judge("h?st " ED "\n", "hst", 22, ED) == KNOWN_NO);
	CHECK(judge("*a*a*a*a*a*a*a*a*b " ED "\n", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaac", 22,
		    ED) == KNOWN_NO);
	CHECK(judge("[*.org]:2* " ED "\n", "a.org", 2222, ED) == KNOWN_YES);
}

static void a_changed_key_is_told_from_another_type(void)
{
	CHECK(judge("h " ED "\n", "h", 22, ED2) == KNOWN_CHANGED);
	CHECK(judge("h " EC "\n", "h", 22, ED) == KNOWN_OTHER_TYPE);
	CHECK(judge("h " EC "\nh " ED2 "\n", "h", 22, ED) == KNOWN_CHANGED);
	CHECK(decided_at == 2);
	CHECK(judge("h " ED2 "\nh " EC "\n", "h", 22, ED) == KNOWN_CHANGED);
	CHECK(decided_at == 1);
	/* one of several is enough, as after a change that is prepared */
	CHECK(judge("h " ED2 "\nh " ED "\n", "h", 22, ED) == KNOWN_YES);
}

static void a_revoked_key_is_never_accepted(void)
{
	CHECK(judge("@revoked * " ED "\nh " ED "\n", "h", 22, ED) == KNOWN_IS_REVOKED);
	CHECK(judge("h " ED "\n@revoked * " ED "\n", "h", 22, ED) == KNOWN_IS_REVOKED);
	CHECK(judge("@revoked * " ED2 "\nh " ED "\n", "h", 22, ED) == KNOWN_YES);
	CHECK(judge("@revoked * " ED2 "\n", "h", 22, ED) == KNOWN_NO);
	CHECK(judge("@revoked " HASHED_NAME " " ED "\n", "example.org", 22, ED) ==
	      KNOWN_IS_REVOKED);
}

static void an_authority_is_no_host(void)
{
	CHECK(judge("@cert-authority * " ED "\n", "h", 22, ED) == KNOWN_ONLY_CA);
	CHECK(judge("@cert-authority * " ED "\nh " ED "\n", "h", 22, ED) == KNOWN_YES);
	CHECK(judge("@cert-authority * " EC "\nh " EC "\n", "h", 22, ED) == KNOWN_OTHER_TYPE);
}

static void what_is_no_line_is_passed_over(void)
{
	static const char *const lines[] = {
		"h",
		"h ssh-ed25519",
		"h ssh-ed25519 !!!!",
		"h ssh-ed25519 AAAA",
		"h ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA", /* cut */
		"h ecdsa-sha2-nistp256 AAAAC3NzaC1lZDI1NTE5AAAAIEwKEQzTwQlNcX/Mkmfq8wwfbzFQVAmmzrk+"
		"fbiB9vxM",
		"@unknown h " ED,
		"@revoked",
		"|1|AAAA|AAAA " ED,
		"|1|" ED,
		"||| " ED,
		"|2|li6hZvNHxa5rVJTKZ2MAYyInbUc=|P9wQFi/jyhVpW7yhf0GxV0tYtG4= " ED,
		",,!,! " ED,
		"# h " ED,
	};

	for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
		char text[1024];

		snprintf(text, sizeof(text), "%s\nreal " ED "\n", lines[i]);
		CHECK(judge(text, "h", 22, ED) == KNOWN_NO);
		CHECK(judge(text, "real", 22, ED) == KNOWN_YES);
	}
	CHECK(judge("h\t" ED "\r\n", "h", 22, ED) == KNOWN_YES);
	CHECK(judge("  h  " ED, "h", 22, ED) == KNOWN_YES);
	CHECK(judge("", "h", 22, ED) == KNOWN_NO);
}

static void a_line_that_is_too_long_is_passed_over(void)
{
	static char text[40000];

	memset(text, ',', 30000);
	strcpy(text + 30000, "h " ED "\nh " EC "\n");
	CHECK(judge(text, "h", 22, ED) == KNOWN_OTHER_TYPE);
}

static void names_and_fingerprints_are_ssh_s(void)
{
	/* sha256sum of ED's blob, and what ssh-keygen -l says of it */
	static const uint8_t sum[32] = { 0x3e, 0x38, 0x1a, 0xb3, 0x0a, 0xe9, 0xb2, 0x69,
					 0x76, 0x74, 0x9b, 0x2f, 0x77, 0x76, 0xca, 0x82,
					 0x98, 0xb0, 0x0b, 0xb8, 0x0c, 0x77, 0xd3, 0xd0,
					 0xa2, 0xe7, 0xf1, 0x91, 0xb6, 0x9b, 0x6d, 0xa3 };
	char out[FINGERPRINT_SIZE], name[64];

	CHECK_STR(known_fingerprint(out, sum),
		  "SHA256:Pjgaswrpsml2dJsvd3bKgpiwC7gMd9PQoufxkbabbaM");
	CHECK_STR(known_name(name, sizeof(name), "h", 22), "h");
	CHECK_STR(known_name(name, sizeof(name), "h", 2222), "[h]:2222");
}

static void a_blob_s_type_is_checked(void)
{
	char type[64];

	CHECK(known_blob_type("\0\0\0\3abc", 7, type) == 0);
	CHECK_STR(type, "abc");
	CHECK(known_blob_type("\0\0\0\4abc", 7, type) == -1);
	CHECK(known_blob_type("\0\0\0\0abc", 7, type) == -1);
	CHECK(known_blob_type("\xff\xff\xff\xff"
			      "abc",
			      7, type) == -1);
	CHECK(known_blob_type("\0\0\0\3a c", 7, type) == -1);
	CHECK(known_blob_type("\0\0\0\3a'c", 7, type) == -1);
	CHECK(known_blob_type("\0\0\0\3a\0c", 7, type) == -1);
	CHECK(known_blob_type("\0\0\0\3a\xe4"
			      "c",
			      7, type) == -1);
	CHECK(known_blob_type("\0\0\0\x13"
			      "sk-ssh@openssh.com_",
			      23, type) == 0);
	CHECK(known_blob_type("\0\0\0", 3, type) == -1);
}

static const struct test_case cases[] = {
	{ "a plain name is found", a_plain_name_is_found },
	{ "hashed names are found", hashed_names_are_found },
	{ "another port is another host", another_port_is_another_host },
	{ "patterns match and exclude", patterns_match_and_exclude },
	{ "a changed key is told from one of another type",
	  a_changed_key_is_told_from_another_type },
	{ "a revoked key is never accepted", a_revoked_key_is_never_accepted },
	{ "a certificate authority's key is no host's", an_authority_is_no_host },
	{ "what is no line is passed over", what_is_no_line_is_passed_over },
	{ "a line that is too long is passed over", a_line_that_is_too_long_is_passed_over },
	{ "names and fingerprints are as ssh writes them", names_and_fingerprints_are_ssh_s },
	{ "a blob's type is checked", a_blob_s_type_is_checked },
};

TEST_MAIN(cases)
