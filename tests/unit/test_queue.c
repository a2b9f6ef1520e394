// SPDX-License-Identifier: GPL-2.0-or-later
#include "test.h"

#include "queue.h"

#include <signal.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static struct error err;
static struct cancel token;
static int things[64];

static void in_order(void)
{
	struct queue q;
	void *item;

	REQUIRE(!queue_init(&q, 3, &err));
	CHECK(!queue_try(&q));
	/* the ring goes round */
	for (int i = 0; i < 10; i++) {
		queue_put(&q, &things[i]);
		queue_put(&q, &things[i + 20]);
		CHECK(queue_get(&q, &item, &token, &err) == 1 && item == &things[i]);
		queue_put(&q, &things[i + 40]);
		CHECK(queue_try(&q) == &things[i + 20]);
		CHECK(queue_get(&q, &item, &token, &err) == 1 && item == &things[i + 40]);
		CHECK(!queue_try(&q));
	}
	queue_destroy(&q);
}

static void closed(void)
{
	struct queue q;
	void *item = NULL;

	REQUIRE(!queue_init(&q, 2, &err));
	queue_put(&q, &things[0]);
	queue_put(&q, &things[1]);
	queue_close(&q);
	CHECK(queue_get(&q, &item, &token, &err) == 1 && item == &things[0]);
	CHECK(queue_get(&q, &item, &token, &err) == 1 && item == &things[1]);
	CHECK(queue_get(&q, &item, &token, &err) == 0);
	CHECK(!queue_try(&q));
	queue_destroy(&q);
}

struct taker {
	struct queue *q, *back;
	struct cancel *token;
	pthread_t thread;
	long sum;
	int rc;
	struct error err;
};

static void *take_all(void *arg)
{
	struct taker *t = arg;
	void *item;

	while ((t->rc = queue_get(t->q, &item, t->token, &t->err)) > 0) {
		t->sum += *(int *)item;
		queue_put(t->back, item);
	}
	return NULL;
}

static void between_threads(void)
{
	struct queue q, pool;
	struct taker t[3];
	long sum = 0;
	void *item;

	REQUIRE(!queue_init(&q, 4, &err) && !queue_init(&pool, 4, &err));
	for (int i = 0; i < 4; i++)
		queue_put(&pool, &things[i]);
	for (int i = 0; i < 3; i++) {
		t[i] = (struct taker){ .q = &q, .back = &pool, .token = &token };
		REQUIRE(!pthread_create(&t[i].thread, NULL, take_all, &t[i]));
	}
	for (int i = 0; i < 20000; i++) {
		REQUIRE(queue_get(&pool, &item, &token, &err) == 1);
		sum += *(int *)item = i;
		queue_put(&q, item);
	}
	queue_close(&q);
	for (int i = 0; i < 3; i++) {
		pthread_join(t[i].thread, NULL);
		CHECK(t[i].rc == 0);
		sum -= t[i].sum;
	}
	CHECK(sum == 0);
	for (int i = 0; i < 4; i++)
		CHECK(queue_try(&pool));
	queue_destroy(&q);
	queue_destroy(&pool);
}

static void cancelled(void)
{
	struct error why = { 0 };
	struct queue q, back;
	struct cancel c;
	struct taker t = { .q = &q, .back = &back, .token = &c };
	void *item = NULL;

	REQUIRE(!cancel_init(&c, &err) && !queue_init(&q, 2, &err) && !queue_init(&back, 2, &err));
	REQUIRE(!pthread_create(&t.thread, NULL, take_all, &t));
	err_set(&why, ST_CANCELLED, "enough");
	/* nobody signals the queue's variable */
	cancel_fire(&c, &why);
	pthread_join(t.thread, NULL);
	CHECK(t.rc == -1 && t.err.status == ST_CANCELLED);
	CHECK_STR(t.err.msg, "enough");
	/* from then on nothing is given out, even if it is there; the pool can still be emptied */
	queue_put(&q, &things[0]);
	CHECK(queue_get(&q, &item, &c, &err) == -1 && !item);
	CHECK(queue_try(&q) == &things[0]);
	queue_destroy(&q);
	queue_destroy(&back);
	cancel_destroy(&c);
}

static void too_many(void)
{
	struct rlimit none = { 0, 0 };
	struct queue q;
	int status = 0;
	pid_t child;

	REQUIRE(!queue_init(&q, 1, &err));
	queue_put(&q, &things[0]);
	fflush(stdout);
	child = fork();
	if (!child) {
		setrlimit(RLIMIT_CORE, &none);
		signal(SIGABRT, SIG_DFL);
		queue_put(&q, &things[1]);
		_exit(0);
	}
	CHECK(waitpid(child, &status, 0) == child);
	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
	queue_destroy(&q);
}

static const struct test_case cases[] = {
	{ "what is put first comes first, round and round", in_order },
	{ "a closed queue gives out what is in it", closed },
	{ "threads hand over every item once", between_threads },
	{ "a fired token ends the wait", cancelled },
	{ "one item more than fits is a programming error", too_many },
};

TEST_MAIN(cases)
