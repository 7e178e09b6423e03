/*
 * batch.c - batches: ended by the outcomes of their slices, named by index and
 * generation so that a stale id finds nothing. What they are made of is built
 * in batch_build.c.
 */
#include "engine.h"

#include <unistd.h>

enum {
	BATCH_TRIES = 8,		/* of one slice */
};

/* ---- the pool ------------------------------------------------------- */

uint64_t batch_id(const struct batch *b)
{
	return (uint64_t)b->gen << 32 | b->index;
}

static struct batch *batch_make(struct mc_engine *e)
{
	struct batch *b;

	if (e->n_batches == ENGINE_BATCHES)
		return NULL;
	b = calloc(1, sizeof(*b));
	if (!b)
		return NULL;
	pthread_mutex_init(&b->lock, NULL);
	b->e = e;
	b->index = e->n_batches;
	e->batches[e->n_batches++] = b;
	return b;
}

struct batch *batch_new(struct mc_engine *e)
{
	struct batch *b;

	pthread_mutex_lock(&e->batch_lock);
	b = e->pool;
	if (b)
		e->pool = b->next;
	else
		b = batch_make(e);
	if (b) {
		b->gen++;
		b->refs = 1;
		b->used = true;
		b->next = b->prev = NULL;
	}
	pthread_mutex_unlock(&e->batch_lock);
	if (!b)
		mc_err(-ENOBUFS, "%d batches are in use: free those that have "
		       "ended", ENGINE_BATCHES);
	return b;
}

int batch_find(struct mc_engine *e, uint64_t id, struct batch **out)
{
	uint32_t i = id & UINT32_MAX, gen = id >> 32;
	struct batch *b = NULL;
	int r = engine_check(e);

	if (r < 0)
		return r;
	pthread_mutex_lock(&e->batch_lock);
	if (i < e->n_batches && e->batches[i]->used &&
	    e->batches[i]->gen == gen && !e->batches[i]->freed) {
		b = e->batches[i];
		b->refs++;
	}
	pthread_mutex_unlock(&e->batch_lock);
	if (!b)
		return mc_err(-ESTALE, "batch %#llx does not exist: was it "
			      "freed?", (long long)id);
	*out = b;
	return 0;
}

static void batch_reset(struct batch *b)
{
	for (uint32_t i = 0; i < b->n_held; i++)
		buffer_drop(b->held[i]);
	b->n_reqs = b->n_pieces = b->n_slices = b->n_held = 0;
	b->left = b->done = b->failed = 0;
	b->bytes = 0;
	b->err = b->expired = 0;
	b->why[0] = 0;
	b->state = MC_PENDING;
	b->deadline_ns = b->quiesce_ns = 0;
	b->canceled = b->async = b->freed = b->listed = false;
	b->weighted = b->workers_only = b->note_due = false;
	free(b->note);
	b->note = NULL;
}

/* The last who knows it gives it back. */
void batch_put(struct batch *b)
{
	struct mc_engine *e = b->e;

	pthread_mutex_lock(&e->batch_lock);
	if (!--b->refs && b->freed) {
		batch_reset(b);
		b->used = false;
		b->next = e->pool;
		e->pool = b;
	}
	pthread_mutex_unlock(&e->batch_lock);
}

/* Drop the owner's reference: the id is no more. */
bool batch_discard(struct batch *b)
{
	struct mc_engine *e = b->e;

	/* Who ended it may still be waking its waiters. */
	pthread_mutex_lock(&b->lock);
	pthread_mutex_unlock(&b->lock);
	pthread_mutex_lock(&e->batch_lock);
	if (b->freed) {
		/* Two threads free one id: the other was first. */
		pthread_mutex_unlock(&e->batch_lock);
		return false;
	}
	b->freed = true;
	if (b->listed) {
		struct batch **at = &e->completed;

		while (*at != b)
			at = &(*at)->next;
		*at = b->next;
		if (e->completed_last == b)
			e->completed_last = NULL;
		for (struct batch *i = e->completed; i; i = i->next)
			e->completed_last = i;
		b->listed = false;
	}
	pthread_mutex_unlock(&e->batch_lock);
	batch_put(b);
	return true;
}

