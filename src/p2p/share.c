/*
 * share.c - objects of this node's: registered, fetched, waited for, left.
 */
#include "p2p.h"

#include "../base/clock.h"
#include "../base/err.h"
#include "../base/util.h"

#include <errno.h>
#include <stdlib.h>

enum {
	SHARE_TIMEOUT_MS = 30000,
	SHARE_DIGITS = 2,		/* of the hash, listed first */
	SHARE_SHARDS = 1024,		/* of an object, about, */
	SHARE_SHARDS_MOST = 4096,	/* and no more, for etcd's sake */
	SHARE_SHARD_MIN = 256 << 10,
	SHARE_SHARD_MAX = 64 << 20,	/* unless there were too many */
};

static const uint64_t share_shard_least = 4096, share_shard_most = 1ull << 32;

/* Hold on to it, so that it stays without the lock. */
static struct p2p_object *share_hold(struct mc_p2p *p, const char *name)
{
	struct p2p_object *o;

	pthread_mutex_lock(&p->lock);
	o = p2p_find(p, name);
	if (o && o->closing)
		o = NULL;
	if (o)
		o->refs++;
	pthread_mutex_unlock(&p->lock);
	if (!o)
		mc_err(-ENOENT, "object '%.200s' is not held here", name);
	return o;
}

static void share_let_go(struct p2p_object *o)
{
	struct mc_p2p *p = o->p;

	pthread_mutex_lock(&p->lock);
	p2p_object_drop(o);
	pthread_mutex_unlock(&p->lock);
}

/* ---- an object comes --------------------------------------------------- */

static int share_check(const char *name, const struct mc_range *b, uint32_t n)
{
	char key[P2P_KEY_MAX];
	int r = p2p_key(name, key);

	if (r < 0)
		return r;
	if (!n || n > P2P_BUFFERS_MAX)
		return mc_err(-EINVAL, "object '%.80s': %u buffers, expected 1 "
			      "to %d", name, n, P2P_BUFFERS_MAX);
	for (uint32_t i = 0; i < n; i++)
		if (!b[i].addr || !b[i].len)
			return mc_err(-EINVAL, "object '%.80s': buffer %u is "
				      "empty", name, i);
	return 0;
}

/* Put it on the list, unless one of that name is there. */
static int share_add(struct p2p_object *o)
{
	struct mc_p2p *p = o->p;
	int r = 0;

	pthread_mutex_lock(&p->lock);
	if (p2p_find(p, o->r.name)) {
		r = mc_err(-EALREADY, "object '%.200s' is held here already",
			   o->r.name);
	} else {
		o->next = p->objects;
		p->objects = o;
		p2p_wake(p);
	}
	pthread_mutex_unlock(&p->lock);
	return r;
}

static int share_held(struct mc_p2p *p, const char *name)
{
	bool held;

	pthread_mutex_lock(&p->lock);
	held = p2p_find(p, name);
	pthread_mutex_unlock(&p->lock);
	return held ? mc_err(-EALREADY, "object '%.200s' is held here already",
			     name) : 0;
}

/* ---- register ---------------------------------------------------------- */

static uint64_t share_shard_bytes(const struct mc_range *b, uint32_t n)
{
	uint64_t size = 0, shard = SHARE_SHARD_MIN, most;

	for (uint32_t i = 0; i < n; i++)
		size += b[i].len;
	while (shard < SHARE_SHARD_MAX && size / shard > SHARE_SHARDS)
		shard *= 2;
	most = SHARE_SHARDS_MOST;
	while (shard < share_shard_most && size / shard > most)
		shard *= 2;
	return shard;
}

static int share_record(struct mc_p2p *p, const char *name,
			const struct mc_range *b, uint32_t n,
			const struct mc_p2p_register *opts,
			struct p2p_record *r)
{
	int64_t shards;

