/*
 * registry_engine_test.c - engines that find each other through a registry, of
 * each kind: a server that is killed and started again under load, or has lost
 * everything; an engine that was killed.
 */
#include "registries.h"

#include "../../src/base/clock.h"
#include "../../src/base/util.h"

#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

/* As in src/engine/publish.c: how long a record outlives its engine, how often
 * it is put again. */
enum { TTL_MS = 10000, EVERY_MS = 3000 };

static struct mc_engine *engine(const char *name, const char *url)
{
	struct mc_options o = {
		.name = name, .listen = name ? "127.0.0.1:0" : "none",
		.registry = url,
	};
	struct mc_engine *e = NULL;

	assert_ok(mc_open(&e, &o));
	return e;
}

static char *memory(struct mc_engine *e)
{
	void *mem = NULL;

	assert_ok(mc_buffer_alloc(e, 4096, MC_REMOTE_READ | MC_REMOTE_WRITE, 0,
				  -1, &mem));
	return mem;
}

/* Is the segment found within @ms? */
static bool is_found(struct mc_registry *r, const char *key, int ms)
{
	uint64_t end = mc_clock_ns() + ms * (uint64_t)MC_MS;

	do {
		if (registry_get(r, key, NULL, 0) >= 0)
			return true;
		usleep(50000);
	} while (mc_clock_ns() < end);
	return false;
}

/* Write to the segment that @name leads to. */
static void assert_reaches(struct mc_engine *e, const char *name,
			   const char *text, uint64_t remote)
{
	int seg = mc_segment_open(e, name, 5000);
	struct mc_req req = { .op = MC_WRITE, .remote = remote,
			      .len = strlen(text) + 1 };
	char *buf = memory(e);

	assert_ok(seg);
	strcpy(buf, text);
	req.buf = buf;
	req.segment = seg;
	assert_ok(mc_transfer(e, &req, 1, NULL, NULL));
	mc_segment_close(e, seg);
}

static void engines_find_each_other(void **state)
{
	struct server s;
	struct mc_engine *a, *b;
	struct mc_registry *r;
	char *mem;

	(void)state;
	server_open(&s, kind);
	r = registry_open(s.url);
	a = engine("decode-0", s.url);
	b = engine("prefill-0", s.url);
	assert_true(is_found(r, "mooncake/ram/decode-0", 0));
	assert_true(is_found(r, "mooncake/ram/prefill-0", 0));
	mem = memory(a);
	assert_reaches(b, "decode-0", "by name", (uintptr_t)mem);
	assert_string_equal(mem, "by name");
	assert_fails(mc_segment_open(b, "decode-1", 1000), -ENOENT,
		     "no segment 'decode-1'");
	mc_close(a);
	assert_false(is_found(r, "mooncake/ram/decode-0", 0));
	mc_close(b);
	mc_registry_close(r);
	server_end(&s);
}

/* Live engines are found again, without anyone's doing. */
static void an_empty_registry_is_filled_again(void **state)
{
	struct server s;
	struct mc_engine *a, *b;
	struct mc_registry *r;
	char *mem;

	(void)state;
	server_open(&s, kind);
	a = engine("decode-0", s.url);
	b = engine(NULL, s.url);
	server_kill(&s);
	server_wipe(&s);
	assert_fails(mc_segment_open(b, "decode-0", 1000), -ECONNREFUSED,
		     s.addr);
	server_start(&s);
	r = registry_open(s.url);
	assert_true(is_found(r, "mooncake/ram/decode-0", 3 * EVERY_MS));
	mem = memory(a);
	assert_reaches(b, "decode-0", "again", (uintptr_t)mem);
	assert_string_equal(mem, "again");
	mc_close(a);
	mc_close(b);
	mc_registry_close(r);
	server_end(&s);
}

/* ---- a server that comes and goes under load --------------------------- */

struct load {
	pthread_t thread;
	const char *url;
	int id;
	int *stop;			/* atomic */
	int acked;			/* the highest number that was put */
	int done, failed;
	int slowest_ms;
	char odd[200];
};

static bool is_of_a_lost_server(int64_t r)
{
	return r == -ECONNREFUSED || r == -ECONNRESET || r == -ETIMEDOUT ||
	       r == -EBUSY;
}

static void load_note(struct load *l, int64_t r, uint64_t start)
{
	int ms = (mc_clock_ns() - start) / MC_MS;

	l->slowest_ms = mc_max(l->slowest_ms, ms);
	if (r < 0)
		l->failed++;
	else
		l->done++;
	if (r < 0 && !is_of_a_lost_server(r))
		mc_copy(l->odd, mc_errmsg());
}

/* Count up under one key: put, get what was put, swap it for itself. */
static void *load_run(void *arg)
{
	struct load *l = arg;
	struct mc_registry *r = registry_open(l->url);
	char key[16], value[16];
	int64_t ret;

	snprintf(key, sizeof(key), "load%d", l->id);
	while (!__atomic_load_n(l->stop, __ATOMIC_RELAXED)) {
		int n = snprintf(value, sizeof(value), "%d", l->acked + 1);
		uint64_t start = mc_clock_ns(), version = 0;

		ret = mc_registry_put(r, key, value, n, 0);
		load_note(l, ret, start);
		if (ret < 0) {
			usleep(1000);
			continue;
		}
		l->acked++;
		start = mc_clock_ns();
		ret = mc_registry_get(r, key, value, sizeof(value), &version);
		load_note(l, ret, start);
		if (ret >= 0 && atoi(value) != l->acked)
			snprintf(l->odd, sizeof(l->odd), "put %d, got %s",
				 l->acked, value);
		if (ret < 0)
			continue;
		start = mc_clock_ns();
		ret = mc_registry_cas(r, key, value, ret, version, 0);
		load_note(l, ret, start);
	}
	mc_registry_close(r);
	return NULL;
}

