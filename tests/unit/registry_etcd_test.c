/*
 * registry_etcd_test.c - what only etcd has: several members, users, TLS, a
 * history that is compacted, leases that are records of their own.
 */
#include "registries.h"

#include "../../src/base/clock.h"
#include "../../src/base/net.h"
#include "../../src/base/util.h"

#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

static struct server server;

static int setup(void **state)
{
	(void)state;
	server_open(&server, kind_named("etcd"));
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	server_end(&server);
	return 0;
}

/* What the server answers to a request by curl. */
static const char *ask(const struct server *s, const char *path,
		       const char *body)
{
	static char answer[65536];
	char cmd[1024];
	size_t n;
	FILE *f;

	snprintf(cmd, sizeof(cmd), "curl -s http://%s/v3/%s -d '%s'", s->addr,
		 path, body);
	f = popen(cmd, "r");
	assert_non_null(f);
	n = fread(answer, 1, sizeof(answer) - 1, f);
	answer[n] = 0;
	assert_int_equal(pclose(f), 0);
	return answer;
}

static void tell(const struct server *s, const char *path, const char *body)
{
	const char *answer = ask(s, path, body);

	if (!strstr(answer, "\"header\"") || strstr(answer, "\"error\""))
		fail_msg("%s: %s", path, answer);
}

/* ---- records as others see them ---------------------------------------- */

/* "mooncake/ram/a", as a program of the public engine puts it. */
static void keys_are_everyones(void **state)
{
	struct mc_registry *r = registry_open(server.url);
	char out[32];

	(void)state;
	tell(&server, "kv/put", "{\"key\":\"bW9vbmNha2UvcmFtL2E=\","
	     "\"value\":\"eyJuYW1lIjoiYSJ9Cg==\"}");
	assert_int_equal(registry_get(r, "mooncake/ram/a", out, sizeof(out)),
			 13);
	assert_string_equal(out, "{\"name\":\"a\"}\n");
	assert_ok(mc_registry_put(r, "mooncake/ram/a", "{}", 2, 0));
	assert_non_null(strstr(ask(&server, "kv/range",
				   "{\"key\":\"bW9vbmNha2UvcmFtL2E=\"}"),
			       "\"value\":\"e30=\""));
	/* A key that is none of ours is not listed, nor in the way. */
	tell(&server, "kv/put", "{\"key\":\"bW9vbmNha2UvAAo=\"}");
	assert_int_equal(mc_registry_list(r, "mooncake/", out, sizeof(out)),
			 15);
	assert_string_equal(out, "mooncake/ram/a\n");
	mc_registry_close(r);
}

static int count(const char *text, const char *word)
{
	int n = 0;

	while ((text = strstr(text, word))) {
		text += strlen(word);
		n++;
	}
	return n;
}

static int leases(void)
{
	return count(ask(&server, "lease/leases", "{}"), "{\"ID\"");
}

/* Renewing, replacing and deleting records leaves no leases behind. */
static void leases_do_not_pile_up(void **state)
{
	struct mc_registry *r = registry_open(server.url);
	int before = leases();
	char value[8];
	uint64_t v;

	(void)state;
	for (int i = 0; i < 5; i++)
		assert_ok(mc_registry_put(r, "pile/a", "same", 4, 600000));
	assert_int_equal(leases(), before + 1);
	for (int i = 0; i < 5; i++) {
		snprintf(value, sizeof(value), "%d", i);
		assert_ok(mc_registry_put(r, "pile/a", value, 1, 600000));
	}
	assert_int_equal(leases(), before + 1);
	for (int i = 0; i < 5; i++)
		assert_fails(mc_registry_cas(r, "pile/a", "x", 1, 1, 600000),
			     -EAGAIN, "another version");
	assert_int_equal(leases(), before + 1);
	assert_ok(mc_registry_get(r, "pile/a", NULL, 0, &v));
	assert_ok(mc_registry_cas(r, "pile/a", "y", 1, v, 60000));
	assert_int_equal(leases(), before + 1);
	assert_ok(mc_registry_put(r, "pile/a", "y", 1, 0));
	assert_int_equal(leases(), before);
	assert_ok(mc_registry_put(r, "pile/a", "y", 1, 60000));
	assert_ok(mc_registry_del(r, "pile/a"));
	assert_int_equal(leases(), before);
	mc_registry_close(r);
}

