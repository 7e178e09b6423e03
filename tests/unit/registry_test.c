/*
 * registry_test.c - the registry client against our server over loopback, and
 * against servers that are gone, mute, or not ours.
 */
#include "../../src/registry/registry.h"

#include "../../src/base/clock.h"
#include "../../src/base/net.h"
#include "../../src/base/util.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static struct mc_registryd *server;

static void assert_says(const char *text)
{
	if (!strstr(mc_errmsg(), text))
		fail_msg("message '%s' lacks '%s'", mc_errmsg(), text);
}

/* @r must be @err, and the message say all of @text, separated by '|'. */
static void assert_fails(int64_t r, int err, const char *text)
{
	char copy[200], *part, *rest = copy;

	if (r != err)
		fail_msg("%lld is not %d: %s", (long long)r, err, mc_errmsg());
	mc_copy(copy, text);
	while ((part = strsep(&rest, "|")))
		assert_says(part);
}

static void assert_ok(int64_t r)
{
	if (r < 0)
		fail_msg("%lld: %s", (long long)r, mc_errmsg());
}

static struct mc_registry *client_of(const char *addr)
{
	struct mc_registry *r = NULL;
	char url[160];

	snprintf(url, sizeof(url), "http://%s/metadata", addr);
	assert_ok(mc_registry_open(&r, url));
	return r;
}

static struct mc_registry *client(void)
{
	return client_of(mc_registryd_addr(server));
}

static int64_t get(struct mc_registry *r, const char *key, char *out,
		   size_t size)
{
	return mc_registry_get(r, key, out, size, NULL);
}

static int setup(void **state)
{
	(void)state;
	return mc_registryd_open(&server, "127.0.0.1:0", NULL);
}

static int teardown(void **state)
{
	(void)state;
	mc_registryd_close(server);
	return 0;
}

/* ---- the verbs ------------------------------------------------------- */

static void values_come_and_go(void **state)
{
	struct mc_registry *r = client();
	uint64_t v1, v2;
	char out[64];

	(void)state;
	assert_fails(get(r, "a", out, sizeof(out)), -ENOENT,
		     "get 'a'|127.0.0.1:|metadata not found|HTTP 404");
	assert_ok(mc_registry_put(r, "a", "{\"x\":1}", 7, 0));
	assert_int_equal(mc_registry_get(r, "a", out, sizeof(out), &v1), 7);
	assert_string_equal(out, "{\"x\":1}");
	assert_ok(mc_registry_put(r, "a", "2", 1, 0));
	assert_int_equal(mc_registry_get(r, "a", out, sizeof(out), &v2), 1);
	assert_true(v2 > v1 && v1);
	assert_string_equal(out, "2");
	assert_ok(mc_registry_del(r, "a"));
	assert_fails(mc_registry_del(r, "a"), -ENOENT, "delete 'a'");
	assert_fails(get(r, "a", out, sizeof(out)), -ENOENT, "");
	mc_registry_close(r);
}

static void short_buffers_get_the_length(void **state)
{
	struct mc_registry *r = client();
	char out[4] = "zzz";

	(void)state;
	assert_ok(mc_registry_put(r, "short", "abcdefgh", 8, 0));
	assert_int_equal(get(r, "short", out, sizeof(out)), 8);
	assert_string_equal(out, "abc");
	assert_int_equal(get(r, "short", NULL, 0), 8);
	assert_ok(mc_registry_put(r, "short", "", 0, 0));
	assert_int_equal(get(r, "short", out, sizeof(out)), 0);
	assert_string_equal(out, "");
	mc_registry_close(r);
}

static void any_bytes_are_a_value(void **state)
{
	struct mc_registry *r = client();
	char in[1024], out[1025];

	(void)state;
	for (size_t i = 0; i < sizeof(in); i++)
		in[i] = (char)(i * 7);
	assert_ok(mc_registry_put(r, "bytes", in, sizeof(in), 0));
	assert_int_equal(get(r, "bytes", out, sizeof(out)), sizeof(in));
	assert_memory_equal(in, out, sizeof(in));
	mc_registry_close(r);
}

