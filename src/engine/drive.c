/*
 * drive.c - progress: whoever waits drives the paths of its batch itself, and a
 * worker those of batches nobody waits for. Also deadlines, and paths that
 * have stopped moving.
 */
#include "engine.h"

#include <poll.h>
#include <sys/epoll.h>
#include <unistd.h>

enum {
	DRIVE_SLICES = 64,
	DRIVE_PATHS = 32,		/* looked at in one go */
	DRIVE_CANCEL_MS = 30,		/* for a cancelled slice to end by
					 * itself */
};

/* ---- one path ------------------------------------------------------- */

static void drive_unlink(struct epath *ep, struct slice *s)
{
	if (s->prev)
		s->prev->next = s->next;
	else
		ep->inflight = s->next;
	if (s->next)
		s->next->prev = s->prev;
	__atomic_sub_fetch(&ep->inflight_bytes, s->s.len, __ATOMIC_RELAXED);
}

static void drive_sample(struct epath *ep, struct slice *s, uint64_t now)
{
	struct rail *r = ep->rail;
	uint64_t from = mc_max(s->s.posted_ns, ep->done_ns);
	uint64_t bw, old;

	__atomic_sub_fetch(&r->inflight, s->s.len, __ATOMIC_RELAXED);
	if (s->s.err)
		return;
	if (s->s.op == MC_NOTE) {
		count(&r->notes, 1);
		return;
	}
	rail_sample(r, s->s.op, s->s.len, now - s->s.posted_ns);
	if (s->s.len < 64 << 10 || now <= from)
		return;
	/* A path's share of the rail's bandwidth, times its paths. */
	bw = s->s.len * 1000000000ull / (now - from) *
	     mc_max(__atomic_load_n(&r->n_paths, __ATOMIC_RELAXED), 1);
	old = __atomic_load_n(&r->bw, __ATOMIC_RELAXED);
	__atomic_store_n(&r->bw, old - old / 8 + bw / 8, __ATOMIC_RELAXED);
	ep->done_ns = now;
	ep->done_posted_ns = s->s.posted_ns;
}

/* Nothing has moved for too long with something in flight; or what was posted
 * later has long ended, so that this one is lost. A thread of the peer's may
 * take its time. Under the path's lock. */
static const char *drive_stalled(struct epath *ep, uint64_t now)
{
	const uint64_t stall = ENGINE_STALL_MS * (uint64_t)MC_MS;
	struct slice *oldest = NULL;

	for (struct slice *s = ep->inflight; s; s = s->next)
		if (!s->s.there)
			oldest = s;
	if (!oldest)
		return NULL;
	if (now > mc_max(ep->seen_ns, oldest->s.posted_ns) + stall)
		return "nothing moved: the peer is frozen or unreachable";
	if (oldest->s.posted_ns + stall < ep->done_posted_ns)
		return "a slice was lost";
	return NULL;
}

/* A peer's buffer may have been registered again: the slice is looked up anew,
 * once. 0: it is worth another try; else what is wrong with it, with a message
 * unless it is what was wrong before. */
int slice_refresh(struct slice *s)
{
	unsigned need = s->s.op == MC_READ ? MC_REMOTE_READ : MC_REMOTE_WRITE;
	uint64_t hint = 0;
	struct desc *d;
	int r = 0;

	if (s->refreshed ||
	    peer_refresh(s->peer, mc_clock_ns() + 500ull * MC_MS) < 0)
		return -ESTALE;
	s->refreshed = true;
	d = desc_get(s->peer);
	if (!d || d->epoch != s->epoch)
		r = -ESTALE;
	for (uint32_t i = 0; !r && i < s->s.n; i++) {
		struct mc_piece *p = &s->s.pieces[i];
		const struct mc_buffer_info *b;

		b = desc_find(d, p->remote, p->len, &hint);
		if (!b)
			r = -ESTALE;
		else if (!(b->access & need))
			r = mc_err(-EACCES, "the buffer at %#llx of %s may no "
				   "longer be %s", (long long)b->addr,
				   s->peer->at.name, s->s.op == MC_READ ?
				   "read" : "written");
		else
			p->id = b->id;
	}
	desc_put(d);
	return r;
}

static void drive_refresh_task(void *arg)
{
	struct slice *s = arg;
	struct peer *p = s->peer;
	struct epath *on = s->on;
	char why[MC_WHY_MAX];
	int r = slice_refresh(s);

	if (!r) {
		slice_requeue(s);
		spray_pump(p, NULL);
	} else {
		mc_copy(why, r == -ESTALE ? s->why : mc_errmsg());
		slice_end(s, r, why);
	}
	path_put(on);
	__atomic_sub_fetch(&p->tasks, 1, __ATOMIC_ACQ_REL);
}