/* One lease for several keys, as others make them: it is not ours to renew. */
static void other_leases_are_left_alone(void **state)
{
	struct mc_registry *r = registry_open(server.url);

	(void)state;
	tell(&server, "lease/grant", "{\"TTL\":\"600\",\"ID\":\"77\"}");
	tell(&server, "kv/put",
	     "{\"key\":\"dGhlaXJzMQ==\",\"value\":\"dg==\",\"lease\":\"77\"}");
	tell(&server, "kv/put",
	     "{\"key\":\"dGhlaXJzMg==\",\"value\":\"dg==\",\"lease\":\"77\"}");
	assert_ok(mc_registry_put(r, "theirs1", "v", 1, 60000));
	assert_non_null(strstr(ask(&server, "lease/timetolive",
				   "{\"ID\":\"77\",\"keys\":true}"),
			       "\"keys\":[\"dGhlaXJzMg==\"]"));
	assert_ok(mc_registry_put(r, "theirs1", "w", 1, 0));
	assert_ok(registry_get(r, "theirs2", NULL, 0));
	mc_registry_close(r);
}

/* ---- histories --------------------------------------------------------- */

static void compacted_changes_are_forgotten(void **state)
{
	struct mc_registry *r = registry_open(server.url);
	uint64_t version = 0, old, last;
	char body[64];

	(void)state;
	assert_int_equal(mc_registry_watch(r, "c/", &version, 0), 0);
	old = version;
	for (int i = 0; i < 3; i++)
		assert_ok(mc_registry_put(r, "c/a", i ? "x" : "y", 1, 0));
	assert_ok(mc_registry_put(r, "c/a", "z", 1, 0));
	assert_ok(mc_registry_get(r, "c/a", NULL, 0, &last));
	snprintf(body, sizeof(body), "{\"revision\":\"%llu\"}",
		 (unsigned long long)last);
	tell(&server, "kv/compaction", body);
	assert_fails(mc_registry_watch(r, "c/", &version, 1000), -ESTALE,
		     "watch 'c/'|forgotten");
	assert_int_equal(version, old);
	version = 0;
	assert_int_equal(mc_registry_watch(r, "c/", &version, 0), 0);
	mc_registry_close(r);
}

/* A server that has lost its data counts from one again. */
static void a_store_that_begins_anew(void **state)
{
	struct mc_registry *r;
	struct server s;
	uint64_t version = 0;

	(void)state;
	server_open(&s, kind_named("etcd"));
	r = registry_open(s.url);
	for (int i = 0; i < 4; i++)
		assert_ok(mc_registry_put(r, "a", i % 2 ? "x" : "y", 1, 0));
	assert_int_equal(mc_registry_watch(r, "a", &version, 0), 0);
	server_kill(&s);
	server_wipe(&s);
	server_start(&s);
	assert_fails(mc_registry_watch(r, "a", &version, 500), -ESTALE,
		     "begun anew|forgotten");
	version = 0;
	assert_int_equal(mc_registry_watch(r, "a", &version, 0), 0);
	assert_fails(registry_get(r, "a", NULL, 0), -ENOENT, "no such key");
	assert_ok(mc_registry_put(r, "a", "z", 1, 0));
	assert_int_equal(mc_registry_watch(r, "a", &version, 5000), 1);
	server_end(&s);
	mc_registry_close(r);
}

/* ---- members ----------------------------------------------------------- */

static struct mc_registry *open_two(const char *first, const char *second)
{
	char url[200];

	snprintf(url, sizeof(url), "etcd://%s,%s", first, second);
	return registry_open(url);
}

/* All verbs, of which the first has to find the member that lives. */
static void assert_all_work(struct mc_registry *r)
{
	uint64_t version = 0, v;

	assert_ok(mc_registry_put(r, "two/a", "1", 1, 0));
	assert_int_equal(mc_registry_watch(r, "two/", &version, 0), 0);
	assert_ok(mc_registry_get(r, "two/a", NULL, 0, &v));
	assert_ok(mc_registry_cas(r, "two/a", "2", 1, v, 60000));
	assert_int_equal(mc_registry_list(r, "two/", NULL, 0), 6);
	assert_int_equal(mc_registry_watch(r, "two/", &version, 5000), 1);
	assert_ok(mc_registry_del(r, "two/a"));
}

