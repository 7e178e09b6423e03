/*
 * spray.c - the sprayer: which slice goes on which rail, and when.
 *
 * A slice goes to the rail that is predicted to finish it first:
 *
 *	(bytes in flight on the rail + its own) / bandwidth + latency
 *
 * with bandwidth and latency as moving averages of what the rail did. A rail
 * whose device is the second choice for the memory counts as slower, and so it
 * does by its device at the peer: bytes are better off not crossing between
 * sockets. Rails that failed this slice
 * before come last, rails whose windows are full are not asked, and what finds
 * no rail waits: that is the back-pressure.
 *
 * A rail that copies (this process's memory, or a peer of this host) takes all
 * while it works: the others would compete with it for the same memory bus.
 */
#include "engine.h"

enum {
	SPRAY_WINDOW = 16 << 20,	/* bytes in flight on a path */
	SPRAY_INLINE = 256 << 10,	/* copied by the submitting thread */
};

static bool spray_is_far(const struct rail *r, const struct slice *s)
{
	return !(s->near >> r->index & 1);
}

/* The same of the peer's device and the memory there. */
static bool spray_ends_far(const struct epath *ep, const struct slice *s)
{
	return s->place >= 0 && !(ep->near >> s->place & 1);
}

/* Of those with room the nearest, then the least busy. */
static struct epath *spray_path(const struct rail *r, const struct slice *s)
{
	uint64_t least = 2 * SPRAY_WINDOW;
	struct epath *best = NULL;

	for (int i = 0; i < r->n_paths; i++) {
		struct epath *ep = r->paths[i];
		uint64_t n = __atomic_load_n(&ep->inflight_bytes,
					     __ATOMIC_RELAXED);

		if (n >= SPRAY_WINDOW)
			continue;
		if (spray_ends_far(ep, s))
			n += SPRAY_WINDOW;
		if (n < least) {
			best = ep;
			least = n;
		}
	}
	return best;
}

static double spray_finish(const struct epath *ep, const struct slice *s)
{
	const struct rail *r = ep->rail;
	double weight = s->batch->weighted ? s->batch->weights[r->id] : 1;
	uint64_t bw = __atomic_load_n(&r->bw, __ATOMIC_RELAXED);
	uint64_t inflight = __atomic_load_n(&r->inflight, __ATOMIC_RELAXED);
	double t = (inflight + s->s.len) * 1e9 / (bw ? bw : 1);

	t += __atomic_load_n(&r->latency_ns, __ATOMIC_RELAXED) / 8;
	/* Twice as slow: averages of equals that take turns to be idle differ
	 * by less. */
	if (spray_is_far(r, s))
		t *= 2;
	if (spray_ends_far(ep, s))
		t *= 2;
	/* A rail that failed it once is for when there is no other. */
	if (s->tried & 1u << r->index)
		t += 1e12;
	return weight > 0 ? t / weight : 1e15;
}

/* Does it reach the memory at both ends? */
static bool spray_reaches_memory(const struct rail *r, const struct slice *s)
{
	return !(s->gpu && !r->t->gpu) && !(rail_copies(r) && s->no_copy);
}

/* One of weight 0 is for when there is no other. */
static bool spray_weighs(const struct rail *r, const struct slice *s)
{
	return !s->batch->weighted || s->batch->weights[r->id] > 0;
}

/* Is one that weighs something full, or still to be tried? */
static bool spray_patient(struct peer *p, const struct slice *s)
{
	for (int i = 0; i < p->n_rails; i++) {
		struct rail *r = p->rails[i];

		if (spray_weighs(r, s) && spray_reaches_memory(r, s) &&
		    (r->state == MC_RAIL_NEW || r->connecting ||
		     (r->state == MC_RAIL_UP && r->n_paths)))
			return true;
	}
	return false;
}

