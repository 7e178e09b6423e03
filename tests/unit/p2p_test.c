/*
 * p2p_test.c - stores that fetch from each other: right bytes whoever dies,
 * lies, comes late or starts again, and what the registry says meanwhile.
 *
 * Nodes that are to be killed are processes of their own: this program again,
 * as "p2p_test node URL NAME".
 */
#include "registries.h"

#include "../../src/base/clock.h"
#include "../../src/base/util.h"
#include "../../src/p2p/record.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MIB = 1 << 20, SIZE = 24 * MIB + 4321, SHARD = 256 << 10 };

static struct server registry;
static char *source_mem;
static char self[4096];

static struct mc_p2p *store_open(void)
{
	/* Also where all are on one host, bytes are to take their time. */
	struct mc_options engine = { .transports = "tcp" };
	struct mc_p2p_options opts = {
		.registry = registry.url, .engine = &engine, .lease_ms = 2000,
	};
	struct mc_p2p *p;

	assert_ok(mc_p2p_open(&p, &opts));
	return p;
}

static int setup(void **state)
{
	(void)state;
	source_mem = malloc(SIZE);
	mc_fill(source_mem, SIZE, 7);
	server_open(&registry, kind_named("http"));
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	server_end(&registry);
	free(source_mem);
	return 0;
}

static void put(struct mc_p2p *p, const char *name)
{
	struct mc_p2p_register opts = { .shard_bytes = SHARD, .note = "n" };
	struct mc_range b[2] = {
		{ (uintptr_t)source_mem, 10 * MIB },
		{ (uintptr_t)source_mem + 10 * MIB, SIZE - 10 * MIB },
	};

	assert_ok(mc_p2p_register(p, name, b, 2, &opts));
}

static struct mc_p2p_progress here(struct mc_p2p *p, const char *name)
{
	struct mc_p2p_progress told;
	struct mc_range b[2];

	assert_ok(mc_p2p_wait(p, name, 60000, &told));
	assert_int_equal(mc_p2p_buffers(p, name, b, 2), 2);
	assert_int_equal(told.bytes_here, SIZE);
	if (memcmp((void *)(uintptr_t)b[0].addr, source_mem, 10 * MIB) ||
	    memcmp((void *)(uintptr_t)b[1].addr, source_mem + 10 * MIB,
		   SIZE - 10 * MIB))
		fail_msg("other bytes came");
	return told;
}

static struct mc_p2p_info stat_of(struct mc_p2p *p, const char *name)
{
	struct mc_p2p_info i;

	assert_ok(mc_p2p_stat(p, name, &i, NULL, 0, NULL, 0));
	return i;
}

/* ---- nodes that are processes ------------------------------------------ */

/* Be a registry at @addr that keeps its records in file @state. */
static int registry_main(const char *addr, const char *state)
{
	struct mc_registryd *d;

	if (mc_registryd_open(&d, addr, state) < 0 || write(1, "r", 1) != 1)
		return 1;
	for (;;)
		pause();
}

/* Fetch, and serve until killed; with "put", be the source. */
static int node_main(const char *url, const char *name, const char *what)
{
	if (!strcmp(what, "registry"))
		return registry_main(url, name);
	snprintf(registry.url, sizeof(registry.url), "%s", url);
	source_mem = malloc(SIZE);
	mc_fill(source_mem, SIZE, 7);
	{
		struct mc_p2p *p = store_open();

		if (!strcmp(what, "put"))
			put(p, name);
		else if (mc_p2p_get(p, name, NULL, 0, NULL) < 0 ||
			 mc_p2p_wait(p, name, 60000, NULL) < 0)
			return 1;
	}
	if (write(1, "r", 1) != 1)
		return 1;
	for (;;)
		pause();
}

struct node {
	pid_t pid;
	int out;
};

/* Not by fork(): there are threads. */
static struct node node_start(const char *name, const char *what)
{
	const char *argv[] = { self, "node", registry.url, name, what, NULL };
	posix_spawn_file_actions_t actions;
	struct node n;
	int fds[2];

	assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, fds[1], 1);
	assert_int_equal(posix_spawn(&n.pid, self, &actions, NULL,
				     (char *const *)(uintptr_t)argv, environ),
			 0);
	posix_spawn_file_actions_destroy(&actions);
	close(fds[1]);
	n.out = fds[0];
	return n;
}

