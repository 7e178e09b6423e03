/*
 * matrix_test.c - which network devices memory uses first: on machines of known
 * shapes, as a file says, and by engines and their peers.
 */
#include "tree.h"

#include "../../src/topology/matrix.h"
#include "../../src/topology/topology.h"

#include <mooncake.h>

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

static void ok(int64_t r)
{
	if (r < 0)
		fail_msg("%s", mc_errmsg());
}

/* ---- machines -------------------------------------------------------- */

static const char *matrix_of(const char *devices)
{
	static char json[4096];
	struct mc_topology *t;
	int64_t n;

	ok(mc_topology_open(&t, tree_root));
	n = mc_topology_matrix(t, devices, json, sizeof(json));
	mc_topology_close(t);
	assert_int_equal(n, strlen(json));
	return json;
}

static struct mc_matrix *parsed(const char *json)
{
	struct mc_matrix *m;

	ok(mc_matrix_parse(&m, json, strlen(json)));
	return m;
}

static int rank(const struct mc_matrix *m, const char *location,
		const char *device)
{
	return mc_matrix_rank(m, mc_matrix_place(m, location), device);
}

static void a_gpu_prefers_the_nic_of_its_switch(void **state)
{
	struct mc_matrix *m;
	char at[32], nic[32];

	(void)state;
	tree_dgx();
	m = parsed(matrix_of(NULL));
	for (int i = 0; i < 8; i++) {
		snprintf(nic, sizeof(nic), "mlx5_%d", i);
		for (int g = 0; g < 8; g++) {
			snprintf(at, sizeof(at), "cuda:%d", g);
			assert_int_equal(rank(m, at, nic), i != g);
			snprintf(at, sizeof(at), "gpu:%d", g);
			assert_int_equal(rank(m, at, nic), i != g);
		}
		assert_int_equal(rank(m, "cpu:0", nic), i / 4);
		assert_int_equal(rank(m, "cpu:1", nic), 1 - i / 4);
	}
	mc_matrix_put(m);
	/* The nearest come first among the others, too. */
	assert_non_null(strstr(matrix_of(NULL), "\"cuda:5\":[[\"mlx5_5\"],"
			       "[\"mlx5_4\",\"mlx5_6\",\"mlx5_7\",\"mlx5_0\""));
	/* Without the NIC of its own it prefers those of its node. */
	m = parsed(matrix_of("mlx5_0,mlx5_4,mlx5_6"));
	assert_int_equal(rank(m, "cuda:5", "mlx5_4"), 0);
	assert_int_equal(rank(m, "cuda:5", "mlx5_6"), 0);
	assert_int_equal(rank(m, "cuda:5", "mlx5_0"), 1);
	assert_int_equal(rank(m, "cuda:5", "mlx5_5"), -1);
	mc_matrix_put(m);
}

static void a_switch_with_two_nics_has_two_first_choices(void **state)
{
	struct mc_matrix *m;

	(void)state;
	tree_hgx();
	m = parsed(matrix_of(NULL));
	assert_int_equal(rank(m, "cuda:3", "mlx5_2"), 0);
	assert_int_equal(rank(m, "cuda:3", "mlx5_3"), 0);
	assert_int_equal(rank(m, "cuda:3", "mlx5_1"), 1);
	assert_string_equal(mc_matrix_first(m, mc_matrix_place(m, "cuda:3"), 5),
			    "mlx5_3");
	mc_matrix_put(m);
}

static void a_node_prefers_its_nics(void **state)
{
	(void)state;
	tree_two_sockets();
	assert_string_equal(matrix_of(NULL),
		"{\"cpu:0\":[[\"mlx5_0\",\"mlx5_1\"],[\"mlx5_2\",\"mlx5_3\"]],"
		"\"cpu:1\":[[\"mlx5_2\",\"mlx5_3\"],[\"mlx5_0\",\"mlx5_1\"]]}");
	assert_string_equal(matrix_of("eth3, eth0"),
		"{\"cpu:0\":[[\"eth0\"],[\"eth3\"]],"
		"\"cpu:1\":[[\"eth3\"],[\"eth0\"]]}");
	/* Of none that is near, all are as good. */
	assert_string_equal(matrix_of("mlx5_0"),
		"{\"cpu:0\":[[\"mlx5_0\"],[]],\"cpu:1\":[[\"mlx5_0\"],[]]}");
}

static void a_nic_that_is_down_is_no_first_choice(void **state)
{
	const char *port = "class/infiniband/mlx5_0/ports/1";

	(void)state;
	tree_two_sockets();
	tree_file_in(port, "state", "1: DOWN\n");
	assert_string_equal(matrix_of("mlx5_0,mlx5_1,mlx5_2"),
		"{\"cpu:0\":[[\"mlx5_1\"],[\"mlx5_2\",\"mlx5_0\"]],"
		"\"cpu:1\":[[\"mlx5_2\"],[\"mlx5_1\",\"mlx5_0\"]]}");
	assert_string_equal(matrix_of("mlx5_0"),
		"{\"cpu:0\":[[\"mlx5_0\"],[]],\"cpu:1\":[[\"mlx5_0\"],[]]}");
}