static struct epath *spray_best(struct peer *p, const struct slice *s,
				bool weighs)
{
	struct epath *best = NULL;
	double first = 0;

	for (int i = 0; i < p->n_rails; i++) {
		struct rail *r = p->rails[i];
		struct epath *ep;
		double t;

		if (r->state != MC_RAIL_UP || !spray_reaches_memory(r, s) ||
		    spray_weighs(r, s) != weighs)
			continue;
		ep = rail_copies(r) ? (r->n_paths ? r->paths[0] : NULL) :
		     spray_path(r, s);
		if (!ep)
			continue;
		if (rail_copies(r) && !(s->tried & 1u << r->index) && weighs)
			return ep;
		t = spray_finish(ep, s);
		if (!best || t < first) {
			best = ep;
			first = t;
		}
	}
	return best;
}

/* Under the peer's lock; NULL: none has room now. */
static struct epath *spray_choose(struct peer *p, const struct slice *s)
{
	struct epath *best = spray_best(p, s, true);

	if (best || !s->batch->weighted || spray_patient(p, s))
		return best;
	return spray_best(p, s, false);
}

/* At which of its places a new path of @r is to end. One that begins far goes
 * where the peer likes: were all to end at the same device, it would be their
 * bottleneck. */
static int spray_place(const struct rail *r, const struct slice *s)
{
	return spray_is_far(r, s) ? -1 : s->place;
}

/* Rails that are not up and could help: those never tried if none is up, those
 * set aside when their time has come. */
static void spray_want(struct peer *p, const struct slice *s)
{
	uint64_t now = mc_clock_ns();

	for (int i = 0; i < p->n_rails; i++)
		if (spray_reaches_memory(p->rails[i], s) &&
		    rail_wanted(p->rails[i], now))
			rail_connect(p->rails[i],
				     spray_place(p->rails[i], s));
}

/* Would @r, which is not up, help that at hand? One of its kind does if more
 * slices wait than this one, or it is nearer; one that comes before it, in any
 * case. */
static bool spray_helps(const struct rail *r, const struct rail *like,
			const struct slice *s)
{
	if (r->t != like->t)
		return r->index < like->index;
	return s->next || (spray_is_far(like, s) && !spray_is_far(r, s));
}

static bool spray_reaches(const struct rail *r, const struct slice *s)
{
	for (int i = 0; i < r->n_paths; i++)
		if (!spray_ends_far(r->paths[i], s))
			return true;
	return false;
}

/* It begins near, and is idle all the same: it was slow, or late, once. Each
 * time that it is passed over it is believed to be a little better, up to
 * @like, so that it is tried again. */
static void spray_trust(struct rail *r, const struct rail *like)
{
	uint64_t bw = __atomic_load_n(&r->bw, __ATOMIC_RELAXED);
	uint64_t late = __atomic_load_n(&r->latency_ns, __ATOMIC_RELAXED);

	if (__atomic_load_n(&r->inflight, __ATOMIC_RELAXED))
		return;
	if (bw < __atomic_load_n(&like->bw, __ATOMIC_RELAXED))
		__atomic_store_n(&r->bw, bw + bw / 32, __ATOMIC_RELAXED);
	if (late > __atomic_load_n(&like->latency_ns, __ATOMIC_RELAXED))
		__atomic_store_n(&r->latency_ns, late - late / 32,
				 __ATOMIC_RELAXED);
}

/* The path at hand is far from the memory at one end: rails that begin near it
 * get a path that ends near it. */
static void spray_want_nearer(struct peer *p, const struct epath *ep,
			      const struct slice *s)
{
	for (int i = 0; i < p->n_rails; i++) {
		struct rail *r = p->rails[i];

		if (r->t != ep->rail->t || r->state != MC_RAIL_UP ||
		    spray_is_far(r, s))
			continue;
		spray_trust(r, ep->rail);
		if (!spray_reaches(r, s))
			rail_wish(r, s->place);
	}
}

/* Those that were never tried, or whose time has come again. */
static void spray_want_more(struct peer *p, const struct epath *ep,
			    const struct slice *s)
{
	if (spray_is_far(ep->rail, s) || spray_ends_far(ep, s))
		spray_want_nearer(p, ep, s);
	for (int i = 0; i < p->n_rails; i++) {
		struct rail *r = p->rails[i];

		if (r->state != MC_RAIL_UP && spray_helps(r, ep->rail, s) &&
		    rail_wanted(r, mc_clock_ns()))
			rail_connect(r, spray_place(r, s));
	}
}

