// SPDX-License-Identifier: GPL-2.0-or-later
/* Requests that a worker would never make, and what comes of them; then a broker of its own. */
#include "test.h"

#include "broker-msg.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static char dir[] = "/tmp/test_judge.XXXXXX";
static struct policy policy;
static struct broker broker;
static struct broker_answer answer;

/* rc, or -errno. A descriptor that came is closed. */
static int judge(const struct broker_request *r, const int fds[3])
{
	static const int none[3] = { -1, -1, -1 };
	int out, host = broker_judge(&broker, r, sizeof(*r), fds ? fds : none, &answer, &out);

	if (out >= 0)
		close(out);
	return host >= 0 ? 1000 + host : answer.rc < 0 ? -answer.errnum : answer.rc;
}

static struct policy_name name(const char *leaf)
{
	struct policy_name n;
	char path[128];

	snprintf(path, sizeof(path), "%s/%s", dir, leaf);
	if (!policy_find(&policy, path, 0, &n))
		memset(&n, 0xff, sizeof(n));
	return n;
}

static int open_as(const char *leaf, int flags)
{
	struct broker_request r = { .op = OP_OPEN, .flags = (uint32_t)flags, .mode = 07777 };

	r.name = name(leaf);
	return judge(&r, NULL);
}

static void set_up(void)
{
	char *sleeper[] = { (char *)"sleep", (char *)"100", NULL };
	char *command[] = { (char *)"true", NULL };
	struct policy_command group = { .max = 1, .given_stdio = true };
	struct policy_command session = { .max = 1, .session = true };
	char path[128];
	struct error err;

	REQUIRE(mkdtemp(dir) != NULL);
	snprintf(path, sizeof(path), "%s/img", dir);
	REQUIRE(!policy_add_root(&policy, path, POLICY_LOOK | POLICY_MEMBERS | POLICY_PART, &err));
	REQUIRE(!policy_add_command(&policy, sleeper, &group, &err));
	REQUIRE(!policy_add_command(&policy, command, &session, &err));
	REQUIRE(!policy_add_host(&policy, "127.0.0.1", 9, false, &err));
	broker_init(&broker, &policy, &broker_acts);
}

static void requests_of_the_wrong_size_are_refused(void)
{
	char bytes[2 * sizeof(struct broker_request)] = { OP_OPEN };
	int none[3] = { -1, -1, -1 }, out;

	for (size_t len = 0; len < sizeof(bytes); len++) {
		if (len == sizeof(struct broker_request))
			continue;
		CHECK(broker_judge(&broker, bytes, len, none, &answer, &out) == -1);
		CHECK(answer.rc == -1 && answer.errnum == EBADMSG && out == -1);
	}
}

static void acts_that_are_none_are_refused(void)
{
	struct broker_request r = { .op = 0 };

	CHECK(judge(&r, NULL) == -EPERM);
	r.op = OP__MAX;
	CHECK(judge(&r, NULL) == -EPERM);
	r.op = UINT32_MAX;
	CHECK(judge(&r, NULL) == -EPERM);
}

static void files_are_made_where_they_may_be(void)
{
	struct broker_request r = { .op = OP_UNLINK };
	char path[128];
	struct stat st;

	CHECK(open_as("img.part", O_RDWR | O_CREAT | O_EXCL) == 0);
	snprintf(path, sizeof(path), "%s/img.part", dir);
	CHECK(stat(path, &st) == 0 && !(st.st_mode & 07111)); /* no bits that run it */
	CHECK(open_as("img", O_RDWR | O_CREAT) == -EPERM);
	CHECK(open_as("img", O_RDONLY) == -ENOENT);
	CHECK(open_as("other", O_RDONLY) == -EPERM);
	r.name = name("img");
	CHECK(judge(&r, NULL) == -EPERM);
	r.name = name("img.part");
	CHECK(judge(&r, NULL) == 0);
}

