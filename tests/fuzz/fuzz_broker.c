// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Requests of a worker that was taken over: whatever they are, nothing is done that the policy does
 * not name. Input: requests, each behind a byte whose bits 0 to 2 give the child descriptors 0, 1,
 * 2; the last one may be short. The acts are stand-ins that look at what they are asked for.
 */
#include "fuzz.h"

#include "broker-msg.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <unistd.h>

#define IMAGE "/d/image"
#define FAR   "ssh far 'migtool join '"

static struct policy policy;
static unsigned started;

/* ---- what may be touched ---- */

static bool begins(const char *path, const char *with)
{
	return !strncmp(path, with, strlen(with));
}

/* A name of the image's, in its directory or its .part's; nothing that leads out of them. */
static bool inside(const char *path)
{
	FUZZ_CHECK(!strstr(path, "..") && !strstr(path, "//"));
	return begins(path, IMAGE "/") || begins(path, IMAGE ".part/");
}

static bool ours_to_write(const char *path)
{
	return !strcmp(path, IMAGE ".part") || !strcmp(path, IMAGE ".part.session") ||
	       begins(path, IMAGE ".part/");
}

static int nothing(int *file)
{
	*file = open("/dev/null", O_RDONLY | O_CLOEXEC);
	return *file;
}

static int fake_open(const char *path, int flags, mode_t mode)
{
	int fd;

	FUZZ_CHECK(!(mode & ~0666u));
	if ((flags & O_ACCMODE) == O_RDONLY && !(flags & (O_CREAT | O_TRUNC)))
		FUZZ_CHECK(!strcmp(path, IMAGE) || !strcmp(path, "/d") || ours_to_write(path) ||
			   inside(path) || !strcmp(path, "/key"));
	else
		FUZZ_CHECK(ours_to_write(path) && (flags & O_NOFOLLOW));
	return nothing(&fd);
}

static int fake_rename(const char *from, const char *to, unsigned flags)
{
	if (!strcmp(from, IMAGE ".part"))
		FUZZ_CHECK(!strcmp(to, IMAGE) && flags <= RENAME_NOREPLACE);
	else
		FUZZ_CHECK(!strcmp(from, IMAGE ".part/manifest.json.part") &&
			   !strcmp(to, IMAGE ".part/manifest.json") && !flags);
	return 0;
}

static int fake_link(const char *from, const char *to)
{
	FUZZ_CHECK(begins(from, IMAGE "/ram/") && begins(to, IMAGE ".part/ram/"));
	FUZZ_CHECK(inside(from) && inside(to));
	return 0;
}

static int fake_change(const char *path)
{
	FUZZ_CHECK(ours_to_write(path));
	return 0;
}

static int fake_mkdir(const char *path, mode_t mode)
{
	FUZZ_CHECK(mode == 0700);
	return fake_change(path);
}

static int fake_mark(const char *path, bool on)
{
	FUZZ_CHECK(!strcmp(path, IMAGE ".part") || (!on && !strcmp(path, IMAGE)));
	return 0;
}

static int fake_may_write(const char *dir)
{
	FUZZ_CHECK(!strcmp(dir, "/d") || inside(dir) || ours_to_write(dir) || !strcmp(dir, IMAGE) ||
		   !strcmp(dir, "/key"));
	return 0;
}

static int fake_occupied(const char *path)
{
	FUZZ_CHECK(!strcmp(path, IMAGE) || ours_to_write(path));
	return 0;
}

static int fake_resolve(const char *host, uint16_t port, bool passive, struct broker_addr *out,
			int max)
{
	(void)host;
	(void)port;
	(void)passive;
	(void)out;
	(void)max;
	abort(); /* the caller's to do */
}

/* The one address that the policy has: port 7 of 127.0.0.1. */
static void judge_address(const struct sockaddr *sa, socklen_t len)
{
	struct sockaddr_in in;

	FUZZ_CHECK(len == sizeof(in));
	memcpy(&in, sa, sizeof(in));
	FUZZ_CHECK(in.sin_family == AF_INET && in.sin_port == htons(7));
	FUZZ_CHECK(in.sin_addr.s_addr == htonl(INADDR_LOOPBACK));
}

static int fake_connect(const struct sockaddr *sa, socklen_t len)
{
	int fd;

	judge_address(sa, len);
	return nothing(&fd);
}

static int fake_listen(const struct sockaddr *sa, socklen_t len, int backlog)
{
	(void)sa;
	(void)len;
	(void)backlog;
	abort(); /* there is nothing to listen on */
}

static int fake_local_listen(const char *name)
{
	int fd;

	FUZZ_CHECK(begins(name, BROKER_LOCAL) &&
		   strlen(name) == strlen(BROKER_LOCAL) + POLICY_FILL);
	FUZZ_CHECK(strspn(name + strlen(BROKER_LOCAL), "0123456789abcdef") == POLICY_FILL);
	return nothing(&fd);
}