/* ---- posting -------------------------------------------------------- */

static int spray_copy_now(struct slice *s)
{
	struct epath *ep = s->on;
	struct rail *r = ep->rail;
	uint64_t start = mc_clock_ns(), now;
	int err = r->t->copy(ep->p, s->s.op, s->s.pieces, s->s.n);

	if (err)
		return err;
	now = mc_clock_ns();
	rail_sample(r, s->s.op, s->s.len, now - start);
	__atomic_store_n(&s->peer->moved_ns, now, __ATOMIC_RELAXED);
	return 0;
}

/* What a failed copy means for the rail: nothing if it was these pieces. */
static void spray_copy_failed(struct slice *s, int err)
{
	struct epath *ep = s->on;

	if (err == -EOPNOTSUPP)
		s->no_copy = true;
	else if (err == -EHOSTDOWN)
		path_fail(ep, mc_errmsg());
}

static void spray_copy(struct slice *s)
{
	struct epath *ep = s->on;
	int err = batch_expired(s->batch);

	if (err)
		mc_err(err, "not begun in time");
	else
		err = spray_copy_now(s);
	__atomic_sub_fetch(&ep->rail->inflight, s->s.len, __ATOMIC_RELAXED);
	s->s.err = err;
	s->why[0] = 0;
	if (err) {
		mc_copy(s->why, mc_errmsg());
		spray_copy_failed(s, err);
	}
	/* What is stale is asked for anew, which may take a while: not here. */
	drive_end_slice(s);
	path_put(ep);
}

static void spray_copy_task(void *arg)
{
	struct slice *s = arg;
	struct peer *p = s->peer;

	spray_copy(s);
	if (__atomic_load_n(&p->n_pending, __ATOMIC_ACQUIRE))
		spray_pump(p, NULL);
	__atomic_sub_fetch(&p->tasks, 1, __ATOMIC_ACQ_REL);
}

static bool spray_inline(const struct slice *s, const struct batch *self)
{
	return s->batch == self ||
	       (!s->batch->workers_only && s->s.len <= SPRAY_INLINE);
}

static void spray_post_copy(struct slice *s, struct batch *self)
{
	if (!spray_inline(s, self)) {
		__atomic_add_fetch(&s->peer->tasks, 1, __ATOMIC_ACQ_REL);
		if (!mc_tasks_run(&s->peer->e->slow, spray_copy_task, s))
			return;
		__atomic_sub_fetch(&s->peer->tasks, 1, __ATOMIC_ACQ_REL);
	}
	spray_copy(s);
}

/* Its thread sleeps on other paths: have it look again. If the batch has ended
 * meanwhile, whoever has it now looks once too often. */
static void spray_wake(struct batch *b)
{
	pthread_mutex_lock(&b->lock);
	batch_wake(b);
	pthread_mutex_unlock(&b->lock);
}

static bool path_is_dead(struct epath *ep)
{
	bool dead;

	pthread_mutex_lock(&ep->rail->peer->lock);
	dead = ep->dead;
	pthread_mutex_unlock(&ep->rail->peer->lock);
	return dead;
}

/* Under no lock; the caller has a reference to the path. False: the path has
 * failed, and has not taken it. */
static bool spray_post(struct slice *s, struct batch *self)
{
	struct epath *ep = s->on;
	struct mc_slice *one = &s->s;
	struct batch *b = s->batch;
	bool async = b->async, taken;

	/* One that is being given up may be locked for long. */
	if (path_is_dead(ep)) {
		__atomic_sub_fetch(&ep->rail->inflight, s->s.len,
				   __ATOMIC_RELAXED);
		return false;
	}
	pthread_mutex_lock(&ep->p->lock);
	taken = !ep->p->err && !ep->gone;
	if (taken) {
		s->s.posted_ns = mc_clock_ns();
		if (!ep->inflight_bytes)
			ep->seen_ns = s->s.posted_ns;
		s->prev = NULL;
		s->next = ep->inflight;
		if (s->next)
			s->next->prev = s;
		ep->inflight = s;
		__atomic_add_fetch(&ep->inflight_bytes, s->s.len,
				   __ATOMIC_RELAXED);
		ep->rail->t->post(ep->p, &one, 1);
	}
	pthread_mutex_unlock(&ep->p->lock);
	if (!taken) {
		__atomic_sub_fetch(&ep->rail->inflight, s->s.len,
				   __ATOMIC_RELAXED);
		path_fail(ep, "the connection was lost");
	} else if (async) {
		drive_arm(ep);
	} else if (b != self) {
		spray_wake(b);
	}
	return taken;
}

