/*
 * rdma_path.c - slices over one connection. Requests are numbered from the
 * first one posted; as a reliable connection completes them in order, hearing
 * of one is hearing of all before it. So few ask to be heard of: the last of a
 * slice, and enough in between to see that it moves and to make room.
 *
 * A piece whose key is not known makes the path ask for it (rdma_keys.h), and
 * what comes after waits meanwhile.
 */
#include "rdma.h"

#include "../base/clock.h"
#include "../base/err.h"
#include "../base/util.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <unistd.h>

enum {
	PATH_REAP = 16,			/* completions taken at a time */
	PATH_ROUNDS = 8,		/* of that, before the caller is told:
					 * where a request takes 10 ms, all of
					 * them take longer than may pass
					 * without a sign of life */
	/* Posted and not heard of: what the fastest port moves in 40 us. More
	 * would only wait in the device, where no other path can have it; and
	 * soft-RoCE, which sends from whoever posts, keeps one CPU busy if all
	 * has been posted, and two if it comes bit by bit. */
	PATH_FLIGHT = 2 << 20,
	PATH_LOOKS = 64,		/* in vain, before the channel is
					 * looked at in any case */
	PATH_LOOK_NS = 20 * MC_MS,	/* between looks at the device */
	PATH_STOP_MS = 100,
	PATH_PROBE_US = 50,
};

static struct rdma_path *path_of(struct mc_path *p)
{
	return mc_container_of(p, struct rdma_path, base);
}

/* ---- making one ----------------------------------------------------- */

struct rdma_path *mc_rdma_path_new(struct rdma_ctx *c, int dev,
				   const struct mc_peer *peer)
{
	struct rdma_path *p = calloc(1, sizeof(*p));

	if (!p)
		return NULL;
	p->rdma = c;
	p->dev = &c->devs[dev];
	p->peer = *peer;
	p->tail = &p->waiting;
	p->notes_tail = &p->notes;
	p->note_look = UINT64_MAX;
	p->chunk_bits = RDMA_CHUNK_MAX;
	p->base.fd = -1;
	p->base.events = POLLIN;
	p->faults = __atomic_load_n(&p->dev->faults, __ATOMIC_ACQUIRE);
	pthread_mutex_init(&p->base.lock, NULL);
	return p;
}

void mc_rdma_path_free(struct rdma_path *p)
{
	mc_rdma_pool_del(&p->rdma->pool, p);
	if (p->endpoint)
		mc_rdma_endpoint_release(p, p->posted != p->done);
	mc_rdma_end_close(&p->end);
	if (p->answer_mr)
		mc_verbs.dereg_mr(p->answer_mr);
	mc_rdma_note_mem_close(&p->note_mem);
	free(p->answer);
	free(p->sent);
	free(p->upto);
	pthread_mutex_destroy(&p->base.lock);
	free(p);
}

int mc_rdma_path_memory(struct rdma_path *p)
{
	uint32_t n = 1;

	while (n < p->end.depth)
		n *= 2;
	p->mask = n - 1;
	p->sent = calloc(n, sizeof(*p->sent));
	p->upto = calloc(n, sizeof(*p->upto));
	p->answer = aligned_alloc(64, (sizeof(*p->answer) + 63) & ~63ul);
	if (!p->sent || !p->upto || !p->answer)
		return mc_err(-ENOMEM, "out of memory");
	memset(p->answer, 0, sizeof(*p->answer));
	p->answer_mr = mc_verbs.reg_mr_iova2(p->dev->pd, p->answer,
					     sizeof(*p->answer),
					     (uintptr_t)p->answer,
					     IBV_ACCESS_LOCAL_WRITE);
	return p->answer_mr ? 0 : mc_syserr(-errno, "rdma: %s: memory for "
					    "answers", p->dev->v.name);
}

/* ---- failure -------------------------------------------------------- */

