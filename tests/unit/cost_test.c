/* cost_test.c - the cost function, against figures worked out by hand. */
#include <mooncake.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static const struct mc_cost cost = {
	.prefill_s = 0.5, .prefill_token_s = 0.25, .prefill_pair_s = 0.125,
	.decode_s = 2, .decode_seq_s = 0.0625, .decode_token_s = 0.5,
};

/* Powers of two: every sum is exact. */
static void prefill(void **state)
{
	(void)state;
	assert_true(mc_cost_prefill_s(&cost, 0, 0) == 0.5);
	assert_true(mc_cost_prefill_s(&cost, 0, 64) == 0.5);
	/* 0.5 + 4 * 0.25 + 16 * 0.125 */
	assert_true(mc_cost_prefill_s(&cost, 4, 0) == 3.5);
	/* 0.5 + 4 * 0.25 + (144 - 64) * 0.125 */
	assert_true(mc_cost_prefill_s(&cost, 4, 8) == 11.5);
}

/* A prompt costs the same pairs whole and in two pieces. */
static void a_chunk_behind_another(void **state)
{
	double whole = mc_cost_prefill_s(&cost, 1 << 20, 0);
	double first = mc_cost_prefill_s(&cost, 3 << 16, 0);
	double rest = mc_cost_prefill_s(&cost, 13 << 16, 3 << 16);

	(void)state;
	assert_true(first + rest == whole + cost.prefill_s);
}

/* One more token behind a very long prefix is still paid for. */
static void precise_behind_a_long_prefix(void **state)
{
	struct mc_cost pairs = { .prefill_pair_s = 1 };

	(void)state;
	assert_true(mc_cost_prefill_s(&pairs, 1, 1e12) == 2e12 + 1);
}

static void decode(void **state)
{
	(void)state;
	assert_true(mc_cost_decode_s(&cost, 0, 0) == 2);
	/* Bound by memory: 2 + 4 * 0.0625 + 32 * 0.5 */
	assert_true(mc_cost_decode_s(&cost, 4, 32) == 18.25);
	/* The step from memory to computing is at 8 sequences. */
	assert_true(mc_cost_decode_s(&cost, 8, 0) == 2.5);
	/* Bound by computing: 16 * 0.25 + 16 * 0.0625 + 32 * 0.5 */
	assert_true(mc_cost_decode_s(&cost, 16, 32) == 21);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(prefill),
		cmocka_unit_test(a_chunk_behind_another),
		cmocka_unit_test(precise_behind_a_long_prefix),
		cmocka_unit_test(decode),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
