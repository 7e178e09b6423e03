/*
 * pull.c - the thread that fetches: keeps shards on their way from several
 * holders at once, sums what comes before it offers it to others, and asks
 * someone else where one is late.
 *
 * Each read of a shard also reads the holder's map, so that the maps of those
 * who serve us are fresh for nothing. A shard that takes several times as long
 * as usual, and the last few of all, are asked a second time, of another, into
 * spare memory; there are few spares, so a slow network does not make a storm.
 * When the spare comes first, the read into the shard's own place is canceled
 * and waited for: until then someone might write there.
 */
#include "p2p.h"

#include "../base/clock.h"
#include "../base/err.h"
#include "../base/util.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <unistd.h>

enum {
	PULL_TICK_MS = 25,
	PULL_MAP_MS = 100,		/* a map is older than that: look */
	PULL_HUNGRY_MAP_MS = 25,	/* while little is on its way */
	PULL_DONE_MAP_MS = 500,		/* of one that has all; and once done */
};

static const double pull_late_times = 4, pull_end_times = 1.5;
static const double pull_late_s = 0.4, pull_end_s = 0.1, pull_first_s = 2;

/* ---- flights ----------------------------------------------------------- */

/* A word of the map, so that no reader sees half of it. */
static void pull_tell_ask(struct p2p_object *o, const struct p2p_flight *f)
{
	struct p2p_ask ask = { UINT32_MAX, 0 };
	int i = f - o->flights;
	uint64_t word;

	if (f->active) {
		ask.shard = f->shard;
		ask.node = o->holders[f->holder].tag;
	}
	memcpy(&word, &ask, sizeof(word));
	p2p_publish((uint64_t *)(void *)&o->map->asks[i], word);
}

/* The other flight of the same shard. */
static struct p2p_flight *pull_twin(struct p2p_object *o,
				    const struct p2p_flight *f)
{
	for (int i = 0; i < P2P_ASKS; i++) {
		struct p2p_flight *x = &o->flights[i];

		if (x != f && x->active && x->shard == f->shard)
			return x;
	}
	return NULL;
}

static uint32_t pull_count(const struct p2p_object *o, bool spare)
{
	uint32_t n = 0;

	for (int i = 0; i < P2P_ASKS; i++)
		n += o->flights[i].active && o->flights[i].spare == spare;
	return n;
}

static void pull_release(struct p2p_object *o, struct p2p_flight *f)
{
	bool want = !pull_twin(o, f) && !p2p_shard_here(o, f->shard);

	if (want)
		p2p_set(o->wanted, f->shard);
	*f = (struct p2p_flight){ 0 };
	pull_tell_ask(o, f);
}

/* Flights in spares are the last ones, so that each has its own. */
static struct p2p_flight *pull_slot(struct p2p_object *o, bool spare)
{
	int from = spare ? P2P_ASKS - P2P_SPARES : 0;
	int to = spare ? P2P_ASKS : P2P_ASKS - P2P_SPARES;

	for (int i = from; i < to; i++)
		if (!o->flights[i].active)
			return &o->flights[i];
	return NULL;
}

static void *pull_spare(struct p2p_object *o, const struct p2p_flight *f)
{
	char **s = &o->spares[f - o->flights - (P2P_ASKS - P2P_SPARES)];
	void *mem;

	if (!*s && !mc_buffer_alloc(o->p->e,
				    mc_min(o->r.shard_bytes, o->r.size),
				    MC_LOCAL, 0, -1, &mem))
		*s = mem;
	return *s;
}

static void *pull_mem(struct p2p_object *o, struct p2p_flight *f)
{
	return f->spare ? pull_spare(o, f) : p2p_shard_mem(o, f->shard);
}

static uint64_t pull_remote(const struct p2p_object *o,
			    const struct p2p_holder *h, uint32_t shard)
{
	const struct p2p_shard *at = &o->at[shard];

	return h->map_addr ? h->bases[at->buffer] + at->off :
	       h->offsets[shard];
}

