/*
 * shm_slots.h - how the one who takes memory back knows that no thread is
 * still copying to or from it.
 *
 * A copying thread holds a slot whose number is odd while it is inside a
 * window and even outside, and looks at what may be taken back only after
 * entering. Who takes something back first makes it invalid, then waits for
 * every odd number to change: whoever enters later sees that it is invalid. All
 * four accesses are sequentially consistent, so one of the two sees the other.
 * Windows are short (a megabyte of copying), so the wait is.
 */
#ifndef MC_SHM_SLOTS_H
#define MC_SHM_SLOTS_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

enum {
	MC_SLOTS = 64,			/* threads inside at a time */
	MC_SLOT_BYTES = 1 << 20,	/* copied in one window */
};

/* One line of the cache each. */
struct mc_slot {
	uint64_t seq;
	uint64_t left;			/* in the first of a shared array: its
					 * owner never enters again */
	uint64_t pad[6];
} __attribute__((aligned(64)));

struct mc_slots {
	struct mc_slot slot[MC_SLOTS];
};

/* Wait until *@word is no longer @old; false when it is at @until_ns. */
bool mc_slots_wait(const uint64_t *word, uint64_t old, uint64_t until_ns);

/* Wait until all who are inside now have left; false when one has not at
 * @until_ns. The caller is not inside. */
bool mc_slots_drain(const struct mc_slots *s, uint64_t until_ns);

/* Take a free slot other than the one tried first; waits for one. */
int mc_slots_find(struct mc_slots *s, int first);

static inline bool mc_slot_try(struct mc_slot *s)
{
	uint64_t seq = __atomic_load_n(&s->seq, __ATOMIC_RELAXED);

	/* Pairs with the load in mc_slots_drain(); see above. */
	return !(seq & 1) &&
	       __atomic_compare_exchange_n(&s->seq, &seq, seq + 1, false,
					   __ATOMIC_SEQ_CST, __ATOMIC_RELAXED);
}

/* Enter; returns the index of the slot. Threads begin at different ones. */
static inline int mc_slots_enter(struct mc_slots *s)
{
	uint64_t self = (uint64_t)pthread_self() >> 8;
	int i = self * 0x9e3779b97f4a7c15u >> 58;

	return mc_slot_try(&s->slot[i]) ? i : mc_slots_find(s, i);
}

/* What was copied happened before the number that ends the window. */
static inline void mc_slot_leave(struct mc_slot *s)
{
	uint64_t seq = __atomic_load_n(&s->seq, __ATOMIC_RELAXED);

	__atomic_store_n(&s->seq, seq + 1, __ATOMIC_RELEASE);
}

/* Leave and enter again. */
static inline void mc_slot_step(struct mc_slot *s)
{
	uint64_t seq = __atomic_load_n(&s->seq, __ATOMIC_RELAXED);

	__atomic_store_n(&s->seq, seq + 2, __ATOMIC_SEQ_CST);
}

#endif
