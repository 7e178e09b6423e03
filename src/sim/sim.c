/*
 * sim.c - the simulator from the outside: feed, next event, decide.
 *
 * A discrete-event simulation of a cluster in virtual time. The caller pulls
 * one event after the other; between two of them everything that needs no
 * decision happens here. Nothing depends on the clock, on addresses or on
 * chance, so the same calls give the same results.
 */
#include "sim.h"
#include "../base/err.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- requests ------------------------------------------------------- */

static void flight_add(struct mc_sim *s, struct sim_req *r)
{
	r->after = s->flight;
	if (s->flight)
		s->flight->before = r;
	s->flight = r;
	s->totals.in_flight++;
}

static void flight_del(struct mc_sim *s, struct sim_req *r)
{
	*(r->before ? &r->before->after : &s->flight) = r->after;
	if (r->after)
		r->after->before = r->before;
	s->totals.in_flight--;
}

static void sim_learn(struct mc_sim *s, const struct sim_req *r)
{
	struct mc_sim_totals *t = &s->totals;

	t->input_tokens += r->rec.input_tokens;
	t->output_tokens += r->rec.output_tokens;
	if (r->rec.joined_s > 0) {
		s->decode_s_sum += s->now_s - r->rec.joined_s;
		s->decoded++;
		s->view.expected_decode_s = s->decode_s_sum / s->decoded;
	}
	s->view.expected_output_tokens =
		(double)t->output_tokens / (t->completed + 1);
}

/* The story of @r is told; the caller hears it next. */
void sim_over(struct mc_sim *s, struct sim_req *r, enum mc_sim_outcome why)
{
	struct mc_sim_totals *t = &s->totals;

	if (why == MC_SIM_COMPLETED)
		sim_learn(s, r);
	*(why == MC_SIM_COMPLETED ? &t->completed :
	  why == MC_SIM_REFUSED ? &t->refused : &t->refused_late) += 1;
	r->rec.outcome = why;
	r->rec.done_s = s->now_s;
	flight_del(s, r);
	queue_push(&s->over, r);
}

static void req_free(struct sim_req *r)
{
	free(r->gaps);
	free(r);
}

static int feed_check(const struct mc_sim *s, const struct mc_trace_req *q)
{
	if (!q->input_tokens)
		return mc_err(-EINVAL, "line %" PRIu64 ": a request without "
			      "input tokens", q->line);
	if (!q->n_blocks || q->block_tokens == s->o.block_tokens)
		return 0;
	return mc_err(-EINVAL, "line %" PRIu64 ": blocks of %u tokens in a "
		      "cluster with blocks of %u", q->line, q->block_tokens,
		      s->o.block_tokens);
}

int mc_sim_feed(struct mc_sim *s, const struct mc_trace_req *q)
{
	struct sim_req *r;
	size_t blocks = q->n_blocks * sizeof(*q->blocks);
	double at_s = q->at_ns / 1e9;
	int err = feed_check(s, q);

	if (err < 0)
		return err;
	r = calloc(1, sizeof(*r) + blocks);
	if (!r)
		return mc_err(-ENOMEM, "no memory for a request");
	if (blocks)
		memcpy(r->blocks, q->blocks, blocks);
	r->n_blocks = q->n_blocks;
	r->rec.id = s->next_id;
	r->rec.input_tokens = q->input_tokens;
	r->rec.output_tokens = q->output_tokens ? q->output_tokens : 1;
	r->rec.prefill = r->rec.decode = UINT32_MAX;
	r->rec.arrived_s = at_s > s->now_s ? at_s : s->now_s;
	r->timer.what = SIM_ARRIVES;
	err = timers_set(&s->timers, &r->timer, r->rec.arrived_s);
	if (err < 0) {
		req_free(r);
		return err;
	}
	s->next_id++;
	s->totals.fed++;
	s->unarrived++;
	s->starved = false;
	flight_add(s, r);
	return 0;
}

/* ---- flows ---------------------------------------------------------- */

static struct sim_flow *flow_new(struct mc_sim *s)
{
	struct sim_flow *f = s->spare_flows;

	if (f) {
		s->spare_flows = f->next;
		memset(f, 0, sizeof(*f));
		return f;
	}
	f = calloc(1, sizeof(*f));
	if (!f)
		sim_check(s, mc_err(-ENOMEM, "no memory for a flow"));
	return f;
}

