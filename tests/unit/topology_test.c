/*
 * topology_test.c - devices and distances, read from small /sys trees of
 * machines that have the shapes we care for, and from trees that make no
 * sense; then what is asked of the machine that the test runs on.
 */
#include "tree.h"

#include "../../src/topology/topology.h"
#include "../../src/topology/sysfs.h"

#include <mooncake.h>

#include <errno.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

/* ---- looking at the result ------------------------------------------- */

static struct mc_topology *topology_of(const char *dir)
{
	struct mc_topology *t = NULL;

	assert_int_equal(mc_topology_open(&t, dir), 0);
	return t;
}

static int device(struct mc_topology *t, const char *name,
		  struct mc_device_info *out)
{
	struct mc_device_info info;

	for (int i = 0; i < mc_topology_count(t); i++) {
		assert_int_equal(mc_topology_device(t, i, &info), 0);
		if (strcmp(info.name, name))
			continue;
		if (out)
			*out = info;
		return i;
	}
	fail_msg("no device %s", name);
	return -1;
}

static int distance(struct mc_topology *t, const char *a, const char *b)
{
	int i = device(t, a, NULL);
	int j = device(t, b, NULL);
	int d = mc_topology_distance(t, i, j);

	assert_int_equal(d, mc_topology_distance(t, j, i));
	return d;
}

/* ---- shapes ---------------------------------------------------------- */

static void hgx_gpus_are_nearest_to_nics_of_their_switch(void **state)
{
	struct mc_device_info info;
	struct mc_topology *t;
	char gpu[16], nic[16];

	(void)state;
	tree_hgx();
	t = topology_of(tree_root);
	assert_int_equal(mc_topology_count(t), 2 + 8 + 8 + 8 + 4);
	for (int g = 0; g < 8; g++) {
		for (int n = 0; n < 8; n++) {
			snprintf(gpu, sizeof(gpu), "gpu:%d", g);
			snprintf(nic, sizeof(nic), "mlx5_%d", n);
			assert_int_equal(distance(t, gpu, nic),
					 g / 2 == n / 2 ? 1 :
					 g / 4 == n / 4 ? 3 : 4);
		}
	}
	assert_int_equal(distance(t, "mlx5_3", "ib3"), 0);
	assert_int_equal(distance(t, "gpu:0", "gpu:0"), 0);
	assert_int_equal(distance(t, "gpu:5", "nvme2"), 1);
	assert_int_equal(distance(t, "cpu:1", "gpu:4"), 3);
	assert_int_equal(distance(t, "cpu:0", "gpu:4"), 4);
	assert_int_equal(distance(t, "cpu:0", "cpu:1"), 4);
	device(t, "mlx5_7", &info);
	assert_string_equal(info.kind, "rdma");
	assert_string_equal(info.pci, "0000:96:00.0");
	assert_int_equal(info.numa, 1);
	assert_int_equal(info.up, 1);
	assert_int_equal(info.bw, 50000000000);
	device(t, "nvme0", &info);
	assert_int_equal(info.up, 1);
	assert_string_equal(info.pci, "0000:07:00.0");
	/* 32 GT/s, 16 lanes, 128 of 130 bits are data. */
	device(t, "gpu:7", &info);
	assert_in_range(info.bw, 63000000000, 63020000000);
	mc_topology_close(t);
}

