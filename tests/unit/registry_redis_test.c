/*
 * registry_redis_test.c - what only redis has: values that others set without a
 * version, databases, users, TLS, and a server that is out of memory, busy, or
 * a copy.
 */
#include "registries.h"

#include "../../src/base/clock.h"
#include "../../src/base/net.h"
#include "../../src/base/util.h"

#include <pthread.h>
#include <unistd.h>

static struct server server;

static int setup(void **state)
{
	(void)state;
	server_open(&server, kind_named("redis"));
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	server_end(&server);
	return 0;
}

/* A command, as others give it. */
static void cli(const struct server *s, const char *command)
{
	shell("redis-cli -p %d %s > /dev/null", s->port, command);
}

static void assert_cli(const struct server *s, const char *command,
		       const char *says)
{
	char cmd[300], answer[300];
	size_t n;
	FILE *f;

	snprintf(cmd, sizeof(cmd), "redis-cli -p %d %s", s->port, command);
	f = popen(cmd, "r");
	assert_non_null(f);
	n = fread(answer, 1, sizeof(answer) - 1, f);
	answer[n] = 0;
	assert_int_equal(pclose(f), 0);
	answer[strcspn(answer, "\n")] = 0;
	assert_string_equal(answer, says);
}

/* ---- records as others see them ---------------------------------------- */

static void keys_are_everyones(void **state)
{
	struct mc_registry *r = registry_open(server.url);
	char out[64];

	(void)state;
	cli(&server, "set mooncake/ram/a '{\"name\":\"a\"}'");
	assert_int_equal(registry_get(r, "mooncake/ram/a", out, sizeof(out)),
			 12);
	assert_string_equal(out, "{\"name\":\"a\"}");
	assert_ok(mc_registry_put(r, "mooncake/ram/a", "{}", 2, 60000));
	assert_cli(&server, "get mooncake/ram/a", "{}");
	assert_cli(&server, "ttl mooncake/ram/a", "60");
	assert_ok(mc_registry_del(r, "mooncake/ram/a"));
	assert_cli(&server, "exists mooncake/ram/a", "0");
	/* What is beside them is not shown, and not to be changed. */
	assert_ok(mc_registry_put(r, "mooncake", "1", 1, 0));
	assert_int_equal(mc_registry_list(r, "", out, sizeof(out)), 9);
	assert_string_equal(out, "mooncake\n");
	assert_fails(mc_registry_put(r, "mooncake.version", "1", 1, 0), -EINVAL,
		     "keep the versions");
	assert_fails(registry_get(r, "mooncake.version:mooncake", NULL, 0),
		     -EINVAL, "keep the versions");
	assert_ok(mc_registry_put(r, "mooncake.versions", "1", 1, 0));
	assert_ok(mc_registry_del(r, "mooncake.versions"));
	assert_ok(mc_registry_del(r, "mooncake"));
	/* No side key outlives its record. */
	assert_cli(&server, "keys 'mooncake.version:*'", "");
	mc_registry_close(r);
}

/* Whoever sets a value without us changes its version all the same. */
static void others_change_versions(void **state)
{
	struct mc_registry *r = registry_open(server.url);
	uint64_t v1, v2, v3, version = 0;
	char out[8];

	(void)state;
	assert_int_equal(mc_registry_watch(r, "o/", &version, 0), 0);
	assert_ok(mc_registry_put(r, "o/a", "1", 1, 0));
	assert_ok(mc_registry_get(r, "o/a", NULL, 0, &v1));
	assert_int_equal(mc_registry_watch(r, "o/", &version, 5000), 1);
	cli(&server, "set o/a 2");
	assert_fails(mc_registry_cas(r, "o/a", "3", 1, v1, 0), -EAGAIN,
		     "another version");
	assert_ok(mc_registry_get(r, "o/a", out, sizeof(out), &v2));
	assert_string_equal(out, "2");
	assert_true(v2 > v1);
	assert_ok(mc_registry_get(r, "o/a", NULL, 0, &v3));
	assert_int_equal(v2, v3);
	assert_int_equal(mc_registry_watch(r, "o/", &version, 5000), 1);
	assert_ok(mc_registry_cas(r, "o/a", "3", 1, v2, 0));
	assert_int_equal(mc_registry_watch(r, "o/", &version, 5000), 1);
	cli(&server, "set o/b 1 px 300");
	assert_int_equal(mc_registry_watch(r, "o/", &version, 5000), 1);
	assert_int_equal(mc_registry_watch(r, "o/", &version, 5000), 1);
	assert_fails(registry_get(r, "o/b", NULL, 0), -ENOENT, "");
	cli(&server, "del o/a");
	assert_fails(mc_registry_cas(r, "o/a", "4", 1, v2, 0), -EAGAIN,
		     "no such record");
	assert_int_equal(mc_registry_watch(r, "o/", &version, 5000), 1);
	mc_registry_close(r);
}