/* Send @bytes for @owner over up to three links. */
void sim_flow(struct mc_sim *s, void *owner, double bytes, double max_Bps,
	      struct sim_link *a, struct sim_link *b, struct sim_link *c)
{
	struct sim_flow *f = flow_new(s);
	struct sim_req *r = owner;

	if (!f)
		return;
	f->timer.what = SIM_FLOWED;
	f->links[0] = a;
	f->links[1] = b;
	f->links[2] = c;
	f->bytes = bytes;
	f->max_Bps = max_Bps;
	f->owner = r;
	s->flows++;
	if (b)				/* not a disk alone */
		s->totals.bytes_asked += bytes;
	if (!r->streaming)
		r->fetching++;
	sim_check(s, flow_start(&s->timers, f, s->now_s));
}

static void sim_flowed(struct mc_sim *s, struct sim_flow *f)
{
	struct sim_req *r = f->owner;

	sim_check(s, flow_end(&s->timers, f, s->now_s));
	s->flows--;
	f->next = s->spare_flows;
	s->spare_flows = f;
	if (r->streaming)
		prefill_streamed(s, r);
	else if (!--r->fetching)
		prefill_fetched(s, r);
}

/* ---- decisions ------------------------------------------------------ */

/* The caller is to decide about @r. */
void sim_ask(struct mc_sim *s, struct sim_req *r)
{
	r->state = SIM_ASKED;
	s->asked = r;
}

static int sim_answer(struct mc_sim *s, bool prefilled)
{
	if (s->asked && s->asked->prefilled == prefilled)
		return 0;
	return mc_err(-EINVAL, "no request waits to be %s",
		      prefilled ? "admitted" : "placed");
}

static void sim_placed(struct mc_sim *s, struct sim_req *r, uint32_t source)
{
	struct mc_sim_totals *t = &s->totals;

	t->blocks += r->n_blocks;
	t->placed_tokens += r->rec.input_tokens;
	if (sim_coupled(s)) {
		coupled_place(s, r);
		return;
	}
	prefill_place(s, r, source);
	t->blocks_hit += r->hit_blocks;
	t->local_tokens += r->rec.local_tokens;
	t->remote_tokens += r->rec.remote_tokens;
}

int mc_sim_place(struct mc_sim *s, uint32_t prefill, uint32_t decode,
		 uint32_t source)
{
	const struct mc_cluster *v = &s->view;
	struct sim_req *r = s->asked;
	int err = sim_answer(s, false);

	if (err < 0)
		return err;
	if (sim_coupled(s))
		decode = source = prefill;
	if (prefill >= v->prefill_n || source >= v->prefill_n)
		return mc_err(-EINVAL, "placed to prefill on %u with the "
			      "prefix of %u: the cluster has %u for that",
			      prefill, source, v->prefill_n);
	if (decode < v->decode_first || decode >= v->n)
		return mc_err(-EINVAL, "placed to decode on %u: those for that "
			      "are %u to %u", decode, v->decode_first,
			      v->n - 1);
	s->asked = NULL;
	r->rec.prefill = prefill;
	r->rec.decode = decode;
	sim_placed(s, r, source);
	return 0;
}

int mc_sim_admit(struct mc_sim *s)
{
	struct sim_req *r = s->asked;
	int err = sim_answer(s, true);

	if (err < 0)
		return err;
	s->asked = NULL;
	decode_join(s, r);
	return 0;
}

int mc_sim_refuse(struct mc_sim *s)
{
	struct sim_req *r = s->asked;

	if (!r)
		return mc_err(-EINVAL, "no request waits to be refused");
	s->asked = NULL;
	if (r->prefilled)
		facts_leave(s, r);
	sim_over(s, r, r->prefilled ? MC_SIM_REFUSED_LATE : MC_SIM_REFUSED);
	return 0;
}

/* ---- events --------------------------------------------------------- */

/* What never fits is refused without asking. */
static void sim_arrived(struct mc_sim *s, struct sim_req *r)
{
	uint64_t most = (uint64_t)r->rec.input_tokens + r->rec.output_tokens;

	s->unarrived--;
	if (s->o.vram_tokens && most + 1 > s->o.vram_tokens)
		sim_over(s, r, MC_SIM_REFUSED);
	else
		sim_ask(s, r);
}

