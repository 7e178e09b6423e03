/*
 * peers.c - other engines: opening their segments, asking them things over a
 * control connection, and noticing when the one on this host has gone.
 *
 * There are two control connections: one to the address of the peer, and for a
 * peer of this host one over its unix socket, which passes descriptors and
 * whose end tells that the process has ended.
 */
#include "engine.h"

#include "../base/net.h"

#include <poll.h>
#include <sys/epoll.h>

struct peer *peer_of(struct mc_engine *e, int segment)
{
	if (segment < 0 || segment >= ENGINE_PEERS)
		return NULL;
	/* Pairs with the release in segment_add(). */
	return __atomic_load_n(&e->peers[segment], __ATOMIC_ACQUIRE);
}

/* Who uses a peer counts as one of its tasks, which closing it waits for. */
struct peer *peer_use(struct mc_engine *e, int segment)
{
	struct peer *p;

	/* Between the look and the count it must not be freed. */
	pthread_mutex_lock(&e->peer_lock);
	p = peer_of(e, segment);
	if (p)
		__atomic_add_fetch(&p->tasks, 1, __ATOMIC_ACQ_REL);
	pthread_mutex_unlock(&e->peer_lock);
	return p;
}

void peer_drop(struct peer *p)
{
	if (p)
		__atomic_sub_fetch(&p->tasks, 1, __ATOMIC_ACQ_REL);
}

int peer_need(struct mc_engine *e, int segment, struct peer **out)
{
	int r = engine_check(e);

	if (r < 0)
		return r;
	*out = peer_use(e, segment);
	return *out ? 0 : mc_err(-EINVAL, "no segment %d is open", segment);
}

struct mc_peer peer_at(struct peer *p)
{
	struct mc_peer at;

	pthread_mutex_lock(&p->lock);
	at = p->at;
	pthread_mutex_unlock(&p->lock);
	return at;
}

/* ---- control connections -------------------------------------------- */

static void link_close(struct peer *p, struct link *l)
{
	if (!l->up)
		return;
	if (l == &p->local)
		mc_loop_del(&p->e->loops[0], &l->ev);
	mc_stream_fini(&l->s);
	l->up = false;
}

/* A reply nobody waits for, or the end of the stream. */
static bool link_stale(struct link *l)
{
	struct pollfd f = { .fd = l->s.fd, .events = POLLIN | POLLRDHUP };

	return poll(&f, 1, 0) > 0;
}

static void link_lost(void *arg)
{
	struct peer *p = arg;

	bool lost;

	pthread_mutex_lock(&p->local.lock);
	/* Unless another thread has noticed, and dialled anew. */
	lost = p->local.up && link_stale(&p->local);
	if (lost)
		link_close(p, &p->local);
	pthread_mutex_unlock(&p->local.lock);
	if (lost)
		rails_lost_local(p);
	__atomic_sub_fetch(&p->tasks, 1, __ATOMIC_ACQ_REL);
}

/* The process at the other end of the local link has ended, or hung up. */
static void link_on_event(struct mc_event *ev, uint32_t events)
{
	struct peer *p = mc_container_of(ev, struct peer, local.ev);

	(void)events;
	__atomic_add_fetch(&p->tasks, 1, __ATOMIC_ACQ_REL);
	if (mc_tasks_run(&p->e->tasks, link_lost, p) < 0)
		__atomic_sub_fetch(&p->tasks, 1, __ATOMIC_ACQ_REL);
}

static int link_dial(struct peer *p, struct link *l, uint64_t deadline_ns)
{
	struct mc_engine *e = p->e;
	struct mc_peer at = peer_at(p);
	char local_name[64];
	struct wire_dial d = {
		.addr = at.addr, .key = &e->key, .tls = e->tls,
		.epoch = e->epoch, .peer_epoch = at.epoch,
		.name = e->name, .deadline_ns = deadline_ns,
	};
	struct wire_welcome w;
	int r;

	if (l == &p->local) {
		snprintf(local_name, sizeof(local_name), "mooncake-%016llx",
			 (long long)at.epoch);
		d.addr = local_name;
		d.is_unix = true;
	}
	r = wire_connect(&d, &l->s, &w);
	if (r < 0)
		return r;
	l->up = true;
	if (l == &p->local) {
		l->ev = (struct mc_event){ link_on_event, l->s.fd };
		return mc_loop_add(&e->loops[0], &l->ev,
				   EPOLLRDHUP | EPOLLONESHOT);
	}
	l->epoch = w.epoch;
	pthread_mutex_lock(&p->lock);
	p->at.host_id = w.host_id;
	pthread_mutex_unlock(&p->lock);
	return 0;
}

/* Whose word the control link brought is who the peer is, if that was not
 * known. */
