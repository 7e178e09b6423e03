/*
 * scan.c - finds the devices of a machine in its /sys: NUMA nodes, network
 * interfaces, RDMA devices, GPUs, NVMe controllers.
 *
 * What a file does not say, or says wrongly, stays unknown; nothing in there
 * makes a scan fail but want of memory.
 */
#include "scan.h"

#include "sysfs.h"

#include "../base/err.h"

#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	SCAN_NVIDIA = 0x10de,
	SCAN_AMD = 0x1002,
	SCAN_DISPLAY = 0x03,		/* PCI base classes */
	SCAN_ACCELERATOR = 0x12,
	SCAN_NODE_MAX = 1024,
	SCAN_GIDS = 16,			/* looked at for an interface */
};

/* A link or file of @t's /sys, "class/net/eth0" and the like. */
static int scan_dir(const struct mc_topology *t, const char *folder,
		    const char *name, char *out)
{
	int n = snprintf(out, PATH_MAX, "%s/%s/%s", t->sys, folder, name);

	return n < 0 || n >= PATH_MAX ? -ENAMETOOLONG : 0;
}

static struct topology_device *scan_add(struct mc_topology *t,
					const char *kind, const char *name)
{
	struct topology_device *d;

	if (t->n == t->cap) {
		int cap = t->cap ? t->cap * 2 : 16;
		void *p = realloc(t->devs, cap * sizeof(*t->devs));

		if (!p)
			return NULL;
		t->devs = p;
		t->cap = cap;
	}
	d = &t->devs[t->n++];
	memset(d, 0, sizeof(*d));
	snprintf(d->info.kind, sizeof(d->info.kind), "%s", kind);
	snprintf(d->info.name, sizeof(d->info.name), "%.31s", name);
	d->info.numa = -1;
	d->info.up = -1;
	return d;
}

/* The node that the device at @path or the nearest thing above it names. */
static int scan_numa(const struct mc_topology *t, char *path)
{
	size_t top = strlen(t->sys);

	while (strlen(path) > top) {
		int64_t v = mc_sysfs_number(path, "numa_node", -1);

		if (v >= 0 && v < SCAN_NODE_MAX)
			return v;
		*strrchr(path, '/') = 0;
	}
	return -1;
}

/* Where @dir, or what it links to, is in the tree of hardware. */
static void scan_place(const struct mc_topology *t, struct topology_device *d,
		       const char *dir)
{
	char path[PATH_MAX];
	size_t n = strlen(t->sys);

	/* A link that leads out of the tree says nothing of its devices. */
	if (!realpath(dir, path) || strncmp(path, t->sys, n) ||
	    (path[n] && path[n] != '/'))
		return;
	mc_sysfs_pci_chain(path + n, d->chain, sizeof(d->chain));
	snprintf(d->info.pci, sizeof(d->info.pci), "%.31s",
		 mc_sysfs_pci_function(d->chain));
	d->info.numa = scan_numa(t, path);
	/* Where there is one node, hardware is at that node. */
	if (d->info.numa < 0 && d->chain[0] && t->nodes == 1)
		d->info.numa = t->devs[0].info.numa;
}

static void scan_place_device(const struct mc_topology *t,
			      struct topology_device *d, const char *dir)
{
	char link[PATH_MAX];

	if (!mc_sysfs_path(link, dir, "device"))
		scan_place(t, d, link);
}

/* The PCIe rate a device can have: the least of its own link and all above. */
static uint64_t scan_pcie_rate(const struct mc_topology *t,
			       const char *function)
{
	char dir[PATH_MAX];
	size_t top = strlen(t->sys);
	uint64_t least = 0;
	char path[PATH_MAX];

	if (scan_dir(t, "bus/pci/devices", function, dir) ||
	    !realpath(dir, path) || strncmp(path, t->sys, top))
		return 0;
	while (strlen(path) > top) {
		char speed[64];
		uint64_t v;

		/* Not the current one: links of idle GPUs slow down. */
		mc_sysfs_text(path, "max_link_speed", speed, sizeof(speed));
		v = mc_sysfs_pcie_rate(speed, mc_sysfs_number(path,
						"max_link_width", 0));
		if (v && (!least || v < least))
			least = v;
		*strrchr(path, '/') = 0;
	}
	return least;
}

