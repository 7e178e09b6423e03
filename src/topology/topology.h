/*
 * topology.h - what the engine asks of the machine it runs on. Devices and
 * their distances are in <mooncake.h>: mc_topology_open() and the like.
 */
#ifndef MC_TOPOLOGY_H
#define MC_TOPOLOGY_H

#include <stdint.h>

/* The NUMA node of the page at @addr, or -1: unknown. Does not touch the page:
 * one that is not there yet has a node only if its policy names one. */
int mc_topology_memory_node(const void *addr);

/* Interfaces that are up and running, are no loopback and have an address that
 * other hosts can route to; in the kernel's order. Returns how many of @names
 * it filled, or -errno. */
int mc_topology_interfaces(char names[][32], int max);

/* Equal for two processes that run under the same kernel since its last start,
 * in the same network and pid namespaces: one host, as far as sharing memory
 * goes. 0: unknown, equal to no other. */
uint64_t mc_topology_host_id(void);

#endif