static void one_of_two_members_is_dead(void **state)
{
	struct server dead;
	struct mc_registry *r;

	(void)state;
	server_init(&dead, server.kind);
	r = open_two(dead.addr, server.addr);
	assert_all_work(r);
	mc_registry_close(r);
	r = open_two(server.addr, dead.addr);
	assert_all_work(r);
	mc_registry_close(r);
	r = open_two(dead.addr, dead.addr);
	assert_fails(mc_registry_put(r, "a", "1", 1, 0), -ECONNREFUSED,
		     "put 'a'|: Failed to connect|; 127.0.0.1:");
	mc_registry_close(r);
	server_end(&dead);
}

/* It takes connections and requests, and answers none. */
static void one_of_two_members_is_mute(void **state)
{
	char mute[MC_ADDR_MAX];
	struct mc_registry *r;
	uint64_t version = 0, start;
	int fd;

	(void)state;
	assert_ok(mc_net_listen("127.0.0.1:0", &fd, mute));
	r = open_two(mute, server.addr);
	start = mc_clock_ns();
	assert_ok(mc_registry_put(r, "mute", "1", 1, 0));
	assert_true(mc_clock_ns() - start < 3000ull * MC_MS);
	start = mc_clock_ns();
	assert_all_work(r);		/* the other one is asked first now */
	assert_true(mc_clock_ns() - start < 1400ull * MC_MS);
	mc_registry_close(r);
	r = open_two(mute, server.addr);
	assert_int_equal(mc_registry_watch(r, "mute", &version, 0), 0);
	mc_registry_close(r);
	r = open_two(mute, mute);
	start = mc_clock_ns();
	mc_registry_set_times(r, 400, 0);
	assert_fails(mc_registry_cas(r, "a", "1", 1, 0, 0), -ETIMEDOUT,
		     "cas 'a'|no answer in time");
	version = 1;
	assert_fails(mc_registry_watch(r, "a", &version, 5000), -ETIMEDOUT,
		     "watch 'a'");
	assert_in_range((mc_clock_ns() - start) / MC_MS, 750, 3000);
	mc_registry_close(r);
	close(fd);
}

/* It does not even take connections: its queue is full. */
static void one_of_two_members_is_unreachable(void **state)
{
	char away[MC_ADDR_MAX];
	struct mc_registry *r;
	uint64_t start;
	int fd, queue[4];

	(void)state;
	assert_ok(mc_net_listen("127.0.0.1:0", &fd, away));
	assert_int_equal(listen(fd, 0), 0);
	for (size_t i = 0; i < mc_array_len(queue); i++)
		if (mc_net_connect(away, NULL, mc_clock_ns() + 100 * MC_MS,
				   &queue[i]) < 0)
			queue[i] = -1;
	assert_int_equal(queue[3], -1);
	r = open_two(away, server.addr);
	start = mc_clock_ns();
	assert_ok(mc_registry_cas(r, "away", "1", 1, 0, 0));
	assert_true(mc_clock_ns() - start < 3000ull * MC_MS);
	mc_registry_close(r);
	r = open_two(away, away);
	mc_registry_set_times(r, 400, 0);
	assert_fails(mc_registry_cas(r, "away", "1", 1, 0, 0), -ETIMEDOUT,
		     "no connection in time");
	mc_registry_close(r);
	for (size_t i = 0; i < mc_array_len(queue); i++)
		if (queue[i] >= 0)
			close(queue[i]);
	close(fd);
}

/* A cluster of three. */
static void cluster_init(struct server s[3], char cluster[240])
{
	static char names[3][8], peers[3][48];
	int n = 0;

	for (int i = 0; i < 3; i++) {
		server_init(&s[i], kind_named("etcd"));
		snprintf(names[i], sizeof(names[i]), "m%d", i);
		snprintf(peers[i], sizeof(peers[i]), "http://127.0.0.1:%d",
			 s[i].peer_port);
		n += sprintf(cluster + n, "%s%s=%s", i ? "," : "", names[i],
			     peers[i]);
		s[i].more[0] = "--name";
		s[i].more[1] = names[i];
		s[i].more[2] = "--initial-cluster";
		s[i].more[3] = cluster;
	}
	for (int i = 0; i < 3; i++)
		server_launch(&s[i]);
}

enum { WRITERS = 3, RECORDS_MAX = 100000 };

struct load {
	char url[300];
	bool stop;			/* atomic */
	struct writer {
		struct load *load;
		pthread_t thread;
		int acked;		/* atomic */
		int failed;
		int slowest_ms;
		char odd[200];		/* an error that should not be */
	} w[WRITERS];
	pthread_t watcher;
	uint64_t version;
	uint8_t seen[WRITERS][RECORDS_MAX];
	char odd[200];
};

