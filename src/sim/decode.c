/*
 * decode.c - continuous batching: one iteration gives each sequence a token.
 *
 * Sequences join between two iterations, in the order in which they came, as
 * long as VRAM holds them. When the batch outgrows VRAM the one that joined
 * last goes back to the queue: a decode instance swaps it out to DRAM, a
 * coupled one computes it again. The time between two tokens of a sequence is
 * the time between the ends of two iterations, so the instance keeps one log
 * of those for all, and a sequence remembers the iterations at which it joined
 * and ends.
 */
#include "sim.h"
#include "../base/err.h"
#include "../base/util.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- intervals ------------------------------------------------------ */

static void log_first(struct sim_inst *x)
{
	uint32_t i;

	x->log_first = x->iteration;
	for (i = 0; i < x->n; i++)
		if (x->batch[i]->joined < x->log_first)
			x->log_first = x->batch[i]->joined;
}

static void log_grow(struct mc_sim *s, struct sim_inst *x)
{
	uint64_t size = x->log_size ? x->log_size * 2 : 1024, i;
	float *log = malloc(size * sizeof(*log));

	if (!log) {
		sim_check(s, mc_err(-ENOMEM, "no memory for a log of %llu "
				    "iterations", (unsigned long long)size));
		return;
	}
	for (i = x->log_first + 1; i < x->iteration; i++)
		log[i % size] = x->log[i % x->log_size];
	free(x->log);
	x->log = log;
	x->log_size = size;
}

/* Iteration x->iteration has ended, the interval @gap_s after its last. */
static void log_append(struct mc_sim *s, struct sim_inst *x, double gap_s)
{
	if (x->iteration - x->log_first >= x->log_size) {
		log_first(x);
		if (x->iteration - x->log_first >= x->log_size / 2)
			log_grow(s, x);
	}
	if (!s->err)
		x->log[x->iteration % x->log_size] = gap_s;
}

/* The intervals of @r up to iteration @last, into @out; NULL: only how many. */
static uint32_t decode_gaps(const struct sim_inst *x, const struct sim_req *r,
			    uint64_t last, float *out)
{
	uint32_t n = r->n_gaps;
	uint64_t i;

	if (!out)
		return n + (last - r->joined);
	if (n)
		memcpy(out, r->gaps, n * sizeof(*out));
	for (i = r->joined + 1; i <= last; i++)
		out[n++] = x->log[i % x->log_size];
	if (last > r->joined)
		out[r->n_gaps] += r->offset_s;
	return n;
}

static void gap_swap(float *a, float *b)
{
	float t = *a;

	*a = *b;
	*b = t;
}

/* Move the @k largest of v[0..n) to the front (Hoare's quickselect). */
static void gaps_select(float *v, uint32_t n, uint32_t k)
{
	int64_t lo = 0, hi = (int64_t)n - 1;

	while (lo < hi) {
		float pivot = v[lo + (hi - lo) / 2];
		int64_t i = lo, j = hi;

		while (i <= j) {
			while (v[i] > pivot)
				i++;
			while (v[j] < pivot)
				j--;
			if (i <= j)
				gap_swap(&v[i++], &v[j--]);
		}
		if ((int64_t)k <= j + 1)
			hi = j;
		else if ((int64_t)k > i)
			lo = i;
		else
			break;
	}
}

static float *decode_scratch(struct mc_sim *s, uint32_t n)
{
	if (n > s->scratch_size) {
		float *scratch = realloc(s->scratch, n * 2 * sizeof(*scratch));

		if (!scratch) {
			sim_check(s, mc_err(-ENOMEM, "no memory for %u "
					    "intervals", n));
			return NULL;
		}
		s->scratch = scratch;
		s->scratch_size = n * 2;
	}
	return s->scratch;
}

static void decode_keep(struct mc_sim *s, struct sim_req *r, const float *v,
			uint32_t n)
{
	float *gaps = realloc(r->gaps, n * sizeof(*gaps));

	if (!gaps) {
		sim_check(s, mc_err(-ENOMEM, "no memory to keep %u intervals",
				    n));
		return;
	}
	memcpy(gaps, v, n * sizeof(*gaps));
	r->gaps = gaps;
	r->n_gaps = n;
}

