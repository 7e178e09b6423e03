/*
 * ranges.h - address ranges that do not overlap, found by an address inside.
 *
 * A sorted array cut into chunks of at most 512: finding is two binary
 * searches, adding and removing move half a chunk at worst, so a hundred
 * thousand buffers go in in any order at the same small cost each. No locks.
 */
#ifndef MC_BASE_RANGES_H
#define MC_BASE_RANGES_H

#include <stdint.h>

/* Embedded in what is kept; the container never copies or frees it. */
struct mc_node {
	uint64_t addr;
	uint64_t len;
};

struct mc_ranges {
	struct ranges_chunk **chunks;
	uint32_t n, cap;
	uint64_t count;
};

/* The node that has @addr inside, or NULL. */
struct mc_node *mc_ranges_find(const struct mc_ranges *r, uint64_t addr);

/* -EEXIST with the node in the way at @clash if it overlaps; -ENOMEM. */
int mc_ranges_add(struct mc_ranges *r, struct mc_node *node,
		  struct mc_node **clash);
void mc_ranges_del(struct mc_ranges *r, struct mc_node *node);

/* The @i-th node by address, or NULL. O(number of chunks). */
struct mc_node *mc_ranges_at(const struct mc_ranges *r, uint64_t i);

/* The @i-th node of chunk @k < r->n, or NULL: for walking all of them. */
struct mc_node *mc_ranges_in(const struct mc_ranges *r, uint32_t k,
			     uint32_t i);
void mc_ranges_fini(struct mc_ranges *r);

#endif