static bool is_of_a_lost_member(int r)
{
	return r == -ETIMEDOUT || r == -EBUSY || r == -ECONNREFUSED ||
	       r == -ECONNRESET;
}

/* Put one record after another until told to stop. */
static void *write_on(void *arg)
{
	struct writer *w = arg;
	struct mc_registry *r = registry_open(w->load->url);
	char key[40], value[16];

	while (!__atomic_load_n(&w->load->stop, __ATOMIC_RELAXED) &&
	       w->acked < RECORDS_MAX - 1) {
		uint64_t start = mc_clock_ns();
		int n = snprintf(value, sizeof(value), "%d", w->acked), ret;

		snprintf(key, sizeof(key), "load/%d/%d",
			 (int)(w - w->load->w), w->acked);
		ret = mc_registry_put(r, key, value, n, 0);
		w->slowest_ms = mc_max(w->slowest_ms,
				       (int)((mc_clock_ns() - start) / MC_MS));
		if (!ret)
			__atomic_fetch_add(&w->acked, 1, __ATOMIC_RELAXED);
		else
			w->failed++;
		if (ret && !is_of_a_lost_member(ret))
			mc_copy(w->odd, mc_errmsg());
	}
	mc_registry_close(r);
	return NULL;
}

/* Watch the records until there are no more. */
static void *watch_on(void *arg)
{
	struct load *l = arg;
	struct mc_registry *r = registry_open(l->url);
	struct mc_registry_change c;
	bool stop;
	int ret, w, i;

	do {
		stop = __atomic_load_n(&l->stop, __ATOMIC_RELAXED);
		ret = mc_registry_watch(r, "load/", &l->version, 1000);
		if (ret < 0 && !is_of_a_lost_member(ret))
			mc_copy(l->odd, mc_errmsg());
		while (ret > 0 && mc_registry_change(r, &c) > 0)
			if (sscanf(c.key, "load/%d/%d", &w, &i) == 2)
				l->seen[w][i]++;
	} while ((ret || !stop) && !l->odd[0]);
	mc_registry_close(r);
	return NULL;
}

static int acked(struct load *l)
{
	int n = 0;

	for (int i = 0; i < WRITERS; i++)
		n += __atomic_load_n(&l->w[i].acked, __ATOMIC_RELAXED);
	return n;
}

static void load_start(struct load *l, struct mc_registry *r)
{
	assert_int_equal(mc_registry_watch(r, "load/", &l->version, 0), 0);
	pthread_create(&l->watcher, NULL, watch_on, l);
	for (int i = 0; i < WRITERS; i++) {
		l->w[i].load = l;
		pthread_create(&l->w[i].thread, NULL, write_on, &l->w[i]);
	}
}

static void load_stop(struct load *l)
{
	__atomic_store_n(&l->stop, true, __ATOMIC_RELAXED);
	for (int i = 0; i < WRITERS; i++)
		pthread_join(l->w[i].thread, NULL);
	pthread_join(l->watcher, NULL);
}

/* What was acknowledged is there, and was seen once. */
static void load_check(struct load *l, struct mc_registry *r)
{
	char key[40], value[16];

	mc_registry_set_times(r, 20000, 0);
	assert_string_equal(l->odd, "");
	for (int i = 0; i < WRITERS; i++) {
		struct writer *w = &l->w[i];

		print_message("%d acknowledged, %d failed, slowest %d ms\n",
			      w->acked, w->failed, w->slowest_ms);
		assert_string_equal(w->odd, "");
		assert_true(w->slowest_ms < 3000 + 2000);
		for (int k = 0; k < w->acked; k++) {
			snprintf(key, sizeof(key), "load/%d/%d", i, k);
			assert_ok(registry_get(r, key, value, sizeof(value)));
			assert_int_equal(atoi(value), k);
			assert_int_equal(l->seen[i][k], 1);
		}
		assert_true(l->seen[i][w->acked] <= 1);
	}
}

static int leader_of(struct server s[3])
{
	char leader[32] = "", me[60];
	const char *text = ask(&s[0], "maintenance/status", "{}"), *at;

	at = strstr(text, "\"leader\":\"");
	if (at)
		sscanf(at, "\"leader\":\"%31[0-9]", leader);
	for (int i = 0; i < 3; i++) {
		snprintf(me, sizeof(me), "\"member_id\":\"%s\"", leader);
		if (strstr(ask(&s[i], "maintenance/status", "{}"), me))
			return i;
	}
	fail_msg("no leader: %s", text);
	return 0;
}