static void node_ready(const struct node *n)
{
	char c;

	assert_int_equal(read(n->out, &c, 1), 1);
}

static void node_kill(struct node *n)
{
	kill(n->pid, SIGKILL);
	waitpid(n->pid, NULL, 0);
	close(n->out);
}

/* ---- tests ------------------------------------------------------------- */

static void three_nodes_fetch_it(void **state)
{
	struct mc_p2p *a = store_open(), *b[3];
	uint64_t from_source = 0;

	(void)state;
	put(a, "foo/bar");
	for (int i = 0; i < 3; i++) {
		b[i] = store_open();
		assert_ok(mc_p2p_get(b[i], "foo/bar", NULL, 0, NULL));
	}
	for (int i = 0; i < 3; i++)
		from_source += here(b[i], "foo/bar").from_source;
	print_message("the source sent %.2f copies\n",
		      from_source / (double)SIZE);
	assert_true(from_source >= SIZE && from_source < 3ull * SIZE);
	assert_int_equal(stat_of(a, "foo/bar").nodes, 4);
	assert_int_equal(stat_of(a, "foo/bar").sources, 1);
	for (int i = 0; i < 3; i++)
		mc_p2p_close(b[i]);
	assert_int_equal(stat_of(a, "foo/bar").nodes, 1);
	assert_ok(mc_p2p_unregister(a, "foo/bar"));
	assert_fails(mc_p2p_get(a, "foo/bar", NULL, 0, NULL), -ENOENT,
		     "no object 'foo/bar'");
	mc_p2p_close(a);
}

static void the_source_goes_and_a_late_one_comes(void **state)
{
	struct mc_p2p *b = store_open(), *c = store_open();
	struct node source = node_start("late", "put");

	(void)state;
	node_ready(&source);
	assert_ok(mc_p2p_get(b, "late", NULL, 0, NULL));
	here(b, "late");
	node_kill(&source);
	assert_ok(mc_p2p_get(c, "late", NULL, 0, NULL));
	assert_int_equal(here(c, "late").from_source, 0);
	/* Its lease ends, and with the next who looks its name goes too. */
	for (int i = 0; i < 100 && stat_of(b, "late").nodes > 2; i++)
		usleep(100000);
	assert_int_equal(stat_of(b, "late").nodes, 2);
	mc_p2p_close(b);
	mc_p2p_close(c);
}

static void holders_die_in_the_middle(void **state)
{
	struct node source = node_start("die", "put"), n[3];
	struct mc_p2p *b = store_open();
	struct mc_p2p_progress told = { 0 };

	(void)state;
	node_ready(&source);
	for (int i = 0; i < 3; i++)
		n[i] = node_start("die", "get");
	node_ready(&n[0]);
	assert_ok(mc_p2p_get(b, "die", NULL, 0, NULL));
	while (told.shards_here < 20)
		assert_int_not_equal(mc_p2p_wait(b, "die", 1, &told),
				     -ETIMEDOUT);
	node_kill(&n[1]);
	node_kill(&source);
	here(b, "die");
	node_kill(&n[0]);
	node_kill(&n[2]);
	mc_p2p_close(b);
}

/* Its memory changes after it has said what is there: a lie. */
static void a_liar_is_named_and_shunned(void **state)
{
	struct node source = node_start("lie", "put");
	struct mc_p2p *b = store_open(), *c = store_open();
	struct mc_p2p_progress told;
	struct mc_range r[2];

	(void)state;
	node_ready(&source);
	assert_ok(mc_p2p_get(b, "lie", NULL, 0, NULL));
	here(b, "lie");
	assert_int_equal(mc_p2p_buffers(b, "lie", r, 2), 2);
	for (uint32_t i = 0; i < 10 * MIB; i += SHARD)
		((char *)(uintptr_t)r[0].addr)[i] ^= 1;
	assert_ok(mc_p2p_get(c, "lie", NULL, 0, NULL));
	told = here(c, "lie");
	assert_in_range(told.bad, 1, 12);
	assert_non_null(strstr(told.why, "wrong checksum"));
	assert_non_null(strstr(told.why, mc_engine_addr(mc_p2p_engine(b))));
	node_kill(&source);
	mc_p2p_close(b);
	mc_p2p_close(c);
}

