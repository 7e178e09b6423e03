/*
 * hits.c - what caches would do for a whole trace, and the best that any could.
 *
 * The trace is numbers of blocks, in the order of their first use, so that a
 * cache can be run over it again and again without reading it.
 *
 * The optimum (Belady: "A study of replacement algorithms for a virtual-storage
 * computer", IBM Systems Journal 5(2), 1966) puts out the block that is used
 * again last. What it keeps is known by the places in the trace where its
 * blocks are used next, so the cache is a set of places: the use at place i is
 * a hit if i is in the set; then i leaves it, the block's next use comes in,
 * and if that makes too many, the largest goes. The set is a tree of bits, 64
 * to a word, so each of these takes a word per level. A block that would go
 * first (never used again, say) passes by without taking another's place.
 *
 * With ids that are prefixes, a block's next use comes after its predecessor's,
 * so the optimum for single blocks keeps prefixes whole, and is the optimum for
 * hits counted in prefixes too.
 */
#include "cache.h"
#include "../base/err.h"
#include "../base/util.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { HITS_LEVELS = 6 };		/* 64^6 > 2^32 */

struct mc_hits {
	struct mc_cache *known;		/* without bound: numbers the ids */
	struct mc_hits_block *blocks;	/* by number */
	uint64_t cap_blocks;
	uint32_t *uses;			/* numbers of blocks, all requests */
	uint64_t n_uses, cap_uses;
	uint32_t *lens;			/* blocks of each request */
	uint64_t n_reqs, cap_reqs;
	uint32_t *next;			/* use of the same block, n_uses: none;
					 * NULL: not known yet */
};

/* ---- the trace ---------------------------------------------------------- */

static int hits_full(void)
{
	return mc_err(-ENOMEM, "no memory for the blocks of the trace");
}

/* An array with room for @more entries than the @n in it: it doubles. */
static void *hits_grown(void *array, uint64_t n, uint64_t more, uint64_t *cap,
			size_t size)
{
	uint64_t want = mc_max(*cap, 1024u);

	if (array && n + more <= *cap)
		return array;
	while (want < n + more)
		want *= 2;
	array = realloc(array, want * size);
	if (array)
		*cap = want;
	return array;
}

/* The number of a block to @out; a new one gets the next. 1 if it is known. */
static int hits_number(struct mc_hits *h, uint64_t id, uint32_t *out)
{
	struct mc_hits_block *b = h->blocks;
	uint64_t none;
	int r = mc_cache_touch(h->known, id, 0, &none);

	if (r < 0)
		return r;
	*out = mc_cache_slot(h->known, id) - CACHE_LISTS;
	if (r == MC_CACHE_NEW) {
		b = hits_grown(b, *out, 1, &h->cap_blocks, sizeof(*b));
		if (!b)
			return hits_full();
		h->blocks = b;
		b[*out] = (struct mc_hits_block){ .id = id };
	}
	b[*out].uses++;
	return r == MC_CACHE_HIT;
}

static int hits_numbers(struct mc_hits *h, const struct mc_trace_req *r)
{
	int prefix = 0;

	for (uint32_t i = 0; i < r->n_blocks; i++) {
		int known = hits_number(h, r->blocks[i],
					&h->uses[h->n_uses + i]);

		if (known < 0)
			return known;
		prefix += known && prefix == (int)i;
	}
	h->n_uses += r->n_blocks;
	return prefix;
}

int mc_hits_add(struct mc_hits *h, const struct mc_trace_req *r)
{
	uint32_t *uses = hits_grown(h->uses, h->n_uses, r->n_blocks,
				    &h->cap_uses, sizeof(*uses));
	uint32_t *lens;

	if (!uses)
		return hits_full();
	h->uses = uses;
	lens = hits_grown(h->lens, h->n_reqs, 1, &h->cap_reqs, sizeof(*lens));
	if (!lens)
		return hits_full();
	h->lens = lens;
	if (h->n_uses + r->n_blocks >= UINT32_MAX)
		return mc_err(-EOVERFLOW, "a trace of more than 2^32 blocks");
	lens[h->n_reqs++] = r->n_blocks;
	free(h->next);
	h->next = NULL;
	return hits_numbers(h, r);
}

int mc_hits_open(struct mc_hits **out)
{
	struct mc_hits *h = calloc(1, sizeof(*h));
	int r;

	if (!h)
		return hits_full();
	r = mc_cache_open(&h->known, "fifo", 0);
	if (r < 0) {
		free(h);
		return r;
	}
	*out = h;
	return 0;
}

void mc_hits_close(struct mc_hits *h)
{
	if (!h)
		return;
	mc_cache_close(h->known);
	free(h->blocks);
	free(h->uses);
	free(h->lens);
	free(h->next);
	free(h);
}

uint64_t mc_hits_blocks(const struct mc_hits *h)
{
	return h->n_uses;
}

