/*
 * sim_test.c - the simulator: lone requests against sums done by hand, shared
 * links, tiers, pipelines, batches, refusals, and random runs that must keep
 * the laws of conservation.
 */
#include <mooncake.h>

#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* Round numbers: a token of prefill takes 1 ms, an iteration 10 ms plus 1 ms
 * per sequence, a token of KV cache has 1000 bytes. */
static struct mc_sim_options plain(void)
{
	return (struct mc_sim_options){
		.prefill = 1,
		.decode = 1,
		.block_tokens = 10,
		.cost = {
			.prefill_token_s = 1e-3,
			.decode_s = 10e-3,
			.decode_seq_s = 1e-3,
			.kv_bytes_token = 1000,
		},
	};
}

static struct mc_sim *open_sim(const struct mc_sim_options *o)
{
	struct mc_sim *s = NULL;

	if (mc_sim_open(&s, o) < 0)
		fail_msg("%s", mc_errmsg());
	return s;
}

static uint64_t ids[64];

/* A request of @in tokens whose blocks are @first, @first + 1, ... */
static void feed(struct mc_sim *s, double at_s, uint32_t in, uint32_t out,
		 uint64_t first)
{
	struct mc_trace_req q = {
		.at_ns = (uint64_t)(at_s * 1e9 + 0.5),
		.input_tokens = in,
		.output_tokens = out,
		.block_tokens = 10,
		.n_blocks = (in + 9) / 10,
		.blocks = ids,
	};
	uint32_t i;

	assert_true(q.n_blocks <= 64);
	for (i = 0; i < q.n_blocks; i++)
		ids[i] = first + i;
	assert_int_equal(mc_sim_feed(s, &q), 0);
}

struct place {
	uint32_t prefill, decode, source;
};

/* Go on, placing all at @p, until a request is done; its record, or NULL. */
static const struct mc_sim_record *next_done(struct mc_sim *s, struct place p)
{
	static struct mc_sim_event ev;

	for (;;) {
		if (mc_sim_next(s, &ev) < 0)
			fail_msg("%s", mc_errmsg());
		if (ev.what == MC_SIM_DONE)
			return &ev.record;
		if (ev.what == MC_SIM_END)
			return NULL;
		if (ev.what == MC_SIM_PLACE)
			assert_int_equal(mc_sim_place(s, p.prefill, p.decode,
						      p.source), 0);
		if (ev.what == MC_SIM_ADMIT)
			assert_int_equal(mc_sim_admit(s), 0);
	}
}

static void end_sim(struct mc_sim *s)
{
	if (mc_sim_check(s) < 0)
		fail_msg("%s", mc_errmsg());
	mc_sim_close(s);
}

/* Go on until someone is to be placed. */
static void next_place(struct mc_sim *s, struct mc_sim_event *ev)
{
	do
		assert_int_equal(mc_sim_next(s, ev), 0);
	while (ev->what != MC_SIM_PLACE);
}

static const struct place here = { 0, 1, 0 };

/* cmocka compares as float. */
#define within(a, b, by) do { \
	if (!(fabs((a) - (b)) <= (by))) \
		fail_msg("%s is %.12g, not %.12g", #a, (double)(a), \
			 (double)(b)); \
} while (0)
#define near(a, b) within(a, b, 1e-9)

/* ---- one request ---------------------------------------------------- */

static void a_lone_request_takes_what_it_costs(void **state)
{
	struct mc_sim_options o = plain();
	struct mc_sim *s = open_sim(&o);
	const struct mc_sim_record *r;

	(void)state;
	feed(s, 2, 100, 21, 1);
	r = next_done(s, here);
	assert_non_null(r);
	assert_int_equal(r->outcome, MC_SIM_COMPLETED);
	near(r->first_s - r->arrived_s, 0.1);
	near(r->done_s - r->first_s, 20 * 0.011);
	near(r->itl_s, 0.011);
	within(r->tbt_s, 0.011, 1e-8);
	near(r->prefill_gpu_s, 0.1);
	assert_null(next_done(s, here));
	end_sim(s);
}