static void a_full_image_is_not_replaced(void)
{
	struct broker_request r = { .op = OP_RENAME };
	char path[128], part[128];
	int fd;

	snprintf(path, sizeof(path), "%s/img", dir);
	snprintf(part, sizeof(part), "%s/img.part", dir);
	r.name = name("img.part");
	r.other = name("img");
	fd = open(path, O_CREAT | O_WRONLY, 0600);
	REQUIRE(write(fd, "x", 1) == 1 && fsync(fd) == 0);
	CHECK(open_as("img.part", O_RDWR | O_CREAT) == 0);
	CHECK(judge(&r, NULL) == -EPERM);
	r.flags = RENAME_NOREPLACE;
	CHECK(judge(&r, NULL) == -EEXIST);
	r.flags = 0;
	REQUIRE(ftruncate(fd, 0) == 0);
	CHECK(judge(&r, NULL) == 0);
	close(fd);
	CHECK(access(part, F_OK) == -1 && unlink(path) == 0);
}

static void a_link_in_the_part_is_never_written_through(void)
{
	char to[128], link[128], ram[128], part[128];
	int fd;

	snprintf(to, sizeof(to), "%s/precious", dir);
	snprintf(part, sizeof(part), "%s/img.part", dir);
	snprintf(ram, sizeof(ram), "%s/img.part/ram", dir);
	snprintf(link, sizeof(link), "%s/img.part/ram/a", dir);
	fd = open(to, O_CREAT | O_WRONLY, 0600);
	REQUIRE(fd >= 0 && !mkdir(part, 0700) && !mkdir(ram, 0700) && !symlink(to, link));
	close(fd);
	CHECK(open_as("img.part/ram/a", O_RDONLY) == 0);
	CHECK(open_as("img.part/ram/a", O_RDWR) == -ELOOP);
	CHECK(!unlink(link) && !rmdir(ram) && !rmdir(part) && !unlink(to));
}

static void nor_is_what_has_another_name(void)
{
	char image[128], from[128], part[128], to[128];
	struct broker_request r = { .op = OP_LINK };
	struct stat st;
	int fd;

	snprintf(image, sizeof(image), "%s/img", dir);
	snprintf(from, sizeof(from), "%s/img/ram", dir);
	snprintf(part, sizeof(part), "%s/img.part", dir);
	snprintf(to, sizeof(to), "%s/img.part/ram", dir);
	REQUIRE(!mkdir(image, 0700) && !mkdir(from, 0700) && !mkdir(part, 0700) &&
		!mkdir(to, 0700));
	snprintf(from, sizeof(from), "%s/img/ram/a", dir);
	snprintf(to, sizeof(to), "%s/img.part/ram/a", dir);
	fd = open(from, O_CREAT | O_WRONLY, 0600);
	REQUIRE(fd >= 0 && write(fd, "precious", 8) == 8 && !close(fd));
	r.name = name("img/ram/a");
	r.other = name("img.part/ram/a");
	CHECK(judge(&r, NULL) == 0);
	CHECK(open_as("img.part/ram/a", O_RDONLY) == 0);
	CHECK(open_as("img.part/ram/a", O_RDWR) == -EPERM);
	CHECK(open_as("img.part/ram/a", O_WRONLY | O_CREAT | O_TRUNC) == -EPERM);
	CHECK(!stat(from, &st) && st.st_size == 8);
	/* its own is */
	CHECK(!unlink(to) && open_as("img.part/ram/a", O_RDWR | O_CREAT | O_EXCL) == 0);
	CHECK(open_as("img.part/ram/a", O_WRONLY | O_CREAT | O_TRUNC) == 0);
	CHECK(!unlink(to) && !unlink(from));
	snprintf(from, sizeof(from), "%s/img/ram", dir);
	snprintf(to, sizeof(to), "%s/img.part/ram", dir);
	CHECK(!rmdir(from) && !rmdir(to) && !rmdir(image) && !rmdir(part));
}

static int mark(const char *leaf, unsigned on)
{
	struct broker_request r = { .op = OP_MARK, .flags = on };

	r.name = name(leaf);
	return judge(&r, NULL);
}