static void two_sockets_put_nics_near_their_node(void **state)
{
	struct mc_topology *t;
	struct mc_device_info info;

	(void)state;
	tree_node(0);
	tree_node(1);
	tree_pci("pci0000:00/0000:00:01.0/0000:01:00.0", "0x020000", "0x8086",
		 0);
	tree_pci("pci0000:00/0000:00:01.0/0000:01:00.1", "0x020000", "0x8086",
		 0);
	tree_pci("pci0000:00/0000:00:02.0/0000:02:00.0", "0x020000", "0x8086",
		 0);
	tree_pci("pci0000:80/0000:80:01.0/0000:81:00.0", "0x020000", "0x8086",
		 1);
	tree_net("eth0", "pci0000:00/0000:00:01.0/0000:01:00.0", "25000", "up");
	tree_net("eth1", "pci0000:00/0000:00:01.0/0000:01:00.1", "25000",
		 "down");
	tree_net("eth2", "pci0000:00/0000:00:02.0/0000:02:00.0", "-1", "up");
	tree_net("eth10", "pci0000:80/0000:80:01.0/0000:81:00.0", "100000",
		 "up");
	t = topology_of(tree_root);
	assert_int_equal(mc_topology_count(t), 6);
	assert_int_equal(device(t, "eth10", NULL), 5);
	assert_int_equal(distance(t, "eth0", "eth1"), 0);
	assert_int_equal(distance(t, "eth0", "eth2"), 2);
	assert_int_equal(distance(t, "eth0", "eth10"), 4);
	assert_int_equal(distance(t, "cpu:0", "eth2"), 3);
	assert_int_equal(distance(t, "cpu:0", "eth10"), 4);
	device(t, "eth0", &info);
	assert_int_equal(info.bw, 3125000000);
	assert_int_equal(info.up, 1);
	assert_string_equal(info.addr, "");
	device(t, "eth1", &info);
	assert_int_equal(info.up, 0);
	device(t, "eth2", &info);
	assert_int_equal(info.bw, 0);
	mc_topology_close(t);
}

static void one_nic_of_a_virtual_machine_is_at_its_one_node(void **state)
{
	const char *nic = "pci0000:00/0000:00:03.0/virtio2";
	struct mc_device_info info;
	struct mc_topology *t;

	(void)state;
	tree_node(0);
	tree_pci("pci0000:00/0000:00:03.0", "0x020000", "0x1af4", -1);
	tree_net("eth0", nic, "-1", "up");
	tree_file("devices/virtual/net/lo/operstate", "unknown\n");
	tree_file("devices/virtual/net/lo/carrier", "1\n");
	tree_link("class/net/lo", "../../devices/virtual/net/lo");
	tree_file("class/net/bonding_masters", "");
	t = topology_of(tree_root);
	assert_int_equal(mc_topology_count(t), 3);
	device(t, "eth0", &info);
	assert_string_equal(info.pci, "0000:00:03.0");
	assert_int_equal(info.numa, 0);
	assert_int_equal(distance(t, "cpu:0", "eth0"), 3);
	device(t, "lo", &info);
	assert_string_equal(info.pci, "");
	assert_int_equal(info.numa, -1);
	assert_int_equal(info.up, 1);
	assert_int_equal(distance(t, "cpu:0", "lo"), 4);
	mc_topology_close(t);
}

static void put_lower(const char *name, const char *lower)
{
	char path[128], target[128];

	snprintf(path, sizeof(path), "devices/virtual/net/%s/lower_%s", name,
		 lower);
	snprintf(target, sizeof(target), "../../../../class/net/%s", lower);
	tree_link(path, target);
	snprintf(path, sizeof(path), "class/net/%s", name);
	snprintf(target, sizeof(target), "../../devices/virtual/net/%s", name);
	tree_link(path, target);
}