static void sim_happen(struct mc_sim *s, struct sim_timer *t)
{
	struct sim_req *r = (struct sim_req *)
		((char *)t - offsetof(struct sim_req, timer));
	struct sim_inst *x = (struct sim_inst *)
		((char *)t - offsetof(struct sim_inst, timer));

	switch ((enum sim_happens)t->what) {
	case SIM_ARRIVES:
		sim_arrived(s, r);
		break;
	case SIM_PREFILLED:
		prefill_over(s, r);
		break;
	case SIM_STAGE:
		prefill_next(s, x);
		break;
	case SIM_ITERATED:
		decode_iterated(s, x);
		break;
	case SIM_FLOWED:
		sim_flowed(s, (struct sim_flow *)t);
		break;
	case SIM_SAMPLE:
		facts_sample(s);
		if (s->totals.in_flight)
			sim_timer(s, t, s->now_s + s->o.sample_s);
		break;
	}
}

static int sim_tell_over(struct mc_sim *s, struct mc_sim_event *ev)
{
	struct sim_req *r = s->over.first;

	queue_del(&s->over, r);
	ev->what = MC_SIM_DONE;
	ev->record = r->rec;
	s->told = r;
	s->starved = false;
	return 0;
}

static void sim_forget_told(struct mc_sim *s)
{
	if (s->told)
		req_free(s->told);
	s->told = NULL;
}

uint32_t mc_sim_intervals(const struct mc_sim *s, const float **out)
{
	const struct sim_req *r = s->told;

	if (!r || !s->o.keep_intervals || r->rec.outcome != MC_SIM_COMPLETED)
		return 0;
	*out = r->gaps;
	return r->n_gaps;
}

static int sim_tell_asked(struct mc_sim *s, struct mc_sim_event *ev)
{
	struct sim_req *r = s->asked;

	facts_refresh(s, r);
	ev->what = r->prefilled ? MC_SIM_ADMIT : MC_SIM_PLACE;
	ev->prompt = (struct mc_prompt){
		.id = r->rec.id,
		.arrived_s = r->rec.arrived_s,
		.input_tokens = r->rec.input_tokens,
		.block_tokens = s->o.block_tokens,
		.n_blocks = r->n_blocks,
		.blocks = r->blocks,
	};
	ev->prefill = r->rec.prefill;
	ev->decode = r->rec.decode;
	return s->err;
}

static bool sim_wants_sampler(const struct mc_sim *s)
{
	return s->o.sample_s > 0 && !s->sampler.pos && s->unarrived;
}

int mc_sim_next(struct mc_sim *s, struct mc_sim_event *ev)
{
	struct sim_timer *t;

	if (s->asked)
		return mc_err(-EINVAL, "request %" PRIu64 " waits for a "
			      "decision", s->asked->rec.id);
	sim_forget_told(s);
	while (!s->err) {
		if (s->over.n)
			return sim_tell_over(s, ev);
		if (!s->unarrived && !s->starved) {
			s->starved = true;
			ev->what = MC_SIM_FEED;
			return 0;
		}
		if (sim_wants_sampler(s))
			sim_timer(s, &s->sampler, s->now_s + s->o.sample_s);
		t = timers_pop(&s->timers, &s->now_s);
		if (!t) {
			ev->what = MC_SIM_END;
			return 0;
		}
		sim_happen(s, t);
		if (s->asked)
			return sim_tell_asked(s, ev);
	}
	return s->err;
}

/* ---- opening and closing -------------------------------------------- */

static int open_check(const struct mc_sim_options *o)
{
	if (o->coupled && (o->prefill || o->decode))
		return mc_err(-EINVAL, "a cluster is either coupled or has "
			      "prefill and decode instances");
	if (!o->coupled && (!o->prefill || !o->decode))
		return mc_err(-EINVAL, "a cluster needs at least one instance "
			      "to prefill and one to decode");
	if (!(o->cost.prefill_token_s > 0) || !(o->cost.decode_s > 0) ||
	    !(o->cost.prefill_s >= 0) || !(o->cost.prefill_pair_s >= 0) ||
	    !(o->cost.decode_seq_s >= 0) || !(o->cost.decode_token_s >= 0))
		return mc_err(-EINVAL, "the costs of prefill and decode must "
			      "be above 0");
	if (o->event_lag_s < 0 || o->sample_s < 0 || o->h2d_Bps < 0 ||
	    o->nic_Bps < 0 || o->ssd_Bps < 0)
		return mc_err(-EINVAL, "lags, intervals and bandwidths cannot "
			      "be negative");
	return 0;
}

static void open_defaults(struct mc_sim_options *o)
{
	if (!o->prefill_nodes)
		o->prefill_nodes = 1;
	if (!o->block_tokens)
		o->block_tokens = 512;
	if (!o->max_sequences)
		o->max_sequences = 256;
	if (!o->batch_tokens)
		o->batch_tokens = o->chunked ? 512 : 131072;
}