static void one_token_needs_no_decode(void **state)
{
	struct mc_sim_options o = plain();
	struct mc_sim *s = open_sim(&o);
	const struct mc_sim_record *r;
	struct mc_sim_totals t;

	(void)state;
	feed(s, 0, 100, 1, 1);
	r = next_done(s, here);
	near(r->done_s, 0.1);
	assert_true(r->tbt_s == 0);
	mc_sim_totals(s, &t);
	assert_int_equal(t.iterations, 0);
	assert_true(t.bytes_asked == 0);
	end_sim(s);
}

static void requests_queue_first_come_first_served(void **state)
{
	struct mc_sim_options o = plain();
	struct mc_sim *s = open_sim(&o);

	(void)state;
	feed(s, 0, 100, 1, 1);
	feed(s, 0, 50, 1, 100);
	feed(s, 0.01, 10, 1, 200);
	near(next_done(s, here)->done_s, 0.10);
	near(next_done(s, here)->done_s, 0.15);
	near(next_done(s, here)->done_s, 0.16);
	end_sim(s);
}

/* The mean wait of M/D/1 is rho * service / (2 * (1 - rho)). */
static void the_queue_is_that_of_theory(void **state)
{
	struct mc_sim_options o = plain();
	struct mc_sim *s = open_sim(&o);
	double at_s = 0, waited_s = 0;
	const struct mc_sim_record *r;
	int i, n = 100000;

	(void)state;
	o.no_prefix_cache = true;
	srand48(11);
	for (i = 0; i < n; i++) {
		at_s -= log(1 - drand48()) * 0.1 / 0.7;
		feed(s, at_s, 100, 1, i * 100);
	}
	while ((r = next_done(s, here)))
		waited_s += r->started_s - r->arrived_s;
	within(waited_s / n, 0.7 * 0.1 / (2 * 0.3), 0.004);
	end_sim(s);
}

/* ---- caches --------------------------------------------------------- */

static void a_prefix_is_not_computed_twice(void **state)
{
	struct mc_sim_options o = plain();
	struct mc_sim *s = open_sim(&o);
	const struct mc_sim_record *r;

	(void)state;
	feed(s, 0, 100, 1, 1);
	feed(s, 1, 200, 1, 1);		/* ten of its twenty blocks */
	feed(s, 2, 95, 1, 1);		/* all of it: one token is computed */
	next_done(s, here);
	r = next_done(s, here);
	assert_int_equal(r->local_tokens, 100);
	near(r->first_s - r->arrived_s, 0.1);
	r = next_done(s, here);
	assert_int_equal(r->local_tokens, 95);
	near(r->first_s - r->arrived_s, 0.001);
	end_sim(s);
}

static void a_prefix_comes_from_another_instance(void **state)
{
	struct mc_sim_options o = plain();
	const struct mc_sim_record *r;
	struct mc_sim *s;

	(void)state;
	o.prefill = 2;
	o.nic_Bps = 1e6;
	s = open_sim(&o);
	feed(s, 0, 100, 1, 1);
	next_done(s, (struct place){ 0, 2, 0 });
	feed(s, 1, 200, 1, 1);
	r = next_done(s, (struct place){ 1, 2, 0 });
	assert_int_equal(r->local_tokens, 0);
	assert_int_equal(r->remote_tokens, 100);
	near(r->ready_s - r->arrived_s, 0.1);
	near(r->first_s - r->ready_s, 0.1);
	assert_int_equal(mc_sim_replicas(s, 10), 2);
	assert_int_equal(mc_sim_replicas(s, 11), 1);
	assert_int_equal(mc_sim_replicas(s, 99), 0);
	end_sim(s);
}

static void what_ssd_holds_has_to_be_read(void **state)
{
	struct mc_sim_options o = plain();
	const struct mc_sim_record *r;
	struct mc_sim_totals t;
	struct mc_sim *s;

	(void)state;
	o.dram_tokens = 100;
	o.ssd_tokens = 1000;
	o.ssd_Bps = 1e5;
	s = open_sim(&o);
	feed(s, 0, 100, 1, 1);
	next_done(s, here);
	feed(s, 1, 50, 1, 50);		/* five of the ten go to SSD */
	next_done(s, here);
	feed(s, 2, 100, 1, 1);
	r = next_done(s, here);
	assert_int_equal(r->local_tokens, 100);
	near(r->ready_s - r->arrived_s, 0.5);
	mc_sim_totals(s, &t);
	assert_int_equal(t.ssd_tokens, 50);
	assert_int_equal(t.evicted, 0);
	assert_int_equal(t.cached_blocks, 15);
	end_sim(s);
}