static void other_types_are_no_values(void **state)
{
	struct mc_registry *r = registry_open(server.url);
	uint64_t version = 0;

	(void)state;
	cli(&server, "rpush t/list x");
	assert_fails(registry_get(r, "t/list", NULL, 0), -EBADMSG, "WRONGTYPE");
	assert_fails(mc_registry_put(r, "t/list", "1", 1, 0), -EBADMSG, "");
	assert_int_equal(mc_registry_list(r, "t/", NULL, 0), 0);
	assert_int_equal(mc_registry_watch(r, "t/", &version, 0), 0);
	mc_registry_close(r);
}

/* Versions grow although the server has lost everything. */
static void versions_outlive_the_data(void **state)
{
	struct mc_registry *r;
	struct server s;
	uint64_t v1, v2;

	(void)state;
	server_open(&s, kind_named("redis"));
	r = registry_open(s.url);
	assert_ok(mc_registry_put(r, "a", "1", 1, 0));
	assert_ok(mc_registry_get(r, "a", NULL, 0, &v1));
	server_kill(&s);
	server_start(&s);
	assert_fails(registry_get(r, "a", NULL, 0), -ENOENT, "");
	assert_ok(mc_registry_put(r, "a", "1", 1, 0));
	assert_ok(mc_registry_get(r, "a", NULL, 0, &v2));
	assert_true(v2 > v1);
	server_end(&s);
	mc_registry_close(r);
}

static void databases_are_apart(void **state)
{
	struct mc_registry *r = registry_open(server.url), *other;
	uint64_t version = 0;
	char url[420];

	(void)state;
	snprintf(url, sizeof(url), "%s/3", server.url);
	other = registry_open(url);
	assert_ok(mc_registry_put(other, "db", "1", 1, 0));
	assert_fails(registry_get(r, "db", NULL, 0), -ENOENT, "");
	assert_cli(&server, "-n 3 get db", "1");
	/* Events too, once the server sends them. */
	cli(&server, "config set notify-keyspace-events 'Kg$x'");
	assert_int_equal(mc_registry_watch(other, "db", &version, 0), 0);
	assert_ok(mc_registry_put(r, "db", "2", 1, 0));
	assert_int_equal(mc_registry_watch(other, "db", &version, 300), 0);
	assert_ok(mc_registry_put(other, "db", "2", 1, 0));
	assert_int_equal(mc_registry_watch(other, "db", &version, 300), 1);
	cli(&server, "config set notify-keyspace-events ''");
	mc_registry_close(r);
	mc_registry_close(other);
	snprintf(url, sizeof(url), "%s/99", server.url);
	r = registry_open(url);
	assert_fails(registry_get(r, "db", NULL, 0), -EINVAL, "DB index");
	mc_registry_close(r);
}

/* ---- watching ---------------------------------------------------------- */

static void *drop_clients(void *arg)
{
	usleep(300000);
	cli(&server, "client kill type pubsub");
	cli(&server, "client kill type normal skipme yes");
	usleep(300000);
	cli(&server, "set dropped/a 1");
	return arg;
}

/* A watch whose connections are cut goes on, with events and without. */
static void a_watch_survives_its_connections(void **state)
{
	struct mc_registry *r = registry_open(server.url);
	pthread_t t;

	(void)state;
	for (int events = 0; events < 2; events++) {
		uint64_t version = 0, start;

		shell("redis-cli -p %d config set notify-keyspace-events '%s'"
		      " > /dev/null", server.port, events ? "KA" : "");
		assert_int_equal(mc_registry_watch(r, "dropped/", &version, 0),
				 0);
		start = mc_clock_ns();
		pthread_create(&t, NULL, drop_clients, NULL);
		assert_int_equal(mc_registry_watch(r, "dropped/", &version,
						   10000), 1);
		/* Not by the look that is taken every 5 s. */
		assert_true(mc_clock_ns() - start < 3500ull * MC_MS);
		pthread_join(t, NULL);
		cli(&server, "del dropped/a");
		assert_int_equal(mc_registry_watch(r, "dropped/", &version,
						   10000), 1);
	}
	cli(&server, "config set notify-keyspace-events ''");
	mc_registry_close(r);
}