static int open_instance(struct mc_sim *s, uint32_t i)
{
	struct sim_inst *x = &s->inst[i];
	struct mc_instance *f = &s->facts[i];
	bool prefills = i < s->view.prefill_n;

	x->id = i;
	x->nodes = f->role == MC_PREFILL ? s->o.prefill_nodes : 1;
	x->timer.what = f->role == MC_PREFILL ? SIM_STAGE : SIM_ITERATED;
	link_init(&x->out, s->o.nic_Bps * x->nodes, &f->out_Bps);
	link_init(&x->in, s->o.nic_Bps * x->nodes, &f->in_Bps);
	link_init(&x->ssd_read, s->o.ssd_Bps * x->nodes, &x->ssd_share);
	f->vram_tokens = s->o.vram_tokens;
	x->stage_free_s = calloc(x->nodes, sizeof(*x->stage_free_s));
	if (!x->stage_free_s)
		return mc_err(-ENOMEM, "no memory for %u instances", s->view.n);
	return prefills && !s->o.no_prefix_cache ? tiers_open(s, x) : 0;
}

static int open_cluster(struct mc_sim *s)
{
	struct mc_cluster *v = &s->view;
	uint32_t i;
	int r;

	v->n = s->o.prefill + s->o.decode + s->o.coupled;
	v->prefill_n = s->o.prefill + s->o.coupled;
	v->decode_first = s->o.prefill;
	v->prefill_nodes = s->o.coupled ? 1 : s->o.prefill_nodes;
	v->chunk_tokens = s->o.chunk_tokens;
	v->cost = s->o.cost;
	v->ttft_slo_s = s->o.ttft_slo_s;
	v->tbt_slo_s = s->o.tbt_slo_s;
	v->instances = s->facts = calloc(v->n, sizeof(*s->facts));
	s->inst = calloc(v->n, sizeof(*s->inst));
	s->matched = calloc(v->prefill_n, sizeof(*s->matched));
	if (!s->facts || !s->inst || !s->matched)
		return mc_err(-ENOMEM, "no memory for %u instances", v->n);
	r = mc_index_open(&s->index, v->prefill_n);
	for (i = 0; !r && i < v->n; i++) {
		s->facts[i].role = s->o.coupled ? MC_COUPLED :
			i < s->o.prefill ? MC_PREFILL : MC_DECODE;
		r = open_instance(s, i);
	}
	return r;
}

int mc_sim_open(struct mc_sim **out, const struct mc_sim_options *opts)
{
	struct mc_sim *s;
	int r = open_check(opts);

	if (r < 0)
		return r;
	s = calloc(1, sizeof(*s));
	if (!s)
		return mc_err(-ENOMEM, "no memory for a simulation");
	s->o = *opts;
	s->sampler.what = SIM_SAMPLE;
	open_defaults(&s->o);
	r = open_cluster(s);
	s->o.eviction = NULL;		/* the caller's string */
	if (r < 0) {
		mc_sim_close(s);
		return r;
	}
	*out = s;
	return 0;
}

static void close_instance(struct sim_inst *x)
{
	tiers_close(x);
	link_fini(&x->out);
	link_fini(&x->in);
	link_fini(&x->ssd_read);
	free(x->stage_free_s);
	free(x->batch);
	free(x->log);
}

static void close_requests(struct mc_sim *s)
{
	struct sim_req *r;

	sim_forget_told(s);
	while ((r = s->over.first)) {
		queue_del(&s->over, r);
		req_free(r);
	}
	while ((r = s->flight)) {
		flight_del(s, r);
		req_free(r);
	}
}

void mc_sim_close(struct mc_sim *s)
{
	struct sim_timer *t;
	struct sim_flow *f;
	double at_s;
	uint32_t i;

	if (!s)
		return;
	/* Flows that run are on the timers' heap only. */
	while ((t = timers_pop(&s->timers, &at_s)))
		if (t->what == SIM_FLOWED)
			free(t);
	while ((f = s->spare_flows)) {
		s->spare_flows = f->next;
		free(f);
	}
	close_requests(s);
	for (i = 0; s->inst && i < s->view.n; i++)
		close_instance(&s->inst[i]);
	mc_index_close(s->index);
	timers_fini(&s->timers);
	free(s->changes);
	free(s->samples);
	free(s->scratch);
	free(s->matched);
	free(s->facts);
	free(s->inst);
	free(s);
}