static bool is_sticky(const char *path)
{
	struct stat st;

	return !stat(path, &st) && (st.st_mode & S_ISVTX);
}

static void only_the_part_is_marked(void)
{
	char part[128], image[128];

	snprintf(image, sizeof(image), "%s/img", dir);
	snprintf(part, sizeof(part), "%s/img.part", dir);
	REQUIRE(!mkdir(part, 0700));
	/* as in a directory that gives its group to what is made in it */
	REQUIRE(!chmod(part, 02700));
	CHECK(mark("img.part", 1) == 0 && is_sticky(part));
	CHECK(mark("img.part", 1) == 0 && is_sticky(part));
	REQUIRE(!rename(part, image));
	CHECK(mark("img", 1) == -EPERM && mark("img", 0) == 0 && !is_sticky(image));
	CHECK(mark("img/ram/a", 0) == -EPERM && mark("img.part/ram/a", 1) == -EPERM);
	REQUIRE(!rmdir(image) && !symlink(dir, part));
	CHECK(mark("img.part", 1) == -ELOOP && !unlink(part));
}

static void only_known_addresses_are_connected_to(void)
{
	struct sockaddr_in in = { .sin_family = AF_INET, .sin_port = htons(9) };
	struct broker_request r = { .op = OP_CONNECT, .salen = sizeof(in) };
	struct broker_answer found = { .naddrs = 1 };

	in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	memcpy(&r.sa, &in, sizeof(in));
	CHECK(judge(&r, NULL) == -EPERM);
	memcpy(&found.addrs[0].sa, &in, sizeof(in));
	found.addrs[0].len = sizeof(in);
	broker_learn(&broker, &policy.hosts[0], &found);
	CHECK(judge(&r, NULL) != -EPERM);
	r.op = OP_LISTEN;
	CHECK(judge(&r, NULL) == -EPERM); /* to connect to, not to listen on */
	r.op = OP_CONNECT;
	in.sin_port = htons(10);
	memcpy(&r.sa, &in, sizeof(in));
	CHECK(judge(&r, NULL) == -EPERM);
	for (uint32_t len = 0; len < 2; len++) {
		r.salen = len;
		CHECK(judge(&r, NULL) == -EPERM);
	}
	r.salen = UINT32_MAX;
	CHECK(judge(&r, NULL) == -EPERM);
	r.salen = sizeof(r.sa) + 1;
	CHECK(judge(&r, NULL) == -EPERM);
}

static void only_known_hosts_are_resolved(void)
{
	struct broker_request r = { .op = OP_RESOLVE };

	CHECK(judge(&r, NULL) == 1000);
	r.number = 1;
	CHECK(judge(&r, NULL) == -EPERM);
	r.number = UINT32_MAX;
	CHECK(judge(&r, NULL) == -EPERM);
}

static void listeners_that_are_none_are_refused(void)
{
	static const uint32_t numbers[] = { 0, 7, 8, 1u << 31, UINT32_MAX };
	struct broker_request r = { 0 };

	for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
		r.number = numbers[i];
		r.op = OP_ACCEPT;
		CHECK(judge(&r, NULL) == -EPERM);
		r.op = OP_UNLISTEN;
		CHECK(judge(&r, NULL) == -EPERM);
	}
}

static void only_our_children_are_signalled(void)
{
	static const int others[] = { 0, -1, 1, INT32_MIN };
	struct broker_request r = { .op = OP_SPAWN };
	int pid = judge(&r, NULL), rc;

	REQUIRE(pid > 0);
	CHECK(judge(&r, NULL) == -EPERM); /* one at a time */
	r = (struct broker_request){ .op = OP_KILL, .pid = pid, .number = SIGUSR1 };
	CHECK(judge(&r, NULL) == -EPERM);
	r.number = SIGKILL;
	for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
		r.pid = others[i];
		CHECK(judge(&r, NULL) == -EPERM);
	}
	r.pid = getpid();
	CHECK(judge(&r, NULL) == -EPERM);
	r.pid = pid;
	CHECK(judge(&r, NULL) == 0);
	r.op = OP_REAP;
	while ((rc = judge(&r, NULL)) == 0)
		poll(NULL, 0, 1);
	CHECK(rc == 1 && WIFSIGNALED(answer.wstatus));
	CHECK(judge(&r, NULL) == -EPERM); /* its pid is another's from now on */
}

