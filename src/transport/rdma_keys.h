/*
 * rdma_keys.h - how a peer learns the key of a buffer: it reads it, with the
 * same one-sided reads that move data.
 *
 * The keys of our buffers lie in a hash table in memory that peers may read,
 * one for each device. A fixed root says where the table is. An id is somewhere
 * in the run of slots that begins at its hash, or the table does not have it;
 * if a run is full, a table of twice the size takes its place. So whoever wants
 * a key reads the root and then one run: no thread of ours takes part, buffers
 * registered later need no telling, and one that is gone is found to be.
 */
#ifndef MC_RDMA_KEYS_H
#define MC_RDMA_KEYS_H

#include "verbs.h"

#include <pthread.h>

enum {
	RDMA_RUN = 64,			/* slots */
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
	uint64_t run[RDMA_RUN];
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
int mc_rdma_keys_add(struct rdma_keys *k, uint32_t id, uint32_t rkey);
void mc_rdma_keys_del(struct rdma_keys *k, uint32_t id);

/* Is what was read of a root whole? */
bool mc_rdma_root_whole(const struct rdma_root *r);

/* Where the run of @id begins in the table of @r. */
uint64_t mc_rdma_run_addr(const struct rdma_root *r, uint32_t id);

/* The key of @id in a run: false if it is not there. */
bool mc_rdma_run_find(const uint64_t run[RDMA_RUN], uint32_t id,
		      uint32_t *rkey);

#endif
