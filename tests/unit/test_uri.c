// SPDX-License-Identifier: GPL-2.0-or-later
#include "test.h"

#include "uri.h"

#include <stdlib.h>
#include <sys/socket.h>
/* older versions of it rely on the one above */
#include <linux/vm_sockets.h>

static void tcp_is_a_host_and_a_port(void)
{
	static const struct {
		const char *text, *host;
		uint32_t port;
	} good[] = {
		{ "tcp:example.org:4444", "example.org", 4444 },
		{ "tcp:10.0.0.1:0", "10.0.0.1", 0 },
		{ "tcp:[::1]:65535", "::1", 65535 },
		{ "tcp:[fe80::1%eth0]:1", "fe80::1%eth0", 1 },
		{ "tcp::4444", "", 4444 },
		{ "tcp:0:4444", "0", 4444 },
	};

	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		struct error e;
		struct uri u;

		REQUIRE(uri_parse(&u, good[i].text, &e) == 0);
		CHECK(u.scheme == SCHEME_TCP && u.port == good[i].port);
		CHECK_STR(u.host, good[i].host);
		CHECK_STR(u.text, good[i].text);
		uri_free(&u);
	}
}

static void paths_and_commands_are_taken_as_they_are(void)
{
	static const struct {
		const char *text, *path;
		enum scheme scheme;
	} good[] = {
		{ "unix:/run/m.sock", "/run/m.sock", SCHEME_UNIX },
		{ "unix:a:b", "a:b", SCHEME_UNIX },
		{ "file:x y%20", "x y%20", SCHEME_FILE },
		{ "exec:cat >'a:b'", "cat >'a:b'", SCHEME_EXEC },
	};

	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		struct error e;
		struct uri u;

		REQUIRE(uri_parse(&u, good[i].text, &e) == 0);
		CHECK(u.scheme == good[i].scheme);
		CHECK_STR(u.path, good[i].path);
		uri_free(&u);
	}
}

static void numbers_are_numbers(void)
{
	struct error e;
	struct uri u;

	REQUIRE(uri_parse(&u, "vsock:3:4444", &e) == 0);
	CHECK(u.scheme == SCHEME_VSOCK && u.cid == 3 && u.port == 4444);
	uri_free(&u);
	REQUIRE(uri_parse(&u, "vsock::4294967295", &e) == 0);
	CHECK(u.cid == VMADDR_CID_ANY && u.port == 4294967295U);
	uri_free(&u);
	REQUIRE(uri_parse(&u, "fd:0", &e) == 0);
	CHECK(u.scheme == SCHEME_FD && u.fd == 0);
	uri_free(&u);
	REQUIRE(uri_parse(&u, "fd:2147483647", &e) == 0);
	CHECK(u.fd == 2147483647);
	uri_free(&u);
}

static void some_take_several_channels(void)
{
	static const struct {
		const char *text;
		bool multi;
	} all[] = {
		{ "tcp:h:1", true },   { "unix:p", true },    { "vsock:2:1", true },
		{ "null:", true },     { "ssh://h/p", true }, { "fd:3", false },
		{ "exec:cat", false }, { "file:p", false },   { "stdio:", false },
	};

	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
		struct error e;
		struct uri u;

		REQUIRE(uri_parse(&u, all[i].text, &e) == 0);
		CHECK(uri_multi_channel(&u) == all[i].multi);
		CHECK(uri_zero_copy(&u) == (u.scheme == SCHEME_TCP || u.scheme == SCHEME_FD));
		CHECK(!strncmp(uri_scheme_name(u.scheme), u.text,
			       strlen(uri_scheme_name(u.scheme))));
		uri_free(&u);
	}
}