/* Which end is at fault, in the words that the engine counts by. */
static const char *path_cause(enum ibv_wc_status status)
{
	switch (status) {
	case IBV_WC_RETRY_EXC_ERR:
	case IBV_WC_RNR_RETRY_EXC_ERR:
		return "the peer does not answer: ";
	case IBV_WC_LOC_LEN_ERR:
	case IBV_WC_LOC_QP_OP_ERR:
	case IBV_WC_LOC_PROT_ERR:
	case IBV_WC_LOC_ACCESS_ERR:
		return "local device: ";
	default:
		return "";
	}
}

void mc_rdma_path_broken(struct rdma_path *p, const struct ibv_wc *wc)
{
	mc_err(-ECONNRESET, "%s -> %s: %s%s", p->dev->v.name,
	       p->base.remote_dev, path_cause(wc->status),
	       mc_verbs.wc_status_str(wc->status));
	mc_path_fail(&p->base, -ECONNRESET);
}

/* ---- what ends ------------------------------------------------------ */

/* @s ends once request @last has. */
static void path_sent(struct rdma_path *p, struct mc_slice *s, uint64_t last,
		      int err)
{
	p->sent[p->next++ & p->mask] = (struct rdma_sent){ s, last, err };
}

static bool path_ring_full(const struct rdma_path *p)
{
	return p->next - p->head > p->mask;
}

/* The first one that waits is through: posted whole, or refused. */
static void path_through(struct rdma_path *p, int err)
{
	struct mc_slice *s = p->waiting;

	p->waiting = s->next;
	if (!p->waiting)
		p->tail = &p->waiting;
	p->piece = p->off = 0;
	path_sent(p, s, p->posted, err);
}

static void path_explain(struct rdma_path *p, struct mc_slice *s, int err)
{
	if (err == -ESTALE)
		snprintf(s->why, MC_WHY_MAX, "%s refused: the buffer has been "
			 "unregistered", p->peer.name);
	else
		snprintf(s->why, MC_WHY_MAX, "local device %s: the memory is "
			 "not registered with it", p->dev->v.name);
}

/* ---- keys of the peer's buffers ------------------------------------- */

static struct rdma_known *path_known(struct rdma_path *p, struct rdma_chunk c)
{
	return &p->cache[(c.id + c.number) % RDMA_CACHE];
}

static bool path_key(struct rdma_path *p, struct rdma_chunk c, uint32_t *rkey)
{
	const struct rdma_known *k = path_known(p, c);

	*rkey = k->rkey;
	return k->chunk.id == c.id && k->chunk.number == c.number;
}

static void path_post(struct rdma_path *p, struct ibv_send_wr *wr)
{
	struct ibv_send_wr *bad;
	int r = ibv_post_send(p->end.qp, wr, &bad);

	if (!r)
		return;
	mc_syserr(-r, "local device %s: posting", p->dev->v.name);
	mc_path_fail(&p->base, -r);
}

uint64_t mc_rdma_path_request(struct rdma_path *p, struct ibv_send_wr *wr)
{
	wr->wr_id = ++p->posted;
	wr->send_flags |= IBV_SEND_SIGNALED;
	p->upto[p->posted & p->mask] = p->bytes;
	p->marked = p->posted;
	p->unmarked_bytes = 0;
	path_post(p, wr);
	return p->posted;
}

/* Read @len bytes of the peer's keys into our answer. */
static void path_read_keys(struct rdma_path *p, void *to, uint32_t len,
			   uint64_t addr, uint32_t rkey)
{
	struct ibv_sge sge = { (uintptr_t)to, len, p->answer_mr->lkey };
	struct ibv_send_wr wr = {
		.sg_list = &sge, .num_sge = 1, .opcode = IBV_WR_RDMA_READ,
		.wr.rdma = { addr, rkey },
	};

	path_sent(p, NULL, mc_rdma_path_request(p, &wr), 0);
}

static void path_ask_root(struct rdma_path *p)
{
	p->asking = RDMA_ASKS_ROOT;
	path_read_keys(p, &p->answer->root, sizeof(p->answer->root),
		       p->keys.addr, p->keys.rkey);
}


/* The peer has no such buffer: what wants it ends here. All requests before
 * the question have been answered, those of this slice among them. */
static void path_unknown(struct rdma_path *p)
{
	p->asking = RDMA_KNOWS;
	path_through(p, -ESTALE);
}

