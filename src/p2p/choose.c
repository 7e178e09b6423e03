/*
 * choose.c - which shard to fetch next, and from whom: one pure function, for
 * the store and for the simulation of thousands of nodes alike.
 *
 * The holder that is predicted to deliver first is asked, and of what it has,
 * the shard that the fewest others have or wait for. Rarest first is what keeps
 * every node's link of use to the others (Cohen, "Incentives Build Robustness
 * in BitTorrent", 2003); ties are broken at random, or all nodes would ask for
 * the same one. A source is asked first of all, for what it alone has: nothing
 * else brings anything new to the others. For what they have too it is asked
 * where no one else can be, so it sends little more than one copy.
 */
#include <mooncake.h>

#include <math.h>

struct choose {
	const struct mc_p2p_view *v;
	uint64_t random;
	uint64_t tried;			/* a bit per holder */
};

/* One step of splitmix64, as in base/hash.c. */
static uint32_t choose_random(struct choose *c)
{
	uint64_t z = c->random += 0x9e3779b97f4a7c15u;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return (z ^ z >> 31) >> 32;
}

/* The n-th of equals takes the place with a chance of 1 / n. */
static bool choose_tie(struct choose *c, uint32_t n)
{
	return n == 1 || (uint64_t)choose_random(c) * n >> 32 == 0;
}

/* The holder of the least cost that has not been tried, or -1. */
static int choose_holder(struct choose *c, bool sources)
{
	const float *cost = c->v->cost;
	uint32_t ties = 0;
	int best = -1;

	for (uint32_t h = 0; h < c->v->holders; h++) {
		if (c->tried >> h & 1 || isinf(cost[h]) ||
		    !c->v->source[h] == sources)
			continue;
		if (best >= 0 && cost[h] > cost[best])
			continue;
		if (best >= 0 && cost[h] < cost[best])
			ties = 0;
		if (choose_tie(c, ++ties))
			best = h;
	}
	if (best >= 0)
		c->tried |= (uint64_t)1 << best;
	return best;
}

/* The rarest wanted shard of holder @h with at most @most copies, or -1. */
static int64_t choose_shard(struct choose *c, int h, uint32_t most)
{
	const struct mc_p2p_view *v = c->v;
	uint32_t words = (v->shards + 63) / 64, ties = 0;
	const uint64_t *have = v->have + (size_t)h * words;
	int64_t best = -1;

	for (uint32_t w = 0; w < words; w++) {
		uint64_t left = v->wanted[w] & have[w];

		for (; left; left &= left - 1) {
			uint32_t s = w * 64 + __builtin_ctzll(left);

			if (v->copies[s] > most)
				continue;
			if (v->copies[s] < most || best < 0)
				ties = 0;
			most = v->copies[s];
			if (choose_tie(c, ++ties))
				best = s;
		}
	}
	return best;
}

/* From cheap to dear: the holders that are sources, or those that are not; of
 * sources only what @most others have. */
static bool choose_among(struct choose *c, bool sources, uint32_t most,
			 uint32_t *shard, uint32_t *holder)
{
	int64_t s = -1;
	int h;

	c->tried = 0;
	while ((h = choose_holder(c, sources)) >= 0) {
		s = choose_shard(c, h, most);
		if (s < 0)
			continue;
		*shard = s;
		*holder = h;
		return true;
	}
	return false;
}

bool mc_p2p_choose(const struct mc_p2p_view *v, uint64_t seed, uint32_t *shard,
		   uint32_t *holder)
{
	struct choose c = { .v = v, .random = seed };

	return choose_among(&c, true, 0, shard, holder) ||
	       choose_among(&c, false, UINT16_MAX, shard, holder) ||
	       choose_among(&c, true, UINT16_MAX, shard, holder);
}
