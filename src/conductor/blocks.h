/*
 * blocks.h - a table of blocks by id, for very many of them.
 *
 * An id is turned into a key, which is a random number for all purposes and
 * still tells ids apart. The table is an array that is sorted by key, with
 * gaps: where a key should be is its share of the array ("home"), and it is
 * there or a few places behind. That is hashing with linear probing in which
 * clusters are kept sorted (Amble and Knuth, "Ordered hash tables", The
 * Computer Journal 17(2), 1974), with two consequences: a search for what is
 * not there ends as soon as one for what is; and the order does not depend on
 * the size, so that the table gets another one by a sweep in place.
 */
#ifndef MC_CONDUCTOR_BLOCKS_H
#define MC_CONDUCTOR_BLOCKS_H

#include "pages.h"

#include <stdint.h>

enum { MC_BLOCKS_GROUP = 32 };		/* twice what a core has in flight */

struct mc_block {
	uint64_t key;
	uint64_t holders;		/* never 0: that is a gap; holders.h */
};

/* All zeros is an empty one. */
struct mc_blocks {
	struct mc_block *at;
	uint64_t homes;			/* places that are home to a key */
	uint64_t places;		/* all; the last is always a gap */
	uint64_t n;
	struct mc_pages pages;
};

/* One to one, so that equal keys are equal ids. The constants are those of
 * MurmurHash3's 64-bit finalizer (A. Appleby, public domain). */
static inline uint64_t mc_block_key(uint64_t id)
{
	id = (id ^ id >> 33) * 0xff51afd7ed558ccd;
	id = (id ^ id >> 33) * 0xc4ceb9fe1a85ec53;
	return id ^ id >> 33;
}

static inline uint64_t mc_blocks_home(const struct mc_blocks *b, uint64_t key)
{
	return (unsigned __int128)key * b->homes >> 64;
}

/* Where @key is or would be put: the first that is not before it, or a gap.
 * There must be a table. */
static inline uint64_t mc_blocks_place(const struct mc_blocks *b, uint64_t key)
{
	uint64_t i = mc_blocks_home(b, key);

	while (b->at[i].holders && b->at[i].key < key)
		i++;
	return i;
}

/* NULL: not there. */
static inline struct mc_block *mc_blocks_find(const struct mc_blocks *b,
					      uint64_t key)
{
	struct mc_block *p;

	if (!b->n)
		return NULL;
	p = b->at + mc_blocks_place(b, key);
	return p->holders && p->key == key ? p : NULL;
}

/* The keys of the first ids, up to MC_BLOCKS_GROUP of them: how many. What is
 * in the table of them comes nearer meanwhile, all at once. */
static inline uint32_t mc_blocks_keys(const struct mc_blocks *b,
				      const uint64_t *ids, uint32_t n,
				      uint64_t *keys)
{
	if (n > MC_BLOCKS_GROUP)
		n = MC_BLOCKS_GROUP;
	for (uint32_t k = 0; k < n; k++) {
		keys[k] = mc_block_key(ids[k]);
		__builtin_prefetch(b->at + mc_blocks_home(b, keys[k]));
	}
	return n;
}

/* The block of that key. A new one has no holders, and is given some before
 * the next call. Others may move. -ENOMEM. */
int mc_blocks_add(struct mc_blocks *b, uint64_t key, struct mc_block **out);

/* Take @p out. Others may move. */
void mc_blocks_del(struct mc_blocks *b, struct mc_block *p);

/* Take out all that a scan of the places has left without holders. */
void mc_blocks_sweep(struct mc_blocks *b);

void mc_blocks_fini(struct mc_blocks *b);

#endif