static struct mc_req pull_map_req(struct p2p_object *o, struct p2p_holder *h)
{
	uint64_t bytes = p2p_map_bytes(o->r.n_shards, o->r.n_buffers);

	return (struct mc_req){
		.op = MC_READ, .segment = h->id, .remote = h->map_addr,
		.buf = o->landing + (h - o->holders) * bytes, .len = bytes,
	};
}

/* The segment's id is of no use any more: the scout opens it again. */
static void pull_refused(struct p2p_object *o, struct p2p_holder *h)
{
	mc_copy(o->told.why, mc_errmsg());
	h->slot = P2P_GONE;
	o->told.failed++;
}

static bool pull_submit(struct p2p_object *o, struct p2p_holder *h,
			const struct mc_req *reqs, int n, uint64_t *batch)
{
	struct mc_batch_opts opts = { .workers_only = 1 };

	if (mc_submit(o->p->e, reqs, n, &opts, batch) < 0) {
		pull_refused(o, h);
		return false;
	}
	o->busy++;
	return true;
}

static void pull_start(struct p2p_object *o, uint32_t shard, int holder,
		       bool spare, uint64_t now)
{
	struct p2p_holder *h = &o->holders[holder];
	struct p2p_flight *f = pull_slot(o, spare);
	struct mc_req reqs[2];
	bool with_map = h->map_addr && !h->map_read;

	if (!f)
		return;
	*f = (struct p2p_flight){
		.spare = spare, .shard = shard, .holder = holder,
		.start_ns = now, .with_map = with_map,
		.asks = h->mine + h->asked + 1,
	};
	reqs[0] = (struct mc_req){
		.op = MC_READ, .segment = h->id, .buf = pull_mem(o, f),
		.remote = pull_remote(o, h, shard), .len = o->at[shard].len,
	};
	if (!reqs[0].buf)
		return;
	if (with_map)
		reqs[1] = pull_map_req(o, h);
	if (!pull_submit(o, h, reqs, 1 + with_map, &f->batch))
		return;
	f->active = true;
	h->mine++;
	h->map_read |= with_map;
	p2p_clear(o->wanted, shard);
	p2p_rumour(o, shard / 64, (uint64_t)1 << shard % 64);
	pull_tell_ask(o, f);
}

/* ---- what came --------------------------------------------------------- */

static void pull_here(struct p2p_object *o, uint32_t shard, uint64_t now)
{
	p2p_shard_add(o, shard);
	o->moved_ns = now;
	if (o->told.shards_here < o->r.n_shards)
		return;
	o->state = P2P_HERE;
	pthread_cond_broadcast(&o->p->changed);
}

/* Without the lock: only this thread writes there. */
static bool pull_verify(struct p2p_object *o, uint32_t shard, const void *mem)
{
	bool ok;

	pthread_mutex_unlock(&o->p->lock);
	ok = p2p_shard_ok(o, shard, mem);
	pthread_mutex_lock(&o->p->lock);
	return ok;
}

static void pull_from_spare(struct p2p_object *o, struct p2p_flight *f,
			    uint64_t now)
{
	uint32_t shard = f->shard;

	pthread_mutex_unlock(&o->p->lock);
	memcpy(p2p_shard_mem(o, shard), pull_spare(o, f), o->at[shard].len);
	pthread_mutex_lock(&o->p->lock);
	pull_here(o, shard, now);
	pull_release(o, f);
}

static void pull_bad(struct p2p_object *o, struct p2p_flight *f, uint64_t now)
{
	struct p2p_holder *h = &o->holders[f->holder];

	o->told.bad++;
	o->told.wasted += o->at[f->shard].len;
	snprintf(o->told.why, sizeof(o->told.why), "shard %u from %s has a "
		 "wrong checksum%s", f->shard, h->segment,
		 ++h->lies == P2P_LIES ? ": it is asked no more" : "");
	mc_log(MC_WARN, "p2p", "%s: %s", o->r.name, o->told.why);
	p2p_holder_down(o, h, now);
}

