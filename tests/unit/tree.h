/*
 * tree.h - small /sys trees of machines that have the shapes we care for, made
 * in a temporary folder that lasts as long as a test.
 */
#ifndef TREE_H
#define TREE_H

extern char tree_root[];

int tree_setup(void **state);
int tree_teardown(void **state);

/* Paths begin below sys/; folders on the way are made. */
void tree_file(const char *path, const char *text);
void tree_file_in(const char *folder, const char *name, const char *text);
void tree_link(const char *path, const char *target);

/* A NUMA node; a function at @path ("pci0000:00/0000:00:01.0") and its link on
 * the bus; an interface and an RDMA device of that at @device. */
void tree_node(int node);
void tree_pci(const char *path, const char *class, const char *vendor,
	      int numa);
void tree_net(const char *name, const char *device, const char *speed,
	      const char *state);
void tree_rdma(const char *name, const char *device, const char *rate,
	       const char *state);

/* Two sockets; each has two root complexes with one switch; below each switch
 * two GPUs, two NICs that do RDMA, and one drive. */
void tree_hgx(void);

/* Two sockets; each has four root complexes with one switch; below each switch
 * a GPU and a NIC for it, mlx5_0 to mlx5_7. */
void tree_dgx(void);

/* Two sockets, each with two NICs on root ports of their own, that do RDMA:
 * mlx5_0 to mlx5_3. */
void tree_two_sockets(void);

#endif