static void a_server_killed_under_load(void **state)
{
	enum { LOADS = 4, KILLS = 3 };
	struct load loads[LOADS] = { 0 };
	struct mc_registry *r;
	struct server s;
	char key[16], value[16];
	int stop = 0, done = 0, failed = 0, slowest = 0;

	(void)state;
	server_init(&s, kind);
	if (!strcmp(kind->scheme, "redis"))
		memcpy(s.more, (const char *[]){ "--appendonly", "yes",
		       "--appendfsync", "always" }, 4 * sizeof(char *));
	server_start(&s);
	for (int i = 0; i < LOADS; i++) {
		loads[i] = (struct load){ .url = s.url, .id = i,
					  .stop = &stop };
		pthread_create(&loads[i].thread, NULL, load_run, &loads[i]);
	}
	for (int i = 0; i < KILLS; i++) {
		usleep(400000);
		server_kill(&s);
		usleep(200000);
		server_start(&s);
	}
	usleep(400000);
	__atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
	for (int i = 0; i < LOADS; i++)
		pthread_join(loads[i].thread, NULL);
	r = registry_open(s.url);
	for (int i = 0; i < LOADS; i++) {
		struct load *l = &loads[i];

		assert_string_equal(l->odd, "");
		snprintf(key, sizeof(key), "load%d", i);
		assert_ok(registry_get(r, key, value, sizeof(value)));
		/* The last put may have been done without an answer. */
		assert_in_range(atoi(value), l->acked, l->acked + 1);
		done += l->done;
		failed += l->failed;
		slowest = mc_max(slowest, l->slowest_ms);
	}
	print_message("%s: %d operations done, %d failed, slowest %d ms\n",
		      kind->name, done, failed, slowest);
	assert_true(done > 100 && failed > 0);
	assert_true(slowest < 3000 + 2000);
	mc_registry_close(r);
	server_end(&s);
}

/* ---- an engine that was killed ----------------------------------------- */

/* A process with an engine; it says so once it has it. */
static pid_t engine_process(const char *name, const char *url)
{
	int pipes[2];
	char fd[16], c;
	pid_t pid;

	assert_int_equal(pipe(pipes), 0);
	snprintf(fd, sizeof(fd), "%d", pipes[1]);
	pid = fork();
	if (!pid) {
		execl("/proc/self/exe", "engine", "engine", name, url, fd,
		      NULL);
		_exit(127);
	}
	close(pipes[1]);
	assert_int_equal(read(pipes[0], &c, 1), 1);
	close(pipes[0]);
	return pid;
}

static int engine_main(char **argv)
{
	struct mc_options o = { .name = argv[2], .registry = argv[3],
				.listen = "127.0.0.1:0" };
	struct mc_engine *e;

	if (mc_open(&e, &o) < 0 || write(atoi(argv[4]), "", 1) < 0)
		return 1;
	for (;;)
		pause();
}

/* For all kinds at once, since it takes its time. */
static void killed_engines_are_forgotten(void **state)
{
	enum { MAX = 8 };
	struct mc_registry *r[MAX];
	struct server s[MAX];
	pid_t pids[MAX];
	uint64_t killed;

	(void)state;
	for (int i = 0; i < n_kinds; i++) {
		server_open(&s[i], &kinds[i]);
		r[i] = registry_open(s[i].url);
		pids[i] = engine_process("decode-0", s[i].url);
		assert_true(is_found(r[i], "mooncake/ram/decode-0", 0));
	}
	/* Alive, it is there for longer than the lease is. */
	sleep(TTL_MS / 1000 + 2);
	for (int i = 0; i < n_kinds; i++) {
		assert_true(is_found(r[i], "mooncake/ram/decode-0", 0));
		kill(pids[i], SIGKILL);
		waitpid(pids[i], NULL, 0);
	}
	killed = mc_clock_ns();
	for (int i = 0; i < n_kinds; i++) {
		uint64_t end = killed + (TTL_MS + kinds[i].late_ms + 1000) *
			       (uint64_t)MC_MS;

		while (is_found(r[i], "mooncake/ram/decode-0", 0))
			if (mc_clock_ns() > end)
				fail_msg("%s: it is still there",
					 kinds[i].name);
		mc_registry_close(r[i]);
		server_end(&s[i]);
	}
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(engines_find_each_other),
		cmocka_unit_test(an_empty_registry_is_filled_again),
		cmocka_unit_test(a_server_killed_under_load),
	};
	const struct CMUnitTest once[] = {
		cmocka_unit_test(killed_engines_are_forgotten),
	};
	int failed;

	if (argc == 5 && !strcmp(argv[1], "engine"))
		return engine_main(argv);
	registries_main(argc, argv);
	alarm(200);
	failed = run_for_kinds(KINDS_THAT_DIFFER, tests, mc_array_len(tests),
			       NULL, NULL);
	return failed + cmocka_run_group_tests(once, NULL, NULL);
}
