/*
 * p2p_choose_test.c - which shard is fetched next and from whom, on plain
 * arrays; and a swarm in rounds that chooses by it until all have all.
 */
#include "../../src/p2p/map.h"

#include <mooncake.h>

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { SHARDS = 70, HOLDERS = 4, WORDS = 2 };

static uint64_t wanted[WORDS], have[HOLDERS * WORDS];
static uint16_t copies[SHARDS];
static float cost[HOLDERS];
static uint8_t source[HOLDERS];
static const struct mc_p2p_view view = {
	.shards = SHARDS, .holders = HOLDERS, .wanted = wanted, .have = have,
	.copies = copies, .cost = cost, .source = source,
};

static int setup(void **state)
{
	(void)state;
	memset(wanted, 0xff, sizeof(wanted));
	memset(have, 0, sizeof(have));
	memset(copies, 0, sizeof(copies));
	memset(source, 0, sizeof(source));
	for (int h = 0; h < HOLDERS; h++)
		cost[h] = 1;
	return 0;
}

static void gives(uint32_t h, uint32_t shard)
{
	p2p_set(have + h * WORDS, shard);
	copies[shard] += !source[h];
}

static void nothing_to_choose(void **state)
{
	uint32_t shard, holder;

	(void)state;
	assert_false(mc_p2p_choose(&view, 1, &shard, &holder));
	gives(1, 69);
	assert_true(mc_p2p_choose(&view, 1, &shard, &holder));
	assert_int_equal(shard, 69);
	assert_int_equal(holder, 1);
	p2p_clear(wanted, 69);
	assert_false(mc_p2p_choose(&view, 1, &shard, &holder));
	p2p_set(wanted, 69);
	cost[1] = INFINITY;
	assert_false(mc_p2p_choose(&view, 1, &shard, &holder));
}

static void the_rarest_of_the_cheapest(void **state)
{
	uint32_t shard, holder;

	(void)state;
	for (uint32_t s = 0; s < SHARDS; s++) {
		gives(0, s);
		gives(1, s);
	}
	gives(2, 0);
	copies[33] = 1;
	copies[3] = 0;
	cost[0] = 3;
	cost[1] = 2;
	for (uint64_t seed = 0; seed < 50; seed++) {
		assert_true(mc_p2p_choose(&view, seed, &shard, &holder));
		assert_int_equal(holder, 2);
		assert_int_equal(shard, 0);
	}
	p2p_clear(wanted, 0);
	p2p_clear(wanted, 3);
	assert_true(mc_p2p_choose(&view, 9, &shard, &holder));
	assert_int_equal(holder, 1);
	assert_int_equal(shard, 33);
}

/* Equals are taken at random: all of them, about equally often. */
static void ties_are_even(void **state)
{
	uint32_t shard, holder, hits[SHARDS] = { 0 }, by[HOLDERS] = { 0 };

	(void)state;
	for (uint32_t s = 0; s < SHARDS; s++)
		for (uint32_t h = 0; h < HOLDERS; h++)
			gives(h, s);
	for (uint64_t seed = 0; seed < 7000; seed++) {
		assert_true(mc_p2p_choose(&view, seed, &shard, &holder));
		hits[shard]++;
		by[holder]++;
	}
	for (uint32_t s = 0; s < SHARDS; s++)
		assert_in_range(hits[s], 50, 160);
	for (uint32_t h = 0; h < HOLDERS; h++)
		assert_in_range(by[h], 1500, 2000);
}

static void sources_are_spared(void **state)
{
	uint32_t shard, holder;

	(void)state;
	source[0] = 1;
	cost[0] = 0.1f;
	for (uint32_t s = 0; s < SHARDS; s++)
		gives(0, s);
	gives(1, 5);
	for (uint32_t s = 0; s < SHARDS; s++)
		copies[s] += s != 7;
	/* What only it has, first; then others, however dear; then it. */
	assert_true(mc_p2p_choose(&view, 1, &shard, &holder));
	assert_int_equal(holder, 0);
	assert_int_equal(shard, 7);
	p2p_clear(wanted, 7);
	assert_true(mc_p2p_choose(&view, 1, &shard, &holder));
	assert_int_equal(holder, 1);
	assert_int_equal(shard, 5);
	p2p_clear(wanted, 5);
	assert_true(mc_p2p_choose(&view, 1, &shard, &holder));
	assert_int_equal(holder, 0);
}

/* ---- a swarm in rounds ------------------------------------------------- */

enum { NODES = 20, PARTS = 128, PART_WORDS = 2 };

static uint64_t has[NODES][PART_WORDS];
static uint16_t held[PARTS];

/* Who node @n asks in this round, of those who have not been asked. */
static bool swarm_turn(int n, bool *asked, uint64_t seed, uint64_t got[])
{
	uint64_t want[PART_WORDS], all[NODES * PART_WORDS];
	float price[NODES];
	uint8_t first[NODES] = { 1 };
	struct mc_p2p_view v = {
		.shards = PARTS, .holders = NODES, .wanted = want, .have = all,
		.copies = held, .cost = price, .source = first,
	};
	uint32_t shard, holder;

	memcpy(all, has, sizeof(all));
	for (int w = 0; w < PART_WORDS; w++)
		want[w] = ~has[n][w];
	for (int h = 0; h < NODES; h++)
		price[h] = h == n || asked[h] ? INFINITY : 1;
	if (!mc_p2p_choose(&v, seed, &shard, &holder))
		return false;
	asked[holder] = true;
	p2p_set(got, shard);
	held[shard]++;
	return true;
}

/* Each node sends one shard and takes one in a round, so 19 nodes that have 128
 * shards to take need 128 rounds, and some to begin with. */
static void a_swarm_is_done_soon(void **state)
{
	uint32_t rounds = 0, from_source = 0, left = (NODES - 1) * PARTS;

	(void)state;
	memset(has, 0, sizeof(has));
	memset(has[0], 0xff, sizeof(has[0]));
	memset(held, 0, sizeof(held));
	while (left && rounds < 1000) {
		uint64_t got[NODES][PART_WORDS] = { { 0 } };
		bool asked[NODES] = { false };

		for (int i = 0; i < NODES; i++) {
			int n = (i + rounds * 7) % NODES;

			if (n)
				left -= swarm_turn(n, asked,
						   rounds * 1000 + n, got[n]);
		}
		for (int n = 1; n < NODES; n++)
			for (int w = 0; w < PART_WORDS; w++)
				has[n][w] |= got[n][w];
		from_source += asked[0];
		rounds++;
	}
	assert_int_equal(left, 0);
	print_message("%u rounds, %u shards from the source\n", rounds,
		      from_source);
	assert_in_range(rounds, PARTS, PARTS * 5 / 4);
	assert_in_range(from_source, PARTS, PARTS * 5 / 4);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(nothing_to_choose, setup),
		cmocka_unit_test_setup(the_rarest_of_the_cheapest, setup),
		cmocka_unit_test_setup(ties_are_even, setup),
		cmocka_unit_test_setup(sources_are_spared, setup),
		cmocka_unit_test(a_swarm_is_done_soon),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
