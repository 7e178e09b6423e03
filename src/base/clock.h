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

/*
 * How long to look for the next event before sleeping: sleeping and being woken
 * costs more than a few microseconds of looking, and looking for what does not
 * come soon is waste. So: twice what it has taken lately, if that was short.
 */
enum {
	MC_SPIN_SOON_NS = 50000,	/* worth looking for */
	MC_SPIN_CAP_NS = 1000000,	/* one long wait ends the looking */
};

struct mc_spin {
	uint64_t fixed_ns;		/* asked for by the user; 0: adapt */
	uint64_t usual_ns;		/* moving average; atomic, relaxed */
	bool never;
};

static inline void mc_spin_init(struct mc_spin *s, int spin_us)
{
	s->fixed_ns = spin_us > 0 ? spin_us * (uint64_t)1000 : 0;
	s->never = spin_us < 0;
	s->usual_ns = MC_SPIN_CAP_NS;
}

static inline uint64_t mc_spin_ns(const struct mc_spin *s)
{
	uint64_t usual = __atomic_load_n(&s->usual_ns, __ATOMIC_RELAXED);

	if (s->never || s->fixed_ns)
		return s->fixed_ns;
	return usual < MC_SPIN_SOON_NS ? 2 * usual : 0;
}

/* It took @ns this time, after looking for @spun of them. What was looked for
 * in vain is not looked for again until a dozen events have come soon: on a
 * busy machine, looking takes the CPU from whom we wait for. */
static inline void mc_spin_took(struct mc_spin *s, uint64_t ns, uint64_t spun)
{
	uint64_t usual = __atomic_load_n(&s->usual_ns, __ATOMIC_RELAXED);

	if (ns > MC_SPIN_CAP_NS)
		ns = MC_SPIN_CAP_NS;
	usual = usual - usual / 8 + ns / 8;
	if (spun && ns > spun && usual < 2 * MC_SPIN_SOON_NS)
		usual = 2 * MC_SPIN_SOON_NS;
	__atomic_store_n(&s->usual_ns, usual, __ATOMIC_RELAXED);
}

#endif