static void one_nic_is_the_first_choice_of_all(void **state)
{
	(void)state;
	tree_node(0);
	tree_pci("pci0000:00/0000:00:03.0", "0x020000", "0x1af4", -1);
	tree_net("eth0", "pci0000:00/0000:00:03.0", "-1", "up");
	tree_file("devices/virtual/net/lo/operstate", "unknown\n");
	tree_link("class/net/lo", "../../devices/virtual/net/lo");
	assert_string_equal(matrix_of(NULL), "{\"cpu:0\":[[\"eth0\"],[]]}");
}

static void without_nics_there_is_no_choice(void **state)
{
	struct mc_matrix *m;

	(void)state;
	assert_string_equal(matrix_of(NULL), "{}");
	tree_node(0);
	assert_string_equal(matrix_of(NULL), "{\"cpu:0\":[[],[]]}");
	m = parsed(matrix_of(NULL));
	assert_string_equal(mc_matrix_first(m, 0, 0), "");
	assert_int_equal(rank(m, "cpu:0", "eth0"), -1);
	assert_int_equal(rank(m, "cpu:1", "eth0"), -1);
	assert_int_equal(mc_matrix_place(NULL, "cpu:0"), -1);
	mc_matrix_put(m);
	mc_matrix_put(NULL);
}

static void what_does_not_fit_is_cut(void **state)
{
	struct mc_topology *t;
	char out[8] = "xxxxxxx";

	(void)state;
	tree_node(0);
	ok(mc_topology_open(&t, tree_root));
	assert_int_equal(mc_topology_matrix(t, "", NULL, 0), 17);
	assert_int_equal(mc_topology_matrix(t, "", out, 5), 17);
	assert_memory_equal(out, "{\"cp\0xx", 8);
	mc_topology_close(t);
}

/* ---- files ----------------------------------------------------------- */

static void a_matrix_is_text_or_a_file(void **state)
{
	const char *json = " {\"cpu:0\": [[\"a\"], [\"b\", \"a\"]],"
		"\"gpu:1\": [[], [\"b\"]], \"*\": [[\"c\"], []]}";
	char path[4096], *again;
	struct mc_matrix *m, *file;

	(void)state;
	ok(mc_matrix_read(&m, json));
	again = mc_matrix_json(m);
	assert_string_equal(again, "{\"cpu:0\":[[\"a\"],[\"b\"]],"
			    "\"cuda:1\":[[],[\"b\"]],\"*\":[[\"c\"],[]]}");
	free(again);
	assert_int_equal(rank(m, "cpu:0", "a"), 0);
	assert_int_equal(rank(m, "cpu:0", "b"), 1);
	/* The only choice is no second one. */
	assert_int_equal(rank(m, "cuda:1", "b"), 0);
	assert_int_equal(rank(m, "cpu:7", "c"), 0);
	mc_matrix_put(m);
	tree_file("matrix.json", json);
	snprintf(path, sizeof(path), "%s/sys/matrix.json", tree_root);
	ok(mc_matrix_read(&file, path));
	assert_int_equal(rank(file, "cpu:0", "b"), 1);
	mc_matrix_put(file);
	snprintf(path, sizeof(path), "%s/absent.json", tree_root);
	assert_int_equal(mc_matrix_read(&m, path), -ENOENT);
	assert_non_null(strstr(mc_errmsg(), "absent.json"));
}

static void what_is_no_matrix_is_refused(void **state)
{
	static const char *const bad[] = {
		"{", "{}x", "[]", "{\"cpu:0\":1}", "{\"cpu:0\":[]}",
		"{\"cpu:0\":[[\"a\"]]}", "{\"cpu:0\":[[],[],[]]}",
		"{\"cpu:0\":[[1],[]]}", "{\"cpu:0\":[[\"\"],[]]}",
		"{\"cpu:0\":[[],[\"a device of which the name is too long\"]]}",
		"{\"a location of which the name is too long\":[[],[]]}",
	};
	static char many[70000];
	struct mc_matrix *m;
	size_t n = 1;

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		if (mc_matrix_parse(&m, bad[i], strlen(bad[i])) != -EBADMSG)
			fail_msg("taken: %s", bad[i]);
	many[0] = '{';
	for (int i = 0; i <= MATRIX_PLACES; i++)
		n += sprintf(many + n, "%s\"cpu:%d\":[[],[]]", i ? "," : "", i);
	strcpy(many + n, "}");
	assert_int_equal(mc_matrix_parse(&m, many, n + 1), -EBADMSG);
	memset(many, ' ', sizeof(many));
	memcpy(many, "{}", 2);
	assert_int_equal(mc_matrix_parse(&m, many, sizeof(many)), -EBADMSG);
}

