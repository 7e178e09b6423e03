/*
 * rdma_connect.c - two ends meet: the one that will send says hello over the
 * control connection, the other makes an end to answer it, and a first read
 * shows that bytes flow before the path is used.
 *
 * Which of its devices answers is the peer's choice: one of the same subnet
 * before others; the one that is wished for, else the one of the same number,
 * before those after it; and none whose port is down.
 */
#include "rdma.h"
#include "wire.h"

#include "../base/clock.h"
#include "../base/err.h"
#include "../base/util.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>
#include <unistd.h>

enum {
	CONNECT_MAGIC = 0x6d63524d,
	CONNECT_VERSION = 3,
	CONNECT_RD_ATOMIC = 16,
	CONNECT_ORPHAN_MS = 60000,	/* one whose connection has gone */
	CONNECT_PART_MS = 50,		/* for a word on an idle path */
	CONNECT_LATER_MS = 1000,	/* when no one waits for it */
	CONNECT_AGAIN_US = 10000,
};

enum connect_op { CONNECT_MEET, CONNECT_PART };

struct rdma_hello {
	uint32_t magic;
	uint16_t version;
	uint8_t op, n_gids;
	uint64_t epoch;			/* of who says it */
	uint64_t token;			/* CONNECT_PART: which end */
	uint32_t qpn, psn;
	uint32_t mtu;
	uint16_t lid;
	uint8_t rd_atomic, ethernet;
	uint32_t turn;
	char dev[32];
	char wish[32];			/* the device to answer; or "" */
	uint8_t gids[VERBS_GIDS][16];
	char name[MC_NAME_MAX];		/* of who says it */
};

struct rdma_welcome {
	uint32_t magic;
	uint16_t version;
	uint16_t lid;
	uint64_t epoch, token;
	uint32_t qpn, psn;
	uint32_t mtu;
	uint8_t rd_atomic, gid_of;	/* the caller's GID that is meant */
	uint8_t chunk_bits;		/* of the answerer's buffers */
	uint8_t known;			/* CONNECT_PART: there was such an end,
					 * which has taken */
	uint32_t notes;			/* so many notifications */
	uint64_t keys_addr;
	uint32_t keys_rkey;
	char dev[32];
	uint8_t gid[16];
};

/* ---- ends that answer ----------------------------------------------- */

/* Take out those that @leaves says yes to; they are then ended without the
 * lock, as the device may take its time. */
static struct rdma_served *served_take(struct rdma_ctx *c,
		bool (*leaves)(const struct rdma_served *s, uint64_t arg),
		uint64_t arg)
{
	struct rdma_served **at = &c->served, *out = NULL;

	pthread_mutex_lock(&c->served_lock);
	while (*at) {
		struct rdma_served *s = *at;

		if (!leaves(s, arg)) {
			at = &s->next;
			continue;
		}
		*at = s->next;
		s->next = out;
		out = s;
		c->n_served--;
	}
	pthread_mutex_unlock(&c->served_lock);
	return out;
}

static void served_end(struct rdma_served *s)
{
	while (s) {
		struct rdma_served *next = s->next;

		mc_rdma_end_close(&s->end);
		mc_rdma_note_mem_close(&s->note_mem);
		free(s);
		s = next;
	}
}

static bool served_any(const struct rdma_served *s, uint64_t arg)
{
	(void)s;
	(void)arg;
	return true;
}

static bool served_is(const struct rdma_served *s, uint64_t token)
{
	return s->token == token;
}

static bool served_is_old(const struct rdma_served *s, uint64_t before_ns)
{
	return !s->conn && s->gone_ns < before_ns;
}

void mc_rdma_served_fini(struct rdma_ctx *c)
{
	served_end(served_take(c, served_any, 0));
	pthread_mutex_destroy(&c->served_lock);
}

static void served_sweep(struct rdma_ctx *c)
{
	const uint64_t old = CONNECT_ORPHAN_MS * (uint64_t)MC_MS;
	uint64_t now = mc_clock_ns();

	if (now > old)
		served_end(served_take(c, served_is_old, now - old));
}

/* Its engine may only have lost the control connection, and make another: the
 * paths work on. If it does not come back, they are ended later. */