static double pull_mean(double mean, double x)
{
	return mean > 0 ? mean + (x - mean) / 4 : x;
}

static void pull_measure(struct p2p_object *o, struct p2p_flight *f,
			 uint64_t now)
{
	struct p2p_holder *h = &o->holders[f->holder];
	double s = (now - f->start_ns) / 1e9;

	h->shard_s = pull_mean(h->shard_s, s / f->asks);
	h->shard_ns = now;
	o->flight_s = pull_mean(o->flight_s, s);
	if (h->source)
		o->told.from_source += o->at[f->shard].len;
}

/* It is here and right. In a spare, it waits for who may still write to its
 * place. */
static void pull_good(struct p2p_object *o, struct p2p_flight *f, uint64_t now)
{
	struct p2p_flight *twin = pull_twin(o, f);

	if (f->spare && twin) {
		f->waiting = true;
		twin->canceled = true;
		mc_cancel(o->p->e, twin->batch);
		return;
	}
	if (f->spare) {
		pull_from_spare(o, f, now);
		return;
	}
	pull_here(o, f->shard, now);
	if (twin && twin->waiting)
		pull_release(o, twin);
	pull_release(o, f);
}

/* Nothing came of it; the one in the spare may. */
static void pull_lost(struct p2p_object *o, struct p2p_flight *f, uint64_t now)
{
	struct p2p_flight *twin = pull_twin(o, f);

	pull_release(o, f);
	if (twin && twin->waiting)
		pull_from_spare(o, twin, now);
}

static void pull_came(struct p2p_object *o, struct p2p_flight *f, uint64_t now)
{
	pull_measure(o, f, now);
	if (p2p_shard_here(o, f->shard)) {
		o->told.wasted += o->at[f->shard].len;
		pull_release(o, f);
	} else if (pull_verify(o, f->shard, pull_mem(o, f))) {
		pull_good(o, f, now);
	} else {
		pull_bad(o, f, now);
		pull_lost(o, f, now);
	}
}

/* Several failures at once are one. */
static void pull_failed(struct p2p_object *o, struct p2p_holder *h,
			const struct mc_result *res, uint64_t now)
{
	if (!p2p_holder_open(h, now))
		return;
	o->told.failed++;
	mc_copy(o->told.why, res->why);
	p2p_holder_down(o, h, now);
}

static void pull_map_came(struct p2p_object *o, struct p2p_holder *h,
			  const struct mc_result *res, uint64_t now)
{
	h->map_read = false;
	if (res->state == MC_COMPLETED && !p2p_holder_map(o, h, now)) {
		snprintf(o->told.why, sizeof(o->told.why), "%s: what it has at "
			 "its map's address is no map of this object",
			 h->segment);
		h->slot = P2P_GONE;
	}
}

static void pull_flight_ended(struct p2p_object *o, struct p2p_flight *f,
			      uint64_t now)
{
	struct p2p_holder *h = &o->holders[f->holder];
	struct mc_result shard = { 0 }, map = { 0 };

	mc_batch_req(o->p->e, f->batch, 0, &shard);
	if (f->with_map)
		mc_batch_req(o->p->e, f->batch, 1, &map);
	mc_batch_free(o->p->e, f->batch);
	f->batch = 0;
	h->mine--;
	if (f->with_map)
		pull_map_came(o, h, &map, now);
	if (shard.state == MC_COMPLETED) {
		pull_came(o, f, now);
	} else {
		if (!f->canceled && !o->closing)
			pull_failed(o, h, &shard, now);
		pull_lost(o, f, now);
	}
}

static void pull_map_ended(struct p2p_object *o, struct p2p_holder *h,
			   uint64_t now)
{
	struct mc_result res = { 0 };

	mc_batch_req(o->p->e, h->map_batch, 0, &res);
	mc_batch_free(o->p->e, h->map_batch);
	h->map_batch = 0;
	pull_map_came(o, h, &res, now);
	if (res.state != MC_COMPLETED && !o->closing)
		pull_failed(o, h, &res, now);
}

