/*
 * facts.c - what there is to know: what a policy sees, samples, totals, and
 * the laws of conservation.
 */
#include "sim.h"
#include "../base/err.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

static double facts_queue_s(const struct mc_sim *s, const struct sim_inst *x)
{
	double busy_s = 0;

	if (!sim_coupled(s))
		busy_s = x->stage_free_s[0] - s->now_s;
	else if (x->chunks.n)
		busy_s = x->began_s - s->now_s;
	else if (x->timer.pos)
		busy_s = mc_cost_decode_s(&s->o.cost, x->n,
					  s->facts[x->id].running_tokens) -
			(s->now_s - x->began_s);
	if (busy_s + x->backlog_s < 0 || (busy_s < 0 && !sim_coupled(s)))
		busy_s = 0;
	return busy_s + x->backlog_s;
}

static void facts_prefixes(struct mc_sim *s, const struct sim_req *r)
{
	uint32_t best = 0, i;

	s->view.best = 0;
	s->view.best_tokens = 0;
	tiers_publish(s, s->now_s);
	mc_index_match(s->index, r->blocks, r->n_blocks, s->matched);
	for (i = 0; i < s->view.prefill_n; i++) {
		uint64_t tokens = (uint64_t)s->matched[i] * s->o.block_tokens;

		if (tokens > r->rec.input_tokens)
			tokens = r->rec.input_tokens;
		s->facts[i].prefix_tokens = tokens;
		if (s->matched[i] > best) {
			best = s->matched[i];
			s->view.best = i;
			s->view.best_tokens = tokens;
		}
	}
}

/* Bring the view up to date for a decision on @r. */
void facts_refresh(struct mc_sim *s, const struct sim_req *r)
{
	uint32_t i;

	s->view.now_s = s->now_s;
	if (!r->prefilled)
		facts_prefixes(s, r);
	for (i = 0; i < s->view.prefill_n; i++)
		s->facts[i].queue_s = facts_queue_s(s, &s->inst[i]);
}

/* @r was on its way to decode, and does not come. */
void facts_leave(struct mc_sim *s, const struct sim_req *r)
{
	struct mc_instance *d = &s->facts[r->rec.decode];

	d->coming--;
	d->context_tokens -= r->rec.input_tokens;
}

const struct mc_cluster *mc_sim_cluster(const struct mc_sim *s)
{
	return &s->view;
}

/* The part of @r that is expected to decode at @at_s. Those that do now leave
 * evenly over expected_decode_s, as they came. To go by the age of each would
 * miss all that outlive the mean: half of those there, where answers differ. */
static double forecast_part(const struct mc_sim *s, const struct sim_req *r,
			    double at_s)
{
	double decode_s = s->view.expected_decode_s;

	if (r->state == SIM_DECODING)
		return decode_s > 0 ?
			fmax(0, 1 - (at_s - s->now_s) / decode_s) : 1;
	return r->state == SIM_PREFILLING && r->expected_s <= at_s &&
		at_s < r->expected_s + decode_s;
}

void mc_sim_forecast(const struct mc_sim *s, double at_s,
		     struct mc_forecast *out)
{
	const struct sim_req *r;

	out->sequences = out->context_tokens = 0;
	for (r = s->flight; r; r = r->after) {
		double part = forecast_part(s, r, at_s);

		out->sequences += part;
		out->context_tokens += part *
			(r->rec.input_tokens + r->produced);
	}
}

/* ---- samples -------------------------------------------------------- */

static double facts_decode_load(const struct mc_sim *s, uint32_t i)
{
	const struct mc_instance *f = &s->facts[i];
	double tbt_s = f->running ? mc_cost_decode_s(&s->o.cost, f->running,
						     f->running_tokens) : 0;

	return s->o.tbt_slo_s > 0 ? tbt_s / s->o.tbt_slo_s : tbt_s;
}

static double facts_sent(const struct mc_sim *s)
{
	double bytes = 0;
	uint32_t i;

	for (i = 0; i < s->view.n; i++)
		bytes += s->inst[i].out.bytes;
	return bytes;
}

static struct mc_sim_sample *facts_room(struct mc_sim *s)
{
	if (s->n_samples == s->sample_cap) {
		uint32_t cap = s->sample_cap ? s->sample_cap * 2 : 256;
		struct mc_sim_sample *samples =
			realloc(s->samples, cap * sizeof(*samples));

		if (!samples) {
			sim_check(s, mc_err(-ENOMEM, "no memory for %u samples",
					    cap));
			return NULL;
		}
		s->samples = samples;
		s->sample_cap = cap;
	}
	return &s->samples[s->n_samples++];
}

