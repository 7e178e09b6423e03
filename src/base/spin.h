/* spin.h - how long to look for the next event before sleeping.
 *
 * Sleeping and being woken costs more than tens of microseconds of looking, and
 * looking for what does not come soon is waste. So: twice what it has taken
 * lately, if that was short, and while this machine has a CPU to spare.
 */
#ifndef MC_BASE_SPIN_H
#define MC_BASE_SPIN_H

#include <stdbool.h>
#include <stdint.h>

struct mc_spin {
	uint64_t fixed_ns;		/* asked for by the user; 0: adapt */
	uint64_t usual_ns;		/* moving average; atomic, relaxed */
	bool never;
};

/* @spin_us: look for so long; 0: adapt, < 0: never. */
void mc_spin_init(struct mc_spin *s, int spin_us);

/* For how many ns from @now_ns on to look; 0: sleep at once. Any thread. */
uint64_t mc_spin_ns(const struct mc_spin *s, uint64_t now_ns);

/* It took @ns this time, after looking for @spun of them. */
void mc_spin_took(struct mc_spin *s, uint64_t ns, uint64_t spun);

#endif