static void odd_keys_are_keys(void **state)
{
	static const char *const keys[] = {
		"mooncake/ram/node-1", "a b", " lead", "100%", "%41", "a+b",
		"a&b=c", "key=x", "prefix=", "?q#f", "\xc3\xa9\xe2\x82\xac",
		"\xf0\x9f\xa5\xae", "//x//", "\"quoted\"", "back\\slash",
	};
	struct mc_registry *r = client();
	char out[64], all[1024];

	(void)state;
	for (size_t i = 0; i < mc_array_len(keys); i++)
		assert_ok(mc_registry_put(r, keys[i], keys[i], strlen(keys[i]),
					  0));
	assert_ok(mc_registry_list(r, "", all, sizeof(all)));
	for (size_t i = 0; i < mc_array_len(keys); i++) {
		assert_ok(get(r, keys[i], out, sizeof(out)));
		assert_string_equal(out, keys[i]);
		assert_non_null(strstr(all, keys[i]));
		assert_ok(mc_registry_del(r, keys[i]));
	}
	mc_registry_close(r);
}

static void bad_keys_are_refused(void **state)
{
	static char big[MC_KEY_MAX + 2];
	struct mc_registry *r = client();
	char out[8];

	(void)state;
	assert_fails(get(r, "", out, 8), -EINVAL, "empty key");
	assert_fails(get(r, NULL, out, 8), -EINVAL, "empty key");
	assert_fails(get(r, "  ", out, 8), -EINVAL, "blank");
	assert_fails(get(r, "a\nb", out, 8), -EINVAL, "control");
	assert_fails(get(r, "\xff", out, 8), -EINVAL, "UTF-8");
	assert_fails(get(r, "\xed\xa0\x80", out, 8), -EINVAL, "UTF-8");
	memset(big, 'k', MC_KEY_MAX + 1);
	assert_fails(mc_registry_put(r, big, "v", 1, 0), -EINVAL, "4097 bytes");
	big[MC_KEY_MAX] = 0;
	assert_ok(mc_registry_put(r, big, "v", 1, 0));
	assert_int_equal(get(r, big, out, 8), 1);
	memset(big, '%', MC_KEY_MAX);	/* three bytes each on the wire */
	assert_ok(mc_registry_put(r, big, "w", 1, 0));
	assert_int_equal(get(r, big, out, 8), 1);
	assert_fails(mc_registry_put(r, "k", "v", 1, -1), -EINVAL, "negative");
	assert_fails(mc_registry_put(r, "k", NULL, 1, 0), -EINVAL, "no value");
	mc_registry_close(r);
}

static void urls_are_checked(void **state)
{
	struct mc_registry *r;

	(void)state;
	assert_fails(mc_registry_open(&r, NULL), -EINVAL, "'peer'|no records");
	assert_fails(mc_registry_open(&r, "peer"), -EINVAL, "'peer'");
	assert_fails(mc_registry_open(&r, "node:80"), -EINVAL, "http://");
	assert_fails(mc_registry_open(&r, "etcd://h:1"), -EINVAL,
		     "no backend for etcd://|peer, http://");
	assert_fails(mc_registry_open(&r, "redis://h:1"), -EINVAL, "redis://");
	assert_fails(mc_registry_open(&r, "http://h:99999/"), -EINVAL,
		     "malformed");
	assert_fails(mc_registry_open(&r, "http://"), -EINVAL, "malformed");
}