static void path_learn(struct rdma_path *p, struct rdma_chunk c, uint32_t rkey)
{
	*path_known(p, c) = (struct rdma_known){ c, rkey };
	p->asking = RDMA_KNOWS;
}

/* A strange peer has told its keys. */
static void path_ask(struct rdma_path *p, struct rdma_chunk c)
{
	uint32_t rkey;

	p->ask = c;
	p->keys.check = 0;		/* no table looked at yet */
	if (!p->endpoint)
		path_ask_root(p);
	else if (mc_host_v1_key(p->rdma->host, &p->peer, c.id, p->far_dev,
				&rkey))
		path_learn(p, c, rkey);
	else
		path_unknown(p);
}

/* The root has come. A table seen before has nothing new to say. */
static void path_root(struct rdma_path *p)
{
	const struct rdma_root *r = &p->answer->root;

	if (!mc_rdma_root_whole(r)) {
		path_ask_root(p);
	} else if (!r->addr || r->check == p->keys.check) {
		path_unknown(p);
	} else {
		p->keys.check = r->check;
		p->asking = RDMA_ASKS_RUN;
		path_read_keys(p, p->answer->run, sizeof(p->answer->run),
			       mc_rdma_run_addr(r, p->ask), r->rkey);
	}
}

static void path_run(struct rdma_path *p)
{
	uint32_t rkey;

	if (!mc_rdma_run_find(p->answer->run, p->ask, &rkey)) {
		/* Or the table has just been replaced. */
		path_ask_root(p);
		return;
	}
	path_learn(p, p->ask, rkey);
}

static void path_answered(struct rdma_path *p)
{
	if (p->asking == RDMA_ASKS_ROOT)
		path_root(p);
	else
		path_run(p);
}

/* ---- posting -------------------------------------------------------- */

/* The key of our end, and how far it goes; 0: this device does not have the
 * memory. */
static uint64_t path_lkey(struct rdma_path *p, uint64_t addr)
{
	const struct rdma_local *l = &p->local;

	/* A buffer that requests use cannot go; another, whose place it may
	 * have taken, can: pairs with the release in mc_rdma_unreg(). */
	if ((addr - l->addr < l->len &&
	     l->version == __atomic_load_n(&p->rdma->memory_version,
					   __ATOMIC_ACQUIRE)) ||
	    mc_rdma_local(p->rdma, p->dev - p->rdma->devs, addr, &p->local))
		return l->len - (addr - l->addr);
	return 0;
}

/* Add [addr, addr+len) to a request: false if it has no room for more. */
static bool path_gather(struct rdma_path *p, struct ibv_send_wr *wr,
			uint64_t addr, uint32_t len)
{
	struct ibv_sge *last = &wr->sg_list[wr->num_sge - 1];

	if (wr->num_sge && last->lkey == p->local.lkey &&
	    last->addr + last->length == addr) {
		last->length += len;
		return true;
	}
	if (wr->num_sge == (int)p->end.sges)
		return false;
	wr->sg_list[wr->num_sge++] = (struct ibv_sge){ addr, len,
						       p->local.lkey };
	return true;
}

/* Fill one request from where we are in the slice: all that lies in one run at
 * the peer. Its bytes; -errno: the slice cannot go on. */
static int64_t path_fill(struct rdma_path *p, struct ibv_send_wr *wr,
			 uint32_t rkey)
{
	struct mc_slice *s = p->waiting;
	const struct mc_piece *m = &s->pieces[p->piece];
	uint64_t remote = m->remote + p->off, len = 0;
	/* No request crosses the end of a chunk, here or there. */
	uint64_t max = mc_min(mc_rdma_chunk_left(p->chunk_bits, remote),
			      (uint64_t)RDMA_REQUEST);
	uint32_t id = m->id;

	wr->num_sge = 0;
	wr->wr.rdma.remote_addr = remote;
	wr->wr.rdma.rkey = rkey;
	while (p->piece < s->n && len < max) {
		uint64_t local, n;

		m = &s->pieces[p->piece];
		if (m->id != id || m->remote + p->off != remote + len)
			break;
		local = (uintptr_t)m->local + p->off;
		n = path_lkey(p, local);
		if (!n)
			return -EOPNOTSUPP;
		n = mc_min(n, mc_min(m->len - p->off, max - len));
		if (!path_gather(p, wr, local, n))
			break;
		len += n;
		p->off += n;
		if (p->off == m->len) {
			p->piece++;
			p->off = 0;
		}
	}
	return len;
}

