/*
 * holders.h - sets of instances, for very many small ones and some large.
 *
 * A set is 64 bits, 0 the empty one. Up to four instances lie in it as they
 * are, 16 bits each, in any order. For more it says how many they are and
 * where their bitmap lies in a pool, which has a bit for every instance.
 */
#ifndef MC_CONDUCTOR_HOLDERS_H
#define MC_CONDUCTOR_HOLDERS_H

#include "pages.h"

#include <stdbool.h>
#include <stdint.h>

enum {
	MC_HOLDERS_FEW = 4,
	MC_HOLDERS_MANY = 0xffff,	/* in the upper 16 bits: a bitmap */
	MC_HOLDERS_MAX = 0xfffe,	/* instances */
};

/* The pool of bitmaps. To begin with only @words is set. */
struct mc_holders {
	uint32_t words;			/* of 64 bits in a bitmap */
	uint32_t n;			/* bitmaps in use */
	uint32_t used;			/* that have ever been */
	uint32_t unused;		/* 1 + the first of those that are not
					 * any more; each begins so, too */
	uint64_t cap;
	struct mc_pages pages;
};

static inline bool mc_holders_many(uint64_t set)
{
	return set >> 48 == MC_HOLDERS_MANY;
}

/* Of a set of many. */
static inline uint64_t *mc_holders_bits(const struct mc_holders *h,
					uint64_t set)
{
	return (uint64_t *)h->pages.at + (uint64_t)(uint32_t)set * h->words;
}

/* Which of the instances from 64 * @word on are in @set, one bit each. */
static inline uint64_t mc_holders_word(const struct mc_holders *h,
				       uint64_t set, uint32_t word)
{
	uint64_t bits = 0;

	if (mc_holders_many(set))
		return mc_holders_bits(h, set)[word];
	for (; set; set >>= 16) {
		uint32_t i = (set & 0xffff) - 1;

		if (i / 64 == word)
			bits |= (uint64_t)1 << i % 64;
	}
	return bits;
}

uint32_t mc_holders_count(uint64_t set);

/* Put an instance into a set: 1, 0 if it was there already, or -ENOMEM; the
 * first of a set needs no memory. And take one out: whether it was there. */
int mc_holders_add(struct mc_holders *h, uint64_t *set, uint32_t i);
bool mc_holders_del(struct mc_holders *h, uint64_t *set, uint32_t i);

/* Whether a pool of its own for the bitmaps in use would be much smaller. */
bool mc_holders_sparse(const struct mc_holders *h);

/* Make room for @n bitmaps in all, and move that of a set over there, which
 * takes no more memory then. */
int mc_holders_reserve(struct mc_holders *h, uint64_t n);
void mc_holders_move(struct mc_holders *to, const struct mc_holders *from,
		     uint64_t *set);

void mc_holders_fini(struct mc_holders *h);

#endif
