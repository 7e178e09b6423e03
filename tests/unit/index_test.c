/*
 * index_test.c - the block index, against a plain table of who holds what.
 *
 * The seed of the random changes is printed; INDEX_SEED in the environment
 * repeats a run.
 */
#include "peer.h"

#include <inttypes.h>
#include <sys/resource.h>
#include <unistd.h>

enum {
	LIST = 200,			/* ids of a call, at most */
	NEVER = 20,			/* blocks that nobody ever holds */
};

static struct mc_index *index_of(uint32_t instances)
{
	struct mc_index *x = NULL;

	ok(mc_index_open(&x, instances));
	return x;
}

static struct mc_index_size size_of(const struct mc_index *x)
{
	struct mc_index_size s;

	mc_index_size(x, &s);
	return s;
}

/* ---- against a model ------------------------------------------------ */

/* The model: a byte per block and instance. Behind the blocks that are held
 * at times there are some that never are. */
struct model {
	uint32_t instances, blocks;
	uint64_t seed;
	uint8_t *held;
	struct mc_index *x;
};

/* Ids of even blocks are small, those of odd ones any. */
static uint64_t id_of(uint32_t block)
{
	uint64_t state = block;

	return block % 2 ? rnd(&state) : block / 2;
}

static uint8_t *held(struct model *m, uint32_t i, uint32_t block)
{
	return m->held + (size_t)block * m->instances + i;
}

/* A list of some of the leading @of blocks: neighbours, or any. */
static uint32_t pick(struct model *m, uint32_t of, uint32_t *blocks,
		     uint64_t *ids)
{
	uint32_t n = rnd(&m->seed) % (LIST + 1), at = rnd(&m->seed) % of;
	bool chain = rnd(&m->seed) % 4;

	for (uint32_t k = 0; k < n; k++) {
		blocks[k] = (chain ? at + k : rnd(&m->seed)) % of;
		ids[k] = id_of(blocks[k]);
	}
	return n;
}

static void change(struct model *m, bool add)
{
	uint32_t blocks[LIST], i = rnd(&m->seed) % m->instances;
	uint64_t ids[LIST];
	uint32_t n = pick(m, m->blocks, blocks, ids);
	int changed = 0;

	for (uint32_t k = 0; k < n; k++) {
		changed += *held(m, i, blocks[k]) != add;
		*held(m, i, blocks[k]) = add;
	}
	assert_int_equal((add ? mc_index_add : mc_index_del)(m->x, i, ids, n),
			 changed);
}

static void drop(struct model *m)
{
	uint32_t i = rnd(&m->seed) % m->instances;

	for (uint32_t b = 0; b < m->blocks; b++)
		*held(m, i, b) = 0;
	mc_index_drop(m->x, i);
}

static void match(struct model *m)
{
	uint32_t blocks[LIST], best = 0;
	uint32_t *matched = malloc(m->instances * sizeof(*matched));
	uint64_t ids[LIST];
	uint32_t n = pick(m, m->blocks + NEVER, blocks, ids), got;

	memset(matched, 0xee, m->instances * sizeof(*matched));
	got = mc_index_match(m->x, ids, n, matched);
	for (uint32_t i = 0; i < m->instances; i++) {
		uint32_t k = 0;

		while (k < n && *held(m, i, blocks[k]))
			k++;
		assert_int_equal(matched[i], k);
		best = k > best ? k : best;
	}
	assert_int_equal(got, best);
	free(matched);
}

static void check_counts(struct model *m)
{
	struct mc_index_size s = size_of(m->x);
	uint64_t pairs = 0, known = 0;

	for (uint32_t b = 0; b < m->blocks + NEVER; b++) {
		uint32_t holders = 0;

		for (uint32_t i = 0; i < m->instances; i++)
			holders += *held(m, i, b);
		assert_int_equal(mc_index_holders(m->x, id_of(b)), holders);
		pairs += holders;
		known += !!holders;
	}
	assert_int_equal(s.pairs, pairs);
	assert_int_equal(s.blocks, known);
}