void mc_rdma_gone(void *ctx, uint64_t conn)
{
	struct rdma_ctx *c = ctx;

	pthread_mutex_lock(&c->served_lock);
	for (struct rdma_served *s = c->served; s; s = s->next)
		if (s->conn == conn) {
			s->conn = 0;
			s->gone_ns = mc_clock_ns();
		}
	pthread_mutex_unlock(&c->served_lock);
}

static struct rdma_served *served_new(const struct rdma_hello *h,
				      uint64_t conn)
{
	struct rdma_served *s = calloc(1, sizeof(*s));

	if (!s) {
		mc_err(-ENOMEM, "out of memory");
		return NULL;
	}
	s->epoch = h->epoch;
	s->conn = conn;
	mc_copy(s->peer, h->name);
	while (!s->token)
		if (getrandom(&s->token, sizeof(s->token), 0) < 0)
			s->token = mc_clock_ns();
	return s;
}

static int served_add(struct rdma_ctx *c, struct rdma_served *s)
{
	int max = mc_env_number("MC_MAX_EP_PER_CTX", 1, 65535, RDMA_SERVED);
	bool full;

	pthread_mutex_lock(&c->served_lock);
	full = c->n_served >= max;
	for (struct rdma_served *o = c->served; o; o = o->next)
		if (o->epoch == s->epoch && !o->conn)
			o->conn = s->conn;
	if (!full) {
		s->next = c->served;
		c->served = s;
		c->n_served++;
	}
	pthread_mutex_unlock(&c->served_lock);
	return !full ? 0 : mc_err(-ENOSPC, "rdma: %d paths of peers are "
				  "answered here already", max);
}

/* ---- the end that answers ------------------------------------------- */

/* The first GID of each that suit one another. */
static bool connect_gids(const struct rdma_hello *h,
			 const struct verbs_port *port, bool near, int *theirs,
			 int *ours)
{
	for (int i = 0; i < h->n_gids; i++) {
		*theirs = i;
		*ours = mc_verbs_port_gid(port, h->gids[i], near);
		if (*ours >= 0)
			return true;
	}
	*theirs = *ours = 0;
	return !near && h->n_gids && port->n_gids;
}

static int connect_answer_on(struct rdma_ctx *c, struct rdma_dev *d,
			     const struct verbs_port *port,
			     const struct rdma_hello *h, uint64_t conn,
			     int theirs, int ours, struct rdma_welcome *w)
{
	struct rdma_far far = {
		.qpn = h->qpn, .psn = h->psn, .lid = h->lid,
		.mtu = mc_min((int)h->mtu, port->mtu),
		.rd_atomic = mc_min(h->rd_atomic, d->v.attr.max_qp_rd_atom),
		.sgid_index = port->gids[ours].index,
	};
	struct rdma_served *s = served_new(h, conn);
	int r;

	if (!s)
		return -ENOMEM;
	memcpy(far.gid, h->gids[theirs], 16);
	r = mc_rdma_end_open(d, false, &s->end);
	if (!r)
		r = mc_rdma_end_join(d, &s->end, &far);
	if (!r)
		r = mc_rdma_notes_receive(d, s);
	if (!r) {
		w->token = s->token;
		w->qpn = s->end.qp->qp_num;
		w->psn = s->end.psn;
		r = served_add(c, s);
	}
	if (r < 0) {
		served_end(s);
		return r;
	}
	w->lid = port->lid;
	w->mtu = far.mtu;
	w->rd_atomic = far.rd_atomic;
	w->gid_of = theirs;
	w->chunk_bits = c->chunk_bits;
	w->keys_addr = (uintptr_t)d->keys.root;
	w->keys_rkey = d->keys.root_mr->rkey;
	mc_copy(w->dev, d->v.name);
	memcpy(w->gid, port->gids[ours].gid.raw, 16);
	return 0;
}

/* 1: this device does not suit. */
static int connect_try(struct rdma_ctx *c, struct rdma_dev *d,
		       const struct rdma_hello *h, uint64_t conn, bool near,
		       struct rdma_welcome *w)
{
	struct verbs_port port;
	int theirs, ours, r = mc_verbs_port(&d->v, &port);