static void the_index_hears_of_it_late(void **state)
{
	struct mc_sim_options o = plain();
	struct mc_sim_event ev;
	struct mc_sim *s;

	(void)state;
	o.event_lag_s = 0.5;
	s = open_sim(&o);
	feed(s, 0, 100, 1, 1);
	next_done(s, here);
	feed(s, 0.3, 100, 1, 1);
	feed(s, 0.7, 100, 1, 1);
	next_place(s, &ev);
	assert_int_equal(mc_sim_cluster(s)->instances[0].prefix_tokens, 0);
	assert_int_equal(mc_sim_place(s, 0, 1, 0), 0);
	next_place(s, &ev);
	assert_int_equal(mc_sim_cluster(s)->instances[0].prefix_tokens, 100);
	assert_int_equal(mc_sim_cluster(s)->best_tokens, 100);
	assert_int_equal(mc_sim_place(s, 0, 1, 0), 0);
	while (next_done(s, here))
		;
	end_sim(s);
}

/* ---- links ---------------------------------------------------------- */

/* Two prefixes leave one instance at once: each gets half of its link. */
static void flows_share_a_link(void **state)
{
	struct mc_sim_options o = plain();
	const struct mc_sim_record *r;
	struct mc_sim_link link;
	struct mc_sim *s;
	int i;

	(void)state;
	o.prefill = 3;
	o.nic_Bps = 1e6;
	s = open_sim(&o);
	feed(s, 0, 100, 1, 1);
	next_done(s, (struct place){ 0, 3, 0 });
	feed(s, 1, 101, 1, 1);
	feed(s, 1, 101, 1, 1);
	for (i = 1; i < 3; i++) {
		struct mc_sim_event ev;

		next_place(s, &ev);
		near(mc_sim_cluster(s)->instances[0].out_Bps, 1e6 / i);
		assert_int_equal(mc_sim_place(s, i, 3, 0), 0);
	}
	for (i = 0; i < 2; i++) {
		r = next_done(s, here);
		near(r->ready_s - r->arrived_s, 0.2);
	}
	assert_int_equal(mc_sim_link(s, 0, &link), 0);
	near(link.out_bytes, 200e3);
	near(link.out_busy_s, 0.2);
	assert_int_equal(mc_sim_link(s, 4, &link), -EINVAL);
	end_sim(s);
}

/* The stream to decode overlaps the prefill, or follows it. */
static void streams_overlap_the_prefill(void **state)
{
	struct mc_sim_options o = plain();
	int late;

	(void)state;
	o.nic_Bps = 2e6;
	for (late = 0; late < 2; late++) {
		struct mc_sim *s;
		const struct mc_sim_record *r;

		o.no_overlap = late;
		s = open_sim(&o);
		feed(s, 0, 100, 2, 1);
		r = next_done(s, here);
		near(r->first_s, 0.1);
		near(r->joined_s, late ? 0.15 : 0.1);
		near(r->itl_s, late ? 0.061 : 0.011);
		end_sim(s);
	}
}

/* A network slower than the prefill delays the second token, not the first. */
static void a_slow_link_delays_the_second_token(void **state)
{
	struct mc_sim_options o = plain();
	const struct mc_sim_record *r;
	struct mc_sim *s;

	(void)state;
	o.nic_Bps = 0.5e6;
	s = open_sim(&o);
	feed(s, 0, 100, 2, 1);
	r = next_done(s, here);
	near(r->first_s, 0.1);
	near(r->joined_s, 0.2);
	near(r->done_s, 0.211);
	within(r->tbt_s, 0.111, 1e-7);
	end_sim(s);
}

static void a_cached_prefix_is_loaded_while_it_computes(void **state)
{
	struct mc_sim_options o = plain();
	int late;

	(void)state;
	o.h2d_Bps = 4e5;
	for (late = 0; late < 2; late++) {
		struct mc_sim *s;
		const struct mc_sim_record *r;

		o.no_overlap = late;
		s = open_sim(&o);
		feed(s, 0, 100, 1, 1);
		next_done(s, here);
		feed(s, 1, 200, 1, 1);
		r = next_done(s, here);
		/* 0.1 s of computing, 0.25 s to load 100 tokens; late: the
		 * whole prompt passes the bus after the prefill. */
		near(r->first_s - r->arrived_s, late ? 0.6 : 0.25);
		end_sim(s);
	}
}