static void stacked_interfaces_are_where_their_parts_are(void **state)
{
	const char *a = "pci0000:00/0000:00:01.0/0000:01:00.0/0000:02:00.0/"
		"0000:03:00.0";
	const char *b = "pci0000:00/0000:00:01.0/0000:01:00.0/0000:02:01.0/"
		"0000:04:00.0";
	const char *c = "pci0000:80/0000:80:01.0/0000:81:00.0";
	const char *d = "pci0000:00/0000:00:02.0/0000:05:00.0";
	struct mc_device_info info;
	struct mc_topology *t;

	(void)state;
	tree_node(0);
	tree_node(1);
	tree_pci(d, "0x020000", "0x15b3", 0);
	tree_pci(a, "0x020000", "0x15b3", 0);
	tree_pci(b, "0x020000", "0x15b3", 0);
	tree_pci(c, "0x020000", "0x15b3", 1);
	tree_net("eth0", a, "100000", "up");
	tree_net("eth1", b, "100000", "up");
	tree_net("eth2", c, "100000", "up");
	tree_net("eth3", d, "100000", "up");
	put_lower("vlan5", "eth0");
	put_lower("team", "eth0");
	tree_file("devices/virtual/net/bond0/operstate", "up");
	tree_link("devices/virtual/net/bond0/lower_eth0",
		  "../../../../class/net/eth0");
	put_lower("bond0", "eth1");
	tree_link("devices/virtual/net/wide/lower_bond0",
		  "../../../../class/net/bond0");
	put_lower("wide", "eth2");
	put_lower("circle", "circle");
	tree_link("devices/virtual/net/root0/lower_eth0",
		  "../../../../class/net/eth0");
	put_lower("root0", "eth3");
	tree_link("devices/virtual/net/root2/lower_root0",
		  "../../../../class/net/root0");
	tree_link("devices/virtual/net/root2/lower_root1",
		  "../../../../class/net/root0");
	put_lower("root2", "eth1");
	tree_link("devices/virtual/net/twice/lower_wide",
		  "../../../../class/net/wide");
	put_lower("twice", "bond0");
	t = topology_of(tree_root);
	device(t, "vlan5", &info);
	assert_string_equal(info.pci, "0000:03:00.0");
	assert_int_equal(distance(t, "vlan5", "eth0"), 0);
	assert_int_equal(distance(t, "vlan5", "team"), 0);
	device(t, "bond0", &info);
	assert_string_equal(info.pci, "");
	assert_int_equal(info.numa, 0);
	assert_int_equal(distance(t, "bond0", "eth0"), 1);
	assert_int_equal(distance(t, "bond0", "cpu:0"), 3);
	assert_int_equal(distance(t, "bond0", "eth2"), 4);
	device(t, "wide", &info);
	assert_int_equal(info.numa, -1);
	assert_int_equal(distance(t, "wide", "eth0"), 4);
	assert_int_equal(distance(t, "circle", "eth0"), 4);
	assert_int_equal(distance(t, "twice", "eth0"), 1);
	assert_int_equal(distance(t, "root0", "eth0"), 2);
	assert_int_equal(distance(t, "root2", "root0"), 2);
	assert_int_equal(distance(t, "root2", "eth3"), 2);
	mc_topology_close(t);
}

static void software_rdma_is_where_its_interface_is(void **state)
{
	const char *nic = "pci0000:00/0000:00:03.0";
	struct mc_topology *t;

	(void)state;
	tree_node(0);
	tree_pci(nic, "0x020000", "0x1af4", -1);
	tree_net("eth0", nic, "10000", "up");
	tree_file("class/infiniband/rxe0/parent", "eth0\n");
	tree_file("class/infiniband/rxe0/ports/1/state", "1: DOWN\n");
	tree_file("class/infiniband/rxe0/ports/1/rate",
		  "2.5 Gb/sec (1X SDR)\n");
	t = topology_of(tree_root);
	assert_int_equal(distance(t, "rxe0", "eth0"), 0);
	mc_topology_close(t);
}

/* Its port has no address at 0; that at 1 is of a VLAN on the NIC. */
static void virtual_rdma_is_where_its_addresses_are(void **state)
{
	const char *nic = "pci0000:80/0000:80:01.0/0000:81:00.0";
	const char *ndevs = "class/infiniband/mlx5_0/ports/1/gid_attrs/ndevs";
	struct mc_device_info info;
	struct mc_topology *t;

	(void)state;
	tree_node(0);
	tree_node(1);
	tree_pci(nic, "0x020000", "0x15b3", 1);
	tree_net("eth0", nic, "100000", "up");
	put_lower("vlan7", "eth0");
	tree_file_in(ndevs, "0", "");
	tree_file_in(ndevs, "1", "vlan7\n");
	tree_file("class/infiniband/away/ports/1/gid_attrs/ndevs/0",
		  "../../../etc\n");
	t = topology_of(tree_root);
	assert_int_equal(distance(t, "mlx5_0", "eth0"), 0);
	device(t, "mlx5_0", &info);
	assert_int_equal(info.numa, 1);
	device(t, "away", &info);
	assert_int_equal(info.numa, -1);
	mc_topology_close(t);
}