static bool pull_ended_of(struct p2p_object *o, uint64_t batch, uint64_t now)
{
	for (int i = 0; i < P2P_ASKS; i++)
		if (o->flights[i].active && o->flights[i].batch == batch) {
			pull_flight_ended(o, &o->flights[i], now);
			return true;
		}
	for (int i = 0; i < o->n_holders; i++)
		if (o->holders[i].map_batch == batch) {
			pull_map_ended(o, &o->holders[i], now);
			return true;
		}
	return false;
}

/* Objects go only when nothing of them is under way, so this one stays while
 * the lock is let go in the middle. */
static void pull_ended(struct mc_p2p *p, uint64_t batch)
{
	for (struct p2p_object *o = p->objects; o; o = o->next)
		if (pull_ended_of(o, batch, mc_clock_ns())) {
			if (!--o->busy && o->closing)
				pthread_cond_broadcast(&p->changed);
			return;
		}
}

/* ---- what is next ------------------------------------------------------ */

static void pull_read_maps(struct p2p_object *o, uint64_t now)
{
	bool hungry = pull_count(o, false) <= (uint32_t)o->p->parallel / 3;

	for (int i = 0; i < o->n_holders; i++) {
		struct p2p_holder *h = &o->holders[i];
		bool slow = h->complete || o->state != P2P_GETTING;
		uint64_t every = (slow ? PULL_DONE_MAP_MS : hungry ?
				  PULL_HUNGRY_MAP_MS : PULL_MAP_MS) *
				 (uint64_t)MC_MS;
		struct mc_req req;

		if (!h->map_addr || h->map_read || !p2p_holder_open(h, now) ||
		    (h->known && now < h->seen_ns + every) ||
		    (h->complete && o->state != P2P_GETTING))
			continue;
		req = pull_map_req(o, h);
		if (pull_submit(o, h, &req, 1, &h->map_batch))
			h->map_read = true;
	}
}

static bool pull_nothing_wanted(const struct p2p_object *o)
{
	for (uint32_t w = 0; w < p2p_words(o->r.n_shards); w++)
		if (o->wanted[w])
			return false;
	return true;
}

/* How long a flight may take before another holder is asked. */
static double pull_limit_s(const struct p2p_object *o)
{
	if (o->flight_s <= 0)
		return pull_first_s;
	if (pull_nothing_wanted(o))
		return mc_max(pull_end_s, pull_end_times * o->flight_s);
	return mc_max(pull_late_s, pull_late_times * o->flight_s);
}

static void pull_second(struct p2p_object *o, struct p2p_flight *f,
			double took_s, uint64_t now)
{
	struct p2p_holder *h = &o->holders[f->holder];
	uint32_t shard;
	int other;

	p2p_set(o->one, f->shard);
	if (p2p_choose(o, o->one, f->holder, now, &shard, &other))
		pull_start(o, shard, other, true, now);
	p2p_clear(o->one, f->shard);
	if (took_s < pull_late_times * o->flight_s ||
	    took_s / f->asks <= h->shard_s)
		return;
	h->shard_s = took_s / f->asks;
	h->shard_ns = now;
	snprintf(o->told.why, sizeof(o->told.why), "%s is slow: %.1f s for a "
		 "shard", h->segment, took_s);
}

static void pull_look_for_late(struct p2p_object *o, uint64_t now)
{
	double limit = pull_limit_s(o);

	for (int i = 0; i < P2P_ASKS - P2P_SPARES; i++) {
		struct p2p_flight *f = &o->flights[i];
		double took = (now - f->start_ns) / 1e9;

		if (!f->active || f->canceled || took < limit ||
		    pull_twin(o, f) || pull_count(o, true) == P2P_SPARES)
			continue;
		pull_second(o, f, took, now);
	}
}

