/*
 * rails.c - the rails to a peer: made when its segment is opened, connected
 * when they are wanted, set aside when they fail, and tried again when there is
 * work for them. A rail that this pair of engines cannot use is absent, with
 * the reason.
 */
#include "engine.h"

#include <sys/epoll.h>
#include <unistd.h>

enum {
	RAIL_BACKOFF_MS = 20,		/* doubles up to */
	RAIL_BACKOFF_MAX_MS = 1000,
	RAIL_CONNECT_MS = 500,
	RAIL_LOOK_US = 100,
	RAIL_FENCE_MS = 300,		/* for the peer's word on its end */
	RAIL_WISH_MS = 5000,		/* after a wish that did not help */
};

/* ---- figures -------------------------------------------------------- */

static uint64_t rail_average(uint64_t old, uint64_t sample)
{
	return old ? old - old / 8 + sample / 8 : sample;
}

void rail_sample(struct rail *r, enum mc_op op, uint64_t len, uint64_t ns)
{
	int bucket = 0;

	for (uint64_t us = ns / 1000; us && bucket < MC_HIST_BUCKETS - 1;
	     us >>= 1)
		bucket++;
	count(&r->bytes[op], len);
	count(&r->slices, 1);
	count(&r->hist[bucket], 1);
	__atomic_store_n(&r->latency_ns, rail_average(
		__atomic_load_n(&r->latency_ns, __ATOMIC_RELAXED), ns),
		__ATOMIC_RELAXED);
}

static const char *const rail_local_words[] = {
	"network is unreachable", "no such device", "cannot assign",
	"local device",
};

/* Ours or theirs? What the local system says before anything was sent is
 * ours. */
static bool rail_is_local(const char *why)
{
	for (size_t i = 0; i < mc_array_len(rail_local_words); i++)
		if (strcasestr(why, rail_local_words[i]))
			return true;
	return false;
}

/* Under the peer's lock. */
static void rail_set_aside(struct rail *r, int err, const char *why)
{
	count(&r->errors, 1);
	if (rail_is_local(why))
		count(&r->local_errors, 1);
	mc_copy(r->why, why);
	if (err == -EOPNOTSUPP) {
		r->state = MC_RAIL_ABSENT;
		return;
	}
	if (r->n_paths)
		return;
	r->state = MC_RAIL_QUARANTINED;
	r->backoff_ns = r->backoff_ns ? mc_min(r->backoff_ns * 2,
				RAIL_BACKOFF_MAX_MS * (uint64_t)MC_MS) :
			RAIL_BACKOFF_MS * (uint64_t)MC_MS;
	r->retry_ns = mc_clock_ns() + r->backoff_ns;
}

void rail_error(struct rail *r, int err, const char *why)
{
	pthread_mutex_lock(&r->peer->lock);
	rail_set_aside(r, err, why);
	pthread_mutex_unlock(&r->peer->lock);
}

/* ---- paths ---------------------------------------------------------- */

/* Let go of a path; the last to do so ends it. */
void path_put(struct epath *ep)
{
	struct peer *p = ep->rail->peer;
	bool last;

	pthread_mutex_lock(&p->lock);
	last = !--ep->refs;
	pthread_mutex_unlock(&p->lock);
	if (!last)
		return;
	ep->rail->t->disconnect(ep->p);
	count(&p->e->stats.connections, -1);
	if (rail_copies(ep->rail))
		count(&p->e->copy_paths, -1);
	free(ep);
}

/* Out of the worker's hands. */
static void path_unwatch(struct epath *ep)
{
	struct mc_loop *l;

	pthread_mutex_lock(&ep->p->lock);
	l = ep->loop;
	ep->loop = NULL;
	pthread_mutex_unlock(&ep->p->lock);
	if (!l)
		return;
	mc_loop_del(l, &ep->ev);
	mc_loop_pass(l);
}