static void the_best_port_speaks_for_a_device(void **state)
{
	const char *nic = "pci0000:00/0000:00:03.0";
	char port[256];
	struct mc_device_info info;
	struct mc_topology *t;

	(void)state;
	tree_pci(nic, "0x020700", "0x15b3", 0);
	tree_rdma("mlx4_0", nic, "40 Gb/sec (4X QDR)", "1: DOWN");
	snprintf(port, sizeof(port), "devices/%s/infiniband/mlx4_0/ports/2",
		 nic);
	tree_file_in(port, "rate", "10 Gb/sec (1X QDR)");
	tree_file_in(port, "state", "4: ACTIVE");
	t = topology_of(tree_root);
	device(t, "mlx4_0", &info);
	assert_int_equal(info.up, 1);
	assert_int_equal(info.bw, 1250000000);
	mc_topology_close(t);
}

static void nothing_in_sys_is_no_devices(void **state)
{
	struct mc_device_info info;
	struct mc_topology *t;

	(void)state;
	t = topology_of(tree_root);
	assert_int_equal(mc_topology_count(t), 0);
	assert_int_equal(mc_topology_device(t, 0, &info), -EINVAL);
	assert_int_equal(mc_topology_distance(t, 0, -1), -EINVAL);
	mc_topology_close(t);
	mc_topology_close(NULL);
}

static void no_sys_is_an_error_that_says_where(void **state)
{
	struct mc_topology *t;
	char dir[PATH_MAX];

	(void)state;
	snprintf(dir, sizeof(dir), "%s/absent", tree_root);
	assert_int_equal(mc_topology_open(&t, dir), -ENOENT);
	assert_non_null(strstr(mc_errmsg(), "/absent"));
}

static void garbage_is_unknown(void **state)
{
	static char long_text[8192];
	struct mc_device_info info;
	struct mc_topology *t;

	(void)state;
	memset(long_text, '9', sizeof(long_text) - 1);
	tree_file("devices/system/node/node/cpulist", "");
	tree_file("devices/system/node/node-1/cpulist", "");
	tree_file("devices/system/node/node1x/cpulist", "");
	tree_file("devices/system/node/node99999999999999999999/cpulist", "");
	tree_file("devices/pci0000:00/0000:00:03.0/numa_node", long_text);
	tree_net("a", "pci0000:00/0000:00:03.0", long_text, "nonsense");
	tree_net("b", "pci0000:00/0000:00:03.0", "\xff\xfe\x01", "");
	tree_net("c", "pci0000:00/0000:00:04.0", "4294967295", "up up up");
	tree_file("devices/pci0000:00/0000:00:04.0/numa_node", "99999");
	tree_net("d", "pciwhat:00/not:a:function", "-9223372036854775808", "");
	tree_rdma("r", "pci0000:00/0000:00:05.0", "nan Gb/sec", long_text);
	tree_rdma("s", "pci0000:00/0000:00:06.0", "1e9 Gb/sec", "ACTIVE?");
	tree_file("class/nvme/nvme0/state", long_text);
	tree_link("class/net/loop", "loop");
	tree_link("class/net/away", "/dev");
	tree_link("class/nvme/nvme1", "/dev/zero");
	tree_link("bus/pci/devices/0000:00:09.0", "nowhere");
	tree_file("bus/pci/devices/junk/class", "0x");
	t = topology_of(tree_root);
	for (int i = 0; i < mc_topology_count(t); i++) {
		assert_int_equal(mc_topology_device(t, i, &info), 0);
		assert_int_equal(info.numa, -1);
		assert_int_equal(info.bw, 0);
		for (int j = 0; j < mc_topology_count(t); j++)
			assert_in_range(mc_topology_distance(t, i, j), 0, 4);
	}
	device(t, "s", NULL);
	device(t, "away", NULL);
	device(t, "nvme0", NULL);
	assert_int_equal(distance(t, "a", "b"), 0);
	assert_int_equal(distance(t, "a", "c"), 2);
	assert_int_equal(distance(t, "a", "d"), 4);
	mc_topology_close(t);
}

