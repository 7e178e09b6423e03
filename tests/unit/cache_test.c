/*
 * cache_test.c - block caches against naive models of their policies, and the
 * hit rates of whole traces against the optimum and against known figures.
 *
 * A model keeps its blocks in one plain array, in the order of the queue, and
 * finds everything by looking at all of them. MC_SEED=N repeats a run.
 */
#include "../../src/base/util.h"
#include "peer.h"

#include <unistd.h>

enum { MODEL_MAX = 512, UNIVERSE = 700 };

struct entry {
	uint64_t id;
	uint32_t uses, position;
	uint64_t used_at;
};

/* A queue of blocks, oldest first. */
struct queue {
	struct entry at[MODEL_MAX];
	int n;
};

struct model {
	const char *policy;
	int capacity;
	struct queue q, main, ghost;	/* the last two: s3fifo */
	uint64_t clock;
	uint64_t hand;			/* sieve: id; 0: at the oldest */
};

static uint64_t seed_of_run(void)
{
	const char *s = getenv("MC_SEED");

	return s ? strtoull(s, NULL, 10) : mc_now_ns() ^ getpid();
}

/* ---- models ------------------------------------------------------- */

static int queue_find(const struct queue *q, uint64_t id)
{
	for (int i = 0; i < q->n; i++)
		if (q->at[i].id == id)
			return i;
	return -1;
}

static struct entry queue_del(struct queue *q, int i)
{
	struct entry e = q->at[i];

	memmove(q->at + i, q->at + i + 1, (q->n - i - 1) * sizeof(e));
	q->n--;
	return e;
}

static void queue_add(struct queue *q, struct entry e)
{
	assert_true(q->n < MODEL_MAX);
	q->at[q->n++] = e;
}

static bool is(const struct model *m, const char *policy)
{
	return !strcmp(m->policy, policy);
}

/* Fewest uses; for "length" then the latest position; then the longest ago. */
static bool ranks_before(const struct model *m, const struct entry *a,
			 const struct entry *b)
{
	if (a->uses != b->uses)
		return a->uses < b->uses;
	if (is(m, "length") && a->position != b->position)
		return a->position > b->position;
	return a->used_at < b->used_at;
}

static uint64_t ranked_out(struct model *m)
{
	int least = 0;

	for (int i = 1; i < m->q.n; i++)
		if (ranks_before(m, &m->q.at[i], &m->q.at[least]))
			least = i;
	return queue_del(&m->q, least).id;
}

static uint64_t sieve_out(struct model *m)
{
	int i = m->hand ? queue_find(&m->q, m->hand) : 0;

	while (m->q.at[i].uses > 1) {
		m->q.at[i].uses = 1;
		i = (i + 1) % m->q.n;
	}
	m->hand = i + 1 < m->q.n ? m->q.at[i + 1].id : 0;
	return queue_del(&m->q, i).id;
}

/* The entry's uses count from 1, those of the paper from 0. */
static uint64_t s3fifo_out(struct model *m)
{
	int all = m->q.n + m->main.n;
	struct entry e;

	while (m->q.n >= (all + 9) / 10) {
		e = queue_del(&m->q, 0);
		if (e.uses <= 2) {
			if (m->ghost.n == m->capacity - m->capacity / 10)
				queue_del(&m->ghost, 0);
			queue_add(&m->ghost, e);
			return e.id;
		}
		e.uses = 1;
		queue_add(&m->main, e);
	}
	for (;;) {
		e = queue_del(&m->main, 0);
		if (e.uses == 1)
			return e.id;
		e.uses--;
		queue_add(&m->main, e);
	}
}

static uint64_t model_out(struct model *m)
{
	if (is(m, "lfu") || is(m, "length"))
		return ranked_out(m);
	if (is(m, "sieve"))
		return sieve_out(m);
	if (is(m, "s3fifo"))
		return s3fifo_out(m);
	return queue_del(&m->q, 0).id;
}

static struct entry *model_find(struct model *m, uint64_t id)
{
	int i = queue_find(&m->q, id), k = queue_find(&m->main, id);

	return i >= 0 ? &m->q.at[i] : k >= 0 ? &m->main.at[k] : NULL;
}