/* Under load the leader is killed, and started again: nothing that was
 * acknowledged is lost, what fails says so in time, a watch misses nothing and
 * sees nothing twice, and it all goes on by itself. */
static void a_cluster_loses_its_leader(void **state)
{
	struct load *l = calloc(1, sizeof(*l));
	struct server s[3];
	char cluster[240];
	int leader, before;
	struct mc_registry *r;
	uint64_t end = mc_clock_ns() + 60000ull * MC_MS;

	(void)state;
	cluster_init(s, cluster);
	snprintf(l->url, sizeof(l->url), "etcd://%s,%s,%s", s[0].addr,
		 s[1].addr, s[2].addr);
	r = registry_open(l->url);
	while (registry_get(r, "ready?", NULL, 0) != -ENOENT)
		if (mc_clock_ns() > end)
			fail_msg("%s", mc_errmsg());
	load_start(l, r);
	sleep(1);
	leader = leader_of(s);
	server_kill(&s[leader]);
	sleep(3);
	before = acked(l);
	sleep(1);
	assert_true(acked(l) > before);	/* with two of three */
	server_launch(&s[leader]);
	sleep(1);
	load_stop(l);
	load_check(l, r);
	mc_registry_close(r);
	for (int i = 0; i < 3; i++)
		server_end(&s[i]);
	free(l);
}

/* ---- users ------------------------------------------------------------- */

static void users_start(struct server *s)
{
	static const char *const steps[][2] = {
		{ "auth/user/add", "{\"name\":\"root\",\"password\":\"pw\"}" },
		{ "auth/role/add", "{\"name\":\"root\"}" },
		{ "auth/user/grant", "{\"user\":\"root\",\"role\":\"root\"}" },
		{ "auth/user/add", "{\"name\":\"moon\",\"password\":"
		  "\"a:b@c/d%\\\"\"}" },
		{ "auth/role/add", "{\"name\":\"moon\"}" },
		{ "auth/role/grant", "{\"name\":\"moon\",\"perm\":{"
		  "\"permType\":\"READWRITE\",\"key\":\"bS8=\","
		  "\"range_end\":\"bTA=\"}}" },
		{ "auth/user/grant", "{\"user\":\"moon\",\"role\":\"moon\"}" },
		{ "auth/enable", "{}" },
	};

	server_init(s, kind_named("etcd"));
	s->more[0] = "--bcrypt-cost";
	s->more[1] = "4";
	s->more[2] = "--auth-token-ttl";
	s->more[3] = "1";
	server_start(s);
	for (size_t i = 0; i < mc_array_len(steps); i++)
		tell(s, steps[i][0], steps[i][1]);
}

static struct mc_registry *open_as(const struct server *s, const char *login)
{
	char url[200];

	snprintf(url, sizeof(url), "etcd://%s@%s", login, s->addr);
	return registry_open(url);
}

static void users_have_passwords_and_rights(void **state)
{
	struct server s;
	struct mc_registry *r;
	uint64_t version = 0;

	(void)state;
	users_start(&s);
	r = registry_open(s.url);
	assert_fails(registry_get(r, "m/a", NULL, 0), -EACCES, "user name is");
	mc_registry_close(r);
	r = open_as(&s, "moon:secret");
	assert_fails(registry_get(r, "m/a", NULL, 0), -EACCES,
		     "login of 'moon'|invalid user ID or password");
	assert_null(strstr(mc_errmsg(), "secret"));
	mc_registry_close(r);
	r = open_as(&s, "moon:a%3ab%40c%2fd%25%22");
	assert_ok(mc_registry_put(r, "m/a", "1", 1, 60000));
	assert_ok(mc_registry_put(r, "m/a", "1", 1, 60000));
	assert_ok(registry_get(r, "m/a", NULL, 0));
	assert_int_equal(mc_registry_list(r, "m/", NULL, 0), 4);
	assert_int_equal(mc_registry_watch(r, "m/", &version, 0), 0);
	assert_ok(mc_registry_put(r, "m/a", "2", 1, 0));
	assert_int_equal(mc_registry_watch(r, "m/", &version, 5000), 1);
	assert_fails(mc_registry_put(r, "other", "1", 1, 0), -EACCES,
		     "permission denied");
	assert_fails(mc_registry_list(r, NULL, NULL, 0), -EACCES, "denied");
	version = 1;
	assert_true(mc_registry_watch(r, "other", &version, 300) < 0);
	/* Tokens run out, and a server that is restarted has none. */
	sleep(3);
	assert_ok(registry_get(r, "m/a", NULL, 0));
	server_kill(&s);
	server_start(&s);
	assert_ok(mc_registry_put(r, "m/a", "3", 1, 0));
	mc_registry_close(r);
	server_end(&s);
}