/* Under the peer's lock: the path that notifications go by, or NULL. */
static struct epath *spray_note_path(struct peer *p)
{
	struct epath *best = NULL;

	for (int i = 0; i < p->n_rails; i++) {
		struct rail *r = p->rails[i];

		if (r->state != MC_RAIL_UP || !r->n_paths ||
		    !r->paths[0]->p->notes)
			continue;
		if (!best || __atomic_load_n(&r->latency_ns, __ATOMIC_RELAXED) <
		    __atomic_load_n(&best->rail->latency_ns, __ATOMIC_RELAXED))
			best = r->paths[0];
	}
	return best;
}

/* Those set aside whose time has come. */
static void spray_want_again(struct peer *p)
{
	uint64_t now = mc_clock_ns();

	for (int i = 0; i < p->n_rails; i++)
		if (p->rails[i]->state == MC_RAIL_QUARANTINED &&
		    rail_wanted(p->rails[i], now))
			rail_connect(p->rails[i], -1);
}

bool spray_note(struct slice *s)
{
	struct peer *p = s->peer;
	bool taken = false;
	struct epath *ep;

	if (s->s.len > MC_NOTE_MAX)
		return false;
	pthread_mutex_lock(&p->lock);
	/* Once it is posted, its batch may end, which keeps the peer. */
	__atomic_add_fetch(&p->tasks, 1, __ATOMIC_ACQ_REL);
	ep = spray_note_path(p);
	if (ep)
		ep->refs++;
	else
		spray_want_again(p);
	pthread_mutex_unlock(&p->lock);
	if (ep) {
		s->on = ep;
		s->s.err = -EAGAIN;
		s->s.there = false;
		__atomic_add_fetch(&ep->rail->inflight, s->s.len,
				   __ATOMIC_RELAXED);
		taken = spray_post(s, NULL);
		path_put(ep);
	}
	__atomic_sub_fetch(&p->tasks, 1, __ATOMIC_ACQ_REL);
	return taken;
}

/* ---- the pump ------------------------------------------------------- */

static struct slice *spray_pop(struct peer *p)
{
	struct slice *s = p->pending;

	p->pending = s->next;
	if (!p->pending)
		p->pending_tail = &p->pending;
	__atomic_sub_fetch(&p->n_pending, 1, __ATOMIC_RELEASE);
	s->next = NULL;
	return s;
}

enum spray_fate {
	SPRAY_WAIT, SPRAY_POST, SPRAY_EXPIRED, SPRAY_STALE, SPRAY_HOPELESS,
	SPRAY_CLOSED,
};

/* Memory that no rail reaches, now or later. */
static bool spray_hopeless(struct peer *p, struct slice *s)
{
	if (!s->no_copy && !s->gpu)
		return false;
	for (int i = 0; i < p->n_rails; i++)
		if (spray_reaches_memory(p->rails[i], s) &&
		    p->rails[i]->state != MC_RAIL_ABSENT)
			return false;
	if (s->gpu)
		snprintf(s->why, sizeof(s->why), "memory of a GPU is moved by "
			 "rdma, and there is none between here and there");
	return true;
}

/* Under the peer's lock: what becomes of the first pending slice? */
static enum spray_fate spray_next(struct peer *p, struct slice **out)
{
	struct slice *s = p->pending;
	struct epath *ep;

