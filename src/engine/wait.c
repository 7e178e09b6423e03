/*
 * wait.c - a thread that waits for a batch does its work meanwhile.
 *
 * Of the threads that wait for slices on one path, one leads: it sleeps on the
 * path's descriptor and drives it, for itself and for the others, who sleep
 * until they are woken (leader and follower). When its own batch has ended, it
 * wakes one of those whose slices are still in flight, to lead next.
 */
#include "engine.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* ---- who waits ------------------------------------------------------ */

static struct waiter *waiter_get(struct mc_engine *e)
{
	struct waiter *w;

	pthread_mutex_lock(&e->batch_lock);
	w = e->waiters;
	if (w)
		e->waiters = w->next;
	pthread_mutex_unlock(&e->batch_lock);
	if (w)
		return w;
	w = calloc(1, sizeof(*w));
	if (!w)
		return NULL;
	w->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (w->fd < 0) {
		free(w);
		return NULL;
	}
	return w;
}

static void waiter_put(struct mc_engine *e, struct waiter *w)
{
	if (w->fd < 0)
		return;
	pthread_mutex_lock(&e->batch_lock);
	w->next = e->waiters;
	e->waiters = w;
	pthread_mutex_unlock(&e->batch_lock);
}

/* False: there is nothing to wait for any more. */
static bool waiter_add(struct batch *b, struct waiter *w)
{
	bool ended;

	w->thread = pthread_self();
	w->woken = false;
	w->n_led = 0;
	pthread_mutex_lock(&b->lock);
	ended = batch_ended(b);
	if (!ended) {
		batch_enter(b);
		w->next = b->waiters;
		b->waiters = w;
	}
	pthread_mutex_unlock(&b->lock);
	return !ended;
}

/* Under the lock under which it is woken, so that no waking is lost. */
static void waiter_hush(struct batch *b, struct waiter *w)
{
	uint64_t n;

	pthread_mutex_lock(&b->lock);
	if (w->woken && read(w->fd, &n, sizeof(n)) > 0)
		w->woken = false;
	pthread_mutex_unlock(&b->lock);
}

static void waiter_del(struct batch *b, struct waiter *w)
{
	struct waiter **at = &b->waiters;

	/* It goes back to the pool silent. */
	pthread_mutex_lock(&b->lock);
	while (*at != w)
		at = &(*at)->next;
	*at = w->next;
	pthread_mutex_unlock(&b->lock);
	waiter_hush(b, w);
}

/* ---- who leads ------------------------------------------------------ */