void drive_end_slice(struct slice *s)
{
	struct peer *p = s->peer;
	struct epath *on = s->on;

	if (s->s.err == -ESTALE && !s->refreshed) {
		/* The path may end meanwhile, and is named if that fails. */
		pthread_mutex_lock(&p->lock);
		on->refs++;
		pthread_mutex_unlock(&p->lock);
		__atomic_add_fetch(&p->tasks, 1, __ATOMIC_ACQ_REL);
		if (!mc_tasks_run(&p->e->tasks, drive_refresh_task, s))
			return;
		path_put(on);
		__atomic_sub_fetch(&p->tasks, 1, __ATOMIC_ACQ_REL);
	}
	slice_end(s, s->s.err, s->why);
}

/* Whoever has the lock is driving the path, but for one that posts: then who
 * leads comes next, as looking again at once would find the same. The lock may
 * be held for long while a path is given up, so not for ever. */
static bool drive_lock(struct epath *ep, bool leads)
{
	if (!pthread_mutex_trylock(&ep->p->lock))
		return true;
	if (!leads || __atomic_load_n(&ep->p->err, __ATOMIC_ACQUIRE))
		return false;
	return mc_clock_lock(&ep->p->lock, mc_clock_ns() +
			     ENGINE_TICK_MS * (uint64_t)MC_MS);
}

bool drive_path(struct epath *ep, short *events)
{
	struct mc_slice *out[DRIVE_SLICES];
	struct peer *p = ep->rail->peer;
	const char *why = NULL;
	char text[MC_WHY_MAX];
	uint64_t now;
	int n, err;

	if (!drive_lock(ep, events))
		return false;
	n = ep->gone ? 0 : ep->rail->t->poll(ep->p, out, DRIVE_SLICES);
	/* What is looked at over and over is not to cost two looks. */
	now = n ? mc_clock_ns() : mc_clock_tick_ns();
	for (int i = 0; i < n; i++) {
		struct slice *s = mc_container_of(out[i], struct slice, s);

		drive_unlink(ep, s);
		drive_sample(ep, s, now);
	}
	if (n || ep->p->progress != ep->seen_progress) {
		ep->seen_progress = ep->p->progress;
		ep->seen_ns = now;
		__atomic_store_n(&p->moved_ns, now, __ATOMIC_RELAXED);
	}
	why = drive_stalled(ep, now);
	err = ep->gone ? 0 : ep->p->err;
	if (err == -ESTALE)
		__atomic_store_n(&ep->innocent, true, __ATOMIC_RELEASE);
	if (err && !why) {
		mc_copy(text, ep->p->why);
		why = text;
	}
	if (events)
		*events = ep->p->events;
	pthread_mutex_unlock(&ep->p->lock);
	for (int i = 0; i < n; i++)
		drive_end_slice(mc_container_of(out[i], struct slice, s));
	if (why)
		path_fail(ep, why);
	return n;
}

/* ---- the worker ----------------------------------------------------- */

void drive_arm(struct epath *ep)
{
	uint32_t events = EPOLLRDHUP | EPOLLONESHOT;

	pthread_mutex_lock(&ep->p->lock);
	if (ep->inflight)
		events |= EPOLLIN;
	if (ep->p->events & POLLOUT)
		events |= EPOLLOUT;
	if (ep->loop && !ep->gone)
		mc_loop_arm(ep->loop, &ep->ev, events);
	pthread_mutex_unlock(&ep->p->lock);
}

/* On a worker. The path cannot go away meanwhile: before it ends, it is taken
 * out of the loop, and the loop's round is waited for. */
void drive_on_event(struct mc_event *ev, uint32_t events)
{
	struct epath *ep = mc_container_of(ev, struct epath, ev);
	bool ended = events & (EPOLLERR | EPOLLHUP | EPOLLRDHUP);
	struct peer *p = ep->rail->peer;
	short wanted;

	/* What it said before it hung up is heard. */
	drive_path(ep, ended ? &wanted : NULL);
	if (ended)
		path_fail(ep, "closed by the peer");
	else
		drive_arm(ep);
	if (__atomic_load_n(&p->n_pending, __ATOMIC_ACQUIRE))
		spray_pump(p, NULL);
}

/* ---- deadlines ------------------------------------------------------ */

/* The paths that have slices of the batch in flight, with a reference. */
static int drive_holders(struct batch *b, struct peer *p, struct epath **out,
			 int max)
{
	int n = 0;

	pthread_mutex_lock(&p->lock);
	for (int i = 0; i < p->n_rails; i++)
		for (int k = 0; k < p->rails[i]->n_paths && n < max; k++) {
			struct epath *ep = p->rails[i]->paths[k];
			struct slice *s;

			if (rail_copies(ep->rail))
				continue;
			pthread_mutex_lock(&ep->p->lock);
			for (s = ep->inflight; s && s->batch != b; s = s->next)
				;
			pthread_mutex_unlock(&ep->p->lock);
			if (!s)
				continue;
			ep->refs++;
			out[n++] = ep;
		}
	pthread_mutex_unlock(&p->lock);
	return n;
}