/* TBT as the FAST paper has it: the mean of the longest tenth. */
static void decode_measure(struct mc_sim *s, struct sim_inst *x,
			   struct sim_req *r)
{
	uint32_t n = decode_gaps(x, r, r->last, NULL), k = (n + 9) / 10, i;
	float *v = decode_scratch(s, n);
	double sum = 0;

	if (!n || !v)
		return;
	decode_gaps(x, r, r->last, v);
	r->rec.second_s = r->rec.first_s + v[0];
	if (s->o.keep_intervals)
		decode_keep(s, r, v, n);
	gaps_select(v, n, k);
	for (i = 0; i < k; i++)
		sum += v[i];
	r->rec.tbt_s = sum / k;
	r->rec.itl_s = (s->now_s - r->rec.first_s) / n;
}

/* ---- the batch ------------------------------------------------------ */

bool decode_fits(const struct mc_sim *s, const struct sim_inst *x,
		 uint64_t tokens)
{
	return !s->o.vram_tokens ||
		s->facts[x->id].running_tokens + x->held_tokens + tokens +
		x->n + 1 <= s->o.vram_tokens;
}

static int batch_grow(struct sim_inst *x)
{
	uint32_t cap = x->cap ? x->cap * 2 : 32;
	struct sim_req **batch = realloc(x->batch, cap * sizeof(*batch));

	if (!batch)
		return mc_err(-ENOMEM, "no memory for a batch of %u", cap);
	x->batch = batch;
	x->cap = cap;
	return 0;
}

/* @r decodes from the next iteration on. */
void decode_enter(struct mc_sim *s, struct sim_inst *x, struct sim_req *r)
{
	struct mc_instance *f = &s->facts[x->id];
	int err = x->n == x->cap ? batch_grow(x) : 0;

	if (err < 0) {
		sim_check(s, err);
		return;
	}
	if (!x->n)
		x->last_token_s = s->now_s;
	if (!r->rec.joined_s)
		r->rec.joined_s = s->now_s;
	r->state = SIM_DECODING;
	r->joined = x->iteration;
	r->offset_s = x->last_token_s - r->last_s;
	r->last = x->iteration + r->rec.output_tokens - r->produced;
	if (!x->n || r->last < x->next_last)
		x->next_last = r->last;
	r->slot = x->n;
	x->batch[x->n++] = r;
	f->coming--;
	f->running++;
	f->running_tokens += r->rec.input_tokens + r->produced;
	f->context_tokens += r->produced;
}

static void batch_del(struct mc_sim *s, struct sim_inst *x, struct sim_req *r)
{
	struct mc_instance *f = &s->facts[x->id];
	uint64_t tokens = r->rec.input_tokens + r->produced;

	x->batch[r->slot] = x->batch[--x->n];
	x->batch[r->slot]->slot = r->slot;
	f->running--;
	f->running_tokens -= tokens;
	f->context_tokens -= tokens;
}

static void batch_next_last(struct sim_inst *x)
{
	uint32_t i;

	x->next_last = UINT64_MAX;
	for (i = 0; i < x->n; i++)
		if (x->batch[i]->last < x->next_last)
			x->next_last = x->batch[i]->last;
}

static void decode_finish(struct mc_sim *s, struct sim_inst *x)
{
	uint32_t i = 0;

	while (i < x->n) {
		struct sim_req *r = x->batch[i];

		if (r->last > x->iteration) {
			i++;
			continue;
		}
		r->produced = r->rec.output_tokens;
		batch_del(s, x, r);
		decode_measure(s, x, r);
		sim_over(s, r, MC_SIM_COMPLETED);
	}
	batch_next_last(x);
}

/* @r has its last token without having been in the batch for it. */
void decode_last(struct mc_sim *s, struct sim_inst *x, struct sim_req *r)
{
	facts_leave(s, r);
	r->joined = r->last = x->iteration;
	decode_measure(s, x, r);
	sim_over(s, r, MC_SIM_COMPLETED);
}

/* ---- too little memory ---------------------------------------------- */

static struct sim_req *batch_newest(const struct sim_inst *x)
{
	struct sim_req *newest = x->batch[0];
	uint32_t i;

