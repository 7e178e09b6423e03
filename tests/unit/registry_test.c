/*
 * registry_test.c - what every registry does alike: the same tests for each
 * backend, against its real server, and against one that is gone or frozen.
 */
#include "registries.h"

#include "../../src/base/clock.h"
#include "../../src/base/util.h"

#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

static struct server server;

static struct mc_registry *client(void)
{
	return registry_open(server.url);
}

static int setup(void **state)
{
	(void)state;
	server_open(&server, kind);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	server_end(&server);
	return 0;
}

/* ---- the verbs --------------------------------------------------------- */

static void values_come_and_go(void **state)
{
	struct mc_registry *r = client();
	uint64_t v1, v2;
	char out[64];

	(void)state;
	assert_fails(registry_get(r, "a", out, sizeof(out)), -ENOENT,
		     "get 'a'|://127.0.0.1:");
	assert_ok(mc_registry_put(r, "a", "{\"x\":1}", 7, 0));
	assert_int_equal(mc_registry_get(r, "a", out, sizeof(out), &v1), 7);
	assert_string_equal(out, "{\"x\":1}");
	assert_ok(mc_registry_put(r, "a", "2", 1, 0));
	assert_int_equal(mc_registry_get(r, "a", out, sizeof(out), &v2), 1);
	assert_true(v2 > v1 && v1);
	assert_string_equal(out, "2");
	assert_ok(mc_registry_del(r, "a"));
	assert_fails(mc_registry_del(r, "a"), -ENOENT, "delete 'a'");
	assert_fails(registry_get(r, "a", out, sizeof(out)), -ENOENT, "");
	assert_ok(mc_registry_put(r, "a", "2", 1, 0));
	assert_ok(mc_registry_get(r, "a", out, sizeof(out), &v1));
	assert_true(v1 > v2);		/* a new record, whatever its value */
	mc_registry_close(r);
}

static void short_buffers_get_the_length(void **state)
{
	struct mc_registry *r = client();
	char out[4] = "zzz";

	(void)state;
	assert_ok(mc_registry_put(r, "short", "abcdefgh", 8, 0));
	assert_int_equal(registry_get(r, "short", out, sizeof(out)), 8);
	assert_string_equal(out, "abc");
	assert_int_equal(registry_get(r, "short", NULL, 0), 8);
	assert_ok(mc_registry_put(r, "short", "", 0, 0));
	assert_int_equal(registry_get(r, "short", out, sizeof(out)), 0);
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
	/* All lengths of base64's last group. */
	for (size_t n = sizeof(in) - 3; n <= sizeof(in); n++) {
		assert_ok(mc_registry_put(r, "bytes", in, n, 0));
		assert_int_equal(registry_get(r, "bytes", out, sizeof(out)), n);
		assert_memory_equal(in, out, n);
	}
	mc_registry_close(r);
}

