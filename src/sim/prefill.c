/*
 * prefill.c - the prefill side of a disaggregated cluster.
 *
 * A prefill instance is a pipeline of nodes (chunked pipeline parallelism, FAST
 * paper, section 3.2) that takes one request after the other, first come first
 * served among those whose prefix has been fetched. A chunk passes the nodes
 * one after the other and each takes its share of the layers, so a lone chunk
 * is as slow as on one node and the chunks of one request overlap. The cached
 * prefix is loaded to the GPU layer by layer while it computes, and new KV
 * cache leaves for the decode instance in the same way: with that overlap a
 * prefill takes the longer of computing and loading, and its stream has the
 * rate at which it is made, network permitting.
 */
#include "sim.h"

#include <math.h>

static double prefill_bytes(const struct mc_sim *s, double tokens)
{
	return tokens * s->o.cost.kv_bytes_token;
}

static uint32_t prefill_tokens(const struct mc_sim *s, const struct sim_req *r,
			       uint32_t blocks)
{
	uint64_t tokens = (uint64_t)blocks * s->o.block_tokens;

	return tokens < r->rec.input_tokens ? tokens : r->rec.input_tokens;
}

/* ---- computing ------------------------------------------------------ */

/* The last token is computed in any case: it gives the first of the answer. */
static uint32_t prefill_cached(const struct sim_req *r)
{
	uint32_t cached = r->rec.local_tokens + r->rec.remote_tokens;

	return cached < r->rec.input_tokens ? cached : r->rec.input_tokens - 1;
}

static uint32_t prefill_chunk(const struct mc_sim *s, uint32_t left)
{
	uint32_t chunk = s->o.chunk_tokens;

	return chunk && chunk < left ? chunk : left;
}

static void prefill_cost(const struct mc_sim *s, const struct sim_inst *x,
			 struct sim_req *r)
{
	uint32_t done = prefill_cached(r), n;
	double moved = done;

	r->compute_s = 0;
	for (; done < r->rec.input_tokens; done += n) {
		n = prefill_chunk(s, r->rec.input_tokens - done);
		r->compute_s += mc_cost_prefill_s(&s->o.cost, n, done);
	}
	if (s->o.no_overlap)
		moved = r->rec.input_tokens;
	r->load_s = s->o.h2d_Bps > 0 ?
		prefill_bytes(s, moved) / (s->o.h2d_Bps * x->nodes) : 0;
	r->occupies_s = r->compute_s / x->nodes;
	if (s->o.no_overlap)
		r->occupies_s += r->load_s;
	else if (r->load_s > r->occupies_s)
		r->occupies_s = r->load_s;
}

/* Lead the chunks of @r through the pipeline; when is the last one out? */
static double prefill_run(struct mc_sim *s, struct sim_inst *x,
			  struct sim_req *r)
{
	uint32_t left = r->rec.input_tokens - prefill_cached(r);
	double scale = r->occupies_s * x->nodes / r->compute_s, out = 0;
	uint32_t i, n;

	for (; left; left -= n) {
		uint32_t done = r->rec.input_tokens - left;
		double stage_s;

		n = prefill_chunk(s, left);
		stage_s = mc_cost_prefill_s(&s->o.cost, n, done) * scale /
			x->nodes;
		out = s->now_s;
		for (i = 0; i < x->nodes; i++) {
			if (x->stage_free_s[i] > out)
				out = x->stage_free_s[i];
			out += stage_s;
			x->stage_free_s[i] = out;
		}
	}
	return out;
}

/* ---- the way of a request ------------------------------------------- */

static void prefill_stream(struct mc_sim *s, struct sim_req *r, double over_s)
{
	struct sim_inst *from = &s->inst[r->rec.prefill];
	struct sim_inst *to = &s->inst[r->rec.decode];
	double bytes = prefill_bytes(s, r->rec.input_tokens);

	r->streaming = true;
	sim_flow(s, r, bytes, over_s > 0 ? bytes / over_s : INFINITY,
		 &from->out, &to->in, NULL);
}

static void prefill_start(struct mc_sim *s, struct sim_inst *x,
			  struct sim_req *r)
{
	double end_s;