static void path_end(struct epath *ep, uint64_t fence_ms)
{
	struct slice *lost;
	char why[MC_WHY_MAX];

	path_unwatch(ep);
	pthread_mutex_lock(&ep->p->lock);
	mc_copy(why, ep->p->why);
	if (ep->rail->t->abort)
		ep->rail->t->abort(ep->p, mc_clock_ns() + fence_ms * MC_MS);
	ep->gone = true;
	lost = ep->inflight;
	ep->inflight = NULL;
	pthread_mutex_unlock(&ep->p->lock);
	while (lost) {
		struct slice *s = lost;

		lost = s->next;
		__atomic_sub_fetch(&ep->rail->inflight, s->s.len,
				   __ATOMIC_RELAXED);
		if (s->s.op == MC_NOTE)
			slice_end(s, s->s.err, why);
		else if (__atomic_load_n(&ep->innocent, __ATOMIC_ACQUIRE) &&
			 !batch_expired(s->batch))
			slice_requeue(s);
		else
			slice_end(s, -ECONNRESET, why);
	}
	path_put(ep);
}

/* Without the peer's lock: as of now. */
static int rail_paths(const struct rail *r)
{
	return __atomic_load_n(&r->n_paths, __ATOMIC_RELAXED);
}

static int rail_streams(const struct rail *r)
{
	return rail_copies(r) ? 1 : mc_min(r->peer->e->opts.streams,
					   ENGINE_PATHS);
}

static void path_fail_task(void *arg)
{
	struct epath *ep = arg;
	struct rail *r = ep->rail;
	struct peer *p = r->peer;

	/* Keeps the peer: slices of the path count as its batches until they
	 * have ended, and closing a segment waits for tasks. */
	path_end(ep, RAIL_FENCE_MS);
	/* A rail that is up with fewer paths than it is to have gets one more;
	 * one that has none is tried when it is wanted. */
	pthread_mutex_lock(&p->lock);
	if (!p->closing && !r->connecting && r->state == MC_RAIL_UP &&
	    r->n_paths && r->n_paths < rail_streams(r))
		rail_connect(r, -1);
	pthread_mutex_unlock(&p->lock);
	spray_pump(p, NULL);
	__atomic_sub_fetch(&p->tasks, 1, __ATOMIC_ACQ_REL);
}

/* Under the peer's lock: no one finds it any more. */
static bool path_detach(struct epath *ep)
{
	struct rail *r = ep->rail;

	if (ep->dead)
		return false;
	ep->dead = true;
	for (int i = 0; i < r->n_paths; i++)
		if (r->paths[i] == ep) {
			r->paths[i] = r->paths[r->n_paths - 1];
			__atomic_store_n(&r->n_paths, r->n_paths - 1,
					 __ATOMIC_RELAXED);
		}
	return true;
}

void path_fail(struct epath *ep, const char *why)
{
	struct peer *p = ep->rail->peer;
	bool first;

	pthread_mutex_lock(&ep->p->lock);
	if (!ep->p->err) {
		mc_copy(ep->p->why, why);
		__atomic_store_n(&ep->p->err, -ECONNRESET, __ATOMIC_RELEASE);
	}
	pthread_mutex_unlock(&ep->p->lock);
	pthread_mutex_lock(&p->lock);
	first = path_detach(ep);
	if (first)
		rail_set_aside(ep->rail, -ECONNRESET, why);
	pthread_mutex_unlock(&p->lock);
	if (!first)
		return;
	mc_log(MC_INFO, ep->rail->t->name, "%s: %s", p->at.name, why);
	__atomic_add_fetch(&p->tasks, 1, __ATOMIC_ACQ_REL);
	if (mc_tasks_run(&p->e->tasks, path_fail_task, ep) < 0)
		path_fail_task(ep);
}

/* ---- connecting ----------------------------------------------------- */

static int path_watch(struct epath *ep, int n)
{
	struct mc_engine *e = ep->rail->peer->e;

	if (ep->p->fd < 0 || rail_copies(ep->rail))
		return 0;
	ep->ev = (struct mc_event){ drive_on_event, ep->p->fd };
	ep->loop = &e->loops[(ep->rail->peer->id + n) % e->n_loops];
	/* Armed when something is posted; until then it only says so if the
	 * peer hangs up. */
	return mc_loop_add(ep->loop, &ep->ev, EPOLLRDHUP | EPOLLONESHOT);
}

/* No more wishes for a while. */
static void rail_wish_failed(struct rail *r)
{
	pthread_mutex_lock(&r->peer->lock);
	r->wish_ns = mc_clock_ns() + RAIL_WISH_MS * (uint64_t)MC_MS;
	pthread_mutex_unlock(&r->peer->lock);
}

/* The places of the peer that the path's device there is not the second choice
 * for; a wish that was not granted is not made again at once. */