static void model_hit(struct model *m, struct entry *e, uint32_t position)
{
	e->uses++;
	if (is(m, "s3fifo"))
		e->uses = mc_min(e->uses, 4u);
	e->position = position;
	e->used_at = m->clock;
	if (is(m, "lru"))
		queue_add(&m->q, queue_del(&m->q, e - m->q.at));
}

static int model_touch(struct model *m, uint64_t id, uint32_t position,
		       uint64_t *gone)
{
	struct entry *e = model_find(m, id);
	int r = MC_CACHE_NEW, ghost;

	m->clock++;
	if (e) {
		model_hit(m, e, position);
		return MC_CACHE_HIT;
	}
	if (m->capacity && m->q.n + m->main.n == m->capacity) {
		*gone = model_out(m);
		r = MC_CACHE_EVICTED;
	}
	ghost = queue_find(&m->ghost, id);
	if (ghost >= 0)
		queue_del(&m->ghost, ghost);
	queue_add(ghost >= 0 ? &m->main : &m->q,
		  (struct entry){ id, 1, position, m->clock });
	return r;
}

/* ---- each policy against its model --------------------------------- */

static const char *const policies[] = { "lru", "lfu", "fifo", "length",
	"s3fifo", "sieve" };

/* Few blocks often, many seldom; ids over the whole range, none of them 0. */
static uint64_t some_id(uint64_t *seed)
{
	uint64_t n = rnd(seed) % UNIVERSE;

	if (rnd(seed) % 3)
		n = n * n / UNIVERSE;
	return (n + 1) * 0x123456789abcdefu;
}

static void same_step(struct mc_cache *c, struct model *m, uint64_t *seed)
{
	uint64_t gone = 1, model_gone = 1, id = some_id(seed);
	uint32_t position = rnd(seed) % 5;

	if (m->q.n + m->main.n > 0 && rnd(seed) % 50 == 0) {
		assert_true(mc_cache_evict(c, &gone));
		assert_int_equal(gone, model_out(m));
		assert_false(mc_cache_has(c, gone));
		return;
	}
	assert_int_equal(mc_cache_touch(c, id, position, &gone),
			 model_touch(m, id, position, &model_gone));
	assert_int_equal(gone, model_gone);
	assert_true(mc_cache_has(c, id));
}

static void same_content(struct mc_cache *c, struct model *m)
{
	uint64_t ids[MODEL_MAX];
	int n = 0;

	assert_int_equal(mc_cache_used(c), m->q.n + m->main.n);
	for (int i = 0; i < UNIVERSE; i++) {
		uint64_t id = (i + 1) * 0x123456789abcdefu;

		assert_int_equal(mc_cache_has(c, id), !!model_find(m, id));
	}
	for (; n < m->q.n; n++)
		ids[n] = m->q.at[n].id;
	assert_int_equal(mc_cache_prefix(c, ids, n), n);
	ids[n] = 3;
	assert_int_equal(mc_cache_prefix(c, ids, n + 1), n);
	if (n > 2) {
		ids[1] = 5;
		assert_int_equal(mc_cache_prefix(c, ids, n), 1);
	}
}

static void policies_are_as_their_models(void **state)
{
	static const int capacities[] = { 1, 2, 3, 10, 63, 300 };
	static struct model m;
	uint64_t seed = seed_of_run();

	(void)state;
	print_message("MC_SEED=%llu\n", (unsigned long long)seed);
	for (size_t p = 0; p < mc_array_len(policies); p++)
		for (size_t k = 0; k < mc_array_len(capacities); k++) {
			struct mc_cache *c;

			memset(&m, 0, sizeof(m));
			m.policy = policies[p];
			m.capacity = capacities[k];
			ok(mc_cache_open(&c, m.policy, m.capacity));
			for (int i = 0; i < 6000; i++) {
				same_step(c, &m, &seed);
				if (i % 500 == 0)
					same_content(c, &m);
			}
			mc_cache_close(c);
		}
}