/* ---- engines --------------------------------------------------------- */

/* Two interfaces that this machine has. */
static bool two_devices(char out[80], char *other)
{
	char names[1][32];

	if (mc_topology_interfaces(names, 1) < 1)
		return false;
	snprintf(out, 80, "lo,%s", names[0]);
	strcpy(other, names[0]);
	return true;
}

static void written(struct mc_engine *e, const char *other, uint64_t by[2])
{
	struct mc_rail_info r[8];
	int n = mc_rail_list(e, 0, r, 8);

	by[0] = by[1] = 0;
	for (int i = 0; i < n; i++)
		by[!strcmp(r[i].local_dev, other)] += r[i].bytes_written;
}

static void write_one(struct mc_engine *e, int s, void *buf, uint64_t len)
{
	struct mc_buffer_info far;
	struct mc_req q = { .op = MC_WRITE, .segment = s, .buf = buf,
			    .len = len };
	struct mc_result res;

	assert_int_equal(mc_segment_list(e, s, 0, &far, 1), 1);
	q.remote = far.addr;
	ok(mc_transfer(e, &q, 1, NULL, &res));
}

static void bytes_leave_by_the_first_choice(void **state)
{
	static char near[2][65536], far[65536];
	char devices[80], other[32], json[400], told[400];
	struct mc_options o = { .transports = "tcp", .streams = 1 };
	struct mc_engine *a, *b;
	uint64_t was[2], by[2];
	int s;

	(void)state;
	if (!two_devices(devices, other))
		skip();
	snprintf(json, sizeof(json), "{\"cpu:0\":[[\"lo\"],[\"%s\"]],"
		 "\"cuda:0\":[[\"%s\"],[\"lo\"]]}", other, other);
	o.listen = "0.0.0.0:0";
	o.devices = devices;
	o.topology = json;
	ok(mc_open(&b, &o));
	ok(mc_buffer_reg(b, far, sizeof(far), NULL, MC_REMOTE_RW));
	ok(mc_open(&a, &o));
	ok(mc_buffer_reg(a, near[0], sizeof(near[0]), "cpu:0", MC_LOCAL));
	ok(mc_buffer_reg(a, near[1], sizeof(near[1]), "gpu:0", MC_LOCAL));
	s = mc_segment_open(a, mc_engine_addr(b), 3000);
	ok(s);
	assert_int_equal(mc_segment_topology(a, s, told, sizeof(told)),
			 strlen(json));
	assert_string_equal(told, json);
	ok(mc_engine_topology(a, told, sizeof(told)));
	assert_string_equal(told, json);
	for (int at = 0; at < 2; at++) {
		bool most = false;

		/* The first ones may find a rail that is not up yet, and one
		 * that this machine made slow for a while is tried again. */
		for (int round = 0; round < 40 && !most; round++) {
			written(a, other, was);
			for (int i = 0; i < 50; i++)
				write_one(a, s, near[at], sizeof(near[at]));
			written(a, other, by);
			most = by[at] - was[at] > 9 * (by[!at] - was[!at]);
		}
		assert_true(most);
	}
	mc_close(a);
	mc_close(b);
}

static void a_wrong_topology_is_told_at_once(void **state)
{
	struct mc_options o = { .topology = "{\"cpu:0\":[\"mlx5_0\"]}" };
	struct mc_engine *e;

	(void)state;
	assert_int_equal(mc_open(&e, &o), -EBADMSG);
	assert_non_null(strstr(mc_errmsg(), "[[first choice], [others]]"));
	o.topology = "/nonexistent/matrix.json";
	assert_int_equal(mc_open(&e, &o), -ENOENT);
}

#define IN_TREE(f) \
	cmocka_unit_test_setup_teardown(f, tree_setup, tree_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		IN_TREE(a_gpu_prefers_the_nic_of_its_switch),
		IN_TREE(a_switch_with_two_nics_has_two_first_choices),
		IN_TREE(a_node_prefers_its_nics),
		IN_TREE(a_nic_that_is_down_is_no_first_choice),
		IN_TREE(one_nic_is_the_first_choice_of_all),
		IN_TREE(without_nics_there_is_no_choice),
		IN_TREE(what_does_not_fit_is_cut),
		IN_TREE(a_matrix_is_text_or_a_file),
		IN_TREE(what_is_no_matrix_is_refused),
		cmocka_unit_test(bytes_leave_by_the_first_choice),
		cmocka_unit_test(a_wrong_topology_is_told_at_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