static void a_damaged_rate_is_unknown(void **state)
{
	struct mc_device_info info;
	struct mc_topology *t;

	(void)state;
	tree_rdma("r", "pci0000:00/0000:00:05.0", "x100 Gb/sec", "4: ACTIVE");
	t = topology_of(tree_root);
	device(t, "r", &info);
	assert_int_equal(info.up, 1);
	assert_int_equal(info.bw, 0);
	mc_topology_close(t);
}

/* ---- parsers --------------------------------------------------------- */

static void rates_have_units(void **state)
{
	(void)state;
	assert_int_equal(mc_sysfs_milli("2.5 GT/s"), 2500);
	assert_int_equal(mc_sysfs_milli("100"), 100000);
	assert_int_equal(mc_sysfs_milli("0.0019"), 1);
	assert_int_equal(mc_sysfs_milli("."), 0);
	assert_int_equal(mc_sysfs_milli("-5"), 0);
	assert_int_equal(mc_sysfs_milli("99999999999999999999999999"),
			 1000000000000000);
	assert_int_equal(mc_sysfs_ib_rate("2.5 Gb/sec (1X SDR)"), 312500000);
	assert_int_equal(mc_sysfs_ib_rate("100 Mb/sec"), 0);
	assert_int_equal(mc_sysfs_ib_rate("99999999 Gb/sec"), 0);
	assert_int_equal(mc_sysfs_pcie_rate("2.5 GT/s PCIe", 1), 250000000);
	assert_int_equal(mc_sysfs_pcie_rate("5.0 GT/s PCIe", 4), 2000000000);
	assert_in_range(mc_sysfs_pcie_rate("8.0 GT/s PCIe", 8), 7876000000,
			7877000000);
	assert_int_equal(mc_sysfs_pcie_rate("Unknown", 16), 0);
	assert_int_equal(mc_sysfs_pcie_rate("8.0 GT/s", 255), 0);
	assert_int_equal(mc_sysfs_pcie_rate("8.0 GT/s", -1), 0);
}

static void chains_keep_what_is_pci(void **state)
{
	char chain[256], small[20];

	(void)state;
	mc_sysfs_pci_chain("/devices/pci0000:00/0000:00:03.0/virtio2/net/e",
			   chain, sizeof(chain));
	assert_string_equal(chain, "pci0000:00/0000:00:03.0");
	assert_string_equal(mc_sysfs_pci_function(chain), "0000:00:03.0");
	mc_sysfs_pci_chain("/devices/LNX/VMBUS:00/pci0001:00/0001:00:00.0",
			   chain, sizeof(chain));
	assert_string_equal(chain, "pci0001:00/0001:00:00.0");
	mc_sysfs_pci_chain("/devices/virtual/net/0000:00:03.0", chain,
			   sizeof(chain));
	assert_string_equal(chain, "");
	assert_string_equal(mc_sysfs_pci_function(chain), "");
	mc_sysfs_pci_chain("pci0000:00/0000:00:03.0", small, sizeof(small));
	assert_string_equal(small, "");
}

static void distances_follow_the_tree(void **state)
{
	(void)state;
#define D(a, b) mc_sysfs_pci_distance(a, b)
	assert_int_equal(D("", ""), -1);
	assert_int_equal(D("", "pci0000:00/0000:00:03.0"), -1);
	assert_int_equal(D("pci0000:00/0000:00:03.0",
			   "pci0000:00/0000:00:03.0"), 0);
	assert_int_equal(D("pci0000:00/0000:00:03.0",
			   "pci0000:00/0000:00:03.1"), 0);
	assert_int_equal(D("pci0000:00/0000:00:03.0",
			   "pci0000:00/0000:00:04.0"), 2);
	assert_int_equal(D("pci0000:00/0000:00:03.0",
			   "pci0000:40/0000:40:03.0"), -1);
	/* Virtual functions of one card, behind its root port. */
	assert_int_equal(D("pci0000:00/0000:00:01.0/0000:01:00.0",
			   "pci0000:00/0000:00:01.0/0000:01:10.0"), 1);
	/* Drives behind a volume management device have root ports each. */
	assert_int_equal(D("pci0000:00/0000:00:0e.0/pci10000:e0/10000:e0:01.0/"
			   "10000:e1:00.0",
			   "pci0000:00/0000:00:0e.0/pci10000:e0/10000:e0:02.0/"
			   "10000:e2:00.0"), 2);
#undef D
}

