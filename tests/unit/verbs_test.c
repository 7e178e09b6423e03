/*
 * verbs_test.c - which GID of a port is the best one to be reached by, which
 * two may reach one another, and in how large chunks memory is registered.
 */
#include "../../src/base/env.h"
#include "../../src/transport/rdma.h"

#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static void gid_of(const char *text, uint8_t raw[16])
{
	memset(raw, 0, 16);
	if (strchr(text, ':')) {
		assert_int_equal(inet_pton(AF_INET6, text, raw), 1);
		return;
	}
	raw[10] = raw[11] = 0xff;
	assert_int_equal(inet_pton(AF_INET, text, raw + 12), 1);
}

static int rank_of(const char *text, int type, const char *ndev)
{
	uint8_t raw[16];

	gid_of(text, raw);
	return mc_verbs_gid_rank(raw, type, ndev);
}

/* From the best to the worst. */
static void gids_are_ranked_by_reach(void **state)
{
	static const struct { const char *gid, *ndev; } order[] = {
		{ "203.0.113.7", "eth0" }, { "2001:db8::7", "eth0" },
		{ "203.0.113.7", "" }, { "2001:db8::7", "" },
		{ "10.1.2.3", "eth0" }, { "169.254.3.4", "eth0" },
		{ "fe80::5054:ff:fe00:1", "eth0" }, { "10.1.2.3", "" },
		{ "169.254.3.4", "" }, { "fe80::5054:ff:fe00:1", "" },
	};
	int last = -1;

	(void)state;
	for (size_t i = 0; i < sizeof(order) / sizeof(order[0]); i++) {
		int r = rank_of(order[i].gid, IBV_GID_TYPE_ROCE_V2,
				order[i].ndev);

		if (r <= last)
			fail_msg("%s on '%s' is not worse than the one before",
				 order[i].gid, order[i].ndev);
		last = r;
	}
}

static void private_networks_are_those_of_the_rfcs(void **state)
{
	static const char *const in[] = { "10.0.0.1", "172.16.0.1",
		"172.31.255.1", "100.64.0.1", "100.127.0.1" };
	static const char *const out[] = { "9.255.0.1", "172.15.0.1",
		"172.32.0.1", "100.63.0.1", "100.128.0.1", "192.168.0.1" };
	int public = rank_of("203.0.113.7", IBV_GID_TYPE_ROCE_V2, "eth0");

	(void)state;
	for (size_t i = 0; i < sizeof(in) / sizeof(in[0]); i++)
		assert_true(rank_of(in[i], IBV_GID_TYPE_ROCE_V2, "eth0") >
			    public);
	for (size_t i = 0; i < sizeof(out) / sizeof(out[0]); i++)
		assert_int_equal(rank_of(out[i], IBV_GID_TYPE_ROCE_V2, "eth0"),
				 public);
}

static void overlay_networks_come_late(void **state)
{
	static const char *const names[] = { "flannel.1", "cni0", "calico1",
		"vxlan.calico", "docker0", "tunl0" };
	int link_local = rank_of("169.254.3.4", IBV_GID_TYPE_ROCE_V2, "eth0");

	(void)state;
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		assert_int_equal(rank_of("203.0.113.7", IBV_GID_TYPE_ROCE_V2,
					 names[i]), link_local);
}

static void what_is_of_no_use_is_left_out(void **state)
{
	(void)state;
	assert_true(rank_of("::", IBV_GID_TYPE_ROCE_V2, "eth0") < 0);
	assert_true(rank_of("203.0.113.7", IBV_GID_TYPE_ROCE_V1, "eth0") < 0);
	/* InfiniBand's have the prefix of its default subnet. */
	assert_true(rank_of("fe80::2:c903:0:1", IBV_GID_TYPE_IB, "") >= 0);
}

static bool near(const char *a, const char *b)
{
	uint8_t x[16], y[16];

	gid_of(a, x);
	gid_of(b, y);
	return mc_verbs_gid_near(x, y) && mc_verbs_gid_near(y, x);
}

