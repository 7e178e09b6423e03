/* topology.c - devices and their distances, as <mooncake.h> promises them. */
#include "topology.h"

#include "scan.h"
#include "sysfs.h"

#include "../base/err.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int mc_topology_open(struct mc_topology **out, const char *root)
{
	struct mc_topology *t = calloc(1, sizeof(*t));
	char sys[PATH_MAX];
	int r;

	if (!root || !root[0])
		root = "/";
	if (!t)
		return mc_syserr(-ENOMEM, "topology of %s", root);
	r = mc_sysfs_path(sys, root, "sys");
	if (!r && !realpath(sys, t->sys))
		r = -errno;
	if (r < 0) {
		mc_syserr(r, "topology: no sys folder under %s", root);
		goto fail;
	}
	t->live = !strcmp(t->sys, "/sys");
	r = mc_topology_scan(t);
	if (r < 0)
		goto fail;
	*out = t;
	return 0;
fail:
	mc_topology_close(t);
	return r;
}

void mc_topology_close(struct mc_topology *t)
{
	if (!t)
		return;
	free(t->devs);
	free(t);
}

int mc_topology_count(const struct mc_topology *t)
{
	return t->n;
}

int mc_topology_device(const struct mc_topology *t, int i,
		       struct mc_device_info *out)
{
	if (i < 0 || i >= t->n)
		return mc_err(-EINVAL, "topology: no device %d, there are %d",
			      i, t->n);
	*out = t->devs[i].info;
	return 0;
}

int mc_topology_distance(const struct mc_topology *t, int i, int j)
{
	const struct topology_device *a, *b;
	int d;

	if (i < 0 || i >= t->n || j < 0 || j >= t->n)
		return mc_err(-EINVAL,
			      "topology: no devices %d and %d, there are %d",
			      i, j, t->n);
	if (i == j)
		return 0;
	a = &t->devs[i];
	b = &t->devs[j];
	d = mc_sysfs_pci_distance(a->chain, b->chain);
	if (d >= 0)
		return d;
	return a->info.numa >= 0 && a->info.numa == b->info.numa ? 3 : 4;
}