static void path_judge(struct epath *ep, const struct desc *d)
{
	const char *dev = strrchr(ep->p->remote_dev, '/');
	struct rail *r = ep->rail;

	ep->near = UINT64_MAX;
	for (int i = 0; d && dev && i < MATRIX_PLACES; i++)
		if (mc_matrix_rank(d->matrix, i, dev + 1) > 0)
			ep->near &= ~(1ull << i);
	if (r->wish >= 0 && !(ep->near >> r->wish & 1))
		rail_wish_failed(r);
}

static int path_connect(struct rail *r, uint64_t deadline_ns)
{
	struct peer *p = r->peer;
	struct mc_peer at = peer_at(p);
	struct epath *ep = calloc(1, sizeof(*ep));
	struct desc *d;
	bool current, dead;
	int err;

	if (!ep)
		return mc_err(-ENOMEM, "out of memory");
	if (!at.epoch) {
		free(ep);
		return mc_err(-ESTALE, "%s was restarted and has not been "
			      "asked yet", at.name);
	}
	if (r->t->strangers == (at.strange ? MC_STRANGERS_NO :
				MC_STRANGERS_ONLY)) {
		free(ep);
		return mc_err(-EOPNOTSUPP, at.strange ? "%s speaks only "
			      "the public protocol" : "%s speaks the native "
			      "protocol", at.name);
	}
	if (r->remote_addr[0] && !rail_copies(r))
		mc_copy(at.addr, r->remote_addr);
	ep->rail = r;
	ep->refs = 2;			/* the rail's, and ours for now */
	ep->seen_ns = mc_clock_ns();
	d = desc_get(p);
	if (d && r->wish >= 0)
		mc_copy(at.wish, mc_matrix_first(d->matrix, r->wish, r->dev));
	err = r->t->connect(r->ctx, &at, r->dev, deadline_ns, &ep->p);
	if (!err)
		path_judge(ep, d);
	desc_put(d);
	if (err < 0) {
		free(ep);
		return err;
	}
	ep->p->transport = r->t;
	err = path_watch(ep, rail_paths(r));
	if (err < 0) {
		r->t->disconnect(ep->p);
		free(ep);
		return mc_syserr(err, "epoll");
	}
	count(&p->e->stats.connections, 1);
	count(&r->connects, 1);
	if (rail_copies(r))
		count(&p->e->copy_paths, 1);
	pthread_mutex_lock(&p->lock);
	/* A path holds for the epoch it was made for; and its worker may have
	 * seen the peer hang up by now. */
	current = p->at.epoch == at.epoch;
	dead = ep->dead;
	if (current && !dead) {
		__atomic_store_n(&r->n_paths, r->n_paths + 1,
				 __ATOMIC_RELAXED);
		r->paths[r->n_paths - 1] = ep;
		mc_copy(r->remote_dev, ep->p->remote_dev);
		r->state = MC_RAIL_UP;
		r->backoff_ns = 0;
	}
	pthread_mutex_unlock(&p->lock);
	if (!current || dead)
		path_fail(ep, current ? "closed by the peer" :
			  "the peer was restarted");
	path_put(ep);
	return !current ? mc_err(-ESTALE, "%s was restarted", at.name) :
	       dead ? mc_err(-ECONNRESET, "%s: closed by the peer", at.name) :
	       0;
}

/* Was the peer restarted? Then what is under way is for the old one, and fails;
 * what comes is for the new. Not every transport can tell by itself. */
static bool peer_moved(struct peer *p, uint64_t deadline_ns)
{
	uint64_t was = peer_at(p).epoch;
	char why[MC_WHY_MAX];

	mc_copy(why, mc_errmsg());
	if (peer_refresh(p, deadline_ns) < 0 || peer_at(p).epoch == was) {
		mc_err(-ECONNREFUSED, "%s", why);
		return false;
	}
	return true;
}

/* As many paths as the rail is to have, and one for a wish; one is enough to be
 * up. */
static int rail_connect_now(struct rail *r, uint64_t deadline_ns)
{
	int n = rail_streams(r), err = 0;

	if (r->wish >= 0)
		n = mc_max(n, mc_min(rail_paths(r) + 1, ENGINE_PATHS));
	while (!err && rail_paths(r) < n)
		err = path_connect(r, deadline_ns);
	/* The next try is without it. */
	if (err < 0 && r->wish >= 0) {
		rail_wish_failed(r);
		r->wish = -1;
	}
	if (err < 0 && err != -EOPNOTSUPP && !rail_paths(r) &&
	    peer_moved(r->peer, deadline_ns))
		err = path_connect(r, deadline_ns);
	if (rail_paths(r))
		return 0;
	if (err < 0)
		rail_error(r, err, mc_errmsg());
	return err;
}