	if (r < 0)
		return mc_err(r, "rdma: %s", mc_errmsg());
	if (!port.up)
		return mc_err(-ENETDOWN, "rdma: %s port %d is down",
			      d->v.name, port.num);
	if (port.ethernet != h->ethernet)
		return mc_err(-EOPNOTSUPP, "rdma: %s is on %s, there is only "
			      "%s here", h->dev, h->ethernet ? "RoCE" :
			      "InfiniBand", h->ethernet ? "InfiniBand" :
			      "RoCE");
	if (!connect_gids(h, &port, near, &theirs, &ours))
		return mc_err(-ENETUNREACH, "rdma: no GID of %s suits %s",
			      h->dev, d->v.name);
	return connect_answer_on(c, d, &port, h, conn, theirs, ours, w);
}

/* The device to begin with. */
static int connect_start(const struct rdma_ctx *c, const struct rdma_hello *h)
{
	for (int i = 0; i < c->n_devs; i++)
		if (!strcmp(c->devs[i].v.name, h->wish))
			return i;
	return h->turn % c->n_devs;
}

static int connect_answer(struct rdma_ctx *c, const struct rdma_hello *h,
			  uint64_t conn, struct rdma_welcome *w)
{
	int r = -EOPNOTSUPP, last = r, start = connect_start(c, h);

	for (int near = 1; near >= 0; near--)
		for (int i = 0; i < c->n_devs; i++) {
			int k = (start + i) % c->n_devs;

			r = connect_try(c, &c->devs[k], h, conn, near, w);
			if (!r)
				return 0;
			/* One that may do later is what we speak of. */
			if (last == -EOPNOTSUPP || r != -EOPNOTSUPP)
				last = r;
		}
	return last == r ? r : mc_err(last, "%s", mc_errmsg());
}

static void connect_end_task(void *arg)
{
	served_end(arg);
}

/* Nothing is received once it is stopped, and who asks waits for that; to end
 * it may take a second, for packets that a port which is down holds on to. */
static void connect_answer_part(struct rdma_ctx *c, uint64_t token,
				struct rdma_welcome *w)
{
	struct rdma_served *s = served_take(c, served_is, token);

	if (!s)
		return;
	w->known = true;
	w->notes = s->notes;
	mc_rdma_end_stop(&s->end, 0, 0);
	if (mc_tasks_run(&c->tasks, connect_end_task, s) < 0)
		served_end(s);
}

int mc_rdma_accept(void *ctx, uint64_t conn, const struct mc_blob *hello,
		   struct mc_blob *reply, int *fds, int *n_fds)
{
	struct rdma_ctx *c = ctx;
	struct rdma_welcome w = { .magic = CONNECT_MAGIC,
				  .version = CONNECT_VERSION,
				  .epoch = mc_host_epoch(c->host) };
	struct rdma_hello h;
	int r = 0;

	(void)fds;
	*n_fds = 0;
	if (hello->len != sizeof(h))
		return mc_err(-EPROTO, "rdma: malformed hello");
	memcpy(&h, hello->data, sizeof(h));
	h.dev[sizeof(h.dev) - 1] = h.wish[sizeof(h.wish) - 1] = 0;
	h.name[sizeof(h.name) - 1] = 0;
	if (h.magic != CONNECT_MAGIC || h.n_gids > VERBS_GIDS)
		return mc_err(-EPROTO, "rdma: malformed hello");
	if (h.version != CONNECT_VERSION)
		return mc_err(-EOPNOTSUPP, "rdma: version %d here, %d there",
			      CONNECT_VERSION, h.version);
	served_sweep(c);
	if (h.op == CONNECT_PART)
		connect_answer_part(c, h.token, &w);
	else
		r = connect_answer(c, &h, conn, &w);
	if (r < 0)
		return r;
	reply->len = sizeof(w);
	memcpy(reply->data, &w, sizeof(w));
	return 0;
}

/* ---- the end that sends --------------------------------------------- */

