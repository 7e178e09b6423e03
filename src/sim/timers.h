/*
 * timers.h - what happens when: timers that lie in their owners, in a 4-ary
 * heap. Timers of one instant fire in the order in which they were set, so a
 * run is the same every time. None may be set for before the last that fired.
 */
#ifndef MC_SIM_TIMERS_H
#define MC_SIM_TIMERS_H

#include <stdbool.h>
#include <stdint.h>

struct sim_timer {
	uint32_t pos;			/* in the heap, from 1; 0: not set */
	uint8_t what;			/* the owner's: enum sim_happens */
};

struct sim_timers {
	struct timer_slot *heap;
	uint32_t n, cap;
	uint64_t order;
	bool gap;			/* at the top: one has fired */
};

/* Set, or set anew. -ENOMEM. */
int timers_set(struct sim_timers *h, struct sim_timer *t, double at);
void timers_clear(struct sim_timers *h, struct sim_timer *t);

/* Take the next timer off the heap; NULL: none is set. */
struct sim_timer *timers_pop(struct sim_timers *h, double *at);
void timers_fini(struct sim_timers *h);

#endif