static void a_command_gets_our_descriptors_and_no_others(void)
{
	struct broker_request r = { .op = OP_SPAWN, .number = 1 };
	int fds[3] = { 0, -1, -1 }, pid;

	CHECK(judge(&r, fds) == -EPERM);
	r.number = 2;
	CHECK(judge(&r, NULL) == -EPERM);
	r.number = UINT32_MAX;
	CHECK(judge(&r, NULL) == -EPERM);
	r.number = 1;
	pid = judge(&r, NULL);
	CHECK(pid > 0 && waitpid(pid, NULL, 0) == pid);
	CHECK(judge(&r, NULL) == -EPERM); /* it is started once */
	r = (struct broker_request){ .op = OP_KILL, .pid = pid, .number = SIGKILL };
	CHECK(judge(&r, NULL) == -EPERM); /* and is not ours to end */
}

/* ---- a broker of its own ---- */

static void nobody_died(int number, void *arg)
{
	(void)number;
	(void)arg;
}

static void a_broker_does_what_it_may_and_says_why_not(void)
{
	struct broker_addr a[4];
	char path[128];
	struct error err;
	int status = 0, fds[3] = { -1, -1, -1 };
	char *argv[] = { (char *)"sleep", (char *)"100", NULL };
	pid_t pid;
	int fd;

	REQUIRE(broker_start(&policy, nobody_died, NULL, &err) == 0);
	CHECK(broker_open("/etc/passwd", O_RDONLY, 0) == -1 && errno == EPERM);
	snprintf(path, sizeof(path), "%s/img.part", dir);
	fd = broker_open(path, O_RDWR | O_CREAT, 0600);
	CHECK(fd >= 0 && fcntl(fd, F_GETFD) & FD_CLOEXEC && write(fd, "x", 1) == 1);
	close(fd);
	CHECK(broker_unlink(path) == 0 && access(path, F_OK) == -1);
	CHECK(broker_resolve("127.0.0.1", 9, false, NULL, a, 4) == 1);
	CHECK(broker_resolve("127.0.0.1", 10, false, NULL, a, 4) == EAI_SYSTEM && errno == EPERM);
	pid = broker_spawn(argv, fds, SPAWN_GROUP);
	REQUIRE(pid > 0);
	fd = broker_child_fd(pid);
	CHECK(fd >= 0 && broker_reap(pid, &status) == 0 && broker_kill(pid, SIGTERM) == 0);
	CHECK(poll(&(struct pollfd){ .fd = fd, .events = POLLIN }, 1, 10000) == 1);
	CHECK(broker_reap(pid, &status) == 1 && WTERMSIG(status) == SIGTERM);
	close(fd);
	fd = broker_fd();
	broker_stop();
	CHECK(fcntl(fd, F_GETFD) == -1 && waitpid(-1, NULL, 0) == -1 && errno == ECHILD);
	fd = broker_open("/dev/null", O_RDONLY, 0); /* carried out here again */
	CHECK(fd >= 0);
	close(fd);
}

#define ASKERS 100 /* as many channels as log in at once */

static void *asks_for_the_host(void *arg)
{
	struct broker_addr a[4];

	*(int *)arg = broker_resolve("127.0.0.1", 9, false, NULL, a, 4);
	return NULL;
}

static void many_may_ask_for_a_host_at_once(void)
{
	pthread_t threads[ASKERS];
	int found[ASKERS];
	struct error err;

	REQUIRE(broker_start(&policy, nobody_died, NULL, &err) == 0);
	for (int i = 0; i < ASKERS; i++)
		REQUIRE(!pthread_create(&threads[i], NULL, asks_for_the_host, &found[i]));
	for (int i = 0; i < ASKERS; i++) {
		REQUIRE(!pthread_join(threads[i], NULL));
		CHECK(found[i] == 1);
	}
	broker_stop();
}