void batches_fini(struct mc_engine *e)
{
	for (uint32_t i = 0; i < e->n_batches; i++) {
		struct batch *b = e->batches[i];

		batch_reset(b);
		pthread_mutex_destroy(&b->lock);
		free(b->reqs);
		free(b->pieces);
		free(b->piece_req);
		free(b->slices);
		free(b->held);
		free(b);
	}
	free(e->batches);
}

/* ---- ending --------------------------------------------------------- */

/* Under the batch's lock. The thread that ends its own batch need not be told:
 * that would be two system calls for each small request. */
void batch_wake(struct batch *b)
{
	uint64_t one = 1;

	for (struct waiter *w = b->waiters; w; w = w->next) {
		if (w->woken || pthread_equal(w->thread, pthread_self()))
			continue;
		w->woken = true;
		if (write(w->fd, &one, sizeof(one)) < 0)
			continue;
	}
}

/* Off the list of active ones, onto that of completed ones. */
static void batch_complete(struct batch *b)
{
	struct mc_engine *e = b->e;

	pthread_mutex_lock(&e->batch_lock);
	if (b->prev)
		b->prev->next = b->next;
	else
		e->active = b->next;
	if (b->next)
		b->next->prev = b->prev;
	b->next = b->prev = NULL;
	if (!b->freed) {
		b->listed = true;
		if (e->completed_last)
			e->completed_last->next = b;
		else
			e->completed = b;
		e->completed_last = b;
	}
	engine_signal(e);
	pthread_mutex_unlock(&e->batch_lock);
	batch_put(b);
}

/* Each run of slices to one peer counts as a batch of it: the peer stays. */
void batch_peers(struct batch *b, int by)
{
	struct peer *last = NULL;

	for (uint32_t i = 0; i < b->n_slices; i++)
		if (b->slices[i].peer != last) {
			last = b->slices[i].peer;
			__atomic_add_fetch(&last->batches, by,
					   __ATOMIC_ACQ_REL);
		}
}

static void batch_tasks(struct batch *b, int by)
{
	struct peer *last = NULL;

	for (uint32_t i = 0; i < b->n_slices; i++)
		if (b->slices[i].peer != last) {
			last = b->slices[i].peer;
			__atomic_add_fetch(&last->tasks, by, __ATOMIC_ACQ_REL);
		}
}

void batch_enter(struct batch *b)
{
	batch_tasks(b, 1);
}

void batch_leave(struct batch *b)
{
	batch_tasks(b, -1);
}

/* All requests have an outcome, and the notification. */
static void batch_end(struct batch *b)
{
	struct mc_engine *e = b->e;
	enum mc_state state = MC_COMPLETED;
	bool async = b->async;

	if (b->err)
		state = b->err == -ECANCELED ? MC_CANCELED : MC_FAILED;
	if (state == MC_FAILED)
		count(&e->stats.failed, 1);
	if (state == MC_CANCELED)
		count(&e->stats.canceled, 1);
	for (uint32_t i = 0; i < b->n_held; i++)
		buffer_drop(b->held[i]);
	b->n_held = 0;
	pthread_mutex_lock(&b->lock);
	batch_peers(b, -1);
	/* Pairs with the acquire in batch_ended(). A batch that is waited for
	 * may be gone once the lock is. */
	__atomic_store_n(&b->state, state, __ATOMIC_RELEASE);
	batch_wake(b);
	pthread_mutex_unlock(&b->lock);
	if (async)
		batch_complete(b);
}

/* ---- notifications -------------------------------------------------- */

static struct slice *batch_note_of(struct batch *b)
{
	return &b->slices[b->n_slices - 1];
}

/* The requests are done, and yet the batch failed. */
static void batch_note_failed(struct batch *b, int err, const char *why)
{
	const char *name = batch_note_of(b)->peer->at.name;
	bool named = strstr(why, name);

	pthread_mutex_lock(&b->lock);
	b->err = batch_expired(b) ? batch_expired(b) : err;
	snprintf(b->why, sizeof(b->why), "notification: %.60s%s%.150s",
		 named ? "" : name, named ? "" : ": ", why);
	pthread_mutex_unlock(&b->lock);
	batch_end(b);
}