static void nothing_comes(void **state)
{
	struct node source = node_start("none", "put");
	struct mc_p2p_get opts = { .timeout_ms = 1500 };
	struct mc_p2p *b = store_open();

	(void)state;
	node_ready(&source);
	node_kill(&source);
	assert_ok(mc_p2p_get(b, "none", NULL, 0, &opts));
	assert_fails(mc_p2p_wait(b, "none", 10000, NULL), -ETIMEDOUT,
		     "none|nothing came for 1500 ms|0 of ");
	mc_p2p_close(b);
}

static void what_is_there_does_not_come_again(void **state)
{
	struct mc_p2p *a = store_open(), *b = store_open();
	struct mc_p2p_get opts = { .resume = true };
	char *mem = calloc(1, SIZE);
	struct mc_range r[2] = {
		{ (uintptr_t)mem, 10 * MIB },
		{ (uintptr_t)mem + 10 * MIB, SIZE - 10 * MIB },
	};
	struct mc_p2p_progress told;

	(void)state;
	put(a, "again");
	memcpy(mem, source_mem, 5 * MIB);
	mem[100] ^= 1;
	assert_ok(mc_p2p_get(b, "again", r, 2, &opts));
	told = here(b, "again");
	assert_int_equal(told.resumed, 5 * MIB / SHARD - 1);
	assert_int_equal(told.from_source, SIZE - told.resumed * SHARD);
	assert_ok(mc_p2p_unregister(b, "again"));
	/* All of it. */
	assert_ok(mc_p2p_get(b, "again", r, 2, &opts));
	assert_int_equal(here(b, "again").from_source, 0);
	mc_p2p_close(b);
	mc_p2p_close(a);
	free(mem);
}

static void one_name_one_winner(void **state)
{
	struct mc_p2p *a = store_open(), *b = store_open();
	struct mc_range r = { (uintptr_t)source_mem, MIB };
	struct mc_p2p_register force = { .force = true };
	uint64_t id;

	(void)state;
	put(a, "name");
	id = stat_of(b, "name").id;
	assert_fails(mc_p2p_register(b, "name", &r, 1, NULL), -EEXIST,
		     "object 'name' exists");
	assert_fails(mc_p2p_register(a, "name", &r, 1, NULL), -EALREADY,
		     "here already");
	assert_ok(mc_p2p_pin(b, "name", true));
	assert_true(stat_of(a, "name").pinned);
	assert_fails(mc_p2p_remove(b, "name", false), -EBUSY, "pinned");
	assert_ok(mc_p2p_pin(a, "name", false));
	assert_ok(mc_p2p_register(b, "name", &r, 1, &force));
	assert_int_not_equal(stat_of(a, "name").id, id);
	/* Who was replaced takes only its own things with it. */
	mc_p2p_close(a);
	assert_int_equal(stat_of(b, "name").sources, 1);
	assert_ok(mc_p2p_remove(b, "name", false));
	assert_fails(mc_p2p_remove(b, "name", false), -ENOENT, "no object");
	mc_p2p_close(b);
}

/* As left by a crash: a record, a source in it, and no key. */
static void a_dead_name_can_be_taken(void **state)
{
	struct node source = node_start("dead", "put");
	struct mc_p2p *a = store_open();
	struct mc_range r = { (uintptr_t)source_mem, MIB };
	int ret = -EEXIST;

	(void)state;
	node_ready(&source);
	node_kill(&source);
	for (int i = 0; i < 100 && ret == -EEXIST; i++) {
		ret = mc_p2p_register(a, "dead", &r, 1, NULL);
		usleep(100000);
	}
	assert_ok(ret);
	mc_p2p_close(a);
}