/* ---- pipelines ------------------------------------------------------ */

/* Two nodes, four chunks of 25 ms: each takes 12.5 ms per stage, and the last
 * chunk leaves after five of those. */
static void chunks_overlap_in_a_pipeline(void **state)
{
	struct mc_sim_options o = plain();
	const struct mc_sim_record *r;
	struct mc_sim *s;

	(void)state;
	o.prefill_nodes = 2;
	o.chunk_tokens = 25;
	s = open_sim(&o);
	feed(s, 0, 100, 1, 1);
	feed(s, 0, 100, 1, 100);
	r = next_done(s, here);
	near(r->first_s, 5 * 0.0125);
	near(r->prefill_gpu_s, 0.1);
	r = next_done(s, here);
	near(r->started_s, 4 * 0.0125);
	near(r->first_s, 9 * 0.0125);
	end_sim(s);
}

/* ---- decode --------------------------------------------------------- */

static void sequences_share_an_iteration(void **state)
{
	struct mc_sim_options o = plain();
	const struct mc_sim_record *r;
	struct mc_sim *s;

	(void)state;
	o.prefill = 2;
	s = open_sim(&o);
	feed(s, 0, 100, 11, 1);
	feed(s, 0, 100, 11, 200);
	for (int i = 0; i < 2; i++) {
		struct mc_sim_event ev;

		next_place(s, &ev);
		assert_int_equal(mc_sim_place(s, i, 2, i), 0);
	}
	/* The first joins at once, the second after the iteration that the
	 * first began alone: 11 ms, then nine of 12 ms with both. */
	r = next_done(s, here);
	near(r->done_s, 0.1 + 0.011 + 9 * 0.012);
	r = next_done(s, here);
	near(r->joined_s, 0.111);
	near(r->done_s, 0.1 + 0.011 + 9 * 0.012 + 0.011);
	end_sim(s);
}

/* What does not fit waits; what outgrows the memory makes way. */
static void vram_bounds_the_batch(void **state)
{
	struct mc_sim_options o = plain();
	const struct mc_sim_record *r;
	struct mc_sim_totals t;
	uint32_t preempted = 0;
	struct mc_sim *s;
	int n = 0;

	(void)state;
	o.vram_tokens = 250;
	s = open_sim(&o);
	feed(s, 0, 100, 60, 1);
	feed(s, 0, 100, 60, 100);
	feed(s, 0, 200, 51, 300);	/* never fits */
	while ((r = next_done(s, here))) {
		if (r->outcome == MC_SIM_REFUSED) {
			assert_int_equal(r->id, 2);
			continue;
		}
		assert_true(r->tbt_s >= r->itl_s);
		preempted += r->preempted;
		n++;
	}
	assert_int_equal(n, 2);
	mc_sim_totals(s, &t);
	assert_int_equal(t.refused, 1);
	assert_true(preempted > 0);
	assert_int_equal(t.preemptions, preempted);
	end_sim(s);
}

/* ---- coupled -------------------------------------------------------- */

static struct mc_sim_options coupled(void)
{
	struct mc_sim_options o = plain();

	o.prefill = o.decode = 0;
	o.coupled = 1;
	return o;
}

/* A prompt of 100 ms comes while another decodes: that one stands still. */
static void a_prefill_stops_the_others(void **state)
{
	struct mc_sim_options o = coupled();
	const struct mc_sim_record *r;
	struct mc_sim *s;

	(void)state;
	s = open_sim(&o);
	feed(s, 0, 100, 21, 1);
	feed(s, 0.105, 100, 1, 100);
	r = next_done(s, (struct place){ 0, 0, 0 });
	assert_int_equal(r->id, 1);
	near(r->started_s, 0.111);
	near(r->first_s, 0.211);
	r = next_done(s, (struct place){ 0, 0, 0 });
	near(r->done_s, 0.1 + 20 * 0.011 + 0.1);
	/* Two of twenty: one of 111 ms, one of 11. */
	within(r->tbt_s, (0.111 + 0.011) / 2, 1e-7);
	end_sim(s);
}