static int scan_cpu(struct mc_topology *t, const char *name, void *arg)
{
	struct topology_device *d;
	char label[32];
	char *end;
	long node;

	(void)arg;
	if (strncmp(name, "node", 4) || name[4] < '0' || name[4] > '9')
		return 0;
	node = strtol(name + 4, &end, 10);
	if (*end || node >= SCAN_NODE_MAX)
		return 0;
	snprintf(label, sizeof(label), "cpu:%ld", node);
	d = scan_add(t, "cpu", label);
	if (!d)
		return -ENOMEM;
	d->info.numa = node;
	d->info.up = 1;
	t->nodes++;
	return 0;
}

static int scan_link_state(const char *dir)
{
	char state[32];
	int64_t carrier;

	if (mc_sysfs_text(dir, "operstate", state, sizeof(state)) <= 0)
		return -1;
	if (!strcmp(state, "up"))
		return 1;
	/* Loopback and tunnels have no state of their own. */
	if (!strcmp(state, "unknown")) {
		carrier = mc_sysfs_number(dir, "carrier", -1);
		return carrier == 1 ? 1 : carrier == 0 ? 0 : -1;
	}
	return strcmp(state, "down") && strcmp(state, "lowerlayerdown") &&
	       strcmp(state, "dormant") && strcmp(state, "notpresent") &&
	       strcmp(state, "testing") ? -1 : 0;
}

/* How much an address is worth showing. */
static int scan_address_rank(const struct sockaddr *sa)
{
	if (!sa)
		return 0;
	if (sa->sa_family == AF_INET)
		return 3;
	if (sa->sa_family != AF_INET6)
		return 0;
	return IN6_IS_ADDR_LINKLOCAL(
		&((const struct sockaddr_in6 *)sa)->sin6_addr) ? 1 : 2;
}

/* The kernel's own word on a live interface: its best address, its state. */
static void scan_live(struct mc_device_info *info, const struct ifaddrs *ifs)
{
	const unsigned up = IFF_UP | IFF_RUNNING;
	int best = 0;

	for (; ifs; ifs = ifs->ifa_next) {
		const struct sockaddr *sa = ifs->ifa_addr;
		/* "eth0:1" is a label of an address of eth0. */
		size_t n = strcspn(ifs->ifa_name, ":");
		int rank = scan_address_rank(sa);
		char text[INET6_ADDRSTRLEN] = "";

		if (strlen(info->name) != n ||
		    memcmp(info->name, ifs->ifa_name, n))
			continue;
		info->up = (ifs->ifa_flags & up) == up;
		if (rank <= best)
			continue;
		best = rank;
		inet_ntop(sa->sa_family, rank == 3 ?
			  (const void *)&((const struct sockaddr_in *)sa)
				->sin_addr :
			  (const void *)&((const struct sockaddr_in6 *)sa)
				->sin6_addr, text, sizeof(text));
		snprintf(info->addr, sizeof(info->addr), "%s%s%s", text,
			 rank == 1 ? "%" : "", rank == 1 ? info->name : "");
	}
}

/* Of two places, what they have in common. */
static void scan_join(struct topology_device *d,
		      const struct topology_device *other)
{
	const char *a = d->chain, *b = other->chain;
	size_t n = 0;

	if (mc_sysfs_pci_distance(a, b) == 0)
		return;
	for (size_t i = 0; a[i] && a[i] == b[i]; i++)
		if (strchr("/", a[i + 1]) && strchr("/", b[i + 1]))
			n = i + 1;
	d->chain[n] = 0;
	d->info.pci[0] = 0;
	if (d->info.numa != other->info.numa)
		d->info.numa = -1;
}

/* A bond, a VLAN or a bridge is where the interfaces below it are. */
static int scan_lower(const struct mc_topology *t, struct topology_device *d,
		      const char *dir, int depth)
{
	struct sysfs_names names;
	char path[PATH_MAX];
	bool first = true;
	int r = mc_sysfs_names(dir, &names);

	for (int i = 0; !r && i < names.n; i++) {
		struct topology_device low = { .info.numa = -1 };

		if (strncmp(names.name[i], "lower_", 6) ||
		    mc_sysfs_path(path, dir, names.name[i]))
			continue;
		scan_place_device(t, &low, path);
		if (!low.chain[0] && depth > 0)
			r = scan_lower(t, &low, path, depth - 1);
		if (!low.chain[0])
			continue;
		if (!first) {
			scan_join(d, &low);
			continue;
		}
		first = false;
		memcpy(d->chain, low.chain, sizeof(d->chain));
		memcpy(d->info.pci, low.info.pci, sizeof(d->info.pci));
		d->info.numa = low.info.numa;
	}
	mc_sysfs_names_fini(&names);
	return r;
}