/* What share of the changes adds tends to be the share of the pairs that are
 * held: nearly all, few, around five holders of each block, and few again. */
static void run_model(uint32_t instances, uint32_t blocks, int rounds,
		      uint64_t seed)
{
	const double shares[] = { 0.9, 0.2, 5.0 / (instances + 5), 0.1 };
	struct model m = {
		.instances = instances, .blocks = blocks, .seed = seed,
		.held = calloc(blocks + NEVER, instances),
		.x = index_of(instances),
	};

	for (int r = 0; r < rounds; r++) {
		double share = shares[r * 4 / rounds];

		change(&m, rnd(&m.seed) % 10000 < share * 10000);
		match(&m);
		if (rnd(&m.seed) % (4 * instances + 20) == 0)
			drop(&m);
		if (r % (rounds / 12) == 0)
			check_counts(&m);
	}
	check_counts(&m);
	mc_index_close(m.x);
	free(m.held);
}

static uint64_t seed_of_run(void)
{
	const char *text = getenv("INDEX_SEED");
	uint64_t seed = text ? strtoull(text, NULL, 0) : mc_now_ns();

	printf("INDEX_SEED=%" PRIu64 "\n", seed);
	return seed;
}

static void random_changes_match_the_model(void **state)
{
	uint64_t seed = seed_of_run();

	(void)state;
	run_model(1, 400, 400, seed);
	run_model(3, 5000, 2000, seed);
	run_model(64, 300, 6000, seed);
	run_model(150, 1000, 10000, seed);
	run_model(1024, 120, 16000, seed);
	run_model(1500, 30, 6000, seed);
}

/* ---- edges ---------------------------------------------------------- */

static void refuses_what_is_not_there(void **state)
{
	struct mc_index *x = NULL;
	uint64_t id = 7;

	(void)state;
	refused(mc_index_open(&x, 0), -EINVAL, "instances");
	refused(mc_index_open(&x, 65535), -EINVAL, "65534");
	assert_null(x);
	x = index_of(4);
	refused(mc_index_add(x, 4, &id, 1), -EINVAL, "instance 4");
	refused(mc_index_del(x, UINT32_MAX, &id, 1), -EINVAL, "0 to 3");
	/* An unknown instance is told also where there is nothing to do. */
	refused(mc_index_add(x, 4, NULL, 0), -EINVAL, "instance 4");
	mc_index_drop(x, 4);
	assert_int_equal(size_of(x).pairs, 0);
	mc_index_close(x);
	mc_index_close(NULL);
}

static void nothing_is_no_error(void **state)
{
	struct mc_index *x = index_of(2);
	uint32_t matched[2] = { 9, 9 };
	uint64_t id = 7;

	(void)state;
	assert_int_equal(mc_index_add(x, 0, NULL, 0), 0);
	assert_int_equal(mc_index_del(x, 0, NULL, 0), 0);
	assert_int_equal(mc_index_del(x, 0, &id, 1), 0);
	mc_index_drop(x, 1);
	assert_int_equal(mc_index_holders(x, id), 0);
	assert_int_equal(mc_index_match(x, &id, 1, matched), 0);
	assert_int_equal(matched[0] + matched[1], 0);
	assert_int_equal(mc_index_add(x, 1, &id, 1), 1);
	assert_int_equal(mc_index_match(x, NULL, 0, matched), 0);
	assert_int_equal(matched[0] + matched[1], 0);
	mc_index_close(x);
}