/* What the record sums up is there in full for who asks for it. */
static void intervals_are_kept_for_who_wants_them(void **state)
{
	struct mc_sim_options o = coupled();
	const struct mc_sim_record *r;
	const float *v = NULL;
	struct mc_sim *s;
	uint32_t i, n;

	(void)state;
	o.keep_intervals = true;
	s = open_sim(&o);
	feed(s, 0, 100, 21, 1);
	feed(s, 0.105, 100, 1, 100);
	next_done(s, (struct place){ 0, 0, 0 });
	assert_int_equal(mc_sim_intervals(s, &v), 0);
	r = next_done(s, (struct place){ 0, 0, 0 });
	near(r->second_s, r->first_s + 0.011);
	n = mc_sim_intervals(s, &v);
	assert_int_equal(n, 20);
	for (i = 0; i < n; i++)
		within(v[i], i == 1 ? 0.111 : 0.011, 1e-7);
	assert_null(next_done(s, (struct place){ 0, 0, 0 }));
	assert_int_equal(mc_sim_intervals(s, &v), 0);
	end_sim(s);
}

/* In chunks of ten it gets a token in each iteration, a slower one. */
static void chunks_go_along_with_decoding(void **state)
{
	struct mc_sim_options o = coupled();
	const struct mc_sim_record *r;
	struct mc_sim *s;

	(void)state;
	o.chunked = true;
	o.batch_tokens = 21;
	s = open_sim(&o);
	feed(s, 0, 21, 21, 1);
	feed(s, 0.025, 100, 1, 100);
	r = next_done(s, (struct place){ 0, 0, 0 });
	assert_int_equal(r->id, 1);
	/* 21 ms, 11 ms alone, then 5 x (20 ms of chunk + 1 ms). */
	near(r->first_s, 0.021 + 0.011 + 5 * 0.021);
	r = next_done(s, (struct place){ 0, 0, 0 });
	near(r->done_s, 0.021 + 15 * 0.011 + 5 * 0.021);
	within(r->tbt_s, 0.021, 1e-7);
	end_sim(s);
}

static void a_coupled_instance_caches_in_vram(void **state)
{
	struct mc_sim_options o = coupled();
	const struct mc_sim_record *r;
	struct mc_sim *s;

	(void)state;
	o.vram_tokens = 150;
	s = open_sim(&o);
	feed(s, 0, 100, 1, 1);
	feed(s, 1, 100, 1, 1);
	feed(s, 2, 100, 1, 100);
	feed(s, 3, 100, 1, 1);
	assert_int_equal(next_done(s, (struct place){ 0, 0, 0 })->local_tokens,
			 0);
	assert_int_equal(next_done(s, (struct place){ 0, 0, 0 })->local_tokens,
			 99);
	next_done(s, (struct place){ 0, 0, 0 });
	r = next_done(s, (struct place){ 0, 0, 0 });
	assert_int_equal(r->local_tokens, 0);	/* its first blocks went */
	end_sim(s);
}

/* ---- decisions ------------------------------------------------------ */

static void refusals_are_told(void **state)
{
	struct mc_sim_options o = plain();
	struct mc_sim_event ev;
	struct mc_sim_totals t;
	struct mc_sim *s;

	(void)state;
	o.ask_decode = true;
	s = open_sim(&o);
	feed(s, 0, 100, 10, 1);
	feed(s, 5, 100, 10, 1);
	next_place(s, &ev);
	assert_int_equal(mc_sim_next(s, &ev), -EINVAL);
	assert_int_equal(mc_sim_admit(s), -EINVAL);
	assert_int_equal(mc_sim_place(s, 1, 1, 0), -EINVAL);
	assert_int_equal(mc_sim_place(s, 0, 0, 0), -EINVAL);
	assert_int_equal(mc_sim_place(s, 0, 1, 7), -EINVAL);
	assert_int_equal(mc_sim_refuse(s), 0);
	assert_int_equal(mc_sim_refuse(s), -EINVAL);
	assert_int_equal(next_done(s, here)->outcome, MC_SIM_REFUSED);
	next_place(s, &ev);
	assert_int_equal(mc_sim_place(s, 0, 1, 0), 0);
	assert_int_equal(mc_sim_next(s, &ev), 0);
	if (ev.what == MC_SIM_FEED)
		assert_int_equal(mc_sim_next(s, &ev), 0);
	assert_int_equal(ev.what, MC_SIM_ADMIT);
	assert_int_equal(ev.decode, 1);
	assert_int_equal(mc_sim_cluster(s)->instances[1].coming, 1);
	assert_int_equal(mc_sim_refuse(s), 0);
	assert_int_equal(next_done(s, here)->outcome, MC_SIM_REFUSED_LATE);
	mc_sim_totals(s, &t);
	near(t.prefill_gpu_s, 0.1);
	assert_int_equal(t.refused, 1);
	assert_int_equal(t.refused_late, 1);
	end_sim(s);
}