static void pull_give_up(struct p2p_object *o)
{
	char last[sizeof(o->told.why)];

	mc_copy(last, o->told.why);
	o->err = -ETIMEDOUT;
	o->state = P2P_FAILED;
	snprintf(o->told.why, sizeof(o->told.why), "%.60s: nothing came for "
		 "%u ms; %u of %u shards are here, %u holders answer%s%.90s",
		 o->r.name, o->timeout_ms, o->told.shards_here, o->r.n_shards,
		 p2p_holders_up(o), *last ? "; before: " : "", last);
	pthread_cond_broadcast(&o->p->changed);
}

static void pull_fetch(struct p2p_object *o, uint64_t now)
{
	uint32_t shard;
	int holder;

	pull_look_for_late(o, now);
	while (pull_count(o, false) < (uint32_t)o->p->parallel &&
	       p2p_choose(o, o->wanted, -1, now, &shard, &holder)) {
		uint32_t before = o->busy;

		pull_start(o, shard, holder, false, now);
		if (o->busy == before)
			break;
	}
	if (now > o->moved_ns + o->timeout_ms * (uint64_t)MC_MS)
		pull_give_up(o);
}

static void pull_cancel_all(struct p2p_object *o)
{
	for (int i = 0; i < P2P_ASKS; i++)
		if (o->flights[i].active && o->flights[i].batch)
			mc_cancel(o->p->e, o->flights[i].batch);
	for (int i = 0; i < o->n_holders; i++)
		if (o->holders[i].map_batch)
			mc_cancel(o->p->e, o->holders[i].map_batch);
}

/* When the thread has to look again, in ms; -1: when told. */
static int pull_step(struct p2p_object *o, uint64_t now)
{
	bool watched = false;

	if (o->source)
		return -1;
	if (o->closing) {
		pull_cancel_all(o);
		return o->busy ? PULL_TICK_MS : -1;
	}
	for (int i = 0; i < o->n_holders; i++) {
		struct p2p_holder *h = &o->holders[i];

		if (h->slot == P2P_GONE && !h->mine && !h->map_read)
			p2p_holder_empty(o, h);
		watched |= h->slot == P2P_UP && !h->complete;
	}
	pull_read_maps(o, now);
	if (o->state == P2P_GETTING)
		pull_fetch(o, now);
	o->told.holders = p2p_holders_up(o);
	return o->state == P2P_GETTING ? PULL_TICK_MS :
	       watched ? PULL_DONE_MAP_MS : -1;
}

static int pull_all(struct mc_p2p *p)
{
	int wait = -1;

	for (struct p2p_object *o = p->objects; o; o = o->next) {
		int ms = pull_step(o, mc_clock_ns());

		if (ms >= 0)
			wait = wait < 0 ? ms : mc_min(wait, ms);
	}
	return wait;
}

static void pull_take(struct mc_p2p *p)
{
	uint64_t ids[32];
	int n;

	while ((n = mc_completed(p->e, ids, 32)) > 0)
		for (int i = 0; i < n; i++)
			pull_ended(p, ids[i]);
}

void *p2p_pull_main(void *arg)
{
	struct mc_p2p *p = arg;
	struct pollfd fds[2] = {
		{ .fd = mc_engine_fd(p->e), .events = POLLIN },
		{ .fd = p->wake_fd, .events = POLLIN },
	};
	uint64_t count;

	pthread_setname_np(pthread_self(), "mc-p2p-pull");
	pthread_mutex_lock(&p->lock);
	while (!p->stopping) {
		int wait = pull_all(p);

		pthread_mutex_unlock(&p->lock);
		poll(fds, 2, wait);
		if (fds[1].revents & POLLIN &&
		    read(p->wake_fd, &count, sizeof(count)) < 0)
			count = 0;
		pthread_mutex_lock(&p->lock);
		pull_take(p);
	}
	pthread_mutex_unlock(&p->lock);
	return NULL;
}