static int fake_accept(int listener, struct sockaddr_storage *sa, socklen_t *len)
{
	int fd;

	FUZZ_CHECK(listener >= 0);
	memset(sa, 0, sizeof(*sa));
	*len = 0;
	return nothing(&fd);
}

static pid_t fake_spawn(char *const argv[], const int fds[3], enum spawn_group group)
{
	bool given = fds[0] >= 0 || fds[1] >= 0 || fds[2] >= 0;

	if (group == SPAWN_SESSION) {
		FUZZ_CHECK(!strcmp(argv[0], "command") && !argv[1] && !given);
	} else {
		FUZZ_CHECK(!strcmp(argv[0], "sh") && begins(argv[1], FAR) && !argv[2]);
		FUZZ_CHECK(strspn(argv[1] + strlen(FAR), "0123456789abcdef") == POLICY_FILL);
		FUZZ_CHECK(!argv[1][strlen(FAR) + POLICY_FILL]);
	}
	return (pid_t)(1000 + started++);
}

static void judge_child(pid_t pid)
{
	FUZZ_CHECK(pid >= 1000 && pid < (pid_t)(1000 + started));
}

static int fake_child_fd(pid_t pid)
{
	int fd;

	judge_child(pid);
	return nothing(&fd);
}

static int fake_reap(pid_t pid, int *wstatus)
{
	judge_child(pid);
	*wstatus = 0;
	return pid & 1;
}

static int fake_stopped(pid_t pid)
{
	judge_child(pid);
	return 0;
}

static int fake_kill(pid_t pid, int sig)
{
	judge_child(pid);
	FUZZ_CHECK(sig == SIGTERM || sig == SIGKILL || sig == SIGCONT || sig == SIGINT ||
		   sig == SIGHUP);
	return 0;
}

static const struct broker_acts acts = {
	.open = fake_open,
	.rename = fake_rename,
	.link = fake_link,
	.unlink = fake_change,
	.mkdir = fake_mkdir,
	.rmdir = fake_change,
	.mark = fake_mark,
	.may_write = fake_may_write,
	.occupied = fake_occupied,
	.resolve = fake_resolve,
	.connect = fake_connect,
	.listen = fake_listen,
	.local_listen = fake_local_listen,
	.accept = fake_accept,
	.spawn = fake_spawn,
	.child_fd = fake_child_fd,
	.reap = fake_reap,
	.stopped = fake_stopped,
	.kill = fake_kill,
};

/* ---- requests ---- */

static void make_policy(void)
{
	char *command[] = { (char *)"command", NULL };
	char *far[] = { (char *)"sh", (char *)FAR POLICY_HOLE, NULL };
	struct policy_command once = { .max = 1, .session = true };
	struct policy_command often = { .max = 3, .given_stdio = true, .hole = true };
	struct sockaddr_in in = { .sin_family = AF_INET, .sin_port = htons(7) };
	struct error err;

	in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	FUZZ_CHECK(!policy_add_root(
		&policy, IMAGE, POLICY_LOOK | POLICY_MEMBERS | POLICY_PARENT | POLICY_PART, &err));
	FUZZ_CHECK(!policy_add_root(&policy, "/key", POLICY_LOOK, &err));
	FUZZ_CHECK(!policy_add_command(&policy, command, &once, &err));
	FUZZ_CHECK(!policy_add_command(&policy, far, &often, &err));
	FUZZ_CHECK(!policy_add_host(&policy, "host", 7, false, &err));
	FUZZ_CHECK(!policy_add_address(&policy, &in, sizeof(in), POLICY_CONNECT, &err));
	policy.joins = true;
}

static void one_request(struct broker *b, const uint8_t *data, size_t size, unsigned given)
{
	struct broker_answer answer;
	uint8_t *exact = fuzz_copy(data, size);
	int fds[3], out, host;

	for (unsigned i = 0; i < 3; i++)
		fds[i] = given & 1u << i ? 0 : -1;
	host = broker_judge(b, exact, size, fds, &answer, &out);
	FUZZ_CHECK(host == -1 || (host == 0 && out == -1));
	FUZZ_CHECK(answer.rc >= 0 || answer.errnum > 0);
	FUZZ_CHECK(out < 0 || answer.rc >= 0);
	if (out >= 0)
		close(out);
	free(exact);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct broker b;

	if (!policy.nroots)
		make_policy();
	started = 0;
	broker_init(&b, &policy, &acts);
	while (size > 0) {
		size_t n = size - 1 < sizeof(struct broker_request) ? size - 1
								    : sizeof(struct broker_request);

		one_request(&b, data + 1, n, data[0]);
		data += 1 + n;
		size -= 1 + n;
	}
	for (unsigned i = 0; i < BROKER_LISTENERS; i++)
		if (b.listeners[i] >= 0)
			close(b.listeners[i]);
	return 0;
}