static void every_id_is_one(void **state)
{
	uint64_t ids[] = { 0, UINT64_MAX, 1, (uint64_t)1 << 63, 1u << 31 };
	struct mc_index *x = index_of(65534);
	uint32_t *matched = malloc(65534 * sizeof(*matched));

	(void)state;
	assert_int_equal(mc_index_add(x, 65533, ids, 5), 5);
	assert_int_equal(mc_index_add(x, 0, ids, 2), 2);
	assert_int_equal(mc_index_match(x, ids, 5, matched), 5);
	assert_int_equal(matched[65533], 5);
	assert_int_equal(matched[0], 2);
	assert_int_equal(mc_index_del(x, 65533, ids, 1), 1);
	assert_int_equal(mc_index_match(x, ids, 5, matched), 2);
	assert_int_equal(matched[65533], 0);
	assert_int_equal(mc_index_holders(x, 0), 1);
	assert_int_equal(mc_index_holders(x, UINT64_MAX), 2);
	free(matched);
	mc_index_close(x);
}

static void twice_in_a_list_is_once(void **state)
{
	uint64_t ids[] = { 5, 6, 5, 5 };
	struct mc_index *x = index_of(8);
	uint32_t matched[8];

	(void)state;
	assert_int_equal(mc_index_add(x, 3, ids, 4), 2);
	assert_int_equal(mc_index_add(x, 3, ids, 4), 0);
	assert_int_equal(mc_index_match(x, ids, 4, matched), 4);
	assert_int_equal(matched[3], 4);
	assert_int_equal(mc_index_del(x, 3, ids, 4), 2);
	assert_int_equal(size_of(x).pairs, 0);
	mc_index_close(x);
}

/* From none to all and back, through every size of a set. */
static void a_block_on_every_instance(void **state)
{
	enum { N = 1030 };
	struct mc_index *x = index_of(N);
	uint64_t ids[40];
	uint32_t matched[N];

	(void)state;
	for (uint32_t k = 0; k < 40; k++)
		ids[k] = k;
	for (uint32_t i = 0; i < N; i++) {
		/* Instance i holds the first i % 40 + 1 of them. */
		assert_int_equal(mc_index_add(x, i * 7 % N, ids,
					      i * 7 % N % 40 + 1),
				 i * 7 % N % 40 + 1);
		assert_int_equal(mc_index_holders(x, 0), i + 1);
	}
	assert_int_equal(mc_index_match(x, ids, 40, matched), 40);
	for (uint32_t i = 0; i < N; i++)
		assert_int_equal(matched[i], i % 40 + 1);
	for (uint32_t i = 0; i < N; i++) {
		assert_int_equal(mc_index_del(x, i, ids, 1), 1);
		assert_int_equal(mc_index_holders(x, 0), N - 1 - i);
		/* The last one with all 40 is 999, that with most 1029. */
		assert_int_equal(mc_index_match(x, ids, 40, matched),
				 i < 999 ? 40 : i < 1029 ? 30 : 0);
		assert_int_equal(matched[i], 0);
	}
	mc_index_close(x);
}

/* x * its inverse = 1, by Newton: each step doubles the bits that are right. */
static uint64_t inverse(uint64_t x)
{
	uint64_t y = x;

	for (int i = 0; i < 6; i++)
		y *= 2 - x * y;
	return y;
}

/* The id that mc_block_key() makes @key of. */
static uint64_t id_with_key(uint64_t key)
{
	key = (key ^ key >> 33) * inverse(0xc4ceb9fe1a85ec53);
	key = (key ^ key >> 33) * inverse(0xff51afd7ed558ccd);
	return key ^ key >> 33;
}

/* All at home in the same place, the last or the first one, in any order. */
static void keys_that_crowd(void **state)
{
	enum { N = 2000 };
	uint64_t ends[] = { UINT64_MAX - N, 0 };

	(void)state;
	for (int end = 0; end < 2; end++) {
		struct mc_index *x = index_of(2);
		uint64_t ids[N];
		uint32_t matched[2];

		for (uint32_t k = 0; k < N; k++) {
			ids[k] = id_with_key(ends[end] + k * 1009 % N);
			assert_int_equal(mc_index_add(x, k % 2, ids + k, 1), 1);
		}
		for (uint32_t k = 0; k < N; k++)
			assert_int_equal(mc_index_holders(x, ids[k]), 1);
		assert_int_equal(mc_index_match(x, ids, N, matched), 1);
		mc_index_drop(x, 0);
		for (uint32_t k = 0; k < N; k++)
			assert_int_equal(mc_index_holders(x, ids[k]), k % 2);
		assert_int_equal(mc_index_del(x, 1, ids, N), N / 2);
		assert_int_equal(size_of(x).blocks, 0);
		mc_index_close(x);
	}
}