static bool wait_leads(struct epath *ep, struct waiter *w)
{
	struct waiter *nobody = NULL;

	/* Pairs with the release in wait_resign(). */
	return __atomic_compare_exchange_n(&ep->leader, &nobody, w, false,
					   __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
}

/* Lead the paths of the peer that have something in flight and no leader. */
static void wait_lead_peer(struct waiter *w, struct peer *p)
{
	pthread_mutex_lock(&p->lock);
	for (int k = 0; k < p->n_rails; k++)
		for (int j = 0; j < p->rails[k]->n_paths; j++) {
			struct epath *ep = p->rails[k]->paths[j];

			if (w->n_led == WAIT_PATHS || rail_copies(ep->rail) ||
			    !__atomic_load_n(&ep->inflight_bytes,
					     __ATOMIC_RELAXED) ||
			    !wait_leads(ep, w))
				continue;
			ep->refs++;
			w->led[w->n_led++] = ep;
		}
	pthread_mutex_unlock(&p->lock);
}

static void wait_lead(struct batch *b, struct waiter *w)
{
	struct peer *last = NULL;

	for (uint32_t i = 0; i < b->n_slices; i++)
		if (b->slices[i].peer != last) {
			last = b->slices[i].peer;
			wait_lead_peer(w, last);
		}
}

/* A batch that waits for slices on the path, other than our own. */
static struct batch *wait_heir(struct epath *ep, const struct batch *b)
{
	struct batch *heir = NULL;

	pthread_mutex_lock(&ep->p->lock);
	for (struct slice *s = ep->inflight; s && !heir; s = s->next)
		if (s->batch != b && !s->batch->async)
			heir = s->batch;
	pthread_mutex_unlock(&ep->p->lock);
	return heir;
}

/* Lead no more. Who finds the path led by us has posted before, and is found
 * by us; who posts later finds it free: the path's lock orders the two. */
static void wait_resign(struct batch *b, struct epath *ep)
{
	struct batch *heir;

	__atomic_store_n(&ep->leader, NULL, __ATOMIC_RELEASE);
	heir = wait_heir(ep, b);
	if (heir) {
		pthread_mutex_lock(&heir->lock);
		batch_wake(heir);
		pthread_mutex_unlock(&heir->lock);
	}
	path_put(ep);
}

static void wait_resign_all(struct batch *b, struct waiter *w)
{
	while (w->n_led)
		wait_resign(b, w->led[--w->n_led]);
}

/* One that has been given up has no descriptor to sleep on any more. */
static void wait_bury(struct batch *b, struct waiter *w)
{
	for (int i = 0; i < w->n_led; i++)
		if (__atomic_load_n(&w->led[i]->p->err, __ATOMIC_ACQUIRE)) {
			struct epath *ep = w->led[i];

			drive_path(ep, NULL);
			w->led[i--] = w->led[--w->n_led];
			wait_resign(b, ep);
		}
}

/* ---- waiting -------------------------------------------------------- */

static bool wait_due(struct batch *b)
{
	if (!__atomic_exchange_n(&b->note_due, false, __ATOMIC_ACQ_REL))
		return false;
	batch_note(b);
	return true;
}

/* What the path waits for, if nobody else drives it. */
static void wait_events(struct epath *ep, short *events)
{
	if (pthread_mutex_trylock(&ep->p->lock))
		return;
	*events = ep->p->events;
	pthread_mutex_unlock(&ep->p->lock);
}

/* Sleep until a path, or another thread, has something to say. */
static void wait_sleep(struct batch *b, struct waiter *w, const short *events,
		       uint64_t until_ns)
{
	struct pollfd fds[WAIT_PATHS + 1];
	int ms = mc_clock_left_ms(until_ns, ENGINE_TICK_MS);
	int n = w->n_led;

	for (int i = 0; i < n; i++)
		fds[i] = (struct pollfd){ w->led[i]->ev.fd, events[i], 0 };
	fds[n] = (struct pollfd){ w->fd, POLLIN, 0 };
	poll(fds, n + 1, ms);
	if (fds[n].revents)
		waiter_hush(b, w);
}

static bool wait_look(struct waiter *w, short *events, bool drive)
{
	bool moved = false;

	for (int i = 0; i < w->n_led; i++) {
		events[i] = POLLIN;
		if (drive)
			moved |= drive_path(w->led[i], &events[i]);
		else
			wait_events(w->led[i], &events[i]);
	}
	return moved;
}

/* Looking for what comes soon is for one thread: several would keep each other,
 * and the peer, from the CPU. */
static uint64_t wait_spin_ns(struct mc_engine *e, const struct waiter *w,
			     uint64_t now)
{
	if (!w->n_led || __atomic_load_n(&e->waiting, __ATOMIC_RELAXED) > 1)
		return 0;
	return mc_spin_ns(&e->spin, now);
}

/* One look at the paths we lead, then sleep; returns the time afterwards.
 * @first: the slices have just been posted, so that looking before sleeping
 * would find nothing, unless it is what the options ask for. */
static uint64_t wait_round(struct batch *b, struct waiter *w,
			   uint64_t until_ns, bool first)
{
	uint64_t spin, now, start = mc_clock_ns();
	short events[WAIT_PATHS];
	bool moved;

	wait_bury(b, w);
	wait_lead(b, w);
	spin = wait_spin_ns(b->e, w, start);
	do {
		moved = wait_look(w, events, !first || spin);
	} while (!moved && spin && !batch_ended(b) &&
		 mc_clock_ns() - start < spin);
	if (!moved && !batch_ended(b) &&
	    !__atomic_load_n(&b->note_due, __ATOMIC_ACQUIRE))
		wait_sleep(b, w, events, until_ns);
	now = mc_clock_ns();
	if (w->n_led)
		mc_spin_took(&b->e->spin, now - start, spin);
	drive_pump_all(b, b);
	return now;
}

static void wait_work(struct batch *b, struct waiter *w, uint64_t until_ns)
{
	bool first = !b->async;
	uint64_t now, next = 0;

	while (!batch_ended(b) && !wait_due(b)) {
		now = wait_round(b, w, until_ns, first);
		first = false;
		if (!next)
			next = now + ENGINE_TICK_MS * (uint64_t)MC_MS;
		if (now >= next) {
			next = 0;
			batch_check(b, now);
		}
		if (now >= until_ns && !batch_ended(b))
			break;
	}
}

int batch_wait(struct batch *b, uint64_t until_ns)
{
	struct mc_engine *e = b->e;
	struct waiter deaf = { .fd = -1 }, *w;

	if (batch_ended(b))
		return 0;
	/* Out of memory or descriptors: what is in flight has to be waited for
	 * all the same, so look again every tick. */
	w = waiter_get(e);
	if (!w)
		w = &deaf;
	if (!waiter_add(b, w)) {
		waiter_put(e, w);
		return 0;
	}
	__atomic_add_fetch(&e->waiting, 1, __ATOMIC_RELAXED);
	wait_work(b, w, until_ns);
	__atomic_sub_fetch(&e->waiting, 1, __ATOMIC_RELAXED);
	wait_resign_all(b, w);
	batch_leave(b);
	waiter_del(b, w);
	waiter_put(e, w);
	return batch_ended(b) ? 0 : mc_err(-EAGAIN, "the batch has not ended "
					   "yet");
}