static void path_mark(struct rdma_path *p, struct ibv_send_wr *wr,
		      uint64_t len)
{
	bool last = p->piece == p->waiting->n;

	wr->wr_id = ++p->posted;
	p->bytes += len;
	p->upto[p->posted & p->mask] = p->bytes;
	wr->opcode = p->waiting->op == MC_READ ? IBV_WR_RDMA_READ :
		     IBV_WR_RDMA_WRITE;
	wr->send_flags = 0;
	p->unmarked_bytes += len;
	if (last || p->unmarked_bytes >= RDMA_REQUEST ||
	    p->posted - p->marked >= p->end.depth / 4) {
		wr->send_flags = IBV_SEND_SIGNALED;
		p->marked = p->posted;
		p->unmarked_bytes = 0;
	}
	if (wr->opcode == IBV_WR_RDMA_WRITE && len <= p->end.inline_max)
		wr->send_flags |= IBV_SEND_INLINE;
}

static bool path_has_room(const struct rdma_path *p)
{
	return !path_ring_full(p) &&
	       p->bytes - p->upto[p->done & p->mask] < PATH_FLIGHT;
}

/* Lay out what comes next: how many requests. */
static int path_chain(struct rdma_path *p, struct rdma_chunk *want)
{
	uint64_t room = p->end.depth - (p->posted - p->done);
	int n = 0, max = mc_min(room, (uint64_t)RDMA_CHAIN);

	while (p->waiting && n < max && path_has_room(p)) {
		struct ibv_send_wr *wr = &p->wr[n];
		const struct mc_piece *m = &p->waiting->pieces[p->piece];
		struct rdma_chunk c = mc_rdma_chunk(p->chunk_bits, m->id,
						    m->remote + p->off);
		uint32_t rkey;
		int64_t len;

		if (!path_key(p, c, &rkey)) {
			*want = c;
			break;
		}
		wr->sg_list = &p->sge[n * RDMA_SGES];
		wr->next = NULL;
		len = path_fill(p, wr, rkey);
		if (len < 0) {
			path_through(p, len);
			continue;
		}
		path_mark(p, wr, len);
		if (n)
			p->wr[n - 1].next = wr;
		n++;
		if (p->piece == p->waiting->n)
			path_through(p, 0);
	}
	return n;
}

static void path_push(struct rdma_path *p)
{
	while (p->waiting && p->asking == RDMA_KNOWS && !p->base.err) {
		uint64_t before = p->next;
		struct rdma_chunk want = { 0 };
		int n = path_chain(p, &want);

		if (n) {
			path_post(p, p->wr);
		} else if (want.id && p->posted - p->done < p->end.depth &&
			   !path_ring_full(p)) {
			path_ask(p, want);
		} else if (before == p->next) {
			return;		/* full */
		}
	}
}

int mc_rdma_post(struct mc_path *base, struct mc_slice *const *slices, int n)
{
	struct rdma_path *p = path_of(base);

	if (base->err)
		return 0;
	/* What the hand of the pool reads; pairs with nothing else. */
	__atomic_store_n(&p->used, true, __ATOMIC_RELAXED);
	for (int i = 0; i < n; i++) {
		struct mc_slice ***tail = slices[i]->op == MC_NOTE ?
					  &p->notes_tail : &p->tail;

		slices[i]->next = NULL;
		**tail = slices[i];
		*tail = &slices[i]->next;
		base->queued += slices[i]->len;
	}
	path_push(p);
	mc_rdma_notes_push(p);
	return n;
}

/* ---- taking back ---------------------------------------------------- */

/* The peer's device refuses what has gone, and breaks the connection: the slice
 * is stale, and those after it are for another path. */
