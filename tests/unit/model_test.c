/*
 * model_test.c - random scatter and gather over several engines and transports
 * at once, against a model: two images of memory to which every request is done
 * by memcpy. MC_SEED chooses the numbers (printed), MC_OPS how many ranges are
 * moved in all.
 *
 * Requests of a batch run in any order, so those of one batch keep to parts of
 * the memory of their own: each far range and each near range is written, or
 * read, by one request only.
 */
#include "peer.h"

#include <time.h>

enum {
	MEM = 1 << 20,
	LANES = 8,			/* parts of memory: one request each */
	LANE = MEM / LANES,
	RANGES = 24,			/* most of one list */
};

struct world {
	struct pair pairs[6];
	int n;
	struct mc_engine *e;
	uint8_t *near, *far[6];		/* the model */
	uint64_t ranges, batches, bytes, seed;
};

struct lists {
	struct mc_range l[RANGES], r[RANGES];
};

static const char *const worlds[] = {
	"local", "shm", "shm-foreign", "tcp", "tcp-child", "tcp-4",
};

/* One near engine with a far one for each setup, all transports on. */
static void world_open(struct world *w)
{
	struct mc_options o = { .streams = 2 };
	void *near;

	for (w->n = 0; w->n < 6; w->n++) {
		struct pair *p = &w->pairs[w->n];

		p->s = setup_named(worlds[w->n]);
		if (w->n)
			far_open(&p->far, p->s, NULL);
	}
	ok(mc_open(&w->e, &o));
	ok(mc_buffer_alloc(w->e, MEM, MC_LOCAL, 0, -1, &near));
	w->near = malloc(MEM);
	mc_fill(near, MEM, 1);
	memcpy(w->near, near, MEM);
	for (int i = 0; i < w->n; i++) {
		struct pair *p = &w->pairs[i];

		if (!i) {
			p->far = (struct far){ .s = p->s, .e = w->e,
					       .borrowed = true };
			snprintf(p->far.name, MC_NAME_MAX, "%s",
				 mc_engine_name(w->e));
		}
		p->e = w->e;
		p->near = near;
		p->len = MEM;
		p->remote = far_alloc(&p->far, MEM, MC_REMOTE_RW);
		far_fill(&p->far, p->remote, MEM, i + 2);
		w->far[i] = malloc(MEM);
		mc_fill(w->far[i], MEM, i + 2);
		p->seg = ok(mc_segment_open(w->e, p->far.name, 5000));
	}
}

static void world_close(struct world *w)
{
	for (int i = 1; i < w->n; i++)
		far_close(&w->pairs[i].far);
	mc_close(w->e);
	for (int i = 0; i < w->n; i++) {
		far_end(&w->pairs[i].far);
		free(w->far[i]);
	}
	free(w->near);
}

static void world_check(struct world *w)
{
	struct pair *p = w->pairs;

	if (memcmp(p->near, w->near, MEM))
		fail_msg("near memory differs; MC_SEED=%llu",
			 (long long)w->seed);
	for (int i = 0; i < w->n; i++)
		if (far_hash(&p[i].far, p[i].remote, MEM) !=
		    mc_hash(w->far[i], MEM, 0))
			fail_msg("far memory of %s differs; MC_SEED=%llu",
				 worlds[i], (long long)w->seed);
}

/* Up to RANGES pieces of a lane, @total bytes, in any order. */
static uint32_t random_list(struct world *w, struct mc_range *r, uint64_t base,
			    uint64_t total)
{
	uint32_t n = 1 + rnd(&w->seed) % RANGES;
	uint64_t at = base, left = total, slack = LANE - total;

	for (uint32_t i = 0; i < n; i++) {
		uint64_t gap = rnd(&w->seed) % (slack / n + 1);
		uint64_t len = i == n - 1 ? left :
			       rnd(&w->seed) % (2 * left / (n - i) + 1);

		r[i] = (struct mc_range){ at + gap, len };
		at += gap + len;
		left -= len;
	}
	for (uint32_t i = n - 1; i > 0; i--) {
		uint32_t k = rnd(&w->seed) % (i + 1);
		struct mc_range t = r[i];

		r[i] = r[k];
		r[k] = t;
	}
	w->ranges += n;
	return n;
}