static void sizes_must_be_right(void **state)
{
	struct mc_p2p *a = store_open(), *b = store_open();
	struct mc_p2p_register odd = { .shard_bytes = 3 * MIB };
	struct mc_range r[2] = { { (uintptr_t)source_mem, MIB }, { 0, 0 } };

	(void)state;
	put(a, "sizes");
	assert_fails(mc_p2p_get(b, "sizes", r, 1, NULL), -EINVAL,
		     "has 2 buffers, not 1");
	assert_fails(mc_p2p_get(b, "sizes", r, 2, NULL), -EINVAL, "empty");
	r[1] = r[0];
	assert_fails(mc_p2p_get(b, "sizes", r, 2, NULL), -EINVAL,
		     "buffer 0 is of 10485760 bytes");
	assert_fails(mc_p2p_register(b, "odd", r, 1, &odd), -EINVAL,
		     "power of two");
	assert_fails(mc_p2p_register(b, "", r, 1, NULL), -EINVAL, "name");
	assert_fails(mc_p2p_wait(b, "sizes", 0, NULL), -ENOENT, "not held");
	mc_p2p_close(a);
	mc_p2p_close(b);
}

/* A record without anything of ours, and a holder that has no map. */
static void the_public_store_put_it(void **state)
{
	struct mc_options opts = { .transports = "tcp" };
	struct mc_engine *e;
	struct mc_p2p *b = store_open();
	struct mc_registry *reg = registry_open(registry.url);
	struct mc_range r;
	char json[1000];

	(void)state;
	assert_ok(mc_open(&e, &opts));
	assert_ok(mc_buffer_reg(e, source_mem, MIB, NULL, MC_REMOTE_READ));
	snprintf(json, sizeof(json), "{\"name\":\"theirs\",\"size\":%d,"
		 "\"size_list\":[%d],\"max_shard_size\":%d,\"shards\":["
		 "{\"size\":%d,\"gold\":[{\"segment_name\":\"%s\",\"offset\":"
		 "%llu}],\"replica_list\":null}]}", MIB, MIB, 4 * MIB, MIB,
		 mc_engine_addr(e),
		 (unsigned long long)(uintptr_t)source_mem);
	assert_ok(mc_registry_put(reg, "mooncake/checkpoint/theirs", json,
				  strlen(json), 0));
	assert_ok(mc_p2p_get(b, "theirs", NULL, 0, NULL));
	assert_ok(mc_p2p_wait(b, "theirs", 10000, NULL));
	assert_int_equal(mc_p2p_buffers(b, "theirs", &r, 1), 1);
	assert_memory_equal((void *)(uintptr_t)r.addr, source_mem, MIB);
	mc_registry_close(reg);
	mc_p2p_close(b);
	mc_close(e);
}

static void names_and_news(void **state)
{
	struct mc_p2p *a = store_open();
	struct mc_p2p_watch *w;
	char name[MC_P2P_NAME_MAX], list[200];
	bool gone;

	(void)state;
	assert_ok(mc_p2p_watch_open(&w, a, "news/"));
	put(a, "news/1");
	put(a, "other");
	assert_int_equal(mc_p2p_watch_next(w, 3000, name, sizeof(name), &gone),
			 1);
	assert_string_equal(name, "news/1");
	assert_false(gone);
	assert_true(mc_p2p_list(a, "", list, sizeof(list)) > 0);
	assert_non_null(strstr(list, "news/1\n"));
	assert_non_null(strstr(list, "other\n"));
	assert_int_equal(mc_p2p_list(a, "news/", list, sizeof(list)), 7);
	assert_string_equal(list, "news/1\n");
	assert_ok(mc_p2p_unregister(a, "news/1"));
	assert_int_equal(mc_p2p_watch_next(w, 3000, name, sizeof(name), &gone),
			 1);
	assert_true(gone);
	assert_int_equal(mc_p2p_watch_next(w, 50, name, sizeof(name), &gone),
			 0);
	mc_p2p_watch_close(w);
	mc_p2p_close(a);
}