/* Without bound and far beyond the first arrays; then out to the last. */
static void grows_and_empties(void **state)
{
	enum { N = 100000 };

	(void)state;
	for (size_t p = 0; p < mc_array_len(policies); p++) {
		struct mc_cache *c;
		uint64_t gone, sum = 0;

		ok(mc_cache_open(&c, policies[p], 0));
		assert_false(mc_cache_evict(c, &gone));
		for (uint64_t i = 0; i < N; i++)
			assert_int_equal(mc_cache_touch(c, i << 32, 0, &gone),
					 MC_CACHE_NEW);
		for (uint64_t i = 0; i < N; i += 7)
			assert_int_equal(mc_cache_touch(c, i << 32, 0, &gone),
					 MC_CACHE_HIT);
		assert_int_equal(mc_cache_used(c), N);
		while (mc_cache_evict(c, &gone))
			sum += gone >> 32;
		assert_int_equal(sum, (uint64_t)N * (N - 1) / 2);
		assert_int_equal(mc_cache_used(c), 0);
		assert_int_equal(mc_cache_touch(c, 9, 0, &gone), MC_CACHE_NEW);
		mc_cache_close(c);
	}
}

static void says_which_policies_there_are(void **state)
{
	struct mc_cache *c;

	(void)state;
	refused(mc_cache_open(&c, "mru", 10), -EINVAL, "'mru'");
	refused(mc_cache_open(&c, "mru", 10), -EINVAL, "s3fifo");
	ok(mc_cache_open(&c, NULL, 10));
	mc_cache_close(c);
	mc_cache_close(NULL);
}

/* ---- hit rates ----------------------------------------------------- */

/* Requests that go on from earlier ones or branch off them, ids as prefixes:
 * a block is named by its predecessor's id and a choice. */
static void make_trace(struct mc_hits *h, uint64_t *seed, int requests,
		       uint64_t *blocks, uint64_t *hits)
{
	uint64_t ids[64];
	struct mc_trace_req r = { .block_tokens = 512, .blocks = ids };

	for (int q = 0; q < requests; q++) {
		uint64_t id = 1;

		r.n_blocks = rnd(seed) % 12;
		for (uint32_t i = 0; i < r.n_blocks; i++) {
			uint64_t choice = rnd(seed) % (i < 2 ? 3 : 2);

			id = (id + choice) * 0x9e3779b97f4a7c15u + 1;
			ids[i] = id;
		}
		*blocks += r.n_blocks;
		*hits += ok(mc_hits_add(h, &r));
	}
}

static void belady_is_the_upper_bound(void **state)
{
	uint64_t seed = seed_of_run();

	(void)state;
	print_message("MC_SEED=%llu\n", (unsigned long long)seed);
	for (int round = 0; round < 40; round++) {
		uint64_t blocks = 0, hits = 0, last = 0;
		struct mc_hits *h;

		ok(mc_hits_open(&h));
		make_trace(h, &seed, 400, &blocks, &hits);
		assert_int_equal(mc_hits_blocks(h), blocks);
		for (uint64_t n = 1; n <= 1024; n *= 2) {
			uint64_t best = ok(mc_hits_count(h, "belady", n));

			for (size_t p = 0; p < mc_array_len(policies); p++)
				assert_true((uint64_t)ok(mc_hits_count(h,
						policies[p], n)) <= best);
			assert_true(best >= last);
			last = best;
		}
		for (size_t p = 0; p < mc_array_len(policies); p++)
			assert_int_equal(ok(mc_hits_count(h, policies[p], 0)),
					 hits);
		assert_int_equal(ok(mc_hits_count(h, "belady", 0)), hits);
		mc_hits_close(h);
	}
}

/* The optimum by trying everything: at each block, every way to go on. */
static int best_of_all(const int *use, int n, unsigned int kept, int capacity)
{
	unsigned int now;
	int best = -1, hit;

	if (!n)
		return 0;
	hit = kept >> *use & 1;
	now = kept | 1u << *use;
	if (__builtin_popcount(now) <= capacity)
		return hit + best_of_all(use + 1, n - 1, now, capacity);
	for (unsigned int b = 0; b < 32; b++)
		if (now >> b & 1)
			best = mc_max(best, best_of_all(use + 1, n - 1,
						now & ~(1u << b), capacity));
	return hit + best;
}