static void odd_keys_are_keys(void **state)
{
	static const char *const keys[] = {
		"mooncake/ram/node-1", "a b", " lead", "100%", "%41", "a+b",
		"a&b=c", "key=x", "prefix=", "?q#f", "\xc3\xa9\xe2\x82\xac",
		"\xf0\x9f\xa5\xae", "//x//", "\"quoted\"", "back\\slash",
		"[a-z]*", "^?", "*", "\\", "{x}", "\xf4\x8f\xbf\xbf",
	};
	struct mc_registry *r = client();
	char out[64], all[1024];

	(void)state;
	for (size_t i = 0; i < mc_array_len(keys); i++)
		assert_ok(mc_registry_put(r, keys[i], keys[i], strlen(keys[i]),
					  0));
	assert_ok(mc_registry_list(r, "", all, sizeof(all)));
	for (size_t i = 0; i < mc_array_len(keys); i++) {
		assert_ok(registry_get(r, keys[i], out, sizeof(out)));
		assert_string_equal(out, keys[i]);
		assert_non_null(strstr(all, keys[i]));
		/* As a prefix it finds itself, and only what begins so. */
		assert_ok(mc_registry_list(r, keys[i], out, sizeof(out)));
		assert_int_equal(strlen(out), strlen(keys[i]) + 1);
		assert_memory_equal(out, keys[i], strlen(keys[i]));
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
	assert_fails(registry_get(r, "", out, 8), -EINVAL, "empty key");
	assert_fails(registry_get(r, NULL, out, 8), -EINVAL, "empty key");
	assert_fails(registry_get(r, "  ", out, 8), -EINVAL, "blank");
	assert_fails(registry_get(r, "a\nb", out, 8), -EINVAL, "control");
	assert_fails(registry_get(r, "\xff", out, 8), -EINVAL, "UTF-8");
	assert_fails(registry_get(r, "\xed\xa0\x80", out, 8), -EINVAL, "UTF-8");
	memset(big, 'k', MC_KEY_MAX + 1);
	assert_fails(mc_registry_put(r, big, "v", 1, 0), -EINVAL, "4097 bytes");
	big[MC_KEY_MAX] = 0;
	assert_ok(mc_registry_put(r, big, "v", 1, 0));
	assert_int_equal(registry_get(r, big, out, 8), 1);
	memset(big, '%', MC_KEY_MAX);	/* three bytes each on the wire */
	assert_ok(mc_registry_put(r, big, "w", 1, 0));
	assert_int_equal(registry_get(r, big, out, 8), 1);
	assert_ok(mc_registry_del(r, big));
	assert_fails(mc_registry_put(r, "k", "v", 1, -1), -EINVAL, "negative");
	assert_fails(mc_registry_put(r, "k", NULL, 1, 0), -EINVAL, "no value");
	mc_registry_close(r);
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

static void many_names_are_listed(void **state)
{
	static char out[32768], expected[32768];
	struct mc_registry *r = client();
	char key[16];
	size_t n = 0;

	(void)state;
	for (int i = 1199; i >= 0; i--) {
		snprintf(key, sizeof(key), "m/%04d", i);
		assert_ok(mc_registry_put(r, key, "1", 1, 0));
	}
	for (int i = 0; i < 1200; i++)
		n += sprintf(expected + n, "m/%04d\n", i);
	assert_int_equal(mc_registry_list(r, "m/", out, sizeof(out)), n);
	assert_string_equal(out, expected);
	mc_registry_close(r);
}

static void large_values_are_values(void **state)
{
	struct mc_registry *r = client();
	size_t len = kind->value_max;
	char *big = malloc((size_t)MC_VALUE_MAX + 1);
	char *out = malloc(len + 1);

	(void)state;
	mc_registry_set_times(r, 30000, 0);
	mc_fill(big, (uint64_t)MC_VALUE_MAX + 1, 5);
	assert_fails(mc_registry_put(r, "big", big, (uint64_t)MC_VALUE_MAX + 1,
				     0), -EFBIG, "at most 67108864");
	if (!strcmp(kind->name, "etcd"))
		assert_fails(mc_registry_put(r, "big", big, 2 * len, 0), -EFBIG,
			     "put 'big'");
	assert_ok(mc_registry_put(r, "big", big, len, 0));
	assert_int_equal(registry_get(r, "big", out, len + 1), len);
	assert_memory_equal(big, out, len);
	assert_ok(mc_registry_del(r, "big"));
	free(big);
	free(out);
	mc_registry_close(r);
}

/* ---- compare and swap -------------------------------------------------- */

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

/* A lease that a failed swap has brought along is nothing to the record. */
static void a_lost_swap_leaves_no_lease(void **state)
{
	struct mc_registry *r = client();
	char out[8];

	(void)state;
	assert_ok(mc_registry_put(r, "cas/l", "old", 3, 0));
	assert_fails(mc_registry_cas(r, "cas/l", "new", 3, 1, kind->lease_ms),
		     -EAGAIN, "");
	usleep((kind->lease_ms + kind->late_ms) * 1000);
	assert_int_equal(registry_get(r, "cas/l", out, sizeof(out)), 3);
	assert_string_equal(out, "old");
	mc_registry_close(r);
}

enum { RACERS = 8, ROUNDS = 20 };

struct racer {
	pthread_t thread;
	pthread_barrier_t *go;
	struct mc_registry *r;
	int *winners;			/* of each round, atomic */
	int lost;
};

static void *race(void *arg)
{
	struct racer *me = arg;
	char key[16];

	for (int i = 0; i < ROUNDS; i++) {
		int ret;

		snprintf(key, sizeof(key), "race%d", i);
		pthread_barrier_wait(me->go);
		ret = mc_registry_cas(me->r, key, "me", 2, 0, 0);
		if (!ret)
			__atomic_fetch_add(&me->winners[i], 1,
					   __ATOMIC_RELAXED);
		me->lost += ret == -EAGAIN;
	}
	return NULL;
}

static void one_of_eight_wins(void **state)
{
	struct racer racers[RACERS] = { 0 };
	int winners[ROUNDS] = { 0 }, lost = 0;
	pthread_barrier_t go;

	(void)state;
	pthread_barrier_init(&go, NULL, RACERS);
	for (int i = 0; i < RACERS; i++) {
		racers[i] = (struct racer){ .go = &go, .r = client(),
					    .winners = winners };
		mc_registry_set_times(racers[i].r, 20000, 0);
	}
	for (int i = 0; i < RACERS; i++)
		pthread_create(&racers[i].thread, NULL, race, &racers[i]);
	for (int i = 0; i < RACERS; i++) {
		pthread_join(racers[i].thread, NULL);
		mc_registry_close(racers[i].r);
		lost += racers[i].lost;
	}
	pthread_barrier_destroy(&go);
	for (int i = 0; i < ROUNDS; i++)
		assert_int_equal(winners[i], 1);
	assert_int_equal(lost, ROUNDS * (RACERS - 1));
}

static void *count_up(void *arg)
{
	struct racer *me = arg;
	char value[16];
	uint64_t version;
	int n = 0, ret;

	while (n < ROUNDS) {
		if (mc_registry_get(me->r, "count", value, sizeof(value),
				    &version) < 0)
			return NULL;
		ret = snprintf(value, sizeof(value), "%d", atoi(value) + 1);
		ret = mc_registry_cas(me->r, "count", value, ret, version, 0);
		if (ret && ret != -EAGAIN)
			return NULL;
		n += !ret;
	}
	me->lost = n;
	return NULL;
}

/* Read, change and swap, by many: none is lost. */
static void no_change_is_lost(void **state)
{
	struct racer racers[RACERS] = { 0 };
	struct mc_registry *r = client();
	char value[16];

	(void)state;
	assert_ok(mc_registry_put(r, "count", "0", 1, 0));
	for (int i = 0; i < RACERS; i++) {
		racers[i].r = client();
		mc_registry_set_times(racers[i].r, 20000, 0);
		pthread_create(&racers[i].thread, NULL, count_up, &racers[i]);
	}
	for (int i = 0; i < RACERS; i++) {
		pthread_join(racers[i].thread, NULL);
		mc_registry_close(racers[i].r);
		assert_int_equal(racers[i].lost, ROUNDS);
	}
	assert_ok(registry_get(r, "count", value, sizeof(value)));
	assert_int_equal(atoi(value), RACERS * ROUNDS);
	mc_registry_close(r);
}

/* ---- leases ------------------------------------------------------------ */

static void assert_gone_by(struct mc_registry *r, const char *key, int ms)
{
	uint64_t end = mc_clock_ns() + ms * (uint64_t)MC_MS;
	int64_t ret;

	while ((ret = registry_get(r, key, NULL, 0)) >= 0) {
		if (mc_clock_ns() > end)
			fail_msg("'%s' is there after %d ms more", key, ms);
		usleep(20000);
	}
	assert_int_equal(ret, -ENOENT);
}

static void leases_run_out_unless_renewed(void **state)
{
	struct mc_registry *r = client(), *other = client();
	int ttl = kind->lease_ms;
	uint64_t v1, v2;

	(void)state;
	assert_ok(mc_registry_put(r, "lease/a", "1", 1, ttl));
	assert_ok(mc_registry_put(r, "lease/b", "1", 1, ttl));
	assert_ok(mc_registry_put(r, "lease/c", "1", 1, ttl));
	assert_ok(mc_registry_get(r, "lease/b", NULL, 0, &v1));
	for (int i = 0; i < 4; i++) {
		usleep(ttl * 1000 / 4);
		/* Any handle renews, and the version stays. */
		assert_ok(mc_registry_put(i % 2 ? other : r, "lease/b", "1", 1,
					  ttl));
		if (!i)		/* it stays from now on */
			assert_ok(mc_registry_put(r, "lease/c", "1", 1, 0));
	}
	assert_gone_by(r, "lease/a", kind->late_ms);
	assert_ok(mc_registry_get(r, "lease/b", NULL, 0, &v2));
	assert_int_equal(v1, v2);
	assert_gone_by(r, "lease/b", ttl + kind->late_ms);
	assert_ok(registry_get(r, "lease/c", NULL, 0));
	mc_registry_close(r);
	mc_registry_close(other);
}

static void a_lease_is_of_its_time(void **state)
{
	struct mc_registry *r = client();
	int ttl = kind->lease_ms;

	(void)state;
	/* Shorter, longer, with another value, without one. */
	assert_ok(mc_registry_put(r, "time/a", "1", 1, 600000));
	assert_ok(mc_registry_put(r, "time/a", "1", 1, ttl));
	assert_ok(mc_registry_put(r, "time/b", "1", 1, ttl));
	assert_ok(mc_registry_put(r, "time/b", "1", 1, 600000));
	assert_ok(mc_registry_put(r, "time/c", "1", 1, ttl));
	assert_ok(mc_registry_put(r, "time/c", "2", 1, 0));
	assert_ok(mc_registry_put(r, "time/d", "1", 1, 0));
	assert_ok(mc_registry_put(r, "time/d", "1", 1, ttl));
	assert_gone_by(r, "time/a", ttl + kind->late_ms);
	assert_gone_by(r, "time/d", ttl + kind->late_ms);
	usleep(kind->late_ms * 1000);
	assert_ok(registry_get(r, "time/b", NULL, 0));
	assert_ok(registry_get(r, "time/c", NULL, 0));
	mc_registry_close(r);
}

static void many_leases_run_out(void **state)
{
	struct mc_registry *r = client();
	char key[32], out[8192];
	unsigned int seed = 3;

	(void)state;
	for (int i = 0; i < 200; i++) {
		snprintf(key, sizeof(key), "many/%d", i);
		assert_ok(mc_registry_put(r, key, "1", 1, i % 2 ? 60000 :
					  kind->lease_ms / 2 +
					  rand_r(&seed) % kind->lease_ms));
	}
	for (int i = 0; i < 50; i++) {
		snprintf(key, sizeof(key), "many/%d", 4 * i + 1);
		assert_ok(mc_registry_del(r, key));
	}
	usleep((kind->lease_ms * 3 / 2 + kind->late_ms) * 1000);
	assert_ok(mc_registry_list(r, "many/", out, sizeof(out)));
	for (int i = 0; i < 200; i++) {
		snprintf(key, sizeof(key), "many/%d\n", i);
		if (!strstr(out, key) != (i % 4 != 3))
			fail_msg("%s is %s", key, out);
	}
	mc_registry_close(r);
}

/* ---- watching ---------------------------------------------------------- */

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

/* The next change, waiting for it if there is none yet. */
static void assert_change(struct mc_registry *r, const char *prefix,
			  uint64_t *version, bool deleted, const char *key)
{
	struct mc_registry_change c;
	uint64_t end = mc_clock_ns() + 10000 * (uint64_t)MC_MS;

	while (!mc_registry_change(r, &c)) {
		assert_ok(mc_registry_watch(r, prefix, version, 5000));
		if (mc_clock_ns() > end)
			fail_msg("'%s' does not change", key);
	}
	assert_int_equal(c.len, strlen(key));
	assert_memory_equal(c.key, key, c.len);
	assert_int_equal(c.deleted, deleted);
	assert_true(c.version <= *version);
}

static void assert_no_change(struct mc_registry *r, const char *prefix,
			     uint64_t *version)
{
	struct mc_registry_change c;

	assert_int_equal(mc_registry_change(r, &c), 0);
	assert_int_equal(mc_registry_watch(r, prefix, version, 0), 0);
}

static void a_watch_wakes(void **state)
{
	struct mc_registry *r = client();
	uint64_t version = 0, put_ns = 0, woke_ns;
	pthread_t t;

	(void)state;
	assert_int_equal(mc_registry_watch(r, "w/", &version, 5000), 0);
	assert_true(version > 0);
	pthread_create(&t, NULL, change_soon, &put_ns);
	assert_int_equal(mc_registry_watch(r, "w/", &version, 5000), 1);
	woke_ns = mc_clock_ns();
	pthread_join(t, NULL);
	assert_change(r, "w/", &version, false, "w/a");
	assert_no_change(r, "w/", &version);
	assert_true((int64_t)(woke_ns - put_ns) < kind->wake_ms * MC_MS);
	mc_registry_close(r);
}

static void a_watch_sees_what_was_between(void **state)
{
	struct mc_registry *r = client(), *w = client();
	uint64_t version = 0;

	(void)state;
	assert_ok(mc_registry_put(r, "wb/old", "1", 1, 0));
	assert_int_equal(mc_registry_watch(w, "wb/", &version, 0), 0);
	assert_ok(mc_registry_put(r, "wb/a", "1", 1, 0));
	assert_ok(mc_registry_put(r, "wb/b", "1", 1, 0));
	assert_ok(mc_registry_put(r, "wb/b", "1", 1, 0));	/* no change */
	assert_ok(mc_registry_put(r, "elsewhere", "1", 1, 0));
	assert_change(w, "wb/", &version, false, "wb/a");
	assert_change(w, "wb/", &version, false, "wb/b");
	assert_no_change(w, "wb/", &version);
	assert_ok(mc_registry_del(r, "wb/old"));
	assert_change(w, "wb/", &version, true, "wb/old");
	assert_ok(mc_registry_put(r, "wb/a", "2", 1, 0));
	assert_change(w, "wb/", &version, false, "wb/a");
	assert_no_change(w, "wb/", &version);
	mc_registry_close(r);
	mc_registry_close(w);
}

static void a_watch_sees_leases_go(void **state)
{
	struct mc_registry *r = client();
	uint64_t version = 0;

	(void)state;
	assert_int_equal(mc_registry_watch(r, "wl/", &version, 0), 0);
	assert_ok(mc_registry_put(r, "wl/a", "1", 1, kind->lease_ms));
	assert_ok(mc_registry_put(r, "wl/b", "1", 1, 0));
	assert_change(r, "wl/", &version, false, "wl/a");
	assert_change(r, "wl/", &version, false, "wl/b");
	assert_change(r, "wl/", &version, true, "wl/a");
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

static void a_watch_sees_all_keys(void **state)
{
	struct mc_registry *r = client();
	uint64_t version = 0;

	(void)state;
	assert_int_equal(mc_registry_watch(r, NULL, &version, 0), 0);
	assert_ok(mc_registry_put(r, "any key", "1", 1, 0));
	assert_change(r, NULL, &version, false, "any key");
	mc_registry_close(r);
}

/* What cannot be known any more: begin again. */
static void a_watch_from_the_future_is_stale(void **state)
{
	struct mc_registry *r = client();
	uint64_t version = ~0ull / 4;

	(void)state;
	assert_fails(mc_registry_watch(r, "f/", &version, 0), -ESTALE,
		     "watch 'f/'|forgotten");
	version = 0;
	assert_int_equal(mc_registry_watch(r, "f/", &version, 0), 0);
	mc_registry_close(r);
}

/* ---- servers that do not answer as they should ------------------------- */

static void a_server_that_is_gone(void **state)
{
	struct server s;
	struct mc_registry *r;
	uint64_t start;

	(void)state;
	server_open(&s, kind);
	r = registry_open(s.url);
	assert_ok(mc_registry_put(r, "a", "1", 1, 0));
	server_kill(&s);
	start = mc_clock_ns();
	assert_fails(registry_get(r, "a", NULL, 0), -ECONNREFUSED, "get 'a'");
	assert_says(s.addr);
	assert_fails(mc_registry_cas(r, "a", "1", 1, 0, 0), -ECONNREFUSED,
		     "cas 'a'");
	assert_fails(mc_registry_list(r, "a", NULL, 0), -ECONNREFUSED,
		     "list 'a'");
	assert_true(mc_clock_ns() - start < 1000ull * MC_MS);
	/* And back on the same port: the same handle goes on, and is none the
	 * wiser about one that was restarted between two calls. */
	server_start(&s);
	assert_ok(mc_registry_put(r, "a", "2", 1, 0));
	server_kill(&s);
	server_start(&s);
	assert_ok(mc_registry_put(r, "a", "3", 1, 0));
	server_kill(&s);
	server_start(&s);
	assert_ok(mc_registry_cas(r, "new", "1", 1, 0, 0));
	server_end(&s);
	mc_registry_close(r);
}

static void *kill_soon(void *arg)
{
	usleep(300000);
	kill(*(pid_t *)arg, SIGKILL);
	return NULL;
}

static void a_server_killed_in_a_watch(void **state)
{
	struct server s;
	struct mc_registry *r;
	uint64_t version = 0, start;
	pthread_t t;
	int ret;

	(void)state;
	server_open(&s, kind);
	r = registry_open(s.url);
	assert_int_equal(mc_registry_watch(r, "k", &version, 0), 0);
	start = mc_clock_ns();
	pthread_create(&t, NULL, kill_soon, &s.pid);
	ret = mc_registry_watch(r, "k", &version, 20000);
	if (ret != -ECONNRESET && ret != -ECONNREFUSED)
		fail_msg("%d: %s", ret, mc_errmsg());
	assert_says("watch 'k'");
	assert_true(mc_clock_ns() - start < 2000ull * MC_MS);
	pthread_join(t, NULL);
	server_end(&s);
	mc_registry_close(r);
}

static void a_server_that_is_frozen(void **state)
{
	struct server s;
	struct mc_registry *r;
	uint64_t start;

	(void)state;
	server_open(&s, kind);
	r = registry_open(s.url);
	assert_ok(mc_registry_put(r, "a", "1", 1, 0));
	kill(s.pid, SIGSTOP);
	/* It has stopped only when all its threads have. */
	assert_int_equal(waitpid(s.pid, NULL, WUNTRACED), s.pid);
	start = mc_clock_ns();
	assert_fails(registry_get(r, "a", NULL, 0), -ETIMEDOUT, "get 'a'");
	assert_in_range((mc_clock_ns() - start) / MC_MS, 2900, 30000);
	mc_registry_set_times(r, 200, 100);
	start = mc_clock_ns();
	assert_fails(mc_registry_put(r, "a", "1", 1, 0), -ETIMEDOUT, "put 'a'");
	assert_in_range((mc_clock_ns() - start) / MC_MS, 190, 7000);
	mc_registry_set_times(r, 10000, 0);
	kill(s.pid, SIGCONT);
	assert_ok(mc_registry_put(r, "a", "2", 1, 0));
	server_end(&s);
	mc_registry_close(r);
}

static void a_host_that_is_not_known(void **state)
{
	struct mc_registry *r;
	uint64_t start = mc_clock_ns();
	char url[64];
	int ret;

	(void)state;
	snprintf(url, sizeof(url), "%s://no-such-host.invalid:80",
		 kind->scheme);
	r = registry_open(url);
	ret = registry_get(r, "a", NULL, 0);
	/* A resolver that does not answer at all gives the other one. */
	assert_true(ret == -EHOSTUNREACH || ret == -ETIMEDOUT);
	assert_says("no-such-host.invalid");
	assert_true(mc_clock_ns() - start < 3500ull * MC_MS);
	mc_registry_close(r);
}

/* ---- URLs -------------------------------------------------------------- */

static void urls_are_checked(void **state)
{
	static const struct {
		const char *url, *says;
	} t[] = {
		{ NULL, "'peer'|no records" },
		{ "peer", "'peer'" },
		{ "node:80", "http://" },
		{ "zk://h:1", "no backend for zk://|etcd://|redis://" },
		{ "http://h:99999/", "malformed" },
		{ "http://", "malformed" },
		{ "etcd://", "a server is missing" },
		{ "etcd://a,,b", "a server is missing" },
		{ "etcd://a:99999", "99999" },
		{ "etcd://a:0", "where the server is" },
		{ "etcd://:2379", "where the server is" },
		{ "etcd://a/path", "a path" },
		{ "etcd://a#x", "fragment" },
		{ "etcd://a?timeout=3", "unknown option 'timeout=3'" },
		{ "etcd://a?cacert=/ca", "for TLS" },
		{ "etcds://a?cert=/c", "cert and key go together" },
		{ "etcd://u:%zz@a", "password is broken" },
		{ "etcd://a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a", "more than 16" },
		{ "redis://a,b", "one server" },
		{ "redis://a/x", "number of a database" },
		{ "redis://u:%00@a", "broken" },
	};
	struct mc_registry *r;

	(void)state;
	for (size_t i = 0; i < mc_array_len(t); i++)
		assert_fails(mc_registry_open(&r, t[i].url), -EINVAL,
			     t[i].says);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(values_come_and_go),
		cmocka_unit_test(short_buffers_get_the_length),
		cmocka_unit_test(any_bytes_are_a_value),
		cmocka_unit_test(odd_keys_are_keys),
		cmocka_unit_test(bad_keys_are_refused),
		cmocka_unit_test(names_are_listed),
		cmocka_unit_test(many_names_are_listed),
		cmocka_unit_test(large_values_are_values),
		cmocka_unit_test(versions_guard_changes),
		cmocka_unit_test(a_lost_swap_leaves_no_lease),
		cmocka_unit_test(one_of_eight_wins),
		cmocka_unit_test(no_change_is_lost),
		cmocka_unit_test(leases_run_out_unless_renewed),
		cmocka_unit_test(a_lease_is_of_its_time),
		cmocka_unit_test(many_leases_run_out),
		cmocka_unit_test(a_watch_wakes),
		cmocka_unit_test(a_watch_sees_what_was_between),
		cmocka_unit_test(a_watch_sees_leases_go),
		cmocka_unit_test(a_watch_ends_in_time),
		cmocka_unit_test(a_watch_sees_all_keys),
		cmocka_unit_test(a_watch_from_the_future_is_stale),
		cmocka_unit_test(a_server_that_is_gone),
		cmocka_unit_test(a_server_killed_in_a_watch),
		cmocka_unit_test(a_server_that_is_frozen),
		cmocka_unit_test(a_host_that_is_not_known),
	};
	const struct CMUnitTest urls[] = {
		cmocka_unit_test(urls_are_checked),
	};
	int failed;

	registries_main(argc, argv);
	alarm(280);
	failed = run_for_kinds(n_kinds, tests, mc_array_len(tests), setup,
			       teardown);
	return failed + cmocka_run_group_tests(urls, NULL, NULL);
}