/* ---- memory --------------------------------------------------------- */

static void check_bytes(const struct mc_index *x, double most)
{
	struct mc_index_size s = size_of(x);

	if (s.bytes <= most * s.pairs)
		return;
	fail_msg("%" PRIu64 " bytes for %" PRIu64 " pairs of %" PRIu64
		 " blocks: %.1f, not %.1f", s.bytes, s.pairs, s.blocks,
		 (double)s.bytes / s.pairs, most);
}

/* What @block of the memory tests is called. */
static uint64_t nth(uint64_t block)
{
	return rnd(&block);
}

static void under_40_bytes_at_any_size(void **state)
{
	enum { BLOCKS = 300000 };
	struct mc_index *x = index_of(64);

	(void)state;
	for (uint32_t b = 0; b < BLOCKS; b++) {
		uint64_t id = nth(b);

		assert_int_equal(mc_index_add(x, b % 64, &id, 1), 1);
		if (b > 2000)
			check_bytes(x, 40);
	}
	for (uint32_t b = 0; b < BLOCKS - 2000; b++) {
		uint64_t id = nth(b);

		assert_int_equal(mc_index_del(x, b % 64, &id, 1), 1);
		check_bytes(x, 40);
	}
	for (uint32_t i = 0; i < 64; i++)
		mc_index_drop(x, i);
	assert_true(size_of(x).bytes < 4096);
	mc_index_close(x);
}

/* Five holders are the fewest for a bitmap: the dearest case. */
static void under_40_bytes_with_bitmaps(void **state)
{
	enum { BLOCKS = 20000, N = 1024 };
	struct mc_index *x = index_of(N);

	(void)state;
	for (uint32_t b = 0; b < BLOCKS; b++) {
		uint64_t id = nth(b);

		for (uint32_t i = 0; i < 5; i++)
			assert_int_equal(mc_index_add(x, (b + 200 * i) % N,
						      &id, 1), 1);
		if (b > 2000)
			check_bytes(x, 40);
	}
	/* One holder is left of each: the bitmaps are given back. */
	for (uint32_t b = 0; b < BLOCKS; b++) {
		uint64_t id = nth(b);

		for (uint32_t i = 0; i < 4; i++)
			assert_int_equal(mc_index_del(x, (b + 200 * i) % N,
						      &id, 1), 1);
	}
	check_bytes(x, 40);
	for (uint32_t b = 0; b < BLOCKS; b++)
		assert_int_equal(mc_index_holders(x, nth(b)), 1);
	mc_index_close(x);
}

/* The bitmaps that are left move together, and are still the same. */
static void few_bitmaps_of_many_are_kept(void **state)
{
	enum { BLOCKS = 4000, N = 640 };
	struct mc_index *x = index_of(N);
	uint64_t before, id;
	uint32_t matched[N];

	(void)state;
	for (uint32_t b = 0; b < BLOCKS; b++)
		for (uint32_t i = 0; i < 8; i++) {
			id = nth(b);
			mc_index_add(x, b % 100 + i * 77, &id, 1);
		}
	before = size_of(x).bytes;
	for (uint32_t b = 0; b < BLOCKS; b++)
		for (uint32_t i = 0; i < 8; i++) {
			id = nth(b);
			if (b % 40)
				mc_index_del(x, b % 100 + i * 77, &id, 1);
		}
	assert_true(size_of(x).bytes < before / 4);
	for (uint32_t b = 0; b < BLOCKS; b += 40) {
		id = nth(b);
		assert_int_equal(mc_index_match(x, &id, 1, matched), 1);
		for (uint32_t i = 0; i < N; i++)
			assert_int_equal(matched[i], i >= b % 100 &&
					 (i - b % 100) % 77 == 0 &&
					 (i - b % 100) / 77 < 8);
	}
	mc_index_close(x);
}