static void the_forecast_counts_who_will_decode(void **state)
{
	struct mc_sim_options o = plain();
	struct mc_forecast f;
	struct mc_sim_event ev;
	struct mc_sim *s;
	int placed = 0;

	(void)state;
	s = open_sim(&o);
	feed(s, 0, 100, 101, 1);	/* decodes for 1.1 s from 0.1 on */
	next_done(s, here);
	near(mc_sim_cluster(s)->expected_decode_s, 1.1);
	feed(s, 2, 100, 101, 100);
	feed(s, 2, 200, 101, 200);
	while (placed < 2) {
		assert_int_equal(mc_sim_next(s, &ev), 0);
		if (ev.what != MC_SIM_PLACE)
			continue;
		assert_int_equal(mc_sim_place(s, 0, 1, 0), 0);
		placed++;
	}
	mc_sim_forecast(s, 2.05, &f);
	near(f.sequences, 0);
	mc_sim_forecast(s, 2.15, &f);
	near(f.sequences, 1);
	near(f.context_tokens, 100);
	mc_sim_forecast(s, 2.35, &f);
	near(f.sequences, 2);
	mc_sim_forecast(s, 3.25, &f);
	near(f.sequences, 1);
	mc_sim_forecast(s, 4, &f);
	near(f.sequences, 0);
	while (next_done(s, here))
		;
	end_sim(s);
}

/* Who decodes is there now, however long ago it began; then ever fewer are. */
static void the_forecast_of_those_who_decode_thins_out(void **state)
{
	struct mc_sim_options o = plain();
	struct mc_forecast f;
	struct mc_sim_event ev;
	struct mc_sim *s;
	int placed = 0;

	(void)state;
	s = open_sim(&o);
	feed(s, 0, 100, 101, 1);	/* as above: 1.1 s of decoding */
	next_done(s, here);
	feed(s, 2, 100, 301, 100);	/* decodes from 2.1 to 5.4 */
	feed(s, 4.1, 100, 101, 200);
	while (placed < 2) {
		assert_int_equal(mc_sim_next(s, &ev), 0);
		if (ev.what == MC_SIM_PLACE && ++placed < 2)
			assert_int_equal(mc_sim_place(s, 0, 1, 0), 0);
	}
	mc_sim_forecast(s, 4.1, &f);
	near(f.sequences, 1);
	mc_sim_forecast(s, 4.65, &f);
	near(f.sequences, 0.5);
	near(f.context_tokens, 0.5 * 101);
	mc_sim_forecast(s, 5.2, &f);
	near(f.sequences, 0);
	assert_int_equal(mc_sim_refuse(s), 0);
	while (next_done(s, here))
		;
	end_sim(s);
}

/* Who is fed only when something is done has a closed loop. */
static void it_asks_for_food_when_one_is_done(void **state)
{
	struct mc_sim_options o = plain();
	struct mc_sim *s = open_sim(&o);
	struct mc_sim_event ev = { .what = MC_SIM_FEED };
	int fed = 0, flying = 0, most = 0, done = 0;

	(void)state;
	while (mc_sim_next(s, &ev) == 0 && ev.what != MC_SIM_END) {
		if (ev.what == MC_SIM_FEED && flying < 3 && fed < 20) {
			feed(s, 0, 50, 5, fed++ * 100);
			flying++;
			most = flying > most ? flying : most;
		} else if (ev.what == MC_SIM_PLACE) {
			assert_int_equal(mc_sim_place(s, 0, 1, 0), 0);
		} else if (ev.what == MC_SIM_DONE) {
			flying--;
			done++;
		}
	}
	assert_int_equal(done, 20);
	assert_int_equal(most, 3);
	end_sim(s);
}