static void what_is_no_uri_is_refused_with_its_form(void)
{
	static const struct {
		const char *text, *say;
	} bad[] = {
		{ "", "no scheme" },
		{ "host", "no scheme" },
		{ "/path", "no scheme" },
		{ ":", "scheme is unknown" },
		{ "tcpx:host:1", "scheme is unknown" },
		{ "TCP:host:1", "scheme is unknown" },
		{ "host:4444", "scheme is unknown" },
		{ "tcp:host", "no port" },
		{ "tcp:host:", "port that is no number" },
		{ "tcp:host:65536", "port that is no number" },
		{ "tcp:host:-1", "port that is no number" },
		{ "tcp:host:4294967297", "port that is no number" },
		{ "tcp:host:99999999999999999999", "port that is no number" },
		{ "tcp:host:1,ipv6=on", "port that is no number" },
		{ "tcp:::1:4444", "host with a colon" },
		{ "tcp:[::1]", "brackets" },
		{ "tcp:[::1:1", "brackets" },
		{ "tcp:[]:1", "brackets" },
		{ "vsock:3", "no port" },
		{ "vsock:x:1", "CID" },
		{ "vsock:4294967296:1", "CID" },
		{ "vsock:00000000000000000000003:1", "CID" },
		{ "vsock:3:", "port" },
		{ "fd:", "descriptor" },
		{ "fd:x", "descriptor" },
		{ "fd:-1", "descriptor" },
		{ "fd:2147483648", "descriptor" },
		{ "unix:", "nothing behind" },
		{ "file:", "nothing behind" },
		{ "exec:", "nothing behind" },
		{ "stdio:x", "something behind" },
		{ "null:x", "something behind" },
		{ "ssh:host/x", "no //" },
		{ "ssh://host", "no path" },
		{ "ssh:///x", "a host" },
		{ "ssh://@host/x", "a user" },
		{ "ssh://-oProxyCommand=x/x", "a host" },
		{ "ssh://a@-oProxyCommand=x/x", "a host" },
		{ "ssh://-l@host/x", "a user" },
		{ "ssh://%2dl@host/x", "a user" },
		{ "ssh://a%0ab@host/x", "a user" },
		{ "ssh://a%20b@host/x", "a user" },
		{ "ssh://a;b@host/x", "a user" },
		{ "ssh://me:secret@host/x", "a password" },
		{ "ssh://ho st/x", "a host" },
		{ "ssh://$(id)/x", "a host" },
		{ "ssh://`id`/x", "a host" },
		{ "ssh://host:/x", "a port" },
		{ "ssh://host:0/x", "a port" },
		{ "ssh://host:65536/x", "a port" },
		{ "ssh://host:0000022/x", "a port" },
		{ "ssh://host:22:22/x", "a port" },
		{ "ssh://[::1/x", "brackets" },
		{ "ssh://[::1]2/x", "brackets" },
		{ "ssh://[]/x", "a host" },
		{ "ssh://host/a%00b", "%00" },
		{ "ssh://host/a%", "without two" },
		{ "ssh://host/a%4", "without two" },
		{ "ssh://host/a%4g", "without two" },
	};

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct error e;
		struct uri u;

		CHECK(uri_parse(&u, bad[i].text, &e) == -1);
		CHECK(e.status == ST_USAGE && e.hint[0]);
		CHECK(strstr(e.msg, bad[i].text) && strstr(e.msg, bad[i].say));
		uri_free(&u);
	}
}