void facts_sample(struct mc_sim *s)
{
	struct mc_sim_sample *m = facts_room(s);
	const struct mc_cluster *v = &s->view;
	double sent = facts_sent(s);
	uint32_t i;

	if (!m)
		return;
	*m = (struct mc_sim_sample){
		.at_s = s->now_s,
		.link_Bps = (sent - s->sampled_bytes) / s->o.sample_s,
		.completed = s->totals.completed,
		.refused = s->totals.refused,
		.refused_late = s->totals.refused_late,
		.hit_tokens = s->totals.local_tokens + s->totals.remote_tokens,
		.input_tokens = s->totals.placed_tokens,
	};
	s->sampled_bytes = sent;
	for (i = 0; i < v->prefill_n; i++) {
		m->prefill_load += facts_queue_s(s, &s->inst[i]) / v->prefill_n;
		m->queued += v->instances[i].queued;
	}
	if (s->o.ttft_slo_s > 0)
		m->prefill_load /= s->o.ttft_slo_s;
	for (i = v->decode_first; i < v->n; i++) {
		m->decode_load += facts_decode_load(s, i) /
			(v->n - v->decode_first);
		m->running += v->instances[i].running;
		m->coming += v->instances[i].coming;
	}
}

uint32_t mc_sim_samples(const struct mc_sim *s,
			const struct mc_sim_sample **out)
{
	*out = s->samples;
	return s->n_samples;
}

/* ---- totals --------------------------------------------------------- */

void mc_sim_totals(const struct mc_sim *s, struct mc_sim_totals *out)
{
	uint32_t i;

	*out = s->totals;
	out->now_s = s->now_s;
	out->bytes_sent = facts_sent(s);
	for (i = 0; i < s->view.n; i++) {
		out->stored += s->inst[i].stored;
		out->evicted += s->inst[i].evicted;
	}
	out->cached_blocks = out->stored - out->evicted;
}

int mc_sim_link(const struct mc_sim *s, uint32_t instance,
		struct mc_sim_link *out)
{
	const struct sim_inst *x;

	if (instance >= s->view.n)
		return mc_err(-EINVAL, "there is no instance %u: the cluster "
			      "has %u", instance, s->view.n);
	x = &s->inst[instance];
	*out = (struct mc_sim_link){
		x->out.bytes, x->in.bytes, x->out.busy_s, x->in.busy_s,
		x->stored - x->evicted,
	};
	return 0;
}

uint32_t mc_sim_replicas(const struct mc_sim *s, uint64_t block)
{
	return mc_index_holders(s->index, block);
}

/* ---- conservation --------------------------------------------------- */

static int check_requests(const struct mc_sim *s)
{
	const struct mc_sim_totals *t = &s->totals;
	const struct sim_req *r;
	uint64_t n = 0;

	for (r = s->flight; r; r = r->after)
		n++;
	if (t->fed == t->completed + t->refused + t->refused_late + n &&
	    n == t->in_flight)
		return 0;
	return mc_err(-EILSEQ, "of %" PRIu64 " requests %" PRIu64 " completed, "
		      "%" PRIu64 " were refused, %" PRIu64 " after their "
		      "prefill, %" PRIu64 " are in flight: some are lost",
		      t->fed, t->completed, t->refused, t->refused_late, n);
}

/* The index counts pairs of block and holder by itself. */
static int check_blocks(const struct mc_sim *s)
{
	struct mc_index_size size;
	uint64_t held = 0;
	uint32_t i;

	for (i = 0; i < s->view.n; i++) {
		const struct sim_inst *x = &s->inst[i];

		held += x->stored - x->evicted;
		if (x->dram && !x->ssd &&
		    mc_cache_used(x->dram) != x->stored - x->evicted)
			return mc_err(-EILSEQ, "instance %u stored %" PRIu64
				      " blocks and evicted %" PRIu64
				      ", but has %" PRIu64, i, x->stored,
				      x->evicted, mc_cache_used(x->dram));
	}
	mc_index_size(s->index, &size);
	if (size.pairs == held || s->change_first < s->change_end)
		return 0;
	return mc_err(-EILSEQ, "%" PRIu64 " blocks are cached, the index knows "
		      "of %" PRIu64, held, size.pairs);
}

static int check_bytes(const struct mc_sim *s)
{
	double sent = 0, asked = s->totals.bytes_asked, got = 0;
	uint32_t i;

	for (i = 0; i < s->view.n; i++) {
		sent += s->inst[i].out.bytes;
		got += s->inst[i].in.bytes;
	}
	if (sent <= asked * (1 + 1e-9) + 1 &&
	    fabs(sent - got) <= asked * 1e-9 &&
	    (s->flows || sent >= asked * (1 - 1e-9) - 1))
		return 0;
	return mc_err(-EILSEQ, "%.0f bytes were asked for over links, %.0f "
		      "sent, %.0f received", asked, sent, got);
}

/* When nothing is in flight, no instance has anything left. */
static int check_idle(const struct mc_sim *s)
{
	uint32_t i;

	for (i = 0; !s->totals.in_flight && i < s->view.n; i++) {
		const struct mc_instance *f = &s->facts[i];

		if (f->queued || f->running || f->coming || f->context_tokens ||
		    f->running_tokens || s->inst[i].held_tokens)
			return mc_err(-EILSEQ, "all requests are done, but "
				      "instance %u has %u queued, %u running, "
				      "%u coming", i, f->queued, f->running,
				      f->coming);
	}
	return 0;
}

int mc_sim_check(const struct mc_sim *s)
{
	int (*const laws[])(const struct mc_sim *) = {
		check_requests, check_blocks, check_bytes, check_idle,
	};
	size_t i;
	int r = s->err;

	for (i = 0; !r && i < sizeof(laws) / sizeof(laws[0]); i++)
		r = laws[i](s);
	return r;
}
