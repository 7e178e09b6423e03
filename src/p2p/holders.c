/*
 * holders.c - the nodes that an object is fetched from: what their maps say,
 * what asking them for a shard will cost, and which are left alone.
 */
#include "p2p.h"

#include "../base/clock.h"
#include "../base/util.h"

#include <math.h>
#include <stdlib.h>

enum {
	HOLDER_DOWN_MS = 200,		/* doubles up to */
	HOLDER_DOWN_MAX_MS = 5000,
};

static int holder_index(const struct p2p_object *o, const struct p2p_holder *h)
{
	return h - o->holders;
}

static uint64_t *holder_have(struct p2p_object *o, const struct p2p_holder *h)
{
	return o->have + (size_t)holder_index(o, h) *
	       p2p_words(o->r.n_shards);
}

/* ---- slots ------------------------------------------------------------- */

struct p2p_holder *p2p_holder_new(struct p2p_object *o, const char *segment)
{
	struct p2p_holder *h;

	for (int i = 0; i < o->n_holders; i++) {
		h = &o->holders[i];
		if (h->slot != P2P_FREE)
			continue;
		*h = (struct p2p_holder){ .slot = P2P_OPENING, .id = -1 };
		mc_copy(h->segment, segment);
		memset(h->asks, 0xff, sizeof(h->asks));
		h->bases = calloc(o->r.n_buffers, sizeof(*h->bases));
		if (h->bases)
			return h;
		h->slot = P2P_FREE;
	}
	return NULL;
}

static bool holder_counts(const struct p2p_object *o,
			  const struct p2p_holder *h, uint32_t shard)
{
	return !h->source && shard < o->r.n_shards;
}

static void holder_asks(struct p2p_object *o, struct p2p_holder *h,
			const struct p2p_ask *asks)
{
	for (int i = 0; i < P2P_ASKS; i++) {
		if (holder_counts(o, h, h->asks[i].shard))
			o->copies[h->asks[i].shard]--;
		h->asks[i] = asks[i];
		/* What it has is counted by that. */
		if (asks[i].shard < o->r.n_shards &&
		    p2p_bit(holder_have(o, h), asks[i].shard))
			h->asks[i].shard = UINT32_MAX;
		if (holder_counts(o, h, h->asks[i].shard))
			o->copies[h->asks[i].shard]++;
	}
}

/* How many shards each is asked for, by those whose maps we read. */
static void holder_count_asked(struct p2p_object *o)
{
	uint32_t self = p2p_node_tag(o->map->node);

	o->told.readers = 0;
	for (int i = 0; i < o->n_holders; i++)
		o->holders[i].asked = 0;
	for (int i = 0; i < o->n_holders; i++) {
		const struct p2p_holder *by = &o->holders[i];
		bool ours = false;

		for (int k = 0; by->slot == P2P_UP && k < P2P_ASKS; k++) {
			if (by->asks[k].shard == UINT32_MAX)
				continue;
			ours |= by->asks[k].node == self;
			for (int j = 0; j < o->n_holders; j++)
				if (o->holders[j].slot == P2P_UP &&
				    o->holders[j].tag == by->asks[k].node)
					o->holders[j].asked++;
		}
		o->told.readers += ours;
	}
}

/* Nothing is known of it any more. */
static void holder_forget(struct p2p_object *o, struct p2p_holder *h)
{
	uint64_t *have = holder_have(o, h);
	struct p2p_ask none[P2P_ASKS];

	memset(none, 0xff, sizeof(none));
	holder_asks(o, h, none);
	for (uint32_t w = 0; w < p2p_words(o->r.n_shards); w++) {
		uint64_t left = h->source ? 0 : have[w];

		for (; left; left &= left - 1)
			o->copies[w * 64 + __builtin_ctzll(left)]--;
		have[w] = 0;
	}
	h->known = h->complete = false;
	holder_count_asked(o);
}

void p2p_holder_empty(struct p2p_object *o, struct p2p_holder *h)
{
	int id = h->id;

	holder_forget(o, h);
	free(h->bases);
	free(h->offsets);
	*h = (struct p2p_holder){ .slot = P2P_FREE, .id = -1 };
	for (struct p2p_object *x = o->p->objects; x; x = x->next)
		for (int i = 0; i < x->n_holders; i++)
			if (x->holders[i].slot != P2P_FREE &&
			    x->holders[i].id == id)
				return;
	/* Who is being asked for something stays open: it is a cache. */
	if (id >= 0)
		mc_segment_close(o->p->e, id);
}

void p2p_holder_down(struct p2p_object *o, struct p2p_holder *h, uint64_t now)
{
	h->down_ms = h->down_ms ? mc_min(2 * h->down_ms, HOLDER_DOWN_MAX_MS) :
		     HOLDER_DOWN_MS;
	h->down_until_ns = now + h->down_ms * (uint64_t)MC_MS;
	if (!h->silent_ns)
		h->silent_ns = now;
	/* Should it come back, its key brings it here again. */
	if (now > h->silent_ns + o->p->lease_ms * (uint64_t)MC_MS)
		h->slot = P2P_GONE;
	if (h->map_addr)
		holder_forget(o, h);
}

bool p2p_holder_open(const struct p2p_holder *h, uint64_t now)
{
	return h->slot == P2P_UP && now >= h->down_until_ns;
}

uint32_t p2p_holders_up(const struct p2p_object *o)
{
	uint32_t n = 0;

	for (int i = 0; i < o->n_holders; i++)
		n += o->holders[i].slot == P2P_UP && o->holders[i].known;
	return n;
}

/* ---- what they have ---------------------------------------------------- */