static void connect_hello(struct rdma_path *p, const struct verbs_port *port,
			  int dev, struct rdma_hello *h)
{
	struct rdma_dev *d = p->dev;

	*h = (struct rdma_hello){
		.magic = CONNECT_MAGIC, .version = CONNECT_VERSION,
		.op = CONNECT_MEET, .epoch = mc_host_epoch(p->rdma->host),
		.qpn = p->end.qp->qp_num, .psn = p->end.psn, .lid = port->lid,
		.mtu = port->mtu, .ethernet = port->ethernet,
		.rd_atomic = mc_min(CONNECT_RD_ATOMIC,
				    d->v.attr.max_qp_init_rd_atom),
		.turn = dev + __atomic_load_n(&d->turn, __ATOMIC_RELAXED),
		.n_gids = port->n_gids,
	};
	mc_copy(h->dev, d->v.name);
	mc_copy(h->wish, p->peer.wish);
	mc_copy(h->name, mc_host_name(p->rdma->host));
	for (int i = 0; i < port->n_gids; i++)
		memcpy(h->gids[i], port->gids[i].gid.raw, 16);
}

/* What the peer says is used with care: it may be of any version. */
static int connect_take(struct rdma_path *p, const struct verbs_port *port,
			const struct mc_blob *blob)
{
	struct rdma_welcome w;
	struct rdma_far far;

	if (blob->len != sizeof(w))
		return mc_err(-EPROTO, "an answer that makes no sense");
	memcpy(&w, blob->data, sizeof(w));
	w.dev[sizeof(w.dev) - 1] = 0;
	if (w.magic != CONNECT_MAGIC || w.gid_of >= port->n_gids ||
	    w.chunk_bits < RDMA_CHUNK_MIN || w.chunk_bits > RDMA_CHUNK_MAX)
		return mc_err(-EPROTO, "an answer that makes no sense");
	p->token = w.token;
	if (p->peer.epoch && w.epoch != p->peer.epoch)
		return mc_err(-ESTALE, "it was restarted");
	p->keys.addr = w.keys_addr;
	p->keys.rkey = w.keys_rkey;
	p->chunk_bits = w.chunk_bits;
	snprintf(p->base.remote_dev, sizeof(p->base.remote_dev), "%.40s/%s",
		 p->peer.name, w.dev);
	far = (struct rdma_far){
		.qpn = w.qpn, .psn = w.psn, .lid = w.lid,
		.mtu = mc_min((int)w.mtu, port->mtu),
		.rd_atomic = w.rd_atomic,
		.sgid_index = port->gids[w.gid_of].index,
	};
	memcpy(far.gid, w.gid, 16);
	return mc_rdma_end_join(p->dev, &p->end, &far);
}

static int connect_meet(struct rdma_path *p, int dev, uint64_t deadline_ns)
{
	struct mc_blob blob = { .len = sizeof(struct rdma_hello) };
	struct verbs_port port;
	struct rdma_hello h;
	int r = mc_verbs_port(&p->dev->v, &port);

	if (r < 0)
		return r;
	if (!port.up)
		return mc_err(-ENETDOWN, "local device %s: port %d is down",
			      p->dev->v.name, port.num);
	r = mc_rdma_end_open(p->dev, true, &p->end);
	if (r < 0)
		return r;
	connect_hello(p, &port, dev, &h);
	memcpy(blob.data, &h, sizeof(h));
	r = mc_host_handshake(p->rdma->host, &p->peer, "rdma", &blob, &blob,
			      NULL, NULL, deadline_ns);
	if (r < 0)
		return r;
	r = connect_take(p, &port, &blob);
	if (!r)
		r = mc_rdma_path_probe(p, deadline_ns);
	if (!r)
		r = mc_rdma_notes_open(p);
	/* Another of the peer's devices may do better; after a wish the engine
	 * tries without it. */
	if (r < 0 && !p->peer.wish[0])
		__atomic_add_fetch(&p->dev->turn, 1, __ATOMIC_RELAXED);
	return r;
}

