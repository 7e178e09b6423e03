/*
 * measure.h - what runs of transfers cost, and what the machine could do.
 *
 * Used by `mooncake bench`. A limit is the same pattern of blocks moved by the
 * plainest means there is - memcpy, process_vm_writev, one socket - so that a
 * figure of ours can be set against what is physically there.
 */
#ifndef MC_BASE_MEASURE_H
#define MC_BASE_MEASURE_H

#include <mooncake.h>

#pragma GCC visibility push(default)

enum {
	MC_MEASURE_FINE = 1280,		/* buckets of a fine histogram */
};

/* What a run of batches moved and cost. */
struct mc_measure {
	uint64_t batches, bytes, errors;
	uint64_t wall_ns;
	uint64_t cpu_ns;		/* user and system, all threads */
	uint64_t fine[MC_MEASURE_FINE];	/* batches by latency; see _add() */
	char why[MC_WHY_MAX];		/* of the first error */
};

/* Count a batch that took @ns in the histogram: 32 buckets per power of two,
 * so quantiles are good to 3 %. */
void mc_measure_add(struct mc_measure *m, uint64_t ns);

/* The latency in ns below which the share @q (0 to 1) of the batches was. */
double mc_measure_quantile(const struct mc_measure *m, double q);

/* CPU nanoseconds that process @pid (0: this one) has used in all threads. */
int64_t mc_measure_cpu_ns(int pid);

/* Resident bytes of process @pid (0: this one). */
int64_t mc_measure_rss(int pid);

/* Submit @n requests, cut into batches of @batch, over and over by
 * mc_transfer(), from @threads threads for @duration_ms. The result goes to
 * @out; requests that fail are counted there, and 100 of them end the run. */
int mc_measure_run(struct mc_engine *e, const struct mc_req *reqs, uint32_t n,
		   uint32_t batch, int threads, int duration_ms,
		   struct mc_measure *out);

enum mc_limit_kind {
	MC_LIMIT_MEMCPY,		/* one thread, into a shared mapping */
	MC_LIMIT_VM,			/* process_vm_writev or _readv */
	MC_LIMIT_SOCKET,		/* one loopback socket: a vectored write,
					 * received in place, one byte back */
	MC_LIMIT_SOCKET_POLL,		/* the same, both ends polling */
};

/* The pattern: block i of a run is at ((i mod @cycle) * 7919 mod N) * @block,
 * at both ends, where N is how many blocks the span holds. */
struct mc_limit_run {
	enum mc_op op;
	uint32_t batch;
	uint64_t block;
	uint64_t cycle;			/* 0: as batch, the same places again */
	int duration_ms;
};

/* Make the far end, in another process where @kind needs one: @span bytes, as
 * many as at @mem, which the caller keeps. Forks, so the child is this
 * process's until mc_limit_close(). */
struct mc_limit;
int mc_limit_open(struct mc_limit **out, enum mc_limit_kind kind, void *mem,
		  uint64_t span);
int mc_limit_measure(struct mc_limit *l, const struct mc_limit_run *run,
		     struct mc_measure *out);
void mc_limit_close(struct mc_limit *l);

#pragma GCC visibility pop

#endif