static void holder_gets(struct p2p_object *o, struct p2p_holder *h,
			uint32_t w, uint64_t bits)
{
	uint64_t *have = holder_have(o, h), new = bits & ~have[w];

	if (w == o->r.n_shards / 64)
		new &= ((uint64_t)1 << o->r.n_shards % 64) - 1;
	have[w] |= new;
	for (; !h->source && new; new &= new - 1)
		o->copies[w * 64 + __builtin_ctzll(new)]++;
}

static void holder_settle(struct p2p_object *o, struct p2p_holder *h)
{
	const uint64_t *have = holder_have(o, h);
	uint32_t n = 0;

	for (uint32_t w = 0; w < p2p_words(o->r.n_shards); w++)
		n += __builtin_popcountll(have[w]);
	h->complete = n == o->r.n_shards;
	h->known = true;
	h->down_ms = 0;
	h->silent_ns = 0;
	o->sources[holder_index(o, h)] = h->source;
}

bool p2p_holder_map(struct p2p_object *o, struct p2p_holder *h, uint64_t now)
{
	uint32_t words = p2p_words(o->r.n_shards);
	const struct p2p_map *m = (const void *)
		(o->landing + (size_t)holder_index(o, h) *
		 p2p_map_bytes(o->r.n_shards, o->r.n_buffers));

	if (m->magic != P2P_MAP_MAGIC || m->version != P2P_MAP_VERSION ||
	    m->id != o->r.id || m->shards != o->r.n_shards ||
	    m->buffers != o->r.n_buffers)
		return false;
	if (!h->known)
		h->source = m->source == 1;
	h->tag = p2p_node_tag(m->node);
	for (uint32_t w = 0; w < words; w++) {
		holder_gets(o, h, w, m->words[w]);
		p2p_rumour(o, w, m->words[words + w]);
	}
	memcpy(h->bases, m->words + 2 * words, 8 * o->r.n_buffers);
	holder_asks(o, h, m->asks);
	holder_count_asked(o);
	h->seen_ns = now;
	holder_settle(o, h);
	return true;
}

void p2p_holder_static(struct p2p_object *o, struct p2p_holder *h)
{
	for (uint32_t i = 0; i < o->r.n_shards; i++)
		if (h->offsets[i])
			holder_gets(o, h, i / 64, (uint64_t)1 << i % 64);
	holder_settle(o, h);
}

/* ---- what they cost ---------------------------------------------------- */

/* The time of a shard at a holder that has sent none yet: as of the others. */
static double holder_usual_s(const struct p2p_object *o)
{
	double sum = 0;
	int n = 0;

	for (int i = 0; i < o->n_holders; i++)
		if (o->holders[i].slot == P2P_UP && o->holders[i].shard_s > 0) {
			sum += o->holders[i].shard_s;
			n++;
		}
	return n ? sum / n : 1e-3;
}

/* Only some ask a source, so that it has few readers and they know what the
 * others have asked. Among few nodes, whoever has got nothing for a while does
 * so too; among many, that would be a rush. */
static bool holder_for_others(const struct p2p_object *o,
			      const struct p2p_holder *h, uint64_t now)
{
	double quiet_s = mc_max(1, 4 * o->flight_s);

	return h->source && !o->in_ring &&
	       (o->digits || now < o->moved_ns + quiet_s * 1e9);
}

/* What was measured is worth less with time, or who was slow once would never
 * be asked again. */
static double holder_shard_s(const struct p2p_object *o,
			     const struct p2p_holder *h, double usual_s,
			     uint64_t now)
{
	double age_s = (now - h->shard_ns) / 1e9;
	double trust = 1 - age_s / mc_max(8 * o->flight_s, 0.1);

	return h->shard_s <= 0 || trust <= 0 ? usual_s :
	       usual_s + (h->shard_s - usual_s) * trust;
}

/* It sends what it is asked for at once, each at its share of the link. */
static float holder_cost(const struct p2p_object *o,
			 const struct p2p_holder *h, double usual_s,
			 uint32_t per_holder, uint64_t now)
{
	uint32_t asks = h->mine + h->asked;

	if (!p2p_holder_open(h, now) || !h->known || h->lies >= P2P_LIES ||
	    h->mine >= per_holder || holder_for_others(o, h, now))
		return INFINITY;
	if (asks >= (uint32_t)o->p->fanout)
		return INFINITY;
	return (asks + 1) * holder_shard_s(o, h, usual_s, now);
}

/* Is there only one to ask? */
static bool holder_alone(const struct p2p_object *o)
{
	int n = 0;

	for (int i = 0; i < o->n_holders; i++)
		n += o->holders[i].slot == P2P_UP;
	return n == 1;
}

bool p2p_choose(struct p2p_object *o, const uint64_t *wanted, int but,
		uint64_t now, uint32_t *shard, int *holder)
{
	uint32_t per = holder_alone(o) ? (uint32_t)o->p->parallel :
		       o->told.shards_here ? P2P_PER_HOLDER : 1;
	uint32_t chosen;
	double usual = holder_usual_s(o);
	struct mc_p2p_view v = {
		.shards = o->r.n_shards, .holders = o->n_holders,
		.wanted = wanted, .have = o->have, .copies = o->copies,
		.cost = o->cost, .source = o->sources,
	};

	for (int i = 0; i < o->n_holders; i++)
		o->cost[i] = i == but ? INFINITY :
			     holder_cost(o, &o->holders[i], usual, per, now);
	if (!mc_p2p_choose(&v, p2p_random(o->p), shard, &chosen))
		return false;
	*holder = chosen;
	return true;
}
