/*
 * index.c - which instances hold which blocks: what changes it.
 *
 * A table of blocks (blocks.h) has a set of instances for each (holders.h). A
 * block that nobody holds is not in the table. An instance may lose any block
 * of a chain, so there is no tree here: that equal ids mean equal prefixes is
 * used by who asks (match.c), not by what is kept.
 */
#include "index.h"
#include "../base/err.h"

#include <errno.h>
#include <stdlib.h>

static int index_check(const struct mc_index *x, uint32_t i)
{
	if (i < x->instances)
		return 0;
	return mc_err(-EINVAL, "block index: there is no instance %u, they are "
		      "0 to %u", i, x->instances - 1);
}

/* How many of the keys it has changed goes to @changed, even on error. */
static int index_add_keys(struct mc_index *x, uint32_t i, const uint64_t *keys,
			  uint32_t n, int *changed)
{
	struct mc_block *b;
	int r;

	for (uint32_t k = 0; k < n; k++) {
		r = mc_blocks_add(&x->blocks, keys[k], &b);
		if (!r)
			r = mc_holders_add(&x->holders, &b->holders, i);
		if (r < 0)
			return r;
		*changed += r;
	}
	return 0;
}

int mc_index_add(struct mc_index *x, uint32_t i, const uint64_t *ids,
		 uint32_t n)
{
	uint64_t keys[MC_BLOCKS_GROUP];
	int changed = 0, r = index_check(x, i);

	for (uint32_t got; n && r >= 0; ids += got, n -= got) {
		got = mc_blocks_keys(&x->blocks, ids, n, keys);
		r = index_add_keys(x, i, keys, got, &changed);
	}
	x->pairs += changed;
	return r < 0 ? r : changed;
}

static int index_del_keys(struct mc_index *x, uint32_t i, const uint64_t *keys,
			  uint32_t n)
{
	struct mc_block *b;
	int changed = 0;

	for (uint32_t k = 0; k < n; k++) {
		b = mc_blocks_find(&x->blocks, keys[k]);
		if (!b || !mc_holders_del(&x->holders, &b->holders, i))
			continue;
		changed++;
		if (!b->holders)
			mc_blocks_del(&x->blocks, b);
	}
	return changed;
}

/* Pool the bitmaps anew if most of what they take is unused. Without memory
 * for that it is left for another time. */
static void index_pack(struct mc_index *x)
{
	struct mc_holders to = { .words = x->holders.words };

	if (!mc_holders_sparse(&x->holders) ||
	    mc_holders_reserve(&to, x->holders.n) < 0)
		return;
	for (uint64_t p = 0; p < x->blocks.places; p++)
		mc_holders_move(&to, &x->holders, &x->blocks.at[p].holders);
	mc_holders_fini(&x->holders);
	x->holders = to;
}

int mc_index_del(struct mc_index *x, uint32_t i, const uint64_t *ids,
		 uint32_t n)
{
	uint64_t keys[MC_BLOCKS_GROUP];
	int changed = 0, r = index_check(x, i);

	if (r < 0)
		return r;
	for (uint32_t got; n; ids += got, n -= got) {
		got = mc_blocks_keys(&x->blocks, ids, n, keys);
		changed += index_del_keys(x, i, keys, got);
	}
	x->pairs -= changed;
	index_pack(x);
	return changed;
}

void mc_index_drop(struct mc_index *x, uint32_t i)
{
	if (i >= x->instances)
		return;
	for (uint64_t p = 0; p < x->blocks.places; p++)
		x->pairs -= mc_holders_del(&x->holders,
					   &x->blocks.at[p].holders, i);
	mc_blocks_sweep(&x->blocks);
	index_pack(x);
}

uint32_t mc_index_holders(const struct mc_index *x, uint64_t id)
{
	const struct mc_block *b = mc_blocks_find(&x->blocks,
						  mc_block_key(id));

	return b ? mc_holders_count(b->holders) : 0;
}

void mc_index_size(const struct mc_index *x, struct mc_index_size *out)
{
	*out = (struct mc_index_size){
		.blocks = x->blocks.n,
		.pairs = x->pairs,
		.bytes = sizeof(*x) + x->blocks.pages.size +
			 x->holders.pages.size +
			 x->holders.words * sizeof(*x->live),
	};
}

int mc_index_open(struct mc_index **out, uint32_t instances)
{
	uint32_t words = (instances + 63) / 64;
	struct mc_index *x;

	if (!instances || instances > MC_HOLDERS_MAX)
		return mc_err(-EINVAL, "block index: 1 to %d instances, not %u",
			      MC_HOLDERS_MAX, instances);
	x = calloc(1, sizeof(*x));
	if (!x)
		return mc_err(-ENOMEM, "block index: no memory");
	x->instances = instances;
	x->holders.words = words;
	x->live = calloc(words, sizeof(*x->live));
	if (!x->live) {
		mc_index_close(x);
		return mc_err(-ENOMEM, "block index: no memory for %u "
			      "instances", instances);
	}
	*out = x;
	return 0;
}

void mc_index_close(struct mc_index *x)
{
	if (!x)
		return;
	mc_blocks_fini(&x->blocks);
	mc_holders_fini(&x->holders);
	free(x->live);
	free(x);
}