static void ssh_is_a_host_with_a_user_a_port_and_a_path(void)
{
	static const struct {
		const char *text, *user, *host, *path;
		uint32_t port;
	} good[] = {
		{ "ssh://host/p", NULL, "host", "/p", 0 },
		{ "ssh://me@host:22/p/q", "me", "host", "/p/q", 22 },
		{ "ssh://a@b@host:65535/p", "a@b", "host", "/p", 65535 },
		{ "ssh://[::1]/p", NULL, "::1", "/p", 0 },
		{ "ssh://me@[fe80::1%eth0]:2222/p", "me", "fe80::1%eth0", "/p", 2222 },
		{ "ssh://h/", NULL, "h", "/", 0 },
		{ "ssh://h/~/x/", NULL, "h", "x/", 0 },
		{ "ssh://h/~/-rf", NULL, "h", "./-rf", 0 },
		{ "ssh://h/~/%2drf", NULL, "h", "./-rf", 0 },
		{ "ssh://h/~/", NULL, "h", "./", 0 },
		{ "ssh://h/~//etc/x", NULL, "h", ".//etc/x", 0 },
		{ "ssh://h/~", NULL, "h", "/~", 0 },
		{ "ssh://h/%7e/x", NULL, "h", "/~/x", 0 },
		{ "ssh://h/~/~/x", NULL, "h", "~/x", 0 },
		{ "ssh://h/a%20b%0A%25%ff@:", NULL, "h", "/a b\n%\xff@:", 0 },
		{ "ssh://h/$(id)'`\"", NULL, "h", "/$(id)'`\"", 0 },
		{ "ssh://%6de@h/p", "me", "h", "/p", 0 },
	};

	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		struct error e;
		struct uri u;

		REQUIRE(uri_parse(&u, good[i].text, &e) == 0);
		CHECK(u.scheme == SCHEME_SSH && u.port == good[i].port);
		CHECK(!u.user == !good[i].user);
		if (u.user && good[i].user)
			CHECK_STR(u.user, good[i].user);
		CHECK_STR(u.host, good[i].host);
		CHECK_STR(u.path, good[i].path);
		uri_free(&u);
	}
}

static void a_mistyped_scheme_gets_the_nearest(void)
{
	struct error e;
	struct uri u;

	CHECK(uri_parse(&u, "tpc:host:1", &e) == -1);
	CHECK_STR(e.hint, "did you mean tcp:host:1?");
	CHECK(uri_parse(&u, "completely-different:host:1", &e) == -1);
	CHECK(strstr(e.hint, "tcp:HOST:PORT") != NULL);
}

static void socket_paths_have_a_limit(void)
{
	char text[200] = "unix:";
	struct error e;
	struct uri u;

	memset(text + 5, 'p', 107);
	REQUIRE(uri_parse(&u, text, &e) == 0);
	uri_free(&u);
	text[5 + 107] = 'p';
	CHECK(uri_parse(&u, text, &e) == -1);
	CHECK(e.status == ST_USAGE && strstr(e.msg, "108 bytes") && strstr(e.msg, "at most 107"));
}

static void an_image_is_a_path(void)
{
	struct error e;
	struct uri u;

	REQUIRE(uri_parse(&u, "image:a:b/c", &e) == 0);
	CHECK(u.scheme == SCHEME_IMAGE);
	CHECK_STR(u.path, "a:b/c");
	CHECK(!uri_multi_channel(&u));
	uri_free(&u);
	CHECK(uri_parse(&u, "image:", &e) == -1 && e.status == ST_USAGE);
}

static void what_is_not_built_says_so(void)
{
	static const char *const known[] = { "rdma:host:1" };

	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
		struct error e;
		struct uri u;

		CHECK(uri_parse(&u, known[i], &e) == -1);
		CHECK(e.status == ST_UNSUPPORTED && strstr(e.msg, "not built yet"));
		CHECK(strstr(e.msg, known[i]) != NULL);
	}
}

static const struct test_case cases[] = {
	{ "tcp is a host and a port", tcp_is_a_host_and_a_port },
	{ "paths and commands are taken as they are", paths_and_commands_are_taken_as_they_are },
	{ "an image is a path", an_image_is_a_path },
	{ "numbers are numbers", numbers_are_numbers },
	{ "some take several channels", some_take_several_channels },
	{ "what is no URI is refused with its form", what_is_no_uri_is_refused_with_its_form },
	{ "ssh is a host with a user, a port and a path",
	  ssh_is_a_host_with_a_user_a_port_and_a_path },
	{ "a mistyped scheme gets the nearest", a_mistyped_scheme_gets_the_nearest },
	{ "socket paths have a limit", socket_paths_have_a_limit },
	{ "what is not built says so", what_is_not_built_says_so },
};
TEST_MAIN(cases)