static void samples_tell_the_load_over_time(void **state)
{
	struct mc_sim_options o = plain();
	const struct mc_sim_sample *m;
	struct mc_sim *s;
	uint32_t n;

	(void)state;
	o.sample_s = 0.05;
	o.ttft_slo_s = 0.1;
	s = open_sim(&o);
	feed(s, 0, 100, 11, 1);
	feed(s, 0, 100, 11, 100);
	while (next_done(s, here))
		;
	n = mc_sim_samples(s, &m);
	assert_true(n >= 6 && n <= 8);
	near(m[0].at_s, 0.05);
	near(m[0].prefill_load, 1.5);
	assert_int_equal(m[0].queued, 2);
	assert_int_equal(m[n - 1].completed, 2);
	end_sim(s);
}

static void clusters_that_cannot_be_are_refused(void **state)
{
	struct mc_sim_options o = plain();
	struct mc_trace_req q = { .line = 3, .output_tokens = 1 };
	struct mc_sim *s = NULL;

	(void)state;
	o.decode = 0;
	assert_int_equal(mc_sim_open(&s, &o), -EINVAL);
	o.decode = 1;
	o.coupled = 1;
	assert_int_equal(mc_sim_open(&s, &o), -EINVAL);
	o = plain();
	o.cost.prefill_token_s = NAN;
	assert_int_equal(mc_sim_open(&s, &o), -EINVAL);
	o = plain();
	o.eviction = "clairvoyant";
	assert_int_equal(mc_sim_open(&s, &o), -EINVAL);
	assert_null(s);
	o.eviction = "fifo";
	s = open_sim(&o);
	assert_int_equal(mc_sim_feed(s, &q), -EINVAL);
	q.input_tokens = 10;
	q.n_blocks = 1;
	q.blocks = ids;
	q.block_tokens = 16;
	assert_int_equal(mc_sim_feed(s, &q), -EINVAL);
	assert_non_null(strstr(mc_errmsg(), "16"));
	mc_sim_close(s);
	mc_sim_close(NULL);
}

/* ---- at random ------------------------------------------------------ */

static uint32_t rnd(uint32_t n)
{
	return lrand48() % n;
}

static struct mc_sim_options random_options(void)
{
	struct mc_sim_options o = plain();

	o.cost.prefill_s = rnd(2) * 1e-3;
	o.cost.prefill_pair_s = rnd(2) * 1e-6;
	o.cost.decode_token_s = rnd(2) * 1e-6;
	if (rnd(3)) {
		o.prefill = 1 + rnd(4);
		o.decode = 1 + rnd(4);
		o.prefill_nodes = 1 + rnd(3);
	} else {
		o.prefill = o.decode = 0;
		o.coupled = 1 + rnd(4);
	}
	o.chunk_tokens = rnd(2) * (5 + rnd(100));
	o.batch_tokens = rnd(2) * (20 + rnd(500));
	o.chunked = rnd(2);
	o.no_prefix_cache = !rnd(5);
	o.no_overlap = !rnd(3);
	o.ask_decode = !rnd(3);
	o.keep_intervals = rnd(2);
	o.max_sequences = 1 + rnd(20);
	o.vram_tokens = rnd(2) * (700 + rnd(3000));
	o.dram_tokens = rnd(2) * (100 + rnd(3000));
	o.ssd_tokens = rnd(2) * (100 + rnd(5000));
	o.eviction = (const char *[]){ "lru", "lfu", "fifo", "length",
		"s3fifo", "sieve" }[rnd(6)];
	o.h2d_Bps = rnd(2) * (1e5 + rnd(1000000));
	o.nic_Bps = rnd(2) * (1e5 + rnd(1000000));
	o.ssd_Bps = rnd(2) * (1e5 + rnd(1000000));
	o.event_lag_s = rnd(2) * 0.1;
	o.sample_s = rnd(2) * 0.2;
	return o;
}

static uint64_t mix(uint64_t h, const void *p, size_t len)
{
	const unsigned char *b = p;

	while (len--)
		h = (h ^ *b++) * 1099511628211ull;
	return h;
}