	*r = (struct p2p_record){ .n_buffers = n, .native = true };
	mc_copy(r->name, name);
	r->shard_bytes = opts->shard_bytes ? opts->shard_bytes :
			 share_shard_bytes(b, n);
	if (r->shard_bytes & (r->shard_bytes - 1) ||
	    r->shard_bytes < share_shard_least ||
	    r->shard_bytes > share_shard_most)
		return mc_err(-EINVAL, "object '%.80s': shard_bytes is not a "
			      "power of two from 4 KiB to 4 GiB", name);
	pthread_mutex_lock(&p->lock);
	r->id = p2p_random(p);
	pthread_mutex_unlock(&p->lock);
	r->note = strdup(opts->note ? opts->note : "");
	r->sizes = calloc(n, sizeof(*r->sizes));
	if (!r->note || !r->sizes)
		return mc_err(-ENOMEM, "out of memory");
	for (uint32_t i = 0; i < n; i++) {
		r->sizes[i] = b[i].len;
		if (__builtin_add_overflow(r->size, b[i].len, &r->size))
			return mc_err(-EINVAL, "object '%.80s': more bytes "
				      "than there are", name);
	}
	shards = p2p_count_shards(r->sizes, n, r->shard_bytes);
	if (shards < 0)
		return shards;
	r->n_shards = shards;
	r->sums = calloc(shards, sizeof(*r->sums));
	return r->sums ? 0 : mc_err(-ENOMEM, "out of memory");
}

/* Sum the shards and name us as their source. */
static int share_fill(struct p2p_object *o)
{
	struct p2p_seed *s = p2p_record_seed(&o->r, mc_engine_name(o->p->e),
					     true, true);

	if (!s)
		return mc_err(-ENOMEM, "out of memory");
	for (uint32_t i = 0; i < o->r.n_shards; i++) {
		void *mem = p2p_shard_mem(o, i);

		s->offsets[i] = (uintptr_t)mem;
		o->r.sums[i] = mc_hash(mem, o->at[i].len, 0);
		p2p_shard_add(o, i);
	}
	o->state = P2P_HERE;
	return 0;
}

static int share_announce(struct p2p_object *o, bool force)
{
	struct mc_p2p *p = o->p;
	int r;

	pthread_mutex_lock(&p->reg_lock);
	r = p2p_member_put(o, p->reg);
	if (!r && o->source) {
		r = p2p_publish_record(o, force);
		if (r < 0) {
			char why[MC_WHY_MAX];

			mc_copy(why, mc_errmsg());
			p2p_member_del(o, p->reg);
			mc_err(r, "%s", why);
		}
	}
	pthread_mutex_unlock(&p->reg_lock);
	o->published = !r;
	o->renew_ns = mc_clock_ns() + p->lease_ms / 3 * (uint64_t)MC_MS;
	return r;
}

int mc_p2p_register(struct mc_p2p *p, const char *name,
		    const struct mc_range *buffers, uint32_t n,
		    const struct mc_p2p_register *opts)
{
	static const struct mc_p2p_register usual = { 0 };
	struct p2p_record rec;
	struct p2p_object *o;
	int r = share_check(name, buffers, n);

	if (!opts)
		opts = &usual;
	if (!r)
		r = share_held(p, name);
	if (r < 0)
		return r;
	r = share_record(p, name, buffers, n, opts, &rec);
	if (!r)
		r = p2p_object_open(p, &rec, buffers, true, &o);
	if (r < 0) {
		p2p_record_fini(&rec);
		return r;
	}
	r = share_fill(o);
	if (!r)
		r = share_announce(o, opts->force);
	if (!r)
		r = share_add(o);
	if (r < 0)
		p2p_object_close(o);
	return r;
}

/* ---- fetch ------------------------------------------------------------- */

static int share_fits(const struct p2p_record *r, const struct mc_range *b,
		      uint32_t n)
{
	if (n != r->n_buffers)
		return mc_err(-EINVAL, "object '%.80s' has %u buffers, not %u",
			      r->name, r->n_buffers, n);
	for (uint32_t i = 0; i < n; i++)
		if (b[i].len != r->sizes[i])
			return mc_err(-EINVAL, "object '%.80s': buffer %u is "
				      "of %llu bytes, not %llu", r->name, i,
				      (unsigned long long)r->sizes[i],
				      (unsigned long long)b[i].len);
	return 0;
}

/* What is right already need not come. */
static void share_resume(struct p2p_object *o)
{
	for (uint32_t i = 0; i < o->r.n_shards; i++)
		if (p2p_shard_ok(o, i, p2p_shard_mem(o, i))) {
			p2p_shard_add(o, i);
			o->told.resumed++;
		}
	if (o->told.shards_here == o->r.n_shards)
		o->state = P2P_HERE;
}

