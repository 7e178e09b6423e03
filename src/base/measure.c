/*
 * measure.c - latency histograms, and the CPU time and memory of a process.
 */
#include <mooncake.h>
#include "err.h"

#include <errno.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

enum { MEASURE_SUB = 5 };		/* 2^5 buckets per power of two */

static uint32_t measure_bucket(uint64_t ns)
{
	uint32_t exp, i;

	if (ns < 2u << MEASURE_SUB)
		return ns;
	exp = 63 - __builtin_clzll(ns) - MEASURE_SUB;
	i = (exp << MEASURE_SUB) + (ns >> exp);
	return i < MC_MEASURE_FINE ? i : MC_MEASURE_FINE - 1;
}

/* The first value of bucket @i; the inverse of the above. */
static double measure_floor(uint32_t i)
{
	uint32_t exp = i >> MEASURE_SUB;

	if (exp < 2)
		return i;
	exp--;
	return (double)((uint64_t)(i - (exp << MEASURE_SUB)) << exp);
}

void mc_measure_add(struct mc_measure *m, uint64_t ns)
{
	m->fine[measure_bucket(ns)]++;
}

double mc_measure_quantile(const struct mc_measure *m, double q)
{
	uint64_t total = 0, below = 0;
	double want, low;
	uint32_t i;

	for (i = 0; i < MC_MEASURE_FINE; i++)
		total += m->fine[i];
	if (!total)
		return 0;
	want = q * total;
	for (i = 0; i < MC_MEASURE_FINE - 1; i++) {
		if (below + m->fine[i] >= want && m->fine[i])
			break;
		below += m->fine[i];
	}
	low = measure_floor(i);
	if (!m->fine[i])
		return low;
	return low + (measure_floor(i + 1) - low) * (want - below) / m->fine[i];
}

int64_t mc_measure_cpu_ns(int pid)
{
	struct timespec t;
	clockid_t clock;
	int r;

	r = clock_getcpuclockid(pid, &clock);
	if (r)
		return mc_syserr(-r, "CPU time of process %d", pid);
	if (clock_gettime(clock, &t) < 0)
		return mc_syserr(-errno, "CPU time of process %d", pid);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

int64_t mc_measure_rss(int pid)
{
	unsigned long size, resident;
	char path[64];
	FILE *f;
	int n;

	snprintf(path, sizeof(path), "/proc/%d/statm", pid ? pid : getpid());
	f = fopen(path, "re");
	if (!f)
		return mc_syserr(-errno, "memory of process %d", pid);
	n = fscanf(f, "%lu %lu", &size, &resident);
	fclose(f);
	if (n != 2)
		return mc_err(-EPROTO, "%s: not understood", path);
	return (int64_t)resident * sysconf(_SC_PAGESIZE);
}