static void rail_task(void *arg)
{
	struct rail *r = arg;
	struct peer *p = r->peer;

	rail_connect_now(r, mc_clock_ns() + RAIL_CONNECT_MS * (uint64_t)MC_MS);
	pthread_mutex_lock(&p->lock);
	r->connecting = false;
	r->wish = -1;
	pthread_mutex_unlock(&p->lock);
	spray_pump(p, NULL);
	__atomic_sub_fetch(&p->tasks, 1, __ATOMIC_ACQ_REL);
}

/* Under the peer's lock: is it time to try this rail? */
bool rail_wanted(struct rail *r, uint64_t now)
{
	if (r->connecting || r->peer->closing)
		return false;
	return r->state == MC_RAIL_NEW ||
	       (r->state == MC_RAIL_QUARANTINED && now >= r->retry_ns);
}

/* Under the peer's lock: connect it on a thread of its own, to a device that
 * is near place @wish of the peer; -1: to any. */
void rail_connect(struct rail *r, int wish)
{
	r->connecting = true;
	r->wish = mc_clock_ns() < r->wish_ns ? -1 : wish;
	__atomic_add_fetch(&r->peer->tasks, 1, __ATOMIC_ACQ_REL);
	if (!mc_tasks_run(&r->peer->e->tasks, rail_task, r))
		return;
	r->connecting = false;
	__atomic_sub_fetch(&r->peer->tasks, 1, __ATOMIC_ACQ_REL);
}

void rail_wish(struct rail *r, int place)
{
	if (!r->connecting && !r->peer->closing &&
	    r->n_paths < ENGINE_PATHS && mc_clock_ns() >= r->wish_ns)
		rail_connect(r, place);
}

/* ---- the rails of a peer -------------------------------------------- */

static void rail_add(struct peer *p, const struct engine_transport *tr,
		     int dev, const char *name)
{
	struct rail *r = calloc(1, sizeof(*r));

	if (!r || p->n_rails == ENGINE_RAILS) {
		free(r);
		return;
	}
	r->peer = p;
	r->t = tr->t;
	r->ctx = tr->ctx;
	r->id = tr->id;
	r->index = p->n_rails;
	r->dev = dev;
	r->wish = -1;
	mc_copy(r->local_dev, name);
	if (p->n_addrs)
		mc_copy(r->remote_addr, p->addrs[dev % p->n_addrs]);
	r->bw = rail_copies(r) ? 10000000000u : 3000000000u;
	p->rails[p->n_rails++] = r;
}

void rails_build(struct peer *p)
{
	for (int i = 0; i < p->e->n_tr; i++) {
		struct engine_transport *tr = &p->e->tr[i];

		for (int dev = 0; dev < tr->n_devs; dev++)
			rail_add(p, tr, dev, tr->devs[dev]);
	}
}

/* The best rail that works: the others wait until they are wanted. */
int rails_connect_first(struct peer *p, uint64_t deadline_ns)
{
	char tried[MC_WHY_MAX] = "";
	int r = mc_err(-EOPNOTSUPP, "%s: no transport is allowed", p->at.name);

	for (int i = 0; i < p->n_rails; i++) {
		size_t n = strlen(tried);

		r = rail_connect_now(p->rails[i], deadline_ns);
		if (!r)
			return 0;
		snprintf(tried + n, sizeof(tried) - n, "%s%s: %.100s",
			 n ? "; " : "", p->rails[i]->t->name, mc_errmsg());
		if (r == -EACCES)
			break;
	}
	return mc_err(r, "no rail to %s (%s)", p->at.name, tried);
}

static void rails_fail(struct peer *p, bool copies_only, const char *why)
{
	for (int i = 0; i < p->n_rails; i++) {
		struct rail *r = p->rails[i];

		if (copies_only && !rail_copies(r))
			continue;
		for (;;) {
			struct epath *ep;

			pthread_mutex_lock(&p->lock);
			ep = r->n_paths ? r->paths[0] : NULL;
			if (ep)
				ep->refs++;
			pthread_mutex_unlock(&p->lock);
			if (!ep)
				break;
			path_fail(ep, why);
			path_put(ep);
		}
	}
}