int mc_p2p_get(struct mc_p2p *p, const char *name,
	       const struct mc_range *buffers, uint32_t n,
	       const struct mc_p2p_get *opts)
{
	static const struct mc_p2p_get usual = { 0 };
	struct p2p_record rec;
	struct p2p_object *o;
	int r = buffers ? share_check(name, buffers, n) : 0;

	if (!opts)
		opts = &usual;
	if (!r)
		r = share_held(p, name ? name : "");
	if (!r)
		r = p2p_lookup(p, name, &rec);
	if (r < 0)
		return r;
	if (buffers)
		r = share_fits(&rec, buffers, n);
	if (!r)
		r = p2p_object_open(p, &rec, buffers, false, &o);
	if (r < 0) {
		p2p_record_fini(&rec);
		return r;
	}
	o->timeout_ms = opts->timeout_ms > 0 ? opts->timeout_ms :
			SHARE_TIMEOUT_MS;
	o->digits = SHARE_DIGITS;
	if (opts->resume && o->r.native)
		share_resume(o);
	r = share_announce(o, false);
	o->moved_ns = mc_clock_ns();
	if (!r)
		r = share_add(o);
	if (r < 0)
		p2p_object_close(o);
	return r;
}

int mc_p2p_wait(struct mc_p2p *p, const char *name, int timeout_ms,
		struct mc_p2p_progress *out)
{
	uint64_t until = mc_clock_ns() + mc_max(timeout_ms, 0) *
			 (uint64_t)MC_MS;
	struct timespec t = { until / 1000000000u, until % 1000000000u };
	struct p2p_object *o = share_hold(p, name);
	int r = 0;

	if (!o)
		return -ENOENT;
	pthread_mutex_lock(&p->lock);
	while (o->state == P2P_GETTING && !o->closing && !r)
		r = timeout_ms < 0 ? pthread_cond_wait(&p->changed, &p->lock) :
		    pthread_cond_clockwait(&p->changed, &p->lock,
					   CLOCK_MONOTONIC, &t);
	if (out)
		*out = o->told;
	r = o->state == P2P_HERE ? 0 : o->state == P2P_FAILED ?
	    mc_err(o->err, "%s", o->told.why) : o->closing ?
	    mc_err(-ECANCELED, "object '%.200s' is being left", name) : -EAGAIN;
	pthread_mutex_unlock(&p->lock);
	share_let_go(o);
	return r;
}

int mc_p2p_buffers(struct mc_p2p *p, const char *name, struct mc_range *out,
		   int max)
{
	struct p2p_object *o = share_hold(p, name);
	int n;

	if (!o)
		return -ENOENT;
	n = o->r.n_buffers;
	for (int i = 0; i < mc_min(n, max); i++)
		out[i] = o->buffers[i];
	share_let_go(o);
	return n;
}

/* ---- an object goes ---------------------------------------------------- */

static void share_leave(struct p2p_object *o)
{
	struct mc_p2p *p = o->p;

	pthread_mutex_lock(&p->reg_lock);
	if (p2p_member_del(o, p->reg) < 0 || p2p_withdraw_record(o) < 0)
		mc_log(MC_INFO, "p2p", "%s: %s", o->r.name, mc_errmsg());
	pthread_mutex_unlock(&p->reg_lock);
}

static void share_remove(struct p2p_object *o)
{
	struct p2p_object **at = &o->p->objects;

	while (*at != o)
		at = &(*at)->next;
	*at = o->next;
}

int mc_p2p_unregister(struct mc_p2p *p, const char *name)
{
	struct p2p_object *o = share_hold(p, name);

	if (!o)
		return -ENOENT;
	pthread_mutex_lock(&p->lock);
	if (o->closing) {
		pthread_mutex_unlock(&p->lock);
		share_let_go(o);
		return mc_err(-EALREADY, "object '%.200s' is being left", name);
	}
	o->closing = true;
	p2p_wake(p);
	pthread_cond_broadcast(&p->changed);
	while (o->refs > 1 || o->busy)
		pthread_cond_wait(&p->changed, &p->lock);
	pthread_mutex_unlock(&p->lock);
	share_leave(o);
	pthread_mutex_lock(&p->lock);
	share_remove(o);
	pthread_mutex_unlock(&p->lock);
	p2p_object_close(o);
	return 0;
}