/* ---- the machine the test runs on ------------------------------------ */

static void this_machine_has_a_topology(void **state)
{
	struct mc_device_info info;
	struct mc_topology *t = topology_of(NULL);
	int lo;

	(void)state;
	assert_int_equal(mc_topology_device(t, 0, &info), 0);
	assert_string_equal(info.kind, "cpu");
	lo = device(t, "lo", &info);
	assert_int_equal(mc_topology_distance(t, lo, lo), 0);
	mc_topology_close(t);
}

static void interfaces_are_up_and_no_loopback(void **state)
{
	char names[64][32];
	int n = mc_topology_interfaces(names, 64);
	struct mc_device_info info;
	struct mc_topology *t = topology_of("");

	(void)state;
	assert_in_range(n, 0, 64);
	for (int i = 0; i < n; i++) {
		assert_string_not_equal(names[i], "lo");
		device(t, names[i], &info);
		assert_string_not_equal(info.addr, "");
		for (int j = 0; j < i; j++)
			assert_string_not_equal(names[i], names[j]);
	}
	assert_int_equal(mc_topology_interfaces(names, 0), 0);
	mc_topology_close(t);
}

static void memory_has_a_node_once_it_is_there(void **state)
{
	const size_t len = 1 << 16;
	char *p = mmap(NULL, len, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	unsigned char resident = 0;
	int node;

	(void)state;
	assert_ptr_not_equal(p, MAP_FAILED);
	mc_topology_memory_node(p);
	assert_int_equal(mincore(p, 1, &resident), 0);
	assert_int_equal(resident & 1, 0);
	p[5] = 1;
	node = mc_topology_memory_node(p + 5);
	/* A container may forbid the question. */
	assert_in_range(node + 1, 0, 1024);
	assert_int_equal(mc_topology_memory_node(p + 6), node);
	assert_int_equal(munmap(p, len), 0);
	assert_int_equal(mc_topology_memory_node(p), -1);
	assert_int_equal(mc_topology_memory_node(NULL), -1);
}

static void a_host_has_one_id(void **state)
{
	(void)state;
	assert_int_not_equal(mc_topology_host_id(), 0);
	assert_int_equal(mc_topology_host_id(), mc_topology_host_id());
}

#define IN_TREE(f) \
	cmocka_unit_test_setup_teardown(f, tree_setup, tree_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		IN_TREE(hgx_gpus_are_nearest_to_nics_of_their_switch),
		IN_TREE(two_sockets_put_nics_near_their_node),
		IN_TREE(one_nic_of_a_virtual_machine_is_at_its_one_node),
		IN_TREE(stacked_interfaces_are_where_their_parts_are),
		IN_TREE(software_rdma_is_where_its_interface_is),
		IN_TREE(virtual_rdma_is_where_its_addresses_are),
		IN_TREE(the_best_port_speaks_for_a_device),
		IN_TREE(nothing_in_sys_is_no_devices),
		IN_TREE(no_sys_is_an_error_that_says_where),
		IN_TREE(garbage_is_unknown),
		IN_TREE(a_damaged_rate_is_unknown),
		cmocka_unit_test(rates_have_units),
		cmocka_unit_test(chains_keep_what_is_pci),
		cmocka_unit_test(distances_follow_the_tree),
		cmocka_unit_test(this_machine_has_a_topology),
		cmocka_unit_test(interfaces_are_up_and_no_loopback),
		cmocka_unit_test(memory_has_a_node_once_it_is_there),
		cmocka_unit_test(a_host_has_one_id),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
