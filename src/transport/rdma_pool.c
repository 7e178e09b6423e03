/*
 * rdma_pool.c - how many paths an engine keeps. A device has room for many
 * queue pairs, but the more there are, the less of them its cache holds; so
 * there is a bound, and a path that was not used makes room for a new one.
 *
 * Which one is said by SIEVE (Zhang et al., "SIEVE is Simpler than LRU", NSDI
 * 2024): paths stand in the order in which they came; a hand goes from the
 * oldest to the newest and round again, passes those that were used since it
 * came by, and takes the first that was not. To use a path is to set one bit.
 *
 * One on which nothing was posted for MC_IB_IDLE_S seconds is ended too. There
 * is no thread that looks for those: paths that have something in flight do now
 * and then, and so does who makes one. An engine that does nothing at all keeps
 * what it has until it does something.
 */
#include "rdma.h"

#include "../base/clock.h"
#include "../base/err.h"

enum {
	POOL_MAX = 1024,
	POOL_IDLE_S = 600,
	POOL_SWEEPS = 4,		/* in that time */
};

void mc_rdma_pool_init(struct rdma_pool *p)
{
	pthread_mutex_init(&p->lock, NULL);
	p->max = mc_env_number("MC_MAX_EP_PER_CTX", 1, 65535, POOL_MAX);
	p->idle_ns = mc_env_number("MC_IB_IDLE_S", 0, 1 << 24, POOL_IDLE_S) *
		     1000ull * MC_MS;
	p->swept_ns = mc_clock_tick_ns();
}

void mc_rdma_pool_fini(struct rdma_pool *p)
{
	pthread_mutex_destroy(&p->lock);
}

static void pool_unlink(struct rdma_pool *p, struct rdma_path *path)
{
	if (p->hand == path)
		p->hand = path->newer;
	if (path->newer)
		path->newer->older = path->older;
	else
		p->newest = path->older;
	if (path->older)
		path->older->newer = path->newer;
	else
		p->oldest = path->newer;
	path->newer = path->older = NULL;
	path->pooled = false;
	p->n--;
}

/* Who holds a path's lock is using it. */
static bool pool_retire(struct rdma_path *path)
{
	bool retired;

	if (pthread_mutex_trylock(&path->base.lock))
		return false;
	retired = mc_rdma_path_retire(path, "another path took its place");
	pthread_mutex_unlock(&path->base.lock);
	return retired;
}

/* Has nothing been posted on it for that long? Then it is ended. */
static bool pool_retire_idle(struct rdma_path *path, uint64_t now,
			     uint64_t idle_ns)
{
	bool retired = false;

	if (pthread_mutex_trylock(&path->base.lock))
		return false;
	if (path->posted != path->idle_posted) {
		path->idle_posted = path->posted;
		path->idle_since_ns = now;
	} else if (now - path->idle_since_ns >= idle_ns) {
		retired = mc_rdma_path_retire(path, "not used for long");
	}
	pthread_mutex_unlock(&path->base.lock);
	return retired;
}

/* Twice round is enough: after the first, all bits are clear. If none is idle,
 * there is one too many for now. */
static void pool_evict(struct rdma_pool *p)
{
	for (int i = 0; i < 2 * p->n; i++) {
		struct rdma_path *at = p->hand ? p->hand : p->oldest;

		p->hand = at->newer;
		if (__atomic_exchange_n(&at->used, false, __ATOMIC_RELAXED) ||
		    !pool_retire(at))
			continue;
		mc_log(MC_DEBUG, "rdma", "%s: idle, and there are %d paths",
		       at->base.remote_dev, p->n);
		pool_unlink(p, at);
		return;
	}
}

void mc_rdma_pool_sweep(struct rdma_pool *p)
{
	uint64_t now = mc_clock_tick_ns();
	uint64_t swept = __atomic_load_n(&p->swept_ns, __ATOMIC_RELAXED);

	if (!p->idle_ns || now - swept < p->idle_ns / POOL_SWEEPS ||
	    pthread_mutex_trylock(&p->lock))
		return;
	__atomic_store_n(&p->swept_ns, now, __ATOMIC_RELAXED);
	for (struct rdma_path *at = p->oldest, *next; at; at = next) {
		next = at->newer;
		if (!pool_retire_idle(at, now, p->idle_ns))
			continue;
		mc_log(MC_DEBUG, "rdma", "%s: not used for %llu s",
		       at->base.remote_dev, (long long)
		       (now - at->idle_since_ns) / MC_MS / 1000);
		pool_unlink(p, at);
	}
	pthread_mutex_unlock(&p->lock);
}

void mc_rdma_pool_add(struct rdma_pool *p, struct rdma_path *path)
{
	mc_rdma_pool_sweep(p);
	path->idle_posted = path->posted;
	path->idle_since_ns = mc_clock_tick_ns();
	pthread_mutex_lock(&p->lock);
	if (p->n >= p->max)
		pool_evict(p);
	path->older = p->newest;
	if (path->older)
		path->older->newer = path;
	else
		p->oldest = path;
	p->newest = path;
	path->pooled = true;
	p->n++;
	pthread_mutex_unlock(&p->lock);
}

void mc_rdma_pool_del(struct rdma_pool *p, struct rdma_path *path)
{
	pthread_mutex_lock(&p->lock);
	if (path->pooled)
		pool_unlink(p, path);
	pthread_mutex_unlock(&p->lock);
}
