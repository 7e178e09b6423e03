/*
 * match.c - how much of a prompt each instance holds.
 *
 * All ids are known in advance, so what they need of memory is asked for by
 * groups, and the waiting for it overlaps. Then the instances that hold all
 * blocks so far are narrowed down block by block; each of them leaves once,
 * so the work is bounded by the words of the first bitmap times the blocks,
 * and for blocks of one holder it is next to nothing.
 */
#include "index.h"

#include <string.h>

enum { MATCH_LINE = 8 };		/* words of a cache line */

/* The sets of the leading ids, of a group at most, up to the first that no one
 * holds. */
static uint32_t match_gather(const struct mc_index *x, const uint64_t *ids,
			     uint32_t n, uint64_t *sets)
{
	const struct mc_block *b;
	uint64_t keys[MC_BLOCKS_GROUP];

	n = mc_blocks_keys(&x->blocks, ids, n, keys);
	for (uint32_t k = 0; k < n; k++) {
		b = mc_blocks_find(&x->blocks, keys[k]);
		if (!b)
			return k;
		sets[k] = b->holders;
		if (!mc_holders_many(sets[k]))
			continue;
		for (uint32_t w = 0; w < x->holders.words; w += MATCH_LINE)
			__builtin_prefetch(mc_holders_bits(&x->holders,
							   sets[k]) + w);
	}
	return n;
}

/* These instances hold @k blocks and no more. */
static void match_leave(uint32_t word, uint64_t bits, uint32_t k,
			uint32_t *matched)
{
	for (; bits; bits &= bits - 1)
		matched[word * 64 + __builtin_ctzll(bits)] = k;
}

static uint32_t match_begin(const struct mc_index *x, uint64_t set)
{
	uint32_t n = 0;

	for (uint32_t w = 0; w < x->holders.words; w++) {
		uint64_t bits = mc_holders_word(&x->holders, set, w);

		if (bits)
			x->live[n++] = (struct index_live){ bits, w };
	}
	return n;
}

/* Of the @n words of instances that hold all before block @k, keep those that
 * hold it, too. */
static uint32_t match_narrow(const struct mc_index *x, uint32_t n,
			     uint64_t set, uint32_t k, uint32_t *matched)
{
	uint32_t kept = 0;

	for (uint32_t j = 0; j < n; j++) {
		struct index_live l = x->live[j];
		uint64_t bits = mc_holders_word(&x->holders, set, l.word);

		match_leave(l.word, l.bits & ~bits, k, matched);
		l.bits &= bits;
		if (l.bits)
			x->live[kept++] = l;
	}
	return kept;
}

uint32_t mc_index_match(const struct mc_index *x, const uint64_t *ids,
			uint32_t n, uint32_t *matched)
{
	uint64_t sets[MC_BLOCKS_GROUP], before = 0;
	uint32_t live = 0, k = 0, got = MC_BLOCKS_GROUP;

	memset(matched, 0, x->instances * sizeof(*matched));
	while (got == MC_BLOCKS_GROUP) {
		got = match_gather(x, ids + k, n - k, sets);
		for (uint32_t j = 0; j < got; j++, k++) {
			if (!k)
				live = match_begin(x, sets[j]);
			else if (sets[j] != before)
				live = match_narrow(x, live, sets[j], k,
						    matched);
			if (!live)
				return k;
			before = sets[j];
		}
	}
	for (uint32_t j = 0; j < live; j++)
		match_leave(x->live[j].word, x->live[j].bits, k, matched);
	return k;
}
