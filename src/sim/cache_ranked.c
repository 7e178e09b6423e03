/*
 * cache_ranked.c - cache policies that rank blocks: lfu, length. The block with
 * the smallest rank goes first, of equals the one that was used least recently;
 * a binary heap, so O(log n) for a touch.
 *
 * lfu ranks by how often a block was used since it came in.
 *
 * length is the LengthAwareCache of the Mooncake paper (arXiv 2407.00079, table
 * 1), which it describes as similar to LFU, but putting out first what occurs
 * late in requests. Taken here as: by uses as lfu, and of equals the block
 * whose place in its request is the latest.
 */
#include "cache.h"

#include <errno.h>
#include <stdlib.h>

static int ranked_grow(struct mc_cache *c, uint32_t n)
{
	struct cache_rank *heap = realloc(c->heap, n * sizeof(*heap));

	if (!heap)
		return -ENOMEM;
	c->heap = heap;
	return 0;
}

static void ranked_close(struct mc_cache *c)
{
	free(c->heap);
}

static bool ranked_before(const struct cache_rank *a,
			  const struct cache_rank *b)
{
	return a->rank != b->rank ? a->rank < b->rank : a->stamp < b->stamp;
}

static void ranked_put(struct mc_cache *c, uint32_t at, struct cache_rank r)
{
	c->heap[at] = r;
	c->slots[r.slot].heap = at;
}

static void ranked_up(struct mc_cache *c, uint32_t at, struct cache_rank r)
{
	while (at > 1 && ranked_before(&r, &c->heap[at / 2])) {
		ranked_put(c, at, c->heap[at / 2]);
		at /= 2;
	}
	ranked_put(c, at, r);
}

/* The heap is [1, n]. */
static void ranked_down(struct mc_cache *c, uint32_t at, uint32_t n,
			struct cache_rank r)
{
	for (;;) {
		uint32_t child = 2 * at;

		if (child > n)
			break;
		if (child < n && ranked_before(&c->heap[child + 1],
					       &c->heap[child]))
			child++;
		if (!ranked_before(&c->heap[child], &r))
			break;
		ranked_put(c, at, c->heap[child]);
		at = child;
	}
	ranked_put(c, at, r);
}

static uint32_t ranked_victim(struct mc_cache *c)
{
	uint32_t slot = c->heap[1].slot;

	ranked_down(c, 1, c->used - 1, c->heap[c->used]);
	return slot;
}

static struct cache_rank ranked_new(struct mc_cache *c, uint32_t slot,
				    uint64_t rank)
{
	return (struct cache_rank){ rank, ++c->clock, slot };
}

/* ---- lfu ---------------------------------------------------------------- */

static void lfu_hit(struct mc_cache *c, uint32_t slot, uint32_t position)
{
	uint32_t at = c->slots[slot].heap;

	(void)position;
	ranked_down(c, at, c->used, ranked_new(c, slot, c->heap[at].rank + 1));
}

static void lfu_insert(struct mc_cache *c, uint32_t slot, uint32_t position)
{
	(void)position;
	ranked_up(c, c->used, ranked_new(c, slot, 1));
}

const struct cache_policy mc_cache_lfu = {
	.name = "lfu",
	.grow = ranked_grow,
	.close = ranked_close,
	.hit = lfu_hit,
	.insert = lfu_insert,
	.victim = ranked_victim,
};

/* ---- length ------------------------------------------------------------- */

/* Uses above, below them the place from the far end. More uses always mean a
 * larger rank, whatever the place is now. */
static uint64_t length_rank(uint64_t uses, uint32_t position)
{
	return uses << 32 | (UINT32_MAX - position);
}

static void length_hit(struct mc_cache *c, uint32_t slot, uint32_t position)
{
	uint32_t at = c->slots[slot].heap;
	uint64_t uses = (c->heap[at].rank >> 32) + 1;

	ranked_down(c, at, c->used,
		    ranked_new(c, slot, length_rank(uses, position)));
}

static void length_insert(struct mc_cache *c, uint32_t slot, uint32_t position)
{
	ranked_up(c, c->used, ranked_new(c, slot, length_rank(1, position)));
}

const struct cache_policy mc_cache_length = {
	.name = "length",
	.grow = ranked_grow,
	.close = ranked_close,
	.hit = length_hit,
	.insert = length_insert,
	.victim = ranked_victim,
};