static void urls_have_defaults(void **state)
{
	static const char *const forms[] = {
		"http://%s", "HTTP://%s/", "http://%s/metadata",
		"http://%s/some/path?cluster=7", "http://%s?x=1#frag",
	};
	struct mc_registry *r;
	char url[200], out[8];

	(void)state;
	for (size_t i = 0; i < mc_array_len(forms); i++) {
		snprintf(url, sizeof(url), forms[i], mc_registryd_addr(server));
		assert_ok(mc_registry_open(&r, url));
		assert_ok(mc_registry_put(r, "url", "v", 1, 0));
		assert_int_equal(get(r, "url", out, sizeof(out)), 1);
		mc_registry_close(r);
	}
}

static void passwords_stay_out_of_messages(void **state)
{
	struct mc_registry *r;
	char url[200];

	(void)state;
	snprintf(url, sizeof(url), "http://user:secret@%s/m?token=secret",
		 mc_registryd_addr(server));
	assert_ok(mc_registry_open(&r, url));
	assert_fails(mc_registry_get(r, "none", NULL, 0, NULL), -ENOENT, "/m:");
	assert_null(strstr(mc_errmsg(), "secret"));
	mc_registry_close(r);
}

static void proxies_are_not_asked(void **state)
{
	struct mc_registry *r;

	(void)state;
	setenv("http_proxy", "http://127.0.0.1:1", 1);
	setenv("ALL_PROXY", "http://127.0.0.1:1", 1);
	r = client();
	assert_ok(mc_registry_put(r, "proxy", "v", 1, 0));
	mc_registry_close(r);
	unsetenv("http_proxy");
	unsetenv("ALL_PROXY");
}

static void names_are_listed(void **state)
{
	struct mc_registry *r = client();
	char out[64];

	(void)state;
	assert_ok(mc_registry_put(r, "l/b", "1", 1, 0));
	assert_ok(mc_registry_put(r, "l/a", "1", 1, 0));
	assert_ok(mc_registry_put(r, "l", "1", 1, 0));
	assert_int_equal(mc_registry_list(r, "l/", out, sizeof(out)), 8);
	assert_string_equal(out, "l/a\nl/b\n");
	assert_int_equal(mc_registry_list(r, "l/", out, 4), 8);
	assert_string_equal(out, "l/a");
	assert_int_equal(mc_registry_list(r, "none", out, sizeof(out)), 0);
	assert_string_equal(out, "");
	mc_registry_close(r);
}

static void all_values_up_to_the_limit(void **state)
{
	struct mc_registry *r = client();
	char *big = malloc((size_t)MC_VALUE_MAX + 1);
	char *out = malloc((size_t)MC_VALUE_MAX + 1);

	(void)state;
	mc_registry_set_times(r, 20000, 0);
	mc_fill(big, (uint64_t)MC_VALUE_MAX + 1, 5);
	assert_fails(mc_registry_put(r, "big", big, (uint64_t)MC_VALUE_MAX + 1,
				     0), -EFBIG, "at most 67108864");
	assert_ok(mc_registry_put(r, "big", big, MC_VALUE_MAX, 0));
	assert_int_equal(get(r, "big", out, (size_t)MC_VALUE_MAX + 1),
			 MC_VALUE_MAX);
	assert_memory_equal(big, out, MC_VALUE_MAX);
	assert_ok(mc_registry_del(r, "big"));
	free(big);
	free(out);
	mc_registry_close(r);
}

/* ---- compare and swap ------------------------------------------------ */

