/*
 * index.c - which instances hold which blocks.
 *
 * A hash table from the id to a bitmap of the holders.
 */
#include <mooncake.h>
#include "../base/err.h"
#include "../base/util.h"

#include <errno.h>
#include <stdlib.h>
#include <uthash.h>

struct index_block {
	uint64_t id;
	uint32_t holders;
	UT_hash_handle hh;
	uint64_t bits[];
};

struct mc_index {
	uint32_t instances, words;
	uint64_t pairs;
	struct index_block *blocks;
};

static struct index_block *index_find(const struct mc_index *x, uint64_t id)
{
	struct index_block *b;

	HASH_FIND(hh, x->blocks, &id, sizeof(id), b);
	return b;
}

static int index_check(const struct mc_index *x, uint32_t i)
{
	if (i < x->instances)
		return 0;
	return mc_err(-EINVAL, "block index: instance %u, but there are only "
		      "%u", i, x->instances);
}

int mc_index_add(struct mc_index *x, uint32_t i, const uint64_t *ids,
		 uint32_t n)
{
	uint64_t bit = (uint64_t)1 << i % 64;
	int changed = 0, r = index_check(x, i);

	if (r < 0)
		return r;
	for (uint32_t k = 0; k < n; k++) {
		struct index_block *b = index_find(x, ids[k]);

		if (!b) {
			b = calloc(1, sizeof(*b) + x->words * sizeof(*b->bits));
			if (!b)
				return mc_err(-ENOMEM, "block index: no memory "
					      "for a block");
			b->id = ids[k];
			HASH_ADD(hh, x->blocks, id, sizeof(b->id), b);
		}
		if (b->bits[i / 64] & bit)
			continue;
		b->bits[i / 64] |= bit;
		b->holders++;
		x->pairs++;
		changed++;
	}
	return changed;
}

static bool index_remove(struct mc_index *x, struct index_block *b, uint32_t i)
{
	uint64_t bit = (uint64_t)1 << i % 64;

	if (!b || !(b->bits[i / 64] & bit))
		return false;
	b->bits[i / 64] &= ~bit;
	x->pairs--;
	if (!--b->holders) {
		HASH_DEL(x->blocks, b);
		free(b);
	}
	return true;
}

int mc_index_del(struct mc_index *x, uint32_t i, const uint64_t *ids,
		 uint32_t n)
{
	int changed = 0, r = index_check(x, i);

	if (r < 0)
		return r;
	for (uint32_t k = 0; k < n; k++)
		changed += index_remove(x, index_find(x, ids[k]), i);
	return changed;
}

void mc_index_drop(struct mc_index *x, uint32_t i)
{
	struct index_block *b, *next;

	if (i >= x->instances)
		return;
	HASH_ITER(hh, x->blocks, b, next)
		index_remove(x, b, i);
}

uint32_t mc_index_match(const struct mc_index *x, const uint64_t *ids,
			uint32_t n, uint32_t *matched)
{
	uint32_t best = 0;

	memset(matched, 0, x->instances * sizeof(*matched));
	for (uint32_t k = 0; k < n && best == k; k++) {
		struct index_block *b = index_find(x, ids[k]);

		for (uint32_t i = 0; b && i < x->instances; i++)
			if (matched[i] == k && b->bits[i / 64] >> i % 64 & 1)
				best = matched[i] = k + 1;
	}
	return best;
}

uint32_t mc_index_holders(const struct mc_index *x, uint64_t id)
{
	const struct index_block *b = index_find(x, id);

	return b ? b->holders : 0;
}

void mc_index_size(const struct mc_index *x, struct mc_index_size *out)
{
	uint64_t blocks = HASH_COUNT(x->blocks);

	*out = (struct mc_index_size){
		blocks, x->pairs, sizeof(*x) + HASH_OVERHEAD(hh, x->blocks) +
		blocks * (sizeof(*x->blocks) + x->words * sizeof(uint64_t)),
	};
}

int mc_index_open(struct mc_index **out, uint32_t instances)
{
	struct mc_index *x;

	if (!instances)
		return mc_err(-EINVAL, "block index: of no instances");
	x = calloc(1, sizeof(*x));
	if (!x)
		return mc_err(-ENOMEM, "block index: no memory");
	x->instances = instances;
	x->words = (instances + 63) / 64;
	*out = x;
	return 0;
}

void mc_index_close(struct mc_index *x)
{
	struct index_block *b, *next;

	if (!x)
		return;
	HASH_ITER(hh, x->blocks, b, next) {
		HASH_DEL(x->blocks, b);
		free(b);
	}
	free(x);
}
