/*
 * limits_test.c - histograms, process figures, and every limit: it moves the
 * bytes it says it moves, in both directions, and says what went wrong.
 */
#include <mooncake.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { SPAN = 1 << 20 };

static const enum mc_limit_kind kinds[] = {
	MC_LIMIT_MEMCPY, MC_LIMIT_VM, MC_LIMIT_SOCKET, MC_LIMIT_SOCKET_POLL,
};

static uint8_t *memory(void)
{
	void *p = mmap(NULL, SPAN, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	assert_ptr_not_equal(p, MAP_FAILED);
	return p;
}

static void quantiles_are_within_three_percent(void **state)
{
	struct mc_measure *m = calloc(1, sizeof(*m));
	uint64_t ns;

	(void)state;
	assert_true(mc_measure_quantile(m, 0.5) == 0);
	for (ns = 1; ns < 1000000000000; ns = ns * 3 + 1) {
		memset(m, 0, sizeof(*m));
		mc_measure_add(m, ns);
		assert_true(mc_measure_quantile(m, 0.5) >= ns * 0.97 - 1);
		assert_true(mc_measure_quantile(m, 0.5) <= ns * 1.03 + 1);
	}
	memset(m, 0, sizeof(*m));
	for (ns = 1; ns <= 10000; ns++)
		mc_measure_add(m, ns);
	assert_in_range(mc_measure_quantile(m, 0.5), 4950, 5050);
	assert_in_range(mc_measure_quantile(m, 0.99), 9700, 10100);
	assert_in_range(mc_measure_quantile(m, 1), 9999, 10300);
	mc_measure_add(m, ~0ull);
	assert_true(mc_measure_quantile(m, 1) > 1e12);
	free(m);
}

static void process_figures(void **state)
{
	int64_t before = mc_measure_cpu_ns(0), now;
	volatile uint32_t spin = 0;

	(void)state;
	do {
		spin++;
		now = mc_measure_cpu_ns(0);
	} while (now < before + 1000000);
	assert_true(mc_measure_rss(0) > 100000);
	assert_true(mc_measure_rss(getpid()) > 100000);
	assert_true(mc_measure_cpu_ns(4194305) < 0);
	assert_int_equal(mc_measure_rss(4194305), -ENOENT);
}

static void moves_all(struct mc_limit *l, enum mc_op op, uint32_t block)
{
	struct mc_limit_run run = {
		.op = op, .block = block, .batch = SPAN / block,
		.duration_ms = 5,
	};
	struct mc_measure *m = calloc(1, sizeof(*m));

	assert_int_equal(mc_limit_measure(l, &run, m), 0);
	assert_true(m->wall_ns >= 5000000);
	assert_true(m->batches > 0);
	assert_int_equal(m->bytes, m->batches * SPAN);
	assert_true(m->cpu_ns > 0);
	assert_true(mc_measure_quantile(m, 0.5) > 0);
	free(m);
}

static void limits_move_their_bytes(void **state)
{
	uint8_t *mem = memory();
	struct mc_limit *l;
	uint64_t sum;

	(void)state;
	for (size_t i = 0; i < sizeof(kinds) / sizeof(*kinds); i++) {
		mc_fill(mem, SPAN, i);
		sum = mc_hash(mem, SPAN, 0);
		assert_int_equal(mc_limit_open(&l, kinds[i], mem, SPAN), 0);
		moves_all(l, MC_WRITE, 256);
		memset(mem, 0, SPAN);
		moves_all(l, MC_READ, 65536);
		assert_int_equal(mc_hash(mem, SPAN, 0), sum);
		mc_limit_close(l);
	}
	munmap(mem, SPAN);
}

static void blocks_may_change_from_batch_to_batch(void **state)
{
	struct mc_limit_run run = {
		.op = MC_WRITE, .block = 4096, .batch = 3, .cycle = SPAN / 4096,
		.duration_ms = 10,
	};
	struct mc_measure *m = calloc(1, sizeof(*m));
	uint8_t *mem = memory();
	struct mc_limit *l;
	uint64_t sum;

	(void)state;
	mc_fill(mem, SPAN, 1);
	sum = mc_hash(mem, SPAN, 0);
	assert_int_equal(mc_limit_open(&l, MC_LIMIT_MEMCPY, mem, SPAN), 0);
	assert_int_equal(mc_limit_measure(l, &run, m), 0);
	assert_true(m->batches >= 256);
	memset(mem, 0, SPAN);
	moves_all(l, MC_READ, 4096);
	assert_int_equal(mc_hash(mem, SPAN, 0), sum);
	mc_limit_close(l);
	munmap(mem, SPAN);
	free(m);
}

static void what_cannot_be_is_refused(void **state)
{
	struct mc_limit_run run = { .op = MC_WRITE, .batch = 1 };
	struct mc_measure *m = calloc(1, sizeof(*m));
	uint8_t *mem = memory();
	struct mc_limit *l;

	(void)state;
	assert_int_equal(mc_limit_open(&l, MC_LIMIT_VM, NULL, 1), -EINVAL);
	assert_int_equal(mc_limit_open(&l, MC_LIMIT_MEMCPY, mem, SPAN), 0);
	assert_int_equal(mc_limit_measure(l, &run, m), -EINVAL);
	run.block = SPAN + 1;
	assert_int_equal(mc_limit_measure(l, &run, m), -EINVAL);
	run.block = 1;
	run.batch = 65537;
	assert_int_equal(mc_limit_measure(l, &run, m), -EINVAL);
	assert_non_null(strstr(mc_errmsg(), "65537"));
	assert_int_equal(mc_measure_run(NULL, NULL, 0, 1, 1, 1, m), -EINVAL);
	mc_limit_close(l);
	mc_limit_close(NULL);
	munmap(mem, SPAN);
	free(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(quantiles_are_within_three_percent),
		cmocka_unit_test(process_figures),
		cmocka_unit_test(limits_move_their_bytes),
		cmocka_unit_test(blocks_may_change_from_batch_to_batch),
		cmocka_unit_test(what_cannot_be_is_refused),
	};

	return cmocka_run_group_tests_name("limits", tests, NULL, NULL);
}
