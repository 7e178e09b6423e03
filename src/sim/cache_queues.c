/*
 * cache_queues.c - cache policies that keep blocks in queues: lru, fifo, sieve,
 * s3fifo. All are O(1) for a touch, the last two on average over many.
 *
 * sieve: Zhang, Yang, Yue, Vigfusson, Rashmi: "SIEVE is Simpler than LRU", NSDI
 * 2024, algorithm 1. A hand goes from the oldest block to the newest; it lets
 * stay, once, what was used since it came by.
 *
 * s3fifo: Yang, Zhang, Qiu, Yue, Rashmi: "FIFO queues are all you need for
 * cache eviction", SOSP 2023, algorithm 1. New blocks go through a small queue,
 * a tenth of the cache; from there to the main queue if they were used more
 * than once meanwhile, else out, and then they are remembered: a block that
 * comes back soon goes to the main queue at once. Where a move to the main
 * queue makes that too long, the algorithm puts out a block of each; here the
 * one of the main queue is enough, since one block makes room for one.
 */
#include "cache.h"

/* ---- lru and fifo ------------------------------------------------------- */

static void queues_insert(struct mc_cache *c, uint32_t slot, uint32_t position)
{
	(void)position;
	cache_link(c, CACHE_QUEUE, slot);
}

static uint32_t queues_pop(struct mc_cache *c, uint32_t list)
{
	uint32_t slot = cache_oldest(c, list);

	cache_unlink(c, slot);
	return slot;
}

static uint32_t queues_victim(struct mc_cache *c)
{
	return queues_pop(c, CACHE_QUEUE);
}

static void lru_hit(struct mc_cache *c, uint32_t slot, uint32_t position)
{
	cache_unlink(c, slot);
	queues_insert(c, slot, position);
}

static void fifo_hit(struct mc_cache *c, uint32_t slot, uint32_t position)
{
	(void)c, (void)slot, (void)position;
}

const struct cache_policy mc_cache_lru = {
	.name = "lru",
	.hit = lru_hit,
	.insert = queues_insert,
	.victim = queues_victim,
};

const struct cache_policy mc_cache_fifo = {
	.name = "fifo",
	.hit = fifo_hit,
	.insert = queues_insert,
	.victim = queues_victim,
};

/* ---- sieve -------------------------------------------------------------- */

static void sieve_hit(struct mc_cache *c, uint32_t slot, uint32_t position)
{
	(void)position;
	c->slots[slot].uses = 1;
}

/* The list's end is slot CACHE_QUEUE, which the hand passes over. */
static uint32_t sieve_victim(struct mc_cache *c)
{
	uint32_t slot = c->hand;

	while (slot == CACHE_QUEUE || c->slots[slot].uses) {
		c->slots[slot].uses = 0;
		slot = c->slots[slot].newer;
	}
	c->hand = c->slots[slot].newer;
	cache_unlink(c, slot);
	return slot;
}

const struct cache_policy mc_cache_sieve = {
	.name = "sieve",
	.hit = sieve_hit,
	.insert = queues_insert,
	.victim = sieve_victim,
};

/* ---- s3fifo ------------------------------------------------------------- */

/* It remembers as many blocks as the main queue has room for. Without bound
 * nothing has to go, and there is nothing to remember. */
static int s3fifo_grow(struct mc_cache *c, uint32_t n)
{
	(void)n;
	if (!c->capacity || c->ghost)
		return 0;
	return mc_cache_open(&c->ghost, "fifo",
			     c->capacity - c->capacity / 10);
}

static void s3fifo_close(struct mc_cache *c)
{
	mc_cache_close(c->ghost);
}

static void s3fifo_hit(struct mc_cache *c, uint32_t slot, uint32_t position)
{
	(void)position;
	if (c->slots[slot].uses < 3)
		c->slots[slot].uses++;
}

static void s3fifo_to_main(struct mc_cache *c, uint32_t slot)
{
	c->slots[slot].uses = 0;
	c->slots[slot].in_main = 1;
	cache_link(c, CACHE_MAIN, slot);
}

static void s3fifo_insert(struct mc_cache *c, uint32_t slot, uint32_t position)
{
	if (c->ghost && mc_cache_forget(c->ghost, c->slots[slot].id)) {
		s3fifo_to_main(c, slot);
		return;
	}
	c->in_queue++;
	queues_insert(c, slot, position);
}

static uint32_t s3fifo_of_main(struct mc_cache *c)
{
	for (;;) {
		uint32_t slot = queues_pop(c, CACHE_MAIN);

		if (!c->slots[slot].uses)
			return slot;
		c->slots[slot].uses--;
		cache_link(c, CACHE_MAIN, slot);
	}
}

/* Whoever leaves the queue leaves it at a tenth of the cache or more. Where a
 * move to the main queue brings it below, the main queue is too long. */
static uint32_t s3fifo_victim(struct mc_cache *c)
{
	while (10 * (uint64_t)c->in_queue >= c->used) {
		uint32_t slot = queues_pop(c, CACHE_QUEUE);
		uint64_t forgotten;

		c->in_queue--;
		if (c->slots[slot].uses < 2) {
			/* Without memory it goes unremembered. */
			if (c->ghost)
				mc_cache_touch(c->ghost, c->slots[slot].id, 0,
					       &forgotten);
			return slot;
		}
		s3fifo_to_main(c, slot);
	}
	return s3fifo_of_main(c);
}

const struct cache_policy mc_cache_s3fifo = {
	.name = "s3fifo",
	.grow = s3fifo_grow,
	.close = s3fifo_close,
	.hit = s3fifo_hit,
	.insert = s3fifo_insert,
	.victim = s3fifo_victim,
};