/* Over the control connection. */
void batch_note(struct batch *b)
{
	struct slice *s = batch_note_of(b);
	struct wire_call c = { .kind = WIRE_NOTIFY, .msg = s->s.note,
			       .len = s->s.len, .stop = &b->expired };
	uint64_t now = mc_clock_ns();
	uint64_t deadline = b->deadline_ns ? b->deadline_ns :
			    now + ENGINE_QUIET_MS * (uint64_t)MC_MS;
	int r;

	deadline = mc_min(deadline, now + 3600ull * 1000 * MC_MS);
	r = peer_call(s->peer, &c, false, deadline);
	wire_call_free(&c);
	if (r < 0)
		batch_note_failed(b, r, mc_errmsg());
	else
		batch_end(b);
}

static void batch_note_task(void *arg)
{
	batch_note(arg);
}

/* By a thread that may block. */
static void batch_note_soon(struct batch *b)
{
	int r;

	if (b->async) {
		r = mc_tasks_run(&b->e->slow, batch_note_task, b);
		/* Once it runs, the batch may be gone. */
		if (r < 0)
			batch_note_failed(b, r, mc_errmsg());
		return;
	}
	/* The waiting thread does it: it has nothing better to do. */
	pthread_mutex_lock(&b->lock);
	__atomic_store_n(&b->note_due, true, __ATOMIC_RELEASE);
	batch_wake(b);
	pthread_mutex_unlock(&b->lock);
}

/* It has an outcome on its rail. If the peer does not have it, it goes over the
 * control connection. */
static void batch_noted(struct batch *b, int err, const char *why)
{
	if (!err)
		batch_end(b);
	else if (err == -EAGAIN && !batch_expired(b))
		batch_note_soon(b);
	else
		batch_note_failed(b, err, why);
}

/* Its last slice, but for the notification, has an outcome. */
static void batch_drained(struct batch *b)
{
	if (!b->note || b->err)
		batch_end(b);
	else if (!spray_note(batch_note_of(b)))
		batch_note_soon(b);
}

/* ---- outcomes of slices --------------------------------------------- */

/* Another rail, or the same one later, may do better? What the peer decided
 * stays decided. */
static bool slice_may_retry(const struct slice *s, int err)
{
	if (err == -EFAULT || err == -EACCES || err == -ESTALE ||
	    err == -EINVAL || err == -ECANCELED || err == -ESHUTDOWN)
		return false;
	return !batch_expired(s->batch) && !s->hopeless &&
	       s->tries < BATCH_TRIES;
}

void slice_requeue(struct slice *s)
{
	struct peer *p = s->peer;

	s->on = NULL;
	s->next = NULL;
	pthread_mutex_lock(&p->lock);
	*p->pending_tail = s;
	p->pending_tail = &s->next;
	__atomic_add_fetch(&p->n_pending, 1, __ATOMIC_RELEASE);
	pthread_mutex_unlock(&p->lock);
}

static void slice_account(struct slice *s, int err)
{
	struct batch *b = s->batch;
	uint32_t first = s->s.pieces - b->pieces;

	for (uint32_t i = first; i < first + s->s.n; i++) {
		struct breq *q = &b->reqs[b->piece_req[i]];

		if (err && !q->err)
			q->err = err;
		if (--q->left)
			continue;
		b->done++;
		if (q->err)
			b->failed++;
		else
			b->bytes += q->len;
	}
}

/* The error that a request ends with, and a text that names peer, rail, cause
 * and what was tried. */