static void belady_is_the_best_there_is(void **state)
{
	uint64_t seed = seed_of_run(), id;
	int use[14];

	(void)state;
	print_message("MC_SEED=%llu\n", (unsigned long long)seed);
	for (int round = 0; round < 20; round++) {
		struct mc_hits *h;

		ok(mc_hits_open(&h));
		for (size_t i = 0; i < mc_array_len(use); i++) {
			id = use[i] = rnd(&seed) % 6;
			ok(mc_hits_add(h, &(struct mc_trace_req){
				.n_blocks = 1, .blocks = &id }));
		}
		for (int n = 1; n <= 4; n++)
			assert_int_equal(ok(mc_hits_count(h, "belady", n)),
				best_of_all(use, mc_array_len(use), 0, n));
		mc_hits_close(h);
	}
}

static void counts_prefixes_and_blocks(void **state)
{
	static const uint64_t first[] = { 7, 8, 9 }, branch[] = { 7, 5, 9 };
	const struct mc_hits_block *b;
	struct mc_hits *h;

	(void)state;
	ok(mc_hits_open(&h));
	assert_int_equal(ok(mc_hits_count(h, "belady", 4)), 0);
	assert_int_equal(ok(mc_hits_count(h, "lru", 4)), 0);
	ok(mc_hits_add(h, &(struct mc_trace_req){ .n_blocks = 3,
						  .blocks = first }));
	ok(mc_hits_add(h, &(struct mc_trace_req){ .n_blocks = 0 }));
	assert_int_equal(ok(mc_hits_add(h, &(struct mc_trace_req){
				 .n_blocks = 3, .blocks = branch })), 1);
	/* 9 is there, but behind a block that is not. */
	assert_int_equal(ok(mc_hits_count(h, "lru", 0)), 1);
	assert_int_equal(ok(mc_hits_count(h, "belady", 0)), 1);
	assert_int_equal(mc_hits_blocks(h), 6);
	assert_int_equal(mc_hits_unique(h, &b), 4);
	assert_true(b[0].id == 7 && b[0].uses == 2);
	assert_true(b[1].id == 8 && b[1].uses == 1);
	assert_true(b[3].id == 5 && b[3].uses == 1);
	refused(mc_hits_count(h, "mru", 0), -EINVAL, "'mru'");
	mc_hits_close(h);
	mc_hits_close(NULL);
}

/* Measured by others on the public conversation trace. */
static void the_public_trace_has_its_known_hit_rates(void **state)
{
	static const struct { uint64_t blocks; double rate; } known[] = {
		{ 1000, .044 }, { 5859, .136 }, { 10000, .211 },
		{ 30000, .326 }, { 50000, .355 }, { 100000, .364 },
		{ 0, .3664 },
	};
	const struct mc_hits_block *b;
	struct mc_trace *t;
	struct mc_trace_req r;
	struct mc_hits *h;

	(void)state;
	if (mc_trace_open(&t, "../shared/traces/conversation_trace.jsonl",
			  NULL) < 0)
		skip();
	ok(mc_hits_open(&h));
	while (ok(mc_trace_next(t, &r)) > 0)
		ok(mc_hits_add(h, &r));
	mc_trace_close(t);
	assert_int_equal(mc_hits_blocks(h), 288500);
	assert_int_equal(mc_hits_unique(h, &b), 182790);
	for (size_t i = 0; i < mc_array_len(known); i++) {
		double rate = ok(mc_hits_count(h, "lru", known[i].blocks)) /
			      288500.0;

		assert_true(rate > known[i].rate - 0.00055 &&
			    rate < known[i].rate + 0.00055);
	}
	mc_hits_close(h);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(policies_are_as_their_models),
		cmocka_unit_test(grows_and_empties),
		cmocka_unit_test(says_which_policies_there_are),
		cmocka_unit_test(counts_prefixes_and_blocks),
		cmocka_unit_test(belady_is_the_upper_bound),
		cmocka_unit_test(belady_is_the_best_there_is),
		cmocka_unit_test(the_public_trace_has_its_known_hit_rates),
	};

	return cmocka_run_group_tests_name("cache", tests, NULL, NULL);
}