/* Renewing leases is no event, and looking at all keys is rare with events. */
static void a_watch_with_events_is_quiet(void **state)
{
	struct mc_registry *r = registry_open(server.url), *w;
	uint64_t version = 0;

	(void)state;
	cli(&server, "config set notify-keyspace-events KA");
	w = registry_open(server.url);
	assert_ok(mc_registry_put(r, "quiet/a", "1", 1, 60000));
	assert_int_equal(mc_registry_watch(w, "quiet/", &version, 0), 0);
	cli(&server, "config resetstat");
	for (int i = 0; i < 50; i++)
		assert_ok(mc_registry_put(r, "quiet/a", "1", 1, 60000));
	assert_int_equal(mc_registry_watch(w, "quiet/", &version, 1000), 0);
	assert_cli(&server, "info commandstats | grep -c cmdstat_scan: || true",
		   "0");
	/* The puts are all there were. */
	assert_cli(&server, "info commandstats | "
		   "grep -c cmdstat_eval:calls=50,", "1");
	cli(&server, "config set notify-keyspace-events ''");
	mc_registry_close(r);
	mc_registry_close(w);
}

/* ---- users ------------------------------------------------------------- */

static struct mc_registry *open_as(const struct server *s, const char *login)
{
	char url[200];

	snprintf(url, sizeof(url), "redis://%s@%s", login, s->addr);
	return registry_open(url);
}

static void users_have_passwords_and_rights(void **state)
{
	struct server s;
	struct mc_registry *r;
	uint64_t version = 0;

	(void)state;
	server_init(&s, kind_named("redis"));
	s.more[0] = "--requirepass";
	s.more[1] = "a:b@c/d";
	server_start(&s);
	r = registry_open(s.url);
	assert_fails(registry_get(r, "a", NULL, 0), -EACCES, "NOAUTH");
	mc_registry_close(r);
	r = open_as(&s, ":secret");
	assert_fails(registry_get(r, "a", NULL, 0), -EACCES, "WRONGPASS");
	assert_null(strstr(mc_errmsg(), "secret"));
	mc_registry_close(r);
	r = open_as(&s, ":a%3ab%40c%2fd");
	assert_ok(mc_registry_put(r, "a", "1", 1, 0));
	mc_registry_close(r);
	cli(&s, "--no-auth-warning -a a:b@c/d acl setuser moon on '>pw' "
	    "'~m/*' '~mooncake.version*' '+@all' '-config'");
	r = open_as(&s, "moon:pw");
	assert_ok(mc_registry_put(r, "m/a", "1", 1, 0));
	assert_fails(mc_registry_put(r, "other", "1", 1, 0), -EACCES,
		     "put 'other'");
	/* Not allowed to ask for events, it does without. */
	assert_int_equal(mc_registry_watch(r, "m/", &version, 0), 0);
	assert_ok(mc_registry_put(r, "m/a", "2", 1, 0));
	assert_int_equal(mc_registry_watch(r, "m/", &version, 5000), 1);
	mc_registry_close(r);
	r = open_as(&s, "sun:pw");
	assert_fails(registry_get(r, "m/a", NULL, 0), -EACCES, "WRONGPASS");
	mc_registry_close(r);
	server_end(&s);
	r = open_as(&server, ":secret");
	assert_fails(registry_get(r, "a", NULL, 0), -EACCES,
		     "without any password");
	mc_registry_close(r);
}

/* ---- TLS --------------------------------------------------------------- */

static void connections_are_encrypted(void **state)
{
	size_t len = 3 << 20;
	char *big = malloc(len), *out = malloc(len + 1);
	struct mc_registry *r;
	struct server s;
	char port[16], crt[80], key[80], other[300];

	(void)state;
	server_init(&s, kind_named("redis"));
	server_certify(&s, "good");
	server_certify(&s, "other");
	snprintf(port, sizeof(port), "%d", s.port);
	snprintf(crt, sizeof(crt), "%s/good.crt", s.dir);
	snprintf(key, sizeof(key), "%s/good.key", s.dir);
	memcpy(s.more, (const char *[]){
	       "--port", "0", "--tls-port", port, "--tls-cert-file", crt,
	       "--tls-key-file", key, "--tls-ca-cert-file", crt },
	       10 * sizeof(char *));
	snprintf(s.url, sizeof(s.url), "rediss://%s/2?cacert=%s&cert=%s&key=%s",
		 s.addr, crt, crt, key);
	server_start(&s);
	r = registry_open(s.url);
	mc_fill(big, len, 7);
	assert_ok(mc_registry_put(r, "big", big, len, 60000));
	assert_int_equal(registry_get(r, "big", out, len + 1), len);
	assert_memory_equal(big, out, len);
	mc_registry_close(r);
	snprintf(other, sizeof(other), "rediss://%s?cacert=%s/other.crt",
		 s.addr, s.dir);
	r = registry_open(other);
	assert_fails(registry_get(r, "big", NULL, 0), -EACCES,
		     "rediss://127.0.0.1:|certificate");
	mc_registry_close(r);
	snprintf(other, sizeof(other), "rediss://%s?cacert=%s", s.addr, crt);
	r = registry_open(other);
	assert_true(registry_get(r, "big", NULL, 0) < 0);
	assert_says("get 'big'");
	mc_registry_close(r);
	snprintf(other, sizeof(other), "redis://%s", s.addr);
	r = registry_open(other);
	assert_fails(registry_get(r, "big", NULL, 0), -ECONNRESET, "get 'big'");
	mc_registry_close(r);
	server_end(&s);
	free(big);
	free(out);
}

