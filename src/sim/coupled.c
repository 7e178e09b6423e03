/*
 * coupled.c - instances that prefill and decode: the baseline, vLLM 0.5.
 *
 * Plain: an iteration is either the prefill of whole prompts, as many of those
 * that wait as batch_tokens and VRAM allow, or a token for each sequence;
 * prefill goes first, and the sequences stand still meanwhile. Chunked: each
 * iteration gives every sequence a token and fills up batch_tokens with a part
 * of the prompts that wait. A prefix cache lives in the VRAM that sequences
 * leave free.
 */
#include "sim.h"
#include "../base/util.h"

/* How many tokens of @r need not be computed. */
static uint32_t coupled_cached(const struct mc_sim *s, const struct sim_inst *x,
			       const struct sim_req *r, uint32_t *blocks)
{
	uint32_t on_ssd;
	uint64_t tokens;

	*blocks = tiers_prefix(x, r, &on_ssd);
	tokens = (uint64_t)*blocks * s->o.block_tokens;
	return mc_min(tokens, r->todo_tokens - 1);
}

void coupled_place(struct mc_sim *s, struct sim_req *r)
{
	struct sim_inst *x = &s->inst[r->rec.prefill];
	struct mc_instance *f = &s->facts[x->id];
	uint32_t cached = mc_min(f->prefix_tokens, r->rec.input_tokens - 1);

	r->state = SIM_PREFILLING;
	r->rec.ready_s = s->now_s;
	r->todo_tokens = r->rec.input_tokens;
	r->occupies_s = mc_cost_prefill_s(&s->o.cost,
					  r->rec.input_tokens - cached, cached);
	x->backlog_s += r->occupies_s;
	r->expected_s = s->now_s + x->backlog_s;
	f->queued++;
	f->coming++;
	f->context_tokens += r->rec.input_tokens;
	queue_push(&x->queue, r);
	decode_begin(s, x);
}

/* ---- choosing what an iteration computes ---------------------------- */

/* The whole prompt of @r has a place in VRAM from here on. */
static void coupled_start(struct mc_sim *s, struct sim_inst *x,
			  struct sim_req *r, uint32_t cached, uint32_t blocks)
{
	r->begun = true;
	r->done_tokens = cached;
	x->held_tokens += r->todo_tokens;
	if (r->rec.preempted)
		return;
	r->rec.started_s = s->now_s;
	r->rec.local_tokens = cached;
	s->totals.blocks_hit += blocks;
	s->totals.local_tokens += cached;
}

/* Take @n tokens of @r into this iteration; what do they cost? */
static double coupled_take(struct mc_sim *s, struct sim_inst *x,
			   struct sim_req *r, uint32_t n)
{
	double cost_s = mc_cost_prefill_s(&s->o.cost, n, r->done_tokens);

	if (x->chunks.n)
		cost_s -= s->o.cost.prefill_s;
	r->chunk = n;
	queue_del(&x->queue, r);
	queue_push(&x->chunks, r);
	r->rec.prefill_gpu_s += cost_s;
	s->totals.prefill_gpu_s += cost_s;
	return cost_s;
}

static bool coupled_room(const struct mc_sim *s, const struct sim_inst *x,
			 const struct sim_req *r)
{
	return x->n + x->chunks.n < s->o.max_sequences &&
		decode_fits(s, x, r->todo_tokens);
}

/* Choose the prefill of the coming iteration; returns what it costs. */
double coupled_pick(struct mc_sim *s, struct sim_inst *x)
{
	uint64_t budget = s->o.batch_tokens;
	double cost_s = 0;
	struct sim_req *r;

	if (s->o.chunked)
		budget = budget > x->n ? budget - x->n : 0;
	while ((r = x->queue.first) && budget) {
		uint32_t blocks = 0, cached = r->done_tokens, n;

		if (!r->begun) {
			if (!coupled_room(s, x, r))
				break;
			cached = coupled_cached(s, x, r, &blocks);
		}
		n = r->todo_tokens - cached;
		if (n > budget && s->o.chunked)
			n = budget;
		else if (n > budget && x->chunks.n)
			break;		/* alone it may be longer */
		if (!r->begun)
			coupled_start(s, x, r, cached, blocks);
		cost_s += coupled_take(s, x, r, n);
		budget -= mc_min(budget, n);
	}
	return cost_s;
}

/* ---- when it is computed -------------------------------------------- */

/* VRAM that no sequence needs keeps blocks. */
static void coupled_keep(struct mc_sim *s, struct sim_inst *x,
			 struct sim_req *r)
{
	const struct mc_instance *f = &s->facts[x->id];
	double room = s->o.vram_tokens - f->running_tokens - x->held_tokens;

	tiers_store(s, x, r, 0, r->n_blocks);
	if (s->o.vram_tokens)
		tiers_fit(s, x, room > 0 ? room / s->o.block_tokens : 0);
}

static void coupled_done(struct mc_sim *s, struct sim_inst *x,
			 struct sim_req *r)
{
	struct mc_instance *f = &s->facts[x->id];

	r->begun = false;
	x->held_tokens -= r->todo_tokens;
	if (r->produced) {
		r->gaps[r->n_gaps++] = s->now_s - r->last_s;
	} else {
		r->rec.first_s = s->now_s;
		f->queued--;
		x->backlog_s = f->queued ? x->backlog_s - r->occupies_s : 0;
	}
	r->last_s = s->now_s;
	r->produced++;
	coupled_keep(s, x, r);
	if (r->produced < r->rec.output_tokens)
		decode_enter(s, x, r);
	else
		decode_last(s, x, r);
}

/* The prefill part of an iteration is over. */
void coupled_prefilled(struct mc_sim *s, struct sim_inst *x)
{
	struct sim_req *r;

	while ((r = x->chunks.last) && !s->err) {
		queue_del(&x->chunks, r);
		r->done_tokens += r->chunk;
		if (r->done_tokens < r->todo_tokens)
			queue_push_front(&x->queue, r);
		else
			coupled_done(s, x, r);
	}
}