static void drive_give_up(struct batch *b, struct epath *ep, uint64_t now)
{
	char why[MC_WHY_MAX] = "a batch was cancelled";
	uint64_t seen;

	pthread_mutex_lock(&ep->p->lock);
	seen = ep->seen_ns;
	pthread_mutex_unlock(&ep->p->lock);
	if (batch_expired(b) != -ECANCELED)
		snprintf(why, sizeof(why), "not done in time, %d ms after "
			 "anything moved", (int)((now - seen) / MC_MS));
	/* What others had in flight there is not held against it. */
	__atomic_store_n(&ep->innocent, true, __ATOMIC_RELEASE);
	path_fail(ep, why);
}

/* Expired, and its slices did not end by themselves: their paths are given up.
 * Slices of others on them are tried again elsewhere. */
static void drive_quiesce(struct batch *b, uint64_t now)
{
	struct epath *eps[DRIVE_PATHS];
	struct peer *last = NULL;

	for (uint32_t i = 0; i < b->n_slices; i++) {
		struct peer *p = b->slices[i].peer;
		int n;

		if (p == last)
			continue;
		last = p;
		n = drive_holders(b, p, eps, DRIVE_PATHS);
		while (n--) {
			drive_give_up(b, eps[n], now);
			path_put(eps[n]);
		}
	}
}

static int drive_expiry(struct batch *b, uint64_t now)
{
	uint64_t moved = b->progress_ns;
	struct peer *last = NULL;

	if (b->canceled)
		return -ECANCELED;
	if (b->deadline_ns)
		return now >= b->deadline_ns ? -ETIMEDOUT : 0;
	if (b->beginning)
		return 0;
	for (uint32_t i = 0; i < b->n_slices; i++)
		if (b->slices[i].peer != last) {
			last = b->slices[i].peer;
			moved = mc_max(moved, __atomic_load_n(&last->moved_ns,
							__ATOMIC_RELAXED));
		}
	return now > moved + ENGINE_QUIET_MS * (uint64_t)MC_MS ?
	       -ETIMEDOUT : 0;
}

void drive_pump_all(struct batch *b, struct batch *self)
{
	struct peer *last = NULL;

	for (uint32_t i = 0; i < b->n_slices; i++)
		if (b->slices[i].peer != last) {
			last = b->slices[i].peer;
			if (__atomic_load_n(&last->n_pending, __ATOMIC_ACQUIRE))
				spray_pump(last, self);
		}
}

/* Drive stalled paths too, so that they are noticed. */
static void drive_look(struct batch *b)
{
	struct epath *eps[DRIVE_PATHS];
	struct peer *last = NULL;

	for (uint32_t i = 0; i < b->n_slices; i++) {
		int n;

		if (b->slices[i].peer == last)
			continue;
		last = b->slices[i].peer;
		n = drive_holders(b, last, eps, DRIVE_PATHS);
		while (n--) {
			drive_path(eps[n], NULL);
			path_put(eps[n]);
		}
	}
}

/* Its pending slices shall end though others before them wait for a rail. */
static void drive_sift(struct batch *b)
{
	for (uint32_t i = 0; i < b->n_slices; i++)
		__atomic_store_n(&b->slices[i].peer->sift, true,
				 __ATOMIC_RELEASE);
}

/* The caller has a reference to the batch. */
void batch_check(struct batch *b, uint64_t now)
{
	bool due = false;
	int expired;

	pthread_mutex_lock(&b->lock);
	if (batch_ended(b)) {
		pthread_mutex_unlock(&b->lock);
		return;
	}
	batch_enter(b);
	expired = b->expired ? b->expired : drive_expiry(b, now);
	if (expired && !b->expired) {
		__atomic_store_n(&b->expired, expired, __ATOMIC_RELEASE);
		b->quiesce_ns = now + (expired == -ECANCELED ?
				DRIVE_CANCEL_MS * (uint64_t)MC_MS : 0);
	}
	if (expired && now >= b->quiesce_ns) {
		due = true;
		b->quiesce_ns = now + 100 * (uint64_t)MC_MS;
	}
	pthread_mutex_unlock(&b->lock);
	if (due)
		drive_quiesce(b, now);
	else
		drive_look(b);
	if (expired)
		drive_sift(b);
	drive_pump_all(b, NULL);
	batch_leave(b);
}

/* All active batches, each with a reference, and how many. */
static struct batch **drive_active(struct mc_engine *e, int *n)
{
	struct batch **all, *b;
	int max = 0;

	*n = 0;
	pthread_mutex_lock(&e->batch_lock);
	for (b = e->active; b; b = b->next)
		max++;
	all = max ? malloc(max * sizeof(*all)) : NULL;
	for (b = e->active; b && all; b = b->next) {
		b->refs++;
		all[(*n)++] = b;
	}
	e->ticking = max;
	if (max)
		mc_loop_timer(&e->loops[0], ENGINE_TICK_MS * (uint64_t)MC_MS);
	pthread_mutex_unlock(&e->batch_lock);
	return all;
}

/* Every tick while batches of mc_submit() are active. */
void drive_tick(void *arg)
{
	uint64_t now = mc_clock_ns();
	int n;
	struct batch **all = drive_active(arg, &n);

	while (n--) {
		batch_check(all[n], now);
		batch_put(all[n]);
	}
	free(all);
}