static void a_listener_is_accepted_on_until_it_is_closed(void)
{
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	const struct sockaddr *sa = (const struct sockaddr *)&un;
	struct sockaddr_storage from;
	struct policy p = { 0 };
	socklen_t len;
	struct error err;
	int l, c, s;

	snprintf(un.sun_path, sizeof(un.sun_path), "%s/sock", dir);
	REQUIRE(!policy_add_address(&p, &un, sizeof(un), POLICY_LISTEN | POLICY_CONNECT, &err));
	REQUIRE(broker_start(&p, nobody_died, NULL, &err) == 0);
	l = broker_socket_listen(sa, sizeof(un), 8);
	c = broker_socket_connect(sa, sizeof(un));
	REQUIRE(l >= 0 && c >= 0);
	s = broker_accept(l, &from, &len);
	CHECK(s >= 0 && write(s, "x", 1) == 1);
	CHECK(broker_accept(c, &from, &len) == -1 && errno == EPERM);
	close(c);
	close(s);
	broker_listener_close(l);
	c = broker_socket_connect(sa, sizeof(un));
	CHECK(c == -1 && errno == ECONNREFUSED); /* the broker's is closed too */
	broker_stop();
	policy_free(&p);
	unlink(un.sun_path);
}

static void a_broker_that_is_killed_is_noticed(void)
{
	struct pollfd p;
	struct error err;
	char path[128], pids[64] = "";
	FILE *f;

	snprintf(path, sizeof(path), "/proc/self/task/%d/children", (int)getpid());
	REQUIRE(broker_start(&policy, nobody_died, NULL, &err) == 0);
	f = fopen(path, "r");
	REQUIRE(f && fgets(pids, sizeof(pids), f));
	fclose(f);
	CHECK(kill((pid_t)atoi(pids), SIGKILL) == 0);
	p = (struct pollfd){ .fd = broker_fd(), .events = POLLIN };
	CHECK(poll(&p, 1, 10000) == 1);
	snprintf(path, sizeof(path), "%s/img", dir);
	CHECK(broker_open(path, O_RDONLY, 0) == -1 && (errno == EPIPE || errno == ECONNRESET));
	broker_stop();
}

static void clean_up(void)
{
	policy_free(&policy);
	CHECK(rmdir(dir) == 0);
}

static const struct test_case cases[] = {
	{ "a policy is there for the cases", set_up },
	{ "requests of the wrong size are refused", requests_of_the_wrong_size_are_refused },
	{ "acts that are none are refused", acts_that_are_none_are_refused },
	{ "files are made where they may be", files_are_made_where_they_may_be },
	{ "a full image is not replaced", a_full_image_is_not_replaced },
	{ "a link in the .part is never written through",
	  a_link_in_the_part_is_never_written_through },
	{ "nor is what has another name", nor_is_what_has_another_name },
	{ "only the .part is marked", only_the_part_is_marked },
	{ "only known addresses are connected to", only_known_addresses_are_connected_to },
	{ "only known hosts are resolved", only_known_hosts_are_resolved },
	{ "listeners that are none are refused", listeners_that_are_none_are_refused },
	{ "only our children are signalled", only_our_children_are_signalled },
	{ "a command gets our descriptors and no others",
	  a_command_gets_our_descriptors_and_no_others },
	{ "a broker does what it may and says why not",
	  a_broker_does_what_it_may_and_says_why_not },
	{ "many may ask for a host at once", many_may_ask_for_a_host_at_once },
	{ "a listener is accepted on until it is closed",
	  a_listener_is_accepted_on_until_it_is_closed },
	{ "a broker that is killed is noticed", a_broker_that_is_killed_is_noticed },
	{ "nothing is left behind", clean_up },
};
TEST_MAIN(cases)