static int scan_net(struct mc_topology *t, const char *name, void *arg)
{
	struct topology_device *d = scan_add(t, "net", name);
	char dir[PATH_MAX];
	int64_t mbps;

	if (!d)
		return -ENOMEM;
	if (scan_dir(t, "class/net", name, dir))
		return 0;
	if (arg)
		scan_live(&d->info, arg);
	else
		d->info.up = scan_link_state(dir);
	/* Another namespace may have an interface of the same name. */
	if (arg && mc_sysfs_number(dir, "ifindex", 0) != if_nametoindex(name))
		return 0;
	mbps = mc_sysfs_number(dir, "speed", 0);
	/* -1, or the same as 32 bits: the driver does not know. */
	if (mbps > 0 && mbps < 0xffffffff)
		d->info.bw = (uint64_t)mbps * 125000;
	scan_place_device(t, d, dir);
	return d->chain[0] ? 0 : scan_lower(t, d, dir, 4);
}

/* The best port speaks for the device: up before down, fast before slow. */
static int scan_rdma_ports(struct topology_device *d, const char *dir)
{
	struct sysfs_names ports;
	char folder[PATH_MAX], port[PATH_MAX];
	int r;

	if (mc_sysfs_path(folder, dir, "ports"))
		return 0;
	r = mc_sysfs_names(folder, &ports);
	for (int i = 0; !r && i < ports.n; i++) {
		char state[32], rate[64];
		uint64_t bw;
		int up = -1;

		if (mc_sysfs_path(port, folder, ports.name[i]))
			continue;
		if (mc_sysfs_text(port, "state", state, sizeof(state)) > 0)
			up = strstr(state, "ACTIVE") ? 1 : 0;
		mc_sysfs_text(port, "rate", rate, sizeof(rate));
		bw = mc_sysfs_ib_rate(rate);
		if (up > d->info.up || (up == d->info.up && bw > d->info.bw)) {
			d->info.up = up;
			d->info.bw = bw;
		}
	}
	mc_sysfs_names_fini(&ports);
	return r;
}

/* The interface that a device stands on: what is made in software names its
 * parent, and a port for RoCE has one at each of its addresses. */
static bool scan_interface(const char *dir, char *name, int size)
{
	char path[PATH_MAX], at[32];

	if (mc_sysfs_text(dir, "parent", name, size) > 0)
		return !strchr(name, '/');
	if (mc_sysfs_path(path, dir, "ports/1/gid_attrs/ndevs"))
		return false;
	for (int i = 0; i < SCAN_GIDS; i++) {
		snprintf(at, sizeof(at), "%d", i);
		if (mc_sysfs_text(path, at, name, size) > 0)
			return !strchr(name, '/');
	}
	return false;
}

static int scan_rdma(struct mc_topology *t, const char *name, void *arg)
{
	struct topology_device *d = scan_add(t, "rdma", name);
	char dir[PATH_MAX], net[PATH_MAX];
	char text[64];

	(void)arg;
	if (!d)
		return -ENOMEM;
	if (scan_dir(t, "class/infiniband", name, dir))
		return 0;
	scan_place_device(t, d, dir);
	/* One that is no hardware lies where its interface does. */
	if (!d->chain[0] && scan_interface(dir, text, sizeof(text)) &&
	    !scan_dir(t, "class/net", text, net)) {
		scan_place_device(t, d, net);
		if (!d->chain[0] && scan_lower(t, d, net, 4) < 0)
			return -ENOMEM;
	}
	return scan_rdma_ports(d, dir);
}

