/*
 * cache.h - what a cache of blocks consists of, for the policies.
 *
 * Blocks lie in slots of one flat array, are found by a hash table of slot
 * numbers, and hang in circular lists whose ends are the first slots, so that
 * linking needs no branches. A policy decides where a block goes in these; it
 * never allocates for a block.
 */
#ifndef MC_SIM_CACHE_H
#define MC_SIM_CACHE_H

#include <mooncake.h>

/* The slots that are lists. Slot 0 is no block: "none" for the table. */
enum { CACHE_QUEUE, CACHE_MAIN, CACHE_LISTS };

struct cache_slot {
	uint64_t id;
	union {
		struct {
			uint32_t newer:30, uses:2;	/* uses: 0 to 3 */
			uint32_t older:31, in_main:1;
		};
		uint32_t heap;		/* where in c->heap, from 1 */
	};
};

/* The block with the smallest rank goes first, of these the oldest stamp. */
struct cache_rank {
	uint64_t rank, stamp;
	uint32_t slot;
};

struct cache_policy {
	const char *name;

	/* The slots are now @n; undone by close(). NULL: nothing to do. */
	int (*grow)(struct mc_cache *c, uint32_t n);
	void (*close)(struct mc_cache *c);

	void (*hit)(struct mc_cache *c, uint32_t slot, uint32_t position);
	void (*insert)(struct mc_cache *c, uint32_t slot, uint32_t position);

	/* Choose a block, of which there is at least one, and unlink it. */
	uint32_t (*victim)(struct mc_cache *c);
};

struct mc_cache {
	const struct cache_policy *policy;
	uint64_t capacity;
	uint32_t used;
	struct cache_slot *slots;
	uint32_t n_slots, top;		/* from top on they were never used */
	uint32_t free;			/* list of slots, by older; 0: none */
	uint32_t *table;
	int shift;			/* its size is 2^(64 - shift) */

	uint32_t in_queue;		/* s3fifo: blocks in CACHE_QUEUE */
	struct mc_cache *ghost;		/* s3fifo: who went out of it */
	uint32_t hand;			/* sieve; 0: at the oldest */
	struct cache_rank *heap;	/* lfu, length: from 1 to used */
	uint64_t clock;
};

extern const struct cache_policy mc_cache_lru, mc_cache_fifo, mc_cache_sieve,
	mc_cache_s3fifo, mc_cache_lfu, mc_cache_length;

/* The slot of a block, 0 if it is not there. They are given out in order, from
 * CACHE_LISTS on, as long as nothing goes. */
uint32_t mc_cache_slot(const struct mc_cache *c, uint64_t id);

/* Take a block out of a cache with queues, if it is there. */
bool mc_cache_forget(struct mc_cache *c, uint64_t id);

/* Link as the newest of a list, and unlink from whichever it is in. */
static inline void cache_link(struct mc_cache *c, uint32_t list, uint32_t slot)
{
	uint32_t older = c->slots[list].older;

	c->slots[slot].newer = list;
	c->slots[slot].older = older;
	c->slots[older].newer = slot;
	c->slots[list].older = slot;
}

static inline void cache_unlink(struct mc_cache *c, uint32_t slot)
{
	uint32_t newer = c->slots[slot].newer, older = c->slots[slot].older;

	c->slots[newer].older = older;
	c->slots[older].newer = newer;
}

static inline uint32_t cache_oldest(const struct mc_cache *c, uint32_t list)
{
	return c->slots[list].newer;
}

#endif