static void path_refused(struct rdma_path *p)
{
	struct rdma_sent *first = &p->sent[p->head & p->mask];

	if (p->head == p->next && p->waiting) {
		path_through(p, -ESTALE);
		first->last = p->done;
	} else if (p->head != p->next && first->s) {
		first->err = -ESTALE;
		first->last = p->done;
	}
}

static void path_completed(struct rdma_path *p, const struct ibv_wc *wc)
{
	if (wc->wr_id != p->note_look)
		p->base.progress++;
	if (wc->wr_id == RDMA_ANSWER) {
		mc_rdma_note_answered(p, wc);
		return;
	}
	if (wc->status == IBV_WC_SUCCESS) {
		p->done = wc->wr_id;
		if (p->note_sent && p->done >= p->note_request)
			p->note_sent->there = true;
		return;
	}
	if (p->base.err)
		return;			/* flushed */
	mc_rdma_path_broken(p, wc);
	p->done = mc_max(p->done, wc->wr_id - 1);
}

/* Hear of what has ended; false: nothing has. */
static bool path_reap(struct rdma_path *p, bool *refused)
{
	struct ibv_wc wc[PATH_REAP];
	int n = ibv_poll_cq(p->end.cq, PATH_REAP, wc);

	for (int i = 0; i < n; i++) {
		*refused |= !p->base.err &&
			    wc[i].status == IBV_WC_REM_ACCESS_ERR;
		path_completed(p, &wc[i]);
	}
	if (n < 0) {
		mc_err(-EIO, "local device %s: its completion queue cannot be "
		       "read", p->dev->v.name);
		mc_path_fail(&p->base, -EIO);
	}
	p->rung |= n > 0 && p->armed;
	return n > 0;
}

static int path_take(struct rdma_path *p, struct mc_slice **out, int max)
{
	int n = 0;

	if (p->note_answered && max) {
		out[n++] = p->note_answered;
		p->base.queued -= p->note_answered->len;
		p->note_answered = NULL;
	}
	while (n < max && p->head != p->next) {
		struct rdma_sent *e = &p->sent[p->head & p->mask];
		struct mc_slice *s = e->s;

		if (e->last > p->done)
			break;
		p->head++;
		if (!s) {
			path_answered(p);
			continue;
		}
		s->err = e->err;
		if (s->err)
			path_explain(p, s, s->err);
		p->base.queued -= s->len;
		out[n++] = s;
	}
	return n;
}

/* Look at the device now and then: it may have lost its port. */
static void path_look(struct rdma_path *p)
{
	uint64_t now = mc_clock_tick_ns();
	struct rdma_dev *d = p->dev;

	if (now - p->looked_ns < PATH_LOOK_NS)
		return;
	p->looked_ns = now;
	mc_rdma_pool_sweep(&p->rdma->pool);
	mc_rdma_notes_look(p, now);
	mc_rdma_dev_look(d);
	/* Pairs with the release in mc_rdma_dev_look(). */
	if (__atomic_load_n(&d->faults, __ATOMIC_ACQUIRE) == p->faults)
		return;
	pthread_mutex_lock(&d->event_lock);
	mc_err(-ENETDOWN, "local device %s: %s", d->v.name, d->fault);
	pthread_mutex_unlock(&d->event_lock);
	mc_path_fail(&p->base, -ENETDOWN);
}

/* Have the channel tell what comes next: true if it was asked only now, so that
 * what came before is to be looked for again. What it has told is taken from
 * it, or sleeping on it would be of no use; as that is a system call, only when
 * it must have told something, and now and then in case it did so late. */
bool mc_rdma_path_arm(struct rdma_path *p)
{
	struct ibv_cq *cq;
	void *arg;

	if (p->armed) {
		if (!p->rung && ++p->looks % PATH_LOOKS)
			return false;
		if (mc_verbs.get_cq_event(p->end.channel, &cq, &arg))
			return false;
		mc_verbs.ack_cq_events(cq, 1);
	}
	p->rung = false;
	p->armed = !ibv_req_notify_cq(p->end.cq, 0);
	return p->armed;
}