static void model_do(struct world *w, int far, const struct mc_req *q)
{
	struct pair *p = &w->pairs[far];
	uint32_t i = 0, k = 0;
	uint64_t oi = 0, ok_ = 0;

	while (i < q->n_locals && k < q->n_remotes) {
		uint64_t a = q->locals[i].len - oi, b = q->remotes[k].len - ok_;
		uint64_t n = a < b ? a : b;
		uint8_t *l = w->near + (q->locals[i].addr + oi -
					(uint64_t)p->near);
		uint8_t *r = w->far[far] + (q->remotes[k].addr + ok_ -
					    p->remote);

		memcpy(q->op == MC_READ ? l : r, q->op == MC_READ ? r : l, n);
		oi += n;
		ok_ += n;
		if (oi == q->locals[i].len) {
			i++;
			oi = 0;
		}
		if (ok_ == q->remotes[k].len) {
			k++;
			ok_ = 0;
		}
	}
}

/* A batch of as many requests as there are lanes, at most. */
static uint64_t world_step(struct world *w, struct lists *lists, bool async)
{
	struct mc_req q[LANES];
	int n = 1 + rnd(&w->seed) % LANES;
	/* Now and then large. */
	uint64_t most = rnd(&w->seed) % 16 ? 2000 : LANE;
	uint64_t id = 0;

	for (int i = 0; i < n; i++) {
		int far = rnd(&w->seed) % w->n;
		struct pair *p = &w->pairs[far];
		uint64_t total = rnd(&w->seed) % (most + 1);
		struct lists *s = &lists[i];

		q[i] = (struct mc_req){
			.op = rnd(&w->seed) % 2 ? MC_READ : MC_WRITE,
			.segment = p->seg, .locals = s->l, .remotes = s->r,
		};
		q[i].n_locals = random_list(w, s->l, (uint64_t)p->near +
					   i * LANE, total);
		q[i].n_remotes = random_list(w, s->r, p->remote + i * LANE,
					    total);
		w->bytes += total;
		model_do(w, far, &q[i]);
	}
	w->batches++;
	if (async)
		ok(mc_submit(w->e, q, n, NULL, &id));
	else
		ok(mc_transfer(w->e, q, n, NULL, NULL));
	return id;
}

static void random_operations_match_the_model(void **state)
{
	const char *seed = getenv("MC_SEED"), *ops = getenv("MC_OPS");
	uint64_t n = ops ? strtoull(ops, NULL, 0) : 1000000, check = 0;
	struct lists lists[LANES];
	struct world w = { 0 };
	uint64_t first;

	(void)state;
	w.seed = first = seed ? strtoull(seed, NULL, 0) :
			 (uint64_t)time(NULL);
	print_message("MC_SEED=%llu MC_OPS=%llu\n", (long long)first,
		      (long long)n);
	world_open(&w);
	while (w.ranges < n) {
		bool async = rnd(&w.seed) % 4 == 0;
		uint64_t id = world_step(&w, lists, async);
		struct mc_result res;

		if (async) {
			ok(mc_wait(w.e, id, 20000, &res));
			assert_int_equal(res.state, MC_COMPLETED);
			ok(mc_batch_free(w.e, id));
		}
		if (w.ranges < check)
			continue;
		check += n / 20;
		world_check(&w);
	}
	world_check(&w);
	print_message("%llu ranges, %llu batches, %llu bytes\n",
		      (long long)w.ranges, (long long)w.batches,
		      (long long)w.bytes);
	world_close(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(random_operations_match_the_model),
	};

	peer_start();
	return peer_stop(cmocka_run_group_tests_name("model", tests, NULL,
						     NULL));
}