/* Each kind of registry. */
static void any_registry_will_do(void **state)
{
	struct server usual = registry;

	(void)state;
	for (int i = 0; i < n_kinds; i++) {
		struct mc_p2p *a, *b;

		server_open(&registry, &kinds[i]);
		a = store_open();
		b = store_open();
		put(a, "any");
		assert_ok(mc_p2p_get(b, "any", NULL, 0, NULL));
		here(b, "any");
		assert_int_equal(stat_of(a, "any").nodes, 2);
		assert_fails(mc_p2p_register(b, "any", &(struct mc_range){
				(uintptr_t)source_mem, MIB }, 1, NULL),
			     -EALREADY, "here already");
		mc_p2p_close(b);
		assert_int_equal(stat_of(a, "any").nodes, 1);
		assert_ok(mc_p2p_pin(a, "any", true));
		assert_fails(mc_p2p_remove(a, "any", false), -EBUSY, "pinned");
		assert_ok(mc_p2p_remove(a, "any", true));
		mc_p2p_close(a);
		server_end(&registry);
	}
	registry = usual;
}

/* The scout may be asking the registry about it just then: who leaves waits
 * for that, and hears when it is over. */
static void left_while_it_is_looked_at(void **state)
{
	struct mc_p2p *a = store_open(), *b = store_open();

	(void)state;
	put(a, "left");
	for (int i = 0; i < 60; i++) {
		assert_ok(mc_p2p_get(b, "left", NULL, 0, NULL));
		usleep(i * 400);
		assert_ok(mc_p2p_unregister(b, "left"));
	}
	mc_p2p_close(b);
	mc_p2p_close(a);
}

/* An address that is free, and stays so, likely, while we need it. */
static void free_addr(char addr[MC_ADDR_MAX])
{
	struct mc_registryd *d;

	assert_ok(mc_registryd_open(&d, "127.0.0.1:0", NULL));
	snprintf(addr, MC_ADDR_MAX, "%s", mc_registryd_addr(d));
	mc_registryd_close(d);
}

/* A registry of ours at @addr; the URL of those that open stores now. */
static struct node registry_node(const char *addr)
{
	char file[80];
	struct node n;

	snprintf(file, sizeof(file), "%s/state-2", registry.dir);
	snprintf(registry.url, sizeof(registry.url), "%s", addr);
	n = node_start(file, "registry");
	node_ready(&n);
	snprintf(registry.url, sizeof(registry.url), "http://%s/m", addr);
	return n;
}

/* Who is in the middle of it goes on without a registry. */
static void the_registry_dies(void **state)
{
	struct server usual = registry;
	struct mc_p2p_progress told = { 0 };
	struct mc_p2p *a, *b;
	char addr[MC_ADDR_MAX];
	struct node reg;

	(void)state;
	free_addr(addr);
	reg = registry_node(addr);
	a = store_open();
	b = store_open();
	put(a, "away");
	assert_ok(mc_p2p_get(b, "away", NULL, 0, NULL));
	while (!told.shards_here)
		mc_p2p_wait(b, "away", 1, &told);
	node_kill(&reg);
	here(b, "away");
	reg = registry_node(addr);
	/* What it has lost, it is told again. */
	for (int i = 0; i < 100; i++) {
		struct mc_p2p_info info = { 0 };

		if (!mc_p2p_stat(a, "away", &info, NULL, 0, NULL, 0) &&
		    info.nodes == 2)
			break;
		usleep(100000);
	}
	assert_int_equal(stat_of(a, "away").nodes, 2);
	mc_p2p_close(b);
	mc_p2p_close(a);
	node_kill(&reg);
	registry = usual;
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(three_nodes_fetch_it),
		cmocka_unit_test(the_source_goes_and_a_late_one_comes),
		cmocka_unit_test(holders_die_in_the_middle),
		cmocka_unit_test(a_liar_is_named_and_shunned),
		cmocka_unit_test(nothing_comes),
		cmocka_unit_test(what_is_there_does_not_come_again),
		cmocka_unit_test(one_name_one_winner),
		cmocka_unit_test(a_dead_name_can_be_taken),
		cmocka_unit_test(sizes_must_be_right),
		cmocka_unit_test(the_public_store_put_it),
		cmocka_unit_test(names_and_news),
		cmocka_unit_test(any_registry_will_do),
		cmocka_unit_test(left_while_it_is_looked_at),
		cmocka_unit_test(the_registry_dies),
	};
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

	if (n < 0)
		return 1;
	if (argc == 5 && !strcmp(argv[1], "node"))
		return node_main(argv[2], argv[3], argv[4]);
	registries_main(argc, argv);
	return cmocka_run_group_tests(tests, setup, teardown);
}
