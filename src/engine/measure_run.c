/*
 * measure_run.c - batches submitted over and over from C, by any number of
 * threads: what `mooncake bench --threads` runs, and what the loop in Lua is
 * compared with. Uses the public interface only.
 */
#include <mooncake.h>

#include "../base/clock.h"
#include "../base/err.h"
#include "../base/util.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { MEASURE_ERRORS = 100 };

struct measure_thread {
	pthread_t id;
	struct mc_engine *e;
	const struct mc_req *reqs;
	uint32_t batch;
	uint64_t first, end, at;	/* its share of the batches */
	uint64_t stop_ns;
	struct mc_measure m;
};

static void measure_failed(struct mc_measure *m)
{
	if (!m->errors++)
		mc_copy(m->why, mc_errmsg());
}

static void *measure_loop(void *arg)
{
	struct measure_thread *t = arg;
	const struct mc_req *reqs;
	uint64_t now = mc_clock_ns(), end;
	struct mc_result res;

	while (now < t->stop_ns && t->m.errors < MEASURE_ERRORS) {
		reqs = t->reqs + t->at * t->batch;
		t->at = t->at + 1 < t->end ? t->at + 1 : t->first;
		res.bytes = 0;
		if (mc_transfer(t->e, reqs, t->batch, NULL, &res) < 0)
			measure_failed(&t->m);
		end = mc_clock_ns();
		mc_measure_add(&t->m, end - now);
		t->m.bytes += res.bytes;
		t->m.batches++;
		now = end;
	}
	return NULL;
}

static void measure_merge(struct mc_measure *to, const struct mc_measure *from)
{
	to->batches += from->batches;
	to->bytes += from->bytes;
	if (from->errors && !to->errors)
		mc_copy(to->why, from->why);
	to->errors += from->errors;
	for (int i = 0; i < MC_MEASURE_FINE; i++)
		to->fine[i] += from->fine[i];
}

/* Start all but the first thread, which is the caller. */
static int measure_start(struct measure_thread *t, int n)
{
	int i, r;

	for (i = 1; i < n; i++) {
		r = pthread_create(&t[i].id, NULL, measure_loop, &t[i]);
		if (!r)
			continue;
		for (int j = 0; j < n; j++)
			t[j].stop_ns = 0;
		while (--i > 0)
			pthread_join(t[i].id, NULL);
		return mc_syserr(-r, "thread %d of %d", i, n);
	}
	measure_loop(&t[0]);
	for (i = 1; i < n; i++)
		pthread_join(t[i].id, NULL);
	return 0;
}

/* Threads do not write to the same places, if there are enough. */
static void measure_share(struct measure_thread *t, int i, int threads,
			  uint64_t batches)
{
	t->first = batches < (uint64_t)threads ? 0 : batches * i / threads;
	t->end = batches < (uint64_t)threads ? batches :
		 batches * (i + 1) / threads;
	t->at = t->first;
}

int mc_measure_run(struct mc_engine *e, const struct mc_req *reqs, uint32_t n,
		   uint32_t batch, int threads, int duration_ms,
		   struct mc_measure *out)
{
	struct measure_thread *t;
	uint64_t start, cpu;
	int r;

	if (!batch || n < batch || threads < 1 || threads > 1024)
		return mc_err(-EINVAL, "measure: %u requests in batches of %u "
			      "by %d threads", n, batch, threads);
	t = calloc(threads, sizeof(*t));
	if (!t)
		return mc_err(-ENOMEM, "measure: out of memory");
	memset(out, 0, sizeof(*out));
	cpu = mc_measure_cpu_ns(0);
	start = mc_clock_ns();
	for (int i = 0; i < threads; i++) {
		t[i].e = e;
		t[i].reqs = reqs;
		t[i].batch = batch;
		measure_share(&t[i], i, threads, n / batch);
		t[i].stop_ns = start + (uint64_t)duration_ms * MC_MS;
	}
	r = measure_start(t, threads);
	out->wall_ns = mc_clock_ns() - start;
	out->cpu_ns = mc_measure_cpu_ns(0) - cpu;
	for (int i = 0; i < threads; i++)
		measure_merge(out, &t[i].m);
	free(t);
	return r;
}