	queue_del(&x->queue, r);
	x->backlog_s = x->queue.n ? x->backlog_s - r->occupies_s : 0;
	r->rec.started_s = s->now_s;
	r->rec.prefill_gpu_s = r->compute_s;
	s->totals.prefill_gpu_s += r->compute_s;
	end_s = prefill_run(s, x, r);
	r->timer.what = SIM_PREFILLED;
	sim_timer(s, &r->timer, end_s);
	sim_timer(s, &x->timer, x->stage_free_s[0]);
	if (!s->o.no_overlap && r->rec.output_tokens > 1)
		prefill_stream(s, r, end_s - s->now_s);
}

/* Start what can start. */
void prefill_next(struct mc_sim *s, struct sim_inst *x)
{
	struct sim_req *r;

	if (x->timer.pos || x->stage_free_s[0] > s->now_s)
		return;
	for (r = x->queue.first; r; r = r->next) {
		if (!r->fetching) {
			prefill_start(s, x, r);
			return;
		}
	}
}

/* What @source has beyond @own blocks comes over the network. */
static uint32_t prefill_fetch(struct mc_sim *s, struct sim_req *r,
			      struct sim_inst *source, struct sim_inst *x,
			      uint32_t own)
{
	uint32_t on_ssd, best = tiers_prefix(source, r, &on_ssd);
	double bytes, slow;

	if (best <= own)
		return own;
	bytes = prefill_bytes(s, prefill_tokens(s, r, best) -
			      prefill_tokens(s, r, own));
	/* Any of them may be those on SSD; they are taken to be spread. */
	slow = bytes * on_ssd / best;
	if (bytes > slow)
		sim_flow(s, r, bytes - slow, INFINITY, &source->out, &x->in,
			 NULL);
	if (slow > 0)
		sim_flow(s, r, slow, INFINITY, &source->ssd_read, &source->out,
			 &x->in);
	tiers_store(s, source, r, own, best);
	return best;
}

void prefill_place(struct mc_sim *s, struct sim_req *r, uint32_t source)
{
	struct sim_inst *x = &s->inst[r->rec.prefill];
	struct mc_instance *f = &s->facts[x->id];
	struct mc_instance *d = &s->facts[r->rec.decode];
	uint32_t on_ssd, own = tiers_prefix(x, r, &on_ssd), best = own;
	double queue_s = x->stage_free_s[0] - s->now_s;

	if (on_ssd) {
		double bytes = prefill_bytes(s, (double)on_ssd *
					     s->o.block_tokens);

		s->totals.ssd_tokens += (uint64_t)on_ssd * s->o.block_tokens;
		sim_flow(s, r, bytes, INFINITY, &x->ssd_read, NULL, NULL);
	}
	if (source != x->id)
		best = prefill_fetch(s, r, &s->inst[source], x, own);
	r->hit_blocks = best;
	r->rec.local_tokens = prefill_tokens(s, r, own);
	r->rec.remote_tokens = prefill_tokens(s, r, best) -
		r->rec.local_tokens;
	prefill_cost(s, x, r);
	r->expected_s = s->now_s + (queue_s > 0 ? queue_s : 0) + x->backlog_s +
		r->compute_s;
	r->state = SIM_PREFILLING;
	x->backlog_s += r->occupies_s;
	f->queued++;
	d->coming++;
	d->context_tokens += r->rec.input_tokens;
	queue_push(&x->queue, r);
	if (!r->fetching)
		prefill_fetched(s, r);
}

/* The prefix is here, and stays: hot blocks spread in this way. */
void prefill_fetched(struct mc_sim *s, struct sim_req *r)
{
	struct sim_inst *x = &s->inst[r->rec.prefill];

	r->rec.ready_s = s->now_s;
	if (r->rec.remote_tokens)
		tiers_store(s, x, r, 0, r->hit_blocks);
	prefill_next(s, x);
}

void prefill_over(struct mc_sim *s, struct sim_req *r)
{
	struct sim_inst *x = &s->inst[r->rec.prefill];

	r->rec.first_s = r->last_s = s->now_s;
	r->prefilled = true;
	r->produced = 1;
	s->facts[x->id].queued--;
	tiers_store(s, x, r, 0, r->n_blocks);
	if (r->rec.output_tokens <= 1)
		decode_last(s, &s->inst[r->rec.decode], r);
	else if (s->o.no_overlap)
		prefill_stream(s, r, 0);
	else if (!r->streaming)
		decode_join(s, r);
	prefill_next(s, x);
}

/* The KV cache is with the decode instance. */
void prefill_streamed(struct mc_sim *s, struct sim_req *r)
{
	r->streaming = false;
	if (r->prefilled)
		decode_join(s, r);
}