int mc_rdma_connect(void *ctx, const struct mc_peer *peer, int dev,
		    uint64_t deadline_ns, struct mc_path **out)
{
	struct rdma_path *p = mc_rdma_path_new(ctx, dev, peer);
	char why[MC_WHY_MAX];
	int r;

	if (!p)
		return mc_err(-ENOMEM, "out of memory");
	if (peer->strange) {
		r = mc_rdma_endpoint_connect(p, dev, deadline_ns);
		if (!r)
			r = mc_rdma_path_memory(p);
	} else {
		r = connect_meet(p, dev, deadline_ns);
	}
	if (!r) {
		p->base.fd = p->end.channel->fd;
		mc_rdma_path_arm(p);
		mc_rdma_pool_add(&p->rdma->pool, p);
		*out = &p->base;
		return 0;
	}
	snprintf(why, sizeof(why), "%s: %.200s", p->dev->v.name, mc_errmsg());
	if (p->endpoint)
		mc_rdma_endpoint_release(p, true);
	mc_rdma_part(p, false, deadline_ns);
	mc_rdma_path_free(p);
	return mc_err(r, "%s", why);
}

/* ---- parting -------------------------------------------------------- */

/* What is left of a path once its end has gone: the one at the peer. */
struct connect_far {
	struct mc_host *host;
	struct mc_peer peer;
	uint64_t token;
};

/* What the peer says of notifications, to be used with care. */
static int64_t connect_parted(const struct wire_call *c)
{
	struct rdma_welcome w;

	if (c->reply_len != sizeof(w))
		return -1;
	memcpy(&w, c->reply, sizeof(w));
	return w.magic == CONNECT_MAGIC && w.known ? (int64_t)w.notes : -1;
}

/* One try, on a connection of its own: true when another is of no use. */
static bool connect_ask_part(const struct connect_far *f, uint64_t deadline_ns,
			     int64_t *notes)
{
	struct wire_dial d = {
		.addr = f->peer.addr, .key = mc_host_key(f->host),
		.tls = mc_host_tls(f->host), .epoch = mc_host_epoch(f->host),
		.peer_epoch = f->peer.epoch, .name = mc_host_name(f->host),
		.deadline_ns = deadline_ns,
	};
	struct rdma_hello h = { .magic = CONNECT_MAGIC, .op = CONNECT_PART,
				.version = CONNECT_VERSION,
				.token = f->token };
	char msg[8 + sizeof(h)] = "rdma";
	struct wire_call call = { .kind = WIRE_HANDSHAKE, .msg = msg,
				  .len = 5 + sizeof(h) };
	struct mc_stream s;
	struct wire_welcome w;
	int r = wire_connect(&d, &s, &w);

	/* No one listens, or another engine: the old one is gone. */
	if (r < 0)
		return r == -ECONNREFUSED || r == -ESTALE;
	memcpy(msg + 5, &h, sizeof(h));
	r = wire_call(&s, &call, deadline_ns);
	if (!r && !call.status)
		*notes = connect_parted(&call);
	if (r < 0)
		mc_log(MC_DEBUG, "rdma", "%s: no word on what was in flight: "
		       "%s", f->peer.addr, mc_errmsg());
	wire_call_free(&call);
	mc_stream_fini(&s);
	return !r;
}

int64_t mc_rdma_part(struct rdma_path *p, bool patient, uint64_t deadline_ns)
{
	uint64_t soon = mc_clock_ns() + CONNECT_PART_MS * (uint64_t)MC_MS;
	struct connect_far f = { p->rdma->host, p->peer, p->token };
	int64_t notes = -1;

	if (!p->token)
		return notes;
	if (!patient)
		deadline_ns = mc_min(deadline_ns, soon);
	while (!connect_ask_part(&f, deadline_ns, &notes) && patient &&
	       mc_clock_ns() < deadline_ns)
		usleep(CONNECT_AGAIN_US);
	p->token = 0;
	return notes;
}

static void connect_part_task(void *arg)
{
	struct connect_far *f = arg;
	int64_t notes;

	connect_ask_part(f, mc_clock_ns() + CONNECT_LATER_MS *
			 (uint64_t)MC_MS, &notes);
	free(f);
}

void mc_rdma_part_later(struct rdma_path *p)
{
	struct connect_far *f = malloc(sizeof(*f));

	if (!f || !p->token) {
		free(f);
		return;
	}
	*f = (struct connect_far){ p->rdma->host, p->peer, p->token };
	if (mc_tasks_run(&p->rdma->tasks, connect_part_task, f) < 0)
		free(f);
	else
		p->token = 0;
}
