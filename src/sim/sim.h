/*
 * sim.h - the parts of the simulator: a cluster in virtual time.
 *
 *   sim.c       the caller's side: feed, next, place; who is told what
 *   facts.c     what policies see, samples, totals, the laws of conservation
 *   tiers.c     the DRAM and SSD cache of an instance, and the block index
 *   prefill.c   prefetch, queue, pipeline, and the stream to decode
 *   decode.c    iterations of continuous batching, token intervals
 *   coupled.c   instances that do both, as vLLM does
 *   links.c     bandwidth that flows share; timers.c: what happens when
 *
 * A request is on one of three ways: disaggregated (fetch, prefill, stream,
 * decode), coupled (both in one instance's iterations), or refused.
 */
#ifndef MC_SIM_SIM_H
#define MC_SIM_SIM_H

#include <mooncake.h>
#include "links.h"
#include "timers.h"

enum sim_happens {
	SIM_ARRIVES,			/* a request */
	SIM_PREFILLED,			/* a request */
	SIM_STAGE,			/* an instance's first stage is free */
	SIM_ITERATED,			/* an instance */
	SIM_FLOWED,			/* a flow */
	SIM_SAMPLE,
};

enum sim_state {
	SIM_NEW, SIM_ASKED, SIM_PREFILLING, SIM_DECODING,
};

struct sim_req {
	struct mc_sim_record rec;	/* as far as it is known */
	struct sim_timer timer;
	enum sim_state state;
	uint32_t instance;		/* whose queue or batch it is in */
	uint32_t fetching;		/* flows of its prefix */
	bool prefilled, streaming;
	uint32_t hit_blocks;
	double compute_s;		/* of its prefill, on one node */
	double occupies_s;		/* the first stage of an instance */
	double load_s;			/* prefix, host to device */
	double expected_s;		/* end of its prefill, as placed */

	bool begun;			/* coupled: VRAM is held for it */
	uint32_t todo_tokens;		/* the prompt, and what it has */
	uint32_t done_tokens;
	uint32_t chunk;			/* of this iteration */

	uint32_t produced;		/* tokens, the first included */
	uint64_t joined;		/* iteration of the instance */
	uint64_t last;			/* iteration of its last token */
	double last_s;			/* its last token, before it joined */
	double offset_s;		/* from that to the instance's last */
	float *gaps;			/* intervals outside of the log */
	uint32_t n_gaps;
	uint32_t slot;			/* in the batch */

	struct sim_req *next, *prev;	/* in a queue */
	struct sim_req *after, *before;	/* among all in flight */
	uint32_t n_blocks;
	uint64_t blocks[];
};

struct sim_queue {
	struct sim_req *first, *last;
	uint32_t n;
};

struct sim_inst {
	struct sim_timer timer;		/* stage or iteration */
	uint32_t id, nodes;
	struct mc_cache *dram, *ssd;	/* coupled: dram is the VRAM's cache */
	uint64_t stored, evicted;	/* blocks that it got and lost */
	struct sim_link out, in, ssd_read;
	double ssd_share;

	struct sim_queue queue;		/* for prefill, or to join the batch */
	double backlog_s;		/* of the queue, in the first stage */
	double *stage_free_s;		/* per node of the pipeline */

	struct sim_req **batch;		/* that decode */
	uint32_t n, cap;
	uint64_t iteration, next_last;	/* next_last: when someone is done */
	double began_s, last_token_s;	/* the iteration; the end of the last */
	double extra_s;			/* added to the next: swapped in */
	bool tokens;			/* this iteration makes some */
	struct sim_queue chunks;	/* coupled: prefill of this iteration */
	uint64_t held_tokens;		/* coupled: of prefills in progress */
	float *log;			/* intervals of iterations, a ring */
	uint64_t log_size, log_first;	/* log_first: someone needs it */
};

struct sim_change {			/* that the index will see */
	double at_s;
	uint64_t id;
	uint32_t instance;
	bool added;
};

struct mc_sim {
	struct mc_sim_options o;
	struct mc_cluster view;
	struct mc_instance *facts;	/* view.instances */
	struct sim_inst *inst;
	uint32_t *matched;		/* scratch, per instance */
	struct mc_index *index;
	struct sim_timers timers;
	double now_s;
	int err;			/* of something inside: it is over */

