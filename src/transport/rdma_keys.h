/*
 * rdma_keys.h - how a peer learns the key of a buffer: it reads it, with the
 * same one-sided reads that move data.
 *
 * The keys of our buffers lie in a hash table in memory that peers may read,
 * one for each device. A fixed root says where the table is. A key is somewhere
 * in the run of slots that begins at its hash, or the table does not have it;
 * if a run is full, a table of twice the size takes its place. So whoever wants
 * a key reads the root and then one run: no thread of ours takes part, buffers
 * registered later need no telling, and one that is gone is found to be.
 *
 * As a device may not take a large buffer in one piece, what has a key is a
 * chunk of a buffer. Chunks end where an address is a multiple of 2^bits, the
 * same for all buffers of an engine; so an address says which chunk it is in,
 * and nothing need be known of where its buffer begins.
 */
#ifndef MC_RDMA_KEYS_H
#define MC_RDMA_KEYS_H

#include "verbs.h"

#include <pthread.h>

enum {
	RDMA_RUN = 64,			/* slots */
	RDMA_CHUNK_MIN = 12,		/* bits of a chunk's size */
	RDMA_CHUNK_MAX = 63,		/* no buffer is cut */
};

/* A chunk of a buffer; id 0 is no buffer's. */
struct rdma_chunk {
	uint32_t id;			/* of the buffer */
	uint32_t number;		/* the low bits of addr >> bits: unique
					 * within a buffer */
};

static inline struct rdma_chunk mc_rdma_chunk(int bits, uint32_t id,
					      uint64_t addr)
{
	return (struct rdma_chunk){ id, (uint32_t)(addr >> bits) };
}

/* Bytes from @addr to the end of its chunk. */
static inline uint64_t mc_rdma_chunk_left(int bits, uint64_t addr)
{
	return (1ull << bits) - (addr & ((1ull << bits) - 1));
}

/* Read by a peer as it may be half written or half gone: then the check is
 * wrong, and it is as if it were not there. */
struct rdma_slot {
	struct rdma_chunk chunk;
	uint32_t rkey, check;
};

/* Written by one side, read by the other as it may be half written: then the
 * check is wrong. */
struct rdma_root {
	uint64_t addr;			/* of the table; 0: none */
	uint32_t rkey, bits;		/* its slots: 2^bits and a run */
	uint64_t check;
};

/* What a path reads. */
struct rdma_answer {
	struct rdma_root root;
	struct rdma_slot run[RDMA_RUN];
};

struct rdma_keys {
	pthread_mutex_t lock;
	struct ibv_pd *pd;
	struct rdma_root *root;
	struct ibv_mr *root_mr;
	struct rdma_table *table;	/* and those before it: a peer may be
					 * about to read one */
};

int mc_rdma_keys_init(struct rdma_keys *k, struct ibv_pd *pd);
void mc_rdma_keys_fini(struct rdma_keys *k);
int mc_rdma_keys_add(struct rdma_keys *k, struct rdma_chunk c, uint32_t rkey);
void mc_rdma_keys_del(struct rdma_keys *k, struct rdma_chunk c);

/* Is what was read of a root whole? */
bool mc_rdma_root_whole(const struct rdma_root *r);

/* Where the run of @c begins in the table of @r. */
uint64_t mc_rdma_run_addr(const struct rdma_root *r, struct rdma_chunk c);

/* The key of @c in a run: false if it is not there. */
bool mc_rdma_run_find(const struct rdma_slot run[RDMA_RUN],
		      struct rdma_chunk c, uint32_t *rkey);

#endif