static void decide(struct mc_sim *s, const struct mc_sim_event *ev)
{
	const struct mc_cluster *v = mc_sim_cluster(s);

	if (!rnd(15))
		assert_int_equal(mc_sim_refuse(s), 0);
	else if (ev->what == MC_SIM_ADMIT)
		assert_int_equal(mc_sim_admit(s), 0);
	else
		assert_int_equal(mc_sim_place(s, rnd(v->prefill_n),
				v->decode_first + rnd(v->n - v->decode_first),
				rnd(v->prefill_n)), 0);
}

/* The hash of all that is told of a run. */
static uint64_t run_at_random(long seed)
{
	struct mc_sim_options o;
	struct mc_sim_event ev;
	struct mc_sim *s;
	uint64_t h = 14695981039346656037ull;
	int left = 300, done = 0, fed = 0;
	double at_s = 0;

	srand48(seed);
	o = random_options();
	s = open_sim(&o);
	for (;;) {
		memset(&ev, 0, sizeof(ev));
		if (mc_sim_next(s, &ev) < 0)
			fail_msg("seed %ld: %s", seed, mc_errmsg());
		if (mc_sim_check(s) < 0)
			fail_msg("seed %ld, after %d: %s", seed, done,
				 mc_errmsg());
		if (ev.what == MC_SIM_END)
			break;
		if (ev.what == MC_SIM_DONE) {
			const struct mc_sim_record *r = &ev.record;

			done++;
			assert_true(r->done_s >= r->arrived_s);
			if (r->outcome == MC_SIM_COMPLETED)
				assert_true(r->first_s > r->arrived_s &&
					    r->tbt_s >= r->itl_s * (1 - 1e-5));
			h = mix(h, r, sizeof(*r));
		} else if (ev.what == MC_SIM_FEED) {
			if (left && left--) {
				at_s += drand48() * 0.1;
				feed(s, at_s, 1 + rnd(600), rnd(30),
				     rnd(40) * 20);
				fed++;
			}
		} else {
			decide(s, &ev);
		}
	}
	if (done != fed)
		fail_msg("seed %ld: %d of %d requests had no end", seed,
			 fed - done, fed);
	end_sim(s);
	return h;
}

static void random_runs_keep_the_laws_and_repeat(void **state)
{
	const char *first = getenv("MC_SIM_SEED");
	long seed = first ? atol(first) : 1;
	int i;

	(void)state;
	for (i = 0; i < 100; i++, seed++)
		if (run_at_random(seed) != run_at_random(seed))
			fail_msg("seed %ld: two runs differ", seed);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_lone_request_takes_what_it_costs),
		cmocka_unit_test(one_token_needs_no_decode),
		cmocka_unit_test(requests_queue_first_come_first_served),
		cmocka_unit_test(the_queue_is_that_of_theory),
		cmocka_unit_test(a_prefix_is_not_computed_twice),
		cmocka_unit_test(a_prefix_comes_from_another_instance),
		cmocka_unit_test(what_ssd_holds_has_to_be_read),
		cmocka_unit_test(the_index_hears_of_it_late),
		cmocka_unit_test(flows_share_a_link),
		cmocka_unit_test(streams_overlap_the_prefill),
		cmocka_unit_test(a_slow_link_delays_the_second_token),
		cmocka_unit_test(a_cached_prefix_is_loaded_while_it_computes),
		cmocka_unit_test(chunks_overlap_in_a_pipeline),
		cmocka_unit_test(sequences_share_an_iteration),
		cmocka_unit_test(vram_bounds_the_batch),
		cmocka_unit_test(a_prefill_stops_the_others),
		cmocka_unit_test(intervals_are_kept_for_who_wants_them),
		cmocka_unit_test(chunks_go_along_with_decoding),
		cmocka_unit_test(a_coupled_instance_caches_in_vram),
		cmocka_unit_test(refusals_are_told),
		cmocka_unit_test(the_forecast_counts_who_will_decode),
		cmocka_unit_test(the_forecast_of_those_who_decode_thins_out),
		cmocka_unit_test(it_asks_for_food_when_one_is_done),
		cmocka_unit_test(samples_tell_the_load_over_time),
		cmocka_unit_test(clusters_that_cannot_be_are_refused),
		cmocka_unit_test(random_runs_keep_the_laws_and_repeat),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