	for (i = 1; i < x->n; i++)
		if (x->batch[i]->joined >= newest->joined)
			newest = x->batch[i];
	return newest;
}

static void decode_preempt(struct mc_sim *s, struct sim_inst *x)
{
	struct sim_req *r = batch_newest(x);
	uint32_t n = decode_gaps(x, r, x->iteration, NULL);
	float *gaps = malloc((n + 1) * sizeof(*gaps));
	struct mc_instance *f = &s->facts[x->id];

	if (!gaps) {
		sim_check(s, mc_err(-ENOMEM, "no memory to preempt"));
		return;
	}
	r->n_gaps = decode_gaps(x, r, x->iteration, gaps);
	free(r->gaps);
	r->gaps = gaps;
	r->produced += x->iteration - r->joined;
	r->last_s = x->iteration > r->joined ? x->last_token_s :
		x->last_token_s - r->offset_s;
	r->rec.preempted++;
	s->totals.preemptions++;
	batch_del(s, x, r);
	f->coming++;
	f->context_tokens += r->rec.input_tokens;
	r->todo_tokens = r->rec.input_tokens + r->produced;
	queue_push_front(&x->queue, r);
	batch_next_last(x);
}

/* Each sequence is about to grow by a token. */
static void decode_make_room(struct mc_sim *s, struct sim_inst *x)
{
	while (x->n > 1 && !s->err && !decode_fits(s, x, 0))
		decode_preempt(s, x);
}

/* ---- iterations ----------------------------------------------------- */

static void decode_let_in(struct mc_sim *s, struct sim_inst *x)
{
	struct sim_req *r;

	while ((r = x->queue.first) && x->n < s->o.max_sequences &&
	       decode_fits(s, x, r->rec.input_tokens + r->produced)) {
		queue_del(&x->queue, r);
		if (r->rec.preempted && s->o.h2d_Bps > 0)
			x->extra_s += (r->rec.input_tokens + r->produced) *
				s->o.cost.kv_bytes_token / s->o.h2d_Bps;
		decode_enter(s, x, r);
	}
}

void decode_begin(struct mc_sim *s, struct sim_inst *x)
{
	const struct mc_instance *f = &s->facts[x->id];
	double prefill_s = 0, dur_s;

	if (x->timer.pos || s->err)
		return;
	decode_make_room(s, x);
	if (sim_coupled(s))
		prefill_s = coupled_pick(s, x);
	else
		decode_let_in(s, x);
	x->tokens = x->n && (s->o.chunked || !x->chunks.n);
	if (!x->tokens && !x->chunks.n)
		return;
	x->began_s = s->now_s;
	dur_s = prefill_s + x->extra_s;
	x->extra_s = 0;
	if (x->tokens) {
		double decode_s = mc_cost_decode_s(&s->o.cost, x->n,
						   f->running_tokens);

		/* A mixed iteration reads the weights once. */
		if (x->chunks.n)
			decode_s -= mc_min(s->o.cost.decode_s, prefill_s);
		dur_s += decode_s;
		s->totals.decode_gpu_s += decode_s;
	}
	sim_timer(s, &x->timer, s->now_s + dur_s);
}

void decode_iterated(struct mc_sim *s, struct sim_inst *x)
{
	s->totals.iterations++;
	if (x->tokens) {
		x->iteration++;
		log_append(s, x, s->now_s - x->last_token_s);
		if (s->err)
			return;
		x->last_token_s = s->now_s;
		s->facts[x->id].running_tokens += x->n;
		s->facts[x->id].context_tokens += x->n;
		if (x->iteration >= x->next_last)
			decode_finish(s, x);
	}
	if (x->chunks.n)
		coupled_prefilled(s, x);
	decode_begin(s, x);
}

/* The KV cache of @r is here, and nobody minds. */
void decode_join(struct mc_sim *s, struct sim_req *r)
{
	struct sim_inst *x = &s->inst[r->rec.decode];

	if (s->o.ask_decode && r->state != SIM_ASKED) {
		sim_ask(s, r);
		return;
	}
	r->state = SIM_PREFILLING;
	queue_push(&x->queue, r);
	decode_begin(s, x);
}
