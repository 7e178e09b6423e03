/*
 * copy.c - mc_transfer(): the whole of a batch in the calling thread. Requests
 * to memory that this process can copy to are copied here and now, with no
 * batch made for them; the rest, and what cannot be copied after all, becomes
 * a batch that the thread drives itself.
 */
#include "engine.h"

enum { COPY_PIECES = 128 };

/* Pieces gathered for one call of the rail's copy(). */
struct copy {
	struct mc_piece pieces[COPY_PIECES];
	uint32_t n;
	enum mc_op op;
	int first;			/* request of the first piece */
	struct peer *peer;
	struct epath *ep;
	struct buffer *local;		/* holds the pieces; with a use */
	uint64_t len, bytes;		/* gathered; done */
};

static struct epath *copy_path(struct peer *p)
{
	struct epath *ep = NULL;

	pthread_mutex_lock(&p->lock);
	for (int i = 0; i < p->n_rails && !ep; i++)
		if (p->rails[i]->state == MC_RAIL_UP && p->rails[i]->n_paths &&
		    rail_copies(p->rails[i]))
			ep = p->rails[i]->paths[0];
	/* Pairs with the release of whoever fails the path. */
	if (ep && __atomic_load_n(&ep->p->err, __ATOMIC_ACQUIRE))
		ep = NULL;
	if (ep)
		ep->refs++;
	pthread_mutex_unlock(&p->lock);
	return ep;
}

static int copy_flush(struct copy *c)
{
	struct rail *r;
	uint64_t start;
	int err;

	if (!c->n)
		return 0;
	r = c->ep->rail;
	start = mc_clock_ns();
	err = r->t->copy(c->ep->p, c->op, c->pieces, c->n);
	if (err < 0)
		return err;
	rail_sample(r, c->op, c->len, mc_clock_ns() - start);
	count(c->op == MC_READ ? &c->peer->e->stats.bytes_read :
	      &c->peer->e->stats.bytes_written, c->len);
	c->bytes += c->len;
	c->len = 0;
	c->n = 0;
	return 0;
}

static void copy_leave(struct copy *c)
{
	if (c->ep)
		path_put(c->ep);
	peer_drop(c->peer);
	c->ep = NULL;
	c->peer = NULL;
}

/* Everything a piece may change: what was gathered goes first. */
static int copy_turn(struct copy *c, const struct split *s)
{
	int r = copy_flush(c);

	if (r < 0)
		return r;
	c->op = s->reqs[s->i].op;
	if (c->local != s->local) {
		buffer_drop(c->local);
		c->local = s->local;
		__atomic_add_fetch(&c->local->uses, 1, __ATOMIC_ACQ_REL);
	}
	if (c->peer == s->peer)
		return 0;
	copy_leave(c);
	c->peer = s->peer;
	__atomic_add_fetch(&c->peer->tasks, 1, __ATOMIC_ACQ_REL);
	c->ep = copy_path(c->peer);
	return c->ep ? 0 : -EOPNOTSUPP;
}

static int copy_add(struct copy *c, const struct split *s,
		    const struct mc_piece *p)
{
	int r = 0;

	if (split_gpu(s))
		return -EOPNOTSUPP;
	if (c->peer != s->peer || c->local != s->local ||
	    c->op != s->reqs[s->i].op || c->n == COPY_PIECES)
		r = copy_turn(c, s);
	if (!c->n)
		c->first = s->i;
	if (r < 0)
		return r;
	c->pieces[c->n++] = *p;
	c->len += p->len;
	return 0;
}

static uint64_t copy_len(const struct mc_req *q)
{
	uint64_t len = 0;

	if (!q->locals)
		return q->len;
	for (uint32_t i = 0; i < q->n_locals; i++)
		len += q->locals[i].len;
	return len;
}

/* Copies what it can: returns how many of the requests are done, from the
 * first, or -errno for one that is wrong. Parts of the next one may have been
 * copied, which does no harm: it is done again. */
static int copy_requests(struct mc_engine *e, const struct mc_req *reqs,
			 int n, uint64_t *bytes)
{
	struct copy c;
	struct mc_piece piece;
	struct split s;
	int r, done = n;

	c.n = 0;
	c.first = 0;
	c.op = MC_READ;
	c.peer = NULL;
	c.ep = NULL;
	c.local = NULL;
	c.len = c.bytes = 0;
	split_init(&s, e, reqs, n, 1 << 30);
	while ((r = split_next(&s, &piece)) > 0)
		if (copy_add(&c, &s, &piece) < 0)
			break;
	if (r > 0 || (!r && copy_flush(&c) < 0))
		done = c.first;
	split_fini(&s);
	buffer_drop(c.local);
	copy_leave(&c);
	/* Of a request that is begun again, what was copied counts once: by
	 * the batch. */
	*bytes = 0;
	for (int i = 0; i < done; i++)
		*bytes += copy_len(&reqs[i]);
	if (done == n)
		*bytes = c.bytes;
	return r < 0 ? r : done;
}

static int copy_rest(struct mc_engine *e, const struct mc_req *reqs, int n,
		     const struct mc_batch_opts *opts, struct mc_result *out)
{
	struct batch *b = batch_new(e);
	int r;

	if (!b)
		return -ENOBUFS;
	r = batch_build(b, reqs, n);
	if (!r)
		r = batch_options(b, opts);
	if (!r) {
		batch_start(b, false);
		batch_wait(b, UINT64_MAX);
		batch_result(b, out);
	}
	if (r < 0)
		batch_peers(b, -1);
	batch_discard(b);
	if (!r && out->state != MC_COMPLETED)
		r = mc_err(out->err, "%s", out->why);
	return r;
}

/* The outcome where a request is wrong. Those before it may have been copied:
 * what came first is not looked at twice. */
static struct mc_result copy_refused(int err)
{
	struct mc_result res = { .state = MC_FAILED, .err = err };

	mc_copy(res.why, mc_errmsg());
	return res;
}

int mc_transfer(struct mc_engine *e, const struct mc_req *reqs, int n,
		const struct mc_batch_opts *opts, struct mc_result *out)
{
	bool plain = !opts || (!opts->notify_name && !opts->weights &&
			       !opts->workers_only);
	struct mc_result res = { .state = MC_COMPLETED };
	uint64_t bytes = 0;
	int done = 0, r = engine_check(e);

	if (r < 0)
		return r;
	if (n < 0)
		return mc_err(-EINVAL, "%d requests", n);
	if (plain && __atomic_load_n(&e->copy_paths, __ATOMIC_RELAXED))
		done = copy_requests(e, reqs, n, &bytes);
	if (done < 0) {
		if (out)
			*out = copy_refused(done);
		return done;
	}
	if (done)
		count(&e->stats.requests, done);
	if (done < n || !plain)
		r = copy_rest(e, reqs + done, n - done, opts, &res);
	else
		count(&e->stats.batches, 1);
	if (out) {
		*out = r < 0 && !res.err ? copy_refused(r) : res;
		out->done += done;
		out->bytes += bytes;
	}
	return r;
}