static int slice_final_err(struct slice *s, int err, const char *why,
			   char *text)
{
	int expired = batch_expired(s->batch);
	const char *rail = s->on ? s->on->rail->t->name : "";
	char tries[32] = "";
	int n;

	if (expired == -ECANCELED && err != -ESTALE) {
		snprintf(text, MC_WHY_MAX, "canceled");
		return expired;
	}
	if (s->tries)
		snprintf(tries, sizeof(tries), " (tries: %u)", s->tries + 1);
	if (expired && err != -ESTALE) {
		n = snprintf(text, MC_WHY_MAX, "%s: the deadline passed%s: "
			     "%s%s%s", s->peer->at.name, tries, rail,
			     s->on ? ": " : "", why);
		if (s->tries && n < MC_WHY_MAX && strcmp(why, s->why))
			snprintf(text + n, MC_WHY_MAX - n,
				 "; before that: %s", s->why);
		return expired;
	}
	if (strstr(why, s->peer->at.name))
		snprintf(text, MC_WHY_MAX, "%s", why);
	else
		snprintf(text, MC_WHY_MAX, "%s%s: %s%s%s", s->peer->at.name,
			 tries, rail, s->on ? ": " : "", why);
	return err;
}

void slice_end(struct slice *s, int err, const char *why)
{
	struct batch *b = s->batch;
	char text[MC_WHY_MAX];
	bool drained;

	if (s->s.op == MC_NOTE) {
		batch_noted(b, err, why);
		return;
	}
	if (err && slice_may_retry(s, err)) {
		if (s->on)
			s->tried |= 1u << s->on->rail->index;
		s->tries++;
		if (why != s->why)
			mc_copy(s->why, why);
		count(&b->e->stats.retries, 1);
		slice_requeue(s);
		return;
	}
	if (err)
		err = slice_final_err(s, err, why, text);
	else
		count(s->s.op == MC_READ ? &b->e->stats.bytes_read :
		      &b->e->stats.bytes_written, s->s.len);
	pthread_mutex_lock(&b->lock);
	slice_account(s, err);
	if (err && !b->err) {
		b->err = err;
		mc_copy(b->why, text);
	}
	drained = !--b->left;
	pthread_mutex_unlock(&b->lock);
	if (drained)
		batch_drained(b);
}

/* ---- life ----------------------------------------------------------- */

static void batch_activate(struct batch *b)
{
	struct mc_engine *e = b->e;

	pthread_mutex_lock(&e->batch_lock);
	b->refs++;
	b->next = e->active;
	if (b->next)
		b->next->prev = b;
	e->active = b;
	if (!e->ticking) {
		e->ticking = true;
		mc_loop_timer(&e->loops[0], ENGINE_TICK_MS * (uint64_t)MC_MS);
	}
	pthread_mutex_unlock(&e->batch_lock);
}

/* Many slices take their time: none that is posted last is late for that. */
static void batch_begun(struct batch *b)
{
	pthread_mutex_lock(&b->lock);
	b->progress_ns = mc_clock_ns();
	b->beginning = false;
	pthread_mutex_unlock(&b->lock);
}

void batch_start(struct batch *b, bool async)
{
	uint32_t n = b->n_slices - !!b->note;
	struct peer *last = NULL;

	b->async = async;
	b->beginning = async && n;
	b->left = n;
	count(&b->e->stats.batches, 1);
	count(&b->e->stats.requests, b->n_reqs);
	if (async)
		batch_activate(b);
	if (!n) {
		batch_drained(b);
		return;
	}
	/* By the last slice it may have ended, and its peers with it. */
	batch_enter(b);
	for (uint32_t i = 0; i < n; i++)
		slice_requeue(&b->slices[i]);
	for (uint32_t i = 0; i < n; i++)
		if (b->slices[i].peer != last) {
			last = b->slices[i].peer;
			spray_pump(last, async ? NULL : b);
		}
	if (async)
		batch_begun(b);
	batch_leave(b);
}

void batch_result(struct batch *b, struct mc_result *out)
{
	pthread_mutex_lock(&b->lock);
	*out = (struct mc_result){
		.state = b->state, .err = b->err, .bytes = b->bytes,
		.done = b->done, .failed = b->failed,
	};
	mc_copy(out->why, b->why);
	pthread_mutex_unlock(&b->lock);
}

