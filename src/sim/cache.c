/*
 * cache.c - caches of KV blocks: which block is there, and who must go.
 *
 * This file has the slots, the hash table over them (linear probing at a load
 * of at most one half) and the interface; the policies are in cache_queues.c
 * and cache_ranked.c. A block takes a slot of 16 bytes and 8 to 16 bytes of
 * table, with "lfu" and "length" 24 bytes more, and with "s3fifo" as much again
 * for nine tenths of the capacity, which it remembers. The arrays double as
 * they fill, up to the capacity.
 */
#include "cache.h"
#include "../base/err.h"
#include "../base/util.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
	CACHE_FIRST = 64,		/* slots */
	CACHE_MOST = 1 << 30,		/* as the bits in a slot allow */
};

static const struct cache_policy *const cache_policies[] = {
	&mc_cache_lru, &mc_cache_lfu, &mc_cache_fifo, &mc_cache_length,
	&mc_cache_s3fifo, &mc_cache_sieve,
};

/* ---- the table ---------------------------------------------------------- */

static uint32_t cache_home(const struct mc_cache *c, uint64_t id)
{
	return id * 0x9e3779b97f4a7c15u >> c->shift;
}

static uint32_t cache_mask(const struct mc_cache *c)
{
	return ((uint64_t)1 << (64 - c->shift)) - 1;
}

/* Where in the table a block is, or would be. */
static uint32_t cache_find(const struct mc_cache *c, uint64_t id)
{
	uint32_t at = cache_home(c, id), mask = cache_mask(c);

	while (c->table[at] && c->slots[c->table[at]].id != id)
		at = (at + 1) & mask;
	return at;
}

/* Take out an entry, and move into the hole what was put behind it only
 * because it was taken (Knuth, The Art of Computer Programming 3, 6.4 R). */
static void cache_unhash(struct mc_cache *c, uint32_t hole)
{
	uint32_t mask = cache_mask(c), at = hole;

	for (;;) {
		uint32_t slot, home;

		at = (at + 1) & mask;
		slot = c->table[at];
		if (!slot)
			break;
		home = cache_home(c, c->slots[slot].id);
		if (((at - home) & mask) < ((at - hole) & mask))
			continue;
		c->table[hole] = slot;
		hole = at;
	}
	c->table[hole] = 0;
}

/* ---- the slots ---------------------------------------------------------- */

static int cache_full(uint32_t n)
{
	return mc_err(-ENOMEM, "no memory for a cache of %u blocks", n);
}

static int cache_resize(struct mc_cache *c, uint32_t n)
{
	struct cache_slot *slots = realloc(c->slots, n * sizeof(*slots));
	uint32_t *table;
	int shift = 64;

	if (!slots)
		return cache_full(n);
	c->slots = slots;
	if (c->policy->grow && c->policy->grow(c, n) < 0)
		return cache_full(n);
	while ((uint64_t)1 << (64 - shift) < 2 * (uint64_t)n)
		shift--;
	table = calloc((uint64_t)1 << (64 - shift), sizeof(*table));
	if (!table)
		return cache_full(n);
	free(c->table);
	c->table = table;
	c->shift = shift;
	c->n_slots = n;
	for (uint32_t slot = CACHE_LISTS; slot < c->top; slot++)
		c->table[cache_find(c, c->slots[slot].id)] = slot;
	return 0;
}

/* Make sure that there is an empty slot. */
static int cache_room(struct mc_cache *c)
{
	uint64_t n = 2 * (uint64_t)c->n_slots;

	if (c->free || c->top < c->n_slots)
		return 0;
	if (c->capacity)
		n = mc_min(n, c->capacity + CACHE_LISTS);
	if (n > CACHE_MOST)
		return cache_full(UINT32_MAX);
	return cache_resize(c, n);
}

static uint32_t cache_take(struct mc_cache *c)
{
	uint32_t slot = c->free;

	if (slot)
		c->free = c->slots[slot].older;
	else
		slot = c->top++;
	c->used++;
	return slot;
}

/* Forget a slot that no list has any more. */
static void cache_give(struct mc_cache *c, uint32_t slot)
{
	cache_unhash(c, cache_find(c, c->slots[slot].id));
	c->slots[slot].older = c->free;
	c->free = slot;
	c->used--;
}

/* ---- the interface ------------------------------------------------------ */

static const struct cache_policy *cache_policy(const char *name)
{
	for (size_t i = 0; i < mc_array_len(cache_policies); i++)
		if (!strcmp(name, cache_policies[i]->name))
			return cache_policies[i];
	return NULL;
}

int mc_cache_open(struct mc_cache **out, const char *policy, uint64_t capacity)
{
	const struct cache_policy *p = cache_policy(policy ? policy : "lru");
	struct mc_cache *c;
	uint64_t n = CACHE_FIRST;
	int r;

	if (!p)
		return mc_err(-EINVAL, "cache policy '%s': no such; there are "
			      "lru, lfu, fifo, length, s3fifo and sieve",
			      policy);
	c = calloc(1, sizeof(*c));
	if (!c)
		return cache_full(0);
	c->policy = p;
	c->capacity = capacity;
	c->top = CACHE_LISTS;
	if (capacity)
		n = mc_min(n, capacity + CACHE_LISTS);
	r = cache_resize(c, n);
	if (r < 0) {
		mc_cache_close(c);
		return r;
	}
	for (uint32_t list = 0; list < CACHE_LISTS; list++)
		c->slots[list] = (struct cache_slot){
			.newer = list, .older = list };
	*out = c;
	return 0;
}

void mc_cache_close(struct mc_cache *c)
{
	if (!c)
		return;
	if (c->policy->close)
		c->policy->close(c);
	free(c->table);
	free(c->slots);
	free(c);
}

bool mc_cache_evict(struct mc_cache *c, uint64_t *id)
{
	uint32_t slot;

	if (!c->used)
		return false;
	slot = c->policy->victim(c);
	*id = c->slots[slot].id;
	cache_give(c, slot);
	return true;
}

uint32_t mc_cache_slot(const struct mc_cache *c, uint64_t id)
{
	return c->table[cache_find(c, id)];
}

int mc_cache_touch(struct mc_cache *c, uint64_t id, uint32_t position,
		   uint64_t *evicted)
{
	uint32_t slot = mc_cache_slot(c, id);
	int r = MC_CACHE_NEW;

	if (slot) {
		c->policy->hit(c, slot, position);
		return MC_CACHE_HIT;
	}
	if (c->capacity && c->used == c->capacity) {
		mc_cache_evict(c, evicted);
		r = MC_CACHE_EVICTED;
	} else if (cache_room(c) < 0) {
		return -ENOMEM;
	}
	slot = cache_take(c);
	c->slots[slot] = (struct cache_slot){ .id = id };
	c->table[cache_find(c, id)] = slot;
	c->policy->insert(c, slot, position);
	return r;
}

bool mc_cache_forget(struct mc_cache *c, uint64_t id)
{
	uint32_t slot = mc_cache_slot(c, id);

	if (!slot)
		return false;
	cache_unlink(c, slot);
	cache_give(c, slot);
	return true;
}

bool mc_cache_has(const struct mc_cache *c, uint64_t id)
{
	return mc_cache_slot(c, id);
}

uint64_t mc_cache_used(const struct mc_cache *c)
{
	return c->used;
}

uint32_t mc_cache_prefix(const struct mc_cache *c, const uint64_t *ids,
			 uint32_t n)
{
	uint32_t i = 0;

	while (i < n && mc_cache_has(c, ids[i]))
		i++;
	return i;
}