static void those_of_a_subnet_are_near(void **state)
{
	(void)state;
	assert_true(near("10.1.2.3", "10.1.2.200"));
	assert_false(near("10.1.2.3", "10.1.3.3"));
	assert_true(near("2001:db8:0:1::1", "2001:db8:0:1::2"));
	assert_false(near("2001:db8:0:1::1", "2001:db8:0:2::1"));
	assert_false(near("10.1.2.3", "::1"));
}

static void numbers_come_from_the_environment(void **state)
{
	(void)state;
	unsetenv("MC_TEST_NUMBER");
	assert_int_equal(mc_env_number("MC_TEST_NUMBER", 0, 9, 5), 5);
	setenv("MC_TEST_NUMBER", "7", 1);
	assert_int_equal(mc_env_number("MC_TEST_NUMBER", 0, 9, 5), 7);
	setenv("MC_TEST_NUMBER", "10", 1);
	assert_int_equal(mc_env_number("MC_TEST_NUMBER", 0, 9, 5), 5);
	setenv("MC_TEST_NUMBER", "7 ", 1);
	assert_int_equal(mc_env_number("MC_TEST_NUMBER", 0, 9, 5), 5);
}

static int chunk_bits(const char *env, uint64_t a, uint64_t b)
{
	static struct rdma_ctx c;

	c.n_devs = 2;
	c.devs[0].v.attr.max_mr_size = a;
	c.devs[1].v.attr.max_mr_size = b;
	setenv("MC_MAX_MR_SIZE", env, 1);
	return mc_rdma_chunk_bits(&c);
}

static void chunks_are_what_all_devices_take(void **state)
{
	(void)state;
	assert_int_equal(chunk_bits("", UINT64_MAX, UINT64_MAX), 40);
	assert_int_equal(chunk_bits("", UINT64_MAX, 1ull << 31), 31);
	assert_int_equal(chunk_bits("", (1ull << 31) - 1, UINT64_MAX), 30);
	/* One that does not say is not one that takes nothing. */
	assert_int_equal(chunk_bits("", 0, 1ull << 31), 31);
	assert_int_equal(chunk_bits("65536", UINT64_MAX, 1ull << 31), 16);
	assert_int_equal(chunk_bits("70000", UINT64_MAX, 1ull << 31), 16);
	assert_int_equal(chunk_bits("9223372036854775807", UINT64_MAX,
				    UINT64_MAX), 62);
	assert_int_equal(chunk_bits("4095", UINT64_MAX, 4096), 12);
}

static void an_address_says_which_chunk_it_is_in(void **state)
{
	(void)state;
	assert_int_equal(mc_rdma_chunk_left(12, 0), 4096);
	assert_int_equal(mc_rdma_chunk_left(12, 4095), 1);
	assert_int_equal(mc_rdma_chunk_left(12, 4096), 4096);
	assert_int_equal(mc_rdma_chunk(12, 7, 4095).number, 0);
	assert_int_equal(mc_rdma_chunk(12, 7, 4096).number, 1);
	/* No user's address is in another than the first of the largest. */
	assert_int_equal(mc_rdma_chunk(RDMA_CHUNK_MAX, 7,
				       0x7fffffffffff).number, 0);
	assert_true(mc_rdma_chunk_left(RDMA_CHUNK_MAX, 0x7fffffffffff) >
		    1ull << 62);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(gids_are_ranked_by_reach),
		cmocka_unit_test(private_networks_are_those_of_the_rfcs),
		cmocka_unit_test(overlay_networks_come_late),
		cmocka_unit_test(what_is_of_no_use_is_left_out),
		cmocka_unit_test(those_of_a_subnet_are_near),
		cmocka_unit_test(numbers_come_from_the_environment),
		cmocka_unit_test(chunks_are_what_all_devices_take),
		cmocka_unit_test(an_address_says_which_chunk_it_is_in),
	};

	return cmocka_run_group_tests_name("verbs", tests, NULL, NULL);
}
