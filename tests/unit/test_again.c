// SPDX-License-Identifier: GPL-2.0-or-later
#include "again.h"
#include "test.h"

#include "options.h"

#include <stdlib.h>

#define MAX_WORDS 24

/* What is printed by a run with this command line: words NULL-terminated, without `migtool`. */
static char *printed(char *(*put)(const struct config *cfg), const char **words)
{
	char *argv[MAX_WORDS + 2] = { (char *)"migtool" }, *text;
	struct config cfg;
	struct error err;
	int argc = 1;

	for (; *words && argc < MAX_WORDS; words++)
		argv[argc++] = (char *)*words;
	text = options_parse(&cfg, argc, argv, &err) ? NULL : put(&cfg);
	options_free(&cfg);
	return text;
}

static char *lazy_of_4711(const struct config *cfg)
{
	return lazy_again(cfg, 4711);
}

#define PRINTS(put, want, ...)                                              \
	do {                                                                \
		const char *words_[] = { __VA_ARGS__, NULL };               \
		char *text_ = printed(put, words_);                         \
		CHECK_STR(text_ ? text_ : "(no valid command line)", want); \
		free(text_);                                                \
	} while (0)

static void a_source_goes_on_as_it_was_started(void)
{
	PRINTS(send_again,
	       "migtool send --resume --cap postcopy-ram=on guest.mem tcp:h:1"
	       " goes on with it, when it is waited for there",
	       "send", "--cap", "postcopy-ram", "guest.mem", "tcp:h:1");
	PRINTS(send_again,
	       "migtool send --resume --cap postcopy-ram=on --retry 7 --listen 'guest mem' tcp::1"
	       " goes on with it, when it is waited for there",
	       "send", "--retry", "7", "--listen", "--cap", "postcopy-ram", "guest mem", "tcp::1");
}

static void a_guest_is_taken_up_as_it_was_served(void)
{
	PRINTS(lazy_of_4711,
	       "migtool recv --resume --push=off --on-loss=kill --guest 4711 image:guest.mem"
	       " /dev/shm/guest takes it up again",
	       "recv", "--push=off", "--on-loss=kill", "image:guest.mem", "/dev/shm/guest",
	       "--guest", "5");
	PRINTS(lazy_of_4711,
	       "migtool recv --resume --retry 2 --connect --uffd-socket /run/vm.uffd tcp:h:1"
	       " takes it up again",
	       "recv", "--retry", "2", "--connect", "--cap", "postcopy-ram", "--uffd-socket",
	       "/run/vm.uffd", "tcp:h:1");
}

static void both_ask_for_the_same_certificate_as_before(void)
{
	PRINTS(send_again,
	       "migtool send --resume --cap postcopy-ram=on --param tls-creds='my keys'"
	       " --param tls-hostname=host.example --param tls-authz='CN=recv,O=Ex\\, Inc'"
	       " guest.mem tcp:h:1 goes on with it, when it is waited for there",
	       "send", "--cap", "postcopy-ram", "--param", "tls-creds=my keys", "--param",
	       "tls-hostname=host.example", "--param", "tls-authz=CN=recv,O=Ex\\, Inc", "guest.mem",
	       "tcp:h:1");
	PRINTS(lazy_of_4711,
	       "migtool recv --resume --param tls-creds=keys --param tls-authz=CN=source"
	       " --guest 4711 tcp::1 /dev/shm/guest takes it up again",
	       "recv", "--cap", "postcopy-ram", "--param", "tls-creds=keys", "--param",
	       "tls-authz=CN=source", "--guest", "5", "tcp::1", "/dev/shm/guest");
}

static const struct test_case cases[] = {
	{ "a source goes on as it was started", a_source_goes_on_as_it_was_started },
	{ "a guest is taken up as it was served", a_guest_is_taken_up_as_it_was_served },
	{ "both ask for the same certificate as before",
	  both_ask_for_the_same_certificate_as_before },
};
TEST_MAIN(cases)