/* ---- servers that cannot ----------------------------------------------- */

static void a_server_that_is_full(void **state)
{
	struct mc_registry *r;
	struct server s;

	(void)state;
	server_init(&s, kind_named("redis"));
	s.more[0] = "--maxmemory";
	s.more[1] = "100kb";		/* it needs more for itself */
	server_start(&s);
	r = registry_open(s.url);
	assert_fails(mc_registry_put(r, "a", "1", 1, 0), -ENOSPC,
		     "put 'a'|OOM");
	assert_fails(registry_get(r, "a", NULL, 0), -ENOENT, "");
	mc_registry_close(r);
	server_end(&s);
}

static void *be_busy(void *arg)
{
	/* Until it is killed. */
	shell("redis-cli -p %d eval 'while true do end' 0 > /dev/null || true",
	      ((struct server *)arg)->port);
	return NULL;
}

static void a_server_that_is_busy(void **state)
{
	struct mc_registry *r = registry_open(server.url);
	uint64_t start;
	pthread_t t;

	(void)state;
	cli(&server, "config set busy-reply-threshold 100");
	pthread_create(&t, NULL, be_busy, &server);
	usleep(500000);
	start = mc_clock_ns();
	mc_registry_set_times(r, 1500, 0);
	assert_fails(registry_get(r, "a", NULL, 0), -EBUSY, "get 'a'|BUSY");
	assert_in_range((mc_clock_ns() - start) / MC_MS, 1000, 3000);
	cli(&server, "script kill");
	pthread_join(t, NULL);
	assert_fails(registry_get(r, "a", NULL, 0), -ENOENT, "");
	cli(&server, "config set busy-reply-threshold 5000");
	mc_registry_close(r);
}

static void a_server_that_is_a_copy(void **state)
{
	struct mc_registry *r;
	struct server s;
	char port[16];

	(void)state;
	server_init(&s, kind_named("redis"));
	snprintf(port, sizeof(port), "%d", server.port);
	memcpy(s.more, (const char *[]){ "--replicaof", "127.0.0.1", port },
	       3 * sizeof(char *));
	server_launch(&s);
	r = registry_open(s.url);
	mc_registry_set_times(r, 20000, 0);
	while (mc_registry_put(r, "a", "1", 1, 0) == -ECONNREFUSED)
		usleep(20000);
	assert_fails(mc_registry_put(r, "a", "1", 1, 0), -EROFS,
		     "put 'a'|READONLY");
	mc_registry_close(r);
	server_end(&s);
}

static void a_server_that_is_not_redis(void **state)
{
	struct mc_registryd *d;
	struct mc_registry *r;
	char url[100];

	(void)state;
	assert_ok(mc_registryd_open(&d, "127.0.0.1:0", NULL));
	snprintf(url, sizeof(url), "redis://%s", mc_registryd_addr(d));
	r = registry_open(url);
	assert_fails(registry_get(r, "a", NULL, 0), -EPROTO,
		     "get 'a'|Protocol error");
	mc_registry_close(r);
	mc_registryd_close(d);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(keys_are_everyones),
		cmocka_unit_test(others_change_versions),
		cmocka_unit_test(other_types_are_no_values),
		cmocka_unit_test(versions_outlive_the_data),
		cmocka_unit_test(databases_are_apart),
		cmocka_unit_test(a_watch_survives_its_connections),
		cmocka_unit_test(a_watch_with_events_is_quiet),
		cmocka_unit_test(users_have_passwords_and_rights),
		cmocka_unit_test(connections_are_encrypted),
		cmocka_unit_test(a_server_that_is_full),
		cmocka_unit_test(a_server_that_is_busy),
		cmocka_unit_test(a_server_that_is_a_copy),
		cmocka_unit_test(a_server_that_is_not_redis),
	};

	registries_main(argc, argv);
	alarm(200);
	return cmocka_run_group_tests(tests, setup, teardown);
}
