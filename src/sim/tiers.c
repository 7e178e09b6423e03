/*
 * tiers.c - the KV cache of an instance, and what the index knows of it.
 *
 * DRAM first; what it evicts goes to SSD where there is one, and is lost when
 * that evicts it. A block that is used comes back to DRAM and keeps its copy on
 * SSD. A coupled instance has one tier, the part of its VRAM that sequences
 * leave free. The index sees changes event_lag_s late.
 */
#include "sim.h"
#include "../base/err.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

static uint64_t tiers_blocks(const struct mc_sim *s, const struct sim_inst *x,
			     uint64_t tokens)
{
	uint64_t n = tokens * x->nodes / s->o.block_tokens;

	return n ? n : 1;
}

int tiers_open(struct mc_sim *s, struct sim_inst *x)
{
	uint64_t blocks = 0;
	int r;

	if (s->o.dram_tokens && !sim_coupled(s))
		blocks = tiers_blocks(s, x, s->o.dram_tokens);
	r = mc_cache_open(&x->dram, s->o.eviction, blocks);
	if (r < 0 || !s->o.ssd_tokens || sim_coupled(s))
		return r;
	return mc_cache_open(&x->ssd, s->o.eviction,
			     tiers_blocks(s, x, s->o.ssd_tokens));
}

void tiers_close(struct sim_inst *x)
{
	mc_cache_close(x->dram);
	mc_cache_close(x->ssd);
}

/* How many leading blocks of @r are here, and how many of them on SSD only. */
uint32_t tiers_prefix(const struct sim_inst *x, const struct sim_req *r,
		      uint32_t *on_ssd)
{
	uint32_t i;

	*on_ssd = 0;
	if (!x->dram)
		return 0;
	if (!x->ssd)
		return mc_cache_prefix(x->dram, r->blocks, r->n_blocks);
	for (i = 0; i < r->n_blocks; i++) {
		if (mc_cache_has(x->dram, r->blocks[i]))
			continue;
		if (!mc_cache_has(x->ssd, r->blocks[i]))
			break;
		++*on_ssd;
	}
	return i;
}

/* ---- the index ------------------------------------------------------ */

static void tiers_apply(struct mc_sim *s, const struct sim_change *c)
{
	int r = c->added ? mc_index_add(s->index, c->instance, &c->id, 1) :
			   mc_index_del(s->index, c->instance, &c->id, 1);

	sim_check(s, r);
}

static int tiers_grow(struct mc_sim *s)
{
	uint64_t size = s->change_size ? s->change_size * 2 : 1024, i;
	struct sim_change *ring = malloc(size * sizeof(*ring));

	if (!ring)
		return mc_err(-ENOMEM, "no memory for cache events on their "
			      "way to the index");
	for (i = s->change_first; i < s->change_end; i++)
		ring[i % size] = s->changes[i % s->change_size];
	free(s->changes);
	s->changes = ring;
	s->change_size = size;
	return 0;
}

static void tiers_note(struct mc_sim *s, struct sim_inst *x, uint64_t id,
		       bool added)
{
	struct sim_change c = {
		s->now_s + s->o.event_lag_s, id, x->id, added
	};
	int r;

	if (added)
		x->stored++;
	else
		x->evicted++;
	if (s->o.event_lag_s <= 0) {
		tiers_apply(s, &c);
		return;
	}
	if (s->change_end - s->change_first == s->change_size) {
		r = tiers_grow(s);
		if (r < 0) {
			sim_check(s, r);
			return;
		}
	}
	s->changes[s->change_end++ % s->change_size] = c;
}

/* Let the index see what it is to see by @until_s. */
void tiers_publish(struct mc_sim *s, double until_s)
{
	while (s->change_first < s->change_end) {
		const struct sim_change *c =
			&s->changes[s->change_first % s->change_size];

		if (c->at_s > until_s)
			return;
		tiers_apply(s, c);
		s->change_first++;
	}
}

/* ---- storing -------------------------------------------------------- */

/* DRAM has evicted a block. */
static void tiers_demote(struct mc_sim *s, struct sim_inst *x, uint64_t id)
{
	uint64_t lost;
	int r;

	if (!x->ssd) {
		tiers_note(s, x, id, false);
		return;
	}
	r = mc_cache_touch(x->ssd, id, 0, &lost);
	sim_check(s, r);
	if (r == MC_CACHE_EVICTED && !mc_cache_has(x->dram, lost))
		tiers_note(s, x, lost, false);
}

/* Use the blocks [@from, @to) of @r in order; those missing come in. */
void tiers_store(struct mc_sim *s, struct sim_inst *x, const struct sim_req *r,
		 uint32_t from, uint32_t to)
{
	uint32_t i;

	for (i = from; x->dram && i < to && !s->err; i++) {
		uint64_t evicted;
		int did = mc_cache_touch(x->dram, r->blocks[i], i, &evicted);
		bool had = did == MC_CACHE_HIT ||
			(x->ssd && mc_cache_has(x->ssd, r->blocks[i]));

		sim_check(s, did);
		if (did == MC_CACHE_EVICTED)
			tiers_demote(s, x, evicted);
		if (!had)
			tiers_note(s, x, r->blocks[i], true);
	}
}

/* Coupled: keep at most @blocks. */
void tiers_fit(struct mc_sim *s, struct sim_inst *x, uint64_t blocks)
{
	uint64_t id;

	while (x->dram && mc_cache_used(x->dram) > blocks &&
	       mc_cache_evict(x->dram, &id))
		tiers_note(s, x, id, false);
}