	struct sim_req *asked;		/* waits for the caller's answer */
	struct sim_req *told;		/* its record was the last event */
	struct sim_queue over;		/* records to hand out */
	struct sim_req *flight;		/* all in flight, a list */
	uint64_t unarrived;
	bool starved;			/* asked for food, got none */
	uint64_t next_id;
	struct sim_flow *spare_flows;
	uint32_t flows;			/* running */

	struct sim_change *changes;	/* a ring, with event_lag_s */
	uint64_t change_first, change_end, change_size;

	struct mc_sim_totals totals;
	double decode_s_sum;		/* of those completed */
	uint64_t decoded;		/* how many of them decoded */
	struct sim_timer sampler;
	struct mc_sim_sample *samples;
	uint32_t n_samples, sample_cap;
	double sampled_bytes;
	float *scratch;			/* intervals of one request */
	uint32_t scratch_size;
};

/* The first thing that went wrong ends the simulation. */
static inline void sim_check(struct mc_sim *s, int r)
{
	if (r < 0 && !s->err)
		s->err = r;
}

static inline void sim_timer(struct mc_sim *s, struct sim_timer *t, double at)
{
	sim_check(s, timers_set(&s->timers, t, at));
}

static inline bool sim_coupled(const struct mc_sim *s)
{
	return s->o.coupled;
}

static inline void queue_push(struct sim_queue *q, struct sim_req *r)
{
	r->next = NULL;
	r->prev = q->last;
	*(q->last ? &q->last->next : &q->first) = r;
	q->last = r;
	q->n++;
}

static inline void queue_push_front(struct sim_queue *q, struct sim_req *r)
{
	r->prev = NULL;
	r->next = q->first;
	*(q->first ? &q->first->prev : &q->last) = r;
	q->first = r;
	q->n++;
}

static inline void queue_del(struct sim_queue *q, struct sim_req *r)
{
	*(r->prev ? &r->prev->next : &q->first) = r->next;
	*(r->next ? &r->next->prev : &q->last) = r->prev;
	q->n--;
}

/* sim.c */
void sim_over(struct mc_sim *s, struct sim_req *r, enum mc_sim_outcome why);
void sim_ask(struct mc_sim *s, struct sim_req *r);
void sim_flow(struct mc_sim *s, void *owner, double bytes, double max_Bps,
	      struct sim_link *a, struct sim_link *b, struct sim_link *c);

/* tiers.c */
int tiers_open(struct mc_sim *s, struct sim_inst *x);
void tiers_close(struct sim_inst *x);
uint32_t tiers_prefix(const struct sim_inst *x, const struct sim_req *r,
		      uint32_t *on_ssd);
void tiers_store(struct mc_sim *s, struct sim_inst *x, const struct sim_req *r,
		 uint32_t from, uint32_t to);
void tiers_fit(struct mc_sim *s, struct sim_inst *x, uint64_t blocks);
void tiers_publish(struct mc_sim *s, double until_s);

/* prefill.c */
void prefill_place(struct mc_sim *s, struct sim_req *r, uint32_t source);
void prefill_fetched(struct mc_sim *s, struct sim_req *r);
void prefill_over(struct mc_sim *s, struct sim_req *r);
void prefill_next(struct mc_sim *s, struct sim_inst *x);
void prefill_streamed(struct mc_sim *s, struct sim_req *r);

/* decode.c */
void decode_join(struct mc_sim *s, struct sim_req *r);
void decode_begin(struct mc_sim *s, struct sim_inst *x);
void decode_last(struct mc_sim *s, struct sim_inst *x, struct sim_req *r);
void decode_iterated(struct mc_sim *s, struct sim_inst *x);
void decode_enter(struct mc_sim *s, struct sim_inst *x, struct sim_req *r);
bool decode_fits(const struct mc_sim *s, const struct sim_inst *x,
		 uint64_t tokens);

/* coupled.c */
void coupled_place(struct mc_sim *s, struct sim_req *r);
double coupled_pick(struct mc_sim *s, struct sim_inst *x);
void coupled_prefilled(struct mc_sim *s, struct sim_inst *x);

/* facts.c */
void facts_refresh(struct mc_sim *s, const struct sim_req *r);
void facts_leave(struct mc_sim *s, const struct sim_req *r);
void facts_sample(struct mc_sim *s);

#endif
