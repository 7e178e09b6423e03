/* clock.h - monotonic time in nanoseconds, and deadlines made of it. */
#ifndef MC_BASE_CLOCK_H
#define MC_BASE_CLOCK_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

enum { MC_MS = 1000000 };		/* nanoseconds */

static inline uint64_t mc_clock_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + t.tv_nsec;
}

/* As of the kernel's last tick: next to nothing to read, and some milliseconds
 * behind mc_clock_ns(). */
static inline uint64_t mc_clock_tick_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC_COARSE, &t);
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

/* Have @m by @deadline_ns: false if it was not to be had. Mutexes are timed by
 * the clock on the wall. */
static inline bool mc_clock_lock(pthread_mutex_t *m, uint64_t deadline_ns)
{
	uint64_t now = mc_clock_ns(), ns;
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	ns = t.tv_nsec + (deadline_ns > now ? deadline_ns - now : 0);
	t.tv_sec += ns / 1000000000u;
	t.tv_nsec = ns % 1000000000u;
	return !pthread_mutex_timedlock(m, &t);
}

#endif