/* The address space that this process uses. */
static uint64_t vm_bytes(void)
{
	unsigned long pages = 0;
	FILE *f = fopen("/proc/self/statm", "r");

	assert_non_null(f);
	assert_int_equal(fscanf(f, "%lu", &pages), 1);
	fclose(f);
	return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

/* As many come as go, for long: no more memory, and nothing is lost. */
static void turnover_leaves_no_traces(void **state)
{
	enum { KEPT = 3000, TURNS = 300000 };
	struct mc_index *x = index_of(16);
	uint64_t id, most = 0;

	(void)state;
	for (uint32_t b = 0; b < KEPT + TURNS; b++) {
		id = nth(b);
		assert_int_equal(mc_index_add(x, 3, &id, 1), 1);
		if (b < KEPT)
			continue;
		if (b == KEPT)
			most = size_of(x).bytes;
		id = nth(b - KEPT);
		assert_int_equal(mc_index_del(x, 3, &id, 1), 1);
		assert_true(size_of(x).bytes <= most);
	}
	assert_int_equal(size_of(x).blocks, KEPT);
	for (uint32_t b = 0; b < KEPT + TURNS; b++)
		assert_int_equal(mc_index_holders(x, nth(b)), b >= TURNS);
	mc_index_close(x);
}

/* Without memory it says so, keeps what it has, and goes on when there is. */
static void survives_a_lack_of_memory(void **state)
{
	enum { BATCH = 1000, ROOM = 8 << 20 };
	const char *variant = getenv("MC_VARIANT");
	struct mc_index *x;
	struct rlimit old, tight;
	uint64_t ids[BATCH], n = 0;
	int r = 0;

	(void)state;
	if (variant && strstr(variant, "san"))
		skip();
	x = index_of(100);
	assert_int_equal(getrlimit(RLIMIT_AS, &old), 0);
	tight = old;
	tight.rlim_cur = vm_bytes() + ROOM;
	assert_int_equal(setrlimit(RLIMIT_AS, &tight), 0);
	while (r >= 0 && n < 10000000) {
		for (uint32_t k = 0; k < BATCH; k++)
			ids[k] = nth(n + k);
		r = mc_index_add(x, n / BATCH % 100, ids, BATCH);
		n += BATCH;
	}
	assert_int_equal(setrlimit(RLIMIT_AS, &old), 0);
	refused(r, -ENOMEM, "memory");
	for (uint64_t b = 0; b < n - BATCH; b++)
		assert_int_equal(mc_index_holders(x, nth(b)), 1);
	n -= BATCH;
	ok(mc_index_add(x, n / BATCH % 100, ids, BATCH));
	assert_int_equal(size_of(x).pairs, n + BATCH);
	mc_index_close(x);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(random_changes_match_the_model),
		cmocka_unit_test(refuses_what_is_not_there),
		cmocka_unit_test(nothing_is_no_error),
		cmocka_unit_test(every_id_is_one),
		cmocka_unit_test(twice_in_a_list_is_once),
		cmocka_unit_test(a_block_on_every_instance),
		cmocka_unit_test(keys_that_crowd),
		cmocka_unit_test(under_40_bytes_at_any_size),
		cmocka_unit_test(under_40_bytes_with_bitmaps),
		cmocka_unit_test(few_bitmaps_of_many_are_kept),
		cmocka_unit_test(turnover_leaves_no_traces),
		cmocka_unit_test(survives_a_lack_of_memory),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
