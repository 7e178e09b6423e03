/* spin_test.c - when a thread looks for events, and when it sleeps at once. */
#include "../../src/base/clock.h"
#include "../../src/base/spin.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/sysinfo.h>

#include <cmocka.h>

enum { SAMPLE_NS = 21 * MC_MS };

/* What was said to be the time: samples are taken as it passes. */
static uint64_t clock_ns = 1000 * (uint64_t)MC_MS;

static uint64_t look(const struct mc_spin *s)
{
	clock_ns += SAMPLE_NS;
	return mc_spin_ns(s, clock_ns);
}

static void events_take(struct mc_spin *s, uint64_t ns, int n)
{
	while (n--)
		mc_spin_took(s, ns, 0);
}

static void the_user_says(void **state)
{
	struct mc_spin s;

	(void)state;
	mc_spin_init(&s, 30);
	events_take(&s, 1000000, 100);
	assert_int_equal(look(&s), 30000);
	mc_spin_init(&s, -1);
	events_take(&s, 1000, 100);
	assert_int_equal(look(&s), 0);
}

static void what_does_not_come_soon(void **state)
{
	struct mc_spin s;

	(void)state;
	mc_spin_init(&s, 0);
	assert_int_equal(look(&s), 0);
	events_take(&s, 200000, 100);
	assert_int_equal(look(&s), 0);
}

/* Looked for in vain: not again at once, but after a dozen that came soon. */
static void looked_for_in_vain(void **state)
{
	struct mc_spin s;

	(void)state;
	mc_spin_init(&s, 0);
	events_take(&s, 10000, 100);
	assert_true(s.usual_ns < 11000);
	mc_spin_took(&s, 90000, 20000);
	assert_int_equal(look(&s), 0);
	events_take(&s, 10000, 12);
	assert_true(s.usual_ns < 50000);
}

static bool burning;

static void *burn(void *arg)
{
	while (__atomic_load_n(&burning, __ATOMIC_RELAXED))
		;
	return arg;
}

/* Twice as many threads as CPUs: whoever looks would be in the way. Other
 * programs of this machine may be, once these have ended. */
static void no_cpu_to_spare(void **state)
{
	pthread_t t[256];
	int n = 2 * get_nprocs();
	struct mc_spin s;
	uint64_t last = 1;

	(void)state;
	n = n > 256 ? 256 : n;
	mc_spin_init(&s, 0);
	events_take(&s, 10000, 100);
	burning = true;
	for (int i = 0; i < n; i++)
		assert_int_equal(pthread_create(&t[i], NULL, burn, NULL), 0);
	for (int i = 0; i < 100 && last; i++) {
		sched_yield();
		last = look(&s);
	}
	__atomic_store_n(&burning, false, __ATOMIC_RELAXED);
	for (int i = 0; i < n; i++)
		pthread_join(t[i], NULL);
	assert_int_equal(last, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_user_says),
		cmocka_unit_test(what_does_not_come_soon),
		cmocka_unit_test(looked_for_in_vain),
		cmocka_unit_test(no_cpu_to_spare),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