static void versions_guard_changes(void **state)
{
	struct mc_registry *r = client();
	uint64_t v1, v2;

	(void)state;
	assert_fails(mc_registry_cas(r, "cas", "x", 1, 7, 0), -EAGAIN,
		     "cas 'cas'|no such record");
	assert_ok(mc_registry_cas(r, "cas", "x", 1, 0, 0));
	assert_fails(mc_registry_cas(r, "cas", "y", 1, 0, 0), -EAGAIN,
		     "another version");
	assert_ok(mc_registry_get(r, "cas", NULL, 0, &v1));
	assert_ok(mc_registry_cas(r, "cas", "y", 1, v1, 0));
	assert_fails(mc_registry_cas(r, "cas", "z", 1, v1, 0), -EAGAIN, "");
	assert_ok(mc_registry_get(r, "cas", NULL, 0, &v2));
	assert_ok(mc_registry_put(r, "cas", "y", 1, 0));
	assert_ok(mc_registry_cas(r, "cas", "z", 1, v2, 0));
	assert_fails(mc_registry_del_if(r, "cas", v2), -EAGAIN, "another");
	assert_ok(mc_registry_get(r, "cas", NULL, 0, &v2));
	assert_ok(mc_registry_del_if(r, "cas", v2));
	assert_fails(mc_registry_del_if(r, "cas", v2), -EAGAIN, "no such");
	mc_registry_close(r);
}

struct racer {
	pthread_t thread;
	pthread_barrier_t *go;
	int won;
	int lost;
};

static void *race(void *arg)
{
	struct racer *me = arg;
	struct mc_registry *r = client();
	char key[16];

	for (int i = 0; i < 20; i++) {
		int ret;

		snprintf(key, sizeof(key), "race%d", i);
		pthread_barrier_wait(me->go);
		ret = mc_registry_cas(r, key, "me", 2, 0, 0);
		me->won += !ret;
		me->lost += ret == -EAGAIN;
	}
	mc_registry_close(r);
	return NULL;
}

static void one_of_eight_wins(void **state)
{
	struct racer racers[8] = { 0 };
	pthread_barrier_t go;
	int won = 0, lost = 0;

	(void)state;
	pthread_barrier_init(&go, NULL, 8);
	for (int i = 0; i < 8; i++) {
		racers[i].go = &go;
		pthread_create(&racers[i].thread, NULL, race, &racers[i]);
	}
	for (int i = 0; i < 8; i++) {
		pthread_join(racers[i].thread, NULL);
		won += racers[i].won;
		lost += racers[i].lost;
	}
	pthread_barrier_destroy(&go);
	assert_int_equal(won, 20);
	assert_int_equal(lost, 20 * 7);
}

/* ---- leases ---------------------------------------------------------- */

static void leases_run_out_unless_renewed(void **state)
{
	struct mc_registry *r = client();
	uint64_t v1, v2;

	(void)state;
	assert_ok(mc_registry_put(r, "lease/a", "1", 1, 300));
	assert_ok(mc_registry_put(r, "lease/b", "1", 1, 300));
	assert_ok(mc_registry_put(r, "lease/c", "1", 1, 300));
	assert_ok(mc_registry_get(r, "lease/b", NULL, 0, &v1));
	for (int i = 0; i < 4; i++) {
		usleep(100000);
		assert_ok(mc_registry_put(r, "lease/b", "1", 1, 300));
		if (!i)		/* it stays from now on */
			assert_ok(mc_registry_put(r, "lease/c", "1", 1, 0));
	}
	assert_fails(get(r, "lease/a", NULL, 0), -ENOENT, "");
	assert_ok(mc_registry_get(r, "lease/b", NULL, 0, &v2));
	assert_int_equal(v1, v2);
	usleep(350000);
	assert_fails(get(r, "lease/b", NULL, 0), -ENOENT, "");
	assert_ok(get(r, "lease/c", NULL, 0));
	mc_registry_close(r);
}

static void many_leases_run_out_in_order(void **state)
{
	struct mc_registry *r = client();
	char key[32], out[8192];
	unsigned int seed = 3;

	(void)state;
	for (int i = 0; i < 200; i++) {
		snprintf(key, sizeof(key), "many/%d", i);
		assert_ok(mc_registry_put(r, key, "1", 1, i % 2 ? 60000 :
					  200 + rand_r(&seed) % 300));
	}
	for (int i = 0; i < 50; i++) {
		snprintf(key, sizeof(key), "many/%d", 4 * i + 1);
		assert_ok(mc_registry_del(r, key));
	}
	usleep(600000);
	assert_ok(mc_registry_list(r, "many/", out, sizeof(out)));
	for (int i = 0; i < 200; i++) {
		snprintf(key, sizeof(key), "many/%d\n", i);
		if (!strstr(out, key) != (i % 4 != 3))
			fail_msg("%s is %s", key, out);
	}
	mc_registry_close(r);
}

