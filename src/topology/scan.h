/* scan.h - the topology as it is in memory, and what fills it. */
#ifndef MC_TOPOLOGY_SCAN_H
#define MC_TOPOLOGY_SCAN_H

#include <mooncake.h>

#include <limits.h>

struct topology_device {
	struct mc_device_info info;
	char chain[256];		/* see mc_sysfs_pci_chain() */
};

struct mc_topology {
	struct topology_device *devs;	/* by kind, then by name */
	int n;
	int cap;
	int nodes;			/* how many of them are "cpu" */
	bool live;			/* of this machine, not of a copy */
	char sys[PATH_MAX];		/* <root>/sys without links in it */
};

/* Fill @t, whose sys and live are set. -ENOMEM. */
int mc_topology_scan(struct mc_topology *t);

#endif
