/*
 * shm_path.h - a path of the shm transport: seen by shm_path.c (attach and
 * copy) and shm_maps.c (what is known of the peer's buffers).
 */
#ifndef MC_SHM_PATH_H
#define MC_SHM_PATH_H

#include "cma.h"
#include "shm.h"

enum { SHM_AROUND = 65536 };		/* what one page fault may map */

/* A buffer of the peer: mapped, or reached by cma.h. */
struct shm_map {
	uint64_t addr, len;		/* in the peer */
	uint8_t *mem;			/* here; NULL: not mapped */
	uint32_t id, gen, access;
	void *base;			/* the mapping: whole pages */
	uint64_t base_len;
	uint8_t *seen;			/* of each SHM_AROUND bytes of address:
					 * touched before; atomic */
};

struct shm_path {
	struct mc_path base;
	struct mc_host *host;
	struct mc_peer peer;
	const struct shm_control *control;	/* the peer's */
	uint32_t index;
	uint64_t token;
	struct mc_slots *shared;	/* ours, which the peer waits on; what
					 * it writes there is never read */
	struct mc_slots slots;		/* the same for our own waiting */
	struct mc_ids maps;
	pthread_mutex_t maps_lock;	/* of changes to them */
	uint32_t sweep_at;		/* when they are so many */
	struct mc_cma cma;
	int pidfd;			/* -1: unknown */
	uint64_t kept;			/* as bytes_kept() */
	uint64_t looked_ns;		/* when last at it; atomic */
	uint32_t dead, stopped;		/* atomic */
};

/* Ask the peer for the buffers @ids, the first of which is needed. No thread
 * that calls these is inside a window. */
int mc_shm_learn(struct shm_path *p, const uint32_t *ids, uint32_t n);

/* The peer has taken the buffer back. */
void mc_shm_forget(struct shm_path *p, uint32_t id);
void mc_shm_forget_all(struct shm_path *p);

/* Is the buffer there still? True only says so to who is inside a window. */
static inline bool shm_valid(const struct shm_path *p,
			     const struct shm_map *m)
{
	/* Pairs with the store in shm_gen_set(). */
	return __atomic_load_n(&p->control->gens[m->gen],
			       __ATOMIC_SEQ_CST) == m->id;
}

#endif