static bool scan_is_gpu(const char *dir)
{
	int64_t vendor = mc_sysfs_number(dir, "vendor", 0);
	int64_t class = mc_sysfs_number(dir, "class", 0) >> 16;

	return (vendor == SCAN_NVIDIA || vendor == SCAN_AMD) &&
	       (class == SCAN_DISPLAY || class == SCAN_ACCELERATOR);
}

static int scan_gpu(struct mc_topology *t, const char *name, void *arg)
{
	struct topology_device *d;
	char dir[PATH_MAX], label[32];
	int *count = arg;

	if (scan_dir(t, "bus/pci/devices", name, dir) || !scan_is_gpu(dir))
		return 0;
	snprintf(label, sizeof(label), "gpu:%d", (*count)++);
	d = scan_add(t, "gpu", label);
	if (!d)
		return -ENOMEM;
	scan_place(t, d, dir);
	d->info.bw = scan_pcie_rate(t, name);
	return 0;
}

static int scan_nvme(struct mc_topology *t, const char *name, void *arg)
{
	struct topology_device *d = scan_add(t, "nvme", name);
	char dir[PATH_MAX];
	char state[32];

	(void)arg;
	if (!d)
		return -ENOMEM;
	if (scan_dir(t, "class/nvme", name, dir))
		return 0;
	if (mc_sysfs_text(dir, "state", state, sizeof(state)) > 0)
		d->info.up = !strcmp(state, "live");
	scan_place_device(t, d, dir);
	if (d->info.pci[0])
		d->info.bw = scan_pcie_rate(t, d->info.pci);
	return 0;
}

static int scan_all(struct mc_topology *t, const struct sysfs_names *names,
		    int (*one)(struct mc_topology *, const char *, void *),
		    void *arg)
{
	int r = 0;

	for (int i = 0; !r && i < names->n; i++)
		r = one(t, names->name[i], arg);
	return r;
}

static int scan_folder(struct mc_topology *t, const char *folder,
		       int (*one)(struct mc_topology *, const char *, void *),
		       void *arg)
{
	struct sysfs_names names;
	char dir[PATH_MAX];
	int r;

	if (mc_sysfs_path(dir, t->sys, folder))
		return 0;
	r = mc_sysfs_names(dir, &names);
	if (!r)
		r = scan_all(t, &names, one, arg);
	mc_sysfs_names_fini(&names);
	return r;
}

/* /sys may have been mounted in another network namespace, whose interfaces it
 * then shows: the kernel's own list is the one that counts. */
static int scan_live_nets(struct mc_topology *t)
{
	struct sysfs_names names = { 0 };
	struct ifaddrs *ifs;
	int r = 0;

	if (getifaddrs(&ifs) < 0)
		return scan_folder(t, "class/net", scan_net, NULL);
	for (struct ifaddrs *i = ifs; !r && i; i = i->ifa_next) {
		char name[IFNAMSIZ];

		snprintf(name, sizeof(name), "%.*s",
			 (int)strcspn(i->ifa_name, ":"), i->ifa_name);
		r = mc_sysfs_names_add(&names, name);
	}
	mc_sysfs_names_sort(&names);
	if (!r)
		r = scan_all(t, &names, scan_net, ifs);
	mc_sysfs_names_fini(&names);
	freeifaddrs(ifs);
	return r;
}

/* A kernel without NUMA has one node and no folder for it. */
static int scan_nodes(struct mc_topology *t)
{
	char dir[PATH_MAX];
	int r = scan_folder(t, "devices/system/node", scan_cpu, NULL);

	if (r || t->nodes || mc_sysfs_path(dir, t->sys, "devices/system/cpu"))
		return r;
	return realpath(dir, (char[PATH_MAX]){ 0 }) ?
	       scan_cpu(t, "node0", NULL) : 0;
}

int mc_topology_scan(struct mc_topology *t)
{
	int gpus = 0;
	int r = scan_nodes(t);

	if (!r)
		r = t->live ? scan_live_nets(t) :
		    scan_folder(t, "class/net", scan_net, NULL);
	if (!r)
		r = scan_folder(t, "class/infiniband", scan_rdma, NULL);
	if (!r)
		r = scan_folder(t, "bus/pci/devices", scan_gpu, &gpus);
	if (!r)
		r = scan_folder(t, "class/nvme", scan_nvme, NULL);
	return r ? mc_syserr(r, "topology of %s", t->sys) : 0;
}
