/*
 * tree.c - small /sys trees of machines that have the shapes we care for, made
 * in a temporary folder.
 */
#include "tree.h"

#include <errno.h>
#include <ftw.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

char tree_root[PATH_MAX - 1024];

static void make_folders(const char *path)
{
	char part[PATH_MAX];

	for (const char *p = path + 1; (p = strchr(p, '/')); p++) {
		snprintf(part, sizeof(part), "%.*s", (int)(p - path), path);
		if (mkdir(part, 0755) < 0)
			assert_int_equal(errno, EEXIST);
	}
}

void tree_file(const char *path, const char *text)
{
	char full[PATH_MAX];
	FILE *f;

	snprintf(full, sizeof(full), "%s/sys/%s", tree_root, path);
	make_folders(full);
	f = fopen(full, "w");
	assert_non_null(f);
	fputs(text, f);
	fclose(f);
}

void tree_file_in(const char *folder, const char *name, const char *text)
{
	char path[512];

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	tree_file(path, text);
}

void tree_link(const char *path, const char *target)
{
	char full[PATH_MAX];

	snprintf(full, sizeof(full), "%s/sys/%s", tree_root, path);
	make_folders(full);
	assert_int_equal(symlink(target, full), 0);
}

void tree_node(int node)
{
	char path[64];

	snprintf(path, sizeof(path), "devices/system/node/node%d/cpulist",
		 node);
	tree_file(path, "0-7\n");
}

void tree_pci(const char *path, const char *class, const char *vendor,
	      int numa)
{
	char folder[256], text[512];
	const char *function = strrchr(path, '/') + 1;

	snprintf(folder, sizeof(folder), "devices/%s", path);
	tree_file_in(folder, "class", class);
	tree_file_in(folder, "vendor", vendor);
	snprintf(text, sizeof(text), "%d\n", numa);
	tree_file_in(folder, "numa_node", text);
	tree_file_in(folder, "max_link_speed", "32.0 GT/s PCIe\n");
	tree_file_in(folder, "max_link_width", "16\n");
	snprintf(folder, sizeof(folder), "bus/pci/devices/%s", function);
	snprintf(text, sizeof(text), "../../../devices/%s", path);
	tree_link(folder, text);
}

/* @folder is a device of @class: it says what it stands on, and is found by its
 * name. */
static void tree_class(const char *folder, const char *class, const char *name)
{
	char path[512], text[512];

	snprintf(path, sizeof(path), "%s/device", folder);
	tree_link(path, "../..");
	snprintf(path, sizeof(path), "class/%s/%s", class, name);
	snprintf(text, sizeof(text), "../../%s", folder);
	tree_link(path, text);
}

void tree_net(const char *name, const char *device, const char *speed,
	      const char *state)
{
	char folder[256];

	snprintf(folder, sizeof(folder), "devices/%s/net/%s", device, name);
	tree_file_in(folder, "operstate", state);
	tree_file_in(folder, "speed", speed);
	tree_class(folder, "net", name);
}

void tree_rdma(const char *name, const char *device, const char *rate,
	       const char *state)
{
	char folder[256];

	snprintf(folder, sizeof(folder), "devices/%s/infiniband/%s", device,
		 name);
	tree_file_in(folder, "ports/1/rate", rate);
	tree_file_in(folder, "ports/1/state", state);
	tree_file_in(folder, "ports/1/link_layer", "InfiniBand\n");
	tree_class(folder, "infiniband", name);
}

int tree_setup(void **state)
{
	(void)state;
	snprintf(tree_root, sizeof(tree_root), "%s/topology-XXXXXX",
		 getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
	if (!mkdtemp(tree_root))
		return -1;
	tree_file("kernel/notes", "");
	return 0;
}

static int remove_one(const char *path, const struct stat *st, int type,
		      struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

int tree_teardown(void **state)
{
	(void)state;
	return nftw(tree_root, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

/* ---- shapes ---------------------------------------------------------- */

void tree_hgx(void)
{
	char bridge[128], dev[256], name[32], target[512];

	tree_node(0);
	tree_node(1);
	for (int sw = 0; sw < 4; sw++) {
		int base = sw * 0x30;

		snprintf(bridge, sizeof(bridge), "pci0000:%02x/0000:%02x:01.0/"
			 "0000:%02x:00.0", base, base, base + 1);
		for (int i = 0; i < 5; i++) {
			snprintf(dev, sizeof(dev), "%s/0000:%02x:%02x.0/"
				 "0000:%02x:00.0", bridge, base + 2, i,
				 base + 3 + i);
			tree_pci(dev, i < 2 ? "0x030200\n" : i < 4 ?
				 "0x020000\n" : "0x010802\n", i < 2 ?
				 "0x10de\n" : "0x15b3\n", sw / 2);
			snprintf(name, sizeof(name), "mlx5_%d", sw * 2 + i - 2);
			if (i == 2 || i == 3)
				tree_rdma(name, dev, "400 Gb/sec (4X NDR)\n",
					  "4: ACTIVE\n");
			snprintf(name, sizeof(name), "ib%d", sw * 2 + i - 2);
			if (i == 2 || i == 3)
				tree_net(name, dev, "400000\n", "up\n");
		}
		snprintf(name, sizeof(name), "class/nvme/nvme%d/device", sw);
		snprintf(target, sizeof(target), "../../../devices/%s", dev);
		tree_link(name, target);
		snprintf(name, sizeof(name), "class/nvme/nvme%d/state", sw);
		tree_file(name, "live\n");
	}
}

void tree_dgx(void)
{
	char dev[256], name[32];

	tree_node(0);
	tree_node(1);
	for (int i = 0; i < 8; i++) {
		int base = 0x10 + i * 0x18;

		for (int nic = 0; nic < 2; nic++) {
			snprintf(dev, sizeof(dev), "pci0000:%02x/0000:%02x:01.0"
				 "/0000:%02x:00.0/0000:%02x:%02x.0/"
				 "0000:%02x:00.0", base, base, base + 1,
				 base + 2, nic, base + 3 + nic);
			tree_pci(dev, nic ? "0x020700\n" : "0x030200\n",
				 nic ? "0x15b3\n" : "0x10de\n", i / 4);
		}
		snprintf(name, sizeof(name), "mlx5_%d", i);
		tree_rdma(name, dev, "400 Gb/sec (4X NDR)\n", "4: ACTIVE\n");
	}
}

void tree_two_sockets(void)
{
	char dev[64], name[32];

	tree_node(0);
	tree_node(1);
	for (int i = 0; i < 4; i++) {
		int base = i < 2 ? 0x10 : 0x80;

		snprintf(dev, sizeof(dev), "pci0000:%02x/0000:%02x:%02x.0/"
			 "0000:%02x:00.0", base, base, i + 1, base + i + 1);
		tree_pci(dev, "0x020000\n", "0x15b3\n", i / 2);
		snprintf(name, sizeof(name), "mlx5_%d", i);
		tree_rdma(name, dev, "200 Gb/sec (4X HDR)\n", "4: ACTIVE\n");
		snprintf(name, sizeof(name), "eth%d", i);
		tree_net(name, dev, "200000\n", "up\n");
	}
}