int mc_submit(struct mc_engine *e, const struct mc_req *reqs, int n,
	      const struct mc_batch_opts *opts, uint64_t *batch)
{
	struct batch *b;
	int r = engine_check(e);

	if (r < 0)
		return r;
	if (n < 0)
		return mc_err(-EINVAL, "%d requests", n);
	b = batch_new(e);
	if (!b)
		return -ENOBUFS;
	r = batch_build(b, reqs, n);
	if (!r)
		r = batch_options(b, opts);
	if (r < 0) {
		batch_peers(b, -1);
		batch_discard(b);
		return r;
	}
	*batch = batch_id(b);
	/* As soon as it has ended, another thread may be told its id and free
	 * it. */
	b->refs++;
	batch_start(b, true);
	batch_put(b);
	return 0;
}

int mc_poll(struct mc_engine *e, uint64_t batch, struct mc_result *out)
{
	struct batch *b;
	int r = batch_find(e, batch, &b);

	if (r < 0)
		return r;
	batch_result(b, out);
	batch_put(b);
	return 0;
}

int mc_wait(struct mc_engine *e, uint64_t batch, int timeout_ms,
	    struct mc_result *out)
{
	uint64_t until = timeout_ms < 0 ? UINT64_MAX :
			 mc_clock_ns() + (uint64_t)timeout_ms * MC_MS;
	struct batch *b;
	int r = batch_find(e, batch, &b);

	if (r < 0)
		return r;
	r = batch_wait(b, until);
	if (out)
		batch_result(b, out);
	batch_put(b);
	return r;
}

int mc_cancel(struct mc_engine *e, uint64_t batch)
{
	struct batch *b;
	int r = batch_find(e, batch, &b);

	if (r < 0)
		return r;
	pthread_mutex_lock(&b->lock);
	b->canceled = true;
	pthread_mutex_unlock(&b->lock);
	batch_check(b, mc_clock_ns());
	batch_put(b);
	return 0;
}

int mc_batch_req(struct mc_engine *e, uint64_t batch, int i,
		 struct mc_result *out)
{
	struct batch *b;
	struct breq *q;
	int r = batch_find(e, batch, &b);

	if (r < 0)
		return r;
	pthread_mutex_lock(&b->lock);
	if (i < 0 || (uint32_t)i >= b->n_reqs) {
		r = mc_err(-EINVAL, "request %d of a batch of %u", i,
			   b->n_reqs);
	} else {
		q = &b->reqs[i];
		*out = (struct mc_result){ .err = q->left ? 0 : q->err };
		if (!q->left)
			out->state = !q->err ? MC_COMPLETED :
				     q->err == -ECANCELED ? MC_CANCELED :
				     MC_FAILED;
		out->done = !q->left;
		out->failed = out->done && q->err;
		out->bytes = out->state == MC_COMPLETED ? q->len : 0;
		if (out->err)
			mc_copy(out->why, b->why);
	}
	pthread_mutex_unlock(&b->lock);
	batch_put(b);
	return r;
}

int mc_batch_free(struct mc_engine *e, uint64_t batch)
{
	struct batch *b;
	int r = batch_find(e, batch, &b);

	if (r < 0)
		return r;
	if (!batch_ended(b)) {
		batch_put(b);
		return mc_err(-EBUSY, "the batch has not ended: wait for it "
			      "or cancel it");
	}
	if (!batch_discard(b))
		r = mc_err(-ESTALE, "the batch is being freed");
	batch_put(b);
	return r;
}

int mc_completed(struct mc_engine *e, uint64_t *out, int max)
{
	int n = 0, r = engine_check(e);

	if (r < 0)
		return r;
	pthread_mutex_lock(&e->batch_lock);
	while (n < max && e->completed) {
		struct batch *b = e->completed;

		e->completed = b->next;
		if (!e->completed)
			e->completed_last = NULL;
		b->next = NULL;
		b->listed = false;
		out[n++] = batch_id(b);
	}
	pthread_mutex_unlock(&e->batch_lock);
	engine_unsignal(e);
	return n;
}