int mc_rdma_poll(struct mc_path *base, struct mc_slice **out, int max)
{
	struct rdma_path *p = path_of(base);
	bool refused = false;
	int n = 0, rounds = 0;

	if (base->err)
		return 0;
	do {
		/* What ended without a request of its own, or had no place. */
		if (p->head != p->next || p->note_answered)
			n = path_take(p, out, max);
		while (n < max && rounds < PATH_ROUNDS &&
		       path_reap(p, &refused)) {
			rounds++;
			n += path_take(p, out + n, max - n);
			if (refused) {
				path_refused(p);
				n += path_take(p, out + n, max - n);
			}
			if (p->waiting)
				path_push(p);
			if (p->notes)
				mc_rdma_notes_push(p);
		}
	} while (!n && rounds < PATH_ROUNDS && !base->err &&
		 mc_rdma_path_arm(p));
	if (!n && !base->err)
		path_look(p);
	return n;
}

/* ---- its beginning and end ------------------------------------------ */

int mc_rdma_path_probe(struct rdma_path *p, uint64_t deadline_ns)
{
	struct ibv_wc wc = { .status = IBV_WC_RETRY_EXC_ERR };
	int n, r = mc_rdma_path_memory(p);

	if (r < 0)
		return r;
	path_read_keys(p, &p->answer->root, sizeof(p->answer->root),
		       p->keys.addr, p->keys.rkey);
	while (!p->base.err && !(n = ibv_poll_cq(p->end.cq, 1, &wc)) &&
	       mc_clock_ns() < deadline_ns)
		usleep(PATH_PROBE_US);
	if (p->base.err)
		return mc_err(p->base.err, "%s", p->base.why);
	if (n != 1 || wc.status)
		return mc_err(-EHOSTUNREACH, "%s cannot be reached from %s: "
			      "%s%s", p->base.remote_dev, p->dev->v.name,
			      n ? "" : "no answer yet: ",
			      mc_verbs.wc_status_str(wc.status));
	p->done = p->posted;
	p->head = p->next;
	return 0;
}

bool mc_rdma_path_retire(struct rdma_path *p, const char *why)
{
	if (p->base.err || p->waiting || p->head != p->next || p->notes ||
	    p->note_sent || p->note_answered)
		return false;
	mc_err(-ECONNRESET, "%s: %s", p->dev->v.name, why);
	mc_path_fail(&p->base, -ECONNRESET);
	/* The channel stays, for those who sleep on it; with a strange peer the
	 * queue pair, too, which it may send on. */
	if (p->endpoint)
		return true;
	mc_verbs.destroy_qp(p->end.qp);
	p->end.qp = NULL;
	mc_rdma_part_later(p);
	return true;
}

void mc_rdma_abort(struct mc_path *base, uint64_t deadline_ns)
{
	struct rdma_path *p = path_of(base);
	uint64_t soon = mc_clock_ns() + PATH_STOP_MS * (uint64_t)MC_MS;
	bool writes = (p->waiting && p->waiting->op == MC_WRITE) ||
		      p->note_sent;

	for (uint32_t i = p->head; i != p->next; i++) {
		struct mc_slice *s = p->sent[i & p->mask].s;

		writes |= s && s->op == MC_WRITE;
	}
	mc_err(-ECANCELED, "%s: connection given up", p->base.remote_dev);
	mc_path_fail(&p->base, -ECANCELED);
	/* On an idle one a strange peer may send. */
	if (!p->endpoint || p->done != p->posted)
		mc_rdma_end_stop(&p->end, p->done == p->posted ? 0 : p->posted,
				 mc_min(soon, deadline_ns));
	/* What is still on its way in the network is for an end that no longer
	 * takes it. */
	mc_rdma_notes_settle(p, mc_rdma_part(p, writes, deadline_ns));
	p->waiting = NULL;
	p->tail = &p->waiting;
	p->head = p->next;
}

void mc_rdma_disconnect(struct mc_path *base)
{
	struct rdma_path *p = path_of(base);

	/* In a child made by fork() the queue pair is the parent's. */
	if (!*p->rdma->alive) {
		free(p->note_mem.bytes);
		free(p->answer);
		free(p->sent);
		free(p->upto);
		free(p);
		return;
	}
	mc_rdma_path_free(p);
}