static void link_spoke(struct peer *p, struct link *l, struct wire_call *c)
{
	if (l != &p->control)
		return;
	c->epoch = l->epoch;
	pthread_mutex_lock(&p->lock);
	if (!p->at.epoch)
		p->at.epoch = l->epoch;
	pthread_mutex_unlock(&p->lock);
}

static int link_lock(struct peer *p, struct link *l, uint64_t deadline_ns)
{
	if (!mc_clock_lock(&l->lock, deadline_ns))
		return mc_err(-ETIMEDOUT, "%s: earlier questions are still "
			      "unanswered", p->at.name);
	return 0;
}

int peer_call(struct peer *p, struct wire_call *c, bool local,
	      uint64_t deadline_ns)
{
	struct link *l = local ? &p->local : &p->control;
	int r = link_lock(p, l, deadline_ns);

	if (r < 0)
		return r;
	if (peer_at(p).strange) {
		r = public_call(p, c, deadline_ns);
		pthread_mutex_unlock(&l->lock);
		return r;
	}
	if (l->up && link_stale(l))
		link_close(p, l);
	if (!l->up)
		r = link_dial(p, l, deadline_ns);
	if (!r)
		r = wire_call(&l->s, c, deadline_ns);
	if (!r) {
		link_spoke(p, l, c);
	} else {
		mc_err(r, "%s: %s", p->at.name, mc_errmsg());
		link_close(p, l);
	}
	pthread_mutex_unlock(&l->lock);
	return r < 0 ? r : c->status;
}

int mc_host_handshake(struct mc_host *h, const struct mc_peer *at,
		      const char *transport, const struct mc_blob *hello,
		      struct mc_blob *reply, int *fds, int *n_fds,
		      uint64_t deadline_ns)
{
	struct mc_engine *e = (void *)h;
	struct peer *p = at->engine;
	char msg[32 + MC_BLOB_MAX];
	struct wire_call c = { .kind = WIRE_HANDSHAKE, .msg = msg,
			       .want_fds = fds };
	int r, n = snprintf(msg, 32, "%s", transport) + 1;

	/* Certificates say nothing over the unix socket, so with TLS and no
	 * key nobody listens there. */
	if (fds && e->tls && !e->key.len)
		return mc_err(-EOPNOTSUPP, "TLS without a cluster key: shared "
			      "memory needs the key");
	memcpy(msg + n, hello->data, hello->len);
	c.len = n + hello->len;
	r = peer_call(p, &c, fds, deadline_ns);
	if (r < 0) {
		wire_call_free(&c);
		return r;
	}
	reply->len = mc_min(c.reply_len, (uint32_t)MC_BLOB_MAX);
	memcpy(reply->data, c.reply, reply->len);
	if (fds) {
		*n_fds = c.n_fds;
		memcpy(fds, c.fds, c.n_fds * sizeof(*fds));
		c.n_fds = 0;
	}
	wire_call_free(&c);
	return 0;
}

int mc_host_peer_pid(struct mc_host *h, const struct mc_peer *at,
		     uint64_t conn)
{
	struct mc_engine *e = (void *)h;
	struct peer *p;
	int pid = 0;

	if (conn)
		return e->server ? mc_server_peer_pid(e->server, conn) : 0;
	p = at->engine;
	pthread_mutex_lock(&p->local.lock);
	if (p->local.up)
		pid = mc_net_peer_pid(p->local.s.fd);
	pthread_mutex_unlock(&p->local.lock);
	return pid;
}

/* ---- descriptors ---------------------------------------------------- */

/* It is no longer the one it @was: all is asked anew, by the thread that finds
 * out first. */
static void peer_restarted(struct peer *p, uint64_t was)
{
	bool first;

	pthread_mutex_lock(&p->lock);
	first = was && p->at.epoch == was;
	if (first)
		p->at.epoch = 0;
	pthread_mutex_unlock(&p->lock);
	if (!first)
		return;
	mc_log(MC_INFO, "engine", "%s was restarted: asking it again",
	       p->at.name);
	rails_reset(p);
}

static int peer_describe(struct peer *p, uint64_t deadline_ns)
{
	struct desc *old = desc_get(p), *d = NULL;
	uint64_t epoch = peer_at(p).epoch;
	uint64_t since = old && old->epoch == epoch ? old->version : 0;
	struct wire_call c = { .kind = WIRE_DESCRIBE, .msg = &since,
			       .len = sizeof(since) };
	char addrs[4][MC_ADDR_MAX];
	int n_addrs = 0;
	int r = peer_call(p, &c, false, deadline_ns);

	if (!r)
		r = desc_merge(old, c.epoch, c.reply, c.reply_len, &d, addrs,
			       &n_addrs);
	if (!r) {
		pthread_mutex_lock(&p->lock);
		/* Unless a later incarnation has spoken meanwhile. */
		if (c.epoch == p->at.epoch) {
			struct desc *was = p->desc;

			p->desc = d;
			d = was;
			memcpy(p->addrs, addrs, sizeof(addrs));
			p->n_addrs = n_addrs;
		}
		pthread_mutex_unlock(&p->lock);
	}
	wire_call_free(&c);
	desc_put(old);
	desc_put(d);
	return r;
}