uint64_t mc_hits_unique(const struct mc_hits *h,
			const struct mc_hits_block **out)
{
	*out = h->blocks;
	return mc_cache_used(h->known);
}

/* ---- a set of places ---------------------------------------------------- */

struct hits_set {
	uint64_t *level[HITS_LEVELS];	/* a bit of one level: a word below */
	int levels;
	uint64_t *words;		/* of all levels */
};

static int hits_set_open(struct hits_set *s, uint64_t n)
{
	uint64_t size = 0, at = 0, bits = n;

	do {
		bits = bits / 64 + 1;
		size += bits;
	} while (bits > 1);
	*s = (struct hits_set){ .words = calloc(size, sizeof(*s->words)) };
	if (!s->words)
		return hits_full();
	bits = n;
	do {
		s->level[s->levels++] = s->words + at;
		bits = bits / 64 + 1;
		at += bits;
	} while (bits > 1);
	return 0;
}

static bool hits_set_has(const struct hits_set *s, uint64_t i)
{
	return s->level[0][i / 64] >> i % 64 & 1;
}

static void hits_set_add(struct hits_set *s, uint64_t i)
{
	for (int l = 0; l < s->levels; l++, i /= 64)
		s->level[l][i / 64] |= (uint64_t)1 << i % 64;
}

static void hits_set_del(struct hits_set *s, uint64_t i)
{
	for (int l = 0; l < s->levels; l++, i /= 64) {
		s->level[l][i / 64] &= ~((uint64_t)1 << i % 64);
		if (s->level[l][i / 64])
			break;
	}
}

/* Of a set that is not empty. */
static uint64_t hits_set_max(const struct hits_set *s)
{
	uint64_t i = 0;

	for (int l = s->levels - 1; l >= 0; l--)
		i = i * 64 + 63 - __builtin_clzll(s->level[l][i]);
	return i;
}

/* ---- counting ----------------------------------------------------------- */

/* For each use the place of the next use of the same block. */
static int hits_next(struct mc_hits *h)
{
	uint64_t unique = mc_cache_used(h->known);
	uint32_t *soonest;

	if (h->next)
		return 0;
	h->next = malloc((h->n_uses + 1) * sizeof(*h->next));
	soonest = malloc((unique + 1) * sizeof(*soonest));
	if (!h->next || !soonest) {
		free(h->next);
		free(soonest);
		h->next = NULL;
		return hits_full();
	}
	for (uint64_t b = 0; b < unique; b++)
		soonest[b] = h->n_uses;
	for (uint64_t i = h->n_uses; i-- > 0;) {
		h->next[i] = soonest[h->uses[i]];
		soonest[h->uses[i]] = i;
	}
	free(soonest);
	return 0;
}

/* A use at place @i: was it in the set, which keeps @capacity places? */
static bool hits_use(struct mc_hits *h, struct hits_set *s, uint64_t i,
		     uint64_t capacity, uint64_t *kept)
{
	bool hit = hits_set_has(s, i);

	if (hit) {
		hits_set_del(s, i);
		--*kept;
	}
	if (h->next[i] == h->n_uses)
		return hit;
	hits_set_add(s, h->next[i]);
	if (++*kept > capacity) {
		hits_set_del(s, hits_set_max(s));
		--*kept;
	}
	return hit;
}

static int64_t hits_belady(struct mc_hits *h, uint64_t capacity)
{
	uint64_t hits = 0, at = 0, kept = 0;
	struct hits_set set;
	int r = hits_next(h);

	if (!r)
		r = hits_set_open(&set, h->n_uses);
	if (r < 0)
		return r;
	for (uint64_t q = 0; q < h->n_reqs; q++) {
		bool prefix = true;

		for (uint32_t i = 0; i < h->lens[q]; i++) {
			prefix &= hits_use(h, &set, at++, capacity, &kept);
			hits += prefix;
		}
	}
	free(set.words);
	return hits;
}

/* The prefix that is there is what is there of a request before the first of
 * its blocks that is not: up to then, nothing has come in or gone. */
static int64_t hits_policy(const struct mc_hits *h, const char *policy,
			   uint64_t capacity)
{
	uint64_t hits = 0, at = 0, gone;
	struct mc_cache *c = NULL;
	int r = mc_cache_open(&c, policy, capacity);

	for (uint64_t q = 0; r >= 0 && q < h->n_reqs; q++) {
		bool prefix = true;

		for (uint32_t i = 0; r >= 0 && i < h->lens[q]; i++) {
			r = mc_cache_touch(c, h->uses[at++], i, &gone);
			prefix &= r == MC_CACHE_HIT;
			hits += prefix;
		}
	}
	mc_cache_close(c);
	return r < 0 ? r : (int64_t)hits;
}

int64_t mc_hits_count(struct mc_hits *h, const char *policy, uint64_t capacity)
{
	if (!strcmp(policy, "belady"))
		return hits_belady(h, capacity ? capacity : UINT64_MAX);
	return hits_policy(h, policy, capacity);
}
