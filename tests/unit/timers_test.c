/* timers_test.c - the simulator's heap of timers against a plain list. */
#include "../../src/sim/timers.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { TIMERS = 200 };

static struct sim_timer timer[TIMERS];
static double at[TIMERS];		/* below 0: not set */
static uint64_t since[TIMERS], sets;
static double now;			/* nothing is set for the past */

static int earliest(void)
{
	int i, best = -1;

	for (i = 0; i < TIMERS; i++)
		if (at[i] >= 0 && (best < 0 || at[i] < at[best] ||
				   (at[i] == at[best] &&
				    since[i] < since[best])))
			best = i;
	return best;
}

static void pop_is_the_earliest(struct sim_timers *h)
{
	int want = earliest();
	double when = -1;
	struct sim_timer *t = timers_pop(h, &when);

	if (want < 0) {
		assert_null(t);
		return;
	}
	assert_ptr_equal(t, &timer[want]);
	assert_true(when == at[want]);
	now = when;
	at[want] = -1;
}

static void set_one(struct sim_timers *h, int i)
{
	at[i] = now + lrand48() % 50;
	since[i] = sets++;
	assert_int_equal(timers_set(h, &timer[i], at[i]), 0);
}

static void they_fire_in_order(void **state)
{
	struct sim_timers h = { 0 };
	int i, round;

	(void)state;
	srand48(5);
	for (i = 0; i < TIMERS; i++)
		at[i] = -1;
	for (round = 0; round < 200000; round++) {
		i = lrand48() % TIMERS;
		switch (lrand48() % (round / 1000 % 2 ? 4 : 6)) {
		case 0:
			timers_clear(&h, &timer[i]);
			at[i] = -1;
			break;
		case 1:
		case 2:
			pop_is_the_earliest(&h);
			break;
		default:
			set_one(&h, i);
		}
	}
	while (earliest() >= 0)
		pop_is_the_earliest(&h);
	pop_is_the_earliest(&h);
	timers_fini(&h);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(they_fire_in_order),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