	if (!s)
		return SPRAY_WAIT;
	if (batch_expired(s->batch)) {
		*out = spray_pop(p);
		return SPRAY_EXPIRED;
	}
	if (p->closing) {
		*out = spray_pop(p);
		return SPRAY_CLOSED;
	}
	/* Restarted, and not asked yet: whoever connects asks. */
	if (!p->at.epoch) {
		spray_want(p, s);
		return SPRAY_WAIT;
	}
	if (s->epoch != p->at.epoch) {
		*out = spray_pop(p);
		return SPRAY_STALE;
	}
	if (spray_hopeless(p, s)) {
		*out = spray_pop(p);
		return SPRAY_HOPELESS;
	}
	ep = spray_choose(p, s);
	if (!ep) {
		spray_want(p, s);
		return SPRAY_WAIT;
	}
	spray_want_more(p, ep, s);
	*out = spray_pop(p);
	s->on = ep;
	ep->refs++;
	__atomic_add_fetch(&ep->rail->inflight, s->s.len, __ATOMIC_RELAXED);
	return SPRAY_POST;
}

/* Why it waited: the last error of the rails. */
static void spray_reason(struct peer *p, char *why)
{
	size_t n = 0;

	why[0] = 0;
	pthread_mutex_lock(&p->lock);
	for (int i = 0; i < p->n_rails && n < MC_WHY_MAX; i++)
		if (p->rails[i]->why[0] &&
		    p->rails[i]->state != MC_RAIL_ABSENT)
			n += snprintf(why + n, MC_WHY_MAX - n, "%s%s: %s",
				      n ? "; " : "", p->rails[i]->t->name,
				      p->rails[i]->why);
	pthread_mutex_unlock(&p->lock);
	if (!why[0])
		snprintf(why, MC_WHY_MAX, "nothing moved");
}

/* Take those out whose batch has expired, wherever they wait. */
static struct slice *spray_sift(struct peer *p)
{
	struct slice *out = NULL, **at = &p->pending;

	pthread_mutex_lock(&p->lock);
	while (*at) {
		struct slice *s = *at;

		if (!batch_expired(s->batch)) {
			at = &s->next;
			continue;
		}
		*at = s->next;
		__atomic_sub_fetch(&p->n_pending, 1, __ATOMIC_RELEASE);
		s->next = out;
		out = s;
	}
	p->pending_tail = at;
	pthread_mutex_unlock(&p->lock);
	return out;
}

static void spray_expire(struct peer *p)
{
	struct slice *s, *next;
	char why[MC_WHY_MAX];

	if (!__atomic_exchange_n(&p->sift, false, __ATOMIC_ACQ_REL))
		return;
	spray_reason(p, why);
	for (s = spray_sift(p); s; s = next) {
		next = s->next;
		slice_end(s, batch_expired(s->batch), why);
	}
}

void spray_pump(struct peer *p, struct batch *self)
{
	char why[MC_WHY_MAX];

	spray_expire(p);
	for (;;) {
		struct slice *s = NULL;
		struct epath *ep;
		enum spray_fate fate;

		pthread_mutex_lock(&p->lock);
		fate = spray_next(p, &s);
		pthread_mutex_unlock(&p->lock);
		if (fate == SPRAY_WAIT)
			return;
		if (fate == SPRAY_EXPIRED) {
			spray_reason(p, why);
			slice_end(s, batch_expired(s->batch), why);
			continue;
		}
		if (fate == SPRAY_CLOSED) {
			slice_end(s, -ESHUTDOWN, "the segment was closed");
			continue;
		}
		if (fate == SPRAY_HOPELESS) {
			s->hopeless = true;
			slice_end(s, -EOPNOTSUPP, s->why);
			continue;
		}
		if (fate == SPRAY_STALE) {
			snprintf(why, sizeof(why), "%s was restarted: its "
				 "addresses are no longer valid; those it has "
				 "now are known, submit again", p->at.name);
			slice_end(s, -ESTALE, why);
			continue;
		}
		ep = s->on;
		if (rail_copies(ep->rail)) {
			spray_post_copy(s, self);
			continue;
		}
		if (!spray_post(s, self))
			slice_requeue(s);
		path_put(ep);
	}
}
