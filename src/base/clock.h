/* clock.h - monotonic time in nanoseconds, and deadlines made of it. */
#ifndef MC_BASE_CLOCK_H
#define MC_BASE_CLOCK_H

#include <stdint.h>
#include <time.h>

enum { MC_MS = 1000000 };		/* nanoseconds */

static inline uint64_t mc_clock_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + t.tv_nsec;
}

/* Milliseconds to @deadline_ns for poll(): rounded up, 0 if it has passed, at
 * most @max_ms. */
static inline int mc_clock_left_ms(uint64_t deadline_ns, int max_ms)
{
	uint64_t now = mc_clock_ns();
	uint64_t ms;

	if (deadline_ns <= now)
		return 0;
	ms = (deadline_ns - now + MC_MS - 1) / MC_MS;
	return ms > (uint64_t)max_ms ? max_ms : (int)ms;
}

#endif