static double cpu_of_process(void)
{
	struct rusage u;

	getrusage(RUSAGE_SELF, &u);
	return u.ru_utime.tv_sec + u.ru_stime.tv_sec +
	       (u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static void idle_costs_nothing(void **state)
{
	struct mc_registry *r = client();
	double before;

	(void)state;
	assert_ok(mc_registry_put(r, "idle", "1", 1, 60000));
	before = cpu_of_process();
	sleep(1);
	assert_true(cpu_of_process() - before < 0.005);
	mc_registry_close(r);
}

/* ---- watching -------------------------------------------------------- */

static void *change_soon(void *arg)
{
	struct mc_registry *r = client();

	usleep(200000);
	assert_ok(mc_registry_put(r, "other", "1", 1, 0));
	if (!mc_registry_put(r, "w/a", "1", 1, 0))
		*(uint64_t *)arg = mc_clock_ns();
	mc_registry_close(r);
	return NULL;
}

static void assert_change(struct mc_registry *r, bool deleted, const char *key)
{
	struct mc_registry_change c;

	assert_int_equal(mc_registry_change(r, &c), 1);
	assert_int_equal(c.deleted, deleted);
	assert_int_equal(c.len, strlen(key));
	assert_memory_equal(c.key, key, c.len);
}

static void a_watch_wakes(void **state)
{
	struct mc_registry *r = client();
	struct mc_registry_change c;
	uint64_t version = 0, put_ns = 0, woke_ns;
	pthread_t t;

	(void)state;
	assert_int_equal(mc_registry_watch(r, "w/", &version, 5000), 0);
	assert_true(version > 0);
	pthread_create(&t, NULL, change_soon, &put_ns);
	assert_int_equal(mc_registry_watch(r, "w/", &version, 5000), 1);
	woke_ns = mc_clock_ns();
	pthread_join(t, NULL);
	assert_change(r, false, "w/a");
	assert_int_equal(mc_registry_change(r, &c), 0);
	assert_true((int64_t)(woke_ns - put_ns) < 100 * MC_MS);
	mc_registry_close(r);
}

static void a_watch_sees_leases_go(void **state)
{
	struct mc_registry *r = client();
	uint64_t version = 0;

	(void)state;
	assert_int_equal(mc_registry_watch(r, "wl/", &version, 0), 0);
	assert_ok(mc_registry_put(r, "wl/a", "1", 1, 200));
	assert_ok(mc_registry_put(r, "wl/b", "1", 1, 0));
	assert_ok(mc_registry_put(r, "wl/b", "1", 1, 0));
	assert_int_equal(mc_registry_watch(r, "wl/", &version, 5000), 2);
	assert_change(r, false, "wl/a");
	assert_change(r, false, "wl/b");
	assert_int_equal(mc_registry_watch(r, "wl/", &version, 5000), 1);
	assert_change(r, true, "wl/a");
	mc_registry_close(r);
}

static void a_watch_ends_in_time(void **state)
{
	struct mc_registry *r = client();
	uint64_t version = 0, start, old;

	(void)state;
	assert_int_equal(mc_registry_watch(r, "wt/", &version, 0), 0);
	old = version;
	start = mc_clock_ns();
	assert_int_equal(mc_registry_watch(r, "wt/", &version, 300), 0);
	assert_in_range((mc_clock_ns() - start) / MC_MS, 290, 900);
	assert_int_equal(version, old);
	mc_registry_close(r);
}

static void old_changes_are_forgotten(void **state)
{
	struct mc_registry *r = client();
	uint64_t version = 0, old;
	char key[32];
	int n;

	(void)state;
	assert_int_equal(mc_registry_watch(r, "f/", &version, 0), 0);
	old = version;
	for (int i = 0; i < 4096; i++) {
		snprintf(key, sizeof(key), "f/%d", i % 50);
		n = snprintf(key + 16, 16, "%d", i);
		assert_ok(mc_registry_put(r, key, key + 16, n, 0));
	}
	assert_int_equal(mc_registry_watch(r, "f/", &version, 0), 4096);
	version = old;
	assert_ok(mc_registry_put(r, "f/0", "last", 4, 0));
	assert_fails(mc_registry_watch(r, "f/", &version, 0), -ESTALE,
		     "forgotten|watch 'f/'");
	version = ~0ull / 2;
	assert_fails(mc_registry_watch(r, "f/", &version, 0), -ESTALE, "");
	mc_registry_close(r);
}

/* ---- servers that do not answer as they should ----------------------- */

static void a_server_that_is_gone(void **state)
{
	struct mc_registryd *d;
	struct mc_registry *r;
	char addr[MC_ADDR_MAX];
	uint64_t start;

	(void)state;
	assert_ok(mc_registryd_open(&d, "127.0.0.1:0", NULL));
	mc_copy(addr, mc_registryd_addr(d));
	r = client_of(addr);
	assert_ok(mc_registry_put(r, "a", "1", 1, 0));
	mc_registryd_close(d);
	start = mc_clock_ns();
	assert_fails(get(r, "a", NULL, 0), -ECONNREFUSED, "get 'a'|http://");
	assert_says(addr);
	assert_fails(mc_registry_cas(r, "a", "1", 1, 0, 0), -ECONNREFUSED,
		     "cas 'a'");
	assert_true(mc_clock_ns() - start < 1000ull * MC_MS);
	/* And back on the same port: the same handle goes on. */
	assert_ok(mc_registryd_open(&d, addr, NULL));
	assert_ok(mc_registry_put(r, "a", "1", 1, 0));
	mc_registryd_close(d);
	mc_registry_close(r);
}

/* A server in a process of its own. */
static pid_t server_process(char addr[MC_ADDR_MAX])
{
	int pipes[2];
	char fd[16];
	pid_t pid;

	assert_int_equal(pipe(pipes), 0);
	snprintf(fd, sizeof(fd), "%d", pipes[1]);
	pid = fork();
	if (!pid) {
		execl("/proc/self/exe", "server", fd, NULL);
		_exit(127);
	}
	close(pipes[1]);
	assert_int_equal(read(pipes[0], addr, MC_ADDR_MAX), MC_ADDR_MAX);
	close(pipes[0]);
	return pid;
}

/* Such a process: tells its address and serves. */
static int server_main(int fd)
{
	struct mc_registryd *d;
	char addr[MC_ADDR_MAX] = "";

	if (mc_registryd_open(&d, "127.0.0.1:0", NULL) < 0)
		return 1;
	mc_copy(addr, mc_registryd_addr(d));
	if (write(fd, addr, sizeof(addr)) < 0)
		return 1;
	for (;;)
		pause();
}

static void *kill_soon(void *arg)
{
	usleep(200000);
	kill(*(pid_t *)arg, SIGKILL);
	return NULL;
}

static void a_server_killed_in_a_request(void **state)
{
	char addr[MC_ADDR_MAX];
	pid_t pid = server_process(addr);
	struct mc_registry *r = client_of(addr);
	uint64_t version = 0, start = mc_clock_ns();
	pthread_t t;
	int ret;

	(void)state;
	assert_int_equal(mc_registry_watch(r, "k", &version, 0), 0);
	pthread_create(&t, NULL, kill_soon, &pid);
	ret = mc_registry_watch(r, "k", &version, 20000);
	if (ret != -ECONNRESET && ret != -ECONNREFUSED)
		fail_msg("%d: %s", ret, mc_errmsg());
	assert_says("watch 'k'");
	assert_true(mc_clock_ns() - start < 1000ull * MC_MS);
	pthread_join(t, NULL);
	waitpid(pid, NULL, 0);
	mc_registry_close(r);
}

static void a_server_that_is_frozen(void **state)
{
	char addr[MC_ADDR_MAX];
	pid_t pid = server_process(addr);
	struct mc_registry *r = client_of(addr);
	uint64_t start;

	(void)state;
	assert_ok(mc_registry_put(r, "a", "1", 1, 0));
	kill(pid, SIGSTOP);
	/* It has stopped only when all its threads have. */
	assert_int_equal(waitpid(pid, NULL, WUNTRACED), pid);
	start = mc_clock_ns();
	assert_fails(get(r, "a", NULL, 0), -ETIMEDOUT, "get 'a'");
	assert_in_range((mc_clock_ns() - start) / MC_MS, 2900, 30000);
	mc_registry_set_times(r, 200, 100);
	start = mc_clock_ns();
	assert_fails(mc_registry_put(r, "a", "1", 1, 0), -ETIMEDOUT, "");
	assert_in_range((mc_clock_ns() - start) / MC_MS, 190, 7000);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	mc_registry_close(r);
}

static void a_host_that_is_not_known(void **state)
{
	struct mc_registry *r = client_of("no-such-host.invalid:80");
	uint64_t start = mc_clock_ns();
	int ret = get(r, "a", NULL, 0);

	(void)state;
	/* A resolver that does not answer at all gives the other one. */
	assert_true(ret == -EHOSTUNREACH || ret == -ETIMEDOUT);
	assert_says("no-such-host.invalid");
	assert_true(mc_clock_ns() - start < 3500ull * MC_MS);
	mc_registry_close(r);
}

/* Answers every request with @reply and closes. */
struct canned {
	pthread_t thread;
	int fd;
	char addr[MC_ADDR_MAX];
	const char *reply;
	char last[512];			/* the first line of the last request */
	int served;
};

static void *canned_main(void *arg)
{
	struct canned *c = arg;
	char buf[4096];
	ssize_t n;
	int fd;

	for (;;) {
		if (mc_net_wait(c->fd, POLLIN, UINT64_MAX) < 0)
			return NULL;
		fd = accept(c->fd, NULL, NULL);
		if (fd < 0)
			return NULL;
		n = read(fd, buf, sizeof(buf) - 1);
		buf[n > 0 ? n : 0] = 0;
		buf[strcspn(buf, "\r\n")] = 0;
		mc_copy(c->last, buf);
		c->served++;
		if (write(fd, c->reply, strlen(c->reply)) < 0)
			perror("write");
		close(fd);
	}
}

static void canned_start(struct canned *c, const char *reply)
{
	memset(c, 0, sizeof(*c));
	c->reply = reply;
	assert_ok(mc_net_listen("127.0.0.1:0", &c->fd, c->addr));
	pthread_create(&c->thread, NULL, canned_main, c);
}

static void canned_stop(struct canned *c)
{
	shutdown(c->fd, SHUT_RDWR);
	pthread_join(c->thread, NULL);
	close(c->fd);
}

/* What the public servers answer, which have none of our headers. */
static void a_server_that_is_not_ours(void **state)
{
	struct mc_registry *r;
	struct canned c;
	uint64_t version = 9;
	char out[32];

	(void)state;
	canned_start(&c, "HTTP/1.1 200 OK\r\nContent-Length: 16\r\n"
		     "Connection: close\r\n\r\nmetadata updated");
	r = client_of(c.addr);
	assert_ok(mc_registry_put(r, "mooncake/ram/a b", "1", 1, 1000));
	assert_string_equal(c.last, "PUT /metadata?key=mooncake%2Fram%2Fa%20b "
			    "HTTP/1.1");
	assert_int_equal(mc_registry_get(r, "a", out, sizeof(out), &version),
			 16);
	assert_int_equal(version, 0);
	assert_ok(mc_registry_del(r, "a"));
	assert_fails(mc_registry_cas(r, "a", "1", 1, 0, 0), -EOPNOTSUPP,
		     "only get, put and delete");
	assert_string_equal(c.last, "GET /metadata?key=a HTTP/1.1");
	assert_fails(mc_registry_list(r, "a", out, sizeof(out)), -EOPNOTSUPP,
		     "list 'a'");
	assert_fails(mc_registry_watch(r, "a", &version, 5000), -EOPNOTSUPP,
		     "watch 'a'");
	mc_registry_close(r);
	canned_stop(&c);
}

static void a_server_that_refuses(void **state)
{
	static const struct {
		const char *reply;
		int err;
		const char *says;
	} t[] = {
		{ "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
		  -ENOENT, "HTTP 404" },
		{ "HTTP/1.1 400 Bad Request\r\nContent-Length: 9\r\n\r\n"
		  "Duplicate", -EINVAL, "Duplicate (HTTP 400)" },
		{ "HTTP/1.1 403 Forbidden\r\nContent-Length: 6\r\n\r\n<html>",
		  -EACCES, "HTTP 403" },
		{ "HTTP/1.1 204 No Content\r\n\r\n", -EREMOTEIO, "HTTP 204" },
		{ "HTTP/1.1 302 Found\r\nLocation: http://h/\r\n"
		  "Content-Length: 0\r\n\r\n", -EREMOTEIO, "HTTP 302" },
		{ "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", -EBUSY,
		  "HTTP 503" },
		{ "HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nshort",
		  -ECONNRESET, "get 'a'" },
		{ "no http at all\r\n\r\n", -EPROTO, "get 'a'" },
		{ "", -ECONNRESET, "get 'a'" },
	};
	struct mc_registry *r;
	struct canned c;

	(void)state;
	for (size_t i = 0; i < mc_array_len(t); i++) {
		canned_start(&c, t[i].reply);
		r = client_of(c.addr);
		assert_fails(get(r, "a", NULL, 0), t[i].err, t[i].says);
		mc_registry_close(r);
		canned_stop(&c);
	}
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(values_come_and_go),
		cmocka_unit_test(short_buffers_get_the_length),
		cmocka_unit_test(any_bytes_are_a_value),
		cmocka_unit_test(odd_keys_are_keys),
		cmocka_unit_test(bad_keys_are_refused),
		cmocka_unit_test(urls_are_checked),
		cmocka_unit_test(urls_have_defaults),
		cmocka_unit_test(passwords_stay_out_of_messages),
		cmocka_unit_test(proxies_are_not_asked),
		cmocka_unit_test(names_are_listed),
		cmocka_unit_test(all_values_up_to_the_limit),
		cmocka_unit_test(versions_guard_changes),
		cmocka_unit_test(one_of_eight_wins),
		cmocka_unit_test(leases_run_out_unless_renewed),
		cmocka_unit_test(many_leases_run_out_in_order),
		cmocka_unit_test(idle_costs_nothing),
		cmocka_unit_test(a_watch_wakes),
		cmocka_unit_test(a_watch_sees_leases_go),
		cmocka_unit_test(a_watch_ends_in_time),
		cmocka_unit_test(old_changes_are_forgotten),
		cmocka_unit_test(a_server_that_is_gone),
		cmocka_unit_test(a_server_killed_in_a_request),
		cmocka_unit_test(a_server_that_is_frozen),
		cmocka_unit_test(a_host_that_is_not_known),
		cmocka_unit_test(a_server_that_is_not_ours),
		cmocka_unit_test(a_server_that_refuses),
	};

	if (argc == 2)
		return server_main(atoi(argv[1]));
	alarm(120);
	return cmocka_run_group_tests(tests, setup, teardown);
}
