/* shm_slots.c - waiting for those who copy; see shm_slots.h. */
#include "shm_slots.h"

#include "../base/clock.h"

#include <sched.h>

enum {
	SLOTS_YIELDS = 64,		/* then sleep */
	SLOTS_NAP_NS = 50000,
};

static void slots_pause(int round)
{
	struct timespec nap = { 0, SLOTS_NAP_NS };

	if (round < SLOTS_YIELDS)
		sched_yield();
	else
		nanosleep(&nap, NULL);
}

bool mc_slots_wait(const uint64_t *word, uint64_t old, uint64_t until_ns)
{
	for (int round = 0; ; round++) {
		if (__atomic_load_n(word, __ATOMIC_SEQ_CST) != old)
			return true;
		if (mc_clock_ns() >= until_ns)
			return false;
		slots_pause(round);
	}
}

bool mc_slots_drain(const struct mc_slots *s, uint64_t until_ns)
{
	for (int i = 0; i < MC_SLOTS; i++) {
		const uint64_t *word = &s->slot[i].seq;
		uint64_t seq = __atomic_load_n(word, __ATOMIC_SEQ_CST);

		if (seq & 1 && !mc_slots_wait(word, seq, until_ns))
			return false;
	}
	return true;
}

int mc_slots_find(struct mc_slots *s, int first)
{
	for (int round = 0; ; round++) {
		for (int i = 1; i <= MC_SLOTS; i++) {
			int k = (first + i) % MC_SLOTS;

			if (mc_slot_try(&s->slot[k]))
				return k;
		}
		slots_pause(round);
	}
}