void rails_lost_local(struct peer *p)
{
	rails_fail(p, true, "the peer's process has ended");
}

/* The peer was restarted: nothing that was known of its rails holds. */
void rails_reset(struct peer *p)
{
	rails_fail(p, false, "the peer was restarted");
	pthread_mutex_lock(&p->lock);
	for (int i = 0; i < p->n_rails; i++) {
		/* One may have been made for the new epoch already. */
		if (!p->rails[i]->n_paths)
			p->rails[i]->state = MC_RAIL_NEW;
		p->rails[i]->backoff_ns = p->rails[i]->wish_ns = 0;
	}
	pthread_mutex_unlock(&p->lock);
}

/* Nothing is in flight, and nothing new is begun. Waits for tasks that still
 * know the peer; false: one of them has made a path meanwhile. */
bool rails_end(struct peer *p)
{
	bool any = false;

	pthread_mutex_lock(&p->lock);
	p->closing = true;
	pthread_mutex_unlock(&p->lock);
	rails_fail(p, false, "the segment was closed");
	spray_pump(p, NULL);
	while (__atomic_load_n(&p->tasks, __ATOMIC_ACQUIRE) ||
	       __atomic_load_n(&p->batches, __ATOMIC_ACQUIRE))
		usleep(RAIL_LOOK_US);
	pthread_mutex_lock(&p->lock);
	for (int i = 0; i < p->n_rails; i++)
		any |= p->rails[i]->n_paths;
	pthread_mutex_unlock(&p->lock);
	return !any;
}

void rails_free(struct peer *p)
{
	for (int i = 0; i < p->n_rails; i++)
		free(p->rails[i]);
}

/* ---- for users ------------------------------------------------------ */

/* Figures that other threads count on meanwhile. */
static uint64_t rail_figure(const uint64_t *n)
{
	return __atomic_load_n(n, __ATOMIC_RELAXED);
}

/* Under the peer's lock. */
static void rail_info(struct rail *r, struct mc_rail_info *out)
{
	*out = (struct mc_rail_info){
		.state = r->state, .segment = r->peer->id,
		.bytes_read = rail_figure(&r->bytes[MC_READ]),
		.bytes_written = rail_figure(&r->bytes[MC_WRITE]),
		.slices = rail_figure(&r->slices),
		.notes = rail_figure(&r->notes),
		.errors = rail_figure(&r->errors),
		.local_errors = rail_figure(&r->local_errors),
		.connects = rail_figure(&r->connects),
		.inflight = rail_figure(&r->inflight),
		.bw = rail_figure(&r->bw),
		.latency_us = rail_figure(&r->latency_ns) / 1e3,
	};
	for (int i = 0; i < MC_HIST_BUCKETS; i++)
		out->hist[i] = rail_figure(&r->hist[i]);
	mc_copy(out->peer, r->peer->at.name);
	mc_copy(out->transport, r->t->name);
	mc_copy(out->local_dev, r->local_dev);
	mc_copy(out->remote_dev,
		r->remote_dev[0] && !rail_copies(r) ? r->remote_dev :
		r->remote_addr[0] ? r->remote_addr : r->peer->at.addr);
	mc_copy(out->why, r->why);
}

/* Those that are up, or those that are not. Under the peer's lock. */
static int rails_info(struct peer *p, bool up, int *skip,
		      struct mc_rail_info *out, int n, int max)
{
	for (int i = 0; i < p->n_rails && n < max; i++)
		if ((p->rails[i]->state == MC_RAIL_UP) == up && (*skip)-- <= 0)
			rail_info(p->rails[i], &out[n++]);
	return n;
}

int mc_rail_list(struct mc_engine *e, int skip, struct mc_rail_info *out,
		 int max)
{
	int n = 0, r = engine_check(e);

	if (r < 0)
		return r;
	pthread_mutex_lock(&e->peer_lock);
	for (int i = 0; i < e->n_peers; i++) {
		struct peer *p = e->peers[i];

		if (!p)
			continue;
		pthread_mutex_lock(&p->lock);
		n = rails_info(p, true, &skip, out, n, max);
		n = rails_info(p, false, &skip, out, n, max);
		pthread_mutex_unlock(&p->lock);
	}
	pthread_mutex_unlock(&e->peer_lock);
	return n;
}