/* Where does the name lead now? */
static int peer_resolve(struct peer *p)
{
	struct mc_peer at = peer_at(p);
	int r = publish_resolve(p->e, at.name, &at);

	if (r < 0)
		return r;
	pthread_mutex_lock(&p->lock);
	mc_copy(p->at.addr, at.addr);
	pthread_mutex_unlock(&p->lock);
	return 0;
}

/* No one is there: a registry may know where it went. */
static bool peer_went(struct peer *p)
{
	struct mc_peer was = peer_at(p);
	char why[MC_WHY_MAX];

	mc_copy(why, mc_errmsg());
	if (!peer_resolve(p) && strcmp(was.addr, peer_at(p).addr))
		return true;
	mc_err(-ECONNREFUSED, "%s", why);
	return false;
}

int peer_refresh(struct peer *p, uint64_t deadline_ns)
{
	uint64_t was = peer_at(p).epoch;
	int r = p->e->public ? public_refresh(p, deadline_ns) : 1;

	if (r <= 0)
		return r;
	r = peer_describe(p, deadline_ns);
	if (r == -ECONNREFUSED && peer_went(p))
		r = peer_describe(p, deadline_ns);
	if (r != -ESTALE)
		return r;
	peer_restarted(p, was);
	r = peer_resolve(p);
	return r < 0 ? r : peer_describe(p, deadline_ns);
}

/* ---- segments ------------------------------------------------------- */

static struct peer *peer_new(struct mc_engine *e, const char *name)
{
	struct peer *p = calloc(1, sizeof(*p));

	if (!p)
		return NULL;
	p->e = e;
	p->pending_tail = &p->pending;
	p->at.engine = p;
	mc_copy(p->at.name, name);
	mc_copy(p->at.addr, name);
	pthread_mutex_init(&p->lock, NULL);
	pthread_mutex_init(&p->control.lock, NULL);
	pthread_mutex_init(&p->local.lock, NULL);
	pthread_mutex_init(&p->v1_lock, NULL);
	return p;
}

static void peer_free(struct peer *p)
{
	desc_put(p->desc);
	pthread_mutex_destroy(&p->lock);
	pthread_mutex_destroy(&p->control.lock);
	pthread_mutex_destroy(&p->local.lock);
	pthread_mutex_destroy(&p->v1_lock);
	mc_v1_segment_free(&p->v1);
	free(p);
}

static bool link_end(struct peer *p, struct link *l)
{
	bool was;

	pthread_mutex_lock(&l->lock);
	was = l->up;
	link_close(p, l);
	pthread_mutex_unlock(&l->lock);
	return was;
}

/* No batch uses it any more; tasks that are under way, or that the end of a
 * link begins, may still make a path, or a link, which end in another round. */
void peer_close(struct peer *p)
{
	bool again;

	do {
		again = !rails_end(p);
		again |= link_end(p, &p->control);
		again |= link_end(p, &p->local);
		mc_loop_pass(&p->e->loops[0]);
		again |= __atomic_load_n(&p->tasks, __ATOMIC_ACQUIRE) > 0;
	} while (again);
	rails_free(p);
	peer_free(p);
}

static int segment_find(struct mc_engine *e, const char *name)
{
	for (int i = 0; i < e->n_peers; i++)
		if (e->peers[i] && !strcmp(e->peers[i]->at.name, name))
			return i;
	return -1;
}

static int segment_add(struct mc_engine *e, struct peer *p)
{
	int i;

	pthread_mutex_lock(&e->peer_lock);
	i = segment_find(e, p->at.name);
	if (i >= 0) {
		pthread_mutex_unlock(&e->peer_lock);
		peer_close(p);
		return i;
	}
	for (i = 0; i < ENGINE_PEERS && e->peers[i]; i++)
		;
	if (i < ENGINE_PEERS) {
		p->id = i;
		e->n_peers = mc_max(e->n_peers, i + 1);
		/* Pairs with the acquire in peer_of(). */
		__atomic_store_n(&e->peers[i], p, __ATOMIC_RELEASE);
		count(&e->stats.peers, 1);
	}
	pthread_mutex_unlock(&e->peer_lock);
	if (i < ENGINE_PEERS)
		return i;
	peer_close(p);
	return mc_err(-ENOSPC, "%d segments are open", ENGINE_PEERS);
}