static void users_where_there_are_none(void **state)
{
	struct mc_registry *r = open_as(&server, "moon:secret");

	(void)state;
	assert_fails(registry_get(r, "a", NULL, 0), -EACCES,
		     "login of 'moon'|not enabled");
	mc_registry_close(r);
}

/* ---- TLS --------------------------------------------------------------- */

static void connections_are_encrypted(void **state)
{
	struct mc_registry *r;
	struct server s;
	char url[64], crt[80], key[80], other[300];

	(void)state;
	server_init(&s, kind_named("etcd"));
	server_certify(&s, "good");
	server_certify(&s, "other");
	snprintf(url, sizeof(url), "https://127.0.0.1:%d", s.port);
	snprintf(crt, sizeof(crt), "%s/good.crt", s.dir);
	snprintf(key, sizeof(key), "%s/good.key", s.dir);
	/* Each side shows the certificate, and asks for it. */
	memcpy(s.more, (const char *[]){
	       "--listen-client-urls", url, "--advertise-client-urls", url,
	       "--cert-file", crt, "--key-file", key, "--trusted-ca-file", crt,
	       "--client-cert-auth" }, 11 * sizeof(char *));
	snprintf(s.url, sizeof(s.url), "etcds://%s?cacert=%s&cert=%s&key=%s",
		 s.addr, crt, crt, key);
	server_start(&s);
	r = registry_open(s.url);
	assert_all_work(r);
	mc_registry_close(r);
	snprintf(other, sizeof(other), "etcds://%s?cacert=%s/other.crt",
		 s.addr, s.dir);
	r = registry_open(other);
	assert_fails(registry_get(r, "a", NULL, 0), -EACCES,
		     "etcds://127.0.0.1:|certificate");
	mc_registry_close(r);
	snprintf(other, sizeof(other), "etcds://%s?cacert=%s", s.addr, crt);
	r = registry_open(other);
	assert_true(registry_get(r, "a", NULL, 0) < 0);
	assert_says("get 'a'");
	mc_registry_close(r);
	snprintf(other, sizeof(other), "etcds://%s?cacert=/no/file", s.addr);
	r = registry_open(other);
	assert_fails(registry_get(r, "a", NULL, 0), -EACCES, "/no/file");
	mc_registry_close(r);
	snprintf(other, sizeof(other), "etcd://%s", s.addr);
	r = registry_open(other);
	assert_true(registry_get(r, "a", NULL, 0) < 0);
	mc_registry_close(r);
	server_end(&s);
}

/* ---- others ------------------------------------------------------------ */

static void a_server_that_is_not_etcd(void **state)
{
	struct mc_registryd *d;
	struct mc_registry *r;
	uint64_t version = 1;
	char url[100];

	(void)state;
	assert_ok(mc_registryd_open(&d, "127.0.0.1:0", NULL));
	snprintf(url, sizeof(url), "etcd://%s", mc_registryd_addr(d));
	r = registry_open(url);
	assert_true(registry_get(r, "a", NULL, 0) < 0);
	assert_says("get 'a': HTTP 501");
	assert_true(mc_registry_watch(r, "a", &version, 300) < 0);
	assert_says("watch 'a': HTTP 501");
	mc_registry_close(r);
	mc_registryd_close(d);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(keys_are_everyones),
		cmocka_unit_test(leases_do_not_pile_up),
		cmocka_unit_test(other_leases_are_left_alone),
		cmocka_unit_test(compacted_changes_are_forgotten),
		cmocka_unit_test(a_store_that_begins_anew),
		cmocka_unit_test(one_of_two_members_is_dead),
		cmocka_unit_test(one_of_two_members_is_mute),
		cmocka_unit_test(one_of_two_members_is_unreachable),
		cmocka_unit_test(a_cluster_loses_its_leader),
		cmocka_unit_test(users_have_passwords_and_rights),
		cmocka_unit_test(users_where_there_are_none),
		cmocka_unit_test(connections_are_encrypted),
		cmocka_unit_test(a_server_that_is_not_etcd),
	};

	registries_main(argc, argv);
	alarm(200);
	return cmocka_run_group_tests(tests, setup, teardown);
}