int mc_segment_open(struct mc_engine *e, const char *name, int timeout_ms)
{
	uint64_t deadline = engine_deadline(e, timeout_ms);
	struct peer *p;
	int i, r = engine_check(e);

	if (r < 0)
		return r;
	if (!name || !name[0] || strlen(name) >= MC_NAME_MAX)
		return mc_err(-EINVAL, "a segment's name has 1 to %d bytes",
			      MC_NAME_MAX - 1);
	pthread_mutex_lock(&e->peer_lock);
	i = segment_find(e, name);
	pthread_mutex_unlock(&e->peer_lock);
	if (i >= 0)
		return i;
	p = peer_new(e, name);
	if (!p)
		return mc_err(-ENOMEM, "out of memory");
	r = peer_resolve(p);
	/* Published by someone who is not one of ours. */
	if (!r || (r == -EPROTONOSUPPORT && e->public))
		r = peer_refresh(p, deadline);
	if (!r) {
		rails_build(p);
		r = rails_connect_first(p, deadline);
	}
	if (r < 0) {
		peer_close(p);
		return r;
	}
	return segment_add(e, p);
}

int mc_segment_close(struct mc_engine *e, int segment)
{
	struct peer *p;
	int r = peer_need(e, segment, &p);

	if (r < 0)
		return r;
	peer_drop(p);
	pthread_mutex_lock(&e->peer_lock);
	if (e->peers[segment] != p)
		r = mc_err(-EINVAL, "segment %d is being closed", segment);
	else if (__atomic_load_n(&p->batches, __ATOMIC_ACQUIRE))
		r = mc_err(-EBUSY, "%d batches to %s are in flight",
			   p->batches, p->at.name);
	else
		__atomic_store_n(&e->peers[segment], NULL, __ATOMIC_RELEASE);
	pthread_mutex_unlock(&e->peer_lock);
	if (r < 0)
		return r;
	count(&e->stats.peers, -1);
	peer_close(p);
	return 0;
}

int mc_segment_stat(struct mc_engine *e, int segment,
		    struct mc_segment_info *out)
{
	struct peer *p;
	struct mc_peer at;
	struct desc *d;
	int r = peer_need(e, segment, &p);

	if (r < 0)
		return r;
	d = desc_get(p);
	at = peer_at(p);
	*out = (struct mc_segment_info){ .epoch = at.epoch };
	mc_copy(out->name, at.name);
	mc_copy(out->addr, at.addr);
	if (d) {
		out->buffers = d->n;
		out->bytes = d->bytes;
	}
	desc_put(d);
	peer_drop(p);
	return 0;
}

int64_t mc_segment_topology(struct mc_engine *e, int segment, char *out,
			    uint64_t size)
{
	struct peer *p;
	struct desc *d;
	int64_t r = peer_need(e, segment, &p);

	if (r < 0)
		return r;
	d = desc_get(p);
	r = mc_matrix_give(d ? d->matrix : NULL, out, size);
	desc_put(d);
	peer_drop(p);
	return r;
}

int mc_segment_list(struct mc_engine *e, int segment, uint64_t skip,
		    struct mc_buffer_info *out, int max)
{
	struct peer *p;
	struct desc *d;
	int n = 0, r = peer_need(e, segment, &p);

	if (r < 0)
		return r;
	if (!skip)
		r = peer_refresh(p, engine_deadline(e, 0));
	d = r < 0 ? NULL : desc_get(p);
	for (; d && n < max && skip + n < d->n; n++)
		out[n] = d->buf[skip + n];
	desc_put(d);
	peer_drop(p);
	return r < 0 ? r : n;
}

static int peer_ping(struct peer *p, uint64_t deadline_ns)
{
	struct wire_call c = { .kind = WIRE_PING };
	int r = peer_call(p, &c, false, deadline_ns);

	if (r == -ESTALE)
		r = peer_refresh(p, deadline_ns);
	wire_call_free(&c);
	return r;
}

int mc_probe(struct mc_engine *e, int segment, int timeout_ms, double *rtt_us)
{
	struct peer *p;
	uint64_t start;
	int r = peer_need(e, segment, &p);

	if (r < 0)
		return r;
	/* The first makes sure of the connection, the second is measured. */
	r = peer_ping(p, engine_deadline(e, timeout_ms));
	start = mc_clock_ns();
	if (!r)
		r = peer_ping(p, engine_deadline(e, timeout_ms));
	if (!r)
		*rtt_us = (mc_clock_ns() - start) / 1e3;
	peer_drop(p);
	return r;
}
